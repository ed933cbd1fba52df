//! Whether the replica that a read waits at is worth waiting at.
//!
//! A follower without news looks the same to a reader whether its partition is quiet, or it is cut off, or it does not keep
//! up. So whoever waits here also watches for the last two, and is then handed over: the read ends with REPLICA_BEHIND, which
//! tells how far this replica is and who leads, and the client goes on at another one from exactly its next offset.
//!
//! A hand-over must lead somewhere. A read of whatever is committed is handed over only while somebody else is known to
//! lead and to be alive; without that it stays, as it would wait at any replica. A read that asked for more than this
//! replica has is handed over in any case, for nothing here can satisfy it. Each read stays for [`Contact::silence_max`] at
//! least, so that even a client that has nowhere else to go does not go in circles quickly.

use std::sync::Arc;
use std::time::Duration;

use highwater_partition::Contact;
use tokio::time::{Instant, sleep_until};

use super::Context;
use crate::replicas::Opened;
use crate::status::{Problem, range};

/// For how long a follower may be behind its leader before readers are sent elsewhere.
const LAG_MAX: Duration = Duration::from_secs(5);
/// The shortest time between two looks.
const LOOK_LEAST: Duration = Duration::from_millis(100);

/// Which reads stay if nobody else is known to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// What is committed here will do.
    Committed,
    /// It waits for more than that.
    More,
}

/// Watches over one read.
pub(super) struct Following {
    context: Arc<Context>,
    opened: Opened,
    needs: Needs,
    watch: Watch,
}

/// What one read has seen of its replica so far.
#[derive(Debug, Clone, Copy)]
struct Watch {
    began: Instant,
    /// The end that the leader had told, and when, since this replica is behind that.
    behind: Option<(u64, Instant)>,
}

impl Following {
    pub(super) fn new(context: Arc<Context>, opened: Opened, needs: Needs) -> Following {
        Following {
            context,
            opened,
            needs,
            watch: Watch::new(Instant::now()),
        }
    }

    /// Returns when the read is to go on elsewhere, with what to tell its caller. Cancel safe.
    pub(super) async fn lost(&mut self) -> Problem {
        loop {
            let contact = self.opened.partition().contact();
            let now = Instant::now();
            let flaw = self.watch.look(&contact, now);
            if let Some(flaw) = flaw.filter(|_| self.leads_somewhere()) {
                return self.hand_over(flaw);
            }
            let next = self.watch.next_look(&contact);
            sleep_until(next.max(now + LOOK_LEAST)).await;
        }
    }

    fn leads_somewhere(&self) -> bool {
        let leaders = &self.context.leaders;
        let other = || leaders.leader(self.opened.hosted.group_id).map(|leader| leader.node);
        self.needs == Needs::More || other().is_some_and(|node| node != self.context.node && leaders.is_alive(&node))
    }

    fn hand_over(&self, flaw: Flaw) -> Problem {
        let what = &self.opened.what;
        let why = match flaw {
            Flaw::Silent(silence) => format!("has not heard from its leader for {} ms", silence.as_millis()),
            Flaw::Behind => format!("has been behind its leader for more than {} s", LAG_MAX.as_secs()),
        };
        Problem::HandOver {
            why: format!(
                "node {}'s replica of {what} {why}; go on at another one",
                self.context.node
            ),
            range: range(self.opened.partition().status().watermark),
            hint: self.context.leaders.hint(self.opened.hosted.group_id),
        }
    }
}

/// What is wrong with a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    Silent(Duration),
    Behind,
}

impl Watch {
    fn new(now: Instant) -> Watch {
        Watch {
            began: now,
            behind: None,
        }
    }

    fn quiet_since(&self, contact: &Contact) -> Instant {
        contact.heard_at.max(self.began)
    }

    fn look(&mut self, contact: &Contact, now: Instant) -> Option<Flaw> {
        let silence = now.saturating_duration_since(self.quiet_since(contact));
        if silence > contact.silence_max {
            return Some(Flaw::Silent(now.saturating_duration_since(contact.heard_at)));
        }
        match self.behind {
            Some((end, since)) if contact.committed_end < end => {
                (now.saturating_duration_since(since) > LAG_MAX).then_some(Flaw::Behind)
            }
            _ => {
                let is_behind = contact.committed_end < contact.leader_committed_end;
                self.behind = is_behind.then_some((contact.leader_committed_end, now));
                None
            }
        }
    }

    /// When there can be something new to see at the earliest.
    fn next_look(&self, contact: &Contact) -> Instant {
        let silent_at = self.quiet_since(contact) + contact.silence_max;
        let behind_at = self.behind.map(|(_, since)| since + LAG_MAX);
        // Just behind the moment: until then, nothing is wrong.
        behind_at.map_or(silent_at, |at| at.min(silent_at)) + Duration::from_millis(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE_MAX: Duration = Duration::from_secs(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn contact(heard_at: Instant, committed_end: u64, leader_committed_end: u64) -> Contact {
        Contact {
            heard_at,
            silence_max: SILENCE_MAX,
            leader_committed_end,
            committed_end,
        }
    }

    #[test]
    fn a_silent_leader_is_noticed_but_each_read_stays_for_a_while() {
        let began = Instant::now();
        let mut watch = Watch::new(began + 10 * SECOND);
        let silent = contact(began, 5, 5);
        let next = watch.next_look(&silent);
        assert_eq!(watch.look(&silent, began + 10 * SECOND), None);
        assert_eq!(watch.look(&silent, began + 11 * SECOND), None);
        assert!(next > began + 11 * SECOND);
        assert_eq!(watch.look(&silent, next), Some(Flaw::Silent(next - began)));
        assert_eq!(watch.look(&contact(next, 5, 5), next + SECOND / 2), None);
    }

    #[test]
    fn a_replica_is_behind_only_if_it_does_not_reach_in_time_what_its_leader_had_told() {
        let began = Instant::now();
        let mut watch = Watch::new(began);
        let at = |seconds: u32| began + seconds * SECOND;
        assert_eq!(watch.look(&contact(at(0), 5, 9), at(0)), None);
        assert_eq!(watch.look(&contact(at(5), 8, 99), at(5)), None);
        // It has reached 9 and is behind 99 from now on.
        assert_eq!(watch.look(&contact(at(6), 9, 99), at(6)), None);
        assert_eq!(watch.look(&contact(at(11), 98, 200), at(11)), None);
        assert_eq!(watch.look(&contact(at(12), 98, 200), at(12)), Some(Flaw::Behind));
        assert_eq!(watch.look(&contact(at(13), 200, 200), at(13)), None);
        assert_eq!(watch.behind, None);
    }
}
