//! What to do with each frame that arrives.
//!
//! The reader never waits for anything but the next frame: calls and streams run in tasks of their own, what must be
//! sent from here goes out as urgent frames, and a breach of the protocol ends the connection with the reason.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes};
use futures::FutureExt;
use tokio::io::AsyncRead;
use tokio::sync::OwnedSemaphorePermit;

use super::company::begin_calls;
use super::connection::{Connection, Role, check_size};
use super::frame::bundle::{BundledAnswer, decode_answers};
use super::frame::{Frame, FrameError, FrameType, Header, broke, decode_hello, read_frame};
use super::limits::{FRAME_BYTES_MAX, GOSSIP_BYTES_MAX};
use super::{Inner, LinkHandler, Refusal};

/// Why a call is not even begun.
pub(super) const TOO_MANY_CALLS: &str = "too many calls at once on this connection";

/// Why the connection is to end.
enum End {
    /// The other side has said so.
    Refused(String),
    /// The other side has broken the rules, or is not wanted any more.
    Breach(String),
}

/// Reads until the connection ends, and answers why.
pub(super) async fn read_from(
    connection: &Arc<Connection>,
    input: &mut (impl AsyncRead + Unpin),
    inner: &Arc<Inner>,
) -> String {
    loop {
        let progress = || {
            connection.progress.fetch_add(1, Ordering::Relaxed);
        };
        let (header, body) = match read_frame(input, FRAME_BYTES_MAX, progress).await {
            Ok(frame) => frame,
            Err(FrameError::Io(error)) => return broke(&error),
            Err(error) => {
                connection.refuse(error.to_string());
                return error.to_string();
            }
        };
        match take(connection, inner, header, body) {
            Ok(()) => {}
            Err(End::Refused(why)) => return why,
            Err(End::Breach(why)) => {
                connection.refuse(why.clone());
                return why;
            }
        }
    }
}

fn take(connection: &Arc<Connection>, inner: &Arc<Inner>, header: Header, body: Bytes) -> Result<(), End> {
    match (header.frame_type, connection.role) {
        (FrameType::Ping, _) => Ok(()),
        (FrameType::Hello, _) => hello_again(connection, inner, header, body),
        (FrameType::Refuse, _) => Err(End::Refused(format!("it refused the connection: {}", text(&body)))),
        (FrameType::Call, Role::Acceptor) => {
            begin_call(connection, inner, header, body);
            Ok(())
        }
        (FrameType::Calls, Role::Acceptor) => begin_calls(connection, inner, body).map_err(End::Breach),
        (FrameType::Answers, Role::Dialler) => {
            let answers = decode_answers(body).map_err(End::Breach)?;
            let take = |each: BundledAnswer| connection.answer(each.id, each.answer);
            answers.into_iter().for_each(take);
            Ok(())
        }
        (FrameType::Open, Role::Acceptor) => {
            begin_stream(connection, inner, header);
            Ok(())
        }
        (FrameType::Gossip, Role::Acceptor) => gossip(connection, inner, body),
        (FrameType::Answer, Role::Dialler) => {
            connection.answer(header.id, Ok(body));
            Ok(())
        }
        (FrameType::Failure, Role::Dialler) => {
            connection.answer(header.id, Err(Refusal::read(header.kind, text(&body))));
            Ok(())
        }
        (FrameType::Data | FrameType::Credit | FrameType::End | FrameType::Stop, _) => {
            stream_frame(connection, header, body).map_err(End::Breach)
        }
        (frame_type, role) => Err(End::Breach(format!(
            "a frame {frame_type:?} makes no sense to the {role:?}"
        ))),
    }
}

fn stream_frame(connection: &Connection, header: Header, mut body: Bytes) -> Result<(), String> {
    connection.with_stream(header.id, |stream| match header.frame_type {
        FrameType::Data => stream.deliver(body),
        FrameType::Credit => {
            let (Ok(messages), Ok(bytes)) = (body.try_get_u32(), body.try_get_u32()) else {
                return Err("a credit frame is too short".to_owned());
            };
            stream.add_credit(messages, bytes)
        }
        FrameType::End => {
            stream.end_inbound();
            Ok(())
        }
        _ => {
            stream.stop_outbound();
            Ok(())
        }
    })
}

/// The other side has learned its cluster id since the connection began.
fn hello_again(connection: &Connection, inner: &Inner, header: Header, body: Bytes) -> Result<(), End> {
    let hello = decode_hello(header, body).map_err(End::Breach)?;
    inner.admit(connection.peer(), &hello).map_err(End::Breach)?;
    connection.replace_hello(hello).map_err(End::Breach)
}

fn gossip(connection: &Connection, inner: &Inner, body: Bytes) -> Result<(), End> {
    if body.len() > GOSSIP_BYTES_MAX {
        return Err(End::Breach(format!(
            "a gossip message of {} bytes is over {GOSSIP_BYTES_MAX}",
            body.len()
        )));
    }
    inner.handler.gossip(connection.peer(), body);
    Ok(())
}

fn begin_stream(connection: &Arc<Connection>, inner: &Inner, header: Header) {
    match connection.accept_stream(header.id) {
        Ok(stream) => {
            let (connection, handler) = (connection.clone(), inner.handler.clone());
            inner.handlers.spawn(async move {
                handler
                    .stream(connection.peer(), header.group, header.kind, stream)
                    .await
            });
        }
        Err(why) => {
            tracing::warn!(node = connection.peer(), why, "a stream was turned away");
            connection.send_urgent(Frame::of(FrameType::Stop, header.id, Vec::new()));
            connection.send_urgent(Frame::of(FrameType::End, header.id, Vec::new()));
        }
    }
}

fn begin_call(connection: &Arc<Connection>, inner: &Inner, header: Header, body: Bytes) {
    let slot = connection.incoming_calls.clone().try_acquire_owned();
    let bytes = connection
        .incoming_call_bytes
        .clone()
        .try_acquire_many_owned(body.len() as u32);
    let (Ok(slot), Ok(bytes)) = (slot, bytes) else {
        let refusal = Refusal::NotBegun(TOO_MANY_CALLS.to_owned());
        return connection.send_urgent(Frame::failure(header.id, &refusal));
    };
    inner.handlers.spawn(carry_out(
        connection.clone(),
        inner.handler.clone(),
        header,
        body,
        [slot, bytes],
    ));
}

async fn carry_out(
    connection: Arc<Connection>,
    handler: Arc<dyn LinkHandler>,
    header: Header,
    body: Bytes,
    _permits: [OwnedSemaphorePermit; 2],
) {
    let frame = match answer_of(connection.peer(), handler.as_ref(), header, body).await {
        Ok(parts) => Frame::of(FrameType::Answer, header.id, parts),
        Err(refusal) => Frame::failure(header.id, &refusal),
    };
    let _ = connection.send(frame).await; // an error means that nobody waits for the answer any more
}

/// What the handler answers to a call; a refusal if it panics or says more than fits into a frame.
pub(super) async fn answer_of(
    from: &str,
    handler: &dyn LinkHandler,
    header: Header,
    body: Bytes,
) -> Result<Vec<Bytes>, Refusal> {
    let answer = async { handler.call(from, header.group, header.kind, body).await };
    let parts = AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(
            node = from,
            group = header.group,
            kind = header.kind,
            "a call's handler panicked"
        );
        Err("internal error: the handler of the call panicked".to_owned().into())
    })?;
    check_size(&parts)?;
    Ok(parts)
}

/// A reason given by the other side, fit for a log.
pub(super) fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body)
        .chars()
        .map(|each| if each.is_control() { ' ' } else { each })
        .collect()
}
