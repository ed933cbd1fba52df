//! Processes of the two programs.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

use highwater_activity::v1::activity_service_client::ActivityServiceClient;
use highwater_tests::{Finished, Program, ReservedPort, TestCluster, eventually, http, run, wait, without_settings};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::DEADLINE;

/// `activity serve`, and where it listens. Killed when it is dropped.
pub(crate) struct Server {
    directory: PathBuf,
    variables: Vec<(&'static str, String)>,
    program: Program,
    pub(crate) grpc: String,
    pub(crate) web: String,
    pub(crate) metrics: String,
    /// Nobody else takes them while it is down.
    _ports: [ReservedPort; 3],
}

fn start(directory: &Path, variables: &[(&'static str, String)]) -> Program {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let name = format!("activity-{}", STARTED.fetch_add(1, Ordering::Relaxed));
    // The free ports that a program of the tests is told to take are told to the shell, which has no use for them.
    let mut command = without_settings(Path::new("sh"));
    command
        .args(["-c", "exec \"$ACTIVITY\" serve"])
        .env("ACTIVITY", env!("CARGO_BIN_EXE_activity"))
        .envs(variables.to_vec());
    let mut program = Program::start(&name, &mut command, directory);
    program.wait_ready();
    program
}

impl Server {
    /// A server that is ready, at free ports.
    pub(crate) fn start(cluster: &TestCluster) -> Self {
        Self::start_with(cluster, cluster.profile(), &[])
    }

    /// The same as another client of the cluster, and with more settings.
    pub(crate) fn start_with(cluster: &TestCluster, profile: &Path, variables: &[(&'static str, &str)]) -> Self {
        let mut variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        variables.push(("HIGHWATER_CONFIG", profile.display().to_string()));
        let ports = [(); 3].map(|()| ReservedPort::take());
        for (name, port) in ["PORT", "WEB_PORT", "METRICS_PORT"].into_iter().zip(&ports) {
            variables.push((name, port.number().to_string()));
        }
        let mut program = start(cluster.directory(), &variables);
        Self {
            directory: cluster.directory().to_owned(),
            variables,
            grpc: program.address("gRPC"),
            web: program.address("web"),
            metrics: program.address("metrics"),
            program,
            _ports: ports,
        }
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }

    /// Starts it at the same ports after it has been killed.
    pub(crate) fn start_again(&mut self) {
        self.program = start(&self.directory, &self.variables);
    }

    /// Asks it to end, and waits until it has, without error.
    pub(crate) fn stop(self) {
        self.program.stop();
    }

    /// Waits until it has ended by itself, and gives its log.
    pub(crate) fn wait_ended(&self) -> String {
        eventually("the server ends", DEADLINE, || {
            (http::get(&self.metrics, "/livez").status == 0).then_some(())
        });
        self.program.log()
    }

    /// What gRPC's health service says.
    pub(crate) fn health(&self) -> ServingStatus {
        let asking = async {
            let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
            let mut client = HealthClient::new(endpoint.connect().await.unwrap());
            let answer = client.check(HealthCheckRequest::default()).await.unwrap();
            answer.into_inner().status()
        };
        Runtime::new().unwrap().block_on(asking)
    }

    /// A client of it. To be called on a runtime.
    pub(crate) fn client(&self) -> ActivityServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        ActivityServiceClient::new(endpoint.connect_lazy())
    }

    /// `activity-cli` for this server.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = without_settings(Path::new(env!("CARGO_BIN_EXE_activity-cli")));
        command.env("ADDRESS", &self.grpc).args(arguments);
        command
    }

    /// The same, run to its end.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        run(&mut self.cli(arguments), DEADLINE)
    }
}

/// A command that goes on, and what it prints. Killed when it is dropped.
pub(crate) struct Printing {
    child: Option<Child>,
    printed: Arc<Mutex<Vec<u8>>>,
}

impl Printing {
    pub(crate) fn start(mut command: Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let printed = Arc::new(Mutex::new(Vec::new()));
        let kept = printed.clone();
        spawn(move || {
            let mut some = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut some) {
                kept.lock().unwrap().extend_from_slice(&some[..count]);
            }
        });
        Self {
            child: Some(child),
            printed,
        }
    }

    /// Whole lines.
    fn lines(&self) -> Vec<String> {
        let printed = self.printed.lock().unwrap().clone();
        let end = printed
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |last| last + 1);
        let whole = String::from_utf8(printed[..end].to_vec()).unwrap();
        whole.lines().map(str::to_owned).collect()
    }

    /// Waits until it has printed so many lines.
    #[track_caller]
    pub(crate) fn wait_lines(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines"), DEADLINE, || {
            Some(self.lines()).filter(|lines| lines.len() >= count)
        })
    }

    /// Waits until it has ended by itself: how, and what it said besides.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Finished {
        wait(self.child.take().unwrap(), DEADLINE)
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
