//! Calls: answers, limits, deadlines, and peers that die.

use std::sync::atomic::Ordering;

use futures::FutureExt;
use futures::future::join_all;
use tokio::time::Instant;

use super::super::limits::{DIAL_TIMEOUT, FRAME_BYTES_MAX, INCOMING_CALLS_MAX, REDIAL_PAUSE_MAX};
use super::*;
use crate::test_node::{eventually, kinds};

#[tokio::test]
async fn a_call_is_answered_by_the_node_it_was_made_to() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    for lane in [Lane::Control, Lane::Bulk] {
        assert_eq!(call(&one, "n2", lane, kinds::WHO, "").await.unwrap(), "n1 7");
        assert_eq!(call(&two, "n1", lane, kinds::WHO, "").await.unwrap(), "n2 7");
    }
    let answer = one
        .link
        .call_node("n2", kinds::WHO, Vec::new(), PATIENCE)
        .await
        .unwrap();
    assert_eq!(answer, format!("n1 {}", super::super::NODE_LEVEL));
    assert_eq!(connections(&one).len(), 4, "one connection per lane and direction");
}

#[tokio::test]
async fn the_parts_of_a_body_arrive_joined_up_to_the_limit() {
    let ca = TestCa::new();
    let (one, _two) = pair(&ca).await;
    let parts: Vec<Bytes> = (0..200_usize)
        .map(|number| Bytes::from(vec![number as u8; number * 17]))
        .collect();
    let answer = one
        .link
        .call("n2", GroupId(0), Lane::Bulk, kinds::ECHO, parts.clone(), PATIENCE)
        .await
        .unwrap();
    assert_eq!(answer, parts.concat());
    let largest: Bytes = (0..FRAME_BYTES_MAX).map(|at| (at % 251) as u8).collect();
    assert_eq!(
        call(&one, "n2", Lane::Bulk, kinds::ECHO, largest.clone())
            .await
            .unwrap(),
        largest
    );

    let too_large = Bytes::from(vec![0; FRAME_BYTES_MAX + 1]);
    let why = call(&one, "n2", Lane::Bulk, kinds::ECHO, too_large).await.unwrap_err();
    assert!(
        matches!(&why, PeerError::Unreachable { why, .. } if why.contains("8388608 are allowed")),
        "{why}"
    );
    let why = call(&one, "n2", Lane::Bulk, kinds::TOO_MUCH, "").await.unwrap_err();
    assert!(
        matches!(&why, PeerError::Refused { why, begun: true, .. } if why.contains("8388608 are allowed")),
        "{why}"
    );
    assert_eq!(call(&one, "n2", Lane::Bulk, kinds::ECHO, "on").await.unwrap(), "on");
    assert_eq!(
        connections(&one).len(),
        1,
        "an oversized message does not cost the connection"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_calls_at_once_each_get_their_own_answer() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    for round in 0..10_u32 {
        let calls = (0..400_u32).map(|number| {
            let (from, to) = if number % 2 == 0 { (&one, "n2") } else { (&two, "n1") };
            let lane = if number % 3 == 0 { Lane::Bulk } else { Lane::Control };
            let body: Vec<u8> = (0..number * 7 % 5000)
                .flat_map(|_| (round * 1000 + number).to_be_bytes())
                .collect();
            async move {
                let answer = call(from, to, lane, kinds::ECHO, body.clone()).await.unwrap();
                assert_eq!(answer, body);
            }
        });
        within(PATIENCE, join_all(calls)).await;
    }
}

#[tokio::test]
async fn refusals_and_panics_of_the_handler_are_told_to_the_caller_and_whether_it_had_begun() {
    let ca = TestCa::new();
    let (one, _two) = pair(&ca).await;
    let why = call(&one, "n2", Lane::Control, kinds::REFUSE, "").await.unwrap_err();
    assert!(
        matches!(&why, PeerError::Refused { node, why, begun: true } if node == "n2" && why == "not today"),
        "{why}"
    );
    let why = call(&one, "n2", Lane::Control, kinds::PANIC, "").await.unwrap_err();
    assert!(
        matches!(&why, PeerError::Refused { why, begun: true, .. } if why.contains("panicked")),
        "{why}"
    );
    let why = call(&one, "n2", Lane::Control, kinds::UNKNOWN, "").await.unwrap_err();
    assert!(matches!(&why, PeerError::Refused { begun: false, .. }), "{why}");
    assert_eq!(call(&one, "n2", Lane::Control, kinds::ECHO, "on").await.unwrap(), "on");
}

#[tokio::test]
async fn a_call_without_answer_ends_in_time_and_is_forgotten() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    call(&one, "n2", Lane::Control, kinds::ECHO, "connected").await.unwrap();
    let never = |limit| {
        one.link
            .call("n2", GroupId(0), Lane::Control, kinds::NEVER, Vec::new(), limit)
    };
    let why = never(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(why, PeerError::NoAnswer { .. }), "{why}");

    let dropped = tokio::spawn(never(PATIENCE));
    let both_arrived = || two.handler.hanging.load(Ordering::SeqCst) == 2;
    eventually("both calls arrive", both_arrived).await;
    let waiting = || connections(&one).iter().map(|each| each.waiting_calls()).sum::<usize>();
    assert_eq!(waiting(), 1);
    dropped.abort();
    eventually("the call is forgotten", || waiting() == 0).await;
}

