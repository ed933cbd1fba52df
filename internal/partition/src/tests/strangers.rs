//! Messages that are broken, misdirected, forged or hostile. The group must not mind.

use bytes::Bytes;
use highwater_log::Frame;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

use super::cluster::{Cluster, NAMES, batch, eventually, in_time};
use super::logs::all_frames;
use crate::codec::{append, calls, kind};
use crate::network::TERM_JUMP_MAX;
use crate::types::{AppendRequest, LogEntry, LogId, Vote, VoteRequest, log_id};
use crate::{Error, PeerStream, Role};

/// A cluster, one follower of it, and its leader.
async fn group() -> (Cluster, usize, usize) {
    let cluster = Cluster::start().await;
    cluster.decide(batch(1, 0)).await;
    cluster.all_reach(2).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    (cluster, follower, leader)
}

fn refused(result: Result<Vec<Bytes>, Error>, why: &str) {
    match result {
        Err(Error::BadMessage(text)) if text.contains(why) => {}
        other => panic!("expected a refusal because of {why:?}, got {other:?}"),
    }
}

/// A vote request as replica `candidate` would send it.
fn vote_request(to: usize, term: u64, candidate: usize) -> Bytes {
    let last = Some(LogId::new(crate::types::CommittedLeaderId::new(term), 1_000));
    let mut request = VoteRequest::new(Vote::new(term, candidate as u64 + 1), last);
    request.leadership_transfer = true; // would not wait for the leader's lease
    calls::encode_vote_request(to as u64 + 1, &request)
}

