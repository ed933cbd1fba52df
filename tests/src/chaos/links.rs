//! The links between nodes, and what can be done to each direction of each.
//!
//! ```text
//! n1 ── dials n2's advertised port ──► proxy of n2 ──► n2's real port
//!           flow n1→n2 ───────────────────────────────►
//!           ◄─────────────────────────────── flow n2→n1
//! ```
//!
//! Every node advertises its proxy's port, so that everything from other nodes and clients comes through it. The proxy
//! learns [who dialled](super::dialer), and asks before each chunk what the rule for that flow is. A **flow** is one
//! direction between two nodes, over all connections, whoever dialled. Clients are never hindered: a node that is cut
//! off from its peers and still reached by clients is the harder case.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep;

use super::dialer::{self, Dialer};

/// How much is forwarded at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// What happens to what flows in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Rule {
    /// It arrives.
    #[default]
    Pass,
    /// It is swallowed without a word, as by a broken switch; what was under way arrives when the rule ends.
    Hold,
    /// Each chunk arrives later.
    Delay(Duration),
    /// Connections are reset, new ones too.
    Reset,
}

/// The rule of every flow: `[from][to]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules(Vec<Vec<Rule>>);

impl Rules {
    pub(crate) fn pass(nodes: usize) -> Self {
        Self(vec![vec![Rule::Pass; nodes]; nodes])
    }

    pub(crate) fn set(&mut self, from: usize, to: usize, rule: Rule) {
        self.0[from][to] = rule;
    }

    pub(crate) fn set_both(&mut self, one: usize, other: usize, rule: Rule) {
        self.set(one, other, rule);
        self.set(other, one, rule);
    }

    /// The rule between two ends; a client is `None`.
    fn get(&self, from: Option<usize>, to: Option<usize>) -> Rule {
        match (from, to) {
            (Some(from), Some(to)) => self.0[from][to],
            _ => Rule::Pass,
        }
    }
}

#[derive(Debug)]
struct Shared {
    /// Real port of each node, once known.
    ports: Mutex<Vec<u16>>,
    /// Process of each node while it runs.
    processes: Mutex<Vec<Option<u32>>>,
    rules: watch::Sender<Rules>,
    /// Chunks and connections that a rule kept from passing as they were.
    bitten: AtomicU64,
}

/// The proxies of all nodes. They end with the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    shared: Arc<Shared>,
    fronts: Vec<u16>,
}

impl Links {
    /// Starts one proxy for each node; where it leads is told later.
    pub(crate) fn start(nodes: usize, runtime: &Handle) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            ports: Mutex::new(vec![0; nodes]),
            processes: Mutex::new(vec![None; nodes]),
            rules: watch::Sender::new(Rules::pass(nodes)),
            bitten: AtomicU64::new(0),
        });
        let mut fronts = Vec::new();
        for node in 0..nodes {
            let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
            fronts.push(listener.local_addr()?.port());
            runtime.spawn(accept(shared.clone(), listener, node));
        }
        Ok(Self { shared, fronts })
    }

    /// The port that each node advertises.
    pub(crate) fn fronts(&self) -> &[u16] {
        &self.fronts
    }

    /// The ports where the nodes really listen.
    pub(crate) fn lead_to(&self, ports: Vec<u16>) {
        *lock(&self.shared.ports) = ports;
    }

    /// Which process a node is now.
    pub(crate) fn set_process(&self, node: usize, process: Option<u32>) {
        lock(&self.shared.processes)[node] = process;
    }

    pub(crate) fn set(&self, rules: Rules) {
        self.shared.rules.send_replace(rules);
    }

    pub(crate) fn heal(&self) {
        self.set(Rules::pass(self.fronts.len()));
    }

    /// How many chunks and connections were held, delayed or reset so far.
    pub(crate) fn bitten(&self) -> u64 {
        self.shared.bitten.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, node: usize) {
    let front = listener.local_addr().map_or(0, |address| address.port());
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                tokio::spawn(connection(shared.clone(), stream, from.port(), front, node));
            }
            // No descriptors left, most likely.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(shared: Arc<Shared>, mut stream: TcpStream, from: u16, front: u16, node: usize) {
    let processes = lock(&shared.processes).clone();
    let looked = tokio::task::spawn_blocking(move || dialer::find(from, front, &processes)).await;
    let dialler = match looked {
        Ok(Dialer::Process(place)) => Some(place),
        Ok(Dialer::Other) => None,
        // Whoever it was may dial again; a stranger must not pass for a client.
        Ok(Dialer::Gone) | Err(_) => return reset(&stream),
    };
    let rule = shared.rules.borrow().get(dialler, Some(node));
    if rule == Rule::Reset {
        shared.bitten.fetch_add(1, Ordering::Relaxed);
        return reset(&stream);
    }
    let port = lock(&shared.ports)[node];
    let Ok(mut onward) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        return reset(&stream);
    };
    let _ = (stream.set_nodelay(true), onward.set_nodelay(true));
    // Until an end is shut in order, it ends as a process that dies: with a reset.
    let _ = (stream.set_zero_linger(), onward.set_zero_linger());
    let (read, write) = stream.split();
    let (read_back, write_back) = onward.split();
    let there = pump(&shared, read, write_back, dialler, Some(node));
    let back = pump(&shared, read_back, write, Some(node), dialler);
    // If one direction breaks, both ends are dropped and reset; an orderly end of one leaves the other open.
    let _ = tokio::try_join!(there, back);
}

fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Forwards one direction to its end. An error: the connection is to be reset.
async fn pump(
    shared: &Shared,
    mut read: ReadHalf<'_>,
    mut write: WriteHalf<'_>,
    from: Option<usize>,
    to: Option<usize>,
) -> io::Result<()> {
    let mut rules = shared.rules.subscribe();
    let mut chunk = vec![0; CHUNK_BYTES];
    let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
    loop {
        let count = tokio::select! {
            biased;
            () = until_reset(&mut rules, from, to) => {
                shared.bitten.fetch_add(1, Ordering::Relaxed);
                return Err(broken());
            }
            count = read.read(&mut chunk) => count?,
        };
        let mut bitten = false;
        loop {
            let rule = rules.borrow_and_update().get(from, to);
            if rule != Rule::Pass && !bitten {
                bitten = true;
                shared.bitten.fetch_add(1, Ordering::Relaxed);
            }
            match rule {
                Rule::Pass => break,
                Rule::Delay(time) => {
                    sleep(time).await;
                    break;
                }
                Rule::Reset => return Err(broken()),
                Rule::Hold => rules.changed().await.map_err(|_| broken())?,
            }
        }
        if count == 0 {
            return write.shutdown().await;
        }
        write.write_all(&chunk[..count]).await?;
    }
}

async fn until_reset(rules: &mut watch::Receiver<Rules>, from: Option<usize>, to: Option<usize>) {
    let asked = rules.wait_for(|rules| rules.get(from, to) == Rule::Reset).await.is_ok();
    if !asked {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// One node that echoes, and this process as the other one.
    async fn echo(own_place: Option<usize>) -> (Links, u16) {
        let links = tokio::task::spawn_blocking({
            let runtime = Handle::current();
            move || Links::start(2, &runtime).unwrap()
        });
        let links = links.await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        links.lead_to(vec![0, listener.local_addr().unwrap().port()]);
        if let Some(place) = own_place {
            links.set_process(place, Some(std::process::id()));
        }
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let front = links.fronts()[1];
        (links, front)
    }

    async fn ask(stream: &mut TcpStream, byte: u8) -> io::Result<u8> {
        stream.write_all(&[byte]).await?;
        stream.read_u8().await
    }

    fn rules(from: usize, to: usize, rule: Rule) -> Rules {
        let mut rules = Rules::pass(2);
        rules.set(from, to, rule);
        rules
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_held_direction_swallows_and_delivers_when_healed() {
        let (links, front) = echo(Some(0)).await;
        let mut stream = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 1);
        for (from, to) in [(0, 1), (1, 0)] {
            let before = links.bitten();
            links.set(rules(from, to, Rule::Hold));
            let early = tokio::time::timeout(Duration::from_millis(200), ask(&mut stream, 2)).await;
            assert!(early.is_err(), "flow {from}→{to} was held, and an answer came");
            assert_eq!(links.bitten(), before + 1);
            links.heal();
            let late = tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap();
            assert_eq!(late.unwrap(), 2);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reset_link_breaks_open_connections_and_new_ones_until_healed() {
        let (links, front) = echo(Some(0)).await;
        let mut stream = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 1);
        links.set(rules(0, 1, Rule::Reset));
        let ended = tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut again = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
        assert!(ask(&mut again, 1).await.is_err());
        links.heal();
        let mut healed = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
        assert_eq!(ask(&mut healed, 3).await.unwrap(), 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_no_node_passes_whatever_the_rules() {
        let (links, front) = echo(None).await;
        let mut all = Rules::pass(2);
        all.set_both(0, 1, Rule::Reset);
        links.set(all);
        let mut stream = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 1);
        assert_eq!(links.bitten(), 0);
    }
}
