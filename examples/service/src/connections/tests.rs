//! What a client may take of a port, and how long it may take.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as Told;
use tonic_health::pb::health_client::HealthClient;

use super::*;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(30);
const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
/// What a client of HTTP/2 begins with: the preface, and settings without a setting.
const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";

/// Nobody tells the stop. Its sender is kept for good: without one it would count as told.
fn endless() -> Stop {
    let (sender, told) = watch::channel(false);
    std::mem::forget(sender);
    Stop::on(told)
}

fn port(routes: Router, protocol: Protocol) -> Port {
    let limits = Limits::default();
    Port {
        routes,
        protocol,
        limits,
        requests: Arc::new(Semaphore::new(limits.requests)),
        stop: endless(),
    }
}

/// A connection to a port.
fn connected(port: &Port) -> DuplexStream {
    let (client, server) = duplex(1024 * 1024);
    tokio::spawn(port.clone().answer(server));
    client
}

/// What comes until the connection is closed, and how long that takes.
async fn rest(client: &mut DuplexStream) -> (Vec<u8>, Duration) {
    let (begun, mut rest) = (Instant::now(), Vec::new());
    let read = timeout(3 * HEAD_TIMEOUT, client.read_to_end(&mut rest)).await;
    read.unwrap().unwrap();
    (rest, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn whoever_is_slow_to_say_what_it_wants_is_cut_off() {
    let hello = Router::new().route("/", get(|| async { "hello" }));
    for (protocol, begin) in [
        (Protocol::Http, ""),
        (Protocol::Http, "P"),
        (Protocol::Http, "GET / HTTP/1.1\r\nhost: "),
        (Protocol::Http, GET),
        (Protocol::Http, PREFACE),
        (Protocol::Http2, ""),
        (Protocol::Http2, &PREFACE[..20]),
        (Protocol::Http2, PREFACE),
    ] {
        let mut client = connected(&port(hello.clone(), protocol));
        client.write_all(begin.as_bytes()).await.unwrap();
        let (answer, took) = rest(&mut client).await;
        assert!(took >= HEAD_TIMEOUT && took < 2 * HEAD_TIMEOUT, "{begin:?}: {took:?}");
        assert_eq!(
            answer.starts_with(b"HTTP/1.1 200 "),
            begin == GET,
            "{begin:?}: {answer:?}"
        );
    }
    for (protocol, begin) in [(Protocol::Http, "GET /"), (Protocol::Http2, PREFACE)] {
        let mut client = connected(&port(hello.clone(), protocol));
        client.write_all(begin.as_bytes()).await.unwrap();
        let dripped = async {
            // Letters of a path; or frames that ask nothing: settings again.
            let (letter, frame) = ("x".as_bytes(), &PREFACE.as_bytes()[24..]);
            for _ in 0..2 * HEAD_TIMEOUT.as_secs() {
                sleep(Duration::from_secs(1)).await;
                client
                    .write_all(if protocol == Protocol::Http { letter } else { frame })
                    .await?;
            }
            Ok::<_, io::Error>(())
        };
        assert!(dripped.await.is_err(), "what comes bit by bit: {begin:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_asked_may_wait_for_long() {
    let slow = get(|| async {
        sleep(3 * HEAD_TIMEOUT).await;
        "hello"
    });
    let mut client = connected(&port(Router::new().route("/", slow), Protocol::Http));
    client.write_all(GET.as_bytes()).await.unwrap();
    let (answer, took) = timeout(5 * HEAD_TIMEOUT, rest_of_slow(&mut client)).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    assert!(took >= 3 * HEAD_TIMEOUT, "{took:?}");

    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let port = port(Routes::new(health).into_axum_router(), Protocol::Http2);
    let mut client = HealthClient::new(channel(port).await);
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), Told::NotServing);
    sleep(3 * HEAD_TIMEOUT).await;
    reporter.set_service_status("", ServingStatus::Serving).await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), Told::Serving);
}