#[tokio::test]
async fn a_link_that_was_shut_down_is_quiet_once_what_peers_asked_for_is_done() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    let streams = one.link.open_stream("n2", GroupId(0), Lane::Bulk, kinds::ECHO);
    let mut stream = streams.await.unwrap();
    stream.sender.send(vec![Bytes::from_static(b"hello")]).await.unwrap();
    assert_eq!(within(PATIENCE, stream.receiver.recv()).await.unwrap(), "hello");
    assert!(two.link.quiet().now_or_never().is_none(), "the stream is being served");
    two.link.shutdown();
    within(PATIENCE, two.link.quiet()).await;
}

#[tokio::test]
async fn calls_beyond_what_a_node_carries_out_at_once_are_refused() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    let mut hanging = Vec::new();
    for _ in 0..INCOMING_CALLS_MAX {
        let call = one
            .link
            .call("n2", GroupId(0), Lane::Control, kinds::NEVER, Vec::new(), PATIENCE);
        hanging.push(tokio::spawn(call));
    }
    let all = || two.handler.hanging.load(Ordering::SeqCst) == INCOMING_CALLS_MAX;
    eventually("all calls are being carried out", all).await;
    let why = call(&one, "n2", Lane::Control, kinds::ECHO, "").await.unwrap_err();
    assert!(
        matches!(&why, PeerError::Refused { why, begun: false, .. } if why.contains("too many calls")),
        "{why}"
    );
    assert_eq!(call(&one, "n2", Lane::Bulk, kinds::ECHO, "on").await.unwrap(), "on");
    hanging.iter().for_each(|call| call.abort());
}

#[tokio::test]
async fn a_dead_node_gives_no_answer_and_is_reached_again_after_its_restart() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    let waiting = tokio::spawn(
        one.link
            .call("n2", GroupId(0), Lane::Control, kinds::NEVER, Vec::new(), PATIENCE),
    );
    eventually("the call has arrived", || {
        two.handler.hanging.load(Ordering::SeqCst) == 1
    })
    .await;
    two.kill();
    let why = within(PATIENCE, waiting).await.unwrap().unwrap_err();
    assert!(
        matches!(why, PeerError::NoAnswer { .. }),
        "a call that was sent may have been carried out: {why}"
    );

    let (credentials, address) = (two.credentials.clone(), two.address);
    drop(two);
    eventually("the dead node is unreachable", || connections(&one).is_empty()).await;
    let why = call(&one, "n2", Lane::Control, kinds::ECHO, "").await.unwrap_err();
    assert!(matches!(why, PeerError::Unreachable { .. }), "{why}");

    let two = TestNode::start_with(credentials, None, 2, address).await;
    let again = async {
        while call(&one, "n2", Lane::Control, kinds::ECHO, "again").await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(PATIENCE, again).await;
    assert_eq!(two.handler.hellos.lock().unwrap().len(), 1);
}

/// Lets `one` fail to dial `n2` until the pause between dials is at its longest.
async fn fail_to_dial(one: &TestNode, lane: Lane) {
    tokio::time::pause(); // nothing is connected yet, so no real input or output is overtaken
    for _ in 0..8 {
        tokio::time::advance(REDIAL_PAUSE_MAX).await;
        let why = call(one, "n2", lane, kinds::ECHO, "").await.unwrap_err();
        assert!(why.to_string().contains("its address is not known"), "{why}");
        assert!(!why.to_string().contains("dialling again shortly"), "{why}");
    }
    let why = call(one, "n2", lane, kinds::ECHO, "").await.unwrap_err();
    assert!(
        matches!(&why, PeerError::Unreachable { why, .. } if why.contains("dialling again shortly")),
        "{why}"
    );
    tokio::time::resume();
}

#[tokio::test]
async fn between_dials_calls_fail_at_once_until_the_node_is_seen() {
    let ca = TestCa::new();
    let (one, two) = (TestNode::start(&ca, "n1").await, TestNode::start(&ca, "n2").await);
    fail_to_dial(&one, Lane::Control).await;
    one.knows(&two);
    one.link.peer_seen("n2");
    assert_eq!(call(&one, "n2", Lane::Control, kinds::ECHO, "on").await.unwrap(), "on");
}

#[tokio::test]
async fn a_node_that_dials_us_is_dialled_back_at_once() {
    let ca = TestCa::new();
    let (one, two) = (TestNode::start(&ca, "n1").await, TestNode::start(&ca, "n2").await);
    fail_to_dial(&one, Lane::Bulk).await;
    one.knows(&two);
    two.knows(&one);
    call(&two, "n1", Lane::Control, kinds::ECHO, "").await.unwrap();
    assert_eq!(call(&one, "n2", Lane::Bulk, kinds::ECHO, "on").await.unwrap(), "on");
}

