//! A cluster in this process: real TLS, HTTP/2 and gRPC on loopback ports, and behind them one log that all nodes share.
//!
//! The log decides as the real one does: duplicates first, then gaps, then unknown producers. Scripts tell nodes to
//! misbehave. Each node has a runtime of its own, so that killing it closes its sockets in the middle of anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use highwater::proto::v1::{self, ErrorDetail, Outcome, Reason};
use highwater::{Client, ClientBuilder, TlsFiles};
use prost::Message;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::certificates::Authority;
use crate::server;

pub const TOPIC: &str = "numbers";
pub const TENANT: &str = "acme";
const TOPIC_ID: u64 = 7;
/// As many answers as a replica remembers of a producer.
const REMEMBERED: usize = 8;

/// What a script wants to be done with a request.
pub enum Action {
    Normal,
    /// Append, and say that a quota holds back what comes next.
    AppendLate,
    /// Append, but never answer.
    AppendSilently,
    /// Append, then say that the outcome is not known.
    AppendAndSayUnknown,
    /// Append, then end the stream without an answer.
    AppendAndBreak,
    /// End the stream.
    Break,
    /// Neither append nor answer.
    Ignore,
    /// Answer with this error.
    Refuse(ErrorDetail),
}

/// A produce request as a script sees it.
pub struct Produced {
    pub request: v1::ProduceRequest,
    /// How many produce requests the cluster has got before.
    pub count: u64,
}

type Script = Box<dyn FnMut(&Produced) -> Action + Send>;
/// May change a response, or end the stream instead.
type ReadScript = Box<dyn FnMut(usize, &mut v1::ConsumeResponse) -> Result<(), tonic::Status> + Send>;

#[derive(Default)]
struct Producer {
    next_sequence: u64,
    remembered: VecDeque<(u64, u64)>,
}

#[derive(Default)]
pub struct Partition {
    pub leader: usize,
    pub term: u64,
    pub log_start: u64,
    pub log_end: u64,
    pub batches: Vec<v1::StoredBatch>,
    producers: BTreeMap<Vec<u8>, Producer>,
}

impl Partition {
    /// The decision of the log.
    fn append(&mut self, request: &v1::ProduceRequest) -> Result<v1::ProduceResponse, ErrorDetail> {
        let known = self.producers.contains_key(&request.producer_id[..]);
        if !known && request.sequence != 0 {
            return Err(error(Reason::UnknownProducer, Outcome::Unknown));
        }
        let producer = self.producers.entry(request.producer_id.to_vec()).or_default();
        let again = producer
            .remembered
            .iter()
            .find(|(sequence, _)| *sequence == request.sequence);
        if let Some((_, base_offset)) = again {
            return Ok(v1::ProduceResponse {
                base_offset: *base_offset,
                append_time_ms: 1,
                duplicate: true,
                ..Default::default()
            });
        }
        if request.sequence != producer.next_sequence {
            let mut detail = error(Reason::SequenceGap, Outcome::NotApplied);
            detail.expected_sequence = Some(producer.next_sequence);
            return Err(detail);
        }
        producer.next_sequence += 1;
        if request.expected_offset.is_some_and(|expected| expected != self.log_end) {
            let mut detail = error(Reason::OffsetMismatch, Outcome::NotApplied);
            detail.range = Some(v1::OffsetRange {
                log_start: 0,
                high_watermark: self.log_end,
            });
            return Err(detail);
        }
        producer.remembered.push_back((request.sequence, self.log_end));
        if producer.remembered.len() > REMEMBERED {
            producer.remembered.pop_front();
        }
        let base_offset = self.log_end;
        self.batches.push(v1::StoredBatch {
            base_offset,
            record_count: request.record_count,
            compression: request.compression,
            crc32c: request.crc32c.unwrap_or_default(),
            append_time_ms: base_offset + 1,
            batch: request.batch.clone(),
        });
        self.log_end += u64::from(request.record_count);
        Ok(v1::ProduceResponse {
            base_offset,
            append_time_ms: base_offset + 1,
            ..Default::default()
        })
    }

    /// How many producers have appended here.
    pub fn producer_ids(&self) -> usize {
        self.producers.len()
    }

