//! The faults: what is done to the world, drawn from the seed's plan.

use std::path::Path;
use std::sync::Arc;

use highwater_log::Disk;
use highwater_log::disk::simulated::{Fault, Keep};
use highwater_verify::history::{FaultKind, NODE_UNKNOWN};

use super::node::{FULL_BYTES, draw_keep, log_dir, restart_later, start_if_down};
use super::old_copy::restore_later;
use super::plan::Act;
use super::replacement::wipe;
use super::rot::{rot, rot_unopenable};
use super::world::{End, World, sleep_ms};
use crate::random::Random;

/// Every so often nothing happens for a while: without that, some seeds only ever see elections.
const QUIET_EVERY_MS: u64 = 20_000;
const QUIET_MS: u64 = 5_000;

/// Does faults until the run's time is over.
pub(crate) async fn rage(world: Arc<World>) {
    let mut nemesis = Nemesis {
        random: Random::stream(world.plan.seed, "nemesis", 0),
        world,
    };
    sleep_ms(2_000).await; // a first leader
    while nemesis.world.now_ms() < nemesis.world.plan.run_ms {
        let gap_ms = nemesis.random.between(1, 2 * nemesis.world.plan.gap_ms);
        sleep_ms(gap_ms).await;
        if nemesis.world.now_ms() % QUIET_EVERY_MS > QUIET_EVERY_MS - QUIET_MS {
            continue;
        }
        if nemesis.world.is_truce() {
            continue;
        }
        let act = nemesis.world.plan.draw(&mut nemesis.random);
        nemesis.act(act);
    }
}

struct Nemesis {
    world: Arc<World>,
    random: Random,
}

impl Nemesis {
    fn act(&mut self, act: Act) {
        self.world.note(format_args!("fault {act:?}"));
        match act {
            Act::CrashOne => {
                let node = self.node();
                let end = self.end();
                self.crash(node, end);
            }
            Act::CrashMajority => self.crash_many(self.world.plan.nodes / 2 + 1),
            Act::CrashAll => self.crash_many(self.world.plan.nodes),
            Act::CrashInRound => self.crash_in_round(),
            Act::Split => self.split(),
            Act::IsolateLeader => {
                if let Some(leader) = self.world.leader() {
                    self.isolate(leader);
                }
            }
            Act::OneWay => self.one_way(),
            Act::Tangle => self.tangle(),
            Act::SlowDisk => self.slow_disk(),
            Act::Lossy => self.lossy(),
            Act::DiskError => self.disk_error(true),
            Act::SyncError => self.disk_error(false),
            Act::Transfer => self.transfer(),
            Act::CutThenCrash => self.cut_then_crash(),
            Act::Wipe => {
                let node = self.node();
                let end = self.end();
                wipe(&self.world, node, end);
            }
            Act::DamageVote => self.damage_vote(),
            Act::Rot => {
                let node = self.node();
                rot(&self.world, node, &mut self.random.fork());
            }
            Act::RotUnopenable => {
                let node = self.node();
                rot_unopenable(&self.world, node, &mut self.random.fork());
            }
            Act::FullDisk => self.full_disk(),
            Act::OldCopy => {
                let node = self.node();
                restore_later(&self.world, node, &mut self.random.fork());
            }
        }
    }

    fn node(&mut self) -> usize {
        self.random.place(self.world.plan.nodes)
    }

    fn end(&mut self) -> End {
        if self.random.permille(250) {
            return End::Kill;
        }
        End::PowerCut(draw_keep(&self.world))
    }

    fn crash(&mut self, node: usize, end: End) {
        if self.world.end_life(node, end) {
            restart_later(&self.world, node);
        }
    }

    /// One event for many nodes: the same instant, each keeps what its disk keeps.
    fn crash_many(&mut self, count: usize) {
        let nodes = self.world.plan.nodes;
        let first = self.random.place(nodes);
        let keep_nothing = self.random.permille(500);
        for number in 0..count {
            let keep = if keep_nothing {
                Keep::Nothing
            } else {
                draw_keep(&self.world)
            };
            self.crash((first + number) % nodes, End::PowerCut(keep));
        }
    }