#[tokio::test]
async fn what_is_to_be_sent_by_then_or_not_at_all_does_not_wait_longer_for_a_connection() {
    let ca = TestCa::new();
    let one = TestNode::start(&ca, "n1").await;
    // It accepts, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    one.book.learn("n2", &silent.local_addr().unwrap().to_string());
    let begin = Instant::now();
    let send_by = begin + Duration::from_millis(50);
    let called = one
        .link
        .call_node_in_bulk("n2", kinds::ECHO, Vec::new(), send_by, begin + PATIENCE);
    let why = called.await.unwrap_err();
    assert!(matches!(why, PeerError::Unreachable { .. }), "{why}");
    assert!(begin.elapsed() < DIAL_TIMEOUT, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_seed_is_called_by_address_and_gives_its_name() {
    let ca = TestCa::new();
    let (one, two) = (TestNode::start(&ca, "n1").await, TestNode::start(&ca, "n2").await);
    let address = two.address.to_string();
    let ask = |expected: Option<&'static str>| {
        one.link
            .call_address(&address, expected, kinds::WHO, Vec::new(), PATIENCE)
    };
    let (name, answer) = ask(None).await.unwrap();
    assert_eq!(
        (name.as_str(), answer),
        ("n2", Bytes::from(format!("n1 {}", super::super::NODE_LEVEL)))
    );
    assert_eq!(ask(Some("n2")).await.unwrap().0, "n2");
    let why = ask(Some("n3")).await.unwrap_err();
    assert!(
        matches!(&why, PeerError::Unreachable { node, why } if node == "n3" && why.contains("n2")),
        "{why}"
    );

    let own = one.address.to_string();
    let (name, _) = one
        .link
        .call_address(&own, None, kinds::WHO, Vec::new(), PATIENCE)
        .await
        .unwrap();
    assert_eq!(name, "n1", "a node recognises itself among its seeds");
    let nobody = one
        .link
        .call_address("127.0.0.1:1", None, kinds::WHO, Vec::new(), PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(nobody, PeerError::Unreachable { .. }), "{nobody}");
    let unresolved = one
        .link
        .call_address("no port here", None, kinds::WHO, Vec::new(), PATIENCE)
        .await
        .unwrap_err();
    assert!(unresolved.to_string().contains("cannot be resolved"), "{unresolved}");
}

#[tokio::test]
async fn gossip_messages_carry_the_name_of_the_certificate() {
    let ca = TestCa::new();
    let (one, mut two) = pair(&ca).await;
    one.link.send_gossip("n2", Bytes::from_static(b"by name"));
    let first = within(PATIENCE, two.gossiped.recv()).await.unwrap();
    assert_eq!(first, ("n1".to_owned(), Bytes::from_static(b"by name")));
    one.link
        .send_gossip_to_address(two.address, Bytes::from_static(b"by address"));
    let second = within(PATIENCE, two.gossiped.recv()).await.unwrap();
    assert_eq!(second, ("n1".to_owned(), Bytes::from_static(b"by address")));
}

#[tokio::test]
async fn a_panic_of_the_handler_in_the_reader_ends_the_connection_and_no_more() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    let hanging = tokio::spawn(
        one.link
            .call("n2", GroupId(0), Lane::Control, kinds::NEVER, Vec::new(), PATIENCE),
    );
    eventually("the call has arrived", || {
        two.handler.hanging.load(Ordering::SeqCst) == 1
    })
    .await;
    one.link.send_gossip("n2", Bytes::from_static(b"panic"));
    let why = within(PATIENCE, hanging).await.unwrap().unwrap_err();
    assert!(matches!(why, PeerError::NoAnswer { .. }), "{why}");
    eventually("the connection is gone on both sides", || {
        connections(&one).is_empty() && connections(&two).is_empty()
    })
    .await;
    one.link.peer_seen("n2");
    assert_eq!(call(&one, "n2", Lane::Control, kinds::ECHO, "on").await.unwrap(), "on");
}

#[tokio::test]
async fn after_shutdown_nothing_is_reached_and_nothing_hangs() {
    let ca = TestCa::new();
    let (one, _two) = pair(&ca).await;
    assert_eq!(call(&one, "n2", Lane::Control, kinds::ECHO, "on").await.unwrap(), "on");
    one.link.shutdown();
    let why = call(&one, "n2", Lane::Bulk, kinds::ECHO, "").await.unwrap_err();
    assert!(why.to_string().contains("shut down"), "{why}");
    eventually("the connections are gone", || connections(&one).is_empty()).await;
}

#[tokio::test]
async fn a_node_is_connected_while_a_connection_with_it_is_up() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    let mut changes = one.link.changes();
    assert!(!one.link.is_connected("n2"));
    call(&one, "n2", Lane::Control, kinds::WHO, "").await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert!(one.link.is_connected("n2") && two.link.is_connected("n1"));
    assert!(!one.link.is_connected("n3"));
    two.kill();
    let ended = changes.wait_for(|_| !one.link.is_connected("n2"));
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
}
