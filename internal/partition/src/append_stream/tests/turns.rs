//! Streams that take turns: who waits for one, and who keeps it.

use std::time::Duration;

use highwater_log::{Body, Entry, EntryId};
use openraft::entry::RaftEntry;

use super::*;

const ENTRIES: u64 = 100;
const ENTRY_BYTES: usize = 10_000;
/// Entries in one request; they take a second at the pace.
const TOGETHER: u64 = 10;
const PACE: u64 = TOGETHER * ENTRY_BYTES as u64;

/// A leader's log.
struct Source {
    log: Log,
    _writer: DiskWriter,
    _dir: TempDir,
}

impl Source {
    fn new(cache_bytes: usize) -> Source {
        let dir = tempfile::tempdir().unwrap();
        let (log, writer) = open_log(&dir.path().join("log"), 1, cache_bytes);
        let source = Source {
            log,
            _writer: writer,
            _dir: dir,
        };
        source.append(5, 0..ENTRIES);
        source
    }

    fn append(&self, term: u64, indexes: std::ops::Range<u64>) {
        let entries = indexes.map(|index| Entry::Proposed {
            id: EntryId { term, index },
            body: Body::Command(Bytes::from(vec![1; ENTRY_BYTES])),
        });
        let (done, synced) = std::sync::mpsc::channel();
        let done = move |result: Result<(), highwater_log::Error>| done.send(result).unwrap();
        self.log.append(entries.collect(), Box::new(done)).unwrap();
        synced.recv().unwrap().unwrap(); // until then the cache keeps them, whatever its size
    }

    /// The request with the entries from `first` on.
    fn request(&self, first: u64) -> AppendRequest {
        let frames = self.log.read(first, first + TOGETHER, usize::MAX).unwrap();
        AppendRequest {
            entries: frames
                .into_iter()
                .map(|frame| LogEntry::stored(frame).unwrap())
                .collect(),
            ..request(first.wrapping_sub(1))
        }
    }

    fn stream(&self, pace: &CatchUpPace, voters: &Voters) -> Exchange {
        let catch_up = CatchUp::new(pace.clone(), 3, voters.clone());
        Exchange::from_log(100, self.log.clone(), catch_up)
    }

    fn learner(&self, pace: &CatchUpPace) -> Exchange {
        self.stream(pace, &Voters::default())
    }

    fn voter(&self, pace: &CatchUpPace) -> Exchange {
        let voters = Voters::default();
        voters.set([3].into_iter());
        self.stream(pace, &voters)
    }
}

impl Exchange {
    /// Asks for all entries of the log.
    fn request_all(&self, source: &Source) {
        for first in (1..ENTRIES).step_by(TOGETHER as usize) {
            self.request(source.request(first));
        }
    }

    /// Polls and answers the number of requests that arrived.
    async fn step(&mut self) -> usize {
        self.idle();
        tokio::task::yield_now().await; // whoever pays begins
        self.arrived().len()
    }
}

impl Exchange {
    /// The next request that arrives.
    async fn sent(&mut self) -> AppendRequest {
        let parts = tokio::select! {
            answer = self.appends.next() => panic!("{answer:?}, and nobody has answered"),
            parts = self.arrived.recv() => parts.unwrap(),
        };
        append::decode_request(Bytes::from(parts.concat())).unwrap().1
    }
}

const ALL: usize = (ENTRIES / TOGETHER) as usize;

#[tokio::test(start_paused = true)]
async fn a_voter_whose_entries_are_cached_never_waits_for_learners() {
    let (pace, source) = (CatchUpPace::new(PACE), Source::new(16 << 20));
    let (mut learner, mut voter) = (source.learner(&pace), source.voter(&pace));
    learner.request_all(&source);
    assert_eq!(learner.step().await, 1);
    assert_eq!(learner.step().await, 0, "its turn lasts as long as it pays");
    voter.request_all(&source);
    assert_eq!(voter.step().await, ALL);
    tokio::time::sleep(Duration::from_millis(1_100)).await; // the turn is over
    assert_eq!(learner.step().await, 1, "nor does the voter hold it up");
}

