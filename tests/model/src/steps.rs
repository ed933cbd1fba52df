//! What can happen, one step at a time, and what it does.
//!
//! A message and its answer are one step. That a message is lost is that the step does not happen. Everything a replica says is on its
//! disk before: lost syncs are the simulation's business. A quorum counts at once, so that as much as possible is promised.

use crate::disk::{Disk, Entry, Id, Ids, NEW, REPLICAS, What};
use crate::few::Few;
use crate::rules::{Bounds, Mistake, StayedUp};
use crate::world::{Broken, Harm, Life, World};

/// One behind the last id.
const ALL: Id = REPLICAS as Id;

/// A step. Harm and repair are replica 0's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Stands for election in the next term.
    Campaign(Id),
    /// The first asks the second for its vote.
    AskVote(Id, Id),
    /// The leader appends an entry.
    Append(Id, What),
    /// The leader sends all that the other lacks.
    Replicate(Id, Id),
    /// Ends without warning.
    Crash(Id),
    /// Starts again; of the others these answer.
    Start(Id, Ids),
    /// The directory is removed.
    Wipe,
    /// The directory is copied.
    Copy,
    /// The copy takes the directory's place.
    PutBack,
    /// The vote is found to be lost.
    LoseVote,
    /// What is not known to be committed is found to be lost.
    LoseEnd,
    /// An entry that is known to be committed rots, and is found to be bad.
    Rot(usize),
    /// The first bad entry is taken from another replica.
    Refill(Id),
    /// The catalog gives the place of this one to the new id.
    Replace(Id),
}

/// A world's bounds, and the mistake made in it.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What can happen.
    pub bounds: Bounds,
    /// What is done wrong.
    pub mistake: Option<Mistake>,
}

