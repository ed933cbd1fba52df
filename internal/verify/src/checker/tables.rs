//! Dense tables: each record by producer and number, each offset by partition, each event by partition.

use crate::history::{EventRef, History, OffsetKind, PollAnswer, RecordId, Send, SendOutcome};

/// No row, and no offset.
pub(crate) const NONE: u32 = u32::MAX;
/// No offset.
pub(crate) const NOWHERE: u64 = u64::MAX;
/// Tables may be this much larger than their use, in entries.
const SLACK: usize = 4_096;

/// A record as sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Its row among the sends.
    pub(crate) send: u32,
    /// Where it was first told to be.
    pub(crate) offset: u64,
}

/// An offset as first told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) id: RecordId,
    pub(crate) source: EventRef,
}

impl Slot {
    pub(crate) fn is_acknowledged(slot: &Option<Slot>) -> bool {
        slot.is_some_and(|slot| matches!(slot.source, EventRef::Send(_)))
    }
}

pub(crate) struct Tables {
    producers: Vec<Vec<Sent>>,
    /// By partition and offset.
    pub(crate) slots: Vec<Vec<Option<Slot>>>,
    /// By partition: no sound log has an offset this high.
    pub(crate) slots_max: Vec<usize>,
}

impl Tables {
    /// Tables of all that was sent, with empty slots. An error if the numbers are not the dense ones asked for.
    pub(crate) fn new(history: &History) -> Result<Self, String> {
        let partitions = history.partition_count();
        let mut sent_in = vec![0usize; partitions];
        let mut producers: Vec<Vec<Sent>> = Vec::new();
        let unsent = Sent {
            send: NONE,
            offset: NOWHERE,
        };
        for (number, row) in history.sends.iter().enumerate() {
            let send = &row.event;
            sent_in[send.partition as usize] += row.count as usize;
            let producer = send.producer as usize;
            if producers.len() <= producer {
                producers.resize_with(producer + 1, Vec::new);
            }
            let first = send.first_number as usize;
            let end = first + row.count as usize;
            if end > 4 * history.digests.len() + SLACK {
                return Err(format!(
                    "records of producer {producer} are not numbered densely: {end}"
                ));
            }
            let table = &mut producers[producer];
            if table.len() < end {
                table.resize(end, unsent);
            }
            for (place, sent) in table[first..end].iter_mut().enumerate() {
                if sent.send != NONE {
                    let record = first + place;
                    return Err(format!("record {producer}:{record} is recorded as sent twice"));
                }
                sent.send = number as u32;
            }
        }
        Ok(Self {
            producers,
            slots: vec![Vec::new(); partitions],
            slots_max: sent_in.iter().map(|sent| 2 * sent + SLACK).collect(),
        })
    }

    pub(crate) fn sent(&self, id: RecordId) -> Option<Sent> {
        let sent = self.producers.get(id.producer as usize)?.get(id.number as usize)?;
        (sent.send != NONE).then_some(*sent)
    }

    pub(crate) fn set_offset(&mut self, id: RecordId, offset: u64) {
        let table = self.producers.get_mut(id.producer as usize);
        if let Some(sent) = table.and_then(|table| table.get_mut(id.number as usize)) {
            sent.offset = offset;
        }
    }

    /// The slot of an offset, or nothing if no sound log has such an offset.
    pub(crate) fn slot(&mut self, partition: u32, offset: u64) -> Option<&mut Option<Slot>> {
        let partition = partition as usize;
        let place = usize::try_from(offset).ok()?;
        if place >= *self.slots_max.get(partition)? {
            return None;
        }
        let slots = self.slots.get_mut(partition)?;
        if slots.len() <= place {
            slots.resize(place + 1, None);
        }
        slots.get_mut(place)
    }

    /// Where a record of a send was told to be.
    pub(crate) fn offset_of(&self, send: &Send, place: u32) -> Option<u64> {
        let id = RecordId {
            producer: send.producer,
            number: send.first_number + place,
        };
        self.sent(id)
            .map(|sent| sent.offset)
            .filter(|offset| *offset != NOWHERE)
    }

    /// Slots of a partition from one offset to another (exclusive, both cut to what is known), each with its offset.
    pub(crate) fn slots_in(&self, partition: u32, start: u64, end: u64) -> impl Iterator<Item = (u64, &Option<Slot>)> {
        let slots = self.slots.get(partition as usize).map_or(&[][..], Vec::as_slice);
        let cut = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(slots.len());
        let (start, end) = (cut(start), cut(end));
        let part = slots.get(start..end.max(start)).unwrap_or_default();
        (start as u64..).zip(part)
    }
}

