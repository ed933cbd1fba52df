//! What is the matter with nodes and with the catalog.

use super::{DISK_FREE_PERCENT_LEAST, Finding, NodeSeen, Seen, Severity, count, finding};

pub(super) fn look(seen: &Seen, findings: &mut Vec<Finding>) {
    findings.extend(catalog(seen));
    for node in &seen.nodes {
        if !node.alive {
            findings.push(gone(node));
            continue;
        }
        findings.extend(not_ready(node));
        findings.extend(disk(node));
        findings.extend(node.notices.iter().map(|notice| notice_of(node, notice)));
        findings.extend(on_purpose(node));
    }
}

fn catalog(seen: &Seen) -> Option<Finding> {
    let voters = seen.nodes.iter().filter(|node| node.votes);
    let away: Vec<&str> = voters
        .clone()
        .filter(|node| !node.alive)
        .map(|node| node.name.as_str())
        .collect();
    let voters = voters.count();
    let spare = voters.saturating_sub(1) / 2;
    // Whoever is called the leader: one without a majority does not step down, and followers go on believing in their last vote.
    if away.len() > spare {
        return Some(without_majority(voters, &away));
    }
    if seen.catalog_leader.is_empty() {
        return Some(without_leader(&seen.by, &away));
    }
    (!away.is_empty() && away.len() == spare).then(|| {
        finding(
            Severity::Warning,
            "catalog",
            [
                format!(
                    "The catalog has just enough voters: {} of {voters} are there.",
                    voters - away.len()
                ),
                "If one more of them goes, nothing can be changed and no client is served.".to_owned(),
                format!("Bring {} back before anything else is taken down.", away.join(", ")),
            ],
        )
    })
}

fn without_majority(voters: usize, away: &[&str]) -> Finding {
    let needed = voters / 2 + 1;
    let what = format!(
        "The catalog has lost its majority: it needs {needed} of {voters} voters, and {} not heard of.",
        are(away)
    );
    catalog_is_out(
        what,
        "Bring the missing nodes back; a majority of the voters is enough.",
    )
}

fn without_leader(by: &str, away: &[&str]) -> Finding {
    let who = match away {
        [] => "the voters are heard of".to_owned(),
        away => format!("{} not heard of, but enough of the other voters are", are(away)),
    };
    let what = format!("The catalog has no leader that {by} knows: {who}, so one may be elected in a moment.");
    catalog_is_out(
        what,
        "If it lasts, see whether the nodes reach each other; their logs say more.",
    )
}

fn catalog_is_out(what: String, action: &str) -> Finding {
    let meaning = "Topics, tenants and replicas cannot be changed, and after 10 seconds no node serves any client.";
    finding(
        Severity::Critical,
        "catalog",
        [what, meaning.to_owned(), action.to_owned()],
    )
}

/// Names with their verb: `b is`, `b, c are`.
fn are(names: &[&str]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(", "))
}

fn gone(node: &NodeSeen) -> Finding {
    let name = &node.name;
    finding(
        Severity::Critical,
        name,
        [
            format!("{name} is not heard of."),
            "Its partitions go on with their other replicas, as long as those are a majority.".to_owned(),
            format!(
                "See whether its process runs and its machine can be reached; start it again, and it catches up by itself. If it is gone for \
                 good: highwater cluster decommission {name}."
            ),
        ],
    )
}

fn not_ready(node: &NodeSeen) -> Option<Finding> {
    let (name, why) = (&node.name, node.not_ready.as_str());
    (!why.is_empty()).then(|| {
        finding(
            Severity::Warning,
            name,
            [
                format!("{name} is not ready: {why}."),
                "It gets no leaderships, and may not serve clients.".to_owned(),
                "After a start this is over in a moment. If it lasts, its log says more.".to_owned(),
            ],
        )
    })
}

fn disk(node: &NodeSeen) -> Option<Finding> {
    let (name, disk) = (&node.name, node.disk?);
    let percent = disk.free_bytes.saturating_mul(100) / disk.total_bytes.max(1);
    if disk.full {
        return Some(finding(
            Severity::Critical,
            name,
            [
                format!("The disk of {name} is full: {percent} % are free."),
                "It takes no records, and cannot follow leaders that do.".to_owned(),
                "Make room: give it a larger disk, keep records for a shorter time (highwater topic update --retention-bytes), or move replicas \
                 away (highwater cluster move)."
                    .to_owned(),
            ],
        ));
    }
    (disk.low || percent < DISK_FREE_PERCENT_LEAST).then(|| {
        finding(
            Severity::Warning,
            name,
            [
                format!("The disk of {name} is nearly full: {percent} % are free."),
                "When it is full, the node takes no more records.".to_owned(),
                "Give it a larger disk, or have topics keep less.".to_owned(),
            ],
        )
    })
}

fn notice_of(node: &NodeSeen, notice: &str) -> Finding {
    let is_certificate = notice.contains("certificate");
    let (meaning, action) = match is_certificate {
        true => (
            "A node whose certificate is not good is not let in by anybody.",
            "Put new certificate files in the place of the old ones; the node takes them within seconds, without a restart.",
        ),
        false => (
            "The node works, and wants somebody to know.",
            "See its log, and docs/security.md.",
        ),
    };
    let what = format!("{}: {notice}.", node.name);
    finding(
        Severity::Warning,
        &node.name,
        [what, meaning.to_owned(), action.to_owned()],
    )
}

fn on_purpose(node: &NodeSeen) -> Option<Finding> {
    let name = &node.name;
    let (what, meaning, action) = match (node.leaving, node.drained) {
        (true, _) => (
            format!("{name} is leaving the cluster."),
            "Its replicas move to other nodes, and then it is removed.",
            format!("Nothing, if that is what you want; highwater cluster decommission {name} --undo keeps it."),
        ),
        (false, true) => (
            format!("{name} is drained: it leads nothing."),
            "It keeps its replicas and follows.",
            format!("When its machine is serviced: highwater cluster drain {name} --undo."),
        ),
        _ => return None,
    };
    Some(finding(Severity::Notice, name, [what, meaning.to_owned(), action]))
}

/// Those that are not there, in words.
pub(super) fn away(seen: &Seen) -> Option<String> {
    let away: Vec<&str> = seen
        .nodes
        .iter()
        .filter(|node| !node.alive)
        .map(|node| node.name.as_str())
        .collect();
    match away.as_slice() {
        [] => None,
        few if few.len() <= 3 => Some(few.join(", ")),
        many => Some(count(many.len(), "node")),
    }
}
