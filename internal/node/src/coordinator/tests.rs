//! Members that come, fall silent, are replaced and leave, by the clock that the tests set.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::members::{ANSWERS_MAX, Joining, MEMBERS_MAX, Members, StreamId};
use super::table::{Assignment, Partitions};
use crate::status::Problem;

const SESSION: Duration = Duration::from_secs(10);
const RELEASE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// A group with a clock.
struct Group {
    members: Members,
    now: Instant,
    streams: u64,
    room: Arc<Semaphore>,
}

/// A member's stream, seen from the member.
struct Stream {
    name: String,
    id: StreamId,
    answers: mpsc::Receiver<Result<Assignment, Problem>>,
    ended: Option<Problem>,
}

impl Group {
    fn new(partition_count: u32) -> Group {
        Group::settling(partition_count, Duration::ZERO)
    }

    fn settling(partition_count: u32, settle: Duration) -> Group {
        let now = Instant::now();
        Group {
            members: Members::new("billing".to_owned(), partition_count, now + settle),
            now,
            streams: 0,
            room: Arc::new(Semaphore::new(10_000)),
        }
    }

    fn join(&mut self, name: &str, client: &str, held: &[u32]) -> Stream {
        self.streams += 1;
        let (answers, told) = mpsc::channel(ANSWERS_MAX);
        let joining = Joining {
            member: name.to_owned(),
            client: client.to_owned(),
            stream: StreamId(self.streams),
            session: SESSION,
            release: RELEASE,
            held: held.iter().copied().collect(),
            answers,
            room: self.room.clone().try_acquire_owned().unwrap(),
        };
        self.members.join(joining, self.now);
        Stream {
            name: name.to_owned(),
            id: StreamId(self.streams),
            answers: told,
            ended: None,
        }
    }

    fn report(&mut self, stream: &Stream, version: u64, held: &[u32]) {
        let held = held.iter().copied().collect();
        self.members.report(&stream.name, stream.id, version, held, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.members.tick(self.now);
    }

    fn names(&self) -> Vec<String> {
        self.members
            .describe(self.now)
            .into_iter()
            .map(|view| view.member)
            .collect()
    }
}

impl Stream {
    /// All that was told, as version and partitions.
    fn told(&mut self) -> Vec<(u64, Vec<u32>)> {
        let mut told = Vec::new();
        while let Ok(answer) = self.answers.try_recv() {
            match answer {
                Ok(Assignment { version, partitions }) => told.push((version, partitions.into_iter().collect())),
                Err(problem) => self.ended = Some(problem),
            }
        }
        told
    }

    /// Why nothing more is told.
    fn end(&mut self) -> Problem {
        self.told();
        self.ended.clone().unwrap()
    }

