//! What a node does with bytes that no link of ours would send.

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::frame::bundle::{Bundle, BundledAnswer, BundledCall, decode_answers, decode_calls};
use super::super::frame::{Frame, FrameError, FrameType, HEADER_BYTES, Header, decode_hello, read_frame};
use super::super::limits::{
    ACCEPTED_PER_NODE_MAX, BUNDLE_CALLS_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX, SILENT_TICKS_MAX,
    STREAM_WINDOW_MESSAGES, TICK,
};
use super::super::{Hello, Refusal, text_for_tests};
use super::*;
use crate::test_node::{eventually, kinds};
use crate::tls::Expected;

fn hello(node: &str) -> Hello {
    Hello {
        node: node.to_owned(),
        cluster_id: None,
        incarnation: [1; 16],
        boot: 1,
        lane: Lane::Bulk,
        bundles: true,
    }
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    frame.encode_header(&mut bytes);
    bytes.extend_from_slice(&frame.body.concat());
    bytes.to_vec()
}

/// A TLS connection to `node` with the certificate of node `n1`, before the hello.
async fn raw(ca: &TestCa, node: &TestNode) -> TlsStream<TcpStream> {
    let config = ca.node("n1").peer_config(&Expected::AnyNode).unwrap();
    let tcp = TcpStream::connect(node.address).await.unwrap();
    let name = ServerName::IpAddress(node.address.ip().into());
    TlsConnector::from(config).connect(name, tcp).await.unwrap()
}

/// The same, after the hello.
async fn greeted(ca: &TestCa, node: &TestNode) -> TlsStream<TcpStream> {
    let mut stream = raw(ca, node).await;
    stream.write_all(&bytes_of(&Frame::hello(&hello("n1")))).await.unwrap();
    let (header, body) = read_frame(&mut stream, HELLO_BYTES_MAX, || ()).await.unwrap();
    assert_eq!(header.frame_type, FrameType::Hello);
    assert_eq!(decode_hello(header, body).unwrap().node, node.name);
    stream
}

/// Reads to the end of the connection; the reason in the last frame, if it was a refusal.
async fn refusal(mut stream: TlsStream<TcpStream>) -> Option<String> {
    let mut why = None;
    let reading = async {
        while let Ok((header, body)) = read_frame(&mut stream, FRAME_BYTES_MAX, || ()).await {
            why = (header.frame_type == FrameType::Refuse).then(|| text_for_tests(&body));
        }
    };
    within(PATIENCE, reading).await;
    why
}

