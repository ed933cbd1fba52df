//! Users come while a node of the cluster, a server and the writer of messages are killed.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use highwater_tests::{TestCluster, eventually};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::processes::{Client, DEADLINE, channel, messages, start};
use crate::{Running, create};

/// How often things are killed while users are created.
const KILLS: usize = 4;
/// How many users are created around each kill, by each of two clients.
const TROUBLED: usize = 30;
/// How many are there when a node or a server is killed: enough are still to come.
const BEFORE_THE_KILL: usize = 5;
/// In which round a node is killed.
const NODE_IS_KILLED: usize = 2;
/// In which round a server is killed.
const SERVER_IS_KILLED: usize = 3;

/// Where the servers are: one that was killed comes back elsewhere.
type Addresses = Arc<Mutex<[String; 2]>>;

/// Somebody who creates users at one server, and at the other one when that is gone.
struct Creator {
    addresses: Addresses,
    /// Which server it asks.
    place: usize,
    client: Option<Client>,
}

impl Creator {
    /// Creates a user, however often that has to be tried. After an answer that says that it may have been created, or none, it may be
    /// there.
    async fn create_surely(&mut self, email: &str) {
        let mut may_exist = false;
        loop {
            let Some(client) = self.connected().await else {
                self.go_elsewhere();
                continue;
            };
            match create(client, email, "Troubled").await {
                Ok(_) => return,
                Err(status) if status.code() == Code::AlreadyExists && may_exist => return,
                Err(status) if status.source().is_some() => {
                    // Not the server's answer: the connection has broken.
                    may_exist = true;
                    self.go_elsewhere();
                }
                Err(status) if status.code() == Code::Unavailable => {
                    may_exist |= status.message().contains("may have been");
                }
                Err(status) => panic!("{email}: {status}"),
            }
        }
    }

    async fn connected(&mut self) -> Option<&mut Client> {
        if self.client.is_none() {
            let address = self.addresses.lock().unwrap()[self.place].clone();
            self.client = channel(&address).await.ok().map(Client::new);
        }
        self.client.as_mut()
    }

    fn go_elsewhere(&mut self) {
        self.client = None;
        self.place = 1 - self.place;
    }
}

/// Two create users, each at its server. How many they have created already is counted.
fn create_at_both(
    runtime: &Runtime,
    addresses: &Addresses,
    round: usize,
    count: &Arc<AtomicUsize>,
) -> [JoinHandle<Vec<String>>; 2] {
    [0, 1].map(|place| {
        let mut creator = Creator {
            addresses: addresses.clone(),
            place,
            client: None,
        };
        let count = count.clone();
        runtime.spawn(async move {
            let mut made = Vec::new();
            for number in 0..TROUBLED {
                let email = format!("troubled{round}.{place}.{number}@users.example");
                creator.create_surely(&email).await;
                count.fetch_add(1, Ordering::Relaxed);
                made.push(email);
            }
            made
        })
    })
}

/// In one round the node that leads a partition of users is killed while users are created, in another one a server; the writer of messages
/// is killed in each of them, in the middle of writing. The servers and the writer are started again at once.
pub(crate) fn users_come_while_things_are_killed(
    cluster: &mut TestCluster,
    runtime: &Runtime,
    running: &mut Running,
) -> Vec<String> {
    let outbox = cluster.directory().join("outbox.mbox");
    let addresses: Addresses = Arc::new(Mutex::new(running.addresses()));
    let leader = cluster.leader("users", 1);
    let mut made = Vec::new();
    for round in 1..=KILLS {
        let before = messages(&outbox).len();
        let count = Arc::new(AtomicUsize::new(0));
        let creating = create_at_both(runtime, &addresses, round, &count);
        if [NODE_IS_KILLED, SERVER_IS_KILLED].contains(&round) {
            eventually("users are created", DEADLINE, || {
                (count.load(Ordering::Relaxed) >= BEFORE_THE_KILL).then_some(())
            });
        }
        match round {
            NODE_IS_KILLED => cluster.node(leader).kill(),
            SERVER_IS_KILLED => kill_a_server(cluster, running, &addresses),
            _ => {}
        }
        kill_the_writer(cluster, running, &outbox, before, round);
        for creating in creating {
            made.extend(runtime.block_on(creating).unwrap());
        }
    }
    cluster.node(leader).start();
    cluster.wait_ready();
    made
}

/// As a crash does it, while it answers and feeds; another process takes its place, at another address.
fn kill_a_server(cluster: &TestCluster, running: &mut Running, addresses: &Addresses) {
    running.servers[1].kill();
    running.servers[1] = start(cluster, "two-again", &["serve"]);
    *addresses.lock().unwrap() = running.addresses();
}

/// Dozens are there to be written by now, so that it is in the middle of them.
fn kill_the_writer(cluster: &TestCluster, running: &mut Running, outbox: &Path, before: usize, round: usize) {
    eventually("messages are written", DEADLINE, || {
        (messages(outbox).len() > before).then_some(())
    });
    running.email.kill();
    running.email = start(cluster, &format!("email-{round}"), &["email"]);
}
