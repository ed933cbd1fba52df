//! What casbin has decided, kept until the policy says otherwise.
//!
//! Kept by client and domain, together with the rules that it was decided by. When the policy changes, these are compared with the new
//! ones at the next question, which takes microseconds; only clients whose own rules or roles have changed are asked about anew. So a change
//! costs those that it is about, and not everybody else.
//!
//! Whoever asks about ever new names makes casbin decide once more now and then, and nothing worse. When there are more clients than have
//! room, those go that have not asked for longest, by halves: those that were asked about since the halves changed, and those before.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_catalog::{Access, Domain, Resource};

use super::Action;
use super::decider::{Client, Decider};

/// Of how many pairs of a client and a domain decisions are kept. A client that uses its own tenant has two: it is also asked whether it is
/// an operator.
const PAIRS_MAX: usize = 2048;
/// How many rules these may have together, beside the halves that change earlier then. A pair takes 12 KB, and 0.4 KB more for each rule:
/// 50 MB in all at most.
const RULES_MAX: usize = 64 * 1024;
/// How many decisions of each; beyond that they begin anew.
const DECISIONS_MAX: usize = 1024;
/// How many decisions in all, each some 200 bytes; beyond that a pair with one more begins anew.
const DECISIONS_TOTAL_MAX: usize = 256 * 1024;

/// Answers by the policy, at most once by casbin.
#[derive(Default)]
pub(super) struct Decisions {
    /// By client and domain.
    of: Mutex<Halves<(String, String), Checked>>,
    /// How many are kept, of all pairs.
    total: Arc<AtomicUsize>,
    known: AtomicU64,
    decided: AtomicU64,
}

/// How often somebody's right was asked for, since the node started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// It had been decided before.
    pub(crate) known: u64,
    /// casbin decided.
    pub(crate) decided: u64,
}

/// What was decided about a client, and the last version of the policy that this was compared with.
struct Checked {
    version: u64,
    kept: Arc<Kept>,
}

struct Kept {
    decider: Decider,
    /// By resource and action.
    decisions: Mutex<HashMap<(String, Action), bool>>,
    /// Of all pairs.
    total: Arc<AtomicUsize>,
}

/// The pairs that were asked about since the halves changed, and those before.
///
/// Invariant: each half has at most half of `PAIRS_MAX` pairs, and half of `RULES_MAX` rules unless one pair alone has more.
struct Halves<K, V> {
    young: HashMap<K, Weighed<V>>,
    old: HashMap<K, Weighed<V>>,
    /// Of the young ones.
    rules: usize,
    /// Taken out, and to be dropped where nobody waits for it.
    forgotten: HashMap<K, Weighed<V>>,
}

struct Weighed<V> {
    value: V,
    rules: usize,
}

impl Decisions {
    pub(super) fn allows(
        &self,
        access: &Access,
        (client, domain): (Client<'_>, Domain<'_>),
        resource: Resource<'_>,
        action: Action,
    ) -> bool {
        let kept = self.of(access, client, domain);
        let question = (resource.to_text(), action);
        if let Some(allowed) = kept.known(&question) {
            self.known.fetch_add(1, Ordering::Relaxed);
            return allowed;
        }
        self.decided.fetch_add(1, Ordering::Relaxed);
        kept.decide(question)
    }

    pub(super) fn asked(&self) -> Asked {
        Asked {
            known: self.known.load(Ordering::Relaxed),
            decided: self.decided.load(Ordering::Relaxed),
        }
    }

    /// What is kept of a client, if it holds under this version of the policy; otherwise it begins anew.
    fn of(&self, access: &Access, client: Client<'_>, domain: Domain<'_>) -> Arc<Kept> {
        let key = (client.to_text(), domain.as_str().to_owned());
        if let Some(kept) = self.kept(access, client, domain, &key) {
            return kept;
        }
        let kept = Arc::new(Kept {
            decider: Decider::new(access, client, domain),
            decisions: Mutex::default(),
            total: self.total.clone(),
        });
        let checked = Checked {
            version: access.version(),
            kept: kept.clone(),
        };
        let mut of = locked(&self.of);
        of.insert(key, checked, kept.decider.rules_count());
        let forgotten = std::mem::take(&mut of.forgotten);
        drop(of);
        drop(forgotten); // which may take a while
        kept
    }

    fn kept(
        &self,
        access: &Access,
        client: Client<'_>,
        domain: Domain<'_>,
        key: &(String, String),
    ) -> Option<Arc<Kept>> {
        let mut of = locked(&self.of);
        let checked = of.get(key)?;
        if checked.version != access.version() {
            if !checked.kept.decider.holds_in(access, client, domain) {
                of.remove(key);
                return None;
            }
            checked.version = access.version();
        }
        let kept = checked.kept.clone();
        let forgotten = std::mem::take(&mut of.forgotten);
        drop(of);
        drop(forgotten); // as above
        Some(kept)
    }
}

impl Kept {
    fn known(&self, question: &(String, Action)) -> Option<bool> {
        locked(&self.decisions).get(question).copied()
    }

