//! Why a node did not start, and why a running one had to end.

use std::net::SocketAddr;

use crate::config::ConfigError;
use crate::data_dir::DataDirError;

/// Why a node could not be started. Nothing was founded, joined or deleted.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A field of the configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate, key or authority cannot be read or used, or is not this node's.
    #[error("certificate: {0}")]
    Credentials(String),
    /// The data directory is in use, of another node or cluster, or cannot be used.
    #[error(transparent)]
    DataDirectory(#[from] DataDirError),
    /// The port cannot be listened on.
    #[error("cannot listen on {address}: {why}")]
    Port {
        /// What `listen` says.
        address: String,
        /// What the system said.
        why: String,
    },
    /// The admin listener's port cannot be listened on.
    #[error("cannot listen on {address} for the admin listener: {why}")]
    AdminPort {
        /// What `admin_listen` says.
        address: String,
        /// What the system said.
        why: String,
    },
    /// A part of the node could not be started for another reason.
    #[error("{0}")]
    Internal(String),
}

impl StartError {
    /// What a person can do about it, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            StartError::Config(_) => "correct the field and start again",
            StartError::Credentials(_) => "check the paths under `tls` and the certificate's names and dates",
            StartError::DataDirectory(error) => error.hint(),
            StartError::Port { .. } => "end the process that uses the port, or choose another one with `listen`",
            StartError::AdminPort { .. } => {
                "end the process that uses the port, or choose another one with `admin_listen`; an empty one turns it off"
            }
            StartError::Internal(_) => "this is a defect; report it with the node's output",
        }
    }
}

/// Why a running node must end. The process should report it and exit with an error; a restart may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Writing or syncing failed; what is on the disk is no longer known, so nothing may be written any more.
    #[error("the disk writer failed: {0}")]
    Disk(String),
    /// The catalog's replica could not be opened or started; without it the node cannot take part. Another start meets the
    /// same, unless the cause was removed.
    #[error("the catalog cannot be opened: {0}")]
    Unopened(String),
    /// A replica stopped without being asked to.
    #[error("the replica of group {group} stopped: {why}")]
    Replica {
        /// The Raft group; 0 is the catalog.
        group: u64,
        /// What it reported.
        why: String,
    },
    /// The port or the gRPC server ended.
    #[error("the port {address} stopped: {why}")]
    Port {
        /// Where it listened.
        address: SocketAddr,
        /// What it reported.
        why: String,
    },
    /// A part of the node panicked. What it was doing is left as it was.
    #[error("a part of the node panicked: {0}")]
    Panicked(String),
    /// The cluster or the data directory tells something that cannot be true of a sound cluster.
    #[error("{0}")]
    Inconsistent(String),
}

impl Failure {
    /// What a person can do about it, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Failure::Unopened(_) => {
                "keep the directory for inspection, and give the node an empty one: it comes back under a new incarnation"
            }
            _ => "look at the lines above, then start the node again on the same data directory",
        }
    }
}
