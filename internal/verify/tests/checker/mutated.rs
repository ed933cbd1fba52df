//! Honest histories with one lie in them. Each kind of lie is told in many histories, and each must be found under the
//! right invariant; a lie for which a history has no room is told in the next one.

use highwater_verify::Invariant::{self, *};
use highwater_verify::history::{OffsetKind, Poll, PollAnswer, PromiseKind, Scan, Seen, Send, SendOutcome};
use highwater_verify::{Requirements, check};

use crate::reference::{Chance, honest_history};
use crate::script::{Item, history};

/// Histories in which each lie is told.
const RUNS: u64 = 40;
/// Histories in which room for a lie is looked for.
const TRIES: u64 = 400;

/// Tells a lie at a place chosen by chance; `None` if there is no room for it.
type Lie = fn(&mut Vec<Item>, &mut Chance) -> Option<()>;

#[track_caller]
fn assert_found(lie: Lie, invariant: Invariant) {
    let mut told = 0;
    for seed in 0..TRIES {
        let mut items = honest_history(seed, 150);
        if lie(&mut items, &mut Chance::new(seed)).is_none() {
            continue;
        }
        let verdict = check(&history(&items), &Requirements::default());
        assert!(verdict.violated().contains(&invariant), "seed {seed}: {verdict}");
        told += 1;
        if told == RUNS {
            return;
        }
    }
    panic!("there was room for the lie in only {told} of {TRIES} histories");
}

/// One of the items that fit, by chance.
fn choose<'a, T>(items: &'a mut [Item], chance: &mut Chance, fit: impl Fn(&'a mut Item) -> Option<T>) -> Option<T> {
    let mut fitting: Vec<T> = items.iter_mut().filter_map(fit).collect();
    if fitting.is_empty() {
        return None;
    }
    let which = chance.below(fitting.len() as u64) as usize;
    Some(fitting.swap_remove(which))
}

fn any_scan(item: &mut Item) -> Option<(&mut Scan, &mut Vec<Seen>)> {
    match item {
        Item::Scan(scan, seen) if seen.len() > 2 => Some((scan, seen)),
        _ => None,
    }
}

/// A read of several records.
fn any_read(item: &mut Item) -> Option<(&mut Poll, &mut Vec<Seen>)> {
    match item {
        Item::Poll(poll, seen) if seen.len() > 2 => Some((poll, seen)),
        _ => None,
    }
}

/// Offsets of a partition that were acknowledged.
fn acknowledged(items: &[Item], partition: u32) -> Vec<u64> {
    let sends = items.iter().filter_map(|item| match item {
        Item::Send(send, digests) if send.partition == partition => match send.outcome {
            SendOutcome::Appended { base_offset } => Some(base_offset..base_offset + digests.len() as u64),
            _ => None,
        },
        _ => None,
    });
    sends.flatten().collect()
}

#[test]
fn an_acknowledged_record_is_dropped_from_one_replica() {
    assert_found(
        |items, chance| {
            let copy = items.clone();
            let (scan, seen) = choose(items, chance, any_scan)?;
            let kept = acknowledged(&copy, scan.partition);
            let there: Vec<usize> = (0..seen.len())
                .filter(|place| kept.contains(&seen[*place].offset))
                .collect();
            let place = there.get(chance.below(there.len() as u64) as usize)?;
            seen.remove(*place);
            Some(())
        },
        I1,
    );
}

#[test]
fn one_replica_lost_its_tail() {
    assert_found(
        |items, chance| {
            let copy = items.clone();
            let (scan, seen) = choose(items, chance, any_scan)?;
            let last = acknowledged(&copy, scan.partition).into_iter().max()?;
            if last < scan.log_start {
                return None;
            }
            scan.end = last;
            seen.retain(|seen| seen.offset < last);
            Some(())
        },
        I1,
    );
}

#[test]
fn two_records_change_places_on_one_replica() {
    assert_found(
        |items, chance| {
            let (_, seen) = choose(items, chance, any_scan)?;
            let place = chance.below(seen.len() as u64 - 1) as usize;
            let (one, other) = (seen[place], seen[place + 1]);
            (seen[place].id, seen[place].digest) = (other.id, other.digest);
            (seen[place + 1].id, seen[place + 1].digest) = (one.id, one.digest);
            Some(())
        },
        I2,
    );
}

#[test]
fn a_retry_is_stored_twice() {
    assert_found(
        |items, chance| {
            let partition = chance.below(2) as u32;
            let mut extra: Option<Seen> = None;
            for item in items {
                let Item::Scan(scan, seen) = item else { continue };
                if scan.partition != partition || seen.is_empty() {
                    continue;
                }
                let again = *extra.get_or_insert(Seen {
                    offset: scan.end,
                    ..seen[0]
                });
                seen.push(again);
                scan.end += 1;
            }
            extra.map(|_| ())
        },
        I3,
    );
}