/// The rows that concern one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    pub(crate) sends: Vec<u32>,
    pub(crate) polls: Vec<u32>,
    pub(crate) offsets: Vec<u32>,
    pub(crate) scans: Vec<u32>,
    pub(crate) dumps: Vec<u32>,
    pub(crate) promises: Vec<u32>,
    pub(crate) leaders: Vec<u32>,
    pub(crate) handouts: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    /// What the final scans, or else nothing, say about the log.
    pub(crate) last: Option<Extent>,
}

/// Where a log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The lowest log start.
    pub(crate) start: u64,
    /// The highest end, exclusive.
    pub(crate) end: u64,
}

pub(crate) struct Groups {
    pub(crate) partitions: Vec<Group>,
}

impl Groups {
    pub(crate) fn new(history: &History) -> Self {
        let mut groups = vec![Group::default(); history.partition_count()];
        let mut put = |partition: u32, number: usize, list: fn(&mut Group) -> &mut Vec<u32>| {
            list(&mut groups[partition as usize]).push(number as u32);
        };
        for (number, row) in history.sends.iter().enumerate() {
            put(row.event.partition, number, |group| &mut group.sends);
        }
        for (number, row) in history.polls.iter().enumerate() {
            put(row.event.partition, number, |group| &mut group.polls);
        }
        for (number, answer) in history.offsets.iter().enumerate() {
            put(answer.partition, number, |group| &mut group.offsets);
        }
        for (number, row) in history.scans.iter().enumerate() {
            put(row.event.partition, number, |group| &mut group.scans);
        }
        for (number, row) in history.dumps.iter().enumerate() {
            put(row.event.partition, number, |group| &mut group.dumps);
        }
        for (number, promise) in history.promises.iter().enumerate() {
            put(promise.partition, number, |group| &mut group.promises);
        }
        for (number, handout) in history.handouts.iter().enumerate() {
            put(handout.partition, number, |group| &mut group.handouts);
        }
        for (number, position) in history.positions.iter().enumerate() {
            put(position.partition, number, |group| &mut group.positions);
        }
        for (number, leader) in history.leaders.iter().enumerate() {
            put(leader.partition, number, |group| &mut group.leaders);
        }
        for group in &mut groups {
            let scans = group.scans.iter().map(|number| &history.scans[*number as usize].event);
            group.last = scans
                .map(|scan| Extent {
                    start: scan.log_start,
                    end: scan.end,
                })
                .reduce(|one, other| Extent {
                    start: one.start.min(other.start),
                    end: one.end.max(other.end),
                });
        }
        Self { partitions: groups }
    }
}

/// Something told at a time: the log reached at least to `end`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) at_ns: u64,
    pub(crate) end: u64,
    pub(crate) event: EventRef,
}

/// The highest that was told before each moment.
pub(crate) struct Floors(Vec<Told>);

impl Floors {
    pub(crate) fn new(mut told: Vec<Told>) -> Self {
        told.sort_by_key(|told| (told.at_ns, told.end));
        let mut highest: Option<Told> = None;
        for told in &mut told {
            match highest {
                Some(higher) if higher.end >= told.end => {
                    *told = Told {
                        at_ns: told.at_ns,
                        ..higher
                    };
                }
                _ => highest = Some(*told),
            }
        }
        Self(told)
    }

    /// The highest that had been told before a moment.
    pub(crate) fn before(&self, at_ns: u64) -> Option<Told> {
        let count = self.0.partition_point(|told| told.at_ns < at_ns);
        count.checked_sub(1).map(|last| self.0[last])
    }
}

/// What the acknowledgements of a partition told.
pub(crate) fn acknowledged(history: &History, group: &Group) -> Vec<Told> {
    let told = group.sends.iter().filter_map(|number| {
        let row = &history.sends[*number as usize];
        let SendOutcome::Appended { base_offset } = row.event.outcome else {
            return None;
        };
        Some(Told {
            at_ns: row.event.span.returned_ns,
            end: base_offset.saturating_add(u64::from(row.count)),
            event: EventRef::Send(*number),
        })
    });
    told.collect()
}

/// The high watermarks that reads and confirmed ends told.
pub(crate) fn watermarks(history: &History, group: &Group) -> Vec<Told> {
    let polls = group.polls.iter().filter_map(|number| {
        let poll = &history.polls[*number as usize].event;
        let (PollAnswer::Records { high_watermark } | PollAnswer::OutOfRange { high_watermark, .. }) = poll.answer
        else {
            return None;
        };
        Some(Told {
            at_ns: poll.span.returned_ns,
            end: high_watermark,
            event: EventRef::Poll(*number),
        })
    });
    let latest = group.offsets.iter().filter_map(|number| {
        let answer = &history.offsets[*number as usize];
        (answer.kind == OffsetKind::Latest).then_some(Told {
            at_ns: answer.span.returned_ns,
            end: answer.offset,
            event: EventRef::Offset(*number),
        })
    });
    polls.chain(latest).collect()
}
