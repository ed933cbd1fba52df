//! What a client makes this node read that no call takes: calls begun and given up, heads that are too large, what is sent on after a
//! refusal, frames about nothing. Each is cheap for its sender, and none is stopped by a quota.
//!
//! A [`Watch`] sees the frames of a connection go by, both ways, and charges the client for these. A call that is answered gives back what it
//! cost, and every frame of an answer gives something for the frames that answers cause (windows, pings), so that a client that uses its
//! connection for calls never pays, at whatever speed. Whoever has used up its [`Budget`] is read no faster than that fills again, on all its
//! connections from there together, new ones as well: nothing is broken off, and the rest waits where it came from.
//!
//! Invariants:
//! * What a client is charged for is bounded by what it has sent; a budget never holds more than [`BURST`].
//! * Bodies are free as long as their call goes on: they are bounded by windows, by what may be in flight, and by quotas.
//!
//! Deliberately absent: any other judgement of frames. What HTTP/2 forbids is found by whoever speaks it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater_proto::limits::CONNECTION_STREAMS_MAX;
use tokio::time::Instant;

use super::complaints::{Complaint, PortCounters};
use super::frames::{CONTINUATION, DATA, Frame, Frames, HEADERS, RST_STREAM};
use super::{Peer, source_of};
use crate::identity::Identity;

/// What one client may make this node read beyond its calls, bytes a second. A frame counts as [`FRAME_COST`] bytes at least.
pub(super) const OVERHEAD_BYTES_PER_SECOND: u32 = 1024 * 1024;
/// As much of it at once, after a time without, seconds.
pub(super) const BURST_SECONDS: u32 = 4;
const BURST: f64 = (OVERHEAD_BYTES_PER_SECOND * BURST_SECONDS) as f64;
/// What a frame costs at least: about as much work as so many bytes.
const FRAME_COST: i64 = 1024;
/// What a head costs for each frame that it goes on in. A head that we take fits in its first frame; one that goes on usually ends the
/// connection (CVE-2024-27316), and then another handshake is the most that it costs us.
const CONTINUATION_COST: i64 = 64 * FRAME_COST;
/// What is given back for a call that is answered: its head, and the frame that may give it up later.
const ANSWERED: i64 = 2 * FRAME_COST;
/// What is given for a frame of an answer's body: two windows and a ping.
const GIVEN: i64 = 3 * FRAME_COST;
/// How much may be owed, or given, before the budget is told.
const SETTLE: i64 = 16 * FRAME_COST;
/// Calls of a connection that are known; more can be open only until they are refused.
const OPEN_MAX: usize = 2 * CONNECTION_STREAMS_MAX as usize;
/// Clients whose budgets are kept; beyond that those are forgotten that are full and that nobody uses.
const BUDGETS_MAX: usize = 8192;
/// The bytes that a client sends before its first frame (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// The budgets of clients, by where they come from: processes on different machines may share a certificate, and one of them go astray.
#[derive(Debug, Default)]
pub(super) struct Budgets(Mutex<HashMap<(Identity, IpAddr), Arc<Budget>>>);

/// What a client may still make us read; it goes into debt.
#[derive(Debug)]
pub(super) struct Budget(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    holds: f64,
    at: Instant,
}

/// Sees the frames of one connection.
#[derive(Debug)]
pub(super) struct Watch {
    budget: Arc<Budget>,
    counters: Arc<PortCounters>,
    remote: SocketAddr,
    from_client: Frames,
    to_client: Frames,
    calls: Calls,
}

/// The calls of a connection that are not over, and what has come of it.
#[derive(Debug, Default)]
struct Calls {
    /// Begun by the client, and ended neither by it nor by us; whether we have begun to answer.
    open: BTreeMap<u32, bool>,
    newest: u32,
    /// What is to be charged; below zero, given back.
    owed: i64,
}

