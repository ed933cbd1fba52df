//! How each scenario is played. Whatever it does, it undoes: at its end all nodes run and all links are whole.

use std::fs;
use std::time::{Duration, Instant};

use highwater_verify::history::FaultKind;
use rustix::process::{Pid, Signal, kill_process};

use super::links::{Rule, Rules};
use super::outage::ROLL_DEADLINE;
use super::scenarios::{Cut, Scenario, Whom};
use super::stage::{Ended, HEAL_DEADLINE, NODES, POLL, Result, Stage};
use super::storage::{self, Attached, Change, Syncs};

/// How long a cluster that must make progress without some nodes may take, and how much is asked of it.
const PROGRESS_MEANWHILE: u64 = 200;
/// How late everything arrives over a slow link.
const SLOW: Duration = Duration::from_millis(30);
/// How many records are acknowledged that an old copy, or a disk that lied, does not have.
const OLD_COPY_AGE: u64 = 3_000;
const FLAPS: usize = 8;

impl Stage {
    /// Plays a scenario.
    pub(crate) fn play(&mut self, scenario: Scenario) -> Result<()> {
        match scenario {
            Scenario::Kill(whom) => self.play_kill(whom),
            Scenario::KillTwice => self.play_kill_twice(),
            Scenario::Pause(whom) => self.play_pause(whom),
            Scenario::PauseAndCut => self.play_pause_and_cut(),
            Scenario::Restart => self.play_restart(1),
            Scenario::RollingRestart => self.play_restart(NODES),
            Scenario::Power(whom) => {
                let nodes = self.choose(whom);
                self.cut_power(&nodes)?;
                self.restore_power(&nodes)
            }
            Scenario::PowerTwice => self.play_power_twice(),
            Scenario::PowerInRoll => self.play_power_in_roll(),
            Scenario::PowerInTrim => self.play_power_in_trim(),
            Scenario::PowerInElection => self.play_power_in_election(),
            Scenario::PowerInPartition => self.play_power_in_partition(),
            Scenario::Links(cut, rule) => self.play_links(cut, rule),
            Scenario::Flap => self.play_flap(),
            Scenario::ResetAll => {
                self.play_rules(FaultKind::LinkCut, &every_link(Rule::Reset), "connections reset", 50)
            }
            Scenario::SlowLinks => self.play_rules(
                FaultKind::LinkLossy,
                &every_link(Rule::Delay(SLOW)),
                "chunks delayed",
                3_000,
            ),
            Scenario::Syncs(whom, Syncs::Crawl) => self.play_slow_disk(whom),
            Scenario::Syncs(whom, syncs) => self.play_failing_sync(whom, syncs),
            Scenario::AtRest(whom, change) => self.play_at_rest(whom, change),
            Scenario::RotLive(whom) => self.play_rot_live(whom),
            Scenario::DiskFull(whom) => self.play_disk_full(whom),
            Scenario::Wipe => self.play_wipe(),
            Scenario::OldCopy => self.play_old_copy(),
            Scenario::Lies => self.play_lies(),
        }
    }

    pub(crate) fn choose(&mut self, whom: Whom) -> Vec<usize> {
        match whom {
            Whom::One => vec![self.random.below(NODES)],
            Whom::Leader => vec![self.leader()],
            Whom::Majority => {
                let leader = self.leader();
                vec![leader, self.other_than(&[leader])]
            }
            Whom::All => (0..NODES).collect(),
        }
    }

    fn play_kill(&mut self, whom: Whom) -> Result<()> {
        let nodes = self.choose(whom);
        let begin = self.clock.now_ns();
        let killed = self.kill(&nodes);
        self.pass(0, 1_500)?;
        self.start(&nodes);
        self.fault(FaultKind::Kill, &nodes, begin, killed, "processes killed");
        Ok(())
    }

    fn play_kill_twice(&mut self) -> Result<()> {
        let first = self.leader();
        let begin = self.clock.now_ns();
        let killed = self.kill(&[first]);
        self.pass(300, 1_500)?;
        let second = self.leader();
        let begin_second = self.clock.now_ns();
        let killed_too = if second == first { 0 } else { self.kill(&[second]) };
        self.start(&[first]);
        self.fault(FaultKind::Kill, &[first], begin, killed, "processes killed");
        if second != first {
            self.pass(0, 500)?;
            self.start(&[second]);
            self.fault(FaultKind::Kill, &[second], begin_second, killed_too, "processes killed");
        }
        Ok(())
    }

