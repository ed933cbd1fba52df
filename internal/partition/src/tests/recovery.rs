//! Crashes of all replicas, machines, and cores that die.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use highwater_log::Verdict;

use super::cluster::{Cluster, MakeMachine, batch, eventually, in_time, propose, read_all};
use crate::{Answer, CommandError, Machine, NotApplied, Role};

/// Remembers every command; panics at the command "panic" if `fragile`.
pub(super) struct Notebook {
    lines: Mutex<Vec<(u64, Bytes)>>,
    fragile: bool,
}

impl Machine for Notebook {
    fn apply(&self, index: u64, command: Bytes) -> Bytes {
        assert!(!(self.fragile && command == "panic"), "asked to panic");
        let mut lines = self.lines.lock().unwrap();
        lines.push((index, command));
        Bytes::from(format!("line {}", lines.len()))
    }

    fn checkpoint(&self) -> Bytes {
        let lines = self.lines.lock().unwrap();
        Bytes::from(
            lines
                .iter()
                .map(|(_, line)| String::from_utf8_lossy(line))
                .collect::<Vec<_>>()
                .join("\n"),
        )
    }

    fn restore(&self, checkpoint: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(checkpoint).map_err(|err| err.to_string())?;
        let lines = text.lines().map(|line| (0, Bytes::copy_from_slice(line.as_bytes())));
        *self.lines.lock().unwrap() = lines.collect();
        Ok(())
    }
}

pub(super) fn notebooks(fragile: bool) -> MakeMachine {
    Arc::new(move || {
        Some(Arc::new(Notebook {
            lines: Mutex::new(Vec::new()),
            fragile,
        }))
    })
}

pub(super) fn pages(cluster: &Cluster) -> Vec<Bytes> {
    cluster
        .running()
        .map(|(_, node)| node.machine.as_ref().unwrap().checkpoint())
        .collect()
}

pub(super) async fn command(cluster: &Cluster, line: &'static str) -> Bytes {
    let written = async {
        loop {
            let leader = cluster.leader().await;
            match cluster
                .partition(leader)
                .command(Bytes::from_static(line.as_bytes()))
                .await
            {
                Ok(answer) => return answer,
                Err(CommandError::NotLeader { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    in_time("a command", written).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_batches_survive_the_crash_of_all_replicas() {
    let mut cluster = Cluster::start().await;
    for sequence in 0..30 {
        cluster.decide(batch(1, sequence)).await;
    }
    for index in 0..3 {
        cluster.crash(index).await;
    }
    for index in 0..3 {
        cluster.boot(index).await;
    }
    let retry = cluster.decide(batch(1, 29)).await;
    assert_eq!((retry.verdict, retry.base_offset), (Verdict::Duplicate, 58));
    let next = cluster.decide(batch(1, 30)).await;
    assert_eq!((next.verdict, next.base_offset), (Verdict::Accepted, 60));
    cluster.all_reach(62).await;
    cluster.equal_logs().await;
    let read = read_all(cluster.partition(2)).await;
    assert_eq!(read.len(), 31);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_shutdown_can_be_opened_again() {
    let mut cluster = Cluster::start().await;
    cluster.decide(batch(1, 0)).await;
    cluster.all_reach(2).await;
    for index in 0..3 {
        cluster.partition(index).shutdown().await.unwrap();
        assert_eq!(cluster.partition(index).stopped().await, None);
        assert_eq!(cluster.partition(index).status().role, Role::Stopped);
    }
    for index in 0..3 {
        cluster.crash(index).await;
        cluster.boot(index).await;
        let watermark = *cluster.partition(index).watermark().borrow();
        assert_eq!(watermark.high_watermark, 2, "the commit point is noted on close");
    }
    cluster.decide(batch(1, 1)).await;
    cluster.all_reach(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_applied_once_on_every_replica_and_answered() {
    let cluster = Cluster::start_with(notebooks(false)).await;
    assert_eq!(command(&cluster, "one").await, "line 1");
    assert_eq!(command(&cluster, "two").await, "line 2");
    eventually("two lines everywhere", || {
        pages(&cluster).iter().all(|page| page == "one\ntwo")
    })
    .await;
    let follower = cluster.follower().await;
    let refused = cluster.partition(follower).command(Bytes::from_static(b"three")).await;
    assert!(
        matches!(refused, Err(CommandError::NotLeader { leader: Some(_), .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_rebuilt_from_the_log() {
    let mut cluster = Cluster::start_with(notebooks(false)).await;
    for line in ["one", "two", "three"] {
        command(&cluster, line).await;
    }
    for index in 0..3 {
        cluster.crash(index).await;
    }
    for index in 0..3 {
        cluster.boot(index).await;
    }
    assert_eq!(command(&cluster, "four").await, "line 4");
    eventually("four lines everywhere", || {
        pages(&cluster).iter().all(|page| page == "one\ntwo\nthree\nfour")
    })
    .await;
    cluster.equal_logs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_a_machine_refuses_commands() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let refused = cluster.partition(leader).command(Bytes::from_static(b"one")).await;
    assert!(matches!(refused, Err(CommandError::Refused(_))), "{refused:?}");
    let large = Bytes::from(vec![0; highwater_log::PAYLOAD_BYTES_MAX + 1]);
    assert!(matches!(
        cluster.partition(leader).command(large).await,
        Err(CommandError::Refused(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_that_dies_is_noticed_and_says_why() {
    let cluster = Cluster::start_with(notebooks(true)).await;
    let (leader, answer) = loop {
        let leader = cluster.partition(cluster.leader().await).clone();
        let answer = in_time("an answer", leader.command(Bytes::from_static(b"panic"))).await;
        if !matches!(answer, Err(CommandError::NotLeader { .. })) {
            break (leader, answer);
        }
    };
    let changes = leader.status_changes();
    assert!(matches!(answer, Err(CommandError::Unknown(_))), "{answer:?}");
    let why = in_time("the end", leader.stopped())
        .await
        .expect("nobody asked it to stop");
    assert!(why.contains("the machine panicked"), "{why}");
    assert_eq!(
        (leader.status().role, changes.borrow().role),
        (Role::Stopped, Role::Stopped)
    );
    assert_eq!(
        propose(&leader, batch(1, 0)).await,
        Answer::NotApplied(NotApplied::Stopped)
    );
    assert!(matches!(
        leader.command(Bytes::from_static(b"two")).await,
        Err(CommandError::Stopped)
    ));
}