impl Budgets {
    pub(super) fn of(&self, peer: &Peer) -> Arc<Budget> {
        let client = (peer.identity.clone(), source_of(peer.remote_addr.ip()));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&client) {
            return known.clone();
        }
        if all.len() >= BUDGETS_MAX {
            let now = Instant::now();
            all.retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.is_full(now));
        }
        let new = Arc::new(Budget::full(Instant::now()));
        if all.len() < BUDGETS_MAX {
            all.insert(client, new.clone());
        }
        new
    }
}

impl Budget {
    fn full(now: Instant) -> Budget {
        Budget(Mutex::new(Bucket { holds: BURST, at: now }))
    }

    /// Charges, or gives back; the answer is how long to wait before the client is read further.
    fn settle(&self, owed: i64, now: Instant) -> Duration {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = f64::from(OVERHEAD_BYTES_PER_SECOND);
        let gone_by = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.at = bucket.at.max(now);
        bucket.holds = (bucket.holds + rate * gone_by - owed as f64).min(BURST);
        let debt = Duration::try_from_secs_f64((-bucket.holds / rate).max(0.0));
        debt.unwrap_or(Duration::MAX)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.settle(0, now);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).holds >= BURST
    }
}

impl Watch {
    pub(super) fn new(budget: Arc<Budget>, counters: Arc<PortCounters>, remote: SocketAddr) -> Watch {
        Watch {
            budget,
            counters,
            remote,
            from_client: Frames::after(PREFACE_BYTES),
            to_client: Frames::after(0),
            calls: Calls::default(),
        }
    }

