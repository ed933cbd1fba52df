//! Quotas from the command line: a producer over its quota is slowed down and loses nothing, and what is refused says what to do.

use std::time::{Duration, Instant};

use highwater_tests::{Finished, TestCluster, eventually, run_with_input};

use crate::{PATIENCE, assert_same_bytes, consume, create_tenant, numbers, produce};

fn words(cluster: &TestCluster, words: &str) -> Finished {
    let arguments: Vec<&str> = words.split(' ').collect();
    cluster.run(&arguments)
}

/// A cluster that has its first policy.
fn cluster() -> TestCluster {
    let cluster = TestCluster::start(3);
    create_tenant(&cluster, "shop");
    cluster
}

#[test]
fn a_producer_over_its_quota_is_slowed_down_and_loses_nothing() {
    let cluster = cluster();
    cluster.create_topic("orders", 1);
    words(&cluster, "tenant quota acme --set produce_bytes_per_second=200k").success();
    let lines = numbers(60_000);
    let begin = Instant::now();
    produce(&cluster, "orders", lines.clone());
    produce(&cluster, "orders", lines.clone());
    // More than 500 KB each: a second's worth and a batch on credit at once, then no more before that is paid for.
    assert!(begin.elapsed() > Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_same_bytes(&consume(&cluster, "orders"), &lines.repeat(2));

    let described = cluster.json(&["tenant", "describe", "acme", "--output", "json"]);
    assert_eq!(described["quota"]["produce_bytes_per_second"], 200_000);
    assert_eq!(described["used"]["topics"], 1);
    assert!(
        described["used"]["stored_bytes"].as_u64() > Some(500_000),
        "{described}"
    );
}

#[test]
fn what_a_quota_refuses_names_the_limit_and_who_can_change_it() {
    let cluster = cluster();
    words(&cluster, "tenant quota acme --set topics=1 --set stored_bytes=10k").success();
    cluster.create_topic("orders", 1);
    words(&cluster, "topic create more")
        .fails_with(4, &["QUOTA_EXCEEDED", "topics = 1"])
        .with_hint(&["highwater tenant quota"]);
    let full = eventually("the tenant is full", PATIENCE, || {
        let mut command = cluster.command(&["produce", "orders", "--deadline", "2s"]);
        let produced = run_with_input(&mut command, numbers(2_000), PATIENCE);
        (produced.code() != 0).then_some(produced)
    });
    assert!(
        full.stderr.contains("QUOTA_EXCEEDED") && full.stderr.contains("stored_bytes"),
        "{}",
        full.stderr
    );
    assert!(!consume(&cluster, "orders").is_empty(), "reading goes on");
    words(&cluster, "tenant quota acme --clear stored_bytes").success();
    produce(&cluster, "orders", numbers(10));
}

#[test]
fn only_operators_change_quotas() {
    let cluster = cluster();
    let shop = cluster.profile_for("shop", "web");
    let as_shop = |arguments: &[&str]| run_with_input(&mut cluster.command_as(&shop, arguments), Vec::new(), PATIENCE);
    let describe = as_shop(&["tenant", "describe", "shop"]).success().stdout();
    assert!(describe.contains("produce_bytes_per_second"), "{describe}");
    as_shop(&["tenant", "describe", "acme"]).fails_with(4, &["PERMISSION_DENIED"]);
    as_shop(&["tenant", "quota", "shop", "--set", "topics=9"]).fails_with(4, &["PERMISSION_DENIED"]);
    as_shop(&["tenant", "quota", "shop", "--set", "topic=9"]).fails_with(2, &["there is no limit topic"]);
}
