//! Calc: sessions ask at the prompt, one after the other; two back ends answer, of which one is killed at noon; a service writes down all of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use highwater_tests::{Program, TestCluster, beside, run_with_input};
use serde_json::Value;

use crate::account::{Account, COMMAND_DEADLINE, count, records};
use crate::shift::Shift;
use crate::{Application, Result};

/// The file of the service that writes everything down.
const FILE: &str = "calc.jsonl";

/// What was asked and answered.
pub(crate) struct Calc {
    profile: PathBuf,
    directory: PathBuf,
    /// How many commands have been answered at the prompt, all of them right.
    answered: u64,
    /// How many may be in the log, for all that the prompt could tell.
    perhaps: u64,
}

/// Starts two back ends and the service that writes down; the place of the back end that may be killed.
pub(crate) fn start(cluster: &TestCluster, programs: &mut Vec<Program>) -> (Calc, usize) {
    let mut service = |name: &str, arguments: &[&str]| {
        let mut command = beside("calc");
        command.args(arguments).arg("--profile").arg(cluster.profile());
        let mut program = Program::start(name, &mut command, cluster.directory());
        program.wait_ready();
        programs.push(program);
        programs.len() - 1
    };
    let back_end = service("calc-backend-1", &["backend"]);
    service("calc-backend-2", &["backend"]);
    service("calc-log", &["log", "--file", FILE]);
    let calc = Calc {
        profile: cluster.profile().to_owned(),
        directory: cluster.directory().to_owned(),
        answered: 0,
        perhaps: 0,
    };
    (calc, back_end)
}

impl Application for Calc {
    fn name(&self) -> &'static str {
        "calc"
    }

    fn work(&mut self, shift: &Shift) -> Result<String> {
        let before = self.answered;
        let working = shift.working();
        while let Some(round) = working.next() {
            self.session(round as i64)?;
            working.done();
        }
        Ok(format!("{} commands have been answered", self.answered - before))
    }

    fn account(&mut self, cluster: &TestCluster, account: &mut Account) -> Result<()> {
        account.same("commands", || {
            let lines = self.written_down();
            let results: Vec<&Value> = lines.iter().filter(|line| line["topic"] == "result").collect();
            let of = |result: &&Value| Some((result["partition"].as_u64()?, result["command"].as_u64()?));
            let answered: BTreeSet<(u64, u64)> = results.iter().filter_map(of).collect();
            Ok(vec![
                (
                    "in the log",
                    count(&records(cluster, &self.profile, "command", "%p/%o")?),
                ),
                ("results", count(&records(cluster, &self.profile, "result", "%p/%o")?)),
                ("commands written down", count(&lines) - count(&results)),
                ("results written down", count(&results)),
                ("commands that have one", answered.len() as u64),
            ])
        })?;
        account.none("answers", || {
            let commands = count(&records(cluster, &self.profile, "command", "%p/%o")?);
            Ok(vec![
                (
                    "told at a prompt and not in the log",
                    self.answered.saturating_sub(commands),
                ),
                (
                    "in the log and never told",
                    commands.saturating_sub(self.answered + self.perhaps),
                ),
            ])
        })
    }
}

impl Calc {
    /// A session: a few commands, each of which is answered right.
    fn session(&mut self, round: i64) -> Result<()> {
        let asked = [
            (format!("add {round} 5"), (round + 5).to_string()),
            (format!("max {round} 3 -1"), round.max(3).to_string()),
            ("np 2 12".to_owned(), "3 37".to_owned()),
            ("add 2 five".to_owned(), "error: \"five\" is not an integer".to_owned()),
        ];
        let mut lines: String = asked.iter().map(|(command, _)| format!("{command}\n")).collect();
        lines.push_str("exit\n");
        let mut prompt = self.prompt();
        let finished = run_with_input(&mut prompt, lines.into_bytes(), COMMAND_DEADLINE);
        let answers = finished.stdout();
        if !finished.status.success() || answers.lines().count() != asked.len() {
            return Err(format!("the prompt said {answers:?}: {}", finished.stderr.trim()));
        }
        for ((command, wanted), answer) in asked.iter().zip(answers.lines()) {
            match answer {
                // The prompt explains it; nothing is sent.
                answer if wanted.starts_with("error") && answer.starts_with(wanted.as_str()) => {}
                answer if answer == wanted => self.answered += 1,
                answer if answer.contains("is not in the log") => {}
                answer if answer.contains("is in the log is not known") => self.perhaps += 1,
                _ => return Err(format!("{command} was answered {answer}, not {wanted}")),
            }
        }
        Ok(())
    }

    fn prompt(&self) -> Command {
        let mut command = beside("calc");
        command
            .arg("connect")
            .arg("--profile")
            .arg(&self.profile)
            .current_dir(&self.directory);
        command
    }

    fn written_down(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.directory.join(FILE)).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
