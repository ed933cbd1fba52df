//! A cluster under load, with a hand on every process, link and disk.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use highwater::proto::v1::{DescribeClusterResponse, ReplicaStatus};
use highwater::{Client, Profile};
use highwater_verify::History;
use highwater_verify::history::{Fault, FaultKind, Incident, IncidentKind, NODE_UNKNOWN};
use highwater_verify::value::VALUE_BYTES_MIN;
use highwater_verify::workload::{Clock, Running, Workload};
use tokio::runtime::Runtime;

use super::disks::{FileSystem, Image};
use super::links::Links;
use super::outage::Outages;
use super::random::Random;
use super::sandbox::{Place, Stop};
use super::storage::Attached;
use super::trimmed::{RETENTION_INTERVAL_MS, Trimmed};
use crate::cluster::{Layout, TestCluster};

pub(crate) const NODES: usize = 3;
pub(crate) const TOPIC: &str = "chaos";
/// Small, so that segments are sealed all the time.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;
/// How long a question for the leader may take before any node will do.
const LEADER_DEADLINE: Duration = Duration::from_secs(3);
/// How long the cluster may take to acknowledge again after a fault has ended.
pub(crate) const HEAL_DEADLINE: Duration = Duration::from_secs(30);
/// How long lost replicas may take to be replaced, and damaged ones to be mended.
const COMPLETE_DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Why a run goes no further.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was asked to.
    Stopped,
    /// The product did what it must not, or did not what it must.
    Failed(String),
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

pub(crate) type Result<T> = std::result::Result<T, Ended>;

/// Everything of a run. Fields are dropped in this order: what holds processes, the processes, their disks.
pub(crate) struct Stage {
    pub(crate) attached: Vec<Attached>,
    pub(crate) cluster: TestCluster,
    /// The nodes that are to run.
    pub(crate) cast: BTreeSet<usize>,
    /// By node; empty if power cannot be cut.
    pub(crate) images: Vec<Image>,
    pub(crate) links: Links,
    pub(crate) outage: Outages,
    pub(crate) random: Random,
    pub(crate) clock: Clock,
    /// Faults and incidents.
    pub(crate) history: History,
    pub(crate) stop: Stop,
    pub(crate) running: Option<Running>,
    pub(crate) trimmed: Option<Trimmed>,
    /// Whether the topic of the audit was made before all others; otherwise behind them, if at all.
    pub(crate) is_audited_first: bool,
    client: Client,
    pub(crate) runtime: Runtime,
    pub(crate) place: Place,
}

/// What a stage is set for.
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) load: Load,
    /// Whether each node has a disk of its own, whose power can be cut.
    pub(crate) power: bool,
    /// How many nodes found the cluster and run from the beginning.
    pub(crate) founders: usize,
    /// How many nodes there are in all; those that are not founders have an address, and do not run.
    pub(crate) nodes: usize,
    /// Of each partition.
    pub(crate) replicas: usize,
    /// The founders run the program of an earlier version.
    pub(crate) is_previous: bool,
}

impl Setting {
    /// For chaos: three nodes.
    pub(crate) fn of_chaos(seed: u64, load: Load, power: bool) -> Self {
        Self {
            seed,
            load,
            power,
            founders: NODES,
            nodes: NODES,
            replicas: NODES,
            is_previous: false,
        }
    }
}

/// How much load there is.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Partitions of the topic.
    pub partitions: u32,
    /// Producers, each of which writes to all partitions.
    pub producers: u32,
    /// Between two records of a producer.
    pub send_interval: Duration,
    /// Size of the largest values, bytes.
    pub value_bytes_max: usize,
    /// Records that each producer may have in flight.
    pub in_flight_max: usize,
    /// How long the library may try to deliver a record; `None`: the seed chooses.
    pub delivery_deadline: Option<Duration>,
    /// Whether there is a second topic, which is trimmed.
    pub trims: bool,
}

/// Records that each producer may have in flight, unless a load needs another number.
pub(crate) const IN_FLIGHT_MAX: usize = 256;

/// How long the library may try to deliver a record. Which of them is the seed's choice: short ones give unknown outcomes,
/// long ones retries across every kind of fault.
const DELIVERY_DEADLINES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(20)];

impl Load {
    /// Partitions of all topics together.
    pub(crate) fn partitions_of_all(&self) -> u32 {
        self.partitions + u32::from(self.trims)
    }
}

