//! Peers in memory: calls and streams between named nodes, with links that can be cut or made deaf.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_log::GroupId;
use tokio::sync::{mpsc, watch};

use crate::{Lane, Partition, PeerError, PeerStream, Peers, Unstarted};

/// Which links work. A link is a pair (from, to), so it can fail one way.
#[derive(Default)]
struct Links {
    nodes: BTreeMap<String, Partition>,
    /// Replicas that are being started.
    starting: BTreeMap<String, Unstarted>,
    cut: BTreeSet<(String, String)>,
    /// Streams over these links swallow the answers.
    deaf: BTreeSet<(String, String)>,
    /// Calls of this kind get lost, everywhere.
    lost_kinds: BTreeSet<u8>,
    /// How many calls got lost that way.
    lost_calls: usize,
    /// Streams of this kind break after so many messages, everywhere.
    broken_kind: Option<(u8, usize)>,
    /// Kinds of the calls that were allowed to share their way with others, and of those that were not.
    shared_kinds: BTreeSet<u8>,
    lone_kinds: BTreeSet<u8>,
    /// How long each message takes over these links, in streams.
    slow: BTreeMap<(String, String), Duration>,
    /// No message gets further over these links, in streams.
    held: BTreeSet<(String, String)>,
}

pub(super) struct Network {
    links: Mutex<Links>,
    changed: watch::Sender<u64>,
}

impl Network {
    pub(super) fn new() -> Arc<Network> {
        Arc::new(Network {
            links: Mutex::new(Links::default()),
            changed: watch::Sender::new(0),
        })
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Links)) {
        change(&mut self.links());
        self.changed.send_modify(|version| *version += 1);
    }

    pub(super) fn join(&self, node: &str, partition: Partition) {
        self.change(|links| {
            links.starting.remove(node);
            links.nodes.insert(node.to_owned(), partition);
        });
    }

    /// A replica that is being started; it answers what can be answered without a core.
    pub(super) fn begin(&self, node: &str, unstarted: Unstarted) {
        self.change(|links| drop(links.starting.insert(node.to_owned(), unstarted)));
    }

    pub(super) fn leave(&self, node: &str) {
        self.change(|links| {
            links.starting.remove(node);
            links.nodes.remove(node);
        });
    }

    /// Nobody reaches `node`, and it reaches nobody.
    pub(super) fn isolate(&self, node: &str, others: &[&str]) {
        self.change(|links| {
            for other in others {
                links.cut.insert((node.to_owned(), (*other).to_owned()));
                links.cut.insert(((*other).to_owned(), node.to_owned()));
            }
        });
    }

    /// Answers to the streams from `from` to `to` get lost, silently.
    pub(super) fn deafen(&self, from: &str, to: &str) {
        self.change(|links| {
            links.deaf.insert((from.to_owned(), to.to_owned()));
        });
    }

    /// Calls of this kind get lost, everywhere.
    pub(super) fn lose(&self, kind: u8) {
        self.change(|links| {
            links.lost_kinds.insert(kind);
        });
    }

    /// How many calls got lost because of their kind.
    pub(super) fn lost_calls(&self) -> usize {
        self.links().lost_calls
    }

    /// Kinds of calls seen so far: those that may share their way with calls of other groups, and the others.
    pub(super) fn kinds_seen(&self) -> (BTreeSet<u8>, BTreeSet<u8>) {
        let links = self.links();
        (links.shared_kinds.clone(), links.lone_kinds.clone())
    }

    fn loses(&self, kind: u8) -> bool {
        let mut links = self.links();
        let lost = links.lost_kinds.contains(&kind);
        links.lost_calls += usize::from(lost);
        lost
    }

    /// Streams of this kind break after so many messages, everywhere.
    pub(super) fn break_streams(&self, kind: u8, messages: usize) {
        self.change(|links| links.broken_kind = Some((kind, messages)));
    }

    /// Messages of streams from `from` to `to` take so long, one after the other.
    pub(super) fn slow_down(&self, from: &str, to: &str, pause: Duration) {
        self.change(|links| {
            links.slow.insert((from.to_owned(), to.to_owned()), pause);
        });
    }

    /// Messages of streams from `from` to `to` wait until all is healed; calls, and so heartbeats, go through.
    pub(super) fn hold(&self, from: &str, to: &str) {
        self.change(|links| {
            links.held.insert((from.to_owned(), to.to_owned()));
        });
    }

    pub(super) fn heal(&self) {
        self.change(|links| {
            links.lost_kinds.clear();
            links.broken_kind = None;
            links.slow.clear();
            links.held.clear();
            links.cut.clear();
            links.deaf.clear();
        });
    }

    pub(super) fn peers(self: &Arc<Self>, from: &str) -> Arc<dyn Peers> {
        Arc::new(Link {
            from: from.to_owned(),
            network: self.clone(),
        })
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.links().cut.contains(&(from.to_owned(), to.to_owned()))
    }

    fn is_deaf(&self, from: &str, to: &str) -> bool {
        self.links().deaf.contains(&(from.to_owned(), to.to_owned()))
    }

    fn reach(&self, from: &str, to: &str) -> Result<Partition, PeerError> {
        let unreachable = |why: &str| PeerError::Unreachable {
            node: to.to_owned(),
            why: why.to_owned(),
        };
        if self.is_cut(from, to) {
            return Err(unreachable("cut"));
        }
        self.links().nodes.get(to).cloned().ok_or_else(|| unreachable("down"))
    }

    /// Carries messages from one end to the other until an end is gone, the receiver leaves or the link is cut.
    async fn carry(
        self: Arc<Self>,
        from: String,
        to: String,
        mut messages: mpsc::Receiver<Vec<Bytes>>,
        out: mpsc::Sender<Bytes>,
        (kind, deaf): (u8, bool),
    ) {
        let mut changed = self.changed.subscribe();
        let mut carried = 0;
        loop {
            let message = tokio::select! {
                biased;
                _ = changed.changed() => {
                    if self.is_cut(&from, &to) || !self.links().nodes.contains_key(&to) {
                        return;
                    }
                    continue;
                }
                () = out.closed() => return,
                message = messages.recv() => message,
            };
            let Some(parts) = message else { return };
            if deaf && self.is_deaf(&to, &from) {
                continue;
            }
            let (broken, pause) = {
                let links = self.links();
                let pause = links.slow.get(&(from.clone(), to.clone())).copied();
                (links.broken_kind == Some((kind, carried)), pause)
            };
            if broken {
                return;
            }
            carried += 1;
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            let mut released = self.changed.subscribe();
            let link = (from.clone(), to.clone());
            let _ = released.wait_for(|_| !self.links().held.contains(&link)).await;
            if out.send(Bytes::from(parts.concat())).await.is_err() {
                return;
            }
        }
    }
}