    /// The power fails at one of the next operations of a disk.
    fn crash_in_round(&mut self) {
        let node = match self.world.leader() {
            Some(leader) if self.random.permille(500) => leader,
            _ => self.node(),
        };
        let ahead = self.random.between(1, 12);
        let nodes = self.world.nodes();
        if nodes[node].running.is_some() {
            let disk = &nodes[node].disk;
            disk.fault_at(disk.operations() + ahead, Fault::Crash);
        }
    }

    /// Blocks links for a while.
    fn block(&mut self, links: Vec<(usize, usize)>) {
        let lasts_ms = self.random.between(50, 4_000);
        let (world, begin_ns, harmed) = (self.world.clone(), self.world.now_ns(), self.world.network.harmed());
        for (from, to) in &links {
            world.network.block(*from, *to);
        }
        tokio::spawn(async move {
            sleep_ms(lasts_ms).await;
            for (from, to) in &links {
                world.network.unblock(*from, *to);
            }
            let stopped = world.network.harmed() - harmed;
            world.fault(FaultKind::LinkCut, NODE_UNKNOWN, begin_ns, stopped, "messages stopped");
        });
    }

    fn split(&mut self) {
        let nodes = self.world.plan.nodes;
        let side: Vec<bool> = (0..nodes).map(|_| self.random.permille(500)).collect();
        let links = pairs(nodes).filter(|(from, to)| side[*from] != side[*to]);
        self.block(links.collect());
    }

    fn isolate(&mut self, node: usize) {
        let links = pairs(self.world.plan.nodes).filter(|(from, to)| *from == node || *to == node);
        self.block(links.collect());
    }

    fn one_way(&mut self) {
        let nodes = self.world.plan.nodes;
        let from = self.node();
        let to = (from + 1 + self.random.place(nodes - 1)) % nodes;
        self.block(vec![(from, to)]);
    }

    /// Leaders come and go that reach only a part of the group, so entries of several terms lie about uncommitted.
    fn tangle(&mut self) {
        let (rounds, each_ms) = (self.random.between(2, 5), self.random.between(400, 1_600));
        let (world, mut random) = (self.world.clone(), self.random.fork());
        let (begin_ns, harmed) = (world.now_ns(), world.network.harmed());
        tokio::spawn(async move {
            for _ in 0..rounds {
                let mut links: Vec<(usize, usize)> = Vec::new();
                for (one, other) in pairs(world.plan.nodes).filter(|(one, other)| one < other) {
                    if random.permille(450) {
                        links.extend([(one, other), (other, one)]);
                    }
                }
                links.iter().for_each(|(from, to)| world.network.block(*from, *to));
                let lasts_ms = random.between(each_ms / 2, each_ms * 3 / 2);
                sleep_ms(lasts_ms).await;
                links.iter().for_each(|(from, to)| world.network.unblock(*from, *to));
            }
            let stopped = world.network.harmed() - harmed;
            world.fault(FaultKind::LinkCut, NODE_UNKNOWN, begin_ns, stopped, "messages stopped");
        });
    }

    fn slow_disk(&mut self) {
        let node = self.node();
        let (slowness, lasts_ms) = (self.random.pick(&[5, 20, 60]), self.random.between(100, 5_000));
        let (world, begin_ns) = (self.world.clone(), self.world.now_ns());
        world.nodes()[node].slowness = slowness;
        tokio::spawn(async move {
            sleep_ms(lasts_ms).await;
            world.nodes()[node].slowness = 1;
            world.fault(FaultKind::DiskSlow, node as u32, begin_ns, slowness, "times slower");
        });
    }