#[tokio::test]
async fn breaches_of_the_protocol_are_answered_with_the_reason_and_the_end() {
    let ca = TestCa::new();
    let node = TestNode::start(&ca, "n2").await;
    let mut too_long = bytes_of(&Frame::of(FrameType::Call, 1, Vec::new()));
    too_long[..4].copy_from_slice(&((FRAME_BYTES_MAX + HEADER_BYTES) as u32).to_be_bytes());
    let mut unknown = bytes_of(&Frame::of(FrameType::Call, 1, Vec::new()));
    unknown[4] = 99;
    let other_hello = Frame::hello(&Hello { boot: 9, ..hello("n1") });
    let cases = [
        (bytes_of(&Frame::of(FrameType::Answer, 1, Vec::new())), "makes no sense"),
        (bytes_of(&other_hello), "differs in more than the cluster id"),
        (
            bytes_of(&Frame::plain(FrameType::Hello, vec![Bytes::from_static(b"?")])),
            "hello is broken",
        ),
        (
            bytes_of(&Frame::plain(FrameType::Gossip, vec![Bytes::from(vec![0; 200_000])])),
            "gossip message",
        ),
        (
            bytes_of(&Frame::plain(FrameType::Calls, vec![Bytes::from_static(b"?")])),
            "bundle is broken",
        ),
        (too_long, "over the limit"),
        (unknown, "type 99 is unknown"),
        (
            vec![0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            "too short",
        ),
    ];
    for (bytes, expected) in cases {
        let mut stream = greeted(&ca, &node).await;
        stream.write_all(&bytes).await.unwrap();
        let why = refusal(stream).await.unwrap_or_default();
        assert!(why.contains(expected), "expected {expected:?}, got {why:?}");
    }
    eventually("no connection is left", || connections(&node).is_empty()).await;
}

#[tokio::test]
async fn a_node_has_so_many_connections_with_another_and_no_more() {
    let ca = TestCa::new();
    let node = TestNode::start(&ca, "n2").await;
    let ping = bytes_of(&Frame::plain(FrameType::Ping, Vec::new()));
    let mut open = Vec::new();
    for count in 1..=ACCEPTED_PER_NODE_MAX {
        open.push(greeted(&ca, &node).await);
        eventually("it is counted", || connections(&node).len() == count).await;
        for stream in &mut open {
            // Whoever is silent is given up.
            stream.write_all(&ping).await.unwrap();
        }
    }
    let mut one_more = raw(&ca, &node).await;
    let greeting = bytes_of(&Frame::hello(&hello("n1")));
    one_more.write_all(&greeting).await.unwrap();
    let why = refusal(one_more).await.unwrap_or_default();
    assert!(why.contains("has 16 connections open to this one already"), "{why:?}");
    open.pop();
    eventually("it is let go of", || connections(&node).len() < ACCEPTED_PER_NODE_MAX).await;
    drop(greeted(&ca, &node).await);
}

#[tokio::test]
async fn a_hello_must_fit_the_certificate_and_the_version() {
    let ca = TestCa::new();
    let node = TestNode::start(&ca, "n2").await;
    let mut other_version = bytes_of(&Frame::hello(&hello("n1")));
    other_version[HEADER_BYTES + 1] = 2;
    let cases = [
        (
            bytes_of(&Frame::hello(&hello("n3"))),
            "the hello is of node \"n3\", the certificate of node \"n1\"",
        ),
        (other_version, "versions differ: 2 there, 1 here"),
        (
            bytes_of(&Frame::plain(FrameType::Ping, Vec::new())),
            "instead of a hello",
        ),
        (bytes_of(&Frame::plain(FrameType::Hello, Vec::new())), "hello is broken"),
    ];
    for (bytes, expected) in cases {
        let mut stream = raw(&ca, &node).await;
        stream.write_all(&bytes).await.unwrap();
        let why = refusal(stream).await.unwrap_or_default();
        assert!(why.contains(expected), "expected {expected:?}, got {why:?}");
    }
    assert!(node.handler.hellos.lock().unwrap().is_empty());
}

#[test]
fn a_hello_and_a_bundle_are_these_bytes() {
    let said = Hello {
        cluster_id: Some(cluster(0xcc)),
        boot: 0x0102,
        ..hello("n1")
    };
    let body = [
        vec![0, 1, 1],
        vec![1; 16],
        vec![0, 0, 0, 0, 0, 0, 1, 2],
        vec![0xcc; 16],
        vec![2, b'n', b'1'],
    ]
    .concat();
    let head = |kind: u8, frame_type: u8, bytes: usize| {
        let mut head = (bytes as u32 + 18).to_be_bytes().to_vec();
        head.push(frame_type);
        head.extend([0; 16]);
        head.push(kind);
        head
    };
    let with_bundles = [head(1, 1, body.len()), body.clone()].concat();
    assert_eq!(bytes_of(&Frame::hello(&said)), with_bundles);
    let old = Hello { bundles: false, ..said };
    let without = [head(0, 1, body.len()), body].concat();
    assert_eq!(
        bytes_of(&Frame::hello(&old)),
        without,
        "as builds without bundles say it"
    );

    let mut bundle = Bundle::default();
    let call = BundledCall {
        id: 0x0a,
        group: 0x0b,
        kind: 0x0c,
        body: Bytes::from_static(b"xy"),
    };
    bundle.add_call(&call);
    let frame = bundle.take(FrameType::Calls).0;
    let calls = b"\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0\x0b\x0c\0\0\0\x02xy";
    assert_eq!(bytes_of(&frame), [head(0, 13, calls.len()), calls.to_vec()].concat());
    assert_eq!(decode_calls(Bytes::from_static(calls)), Ok(vec![call]));

    bundle.add_answer(0x0a, Ok(b"xy"));
    bundle.add_answer(0x0b, Err("no"));
    let frame = bundle.take(FrameType::Answers).0;
    let answers = b"\0\0\0\0\0\0\0\x0a\0\0\0\0\x02xy\0\0\0\0\0\0\0\x0b\x01\0\0\0\x02no";
    assert_eq!(
        bytes_of(&frame),
        [head(0, 14, answers.len()), answers.to_vec()].concat()
    );
    let both = [
        (0x0a, Ok(Bytes::from_static(b"xy"))),
        (0x0b, Err("no".to_owned().into())),
    ];
    let both = both.map(|(id, answer)| BundledAnswer { id, answer });
    assert_eq!(decode_answers(Bytes::from_static(answers)), Ok(both.to_vec()));
}

#[test]
fn a_refusal_says_in_its_kind_that_nothing_was_begun() {
    let failure = |refusal| bytes_of(&Frame::failure(7, &refusal));
    let bytes = |kind: u8| [&b"\0\0\0\x14\x06\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0"[..], &[kind], b"no"].concat();
    assert_eq!(
        failure(Refusal::Failed("no".to_owned())),
        bytes(0),
        "as earlier builds say it"
    );
    assert_eq!(failure(Refusal::NotBegun("no".to_owned())), bytes(1));
}

#[test]
fn a_broken_bundle_is_refused_whole() {
    let mut bundle = Bundle::default();
    for id in 0..=BUNDLE_CALLS_MAX as u64 {
        let body = Bytes::from_static(b"xy");
        bundle.add_call(&BundledCall {
            id,
            group: 0,
            kind: 0,
            body,
        });
    }
    let too_many = bundle.take(FrameType::Calls).0.body.concat();
    assert!(decode_calls(too_many.clone().into()).is_err());
    let one = Bytes::from(too_many).slice(..23);
    assert!(decode_calls(one.clone()).is_ok());
    for end in 1..one.len() {
        assert!(decode_calls(one.slice(..end)).is_err(), "cut at {end}");
    }
    let answer = Bytes::from_static(b"\0\0\0\0\0\0\0\x0a\x02\0\0\0\0");
    assert!(decode_answers(answer).is_err(), "an unknown outcome");
}

#[tokio::test]
async fn a_peer_that_overspends_a_window_is_cut_off() {
    let ca = TestCa::new();
    let node = TestNode::start(&ca, "n2").await;
    let mut stream = greeted(&ca, &node).await;
    let header = Header {
        frame_type: FrameType::Open,
        id: 1,
        group: 0,
        kind: kinds::HOLD,
    };
    stream
        .write_all(&bytes_of(&Frame {
            header,
            body: Vec::new(),
        }))
        .await
        .unwrap();
    let data = bytes_of(&Frame::of(FrameType::Data, 1, vec![Bytes::from_static(b"x")]));
    for _ in 0..2 * STREAM_WINDOW_MESSAGES {
        stream.write_all(&data).await.unwrap();
    }
    let why = refusal(stream).await.unwrap_or_default();
    assert!(why.contains("overspent"), "{why:?}");

    let mut stream = greeted(&ca, &node).await;
    let open = Header {
        frame_type: FrameType::Open,
        id: 1,
        group: 0,
        kind: kinds::HOLD,
    };
    stream
        .write_all(&bytes_of(&Frame {
            header: open,
            body: Vec::new(),
        }))
        .await
        .unwrap();
    stream.write_all(&bytes_of(&Frame::credit(1, 1, 1))).await.unwrap();
    let why = refusal(stream).await.unwrap_or_default();
    assert!(why.contains("more than was spent"), "{why:?}");
}

#[tokio::test]
async fn a_silent_peer_is_given_up_and_an_idle_connection_is_kept() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    assert_eq!(call(&one, "n2", Lane::Control, kinds::ECHO, "on").await.unwrap(), "on");
    let kept = connections(&one).pop().unwrap();
    let begin = std::time::Instant::now();
    let mut silent = greeted(&ca, &two).await;
    let mut rest = Vec::new();
    let _ = within(PATIENCE, silent.read_to_end(&mut rest)).await;
    assert!(
        begin.elapsed() >= TICK * (SILENT_TICKS_MAX - 1),
        "given up after {:?}",
        begin.elapsed()
    );
    assert!(!kept.is_closed(), "signs of life keep an idle connection");
    assert_eq!(call(&one, "n2", Lane::Control, kinds::ECHO, "on").await.unwrap(), "on");
}

