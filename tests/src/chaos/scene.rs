//! One cluster under load, one fault, and the verdict: for tests that say what must happen meanwhile.
//!
//! ```text
//! Scene::open ─► the fault, and what the test expects while it lasts ─► Scene::end: heal, read everything, judge
//! ```
//!
//! Where a run of chaos only asks that everything heals after a fault, a scene can ask that the cluster goes on during it.
//! A scene panics where a test is to fail: when something does not happen in time, when the checker finds a violation, and
//! when the fault did nothing, so that the scene would prove nothing.

use std::time::Duration;

use highwater_verify::history::FaultKind;
use highwater_verify::{History, check};
use serde_json::Value;

use super::ending::{finish, keep_evidence};
use super::links::{Rule, Rules};
use super::run::requirements;
use super::sandbox::{Place, Stop};
use super::stage::{Ended, IN_FLIGHT_MAX, Load, Setting, Stage, TOPIC};
use crate::command::{Finished, eventually};

/// How many acknowledgements show that a cluster goes on, beside one of each partition.
const GOES_ON: u64 = 500;
/// Longer than anything takes unless it hangs, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many records must have been acknowledged for a scene to count.
const ACKNOWLEDGED_MIN: u64 = 1_000;

/// What a scene needs.
#[derive(Debug, Clone, Copy)]
pub struct Set {
    /// Where all choices come from.
    pub seed: u64,
    /// How many nodes found the cluster; all of them vote in the catalog.
    pub founders: usize,
    /// Addresses beside those of the founders, where nodes may be started later.
    pub spare: usize,
    /// Replicas of each partition.
    pub replicas: usize,
    /// What clients do all the time.
    pub load: Load,
    /// Whether data is kept on a disk; otherwise it is kept in memory, if there is such a place.
    pub on_disk: bool,
    /// Whether the founders run the program of an earlier version ([`previous_binary`](crate::previous_binary)) at first.
    pub is_previous: bool,
}

impl Set {
    /// Enough for a verdict, and little enough for an unoptimised build on a small machine that does other things too.
    pub fn small(seed: u64) -> Self {
        let load = Load {
            partitions: 2,
            producers: 2,
            send_interval: Duration::from_millis(2),
            value_bytes_max: 400,
            in_flight_max: IN_FLIGHT_MAX,
            delivery_deadline: None,
            trims: false,
        };
        Self {
            seed,
            founders: 3,
            spare: 0,
            replicas: 3,
            load,
            on_disk: false,
            is_previous: false,
        }
    }
}

/// A cluster under load. Dropping it ends everything.
pub struct Scene {
    stage: Stage,
    replicas: u64,
    load: Load,
    seed: u64,
    faults: Vec<FaultKind>,
}

impl Scene {
    /// Nodes that serve, and are under load.
    #[track_caller]
    pub fn open(set: Set) -> Self {
        let setting = Setting {
            seed: set.seed,
            load: set.load,
            power: false,
            founders: set.founders,
            nodes: set.founders + set.spare,
            replicas: set.replicas,
            is_previous: set.is_previous,
        };
        let place = if set.on_disk {
            Place::make_on_disk()
        } else {
            Place::make()
        };
        let place = place.unwrap_or_else(|why| panic!("no place: {why}"));
        let mut scene = Self {
            stage: expect(Stage::set(&setting, place, Stop::default())),
            replicas: set.replicas as u64,
            load: set.load,
            seed: set.seed,
            faults: Vec::new(),
        };
        scene.goes_on("before the fault");
        scene
    }

    /// The node that leads the first partition.
    #[track_caller]
    pub fn leader(&mut self) -> usize {
        self.stage.cluster.leader(TOPIC, 0)
    }

    /// Waits until somebody knows another leader of the first partition than this node; it may still take itself for it.
    #[track_caller]
    pub fn is_replaced(&mut self, leader: usize) {
        let what = format!("another node than {} leads", self.name(leader));
        eventually(&what, PATIENCE, || (self.leader() != leader).then_some(()));
    }

    /// All nodes that are to run but this one.
    pub fn others(&self, node: usize) -> Vec<usize> {
        self.stage.cast.iter().copied().filter(|other| *other != node).collect()
    }

    /// Rules under which everything passes.
    pub fn rules(&self) -> Rules {
        Rules::pass(self.stage.cluster.nodes().len())
    }

    /// The name of a node.
    pub fn name(&self, node: usize) -> String {
        self.stage.cluster.nodes()[node].name().to_owned()
    }

