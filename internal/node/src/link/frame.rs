//! The bytes of the peer link; the only file that knows them.
//!
//! ```text
//!   offset  0  u32  length of everything behind this field: 18 + body
//!           4  u8   frame type
//!           5  u64  call or stream id, chosen by the dialler, growing; 0 where there is none
//!          13  u64  group the call or stream is for; u64::MAX for the node itself
//!          21  u8   kind, the users' own number for the message
//!          22  …    body
//! ```
//!
//! Integers are big-endian. The first frame each way is a hello; its body:
//!
//! ```text
//!   u16 protocol version · u8 lane (0 control, 1 bulk) · 16 incarnation · u64 boot
//!   16 cluster id (zeros: none yet) · u8 length of the name · name
//! ```
//!
//! The kind of a hello says in bits what its sender understands beyond the first builds of this version, which sent 0
//! there and never looked: bit 0, bundles. Unknown bits are ignored. So nodes of both kinds talk to each other.

pub(super) mod bundle;

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use highwater_partition::Lane;
use highwater_partition::log::ClusterId;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::limits::REASON_BYTES_MAX;
use super::{Hello, Refusal};
use crate::tls::explain;

/// The version of the protocol that this code speaks. Both sides must speak the same.
pub(super) const PROTOCOL_VERSION: u16 = 1;
/// Bytes of a frame before its body.
pub(super) const HEADER_BYTES: usize = 22;
/// The part of the header that the length counts.
const COUNTED_HEADER_BYTES: usize = HEADER_BYTES - 4;
const NO_CLUSTER_ID: [u8; 16] = [0; 16];
/// In the kind of a hello: its sender understands bundles.
const UNDERSTANDS_BUNDLES: u8 = 1;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameType {
    /// First frame each way; again when a cluster id becomes known.
    Hello = 1,
    /// The sender will not talk to us; the body says why. The last frame of a connection.
    Refuse = 2,
    /// A sign of life, sent when nothing else is.
    Ping = 3,
    /// A call; from the dialler.
    Call = 4,
    /// The answer to the call of the same id.
    Answer = 5,
    /// The refusal of the call of the same id; the body says why, the kind whether anything was done (`refusal`).
    Failure = 6,
    /// Opens a stream; from the dialler.
    Open = 7,
    /// A message of a stream.
    Data = 8,
    /// The receiver has taken messages of a stream: u32 messages, u32 bytes.
    Credit = 9,
    /// The sender's direction of a stream is complete.
    End = 10,
    /// The sender reads no more of a stream; the other side shall end its direction.
    Stop = 11,
    /// A gossip message; from the dialler.
    Gossip = 12,
    /// A bundle of calls; from the dialler, to those who understand it.
    Calls = 13,
    /// A bundle of answers and refusals to calls that came in bundles.
    Answers = 14,
}

impl FrameType {
    fn from_number(number: u8) -> Option<FrameType> {
        use FrameType::*;
        let all = [
            Hello, Refuse, Ping, Call, Answer, Failure, Open, Data, Credit, End, Stop, Gossip, Calls, Answers,
        ];
        all.into_iter().find(|frame_type| *frame_type as u8 == number)
    }
}

/// Everything in a frame but its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) frame_type: FrameType,
    pub(super) id: u64,
    pub(super) group: u64,
    pub(super) kind: u8,
}

/// A frame to be sent; the body's parts are written one behind the other, without being joined.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) header: Header,
    pub(super) body: Vec<Bytes>,
}

/// Why the next frame cannot be had. Always the end of the connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("{}", broke(.0))]
    Io(#[from] io::Error),
    #[error("a frame of type {0} is unknown")]
    UnknownType(u8),
    #[error("a frame with a length field of {length} bytes is too short")]
    TooShort { length: usize },
    #[error("a frame with a body of {bytes} bytes is over the limit of {bytes_max}")]
    TooLong { bytes: usize, bytes_max: usize },
}

/// How a broken connection reads in logs and errors.
pub(super) fn broke(error: &io::Error) -> String {
    format!("the connection broke: {}", explain(error))
}

impl Frame {
    /// A frame that concerns the connection rather than a call or stream.
    pub(super) fn plain(frame_type: FrameType, body: Vec<Bytes>) -> Frame {
        Frame::of(frame_type, 0, body)
    }

    /// A frame about a call or stream that the other side knows already.
    pub(super) fn of(frame_type: FrameType, id: u64, body: Vec<Bytes>) -> Frame {
        Frame {
            header: Header {
                frame_type,
                id,
                group: 0,
                kind: 0,
            },
            body,
        }
    }

    /// A frame whose body is a reason, cut to its limit.
    pub(super) fn reason(frame_type: FrameType, id: u64, why: &str) -> Frame {
        let mut end = why.len().min(REASON_BYTES_MAX);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        Frame::of(frame_type, id, vec![Bytes::copy_from_slice(&why.as_bytes()[..end])])
    }

    /// A refusal of the call of that id.
    pub(super) fn failure(id: u64, refusal: &Refusal) -> Frame {
        let mut frame = Frame::reason(FrameType::Failure, id, refusal.why());
        frame.header.kind = refusal.kind();
        frame
    }

