//! Activity: deployments post events, each to both servers at once, as somebody does who is not sure; others follow from the morning on.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::spawn;

use highwater_tests::{Finished, Program, TestCluster, beside, run, run_with_input};
use serde_json::{Value, json};

use crate::account::{Account, COMMAND_DEADLINE, count, records};
use crate::shift::Shift;
use crate::{Application, Result};

const DEPLOYMENTS: u64 = 3;
/// How many events each deployment posts in a round.
const EVENTS: u64 = 2;

/// What was posted, and who follows.
pub(crate) struct Activity {
    servers: [String; 2],
    followers: Vec<Follower>,
    /// The ids that each deployment has used; they are 1, 2, 3 and so on.
    ids: u64,
    /// How often a server said that an event was new.
    new: u64,
}

/// `activity-cli follow`. Killed when it is dropped.
struct Follower {
    child: Child,
    ids: Arc<Mutex<Vec<u64>>>,
}

/// Starts two servers, and a follower of each deployment.
pub(crate) fn start(cluster: &TestCluster, programs: &mut Vec<Program>) -> Activity {
    let servers = [1, 2].map(|number| {
        let mut command = beside("activity");
        command
            .args(["serve", "--web-port", "0", "--profile"])
            .arg(cluster.profile());
        let mut program = Program::start(&format!("activity-{number}"), &mut command, cluster.directory());
        program.wait_ready();
        let address = program.address("gRPC");
        programs.push(program);
        address
    });
    let follower = |deployment: u64| {
        let server = &servers[(deployment % 2) as usize];
        Follower::start(cli(server).args(["follow", &deployment.to_string()]))
    };
    Activity {
        followers: (1..=DEPLOYMENTS).map(follower).collect(),
        servers,
        ids: 0,
        new: 0,
    }
}

impl Application for Activity {
    fn name(&self) -> &'static str {
        "activity"
    }

    fn work(&mut self, shift: &Shift) -> Result<String> {
        let before = self.ids;
        let working = shift.working();
        while working.next().is_some() {
            self.post_some(shift.name())?;
            working.done();
        }
        let posted = (self.ids - before) * DEPLOYMENTS;
        Ok(format!(
            "{posted} events have been posted, each to both servers at once"
        ))
    }

    fn account(&mut self, cluster: &TestCluster, account: &mut Account) -> Result<()> {
        account.same("events", || {
            Ok(vec![
                ("posted", self.ids * DEPLOYMENTS),
                ("listed by a server", count(&all_listed(&self.servers[0])?)),
                ("by the other", count(&all_listed(&self.servers[1])?)),
                (
                    "records",
                    count(&records(cluster, cluster.profile(), "activity", "%p/%o")?),
                ),
                (
                    "seen by followers",
                    self.followers.iter().map(|it| count(&it.ids())).sum(),
                ),
            ])
        })?;
        account.none("twice, or out of order", || {
            let listed = all_listed(&self.servers[0])?;
            let different: BTreeSet<_> = listed.iter().collect();
            Ok(vec![
                ("listed", count(&listed) - different.len() as u64),
                ("followed", self.followers.iter().map(Follower::out_of_order).sum()),
                ("said to be new", self.new.saturating_sub(self.ids * DEPLOYMENTS)),
            ])
        })
    }
}

impl Activity {
    /// The next events of all deployments, to both servers at the same time.
    fn post_some(&mut self, shift: &str) -> Result<()> {
        let ids = self.ids + 1..=self.ids + EVENTS;
        let events = ids
            .clone()
            .flat_map(|id| (1..=DEPLOYMENTS).map(move |deployment| (deployment, id)));
        let line = |(deployment, id): (u64, u64)| {
            let message = format!("{shift}: step {id} of deployment {deployment}");
            format!(
                "{}\n",
                json!({ "id": id, "deployment_id": deployment, "message": message })
            )
        };
        let lines: String = events.map(line).collect();
        let add = |server: &str| {
            run_with_input(
                cli(server).args(["add", "-"]),
                lines.clone().into_bytes(),
                COMMAND_DEADLINE,
            )
        };
        let [one, other] = &self.servers;
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| add(one));
            let second = add(other);
            (first.join(), second)
        });
        for added in [first.map_err(|_| "a panic".to_owned())?, second] {
            self.new += new_ones(&added, EVENTS * DEPLOYMENTS)?;
        }
        self.ids += EVENTS;
        Ok(())
    }
}

/// How many of the answers say that the event was not there yet.
fn new_ones(added: &Finished, wanted: u64) -> Result<u64> {
    let text = added.stdout();
    let answers: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    if !added.status.success() || count(&answers) != wanted {
        let answered = answers.len();
        return Err(format!(
            "{answered} of {wanted} events were taken: {}",
            added.stderr.trim()
        ));
    }
    Ok(answers.iter().filter(|answer| answer["already_there"] == false).count() as u64)
}

fn cli(server: &str) -> Command {
    let mut command = beside("activity-cli");
    command.env("ADDRESS", server);
    command.env("RETRY_FOR_MS", COMMAND_DEADLINE.as_millis().to_string());
    command
}

/// Deployment and id of all events.
fn all_listed(server: &str) -> Result<Vec<(u64, u64)>> {
    let mut all = Vec::new();
    for deployment in 1..=DEPLOYMENTS {
        let listed = run(cli(server).args(["list", &deployment.to_string()]), COMMAND_DEADLINE);
        if !listed.status.success() {
            return Err(format!("events are not listed: {}", listed.stderr.trim()));
        }
        all.extend(listed.stdout().lines().filter_map(id_of).map(|id| (deployment, id)));
    }
    Ok(all)
}

fn id_of(line: &str) -> Option<u64> {
    let event: Value = serde_json::from_str(line).ok()?;
    event["id"].as_u64()
}

impl Follower {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let ids: Arc<Mutex<Vec<u64>>> = Arc::default();
        if let Some(output) = child.stdout.take() {
            let ids = ids.clone();
            spawn(move || {
                for id in BufReader::new(output)
                    .lines()
                    .map_while(std::result::Result::ok)
                    .filter_map(|line| id_of(&line))
                {
                    ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                }
            });
        }
        Self { child, ids }
    }

    fn ids(&self) -> Vec<u64> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many of the events were not the one after the one before. One round after the other is posted, but within a round the two
    /// servers may store them in another order than that of the ids.
    fn out_of_order(&self) -> u64 {
        let ids = self.ids();
        let different: BTreeSet<_> = ids.iter().collect();
        let round = |id: &u64| (id - 1) / EVENTS;
        let rounds: Vec<u64> = ids.iter().map(round).collect();
        let backwards = rounds.windows(2).filter(|pair| pair[0] > pair[1]).count();
        count(&ids) - different.len() as u64 + backwards as u64
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
