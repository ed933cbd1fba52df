//! Connections over pipes in paused time, so that minutes pass at once.

use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::time::{advance, sleep};

use super::super::connection::Role;
use super::super::limits::{SILENT_TICKS_MAX, TICK, UNUSED_TICKS_MAX};
use super::*;
use crate::test_node::kinds;

fn begin(node: &TestNode, role: Role, other: &TestNode, stream: DuplexStream) -> Arc<Connection> {
    let said = node.link.inner.own_hello(Lane::Control);
    let hello = other.link.inner.own_hello(Lane::Control);
    node.link.inner.start(role, hello, &said, stream, None)
}

#[tokio::test]
async fn an_unused_connection_is_closed_after_a_while_and_a_used_one_is_not() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    tokio::time::pause();
    let (here, there) = duplex(1024);
    let (unused, other_end) = (
        begin(&one, Role::Dialler, &two, here),
        begin(&two, Role::Acceptor, &one, there),
    );
    let (here, there) = duplex(1024);
    let used = begin(&one, Role::Dialler, &two, here);
    let _used_there = begin(&two, Role::Acceptor, &one, there);
    let _stream = used.open_stream(7, kinds::HOLD).unwrap();

    sleep(TICK * (UNUSED_TICKS_MAX - 1)).await;
    assert!(!unused.is_closed(), "signs of life keep it until then");
    sleep(TICK * 3).await;
    assert!(unused.is_closed() && other_end.is_closed());
    assert_eq!(unused.why_closed(), "it is not needed at present");
    assert!(!used.is_closed(), "a connection with an open stream is in use");
}

#[tokio::test]
async fn the_pause_of_a_whole_process_does_not_cost_its_connections() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    tokio::time::pause();
    let (here, there) = duplex(1024);
    let (dialled, accepted) = (
        begin(&one, Role::Dialler, &two, here),
        begin(&two, Role::Acceptor, &one, there),
    );
    sleep(TICK * 4).await;
    advance(TICK * 100).await;
    sleep(TICK * 4).await;
    assert!(!dialled.is_closed() && !accepted.is_closed());
}

#[tokio::test]
async fn silence_is_counted_even_while_we_send() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    tokio::time::pause();
    let (here, mut there) = duplex(1024);
    let connection = begin(&one, Role::Dialler, &two, here);
    let reading = tokio::spawn(async move { there.read_to_end(&mut Vec::new()).await });
    sleep(TICK * (SILENT_TICKS_MAX - 1)).await;
    assert!(!connection.is_closed());
    sleep(TICK * 3).await;
    assert_eq!(connection.why_closed(), "it has been silent for too long");
    reading.await.unwrap().unwrap();
}
