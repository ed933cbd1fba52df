//! A Kubernetes that runs the manifest's pods on this machine.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use highwater_tests::{ReservedPort, run};
use serde_json::Value;
use tempfile::TempDir;

use crate::PATIENCE;
use crate::container::{self, Mount, is_root};
use crate::manifest::{Manifest, items, number, text};
use crate::names::Names;
use crate::pod::{Identity, Pod, expanded};
use crate::secrets::{Files, generate, of_node};

/// What follows on a Service's name and namespace.
const DOMAIN: &str = "svc.cluster.local";
/// How much of a log is shown when a test fails.
const LOG_LINES_SHOWN: usize = 40;

/// Everything that runs, and what outlives it.
#[derive(Debug)]
pub(crate) struct World {
    directory: TempDir,
    manifest: Manifest,
    names: Names,
    secrets: BTreeMap<String, Files>,
    pods: Vec<Option<Pod>>,
    /// Its number makes the addresses of pods different from those of other tests.
    network: ReservedPort,
    addresses_given: u8,
}

impl World {
    /// The manifest has been applied, and its certificates are made; no node runs yet. None, and a word about it, if this machine has no
    /// containers.
    pub(crate) fn open() -> Option<Self> {
        if !container::is_possible() {
            let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(
                !is_ci,
                "this machine does not let us have mount namespaces (unshare, mount, setpriv)"
            );
            eprintln!(
                "SKIPPED: pods, since this machine does not let us have mount namespaces (unshare, mount, setpriv)"
            );
            return None;
        }
        let directory = TempDir::new().unwrap_or_else(|error| panic!("cannot make a directory: {error}"));
        let manifest = Manifest::load();
        let replicas = number(&manifest.only("StatefulSet")["spec"]["replicas"]);
        let mut world = Self {
            names: Names::new(directory.path()),
            directory,
            manifest,
            secrets: BTreeMap::new(),
            pods: (0..replicas).map(|_| None).collect(),
            network: ReservedPort::take(),
            addresses_given: 0,
        };
        world.make_certificates();
        Some(world)
    }

    /// Runs the Job for certificates.
    pub(crate) fn make_certificates(&mut self) {
        let job = self.manifest.only("Job");
        let name = text(&job["metadata"]["name"]).to_owned();
        let spec = &job["spec"]["template"]["spec"];
        let identity = self.identity(&name, Ipv4Addr::LOCALHOST, &job["spec"]["template"]);
        let make = &spec["initContainers"][0];
        let volumes = self.volumes(&identity, spec);
        run(&mut self.process((spec, make), &identity, &volumes, None), PATIENCE).success();
        let kustomization = text(&self.manifest.object("ConfigMap", &name)["data"]["kustomization.yaml"]);
        self.secrets.extend(generate(kustomization, &volumes["made"]));
    }

    /// What a secret holds.
    pub(crate) fn secret(&self, name: &str) -> Files {
        self.secrets
            .get(name)
            .cloned()
            .unwrap_or_else(|| panic!("there is no secret {name}"))
    }

    /// One replica more, whose secret was made by hand. Gives its ordinal; it does not run yet.
    pub(crate) fn add_replica(&mut self) -> usize {
        let ordinal = self.pods.len();
        let name = self.node_name(ordinal);
        let cluster = items(&self.node_container()["env"]).find(|variable| variable["name"] == "HIGHWATER_CLUSTER");
        let cluster = cluster.map(|variable| text(&variable["value"])).unwrap_or_default();
        let directory = self.directory.path().join(format!("{name}-by-hand"));
        let secret = of_node(&name, cluster, &self.secret("highwater-authority"), &directory);
        self.secrets.insert(format!("{name}-tls"), secret);
        self.pods.push(None);
        ordinal
    }

    fn node_template(&self) -> &Value {
        &self.manifest.only("StatefulSet")["spec"]["template"]
    }

    fn node_container(&self) -> &Value {
        &self.node_template()["spec"]["containers"][0]
    }

    /// The names of all variables that a node gets.
    pub(crate) fn variables_of_nodes(&self) -> Vec<String> {
        let variables = items(&self.node_container()["env"]);
        variables.map(|variable| text(&variable["name"]).to_owned()).collect()
    }

    fn node_name(&self, ordinal: usize) -> String {
        format!(
            "{}-{ordinal}",
            text(&self.manifest.only("StatefulSet")["metadata"]["name"])
        )
    }

    fn log_path(&self, ordinal: usize) -> PathBuf {
        self.directory.path().join(format!("{}.log", self.node_name(ordinal)))
    }

