//! A service of the school as a process, and all of them on a cluster.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::spawn;
use std::time::Duration;

use highwater_tests::{Finished, TestCluster, eventually, run};

use crate::http::get;

/// How long anything may take; long, since tests share a small machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
pub(crate) const KEY: &str = "a-key-for-the-tests";

/// A process that is killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// Where it answers.
    pub(crate) address: String,
    /// Where it tells metrics and health.
    pub(crate) metrics: String,
}

impl Program {
    /// Starts a service, and returns when it is ready.
    #[track_caller]
    pub(crate) fn start(service: &str, arguments: &[(&str, &str)]) -> Self {
        let mut command = school();
        command.arg(service).args(["--port", "0", "--metrics-port", "0"]);
        for (flag, value) in arguments {
            command.arg(flag).arg(value);
        }
        let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (heard, stderr) = (lines.clone(), child.stderr.take().unwrap());
        spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
        });
        let mut program = Self {
            child,
            lines,
            address: String::new(),
            metrics: String::new(),
        };
        program.metrics = program.listening("metrics listens");
        program.address = program.listening(&format!("{service} listens"));
        let ready = format!("{service} is ready");
        eventually(&ready, PATIENCE, || {
            (get(&program.metrics, "/readyz").status == 200).then_some(())
        });
        program
    }

    #[track_caller]
    fn listening(&mut self, what: &str) -> String {
        eventually(what, PATIENCE, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it has ended: {status}: {}", self.log());
            }
            let lines = self.lines.lock().unwrap();
            let line = lines.iter().find(|line| line.contains(what))?;
            Some(line.split_once("address=")?.1.trim().to_owned())
        })
    }

    pub(crate) fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; how it ended.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        run(Command::new("kill").arg(pid), PATIENCE).success();
        eventually("it ends", PATIENCE, || self.child.try_wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- what {} said\n{}", self.address, self.log());
        }
    }
}

/// The program, without the settings of whoever runs the tests.
pub(crate) fn school() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_school"));
    for name in [
        "HIGHWATER_CONFIG",
        "CONFIG",
        "HOST",
        "PORT",
        "METRICS_PORT",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "DATABASE",
        "COURSES",
        "STUDENTS",
    ] {
        command.env_remove(name);
    }
    command
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

    /// A path in the cluster's directory.
    pub(crate) fn file(&self, name: &str) -> String {
        text(&self.cluster.directory().join(name))
    }

    #[track_caller]
    pub(crate) fn start_courses(&self, database: &str) -> Program {
        Program::start(
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
            "students",
            &settings.each_ref().map(|(flag, value)| (*flag, value.as_str())),
        )
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
            "gateway",
            &settings.each_ref().map(|(flag, value)| (*flag, value.as_str())),
        )
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
