//! Writers that race with conditional appends: none of two ever wins the same offset, also when a leader dies.

use std::collections::BTreeMap;

use highwater::{Client, Outcome, Producer, Profile, Reason, Record};
use highwater_tests::TestCluster;
use tokio::runtime::Runtime;

use crate::consume;

const TOPIC: &str = "turns";
/// Successful appends of each writer.
const TURNS: u64 = 200;
const WRITERS: u64 = 3;

/// Appends its turns one by one, each at the offset where the log ends; gives them with their offsets.
async fn take_turns(producer: &Producer, writer: u64) -> BTreeMap<u64, String> {
    let (mut taken, mut end) = (BTreeMap::new(), 0);
    for turn in 0..TURNS {
        let value = format!("writer {writer} turn {turn}");
        loop {
            let record = Record::new(value.clone());
            match producer.append_at(0, end, vec![record]).await {
                Ok(delivered) => {
                    assert_eq!(delivered.offset, end);
                    taken.insert(end, value);
                    end += 1;
                    break;
                }
                Err(error) => {
                    assert_eq!(error.reason(), Some(Reason::OffsetMismatch), "{error}");
                    assert_eq!(error.outcome(), Outcome::NotApplied);
                    let now = error.log_end().unwrap_or_else(|| panic!("no log end: {error}"));
                    assert_ne!(now, end, "the condition holds");
                    end = now;
                }
            }
        }
    }
    taken
}

#[test]
fn writers_that_race_for_offsets_never_both_win_also_when_the_leader_dies() {
    let mut cluster = TestCluster::start(3);
    cluster.create_topic(TOPIC, 1);
    let leader = cluster.leader(TOPIC, 0);
    let profile = Profile::load(cluster.profile()).unwrap_or_else(|error| panic!("{error}"));
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let profile = profile.clone();
            runtime.spawn(async move {
                let client = Client::from_profile(&profile).await?;
                let producer = client.producer(TOPIC).build().await?;
                Ok::<_, highwater::Error>(take_turns(&producer, writer).await)
            })
        })
        .collect();
    cluster.node(leader).kill();
    let mut taken = BTreeMap::new();
    for writer in writers {
        let own = runtime.block_on(writer).unwrap_or_else(|error| panic!("{error}"));
        for (offset, value) in own.unwrap_or_else(|error| panic!("{error}")) {
            assert_eq!(taken.insert(offset, value), None, "two have won offset {offset}");
        }
    }
    let expected: String = taken.values().map(|value| format!("{value}\n")).collect();
    assert_eq!(taken.len() as u64, WRITERS * TURNS);
    assert_eq!(String::from_utf8_lossy(&consume(&cluster, TOPIC)), expected);
}
