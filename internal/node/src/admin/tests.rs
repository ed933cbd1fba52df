//! Connections to a listener that is really served.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::doorway::{CONNECTION_TIME_MAX, CONNECTIONS_MAX, STRANGER_TIME_MAX, UNPROVEN_MAX, UNPROVEN_PER_ADDRESS_MAX};
use super::*;
use crate::audit::Audit;
use crate::test_ca::TestCa;

const PATIENCE: Duration = Duration::from_secs(10);

struct Served {
    address: SocketAddr,
    not_ready: watch::Sender<Option<NotReady>>,
    notices: watch::Sender<Vec<String>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn served(listen: &str, opens_metrics: bool) -> Served {
    let (not_ready, notices) = (watch::Sender::new(None), watch::Sender::new(Vec::new()));
    let credentials = TestCa::new().node("a");
    let desk = Desk {
        not_ready: not_ready.subscribe(),
        notices: notices.subscribe(),
        metrics: Box::new(|| "highwater_some 7\n".to_owned()),
        opens_metrics,
        names: vec!["console.example".to_owned()],
        credentials,
        authority: Arc::new(Authority::new(Arc::default(), &[], Audit::default())),
        currency: Currency::new("a", Duration::from_secs(10)),
    };
    let admin = Admin::bind(listen).await.unwrap().unwrap();
    let address = admin.address();
    let pages = Router::new().route("/", get(|| async { "the console\n" }));
    Served {
        address,
        not_ready,
        notices,
        serving: tokio::spawn(admin.serve(desk, pages)),
    }
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    let reading = stream.read_to_string(&mut response);
    timeout(PATIENCE, reading).await.unwrap().unwrap();
    response
}

async fn get_with(address: SocketAddr, path: &str, host: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
    ask(address, &request).await
}

async fn fetch(address: SocketAddr, path: &str) -> String {
    get_with(address, path, "localhost", "").await
}

fn is_answered(response: &str, status: &str, end: &str) -> bool {
    response.starts_with(&format!("HTTP/1.1 {status} ")) && response.ends_with(end)
}

#[tokio::test]
async fn a_node_that_is_not_ready_is_alive_and_says_why() {
    let served = served("127.0.0.1:0", false).await;
    let address = served.address;
    served.not_ready.send_replace(Some(NotReady::Opening(2)));
    let not_ready = fetch(address, "/readyz").await;
    assert!(not_ready.starts_with("HTTP/1.1 503 "), "{not_ready}");
    assert!(not_ready.contains("not ready: 2 of its replicas"), "{not_ready}");
    let live = fetch(address, "/livez").await;
    assert!(is_answered(&live, "200", "live\n"), "{live}");
    served.not_ready.send_replace(None);
    let ready = fetch(address, "/readyz").await;
    assert!(is_answered(&ready, "200", "ready\n"), "{ready}");
    served.notices.send_replace(vec!["it rains".to_owned()]);
    let ready = fetch(address, "/readyz").await;
    assert!(ready.ends_with("ready\nnotice: it rains\n"), "{ready}");
    let metrics = fetch(address, "/metrics").await;
    assert!(is_answered(&metrics, "200", "\r\nhighwater_some 7\n"), "{metrics}");
    let other = fetch(address, "/nothing").await;
    assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
}

#[tokio::test]
async fn other_sites_learn_nothing_and_nothing_can_be_changed() {
    let served = served("127.0.0.1:0", false).await;
    served.not_ready.send_replace(Some(NotReady::Opening(2)));
    let address = served.address;
    for (host, headers) in [
        ("evil.example", ""),
        ("evil.example:7401", "Sec-Fetch-Site: same-origin\r\n"),
        ("localhost", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n"),
        (
            "localhost",
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nOrigin: null\r\n",
        ),
    ] {
        for path in ["/", "/metrics", "/api/v1/cluster"] {
            let refused = get_with(address, path, host, headers).await;
            assert!(
                refused.starts_with("HTTP/1.1 403 "),
                "{path} {host} {headers}: {refused}"
            );
            assert!(!refused.to_lowercase().contains("access-control"), "{refused}");
        }
        // A probe may come by any name, and hears yes or no.
        let answer = get_with(address, "/readyz", host, headers).await;
        assert!(answer.ends_with("\r\n\r\nnot ready\n"), "{host} {headers}: {answer}");
    }
    let page = get_with(address, "/", "console.example:8443", "").await;
    assert!(is_answered(&page, "200", "the console\n"), "{page}");
    for header in [
        "content-security-policy: default-src 'none';",
        "x-content-type-options: nosniff",
    ] {
        assert!(page.contains(header), "{header}: {page}");
    }
    let changing = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let refused = ask(address, changing).await;
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
}

/// Any address but a loopback one; what connects to it comes by way of loopback all the same.
const ELSEWHERE: &str = "0.0.0.0:0";

#[tokio::test]
async fn elsewhere_strangers_are_told_yes_or_no_and_not_a_word_more() {
    let served = served(ELSEWHERE, false).await;
    let address = SocketAddr::from(([127, 0, 0, 1], served.address.port()));
    served.notices.send_replace(vec!["the certificate expires".to_owned()]);
    let ready = get_with(address, "/readyz", "10.0.0.7", "").await;
    assert!(is_answered(&ready, "200", "\r\n\r\nready\n"), "{ready}");
    served.not_ready.send_replace(Some(NotReady::Opening(2)));
    let not_ready = ask(address, "GET /readyz HTTP/1.0\r\n\r\n").await;
    assert!(
        not_ready.contains(" 503 ") && not_ready.ends_with("\r\n\r\nnot ready\n"),
        "{not_ready}"
    );
    let live = get_with(address, "/livez", "pod.example", "").await;
    assert!(is_answered(&live, "200", "live\n"), "{live}");
    for path in ["/", "/metrics", "/api/v1/cluster", "/nothing"] {
        let refused = fetch(address, path).await;
        assert!(
            refused.starts_with("HTTP/1.1 403 ") && refused.contains("certificate"),
            "{path}: {refused}"
        );
    }
}

#[tokio::test]
async fn metrics_are_for_everybody_only_if_the_settings_say_so() {
    let served = served(ELSEWHERE, true).await;
    let address = SocketAddr::from(([127, 0, 0, 1], served.address.port()));
    let metrics = get_with(address, "/metrics", "prometheus.example", "").await;
    assert!(is_answered(&metrics, "200", "\r\nhighwater_some 7\n"), "{metrics}");
    let refused = fetch(address, "/").await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
}

#[tokio::test]
async fn an_admin_port_in_use_is_named_and_an_empty_one_is_none() {
    let taken = Admin::bind("127.0.0.1:0").await.unwrap().unwrap();
    let address = taken.address().to_string();
    let refused = Admin::bind(&address).await.unwrap_err();
    assert!(refused.to_string().contains(&address), "{refused}");
    assert!(Admin::bind("").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn connections_that_say_nothing_do_not_keep_others_out() {
    let served = served("127.0.0.1:0", false).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
    let mut response = String::new();
    let reading = stream.read_to_string(&mut response);
    timeout(2 * CONNECTION_TIME_MAX, reading).await.unwrap().unwrap();
    assert!(response.contains("live"), "{response}");
}

/// A connection from an address of its own, of which there are many on loopback.
async fn from(source: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, source], 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// Ready when the other side has closed it.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = timeout(PATIENCE, stream.read(&mut [0])).await;
    read.is_ok_and(|read| !matches!(read, Ok(1)))
}

#[tokio::test]
async fn strangers_of_one_address_do_not_keep_a_probe_from_elsewhere_out() {
    let served = served(ELSEWHERE, false).await;
    let address = SocketAddr::from(([127, 0, 0, 1], served.address.port()));
    let mut kept = Vec::new();
    for _ in 0..UNPROVEN_PER_ADDRESS_MAX {
        let mut stream = from(2, address).await;
        stream.write_all(b"G").await.unwrap();
        kept.push(stream);
    }
    assert!(is_closed(&mut from(2, address).await).await, "one more than its share");
    let live = fetch(address, "/livez").await;
    assert!(is_answered(&live, "200", "live\n"), "{live}");
}

#[tokio::test(start_paused = true)]
async fn strangers_of_many_addresses_are_soon_gone_and_never_take_every_place() {
    let served = served(ELSEWHERE, false).await;
    let address = SocketAddr::from(([127, 0, 0, 1], served.address.port()));
    const _: () = assert!(UNPROVEN_MAX < CONNECTIONS_MAX);
    let mut kept = Vec::new();
    for number in 0..UNPROVEN_MAX {
        let source = 2 + (number / UNPROVEN_PER_ADDRESS_MAX) as u8;
        kept.push(from(source, address).await);
    }
    assert!(
        is_closed(&mut from(100, address).await).await,
        "there are enough of them"
    );
    for stream in &mut kept {
        stream.write_all(b"G").await.unwrap();
    }
    let last = kept.last_mut().unwrap();
    timeout(2 * STRANGER_TIME_MAX, last.read(&mut [0])).await.unwrap().ok();
    let live = fetch(address, "/livez").await;
    assert!(is_answered(&live, "200", "live\n"), "{live}");
}