    fn play_pause(&mut self, whom: Whom) -> Result<()> {
        let nodes = self.choose(whom);
        let begin = self.clock.now_ns();
        let paused = self.pause(&nodes);
        let passed = self.pass(500, 4_000);
        self.resume(&nodes);
        self.fault(FaultKind::Pause, &nodes, begin, paused, "processes paused");
        passed
    }

    /// Pauses nodes; gives how many really stand still.
    pub(crate) fn pause(&mut self, nodes: &[usize]) -> u64 {
        nodes.iter().for_each(|node| self.signal(*node, Signal::STOP));
        nodes.iter().filter(|node| self.stands_still(**node)).count() as u64
    }

    fn stands_still(&self, node: usize) -> bool {
        let Some(process) = self.cluster.nodes()[node].pid() else {
            return false;
        };
        let end = Instant::now() + Duration::from_secs(1);
        let stopped = || {
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("State:\tT"))
        };
        while !stopped() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    pub(crate) fn resume(&mut self, nodes: &[usize]) {
        nodes.iter().for_each(|node| self.signal(*node, Signal::CONT));
    }

    /// A node that has just ended is noticed by whoever looks after it.
    fn signal(&self, node: usize, signal: Signal) {
        let process = self.cluster.nodes()[node]
            .pid()
            .and_then(|process| i32::try_from(process).ok());
        if let Some(process) = process.and_then(Pid::from_raw) {
            let _ = kill_process(process, signal);
        }
    }

    /// One node is paused and another loses power, so that nothing is acknowledged; then the first goes on while the last is paused.
    fn play_pause_and_cut(&mut self) -> Result<()> {
        let cut = self.leader();
        let first = self.other_than(&[cut]);
        let last = self.other_than(&[cut, first]);
        let begin = self.clock.now_ns();
        let mut paused = self.pause(&[first]);
        let played = self.pass(200, 1_000).and_then(|()| self.cut_power(&[cut]));
        self.resume(&[first]);
        paused += self.pause(&[last]);
        let restored = played.and_then(|()| self.restore_power(&[cut]));
        let passed = restored.and_then(|()| self.pass(1_000, 3_000));
        self.resume(&[last]);
        self.fault(FaultKind::Pause, &[first, last], begin, paused, "processes paused");
        passed
    }

    /// An orderly restart is no fault: it must not even be noticed.
    fn play_restart(&mut self, count: usize) -> Result<()> {
        let begin = self.random.below(NODES);
        for node in (begin..begin + count).map(|node| node % NODES) {
            let status = self.cluster.node(node).stop();
            self.links.set_process(node, None);
            if !status.success() {
                return Err(Ended::Failed(format!(
                    "n{} ended with {status} after SIGTERM",
                    node + 1
                )));
            }
            self.start(&[node]);
            self.wait_progress(PROGRESS_MEANWHILE, "after an orderly restart")?;
        }
        Ok(())
    }

    fn play_links(&mut self, cut: Cut, rule: Rule) -> Result<()> {
        let mut rules = Rules::pass(NODES);
        match cut {
            Cut::Isolate(whom) => {
                let node = self.choose(whom)[0];
                rules = isolated(node, rule);
            }
            Cut::FromLeader => {
                let leader = self.leader();
                (0..NODES)
                    .filter(|other| *other != leader)
                    .for_each(|other| rules.set(leader, other, rule));
            }
            Cut::ToLeader => {
                let leader = self.leader();
                (0..NODES)
                    .filter(|other| *other != leader)
                    .for_each(|other| rules.set(other, leader, rule));
            }
            Cut::Bridge => {
                let leader = self.leader();
                let other = self.other_than(&[leader]);
                rules.set_both(leader, other, rule);
            }
            Cut::Shattered => rules = every_link(rule),
        }
        let evidence = match rule {
            Rule::Reset => "connections reset",
            _ => "chunks and connections held",
        };
        self.play_rules(FaultKind::LinkCut, &rules, evidence, 4_000)
    }

    fn play_rules(&mut self, kind: FaultKind, rules: &Rules, evidence: &str, most_ms: u64) -> Result<()> {
        let (begin, bitten) = (self.clock.now_ns(), self.links.bitten());
        self.links.set(rules.clone());
        let passed = self.pass(most_ms / 2, most_ms);
        self.links.heal();
        let bitten = self.links.bitten() - bitten;
        self.fault(kind, &[], begin, bitten, evidence);
        passed
    }

