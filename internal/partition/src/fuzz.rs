//! Ways into the decoders for the fuzz targets (`tests/fuzz`), with what must hold for any bytes. Only with the feature `fuzz`.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is what is looked for

use bytes::Bytes;

use crate::codec::{append, calls, install, membership, recall};
use crate::error::Error;

/// A codec: what decodes it and encodes the result again.
type Again = fn(Bytes) -> Result<Vec<Bytes>, Error>;

const CODECS: [Again; 17] = [
    |message| {
        let (to, request, certain) = append::decode_request(message)?;
        Ok(append::encode_request(to, request, certain)?.0)
    },
    |message| Ok(vec![append::encode_result(&append::decode_result(message)?)]),
    |message| {
        let (to, request) = calls::decode_vote_request(message)?;
        Ok(vec![calls::encode_vote_request(to, &request)])
    },
    |message| {
        Ok(vec![calls::encode_vote_response(&calls::decode_vote_response(
            message,
        )?)])
    },
    |message| {
        let (to, request) = calls::decode_transfer_request(message)?;
        Ok(vec![calls::encode_transfer_request(to, &request)])
    },
    |message| {
        let response = calls::decode_transfer_response(message)?;
        Ok(vec![calls::encode_transfer_response(&response)])
    },
    |message| {
        Ok(vec![calls::encode_confirm_request(calls::decode_confirm_request(
            message,
        )?)])
    },
    |message| Ok(vec![calls::encode_confirmation(&calls::decode_confirmation(message)?)]),
    |message| {
        let (to, asker) = recall::decode_remember(message)?;
        Ok(vec![recall::encode_remember(to, asker)])
    },
    |message| Ok(vec![recall::encode_seen(recall::decode_seen(message)?.as_ref())]),
    |message| {
        let (to, first, end) = recall::decode_refill_request(message)?;
        Ok(vec![recall::encode_refill_request(to, first, end)])
    },
    |message| Ok(recall::encode_refill(recall::decode_refill(message)?)),
    |message| {
        let (to, offset) = recall::decode_manifest_request(message)?;
        Ok(vec![recall::encode_manifest_request(to, offset)])
    },
    |message| Ok(recall::encode_manifest_piece(recall::decode_manifest_piece(message)?)),
    |message| {
        let (to, head) = install::decode_head(message)?;
        Ok(vec![install::encode_head(to, &head)])
    },
    |message| Ok(vec![install::encode_answer(&install::decode_answer(message)?)]),
    |message| Ok(vec![membership::encode(&membership::decode(message)?)?]),
];

const APPEND_REQUEST: usize = 0;
const REFILL_ANSWER: usize = 11;

/// A message between replicas; the first byte says which. What is taken is the same bytes when it is sent on.
pub fn messages(bytes: &[u8]) {
    let Some((first, message)) = bytes.split_first() else {
        return;
    };
    let codec = usize::from(*first) % CODECS.len();
    let mut sealed = message.to_vec();
    if let Some(frames) = frames_at(codec, message).and_then(|at| sealed.get_mut(at..)) {
        highwater_log::fuzz::seal_frames(frames);
    }
    for message in [message, &sealed] {
        if let Ok(again) = CODECS[codec](Bytes::copy_from_slice(message)) {
            assert_eq!(again.concat(), message, "codec {codec}");
        }
    }
}

/// Where a message's frames begin.
fn frames_at(codec: usize, message: &[u8]) -> Option<usize> {
    match codec {
        APPEND_REQUEST => {
            let mut at = 1 + 8 + 17;
            for _ in 0..2 {
                at += if *message.get(at)? == 1 { 17 } else { 1 };
            }
            Some(at + 4)
        }
        REFILL_ANSWER => Some(1 + 1 + 4),
        _ => None,
    }
}
