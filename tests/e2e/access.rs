//! Tenants and policy from the command line: what is granted works, what is not looks like nothing, and what is taken back ends at once.

use std::path::Path;

use highwater_tests::{Finished, TestCluster, eventually, run_with_input};

use crate::{PATIENCE, create_tenant};

fn as_client(cluster: &TestCluster, profile: &Path, words: &str) -> Finished {
    let arguments: Vec<&str> = words.split(' ').collect();
    run_with_input(
        &mut cluster.command_as(profile, &arguments),
        b"one\n".to_vec(),
        PATIENCE,
    )
}

fn access(cluster: &TestCluster, words: &str) -> String {
    let arguments: Vec<&str> = words.split(' ').collect();
    cluster.run(&arguments).success().stdout()
}

/// A cluster that has its first policy, with topic `orders` of the operator's tenant.
fn cluster() -> TestCluster {
    let cluster = TestCluster::start(3);
    cluster.create_topic("orders", 1);
    cluster
}

#[test]
fn what_is_granted_works_and_ends_when_it_is_taken_back() {
    let cluster = cluster();
    let feed = cluster.profile_for("partner", "feed");
    eventually("the first policy knows no such tenant", PATIENCE, || {
        let refused = as_client(&cluster, &feed, "topic list");
        refused.stderr.contains("its tenant does not exist").then_some(())
    });
    create_tenant(&cluster, "partner");
    let hidden = as_client(&cluster, &feed, "produce acme/orders");
    assert!(hidden.stderr.contains("TOPIC_NOT_FOUND"), "{}", hidden.stderr);

    let told = access(&cluster, "access grant partner/feed produce --topic or* --dry-run");
    assert!(
        told.contains("+ p, partner/feed, acme, topic:or*, produce, allow"),
        "{told}"
    );
    assert!(told.contains("Nothing was changed."), "{told}");
    as_client(&cluster, &feed, "produce acme/orders").fails_with(3, &["TOPIC_NOT_FOUND"]);
    access(&cluster, "access grant partner/feed produce --topic or*");
    eventually("every node knows it", PATIENCE, || {
        (as_client(&cluster, &feed, "produce acme/orders").code() == 0).then_some(())
    });
    let refused = as_client(&cluster, &feed, "consume acme/orders --from beginning --exit-at-end");
    assert!(refused.stderr.contains("PERMISSION_DENIED"), "{}", refused.stderr);

    access(&cluster, "access grant partner/feed consumer");
    let mut reading = cluster.command_as(&feed, &["consume", "acme/orders", "--from", "beginning"]);
    let reading = std::thread::spawn(move || run_with_input(&mut reading, Vec::new(), PATIENCE));
    eventually("it reads", PATIENCE, || {
        let described = cluster.json(&["cluster", "describe", "--output", "json"]);
        let replicas = described["replicas"].as_array().cloned().unwrap_or_default();
        let has_served = |replica: &serde_json::Value| replica["records_served"].as_u64() > Some(0);
        replicas.iter().any(has_served).then_some(())
    });
    access(&cluster, "access revoke partner/feed consumer");
    let finished = reading.join().unwrap_or_else(|_| panic!("the reader panicked"));
    assert_eq!(finished.code(), 4, "{}", finished.stderr);
    assert!(finished.stderr.contains("PERMISSION_DENIED"), "{}", finished.stderr);

    let why = access(&cluster, "access explain partner/feed consume --topic orders");
    assert_eq!(
        why,
        "partner/feed may not consume topic:orders in acme: no rule allows it.\n"
    );
    access(&cluster, "tenant suspend partner");
    eventually("it is shut out", PATIENCE, || {
        let refused = as_client(&cluster, &feed, "topic list");
        refused.stderr.contains("the tenant is suspended").then_some(())
    });
    access(&cluster, "tenant delete partner --confirm partner");
    let listed = access(&cluster, "access list");
    assert!(!listed.contains("partner"), "{listed}");
}

#[test]
fn topics_of_the_same_name_in_two_tenants_never_meet() {
    let cluster = cluster();
    create_tenant(&cluster, "rival");
    let rival = cluster.profile_for("rival", "app");
    eventually("every node knows the tenant", PATIENCE, || {
        let is_there = |words| as_client(&cluster, &rival, words).code() == 0;
        (is_there("topic create orders") || is_there("topic describe orders")).then_some(())
    });
    run_with_input(
        &mut cluster.command(&["produce", "orders"]),
        b"ours\n".to_vec(),
        PATIENCE,
    )
    .success();
    as_client(&cluster, &rival, "produce orders").success();
    let theirs = as_client(&cluster, &rival, "consume orders --from beginning --exit-at-end").success();
    assert_eq!(theirs.stdout(), "one\n");
    assert_eq!(crate::consume(&cluster, "orders"), b"ours\n");
    for trick in [
        "acme/orders",
        "ACME/orders",
        "acme//orders",
        "acme/./orders",
        "../acme/orders",
        "acme%2Forders",
        "acme/orders/",
    ] {
        let refused = as_client(
            &cluster,
            &rival,
            &format!("consume {trick} --from beginning --exit-at-end"),
        );
        assert_ne!(refused.code(), 0, "{trick}");
        assert_eq!(refused.stdout(), "", "{trick}");
    }
}