    /// Starts a pod at an address that no pod had before.
    pub(crate) fn start(&mut self, ordinal: usize) {
        assert!(self.pods[ordinal].is_none(), "pod {ordinal} runs already");
        self.addresses_given += 1;
        let [high, low] = self.network.number().to_be_bytes();
        let address = Ipv4Addr::new(127, high, low, self.addresses_given);
        let template = self.node_template();
        let mut identity = self.identity(&self.node_name(ordinal), address, template);
        identity.labels.extend([
            ("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string()),
            ("topology.kubernetes.io/zone".to_owned(), format!("zone-{ordinal}")),
        ]);
        let spec = &template["spec"];
        let mut volumes = self.volumes(&identity, spec);
        volumes.extend(self.claims(&identity.name));
        let log = File::options().create(true).append(true).open(self.log_path(ordinal));
        let log = log.unwrap_or_else(|error| panic!("cannot open a log: {error}"));
        let mut process = self.process((spec, self.node_container()), &identity, &volumes, None);
        let child = process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {}: {error}", identity.name));
        self.pods[ordinal] = Some(Pod::new(address, child));
        self.publish();
    }

    /// Starts the pods that do not run, as the StatefulSet's policy says.
    pub(crate) fn start_missing(&mut self) {
        let is_parallel = self.manifest.only("StatefulSet")["spec"]["podManagementPolicy"] == "Parallel";
        for ordinal in 0..self.pods.len() {
            if self.pods[ordinal].is_none() {
                self.start(ordinal);
            }
            if !is_parallel {
                self.wait_ready(ordinal);
            }
        }
    }

    fn pod(&mut self, ordinal: usize) -> (&mut Pod, &Value) {
        let container = &self.manifest.only("StatefulSet")["spec"]["template"]["spec"]["containers"][0];
        let pod = self.pods[ordinal].as_mut();
        (pod.unwrap_or_else(|| panic!("pod {ordinal} does not run")), container)
    }

    /// Waits until the kubelet takes the process for started and live.
    pub(crate) fn wait_live(&mut self, ordinal: usize) {
        let (pod, container) = self.pod(ordinal);
        pod.wait_to_pass(container, "startupProbe");
        pod.wait_to_pass(container, "livenessProbe");
    }

    /// What the readiness probe is answered.
    pub(crate) fn readiness(&mut self, ordinal: usize) -> Option<(u16, String)> {
        let (pod, container) = self.pod(ordinal);
        pod.probe(container, "readinessProbe")
    }

    /// Waits until the pod is ready, and gives clients its address.
    pub(crate) fn wait_ready(&mut self, ordinal: usize) {
        let (pod, container) = self.pod(ordinal);
        pod.wait_ready(container);
        self.publish();
    }

    /// The same of all pods.
    pub(crate) fn wait_all_ready(&mut self) {
        (0..self.pods.len()).for_each(|ordinal| self.wait_ready(ordinal));
    }

    /// Addresses of the pods to which the client Service leads.
    pub(crate) fn ready_pods(&self) -> Vec<Ipv4Addr> {
        let pods = self.pods.iter().flatten();
        pods.filter(|pod| pod.is_ready).map(|pod| pod.address).collect()
    }

    /// Ends a pod in order. Its volume stays.
    pub(crate) fn delete(&mut self, ordinal: usize) {
        self.pod(ordinal).0.is_ready = false;
        self.publish();
        let spec = self.node_template()["spec"].clone();
        let (pod, container) = self.pod(ordinal);
        let status = pod.stop(&spec, container);
        assert!(status.success(), "pod {ordinal} ended with {status}");
        self.pods[ordinal] = None;
        self.publish();
    }

    /// Ends a pod as if its machine had died. Its volume stays.
    pub(crate) fn kill(&mut self, ordinal: usize) {
        self.pod(ordinal).0.kill();
        self.pods[ordinal] = None;
        self.publish();
    }

    /// Takes the volume of a pod that does not run away.
    pub(crate) fn lose_volume(&mut self, ordinal: usize) {
        assert!(self.pods[ordinal].is_none(), "pod {ordinal} still runs on its volume");
        for path in self.claims(&self.node_name(ordinal)).into_values() {
            fs::remove_dir_all(&path).unwrap_or_else(|error| panic!("cannot remove {}: {error}", path.display()));
        }
    }

    /// A command in the client pod, as `kubectl exec` runs it.
    pub(crate) fn client(&self, arguments: &[&str]) -> Command {
        let deployment = self.manifest.only("Deployment");
        let template = &deployment["spec"]["template"];
        let (name, spec) = (text(&deployment["metadata"]["name"]), &template["spec"]);
        let identity = self.identity(name, Ipv4Addr::LOCALHOST, template);
        let volumes = self.volumes(&identity, spec);
        let arguments = ["highwater"]
            .iter()
            .chain(arguments)
            .map(|argument| (*argument).to_owned())
            .collect();
        self.process((spec, &spec["containers"][0]), &identity, &volumes, Some(arguments))
    }

    /// The same in the pod of a node.
    pub(crate) fn exec(&mut self, ordinal: usize, arguments: Vec<String>) -> Command {
        let address = self.pod(ordinal).0.address;
        let template = self.node_template();
        let (identity, spec) = (
            self.identity(&self.node_name(ordinal), address, template),
            &template["spec"],
        );
        let mut volumes = self.volumes(&identity, spec);
        volumes.extend(self.claims(&identity.name));
        self.process((spec, self.node_container()), &identity, &volumes, Some(arguments))
    }

    /// The id of a node's process.
    pub(crate) fn process_id(&mut self, ordinal: usize) -> u32 {
        self.pod(ordinal).0.process_id()
    }

    /// What a node has logged.
    pub(crate) fn log(&self, ordinal: usize) -> String {
        fs::read_to_string(self.log_path(ordinal)).unwrap_or_default()
    }

    /// Puts something else into a file of the one volume of that name that a node has had, as the kubelet does when its ConfigMap is edited.
    pub(crate) fn rewrite(&self, ordinal: usize, volume: &str, file: &str, content: &str) {
        let prefix = format!("{}-{volume}-", self.node_name(ordinal));
        let entries = fs::read_dir(self.directory.path()).into_iter().flatten().flatten();
        let found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        let volumes: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
        assert_eq!(volumes.len(), 1, "{prefix}: {volumes:?}");
        let path = volumes[0].join(file);
        fs::write(&path, content).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// Tells DNS who is where. A Service leads to pods that are ready, unless it says otherwise.
    fn publish(&mut self) {
        let namespace = self.namespace();
        let mut known = Vec::new();
        for service in self.manifest.all("Service") {
            let (spec, domain) = (
                &service["spec"],
                format!("{}.{namespace}.{DOMAIN}", text(&service["metadata"]["name"])),
            );
            for (ordinal, pod) in self.pods.iter().enumerate() {
                let Some(pod) = pod
                    .as_ref()
                    .filter(|pod| pod.is_ready || spec["publishNotReadyAddresses"] == true)
                else {
                    continue;
                };
                known.push((pod.address, domain.clone()));
                if spec["clusterIP"] == "None" {
                    known.push((pod.address, format!("{}.{domain}", self.node_name(ordinal))));
                }
            }
        }
        self.names.set(&known);
    }

    fn namespace(&self) -> String {
        text(&self.manifest.only("StatefulSet")["metadata"]["namespace"]).to_owned()
    }

    fn identity(&self, name: &str, address: Ipv4Addr, template: &Value) -> Identity {
        let labels = template["metadata"]["labels"].as_object().into_iter().flatten();
        Identity {
            name: name.to_owned(),
            namespace: self.namespace(),
            address,
            labels: labels
                .map(|(name, value)| (name.clone(), text(value).to_owned()))
                .collect(),
        }
    }

    /// The process of a container, or another one in its place.
    fn process(
        &self,
        (pod, container): (&Value, &Value),
        identity: &Identity,
        volumes: &BTreeMap<String, PathBuf>,
        instead: Option<Vec<String>>,
    ) -> Command {
        let environment = identity.environment(container);
        let own = || items(&container["command"]).chain(items(&container["args"])).map(text);
        let arguments = instead.unwrap_or_else(|| own().map(|argument| expanded(argument, &environment)).collect());
        let names = self.names.files().map(|(source, target)| Mount {
            source,
            target,
            is_read_only: true,
        });
        let mounts = items(&container["volumeMounts"]).map(|mount| Mount {
            source: volumes[text(&mount["name"])].clone(),
            target: text(&mount["mountPath"]).to_owned(),
            is_read_only: mount["readOnly"] == true,
        });
        let mounts: Vec<Mount> = names.into_iter().chain(mounts).collect();
        container::command((pod, container), &mounts, &environment, &arguments)
    }

    /// The volumes of a StatefulSet's pod that outlive it, by name.
    fn claims(&self, pod: &str) -> BTreeMap<String, PathBuf> {
        let set = &self.manifest.only("StatefulSet")["spec"];
        let group = &set["template"]["spec"]["securityContext"]["fsGroup"];
        let claim = |claim: &Value| {
            let name = text(&claim["metadata"]["name"]);
            let path = self.directory.path().join(format!("{name}-{pod}"));
            directory(&path, group);
            (name.to_owned(), path)
        };
        items(&set["volumeClaimTemplates"]).map(claim).collect()
    }

    /// The volumes of a pod that begin with it, made anew, by name.
    fn volumes(&self, identity: &Identity, spec: &Value) -> BTreeMap<String, PathBuf> {
        let group = &spec["securityContext"]["fsGroup"];
        let volume = |volume: &Value| {
            let name = text(&volume["name"]);
            let path = tempfile::Builder::new()
                .prefix(&format!("{}-{name}-", identity.name))
                .tempdir_in(self.directory.path());
            // It goes with everything else.
            let path = path
                .unwrap_or_else(|error| panic!("cannot make a volume: {error}"))
                .keep();
            directory(&path, group);
            self.fill(&path, volume, group);
            (name.to_owned(), path)
        };
        items(&spec["volumes"]).map(volume).collect()
    }

    fn fill(&self, path: &Path, volume: &Value, group: &Value) {
        let sources = items(&volume["projected"]["sources"]).chain([volume]);
        for source in sources {
            for kind in ["secret", "configMap"] {
                let (reference, given) = (&source[kind], &volume[kind]["defaultMode"]);
                let mode = given
                    .as_u64()
                    .or(volume["projected"]["defaultMode"].as_u64())
                    .unwrap_or(0o644);
                if let Some(files) = reference.is_object().then(|| self.files(kind, reference)).flatten() {
                    write(path, &files, reference, (mode, group));
                }
            }
        }
    }

    /// The files of a secret or ConfigMap; None if it is missing and may be.
    fn files(&self, kind: &str, reference: &Value) -> Option<Files> {
        let name = reference["secretName"]
            .as_str()
            .unwrap_or_else(|| text(&reference["name"]));
        if kind == "configMap" {
            let data = self.manifest.object("ConfigMap", name)["data"].as_object();
            let files = data.into_iter().flatten();
            return Some(
                files
                    .map(|(key, value)| (key.clone(), text(value).as_bytes().to_vec()))
                    .collect(),
            );
        }
        let files = self.secrets.get(name).cloned();
        assert!(
            files.is_some() || reference["optional"] == true,
            "there is no secret {name}"
        );
        files
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.pods.iter_mut().flatten().for_each(Pod::kill);
        if !std::thread::panicking() {
            return;
        }
        for ordinal in 0..self.pods.len() {
            let log = self.log(ordinal);
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!(
                "---- the end of {}'s log\n{}",
                self.node_name(ordinal),
                shown.join("\n")
            );
        }
    }
}

/// A directory that belongs to the pod's group, as the kubelet makes volumes with an `fsGroup`.
fn directory(path: &Path, group: &Value) {
    let made = fs::create_dir_all(path).and_then(|()| give(path, 0o2775, group));
    made.unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
}

/// Writes what a volume takes of a secret or ConfigMap: all of it, or the items that it names.
fn write(volume: &Path, files: &Files, reference: &Value, (mode, group): (u64, &Value)) {
    let items: Vec<(&str, &str)> = match reference["items"].as_array() {
        None => files.keys().map(|key| (key.as_str(), key.as_str())).collect(),
        Some(items) => items
            .iter()
            .map(|item| (text(&item["key"]), text(&item["path"])))
            .collect(),
    };
    for (key, path) in items {
        let Some(content) = files.get(key) else {
            panic!("there is no {key} in {reference}");
        };
        let path = volume.join(path);
        directory(path.parent().unwrap_or(volume), group);
        // The group may read whatever the owner may.
        let mode = u32::try_from(mode | (mode & 0o400) >> 3).unwrap_or(0);
        let written = fs::write(&path, content).and_then(|()| give(&path, mode, group));
        written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}

/// Only root can give something away. Without it the container's user is ourselves, and needs no group.
fn give(path: &Path, mode: u32, group: &Value) -> std::io::Result<()> {
    if !is_root() {
        let mode = if path.is_dir() { 0o700 } else { mode & 0o700 };
        return fs::set_permissions(path, Permissions::from_mode(mode));
    }
    let group = u32::try_from(number(group)).ok();
    chown(path, Some(0), group)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}
