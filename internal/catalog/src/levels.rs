//! The feature levels: what builds learn to read and to follow, in one table.
//!
//! A build supports every level up to its [`FEATURE_LEVEL`]. A cluster is at the highest level that all its nodes support, and
//! never falls back. What a lower level could not read (a command, a field of one, a rule of the logs of partitions) is neither
//! proposed nor stored before the cluster is there.
//!
//! A new command or field takes the highest level of the table if no build with that level was released, and else a new one.
//! [`Command::feature_level`](crate::Command::feature_level) says which one a command needs; what is stored is checked against
//! the level when a checkpoint is read.

/// Where every cluster begins: everything up to and including the replacement of dead replicas in place.
pub const FIRST_LEVEL: u32 = 1;
/// Topics and placements that change, nodes that leave, and settings of the cluster.
pub const CHANGES_LEVEL: u32 = 2;
/// Consumer groups: claims, offset commits and forgotten groups in the logs of partitions. Nothing of the catalog's own.
pub const GROUPS_LEVEL: u32 = 3;
/// What operators decide: tenants, who may do what and how much, and how long unused groups are kept.
pub const POLICIES_LEVEL: u32 = 4;

/// The highest feature level that this build supports.
pub const FEATURE_LEVEL: u32 = POLICIES_LEVEL;
