//! The manifest: the state folded up to the floor, behind which the log begins, and the checkpoint of the group's machine there.
//! The same bytes stand on disk and go over the wire.
//!
//! ```text
//!  0 magic u64  8 crc u32 (of bytes 12 to the end)  12 version u32  16 cluster_id (16)  32 group_id u64
//! 40 the state, as in a checkpoint
//!  … machine: length u32, bytes
//! ```

use bytes::BufMut;

use super::checkpoint::{decode_state, encode_state};
use super::{Fields, check_crc, crc32c, limit, put_bytes};
use crate::error::FormatError;
use crate::ids::{ClusterId, GroupId};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest};

const VERSION: u32 = 1;
const MAGIC: u64 = u64::from_le_bytes(*b"HWMANIFS");
const CRC_START: usize = 12;

pub(crate) fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64_le(MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(VERSION);
    out.extend_from_slice(&manifest.cluster_id.0);
    out.put_u64_le(manifest.group_id.0);
    encode_state(&mut out, &manifest.state);
    put_bytes(&mut out, &manifest.machine);
    let crc = crc32c(&out[CRC_START..]);
    out[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
    limit("manifest", bytes.len() as u64, MANIFEST_BYTES_MAX)?;
    let mut fields = Fields::new("manifest", bytes);
    fields.expect_u64("magic", MAGIC)?;
    let crc = fields.u32()?;
    check_crc("manifest", &bytes[CRC_START..], crc)?;
    fields.expect_u32("version", VERSION)?;
    let manifest = Manifest {
        cluster_id: ClusterId(fields.id()?),
        group_id: GroupId(fields.u64()?),
        state: decode_state(&mut fields)?,
        machine: fields.bytes()?,
    };
    fields.finish()?;
    if manifest.state.next_index == 0 {
        return Err(FormatError::Invalid {
            field: "next index of a manifest",
            value: 0,
        });
    }
    Ok(manifest)
}
