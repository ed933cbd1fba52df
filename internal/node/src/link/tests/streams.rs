//! Streams: order, windows, ends and breaks.

use futures::future::join_all;

use super::super::limits::{FRAME_BYTES_MAX, STREAM_WINDOW_MESSAGES, STREAMS_MAX};
use super::*;
use crate::test_node::{eventually, kinds};

fn message(number: usize) -> Vec<Bytes> {
    let length = number * 37 % 3000;
    vec![
        Bytes::from(number.to_be_bytes().to_vec()),
        Bytes::from(vec![number as u8; length]),
    ]
}

/// Sends through an echoing stream and checks that everything comes back in order.
async fn exchange(stream: PeerStream, count: usize) {
    let PeerStream { sender, mut receiver } = stream;
    let sending = async move {
        for number in 0..count {
            sender.send(message(number)).await.unwrap();
        }
    };
    let receiving = async {
        for number in 0..count {
            assert_eq!(
                receiver.recv().await.expect("the stream goes on"),
                message(number).concat()
            );
        }
        assert_eq!(
            receiver.recv().await,
            None,
            "the stream ends when the sender has been dropped"
        );
    };
    within(PATIENCE, futures::future::join(sending, receiving)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_on_many_streams_at_once() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    let mut exchanges = Vec::new();
    for number in 0..20 {
        let (from, to) = if number % 2 == 0 { (&one, "n2") } else { (&two, "n1") };
        exchanges.push(exchange(open(from, to, kinds::ECHO).await, 1000));
    }
    join_all(exchanges).await;
    let forgotten = || {
        connections(&one)
            .iter()
            .chain(&connections(&two))
            .all(|each| each.open_streams() == 0)
    };
    eventually("all streams are forgotten", forgotten).await;
}

#[tokio::test]
async fn the_largest_messages_pass_and_larger_ones_end_the_stream() {
    let ca = TestCa::new();
    let (one, _two) = pair(&ca).await;
    let mut stream = open(&one, "n2", kinds::ECHO).await;
    let largest = Bytes::from(vec![3; FRAME_BYTES_MAX]);
    for _ in 0..5 {
        stream.sender.send(vec![largest.clone()]).await.unwrap();
        assert_eq!(within(PATIENCE, stream.receiver.recv()).await.unwrap(), largest);
    }
    stream
        .sender
        .send(vec![largest, Bytes::from_static(b"x")])
        .await
        .unwrap();
    assert_eq!(within(PATIENCE, stream.receiver.recv()).await, None);
    within(PATIENCE, stream.sender.closed()).await;
    exchange(open(&one, "n2", kinds::ECHO).await, 10).await;
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_only_itself() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    let stuck = open(&one, "n2", kinds::HOLD).await;
    let mut sent = 0;
    while let Ok(result) = tokio::time::timeout(
        Duration::from_secs(1),
        stuck.sender.send(vec![Bytes::from(vec![0; 100_000])]),
    )
    .await
    {
        result.unwrap();
        sent += 1;
    }
    assert!(
        sent >= STREAM_WINDOW_MESSAGES,
        "the window was open for {sent} messages"
    );
    assert!(
        sent < 3 * STREAM_WINDOW_MESSAGES,
        "{sent} messages were taken though nobody reads"
    );

    exchange(open(&one, "n2", kinds::ECHO).await, 500).await;
    assert_eq!(call(&one, "n2", Lane::Bulk, kinds::ECHO, "on").await.unwrap(), "on");
    let mut held = two.handler.held.lock().unwrap().pop().unwrap();
    for _ in 0..sent {
        assert_eq!(within(PATIENCE, held.receiver.recv()).await.unwrap().len(), 100_000);
    }
    within(PATIENCE, stuck.sender.send(vec![Bytes::new()])).await.unwrap();
}

#[tokio::test]
async fn what_was_sent_before_the_end_arrives_and_the_other_direction_is_told_to_end() {
    let ca = TestCa::new();
    let (one, _two) = pair(&ca).await;
    let mut stream = open(&one, "n2", kinds::SEND_THREE).await;
    for number in 0..3_u8 {
        assert_eq!(within(PATIENCE, stream.receiver.recv()).await.unwrap(), vec![number]);
    }
    assert_eq!(within(PATIENCE, stream.receiver.recv()).await, None);
    within(PATIENCE, stream.sender.closed()).await;
    drop(stream);
    eventually("the stream is forgotten", || {
        connections(&one).iter().all(|each| each.open_streams() == 0)
    })
    .await;
}

#[tokio::test]
async fn all_that_was_sent_before_the_sender_is_dropped_arrives() {
    let ca = TestCa::new();
    let (one, mut two) = pair(&ca).await;
    let stream = open(&one, "n2", kinds::COLLECT).await;
    for number in 0..50 {
        stream.sender.send(message(number)).await.unwrap();
    }
    drop(stream);
    for number in 0..50 {
        assert_eq!(
            within(PATIENCE, two.streamed.recv()).await.unwrap(),
            message(number).concat()
        );
    }
    let all_forgotten = || connections(&two).iter().all(|each| each.open_streams() == 0);
    eventually("the stream is forgotten", all_forgotten).await;
}

#[tokio::test]
async fn a_stream_ends_when_the_other_node_dies() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    let mut stream = open(&one, "n2", kinds::ECHO).await;
    stream.sender.send(message(1)).await.unwrap();
    assert_eq!(
        within(PATIENCE, stream.receiver.recv()).await.unwrap(),
        message(1).concat()
    );
    two.kill();
    assert_eq!(within(PATIENCE, stream.receiver.recv()).await, None);
    within(PATIENCE, stream.sender.closed()).await;

    let two = TestNode::start_with(two.credentials.clone(), None, 2, ([127, 0, 0, 1], 0).into()).await;
    one.knows(&two);
    one.link.peer_seen("n2");
    exchange(open(&one, "n2", kinds::ECHO).await, 10).await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_turned_away() {
    let ca = TestCa::new();
    let (one, _two) = pair(&ca).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(open_when_there_is_room(&one).await);
    }
    let why = one
        .link
        .open_stream("n2", GroupId(7), Lane::Bulk, kinds::HOLD)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&why, PeerError::Unreachable { why, .. } if why.contains("too many")),
        "{why}"
    );
    exchange(
        one.link
            .open_stream("n2", GroupId(7), Lane::Control, kinds::ECHO)
            .await
            .unwrap(),
        10,
    )
    .await;
}

/// Opening does not wait for room in the outbox, so a loop that only opens must.
async fn open_when_there_is_room(one: &TestNode) -> PeerStream {
    loop {
        match one.link.open_stream("n2", GroupId(7), Lane::Bulk, kinds::HOLD).await {
            Ok(stream) => return stream,
            Err(why) => assert!(why.to_string().contains("waiting to be sent"), "{why}"),
        }
        tokio::task::yield_now().await;
    }
}
