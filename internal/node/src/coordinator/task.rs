//! The task of one group: waits for what happens to it, for its deadlines, and for the end of the leadership that it depends on.

use std::sync::Arc;
use std::time::Duration;

use highwater_catalog::Catalog;
use highwater_partition::Role;
use highwater_partition::log::GroupId;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::members::Members;
use super::{Coordinator, Event, Key};
use crate::catalog::CatalogHost;
use crate::leaders::Leaders;
use crate::replicas::Opened;
use crate::status::Problem;

/// For how long after it came to lead a coordinator leaves a group as it is that others may be in. Members look for a new
/// coordinator at once, so this is for those that cannot reach it so soon.
const SETTLE: Duration = Duration::from_secs(3);
/// How often a task looks for what nobody tells it: partitions that were added, and a leadership that is in vain.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The partition that a group is coordinated at, under one term of its leadership.
pub(crate) struct Home {
    pub(super) opened: Opened,
    pub(super) term: u64,
    /// Tenant and name.
    pub(super) topic: (String, String),
    pub(super) host: Arc<CatalogHost>,
    pub(super) leaders: Leaders,
    pub(super) stopping: CancellationToken,
}

impl Home {
    /// Under the present term, if this node leads in it.
    pub(super) fn led(mut self) -> Result<Home, Problem> {
        match self.opened.hosted.led_term() {
            Some(term) => self.term = term,
            None => return Err(self.led_elsewhere()),
        }
        Ok(self)
    }

    pub(crate) fn group_id(&self) -> GroupId {
        self.opened.hosted.group_id
    }

    /// Why a group cannot be coordinated here any more.
    fn lost(&self) -> Option<Problem> {
        let hosted = &self.opened.hosted;
        if hosted.has_ended() || self.stopping.is_cancelled() {
            return Some(self.opened.gone());
        }
        if hosted.led_term() != Some(self.term) {
            return Some(self.led_elsewhere());
        }
        hosted.leads_in_vain().then(|| self.no_quorum())
    }

    fn led_elsewhere(&self) -> Problem {
        match self.leaders.hint(self.group_id()) {
            Some(hint) => Problem::NotLeader {
                what: self.opened.what.to_string(),
                hint,
            },
            None => self.no_quorum(),
        }
    }

    fn no_quorum(&self) -> Problem {
        Problem::NoQuorum {
            what: self.opened.what.to_string(),
        }
    }

    /// None if there is no such topic any more; then the replica ends soon.
    fn partition_count(&self) -> Option<u32> {
        let count = |catalog: &Catalog| {
            let topic = catalog.topic(&self.topic.0, &self.topic.1)?;
            u32::try_from(topic.partitions.len()).ok()
        };
        self.host.read(count)
    }

    /// When it is certain that no other member of the group is left behind somewhere.
    fn settled_at(&self, name: &str) -> Instant {
        let partition = self.opened.partition();
        let is_new = partition.group(name.as_bytes()).is_none();
        let now = Instant::now();
        match partition.leads_since() {
            _ if is_new => now,
            Some(since) => now.max(since + SETTLE),
            None => now + SETTLE,
        }
    }
}

pub(super) async fn run(coordinator: Coordinator, name: String, home: Home, mut events: mpsc::Receiver<Event>) {
    let key: Key = (home.group_id(), name.clone());
    let settled_at = home.settled_at(&name);
    let mut members = Members::new(name, home.partition_count().unwrap_or(0), settled_at);
    let why = loop {
        if let Some(why) = home.lost() {
            break why;
        }
        if let Some(count) = home.partition_count() {
            members.set_partition_count(count);
        }
        members.tick(Instant::now());
        if members.is_empty() && coordinator.retire(&key, &events) {
            return;
        }
        wait(&mut members, &home, &mut events).await;
    };
    tracing::info!(group = key.1, partition = %home.opened.what, %why, "a group is coordinated here no more");
    coordinator.remove(&key);
    members.end(&why);
    refuse(&mut events, &why);
}

/// Waits until something has happened or is due.
async fn wait(members: &mut Members, home: &Home, events: &mut mpsc::Receiver<Event>) {
    let mut status = home.opened.partition().status_changes();
    status.mark_unchanged();
    if status.borrow().role != Role::Leader {
        return;
    }
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.tick().await; // the first comes at once
    let due = members.next_tick(Instant::now());
    let due = async {
        match due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        Some(event) = events.recv() => take_in(members, event),
        _ = status.changed() => {}
        () = home.opened.hosted.ended() => {}
        () = home.stopping.cancelled() => {}
        () = due => {}
        _ = look.tick() => {}
    }
}

fn take_in(members: &mut Members, event: Event) {
    let now = Instant::now();
    match event {
        Event::Join(joining) => members.join(joining, now),
        Event::Report {
            member,
            stream,
            version,
            held,
        } => members.report(&member, stream, version, held, now),
        Event::Leave { member, stream } => members.leave(&member, stream, now),
        Event::LoseStream { member, stream, why } => members.lose_stream(&member, stream, why),
        Event::Describe(answer) => drop(answer.send(members.describe(now))),
    }
}

/// Sends away whoever has come too late.
fn refuse(events: &mut mpsc::Receiver<Event>, why: &Problem) {
    events.close();
    while let Ok(event) = events.try_recv() {
        if let Event::Join(joining) = event {
            let _ = joining.answers.try_send(Err(why.clone())); // it may be gone
        }
    }
}
