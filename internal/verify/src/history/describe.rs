//! Events in one line each, for whoever reads a violation.

use super::{Freshness, History, NODE_UNKNOWN, OffsetKind, PollAnswer, PromiseKind, RecordId, SendOutcome, Span};

/// One row of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventRef {
    /// A send.
    Send(u32),
    /// A read.
    Poll(u32),
    /// An answer to a question for an offset.
    Offset(u32),
    /// A final scan.
    Scan(u32),
    /// A replica's log.
    Dump(u32),
    /// A replica's promise.
    Promise(u32),
    /// A leader.
    Leader(u32),
    /// How a partition came to rest.
    Healing(u32),
    /// Something that must never happen.
    Incident(u32),
    /// A record that a member of the group is done with.
    Handout(u32),
    /// How far the group is.
    Position(u32),
}

impl std::fmt::Display for RecordId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            RecordId::UNREADABLE => f.write_str("an unreadable record"),
            RecordId { producer, number } => write!(f, "record {producer}:{number}"),
        }
    }
}

impl History {
    /// The name of a partition, or its number.
    pub fn partition_name(&self, partition: u32) -> String {
        let name = self.run.partitions.get(partition as usize);
        name.cloned().unwrap_or_else(|| format!("partition {partition}"))
    }

    /// The name of a node, or its number.
    pub fn node_name(&self, node: u32) -> String {
        match self.run.nodes.get(node as usize) {
            Some(name) => name.clone(),
            None if node == NODE_UNKNOWN => "some node".to_owned(),
            None => format!("node {node}"),
        }
    }

    /// An event in one line; empty if there is none of that number.
    pub fn describe(&self, event: EventRef) -> String {
        match event {
            EventRef::Send(number) => self.describe_send(number),
            EventRef::Poll(number) => self.describe_poll(number),
            EventRef::Offset(number) => self.describe_offset(number),
            EventRef::Scan(number) => self.describe_scan(number),
            EventRef::Dump(number) => self.describe_dump(number),
            EventRef::Promise(number) => self.describe_promise(number),
            EventRef::Leader(number) => self.describe_leader(number),
            EventRef::Healing(number) => self.describe_healing(number),
            EventRef::Incident(number) => self.describe_incident(number),
            EventRef::Handout(number) => self.describe_handout(number),
            EventRef::Position(number) => self.describe_position(number),
        }
        .unwrap_or_default()
    }

    fn describe_send(&self, number: u32) -> Option<String> {
        let row = self.sends.get(number as usize)?;
        let send = &row.event;
        let outcome = match send.outcome {
            SendOutcome::Appended { base_offset } => format!("appended at {base_offset}"),
            SendOutcome::Refused => "refused".to_owned(),
            SendOutcome::Unknown => "outcome unknown".to_owned(),
        };
        let last = u64::from(send.first_number) + u64::from(row.count);
        Some(format!(
            "send {number}, {}: to {}, sequence {}, records {}:{}..{last} → {outcome}",
            when(send.span),
            self.partition_name(send.partition),
            send.sequence,
            send.producer,
            send.first_number,
        ))
    }

    fn describe_poll(&self, number: u32) -> Option<String> {
        let row = self.polls.get(number as usize)?;
        let poll = &row.event;
        let freshness = match poll.freshness {
            Freshness::Committed => "committed".to_owned(),
            Freshness::MinOffset { offset } => format!("at least to {offset}"),
            Freshness::Linearizable => "linearizable".to_owned(),
        };
        let answer = match poll.answer {
            PollAnswer::Records { high_watermark } => {
                let seen = self.seen_of(row);
                let span = match (seen.first(), seen.last()) {
                    (Some(first), Some(last)) => format!(" at {} to {} inclusive", first.offset, last.offset),
                    _ => String::new(),
                };
                format!("{} records{span}, high watermark {high_watermark}", seen.len())
            }
            PollAnswer::OutOfRange {
                log_start,
                high_watermark,
            } => format!("out of range, readable are {log_start} to {high_watermark}"),
            PollAnswer::Failed => "failed".to_owned(),
        };
        Some(format!(
            "poll {number}, {}: {} from {} on {}, {freshness} → {answer}",
            when(poll.span),
            self.partition_name(poll.partition),
            poll.from,
            self.node_name(poll.node),
        ))
    }

    fn describe_offset(&self, number: u32) -> Option<String> {
        let answer = self.offsets.get(number as usize)?;
        let kind = match answer.kind {
            OffsetKind::Earliest => "earliest",
            OffsetKind::Latest => "latest",
        };
        let (when, partition) = (when(answer.span), self.partition_name(answer.partition));
        Some(format!(
            "offset {number}, {when}: {kind} of {partition} → {}",
            answer.offset
        ))
    }