    fn play_flap(&mut self) -> Result<()> {
        let node = self.leader();
        let (begin, bitten) = (self.clock.now_ns(), self.links.bitten());
        let mut passed = Ok(());
        for flap in 0..FLAPS {
            let rule = if flap % 2 == 0 { Rule::Hold } else { Rule::Reset };
            self.links.set(isolated(node, rule));
            passed = passed.and(self.pass(50, 500));
            self.links.heal();
            passed = passed.and(self.pass(50, 500));
        }
        let bitten = self.links.bitten() - bitten;
        self.fault(
            FaultKind::LinkCut,
            &[node],
            begin,
            bitten,
            "chunks and connections held or reset",
        );
        passed
    }

    fn play_slow_disk(&mut self, whom: Whom) -> Result<()> {
        let nodes = self.choose(whom);
        let begin = self.clock.now_ns();
        self.attach(&nodes, Syncs::Crawl)?;
        let before = self.acknowledged();
        let passed = self.pass(2_000, 4_000);
        self.attached.clear();
        let bitten = self.acknowledged() - before;
        self.fault(
            FaultKind::DiskSlow,
            &nodes,
            begin,
            bitten,
            "records acknowledged meanwhile",
        );
        passed
    }

    pub(crate) fn attach(&mut self, nodes: &[usize], syncs: Syncs) -> Result<()> {
        for node in nodes {
            let process = self.cluster.nodes()[*node].pid();
            let process = process.ok_or_else(|| format!("n{} does not run", node + 1))?;
            self.attached.push(Attached::to(process, syncs)?);
        }
        Ok(())
    }

    /// A sync fails once. The node must not go on as if nothing were: what it wrote may be gone, and only a restart reads
    /// what the disk really holds. So it must end, and say so.
    fn play_failing_sync(&mut self, whom: Whom, syncs: Syncs) -> Result<()> {
        let node = self.choose(whom)[0];
        let begin = self.clock.now_ns();
        self.attach(&[node], syncs)?;
        let end = Instant::now() + HEAL_DEADLINE;
        let ended = loop {
            if let Some(status) = self.cluster.node(node).take_end() {
                break Some(status);
            }
            if Instant::now() > end {
                break None;
            }
            std::thread::sleep(POLL);
        };
        self.attached.clear();
        match ended {
            Some(status) if !status.success() => {}
            Some(status) => {
                return Err(Ended::Failed(format!(
                    "n{} ended with {status} after a failed sync",
                    node + 1
                )));
            }
            None => return Err(Ended::Failed(format!("n{} went on after a failed sync", node + 1))),
        }
        self.links.set_process(node, None);
        self.pass(0, 1_000)?;
        self.start(&[node]);
        self.fault(
            FaultKind::DiskError,
            &[node],
            begin,
            1,
            "nodes that ended after a failed sync",
        );
        Ok(())
    }

    /// Waits until each of the nodes has a sealed segment; with `own`, one that only it may damage.
    fn wait_sealed(&mut self, nodes: &[usize], own: bool) -> Result<()> {
        let begin = Instant::now();
        let lacks = |stage: &Self, node: &usize| {
            let data_dir = stage.cluster.nodes()[*node].data_dir();
            match own {
                true => !storage::has_own_sealed(data_dir, *node),
                false => !storage::has_sealed(data_dir),
            }
        };
        while nodes.iter().any(|node| lacks(self, node)) {
            if begin.elapsed() > ROLL_DEADLINE {
                return Err(Ended::Failed(format!("no segment was sealed within {ROLL_DEADLINE:?}")));
            }
            self.pass(POLL.as_millis() as u64, POLL.as_millis() as u64)?;
        }
        Ok(())
    }

    fn play_at_rest(&mut self, whom: Whom, change: Change) -> Result<()> {
        let nodes = self.choose(whom);
        if change.needs_sealed() {
            self.wait_sealed(&nodes, change == Change::SegmentGone)?;
        }
        let begin = self.clock.now_ns();
        self.kill(&nodes);
        let mut changed = 0;
        for node in &nodes {
            let data_dir = self.cluster.nodes()[*node].data_dir().to_owned();
            let done = storage::change(&data_dir, *node, change, &mut self.random);
            changed += done.map_err(|error| format!("{change:?} on n{}: {error}", node + 1))?;
        }
        self.make_certain(&nodes);
        self.start(&nodes);
        self.fault(
            FaultKind::BitRot,
            &nodes,
            begin,
            changed,
            "bytes or files changed at rest",
        );
        Ok(())
    }

