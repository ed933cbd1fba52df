//! A consumer as a member of a group: partitions that come and go, and commits.
//!
//! A partition that is to be given up hands nothing out any more. It is let go of when what was handed out of it is done: with
//! automatic commits that is at once, because the application asks for more; by hand it is with the next commit, or after a
//! grace for an application that rarely commits.
//!
//! Changes are taken in only while the application asks for a record, so between two calls nothing moves under its feet.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use tokio::time::{Sleep, sleep};

use super::part::Part;
use super::{Consumer, Freshness, LOOK_UPS_AT_ONCE};
use crate::deadline::Deadline;
use crate::error::{Error, Reason};
use crate::membership::{Assigned, Change, Held, Membership};

/// How long a partition that is to be given up waits for a commit by hand. What was not committed then comes again, elsewhere.
const LEAVING_GRACE: Duration = Duration::from_secs(5);

/// The group's side of a consumer.
#[derive(Debug)]
pub(super) struct Grouped {
    membership: Membership,
    /// Set while partitions wait for a commit.
    grace: Option<Pin<Box<Sleep>>>,
    /// Whether partitions have ends.
    stops_at_end: bool,
    /// How fresh the first answer of each partition must be.
    freshness: Freshness,
    /// Whether all that this member should have for the time being has been assigned.
    is_settled: bool,
    /// Whether the membership is over.
    is_over: bool,
}

impl Grouped {
    pub(super) fn new(membership: Membership, stops_at_end: bool, freshness: Freshness) -> Grouped {
        Grouped {
            membership,
            grace: None,
            stops_at_end,
            freshness,
            is_settled: false,
            is_over: false,
        }
    }

    /// Whether a consumer that has nothing left to read has ended; otherwise it may still be given something.
    pub(super) fn may_end(&self) -> bool {
        self.is_over || (self.stops_at_end && self.is_settled)
    }
}

impl Consumer {
    /// The application asks for a record: it is done with the last one.
    pub(super) fn note_asked(&mut self) {
        let Some(grouped) = &self.grouped else { return };
        grouped.membership.shared.ask();
        if let Some(place) = self.handed_out.take()
            && grouped.membership.commits_by_itself
        {
            self.parts[place].note_done();
        }
    }

    pub(super) fn note_waiting(&self) {
        if let Some(grouped) = &self.grouped {
            grouped.membership.shared.wait();
        }
    }

    pub(super) fn has_changes(&self) -> bool {
        let grouped = self.grouped.as_ref();
        grouped.is_some_and(|grouped| grouped.membership.shared.has_changes())
    }

