//! The replicas on this node: which run, and how they are made, opened and removed.
//!
//! * [`Registry`] knows them. Services reach a partition only through [`Registry::open`], which takes a
//!   permit; other nodes reach replicas through [`Registry::for_peer`], and those that do not run yet, for what they need
//!   to start their own, through [`Registry::unstarted`].
//! * [`Keeper`] makes, opens and removes them by the rules of the data directory, restarts one in place, and has one go on
//!   with the log of a former one.
//!
//! Deliberately absent: which replicas there should be; that is the controller's business.

mod catching_up;
mod hosted;
mod keeper;
mod registry;
mod restart;
mod take_over;
#[cfg(test)]
mod tests;

pub(crate) use catching_up::CatchingUp;
pub(crate) use hosted::Hosted;
pub use keeper::ReplicaError;
pub(crate) use keeper::{Keeper, KeeperOptions, Prepared};
pub(crate) use registry::{CATALOG_GROUP, Opened, Place, Registry};
pub(crate) use take_over::Successor;
