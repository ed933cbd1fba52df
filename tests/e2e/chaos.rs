//! A short run of chaos, and what an interrupted one leaves behind: nothing.
//!
//! `make chaos` is the same with everything in it. A machine without the rights for power cuts skips those and says so.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use highwater_tests::{eventually, run};
use rustix::process::{Pid, Signal, kill_process};

use crate::PATIENCE;

const SEED: &str = "1";
/// Exit code of a run that proves nothing.
const VOID: i32 = 2;

fn chaos() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
    command.args(["--short", "--seed", SEED]);
    command
}

#[test]
fn a_short_run_of_kills_pauses_partitions_and_power_cuts_loses_nothing() {
    let finished = run(&mut chaos(), PATIENCE * 3);
    let said = finished.stdout();
    // With `--nocapture`, and when it fails: what was done, and what was skipped.
    println!("{}{said}", finished.stderr);
    assert_eq!(finished.code(), 0);
    assert!(said.contains("chaos: Pass"));
}

#[test]
fn a_cluster_whose_disks_lie_about_syncs_is_caught() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
    let finished = run(command.args(["--self-test", "--seed", SEED]), PATIENCE * 3);
    let said = finished.stdout();
    println!("{}{said}", finished.stderr);
    // On a machine without the rights it says so; whatever else, it must catch it.
    let caught = finished.code() == 0 && said.contains("was caught");
    assert!(caught || (finished.code() == VOID && said.contains("SKIPPED")));
}

#[test]
fn interrupted_and_killed_runs_leave_no_processes_disks_or_files() {
    let mut abandoned = None;
    for signal in [Signal::KILL, Signal::INT, Signal::TERM] {
        let mut child = chaos()
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start chaos: {error}"));
        let directory = wait_until_under_way(&mut child);
        if let Some(abandoned) = abandoned.take() {
            let there = PathBuf::from(&abandoned).exists();
            assert!(
                !there,
                "{abandoned} was left by a killed run, and the next run has not removed it"
            );
        }
        let family = family_of(child.id());
        assert!(
            family.len() >= 4,
            "a run and three nodes are at least 4 processes: {family:?}"
        );
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        assert_eq!(pid.map(|pid| kill_process(pid, signal)), Some(Ok(())));
        let status = child
            .wait()
            .unwrap_or_else(|error| panic!("cannot wait for chaos: {error}"));
        eventually("every process of the run is gone", PATIENCE, || {
            family.iter().all(|process| parent_of(*process).is_none()).then_some(())
        });
        eventually("every loop device of the run is gone", PATIENCE, || {
            (!disks_in_use().any(|disk| disk.starts_with(&directory))).then_some(())
        });
        if signal == Signal::KILL {
            abandoned = Some(directory);
        } else {
            assert_eq!(status.code(), Some(VOID), "an interrupted run has proven nothing");
            assert!(
                !PathBuf::from(&directory).exists(),
                "{directory} is left after {signal:?}"
            );
        }
    }
}

/// Waits for the line that a run prints once its nodes serve; gives the directory of its files.
fn wait_until_under_way(child: &mut Child) -> String {
    let Some(stdout) = child.stdout.take() else {
        panic!("no pipe");
    };
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    let directory = first.strip_prefix("seed ").and_then(|rest| rest.split_once(" in "));
    let directory = directory
        .unwrap_or_else(|| panic!("not the first line of a run: {first:?}"))
        .1
        .to_owned();
    // What follows must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    directory
}

/// The process and all its descendants.
fn family_of(process: u32) -> Vec<u32> {
    let all: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let mut family = vec![process];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|child| parent_of(**child) == Some(parent)));
        next += 1;
    }
    family
}

/// The parent of a process that runs.
fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then_some(parent)
}

/// The files behind all loop devices.
fn disks_in_use() -> impl Iterator<Item = String> {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok())
}