struct Link {
    from: String,
    network: Arc<Network>,
}

impl Peers for Link {
    fn call(
        &self,
        node: &str,
        _group: GroupId,
        _lane: Lane,
        kind: u8,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        self.network.links().lone_kinds.insert(kind);
        self.carry_call(node, kind, body, timeout)
    }

    fn heartbeat(
        &self,
        node: &str,
        _group: GroupId,
        kind: u8,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        self.network.links().shared_kinds.insert(kind);
        self.carry_call(node, kind, body, timeout)
    }

    fn open_stream(
        &self,
        node: &str,
        _group: GroupId,
        _lane: Lane,
        kind: u8,
    ) -> BoxFuture<'static, Result<PeerStream, PeerError>> {
        let (network, from, node) = (self.network.clone(), self.from.clone(), node.to_owned());
        Box::pin(async move {
            let partition = network.reach(&from, &node)?;
            let (near_sender, near_messages) = mpsc::channel(8);
            let (near_out, near_receiver) = mpsc::channel(8);
            let (far_sender, far_messages) = mpsc::channel(8);
            let (far_out, far_receiver) = mpsc::channel(8);
            tokio::spawn(
                network
                    .clone()
                    .carry(from.clone(), node.clone(), near_messages, far_out, (kind, false)),
            );
            tokio::spawn(network.carry(node, from.clone(), far_messages, near_out, (kind, true)));
            let far = PeerStream {
                sender: far_sender,
                receiver: far_receiver,
            };
            tokio::spawn(async move { partition.handle_stream(&from, kind, far).await });
            Ok(PeerStream {
                sender: near_sender,
                receiver: near_receiver,
            })
        })
    }
}

impl Link {
    fn carry_call(
        &self,
        node: &str,
        kind: u8,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (network, from, node) = (self.network.clone(), self.from.clone(), node.to_owned());
        Box::pin(async move {
            let no_answer = |why: &str| PeerError::NoAnswer {
                node: node.clone(),
                why: why.to_owned(),
            };
            let starting = network.links().starting.get(&node).cloned();
            let partition = match starting {
                Some(_) if network.is_cut(&from, &node) => return Err(no_answer("cut")),
                Some(unstarted) => Err(unstarted),
                None => Ok(network.reach(&from, &node)?),
            };
            if network.loses(kind) {
                return Err(no_answer("lost"));
            }
            let body = Bytes::from(body.concat());
            let call = async {
                match partition {
                    Ok(partition) => partition.handle_call(&from, kind, body).await,
                    Err(unstarted) => unstarted.handle_call(&from, kind, body).await,
                }
            };
            let answer = tokio::time::timeout(timeout, call)
                .await
                .map_err(|_| no_answer("timeout"))?;
            if network.is_cut(&node, &from) {
                return Err(no_answer("cut"));
            }
            answer
                .map(|parts| Bytes::from(parts.concat()))
                .map_err(|err| PeerError::Refused {
                    node: node.clone(),
                    why: err.to_string(),
                    begun: true,
                })
        })
    }
}
