//! The network in memory, and what can be wrong with it.
//!
//! Calls may be lost, answered in vain, doubled (the copy comes later) and late. Streams are ordered: they stall while their
//! link carries nothing, and are reset when that lasts, or now and then when links are lossy. The end of a node is heard at
//! once (its system resets connections) or never (it lost power), as each stream's draw decides.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_log::GroupId;
use highwater_partition::{Lane, PeerError, PeerStream, Peers};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::world::{Callee, World, lock, node_name, node_of, sleep_ms};
use crate::random::Random;

/// Messages that a stream holds in each direction.
const STREAM_MESSAGES: usize = 8;
/// How long a link may carry nothing before its streams are reset.
const STALL_MS_MAX: u64 = 4_000;
/// How often a stalled stream looks at its link.
const STALL_LOOK_MS: u64 = 20;

/// What is wrong with the links now.
#[derive(Debug)]
struct Links {
    /// From, to: how many faults block it.
    blocked: Vec<Vec<u32>>,
    lossy: u32,
    random: Random,
    delay_ms: u64,
    messages: u64,
    /// Messages that faults have lost, doubled or held up.
    harmed: u64,
    /// Of those, the ones that were lost.
    lost: u64,
}

/// The links between all nodes.
#[derive(Debug)]
pub(crate) struct Network {
    links: Mutex<Links>,
}

/// What becomes of one message.
#[derive(Debug, Clone, Copy)]
struct Fate {
    delay_ms: u64,
    lost: bool,
    /// A copy comes so much later.
    doubled_ms: Option<u64>,
}

impl Network {
    pub(crate) fn new(seed: u64, nodes: usize, delay_ms: u64) -> Network {
        let links = Links {
            blocked: vec![vec![0; nodes]; nodes],
            lossy: 0,
            random: Random::stream(seed, "network", 0),
            delay_ms,
            messages: 0,
            harmed: 0,
            lost: 0,
        };
        Network {
            links: Mutex::new(links),
        }
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        lock(&self.links)
    }

    /// From now on one direction of a link carries nothing. Faults may overlap: each is taken back by itself.
    pub(crate) fn block(&self, from: usize, to: usize) {
        self.links().blocked[from][to] += 1;
    }

    pub(crate) fn unblock(&self, from: usize, to: usize) {
        let mut links = self.links();
        let blocked = &mut links.blocked[from][to];
        *blocked = blocked.saturating_sub(1);
    }

    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        let mut links = self.links();
        let blocked = links.blocked[from][to] > 0;
        links.harmed += u64::from(blocked);
        links.lost += u64::from(blocked);
        blocked
    }

    /// All links become lossy, or one such fault ends.
    pub(crate) fn make_lossy(&self, lossy: bool) {
        let mut links = self.links();
        links.lossy = if lossy {
            links.lossy + 1
        } else {
            links.lossy.saturating_sub(1)
        };
    }

    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.links().random)
    }

    /// How many messages faults have harmed.
    pub(crate) fn harmed(&self) -> u64 {
        self.links().harmed
    }

    /// How many messages faults have lost.
    pub(crate) fn lost(&self) -> u64 {
        self.links().lost
    }

    /// Whether nothing is wrong with any link.
    pub(crate) fn is_quiet(&self) -> bool {
        let links = self.links();
        links.lossy == 0 && links.blocked.iter().flatten().all(|blocked| *blocked == 0)
    }

    fn fate(&self) -> Fate {
        let mut links = self.links();
        links.messages += 1;
        let (lossy, delay_ms) = (links.lossy > 0, links.delay_ms);
        let random = &mut links.random;
        let late = random.permille(if lossy { 60 } else { 3 });
        let fate = Fate {
            delay_ms: if late {
                random.between(20, 800)
            } else {
                random.between(1, delay_ms)
            },
            lost: random.permille(if lossy { 80 } else { 0 }),
            doubled_ms: random
                .permille(if lossy { 60 } else { 4 })
                .then(|| random.between(1, 600)),
        };
        links.lost += u64::from(fate.lost);
        links.harmed += u64::from(late || fate.lost || fate.doubled_ms.is_some());
        fate
    }
}

/// One node's way to the others.
pub(crate) struct Wire {
    pub(crate) world: Arc<World>,
    pub(crate) from: usize,
}

/// A call on its way.
struct Call {
    world: Arc<World>,
    from: usize,
    to: usize,
    kind: u8,
    body: Bytes,
}

impl Call {
    /// Takes the request there and the answer back; None if anything goes wrong on the way.
    async fn carry(self, fate: Fate) -> Option<Result<Bytes, PeerError>> {
        let Call {
            world,
            from,
            to,
            kind,
            body,
        } = self;
        sleep_ms(fate.delay_ms).await;
        if fate.lost || world.network.is_blocked(from, to) {
            return None;
        }
        let Some((callee, life, cuts)) = world.callee(to) else {
            return Some(Err(unreachable(to, "down")));
        };
        world.note(format_args!("call n{from} n{to} {kind} {}", body.len()));
        let name = node_name(from);
        let handled = life.spawn(world.task_seed(), async move {
            match callee {
                Callee::Serving(partition) => partition.handle_call(&name, kind, body).await,
                Callee::Unstarted(unstarted) => unstarted.handle_call(&name, kind, body).await,
            }
        });
        let answer = handled.await.ok()?; // a crash takes the answer with it
        let back = world.network.fate();
        sleep_ms(back.delay_ms).await;
        if back.lost || world.network.is_blocked(to, from) || world.cuts(to) != cuts {
            return None;
        }
        world.note(format_args!("answer n{to} n{from} {kind} {}", answer.is_ok()));
        Some(match answer {
            Ok(parts) => Ok(Bytes::from(parts.concat())),
            Err(error) => Err(PeerError::Refused {
                node: node_name(to),
                why: error.to_string(),
                begun: true,
            }),
        })
    }
}