    /// Pending, unless there are changes to take in first.
    pub(super) fn wait_for_changes<T>(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        match self.take_in_changes(context) {
            Some(error) => Poll::Ready(Some(Err(error))),
            None if self.has_ended() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Takes in what has changed, and has the task woken when there is more; an error is to be told.
    pub(super) fn take_in_changes(&mut self, context: &mut Context<'_>) -> Option<Error> {
        self.grouped.as_ref()?.membership.shared.see_changes();
        while let Some(grouped) = self.grouped.as_mut().filter(|grouped| !grouped.is_over)
            && let Poll::Ready(change) = grouped.membership.changes.poll_recv(context)
        {
            match change {
                Some(Change::Joined) => {}
                Some(Change::Assigned(assigned)) => self.take_over(assigned),
                Some(Change::Leave(partition)) => self.begin_to_leave(partition),
                Some(Change::Lost(partition)) => self.lose(partition),
                Some(Change::Settled) => grouped.is_settled = true,
                Some(Change::Failed(error)) => {
                    self.end_membership();
                    return Some(error);
                }
                None => self.end_membership(),
            }
        }
        let grace = self.grouped.as_mut()?.grace.as_mut()?;
        if grace.poll_unpin(context).is_ready() {
            self.let_go_of_leaving();
        }
        None
    }

    fn take_over(&mut self, assigned: Assigned) {
        let partition = assigned.held.claim.partition;
        let place = match self.parts.iter().position(|part| part.partition == partition) {
            Some(place) => place,
            None => {
                let place = self.parts.len();
                self.parts.push(Part::new(place, partition, 0, None));
                place
            }
        };
        self.forget_current(place);
        tracing::debug!(partition, position = assigned.position, "a partition is assigned");
        let part = &mut self.parts[place];
        part.take_over(assigned);
        let freshness = self
            .grouped
            .as_ref()
            .map_or(Freshness::Committed, |grouped| grouped.freshness);
        part.read(&self.route, &self.sender, freshness);
    }

    fn begin_to_leave(&mut self, partition: u32) {
        let Some(place) = self.place(partition) else { return };
        self.forget_current(place);
        let part = &mut self.parts[place];
        part.pause();
        part.is_leaving = true;
        let is_done = part
            .held
            .as_ref()
            .is_some_and(|held| held.claim.committed() == Some(part.position));
        let Some(grouped) = &mut self.grouped else { return };
        if is_done || grouped.membership.commits_by_itself {
            self.let_go(place);
        } else if grouped.grace.is_none() {
            grouped.grace = Some(Box::pin(sleep(LEAVING_GRACE)));
        }
    }

    /// Another has it.
    fn lose(&mut self, partition: u32) {
        if let Some(place) = self.parts.iter().position(|part| part.partition == partition) {
            self.forget_current(place);
            self.parts[place].give_up();
        }
    }

    /// Gives a partition up, and says so.
    fn let_go(&mut self, place: usize) {
        self.forget_current(place);
        let held = self.parts[place].give_up();
        if let (Some(held), Some(grouped)) = (held, &self.grouped) {
            tracing::debug!(partition = held.claim.partition, "a partition is let go of");
            grouped.membership.shared.let_go(&held);
        }
    }

    fn let_go_of_leaving(&mut self) {
        for place in 0..self.parts.len() {
            if self.parts[place].is_leaving {
                self.let_go(place);
            }
        }
        if let Some(grouped) = &mut self.grouped {
            grouped.grace = None;
        }
    }

    fn end_membership(&mut self) {
        for place in 0..self.parts.len() {
            self.forget_current(place);
            self.parts[place].give_up();
        }
        if let Some(grouped) = &mut self.grouped {
            grouped.is_over = true;
        }
    }

    /// Commits for the group that all records handed out so far are done: whoever claims a partition next begins behind them. Returns
    /// when that is on the disks of a majority. What has not moved since the last commit is not committed again.
    ///
    /// Cancel safe: it may then have been committed in part, and may be called again.
    ///
    /// # Errors
    /// Reason `STALE_CLAIM`: another member has claimed a partition, and what was handed out of it since its last commit is handed
    /// out there again; the other partitions have been committed, and reading goes on. [`Error::InvalidArgument`] without a group;
    /// [`Error::Deadline`].
    pub async fn commit(&mut self) -> Result<(), Error> {
        if self.grouped.is_none() && self.parts.iter().all(|part| part.held.is_none()) {
            return Err(Error::invalid("group", "the consumer was built without one"));
        }
        let deadline = Deadline::after(self.look_up_deadline);
        let (caller, topic) = (&self.route.caller, &self.route.topic);
        let held = self
            .parts
            .iter()
            .filter_map(|part| Some((part.position, part.held.clone()?)));
        let held: Vec<(u64, Arc<Held>)> = held.collect();
        let commits = held.into_iter().map(|(position, held)| async move {
            let committed = held.commit(caller, topic, position, deadline).await;
            (held.claim.partition, committed)
        });
        let results: Vec<_> = stream::iter(commits).buffer_unordered(LOOK_UPS_AT_ONCE).collect().await;
        let mut outcome = Ok(());
        for (partition, committed) in results {
            let Err(error) = committed else { continue };
            if error.reason() == Some(Reason::StaleClaim) {
                self.give_up_stale(partition);
            }
            outcome = Err(error);
        }
        if outcome.is_ok() {
            self.let_go_of_leaving();
        }
        outcome
    }

    /// A member that is still to have the partition claims it again.
    fn give_up_stale(&mut self, partition: u32) {
        if self.grouped.is_some()
            && let Some(place) = self.parts.iter().position(|part| part.partition == partition)
        {
            self.let_go(place);
        }
    }

    /// The next offset to consume as the group has committed it; `None` if it has not, or without a group.
    #[must_use]
    pub fn committed(&self, partition: u32) -> Option<u64> {
        self.part(partition)?.held.as_ref()?.claim.committed()
    }

    /// Ends the consumer. With automatic commits everything handed out is committed first; a member of a group then leaves it, so that
    /// others get its partitions at once. Dropping a consumer does the same in the background, but takes the last record for not done.
    ///
    /// Not cancel safe: the rest then happens in the background.
    ///
    /// # Errors
    /// As of [`commit`](Self::commit), with automatic commits.
    pub async fn close(mut self) -> Result<(), Error> {
        let Some(grouped) = self.grouped.take() else {
            return Ok(());
        };
        if grouped.membership.commits_by_itself {
            self.parts.iter().for_each(Part::note_done);
        }
        drop(self);
        grouped.membership.end().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConsumerBuilder;

    /// They are to be run by tasks.
    #[test]
    fn what_a_consumer_does_can_be_spawned() {
        fn check<T: Send>(_: impl FnOnce(T)) {}
        fn future<T, F: Future + Send>(_: fn(T) -> F) {}
        check::<Consumer>(drop);
        future(Consumer::close);
        future(ConsumerBuilder::build);
        fn by_reference(consumer: &mut Consumer) -> impl Future + Send {
            consumer.commit()
        }
        let _ = by_reference;
    }
}
