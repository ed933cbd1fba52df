//! What HTTP/2 is not to be used for, against the server as it is configured; the numbers are those of docs/security.md.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use futures::stream::{StreamExt, once, pending};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// Flags: of a ping and of settings; of data and of headers; of headers.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
const HEADER_BYTES: usize = 9;
/// A gRPC message without a field.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// A connection that is served as ours are.
fn served() -> DuplexStream {
    let (client, server) = duplex(1024 * 1024);
    let (_, health) = tonic_health::server::health_reporter();
    let connections = once(async { Ok::<_, std::io::Error>(server) }).chain(pending());
    tokio::spawn(bounded().add_service(health).serve_with_incoming(connections.boxed()));
    client
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    body: Vec<u8>,
}

impl Frame {
    /// The reason in a RST_STREAM or GOAWAY.
    fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.body[at..at + 4].try_into().unwrap())
    }
}

/// The client's side, byte by byte.
struct Raw(DuplexStream);

impl Raw {
    async fn connect() -> Raw {
        let mut raw = Raw(served());
        raw.0.write_all(PREFACE).await.unwrap();
        raw.send(SETTINGS, 0, 0, &[]).await;
        raw
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, body: &[u8]) {
        let mut frame = (body.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(body);
        // It may have been closed by now, which the reader sees.
        let _ = self.0.write_all(&frame).await;
    }

    /// Begins a call that is answered when its message is there.
    async fn begin(&mut self, stream: u32) {
        let literal = |name: &str, value: &str| {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            [&[0, name.len() as u8], name, &[value.len() as u8], value].concat()
        };
        let head = [
            vec![0x83, 0x87], // POST, https
            literal(":path", "/grpc.health.v1.Health/Check"),
            literal("content-type", "application/grpc"),
        ];
        self.send(HEADERS, END_HEADERS, stream, &head.concat()).await;
    }

    /// None: the connection has ended.
    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; HEADER_BYTES];
        self.0.read_exact(&mut head).await.ok()?;
        let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut body).await.ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..].try_into().unwrap()),
            body,
        })
    }

    /// The next frame about a stream.
    async fn next_of_streams(&mut self) -> Frame {
        loop {
            let frame = self.next().await.expect("it has ended");
            if [HEADERS, RST_STREAM].contains(&frame.kind) {
                return frame;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_128_calls_at_a_time_and_the_next_one_is_refused() {
    let mut raw = Raw::connect().await;
    let ids = (0..129_u32).map(|number| 2 * number + 1);
    for stream in ids.clone() {
        raw.begin(stream).await;
    }
    let refused = raw.next_of_streams().await;
    assert_eq!(
        (refused.kind, refused.stream, refused.reason()),
        (RST_STREAM, 257, REFUSED_STREAM)
    );
    // As soon as one is over there is room again.
    for stream in [1, 259] {
        if stream > 257 {
            raw.begin(stream).await;
        }
        raw.send(DATA, END_STREAM, stream, &EMPTY_MESSAGE).await;
        let answer = raw.next_of_streams().await;
        assert_eq!((answer.kind, answer.stream), (HEADERS, stream));
        while raw.next().await.unwrap().flags & END_STREAM == 0 {}
    }
}

#[tokio::test(start_paused = true)]
async fn heads_over_16_kib_are_refused_and_shorter_ones_are_not() {
    let connector = tower::service_fn(async |_| Ok::<_, std::io::Error>(TokioIo::new(served())));
    let endpoint = Endpoint::from_static("http://localhost");
    let mut client = HealthClient::new(endpoint.connect_with_connector(connector).await.unwrap());
    let mut with_header = async |bytes: usize| {
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.metadata_mut().insert("x", "y".repeat(bytes).parse().unwrap());
        client.check(request).await.map(drop)
    };
    with_header(15 * 1024).await.unwrap();
    let refused = with_header(17 * 1024).await.unwrap_err();
    assert!(refused.message().contains("431"), "{refused:?}");
    assert_ne!(refused.code(), Code::Ok);
    with_header(1024).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_gives_no_sign_of_life_is_asked_after_10_s_and_ended_after_10_more() {
    let mut silent = Raw::connect().await;
    let begin = Instant::now();
    let mut asked = None;
    while let Some(frame) = silent.next().await {
        if frame.kind == PING && frame.flags & ACK == 0 {
            asked.get_or_insert(begin.elapsed());
        }
    }
    // Time stands still but for its waits.
    let is_about = |found: Duration, seconds: u64| found.abs_diff(Duration::from_secs(seconds)).as_secs() < 1;
    let (asked, ended) = (asked.expect("it is not asked"), begin.elapsed());
    assert!(is_about(asked, 10) && is_about(ended, 20), "{asked:?}, {ended:?}");

    let mut alive = Raw::connect().await;
    let answering = async {
        while let Some(frame) = alive.next().await {
            if frame.kind == PING && frame.flags & ACK == 0 {
                alive.send(PING, ACK, 0, &frame.body).await;
            }
        }
    };
    let over = timeout(Duration::from_secs(600), answering).await;
    assert!(over.is_err(), "whoever answers may be idle");
}

#[tokio::test(start_paused = true)]
async fn whoever_makes_us_end_streams_again_and_again_is_disconnected() {
    let mut raw = Raw::connect().await;
    let Raw(stream) = &mut raw;
    let mut flood = Vec::new();
    for number in 0..2_000_u32 {
        // A head that says neither method nor path.
        flood.extend([0, 0, 1, HEADERS, END_HEADERS | END_STREAM]);
        flood.extend((2 * number + 1).to_be_bytes());
        flood.push(0x87);
    }
    stream.write_all(&flood).await.unwrap();
    let (mut resets, mut farewell) = (0, None);
    while let Some(frame) = raw.next().await {
        match frame.kind {
            RST_STREAM => resets += 1,
            GOAWAY => farewell = Some(frame.reason()),
            _ => {}
        }
    }
    assert_eq!(farewell, Some(ENHANCE_YOUR_CALM), "after {resets} resets");
    assert!(resets <= 1024, "{resets}");
}
