//! The pace in paused time: what is paid for, who is next, and a pace that changes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::poll_fn;

use futures::FutureExt;

use super::*;

const MEGABYTE: usize = 1_000_000;
const ENTRIES: u64 = 100;

const REPLICA: u64 = 3;

/// Sends requests of a megabyte and a hundred entries each, from `next_index` on, to a log that ends at what `end_index` says.
struct Follower {
    catch_up: CatchUp,
    voters: Voters,
    next_index: u64,
    is_cached: bool,
}

impl Follower {
    fn learner(pace: &CatchUpPace) -> Follower {
        let voters = Voters::default();
        Follower {
            catch_up: CatchUp::new(pace.clone(), REPLICA, voters.clone()),
            voters,
            next_index: 0,
            is_cached: false,
        }
    }

    fn voter(pace: &CatchUpPace, is_cached: bool) -> Follower {
        let follower = Follower::learner(pace);
        follower.voters.set([REPLICA].into_iter());
        Follower { is_cached, ..follower }
    }

    /// A request, and the log that it comes from.
    fn next(&self, end_index: u64) -> (Load, Look) {
        let entries = ENTRIES.min(end_index - self.next_index);
        let load = Load {
            end_index: self.next_index + entries,
            bytes: MEGABYTE * entries as usize / ENTRIES as usize,
        };
        let look = Look {
            end_index,
            appended_bytes: end_index * MEGABYTE as u64 / ENTRIES,
            is_cached: self.is_cached,
        };
        (load, look)
    }

    async fn send(&mut self, end_index: u64) {
        let (load, look) = self.next(end_index);
        pay(poll_fn(|cx| self.catch_up.poll_clear(load, || look, cx)).await);
        self.next_index = load.end_index;
        tokio::task::yield_now().await; // whoever pays begins
    }

    /// Sends until the log's end is reached; answers how long that took.
    async fn catch_up(&mut self, end_index: u64) -> Duration {
        let begin = Instant::now();
        while self.next_index < end_index {
            self.send(end_index).await;
        }
        begin.elapsed()
    }

    /// Asks whether a request may go now.
    fn must_wait(&mut self) -> bool {
        let (load, look) = self.next(1_000 * ENTRIES);
        let clear = poll_fn(|cx| self.catch_up.poll_clear(load, || look, cx));
        clear.now_or_never().is_none()
    }
}

fn pay(payment: Option<Payment>) {
    payment.into_iter().for_each(Payment::begin);
}

fn about(duration: Duration, expected_ms: u64) -> bool {
    duration.abs_diff(Duration::from_millis(expected_ms)) <= Duration::from_millis(30)
}

#[tokio::test(start_paused = true)]
async fn a_learner_is_sent_what_it_lacks_at_the_pace_and_everything_later_at_once() {
    let pace = CatchUpPace::new(10 * MEGABYTE as u64);
    let mut learner = Follower::learner(&pace);
    let took = learner.catch_up(21 * ENTRIES).await;
    assert!(about(took, 2_000), "{took:?}");
    let took = learner.catch_up(1_000 * ENTRIES).await;
    assert_eq!(took, Duration::ZERO, "it has caught up once");
}

