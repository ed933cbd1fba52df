//! The append stream in paused time: window, order, holding, time limits.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod turns;

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use highwater_log::{DiskWriter, Log};
use openraft::raft::StreamAppendError;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{AppendStream, Follower, HOLD_TURNS, IDLE_TIMEOUT, WINDOW_REQUESTS};
use crate::catch_up::{CatchUp, CatchUpPace};
use crate::codec::append;
use crate::memory::Memory;
use crate::network::TERM_JUMP_MAX;
use crate::peers::PeerStream;
use crate::snapshot::LetGo;
use crate::stages::ReplicaStages;
use crate::status::Voters;
use crate::tests::logs::open_log;
use crate::types::{AppendRequest, AppendResult, CommittedLeaderId, LogEntry, LogId, LogPayload, Vote};

type Appends = AppendStream<UnboundedReceiverStream<AppendRequest>>;

/// A stream of appends, its input, and the peer's two ends.
struct Exchange {
    input: Option<mpsc::UnboundedSender<AppendRequest>>,
    appends: Appends,
    let_go: LetGo,
    memory: Arc<Memory>,
    arrived: mpsc::Receiver<Vec<Bytes>>,
    answers: Option<mpsc::Sender<Bytes>>,
    /// An own log, where a test needs nothing of it.
    _own: Option<OwnLog>,
}

/// A log that is empty.
struct OwnLog {
    log: Log,
    _writer: DiskWriter,
    _dir: TempDir,
}

impl OwnLog {
    fn new() -> OwnLog {
        let dir = tempfile::tempdir().unwrap();
        let (log, writer) = open_log(&dir.path().join("log"), 1, 0);
        OwnLog {
            log,
            _writer: writer,
            _dir: dir,
        }
    }
}

impl Exchange {
    fn new(link_capacity: usize) -> Exchange {
        let own = OwnLog::new();
        let catch_up = CatchUp::new(CatchUpPace::default(), 3, Voters::default());
        let exchange = Exchange::from_log(link_capacity, own.log.clone(), catch_up);
        Exchange {
            _own: Some(own),
            ..exchange
        }
    }

    fn from_log(link_capacity: usize, log: Log, catch_up: CatchUp) -> Exchange {
        let (input, requests) = mpsc::unbounded_channel();
        let (sender, arrived) = mpsc::channel(link_capacity);
        let (answers, receiver) = mpsc::channel(100);
        let stream = PeerStream { sender, receiver };
        let (let_go, memory) = (LetGo::default(), Arc::<Memory>::default());
        let follower = Follower {
            id: 3,
            node: "n3".to_owned(),
            let_go: let_go.clone(),
            memory: memory.clone(),
            log,
            catch_up,
            stages: ReplicaStages::default(),
        };
        Exchange {
            input: Some(input),
            appends: AppendStream::new(follower, UnboundedReceiverStream::new(requests), stream),
            let_go,
            memory,
            arrived,
            answers: Some(answers),
            _own: None,
        }
    }

    fn request(&self, request: AppendRequest) {
        self.input.as_ref().unwrap().send(request).unwrap();
    }

    async fn answer(&self, result: AppendResult) {
        let answers = self.answers.as_ref().unwrap();
        answers.send(append::encode_result(&result)).await.unwrap();
    }

    /// Polls once: nothing may come out.
    fn idle(&mut self) {
        assert!(self.appends.next().now_or_never().is_none(), "an answer nobody gave");
    }

    /// Polls as often as a request without entries may be held.
    fn turns(&mut self) {
        (0..=HOLD_TURNS).for_each(|_| self.idle());
    }

    /// What the peer has received by now, as previous indexes.
    fn arrived(&mut self) -> Vec<Option<u64>> {
        let mut indexes = Vec::new();
        while let Ok(parts) = self.arrived.try_recv() {
            let (to, request, _) = append::decode_request(Bytes::from(parts.concat())).unwrap();
            assert_eq!(to, 3);
            indexes.push(request.prev_log_id.map(|id| id.index()));
        }
        indexes
    }
}

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(5), index)
}

