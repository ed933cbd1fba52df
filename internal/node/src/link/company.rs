//! Small calls that travel in company: the heartbeats of hundreds of groups to the same node.
//!
//! Each heartbeat by itself costs a frame, a write, a task and an answer's frame. So a call that is known to be small and
//! frequent may wait for others: those made within [`COMPANY_WAIT`] go to the peer in one frame, a *bundle*. One that is
//! made after a quiet time goes at once, and alone; so a node with few groups waits for nobody.
//!
//! A bundle saves frames and nothing else. Every call in it has its own id, its own deadline and its own answer, and is
//! given to the handler by itself, under the name of the peer that sent it, as if it had come alone; so a group that is
//! slow, foreign or missing answers late, or with a refusal, for itself only; what it holds is the room of its bundle
//! among those that are served at a time. Answers travel in company as well: those that are there within
//! [`ANSWERS_WAIT`] of the first.
//!
//! A peer says in its hello whether it understands bundles. To one that does not, calls go one by one.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::{CallError, Connection, lock};
use super::frame::bundle::{Bundle, BundledCall, decode_calls};
use super::frame::{Frame, FrameType, Header};
use super::limits::{ANSWERS_WAIT, BUNDLED_BODY_BYTES_MAX, COMPANY_QUIET, COMPANY_WAIT};
use super::reader::{TOO_MANY_CALLS, answer_of};
use super::{Inner, LinkHandler, Refusal};

/// The calls of one connection that wait for company.
#[derive(Debug, Default)]
pub(super) struct Company(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bundle: Bundle,
    /// Somebody will send what waits.
    is_due: bool,
    /// When the last one was made that could have gone in company.
    last_call: Option<Instant>,
}

/// What becomes of a call.
enum Way {
    /// It has been quiet: it goes by itself.
    Alone,
    /// It waits with others, and the caller is the one to send them all when the time is over.
    First,
    /// It waits with others.
    Joined,
    /// It has filled the bundle, which goes now.
    Filled(Frame, Vec<u64>),
}

impl Company {
    fn join(&self, call: &BundledCall, now: Instant) -> Way {
        let mut waiting = lock(&self.0);
        let last_call = waiting.last_call.replace(now);
        if waiting.bundle.is_empty() && last_call.is_none_or(|last| now - last >= COMPANY_QUIET) {
            return Way::Alone;
        }
        waiting.bundle.add_call(call);
        if waiting.bundle.is_full() {
            let (frame, ids) = waiting.bundle.take(FrameType::Calls);
            return Way::Filled(frame, ids);
        }
        match std::mem::replace(&mut waiting.is_due, true) {
            true => Way::Joined,
            false => Way::First,
        }
    }

    /// What waits, if anything does.
    fn leave(&self) -> Option<(Frame, Vec<u64>)> {
        let mut waiting = lock(&self.0);
        waiting.is_due = false;
        (!waiting.bundle.is_empty()).then(|| waiting.bundle.take(FrameType::Calls))
    }
}

impl Connection {
    /// A small request, which may wait a moment for others; until it is answered. Dropping the future forgets the call.
    pub(super) async fn call_in_company(
        self: &Arc<Self>,
        group: u64,
        kind: u8,
        body: Vec<Bytes>,
    ) -> Result<Bytes, CallError> {
        let bytes: usize = body.iter().map(Bytes::len).sum();
        if !self.takes_bundles() || bytes > BUNDLED_BODY_BYTES_MAX {
            return self.call(group, kind, body).await;
        }
        let pending = self.begin_call()?;
        let call = BundledCall {
            id: pending.id(),
            group,
            kind,
            body: joined(body),
        };
        match self.company().join(&call, Instant::now()) {
            Way::Alone => self.send_call(&pending, group, kind, vec![call.body])?,
            Way::Joined => {}
            Way::Filled(frame, ids) => self.send_bundle(frame, &ids),
            Way::First => {
                let connection = self.clone();
                tokio::spawn(async move {
                    sleep(COMPANY_WAIT).await;
                    if let Some((frame, ids)) = connection.company().leave() {
                        connection.send_bundle(frame, &ids);
                    }
                });
            }
        }
        pending.answer().await
    }

