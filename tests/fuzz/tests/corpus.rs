//! Every target over its corpus and over a number of mutations of it, always the same ones.
#![allow(clippy::unwrap_used)]

use highwater_fuzz::{TARGETS, from_hex, mutations, target, to_hex};

const SEED: u64 = 20_261_121;
const MUTATIONS: usize = 60_000;

fn replay(name: &str) {
    let target = target(name).unwrap();
    let corpus = target.corpus().unwrap();
    assert!(!corpus.is_empty());
    for input in corpus.iter().cloned().chain(mutations(&corpus, SEED, MUTATIONS)) {
        let run = std::panic::catch_unwind(|| (target.run)(&input));
        assert!(run.is_ok(), "target {name}, input {}", to_hex(&input));
    }
}

#[test]
fn frames() {
    replay("frames");
}

#[test]
fn hard_state() {
    replay("hard-state");
}

#[test]
fn index() {
    replay("index");
}

#[test]
fn states() {
    replay("states");
}

#[test]
fn messages() {
    replay("messages");
}

#[test]
fn link() {
    replay("link");
}

#[test]
fn leaders() {
    replay("leaders");
}

#[test]
fn batches() {
    replay("batches");
}

#[test]
fn gateway() {
    replay("gateway");
}

#[test]
fn every_target_is_run_here_and_has_a_corpus() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let run_here = [
        "frames",
        "hard-state",
        "index",
        "states",
        "messages",
        "link",
        "leaders",
        "batches",
        "gateway",
    ];
    assert_eq!(names, run_here);
    assert!(TARGETS.iter().all(|target| !target.corpus().unwrap().is_empty()));
}

#[test]
fn mutations_are_the_same_each_time_and_differ() {
    let inputs = [vec![1, 2, 3], vec![4; 20]];
    let first: Vec<_> = mutations(&inputs, SEED, 1_000).collect();
    assert_eq!(first, mutations(&inputs, SEED, 1_000).collect::<Vec<_>>());
    let different: std::collections::BTreeSet<_> = first.iter().collect();
    assert!(different.len() > 500, "{}", different.len());
}

#[test]
fn hexadecimal_comes_back_as_it_was() {
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
    assert_eq!(from_hex("0"), None);
    assert_eq!(from_hex("zz"), None);
}