fn heartbeat(to: usize, vote: Vote) -> Bytes {
    let request = AppendRequest {
        vote,
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    Bytes::from(append::encode_request(to as u64 + 1, request, None).unwrap().0.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_speak_only_for_its_own_replica() {
    let (cluster, follower, leader) = group().await;
    let term = cluster.partition(leader).status().term;
    let other = 3 - follower - leader;
    let partition = cluster.partition(follower);
    for kind in [kind::VOTE, kind::PRE_VOTE] {
        let body = vote_request(follower, term + 1, leader);
        refused(
            partition.handle_call(NAMES[other], kind, body).await,
            "speaks for replica",
        );
    }
    let vote = Vote::new_committed(term, leader as u64 + 1);
    refused(
        partition
            .handle_call(NAMES[other], kind::APPEND, heartbeat(follower, vote))
            .await,
        "speaks for replica",
    );
    let own = partition
        .handle_call(NAMES[leader], kind::APPEND, heartbeat(follower, vote))
        .await;
    assert!(own.is_ok(), "{own:?}");
    assert_eq!(cluster.partition(leader).status().term, term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused() {
    let (cluster, follower, _) = group().await;
    let partition = cluster.partition(follower);
    let body = vote_request(follower, 2, 8);
    refused(partition.handle_call("stranger", kind::VOTE, body).await, "no member");
    let body = calls::encode_confirm_request(follower as u64 + 1);
    for kind in [kind::CONFIRM_END, kind::CONFIRM_START] {
        refused(partition.handle_call("stranger", kind, body.clone()).await, "no member");
    }
}

/// A replica may have slept while others were added and then elected: nobody but them can tell it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_joined_while_this_replica_slept_is_followed() {
    let (cluster, follower, leader) = group().await;
    let partition = cluster.partition(follower);
    let term = partition.status().term;
    let elected = heartbeat(follower, Vote::new_committed(term + 1, 8));
    let answer = partition.handle_call("newcomer", kind::APPEND, elected).await;
    assert!(answer.is_ok(), "{answer:?}");
    eventually("the newer term", || partition.status().term > term).await;
    // a member's replica stays the member's
    let forged = heartbeat(follower, Vote::new_committed(term + 2, leader as u64 + 1));
    refused(
        partition.handle_call("newcomer", kind::APPEND, forged).await,
        "speaks for replica",
    );
    cluster.decide(batch(1, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_an_earlier_replica_is_refused() {
    let (cluster, follower, leader) = group().await;
    let partition = cluster.partition(follower);
    let body = vote_request(40, 2, leader);
    refused(
        partition.handle_call(NAMES[leader], kind::VOTE, body).await,
        "reached replica",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_from_far_ahead_is_refused() {
    let (cluster, follower, leader) = group().await;
    let partition = cluster.partition(follower);
    let other = 3 - follower - leader;
    let before = partition.status().term;
    let far = before + TERM_JUMP_MAX + 1;
    let body = vote_request(follower, far, other);
    refused(
        partition.handle_call(NAMES[other], kind::VOTE, body).await,
        "too far ahead",
    );
    let vote = Vote::new_committed(far, other as u64 + 1);
    refused(
        partition
            .handle_call(NAMES[other], kind::APPEND, heartbeat(follower, vote))
            .await,
        "too far ahead",
    );
    assert_eq!(partition.status().term, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_kinds_are_refused() {
    let (cluster, follower, leader) = group().await;
    let partition = cluster.partition(follower);
    for kind in [0, kind::CONFIRM_START + 1, kind::APPEND_STREAM, 255] {
        refused(partition.handle_call(NAMES[leader], kind, Bytes::new()).await, "kind");
    }
    let (sender, _answers) = mpsc::channel(1);
    let (_messages, receiver) = mpsc::channel(1);
    let refused = partition
        .handle_stream(NAMES[leader], kind::VOTE, PeerStream { sender, receiver })
        .await;
    assert!(matches!(refused, Err(Error::BadMessage(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_messages_are_refused_and_the_group_goes_on() {
    let (cluster, follower, leader) = group().await;
    let partition = cluster.partition(follower);
    let term = partition.status().term;
    let mut random = StdRng::seed_from_u64(11);
    let valid = [
        heartbeat(follower, Vote::new_committed(term, leader as u64 + 1)),
        append_of(&cluster, follower, leader),
        calls::encode_confirm_request(follower as u64 + 1),
    ];
    for round in 0..3_000 {
        let mut bytes = valid[round % valid.len()].to_vec();
        bytes.truncate(random.random_range(0..=bytes.len()));
        for byte in bytes.iter_mut().skip(33).take(40) {
            if random.random_bool(0.1) {
                *byte = random.random();
            }
        }
        let kind = [
            kind::VOTE,
            kind::PRE_VOTE,
            kind::TRANSFER,
            kind::CONFIRM_END,
            kind::CONFIRM_START,
            77,
        ][round % 6];
        drop(in_time("an answer", partition.handle_call("stranger", kind, Bytes::from(bytes))).await);
    }
    cluster.decide(batch(1, 1)).await;
    cluster.all_reach(4).await;
    cluster.equal_logs().await;
}

/// An append with all entries of the leader's log.
fn append_of(cluster: &Cluster, to: usize, leader: usize) -> Bytes {
    let frames = all_frames(&cluster.node(leader).log);
    let term = cluster.partition(leader).status().term;
    let request = AppendRequest {
        vote: Vote::new_committed(term, leader as u64 + 1),
        prev_log_id: None,
        entries: frames
            .into_iter()
            .map(|frame| LogEntry::stored(frame).unwrap())
            .collect(),
        leader_commit: None,
    };
    Bytes::from(append::encode_request(to as u64 + 1, request, None).unwrap().0.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_survive_the_message_to_the_byte_and_damage_does_not() {
    let (cluster, follower, leader) = group().await;
    let frames = all_frames(&cluster.node(leader).log);
    let message = append_of(&cluster, follower, leader);
    let (_, request, _) = append::decode_request(message.clone()).unwrap();
    let carried: Vec<Frame> = request.entries.into_iter().map(frame_of).collect();
    assert_eq!(carried, frames);
    let frames_start = message.len() - frames.iter().map(Frame::len_bytes).sum::<usize>();
    for at in frames_start..message.len() {
        let mut damaged = message.to_vec();
        damaged[at] ^= 0x20;
        assert!(
            append::decode_request(Bytes::from(damaged)).is_err(),
            "damage at byte {at} was not noticed"
        );
    }
}

fn frame_of(entry: LogEntry) -> Frame {
    match entry.into_log().unwrap() {
        highwater_log::Entry::Replicated(frame) => frame,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_at_the_first_message_that_is_refused() {
    let (cluster, follower, leader) = group().await;
    let partition = cluster.partition(follower).clone();
    let term = partition.status().term;
    let (sender, mut answers) = mpsc::channel(4);
    let (messages, receiver) = mpsc::channel(4);
    let stream = PeerStream { sender, receiver };
    let serving = tokio::spawn(async move {
        partition
            .handle_stream(NAMES[leader], kind::APPEND_STREAM, stream)
            .await
    });
    messages
        .send(heartbeat(follower, Vote::new_committed(term, leader as u64 + 1)))
        .await
        .unwrap();
    let answer = in_time("an answer", answers.recv()).await.unwrap();
    assert!(append::decode_result(Bytes::from(answer.concat())).unwrap().is_ok());
    let forged = 3 - follower - leader;
    messages
        .send(heartbeat(follower, Vote::new_committed(term, forged as u64 + 1)))
        .await
        .unwrap();
    let ended = in_time("the end", serving).await.unwrap();
    assert!(matches!(ended, Err(Error::BadMessage(_))), "{ended:?}");
    assert!(answers.recv().await.is_none());
}

/// A follower that is sent a frame its own fold would have decided otherwise must not take it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_decides_otherwise_stops_with_a_report() {
    let (cluster, follower, leader) = group().await;
    let last = all_frames(&cluster.node(leader).log).pop().unwrap();
    // a group with other leaders at the same indexes: its frames' chains cannot follow on here, its terms can
    let other_group = Cluster::start().await;
    for _ in 0..2 {
        let next = other_group.follower().await;
        let leader = other_group.partition(other_group.leader().await).clone();
        let mut changes = other_group.partition(next).status_changes();
        leader
            .transfer_leader(super::cluster::member(next).replica_id)
            .await
            .unwrap();
        in_time("the hand-over", changes.wait_for(|status| status.role == Role::Leader))
            .await
            .unwrap();
    }
    other_group.accept(batch(9, 0)).await;
    let foreign = all_frames(&other_group.node(other_group.leader().await).log);
    let frame = foreign[last.header.id.index as usize + 1].clone();
    assert!(
        frame.header.id.term >= last.header.id.term,
        "{:?} after {:?}",
        frame.id(),
        last.id()
    );
    let term = cluster.partition(leader).status().term.max(frame.header.id.term);
    let request = AppendRequest {
        vote: Vote::new_committed(term, leader as u64 + 1),
        prev_log_id: Some(log_id(last.id())),
        entries: vec![LogEntry::stored(frame).unwrap()],
        leader_commit: None,
    };
    let (parts, _) = append::encode_request(follower as u64 + 1, request, None).unwrap();
    let victim = cluster.partition(follower);
    let answer = victim
        .handle_call(NAMES[leader], kind::APPEND, Bytes::from(parts.concat()))
        .await;
    assert!(answer.is_err(), "{answer:?}");
    let why = in_time("the end", victim.stopped())
        .await
        .expect("nobody asked it to stop");
    assert!(why.contains("diverges"), "{why}");
}