    /// There is little or no room on a disk, or on all of them.
    fn full_disk(&mut self) {
        let nodes = self.world.plan.nodes;
        let (first, all) = (self.node(), self.random.permille(300));
        let (free, lasts_ms) = (self.random.below(FULL_BYTES), self.random.between(500, 8_000));
        for node in (0..if all { nodes } else { 1 }).map(|number| (first + number) % nodes) {
            let disk = {
                let mut nodes = self.world.nodes();
                nodes[node].was_full = false;
                nodes[node].disk.clone()
            };
            disk.set_capacity(None);
            let used = u64::MAX - disk.free_bytes(Path::new("/")).unwrap_or(u64::MAX);
            disk.set_capacity(Some(used + free));
            let (world, begin_ns) = (self.world.clone(), self.world.now_ns());
            tokio::spawn(async move {
                sleep_ms(lasts_ms).await;
                disk.set_capacity(None);
                let bitten = { u64::from(world.nodes()[node].was_full) };
                world.fault(FaultKind::DiskFull, node as u32, begin_ns, bitten, "disks found full");
            });
        }
    }

    fn lossy(&mut self) {
        let lasts_ms = self.random.between(200, 5_000);
        let (world, begin_ns, harmed) = (self.world.clone(), self.world.now_ns(), self.world.network.harmed());
        world.network.make_lossy(true);
        tokio::spawn(async move {
            sleep_ms(lasts_ms).await;
            world.network.make_lossy(false);
            let harmed = world.network.harmed() - harmed;
            world.fault(FaultKind::LinkLossy, NODE_UNKNOWN, begin_ns, harmed, "messages harmed");
        });
    }

    /// One of the next operations of a disk fails; the process must end and be started again, with or without its machine.
    fn disk_error(&mut self, reboots: bool) {
        let node = self.node();
        let ahead = self.random.between(1, 10);
        let mut nodes = self.world.nodes();
        let node = &mut nodes[node];
        if node.running.is_some() {
            node.disk_fault = true;
            node.reboots = reboots;
            node.disk.fault_at(node.disk.operations() + ahead, Fault::Fail);
        }
    }

    /// Both copies of a vote rot while the node is down.
    fn damage_vote(&mut self) {
        let node = self.node();
        if !self.world.begin_replacement() {
            return;
        }
        self.world.end_life(node, End::PowerCut(Keep::Everything));
        let dir = log_dir(self.world.replica(node));
        let damaged = {
            let mut nodes = self.world.nodes();
            let node = &mut nodes[node];
            let byte = self.random.below(100);
            let flip = |slot: u64| node.disk.flip(&dir.join("hard-state"), slot + byte, 0x10);
            node.vote_damaged = flip(0) && flip(4_096);
            node.vote_damaged
        };
        if !damaged {
            self.world.end_replacement();
        }
        self.world.fault(
            FaultKind::BitRot,
            node as u32,
            self.world.now_ns(),
            2 * u64::from(damaged),
            "copies of a vote damaged",
        );
        restart_later(&self.world, node);
    }

    fn transfer(&mut self) {
        let Some(leader) = self.world.leader() else { return };
        let node = self.node();
        let to = self.world.replica(node);
        if let Some((partition, life, _)) = self.world.serving(leader) {
            drop(life.spawn(
                self.world.task_seed(),
                async move { partition.transfer_leader(to).await },
            ));
        }
    }

    /// The old leader goes on alone, then dies: what it alone had must not count.
    fn cut_then_crash(&mut self) {
        let Some(leader) = self.world.leader() else { return };
        self.isolate(leader);
        let (after_ms, keep) = (self.random.between(1, 2_500), draw_keep(&self.world));
        let world = self.world.clone();
        tokio::spawn(async move {
            sleep_ms(after_ms).await;
            if world.end_life(leader, End::PowerCut(keep)) {
                sleep_ms(after_ms / 2).await;
                start_if_down(&world, leader).await;
            }
        });
    }
}

/// All links.
fn pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |from| (0..nodes).map(move |to| (from, to)))
}