/// A request without entries, known by its previous index.
fn request(previous: u64) -> AppendRequest {
    AppendRequest {
        vote: Vote::new_committed(5, 1),
        prev_log_id: Some(id(previous)),
        entries: Vec::new(),
        leader_commit: None,
    }
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_the_order_of_the_requests() {
    let mut exchange = Exchange::new(100);
    for previous in 0..3 {
        exchange.request(request(previous));
    }
    exchange.idle();
    exchange.turns(); // the last one may be held
    for previous in 0..3 {
        exchange.answer(Ok(Some(id(previous)))).await;
    }
    for previous in 0..3 {
        assert_eq!(exchange.appends.next().await.unwrap().unwrap(), Ok(Some(id(previous))));
        let seen = exchange.memory.of(3).unwrap();
        assert_eq!((seen.vote, seen.last), (Vote::new_committed(5, 1), Some(id(previous))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_entries_waits_for_company() {
    let mut exchange = Exchange::new(100);
    exchange.request(request(0));
    exchange.idle();
    assert_eq!(exchange.arrived(), [Some(0)], "the first request goes at once");
    exchange.request(request(1));
    exchange.idle();
    assert_eq!(exchange.arrived(), [], "the second one is held");
    exchange.request(request(2));
    exchange.idle();
    assert_eq!(exchange.arrived(), [Some(1)], "company sends it off");
    exchange.turns();
    assert_eq!(exchange.arrived(), [Some(2)], "or a few turns");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_input_sends_what_is_held_and_then_ends_the_answers() {
    let mut exchange = Exchange::new(100);
    exchange.request(request(0));
    exchange.request(request(1));
    exchange.idle();
    exchange.input = None;
    exchange.idle();
    assert_eq!(exchange.arrived(), [Some(0), Some(1)]);
    exchange.answer(Ok(Some(id(0)))).await;
    exchange.answer(Ok(Some(id(1)))).await;
    assert!(exchange.appends.next().await.unwrap().is_ok());
    assert!(exchange.appends.next().await.unwrap().is_ok());
    assert!(exchange.appends.next().await.is_none());
    assert!(exchange.appends.next().await.is_none(), "it stays ended");
}

#[tokio::test(start_paused = true)]
async fn a_full_window_takes_no_request_until_an_answer_comes() {
    let mut exchange = Exchange::new(100);
    for previous in 0..100 {
        exchange.request(request(previous));
    }
    exchange.idle();
    exchange.turns();
    assert_eq!(exchange.arrived().len(), WINDOW_REQUESTS);
    exchange.answer(Ok(Some(id(0)))).await;
    assert!(exchange.appends.next().await.unwrap().is_ok());
    exchange.idle();
    exchange.turns();
    assert_eq!(exchange.arrived(), [Some(WINDOW_REQUESTS as u64)]);
}

#[tokio::test(start_paused = true)]
async fn a_full_link_delays_but_keeps_the_order() {
    let mut exchange = Exchange::new(1);
    for previous in 0..6 {
        exchange.request(request(previous));
    }
    exchange.input = None;
    let mut arrived = Vec::new();
    for _ in 0..20 {
        exchange.idle();
        arrived.extend(exchange.arrived());
    }
    assert_eq!(arrived, (0..6).map(Some).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_answering_breaks_the_stream() {
    let mut exchange = Exchange::new(100);
    exchange.request(request(0));
    let started = Instant::now();
    let broken = tokio::time::timeout(IDLE_TIMEOUT * 2, exchange.appends.next()).await;
    let err = broken.expect("it waits for ever").unwrap().unwrap_err();
    assert!(err.to_string().contains("unanswered"), "{err}");
    let waited = started.elapsed();
    assert!(waited >= IDLE_TIMEOUT && waited < IDLE_TIMEOUT * 2, "{waited:?}");
    assert!(exchange.appends.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_group_keeps_its_stream() {
    let mut exchange = Exchange::new(100);
    exchange.request(request(0));
    exchange.idle();
    exchange.answer(Ok(Some(id(0)))).await;
    assert!(exchange.appends.next().await.unwrap().is_ok());
    tokio::time::advance(IDLE_TIMEOUT * 10).await;
    exchange.idle();
    exchange.request(request(1));
    exchange.turns();
    tokio::time::advance(IDLE_TIMEOUT / 2).await;
    exchange.answer(Ok(Some(id(1)))).await;
    assert!(exchange.appends.next().await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lost_peer_breaks_the_stream() {
    let mut exchange = Exchange::new(100);
    exchange.request(request(0));
    exchange.idle();
    exchange.answers = None;
    assert!(exchange.appends.next().await.unwrap().is_err());
    assert!(exchange.appends.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_conflict_ends_the_session() {
    let mut exchange = Exchange::new(100);
    exchange.request(request(4));
    exchange.request(request(5));
    exchange.idle();
    exchange.answer(Err(StreamAppendError::Conflict(id(4)))).await;
    let conflict = exchange.appends.next().await.unwrap().unwrap();
    assert_eq!(conflict, Err(StreamAppendError::Conflict(id(4))));
    assert!(exchange.appends.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_nobody_asked_for_breaks_the_stream() {
    let mut exchange = Exchange::new(100);
    exchange.answer(Ok(None)).await;
    assert!(exchange.appends.next().await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_a_far_term_is_refused() {
    let mut exchange = Exchange::new(100);
    exchange.request(request(0));
    exchange.idle();
    let higher = Vote::new(5 + TERM_JUMP_MAX + 1, 2);
    exchange.answer(Err(StreamAppendError::HigherVote(higher))).await;
    let err = exchange.appends.next().await.unwrap().unwrap_err();
    assert!(err.to_string().contains("terms ahead"), "{err}");
}

#[tokio::test(start_paused = true)]
async fn garbage_from_the_peer_breaks_the_stream() {
    let mut exchange = Exchange::new(100);
    exchange.request(request(0));
    exchange.idle();
    let answers = exchange.answers.as_ref().unwrap();
    answers.send(Bytes::from_static(b"\x01\xff")).await.unwrap();
    assert!(exchange.appends.next().await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn entries_that_do_not_follow_on_are_never_sent() {
    let mut exchange = Exchange::new(100);
    let mut hole = request(4);
    let entry = openraft::entry::RaftEntry::new(id(7), LogPayload::Blank);
    let entry: LogEntry = entry;
    hole.entries = vec![entry];
    exchange.request(hole);
    let err = exchange.appends.next().await.unwrap().unwrap_err();
    assert!(err.to_string().contains("must follow"), "{err}");
    assert_eq!(exchange.arrived(), []);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_tells_the_peer() {
    let mut exchange = Exchange::new(100);
    exchange.request(request(0));
    exchange.idle();
    drop(exchange.appends);
    assert!(exchange.arrived.recv().await.is_some());
    assert!(exchange.arrived.recv().await.is_none());
    assert!(exchange.answers.unwrap().is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_is_let_go_ends_its_stream_at_the_next_request_below_the_floor() {
    let mut exchange = Exchange::new(100);
    exchange.let_go.below(12);
    exchange.request(request(11));
    exchange.idle();
    assert_eq!(exchange.arrived(), [Some(11)], "the first entry that stays may be sent");
    exchange.request(request(10));
    // it waits for company first: it is without entries
    assert!(exchange.appends.next().await.unwrap().is_err());
    assert_eq!(exchange.arrived(), [], "nothing below the floor is sent");
    assert!(exchange.appends.next().await.is_none());
}
