//! What bodies, batches that are read and answers may take of the memory: over all connections, and for one principal,
//! so that nobody can shut the others out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use highwater_partition::log::PrincipalDigest;

use super::limits::{BUFFERED_BYTES_MAX, PRINCIPAL_BUFFERED_BYTES_MAX};
use crate::access::Principal;
use crate::status::Problem;

/// The budget.
#[derive(Default)]
pub(super) struct Buffers {
    used: Arc<Mutex<Used>>,
}

/// What is taken, bytes.
#[derive(Default)]
struct Used {
    all: usize,
    /// Of those who have anything.
    by_principal: HashMap<PrincipalDigest, usize>,
}

impl Buffers {
    /// A share for so many bytes, given back when dropped.
    pub(super) fn take(&self, principal: &Principal, bytes: usize) -> Result<Share, Problem> {
        let principal = principal.digest();
        lock(&self.used).take(principal, bytes)?;
        Ok(Share {
            used: self.used.clone(),
            principal,
            bytes,
        })
    }

    /// The same bytes, which hold their share as long as they are there.
    pub(super) fn hold(&self, principal: &Principal, bytes: impl Into<Bytes>) -> Result<Bytes, Problem> {
        let bytes = bytes.into();
        let share = self.take(principal, bytes.len())?;
        Ok(Bytes::from_owner(Held { bytes, _share: share }))
    }
}

impl Used {
    fn take(&mut self, principal: PrincipalDigest, bytes: usize) -> Result<(), Problem> {
        let own = self.by_principal.get(&principal).copied().unwrap_or_default();
        check("of this client", own, bytes, PRINCIPAL_BUFFERED_BYTES_MAX)?;
        check("of all clients", self.all, bytes, BUFFERED_BYTES_MAX)?;
        self.all += bytes;
        if bytes > 0 {
            self.by_principal.insert(principal, own + bytes);
        }
        Ok(())
    }

    fn give_back(&mut self, principal: PrincipalDigest, bytes: usize) {
        self.all -= bytes;
        if let Entry::Occupied(mut own) = self.by_principal.entry(principal) {
            *own.get_mut() -= bytes;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

fn check(whose: &str, used: usize, bytes: usize, limit: usize) -> Result<(), Problem> {
    if bytes <= limit.saturating_sub(used) {
        return Ok(());
    }
    let why = format!("the node's JSON gateway holds no more than {limit} bytes of bodies and answers {whose}");
    Err(Problem::Overloaded(why))
}

/// A part of the budget.
pub(super) struct Share {
    used: Arc<Mutex<Used>>,
    principal: PrincipalDigest,
    bytes: usize,
}

impl Share {
    /// Joins another share of the same principal.
    pub(super) fn merge(&mut self, mut other: Share) {
        debug_assert_eq!(self.principal, other.principal);
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        lock(&self.used).give_back(self.principal, self.bytes);
    }
}

struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn lock(used: &Mutex<Used>) -> MutexGuard<'_, Used> {
    used.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::identity::Identity;

    fn principal(number: usize) -> Principal {
        let identity = Identity::from_uri(&format!("spiffe://test/tenant/shop/client/c{number}"));
        Principal::new(&identity.unwrap())
    }

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let (buffers, anna) = (Buffers::default(), principal(0));
        let most = buffers.take(&anna, PRINCIPAL_BUFFERED_BYTES_MAX - 3).unwrap();
        let held = buffers.hold(&anna, vec![1, 2, 3]).unwrap();
        assert!(matches!(buffers.take(&anna, 1), Err(Problem::Overloaded(_))));
        assert_eq!(held, vec![1, 2, 3]);
        let slice = held.slice(1..);
        drop(held);
        assert!(buffers.take(&anna, 1).is_err(), "a slice keeps all of it");
        drop(slice);
        let mut share = buffers.take(&anna, 1).unwrap();
        share.merge(buffers.take(&anna, 2).unwrap());
        assert!(buffers.take(&anna, 1).is_err(), "what was merged counts");
        drop(share);
        drop(most);
        drop(buffers.take(&anna, 0).unwrap());
        let used = lock(&buffers.used);
        assert_eq!((used.all, used.by_principal.len()), (0, 0));
    }

    #[test]
    fn nobody_gets_more_than_his_part_and_all_together_no_more_than_there_is() {
        let buffers = Buffers::default();
        let full = BUFFERED_BYTES_MAX / PRINCIPAL_BUFFERED_BYTES_MAX;
        let mut shares = Vec::new();
        for number in 0..full {
            let own = principal(number);
            shares.push(buffers.take(&own, PRINCIPAL_BUFFERED_BYTES_MAX).unwrap());
            let why = buffers.take(&own, 1).err().unwrap().to_string();
            assert!(why.contains(&format!("{PRINCIPAL_BUFFERED_BYTES_MAX} bytes")), "{why}");
        }
        let why = buffers.take(&principal(full), 1).err().unwrap().to_string();
        assert!(why.contains(&format!("{BUFFERED_BYTES_MAX} bytes")), "{why}");
        shares.pop();
        assert!(buffers.take(&principal(full), 1).is_ok());
    }
}
