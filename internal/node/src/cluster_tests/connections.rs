//! How old connections become, and what HTTP/2 does not allow on them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use super::http_client::HttpClient;
use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_OF_STREAM_AND_HEADERS: u8 = 5;
/// HPACK for `POST https:///`.
const HEAD: [u8; 3] = [0x83, 0x87, 0x84];
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(body);
    frame
}

/// Kinds and bodies of the frames in `bytes`.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let end = 9 + u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        frames.push((bytes[3], bytes[9..end].to_vec()));
        bytes = &bytes[end..];
    }
    frames
}

/// A node that has found no cluster, which serves its port all the same.
async fn lonely(connection_age_max_ms: u64) -> (TestCluster, NodeHandle) {
    let cluster = TestCluster::new();
    let config = Config {
        connection_age_max_ms,
        ..cluster.config(0)
    };
    let node = Box::pin(Node::start_at(config, cluster.pace)).await;
    (cluster, node.unwrap())
}

async fn connect(cluster: &TestCluster) -> TlsStream<TcpStream> {
    let config = client_config(cluster.ca.client_files("shop", "tester"));
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(("127.0.0.1", cluster.ports[0])).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, tcp).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// All that comes until the connection ends, in whatever way.
async fn to_the_end(stream: &mut TlsStream<TcpStream>) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let reading = async { while let Ok(1..) = stream.read_buf(&mut bytes).await {} };
    timeout(PATIENCE, reading).await.expect("it does not end");
    frames(&bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_is_told_to_go_and_broken_off_if_it_stays() {
    let age = Duration::from_secs(1);
    let (cluster, node) = lonely(age.as_millis() as u64).await;
    let begin = tokio::time::Instant::now();
    let mut stays = connect(&cluster).await;
    let frames = to_the_end(&mut stays).await;
    assert!(frames.iter().any(|(kind, _)| *kind == GOAWAY), "{frames:?}");
    // It answers nothing, and so has the grace as well.
    assert!(begin.elapsed() >= age.mul_f64(0.9), "{:?}", begin.elapsed());

    let mut http = HttpClient::connect(cluster.ports[0], cluster.ca.client_files("shop", "tester")).await;
    assert_eq!(http.get("/v1").await.status, 200);
    assert!(http.is_closed().await);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_begins_calls_only_to_give_them_up_is_disconnected() {
    let (cluster, node) = lonely(60_000).await;
    let mut stream = connect(&cluster).await;
    let mut flood = Vec::new();
    for number in 0..2_000 {
        let id = 2 * number + 1;
        flood.extend(frame(HEADERS, END_OF_STREAM_AND_HEADERS, id, &HEAD));
        flood.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    // It may be disconnected before it has sent everything.
    let _ = stream.write_all(&flood).await;
    let frames = to_the_end(&mut stream).await;
    let farewell = frames.iter().find(|(kind, _)| *kind == GOAWAY);
    let reason = farewell.map(|(_, body)| u32::from_be_bytes([body[4], body[5], body[6], body[7]]));
    assert_eq!(reason, Some(ENHANCE_YOUR_CALM), "{frames:?}");
    node.shutdown().await;
}
