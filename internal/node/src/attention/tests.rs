//! Each sentence, from the state that it is about.

#![allow(clippy::unwrap_used)]
use super::*;

fn node(name: &str) -> NodeSeen {
    NodeSeen {
        name: name.to_owned(),
        alive: true,
        votes: true,
        disk: Some(DiskSeen {
            free_bytes: 50,
            total_bytes: 100,
            ..DiskSeen::default()
        }),
        ..NodeSeen::default()
    }
}

fn partition(number: u32) -> PartitionSeen {
    let replica = |(node, role): (&str, &str)| ReplicaSeen {
        node: node.to_owned(),
        role: role.to_owned(),
        lag_records: Some(0),
        ..ReplicaSeen::default()
    };
    PartitionSeen {
        topic: "shop/orders".to_owned(),
        partition: number,
        leader: "n1".to_owned(),
        replicas: [("n1", "leader"), ("n2", "follower"), ("n3", "follower")]
            .map(replica)
            .to_vec(),
    }
}

fn healthy() -> Seen {
    Seen {
        by: "n1".to_owned(),
        catalog_leader: "n1".to_owned(),
        nodes: ["n1", "n2", "n3"].map(node).to_vec(),
        partitions: (0..5).map(partition).collect(),
    }
}

/// What is found after a change to a healthy cluster: severity, about, and what.
fn found(change: impl FnOnce(&mut Seen)) -> Vec<(Severity, String, String)> {
    let mut seen = healthy();
    change(&mut seen);
    let told = findings(&seen).into_iter().map(|finding| {
        for sentence in [&finding.what, &finding.meaning, &finding.action] {
            assert!(sentence.ends_with('.') && !sentence.contains("  "), "{sentence:?}");
        }
        (finding.severity, finding.about, finding.what)
    });
    told.collect()
}

fn only(change: impl FnOnce(&mut Seen)) -> (Severity, String, String) {
    let mut all = found(change);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn a_healthy_cluster_needs_nothing() {
    assert_eq!(found(|_| ()), Vec::new());
}

#[test]
fn a_node_that_is_gone_comes_first_and_says_what_lacks_it() {
    let all = found(|seen| {
        seen.nodes[2].alive = false;
        seen.nodes[2].not_ready = "it does not answer".to_owned();
        for partition in &mut seen.partitions {
            partition.replicas[2].role.clear();
        }
    });
    let told: Vec<_> = all
        .iter()
        .map(|(severity, about, _)| (*severity, about.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Severity::Critical, "n3"),
            (Severity::Warning, "catalog"),
            (Severity::Warning, "5 partitions")
        ]
    );
    assert!(all[1].2.contains("2 of 3 are there"), "{all:?}");
    assert!(all[2].2.contains("away: n3"), "{all:?}");
    assert!(
        all[2]
            .2
            .ends_with("shop/orders 0, shop/orders 1, shop/orders 2, and 2 more."),
        "{all:?}"
    );
}

#[test]
fn a_catalog_without_a_leader_names_whom_it_lacks() {
    let all = found(|seen| {
        seen.catalog_leader.clear();
        seen.nodes[1].alive = false;
        seen.nodes[2].alive = false;
    });
    assert_eq!((all[0].0, all[0].1.as_str()), (Severity::Critical, "catalog"));
    assert!(
        all[0].2.contains("needs 2 of 3 voters, and n2, n3 are not heard of"),
        "{all:?}"
    );
}

#[test]
fn a_catalog_without_a_majority_is_critical_whoever_is_called_its_leader() {
    for leader in ["n1", "n2", ""] {
        let all = found(|seen| {
            seen.catalog_leader = leader.to_owned();
            seen.nodes[1].alive = false;
            seen.nodes[2].alive = false;
        });
        let of_catalog: Vec<_> = all.iter().filter(|(_, about, _)| about == "catalog").collect();
        let (severity, _, what) = of_catalog[0];
        assert_eq!((of_catalog.len(), *severity), (1, Severity::Critical), "{all:?}");
        assert_eq!(
            what,
            "The catalog has lost its majority: it needs 2 of 3 voters, and n2, n3 are not heard of."
        );
    }
}