impl Rules {
    fn made(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// All steps that could be taken; `apply` tells which can.
    pub fn steps(&self, steps: &mut Vec<Step>) {
        for id in 0..ALL {
            steps.extend([Step::Campaign(id), Step::Append(id, What::Record), Step::Crash(id)]);
            let others = (0..ALL).filter(|other| *other != id);
            steps.extend(others.flat_map(|other| [Step::AskVote(id, other), Step::Replicate(id, other)]));
            steps.push(Step::Start(id, !0));
        }
        let bounds = &self.bounds;
        if bounds.copy == Some(StayedUp::AllOneAnswers) {
            steps.extend([Step::Start(0, 0b010), Step::Start(0, 0b100)]);
        }
        if bounds.copy.is_some() {
            steps.extend([Step::Copy, Step::PutBack]);
        }
        if bounds.wipe {
            steps.push(Step::Wipe);
        }
        if bounds.lose {
            steps.extend([Step::LoseVote, Step::LoseEnd]);
        }
        if bounds.rot > 0 {
            steps.extend((0..bounds.entries).map(Step::Rot));
            steps.extend((1..ALL).map(Step::Refill));
        }
        if bounds.replace {
            for dead in 0..NEW {
                steps.push(Step::Replace(dead));
                for leader in 0..ALL {
                    steps.push(Step::Append(leader, What::Joint(dead)));
                    steps.push(Step::Append(leader, What::Swapped(dead)));
                }
            }
        }
    }

    /// Takes the step, if it can be taken.
    pub fn apply(&self, world: &mut World, step: Step) -> Option<()> {
        match step {
            Step::Campaign(id) => self.campaign(world, id),
            Step::AskVote(candidate, voter) => self.ask_vote(world, candidate, voter),
            Step::Append(leader, what) => self.append(world, leader, what),
            Step::Replicate(leader, follower) => self.replicate(world, leader, follower),
            Step::Crash(id) => self.crash(world, id),
            Step::Start(id, answers) => self.start(world, id, answers),
            Step::Refill(from) => self.refill(world, from),
            Step::Replace(dead) => replace(world, dead),
            Step::Rot(index) => rot(world, index),
            Step::Copy => copy(world),
            Step::PutBack => {
                down_and_whole(world)?;
                world.replicas[0].disk = world.copy.take()?;
                world.replicas[0].harm = Harm::OldCopy;
                Some(())
            }
            Step::Wipe => {
                take_harm(world)?;
                harm(world, Harm::Wiped, Disk::default())
            }
            Step::LoseVote => {
                take_harm(world)?;
                let disk = world.replicas[0].disk;
                let rest = Disk {
                    term: 0,
                    voted_for: None,
                    is_led: false,
                    ..disk
                };
                harm(world, Harm::VoteLost, rest)
            }
            Step::LoseEnd => {
                take_harm(world)?;
                let mut rest = world.replicas[0].disk;
                rest.log.truncate(rest.commit.into());
                harm(world, Harm::EndLost, rest)
            }
        }
    }

    fn campaign(&self, world: &mut World, id: Id) -> Option<()> {
        let replica = &mut world.replicas[at(id)];
        let standing = matches!(replica.life, Life::Follower | Life::Candidate(_));
        let disk = &mut replica.disk;
        if !standing || !disk.voters().hold(id) || disk.term >= self.bounds.terms || disk.first_bad().is_some() {
            return None;
        }
        disk.term += 1;
        disk.voted_for = Some(id);
        disk.is_led = false;
        replica.life = Life::Candidate(1 << id);
        Some(())
    }

    fn ask_vote(&self, world: &mut World, candidate: Id, voter: Id) -> Option<()> {
        let Life::Candidate(votes) = world.replicas[at(candidate)].life else {
            return None;
        };
        let asking = world.replicas[at(candidate)].disk;
        let asked = &mut world.replicas[at(voter)];
        if votes & (1 << voter) != 0 || !asked.runs() || !self.may_count(&asking, world.replaced, voter) {
            return None;
        }
        let fresh = asking.term > asked.disk.term;
        let same = asking.term == asked.disk.term && asked.disk.voted_for == Some(candidate);
        let granted = (fresh || same) && asking.end() >= asked.disk.end();
        if granted {
            asked.disk.term = asking.term;
            asked.disk.voted_for = Some(candidate);
            asked.disk.is_led = false;
            asked.life = Life::Follower;
        }
        if candidate == 0 {
            world.note(voter, Some(asking.end()));
        }
        if granted && voter == 0 {
            world.note(candidate, None);
        }
        if granted {
            self.count_vote(world, candidate, votes | (1 << voter));
        }
        Some(())
    }

    /// A learner that takes a dead one's place counts for it only by mistake.
    fn may_count(&self, disk: &Disk, replaced: Option<Id>, id: Id) -> bool {
        disk.voters().hold(id) || (id == NEW && replaced.is_some() && self.made(Mistake::NewCountsAsOld))
    }

    fn agree(&self, world: &World, disk: &Disk, mut ids: Ids) -> bool {
        if self.made(Mistake::NewCountsAsOld) && ids & (1 << NEW) != 0 {
            ids |= world.replaced.map_or(0, |old| 1 << old);
        }
        disk.voters().agree(ids)
    }

    fn count_vote(&self, world: &mut World, candidate: Id, votes: Ids) {
        if !self.agree(world, &world.replicas[at(candidate)].disk, votes) {
            world.replicas[at(candidate)].life = Life::Candidate(votes);
            return;
        }
        let replica = &mut world.replicas[at(candidate)];
        replica.life = Life::Leader([0; REPLICAS]);
        replica.disk.is_led = true;
        let term = replica.disk.term;
        if world.led & (1 << term) != 0 {
            world.broken = Some(Broken::TwoLeaders);
        }
        world.led |= 1 << term;
        let log = &world.replicas[at(candidate)].disk.log;
        let is_complete = log.len() >= world.committed.len()
            && world
                .committed
                .iter()
                .zip(log.iter())
                .all(|(entry, slot)| *entry == slot.entry);
        if term > world.committed_term && !is_complete {
            world.broken = Some(Broken::CommittedLost);
        }
    }

    fn append(&self, world: &mut World, leader: Id, what: What) -> Option<()> {
        let replica = &world.replicas[at(leader)];
        let Life::Leader(matched) = replica.life else {
            return None;
        };
        if replica.disk.log.len() >= self.bounds.entries {
            return None;
        }
        let log = &replica.disk.log;
        let last = log.iter().rposition(|slot| slot.entry.what != What::Record);
        match what {
            What::Record => {}
            What::Joint(dead) => {
                let caught_up = matched[at(NEW)] >= replica.disk.commit.max(1);
                let wanted = world.replaced == Some(dead) && last.is_none() && caught_up;
                if !wanted || self.made(Mistake::SwapInOneStep) {
                    return None;
                }
            }
            What::Swapped(dead) => {
                let joint = last
                    .is_some_and(|at| at < usize::from(replica.disk.commit) && log[at].entry.what == What::Joint(dead));
                let at_once = self.made(Mistake::SwapInOneStep) && world.replaced == Some(dead) && last.is_none();
                if !joint && !at_once {
                    return None;
                }
            }
        }
        let disk = &mut world.replicas[at(leader)].disk;
        let term = disk.term;
        disk.push(Entry { term, leader, what });
        self.commit(world, leader);
        Some(())
    }

    fn replicate(&self, world: &mut World, leader: Id, follower: Id) -> Option<()> {
        let Life::Leader(mut matched) = world.replicas[at(leader)].life else {
            return None;
        };
        let sent = world.replicas[at(leader)].disk;
        let receiver = &mut world.replicas[at(follower)];
        let is_member = sent.voters().hold(follower) || (follower == NEW && world.replaced.is_some());
        if !is_member || !receiver.runs() || receiver.disk.term > sent.term {
            return None;
        }
        let disk = &mut receiver.disk;
        let common = disk.common(&sent);
        if sent.log[common..].iter().any(|slot| slot.bad) {
            return None; // what is damaged here waits for its refill
        }
        if common < sent.log.len() {
            if usize::from(disk.commit) > common {
                world.broken = Some(Broken::CommittedLost);
            }
            disk.log.truncate(common);
            sent.log[common..].iter().for_each(|slot| disk.log.push(*slot));
        }
        disk.term = sent.term;
        disk.voted_for = Some(leader);
        disk.is_led = true;
        disk.commit = disk.commit.max(sent.commit);
        receiver.life = Life::Follower;
        matched[at(follower)] = sent.log.len() as u8;
        world.replicas[at(leader)].life = Life::Leader(matched);
        if follower == 0 {
            world.note(leader, Some(sent.end()));
        }
        if leader == 0 {
            let shown = !self.made(Mistake::LeaderShowsNothing);
            world.note(follower, shown.then(|| sent.end()));
        }
        self.commit(world, leader);
        Some(())
    }

    /// Commits what a quorum has and this leader's term made, and compares it with all that was ever committed.
    fn commit(&self, world: &mut World, leader: Id) {
        let Life::Leader(matched) = world.replicas[at(leader)].life else {
            return;
        };
        let disk = &world.replicas[at(leader)].disk;
        let has = |end: u8| {
            let others = (0..ALL).filter(|id| *id != leader && matched[at(*id)] >= end);
            others.fold(1 << leader, |ids: Ids, id| ids | (1 << id))
        };
        let ends = (disk.commit + 1..=disk.log.len() as u8).rev();
        let mut own = ends.filter(|end| disk.log[usize::from(end - 1)].entry.term == disk.term);
        let Some(end) = own.find(|end| self.agree(world, disk, has(*end))) else {
            return;
        };
        let known = world.committed.len();
        let end_at = usize::from(end);
        let entries: Few<Entry> = disk.log[..end_at].iter().map(|slot| slot.entry).collect();
        let shorter = known.min(end_at);
        if entries[..shorter] != world.committed[..shorter] {
            world.broken = Some(Broken::CommittedLost);
        }
        let term = disk.term;
        world.replicas[at(leader)].disk.commit = end;
        if end_at > known {
            world.committed = entries;
            world.committed_term = world.committed_term.max(term);
        }
    }

    fn crash(&self, world: &mut World, id: Id) -> Option<()> {
        if !world.replicas[at(id)].runs() || world.crashes == 0 || self.bounds.crash_of & (1 << id) == 0 {
            return None;
        }
        if world.is_copied && id != 0 {
            let stays = match self.bounds.copy? {
                StayedUp::Witnesses => world.witnesses & (1 << id) != 0,
                StayedUp::One => world.crashed & !(1 << id) != 0,
                StayedUp::AllOneAnswers => true,
            };
            if stays {
                return None;
            }
            world.crashed |= 1 << id;
        }
        world.crashes -= 1;
        world.replicas[at(id)].life = Life::Down;
        world.seen[at(id)] = None;
        Some(())
    }

    fn start(&self, world: &mut World, id: Id, answers: Ids) -> Option<()> {
        if world.replicas[at(id)].life != Life::Down {
            return None;
        }
        let harm = world.replicas[at(id)].harm;
        let goes_on = match harm {
            Harm::None | Harm::OldCopy => true,
            Harm::Wiped => self.made(Mistake::WipedVotes),
            Harm::VoteLost => self.made(Mistake::LostVoteVotes),
            Harm::EndLost => self.made(Mistake::LostEndVotes),
        };
        let is_forgotten = !self.is_remembered(world, answers);
        if id == 0 && !is_forgotten && harm == Harm::None {
            world.broken = Some(Broken::DeadForNothing);
        }
        let lives = goes_on && (id != 0 || is_forgotten);
        world.replicas[at(id)].life = if lives { Life::Follower } else { Life::Dead };
        if id == 0 && world.copy.is_none() {
            world.is_copied = false;
            world.witnesses = 0;
            world.crashed = 0;
        }
        Some(())
    }

    /// Whether one of the others that answer remembers more of replica 0 than its disk holds.
    fn is_remembered(&self, world: &World, answers: Ids) -> bool {
        if self.made(Mistake::Unasked) {
            return false;
        }
        let asked = (1..ALL).filter(|id| answers & (1 << id) != 0 && world.replicas[at(*id)].runs());
        let mut seen = asked.filter_map(|id| world.seen[at(id)]);
        seen.any(|mut seen| {
            if self.made(Mistake::LogEndsForgotten) {
                seen.end = None;
            }
            seen.is_more_than(&world.replicas[0].disk, self.made(Mistake::LogEndsOfAnyVote))
        })
    }

    fn refill(&self, world: &mut World, from: Id) -> Option<()> {
        let giver = &world.replicas[at(from)];
        let taker = &world.replicas[0];
        let index = taker.disk.first_bad().filter(|_| taker.runs() && giver.runs())?;
        let is_served = index < giver.disk.committed().len() || self.made(Mistake::RefillUncommitted);
        let slot = *giver.disk.log.get(index).filter(|slot| !slot.bad && is_served)?;
        let follows = giver.disk.chain_before(index) == taker.disk.chain_before(index);
        // what stands behind the range, or the mark at the log's end, knows the chain in front of it
        let is_last = taker.disk.log.get(index + 1).is_none_or(|behind| !behind.bad);
        let is_followed = !is_last || slot.chain == taker.disk.log[index].chain;
        let fits = follows && is_followed;
        if !fits && !self.made(Mistake::RefillUnchecked) {
            return None;
        }
        world.replicas[0].disk.log[index] = slot;
        Some(())
    }
}

/// Where the replica with this id stands.
fn at(id: Id) -> usize {
    id.into()
}

fn replace(world: &mut World, old: Id) -> Option<()> {
    let is_away = matches!(world.replicas[at(old)].life, Life::Down | Life::Dead);
    if world.replaced.is_some() || !is_away {
        return None;
    }
    world.replaced = Some(old);
    world.replicas[at(NEW)].life = Life::Follower;
    Some(())
}

fn rot(world: &mut World, index: usize) -> Option<()> {
    let replica = &mut world.replicas[0];
    let is_whole = matches!(replica.harm, Harm::None) && replica.life != Life::Dead;
    let commit = replica.disk.committed().len();
    let slot = replica.disk.log.get_mut(index)?;
    if !is_whole || index >= commit || slot.bad || world.rot == 0 {
        return None;
    }
    slot.bad = true;
    world.rot -= 1;
    Some(())
}

fn copy(world: &mut World) -> Option<()> {
    if world.replicas[0].harm != Harm::None || world.replicas[0].life == Life::Dead {
        return None;
    }
    take_harm(world)?;
    world.copy = Some(world.replicas[0].disk);
    world.is_copied = true;
    Some(())
}

fn down_and_whole(world: &World) -> Option<()> {
    let replica = &world.replicas[0];
    (replica.life == Life::Down && replica.harm == Harm::None).then_some(())
}

/// One harm to the whole disk is enough.
fn take_harm(world: &mut World) -> Option<()> {
    world.harms = world.harms.checked_sub(1)?;
    Some(())
}

fn harm(world: &mut World, harm: Harm, rest: Disk) -> Option<()> {
    down_and_whole(world)?;
    let replica = &mut world.replicas[0];
    if replica.disk == rest {
        return None; // nothing was there to be lost
    }
    replica.disk = rest;
    replica.harm = harm;
    Some(())
}
