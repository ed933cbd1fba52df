//! How many connections of clients may be open: in all, from one address, and of one identity.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::crowd::{Crowd, Ticket};
use super::shares::{Share, Shares, source_of};
use super::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, CONNECTIONS_PER_IDENTITY_MAX, Peer};
use crate::identity::Identity;

/// The places that there are for connections after their handshake.
#[derive(Debug)]
pub(super) struct Places {
    in_all: Arc<Semaphore>,
    by_source: Shares<IpAddr>,
    by_identity: Shares<Identity>,
}

/// What an open connection takes of what is allowed, in all, for its address and for its identity.
#[derive(Debug)]
pub(super) struct Place {
    _in_all: OwnedSemaphorePermit,
    _of_source: Share<IpAddr>,
    _of_identity: Share<Identity>,
    _ticket: Ticket,
}

impl Default for Places {
    fn default() -> Self {
        Places {
            in_all: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            by_source: Shares::new(CONNECTIONS_PER_ADDRESS_MAX),
            by_identity: Shares::new(CONNECTIONS_PER_IDENTITY_MAX),
        }
    }
}

impl Places {
    /// One for a connection, which counts among those of `crowd`; or why there is none.
    pub(super) fn take(&self, peer: &Peer, crowd: &Crowd) -> Result<Place, String> {
        let in_all = self.in_all.clone().try_acquire_owned();
        let of_source = self.by_source.take(source_of(peer.remote_addr.ip()));
        let of_identity = self.by_identity.take(peer.identity.clone());
        Ok(Place {
            _in_all: in_all.map_err(|_| format!("{CONNECTIONS_MAX} connections are open"))?,
            _of_source: of_source
                .ok_or_else(|| format!("{CONNECTIONS_PER_ADDRESS_MAX} connections from its address are open"))?,
            _of_identity: of_identity.ok_or_else(|| {
                let identity = &peer.identity;
                format!("{CONNECTIONS_PER_IDENTITY_MAX} connections of {identity} are open")
            })?,
            _ticket: crowd.enter(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::quotas::{ConnectionShare, Payers};

    /// A client at a machine; each connection of it is of another one.
    fn client(machine: u8, number: usize) -> Peer {
        Peer {
            identity: Identity::Client {
                cluster: "prod".to_owned(),
                tenant: "shop".to_owned(),
                name: format!("app-{machine}-{number}"),
            },
            remote_addr: ([192, 0, 2, machine], 1).into(),
            share: ConnectionShare::new(Payers::default()),
            in_flight: Arc::new(Semaphore::new(0)),
        }
    }

    /// So many as there is room for, and why there is no more.
    fn all_of(places: &Places, crowd: &Crowd, peer: impl Fn(usize) -> Peer) -> (Vec<Place>, String) {
        let mut taken = Vec::new();
        loop {
            match places.take(&peer(taken.len()), crowd) {
                Ok(place) => taken.push(place),
                Err(why) => return (taken, why),
            }
        }
    }

    #[test]
    fn one_machine_has_half_of_all_whoever_it_says_to_be_and_all_are_8192() {
        let (places, crowd) = (Places::default(), Crowd::default());
        let (first, why) = all_of(&places, &crowd, |number| client(1, number));
        assert_eq!(
            (first.len(), why.as_str()),
            (4096, "4096 connections from its address are open")
        );
        let (second, _) = all_of(&places, &crowd, |number| client(2, number));
        assert_eq!((second.len(), crowd.count()), (4096, 8192));
        let why = places.take(&client(3, 0), &crowd).unwrap_err();
        assert_eq!(why, "8192 connections are open");
        drop(second);
        places.take(&client(3, 0), &crowd).unwrap();
        let why = places.take(&client(1, 9_999), &crowd).unwrap_err();
        assert!(why.contains("from its address"), "{why}");
        drop(first);
        assert_eq!(crowd.count(), 0, "who was refused holds nothing");
        assert_eq!(all_of(&places, &crowd, |number| client(1, number)).0.len(), 4096);
    }

    #[test]
    fn one_identity_has_512_wherever_it_comes_from() {
        let (places, crowd) = (Places::default(), Crowd::default());
        let app = |number: usize| Peer {
            identity: client(0, 0).identity,
            ..client((number % 100) as u8, 0)
        };
        let (taken, why) = all_of(&places, &crowd, app);
        assert_eq!(taken.len(), 512);
        assert!(
            why.starts_with("512 connections of spiffe://prod/tenant/shop/"),
            "{why}"
        );
    }
}
