//! Keeping the picture of the cluster up to date.
//!
//! The default resolver follows the WatchCluster stream of one node. When that stream ends, or the node says that it is
//! draining, it moves to another one; while it looks, the last picture stays. A node without WatchCluster is polled.
//! Whoever else learns something (a leader hint in an answer, a topic just created) tells it here.

mod seeds;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use highwater_proto::v1::{self, WatchClusterResponse};
use rand::seq::SliceRandom;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Streaming};
use tracing::Instrument;

use self::seeds::{Seed, Seeds, first_of};
use crate::backoff::Backoff;
use crate::calls::{cluster_client, topic_client};
use crate::client::ClientBuilder;
use crate::connect::{Connection, Connections, call_error};
use crate::deadline::Deadline;
use crate::error::{ConnectionProblem, Error, NodeFailure, Reason};
use crate::picture::{Picture, TopicRef};

/// How long a node may take to send its first picture.
const FIRST_PICTURE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a node without WatchCluster is asked.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Something learned from an answer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum News {
    /// Who leads a partition.
    Leader {
        /// The topic.
        topic: TopicRef,
        /// The partition.
        partition: u32,
        /// The hint in the answer.
        hint: v1::LeaderHint,
    },
    /// A topic as a node described it.
    Topic(v1::Topic),
    /// A topic that is gone, by id.
    TopicRemoved(u64),
}

/// Keeps the picture of the cluster.
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// The picture as it is known now.
    fn picture(&self) -> Arc<Picture>;
    /// Changes with every new picture; the value means nothing else.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Takes in what an answer told; says whether it changed the picture.
    fn learn(&self, news: News) -> bool;
}

/// The picture, shared between those who learn and those who look.
#[derive(Debug)]
struct Board {
    picture: ArcSwap<Picture>,
    changes: watch::Sender<u64>,
    /// Held while a new picture is made from the old one.
    writing: Mutex<()>,
}

impl Board {
    fn new() -> Self {
        Self {
            picture: ArcSwap::default(),
            changes: watch::Sender::new(0),
            writing: Mutex::default(),
        }
    }

    /// Replaces the picture if `change` says that it made a difference.
    fn update(&self, change: impl FnOnce(&mut Picture) -> bool) -> bool {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut picture = Picture::clone(&self.picture.load());
        let changed = change(&mut picture);
        if changed {
            self.picture.store(Arc::new(picture));
            self.changes.send_modify(|version| *version += 1);
        }
        changed
    }
}

/// The default resolver: WatchCluster, or polling where that is missing.
///
/// A client makes one by itself. One that is made by hand can stand behind a resolver of one's own, here one that leaves out nodes
/// that cannot be reached from where the program runs:
///
/// ```no_run
/// use std::sync::{Arc, Mutex, PoisonError};
///
/// use highwater::{Client, News, Picture, Resolver, TlsFiles, WatchResolver};
/// use tokio::sync::watch;
///
/// #[derive(Debug)]
/// struct WithoutRack {
///     all: WatchResolver,
///     rack: String,
///     /// A picture and what is left of it: it is asked for with every call, and seldom changes.
///     last: Mutex<(Arc<Picture>, Arc<Picture>)>,
/// }
///
/// impl Resolver for WithoutRack {
///     fn picture(&self) -> Arc<Picture> {
///         let all = self.all.picture();
///         let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
///         if !Arc::ptr_eq(&last.0, &all) {
///             let mut left = Picture::clone(&all);
///             left.retain_nodes(|node| node.rack != self.rack);
///             *last = (all, Arc::new(left));
///         }
///         last.1.clone()
///     }
///     fn changes(&self) -> watch::Receiver<u64> {
///         self.all.changes()
///     }
///     fn learn(&self, news: News) -> bool {
///         self.all.learn(news)
///     }
/// }
///
/// # async fn example(files: TlsFiles) -> Result<(), highwater::Error> {
/// let settings = Client::builder().seeds(["localhost:7100"]).tls(files);
/// let resolver = WithoutRack {
///     all: WatchResolver::connect(&settings).await?,
///     rack: "far".to_owned(),
///     last: Mutex::default(),
/// };
/// let client = settings.resolver(Arc::new(resolver)).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct WatchResolver {
    board: Arc<Board>,
    follower: JoinHandle<()>,
}

impl Drop for WatchResolver {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl WatchResolver {
    /// Finds a first node as [`ClientBuilder::connect`] does, with the seeds, certificates, deadlines and metrics of these settings, and
    /// keeps following the cluster until it is dropped. It has connections of its own.
    ///
    /// Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect(settings: &ClientBuilder) -> Result<Self, Error> {
        let (_, connections) = settings.connections()?;
        settings.watch(connections).await
    }