/// An answer up to its body, however long it takes.
async fn rest_of_slow(client: &mut DuplexStream) -> (String, Duration) {
    let (begun, mut answer) = (Instant::now(), Vec::new());
    while !answer.ends_with(b"hello") {
        assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "{answer:?}");
    }
    (String::from_utf8(answer).unwrap(), begun.elapsed())
}

/// A client of gRPC, without a network.
async fn channel(port: Port) -> Channel {
    let connect = tower::service_fn(move |_| {
        let client = connected(&port);
        async { Ok::<_, io::Error>(TokioIo::new(client)) }
    });
    let endpoint = Endpoint::from_static("http://x");
    endpoint.connect_with_connector(connect).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn heads_and_streams_have_their_limits() {
    let hello = Router::new().route("/", get(|| async { "hello" }));
    let port = port(hello, Protocol::Http);
    for (length, status) in [(BUFFER_BYTES_MAX / 2, "200"), (BUFFER_BYTES_MAX, "431")] {
        let mut client = connected(&port);
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(length));
        client.write_all(head.as_bytes()).await.unwrap();
        let (answer, _) = rest(&mut client).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{length}: {answer}");
    }
    let mut client = connected(&port);
    client.write_all(PREFACE.as_bytes()).await.unwrap();
    let (settings, _) = rest(&mut client).await;
    // The setting 3 of HTTP/2: concurrent streams.
    let told = [&[0, 3][..], &STREAMS_MAX.to_be_bytes()].concat();
    assert!(settings.windows(told.len()).any(|bytes| bytes == told), "{settings:?}");
}

/// Requests in work of a port that admits two, each of which takes a second.
#[tokio::test(start_paused = true)]
async fn requests_beyond_the_limit_wait() {
    const TAKES: Duration = Duration::from_secs(1);
    let (sender, most) = watch::channel((0, 0));
    let sender = Arc::new(sender);
    let counted = get(move || {
        let sender = sender.clone();
        async move {
            sender.send_modify(|(now, most)| {
                *now += 1;
                *most = (*now).max(*most);
            });
            sleep(TAKES).await;
            sender.send_modify(|(now, _)| *now -= 1);
            "hello"
        }
    });
    let mut port = port(Router::new().route("/", counted), Protocol::Http);
    port.requests = Arc::new(Semaphore::new(2));
    let begun = Instant::now();
    let mut clients: Vec<_> = (0..5).map(|_| connected(&port)).collect();
    for client in &mut clients {
        client.write_all(GET.as_bytes()).await.unwrap();
    }
    for client in &mut clients {
        rest_of_slow(client).await;
    }
    assert_eq!(*most.borrow(), (0, 2));
    assert!(begun.elapsed() >= 3 * TAKES, "{:?}", begun.elapsed());
}

async fn ask(stream: &mut TcpStream) -> io::Result<bool> {
    stream.write_all(GET.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tries to connect and to be answered, until that is so.
async fn admitted(address: SocketAddr) -> TcpStream {
    loop {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if let Ok(true) = ask(&mut stream).await {
            return stream;
        }
    }
}

#[tokio::test]
async fn a_connection_too_many_is_refused_and_the_others_go_on() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let hello = Router::new().route("/", get(|| async { "hello" }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, told) = watch::channel(false);
    let serving = tokio::spawn(serve(listener, hello, Protocol::Http, limits, Stop::on(told)));

    let (mut first, mut second) = (admitted(address).await, admitted(address).await);
    let mut third = TcpStream::connect(address).await.unwrap();
    let closed = timeout(DEADLINE, third.read(&mut [0; 1])).await.unwrap();
    assert_eq!(closed.unwrap(), 0, "it is hung up on");
    assert!(ask(&mut first).await.unwrap() && ask(&mut second).await.unwrap());

    drop(first);
    let mut again = timeout(DEADLINE, admitted(address)).await.unwrap();
    assert!(ask(&mut second).await.unwrap() && ask(&mut again).await.unwrap());

    // It ends as soon as it is told to: nothing is in work.
    stop.send_replace(true);
    timeout(DEADLINE, serving).await.unwrap().unwrap();
    assert!(!ask(&mut second).await.unwrap_or(false));
    assert!(TcpStream::connect(address).await.is_err());
}