    /// These bytes were read.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        let calls = &mut self.calls;
        self.from_client.pass(bytes, |frame| calls.see_sent(frame));
    }

    /// These bytes were written.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        let calls = &mut self.calls;
        self.to_client.pass(bytes, |frame| calls.see_answered(frame));
    }

    /// How long to wait before more is read.
    pub(super) fn wait(&mut self) -> Duration {
        if self.calls.owed.abs() < SETTLE {
            return Duration::ZERO;
        }
        let wait = self.settle();
        if !wait.is_zero() {
            let why = "its client makes this node read much that no call takes";
            self.counters.complain(Complaint::Slowed, self.remote, why);
        }
        wait
    }

    /// How long still to wait, when a wait is over.
    pub(super) fn settle(&mut self) -> Duration {
        self.budget.settle(std::mem::take(&mut self.calls.owed), Instant::now())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Calls {
    fn see_sent(&mut self, frame: Frame) {
        let is_open = self.open.contains_key(&frame.stream);
        let bytes = i64::from(frame.bytes);
        self.owed += match frame.kind {
            DATA if is_open && (frame.bytes > 0 || frame.ends_stream()) => 0,
            CONTINUATION => bytes.max(CONTINUATION_COST),
            _ => bytes.max(FRAME_COST),
        };
        match frame.kind {
            HEADERS if !is_open && frame.stream > self.newest => self.begin(frame.stream),
            RST_STREAM => drop(self.open.remove(&frame.stream)),
            _ => {}
        }
    }

    fn see_answered(&mut self, frame: Frame) {
        match (frame.kind, self.open.get_mut(&frame.stream)) {
            (HEADERS, Some(is_answered)) if !*is_answered => {
                *is_answered = true;
                self.owed -= ANSWERED;
            }
            (DATA, _) => self.owed -= GIVEN,
            _ => {}
        }
        if frame.ends_stream() {
            self.open.remove(&frame.stream);
        }
    }

    fn begin(&mut self, stream: u32) {
        self.newest = stream;
        if self.open.len() < OPEN_MAX {
            self.open.insert(stream, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter::repeat_n;

    use super::super::frames::tests::sent;
    use super::*;

    const END: u8 = 1;
    const WINDOW_UPDATE: u8 = 8;

    fn watch(budget: &Arc<Budget>) -> Watch {
        let mut watch = Watch::new(budget.clone(), Arc::default(), ([127, 0, 0, 1], 1).into());
        watch.read(&[0; PREFACE_BYTES]);
        watch
    }

    fn budget() -> Arc<Budget> {
        Arc::new(Budget::full(Instant::now()))
    }

    /// Streams as a client numbers them.
    fn streams(count: u32) -> impl Iterator<Item = u32> {
        (0..count).map(|number| 2 * number + 1)
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_answered_cost_nothing_however_many_there_are() {
        let budget = budget();
        let mut watch = watch(&budget);
        for stream in streams(100_000) {
            watch.read(&sent(HEADERS, 0, stream, 300));
            watch.read(&sent(DATA, END, stream, 1200));
            watch.wrote(&sent(HEADERS, 0, stream, 30));
            watch.wrote(&sent(DATA, 0, stream, 12));
            watch.read(&sent(WINDOW_UPDATE, 0, 0, 4));
            watch.wrote(&sent(HEADERS, END, stream, 20));
            assert_eq!(watch.wait(), Duration::ZERO, "call {stream}");
        }
        drop(watch);
        assert!(budget.is_full(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_batches_costs_nothing_and_what_comes_after_its_end_does() {
        let budget = budget();
        let mut watch = watch(&budget);
        watch.read(&sent(HEADERS, 0, 1, 300));
        let more = sent(DATA, 0, 1, 1024 * 1024);
        for bytes in repeat_n(&more, 64) {
            watch.read(bytes);
            assert_eq!(watch.wait(), Duration::ZERO);
        }
        watch.wrote(&sent(HEADERS, END, 1, 60)); // refused
        let allowed = repeat_n(&more, 64).take_while(|bytes| {
            watch.read(bytes);
            watch.wait().is_zero()
        });
        assert_eq!(allowed.count(), BURST_SECONDS as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_begins_calls_and_gives_them_up_waits_on_each_of_its_connections() {
        let budget = budget();
        let mut waits = 0;
        let mut begun = 0;
        while waits < 3 {
            let mut watch = watch(&budget);
            for stream in streams(1000) {
                watch.read(&sent(HEADERS, END, stream, 100));
                watch.read(&sent(RST_STREAM, 0, stream, 4));
                begun += 1;
                if !watch.wait().is_zero() {
                    waits += 1;
                    break;
                }
            }
        }
        let free = BURST as i64 / (2 * FRAME_COST);
        assert!((free..free + 100).contains(&begun), "{begun} calls were begun");
        let mut other = watch(&self::budget());
        other.read(&sent(HEADERS, END, 1, 100));
        assert_eq!(other.settle(), Duration::ZERO, "another client");
    }

    #[tokio::test(start_paused = true)]
    async fn a_debt_is_paid_by_time() {
        let budget = budget();
        let mut watch = watch(&budget);
        watch.calls.owed = BURST as i64 + 2 * i64::from(OVERHEAD_BYTES_PER_SECOND);
        assert_eq!(watch.wait(), Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(watch.settle(), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(watch.settle(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_about_nothing_cost() {
        for (kind, flags, stream, bytes) in [(4, 0, 0, 0), (6, 0, 0, 8), (2, 0, 5, 5), (DATA, 0, 1, 0)] {
            let budget = budget();
            let mut watch = watch(&budget);
            watch.read(&sent(HEADERS, 0, 1, 300));
            let before = watch.calls.owed;
            watch.read(&sent(kind, flags, stream, bytes));
            assert_eq!(
                watch.calls.owed - before,
                i64::from(bytes).max(FRAME_COST),
                "kind {kind}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_goes_on_is_dear_also_if_each_connection_sends_but_one() {
        let budget = budget();
        let heads = (1..).find(|_| {
            let mut watch = watch(&budget);
            watch.read(&sent(HEADERS, 0, 1, 300));
            for _ in 0..6 {
                watch.read(&sent(CONTINUATION, 0, 1, 8192));
            }
            !watch.wait().is_zero()
        });
        assert_eq!(heads, Some(BURST as i64 / (6 * CONTINUATION_COST) + 1));
    }
}
