//! Who is shaking hands at the moment, so that one address cannot take all the places.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::HANDSHAKES_PER_ADDRESS_MAX;

/// Handshakes going on, by where they come from; cheap to clone. No more entries than handshakes.
#[derive(Debug, Clone, Default)]
pub(super) struct Handshakes {
    by_source: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One handshake's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    handshakes: Handshakes,
    source: IpAddr,
}

impl Handshakes {
    /// A place for a handshake with `address`; None if it has its share.
    pub(super) fn begin(&self, address: IpAddr) -> Option<Place> {
        let source = source_of(address);
        let mut by_source = self.lock();
        let going_on = by_source.entry(source).or_default();
        if *going_on >= HANDSHAKES_PER_ADDRESS_MAX {
            return None;
        }
        *going_on += 1;
        let handshakes = self.clone();
        Some(Place { handshakes, source })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_source = self.handshakes.lock();
        if let Some(going_on) = by_source.get_mut(&self.source) {
            *going_on -= 1;
            if *going_on == 0 {
                by_source.remove(&self.source);
            }
        }
    }
}

/// A machine has a whole /64 of IPv6 addresses to choose from.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_has_its_share_and_leaves_the_rest_to_others() {
        let handshakes = Handshakes::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut places: Vec<Place> = std::iter::from_fn(|| handshakes.begin(one)).collect();
        assert_eq!(places.len(), HANDSHAKES_PER_ADDRESS_MAX);
        assert!(handshakes.begin("::ffff:10.0.0.1".parse().unwrap()).is_none());
        assert!(handshakes.begin(other).is_some());
        places.pop();
        places.extend(handshakes.begin(one));
        assert_eq!(places.len(), HANDSHAKES_PER_ADDRESS_MAX);
        drop(places);
        assert!(handshakes.lock().is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share() {
        let source = |address: &str| source_of(address.parse().unwrap());
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    }
}
