//! The task of one member.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};

use super::claiming;
use super::line::{Line, Told, coordinator, is_final};
use super::places::{Places, Step};
use super::{Assigned, Change, Held, Route, Shared};
use crate::deadline::Deadline;
use crate::error::{Error, Reason};

/// How many signs of life there are in a session.
const SIGNS_PER_SESSION: u32 = 4;
/// How long a partition that another has claimed is left to it, if it is ours.
const RECLAIM_PAUSE: Duration = Duration::from_secs(1);
/// How many partitions are committed at a time.
const COMMITS_AT_ONCE: usize = 16;
/// How long the last commits may take.
const LAST_COMMITS_TIMEOUT: Duration = Duration::from_secs(5);
/// A line that broke sooner is not made anew at once.
const LINE_LIFE_LEAST: Duration = Duration::from_secs(1);
/// But after this time.
const REJOIN_PAUSE: Duration = Duration::from_millis(200);

/// What has come of joining.
type Opened = Result<(Box<Line>, Told), Error>;
/// What has come of an attempt to claim a partition, and which attempt it was.
type Claimed = (u32, u64, Result<Assigned, Error>);
/// What has come of commits.
type Committed = Vec<(u32, Result<(), Error>)>;

/// What happens next.
enum Next {
    Opened(Opened),
    Told(Result<Told, Error>),
    Claimed(Claimed),
    LetGo,
    /// A partition was let go of, and what was done of it is committed.
    Finished(u32),
    Committed(Committed),
    CommitDue,
    Sign,
    LeaderMoved,
    /// Something that was begun was cut off.
    Nothing,
    /// The consumer is gone.
    End,
}

impl Next {
    /// What a task has come to.
    fn of<T>(joined: Result<T, JoinError>, next: impl FnOnce(T) -> Next) -> Next {
        joined.map_or(Next::Nothing, next)
    }
}

/// Runs until the consumer is gone, or the member cannot be in the group; an error if the last commits failed.
pub(super) async fn run(route: Arc<Route>, shared: Arc<Shared>, changes: mpsc::Sender<Change>) -> Result<(), Error> {
    let mut task = Task::new(route, shared, changes);
    loop {
        let next = task.next().await;
        match task.act(next) {
            Ok(true) => {}
            Ok(false) => return task.finish().await,
            Err(error) => {
                task.tell(Change::Failed(error));
                return Ok(());
            }
        }
    }
}

struct Task {
    route: Arc<Route>,
    shared: Arc<Shared>,
    changes: mpsc::Sender<Change>,
    places: Places,
    held: BTreeMap<u32, Arc<Held>>,
    line: Option<Box<Line>>,
    /// While there is no line and the member is not away.
    opening: Option<BoxFuture<'static, Opened>>,
    /// Of what was last told on the line.
    version: u64,
    /// Nothing has been taken in from the line yet: a version seen before is news on it.
    is_new_line: bool,
    line_since: Instant,
    heard_at: Instant,
    claims: JoinSet<Claimed>,
    /// The attempt for each partition that is being claimed.
    claiming: BTreeMap<u32, (u64, AbortHandle)>,
    attempts: u64,
    finishing: JoinSet<u32>,
    commits: JoinSet<Committed>,
    commit_due: Interval,
    sign_due: Interval,
    pictures: watch::Receiver<u64>,
    /// How often the application had asked when it was last seen to ask, and when that was.
    asked: (u64, Instant),
    /// The application has taken too long, and the member has left until it asks again.
    is_away: bool,
    has_joined: bool,
    is_settled: bool,
}

impl Task {
    fn new(route: Arc<Route>, shared: Arc<Shared>, changes: mpsc::Sender<Change>) -> Task {
        let now = Instant::now();
        let every = |period: Duration| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut task = Task {
            pictures: route.caller.resolver.changes(),
            commit_due: every(route.auto_commit.unwrap_or(route.session)),
            sign_due: every(route.session / SIGNS_PER_SESSION),
            route,
            shared,
            changes,
            places: Places::default(),
            held: BTreeMap::new(),
            line: None,
            opening: None,
            version: 0,
            is_new_line: true,
            line_since: now,
            heard_at: now,
            claims: JoinSet::new(),
            claiming: BTreeMap::new(),
            attempts: 0,
            finishing: JoinSet::new(),
            commits: JoinSet::new(),
            asked: (0, now),
            is_away: false,
            has_joined: false,
            is_settled: false,
        };
        task.join(Duration::ZERO);
        task
    }