fn unreachable(node: usize, why: &str) -> PeerError {
    PeerError::Unreachable {
        node: node_name(node),
        why: why.to_owned(),
    }
}

fn no_answer(node: usize) -> PeerError {
    PeerError::NoAnswer {
        node: node_name(node),
        why: "nothing came back".to_owned(),
    }
}

impl Peers for Wire {
    fn call(
        &self,
        node: &str,
        _group: GroupId,
        _lane: Lane,
        kind: u8,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (world, from) = (self.world.clone(), self.from);
        let Some(to) = node_of(node) else {
            return Box::pin(async { Err(unreachable(usize::MAX, "no such node")) });
        };
        let body = Bytes::from(body.concat());
        Box::pin(async move {
            let fate = world.network.fate();
            let call = || Call {
                world: world.clone(),
                from,
                to,
                kind,
                body: body.clone(),
            };
            if let Some(later_ms) = fate.doubled_ms {
                let copy = Fate {
                    delay_ms: fate.delay_ms + later_ms,
                    ..fate
                };
                tokio::spawn(call().carry(copy)); // its answer finds nobody
            }
            // not part of this future: what was sent arrives, also if its sender waits no more
            let (sender, receiver) = oneshot::channel();
            let carried = call().carry(fate);
            tokio::spawn(async move {
                if let Some(answer) = carried.await {
                    let _ = sender.send(answer);
                } else {
                    sleep_ms(STALL_MS_MAX).await; // silence, not an error
                }
            });
            match tokio::time::timeout(timeout, receiver).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => Err(no_answer(to)),
            }
        })
    }

    fn open_stream(
        &self,
        node: &str,
        _group: GroupId,
        _lane: Lane,
        kind: u8,
    ) -> BoxFuture<'static, Result<PeerStream, PeerError>> {
        let (world, from) = (self.world.clone(), self.from);
        let Some(to) = node_of(node) else {
            return Box::pin(async { Err(unreachable(usize::MAX, "no such node")) });
        };
        Box::pin(async move {
            let fate = world.network.fate();
            sleep_ms(fate.delay_ms).await;
            if fate.lost || world.network.is_blocked(from, to) || world.network.is_blocked(to, from) {
                sleep_ms(1_000).await;
                return Err(no_answer(to));
            }
            let Some((partition, life, _)) = world.serving(to) else {
                return Err(unreachable(to, "down"));
            };
            world.note(format_args!("stream n{from} n{to}"));
            let (near, far) = connect(&world, from, to);
            let name = node_name(from);
            drop(life.spawn(world.task_seed(), async move {
                partition.handle_stream(&name, kind, far).await
            }));
            Ok(near)
        })
    }
}

/// Both ends of a new stream.
fn connect(world: &Arc<World>, from: usize, to: usize) -> (PeerStream, PeerStream) {
    let (near_sender, near_messages) = mpsc::channel(STREAM_MESSAGES);
    let (far_out, far_receiver) = mpsc::channel(STREAM_MESSAGES);
    let (far_sender, far_messages) = mpsc::channel(STREAM_MESSAGES);
    let (near_out, near_receiver) = mpsc::channel(STREAM_MESSAGES);
    let silent = world.network.draw(|random| random.permille(400));
    let reset = Arc::new(watch::Sender::new(false));
    let pipe = |from, to| Pipe {
        world: world.clone(),
        from,
        to,
        silent,
        reset: reset.clone(),
    };
    tokio::spawn(pipe(from, to).carry(near_messages, far_out));
    tokio::spawn(pipe(to, from).carry(far_messages, near_out));
    let near = PeerStream {
        sender: near_sender,
        receiver: near_receiver,
    };
    let far = PeerStream {
        sender: far_sender,
        receiver: far_receiver,
    };
    (near, far)
}

/// One direction of a stream.
struct Pipe {
    world: Arc<World>,
    from: usize,
    to: usize,
    /// The other side does not hear when this one dies.
    silent: bool,
    reset: Arc<watch::Sender<bool>>,
}

impl Pipe {
    /// Carries messages in order until an end is gone, the link fails for long or the stream is reset.
    async fn carry(self, mut messages: mpsc::Receiver<Vec<Bytes>>, out: mpsc::Sender<Bytes>) {
        let mut reset = self.reset.subscribe();
        let mut due = Instant::now();
        loop {
            let message = tokio::select! {
                biased;
                _ = reset.wait_for(|reset| *reset) => return,
                () = out.closed() => break,
                message = messages.recv() => message,
            };
            let Some(parts) = message else { break };
            let fate = self.world.network.fate();
            due = due.max(Instant::now() + Duration::from_millis(fate.delay_ms));
            tokio::time::sleep_until(due).await;
            if fate.lost || !self.passable().await {
                break;
            }
            let message = Bytes::from(parts.concat());
            self.world
                .note(format_args!("stream n{} n{} {}", self.from, self.to, message.len()));
            if out.send(message).await.is_err() {
                break;
            }
        }
        if self.silent {
            sleep_ms(STALL_MS_MAX).await;
        }
        self.reset.send_replace(true);
    }

    /// Waits until the link carries something; false if that takes too long.
    async fn passable(&self) -> bool {
        let mut waited_ms = 0;
        while self.world.network.is_blocked(self.from, self.to) {
            if waited_ms > STALL_MS_MAX {
                return false;
            }
            sleep_ms(STALL_LOOK_MS).await;
            waited_ms += STALL_LOOK_MS;
        }
        true
    }
}