    fn is_cut_off(&mut self) -> bool {
        matches!(self.answers.try_recv(), Err(TryRecvError::Disconnected))
    }
}

#[test]
fn a_member_is_answered_at_once_and_at_each_sign_of_life() {
    let mut group = Group::new(2);
    let mut one = group.join("one", "acme/a", &[]);
    assert_eq!(one.told(), [(1, vec![0, 1])]);
    group.report(&one, 1, &[0, 1]);
    group.report(&one, 1, &[0, 1]);
    assert_eq!(one.told(), [(1, vec![0, 1]), (1, vec![0, 1])]);
}

#[test]
fn one_that_falls_silent_is_taken_out_and_its_partitions_are_given_to_others() {
    let mut group = Group::new(2);
    let mut one = group.join("one", "acme/a", &[]);
    group.report(&one, 1, &[0, 1]);
    let mut two = group.join("two", "acme/a", &[]);
    group.report(&two, 1, &[]);
    group.report(&one, 2, &[0]);
    group.report(&two, 2, &[1]);
    group.pass(SESSION / 2);
    group.report(&one, 2, &[0]);
    group.pass(SESSION / 2);
    assert_eq!(group.names(), ["one"]);
    assert_eq!(one.told().last(), Some(&(3, vec![0, 1])));
    assert!(matches!(two.end(), Problem::SessionOver { .. }));
}

#[test]
fn a_lost_stream_changes_nothing_for_a_session() {
    let mut group = Group::new(2);
    let mut one = group.join("one", "acme/a", &[]);
    group.report(&one, 1, &[0, 1]);
    let two = group.join("two", "acme/a", &[]);
    group.report(&two, 1, &[]);
    one.told();
    group.report(&one, 2, &[0]);
    group.members.lose_stream("two", two.id, None);
    group.pass(SESSION - SECOND);
    group.report(&one, 2, &[0]);
    assert!(one.told().iter().all(|(_, partitions)| partitions == &[0]));
    let mut two = group.join("two", "acme/a", &[]);
    assert_eq!(two.told(), [(1, vec![1])], "it finds its partition waiting");
}

#[test]
fn who_joins_under_a_name_in_use_takes_its_place_and_the_other_is_told() {
    let mut group = Group::new(1);
    let mut old = group.join("one", "acme/a", &[]);
    let mut new = group.join("one", "acme/a", &[0]);
    assert_eq!(old.told(), [(1, vec![0])]);
    assert!(matches!(old.end(), Problem::MemberReplaced { .. }));
    assert_eq!(new.told(), [(1, vec![0])]);
    group.report(&old, 1, &[]);
    group.members.leave("one", old.id, group.now);
    group.members.lose_stream("one", old.id, None);
    assert_eq!(
        group.members.describe(group.now)[0].held,
        Partitions::from([0]),
        "nobody listens to it any more"
    );
    group.report(&new, 1, &[0]);
    assert_eq!(new.told().len(), 1);
}

#[test]
fn another_client_cannot_take_a_name_that_is_in_use() {
    let mut group = Group::new(1);
    let mut one = group.join("one", "acme/a", &[]);
    let mut thief = group.join("one", "acme/b", &[0]);
    assert!(matches!(thief.end(), Problem::Denied(_)));
    group.report(&one, 1, &[0]);
    assert_eq!(one.told(), [(1, vec![0]), (1, vec![0])]);
    group.pass(SESSION);
    let mut heir = group.join("one", "acme/b", &[]);
    assert_eq!(heir.told(), [(1, vec![0])], "once it is free, it may");
}

#[test]
fn a_new_coordinator_shares_out_only_when_all_could_have_come() {
    let mut group = Group::settling(4, 3 * SECOND);
    let mut one = group.join("one", "acme/a", &[0, 1]);
    let mut new = group.join("new", "acme/a", &[]);
    assert_eq!(one.told(), [(0, vec![0, 1])]);
    assert_eq!(new.told(), [(0, vec![])], "2 and 3 may be somebody's");
    assert_eq!(group.members.next_tick(group.now), Some(group.now + 3 * SECOND));
    group.pass(2 * SECOND);
    let mut two = group.join("two", "acme/a", &[2, 3]);
    assert_eq!(two.told(), [(0, vec![2, 3])]);
    group.pass(SECOND);
    assert_eq!((one.told(), two.told()), (vec![(1, vec![0, 1])], vec![(1, vec![2])]));
    assert_eq!(new.told(), [(1, vec![])]);
    group.report(&two, 1, &[2]);
    group.report(&new, 1, &[]);
    assert_eq!(new.told().last(), Some(&(2, vec![3])));
}

#[test]
fn one_that_does_not_let_go_in_time_is_taken_out() {
    let mut group = Group::new(2);
    let mut one = group.join("one", "acme/a", &[]);
    group.report(&one, 1, &[0, 1]);
    let mut two = group.join("two", "acme/a", &[]);
    one.told();
    group.report(&two, 1, &[]);
    for _ in 0..RELEASE.as_secs() {
        group.report(&one, 2, &[0, 1]);
        group.report(&two, 1, &[]);
        one.told();
        two.told();
        group.pass(SECOND);
    }
    assert_eq!(group.names(), ["two"]);
    assert!(matches!(one.end(), Problem::SessionOver { .. }));
    assert_eq!(two.told().last(), Some(&(2, vec![0, 1])));
}

#[test]
fn who_takes_no_answers_is_cut_off_and_keeps_its_session() {
    let mut group = Group::new(1);
    let mut one = group.join("one", "acme/a", &[]);
    for _ in 0..2 * ANSWERS_MAX {
        group.report(&one, 1, &[0]);
    }
    assert_eq!(one.told().len(), ANSWERS_MAX);
    assert!(one.is_cut_off());
    assert_eq!(group.names(), ["one"]);
}

#[test]
fn a_group_has_a_limit() {
    let mut group = Group::new(1);
    let streams: Vec<Stream> = (0..MEMBERS_MAX)
        .map(|number| group.join(&format!("m{number}"), "acme/a", &[]))
        .collect();
    assert!(matches!(group.join("more", "acme/a", &[]).end(), Problem::Refused(_)));
    group.members.leave("m0", streams[0].id, group.now);
    assert_eq!(group.join("more", "acme/a", &[]).told().len(), 1);
}

#[test]
fn when_the_coordinator_goes_everybody_is_told() {
    let mut group = Group::new(1);
    let mut one = group.join("one", "acme/a", &[]);
    one.told();
    let what = "partition 0 of topic `acme/orders`".to_owned();
    group.members.end(&Problem::NoQuorum { what });
    assert!(matches!(one.end(), Problem::NoQuorum { .. }));
}
