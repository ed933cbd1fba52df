//! What has been found so far. Each invariant lists its first few violations and counts the others.

use crate::history::{EventRef, History};
use crate::verdict::{Counts, Invariant, Judged, Outcome, Place, Proof, Verdict, Violation};

/// How many violations of one invariant are listed.
const LISTED_MAX: u64 = 20;

/// Where a finding is, in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct At {
    partition: Option<u32>,
    offset: Option<u64>,
    index: Option<u64>,
    replica: Option<u64>,
}

impl At {
    pub(crate) fn partition(partition: u32) -> Self {
        Self {
            partition: Some(partition),
            ..Self::default()
        }
    }

    pub(crate) fn offset(self, offset: u64) -> Self {
        Self {
            offset: Some(offset),
            ..self
        }
    }

    pub(crate) fn index(self, index: u64) -> Self {
        Self {
            index: Some(index),
            ..self
        }
    }

    pub(crate) fn replica(self, replica: u64) -> Self {
        Self {
            replica: Some(replica),
            ..self
        }
    }
}

pub(crate) struct Findings<'a> {
    pub(crate) history: &'a History,
    judged: Vec<Judged>,
    violations: Vec<Violation>,
    void: Vec<String>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(history: &'a History) -> Self {
        let judged = Invariant::ALL.map(|invariant| Judged {
            invariant,
            checked: 0,
            violated: 0,
        });
        Self {
            history,
            judged: judged.to_vec(),
            violations: Vec::new(),
            void: Vec::new(),
        }
    }

    /// That many facts are being held against an invariant.
    pub(crate) fn checked(&mut self, invariant: Invariant, facts: u64) {
        self.judged[invariant.place()].checked += facts;
    }

    pub(crate) fn was_checked(&self, invariant: Invariant) -> bool {
        self.judged[invariant.place()].checked > 0
    }

    /// A violation; `message` is made only if it will be listed.
    pub(crate) fn flag(
        &mut self,
        invariant: Invariant,
        what: &'static str,
        at: At,
        events: &[EventRef],
        message: impl FnOnce() -> String,
    ) {
        let judged = &mut self.judged[invariant.place()];
        judged.violated += 1;
        if judged.violated > LISTED_MAX {
            return;
        }
        let prove = |event: &EventRef| Proof {
            event: *event,
            line: self.history.describe(*event),
        };
        self.violations.push(Violation {
            invariant,
            what,
            place: Place {
                partition: at.partition.map(|partition| self.history.partition_name(partition)),
                offset: at.offset,
                index: at.index,
                replica: at.replica,
            },
            message: message(),
            events: events.iter().map(prove).collect(),
        });
    }

    /// A reason why the run proves nothing.
    pub(crate) fn void(&mut self, reason: String) {
        self.void.push(reason);
    }

    pub(crate) fn into_verdict(mut self, counts: Counts) -> Verdict {
        let outcome = match (self.violations.is_empty(), self.void.is_empty()) {
            (false, _) => Outcome::Fail,
            (true, false) => Outcome::Void,
            (true, true) => Outcome::Pass,
        };
        self.violations.sort_by_key(|violation| violation.invariant);
        Verdict {
            outcome,
            title: self.history.run.title.clone(),
            seed: self.history.run.seed,
            duration_ns: super::validity::duration_ns(self.history),
            counts,
            faults: super::validity::fault_figures(self.history),
            judged: self.judged,
            violations: self.violations,
            void: self.void,
        }
    }
}
