//! Replicas that do not run yet, and need each other to get there.

use std::os::unix::fs::FileExt;

use bytes::Bytes;
use highwater_log::{Kind, ReplicaId};

use super::cluster::{Cluster, NAMES, batch, in_time};
use super::damage::{group, rot, segments};
use crate::codec::{kind, recall};
use crate::{Error, Unstarted};

/// What a replica cannot do without entries from another one.
#[derive(Debug, Clone, Copy)]
enum Lacks {
    /// Opening its log: without its checkpoint it folds all entries.
    Opening,
    /// Starting its core, which asks for the last entry of each term.
    Starting,
}

/// Damages entries of a replica that nobody else has damage in.
fn damage(cluster: &Cluster, index: usize, lacks: Lacks, ends_of_terms: &[u64]) {
    match lacks {
        Lacks::Opening => {
            rot(cluster, index, index);
            std::fs::remove_file(cluster.path(index).join("checkpoint")).unwrap();
        }
        Lacks::Starting => rot_batch(cluster, index, ends_of_terms[index]),
    }
}

/// Flips a bit in the payload of this batch.
fn rot_batch(cluster: &Cluster, index: usize, sequence: u64) {
    let payload = batch(1, sequence).payload;
    let found = segments(cluster, index).into_iter().find_map(|(path, bytes)| {
        let position = bytes.windows(payload.len()).position(|window| window == payload)?;
        Some((path, position as u64, bytes[position]))
    });
    let (path, position, byte) = found.unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[byte ^ 0x10], position).unwrap();
}

/// A group whose first two replicas need entries from each other, while the third is away. The last batches of terms are
/// behind those that an opening lacks, and before what is not checkpointed.
async fn two_that_need_each_other(lacks: [Lacks; 2]) -> Cluster {
    let mut cluster = group().await;
    let mut ends_of_terms = Vec::new();
    let mut sequences = 60..;
    for _ in 0..2 {
        let last = sequences.nth(19).unwrap();
        for sequence in last - 19..=last {
            cluster.accept(batch(1, sequence)).await;
        }
        cluster.all_reach(2 * last + 2).await;
        ends_of_terms.push(last);
        let leader = cluster.leader().await;
        cluster.let_lead((leader + 1) % 3).await;
    }
    for sequence in sequences.take(60) {
        cluster.accept(batch(1, sequence)).await;
    }
    cluster.all_reach(320).await;
    cluster.equal_logs().await;
    for index in 0..3 {
        cluster.crash(index).await;
    }
    for (index, lacks) in lacks.into_iter().enumerate() {
        damage(&cluster, index, lacks, &ends_of_terms);
    }
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_that_need_entries_from_each_other_to_start_get_them() {
    let cases = [
        [Lacks::Opening, Lacks::Opening],
        [Lacks::Opening, Lacks::Starting],
        [Lacks::Starting, Lacks::Starting],
    ];
    for lacks in cases {
        let mut cluster = two_that_need_each_other(lacks).await;
        in_time(&format!("{lacks:?}"), cluster.boot_together(&[0, 1])).await;
        cluster.accept(batch(1, 160)).await;
        cluster.all_reach(322).await;
        cluster.equal_logs().await;
    }
}

async fn ask(unstarted: &Unstarted, from: &str, kind: u8, question: Bytes) -> Result<Bytes, Error> {
    let answer = unstarted.handle_call(from, kind, question).await;
    answer.map(|parts| Bytes::from(parts.concat()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_does_not_run_yet_remembers_nothing_and_needs_its_core_for_most() {
    let cluster = group().await;
    let log = cluster.node(0).log.clone();
    let end = log.last().unwrap().index;
    let (unread, open) = (Unstarted::new(ReplicaId(1)), Unstarted::with_log(log));
    let remember = recall::encode_remember(1, 2);
    for unstarted in [&unread, &open] {
        let seen = ask(unstarted, NAMES[1], kind::REMEMBER, remember.clone())
            .await
            .unwrap();
        assert_eq!(recall::decode_seen(seen).unwrap(), None);
        for kind in [
            kind::APPEND,
            kind::VOTE,
            kind::PRE_VOTE,
            kind::TRANSFER,
            kind::CONFIRM_END,
            kind::CONFIRM_START,
        ] {
            assert!(!Unstarted::answers(kind));
            let answer = ask(unstarted, NAMES[1], kind, remember.clone()).await;
            assert!(matches!(answer, Err(Error::BadMessage(_))), "{answer:?}");
        }
        let stray = ask(unstarted, NAMES[1], kind::REMEMBER, recall::encode_remember(9, 2)).await;
        assert!(
            matches!(stray, Err(Error::BadMessage(_))),
            "for another replica: {stray:?}"
        );
    }
    let refill = recall::encode_refill_request(1, 0, end);
    let early = ask(&unread, NAMES[1], kind::REFILL, refill.clone()).await;
    assert!(matches!(early, Err(Error::BadMessage(_))), "{early:?}");
    let stranger = ask(&open, "stranger", kind::REFILL, refill.clone()).await;
    assert!(matches!(stranger, Err(Error::BadMessage(_))), "{stranger:?}");
    let answer = ask(&open, NAMES[1], kind::REFILL, refill).await.unwrap();
    let recall::Refill::Frames(frames) = recall::decode_refill(answer).unwrap() else {
        panic!("no entries");
    };
    assert!(frames.iter().any(|frame| frame.header.kind == Kind::Batch));
}
