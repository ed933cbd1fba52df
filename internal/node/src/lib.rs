//! One running server: the port, the peer link, gossip, services and access.

mod access;
mod batch;
mod config;
mod data_dir;
mod error;
mod founding;
pub mod gossip;
mod hex;
pub mod identity;
pub mod link;
pub mod port;
mod record_file;
mod status;
pub mod tls;

use std::net::SocketAddr;

pub use config::{Config, ConfigError, TlsConfig};
pub use data_dir::DataDirError;
pub use error::{Failure, StartError};

/// One node of a cluster.
pub struct Node;

impl Node {
    /// Checks the configuration, takes the data directory and the port, and starts everything. Returns as soon as the
    /// port is served; finding or founding the cluster goes on behind it (see [`NodeHandle::ready`]).
    pub async fn start(config: Config) -> Result<NodeHandle, StartError> {
        config.validate()?;
        Err(StartError::Internal("not built yet".to_owned()))
    }
}

/// A running node. Dropping it does not stop it in an orderly way; call [`NodeHandle::shutdown`].
pub struct NodeHandle {
    address: SocketAddr,
}

impl NodeHandle {
    /// The address that the port listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the node is a caught-up member of its cluster at this moment.
    pub fn is_ready(&self) -> bool {
        false
    }

    /// Waits until [`NodeHandle::is_ready`].
    pub async fn ready(&self) {
        std::future::pending().await
    }

    /// Waits until something has failed that the node cannot go on from. The caller must end the process.
    pub async fn failed(&self) -> Failure {
        std::future::pending().await
    }

    /// Tells clients to go elsewhere, gives leaderships away, ends the streams, and closes the logs.
    pub async fn shutdown(self) {}
}
