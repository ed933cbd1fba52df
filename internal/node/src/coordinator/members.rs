//! The members of one group with their streams and deadlines; time is given from outside.
//!
//! Everything that a member hears goes through [`Members::tell`]: the answer to what it said, and what has changed for it since. A
//! member whose stream is lost stays until its session is over, so that a reconnection or a quick restart changes nothing for
//! anybody.
//!
//! Invariants: the table has exactly the members that are here; a member has one stream at most.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::table::{Assignment, Partitions, Table};
use crate::status::Problem;

/// How many members a group may have.
pub(crate) const MEMBERS_MAX: usize = 1024;
/// How many answers may wait for a member that does not take them; one that has so many unread is cut off.
pub(crate) const ANSWERS_MAX: usize = 16;

/// Where a member hears what it should have, or why it hears no more.
pub(crate) type Answers = mpsc::Sender<Result<Assignment, Problem>>;

/// Tells the streams of a node apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(pub(crate) u64);

/// A member that comes, or comes again.
pub(crate) struct Joining {
    pub(crate) member: String,
    /// The client that it is.
    pub(crate) client: String,
    pub(crate) stream: StreamId,
    /// After what silence it is taken out.
    pub(crate) session: Duration,
    /// How long it may keep what it is to let go of.
    pub(crate) release: Duration,
    pub(crate) held: Partitions,
    pub(crate) answers: Answers,
    /// Its share of the members that this node coordinates.
    pub(crate) room: OwnedSemaphorePermit,
}

/// What is known of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberView {
    pub(crate) member: String,
    pub(crate) client: String,
    pub(crate) assigned: Partitions,
    pub(crate) held: Partitions,
    pub(crate) silence: Duration,
}

pub(super) struct Members {
    group: String,
    table: Table,
    members: BTreeMap<String, Member>,
    /// Until then members of a former coordinator may still come.
    settled_at: Instant,
}

struct Member {
    client: String,
    session: Duration,
    release: Duration,
    heard_at: Instant,
    /// Since when it has something that it is to let go of.
    letting_go_since: Option<Instant>,
    stream: Option<(StreamId, Answers)>,
    _room: OwnedSemaphorePermit,
}

impl Member {
    /// When it is taken out unless something happens, and why.
    fn end(&self) -> (Instant, &'static str) {
        let session_end = self.heard_at + self.session;
        match self.letting_go_since.map(|since| since + self.release) {
            Some(release_end) if release_end < session_end => {
                (release_end, "it kept for too long what it was to let go of")
            }
            _ => (session_end, "it was silent for its session"),
        }
    }
}

