//! Orders and outcomes over lost connections, refusals and holes.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use highwater_proto::v1;
use tokio::sync::Semaphore;

use super::super::batch::{Batching, OpenBatch, size_in_batch};
use super::super::delivery::{Delivery, Promise};
use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

fn batch() -> (Batch, Delivery) {
    let promise = Promise::new(&Arc::from("numbers"), 0);
    let mut open = OpenBatch::new(promise, &Batching::at_once(Arc::new(Semaphore::new(0))), 0);
    let record = v1::Record::default();
    let delivery = open.push(&record, size_in_batch(&record));
    (open.seal(), delivery)
}

fn flights(count: usize) -> (Flights, Vec<Delivery>) {
    let mut flights = Flights::new();
    let deliveries = (0..count).map(|_| {
        let (batch, delivery) = batch();
        flights.push(batch);
        delivery
    });
    let deliveries = deliveries.collect();
    (flights, deliveries)
}

/// Sends what can be sent; the sequences in the order of sending, with their request ids.
fn send_all(flights: &mut Flights) -> Vec<(u64, u64)> {
    std::iter::from_fn(|| {
        flights
            .take_off()
            .map(|flight| (flight.sequence, flight.request_id.unwrap()))
    })
    .collect()
}

fn sequences(sent: &[(u64, u64)]) -> Vec<u64> {
    sent.iter().map(|(sequence, _)| *sequence).collect()
}

fn appended(base_offset: u64) -> Answer {
    Answer::Appended(Appended {
        base_offset,
        append_time_ms: 0,
        duplicate: false,
    })
}

fn outcome(delivery: &Delivery) -> Option<Outcome> {
    delivery
        .now()
        .map(|result| result.map_or_else(|error| error.outcome(), |_| Outcome::Applied))
}

fn gap() -> Answer {
    Answer::OutOfSequence(Error::Closed)
}

fn refused() -> Answer {
    Answer::Refused {
        maybe_applied: false,
        error: Error::Closed,
    }
}

#[test]
fn everything_unanswered_is_sent_again_in_order_with_the_same_sequences() {
    let (mut flights, deliveries) = flights(4);
    let id = flights.producer_id.clone();
    let sent = send_all(&mut flights);
    assert_eq!(sequences(&sent), [0, 1, 2, 3]);
    assert!(!flights.answer(sent[0].1, appended(7)));
    flights.settle();
    flights.disconnected(false);
    let again = send_all(&mut flights);
    assert_eq!(sequences(&again), [1, 2, 3]);
    assert_eq!(flights.producer_id, id);
    assert_eq!(outcome(&deliveries[0]), Some(Outcome::Applied));
    assert_eq!(outcome(&deliveries[1]), None);
}

#[test]
fn results_leave_only_from_the_front() {
    let (mut flights, deliveries) = flights(2);
    let sent = send_all(&mut flights);
    flights.answer(sent[1].1, appended(1));
    flights.settle();
    assert_eq!(outcome(&deliveries[1]), None);
    flights.answer(sent[0].1, appended(0));
    flights.settle();
    assert_eq!(outcome(&deliveries[1]), Some(Outcome::Applied));
    assert!(flights.is_empty());
}

#[test]
fn a_refusal_and_the_gaps_behind_it_lead_to_a_new_producer_id() {
    let (mut flights, deliveries) = flights(3);
    let id = flights.producer_id.clone();
    let sent = send_all(&mut flights);
    flights.answer(sent[0].1, refused());
    flights.settle();
    assert!(!flights.has_room(), "nothing new while there is a hole");
    assert_eq!(send_all(&mut flights), [], "those behind wait for their answers");
    assert!(!flights.answer(sent[1].1, gap()));
    assert!(!flights.answer(sent[2].1, gap()));
    flights.settle();
    assert_ne!(flights.producer_id, id);
    assert_eq!(sequences(&send_all(&mut flights)), [0, 1]);
    assert_eq!(outcome(&deliveries[0]), Some(Outcome::NotApplied));
    assert_eq!(outcome(&deliveries[1]), None);
}

