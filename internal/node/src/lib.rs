//! One running server: the port, the peer link, gossip, services and access.