    /// The leaders of all partitions, in order; `None`: nobody knows one.
    #[track_caller]
    pub fn leaders(&self) -> Vec<Option<usize>> {
        let described = self
            .stage
            .cluster
            .json(&["topic", "describe", TOPIC, "--output", "json"]);
        let partitions = described["partitions"].as_array().into_iter().flatten();
        let nodes = self.stage.cluster.nodes();
        let position = |partition: &Value| {
            let leader = partition["leader"].as_str()?;
            nodes.iter().position(|node| node.name() == leader)
        };
        partitions.map(position).collect()
    }

    /// The topic under load, as commands take it.
    pub fn topic(&self) -> String {
        TOPIC.to_owned()
    }

    /// The term in which this partition is led.
    #[track_caller]
    pub fn term(&self, partition: usize) -> u64 {
        eventually("the partition has a leader", PATIENCE, || {
            let topic = ["topic", "describe", TOPIC, "--output", "json"];
            let described = self.stage.cluster.json(&topic);
            described["partitions"][partition]["term"]
                .as_u64()
                .filter(|term| *term > 0)
        })
    }

    /// The nodes that hold a replica of this partition.
    #[track_caller]
    pub fn holders(&self, partition: usize) -> Vec<usize> {
        let described = self
            .stage
            .cluster
            .json(&["topic", "describe", TOPIC, "--output", "json"]);
        let replicas = described["partitions"][partition]["replicas"].as_array();
        let names = replicas.into_iter().flatten().filter_map(|name| name.as_str());
        let nodes = self.stage.cluster.nodes();
        names
            .filter_map(|name| nodes.iter().position(|node| node.name() == name))
            .collect()
    }

