//! All bytes of the log: frames, details, segment headers, sparse indexes, the hard state, checkpoints. Everything is
//! little endian; every structure carries a version and a CRC32C; reading never trusts a length before it is checked.
//! Nothing outside this module knows a byte position inside a structure. Each file shows its layout above its code.

pub(crate) mod checkpoint;
pub(crate) mod detail;
pub(crate) mod files;
pub(crate) mod frame;
pub(crate) mod manifest;
#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes};
use crc_fast::{CrcAlgorithm, Digest};

use crate::error::FormatError;
use crate::ids::{ClusterId, GroupId};

/// CRC32C, as it stands in frames and in batches.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The chain before the first entry: frames of another cluster or group never follow on.
pub(crate) fn chain_origin(cluster_id: ClusterId, group_id: GroupId) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(&cluster_id.0);
    digest.update(&group_id.0.to_le_bytes());
    digest.finalize()
}

/// The chain behind an entry: digest of the chain before it, the header's fields and the detail.
pub(crate) fn chain_next(before: u64, header_fields: &[u8], detail: &[u8]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(&before.to_le_bytes());
    digest.update(header_fields);
    digest.update(detail);
    digest.finalize()
}

/// Refuses `size` above `limit`.
pub(crate) fn limit(what: &'static str, size: u64, limit: u64) -> Result<(), FormatError> {
    if size <= limit {
        return Ok(());
    }
    Err(FormatError::TooLarge { what, size, limit })
}

pub(crate) fn check_crc(what: &'static str, covered: &[u8], found: u32) -> Result<(), FormatError> {
    let expected = crc32c(covered);
    if expected == found {
        return Ok(());
    }
    Err(FormatError::Checksum {
        what,
        expected: expected.into(),
        found: found.into(),
    })
}

/// Writes a byte string behind its length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    debug_assert!(
        length < u32::MAX,
        "a byte string of {} bytes cannot be encoded",
        bytes.len()
    );
    out.put_u32_le(length);
    out.extend_from_slice(bytes);
}

/// Takes fields off the front of bytes; every read is checked.
pub(crate) struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Fields { what, rest: bytes }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(FormatError::Short {
                what: self.what,
                need: count,
                have: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn id(&mut self) -> Result<[u8; 16], FormatError> {
        self.array()
    }

    /// A byte string behind its length.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, FormatError> {
        let length = self.u32()? as usize;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    /// A field with only one valid value.
    pub(crate) fn expect_u32(&mut self, field: &'static str, expected: u32) -> Result<(), FormatError> {
        match self.u32()? {
            value if value == expected => Ok(()),
            value => Err(FormatError::Invalid {
                field,
                value: value.into(),
            }),
        }
    }

    /// A field with only one valid value.
    pub(crate) fn expect_u64(&mut self, field: &'static str, expected: u64) -> Result<(), FormatError> {
        match self.u64()? {
            value if value == expected => Ok(()),
            value => Err(FormatError::Invalid { field, value }),
        }
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), FormatError> {
        limit(self.what, self.rest.len() as u64, 0)
    }
}
