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
//! direction between two nodes, over all connections, whoever dialled. Clients are hindered only where a rule names them:
//! a node that is cut off from its peers and still reached by clients is the harder case.
//!
//! A **seat** is a proxy with the port that it leads to. Nodes may change seats, as processes that come back with other
//! addresses; rules go with the node.

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
pub enum Rule {
    /// It arrives.
    #[default]
    Pass,
    /// It is swallowed without a word, as by a broken switch; what was under way arrives when the rule ends.
    Hold,
    /// Each chunk arrives later.
    Delay(Duration),
    /// So many bytes a second arrive, for each connection.
    Narrow(u32),
    /// Connections are reset, new ones too.
    Reset,
    /// Connections carry nothing any more, for ever, and neither end is told: what happens when a machine loses its power,
    /// or something between forgets a connection. Also when the rule has ended; new ones are whole again then.
    Vanish,
}

/// The rule of every flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Between nodes: `[from][to]`.
    links: Vec<Vec<Rule>>,
    /// Between each node and all clients, both ways.
    clients: Vec<Rule>,
}

impl Rules {
    /// Everything passes between so many nodes.
    pub fn pass(nodes: usize) -> Self {
        Self {
            links: vec![vec![Rule::Pass; nodes]; nodes],
            clients: vec![Rule::Pass; nodes],
        }
    }

    /// A rule for what `from` sends to `to`.
    pub fn set(&mut self, from: usize, to: usize, rule: Rule) {
        self.links[from][to] = rule;
    }

    /// A rule for both directions between two nodes.
    pub fn set_both(&mut self, one: usize, other: usize, rule: Rule) {
        self.set(one, other, rule);
        self.set(other, one, rule);
    }

    /// A rule for everything between `node` and the others of the nodes.
    pub fn isolate(&mut self, node: usize, rule: Rule) {
        let others = (0..self.links.len()).filter(|other| *other != node);
        others.for_each(|other| self.set_both(node, other, rule));
    }

    /// A rule for everything between `node` and its clients.
    pub fn set_clients(&mut self, node: usize, rule: Rule) {
        self.clients[node] = rule;
    }

    /// The rule between two ends; a client is `None`.
    fn get(&self, from: Option<usize>, to: Option<usize>) -> Rule {
        match (from, to) {
            (Some(from), Some(to)) => self.links[from][to],
            (Some(node), None) | (None, Some(node)) => self.clients[node],
            (None, None) => Rule::Pass,
        }
    }
}

#[derive(Debug)]
struct Shared {
    /// Real port of each seat, once known.
    ports: Mutex<Vec<u16>>,
    /// By seat, the node on it.
    occupants: Mutex<Vec<usize>>,
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
            occupants: Mutex::new((0..nodes).collect()),
            processes: Mutex::new(vec![None; nodes]),
            rules: watch::Sender::new(Rules::pass(nodes)),
            bitten: AtomicU64::new(0),
        });
        let mut fronts = Vec::new();
        for seat in 0..nodes {
            let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
            fronts.push(listener.local_addr()?.port());
            runtime.spawn(accept(shared.clone(), listener, seat));
        }
        Ok(Self { shared, fronts })
    }

    /// The port that the node on each seat advertises.
    pub(crate) fn fronts(&self) -> &[u16] {
        &self.fronts
    }

    /// The ports where the nodes on the seats really listen.
    pub(crate) fn lead_to(&self, ports: Vec<u16>) {
        *lock(&self.shared.ports) = ports;
    }

    /// Which process a node is now.
    pub(crate) fn set_process(&self, node: usize, process: Option<u32>) {
        lock(&self.shared.processes)[node] = process;
    }

    /// Two nodes, which do not run, take each other's seats.
    pub(crate) fn swap_seats(&self, one: usize, other: usize) {
        for occupant in lock(&self.shared.occupants).iter_mut() {
            *occupant = match *occupant {
                node if node == one => other,
                node if node == other => one,
                node => node,
            };
        }
    }

    pub(crate) fn set(&self, rules: Rules) {
        self.shared.rules.send_replace(rules);
    }

    pub(crate) fn heal(&self) {
        self.set(Rules::pass(self.fronts.len()));
    }

    /// How many chunks and connections were held, delayed, reset or lost so far.
    pub(crate) fn bitten(&self) -> u64 {
        self.shared.bitten.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, seat: usize) {
    let front = listener.local_addr().map_or(0, |address| address.port());
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                tokio::spawn(connection(shared.clone(), stream, from.port(), front, seat));
            }
            // No descriptors left, most likely.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(shared: Arc<Shared>, mut stream: TcpStream, from: u16, front: u16, seat: usize) {
    let node = lock(&shared.occupants)[seat];
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
    let port = lock(&shared.ports)[seat];
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
    let vanished = tokio::select! {
        biased;
        () = until(Rule::Vanish, &shared, dialler, Some(node)) => true,
        () = until(Rule::Vanish, &shared, Some(node), dialler) => true,
        // If one direction breaks, both ends are dropped and reset; an orderly end of one leaves the other open.
        _ = async { tokio::try_join!(there, back) } => false,
    };
    if vanished {
        shared.bitten.fetch_add(1, Ordering::Relaxed);
        // Both sockets stay open and unread until the proxies end.
        std::future::pending::<()>().await;
    }
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
            () = until(Rule::Reset, shared, from, to) => {
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
                Rule::Narrow(bytes_per_second) => {
                    sleep(Duration::from_secs_f64(
                        count as f64 / f64::from(bytes_per_second.max(1)),
                    ))
                    .await;
                    break;
                }
                Rule::Reset => return Err(broken()),
                // A connection that is to vanish is taken away from here in this moment.
                Rule::Hold | Rule::Vanish => rules.changed().await.map_err(|_| broken())?,
            }
        }
        if count == 0 {
            return write.shutdown().await;
        }
        write.write_all(&chunk[..count]).await?;
    }
}

