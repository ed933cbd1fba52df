//! A client that makes the node read much beyond its calls, on the connection itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;

use super::super::frames::tests::sent;
use super::super::frames::{HEADERS, RST_STREAM};
use super::super::overhead::{BURST_SECONDS, OVERHEAD_BYTES_PER_SECOND};
use super::*;

/// What a client sends first (RFC 9113, section 3.4), and calls that are begun and given up.
fn given_up(count: u32) -> Vec<u8> {
    let calls = (0..count).flat_map(|number| {
        let stream = 2 * number + 1;
        [sent(HEADERS, 5, stream, 50), sent(RST_STREAM, 0, stream, 4)]
    });
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        .iter()
        .copied()
        .chain(calls.flatten())
        .collect()
}

/// Reads all that comes; what was read is counted meanwhile.
fn count(mut connection: Connection) -> (Arc<AtomicUsize>, JoinHandle<()>) {
    let counted = Arc::new(AtomicUsize::new(0));
    let all = counted.clone();
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = connection.read(&mut buffer).await {
            all.fetch_add(read, Ordering::Relaxed);
        }
    });
    (counted, reading)
}

#[tokio::test]
async fn a_client_that_gives_up_its_calls_is_read_slowly_and_others_as_before() {
    let ca = TestCa::new();
    let mut node = TestNode::start(&ca, "n1").await;
    let mut incoming = node.incoming.take().unwrap();
    // Four times as much as a client may do at once.
    let flood = given_up(4 * BURST_SECONDS * OVERHEAD_BYTES_PER_SECOND / (2 * 1024));
    let hostile = client_config(Some(&ca.client_files("acme", "hostile")), &ca, &[ALPN_GRPC]);
    let mut flooding = connect(&node, hostile.clone()).await.unwrap();
    let (read, reading) = count(incoming.next().await.unwrap().unwrap());
    let all = flood.len();
    let sending = tokio::spawn(async move {
        let sent = flooding.write_all(&flood).await;
        (flooding, sent)
    });
    eventually("the flood is slowed down", || node.counters.slowed() > 0).await;
    let slowed = node.counters.slowed();

    let mut again = connect(&node, hostile).await.unwrap();
    let (_, reading_another) = count(incoming.next().await.unwrap().unwrap());
    again.write_all(&given_up(100)).await.unwrap();
    eventually("another connection of its is slowed down, too", || {
        node.counters.slowed() > slowed
    })
    .await;
    assert!(
        !reading.is_finished() && !reading_another.is_finished(),
        "nothing is broken off"
    );

    let modest = client_config(Some(&ca.client_files("acme", "modest")), &ca, &[ALPN_GRPC]);
    let mut sparing = connect(&node, modest).await.unwrap();
    let (of_other, reading_other) = count(incoming.next().await.unwrap().unwrap());
    let few = given_up(100);
    sparing.write_all(&few).await.unwrap();
    sparing.shutdown().await.unwrap();
    timeout(PATIENCE, reading_other).await.unwrap().unwrap();
    assert_eq!(of_other.load(Ordering::Relaxed), few.len());
    let read = read.load(Ordering::Relaxed);
    assert!(read < all / 2, "{read} of {all} bytes were read");
    sending.abort();
}