#[test]
fn a_doubtful_batch_behind_a_hole_is_asked_for_and_never_renumbered() {
    let (mut flights, deliveries) = flights(3);
    let id = flights.producer_id.clone();
    let sent = send_all(&mut flights);
    flights.disconnected(false);
    let sent_again = send_all(&mut flights);
    assert_eq!(sequences(&sent), sequences(&sent_again));
    flights.answer(sent_again[0].1, refused());
    flights.settle();
    assert_eq!(
        outcome(&deliveries[0]),
        Some(Outcome::Unknown),
        "the first attempt may be in the log"
    );
    assert!(!flights.answer(sent_again[1].1, gap()));
    assert!(!flights.answer(sent_again[2].1, appended(5)));
    flights.settle();
    assert_eq!(outcome(&deliveries[1]), Some(Outcome::Unknown));
    assert_eq!(outcome(&deliveries[2]), Some(Outcome::Applied));
    assert_ne!(flights.producer_id, id, "and then the hole is closed");
    assert!(flights.has_room());
}

#[test]
fn what_may_be_in_the_log_keeps_its_sequence_while_the_connection_is_lost() {
    let (mut flights, deliveries) = flights(3);
    let id = flights.producer_id.clone();
    let sent = send_all(&mut flights);
    flights.answer(sent[0].1, refused());
    flights.settle();
    flights.disconnected(false);
    flights.settle();
    assert_eq!(flights.producer_id, id, "two batches may be in the log under this id");
    let again = send_all(&mut flights);
    assert_eq!(sequences(&again), [1, 2]);
    flights.answer(again[0].1, appended(4));
    flights.answer(again[1].1, gap());
    flights.settle();
    assert_eq!(
        outcome(&deliveries[1]),
        Some(Outcome::Applied),
        "it was there, and is found there"
    );
    assert_eq!(outcome(&deliveries[2]), Some(Outcome::Unknown));
}

#[test]
fn an_expired_batch_gives_way_to_the_next_under_a_new_id() {
    let (mut flights, deliveries) = flights(2);
    send_all(&mut flights);
    let later = Instant::now() + DEADLINE;
    assert!(flights.expire(later, DEADLINE, &Error::Closed));
    flights.settle();
    assert_eq!(outcome(&deliveries[0]), Some(Outcome::Unknown));
    let (younger, delivery) = batch();
    flights.push(younger);
    let sent = send_all(&mut flights);
    assert_eq!(sequences(&sent), [0], "under a new id");
    flights.answer(sent[0].1, appended(9));
    flights.settle();
    assert_eq!(outcome(&delivery), Some(Outcome::Applied));
}

#[test]
fn what_was_never_sent_is_not_applied_when_it_expires() {
    let (mut flights, deliveries) = flights(2);
    send_all(&mut flights);
    flights.disconnected(true);
    assert!(!flights.expire(Instant::now() + DEADLINE, DEADLINE, &Error::Closed));
    flights.settle();
    assert_eq!(outcome(&deliveries[0]), Some(Outcome::NotApplied));
    assert_eq!(outcome(&deliveries[1]), Some(Outcome::NotApplied));
    assert!(flights.has_room());
}

#[test]
fn a_partition_that_forgot_the_producer_gets_the_batch_under_a_new_id() {
    let (mut flights, deliveries) = flights(1);
    let sent = send_all(&mut flights);
    assert!(!flights.answer(sent[0].1, gap()));
    flights.settle();
    let again = send_all(&mut flights);
    assert_eq!(sequences(&again), [0]);
    flights.answer(again[0].1, appended(0));
    flights.settle();
    assert_eq!(outcome(&deliveries[0]), Some(Outcome::Applied));
}

#[test]
fn an_answer_to_a_batch_that_was_given_up_is_ignored() {
    let (mut flights, _deliveries) = flights(1);
    let sent = send_all(&mut flights);
    flights.expire(Instant::now() + DEADLINE, DEADLINE, &Error::Closed);
    assert!(!flights.answer(sent[0].1, appended(0)));
    flights.settle();
    assert!(flights.is_empty());
}
