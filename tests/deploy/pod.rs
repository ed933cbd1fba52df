//! What a kubelet does with one pod.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::Duration;

use highwater_tests::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::PATIENCE;
use crate::manifest::{items, number, text};

/// What the downward API tells a pod of itself.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) labels: Vec<(String, String)>,
}

impl Identity {
    /// A label that the pod does not have is empty.
    fn field(&self, path: &str) -> String {
        let label = path
            .strip_prefix("metadata.labels['")
            .and_then(|rest| rest.strip_suffix("']"));
        match (path, label) {
            ("metadata.name", _) => self.name.clone(),
            ("metadata.namespace", _) => self.namespace.clone(),
            ("status.podIP", _) => self.address.to_string(),
            (_, Some(label)) => {
                let value = self.labels.iter().find(|(name, _)| name == label);
                value.map(|(_, value)| value.clone()).unwrap_or_default()
            }
            _ => panic!("the downward API has no {path}"),
        }
    }

    /// The environment of a container: `$(NAME)` stands for a variable above.
    pub(crate) fn environment(&self, container: &Value) -> Vec<(String, String)> {
        let mut known: Vec<(String, String)> = Vec::new();
        for variable in items(&container["env"]) {
            let value = match variable["value"].as_str() {
                Some(value) => expanded(value, &known).replace("0.0.0.0:", &format!("{}:", self.address)),
                None => self.field(text(&variable["valueFrom"]["fieldRef"]["fieldPath"])),
            };
            known.push((text(&variable["name"]).to_owned(), value));
        }
        known
    }
}

/// `$(NAME)` stands for the variable, if it is known.
pub(crate) fn expanded(value: &str, known: &[(String, String)]) -> String {
    let put = |text: String, (name, value): &(String, String)| text.replace(&format!("$({name})"), value);
    known.iter().fold(value.to_owned(), put)
}

/// A pod that runs.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) address: Ipv4Addr,
    pub(crate) is_ready: bool,
    child: Child,
}

impl Pod {
    pub(crate) fn new(address: Ipv4Addr, child: Child) -> Self {
        Self {
            address,
            is_ready: false,
            child,
        }
    }

    /// Asks as a probe does; None: no answer in time.
    pub(crate) fn probe(&self, container: &Value, probe: &str) -> Option<(u16, String)> {
        let (probe, asked) = (&container[probe], &container[probe]["httpGet"]);
        let mut ports = items(&container["ports"]);
        let port = ports
            .find(|port| port["name"] == asked["port"])
            .map(|port| number(&port["containerPort"]));
        let port = port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or_else(|| panic!("no port for {probe}"));
        let timeout = Duration::from_secs(number(&probe["timeoutSeconds"]));
        get(SocketAddr::from((self.address, port)), text(&asked["path"]), timeout).ok()
    }

    /// Waits until a probe passes, for as long as the kubelet would before it ends the process.
    pub(crate) fn wait_to_pass(&mut self, container: &Value, probe: &str) {
        let patience = number(&container[probe]["periodSeconds"]) * number(&container[probe]["failureThreshold"]);
        eventually(&format!("the {probe} passes"), Duration::from_secs(patience), || {
            self.assert_runs();
            self.probe(container, probe).filter(|(status, _)| *status == 200)
        });
    }

    /// Waits until the pod is ready; it must be live all the time.
    pub(crate) fn wait_ready(&mut self, container: &Value) {
        self.wait_to_pass(container, "startupProbe");
        eventually("the pod is ready", PATIENCE, || {
            self.wait_to_pass(container, "livenessProbe");
            self.probe(container, "readinessProbe")
                .filter(|(status, _)| *status == 200)
        });
        self.is_ready = true;
    }

    fn assert_runs(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        assert!(ended.is_none(), "the pod at {} has ended: {ended:?}", self.address);
    }

    /// The node's process; a pod of Kubernetes calls it 1, ours sees all processes.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the pod in order: `preStop`, SIGTERM, and as long as the grace lasts. The grace counts from the beginning.
    pub(crate) fn stop(&mut self, spec: &Value, container: &Value) -> ExitStatus {
        let pause = Duration::from_secs(number(&container["lifecycle"]["preStop"]["sleep"]["seconds"]));
        let grace = Duration::from_secs(number(&spec["terminationGracePeriodSeconds"]));
        sleep(pause); // the kubelet's own part of `preStop`
        self.assert_runs();
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.unwrap_or_else(|| panic!("no process id"));
        kill_process(id, Signal::TERM).unwrap_or_else(|error| panic!("cannot signal: {error}"));
        eventually("the pod ends within its grace", grace.saturating_sub(pause), || {
            self.child.try_wait().ok().flatten()
        })
    }

    /// Ends the pod as a machine that dies.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body.
fn get(address: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}