    /// Finds a first node among the seeds, takes its picture, and keeps following.
    pub(crate) async fn start(
        connections: Arc<Connections>,
        seeds: Vec<String>,
        patience: Duration,
    ) -> Result<Self, Error> {
        let follower = Follower {
            board: Arc::new(Board::new()),
            connections,
            seeds: Seeds::new(seeds),
        };
        let (address, feed) = follower.find_first(patience).await?;
        let board = follower.board.clone();
        // It lives longer than whatever happens to be going on where it is made.
        let span = tracing::debug_span!(parent: None, "watch");
        let follower = tokio::spawn(follower.follow(address, feed).instrument(span));
        Ok(Self { board, follower })
    }
}

impl Resolver for WatchResolver {
    fn picture(&self) -> Arc<Picture> {
        self.board.picture.load_full()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.board.changes.subscribe()
    }

    fn learn(&self, news: News) -> bool {
        self.board.update(|picture| picture.learn(news))
    }
}

/// Where news of the cluster come from.
enum Feed {
    Watch(Box<Streaming<WatchClusterResponse>>),
    Poll(Connection),
}

struct Follower {
    board: Arc<Board>,
    connections: Arc<Connections>,
    seeds: Seeds,
}

impl Follower {
    /// Tries all seeds, again and again until `patience` ends, unless certificates are what stands in the way.
    async fn find_first(&self, patience: Duration) -> Result<(String, Feed), Error> {
        let deadline = Deadline::after(patience);
        let mut backoff = Backoff::new();
        loop {
            let failures = match self.first_of_seeds(deadline).await {
                Ok(found) => return Ok(found),
                Err(failures) => failures,
            };
            let hopeless = failures.iter().all(|failure| failure.problem.is_certificate());
            let pause = backoff.pause();
            if hopeless || Instant::now() + pause >= deadline.at {
                return Err(Error::NoNodeReachable { failures });
            }
            sleep(pause).await;
        }
    }

    /// Tries each address of the seeds once.
    async fn first_of_seeds(&self, deadline: Deadline) -> Result<(String, Feed), Vec<NodeFailure>> {
        let seeds = self.seeds.addresses(deadline.left()).await;
        let found = first_of(seeds, deadline, |seed: Seed| async move {
            let opened = timeout_at(deadline.at, self.open(&seed.address)).await;
            let late = || broken(&seed.address, ConnectionProblem::Timeout(deadline.after));
            let opened = opened.unwrap_or_else(|_| Err(late()));
            opened.map_err(|error| NodeFailure {
                node: seed.label(),
                ..failure(&seed.address, error)
            })
        });
        found.await.map(|(seed, feed)| (seed.address, feed))
    }

    /// Takes in news for ever, from one node after the other.
    async fn follow(self, mut address: String, mut feed: Feed) {
        loop {
            match feed.next(&address).await {
                Ok(message) if !message.draining => self.take_in(message),
                Ok(message) => {
                    tracing::debug!(address, "the node is draining, looking for another one");
                    self.take_in(message);
                    (address, feed) = self.find_next(&address).await;
                }
                Err(error) => {
                    tracing::debug!(address, %error, "lost sight of the cluster, looking for another node");
                    (address, feed) = self.find_next(&address).await;
                }
            }
        }
    }

    /// Tries living nodes by chance, then the others, then the seeds; the last one used comes at the end.
    async fn find_next(&self, last: &str) -> (String, Feed) {
        let mut backoff = Backoff::new();
        loop {
            let mut tried = vec![last.to_owned()];
            for address in self.nodes() {
                if let Some(feed) = self.try_new(&address, &mut tried).await {
                    return (address, feed);
                }
            }
            for seed in self.seeds.addresses(FIRST_PICTURE_TIMEOUT).await {
                if let Some(feed) = self.try_new(&seed.address, &mut tried).await {
                    return (seed.address, feed);
                }
            }
            if let Some(feed) = self.try_new(last, &mut Vec::new()).await {
                return (last.to_owned(), feed);
            }
            sleep(backoff.pause()).await;
        }
    }

    /// Opens a feed, unless that was tried already in this round.
    async fn try_new(&self, address: &str, tried: &mut Vec<String>) -> Option<Feed> {
        if tried.iter().any(|other| other == address) {
            return None;
        }
        tried.push(address.to_owned());
        match self.open(address).await {
            Ok(feed) => Some(feed),
            Err(error) => {
                tracing::debug!(address, %error, "cannot watch the cluster from there");
                None
            }
        }
    }

