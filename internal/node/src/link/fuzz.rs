//! A way into the bytes of the peer link for the fuzz targets (`tests/fuzz`), with what must hold for any bytes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is what is looked for

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::frame::bundle::{Bundle, decode_answers, decode_calls};
use super::frame::{Frame, FrameError, FrameType, Header, decode_hello, read_frame};
use super::limits::HELLO_BYTES_MAX;

/// Frames that arrive one behind the other; each is the same bytes when it is sent on. So is a hello.
pub fn link(bytes: &[u8]) {
    let mut stream = bytes;
    loop {
        let before = stream;
        let (header, body) = match next(&mut stream) {
            Ok(read) => read,
            Err(FrameError::TooLong { bytes, .. }) => {
                assert!(bytes > HELLO_BYTES_MAX);
                break;
            }
            Err(_) => break,
        };
        if header.frame_type == FrameType::Hello
            && let Ok(hello) = decode_hello(header, body.clone())
        {
            assert_eq!(Frame::hello(&hello).body.concat(), body);
        }
        bundles(&body);
        let frame = Frame {
            header,
            body: vec![body.clone()],
        };
        let mut again = BytesMut::new();
        frame.encode_header(&mut again);
        again.extend_from_slice(&body);
        assert_eq!(again, before[..before.len() - stream.len()]);
    }
}

/// A bundle that can be read is the same bytes when it is made again.
fn bundles(body: &Bytes) {
    if let Ok(calls) = decode_calls(body.clone()) {
        let mut again = Bundle::default();
        calls.iter().for_each(|call| again.add_call(call));
        assert_eq!(again.take(FrameType::Calls).0.body.concat(), *body);
    }
    let _ = decode_answers(body.clone()); // a reason is made fit for logs, so it is not the same bytes
}

/// Bytes that are there are never waited for.
fn next(stream: &mut &[u8]) -> Result<(Header, Bytes), FrameError> {
    let reading = pin!(read_frame(stream, HELLO_BYTES_MAX, || ()));
    match reading.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read,
        Poll::Pending => panic!("bytes that are there are waited for"),
    }
}