impl Stage {
    /// A cluster that serves, under load.
    pub(crate) fn set(setting: &Setting, place: Place, stop: Stop) -> Result<Self> {
        let (seed, load) = (setting.seed, setting.load);
        let text = |error: &dyn std::fmt::Display| Ended::Failed(format!("the stage could not be set: {error}"));
        let mut random = Random::new(seed);
        let runtime = Runtime::new().map_err(|error| text(&error))?;
        let links = Links::start(setting.nodes, runtime.handle()).map_err(|error| text(&error))?;
        let images = if setting.power {
            make_images(&place, &mut random)?
        } else {
            Vec::new()
        };
        let layout = Layout {
            parent: Some(place.path().to_owned()),
            data_dirs: images.iter().map(Image::data_dir).collect(),
            fronts: links.fronts().to_vec(),
            arguments: vec![
                "--segment-bytes-max".to_owned(),
                SEGMENT_BYTES_MAX.to_string(),
                "--retention-interval-ms".to_owned(),
                RETENTION_INTERVAL_MS.to_string(),
            ],
            founders: Some(setting.founders),
        };
        let mut cluster = TestCluster::prepare_as("chaos", setting.nodes, &layout);
        links.lead_to(cluster.nodes().iter().map(|node| node.port.number()).collect());
        for node in 0..setting.founders {
            cluster.node(node).is_previous = setting.is_previous;
            cluster.node(node).start();
            links.set_process(node, cluster.nodes()[node].pid());
        }
        cluster.wait_ready();
        cluster.wait_acquainted();
        if !setting.is_previous {
            // The cluster makes that topic by itself, at about this time: its group is to have a known number.
            cluster.wait_audited();
        }
        let (partitions, replicas) = (load.partitions.to_string(), setting.replicas.to_string());
        cluster
            .run(&[
                "topic",
                "create",
                TOPIC,
                "--partitions",
                &partitions,
                "--replication",
                &replicas,
            ])
            .success();
        if load.trims {
            Trimmed::create(&cluster);
        }
        let clock = Clock::start();
        let profile = Profile::load(cluster.profile()).map_err(|error| text(&error))?;
        let chosen_deadline = DELIVERY_DEADLINES[random.below(DELIVERY_DEADLINES.len())];
        let workload = Workload {
            producers: load.producers,
            send_interval: load.send_interval,
            value_bytes: (VALUE_BYTES_MIN, load.value_bytes_max),
            in_flight_max: load.in_flight_max,
            delivery_deadline: load.delivery_deadline.unwrap_or(chosen_deadline),
            ..Workload::new(TOPIC, seed)
        };
        let started = runtime.block_on(async {
            let client = profile.builder().connect().await?;
            let running = workload.start(client.clone(), clock).await?;
            let trimmed = match load.trims {
                true => Some(Trimmed::start(client.clone(), seed, clock).await?),
                false => None,
            };
            Ok::<_, highwater::Error>((client, running, trimmed))
        });
        let (client, running, trimmed) = started.map_err(|error| text(&error))?;
        Ok(Self {
            attached: Vec::new(),
            cluster,
            cast: (0..setting.founders).collect(),
            images,
            links,
            outage: Outages::default(),
            random,
            clock,
            history: History::default(),
            stop,
            running: Some(running),
            trimmed,
            is_audited_first: !setting.is_previous,
            client,
            runtime,
            place,
        })
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.running.as_ref().map_or(0, Running::acknowledged)
    }

    /// The node that leads a partition chosen at random, as far as anybody knows; otherwise any node.
    pub(crate) fn leader(&mut self) -> usize {
        let choice = self.random.next() as usize;
        let asked = self.runtime.block_on(async {
            let topic = tokio::time::timeout(LEADER_DEADLINE, self.client.topics().get(TOPIC)).await;
            topic.ok()?.ok()
        });
        let leader = asked.and_then(|topic| {
            let partition = topic.partitions.get(choice % topic.partitions.len().max(1))?;
            self.cluster
                .nodes()
                .iter()
                .position(|node| node.name() == partition.leader)
        });
        leader.unwrap_or(choice % NODES)
    }

    /// A node other than those.
    pub(crate) fn other_than(&mut self, not: &[usize]) -> usize {
        let others: Vec<usize> = self.cast.iter().copied().filter(|node| !not.contains(node)).collect();
        others[self.random.below(others.len())]
    }