    /// What `cluster describe` says once it is what is waited for; panics with `what` if that does not come.
    #[track_caller]
    pub fn described(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, PATIENCE, || {
            let described = self.stage.cluster.describe();
            wanted(&described).then_some(described)
        })
    }

    /// Now, on the clock of the history.
    pub fn now_ns(&self) -> u64 {
        self.stage.clock.now_ns()
    }

    /// Waits until every partition has acknowledged something that was sent from now on, and all together some more.
    #[track_caller]
    pub fn goes_on(&mut self, when: &str) {
        expect(self.stage.wait_all_serve(when));
        expect(self.stage.wait_progress(GOES_ON, when));
    }

    /// Waits until every partition has all its replicas, alive and whole.
    #[track_caller]
    pub fn complete(&mut self, when: &str) {
        let replicas = u64::from(self.load.partitions) * self.replicas;
        expect(self.stage.wait_complete(replicas as usize, when));
    }

    /// Kills a node that is to be started again; gives when.
    pub fn kill(&mut self, node: usize) -> u64 {
        let begin_ns = self.now_ns();
        let killed = self.stage.kill(&[node]);
        self.note(FaultKind::Kill, &[node], begin_ns, killed, "processes killed");
        begin_ns
    }

    /// Starts a spare node, which joins the cluster; it is judged at the end like the others.
    pub fn join(&mut self, node: usize) {
        self.stage.cast.insert(node);
        self.stage.start(&[node]);
    }

    /// Waits until a node that was removed from the cluster has ended by itself, because it was; it is not judged any more.
    #[track_caller]
    pub fn left(&mut self, node: usize) {
        let what = format!("{} ends", self.name(node));
        eventually(&what, PATIENCE, || {
            (!self.stage.cluster.node(node).runs()).then_some(())
        });
        let log = self.stage.cluster.node(node).log();
        let says_why = log.contains("was removed from the cluster");
        assert!(says_why && !log.contains("panicked at"), "{what}, and says:\n{log}");
        self.stage.links.set_process(node, None);
        self.stage.cast.remove(&node);
    }

    /// Runs a short `highwater` command to its success.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.stage.cluster.run(arguments).success()
    }

    /// Runs a short `highwater` command that may fail.
    #[track_caller]
    pub fn attempt(&self, arguments: &[&str]) -> Finished {
        self.stage.cluster.run(arguments)
    }

    /// Starts a node that does not run.
    pub fn start(&mut self, node: usize) {
        self.stage.start(&[node]);
    }

    /// Stops a node as its administrator does, with SIGTERM, and waits for its end. That is no fault.
    ///
    /// # Panics
    /// If it does not end with success.
    #[track_caller]
    pub fn stop(&mut self, node: usize) {
        let status = self.stage.cluster.node(node).stop();
        self.stage.links.set_process(node, None);
        assert!(
            status.success(),
            "{} ended with {status} after SIGTERM",
            self.name(node)
        );
    }

    /// Restarts a node in order with the program under test, or with that of the earlier version, and waits until it is ready.
    #[track_caller]
    pub fn change_program(&mut self, node: usize, is_previous: bool) {
        self.stop(node);
        self.stage.cluster.node(node).is_previous = is_previous;
        self.start(node);
        self.ready(node);
    }

    /// Waits until a node says that it is ready.
    #[track_caller]
    pub fn ready(&self, node: usize) {
        self.stage.cluster.wait_node_ready(node);
    }

    /// How many records have been acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.stage.acknowledged()
    }

    /// Lets time pass: between `least_ms` and `most_ms`, chosen by the seed. For faults that consist of time, as a link that
    /// goes up and down; never to wait for something.
    #[track_caller]
    pub fn pass(&mut self, least_ms: u64, most_ms: u64) {
        expect(self.stage.pass(least_ms, most_ms));
    }

    /// Puts rules on the links, and takes them off when `meanwhile` has ended.
    #[track_caller]
    pub fn with_links(&mut self, kind: FaultKind, rules: Rules, meanwhile: impl FnOnce(&mut Self)) {
        let (begin_ns, bitten) = (self.stage.clock.now_ns(), self.stage.links.bitten());
        self.stage.links.set(rules);
        meanwhile(self);
        self.stage.links.heal();
        let bitten = self.stage.links.bitten() - bitten;
        self.note(kind, &[], begin_ns, bitten, "chunks and connections hindered");
    }

    /// Changes the rules while others are on.
    pub fn set_links(&mut self, rules: Rules) {
        self.stage.links.set(rules);
    }

    /// Stops a node where it stands, and lets it go on when `meanwhile` has ended.
    #[track_caller]
    pub fn with_paused(&mut self, node: usize, meanwhile: impl FnOnce(&mut Self)) {
        let begin_ns = self.stage.clock.now_ns();
        let paused = self.stage.pause(&[node]);
        meanwhile(self);
        self.stage.resume(&[node]);
        self.note(FaultKind::Pause, &[node], begin_ns, paused, "processes paused");
    }

    /// Makes every connection of a node vanish, those of clients too, and ends the node: nobody is told.
    #[track_caller]
    pub fn vanish(&mut self, node: usize, meanwhile: impl FnOnce(&mut Self)) {
        let mut rules = self.rules();
        rules.isolate(node, Rule::Vanish);
        rules.set_clients(node, Rule::Vanish);
        self.with_links(FaultKind::LinkCut, rules, |scene| {
            scene.stage.kill(&[node]);
            meanwhile(scene);
        });
        self.stage.start(&[node]);
    }

    /// Ends nodes and starts them elsewhere: two that run take each other's addresses; one takes a new address, if the other is
    /// a spare one.
    #[track_caller]
    pub fn swap_addresses(&mut self, one: usize, other: usize) {
        let begin_ns = self.stage.clock.now_ns();
        let running: Vec<usize> = [one, other]
            .into_iter()
            .filter(|node| self.stage.cast.contains(node))
            .collect();
        self.stage.kill(&running);
        self.stage.cluster.swap_addresses(one, other);
        self.stage.links.swap_seats(one, other);
        self.stage.start(&running);
        let moved = running.len() as u64;
        self.note(
            FaultKind::Membership,
            &running,
            begin_ns,
            moved,
            "nodes at another address",
        );
    }

    fn note(&mut self, kind: FaultKind, nodes: &[usize], begin_ns: u64, bitten: u64, evidence: &str) {
        self.stage.fault(kind, nodes, begin_ns, bitten, evidence);
        self.faults.push(kind);
    }

    /// Heals everything, reads everything, and judges.
    ///
    /// # Panics
    /// Unless everything is as it must be, and every fault did something.
    #[track_caller]
    pub fn end(mut self) -> History {
        self.goes_on("at the end");
        let mut problems = Vec::new();
        let finished = expect(finish(&mut self.stage, self.load, &mut problems));
        problems.extend(finished.compared.divergent.iter().cloned());
        let faults = self.faults.iter().map(|kind| {
            let count = self.faults.iter().filter(|other| *other == kind).count();
            (*kind, count as u64)
        });
        let verdict = check(
            &finished.history,
            &requirements(ACKNOWLEDGED_MIN, self.replicas, faults.collect()),
        );
        if problems.is_empty() && verdict.passed() {
            return finished.history;
        }
        let directory = std::env::temp_dir().join(format!("highwater-scene-{}-{}", std::process::id(), self.seed));
        keep_evidence(&directory, &self.stage, &finished.history);
        panic!("{verdict}{}", problems.join("\n"));
    }
}

#[track_caller]
fn expect<T>(result: Result<T, Ended>) -> T {
    result.unwrap_or_else(|ended| match ended {
        Ended::Stopped => panic!("stopped"),
        Ended::Failed(why) => panic!("{why}"),
    })
}