    async fn next(&mut self) -> Next {
        let hear = async {
            match &mut self.line {
                Some(line) => line.hear().await,
                None => std::future::pending().await,
            }
        };
        let open = async {
            match &mut self.opening {
                Some(opening) => opening.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.changes.closed() => Next::End,
            () = self.shared.news.notified() => Next::LetGo,
            opened = open => Next::Opened(opened),
            told = hear => Next::Told(told),
            Some(claimed) = self.claims.join_next() => Next::of(claimed, Next::Claimed),
            Some(finished) = self.finishing.join_next() => Next::of(finished, Next::Finished),
            Some(committed) = self.commits.join_next() => Next::of(committed, Next::Committed),
            _ = self.sign_due.tick() => Next::Sign,
            _ = self.commit_due.tick(), if self.route.auto_commit.is_some() => Next::CommitDue,
            Ok(()) = self.pictures.changed() => Next::LeaderMoved,
        }
    }

    /// Does what is to be done; whether the member goes on.
    fn act(&mut self, next: Next) -> Result<bool, Error> {
        match next {
            Next::End => return Ok(false),
            Next::Opened(opened) => {
                self.opening = None;
                let (line, told) = opened?;
                self.line = Some(line);
                self.line_since = Instant::now();
                self.is_new_line = true;
                if !std::mem::replace(&mut self.has_joined, true) {
                    self.tell(Change::Joined);
                }
                self.take_in(told);
            }
            Next::Told(Ok(told)) => self.take_in(told),
            Next::Told(Err(error)) => {
                if is_final(&self.route, &error) {
                    return Err(error);
                }
                self.rejoin(&error);
            }
            Next::Claimed(claimed) => self.take_in_claim(claimed)?,
            Next::LetGo => self.take_in_let_go(),
            Next::Finished(partition) => self.forget(partition, Duration::ZERO),
            Next::Committed(results) => self.take_in_commits(results),
            Next::CommitDue => self.commit(),
            Next::Sign => self.give_sign(),
            Next::LeaderMoved => self.follow_coordinator(),
            Next::Nothing => {}
        }
        Ok(true)
    }

    /// Tells the consumer. There is room, for it is told two things about a partition at most before it has answered.
    fn tell(&self, change: Change) {
        if self.changes.try_send(change).is_err() {
            tracing::debug!("the consumer does not listen any more");
        }
        self.shared.announce_change();
    }

    // ------------------------------------------------------------------------------------------------------ the line

    /// Looks for the coordinator, `after` a while. Everything goes on meanwhile.
    fn join(&mut self, after: Duration) {
        let (route, partitions) = (self.route.clone(), self.places.partitions());
        self.line = None;
        let open = async move {
            sleep(after).await;
            Line::open(&route, &partitions).await
        };
        self.opening = Some(open.boxed());
    }

    fn rejoin(&mut self, why: &Error) {
        tracing::debug!(group = self.route.member.group, %why, "joining again");
        let is_young = self.line_since.elapsed() < LINE_LIFE_LEAST;
        self.join(if is_young { REJOIN_PAUSE } else { Duration::ZERO });
    }

    fn take_in(&mut self, told: Told) {
        self.heard_at = Instant::now();
        let is_news = std::mem::take(&mut self.is_new_line) || told.version != self.version;
        self.version = told.version;
        let steps = self.places.want(told.partitions);
        let has_steps = !steps.is_empty();
        self.take(steps, Duration::ZERO);
        if is_news || has_steps {
            self.report();
        }
        self.tell_if_settled();
    }

    /// Says what the member has.
    fn report(&mut self) {
        let Some(line) = &self.line else { return };
        if let Err(error) = line.hold(self.version, self.places.partitions()) {
            self.rejoin(&error);
        }
    }

    fn give_sign(&mut self) {
        self.watch_application();
        if self.line.is_none() {
            return;
        }
        // Each sign is answered, so this is a coordinator that has not answered several.
        if self.heard_at.elapsed() > self.route.session * 3 / SIGNS_PER_SESSION {
            self.join(Duration::ZERO);
            return;
        }
        self.report();
    }

    fn follow_coordinator(&mut self) {
        let known = coordinator(&self.route);
        let is_elsewhere = |line: &Line| known.is_some_and(|known| known != line.node);
        if self.line.as_deref().is_some_and(is_elsewhere) {
            self.join(Duration::ZERO);
        }
    }

    // ------------------------------------------------------------------------------------------------ the partitions

    /// Takes steps; claims wait `after`.
    fn take(&mut self, steps: Vec<Step>, after: Duration) {
        for step in steps {
            match step {
                Step::Claim(partition) => {
                    self.attempts += 1;
                    let (route, attempt) = (self.route.clone(), self.attempts);
                    let claim = async move { (partition, attempt, claiming::claim(route, partition, after).await) };
                    let handle = self.claims.spawn(claim);
                    self.claiming.insert(partition, (attempt, handle));
                }
                Step::Drop(partition) => {
                    if let Some((_, handle)) = self.claiming.remove(&partition) {
                        handle.abort();
                    }
                }
                Step::Leave(partition) => self.tell(Change::Leave(partition)),
            }
        }
    }

    fn take_in_claim(&mut self, (partition, attempt, claimed): Claimed) -> Result<(), Error> {
        if self.claiming.get(&partition).is_none_or(|(last, _)| *last != attempt) {
            return Ok(()); // it was dropped meanwhile
        }
        self.claiming.remove(&partition);
        let assigned = claimed?;
        if self.places.claimed(partition) {
            self.held.insert(partition, assigned.held.clone());
            self.tell(Change::Assigned(assigned));
            self.tell_if_settled();
        }
        Ok(())
    }

    fn tell_if_settled(&mut self) {
        if !self.is_settled && self.version > 0 && self.places.is_settled() {
            self.is_settled = true;
            self.tell(Change::Settled);
        }
    }

    /// The consumer is done with some partitions, or has seen that they are another's.
    fn take_in_let_go(&mut self) {
        for (partition, number) in self.shared.take_let_go() {
            let Some(held) = self
                .held
                .get(&partition)
                .filter(|held| held.claim.number() == number)
                .cloned()
            else {
                continue; // it was lost before
            };
            if self.places.is_held(partition) {
                self.forget(partition, RECLAIM_PAUSE); // nobody had asked for it
                continue;
            }
            let (route, commits) = (self.route.clone(), self.route.auto_commit.is_some());
            self.finishing.spawn(async move {
                if commits {
                    // If it fails the next member begins where this one began; nothing is skipped.
                    let _ = commit(&route, &held, route.call_deadline).await;
                }
                partition
            });
        }
    }

    /// A partition is this member's no more.
    fn forget(&mut self, partition: u32, reclaim_after: Duration) {
        self.held.remove(&partition);
        let steps = self.places.let_go(partition);
        self.take(steps, reclaim_after);
        self.report();
    }

    // ------------------------------------------------------------------------------------------------------- commits

    fn commit(&mut self) {
        if self.commits.is_empty() && !self.held.is_empty() {
            let held: Vec<_> = self
                .held
                .iter()
                .map(|(partition, held)| (*partition, held.clone()))
                .collect();
            let route = self.route.clone();
            self.commits
                .spawn(async move { commit_all(&route, held, route.call_deadline).await });
        }
    }

    fn take_in_commits(&mut self, results: Committed) {
        for (partition, result) in results {
            let Err(error) = result else { continue };
            tracing::debug!(partition, %error, "an offset could not be committed");
            if error.reason() == Some(Reason::StaleClaim) && self.places.is_held(partition) {
                self.tell(Change::Lost(partition));
                self.forget(partition, RECLAIM_PAUSE);
            }
        }
    }

    // ------------------------------------------------------------------------------------------------ the application

    /// Leaves the group if the application takes too long, and joins again when it is back.
    fn watch_application(&mut self) {
        let (asked, now) = (self.shared.asked(), Instant::now());
        if asked != self.asked.0 || self.shared.is_asking() {
            self.asked = (asked, now);
            if self.is_away {
                self.is_away = false;
                self.join(Duration::ZERO);
            }
            return;
        }
        let is_idle = self.held.is_empty();
        if self.is_away || is_idle || now - self.asked.1 < self.route.processing_deadline {
            return;
        }
        let (group, member) = (&self.route.member.group, &self.route.member.member);
        tracing::warn!(
            group,
            member,
            "no record was asked for within the processing deadline; leaving the group"
        );
        self.is_away = true;
        self.opening = None;
        for partition in self.places.clear() {
            self.tell(Change::Lost(partition));
        }
        for (_, (_, handle)) in std::mem::take(&mut self.claiming) {
            handle.abort();
        }
        self.held.clear();
        if let Some(line) = self.line.take() {
            tokio::spawn(line.leave());
        }
    }

    /// Commits what is done, and leaves.
    async fn finish(mut self) -> Result<(), Error> {
        let mut committed = Ok(());
        if self.route.auto_commit.is_some() {
            let held = std::mem::take(&mut self.held).into_iter().collect();
            let timeout = self.route.call_deadline.min(LAST_COMMITS_TIMEOUT);
            let results = commit_all(&self.route, held, timeout).await;
            committed = results.into_iter().try_for_each(|(_, result)| result);
        }
        if let Some(line) = self.line.take().filter(|_| !self.route.is_static) {
            line.leave().await;
        }
        committed
    }
}

async fn commit_all(route: &Route, held: Vec<(u32, Arc<Held>)>, timeout: Duration) -> Committed {
    let commits = held.into_iter().map(|(partition, held)| async move {
        let committed = commit(route, &held, timeout).await;
        (partition, committed)
    });
    stream::iter(commits).buffer_unordered(COMMITS_AT_ONCE).collect().await
}

/// Commits what the application is done with.
async fn commit(route: &Route, held: &Held, timeout: Duration) -> Result<(), Error> {
    let deadline = Deadline::after(timeout);
    held.commit(&route.caller, &route.topic, held.done(), deadline).await
}
