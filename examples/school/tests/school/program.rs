//! A service of the school as a process, and all of them on a cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use highwater_tests::{Finished, TestCluster, run, without_settings};

/// How long anything may take; long, since tests share a small machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
pub(crate) const KEY: &str = "a-key-for-the-tests";

/// A service of the school, and where it is.
pub(crate) struct Program {
    process: highwater_tests::Program,
    /// Where it answers.
    pub(crate) address: String,
    /// Where it tells metrics and health.
    pub(crate) metrics: String,
}

impl Program {
    /// Returns when the service is ready.
    #[track_caller]
    fn start(cluster: &TestCluster, service: &str, arguments: &[(&str, &str)]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let mut command = school();
        command.arg(service);
        for (flag, value) in arguments {
            command.arg(flag).arg(value);
        }
        let name = format!("{service}-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let mut process = highwater_tests::Program::start(&name, &mut command, cluster.directory());
        process.wait_ready();
        Self {
            address: process.address(service),
            metrics: process.address("metrics"),
            process,
        }
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// SIGTERM; it ends well.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.process.stop();
    }
}

/// The program, without the settings of whoever runs the tests.
pub(crate) fn school() -> Command {
    without_settings(Path::new(env!("CARGO_BIN_EXE_school")))
}

/// A cluster that is prepared, with a profile for each service.
pub(crate) struct School {
    pub(crate) cluster: TestCluster,
    pub(crate) gateway: PathBuf,
    pub(crate) students: PathBuf,
    pub(crate) courses: PathBuf,
    keys: PathBuf,
}

impl School {
    #[track_caller]
    pub(crate) fn open() -> Self {
        let cluster = TestCluster::start(3);
        let keys = cluster.directory().join("keys");
        std::fs::write(&keys, format!("# for tests\n{KEY}\n")).unwrap();
        let school = Self {
            gateway: cluster.profile_for("school", "gateway"),
            students: cluster.profile_for("school", "students"),
            courses: cluster.profile_for("school", "courses"),
            keys,
            cluster,
        };
        school.init().success();
        school
    }

    /// `school init`, as the operator.
    #[track_caller]
    pub(crate) fn init(&self) -> Finished {
        let mut command = school();
        command.arg("init").arg("--profile").arg(self.cluster.profile());
        run(&mut command, PATIENCE)
    }

    /// `school ask`, with the gateway and its key, unless the words say otherwise.
    #[track_caller]
    pub(crate) fn ask(&self, gateway: &Program, words: &[&str]) -> Finished {
        let mut command = school();
        command.env("ADDRESS", &gateway.address).env("API_KEYS", &self.keys);
        run(command.arg("ask").args(words), PATIENCE)
    }

    /// A path in the cluster's directory.
    pub(crate) fn file(&self, name: &str) -> String {
        text(&self.cluster.directory().join(name))
    }

    #[track_caller]
    pub(crate) fn start_courses(&self, database: &str) -> Program {
        Program::start(
            &self.cluster,
            "courses",
            &[
                ("--profile", &text(&self.courses)),
                ("--database", &self.file(database)),
            ],
        )
    }

    #[track_caller]
    pub(crate) fn start_students(&self, database: &str, courses: &Program) -> Program {
        let settings = [
            ("--profile", text(&self.students)),
            ("--database", self.file(database)),
            ("--courses", courses.url()),
        ];
        Program::start(
            &self.cluster,
            "students",
            &settings.each_ref().map(|(flag, value)| (*flag, value.as_str())),
        )
    }

    /// A service with settings that let it begin, and with nobody behind it.
    pub(crate) fn alone(&self, service: &str, profile: &Path) -> Command {
        let nowhere = "http://127.0.0.1:1";
        let database = self.file("alone.sqlite");
        let mut command = school();
        command.arg(service).arg("--profile").arg(profile);
        match service {
            "gateway" => command
                .args(["--students", nowhere, "--courses", nowhere])
                .arg("--api-keys")
                .arg(&self.keys),
            "students" => command.args(["--courses", nowhere, "--database", &database]),
            _ => command.args(["--database", &database]),
        };
        command
    }

    #[track_caller]
    pub(crate) fn start_gateway(&self, students: &Program, courses: &Program) -> Program {
        let settings = [
            ("--profile", text(&self.gateway)),
            ("--students", students.url()),
            ("--courses", courses.url()),
            ("--api-keys", text(&self.keys)),
        ];
        Program::start(
            &self.cluster,
            "gateway",
            &settings.each_ref().map(|(flag, value)| (*flag, value.as_str())),
        )
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