#[test]
fn a_catalog_between_two_leaders_says_that_one_may_come() {
    let (severity, about, what) = only(|seen| seen.catalog_leader.clear());
    assert_eq!((severity, about.as_str()), (Severity::Critical, "catalog"));
    assert!(
        what.contains("no leader that n1 knows: the voters are heard of"),
        "{what}"
    );
    let all = found(|seen| {
        seen.catalog_leader.clear();
        seen.nodes[2].alive = false;
    });
    assert!(
        all[0]
            .2
            .contains("n3 is not heard of, but enough of the other voters are"),
        "{all:?}"
    );
}

#[test]
fn nodes_that_are_not_ready_full_or_on_their_way_say_so() {
    let (severity, about, what) = only(|seen| seen.nodes[0].not_ready = "it is draining".to_owned());
    assert_eq!(
        (severity, about.as_str(), what.as_str()),
        (Severity::Warning, "n1", "n1 is not ready: it is draining.")
    );
    let disk = |free_bytes, low, full| {
        only(|seen| {
            seen.nodes[1].disk = Some(DiskSeen {
                free_bytes,
                total_bytes: 100,
                low,
                full,
            });
        })
    };
    assert_eq!(disk(1, true, true).0, Severity::Critical);
    assert_eq!(disk(50, true, false).0, Severity::Warning);
    assert_eq!(disk(14, false, false).0, Severity::Warning);
    let expiring = "the certificate expires in 6 days";
    let (severity, _, what) = only(|seen| seen.nodes[2].notices = vec![expiring.to_owned()]);
    assert_eq!((severity, what), (Severity::Warning, format!("n3: {expiring}.")));
    assert_eq!(only(|seen| seen.nodes[0].leaving = true).0, Severity::Notice);
    assert_eq!(only(|seen| seen.nodes[0].drained = true).0, Severity::Notice);
}

#[test]
fn each_trouble_of_a_partition_is_one_finding() {
    let of = |change: fn(&mut PartitionSeen)| only(|seen| change(&mut seen.partitions[3]));
    type Case = (fn(&mut PartitionSeen), Severity, &'static str);
    let cases: [Case; 7] = [
        (
            |partition| partition.leader.clear(),
            Severity::Critical,
            "1 partition has no leader",
        ),
        (
            |partition| {
                partition.replicas[1].damaged_entries = 4;
                partition.replicas[1].damaged_everywhere = true;
            },
            Severity::Critical,
            "damaged on every replica",
        ),
        (
            |partition| partition.replicas[1].damaged_entries = 4,
            Severity::Warning,
            "damaged entries",
        ),
        (
            |partition| partition.replicas[2].role = "stopped".to_owned(),
            Severity::Critical,
            "a replica that has stopped",
        ),
        (
            |partition| partition.replicas[2].role = "dead".to_owned(),
            Severity::Warning,
            "a dead replica",
        ),
        (
            |partition| partition.replicas[2].role.clear(),
            Severity::Warning,
            "fewer replicas than wanted",
        ),
        (
            |partition| partition.replicas[2].lag_records = Some(100_001),
            Severity::Notice,
            "100000 records behind",
        ),
    ];
    for (change, severity, part) in cases {
        let (found, about, what) = of(change);
        assert_eq!((found, about.as_str()), (severity, "1 partition"), "{what}");
        assert!(what.contains(part) && what.ends_with(": shop/orders 3."), "{what}");
    }
}

#[test]
fn a_partition_whose_majority_is_away_is_critical() {
    let all = found(|seen| {
        for replica in &mut seen.partitions[0].replicas[1..] {
            replica.role.clear();
        }
    });
    assert_eq!(all[0].0, Severity::Critical);
    assert!(all[0].2.contains("no majority"), "{all:?}");
}
