//! Processes of the two programs.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

use highwater_activity::v1::activity_service_client::ActivityServiceClient;
use highwater_tests::eventually;
use tonic::transport::{Channel, Endpoint};

use crate::DEADLINE;

/// Variables that would be settings.
const SETTINGS: [&str; 8] = [
    "PORT",
    "HOST",
    "METRICS_PORT",
    "WEB_PORT",
    "LOG_FORMAT",
    "LOG_LEVEL",
    "CONFIG",
    "ADDRESS",
];

/// `activity serve`. Killed when it is dropped.
pub(crate) struct Server {
    profile: PathBuf,
    arguments: Vec<String>,
    child: Child,
    log: Arc<Mutex<String>>,
}

fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    SETTINGS.iter().for_each(|name| {
        command.env_remove(name);
    });
    command
}

fn launch(profile: &Path, ports: [u16; 3], arguments: &[String]) -> (Child, Arc<Mutex<String>>) {
    let mut command = program(env!("CARGO_BIN_EXE_activity"));
    command.arg("serve").arg("--profile").arg(profile);
    for (flag, port) in ["--port", "--web-port", "--metrics-port"].iter().zip(ports) {
        command.arg(flag).arg(port.to_string());
    }
    let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let log = Arc::new(Mutex::new(String::new()));
    let kept = log.clone();
    spawn(move || {
        for line in lines.map_while(Result::ok) {
            eprintln!("{line}");
            let mut kept = kept.lock().unwrap();
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    (child, log)
}

impl Server {
    /// A server that is ready, at free ports.
    pub(crate) fn start(profile: &Path, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (child, log) = launch(profile, [0; 3], &arguments);
        let server = Self {
            profile: profile.to_owned(),
            arguments,
            child,
            log,
        };
        server.wait_ready();
        server
    }

    /// Kills it and starts it at the same ports.
    pub(crate) fn restart(&mut self) {
        let ports =
            ["gRPC", "web", "metrics"].map(|what| self.address(what).rsplit_once(':').unwrap().1.parse().unwrap());
        self.kill();
        (self.child, self.log) = launch(&self.profile, ports, &self.arguments);
        self.wait_ready();
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        eventually("the server ends", DEADLINE, || self.child.try_wait().unwrap())
    }

    fn wait_ready(&self) {
        eventually("the server is ready", DEADLINE, || {
            self.log.lock().unwrap().contains(": ready\n").then_some(())
        });
    }

    /// Where it listens: `gRPC`, `web` or `metrics`.
    pub(crate) fn address(&self, what: &str) -> String {
        let log = self.log.lock().unwrap();
        let words = format!("{what} listens address=");
        let line = log.lines().find(|line| line.contains(&words)).unwrap();
        line.split_once("address=").unwrap().1.to_owned()
    }

    /// A client of it. To be called on a runtime.
    pub(crate) fn client(&self) -> ActivityServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address("gRPC"))).unwrap();
        ActivityServiceClient::new(endpoint.connect_lazy())
    }

    /// `activity-cli` for this server.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = program(env!("CARGO_BIN_EXE_activity-cli"));
        command.env("ADDRESS", self.address("gRPC")).args(arguments);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command that goes on, and what it prints. Killed when it is dropped.
pub(crate) struct Printing {
    child: Child,
    printed: Arc<Mutex<Vec<u8>>>,
}

impl Printing {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let printed = Arc::new(Mutex::new(Vec::new()));
        let kept = printed.clone();
        spawn(move || {
            let mut some = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut some) {
                kept.lock().unwrap().extend_from_slice(&some[..count]);
            }
        });
        Self { child, printed }
    }

    /// Whole lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let printed = String::from_utf8(self.printed.lock().unwrap().clone()).unwrap();
        printed
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect()
    }

    /// Waits until it has printed so many lines.
    pub(crate) fn wait_lines(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines"), DEADLINE, || {
            Some(self.lines()).filter(|lines| lines.len() >= count)
        })
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the command ends", DEADLINE, || self.child.try_wait().unwrap())
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