#[tokio::test(start_paused = true)]
async fn a_voter_pays_only_for_what_is_not_cached_any_more() {
    let pace = CatchUpPace::new(10 * MEGABYTE as u64);
    let took = Follower::voter(&pace, true).catch_up(20 * ENTRIES).await;
    assert_eq!(took, Duration::ZERO);
    let took = Follower::voter(&pace, false).catch_up(21 * ENTRIES).await;
    assert!(about(took, 2_000), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn followers_share_the_pace_in_turns() {
    let pace = CatchUpPace::new(10 * MEGABYTE as u64);
    let begin = Instant::now();
    let mut all = Vec::new();
    for number in 0..5 {
        let mut follower = match number {
            0 => Follower::voter(&pace, false),
            _ => Follower::learner(&pace),
        };
        all.push(tokio::spawn(async move {
            follower.catch_up(10 * ENTRIES).await;
            begin.elapsed()
        }));
    }
    for each in all {
        let took = each.await.unwrap();
        assert!(
            took > Duration::from_millis(4_300),
            "one was served before the others: {took:?}"
        );
        assert!(took < Duration::from_millis(5_100), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_learner_arrives_also_when_the_log_grows_faster_than_the_pace() {
    let pace = CatchUpPace::new(10 * MEGABYTE as u64);
    let mut learner = Follower::learner(&pace);
    let begin = Instant::now();
    let lacking = 30 * ENTRIES;
    // the log grows by 40 MB a second
    let end_index = || lacking + begin.elapsed().as_millis() as u64 * 40 * ENTRIES / 1_000;
    while learner.next_index < end_index() {
        learner.send(end_index()).await;
        assert!(begin.elapsed() < Duration::from_secs(30), "it never arrives");
    }
    assert!(about(begin.elapsed(), 2_900), "{:?}", begin.elapsed()); // what the last request costs is not waited for
}

#[tokio::test(start_paused = true)]
async fn a_changed_pace_holds_at_once() {
    let pace = CatchUpPace::new(1);
    let mut learner = Follower::learner(&pace);
    learner.send(1_000 * ENTRIES).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(learner.must_wait(), "a megabyte takes days at a byte a second");
    pace.set(MEGABYTE as u64);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(learner.must_wait());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!learner.must_wait());
}

#[tokio::test(start_paused = true)]
async fn who_has_no_room_holds_nobody_up() {
    let pace = CatchUpPace::new(10 * MEGABYTE as u64);
    let (mut one, mut two) = (Follower::learner(&pace), Follower::learner(&pace));
    two.send(1_000 * ENTRIES).await;
    assert!(one.must_wait(), "two has the turn");
    assert!(two.must_wait());
    tokio::time::sleep(Duration::from_secs(1)).await; // one's turn has come, but nobody asks for it
    assert!(two.must_wait());
    one.catch_up.leave_queue();
    assert!(!two.must_wait());
}

/// A leader under load sends its commit point between any two requests with entries.
#[tokio::test(start_paused = true)]
async fn commit_points_in_between_do_not_let_entries_through_unpaid() {
    let pace = CatchUpPace::new(10 * MEGABYTE as u64);
    let mut learner = Follower::learner(&pace);
    let begin = Instant::now();
    let end_index = 21 * ENTRIES;
    while learner.next_index < end_index {
        let (load, look) = learner.next(end_index);
        let commit_point = Load {
            end_index: learner.next_index,
            bytes: 0,
        };
        let clear = poll_fn(|cx| learner.catch_up.poll_clear(commit_point, || look, cx));
        assert!(clear.now_or_never().is_some(), "it costs nothing");
        assert!(load.bytes > 0);
        learner.send(end_index).await;
    }
    assert!(about(begin.elapsed(), 2_000), "{:?}", begin.elapsed());
}

/// Old entries of a megabyte, and four new ones of a kilobyte for each that is sent.
#[tokio::test(start_paused = true)]
async fn small_new_entries_let_no_large_old_ones_through_unpaid() {
    let pace = CatchUpPace::new(10 * MEGABYTE as u64);
    let mut catch_up = CatchUp::new(pace, REPLICA, Voters::default());
    let begin = Instant::now();
    for sent in 0..21 {
        let load = Load {
            end_index: sent + 1,
            bytes: MEGABYTE,
        };
        let look = Look {
            end_index: 100 + 4 * sent,
            appended_bytes: 4_000 * sent,
            is_cached: false,
        };
        pay(poll_fn(|cx| catch_up.poll_clear(load, || look, cx)).await);
        tokio::task::yield_now().await;
    }
    assert!(about(begin.elapsed(), 2_000), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_learner_that_gets_a_vote_while_it_waits_goes_at_once_if_it_is_cached() {
    let pace = CatchUpPace::new(1);
    for is_cached in [true, false] {
        let mut learner = Follower {
            is_cached,
            ..Follower::learner(&pace)
        };
        let voters = learner.voters.clone();
        let waiting = tokio::spawn(async move { learner.catch_up(3 * ENTRIES).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished(), "a megabyte takes days at a byte a second");
        voters.set([1, REPLICA].into_iter());
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(waiting.is_finished(), is_cached);
        waiting.abort();
    }
}

/// The hot path: each look takes the log's lock.
#[tokio::test(start_paused = true)]
async fn the_log_is_not_looked_at_any_more_once_the_follower_has_arrived() {
    let mut learner = Follower::learner(&CatchUpPace::default());
    learner.catch_up(3 * ENTRIES).await;
    let (load, _) = learner.next(4 * ENTRIES);
    let look = || panic!("the log is looked at");
    pay(poll_fn(|cx| learner.catch_up.poll_clear(load, look, cx)).await);
}

/// Nine others lack more than they will ever get: a round of turns takes a second, in which this one's log grows by 5 MB.
#[tokio::test(start_paused = true)]
async fn a_learner_arrives_also_when_its_log_grows_by_more_than_a_turn_in_each_round_of_turns() {
    let pace = CatchUpPace::new(10 * MEGABYTE as u64);
    for _ in 0..9 {
        let mut other = Follower::learner(&pace);
        tokio::spawn(async move { other.catch_up(100_000 * ENTRIES).await });
    }
    let mut learner = Follower::learner(&pace);
    let begin = Instant::now();
    let end_index = || 20 * ENTRIES + begin.elapsed().as_millis() as u64 * 5 * ENTRIES / 1_000;
    while learner.next_index < end_index() {
        learner.send(end_index()).await;
        assert!(begin.elapsed() < Duration::from_secs(60), "it never arrives");
    }
    assert!(begin.elapsed() >= Duration::from_secs(15), "{:?}", begin.elapsed());
}