#[test]
fn a_record_that_is_there_was_refused() {
    assert_found(
        |items, chance| {
            let in_log = |item| match item {
                &mut Item::Send(ref mut send, _) => {
                    matches!(send.outcome, SendOutcome::Appended { .. }).then_some(send)
                }
                _ => None,
            };
            let copy = items.clone();
            let send: &mut Send = choose(items, chance, in_log)?;
            let SendOutcome::Appended { base_offset } = send.outcome else {
                return None;
            };
            let is_read = copy.iter().any(|item| match item {
                Item::Scan(scan, _) => scan.partition == send.partition && scan.log_start <= base_offset,
                _ => false,
            });
            send.outcome = SendOutcome::Refused;
            is_read.then_some(())
        },
        I3,
    );
}

#[test]
fn an_offset_stays_empty() {
    assert_found(
        |items, chance| {
            let (partition, extra) = (chance.below(2) as u32, 1 + chance.below(5));
            for item in items {
                if let Item::Scan(scan, _) = item
                    && scan.partition == partition
                {
                    scan.end += extra;
                }
            }
            Some(())
        },
        I4,
    );
}

#[test]
fn a_send_began_long_after_its_place_was_passed() {
    assert_found(
        |items, chance| {
            let latest = items.iter().filter_map(|item| match item {
                Item::Send(send, _) => Some(send.span.returned_ns),
                _ => None,
            });
            let latest = latest.max()?;
            let early = |item| match item {
                &mut Item::Send(ref mut send, _) => {
                    let early = matches!(send.outcome, SendOutcome::Appended { base_offset: 0 });
                    early.then_some(send)
                }
                _ => None,
            };
            let send = choose(items, chance, early)?;
            send.span.invoked_ns = latest + 1;
            send.span.returned_ns = latest + 2;
            Some(())
        },
        I5,
    );
}

#[test]
fn records_above_the_watermark_are_served() {
    assert_found(
        |items, chance| {
            let (poll, seen) = choose(items, chance, any_read)?;
            let last = seen.last()?.offset;
            poll.answer = PollAnswer::Records { high_watermark: last };
            Some(())
        },
        I6,
    );
}

#[test]
fn the_confirmed_end_falls_behind() {
    assert_found(
        |items, chance| {
            let ends = |item| match item {
                &mut Item::Offset(ref mut answer) => (answer.kind == OffsetKind::Latest).then_some(answer),
                _ => None,
            };
            let copy = items.clone();
            let answer = choose(items, chance, ends)?;
            let told = copy.iter().any(|item| match item {
                Item::Send(send, _) => {
                    send.partition == answer.partition
                        && send.span.returned_ns < answer.span.invoked_ns
                        && matches!(send.outcome, SendOutcome::Appended { .. })
                }
                _ => false,
            });
            answer.offset = 0;
            told.then_some(())
        },
        I6,
    );
}

#[test]
fn an_end_beyond_the_log_is_told() {
    assert_found(
        |items, chance| {
            let ends = |item| match item {
                &mut Item::Offset(ref mut answer) => (answer.kind == OffsetKind::Latest).then_some(answer),
                _ => None,
            };
            choose(items, chance, ends)?.offset += 100_000;
            Some(())
        },
        I6,
    );
}

#[test]
fn two_sends_of_a_producer_change_sequences() {
    assert_found(
        |items, chance| {
            let appended: Vec<(usize, Send)> = (0..)
                .zip(items.iter())
                .filter_map(|(place, item)| match item {
                    Item::Send(send, _) if matches!(send.outcome, SendOutcome::Appended { .. }) => Some((place, *send)),
                    _ => None,
                })
                .collect();
            let pairs: Vec<(usize, usize)> = appended
                .iter()
                .enumerate()
                .flat_map(|(place, one)| appended[place + 1..].iter().map(move |other| (one, other)))
                .filter(|((_, one), (_, other))| one.producer == other.producer && one.partition == other.partition)
                .map(|((one, _), (other, _))| (*one, *other))
                .collect();
            let (one, other) = *pairs.get(chance.below(pairs.len() as u64) as usize)?;
            let sequence = |item: &Item| match item {
                Item::Send(send, _) => send.sequence,
                _ => 0,
            };
            let (first, second) = (sequence(&items[one]), sequence(&items[other]));
            for (place, changed) in [(one, second), (other, first)] {
                if let Item::Send(send, _) = &mut items[place] {
                    send.sequence = changed;
                }
            }
            Some(())
        },
        I7,
    );
}

#[test]
fn a_reader_misses_a_record_or_gets_one_twice() {
    assert_found(
        |items, chance| {
            let (_, seen) = choose(items, chance, any_read)?;
            seen.remove(chance.below(seen.len() as u64 - 1) as usize);
            Some(())
        },
        I8,
    );
    assert_found(
        |items, chance| {
            let (_, seen) = choose(items, chance, any_read)?;
            let place = chance.below(seen.len() as u64) as usize;
            seen.insert(place, seen[place]);
            Some(())
        },
        I8,
    );
}

