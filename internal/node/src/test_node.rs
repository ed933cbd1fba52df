//! The transport half of a node, for tests: credentials, a served port, a link and a handler that obeys simple orders.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_partition::PeerStream;
use highwater_partition::log::ClusterId;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::catalog::CatalogHost;
use crate::failures::Failures;
use crate::gossip::GossipMailbox;
use crate::link::{AddressBook, Hello, Link, LinkHandler, LinkOptions, Refusal};
use crate::port::{Incoming, Port, PortCounters, PortOptions, connections};
use crate::quotas::Quotas;
use crate::replicas::Registry;
use crate::test_ca::TestCa;
use crate::tls::Credentials;

/// Kinds of calls and streams that [`TestHandler`] understands.
pub(crate) mod kinds {
    pub(crate) const ECHO: u8 = 0;
    pub(crate) const REFUSE: u8 = 1;
    pub(crate) const NEVER: u8 = 2;
    pub(crate) const PANIC: u8 = 3;
    /// Answers with who asked and for which group.
    pub(crate) const WHO: u8 = 4;
    /// A call: answers with one byte more than is allowed.
    pub(crate) const TOO_MUCH: u8 = 5;
    /// A stream: everything that arrives goes to `TestNode::streamed`.
    pub(crate) const COLLECT: u8 = 6;
    /// A stream: is held open and never read, until the node ends.
    pub(crate) const HOLD: u8 = 7;
    /// A stream: sends three messages and ends at once, without reading.
    pub(crate) const SEND_THREE: u8 = 8;
    /// A call: is refused as one that nothing is done for.
    pub(crate) const UNKNOWN: u8 = 9;
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct TestHandler {
    pub(crate) mailbox: Mutex<Option<GossipMailbox>>,
    pub(crate) refuse_hello: Mutex<Option<String>>,
    pub(crate) hellos: Mutex<Vec<Hello>>,
    pub(crate) held: Mutex<Vec<PeerStream>>,
    /// Calls of kind `NEVER` that are going on.
    pub(crate) hanging: Arc<AtomicUsize>,
    streamed: Mutex<Option<mpsc::UnboundedSender<Bytes>>>,
    gossiped: Mutex<Option<mpsc::UnboundedSender<(String, Bytes)>>>,
}

impl LinkHandler for TestHandler {
    fn call(&self, from: &str, group: u64, kind: u8, body: Bytes) -> BoxFuture<'static, Result<Vec<Bytes>, Refusal>> {
        let (from, hanging) = (from.to_owned(), self.hanging.clone());
        Box::pin(async move {
            match kind {
                kinds::ECHO => Ok(vec![body.slice(..body.len() / 2), body.slice(body.len() / 2..)]),
                kinds::REFUSE => Err("not today".to_owned().into()),
                kinds::NEVER => {
                    hanging.fetch_add(1, Ordering::SeqCst);
                    std::future::pending().await
                }
                kinds::PANIC => panic!("as ordered"),
                kinds::WHO => Ok(vec![Bytes::from(format!("{from} {group}"))]),
                kinds::TOO_MUCH => Ok(vec![Bytes::from(vec![0; crate::link::limits::FRAME_BYTES_MAX + 1])]),
                kinds::UNKNOWN => Err(Refusal::NotBegun("no such kind".to_owned())),
                other => Err(format!("kind {other}").into()),
            }
        })
    }