    fn decide(&self, question: (String, Action)) -> bool {
        let allowed = self.decider.allows(&question.0, question.1.name());
        let mut decisions = locked(&self.decisions);
        if decisions.len() >= DECISIONS_MAX || self.total.load(Ordering::Relaxed) >= DECISIONS_TOTAL_MAX {
            self.total.fetch_sub(decisions.len(), Ordering::Relaxed);
            decisions.clear();
        }
        if decisions.insert(question, allowed).is_none() {
            self.total.fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.total.fetch_sub(locked(&self.decisions).len(), Ordering::Relaxed);
    }
}

impl<K, V> Default for Halves<K, V> {
    fn default() -> Halves<K, V> {
        Halves {
            young: HashMap::new(),
            old: HashMap::new(),
            rules: 0,
            forgotten: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash + Clone, V> Halves<K, V> {
    fn get(&mut self, key: &K) -> Option<&mut V> {
        if let Some(Weighed { value, rules }) = self.old.remove(key) {
            self.insert(key.clone(), value, rules);
        }
        self.young.get_mut(key).map(|weighed| &mut weighed.value)
    }

    fn insert(&mut self, key: K, value: V, rules: usize) {
        self.remove(&key);
        if self.young.len() >= PAIRS_MAX / 2 || self.rules + rules > RULES_MAX / 2 {
            let young = std::mem::take(&mut self.young);
            self.forgotten = std::mem::replace(&mut self.old, young);
            self.rules = 0;
        }
        self.rules += rules;
        self.young.insert(key, Weighed { value, rules });
    }

    fn remove(&mut self, key: &K) {
        self.rules -= self.young.remove(key).map_or(0, |weighed| weighed.rules);
        self.old.remove(key);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use highwater_catalog::Rule;

    use super::*;
    use crate::access::tests::{Policy, rule};

    const WEB: Client<'_> = Client {
        tenant: "next",
        name: "web",
    };
    const NEXT: Domain<'_> = Domain::Tenant("next");

    fn with(policy: &mut Policy, rules: Vec<Rule>) -> Arc<Access> {
        policy.add(rules, Vec::new());
        policy.access().clone()
    }

    #[test]
    fn what_was_decided_about_a_client_outlives_a_change_that_is_about_others() {
        let mut policy = Policy::first();
        let decisions = Decisions::default();
        let first = with(&mut policy, vec![rule("next/web", "next", "topic:a", "produce")]);
        let kept = decisions.of(&first, WEB, NEXT);
        let others = with(&mut policy, vec![rule("next/other", "next", "topic:a", "produce")]);
        assert!(Arc::ptr_eq(&kept, &decisions.of(&others, WEB, NEXT)));
        let own = with(&mut policy, vec![rule("next/web", "next", "topic:b", "produce")]);
        assert!(!Arc::ptr_eq(&kept, &decisions.of(&own, WEB, NEXT)));
    }

    #[test]
    fn who_asks_again_is_remembered_whoever_else_comes_and_the_others_take_bounded_room() {
        for (rules, pairs_max) in [(0, PAIRS_MAX), (64, RULES_MAX / 64)] {
            let mut halves = Halves::default();
            halves.insert(0, "the first", rules);
            for number in 1..10 * PAIRS_MAX {
                halves.insert(number, "another", rules);
                assert_eq!(halves.get(&0), Some(&mut "the first"), "after {number}");
                assert!(halves.young.len() + halves.old.len() <= pairs_max);
            }
            let last = 10 * PAIRS_MAX - pairs_max / 2 + 1;
            let is_known = |number: &usize| halves.young.contains_key(number) || halves.old.contains_key(number);
            assert!((last..10 * PAIRS_MAX).all(|number| is_known(&number)));
            assert_eq!(halves.get(&1), None);
            halves.remove(&0);
            assert_eq!(halves.get(&0), None);
        }
    }

    #[test]
    fn decisions_are_bounded_of_each_and_forgotten_with_those_that_they_are_about() {
        let mut policy = Policy::first();
        let decisions = Decisions::default();
        let access = with(&mut policy, vec![rule("next/web", "next", "topic:a", "produce")]);
        let total = || decisions.total.load(Ordering::Relaxed);
        for number in 0..DECISIONS_MAX + 10 {
            let topic = format!("t{number}");
            for _ in 0..2 {
                decisions.allows(&access, (WEB, NEXT), Resource::Topic(&topic), Action::Produce);
            }
            assert!(total() <= DECISIONS_MAX);
        }
        assert_eq!(total(), 10);
        let own = with(&mut policy, vec![rule("next/web", "next", "topic:b", "produce")]);
        decisions.allows(&own, (WEB, NEXT), Resource::Topic("b"), Action::Produce);
        assert_eq!(total(), 1);
    }

    #[test]
    fn whoever_still_looks_at_an_older_version_is_answered_by_that() {
        let mut policy = Policy::first();
        let decisions = Decisions::default();
        let before = policy.access().clone();
        let after = with(&mut policy, vec![rule("next/web", "next", "topic:b", "produce")]);
        for _ in 0..2 {
            for (access, allowed) in [(&before, false), (&after, true)] {
                let answer = decisions.allows(access, (WEB, NEXT), Resource::Topic("b"), Action::Produce);
                assert_eq!(answer, allowed, "at version {}", access.version());
            }
        }
    }
}
