//! Telling every other node which groups are led here, as soon as that changes.
//!
//! ```text
//! a replica's role or term changes ─► gathered for a moment ─► Led ─► a task for each peer ─► node call LEADERS ─► Told
//! ```
//!
//! Peers are the nodes that gossip knows as alive and those that a connection is up with. A peer is told everything when it
//! becomes one or was started again, and from then on what changes; each page is acknowledged before the next one is sent.
//! After a page without acknowledgement, everything is told once more. So a peer is as up to date as its link allows, and
//! one that is slow costs a task that waits, never a queue.
//!
//! A peer of an older build refuses the call. It is left alone until it is started again: it goes by its own replicas, and
//! a missing hint costs it a redirect.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use highwater_partition::PeerError;
use highwater_partition::log::GroupId;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::message::{Answer, PAGE_GROUPS_MAX, Page, PageKind};
use crate::gossip::GossipNode;
use crate::link::Link;
use crate::peer_calls::LEADERS;
use crate::readiness::{NodeState, NotReady};
use crate::replicas::Registry;

/// Changes that come within this time of the first one are told together.
const GATHER: Duration = Duration::from_millis(3);
/// How long a peer may take to acknowledge a page.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The first pause after a page without acknowledgement; it doubles with every further one.
const PAUSE_LEAST: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Led {
    state: NodeState,
    /// The groups led here, with the terms.
    groups: BTreeMap<GroupId, u64>,
}

/// What is told, and to whom.
pub(crate) struct Push {
    /// This process start.
    pub(crate) boot: u64,
    pub(crate) registry: Arc<Registry>,
    pub(crate) link: Link,
    pub(crate) nodes: watch::Receiver<Arc<Vec<GossipNode>>>,
    pub(crate) not_ready: watch::Receiver<Option<NotReady>>,
}

/// The tasks that tell, by peer, each with the process start of the peer that it tells. They end with this.
#[derive(Default)]
struct Tellers(BTreeMap<String, (u64, AbortHandle)>);

impl Drop for Tellers {
    fn drop(&mut self) {
        self.0.values().for_each(|(_, task)| task.abort());
    }
}

impl Push {
    /// Tells until the node ends.
    pub(crate) async fn run(mut self, own: String) {
        let mut changes = self.registry.changes();
        let mut connections = self.link.changes();
        let led = Arc::new(watch::Sender::new(self.look()));
        let numbers = Arc::new(AtomicU64::new(1));
        let mut tellers = Tellers::default();
        loop {
            changes.mark_unchanged();
            connections.mark_unchanged();
            let now = self.look();
            led.send_if_modified(|before| {
                let is_news = *before != now;
                *before = now;
                is_news
            });
            let mut peers = self.peers();
            peers.remove(&own);
            tellers.keep(&peers, |peer| Teller {
                peer: peer.to_owned(),
                boot: self.boot,
                link: self.link.clone(),
                led: led.subscribe(),
                numbers: numbers.clone(),
                acknowledged: 0,
            });
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { return },
                changed = self.not_ready.changed() => if changed.is_err() { return },
                changed = connections.changed() => if changed.is_err() { return },
                changed = self.nodes.changed() => if changed.is_err() { return },
            }
            sleep(GATHER).await;
        }
    }

    fn look(&mut self) -> Led {
        let state = NodeState::of(&self.not_ready.borrow_and_update());
        let all = self.registry.all();
        let groups = all
            .iter()
            .filter_map(|hosted| Some((hosted.group_id, hosted.led_term()?)));
        Led {
            state,
            groups: groups.collect(),
        }
    }

    /// The nodes to tell, with their process starts.
    fn peers(&mut self) -> BTreeMap<String, u64> {
        let mut peers = self.link.connected();
        for node in self.nodes.borrow_and_update().iter() {
            let boot = peers.entry(node.name.clone()).or_insert(node.boot);
            *boot = node.boot.max(*boot);
        }
        peers
    }
}

impl Tellers {
    /// Ends what is not needed any more and begins what is.
    fn keep(&mut self, peers: &BTreeMap<String, u64>, teller: impl Fn(&str) -> Teller) {
        self.0.retain(|peer, (boot, task)| {
            let stays = peers.get(peer) == Some(boot);
            if !stays {
                task.abort();
            }
            stays
        });
        for (peer, boot) in peers {
            if !self.0.contains_key(peer) {
                let task = tokio::spawn(teller(peer).run());
                self.0.insert(peer.clone(), (*boot, task.abort_handle()));
            }
        }
    }
}

/// Tells one peer.
struct Teller {
    peer: String,
    boot: u64,
    link: Link,
    led: watch::Receiver<Led>,
    /// The next page's number, for all peers together.
    numbers: Arc<AtomicU64>,
    /// The number of the last page that the peer has acknowledged.
    acknowledged: u64,
}