    pub(super) fn hello(hello: &Hello) -> Frame {
        let mut frame = Frame::plain(FrameType::Hello, vec![encode_hello(hello)]);
        frame.header.kind = if hello.bundles { UNDERSTANDS_BUNDLES } else { 0 };
        frame
    }

    pub(super) fn credit(id: u64, messages: u32, bytes: u32) -> Frame {
        let mut body = BytesMut::with_capacity(8);
        body.put_u32(messages);
        body.put_u32(bytes);
        Frame::of(FrameType::Credit, id, vec![body.freeze()])
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// Writes the header behind what `buffer` holds. The body must be within the limit of a frame.
    pub(super) fn encode_header(&self, buffer: &mut BytesMut) {
        buffer.reserve(HEADER_BYTES);
        buffer.put_u32((COUNTED_HEADER_BYTES + self.body_bytes()) as u32);
        buffer.put_u8(self.header.frame_type as u8);
        buffer.put_u64(self.header.id);
        buffer.put_u64(self.header.group);
        buffer.put_u8(self.header.kind);
    }
}

/// Reads the next frame; its body goes into a buffer of its own, so that slices of it share it without copying.
/// `progress` is called for every piece that arrives.
pub(super) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    body_bytes_max: usize,
    progress: impl Fn(),
) -> Result<(Header, Bytes), FrameError> {
    let head = read_exactly(stream, HEADER_BYTES, &progress).await?;
    let (header, body_bytes) = decode_header(head, body_bytes_max)?;
    if body_bytes == 0 {
        return Ok((header, Bytes::new()));
    }
    let body = read_exactly(stream, body_bytes, &progress).await?;
    Ok((header, body))
}

fn decode_header(mut head: Bytes, body_bytes_max: usize) -> Result<(Header, usize), FrameError> {
    let length = head.get_u32() as usize;
    let Some(body_bytes) = length.checked_sub(COUNTED_HEADER_BYTES) else {
        return Err(FrameError::TooShort { length });
    };
    if body_bytes > body_bytes_max {
        return Err(FrameError::TooLong {
            bytes: body_bytes,
            bytes_max: body_bytes_max,
        });
    }
    let number = head.get_u8();
    let frame_type = FrameType::from_number(number).ok_or(FrameError::UnknownType(number))?;
    let header = Header {
        frame_type,
        id: head.get_u64(),
        group: head.get_u64(),
        kind: head.get_u8(),
    };
    Ok((header, body_bytes))
}

async fn read_exactly(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: usize,
    progress: &impl Fn(),
) -> Result<Bytes, io::Error> {
    let mut buffer = BytesMut::with_capacity(bytes);
    while buffer.len() < bytes {
        let missing = bytes - buffer.len();
        if stream.read_buf(&mut (&mut buffer).limit(missing)).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the other side"));
        }
        progress();
    }
    Ok(buffer.freeze())
}

fn encode_hello(hello: &Hello) -> Bytes {
    let mut body = BytesMut::with_capacity(64 + hello.node.len());
    body.put_u16(PROTOCOL_VERSION);
    body.put_u8(matches!(hello.lane, Lane::Bulk).into());
    body.put_slice(&hello.incarnation);
    body.put_u64(hello.boot);
    body.put_slice(&hello.cluster_id.map_or(NO_CLUSTER_ID, |id| id.0));
    body.put_u8(hello.node.len() as u8); // names have at most 128 bytes
    body.put_slice(hello.node.as_bytes());
    body.freeze()
}

/// Reads a hello, or says what is wrong with it.
pub(super) fn decode_hello(header: Header, mut body: Bytes) -> Result<Hello, String> {
    let broken = |_| "the hello is broken".to_owned();
    let version = body.try_get_u16().map_err(broken)?;
    if version != PROTOCOL_VERSION {
        return Err(format!(
            "the peer protocol versions differ: {version} there, {PROTOCOL_VERSION} here"
        ));
    }
    let lane = match body.try_get_u8().map_err(broken)? {
        0 => Lane::Control,
        1 => Lane::Bulk,
        other => return Err(format!("the hello names an unknown lane {other}")),
    };
    let mut incarnation = [0; 16];
    body.try_copy_to_slice(&mut incarnation).map_err(broken)?;
    let boot = body.try_get_u64().map_err(broken)?;
    let mut cluster_id = NO_CLUSTER_ID;
    body.try_copy_to_slice(&mut cluster_id).map_err(broken)?;
    let name_bytes = body.try_get_u8().map_err(broken)?;
    if body.len() != usize::from(name_bytes) {
        return Err("the hello is broken".to_owned());
    }
    let node = String::from_utf8(body.to_vec()).map_err(|_| "the hello's node name is not text".to_owned())?;
    let cluster_id = (cluster_id != NO_CLUSTER_ID).then_some(ClusterId(cluster_id));
    Ok(Hello {
        node,
        cluster_id,
        incarnation,
        boot,
        lane,
        bundles: header.kind & UNDERSTANDS_BUNDLES != 0,
    })
}
