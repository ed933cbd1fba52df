//! A reference log that keeps every promise, and the history of what its clients see.
//!
//! Three replicas of each of two partitions; leaders change, a deposed leader's last entry is cut, replicas restart with
//! all they promised, and tell watermarks and log starts that lag. Producers on the wire retry until they know or give
//! up with their id; producers by calls go on after an unknown outcome, and what is unknown lands at once, later or
//! never. Whatever happens is drawn from the seed.

use highwater_verify::history::{
    Dump, Freshness, Leader, LogEntry, Numbering, OffsetAnswer, OffsetKind, Poll, PollAnswer, PromiseKind, RecordId,
    RetentionAllowed, Scan, Seen, Send, SendOutcome,
};

use crate::script::{Item, digest, id, seen, span};

const REPLICAS: usize = 3;
const PARTITIONS: u32 = 2;
const PRODUCERS: usize = 4;
/// Longest time between the invocation, the effect and the return of an operation.
const DELAY_NS: u64 = 40;

/// A generator of numbers; small and fixed for ever, so that a seed stays what it is.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % end.max(1)
    }
}

/// A batch that may still land.
struct Wandering {
    partition: u32,
    first: RecordId,
    count: u32,
}

struct Producer {
    number: u32,
    numbering: Numbering,
    next_number: u32,
    sequences: [u64; PARTITIONS as usize],
}

struct Partition {
    number: u32,
    records: Vec<RecordId>,
    entries: Vec<LogEntry>,
    log_start: u64,
    term: u64,
    leader: u64,
    /// What each replica tells.
    told_end: [u64; REPLICAS],
    told_start: [u64; REPLICAS],
    votes: [Option<u64>; REPLICAS],
    positions: [u64; REPLICAS],
}

pub(crate) struct Reference {
    chance: Chance,
    now_ns: u64,
    items: Vec<Item>,
    partitions: Vec<Partition>,
    producers: Vec<Producer>,
    next_producer: u32,
    wandering: Vec<Wandering>,
}

/// The history of so many steps.
pub(crate) fn honest_history(seed: u64, steps: u32) -> Vec<Item> {
    let mut reference = Reference::new(seed);
    for _ in 0..steps {
        reference.step();
    }
    reference.finish()
}

impl Reference {
    fn new(seed: u64) -> Self {
        let partition = |number| Partition {
            number,
            records: Vec::new(),
            entries: Vec::new(),
            log_start: 0,
            term: 0,
            leader: 0,
            told_end: [0; REPLICAS],
            told_start: [0; REPLICAS],
            votes: [None; REPLICAS],
            positions: [0; REPLICAS],
        };
        let mut reference = Self {
            chance: Chance::new(seed),
            now_ns: 1_000,
            items: Vec::new(),
            partitions: (0..PARTITIONS).map(partition).collect(),
            producers: Vec::new(),
            next_producer: 0,
            wandering: Vec::new(),
        };
        for place in 0..PRODUCERS {
            let producer = reference.new_producer(place);
            reference.producers.push(producer);
        }
        (0..PARTITIONS as usize).for_each(|partition| reference.elect(partition));
        reference
    }

    fn new_producer(&mut self, place: usize) -> Producer {
        self.next_producer += 1;
        Producer {
            number: self.next_producer - 1,
            numbering: if place.is_multiple_of(2) {
                Numbering::Wire
            } else {
                Numbering::Calls
            },
            next_number: 0,
            sequences: [0; PARTITIONS as usize],
        }
    }

    fn step(&mut self) {
        self.now_ns += 1 + self.chance.below(DELAY_NS / 2);
        let partition = self.chance.below(u64::from(PARTITIONS)) as usize;
        match self.chance.below(24) {
            0..10 => self.send(partition),
            10..16 => self.poll(partition),
            16 | 17 => self.ask(partition),
            18 => self.trim(partition),
            19 => self.land(),
            20 => self.elect(partition),
            21 => self.restart(partition),
            22 => self.dump(partition, false),
            _ => self.catch_up(partition),
        }
    }

    /// Invoked before now, answered after it.
    fn around_now(&mut self) -> (u64, u64) {
        let before = self.chance.below(DELAY_NS);
        let after = 1 + self.chance.below(DELAY_NS);
        (self.now_ns - before, self.now_ns + after)
    }

    fn append(&mut self, partition: usize, first: RecordId, count: u32) -> u64 {
        let partition = &mut self.partitions[partition];
        let base_offset = partition.records.len() as u64;
        partition.push_entry(count);
        let numbers = (0..count).map(|place| id(first.producer, first.number + place));
        partition.records.extend(numbers);
        let quorum = self.replicate_on_quorum(base_offset);
        debug_assert!(quorum >= 2);
        base_offset
    }