    /// What was done to files by hand must not be taken back by the next power cut.
    fn make_certain(&self, nodes: &[usize]) {
        if !self.images.is_empty() {
            nodes.iter().for_each(|node| self.images[*node].write_back());
        }
    }

    /// Flips a bit in a sealed segment under the running node.
    fn play_rot_live(&mut self, whom: Whom) -> Result<()> {
        let nodes = self.choose(whom);
        self.wait_sealed(&nodes, false)?;
        let begin = self.clock.now_ns();
        let mut changed = 0;
        for node in &nodes {
            let data_dir = self.cluster.nodes()[*node].data_dir().to_owned();
            let done = storage::change(&data_dir, *node, Change::SealedBit, &mut self.random);
            changed += done.map_err(|error| format!("rot on n{}: {error}", node + 1))?;
        }
        self.fault(
            FaultKind::BitRot,
            &nodes,
            begin,
            changed,
            "bits changed under running nodes",
        );
        Ok(())
    }

    /// Nothing more fits; when there is room again everything goes on, and no node has ended.
    fn play_disk_full(&mut self, whom: Whom) -> Result<()> {
        let nodes = self.choose(whom);
        let begin = self.clock.now_ns();
        let mut filled = 0;
        for node in &nodes {
            filled += self.images[*node].fill()?;
        }
        let passed = self.pass(3_000, 5_000);
        self.notice_ended_nodes();
        for node in &nodes {
            self.images[*node].empty()?;
        }
        self.fault(FaultKind::DiskFull, &nodes, begin, filled, "bytes that filled disks");
        passed
    }

    fn play_wipe(&mut self) -> Result<()> {
        let node = self.random.below(NODES);
        let begin = self.clock.now_ns();
        self.kill(&[node]);
        let data_dir = self.cluster.nodes()[node].data_dir().to_owned();
        let wiped = storage::logs(&data_dir).map_or(0, |logs| logs.len() as u64);
        let emptied = fs::remove_dir_all(&data_dir).and_then(|()| fs::create_dir(&data_dir));
        emptied.map_err(|error| format!("cannot wipe n{}: {error}", node + 1))?;
        self.make_certain(&[node]);
        self.start(&[node]);
        self.fault(FaultKind::Wipe, &[node], begin, wiped, "logs removed");
        Ok(())
    }

    /// A backup put back: the node must not vote as the one that it was then.
    fn play_old_copy(&mut self) -> Result<()> {
        let node = self.leader();
        let data_dir = self.cluster.nodes()[node].data_dir().to_owned();
        let copy = self.place.path().join("old-copy");
        let cannot = |error: std::io::Error| format!("cannot put back an old copy of n{}: {error}", node + 1);
        self.kill(&[node]);
        storage::copy_directory(&data_dir, &copy).map_err(cannot)?;
        self.start(&[node]);
        self.wait_progress(OLD_COPY_AGE, "after a copy was made")?;
        let begin = self.clock.now_ns();
        self.kill(&[node]);
        let replaced = fs::remove_dir_all(&data_dir).and_then(|()| storage::copy_directory(&copy, &data_dir));
        replaced.and_then(|()| fs::remove_dir_all(&copy)).map_err(cannot)?;
        self.make_certain(&[node]);
        self.start(&[node]);
        self.fault(FaultKind::Wipe, &[node], begin, 1, "old copies put back");
        Ok(())
    }

    /// What one node said to have synced is gone, and it must not vote as if it had never had it.
    fn play_lies(&mut self) -> Result<()> {
        let node = self.leader();
        self.attach(&[node], Syncs::Lie)?;
        let lied = self.wait_progress(OLD_COPY_AGE, "while the syncs of one node lie");
        let cut = lied.and_then(|()| self.cut_power_now(&[node], true));
        self.attached.clear();
        cut?;
        self.restore_power(&[node])
    }
}

pub(crate) fn isolated(node: usize, rule: Rule) -> Rules {
    let mut rules = Rules::pass(NODES);
    rules.isolate(node, rule);
    rules
}

fn every_link(rule: Rule) -> Rules {
    let mut rules = Rules::pass(NODES);
    (0..NODES).for_each(|node| (0..node).for_each(|other| rules.set_both(node, other, rule)));
    rules
}