    fn stream(&self, _from: &str, _group: u64, kind: u8, mut stream: PeerStream) -> BoxFuture<'static, ()> {
        if kind == kinds::HOLD {
            self.held.lock().unwrap().push(stream);
            return Box::pin(async {});
        }
        let streamed = self.streamed.lock().unwrap().clone();
        Box::pin(async move {
            if kind == kinds::SEND_THREE {
                for number in 0..3_u8 {
                    stream.sender.send(vec![Bytes::from(vec![number])]).await.unwrap();
                }
                return;
            }
            while let Some(message) = stream.receiver.recv().await {
                if kind == kinds::COLLECT {
                    streamed.as_ref().unwrap().send(message).unwrap();
                } else if stream.sender.send(vec![message]).await.is_err() {
                    return;
                }
            }
        })
    }

    fn gossip(&self, from: &str, message: Bytes) {
        assert_ne!(message, "panic");
        if let Some(mailbox) = &*self.mailbox.lock().unwrap() {
            mailbox.deliver(from, message.clone());
        }
        if let Some(gossiped) = &*self.gossiped.lock().unwrap() {
            let _ = gossiped.send((from.to_owned(), message));
        }
    }

    fn hello(&self, _from: &str, hello: &Hello) -> Result<(), String> {
        self.hellos.lock().unwrap().push(hello.clone());
        self.refuse_hello.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

pub(crate) struct TestNode {
    pub(crate) name: String,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) link: Link,
    pub(crate) handler: Arc<TestHandler>,
    pub(crate) book: Arc<AddressBook>,
    pub(crate) address: SocketAddr,
    pub(crate) counters: Arc<PortCounters>,
    pub(crate) incoming: Option<Incoming>,
    pub(crate) http_incoming: Option<Incoming>,
    pub(crate) streamed: mpsc::UnboundedReceiver<Bytes>,
    pub(crate) gossiped: mpsc::UnboundedReceiver<(String, Bytes)>,
    stop: CancellationToken,
}

impl TestNode {
    pub(crate) async fn start(ca: &TestCa, name: &str) -> TestNode {
        TestNode::start_with(ca.node(name), None, 1, ([127, 0, 0, 1], 0).into()).await
    }

    pub(crate) async fn start_with(
        credentials: Arc<Credentials>,
        cluster_id: Option<ClusterId>,
        boot: u64,
        address: SocketAddr,
    ) -> TestNode {
        let (streamed_sender, streamed) = mpsc::unbounded_channel();
        let (gossiped_sender, gossiped) = mpsc::unbounded_channel();
        let handler = Arc::new(TestHandler {
            streamed: Mutex::new(Some(streamed_sender)),
            gossiped: Mutex::new(Some(gossiped_sender)),
            ..TestHandler::default()
        });
        let book = Arc::new(AddressBook::default());
        let link = Link::new(LinkOptions {
            credentials: credentials.clone(),
            incarnation: [boot as u8; 16],
            boot,
            cluster_id,
            directory: book.clone(),
            handler: handler.clone(),
        });
        let port = bind(address).await;
        let (address, counters) = (port.local_addr(), port.counters());
        let ((grpc, incoming), (http, http_incoming)) = (connections(), connections());
        let options = PortOptions {
            credentials: credentials.clone(),
            link: link.clone(),
            quotas: Quotas::new(
                credentials.node_name(),
                CatalogHost::new(Failures::default()),
                Registry::new(),
            ),
            grpc,
            http,
            audit: Audit::default(),
        };
        let stop = CancellationToken::new();
        tokio::spawn(port.run(options, stop.clone().cancelled_owned()));
        TestNode {
            name: credentials.node_name().to_owned(),
            credentials,
            link,
            handler,
            book,
            address,
            counters,
            incoming: Some(incoming),
            http_incoming: Some(http_incoming),
            streamed,
            gossiped,
            stop,
        }
    }

    /// Lets this node find another one.
    pub(crate) fn knows(&self, other: &TestNode) {
        self.book.learn(&other.name, &other.address.to_string());
    }

    /// Ends the port and all connections, as if the process had ended.
    pub(crate) fn kill(&self) {
        self.stop.cancel();
        self.link.shutdown();
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Takes the address as soon as the node that had it before has let it go.
async fn bind(address: SocketAddr) -> Port {
    let binding = async {
        loop {
            match Port::bind(address).await {
                Ok(port) => return port,
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(PATIENCE, binding).await.expect("the address becomes free")
}

/// Waits until `condition` holds, and fails the test if it does not in time.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("in vain: {what}"));
}