    /// Sends a bundle; if that is not possible its calls end without an answer.
    fn send_bundle(&self, frame: Frame, ids: &[u64]) {
        if self.try_send(frame).is_err() {
            ids.iter().for_each(|id| self.forget_call(*id));
        }
    }
}

fn joined(mut body: Vec<Bytes>) -> Bytes {
    match body.len() {
        1 => body.remove(0),
        _ => body.concat().into(),
    }
}

/// Begins all calls of a bundle; answers what is wrong with it.
pub(super) fn begin_calls(connection: &Arc<Connection>, inner: &Inner, body: Bytes) -> Result<(), String> {
    let bytes = body.len() as u32;
    let calls = decode_calls(body)?;
    let count = calls.len() as u32;
    let slots = connection.incoming_calls.clone().try_acquire_many_owned(count);
    let bytes = connection.incoming_call_bytes.clone().try_acquire_many_owned(bytes);
    let (Ok(slots), Ok(bytes)) = (slots, bytes) else {
        let mut refusals = Bundle::default();
        calls
            .iter()
            .for_each(|call| refusals.add_answer(call.id, Err(TOO_MANY_CALLS)));
        connection.send_urgent(refusals.take(FrameType::Answers).0);
        return Ok(());
    };
    let handler = inner.handler.clone();
    let carrying_out = carry_out(connection.clone(), handler, calls, [slots, bytes]);
    inner.handlers.spawn(carrying_out);
    Ok(())
}

/// Carries the calls out side by side, and sends the answers in company, in the order in which they come.
async fn carry_out(
    connection: Arc<Connection>,
    handler: Arc<dyn LinkHandler>,
    calls: Vec<BundledCall>,
    _permits: [OwnedSemaphorePermit; 2],
) {
    let mut going_on: FuturesUnordered<_> = calls
        .into_iter()
        .map(|call| carry_out_one(&connection, &handler, call))
        .collect();
    let mut answers = Bundle::default();
    let mut wait = std::pin::pin!(sleep_until(Instant::now()));
    loop {
        let next = tokio::select! {
            biased;
            next = going_on.next() => next,
            () = wait.as_mut(), if !answers.is_empty() => {
                send_answers(&connection, &mut answers).await;
                continue;
            }
        };
        let Some((id, answer)) = next else { break };
        if answers.is_empty() {
            wait.as_mut().reset(Instant::now() + ANSWERS_WAIT);
        }
        match answer {
            Ok(body) if body.len() > BUNDLED_BODY_BYTES_MAX => {
                let _ = connection.send(Frame::of(FrameType::Answer, id, vec![body])).await;
            }
            Ok(body) => answers.add_answer(id, Ok(&body)),
            Err(refusal) => answers.add_answer(id, Err(refusal.why())),
        }
        if answers.is_full() {
            send_answers(&connection, &mut answers).await;
        }
    }
    send_answers(&connection, &mut answers).await;
}

async fn carry_out_one(
    connection: &Arc<Connection>,
    handler: &Arc<dyn LinkHandler>,
    call: BundledCall,
) -> (u64, Result<Bytes, Refusal>) {
    let header = Header {
        frame_type: FrameType::Call,
        id: call.id,
        group: call.group,
        kind: call.kind,
    };
    let answer = answer_of(connection.peer(), handler.as_ref(), header, call.body).await;
    (call.id, answer.map(joined))
}

async fn send_answers(connection: &Connection, answers: &mut Bundle) {
    if !answers.is_empty() {
        let (frame, _) = answers.take(FrameType::Answers);
        let _ = connection.send(frame).await; // an error means that nobody waits for the answers any more
    }
}
