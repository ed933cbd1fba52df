//! Entries: what is proposed (`Body`), what was decided about it (`Verdict`, `Decision`), and how it is kept (`Frame`).

use bytes::{Buf, Bytes};

use crate::error::FormatError;
use crate::format::detail::Detail;
use crate::format::frame::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use crate::format::{crc32c, limit};
use crate::ids::{EntryId, PrincipalDigest, ProducerId};

/// Longest name of a consumer group and of a member, in bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 1024;

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing; a new leader's first entry.
    Blank,
    /// Records.
    Batch(Batch),
    /// Opaque here; `State::membership` keeps the last one.
    Membership(Bytes),
    /// A command for the group's machine (the catalog); opaque here.
    Command(Bytes),
    /// Moves the log start forward.
    Trim {
        /// The new log start, inclusive.
        offset: u64,
    },
    /// Gives a consumer group to a member: from here on only it may commit, under this entry's index as the claim number.
    Claim {
        /// Name of the consumer group.
        group: Bytes,
        /// Who claims.
        member: Bytes,
    },
    /// Notes how far a consumer group has come.
    CommitOffset {
        /// Name of the consumer group.
        group: Bytes,
        /// The claim number under which it is committed.
        claim: u64,
        /// Next offset to consume.
        offset: u64,
    },
    /// Lets go of a consumer group that was not used since.
    ForgetGroup {
        /// Name of the consumer group.
        group: Bytes,
        /// Its claim number.
        claim: u64,
        /// The append time of its last claim or commit; with a later one it has been used since.
        append_time_ms: u64,
    },
}

/// Records sent together, as proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Who sends.
    pub producer_id: ProducerId,
    /// For whom it sends.
    pub principal: PrincipalDigest,
    /// Number of the batch among its producer's batches for this partition: 0, 1, 2, …
    pub sequence: u64,
    /// Number of records in the payload; at least 1.
    pub record_count: u32,
    /// 0 none, 1 lz4, 2 zstd; opaque here.
    pub compression: u8,
    /// Append only if the log end is exactly this.
    pub expected_offset: Option<u64>,
    /// CRC32C of the payload, computed by the client.
    pub payload_crc: u32,
    /// The encoded records.
    pub payload: Bytes,
}

impl Body {
    /// Whether the body can be appended: sizes within their limits, a batch's CRC matching its payload. Propose only what passes.
    pub fn check(&self) -> Result<(), FormatError> {
        match self {
            Body::Blank | Body::Trim { .. } => Ok(()),
            Body::Batch(batch) => batch.check(),
            Body::Membership(payload) | Body::Command(payload) => {
                limit("payload", payload.len() as u64, PAYLOAD_BYTES_MAX as u64)
            }
            Body::Claim { group, member } => {
                limit("group name", group.len() as u64, GROUP_NAME_BYTES_MAX as u64)?;
                limit("member name", member.len() as u64, GROUP_NAME_BYTES_MAX as u64)
            }
            Body::CommitOffset { group, .. } | Body::ForgetGroup { group, .. } => {
                limit("group name", group.len() as u64, GROUP_NAME_BYTES_MAX as u64)
            }
        }
    }
}

impl Batch {
    fn check(&self) -> Result<(), FormatError> {
        limit("payload", self.payload.len() as u64, PAYLOAD_BYTES_MAX as u64)?;
        if self.record_count == 0 {
            return Err(FormatError::Invalid {
                field: "record count",
                value: 0,
            });
        }
        let expected = crc32c(&self.payload);
        if expected != self.payload_crc {
            let (expected, found) = (u64::from(expected), u64::from(self.payload_crc));
            return Err(FormatError::Checksum {
                what: "payload",
                expected,
                found,
            });
        }
        Ok(())
    }
}

/// What the fold decided about an entry. Everything but batches, trims, claims and commits is `Accepted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stands in the log.
    Accepted,
    /// The batch had been accepted before.
    Duplicate,
    /// The log end was not the expected offset.
    OffsetMismatch,
    /// Batches of this producer are missing before it.
    SequenceGap,
    /// A producer not known here must start at sequence 0.
    UnknownProducer,
    /// An older batch than the ones remembered: decided once, but how is forgotten.
    Forgotten,
    /// Producer id bound to another principal, or sequence used for other bytes.
    ProducerConflict,
    /// The table of producers is full of producers in use.
    TooManyProducers,
    /// Another claim has been issued since, or the group was used since.
    StaleClaim,
    /// The offset lies above the log end.
    OutOfRange,
    /// The table of consumer groups is full.
    TooManyGroups,
}