#[tokio::test]
async fn frames_are_read_from_any_pieces() {
    let (mut here, mut there) = tokio::io::duplex(7);
    let frame = Frame::of(
        FrameType::Data,
        u64::MAX,
        vec![Bytes::from(vec![5; 1000]), Bytes::new()],
    );
    let bytes = bytes_of(&frame);
    let writing = tokio::spawn(async move { there.write_all(&bytes).await });
    let (header, body) = read_frame(&mut here, FRAME_BYTES_MAX, || ()).await.unwrap();
    assert_eq!((header, body), (frame.header, Bytes::from(vec![5; 1000])));
    writing.await.unwrap().unwrap();
    let end = read_frame(&mut here, FRAME_BYTES_MAX, || ()).await;
    assert!(matches!(end, Err(FrameError::Io(_))));
}

proptest! {
    #[test]
    fn hellos_are_read_as_they_were_written(node in "[a-z0-9]{1,128}", id in proptest::option::of(1_u8..), boot: u64, incarnation: [u8; 16], bulk: bool, bundles: bool) {
        let lane = if bulk { Lane::Bulk } else { Lane::Control };
        let hello = Hello { node, cluster_id: id.map(cluster), incarnation, boot, lane, bundles };
        let frame = Frame::hello(&hello);
        prop_assert_eq!(decode_hello(frame.header, frame.body[0].clone()), Ok(hello));
    }

    #[test]
    fn no_bytes_are_too_odd_for_a_hello_or_a_bundle(bytes: Vec<u8>) {
        let header = Frame::plain(FrameType::Hello, Vec::new()).header;
        let bytes = Bytes::from(bytes);
        let _ = (decode_hello(header, bytes.clone()), decode_calls(bytes.clone()), decode_answers(bytes));
    }
}