    /// The addresses of all known nodes: those that live by chance, then the others.
    fn nodes(&self) -> Vec<String> {
        let picture = self.board.picture.load();
        let mut nodes: Vec<&v1::Node> = picture.nodes().filter(|node| !node.address.is_empty()).collect();
        nodes.shuffle(&mut rand::rng());
        nodes.sort_by_key(|node| !node.alive);
        nodes.into_iter().map(|node| node.address.clone()).collect()
    }

    /// Opens a feed at an address and takes in its first picture.
    async fn open(&self, address: &str) -> Result<Feed, Error> {
        let connection = self
            .connections
            .connection(address)
            .map_err(|problem| broken(address, problem))?;
        let (feed, first) = timeout(FIRST_PICTURE_TIMEOUT, first_picture(address, connection))
            .await
            .unwrap_or_else(|_| Err(broken(address, ConnectionProblem::Timeout(FIRST_PICTURE_TIMEOUT))))?;
        let picture = self.board.picture.load();
        let known = picture.cluster_id();
        if !known.is_empty() && !first.cluster_id.is_empty() && first.cluster_id != known {
            let problem = format!("belongs to cluster {}, not to {known}", first.cluster_id);
            return Err(broken(address, ConnectionProblem::Refused(problem)));
        }
        // As from a node that has just started: whoever began with it would find nobody to call.
        if first.nodes.iter().all(|node| node.address.is_empty()) {
            let problem = "knows no nodes of its cluster yet".to_owned();
            return Err(broken(address, ConnectionProblem::Refused(problem)));
        }
        self.take_in(first);
        Ok(feed)
    }

    fn take_in(&self, message: WatchClusterResponse) {
        self.board.update(|picture| {
            let before = picture.clone();
            picture.apply(message);
            *picture != before
        });
    }
}

async fn first_picture(address: &str, connection: Connection) -> Result<(Feed, WatchClusterResponse), Error> {
    let mut client = cluster_client(connection.channel.clone());
    let mut feed = match client.watch_cluster(v1::WatchClusterRequest {}).await {
        Ok(response) => Feed::Watch(Box::new(response.into_inner())),
        Err(status) if status.code() == Code::Unimplemented => Feed::Poll(connection),
        Err(status) => return Err(call_error(address, &status)),
    };
    let first = match &feed {
        Feed::Watch(_) => feed.next(address).await?,
        Feed::Poll(connection) => poll(address, connection).await?,
    };
    Ok((feed, first))
}

impl Feed {
    /// The next message; an error means that the feed is over.
    async fn next(&mut self, address: &str) -> Result<WatchClusterResponse, Error> {
        match self {
            Feed::Poll(connection) => {
                sleep(POLL_INTERVAL).await;
                poll(address, connection).await
            }
            Feed::Watch(stream) => match stream.next().await {
                Some(Ok(message)) => Ok(message),
                Some(Err(status)) => Err(broken(address, ConnectionProblem::Broken(status.message().to_owned()))),
                None => Err(broken(address, ConnectionProblem::Broken("the watch ended".to_owned()))),
            },
        }
    }
}

/// What a watch would have sent, put together from two calls.
async fn poll(address: &str, connection: &Connection) -> Result<WatchClusterResponse, Error> {
    let error = |status| call_error(address, &status);
    let described = cluster_client(connection.channel.clone())
        .describe_cluster(v1::DescribeClusterRequest {})
        .await
        .map_err(error)?
        .into_inner();
    let listed = topic_client(connection.channel.clone())
        .list_topics(v1::ListTopicsRequest::default())
        .await
        .map_err(error)?
        .into_inner();
    Ok(WatchClusterResponse {
        cluster_id: described.cluster_id,
        full: true,
        nodes: described.nodes,
        topics: listed.topics,
        ..Default::default()
    })
}

fn broken(address: &str, problem: ConnectionProblem) -> Error {
    Error::Connection(NodeFailure {
        node: address.to_owned(),
        problem,
    })
}

fn failure(address: &str, error: Error) -> NodeFailure {
    match error {
        Error::Connection(failure) => failure,
        Error::Refused(refusal) => NodeFailure {
            node: address.to_owned(),
            problem: match refusal.reason {
                // Whoever may not even look at the cluster has come with the wrong certificate.
                Reason::PermissionDenied => ConnectionProblem::OwnCertificate(refusal.message.clone()),
                _ => ConnectionProblem::Refused(refusal.to_string()),
            },
        },
        other => NodeFailure {
            node: address.to_owned(),
            problem: ConnectionProblem::Broken(other.to_string()),
        },
    }
}
