//! Users: people register at two servers, and in each round two want the same address at once, which one of them gets.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Instant;

use highwater_tests::{Finished, Program, TestCluster, beside, http, run};
use serde_json::Value;

use crate::account::{Account, COMMAND_DEADLINE, PAUSE, count, records};
use crate::shift::Shift;
use crate::{Application, Result};

/// How many register in a round at each server, besides the two who want the same address.
const OWN_ADDRESSES: usize = 2;
/// What the addresses end with that two want.
const WANTED_BY_TWO: &str = ".both@users.example";

/// What the servers promised.
pub(crate) struct Users {
    servers: [String; 2],
    page: String,
    outbox: PathBuf,
    promised: BTreeSet<String>,
}

/// What became of a registration.
#[derive(Debug, PartialEq, Eq)]
enum Registered {
    Yes,
    TakenAlready,
    /// It is taken, after an answer that said that it may have been done.
    Perhaps,
}

/// Starts two servers, the page of new users, and who writes welcome messages.
pub(crate) fn start(cluster: &TestCluster, programs: &mut Vec<Program>) -> Users {
    let mut service = |name: &str, subcommand: &str, listens: &str| {
        let mut command = beside("users");
        command.arg(subcommand).arg("--profile").arg(cluster.profile());
        let mut program = Program::start(name, &mut command, cluster.directory());
        program.wait_ready();
        let address = program.address(listens);
        programs.push(program);
        address
    };
    let servers = [1, 2].map(|number| service(&format!("users-{number}"), "serve", "users"));
    let page = service("users-metrics", "metrics", "page");
    service("users-email", "email", "metrics");
    Users {
        promised: BTreeSet::new(),
        servers,
        page,
        outbox: cluster.directory().join("outbox.mbox"),
    }
}

impl Application for Users {
    fn name(&self) -> &'static str {
        "users"
    }

    fn work(&mut self, shift: &Shift) -> Result<String> {
        if self.promised.is_empty() {
            self.promised.extend(listed(&self.servers[0])?);
        }
        let before = self.promised.len();
        let working = shift.working();
        while let Some(round) = working.next() {
            self.register_some(shift.name(), round)?;
            self.race(shift.name(), round)?;
            working.done();
        }
        Ok(format!("{} users have registered", self.promised.len() - before))
    }

    fn account(&mut self, cluster: &TestCluster, account: &mut Account) -> Result<()> {
        let topic = |topic: &str| records(cluster, cluster.profile(), topic, "%p/%o %k");
        account.same("users", || {
            Ok(vec![
                ("promised", self.promised.len() as u64),
                ("listed by a server", count(&listed(&self.servers[0])?)),
                ("by the other", count(&listed(&self.servers[1])?)),
                ("events", count(&topic("users")?)),
                ("events for others", count(&topic("user-added")?)),
                ("on the page", counted(&self.page)?),
                ("mails", count(&self.welcomed())),
            ])
        })?;
        account.none("twice, or not promised", || {
            Ok(vec![
                ("listed by a server", self.wrong(listed(&self.servers[0])?)),
                ("by the other", self.wrong(listed(&self.servers[1])?)),
                ("mails", self.wrong(self.welcomed())),
            ])
        })
    }
}

impl Users {
    fn register_some(&mut self, shift: &str, round: usize) -> Result<()> {
        for (place, server) in self.servers.iter().enumerate() {
            for own in 0..OWN_ADDRESSES {
                let email = format!("{shift}{round}.{place}.{own}@users.example");
                if register(server, &email)? == Registered::TakenAlready {
                    return Err(format!("{email} is said to be taken, and nobody else wants it"));
                }
                self.promised.insert(email);
            }
        }
        Ok(())
    }

    /// Two register the same address at the same time, each at its server: one of them is told that it has it.
    fn race(&mut self, shift: &str, round: usize) -> Result<()> {
        let email = format!("{shift}{round}{WANTED_BY_TWO}");
        let [one, other] = &self.servers;
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| register(one, &email));
            let second = register(other, &email);
            (first.join().unwrap_or_else(|_| Err("a panic".to_owned())), second)
        });
        match (first?, second?) {
            (Registered::Yes, Registered::Yes) => Err(format!("{email} was given to two")),
            (Registered::TakenAlready, Registered::TakenAlready) => Err(format!("{email} was given to nobody")),
            _ => {
                self.promised.insert(email);
                Ok(())
            }
        }
    }

    /// How many of these have been there before, or were never promised.
    fn wrong(&self, emails: Vec<String>) -> u64 {
        let mut seen = BTreeSet::new();
        let wrong = emails
            .into_iter()
            .filter(|email| !self.promised.contains(email) || !seen.insert(email.clone()));
        wrong.count() as u64
    }

    /// The receivers of all messages in the outbox.
    fn welcomed(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.outbox).unwrap_or_default();
        let receivers = text.lines().filter_map(|line| line.strip_prefix("To: "));
        receivers.map(|to| to.trim_matches(['<', '>']).to_owned()).collect()
    }
}

fn cli(server: &str, arguments: &[&str]) -> Finished {
    run(
        beside("users-cli").env("ADDRESS", server).args(arguments),
        COMMAND_DEADLINE,
    )
}

/// Registers, however often that has to be tried.
fn register(server: &str, email: &str) -> Result<Registered> {
    let arguments = [
        "create",
        "--email",
        email,
        "--firstname",
        "Ann",
        "--lastname",
        "Lee",
        "--postaladdress",
        "1 Quay",
    ];
    let mut perhaps = false;
    let mut said = String::new();
    let until = Instant::now() + COMMAND_DEADLINE;
    while Instant::now() < until {
        let finished = cli(server, &arguments);
        if finished.status.success() {
            return Ok(Registered::Yes);
        }
        said = finished.stderr;
        if said.contains("there is a user with") {
            return Ok(if perhaps {
                Registered::Perhaps
            } else {
                Registered::TakenAlready
            });
        }
        perhaps |= said.contains("may have been");
        sleep(PAUSE);
    }
    Err(format!("{email} cannot be registered: {}", said.trim()))
}

/// The addresses of all users that a server lists.
fn listed(server: &str) -> Result<Vec<String>> {
    let finished = cli(server, &["list", "--output", "json"]);
    if !finished.status.success() {
        return Err(format!("users are not listed: {}", finished.stderr.trim()));
    }
    let text = finished.stdout();
    let email = |line: &str| {
        let user: Value = serde_json::from_str(line).ok()?;
        Some(user["email"].as_str()?.to_owned())
    };
    let users: Option<Vec<String>> = text.lines().map(email).collect();
    users.ok_or_else(|| format!("users are listed as {text}"))
}

/// How many users the page has counted, in all months.
fn counted(page: &str) -> Result<u64> {
    let answer = http::get(page, "/months.json");
    let numbers: Value = serde_json::from_str(&answer.text).map_err(|error| format!("the page of users: {error}"))?;
    let months = numbers["months"].as_array().cloned().unwrap_or_default();
    Ok(months.iter().filter_map(|month| month["users"].as_u64()).sum())
}