    /// Two or three replicas acknowledge, then the leader tells that it is committed.
    fn replicate_on_quorum(&mut self, chosen_by: u64) -> u32 {
        let lazy = (self.chance.below(2) == 0).then_some(chosen_by % REPLICAS as u64);
        let mut acknowledged = 0;
        for place in 0..self.partitions.len() {
            let (index_end, term) = self.partitions[place].end();
            for replica in (0..REPLICAS as u64).filter(|replica| lazy != Some(*replica)) {
                self.promise(place, replica, PromiseKind::Acked { index_end, term });
                acknowledged += 1;
            }
            let leader = self.partitions[place].leader;
            self.promise(place, leader, PromiseKind::Published { index_end, quorum: 2 });
        }
        acknowledged
    }

    fn promise(&mut self, partition: usize, replica: u64, kind: PromiseKind) {
        self.items.push(Item::Promise(highwater_verify::history::Promise {
            at_ns: self.now_ns,
            partition: partition as u32,
            replica,
            kind,
        }));
    }

    fn send(&mut self, partition: usize) {
        let place = self.chance.below(PRODUCERS as u64) as usize;
        let count = 1 + self.chance.below(4) as u32;
        let producer = &mut self.producers[place];
        let first = id(producer.number, producer.next_number);
        producer.next_number += count;
        let sequence = producer.sequences[partition];
        producer.sequences[partition] += 1;
        let numbering = producer.numbering;
        let outcome = match self.chance.below(10) {
            0 => SendOutcome::Refused,
            1 => {
                let _ = self.append(partition, first, count);
                SendOutcome::Unknown
            }
            2 => {
                let partition = partition as u32;
                self.wandering.push(Wandering {
                    partition,
                    first,
                    count,
                });
                SendOutcome::Unknown
            }
            _ => SendOutcome::Appended {
                base_offset: self.append(partition, first, count),
            },
        };
        if outcome == SendOutcome::Unknown && numbering == Numbering::Wire {
            self.producers[place] = self.new_producer(place);
        }
        let (invoked_ns, returned_ns) = self.around_now();
        let send = Send {
            span: span(place as u32, invoked_ns, returned_ns),
            partition: partition as u32,
            producer: first.producer,
            numbering,
            sequence,
            first_number: first.number,
            outcome,
        };
        let digests = (0..count).map(|place| digest(id(first.producer, first.number + place)));
        self.items.push(Item::Send(send, digests.collect()));
    }

    /// Something unknown lands after all.
    fn land(&mut self) {
        if self.wandering.is_empty() {
            return;
        }
        let which = self.chance.below(self.wandering.len() as u64) as usize;
        let Wandering {
            partition,
            first,
            count,
        } = self.wandering.swap_remove(which);
        let _ = self.append(partition as usize, first, count);
    }

    fn poll(&mut self, partition: usize) {
        let replica = self.chance.below(REPLICAS as u64) as usize;
        let kind = self.chance.below(4);
        let wanted = self.chance.below(5);
        let (invoked_ns, returned_ns) = self.around_now();
        let state = &mut self.partitions[partition];
        let end = state.records.len() as u64;
        let freshness = match kind {
            0 => Freshness::Linearizable,
            1 => Freshness::MinOffset {
                offset: end.saturating_sub(wanted),
            },
            _ => Freshness::Committed,
        };
        match freshness {
            Freshness::Linearizable => state.told_end[replica] = end,
            Freshness::MinOffset { offset } => state.told_end[replica] = state.told_end[replica].max(offset),
            Freshness::Committed => {}
        }
        let (from, high_watermark) = (state.positions[replica], state.told_end[replica]);
        let (answer, seen) = if from < state.told_start[replica] {
            let log_start = state.told_start[replica];
            state.positions[replica] = log_start;
            let high_watermark = high_watermark.max(log_start);
            state.told_end[replica] = high_watermark;
            (
                PollAnswer::OutOfRange {
                    log_start,
                    high_watermark,
                },
                vec![],
            )
        } else {
            let to = high_watermark.min(from + 1 + wanted * 2).max(from);
            state.positions[replica] = to;
            (PollAnswer::Records { high_watermark }, state.seen(from, to))
        };
        let poll = Poll {
            span: span(100 + (partition * REPLICAS + replica) as u32, invoked_ns, returned_ns),
            partition: partition as u32,
            node: replica as u32,
            from,
            freshness,
            answer,
        };
        self.items.push(Item::Poll(poll, seen));
    }

    fn ask(&mut self, partition: usize) {
        let earliest = self.chance.below(2) == 0;
        let (invoked_ns, returned_ns) = self.around_now();
        let state = &self.partitions[partition];
        let (kind, offset) = match earliest {
            true => (OffsetKind::Earliest, state.log_start),
            false => (OffsetKind::Latest, state.records.len() as u64),
        };
        self.items.push(Item::Offset(OffsetAnswer {
            span: span(200, invoked_ns, returned_ns),
            partition: partition as u32,
            kind,
            offset,
        }));
    }

