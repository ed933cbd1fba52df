//! The members' processes, and what they have noted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use highwater_verify::History;
use highwater_verify::history::Handout;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// Longer than an orderly end takes unless something hangs.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// One life of a member.
pub(super) struct Life {
    pub(super) number: u32,
    notes: PathBuf,
}

/// A place for a member: one process after the other, under one name.
pub(super) struct Seat {
    name: String,
    /// The number of its last life.
    pub(super) life: u32,
    child: Option<Child>,
}

/// All members, and all their lives.
pub(super) struct Crew {
    program: PathBuf,
    profile: PathBuf,
    directory: PathBuf,
    pub(super) seats: Vec<Seat>,
    pub(super) lives: Vec<Life>,
    /// What members said when they ended.
    pub(super) complaints: Vec<String>,
}

impl Crew {
    pub(super) fn new(program: PathBuf, profile: &Path, directory: &Path, seats: usize) -> Crew {
        let seat = |number: usize| Seat {
            name: format!("member-{number}"),
            life: 0,
            child: None,
        };
        Crew {
            program,
            profile: profile.to_owned(),
            directory: directory.to_owned(),
            seats: (1..=seats).map(seat).collect(),
            lives: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// A new life.
    pub(super) fn start(&mut self, seat: usize) -> Result<(), String> {
        let number = self.lives.len() as u32;
        let notes = self.directory.join(format!("notes-{number}"));
        let said = self.directory.join(format!("said-{number}"));
        let said = fs::File::create(&said).map_err(|error| format!("{}: {error}", said.display()))?;
        let child = Command::new(&self.program)
            .arg("member")
            .args([&self.profile, &notes])
            .arg(&self.seats[seat].name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn();
        self.seats[seat].child = Some(child.map_err(|error| format!("cannot start a member: {error}"))?);
        self.seats[seat].life = number;
        self.lives.push(Life { number, notes });
        Ok(())
    }

    pub(super) fn kill(&mut self, seat: usize) {
        if let Some(mut child) = self.seats[seat].child.take() {
            // One that has ended by itself is found by `check`, which comes first.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) fn signal(&self, seat: usize, signal: Signal) {
        let child = self.seats[seat].child.as_ref();
        let pid = child
            .and_then(|child| i32::try_from(child.id()).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal); // the same
        }
    }

    /// Ends a life in an orderly way.
    pub(super) fn stop(&mut self, seat: usize) {
        self.signal(seat, Signal::TERM);
        if let Some(child) = self.seats[seat].child.take() {
            let ended = wait(child, END_TIMEOUT);
            if !ended.status.success() {
                self.complain(seat, ended.status);
            }
        }
    }

    /// Notes which members have ended by themselves.
    pub(super) fn check(&mut self) {
        for seat in 0..self.seats.len() {
            let ended = self.seats[seat]
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                self.seats[seat].child = None;
                self.complain(seat, status);
            }
        }
    }

    fn complain(&mut self, seat: usize, status: ExitStatus) {
        let said = self
            .lives
            .iter()
            .rev()
            .map(|life| self.directory.join(format!("said-{}", life.number)));
        let said = said
            .filter_map(|path| fs::read_to_string(path).ok())
            .find(|said| !said.trim().is_empty());
        let said = said.unwrap_or_default();
        self.complaints.push(format!(
            "{} ended with {status}: {}",
            self.seats[seat].name,
            said.trim()
        ));
    }

    /// Puts everything noted into the history. `zero_ns` is when the history's clock began.
    pub(super) fn collect(&self, history: &mut History, zero_ns: u64) -> Vec<Handout> {
        let mut handouts = Vec::new();
        for life in &self.lives {
            // A life that was done with nothing has no notes. A last line may be cut short by a kill.
            let text = fs::read_to_string(&life.notes).unwrap_or_default();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            handouts.extend(whole.lines().filter_map(|line| handout(line, life.number, zero_ns)));
        }
        for handout in &handouts {
            history.record_handout(*handout);
        }
        handouts
    }
}

fn handout(line: &str, member: u32, zero_ns: u64) -> Option<Handout> {
    let mut fields = line.split(' ');
    let partition = fields.next()?.parse().ok()?;
    let offset = fields.next()?.parse().ok()?;
    let at_ns: u64 = fields.next()?.parse().ok()?;
    Some(Handout {
        at_ns: at_ns.saturating_sub(zero_ns),
        member,
        partition,
        offset,
    })
}

impl Drop for Crew {
    fn drop(&mut self) {
        for seat in 0..self.seats.len() {
            self.kill(seat);
        }
    }
}
