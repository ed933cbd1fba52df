//! What is checked of a command before it may change anything.
//!
//! These checks look at the command alone; what depends on the state is checked where the state changes.

use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::command::{FoundingNode, StartedReplica};
use crate::limits::{ADDRESS_BYTES_MAX, FOUNDING_REPLICA_ID_MAX, NODES_MAX, RACK_BYTES_MAX, STARTED_REPLICAS_MAX};
use crate::names;
use crate::reply::Refusal;

/// The founding nodes: each acceptable, and names and replica ids given once.
pub(crate) fn founding_nodes(nodes: &[FoundingNode]) -> Result<(), Refusal> {
    if nodes.is_empty() {
        return Err(invalid(
            "nodes",
            "a cluster is founded by at least one node".to_string(),
        ));
    }
    if nodes.len() > NODES_MAX {
        return Err(Refusal::TooManyNodes { limit: NODES_MAX });
    }
    for (at, founder) in nodes.iter().enumerate() {
        node(&founder.name, &founder.address, &founder.rack)?;
        if !(1..=FOUNDING_REPLICA_ID_MAX).contains(&founder.replica_id) {
            let why = format!("{} is not between 1 and {FOUNDING_REPLICA_ID_MAX}", founder.replica_id);
            return Err(invalid("replica_id", why));
        }
        let earlier = &nodes[..at];
        if earlier.iter().any(|other| other.name == founder.name) {
            return Err(invalid("nodes", format!("{} is listed twice", founder.name)));
        }
        if earlier.iter().any(|other| other.replica_id == founder.replica_id) {
            return Err(invalid(
                "replica_id",
                format!("{} is given to two nodes", founder.replica_id),
            ));
        }
    }
    Ok(())
}

/// As many as one command may name.
pub(crate) fn started_replicas(replicas: &[StartedReplica]) -> Result<(), Refusal> {
    let (count, limit) = (replicas.len(), STARTED_REPLICAS_MAX);
    match count <= limit {
        true => Ok(()),
        false => Err(invalid("replicas", format!("{count} are named, {limit} are allowed"))),
    }
}

/// Names of nodes to be avoided: as many as there can be nodes. Whether there are such nodes does not matter.
pub(crate) fn avoided(nodes: &[String]) -> Result<(), Refusal> {
    let (count, limit) = (nodes.len(), NODES_MAX);
    if count > limit {
        return Err(invalid("avoid", format!("{count} are named, {limit} are allowed")));
    }
    for node in nodes {
        names::validate("node", node)?;
    }
    Ok(())
}

/// Between the bounds, both included.
pub(crate) fn within<T: PartialOrd + Display>(
    field: &str,
    value: T,
    bounds: &RangeInclusive<T>,
) -> Result<(), Refusal> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let (least, most) = (bounds.start(), bounds.end());
    Err(invalid(field, format!("{value} is not between {least} and {most}")))
}

/// What a node says of itself.
pub(crate) fn node(name: &str, address: &str, rack: &str) -> Result<(), Refusal> {
    names::validate("node", name)?;
    text("address", address, ADDRESS_BYTES_MAX)?;
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(1..))) {
        return Err(invalid("address", format!("{address:?} is not host:port")));
    }
    text("rack", rack, RACK_BYTES_MAX)
}

/// Short, and safe to print: no spaces, no control characters.
pub(crate) fn text(field: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.len() > bytes_max {
        return Err(invalid(
            field,
            format!("it is {} bytes long, {bytes_max} are allowed", text.len()),
        ));
    }
    match text.chars().find(|found| !found.is_ascii_graphic()) {
        Some(found) => Err(invalid(
            field,
            format!("it has {found:?}; only visible ASCII characters are allowed"),
        )),
        None => Ok(()),
    }
}

pub(crate) fn invalid(field: &str, why: String) -> Refusal {
    Refusal::InvalidValue {
        field: field.to_string(),
        why,
    }
}
