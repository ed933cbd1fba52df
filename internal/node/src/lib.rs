//! One running server: the port, the peer link, gossip, services and access.

pub mod gossip;
pub mod identity;
pub mod link;
pub mod port;
pub mod tls;

#[cfg(test)]
mod test_ca;
#[cfg(test)]
mod test_node;
