//! What nodes ask each other as nodes (not as replicas): kinds and encodings.
//!
//! These messages are few and small, so they are JSON, except where another format is already there. Both ends of a
//! link have proven to be nodes of the cluster; whoever answers still checks what it is told. The link's hello carries
//! the protocol version.

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Who are you, and which cluster do you know? Answered with a `ProbeAnswer`.
pub(crate) const PROBE: u8 = 1;
/// The founder asks to record its plan. The answer is empty; a refusal says why.
pub(crate) const ADOPT: u8 = 2;
/// A node asks to become a member. Answered with a `JoinAnswer`.
pub(crate) const JOIN: u8 = 3;
/// An encoded catalog command, to be proposed by the node asked. Answered with a [`CommandAnswer`].
pub(crate) const COMMAND: u8 = 4;
/// How far is your catalog? Answered with the index of the last command applied, 8 bytes, little endian.
pub(crate) const APPLIED: u8 = 5;
/// What replicas do you hold? Answered with an encoded `DescribeClusterResponse` that has only `replicas`,
/// and of `nodes` only the node itself with its disk.
pub(crate) const REPLICAS: u8 = 6;
/// What time is it? Answered with milliseconds since 1970, 8 bytes, little endian.
pub(crate) const CLOCK: u8 = 7;
/// Which groups do I lead? A `Page` of `leaders`, answered with one byte. Since feature level 2.
pub(crate) const LEADERS: u8 = 8;

/// Hand the leadership of a group over. The request is a [`Transfer`]; answered when the asked node leads no longer.
pub(crate) const TRANSFER: u8 = 9;

/// What does your replica of a group have? The request is the group's number as in [`encode_number`], the answer a
/// [`Standing`](crate::recoveries::Standing).
pub(crate) const STANDING: u8 = 10;

/// A request to the JSON gateway that the asked node can answer better; the encoding is the gateway's
/// (`gateway::Entrance`).
pub(crate) const GATEWAY: u8 = 11;

/// What is used of quotas at your node? The question is a `Wanted` of `quotas`, the answer a [`Usage`](crate::quotas::Usage), both JSON.
pub(crate) const USAGE: u8 = 12;

/// A batch for the audit's topic, from a node that does not lead it; the encoding is the audit's (`audit::Ledger`).
pub(crate) const AUDIT: u8 = 13;

/// Which revision of the catalog is in force? Answered by its leader alone, as long as a majority acknowledges it, in the form of
/// [`encode_number`].
pub(crate) const REVISION: u8 = 14;

/// Whose leadership is to go where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) group: u64,
    /// The replica that is to lead; None: whichever is best.
    pub(crate) to: Option<u64>,
}

/// The largest JSON message accepted, bytes.
pub(crate) const JSON_BYTES_MAX: usize = 1024 * 1024;

pub(crate) fn encode_json(message: &impl Serialize) -> Result<Bytes, String> {
    serde_json::to_vec(message)
        .map(Bytes::from)
        .map_err(|error| error.to_string())
}

pub(crate) fn decode_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    if body.len() > JSON_BYTES_MAX {
        return Err(format!(
            "a message of {} bytes, at most {JSON_BYTES_MAX} are accepted",
            body.len()
        ));
    }
    serde_json::from_slice(body).map_err(|error| format!("a message that cannot be read: {error}"))
}

/// The answer to [`APPLIED`], [`CLOCK`] or [`REVISION`], and the question of [`STANDING`].
pub(crate) fn encode_number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

pub(crate) fn decode_number(body: &[u8]) -> Option<u64> {
    body.try_into().ok().map(u64::from_le_bytes)
}

/// What became of a command at the node asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandAnswer {
    /// The catalog's encoded reply.
    Reply(Bytes),
    /// Certainly not applied; ask this node, if one is named.
    NotLeader(Option<String>),
    /// It may have been applied.
    Unknown(String),
}

impl CommandAnswer {
    /// One byte for the variant, then its content.
    pub(crate) fn encode(&self) -> Bytes {
        let (tag, content) = match self {
            CommandAnswer::Reply(reply) => (0, reply.as_ref()),
            CommandAnswer::NotLeader(leader) => (1, leader.as_deref().unwrap_or_default().as_bytes()),
            CommandAnswer::Unknown(why) => (2, why.as_bytes()),
        };
        let mut encoded = BytesMut::with_capacity(1 + content.len());
        encoded.put_u8(tag);
        encoded.put_slice(content);
        encoded.freeze()
    }

    pub(crate) fn decode(mut encoded: Bytes) -> Result<CommandAnswer, String> {
        if encoded.is_empty() {
            return Err("an empty answer".to_owned());
        }
        let content = encoded.split_off(1);
        let text = || String::from_utf8_lossy(&content).into_owned();
        match encoded[0] {
            0 => Ok(CommandAnswer::Reply(content)),
            1 => Ok(CommandAnswer::NotLeader(
                Some(text()).filter(|leader| !leader.is_empty()),
            )),
            2 => Ok(CommandAnswer::Unknown(text())),
            other => Err(format!("an answer of unknown kind {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_read_back_as_written_and_nonsense_is_an_error() {
        let answers = [
            CommandAnswer::Reply(Bytes::from_static(b"reply")),
            CommandAnswer::NotLeader(None),
            CommandAnswer::NotLeader(Some("b".to_owned())),
            CommandAnswer::Unknown("why".to_owned()),
        ];
        for answer in answers {
            assert_eq!(CommandAnswer::decode(answer.encode()), Ok(answer));
        }
        assert!(CommandAnswer::decode(Bytes::new()).is_err());
        assert!(CommandAnswer::decode(Bytes::from_static(b"\x09")).is_err());
        assert_eq!(decode_number(&encode_number(77)), Some(77));
        assert_eq!(decode_number(b"short"), None);
    }
}