#[test]
fn a_batch_is_torn_at_the_end_of_the_log() {
    assert_found(
        |items, chance| {
            let partition = chance.below(2) as u32;
            let unknown: Vec<(u32, u32, u32)> = items
                .iter()
                .filter_map(|item| match item {
                    Item::Send(send, digests)
                        if send.partition == partition && send.outcome == SendOutcome::Unknown && digests.len() > 1 =>
                    {
                        Some((send.producer, send.first_number, digests.len() as u32))
                    }
                    _ => None,
                })
                .collect();
            let torn = |seen: &Seen| {
                unknown.iter().any(|(producer, first, count)| {
                    seen.id.producer == *producer && seen.id.number == first + count - 1
                })
            };
            let scanned = items.iter().find_map(|item| match item {
                Item::Scan(scan, seen) if scan.partition == partition => Some(seen.clone()),
                _ => None,
            })?;
            let first_of = |last: &Seen| {
                let (_, first, _) = unknown.iter().find(|(producer, first, count)| {
                    last.id.producer == *producer && last.id.number == first + count - 1
                })?;
                scanned
                    .iter()
                    .find(|seen| seen.id.producer == last.id.producer && seen.id.number == *first)
            };
            let last = *scanned.iter().find(|seen| torn(seen) && first_of(seen).is_some())?;
            // The tail of that batch is nowhere: neither scanned nor read.
            for item in items {
                match item {
                    Item::Scan(scan, seen) if scan.partition == partition => seen.retain(|seen| seen.id != last.id),
                    Item::Poll(poll, seen) if poll.partition == partition => seen.retain(|seen| seen.id != last.id),
                    _ => {}
                }
            }
            Some(())
        },
        I9,
    );
}

#[test]
fn the_log_start_moves_past_what_may_be_trimmed() {
    assert_found(
        |items, chance| {
            let starts = |item| match item {
                &mut Item::Offset(ref mut answer) => (answer.kind == OffsetKind::Earliest).then_some(answer),
                _ => None,
            };
            choose(items, chance, starts)?.offset += 1_000;
            Some(())
        },
        I11,
    );
}

#[test]
fn a_replica_that_lags_says_out_of_range() {
    assert_found(
        |items, chance| {
            let (poll, seen) = choose(items, chance, any_read)?;
            seen.clear();
            poll.answer = PollAnswer::OutOfRange {
                log_start: 0,
                high_watermark: poll.from,
            };
            Some(())
        },
        I11,
    );
}

#[test]
fn a_bit_of_a_value_flips() {
    assert_found(
        |items, chance| {
            let (_, seen) = choose(items, chance, any_scan)?;
            let place = chance.below(seen.len() as u64) as usize;
            seen[place].digest ^= 1 << chance.below(64);
            Some(())
        },
        I12,
    );
}

#[test]
fn a_replica_comes_back_with_less_than_it_acknowledged() {
    assert_found(
        |items, chance| {
            let copy = items.clone();
            let restarts = |item| match item {
                &mut Item::Promise(ref mut promise) => {
                    matches!(promise.kind, PromiseKind::Restarted { .. }).then_some(promise)
                }
                _ => None,
            };
            let promise = choose(items, chance, restarts)?;
            let bound = copy.iter().any(|item| match item {
                Item::Promise(other) => {
                    (other.partition, other.replica) == (promise.partition, promise.replica)
                        && other.at_ns < promise.at_ns
                        && matches!(other.kind, PromiseKind::Acked { index_end: 1.., .. })
                }
                _ => false,
            });
            if let PromiseKind::Restarted { index_end, .. } = &mut promise.kind {
                *index_end = 0;
            }
            bound.then_some(())
        },
        I13,
    );
}

#[test]
fn a_vote_is_lost_over_a_restart() {
    assert_found(
        |items, chance| {
            let restarts = |item| match item {
                &mut Item::Promise(ref mut promise) => match &mut promise.kind {
                    PromiseKind::Restarted { voted_for, .. } => voted_for.is_some().then_some(voted_for),
                    _ => None,
                },
                _ => None,
            };
            *choose(items, chance, restarts)? = None;
            Some(())
        },
        I14,
    );
}

#[test]
fn an_entry_differs_on_one_replica() {
    assert_found(
        |items, chance| {
            let dumps = |item| match item {
                &mut Item::Dump(ref dump, ref mut entries) => (dump.last && !entries.is_empty()).then_some(entries),
                _ => None,
            };
            let entries = choose(items, chance, dumps)?;
            entries.last_mut()?.payload_crc ^= 1;
            Some(())
        },
        I15,
    );
}

#[test]
fn one_replica_stays_behind() {
    assert_found(
        |items, chance| {
            let dumps = |item| match item {
                &mut Item::Dump(ref mut dump, ref mut entries) => {
                    (dump.last && !entries.is_empty()).then_some((dump, entries))
                }
                _ => None,
            };
            let (dump, entries) = choose(items, chance, dumps)?;
            entries.pop();
            dump.committed_end = dump.committed_end.saturating_sub(1);
            Some(())
        },
        I16,
    );
}