#[tokio::test(start_paused = true)]
async fn a_voter_whose_entries_are_not_cached_waits_for_its_turn() {
    let (pace, source) = (CatchUpPace::new(PACE), Source::new(0));
    let (mut learner, mut voter) = (source.learner(&pace), source.voter(&pace));
    learner.request_all(&source);
    assert_eq!(learner.step().await, 1);
    voter.request_all(&source);
    assert_eq!(
        voter.step().await,
        1,
        "the first request of a stream may be a leader's that looks for the end"
    );
    assert_eq!(voter.step().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_input_has_ended_holds_no_turn() {
    let (pace, source) = (CatchUpPace::new(PACE), Source::new(16 << 20));
    let (mut one, mut two) = (source.learner(&pace), source.learner(&pace));
    one.request(source.request(51));
    one.input = None;
    assert_eq!(one.step().await, 1);
    tokio::time::sleep(Duration::from_millis(1_100)).await; // the turn is over
    assert_eq!(one.step().await, 0, "its node hangs and answers nothing");
    two.request_all(&source);
    assert_eq!(two.step().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_input_has_ended_waits_for_no_turn() {
    let (pace, source) = (CatchUpPace::new(PACE), Source::new(16 << 20));
    let mut probing = source.learner(&pace);
    probing.request(source.request(51));
    probing.input = None;
    assert_eq!(probing.step().await, 1);
    probing.answer(Ok(Some(id(60)))).await;
    let begin = Instant::now();
    assert!(probing.appends.next().await.unwrap().is_ok());
    assert!(probing.appends.next().await.is_none());
    assert_eq!(
        begin.elapsed(),
        Duration::ZERO,
        "what it paid for keeps others waiting, not itself"
    );
}

#[tokio::test(start_paused = true)]
async fn a_learner_is_sent_one_request_a_turn_in_order() {
    let (pace, source) = (CatchUpPace::new(PACE), Source::new(16 << 20));
    let mut learner = source.learner(&pace);
    learner.request_all(&source);
    for first in (1..ENTRIES).step_by(TOGETHER as usize) {
        learner.idle();
        assert_eq!(learner.arrived(), [Some(first - 1)]);
        tokio::time::sleep(Duration::from_millis(900)).await;
        learner.idle();
        assert_eq!(learner.arrived(), [], "the turn lasts on");
        learner.answer(Ok(Some(id(first)))).await; // in time
        assert!(learner.appends.next().await.unwrap().is_ok());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_ended_leaves_the_queue() {
    let (pace, source) = (CatchUpPace::new(PACE), Source::new(16 << 20));
    let (mut one, mut two) = (source.learner(&pace), source.learner(&pace));
    one.request_all(&source);
    two.request_all(&source);
    assert_eq!(one.step().await, 1);
    assert_eq!(one.step().await, 0);
    assert_eq!(two.step().await, 0, "it is next but one");
    one.answer(Err(StreamAppendError::Conflict(id(0)))).await;
    assert!(one.appends.next().await.unwrap().unwrap().is_err());
    tokio::time::sleep(Duration::from_millis(1_100)).await; // the turn is over
    assert_eq!(two.step().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_is_let_go_while_it_waits_is_refused_at_once() {
    let (pace, source) = (CatchUpPace::new(PACE), Source::new(16 << 20));
    let (mut one, mut two) = (source.learner(&pace), source.learner(&pace));
    one.request_all(&source);
    assert_eq!(one.step().await, 1);
    assert_eq!(one.step().await, 0);
    one.let_go.below(ENTRIES);
    let begin = Instant::now();
    assert!(one.appends.next().await.unwrap().is_err());
    assert_eq!(begin.elapsed(), Duration::ZERO, "its turn is not waited for");
    tokio::time::sleep(Duration::from_millis(1_100)).await; // the turn is over
    two.request_all(&source);
    assert_eq!(two.step().await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_keeps_no_entries_in_memory() {
    let (pace, source) = (CatchUpPace::new(PACE), Source::new(0));
    let (mut one, mut two) = (source.learner(&pace), source.learner(&pace));
    one.request_all(&source);
    assert_eq!(one.step().await, 1);
    let request = source.request(1);
    let LogPayload::Stored(frame) = &request.entries[0].payload else {
        panic!("{request:?} is not from the log")
    };
    let payload = frame.payload.clone();
    two.request(request);
    assert_eq!(two.step().await, 0);
    assert!(payload.is_unique(), "somebody else keeps what was read");
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_its_turn_is_read_from_the_disk_and_sent_whole() {
    let (pace, source) = (CatchUpPace::new(PACE), Source::new(0));
    let mut learner = source.learner(&pace);
    learner.request_all(&source);
    assert_eq!(learner.step().await, 1);
    let ids = |request: AppendRequest| -> Vec<LogId> { request.entries.iter().map(RaftEntry::log_id).collect() };
    assert_eq!(ids(learner.sent().await), ids(source.request(11)));
}

#[tokio::test(start_paused = true)]
async fn what_was_written_anew_while_it_waited_is_not_sent() {
    let (pace, source) = (CatchUpPace::new(PACE), Source::new(0));
    let (mut one, mut two) = (source.learner(&pace), source.learner(&pace));
    one.request_all(&source);
    assert_eq!(one.step().await, 1);
    two.request(source.request(51));
    assert_eq!(two.step().await, 0);
    source.log.truncate_from(51).unwrap();
    source.append(6, 51..ENTRIES);
    drop(one); // its turn goes by
    assert!(two.appends.next().await.unwrap().is_err());
    assert_eq!(two.arrived(), []);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_any_more_gives_the_turn_back() {
    let (pace, source) = (CatchUpPace::new(PACE), Source::new(0));
    let (mut one, mut two) = (source.learner(&pace), source.learner(&pace));
    one.request(source.request(1));
    assert_eq!(one.step().await, 1);
    two.request(source.request(51));
    assert_eq!(two.step().await, 0);
    one.request(source.request(11));
    assert_eq!(one.step().await, 0);
    source.log.truncate_from(51).unwrap();
    assert!(two.appends.next().await.unwrap().is_err());
    let begin = Instant::now();
    assert_eq!(one.sent().await.prev_log_id, Some(id(10)));
    assert_eq!(begin.elapsed(), Duration::ZERO);
}
