//! Producing while everything goes wrong that can, by chance.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater::Outcome;
use highwater::proto::v1::{self, Reason};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cluster::{Action, Cluster, TOPIC, error};
use crate::producing::{DEADLINE, send_large};
use crate::{until, within};

/// So short that some batches expire on their way and some before it.
const SHORT_DEADLINE: Duration = Duration::from_millis(300);

/// Whatever happens, what was said about each record is true, and nothing is stored twice or out of order: also when the
/// leader moves, and when the deadline comes before the answer.
#[tokio::test]
async fn under_random_faults_every_answer_is_true() {
    for seed in 0..4 {
        let cluster = Cluster::start(3, 1);
        let client = cluster.client().await;
        let producer = client.producer(TOPIC).linger(Duration::ZERO).batch_bytes(1024);
        let producer = producer
            .deadline(if seed % 2 == 0 { DEADLINE } else { SHORT_DEADLINE })
            .answer_timeout(Duration::from_millis(100))
            .build()
            .await
            .unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        cluster.set_script(move |produced| match random.random_range(0..100) {
            _ if produced.count > 1_500 => Action::Normal,
            0..3 => Action::AppendAndBreak,
            3..6 => Action::Break,
            6..9 => Action::AppendAndSayUnknown,
            9..11 => Action::Refuse(error(Reason::Overloaded, v1::Outcome::NotApplied)),
            11..13 => Action::Refuse(error(Reason::PermissionDenied, v1::Outcome::NotApplied)),
            13 => Action::AppendSilently,
            14 => Action::Ignore,
            _ => Action::Normal,
        });
        within(async {
            let mut deliveries = Vec::new();
            for block in 0..10 {
                deliveries.extend(send_large(&producer, block * 30..(block + 1) * 30).await);
                let middle = &deliveries[deliveries.len() - 15];
                until("the middle of the block is answered", || middle.now().is_some()).await;
                cluster.set_leader_silently(0, block as usize % 3);
            }
            let mut outcomes = BTreeMap::new();
            for (number, delivery) in deliveries.into_iter().enumerate() {
                outcomes.insert(number as u64, delivery.await);
            }
            let stored: Vec<u64> = cluster.values(0).iter().map(|value| value.parse().unwrap()).collect();
            assert!(
                stored.is_sorted_by(|one, next| one < next),
                "seed {seed}: in order and once: {stored:?}"
            );
            let mut counts = [0; 3];
            for (number, result) in outcomes {
                let place = stored.iter().position(|value| *value == number);
                match result {
                    Ok(delivered) => {
                        counts[0] += 1;
                        assert_eq!(place, Some(delivered.offset as usize), "seed {seed}, record {number}");
                    }
                    Err(error) if error.outcome() == Outcome::NotApplied => {
                        counts[1] += 1;
                        assert_eq!(place, None, "seed {seed}, record {number}: {error}");
                    }
                    Err(_) => counts[2] += 1,
                }
            }
            assert!(
                counts[0] > 0,
                "seed {seed}: delivered, not applied, unknown: {counts:?}"
            );
        })
        .await;
    }
}
