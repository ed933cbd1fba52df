//! The membership as a membership entry stores it. These bytes stand in the log, so the format is for ever.
//!
//! ```text
//! version u8 | configs u8 | per config: voters u8, replica ids u64 … | nodes u8 | per node: id u64, length u8, name
//! ```
//!
//! Sets and maps are written in ascending order and read back only so: one membership has one form.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Reader, Writer, bad};
use crate::error::Error;
use crate::types::{Membership, NodeName};

/// Most voter sets of one membership: two while it changes.
const CONFIGS_MAX: usize = 2;
/// Most replicas of one group, voters and learners.
pub(crate) const REPLICAS_MAX: usize = 128;
/// Longest node name.
pub(crate) const NODE_NAME_BYTES_MAX: usize = 128;

/// The bytes of `membership`; an error if it exceeds a limit.
pub(crate) fn encode(membership: &Membership) -> Result<Bytes, Error> {
    let mut writer = Writer::reply();
    let configs = membership.get_joint_config();
    writer.u8(count(configs.len(), CONFIGS_MAX, "voter sets")?);
    for voters in configs {
        writer.u8(count(voters.len(), REPLICAS_MAX, "voters")?);
        for id in voters {
            writer.u64(*id);
        }
    }
    let nodes: Vec<_> = membership.nodes().collect();
    writer.u8(count(nodes.len(), REPLICAS_MAX, "replicas")?);
    for (id, name) in nodes {
        writer.u64(*id);
        writer.u8(count(name.0.len(), NODE_NAME_BYTES_MAX, "bytes of a node name")?);
        writer.bytes(name.0.as_bytes());
    }
    Ok(writer.finish())
}

/// The membership in `bytes`.
pub(crate) fn decode(bytes: Bytes) -> Result<Membership, Error> {
    let mut reader = Reader::reply(bytes)?;
    let mut configs = Vec::new();
    for _ in 0..read_count(&mut reader, CONFIGS_MAX, "voter sets")? {
        configs.push(decode_voters(&mut reader)?);
    }
    let nodes = decode_nodes(&mut reader)?;
    reader.end()?;
    Membership::new(configs, nodes).map_err(|err| bad(format!("membership: {err}")))
}

fn decode_voters(reader: &mut Reader) -> Result<BTreeSet<u64>, Error> {
    let mut voters = BTreeSet::new();
    for _ in 0..read_count(reader, REPLICAS_MAX, "voters")? {
        let id = reader.number("replica id")?;
        if voters.last().is_some_and(|last| *last >= id) {
            return Err(bad(format!("voter {id} out of order")));
        }
        voters.insert(id);
    }
    Ok(voters)
}

fn decode_nodes(reader: &mut Reader) -> Result<BTreeMap<u64, NodeName>, Error> {
    let mut nodes = BTreeMap::new();
    for _ in 0..read_count(reader, REPLICAS_MAX, "replicas")? {
        let id = reader.number("replica id")?;
        if nodes.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(bad(format!("replica {id} out of order")));
        }
        let length = read_count(reader, NODE_NAME_BYTES_MAX, "bytes of a node name")?;
        let name = String::from_utf8(reader.bytes(length, "node name")?.to_vec())
            .map_err(|_| bad(format!("the node name of replica {id} is not UTF-8")))?;
        nodes.insert(id, NodeName(name));
    }
    Ok(nodes)
}

fn count(value: usize, max: usize, what: &str) -> Result<u8, Error> {
    match u8::try_from(value) {
        Ok(count) if value <= max => Ok(count),
        _ => Err(bad(format!("{value} {what}, at most {max} are possible"))),
    }
}

fn read_count(reader: &mut Reader, max: usize, what: &str) -> Result<usize, Error> {
    match usize::from(reader.u8(what)?) {
        count if count <= max => Ok(count),
        count => Err(bad(format!("{count} {what}, at most {max} are possible"))),
    }
}
