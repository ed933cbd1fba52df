//! Who has how many of something, so that one address or one identity cannot take all of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is held at the moment, by whom; cheap to clone. No more entries than there are shares held.
#[derive(Debug, Clone)]
pub(crate) struct Shares<K> {
    each_max: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

/// One of somebody's shares; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share<K: Hash + Eq> {
    shares: Shares<K>,
    owner: K,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    /// At most `each_max` for each owner.
    pub(crate) fn new(each_max: usize) -> Shares<K> {
        Shares {
            each_max,
            held: Arc::default(),
        }
    }

    /// One more for `owner`; None if it has all that it may have.
    pub(crate) fn take(&self, owner: K) -> Option<Share<K>> {
        let mut held = self.lock();
        let count = held.entry(owner.clone()).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        let shares = self.clone();
        Some(Share { shares, owner })
    }
}

impl<K> Shares<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.shares.lock();
        if let Some(count) = held.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.owner);
            }
        }
    }
}

/// Whom an address stands for: a machine has a whole /64 of IPv6 addresses to choose from.
pub(crate) fn source_of(address: IpAddr) -> IpAddr {
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
    fn each_has_its_share_and_leaves_the_rest_to_others() {
        let shares = Shares::new(3);
        let mut held: Vec<Share<&str>> = std::iter::from_fn(|| shares.take("one")).collect();
        assert_eq!(held.len(), 3);
        assert!(shares.take("other").is_some());
        held.pop();
        held.extend(shares.take("one"));
        assert_eq!(held.len(), 3);
        drop(held);
        assert!(shares.lock().is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share() {
        let source = |address: &str| source_of(address.parse().unwrap());
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
    }
}