/// Resolves when this rule holds from the one to the other.
async fn until(rule: Rule, shared: &Shared, from: Option<usize>, to: Option<usize>) {
    let mut rules = shared.rules.subscribe();
    let asked = rules.wait_for(|rules| rules.get(from, to) == rule).await.is_ok();
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
    async fn a_vanished_connection_stays_silent_for_ever_and_a_new_one_is_whole() {
        let (links, front) = echo(Some(0)).await;
        let mut stream = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 1);
        let mut rules = Rules::pass(2);
        rules.isolate(1, Rule::Vanish);
        links.set(rules);
        let waiting = tokio::time::timeout(Duration::from_millis(200), ask(&mut stream, 2)).await;
        assert!(waiting.is_err(), "an answer, or an end: {waiting:?}");
        assert_eq!(links.bitten(), 1);
        links.heal();
        let waiting = tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await;
        assert!(waiting.is_err(), "an answer, or an end: {waiting:?}");
        let mut healed = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
        assert_eq!(ask(&mut healed, 3).await.unwrap(), 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_narrow_direction_lets_bytes_through_at_its_pace() {
        let (links, front) = echo(Some(0)).await;
        let mut stream = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
        links.set(rules(0, 1, Rule::Narrow(10)));
        let began = std::time::Instant::now();
        stream.write_all(&[7; 4]).await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(400));
        assert_eq!((answer, links.bitten()), ([7; 4], 1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clients_are_hindered_only_by_a_rule_for_them() {
        let (links, front) = echo(None).await;
        let mut stream = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
        let mut of_the_other = Rules::pass(2);
        of_the_other.set_clients(0, Rule::Reset);
        links.set(of_the_other);
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 1);
        let mut of_this = Rules::pass(2);
        of_this.set_clients(1, Rule::Reset);
        links.set(of_this);
        assert!(
            tokio::time::timeout(PATIENCE, ask(&mut stream, 2))
                .await
                .unwrap()
                .is_err()
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rules_go_with_a_node_that_takes_another_seat() {
        let (links, front) = echo(Some(0)).await;
        links.swap_seats(1, 0);
        // Now node 0 sits there: what was node 1's is said of nobody there.
        links.set(rules(0, 1, Rule::Reset));
        let mut stream = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_no_node_passes_whatever_the_rules_between_nodes() {
        let (links, front) = echo(None).await;
        let mut all = Rules::pass(2);
        all.set_both(0, 1, Rule::Reset);
        links.set(all);
        let mut stream = TcpStream::connect(("127.0.0.1", front)).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 1);
        assert_eq!(links.bitten(), 0);
    }
}
