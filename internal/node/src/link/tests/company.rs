//! Heartbeats of many groups: in few frames, and each for itself all the same.

use std::collections::BTreeMap;

use futures::future::join_all;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::super::Hello;
use super::super::connection::{CallError, Role};
use super::super::frame::bundle::{Bundle, decode_calls};
use super::super::frame::{Frame, FrameType, read_frame};
use super::super::limits::{BUNDLE_CALLS_MAX, COMPANY_QUIET, COMPANY_WAIT, FRAME_BYTES_MAX, INCOMING_CALLS_MAX};
use super::*;
use crate::test_node::kinds;

/// A connection of `node` to a peer that is played by the test, over a pipe.
fn dialled(node: &TestNode, bundles: bool) -> (Arc<Connection>, DuplexStream) {
    let said = node.link.inner.own_hello(Lane::Control);
    let hello = Hello {
        node: "n2".to_owned(),
        bundles,
        ..said.clone()
    };
    let (here, there) = duplex(1024 * 1024);
    (node.link.inner.start(Role::Dialler, hello, &said, here, None), there)
}

/// The next frame that is no ping: its type, and the group of each call in it by its id.
async fn next_calls(far_end: &mut DuplexStream) -> (FrameType, BTreeMap<u64, u64>) {
    loop {
        let (header, body) = read_frame(far_end, FRAME_BYTES_MAX, || ()).await.unwrap();
        match header.frame_type {
            FrameType::Ping => {}
            FrameType::Call => return (header.frame_type, [(header.id, header.group)].into()),
            _ => {
                let calls = decode_calls(body).unwrap();
                let groups = calls.iter().map(|call| (call.id, call.group)).collect();
                return (header.frame_type, groups);
            }
        }
    }
}

async fn write(far_end: &mut DuplexStream, frame: &Frame) {
    let mut bytes = bytes::BytesMut::new();
    frame.encode_header(&mut bytes);
    bytes.extend_from_slice(&frame.body.concat());
    far_end.write_all(&bytes).await.unwrap();
}

fn heartbeat(
    connection: &Arc<Connection>,
    group: u64,
    kind: u8,
) -> impl Future<Output = Result<Bytes, CallError>> + use<> {
    let connection = connection.clone();
    async move {
        let body = Bytes::from(group.to_be_bytes().to_vec());
        connection.call_in_company(group, kind, vec![body]).await
    }
}

#[tokio::test]
async fn heartbeats_of_many_groups_travel_in_few_frames_and_each_gets_its_own_answer() {
    let ca = TestCa::new();
    let one = TestNode::start(&ca, "n1").await;
    tokio::time::pause();
    let (connection, mut far_end) = dialled(&one, true);
    let groups = 300_u64;
    let calls: Vec<_> = (0..groups)
        .map(|group| tokio::spawn(heartbeat(&connection, group, kinds::ECHO)))
        .collect();

    let first = next_calls(&mut far_end).await;
    assert_eq!(first.0, FrameType::Call, "the first goes at once");
    let begin = Instant::now();
    let others = next_calls(&mut far_end).await;
    assert_eq!((others.0, others.1.len()), (FrameType::Calls, groups as usize - 1));
    assert!(begin.elapsed() <= COMPANY_WAIT + Duration::from_millis(1));

    let (id, group) = first.1.into_iter().next().unwrap();
    let body = vec![group.to_be_bytes().to_vec().into()];
    write(&mut far_end, &Frame::of(FrameType::Answer, id, body)).await;
    let mut answers = Bundle::default();
    for (id, group) in others.1 {
        match group % 2 {
            0 => answers.add_answer(id, Ok(&group.to_be_bytes())),
            _ => answers.add_answer(id, Err("odd")),
        }
    }
    write(&mut far_end, &answers.take(FrameType::Answers).0).await;
    for (group, call) in (0..groups).zip(calls) {
        let expected = match group {
            group if group % 2 == 0 => Ok(Bytes::from(group.to_be_bytes().to_vec())),
            _ => Err(CallError::Refused("odd".to_owned().into())),
        };
        assert_eq!(call.await.unwrap(), expected, "group {group}");
    }
    assert_eq!(connection.waiting_calls(), 0);
}

#[tokio::test]
async fn a_lone_heartbeat_waits_for_nobody() {
    let ca = TestCa::new();
    let one = TestNode::start(&ca, "n1").await;
    tokio::time::pause();
    let (connection, mut far_end) = dialled(&one, true);
    for group in 0..5 {
        let begin = Instant::now();
        let _call = tokio::spawn(heartbeat(&connection, group, kinds::ECHO));
        assert_eq!(next_calls(&mut far_end).await.0, FrameType::Call);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        tokio::time::sleep(COMPANY_QUIET).await;
    }
}

