//! Every message between replicas as bytes, and back.
//!
//! All integers are little endian. Every message begins with the version of this format and, in requests, the
//! replica id it is meant for, so that a message for an earlier replica on the same node is noticed. An optional
//! value is one byte, 0 or 1, and the value if it is 1.
//!
//! ```text
//! request   version u8 | to u64 | fields …
//! reply     version u8 | fields …
//! log id    term u64 | index u64            index as openraft counts, from 0
//! vote      term u64 | replica u64 | committed u8
//! ```
//!
//! Whatever arrives is decoded or refused: nothing here panics, nothing is allocated by a length that was not first
//! compared with a limit and with the bytes that are there, and bytes left over are an error. Terms and indexes above
//! `NUMBER_MAX` are refused, so that adding to one never overflows.

pub(crate) mod append;
pub(crate) mod calls;
pub(crate) mod install;
pub(crate) mod membership;
pub(crate) mod recall;
#[cfg(test)]
mod tests;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::Error;
use crate::types::{CommittedLeaderId, LogId, Vote};

/// The version of the messages; the first byte of each.
pub(crate) const VERSION: u8 = 1;

/// Largest term, index and replica id accepted from a peer.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// The message numbers, for `Peers::call` and `Peers::open_stream`.
pub(crate) mod kind {
    /// Call: entries or a heartbeat, answered one by one.
    pub(crate) const APPEND: u8 = 1;
    /// Call: a candidate asks for a vote.
    pub(crate) const VOTE: u8 = 2;
    /// Call: would you vote for me?
    pub(crate) const PRE_VOTE: u8 = 3;
    /// Call: the leader hands over.
    pub(crate) const TRANSFER: u8 = 4;
    /// Call: the leader's confirmed high watermark.
    pub(crate) const CONFIRM_END: u8 = 5;
    /// Call: what do you remember of my promises?
    pub(crate) const REMEMBER: u8 = 6;
    /// Call: entries that the caller has lost.
    pub(crate) const REFILL: u8 = 7;
    /// Call: a piece of the manifest, for a caller that has lost entries below it.
    pub(crate) const MANIFEST: u8 = 8;
    /// Call: the leader's confirmed log start.
    pub(crate) const CONFIRM_START: u8 = 9;
    /// Stream: appends, answered in order.
    pub(crate) const APPEND_STREAM: u8 = 16;
    /// Stream: a manifest, answered once.
    pub(crate) const INSTALL_STREAM: u8 = 17;
}

/// Builds a message.
pub(crate) struct Writer(BytesMut);

impl Writer {
    /// A request for the replica `to`.
    pub(crate) fn request(to: u64) -> Writer {
        let mut writer = Writer::reply();
        writer.u64(to);
        writer
    }

    /// A reply.
    pub(crate) fn reply() -> Writer {
        let mut writer = Writer(BytesMut::with_capacity(96));
        writer.u8(VERSION);
        writer
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.put_u32_le(value);
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.put_u64_le(value);
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.0.put_slice(value);
    }

    pub(crate) fn vote(&mut self, vote: &Vote) {
        self.u64(vote.leader_id.term);
        self.u64(vote.leader_id.voted_for);
        self.u8(u8::from(vote.committed));
    }

    pub(crate) fn log_id(&mut self, id: &LogId) {
        self.u64(id.committed_leader_id().term);
        self.u64(id.index());
    }

    pub(crate) fn optional_log_id(&mut self, id: Option<&LogId>) {
        self.u8(u8::from(id.is_some()));
        if let Some(id) = id {
            self.log_id(id);
        }
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// Takes a message apart.
#[derive(Debug)]
pub(crate) struct Reader(Bytes);

impl Reader {
    /// A request, with the replica it is meant for.
    pub(crate) fn request(message: Bytes) -> Result<(Reader, u64), Error> {
        let mut reader = Reader::reply(message)?;
        let to = reader.number("replica id")?;
        Ok((reader, to))
    }

    /// A reply.
    pub(crate) fn reply(message: Bytes) -> Result<Reader, Error> {
        let mut reader = Reader(message);
        match reader.u8("version")? {
            VERSION => Ok(reader),
            other => Err(bad(format!("version {other}, this node speaks {VERSION}"))),
        }
    }

    fn need(&self, bytes: usize, what: &str) -> Result<(), Error> {
        if self.0.len() < bytes {
            return Err(bad(format!("{what} needs {bytes} bytes, {} are left", self.0.len())));
        }
        Ok(())
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8, Error> {
        self.need(1, what)?;
        Ok(self.0.get_u8())
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, Error> {
        self.need(4, what)?;
        Ok(self.0.get_u32_le())
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, Error> {
        self.need(8, what)?;
        Ok(self.0.get_u64_le())
    }

    /// A term, an index or a replica id.
    pub(crate) fn number(&mut self, what: &str) -> Result<u64, Error> {
        match self.u64(what)? {
            value if value <= NUMBER_MAX => Ok(value),
            value => Err(bad(format!("{what} {value} is above {NUMBER_MAX}"))),
        }
    }

    pub(crate) fn flag(&mut self, what: &str) -> Result<bool, Error> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(bad(format!("{what} is {other}, neither 0 nor 1"))),
        }
    }

    pub(crate) fn bytes(&mut self, length: usize, what: &str) -> Result<Bytes, Error> {
        self.need(length, what)?;
        Ok(self.0.split_to(length))
    }

    pub(crate) fn vote(&mut self) -> Result<Vote, Error> {
        let term = self.number("term")?;
        let replica = self.number("replica id")?;
        Ok(match self.flag("committed")? {
            true => Vote::new_committed(term, replica),
            false => Vote::new(term, replica),
        })
    }

    pub(crate) fn log_id(&mut self) -> Result<LogId, Error> {
        let term = self.number("term")?;
        let index = self.number("index")?;
        Ok(LogId::new(CommittedLeaderId::new(term), index))
    }

    pub(crate) fn optional_log_id(&mut self, what: &str) -> Result<Option<LogId>, Error> {
        match self.flag(what)? {
            true => self.log_id().map(Some),
            false => Ok(None),
        }
    }

    /// What is left, for frames that know their own lengths.
    pub(crate) fn rest(&mut self) -> &mut Bytes {
        &mut self.0
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Error> {
        if !self.0.is_empty() {
            return Err(bad(format!("{} bytes too many", self.0.len())));
        }
        Ok(())
    }
}

pub(crate) fn bad(why: impl Into<String>) -> Error {
    Error::BadMessage(why.into())
}
