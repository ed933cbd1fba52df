//! What casbin has decided, kept until the policy says otherwise.
//!
//! Kept by client and domain, together with the rules that it was decided by. When the policy changes, these are compared with the new
//! ones at the next question, which takes microseconds; only clients whose own rules or roles have changed are asked about anew. So a change
//! costs those that it is about, and not everybody else.
//!
//! Whoever asks about ever new names makes casbin decide once more now and then, and nothing worse.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_catalog::{Access, Domain, Resource};

use super::Action;
use super::decider::{Client, Decider};

/// Of how many clients and domains decisions are kept; beyond that all begin anew.
const CLIENTS_MAX: usize = 256;
/// How many decisions of each; beyond that they begin anew.
const DECISIONS_MAX: usize = 1024;

/// Answers by the policy, at most once by casbin.
#[derive(Default)]
pub(super) struct Decisions {
    /// By client and domain.
    of: Mutex<HashMap<(String, String), Checked>>,
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
        });
        let checked = Checked {
            version: access.version(),
            kept: kept.clone(),
        };
        insert_bounded(&mut locked(&self.of), key, checked, CLIENTS_MAX);
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
        let checked = of.get_mut(key)?;
        if checked.version != access.version() {
            if !checked.kept.decider.holds_in(access, client, domain) {
                of.remove(key);
                return None;
            }
            checked.version = access.version();
        }
        Some(checked.kept.clone())
    }
}

impl Kept {
    fn known(&self, question: &(String, Action)) -> Option<bool> {
        locked(&self.decisions).get(question).copied()
    }

    fn decide(&self, question: (String, Action)) -> bool {
        let allowed = self.decider.allows(&question.0, question.1.name());
        insert_bounded(&mut locked(&self.decisions), question, allowed, DECISIONS_MAX);
        allowed
    }
}

fn insert_bounded<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V, count_max: usize) {
    if map.len() >= count_max {
        map.clear();
    }
    map.insert(key, value);
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
