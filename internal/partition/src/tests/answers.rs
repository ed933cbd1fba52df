//! Who gets which answer, without a group around it.

use std::sync::{Arc, Mutex};

use openraft::errors::{ClientWriteError, ForwardToLeader};
use openraft::raft::responder::Responder as _;

use highwater_log::{Body, Entry, EntryId};

use super::cluster::{NAMES, batch};
use super::logs::open_log;
use crate::progress::Progress;
use crate::responder::{BatchAnswer, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_PROPOSALS_MAX, InFlight, Responder, WriteResult};
use crate::stages::ReplicaStages;
use crate::types::{CommittedLeaderId, LogId, NodeName, log_id};
use crate::{Answer, NotApplied};

struct Asked {
    responder: Responder<WriteResult>,
    answers: Arc<Mutex<Vec<Answer>>>,
    in_flight: Arc<InFlight>,
    _dir: tempfile::TempDir,
}

/// A responder over an empty log, with 100 bytes in flight in term 3.
fn ask() -> Asked {
    let dir = tempfile::tempdir().unwrap();
    let (log, _writer) = open_log(&dir.path().join("log"), 1, 1 << 20);
    let progress = Arc::new(Progress::new(log.clone()));
    let in_flight = Arc::new(InFlight::default());
    let answers = Arc::new(Mutex::new(Vec::new()));
    let record = answers.clone();
    let answer = Box::new(move |answer| record.lock().unwrap().push(answer));
    let share = in_flight.take(100).unwrap();
    let answer = BatchAnswer {
        answer: Some(answer),
        log,
        progress,
        term: 3,
        share: Some(share),
        stopwatch: ReplicaStages::default().begin(Vec::new()),
    };
    Asked {
        responder: answer.responder(),
        answers,
        in_flight,
        _dir: dir,
    }
}

fn forward() -> ForwardToLeader<crate::types::TypeConfig> {
    ForwardToLeader::new(2, NodeName("b".to_owned()))
}

/// A follower that comes back can let a leader commit everything that waits in one step.
#[test]
fn all_that_can_be_in_flight_is_decided_though_committed_in_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _writer) = open_log(&dir.path().join("log"), 1, 64 << 20);
    let progress = Arc::new(Progress::new(log.clone()));
    let in_flight = Arc::new(InFlight::default());
    let decided = Arc::new(Mutex::new(0));
    let mut responders = Vec::new();
    while let Some(share) = in_flight.take(1) {
        let index = responders.len() as u64;
        let count = decided.clone();
        let answer = Box::new(move |answer| {
            if matches!(answer, Answer::Decided(decision) if decision.base_offset == index * 2) {
                *count.lock().unwrap() += 1;
            }
        });
        let id = EntryId { term: 1, index };
        let body = Body::Batch(batch(1, index));
        log.append(vec![Entry::Proposed { id, body }], Box::new(|_| {}))
            .unwrap();
        let answer = BatchAnswer {
            answer: Some(answer),
            log: log.clone(),
            progress: progress.clone(),
            term: 1,
            share: Some(share),
            stopwatch: ReplicaStages::default().begin(Vec::new()),
        };
        responders.push((log_id(id), answer.responder()));
    }
    assert_eq!(responders.len(), IN_FLIGHT_PROPOSALS_MAX);
    // more entries behind them, of which nobody waits for a decision
    let controls = (0..100).map(|more| Entry::Proposed {
        id: EntryId {
            term: 1,
            index: responders.len() as u64 + more,
        },
        body: Body::Blank,
    });
    log.append(controls.collect(), Box::new(|_| {})).unwrap();
    progress.commit(u64::MAX - 1).unwrap();
    for (id, responder) in &mut responders {
        responder.on_commit(*id);
    }
    assert_eq!(*decided.lock().unwrap(), IN_FLIGHT_PROPOSALS_MAX);
}

#[test]
fn forward_to_the_leader_means_not_applied() {
    let asked = ask();
    asked
        .responder
        .on_complete(Err(ClientWriteError::ForwardToLeader(forward())));
    let answers = asked.answers.lock().unwrap();
    match answers.as_slice() {
        [
            Answer::NotApplied(NotApplied::NotLeader {
                leader: Some(leader),
                term: 3,
            }),
        ] => {
            assert_eq!((leader.replica_id.0, leader.node.as_str()), (2, "b"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(asked.in_flight.bytes(), 0);
}

#[test]
fn a_discarded_entry_means_unknown() {
    let asked = ask();
    asked
        .responder
        .on_complete(Err(ClientWriteError::LogEntryDiscarded(forward())));
    assert!(matches!(asked.answers.lock().unwrap().as_slice(), [Answer::Unknown(_)]));
}

#[test]
fn a_dropped_responder_means_unknown() {
    let asked = ask();
    drop(asked.responder);
    assert!(matches!(asked.answers.lock().unwrap().as_slice(), [Answer::Unknown(_)]));
    assert_eq!(asked.in_flight.bytes(), 0);
}

#[test]
fn a_commit_the_log_knows_nothing_of_means_unknown_and_only_once() {
    let mut asked = ask();
    asked.responder.on_commit(LogId::new(CommittedLeaderId::new(3), 5));
    drop(asked.responder);
    assert!(matches!(asked.answers.lock().unwrap().as_slice(), [Answer::Unknown(_)]));
}

#[test]
fn what_is_in_flight_is_bounded_in_bytes() {
    let in_flight = Arc::new(InFlight::default());
    let half = in_flight.take(IN_FLIGHT_BYTES_MAX / 2).unwrap();
    let rest = in_flight.take(IN_FLIGHT_BYTES_MAX / 2).unwrap();
    assert!(in_flight.take(1).is_none());
    drop(half);
    assert!(in_flight.take(1).is_some());
    drop(rest);
    assert_eq!(in_flight.bytes(), 0);
}

#[test]
fn what_is_in_flight_is_bounded_in_number() {
    let in_flight = Arc::new(InFlight::default());
    let shares: Vec<_> = (0..IN_FLIGHT_PROPOSALS_MAX)
        .map(|_| in_flight.take(1).unwrap())
        .collect();
    assert!(in_flight.take(1).is_none());
    drop(shares);
    assert!(in_flight.take(1).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_full_says_so_and_recovers() {
    let cluster = super::cluster::Cluster::start().await;
    let leader = cluster.leader().await;
    // They hear that it leads, however long this takes, and get nothing from it.
    for other in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.network.hold(NAMES[leader], NAMES[other]);
    }
    let payload = bytes::Bytes::from(vec![1u8; 1 << 20]);
    let mut waiting = Vec::new();
    let mut overloaded = false;
    for sequence in 0..80 {
        let big = super::cluster::batch_of(1, sequence, payload.clone());
        let mut answer = super::cluster::propose_now(cluster.partition(leader), big);
        assert!(cluster.partition(leader).in_flight_bytes() <= IN_FLIGHT_BYTES_MAX);
        match answer.try_recv() {
            Ok(given) => overloaded |= given == Answer::NotApplied(NotApplied::Overloaded),
            Err(_) => waiting.push(answer),
        }
    }
    assert!(overloaded, "80 MiB in flight were taken");
    cluster.network.heal();
    for answer in waiting {
        drop(super::cluster::in_time("an answer", answer).await);
    }
    cluster.decide(batch(2, 0)).await;
    assert_eq!(cluster.partition(leader).in_flight_bytes(), 0);
}
