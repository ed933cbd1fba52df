//! Whom an append has asked that did not lead after all.
//!
//! While a partition gets a new leader, the former one may still be taken for it. A request's whole body goes to whoever
//! is asked, so the same node is asked again only after a pause that grows, unless there is news of who leads.

use std::time::Duration;

use highwater_proto::v1::LeaderHint;
use tokio::time::Instant;

use super::limits::{ASK_AGAIN_PAUSE_MAX, LEADER_PAUSE};

/// The last node that was asked, in vain.
#[derive(Debug, Default)]
pub(super) struct Asked(Option<Last>);

#[derive(Debug)]
struct Last {
    node: String,
    term: u64,
    pause: Duration,
    again_at: Instant,
}

impl Last {
    fn is(&self, leader: &LeaderHint) -> bool {
        (self.node.as_str(), self.term) == (leader.node.as_str(), leader.term)
    }
}

impl Asked {
    /// Whether that very leader was asked a moment ago.
    pub(super) fn is_too_soon(&self, leader: Option<&LeaderHint>, now: Instant) -> bool {
        let last = self.0.as_ref();
        last.zip(leader)
            .is_some_and(|(last, leader)| last.is(leader) && now < last.again_at)
    }

    /// It has been asked, in vain.
    pub(super) fn note(&mut self, leader: &LeaderHint, now: Instant) {
        let before = self.0.as_ref().filter(|last| last.is(leader));
        let pause = before.map_or(LEADER_PAUSE, |last| (2 * last.pause).min(ASK_AGAIN_PAUSE_MAX));
        self.0 = Some(Last {
            node: leader.node.clone(),
            term: leader.term,
            pause,
            again_at: now + pause,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::LEADER_PATIENCE;
    use super::*;

    fn leader(node: &str, term: u64) -> LeaderHint {
        LeaderHint {
            node: node.to_owned(),
            term,
            ..Default::default()
        }
    }

    #[test]
    fn a_node_that_does_not_lead_is_asked_a_few_times_and_one_that_is_new_at_once() {
        let (mut asked, begin) = (Asked::default(), Instant::now());
        let (mut now, mut times) = (begin, 0);
        while now < begin + LEADER_PATIENCE {
            if !asked.is_too_soon(Some(&leader("a", 1)), now) {
                asked.note(&leader("a", 1), now);
                times += 1;
            }
            now += LEADER_PAUSE;
        }
        assert!((10..=15).contains(&times), "{times}");
        assert!(asked.is_too_soon(Some(&leader("a", 1)), now));
        assert!(!asked.is_too_soon(Some(&leader("b", 1)), now), "another node");
        assert!(!asked.is_too_soon(Some(&leader("a", 2)), now), "elected again");
        assert!(!asked.is_too_soon(None, now), "nobody is asked");
        asked.note(&leader("b", 1), now);
        assert!(asked.is_too_soon(Some(&leader("b", 1)), now));
        assert!(!asked.is_too_soon(Some(&leader("b", 1)), now + LEADER_PAUSE));
    }
}
