//! Real clusters for tests: node processes of the built binary, as users run them.
//!
//! [`TestCluster`] makes certificates, data directories and ports, starts and kills nodes, and asks them how they
//! are, all through the `highwater` command. Nothing here reaches into a node: what a test sees, an operator sees.
//!
//! Rules: loopback only; ports are reserved for the life of the cluster, also while a node is down; every wait
//! has a deadline and waits for a condition; a failing test shows the end of every node's log.

pub mod chaos;
mod cluster;
pub mod collector;
mod command;
pub mod groups;
pub mod http;
pub mod markdown;
mod measured;
mod node;
pub mod pauses;
mod ports;
mod program;
mod read_from;
pub mod repository;
mod stream;

pub use cluster::TestCluster;
pub use command::{Finished, binary, eventually, previous_binary, run, run_with_input, wait};
pub use measured::measured;
pub use node::TestNode;
pub use ports::ReservedPort;
pub use program::{Program, beside, without_settings};
pub use read_from::ReadFrom;
pub use stream::{Acknowledgement, Consuming, Produced, Producing};