    fn trim(&mut self, partition: usize) {
        let wanted = self.chance.below(4);
        let state = &mut self.partitions[partition];
        state.log_start = (state.log_start + wanted)
            .min(state.records.len() as u64 / 2)
            .max(state.log_start);
        state.push_entry(0);
        self.items.push(Item::Retention(RetentionAllowed {
            at_ns: self.now_ns,
            partition: partition as u32,
            up_to: state.log_start,
        }));
    }

    /// A new leader; now and then the old one had an entry that nobody else has.
    fn elect(&mut self, partition: usize) {
        let (end, last_term) = self.partitions[partition].end();
        let (old_leader, old_term) = (self.partitions[partition].leader, self.partitions[partition].term);
        let leftover = old_term > 0 && self.chance.below(2) == 0;
        if leftover {
            let kind = PromiseKind::Acked {
                index_end: end + 1,
                term: old_term,
            };
            self.promise(partition, old_leader, kind);
        }
        let leader = (old_leader + 1) % REPLICAS as u64;
        let term = old_term + 1;
        for replica in (0..REPLICAS as u64).filter(|replica| *replica != old_leader) {
            self.promise(
                partition,
                replica,
                PromiseKind::Voted {
                    term,
                    candidate: leader,
                },
            );
            self.partitions[partition].votes[replica as usize] = Some(leader);
        }
        let at_ns = self.now_ns;
        let number = partition as u32;
        self.items.push(Item::Leader(Leader {
            at_ns,
            partition: number,
            replica: leader,
            term,
        }));
        let state = &mut self.partitions[partition];
        (state.term, state.leader) = (term, leader);
        state.votes[old_leader as usize] = None;
        if leftover {
            let kind = PromiseKind::Truncated {
                index_end: end,
                leader_term: term,
            };
            self.promise(partition, old_leader, kind);
        }
        debug_assert!(last_term <= term);
        self.partitions[partition].push_entry(0);
    }

    /// A replica restarts and holds everything; some keep a vote of the present term.
    fn restart(&mut self, partition: usize) {
        let replica = self.chance.below(REPLICAS as u64);
        let state = &self.partitions[partition];
        let (index_end, last_term) = state.end();
        let kind = PromiseKind::Restarted {
            index_end,
            last_term,
            vote_term: state.term,
            voted_for: state.votes[replica as usize],
        };
        self.promise(partition, replica, kind);
    }

    fn catch_up(&mut self, partition: usize) {
        let replica = self.chance.below(REPLICAS as u64) as usize;
        let state = &mut self.partitions[partition];
        state.told_end[replica] = state.records.len() as u64;
        state.told_start[replica] = state.log_start;
    }

    fn dump(&mut self, partition: usize, last: bool) {
        let replica = self.chance.below(REPLICAS as u64);
        let lag = if last { 0 } else { self.chance.below(3) };
        let state = &self.partitions[partition];
        let floor = self.items.len() % (state.entries.len() / 2 + 1);
        let dump = Dump {
            at_ns: self.now_ns,
            partition: partition as u32,
            replica,
            node: replica as u32,
            committed_end: (state.entries.len() as u64).saturating_sub(lag),
            last,
        };
        self.items.push(Item::Dump(dump, state.entries[floor..].to_vec()));
    }

    fn finish(mut self) -> Vec<Item> {
        self.now_ns += 10 * DELAY_NS;
        for partition in 0..self.partitions.len() {
            for node in 0..REPLICAS as u32 {
                self.dump(partition, true);
                let (invoked_ns, returned_ns) = (self.now_ns, self.now_ns + 50);
                let state = &self.partitions[partition];
                let end = state.records.len() as u64;
                let scan = Scan {
                    span: span(300 + node, invoked_ns, returned_ns),
                    partition: state.number,
                    node,
                    log_start: state.log_start,
                    end,
                };
                self.items.push(Item::Scan(scan, state.seen(state.log_start, end)));
            }
        }
        self.items
    }
}

impl Partition {
    fn seen(&self, start: u64, end: u64) -> Vec<Seen> {
        let part = &self.records[start as usize..end as usize];
        (start..).zip(part).map(|(offset, id)| seen(offset, *id)).collect()
    }

    /// The index behind the last entry, and that entry's term.
    fn end(&self) -> (u64, u64) {
        let term = self.entries.last().map_or(0, |entry| entry.term);
        (self.entries.len() as u64, term)
    }

    fn push_entry(&mut self, record_count: u32) {
        let index = self.entries.len() as u64;
        let before = self.entries.last().map_or(0, |entry| entry.chain);
        self.entries.push(LogEntry {
            index,
            term: self.term,
            base_offset: self.records.len() as u64,
            chain: before.rotate_left(7) ^ (index * 31 + self.term),
            record_count,
            payload_crc: (index * 17) as u32,
            kind: u8::from(record_count > 0),
            verdict: 0,
        });
    }
}