/// The full answer for one entry; equal on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What was decided.
    pub verdict: Verdict,
    /// Accepted: where the batch stands. Duplicate: where the original stands. Otherwise the log end at that time.
    pub base_offset: u64,
    /// Records of the batch (or of the original); 0 if refused.
    pub record_count: u32,
    /// Of the original, for a duplicate.
    pub append_time_ms: u64,
    /// SequenceGap: the next sequence. Claim: the claim number.
    pub number: u64,
}

/// What kind of entry a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// See [`Body::Blank`].
    Blank,
    /// See [`Body::Batch`].
    Batch,
    /// See [`Body::Membership`].
    Membership,
    /// See [`Body::Command`].
    Command,
    /// See [`Body::Trim`].
    Trim,
    /// See [`Body::Claim`].
    Claim,
    /// See [`Body::CommitOffset`].
    CommitOffset,
    /// See [`Body::ForgetGroup`].
    ForgetGroup,
}

/// A frame's header, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The kind of entry.
    pub kind: Kind,
    /// What was decided about it.
    pub verdict: Verdict,
    /// The batch's compression; 0 otherwise.
    pub compression: u8,
    /// Term and index.
    pub id: EntryId,
    /// The log end before this entry; for an accepted batch the offset of its first record.
    pub base_offset: u64,
    /// Records the entry adds to the log: 0 unless it is an accepted batch.
    pub record_count: u32,
    /// Bytes between header and payload.
    pub detail_bytes: u16,
    /// Bytes of payload.
    pub payload_bytes: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// The leader's clock at the append, never below the previous entry's; 0 in term 0, which has no leader.
    pub append_time_ms: u64,
    /// Digest of the log up to and including this entry.
    pub chain: u64,
}

impl Header {
    /// Length of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.detail_bytes) + u64::from(self.payload_bytes)
    }
}

/// An entry as stored: decoded header, encoded header with detail, payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The header, decoded.
    pub header: Header,
    /// Encoded header and detail, as on disk and on the wire.
    pub head: Bytes,
    /// What users (or the group's machine) read.
    pub payload: Bytes,
}

impl Frame {
    /// Decodes and checks one frame at the start of `bytes` (header checksum, payload CRC) and advances behind it; slices, no copy.
    /// On an error `bytes` is left as it was.
    pub fn decode(bytes: &mut Bytes) -> Result<Frame, FormatError> {
        let header = frame::decode_header(bytes)?;
        let head_bytes = HEADER_BYTES + usize::from(header.detail_bytes);
        let need = head_bytes + header.payload_bytes as usize;
        if bytes.len() < need {
            return Err(FormatError::Short {
                what: "payload",
                need,
                have: bytes.len(),
            });
        }
        let frame = Frame {
            head: bytes.slice(..head_bytes),
            payload: bytes.slice(head_bytes..need),
            header,
        };
        frame.check_payload()?;
        bytes.advance(need);
        Ok(frame)
    }

    /// Term and index.
    pub fn id(&self) -> EntryId {
        self.header.id
    }

    /// The detail decoded, with the payload where the body has one. A duplicate or refused batch comes without its payload.
    pub fn body(&self) -> Result<Body, FormatError> {
        Ok(self
            .detail()?
            .into_body(self.header.kind, self.header.compression, self.payload.clone()))
    }

    /// Encoded length: head and payload.
    pub fn len_bytes(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// Exclusive end of the frame's records.
    pub fn offset_end(&self) -> u64 {
        self.header
            .base_offset
            .saturating_add(u64::from(self.header.record_count))
    }

    pub(crate) fn detail_bytes(&self) -> &[u8] {
        self.head.get(HEADER_BYTES..).unwrap_or_default()
    }

    pub(crate) fn detail(&self) -> Result<Detail, FormatError> {
        Detail::decode(self.header.kind, self.detail_bytes())
    }

    fn check_payload(&self) -> Result<(), FormatError> {
        let expected = crc32c(&self.payload);
        if expected == self.header.payload_crc {
            return Ok(());
        }
        let (expected, found) = (u64::from(expected), u64::from(self.header.payload_crc));
        Err(FormatError::Checksum {
            what: "payload",
            expected,
            found,
        })
    }
}

/// An entry to append: new on the leader, or replicated with its frame.
#[derive(Debug, Clone)]
pub enum Entry {
    /// The leader's own: the fold decides, and the frame is made here.
    Proposed {
        /// Term and index given by Raft.
        id: EntryId,
        /// What it says.
        body: Body,
    },
    /// Another replica's frame: this replica's fold must agree with it.
    Replicated(Frame),
}

impl Entry {
    /// Term and index.
    pub fn id(&self) -> EntryId {
        match self {
            Entry::Proposed { id, .. } => *id,
            Entry::Replicated(frame) => frame.id(),
        }
    }
}

/// Raft's vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// The term voted in.
    pub term: u64,
    /// For whom (a replica id), if for anybody.
    pub voted_for: Option<u64>,
    /// Whether a quorum granted it.
    pub committed: bool,
}