impl Members {
    pub(super) fn new(group: String, partition_count: u32, settled_at: Instant) -> Members {
        let mut table = Table::default();
        table.set_partition_count(partition_count);
        Members {
            group,
            table,
            members: BTreeMap::new(),
            settled_at,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn join(&mut self, joining: Joining, now: Instant) {
        if let Err(problem) = self.admit(&joining) {
            let _ = joining.answers.try_send(Err(problem)); // unless it is gone already
            return;
        }
        let name = joining.member;
        self.table.join(&name, joining.held);
        let member = Member {
            client: joining.client,
            session: joining.session,
            release: joining.release,
            heard_at: now,
            letting_go_since: None,
            stream: Some((joining.stream, joining.answers)),
            _room: joining.room,
        };
        if let Some(former) = self.members.insert(name.clone(), member) {
            self.break_off(&former, || Problem::MemberReplaced {
                group: self.group.clone(),
                member: name.clone(),
            });
        }
        self.answer(&name, now);
    }

    fn admit(&self, joining: &Joining) -> Result<(), Problem> {
        let Some(former) = self.members.get(&joining.member) else {
            return match self.members.len() < MEMBERS_MAX {
                true => Ok(()),
                false => Err(Problem::Refused(format!(
                    "group `{}` has {MEMBERS_MAX} members, and cannot have more",
                    self.group
                ))),
            };
        };
        match former.client == joining.client {
            true => Ok(()),
            false => Err(Problem::Denied(format!(
                "member `{}` of group `{}` is another client's at the moment",
                joining.member, self.group
            ))),
        }
    }

    /// A member says what it has.
    pub(super) fn report(&mut self, name: &str, stream: StreamId, version: u64, held: Partitions, now: Instant) {
        let Some(member) = self.of_stream(name, stream) else {
            return; // another stream speaks for it now
        };
        member.heard_at = now;
        self.table.report(name, version, held);
        self.answer(name, now);
    }

    /// A member goes.
    pub(super) fn leave(&mut self, name: &str, stream: StreamId, now: Instant) {
        if self.of_stream(name, stream).is_some() {
            self.members.remove(name);
            self.table.remove(name);
            self.share_out(now);
        }
    }

    /// A member's stream is gone, or to be ended.
    pub(super) fn lose_stream(&mut self, name: &str, stream: StreamId, why: Option<Problem>) {
        let lost = self.of_stream(name, stream).and_then(|member| member.stream.take());
        if let (Some((_, answers)), Some(why)) = (lost, why) {
            let _ = answers.try_send(Err(why)); // one that is full has stopped listening, and sees the end
        }
    }

    pub(super) fn set_partition_count(&mut self, partition_count: u32) {
        self.table.set_partition_count(partition_count);
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        let over = self.members.iter().filter(|(_, member)| member.end().0 <= now);
        for name in over.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.table.remove(&name);
            let Some(member) = self.members.remove(&name) else {
                continue;
            };
            let (_, why) = member.end();
            tracing::info!(
                group = self.group,
                member = name,
                why,
                "a member is taken out of its group"
            );
            self.break_off(&member, || Problem::SessionOver {
                group: self.group.clone(),
                member: name.clone(),
                why,
            });
        }
        self.share_out(now);
    }

    /// When `tick` has something to do.
    pub(super) fn next_tick(&self, now: Instant) -> Option<Instant> {
        let settling = (self.settled_at > now).then_some(self.settled_at);
        let ends = self.members.values().map(|member| member.end().0);
        ends.chain(settling).min()
    }

    /// Nobody is coordinated here any more.
    pub(super) fn end(self, why: &Problem) {
        for member in self.members.values() {
            self.break_off(member, || why.clone());
        }
    }

    pub(super) fn describe(&self, now: Instant) -> Vec<MemberView> {
        let view = |(name, member): (&String, &Member)| {
            let assignment = self.table.assignment(name)?;
            Some(MemberView {
                member: name.clone(),
                client: member.client.clone(),
                assigned: assignment.partitions,
                held: self.table.held(name)?.clone(),
                silence: now.saturating_duration_since(member.heard_at),
            })
        };
        self.members.iter().filter_map(view).collect()
    }

    fn of_stream(&mut self, name: &str, stream: StreamId) -> Option<&mut Member> {
        let member = self.members.get_mut(name)?;
        let is_its = member.stream.as_ref().is_some_and(|(its, _)| *its == stream);
        is_its.then_some(member)
    }

    /// Tells whomever a change concerns, and `name` in any case.
    fn answer(&mut self, name: &str, now: Instant) {
        let told = self.share_out(now);
        if !told.contains(name) {
            self.tell(name);
        }
    }

    fn share_out(&mut self, now: Instant) -> BTreeSet<String> {
        let to_tell: BTreeSet<String> = match now >= self.settled_at {
            true => self.table.assign().into_iter().collect(),
            false => BTreeSet::new(),
        };
        for name in &to_tell {
            self.tell(name);
        }
        for (name, member) in &mut self.members {
            member.letting_go_since = match self.table.is_to_let_go(name) {
                true => member.letting_go_since.or(Some(now)),
                false => None,
            };
        }
        to_tell
    }

    fn tell(&mut self, name: &str) {
        let (Some(member), Some(assignment)) = (self.members.get_mut(name), self.table.assignment(name)) else {
            return;
        };
        let told = member
            .stream
            .as_ref()
            .map(|(_, answers)| answers.try_send(Ok(assignment)));
        if matches!(told, Some(Err(_))) {
            member.stream = None; // it takes no answers; if it lives, it comes again
        }
    }

    fn break_off(&self, member: &Member, why: impl FnOnce() -> Problem) {
        if let Some((_, answers)) = &member.stream {
            let _ = answers.try_send(Err(why())); // one that is full has stopped listening, and sees the end
        }
    }
}