#[tokio::test]
async fn a_bundle_is_bounded() {
    let ca = TestCa::new();
    let one = TestNode::start(&ca, "n1").await;
    tokio::time::pause();
    let (connection, mut far_end) = dialled(&one, true);
    let all = 2 * BUNDLE_CALLS_MAX + 10;
    for group in 0..all as u64 {
        tokio::spawn(heartbeat(&connection, group, kinds::ECHO));
    }
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < all {
        sizes.push(next_calls(&mut far_end).await.1.len());
    }
    assert_eq!(sizes, [1, BUNDLE_CALLS_MAX, BUNDLE_CALLS_MAX, 9]);
}

#[tokio::test]
async fn a_peer_that_does_not_understand_bundles_gets_one_heartbeat_a_frame() {
    let ca = TestCa::new();
    let one = TestNode::start(&ca, "n1").await;
    tokio::time::pause();
    let (connection, mut far_end) = dialled(&one, false);
    for group in 0..20 {
        tokio::spawn(heartbeat(&connection, group, kinds::ECHO));
    }
    for group in 0..20 {
        let (frame_type, calls) = next_calls(&mut far_end).await;
        assert_eq!(frame_type, FrameType::Call);
        assert_eq!(calls.into_values().collect::<Vec<_>>(), [group]);
    }
}

#[tokio::test]
async fn a_lost_frame_fails_its_heartbeats_in_their_time() {
    let ca = TestCa::new();
    let (one, _two) = pair(&ca).await;
    call(&one, "n2", Lane::Control, kinds::ECHO, "connected").await.unwrap();
    let limit = Duration::from_millis(100);
    let begin = std::time::Instant::now();
    let calls = (0..50).map(|group| {
        let lost = one
            .link
            .heartbeat("n2", GroupId(group), kinds::NEVER, Vec::new(), limit);
        async move { (lost.await, begin.elapsed()) }
    });
    for (answer, after) in join_all(calls).await {
        assert!(matches!(answer, Err(PeerError::NoAnswer { .. })), "{answer:?}");
        assert!(after >= limit && after < PATIENCE, "{after:?}");
    }
    assert!(connections(&one).iter().all(|each| each.waiting_calls() == 0));
}

#[tokio::test]
async fn a_group_that_refuses_or_never_answers_does_so_for_itself_only() {
    let ca = TestCa::new();
    let (one, _two) = pair(&ca).await;
    call(&one, "n2", Lane::Control, kinds::ECHO, "connected").await.unwrap();
    let kind_of =
        |group: u64| [kinds::WHO, kinds::REFUSE, kinds::NEVER, kinds::PANIC, kinds::TOO_MUCH][group as usize % 5];
    let written = || connections(&one).iter().map(|each| each.frames_queued()).sum::<u64>();
    let before = written();
    let calls = (0..100).map(|group| {
        let limit = Duration::from_secs(1);
        one.link
            .heartbeat("n2", GroupId(group), kind_of(group), Vec::new(), limit)
    });
    let answers = join_all(calls).await;
    assert!(written() - before <= 3, "{} frames", written() - before);
    for (group, answer) in (0..).zip(answers) {
        match (kind_of(group), answer) {
            (kinds::WHO, Ok(answer)) => assert_eq!(answer, format!("n1 {group}")),
            (kinds::REFUSE, Err(PeerError::Refused { why, .. })) => assert_eq!(why, "not today"),
            (kinds::NEVER, Err(PeerError::NoAnswer { .. })) => {}
            (kinds::PANIC, Err(PeerError::Refused { why, .. })) => assert!(why.contains("panicked"), "{why}"),
            (kinds::TOO_MUCH, Err(PeerError::Refused { why, .. })) => assert!(why.contains("are allowed"), "{why}"),
            (kind, answer) => panic!("kind {kind}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn bundles_beyond_what_a_node_carries_out_at_once_are_refused() {
    let ca = TestCa::new();
    let (one, _two) = pair(&ca).await;
    call(&one, "n2", Lane::Control, kinds::ECHO, "connected").await.unwrap();
    let limit = Duration::from_secs(2);
    let calls = (0..INCOMING_CALLS_MAX as u64 + 50).map(|group| {
        one.link
            .heartbeat("n2", GroupId(group), kinds::NEVER, Vec::new(), limit)
    });
    let answers = join_all(calls).await;
    let refused = answers
        .iter()
        .filter(|answer| matches!(answer, Err(PeerError::Refused { why, .. }) if why.contains("too many calls")));
    assert!((50..=BUNDLE_CALLS_MAX).contains(&refused.count()));
    assert_eq!(call(&one, "n2", Lane::Control, kinds::ECHO, "on").await.unwrap(), "on");
}
