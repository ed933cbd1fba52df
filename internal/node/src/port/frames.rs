//! The heads of HTTP/2 frames (RFC 9113, section 4.1) in bytes that come in pieces.
//!
//! Nothing is judged or kept here: that is done by whoever speaks HTTP/2. Bytes that are no HTTP/2 give frames that make no sense, and never
//! more than one for nine bytes.

const HEAD_BYTES: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// A frame, by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Of its body.
    pub(super) bytes: u32,
}

/// One direction of a connection.
///
/// Invariant: fewer than [`HEAD_BYTES`] bytes of a head are kept, and none while bytes are skipped.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Of the present body, or of what comes before the first frame.
    skip: usize,
}

impl Frames {
    /// `skip`: how many bytes come before the first frame.
    pub(super) fn after(skip: usize) -> Frames {
        Frames {
            head: [0; HEAD_BYTES],
            have: 0,
            skip,
        }
    }

    /// Tells of each frame whose head ends in these bytes, which come next.
    pub(super) fn pass(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let (head, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.have));
            self.head[self.have..self.have + head.len()].copy_from_slice(head);
            self.have += head.len();
            bytes = rest;
            if self.have == HEAD_BYTES {
                let frame = Frame::of(self.head);
                self.have = 0;
                self.skip = frame.bytes as usize;
                tell(frame);
            }
        }
    }
}

impl Frame {
    fn of(head: [u8; HEAD_BYTES]) -> Frame {
        let [b2, b1, b0, kind, flags, s3, s2, s1, s0] = head;
        Frame {
            kind,
            flags,
            // The first bit is reserved, and to be ignored.
            stream: u32::from_be_bytes([s3, s2, s1, s0]) & (u32::MAX >> 1),
            bytes: u32::from_be_bytes([0, b2, b1, b0]),
        }
    }

    /// Whether its sender sends nothing more on the stream.
    pub(super) fn ends_stream(&self) -> bool {
        match self.kind {
            RST_STREAM => true,
            DATA | HEADERS => self.flags & END_STREAM != 0,
            _ => false,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A frame as it is sent, with a body of zeros.
    pub(crate) fn sent(kind: u8, flags: u8, stream: u32, bytes: u32) -> Vec<u8> {
        let mut sent = bytes.to_be_bytes()[1..].to_vec();
        sent.extend([kind, flags]);
        sent.extend(stream.to_be_bytes());
        sent.resize(HEAD_BYTES + bytes as usize, 0);
        sent
    }

    #[test]
    fn frames_are_told_however_their_bytes_are_cut() {
        let all = [
            (HEADERS, 4, 1, 40),
            (DATA, 0, 1, 70_000),
            (DATA, 1, 1, 0),
            (RST_STREAM, 0, 3, 4),
        ];
        let mut sent_bytes = b"preface".to_vec();
        sent_bytes.extend(
            all.iter()
                .flat_map(|&(kind, flags, stream, bytes)| sent(kind, flags, stream, bytes)),
        );
        for piece in [1, 2, 8, 9, 10, 1000, sent_bytes.len()] {
            let mut frames = Frames::after(7);
            let mut told = Vec::new();
            for bytes in sent_bytes.chunks(piece) {
                frames.pass(bytes, |frame| {
                    told.push((frame.kind, frame.flags, frame.stream, frame.bytes))
                });
            }
            assert_eq!(told, all, "in pieces of {piece}");
        }
    }
}
