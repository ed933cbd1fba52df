//! A cluster of real processes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Finished, binary, eventually, run};
use crate::node::TestNode;
use crate::ports::ReservedPort;

/// The name of every cluster under test, unless said otherwise.
const CLUSTER: &str = "test";
/// The tenant of the profile that commands use unless told otherwise.
const TENANT: &str = "acme";
/// The client whose profile the cluster has, which may change it.
const CLIENT: &str = "app";
/// How long a cluster may take to serve; long, since tests share a small machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How long a short command may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// What is special about a cluster; by default nothing is.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// Where the directory of everything is made; by default where temporary files are.
    pub(crate) parent: Option<PathBuf>,
    /// By node, where it keeps its data; by default beside everything else.
    pub(crate) data_dirs: Vec<PathBuf>,
    /// By node, the port that it advertises; by default the one where it listens.
    pub(crate) fronts: Vec<u16>,
    /// More arguments of every node.
    pub(crate) arguments: Vec<String>,
    /// How many of the nodes found the cluster; by default all.
    pub(crate) founders: Option<usize>,
}

/// A cluster in a temporary directory. Its nodes are killed, and the directory is removed, when it is dropped.
#[derive(Debug)]
pub struct TestCluster {
    directory: TempDir,
    nodes: Vec<TestNode>,
    profile: PathBuf,
}

impl TestCluster {
    /// A cluster of `count` nodes that serve.
    #[track_caller]
    pub fn start(count: usize) -> Self {
        let mut cluster = Self::prepare(count);
        cluster.nodes.iter_mut().for_each(TestNode::start);
        cluster.wait_ready();
        cluster
    }

    /// Certificates, ports and data directories of a cluster; nothing runs yet.
    #[track_caller]
    pub fn prepare(count: usize) -> Self {
        Self::prepare_named(CLUSTER, count)
    }

    /// As [`TestCluster::prepare`], for a cluster of another name.
    #[track_caller]
    pub fn prepare_named(cluster: &str, count: usize) -> Self {
        Self::prepare_as(cluster, count, &Layout::default())
    }

    #[track_caller]
    pub(crate) fn prepare_as(cluster: &str, count: usize, layout: &Layout) -> Self {
        let parent = layout.parent.clone().unwrap_or_else(std::env::temp_dir);
        let directory = TempDir::new_in(parent).unwrap_or_else(|error| panic!("cannot make a directory: {error}"));
        let ports: Vec<ReservedPort> = (0..count).map(|_| ReservedPort::take()).collect();
        let mut made = Self {
            profile: directory.path().join("profile.toml"),
            directory,
            nodes: Vec::new(),
        };
        let certificates = made.certificates();
        certs(&["ca", "--cluster", cluster, "--out", &certificates]);
        let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
        let front = |(place, port): (usize, &ReservedPort)| layout.fronts.get(place).copied().unwrap_or(port.number());
        let fronts: Vec<u16> = ports.iter().enumerate().map(front).collect();
        let founders = layout.founders.unwrap_or(count);
        let seeds: Vec<String> = fronts[..founders]
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        for ((place, name), port) in names.iter().enumerate().zip(ports) {
            certs(&["node", name, "--ca-dir", &certificates, "--out", &certificates]);
            let mut node = made.node_of(cluster, (name, fronts[place]), port, &names[..founders], &seeds);
            if let Some(data_dir) = layout.data_dirs.get(place) {
                node.keep_data_in(data_dir.clone());
            }
            node.arguments.extend(layout.arguments.iter().cloned());
            made.nodes.push(node);
        }
        made.profile = made.profile_for(TENANT, CLIENT);
        made
    }

    fn node_of(
        &self,
        cluster: &str,
        (name, front): (&str, u16),
        port: ReservedPort,
        names: &[String],
        seeds: &[String],
    ) -> TestNode {
        let path = |file: String| self.directory.path().join(file).to_string_lossy().into_owned();
        let settings = [
            ("--node", name.to_owned()),
            ("--cluster", cluster.to_owned()),
            ("--listen", format!("127.0.0.1:{}", port.number())),
            ("--advertise", format!("127.0.0.1:{front}")),
            ("--admin-listen", String::new()), // any free port may be the one that a killed node comes back to
            ("--data-dir", path(name.to_owned())),
            ("--seeds", seeds.join(",")),
            ("--bootstrap", names.join(",")),
            ("--operators", format!("{TENANT}/{CLIENT}")),
            ("--ca", path("certs/ca.pem".to_owned())),
            ("--cert", path(format!("certs/node-{name}.pem"))),
            ("--key", path(format!("certs/node-{name}.key"))),
        ];
        TestNode {
            name: name.to_owned(),
            port,
            front,
            data_dir: self.directory.path().join(name),
            log_path: self.directory.path().join(format!("{name}.log")),
            arguments: settings
                .into_iter()
                .flat_map(|(flag, value)| [flag.to_owned(), value])
                .collect(),
            variables: Vec::new(),
            is_previous: false,
            child: None,
        }
    }

    /// The directory of everything.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The profile of the client that [`TestCluster::run`] acts as.
    pub fn profile(&self) -> &Path {
        &self.profile
    }

    /// The directory of the authority and all certificates.
    pub fn certificates(&self) -> String {
        self.directory.path().join("certs").to_string_lossy().into_owned()
    }

    /// The nodes; node 0 is `n1`.
    pub fn nodes(&self) -> &[TestNode] {
        &self.nodes
    }

    /// One node, to be killed, stopped or started.
    pub fn node(&mut self, position: usize) -> &mut TestNode {
        &mut self.nodes[position]
    }