    /// All values in the order of their offsets.
    pub fn values(&self) -> Vec<String> {
        let records = self.batches.iter().flat_map(|stored| {
            let batch = v1::RecordBatch::decode(stored.batch.clone()).unwrap();
            assert_eq!(batch.records.len(), stored.record_count as usize);
            assert_eq!(crc_fast::crc32_iscsi(&stored.batch), stored.crc32c);
            batch.records
        });
        records
            .map(|record| String::from_utf8(record.value.to_vec()).unwrap())
            .collect()
    }
}

pub struct State {
    pub nodes: Vec<v1::Node>,
    pub partitions: Vec<Partition>,
    pub topics: BTreeMap<String, v1::Topic>,
    pub produced: u64,
    pub script: Script,
    pub read_script: ReadScript,
    /// Replicas, by node and partition, that hand their readers over at once.
    pub behind: BTreeSet<(usize, u32)>,
    /// How often they did.
    pub handed_over: usize,
    pub watch_is_implemented: bool,
    /// How many clients watch each node.
    pub watchers: Vec<usize>,
    pub batches_served: usize,
    /// What each opening of a consume stream asked for.
    pub freshness_asked: Vec<Option<v1::freshness::Kind>>,
    /// The groups that partitions know, by name and partition.
    pub groups: BTreeSet<(String, u32)>,
    /// Create and delete calls that still are to be done without an answer.
    pub unanswered_calls: u32,
}

/// What the nodes share.
pub struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    /// What becomes of a produce request at a node.
    pub fn produce(&self, node: usize, request: v1::ProduceRequest) -> Result<Option<v1::ProduceResponse>, Failure> {
        let mut state = self.lock();
        let produced = Produced {
            count: state.produced,
            request,
        };
        state.produced += 1;
        let action = (state.script)(&produced);
        let request = produced.request;
        match action {
            Action::Ignore => return Ok(None),
            Action::Break => return Err(Failure::Break),
            Action::Refuse(detail) => return Err(Failure::Refuse(detail)),
            _ => {}
        }
        state.check_leader(node, request.partition).map_err(Failure::Refuse)?;
        let partition = &mut state.partitions[request.partition as usize];
        let answer = partition.append(&request);
        drop(state);
        self.changed();
        match action {
            Action::AppendLate => {
                let late = |appended| v1::ProduceResponse {
                    quota_delay_ms: 1,
                    ..appended
                };
                answer.map(late).map(Some).map_err(Failure::Refuse)
            }
            Action::AppendSilently => Ok(None),
            Action::AppendAndBreak => Err(Failure::Break),
            Action::AppendAndSayUnknown => Err(Failure::Refuse(error(Reason::UnknownOutcome, Outcome::Unknown))),
            _ => answer.map(Some).map_err(Failure::Refuse),
        }
    }
}

pub enum Failure {
    Refuse(ErrorDetail),
    Break,
}

impl State {
    pub fn check_leader(&self, node: usize, partition: u32) -> Result<(), ErrorDetail> {
        let Some(partition) = self.partitions.get(partition as usize) else {
            return Err(error(Reason::PartitionNotFound, Outcome::NotApplied));
        };
        if partition.leader == node {
            return Ok(());
        }
        let mut detail = error(Reason::NotLeader, Outcome::NotApplied);
        let leader = &self.nodes[partition.leader];
        detail.leader = Some(v1::LeaderHint {
            node: leader.name.clone(),
            address: leader.address.clone(),
            term: partition.term,
        });
        Err(detail)
    }

    pub fn topic(&self) -> v1::Topic {
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        let partitions = self
            .partitions
            .iter()
            .enumerate()
            .map(|(number, partition)| v1::Partition {
                partition: number as u32,
                replicas: names.clone(),
                leader: names[partition.leader].clone(),
                term: partition.term,
                log_start: Some(partition.log_start),
                high_watermark: Some(partition.log_end),
                leaving: Vec::new(),
            });
        v1::Topic {
            tenant: TENANT.to_owned(),
            name: TOPIC.to_owned(),
            topic_id: TOPIC_ID,
            replication: names.len() as u32,
            config: None,
            partitions: partitions.collect(),
            leader_rack: String::new(),
        }
    }

    pub fn all_topics(&self) -> Vec<v1::Topic> {
        std::iter::once(self.topic())
            .chain(self.topics.values().cloned())
            .collect()
    }
}