    pub(crate) fn start(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.cluster.node(*node).start();
            let process = self.cluster.nodes()[*node].pid();
            self.links.set_process(*node, process);
        }
    }

    /// Kills the nodes at the same moment; gives how many of them ran.
    pub(crate) fn kill(&mut self, nodes: &[usize]) -> u64 {
        let mut ran = 0;
        for node in nodes {
            ran += u64::from(self.cluster.node(*node).runs());
            self.cluster.node(*node).begin_kill();
        }
        for node in nodes {
            self.cluster.node(*node).kill();
            self.links.set_process(*node, None);
        }
        ran
    }

    /// Goes on in so many milliseconds, chosen between these, or at once if the run is to end.
    pub(crate) fn pass(&mut self, least_ms: u64, most_ms: u64) -> Result<()> {
        let end = Instant::now() + Duration::from_millis(self.random.between(least_ms, most_ms + 1));
        while Instant::now() < end {
            self.check_stop()?;
            std::thread::sleep(POLL.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.is_asked() {
            Err(Ended::Stopped)
        } else {
            Ok(())
        }
    }

    /// Waits until so many more records are acknowledged. Nodes that end meanwhile are incidents, and started again.
    pub(crate) fn wait_progress(&mut self, more: u64, what: &str) -> Result<()> {
        let (begin, wanted) = (Instant::now(), self.acknowledged() + more);
        while self.acknowledged() < wanted {
            self.check_stop()?;
            self.notice_ended_nodes();
            if begin.elapsed() > HEAL_DEADLINE {
                let missing = wanted - self.acknowledged();
                let why =
                    format!("{what}: {missing} of {more} acknowledgements were still missing after {HEAL_DEADLINE:?}");
                return Err(Ended::Failed(why));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until every partition has acknowledged a record that was sent from now on.
    pub(crate) fn wait_all_serve(&mut self, what: &str) -> Result<()> {
        let (begin, since_ns) = (Instant::now(), self.clock.now_ns());
        let all_have_served = |running: &Running| running.all_have_served(since_ns);
        while !self.running.as_ref().is_some_and(all_have_served) {
            self.check_stop()?;
            self.notice_ended_nodes();
            if begin.elapsed() > HEAL_DEADLINE {
                let why = format!("{what}: not every partition has taken a new record within {HEAL_DEADLINE:?}");
                return Err(Ended::Failed(why));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until every node votes in the catalog, and there are so many replicas of partitions, all alive and whole.
    pub(crate) fn wait_complete(&mut self, replicas: usize, what: &str) -> Result<()> {
        let begin = Instant::now();
        loop {
            self.check_stop()?;
            self.notice_ended_nodes();
            let described = self.runtime.block_on(async {
                let described = tokio::time::timeout(LEADER_DEADLINE, self.client.cluster().describe()).await;
                described.ok()?.ok()
            });
            let lacks = described.map_or_else(
                || Some("nobody describes the cluster".to_owned()),
                |answer| lacks(&answer, replicas),
            );
            match lacks {
                None => return Ok(()),
                Some(why) if begin.elapsed() > COMPLETE_DEADLINE => {
                    return Err(Ended::Failed(format!(
                        "{what}: after {COMPLETE_DEADLINE:?} still {why}"
                    )));
                }
                Some(_) => std::thread::sleep(POLL * 5),
            }
        }
    }

    /// A node that ended and nobody ended it is an incident.
    pub(crate) fn notice_ended_nodes(&mut self) {
        for node in self.cast.clone() {
            let Some(status) = self.cluster.node(node).take_end() else {
                continue;
            };
            let log = self.cluster.nodes()[node].log();
            let error = log
                .lines()
                .rfind(|line| line.contains("ERROR") || line.starts_with("error: "));
            let error = error.unwrap_or("none");
            let text = format!("ended by itself ({status}); its last error: {error}");
            self.incident(Some(node), IncidentKind::Restart, text);
            self.start(&[node]);
        }
    }

    pub(crate) fn incident(&mut self, node: Option<usize>, kind: IncidentKind, text: String) {
        println!("  !! {}: {text}", node.map_or("the run".to_owned(), name_of));
        self.history.record_incident(Incident {
            at_ns: self.clock.now_ns(),
            node: number_of(node),
            kind,
            text,
        });
    }

    /// Notes a fault that began then and has just ended.
    pub(crate) fn fault(&mut self, kind: FaultKind, nodes: &[usize], begin_ns: u64, bitten: u64, evidence: &str) {
        let one = if let [node] = nodes { Some(*node) } else { None };
        self.history.record_fault(Fault {
            kind,
            node: number_of(one),
            begin_ns,
            end_ns: self.clock.now_ns(),
            bitten,
            evidence: evidence.to_owned(),
        });
    }
}

/// What a cluster lacks that could stand another loss.
fn lacks(answer: &DescribeClusterResponse, replicas: usize) -> Option<String> {
    if let Some(node) = answer.nodes.iter().find(|node| node.catalog_role != "voter") {
        return Some(format!("{} has no vote in the catalog", node.name));
    }
    let is_well =
        |replica: &&ReplicaStatus| matches!(replica.role.as_str(), "leader" | "follower") && replica.damage.is_empty();
    if let Some(ill) = answer.replicas.iter().find(|replica| !is_well(replica)) {
        let (id, partition, role) = (ill.replica_id, ill.partition, &ill.role);
        return Some(format!(
            "replica {id} of partition {partition} on {} is {role}, damage {:?}",
            ill.node, ill.damage
        ));
    }
    let found = answer.replicas.len();
    (found != replicas).then(|| format!("there are {found} replicas, not {replicas}"))
}

fn name_of(node: usize) -> String {
    format!("n{}", node + 1)
}

fn number_of(node: Option<usize>) -> u32 {
    node.map_or(NODE_UNKNOWN, |node| node as u32)
}

/// A disk for each node, of different file systems; which node has which is the seed's choice.
fn make_images(place: &Place, random: &mut Random) -> Result<Vec<Image>> {
    let mut kinds: Vec<FileSystem> = FileSystem::ALL.into_iter().filter(|kind| kind.is_here()).collect();
    random.shuffle(&mut kinds);
    let make = |node| Image::make(place.path(), &name_of(node), kinds[node % kinds.len()]);
    Ok((0..NODES).map(make).collect::<std::result::Result<_, String>>()?)
}