    /// The position of the node of that name.
    #[track_caller]
    pub fn position(&self, name: &str) -> usize {
        let found = self.nodes.iter().position(|node| node.name == name);
        found.unwrap_or_else(|| panic!("no node is called {name:?}"))
    }

    /// Makes a certificate for a client of `tenant`, and gives a profile that uses it.
    #[track_caller]
    pub fn profile_for(&self, tenant: &str, name: &str) -> PathBuf {
        let certificates = self.certificates();
        certs(&[
            "client",
            tenant,
            name,
            "--ca-dir",
            &certificates,
            "--out",
            &certificates,
        ]);
        self.profile_with(
            &format!("{tenant}-{name}"),
            "certs/ca.pem",
            &format!("certs/client-{tenant}-{name}"),
        )
    }

    /// Writes a profile with these files; `pair` is the path of certificate and key without extension.
    #[track_caller]
    pub fn profile_with(&self, name: &str, ca: &str, pair: &str) -> PathBuf {
        let path = self.directory.path().join(format!("{name}.toml"));
        let addresses: Vec<String> = self.nodes.iter().map(TestNode::address).collect();
        let text = format!("addresses = {addresses:?}\nca = {ca:?}\ncert = \"{pair}.pem\"\nkey = \"{pair}.key\"\n");
        fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }

    /// The `highwater` command with this cluster's profile.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_as(&self.profile, arguments)
    }

    /// The same with another profile.
    pub fn command_as(&self, profile: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .env("HIGHWATER_CONFIG", profile)
            .current_dir(self.directory.path());
        for name in ["HIGHWATER_CA", "HIGHWATER_CERT", "HIGHWATER_KEY"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a short command.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments), COMMAND_DEADLINE)
    }

    /// Runs a short command that prints JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(arguments).success().stdout();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
    }

    /// Two nodes, neither of which runs, take each other's addresses: each is started on the other's port next.
    #[track_caller]
    pub fn swap_addresses(&mut self, one: usize, other: usize) {
        let (first, last) = (one.min(other), one.max(other));
        let (before, behind) = self.nodes.split_at_mut(last);
        before[first].swap_address(&mut behind[0]);
    }

    /// Waits until every node that was started serves.
    #[track_caller]
    pub fn wait_ready(&self) {
        let started = self.nodes.iter().filter(|node| node.child.is_some());
        let addresses: Vec<String> = started.map(TestNode::address).collect();
        self.wait_serving(&addresses);
    }

    /// Waits until the node serves.
    #[track_caller]
    pub fn wait_node_ready(&self, position: usize) {
        self.wait_serving(&[self.nodes[position].address()]);
    }

    /// Waits until every node that was started hears from every other one, so that clients prefer followers for reads.
    #[track_caller]
    pub fn wait_acquainted(&self) {
        let started = self.nodes.iter().filter(|node| node.child.is_some());
        let started: BTreeSet<String> = started.map(|node| node.name.clone()).collect();
        let mut acquainted = BTreeSet::new();
        // Which node answers is left to chance, so that each does after a while.
        eventually("every node hears from all others", READY_DEADLINE, || {
            let described = self.describe();
            let alive = described["nodes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|node| node["alive"] == true);
            let alive: BTreeSet<String> = alive
                .filter_map(|node| Some(node["name"].as_str()?.to_owned()))
                .collect();
            if started.is_subset(&alive) {
                acquainted.extend(described["answering_node"].as_str().map(str::to_owned));
            }
            started.is_subset(&acquainted).then_some(())
        });
    }

    /// Waits until the cluster has made the topic of its audit, which it does by itself once it has a policy.
    #[track_caller]
    pub fn wait_audited(&self) {
        eventually("there is an audit", READY_DEADLINE, || {
            (self.run(&["topic", "describe", "system/audit"]).code() == 0).then_some(())
        });
    }

    #[track_caller]
    fn wait_serving(&self, addresses: &[String]) {
        let wait = format!("{}s", READY_DEADLINE.as_secs());
        let mut arguments = vec!["health", "--wait", &wait];
        arguments.extend(addresses.iter().flat_map(|address| ["--address", address]));
        let health = run(&mut self.command(&arguments), READY_DEADLINE * 2);
        assert!(
            health.status.success(),
            "not ready: {}{}",
            health.stdout(),
            health.stderr
        );
    }

    /// Creates a topic with three replicas, or as many as there are nodes.
    #[track_caller]
    pub fn create_topic(&self, name: &str, partitions: u32) {
        self.run(&["topic", "create", name, "--partitions", &partitions.to_string()])
            .success();
    }

    /// The position of the node that leads the partition, once there is one that runs.
    #[track_caller]
    pub fn leader(&mut self, topic: &str, partition: usize) -> usize {
        eventually("the partition has a leader that runs", READY_DEADLINE, || {
            let answer = run(
                &mut self.command(&["topic", "describe", topic, "--output", "json"]),
                COMMAND_DEADLINE,
            );
            let described: Value = serde_json::from_str(&answer.stdout()).ok()?;
            let leader = described["partitions"][partition]["leader"].as_str()?.to_owned();
            let position = self.position(&leader);
            self.nodes[position].runs().then_some(position)
        })
    }

    /// What `highwater cluster describe` tells.
    #[track_caller]
    pub fn describe(&self) -> Value {
        self.json(&["cluster", "describe", "--output", "json"])
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        if std::thread::panicking() {
            self.nodes.iter().for_each(TestNode::show_log);
        }
    }
}

#[track_caller]
fn certs(arguments: &[&str]) {
    let mut command = Command::new(binary());
    run(command.arg("certs").args(arguments), COMMAND_DEADLINE).success();
}