pub fn error(reason: Reason, outcome: Outcome) -> ErrorDetail {
    ErrorDetail {
        reason: reason as i32,
        message: format!("as the script says: {}", reason.as_str_name()),
        outcome: outcome as i32,
        ..Default::default()
    }
}

pub struct Cluster {
    pub shared: Arc<Shared>,
    pub authority: Authority,
    pub directory: TempDir,
    nodes: Vec<Option<Runtime>>,
    addresses: Vec<SocketAddr>,
}

impl Cluster {
    /// Nodes a, b, c, …; partition p is led by node p mod nodes.
    pub fn start(nodes: usize, partitions: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(&directory.path().join("certs"));
        let led_by = |number: usize| Partition {
            leader: number % nodes,
            term: 1,
            ..Default::default()
        };
        let state = State {
            nodes: Vec::new(),
            partitions: (0..partitions).map(led_by).collect(),
            topics: BTreeMap::new(),
            produced: 0,
            script: Box::new(|_| Action::Normal),
            read_script: Box::new(|_, _| Ok(())),
            behind: BTreeSet::new(),
            handed_over: 0,
            watch_is_implemented: true,
            watchers: vec![0; nodes],
            batches_served: 0,
            freshness_asked: Vec::new(),
            groups: BTreeSet::new(),
            unanswered_calls: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        });
        let mut cluster = Self {
            shared,
            authority,
            directory,
            nodes: Vec::new(),
            addresses: Vec::new(),
        };
        for number in 0..nodes {
            cluster.add_node(number);
        }
        cluster
    }

    fn add_node(&mut self, number: usize) {
        let name = char::from(b'a' + number as u8).to_string();
        let files = self.authority.node(&name);
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let (runtime, address) = server::start(number, any_port, &files, self.shared.clone());
        self.nodes.push(Some(runtime));
        self.addresses.push(address);
        self.shared.lock().nodes.push(v1::Node {
            name,
            address: address.to_string(),
            alive: true,
            ..Default::default()
        });
    }

    /// Ends a node in the middle of anything; the others do not notice.
    pub fn kill(&mut self, number: usize) {
        if let Some(runtime) = self.nodes[number].take() {
            runtime.shutdown_background();
        }
    }

    /// Starts a killed node again at its old address.
    pub fn restart(&mut self, number: usize) {
        let name = self.shared.lock().nodes[number].name.clone();
        let files = self.authority.node(&name);
        self.restart_with(number, &files);
    }

    /// The same with another certificate.
    pub fn restart_with(&mut self, number: usize, files: &TlsFiles) {
        let (runtime, _) = server::start(number, self.addresses[number], files, self.shared.clone());
        self.nodes[number] = Some(runtime);
    }

    pub fn set_leader(&self, partition: usize, node: usize) {
        {
            let mut state = self.shared.lock();
            state.partitions[partition].leader = node;
            state.partitions[partition].term += 1;
        }
        self.shared.changed();
    }

    /// Moves the leader without telling those who watch.
    pub fn set_leader_silently(&self, partition: usize, node: usize) {
        let mut state = self.shared.lock();
        state.partitions[partition].leader = node;
        state.partitions[partition].term += 1;
    }

    pub fn set_script(&self, script: impl FnMut(&Produced) -> Action + Send + 'static) {
        self.shared.lock().script = Box::new(script);
    }

    pub fn set_read_script(
        &self,
        script: impl FnMut(usize, &mut v1::ConsumeResponse) -> Result<(), tonic::Status> + Send + 'static,
    ) {
        self.shared.lock().read_script = Box::new(script);
    }

    pub fn values(&self, partition: usize) -> Vec<String> {
        self.shared.lock().partitions[partition].values()
    }

    pub fn addresses(&self) -> Vec<String> {
        self.addresses.iter().map(SocketAddr::to_string).collect()
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn builder(&self) -> ClientBuilder {
        self.builder_with(self.authority.client())
    }

    pub fn builder_with(&self, files: TlsFiles) -> ClientBuilder {
        Client::builder().seeds(self.addresses()).tls(files)
    }

    pub async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in 0..self.nodes.len() {
            self.kill(number);
        }
    }
}