    fn describe_scan(&self, number: u32) -> Option<String> {
        let row = self.scans.get(number as usize)?;
        let scan = &row.event;
        Some(format!(
            "scan {number}, {}: {} on {} from {} to {}, {} records",
            when(scan.span),
            self.partition_name(scan.partition),
            self.node_name(scan.node),
            scan.log_start,
            scan.end,
            row.count,
        ))
    }

    fn describe_handout(&self, number: u32) -> Option<String> {
        let handout = self.handouts.get(number as usize)?;
        Some(format!(
            "handout {number}, {}: member {} was done with {} at {}",
            at(handout.at_ns),
            handout.member,
            self.partition_name(handout.partition),
            handout.offset,
        ))
    }

    fn describe_position(&self, number: u32) -> Option<String> {
        let position = self.positions.get(number as usize)?;
        Some(format!(
            "position {number}, {}: the group on {} → {} by claim {}",
            when(position.span),
            self.partition_name(position.partition),
            position.offset,
            position.claim,
        ))
    }

    fn describe_dump(&self, number: u32) -> Option<String> {
        let row = self.dumps.get(number as usize)?;
        let dump = &row.event;
        let entries = self.entries_of(row);
        let last = entries.last().map_or_else(
            || "no entry".to_owned(),
            |entry| format!("to {}.{}, chain {:016x}", entry.term, entry.index, entry.chain),
        );
        Some(format!(
            "dump {number}, {}: {} replica {} on {}, {} entries {last}, committed below {}",
            at(dump.at_ns),
            self.partition_name(dump.partition),
            dump.replica,
            self.node_name(dump.node),
            entries.len(),
            dump.committed_end,
        ))
    }

    fn describe_promise(&self, number: u32) -> Option<String> {
        let promise = self.promises.get(number as usize)?;
        let what = match promise.kind {
            PromiseKind::Acked { index_end, term } => format!("holds all below {index_end}, the last of term {term}"),
            PromiseKind::Voted { term, candidate } => format!("votes in term {term} for {candidate}"),
            PromiseKind::Truncated { index_end, leader_term } => {
                format!("cut to {index_end} on the word of the leader of term {leader_term}")
            }
            PromiseKind::Restarted {
                index_end,
                last_term,
                vote_term,
                voted_for,
            } => {
                let voted_for = voted_for.map_or_else(|| "nobody".to_owned(), |replica| replica.to_string());
                format!("back with all below {index_end} (term {last_term}), vote in term {vote_term} for {voted_for}")
            }
            PromiseKind::Died => "is dead".to_owned(),
            PromiseKind::Published { index_end, quorum } => {
                format!("says that all below {index_end} is committed on {quorum}")
            }
        };
        Some(format!(
            "promise {number}, {}: {} replica {} {what}",
            at(promise.at_ns),
            self.partition_name(promise.partition),
            promise.replica,
        ))
    }

    fn describe_leader(&self, number: u32) -> Option<String> {
        let leader = self.leaders.get(number as usize)?;
        Some(format!(
            "leader {number}, {}: replica {} leads {} in term {}",
            at(leader.at_ns),
            leader.replica,
            self.partition_name(leader.partition),
            leader.term,
        ))
    }

    fn describe_healing(&self, number: u32) -> Option<String> {
        let healing = self.healings.get(number as usize)?;
        let served = healing.served_ns.map_or_else(|| "never".to_owned(), at);
        Some(format!(
            "healing {number}: {} healed {}, served {served}, {} leaders, {} memberships",
            self.partition_name(healing.partition),
            at(healing.healed_ns),
            healing.leaders,
            healing.memberships,
        ))
    }

    fn describe_incident(&self, number: u32) -> Option<String> {
        let incident = self.incidents.get(number as usize)?;
        Some(format!(
            "incident {number}, {}: {:?} on {}: {}",
            at(incident.at_ns),
            incident.kind,
            self.node_name(incident.node),
            incident.text,
        ))
    }
}

fn at(ns: u64) -> String {
    format!("at {}", seconds(ns))
}

fn when(span: Span) -> String {
    let took = span.returned_ns.saturating_sub(span.invoked_ns);
    format!(
        "process {} at {} for {}",
        span.process,
        seconds(span.invoked_ns),
        seconds(took)
    )
}

/// Nanoseconds as seconds, with every digit that may matter for an order.
pub(crate) fn seconds(ns: u64) -> String {
    format!("{}.{:09} s", ns / 1_000_000_000, ns % 1_000_000_000)
}