/// Why a page was not taken in.
enum Failed {
    /// The peer does not know what it is.
    NotUnderstood,
    /// It may have arrived or not, or the peer lacks what it follows on.
    Again,
}

impl Teller {
    async fn run(mut self) {
        let mut told: Option<Led> = None;
        let mut pause = PAUSE_LEAST;
        loop {
            let now = self.led.borrow_and_update().clone();
            match self.tell(told.as_ref(), &now).await {
                Ok(()) => {
                    told = Some(now);
                    pause = PAUSE_LEAST;
                    if self.led.changed().await.is_err() {
                        return;
                    }
                }
                Err(Failed::Again) => {
                    told = None;
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(Failed::NotUnderstood) => return pending().await,
            }
        }
    }

    async fn tell(&mut self, told: Option<&Led>, now: &Led) -> Result<(), Failed> {
        let pages = pages(told, now);
        for (kind, led) in pages {
            let page = Page {
                kind,
                state: now.state,
                boot: self.boot,
                number: self.numbers.fetch_add(1, Ordering::Relaxed),
                after: self.acknowledged,
                led,
            };
            self.send(&page).await?;
            self.acknowledged = page.number;
        }
        Ok(())
    }

    async fn send(&self, page: &Page) -> Result<(), Failed> {
        let body = vec![page.encode()];
        match self.link.call_node(&self.peer, LEADERS, body, ANSWER_TIMEOUT).await {
            Ok(answer) => match Answer::decode(&answer) {
                Answer::Taken => Ok(()),
                Answer::WantsList => Err(Failed::Again),
            },
            Err(error @ PeerError::Refused { .. }) => {
                tracing::debug!(peer = self.peer, %error, "it is not told of leaders");
                Err(Failed::NotUnderstood)
            }
            Err(error) => {
                tracing::debug!(peer = self.peer, %error, "it is told of leaders again");
                Err(Failed::Again)
            }
        }
    }
}

/// The pages that bring a peer from what it was told, if it was told anything, to what is true now.
fn pages(told: Option<&Led>, now: &Led) -> Vec<(PageKind, Vec<(GroupId, u64)>)> {
    let in_pages = |all: Vec<(GroupId, u64)>| -> Vec<Vec<(GroupId, u64)>> {
        match all.is_empty() {
            true => vec![all], // the state, or an empty list
            false => all.chunks(PAGE_GROUPS_MAX).map(<[_]>::to_vec).collect(),
        }
    };
    let Some(told) = told else {
        let pages = in_pages(now.groups.iter().map(|(group, term)| (*group, *term)).collect());
        let last = pages.len() - 1;
        let kind = |place| PageKind::List {
            begins: place == 0,
            ends: place == last,
        };
        return pages
            .into_iter()
            .enumerate()
            .map(|(place, page)| (kind(place), page))
            .collect();
    };
    let gained = now
        .groups
        .iter()
        .filter(|(group, term)| told.groups.get(group) != Some(term));
    let lost = told.groups.keys().filter(|group| !now.groups.contains_key(group));
    let gained = gained.map(|(group, term)| (*group, *term));
    let changes = gained.chain(lost.map(|group| (*group, 0))).collect();
    in_pages(changes)
        .into_iter()
        .map(|page| (PageKind::Change, page))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::told::Told;
    use super::*;

    fn led(groups: impl IntoIterator<Item = (u64, u64)>) -> Led {
        Led {
            state: NodeState::Ready,
            groups: groups.into_iter().map(|(group, term)| (GroupId(group), term)).collect(),
        }
    }

    /// Has everything told as [`Teller`] does.
    fn tell(told: &Told, number: &mut u64, before: Option<&Led>, now: &Led) {
        for (kind, led) in pages(before, now) {
            let page = Page {
                kind,
                state: now.state,
                boot: 1,
                number: *number + 1,
                after: *number,
                led,
            };
            assert_eq!(told.take("a", page), Answer::Taken);
            *number += 1;
        }
    }

    #[test]
    fn what_was_told_in_pages_is_what_is_led() {
        let told = Told::default();
        let many = led((0..2 * PAGE_GROUPS_MAX as u64 + 1).map(|group| (group, 1)));
        let mut number = 0;
        tell(&told, &mut number, None, &many);
        assert_eq!(number, 3);
        for group in many.groups.keys() {
            assert!(told.leader(*group).is_some(), "{group:?}");
        }
        let few = led([(3, 1), (5, 2)]);
        tell(&told, &mut number, Some(&many), &few);
        let still_led = many.groups.keys().filter(|group| told.leader(**group).is_some());
        assert_eq!(still_led.collect::<Vec<_>>(), [&GroupId(3), &GroupId(5)]);
        tell(&told, &mut number, Some(&few), &few);
        tell(&told, &mut number, None, &led([]));
        assert!(told.leader(GroupId(3)).is_none());
    }
}
