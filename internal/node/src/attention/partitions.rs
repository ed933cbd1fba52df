//! What is the matter with partitions, kind by kind.

use super::{
    EXAMPLES_MAX, Finding, LAG_RECORDS_MAX, PartitionSeen, ReplicaSeen, Seen, Severity, count, finding, nodes,
    takes_part,
};

pub(super) fn look(seen: &Seen, findings: &mut Vec<Finding>) {
    let kinds: [fn(&Seen) -> Option<Finding>; 8] = [
        lost,
        leaderless,
        without_majority,
        damaged,
        stopped,
        dead,
        missing,
        behind,
    ];
    findings.extend(kinds.iter().filter_map(|kind| kind(seen)));
}

/// Partitions of which something is so, and words for them.
struct Found<'a>(Vec<&'a PartitionSeen>);

impl<'a> Found<'a> {
    fn of(seen: &'a Seen, is_so: impl Fn(&PartitionSeen) -> bool) -> Option<Found<'a>> {
        let found: Vec<&PartitionSeen> = seen.partitions.iter().filter(|partition| is_so(partition)).collect();
        (!found.is_empty()).then_some(Found(found))
    }

    fn with(seen: &'a Seen, is_so: impl Fn(&ReplicaSeen) -> bool) -> Option<Found<'a>> {
        Found::of(seen, |partition| partition.replicas.iter().any(&is_so))
    }

    fn number(&self) -> String {
        count(self.0.len(), "partition")
    }

    fn examples(&self) -> String {
        let named = self.0.iter().take(EXAMPLES_MAX);
        let mut names: Vec<String> = named
            .map(|partition| format!("{} {}", partition.topic, partition.partition))
            .collect();
        if self.0.len() > EXAMPLES_MAX {
            names.push(format!("and {} more", self.0.len() - EXAMPLES_MAX));
        }
        names.join(", ")
    }

    fn has(&self) -> &'static str {
        if self.0.len() == 1 { "has" } else { "have" }
    }

    fn told(&self, severity: Severity, what: String, [meaning, action]: [&str; 2]) -> Finding {
        let what = format!("{what}: {}.", self.examples());
        finding(severity, &self.number(), [what, meaning.to_owned(), action.to_owned()])
    }
}

fn lost(seen: &Seen) -> Option<Finding> {
    let found = Found::with(seen, |replica| replica.damaged_everywhere)?;
    let what = format!(
        "{} {} records that are damaged on every replica",
        found.number(),
        found.has()
    );
    let meaning =
        "Those records cannot be read by anybody; consumers are told so (DAMAGED), and nothing is skipped in silence.";
    let action = "Stop what writes to those disks, look for the cause, and restore the records from a backup.";
    Some(found.told(Severity::Critical, what, [meaning, action]))
}

fn leaderless(seen: &Seen) -> Option<Finding> {
    let found = Found::of(seen, |partition| partition.leader.is_empty())?;
    let what = format!("{} {} no leader that {} knows", found.number(), found.has(), seen.by);
    let meaning =
        "Nothing can be produced there until one is elected; what is committed can still be read from any replica.";
    let action = "An election takes a second. If it lasts, a majority of the replicas is missing: bring those nodes back. Only if their disks are \
                  gone for good: highwater cluster recover.";
    Some(found.told(Severity::Critical, what, [meaning, action]))
}

fn without_majority(seen: &Seen) -> Option<Finding> {
    let lacks = |partition: &PartitionSeen| {
        let there = partition
            .replicas
            .iter()
            .filter(|replica| takes_part(&replica.role))
            .count();
        !partition.leader.is_empty() && there > 0 && there * 2 <= partition.replicas.len()
    };
    let found = Found::of(seen, lacks)?;
    let what = format!("{} {} no majority of replicas that answer", found.number(), found.has());
    let meaning = "Nothing is acknowledged there: producers wait, and then are told NO_QUORUM.";
    Some(found.told(Severity::Critical, what, [meaning, "Bring the missing nodes back."]))
}

fn damaged(seen: &Seen) -> Option<Finding> {
    let found = Found::with(seen, |replica| {
        replica.damaged_entries > 0 && !replica.damaged_everywhere
    })?;
    let what = format!("{} {} a replica with damaged entries", found.number(), found.has());
    let meaning = "A disk has changed what was written. The replica fetches the entries from another one; readers are served elsewhere meanwhile.";
    let action = "Nothing for the data. If a node shows up here again, replace its disk.";
    Some(found.told(Severity::Warning, what, [meaning, action]))
}

fn stopped(seen: &Seen) -> Option<Finding> {
    let found = Found::with(seen, |replica| replica.role == "stopped")?;
    let what = format!("{} {} a replica that has stopped", found.number(), found.has());
    let meaning =
        "It could not go on, and takes no part until its node is started again: one replica less that may fail.";
    let action = "The log of that node says why it stopped (ERROR). Mend that, and start the node again.";
    Some(found.told(Severity::Critical, what, [meaning, action]))
}

fn dead(seen: &Seen) -> Option<Finding> {
    let found = Found::with(seen, |replica| replica.role == "dead")?;
    let what = format!("{} {} a dead replica", found.number(), found.has());
    let meaning =
        "It has lost what it had promised to keep, so it does not take part. Another one is being made in its place.";
    let action =
        "Usually nothing. If it stays so, the node that should get the new replica is not there, or has no room.";
    Some(found.told(Severity::Warning, what, [meaning, action]))
}

fn missing(seen: &Seen) -> Option<Finding> {
    let found = Found::with(seen, |replica| replica.role.is_empty())?;
    let on = nodes::away(seen).map_or_else(String::new, |away| format!(" (away: {away})"));
    let what = format!("{} {} fewer replicas than wanted{on}", found.number(), found.has());
    let meaning = "What is acknowledged is on fewer disks, and fewer of them may fail.";
    let action = "Bring the node back. If it is away for longer than the cluster's replace_after, others get its replicas by themselves.";
    Some(found.told(Severity::Warning, what, [meaning, action]))
}

fn behind(seen: &Seen) -> Option<Finding> {
    let lags = |replica: &ReplicaSeen| replica.lag_records.is_some_and(|lag| lag > LAG_RECORDS_MAX);
    let found = Found::with(seen, lags)?;
    let what = format!(
        "{} {} a replica that is more than {LAG_RECORDS_MAX} records behind",
        found.number(),
        found.has()
    );
    let meaning = "It catches up, at the pace that the cluster's settings allow; until then it is no full copy.";
    let action = "Watch whether the lag falls. If it grows, that node's disk or network is too slow.";
    Some(found.told(Severity::Notice, what, [meaning, action]))
}
