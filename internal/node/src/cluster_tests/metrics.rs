//! What Prometheus is told: what stands in the documents, and what is so.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::AsyncWriteExt;

use super::readiness::{ask, with_admin};
use super::*;

const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");

/// The families of a text, each with its kind.
fn families(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let told = types.map(|line| line.split_once(' ').unwrap());
    told.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// The families of the document's tables: name, kind.
fn documented() -> BTreeMap<String, String> {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    let told = rows.map(|row| {
        let (name, rest) = row.split_once('`').unwrap();
        let kind = rest.split('|').nth(1).unwrap().trim();
        (name.to_owned(), kind.to_owned())
    });
    // other tables explain labels
    told.filter(|(name, _)| name.contains('_')).collect()
}

pub(super) fn value(text: &str, series: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

pub(super) async fn metrics(cluster: &TestCluster, number: usize) -> String {
    let (code, text) = ask(cluster.nodes[number].as_ref().unwrap(), "/metrics").await;
    assert_eq!(code, 200);
    text
}

pub(super) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("in vain: {what}"));
}

const PARTITION: &str = "tenant=\"shop\",topic=\"orders\",partition=\"0\"";

/// The node that leads it.
async fn leader(cluster: &TestCluster) -> usize {
    let leads = format!("highwater_partition_leader{{{PARTITION}}}");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        for number in 0..3 {
            if value(&metrics(cluster, number).await, &leads) == Some(1.0) {
                return number;
            }
        }
    }
    panic!("nobody leads");
}

/// A consumer group that has consumed nothing of it.
pub(super) async fn add_group(cluster: &TestCluster) {
    let has_rules = |catalog: &highwater_catalog::Catalog| catalog.feature_level() == highwater_catalog::FEATURE_LEVEL;
    cluster.until_everywhere("the rules that groups need", has_rules).await;
    let mut groups = super::groups::groups(&cluster.client(leader(cluster).await, "shop").await);
    let claimed = groups.claim_partition(super::groups::claim("billing")).await.unwrap();
    let commit = super::groups::commit(claimed.into_inner().claim, 0);
    groups.commit_offset(commit).await.unwrap();
}

/// A cluster with a record in `orders` of tenant `shop`.
pub(super) async fn with_a_record() -> TestCluster {
    let mut cluster = with_admin();
    cluster.found().await;
    cluster.client(0, "shop").await.create("orders", 1).await;
    let produced = cluster.produce("shop", batch_of("orders", 0, &["first"])).await;
    produced.unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_stands_in_the_document_and_every_other_way_round() {
    let cluster = with_a_record().await;
    let is_set_up = |catalog: &highwater_catalog::Catalog| catalog.access().is_set_up();
    cluster.until_everywhere("the first policy", is_set_up).await;
    let quota = v1::Amounts {
        streams: Some(7),
        ..v1::Amounts::default()
    };
    cluster.limit(None, quota).await;
    let quota = "highwater_tenant_quota{tenant=\"shop\",limit=\"streams\"}";
    let is_told = async || value(&metrics(&cluster, 0).await, quota) == Some(7.0);
    until("the quota is told", is_told).await;
    add_group(&cluster).await;
    let kept = "highwater_tenant_stored_bytes{tenant=\"shop\"}";
    let is_counted = async || value(&metrics(&cluster, leader(&cluster).await).await, kept).is_some();
    until("what tenants keep is counted", is_counted).await;
    let text = metrics(&cluster, leader(&cluster).await).await;
    assert_eq!(families(&text), documented());
    let expiry = value(&text, "highwater_certificate_expiry_timestamp_seconds").unwrap();
    assert!(
        expiry > std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64(),
        "{expiry}"
    );
    for (name, kind) in families(&text) {
        assert!(name.starts_with("highwater_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    }
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let series: Vec<&str> = samples.map(|line| line.rsplit_once(' ').unwrap().0).collect();
    let different: BTreeSet<&str> = series.iter().copied().collect();
    assert_eq!(series.len(), different.len(), "a series is told twice: {text}");
}

/// It does not step down, but what it leads cannot be written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_has_lost_its_majority_is_not_told_as_one_and_neither_is_its_catalog() {
    let mut cluster = with_a_record().await;
    let leads = format!("highwater_partition_leader{{{PARTITION}}}");
    let told = async |cluster: &TestCluster, number: usize| {
        let text = metrics(cluster, number).await;
        let names = [
            &leads,
            "highwater_partitions",
            "highwater_partitions_led",
            "highwater_catalog_current",
        ];
        names.map(|name| value(&text, name).unwrap())
    };
    let survivor = leader(&cluster).await;
    let [_, partitions, _, is_current] = told(&cluster, survivor).await;
    assert_eq!((partitions, is_current), (1.0, 1.0));
    for other in (0..3).filter(|number| *number != survivor) {
        cluster.stop(other).await;
    }
    until("nothing is led", async || {
        told(&cluster, survivor).await == [0.0, 1.0, 0.0, 0.0]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_tell_who_leads_what_was_written_and_who_was_turned_away() {
    let cluster = with_a_record().await;
    let of = |name: &str| format!("highwater_partition_{name}{{{PARTITION}}}");
    let all_know = async || -> bool {
        let (mut leaders, mut led, mut appended) = (0.0, 0.0, 0.0);
        for number in 0..3 {
            let text = metrics(&cluster, number).await;
            if value(&text, &of("high_watermark_offset")) != Some(1.0) {
                return false;
            }
            leaders += value(&text, &of("leader")).unwrap();
            led += value(&text, "highwater_partitions_led").unwrap();
            appended += value(&text, &of("appended_records_total")).unwrap();
        }
        (leaders, led, appended) == (1.0, 1.0, 1.0)
    };
    until("one node leads, and all have the record", all_know).await;

    let mut stranger = TcpStream::connect(("127.0.0.1", cluster.ports[1])).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let refused = "highwater_connections_refused_total{reason=\"not_tls\"}";
    let is_counted = async || value(&metrics(&cluster, 1).await, refused) == Some(1.0);
    until("the stranger is counted", is_counted).await;
    let text = metrics(&cluster, 1).await;
    assert_eq!(value(&text, "highwater_node_ready"), Some(1.0));
    assert_eq!(value(&text, "highwater_untold_partitions"), Some(0.0));
    assert!(value(&text, "highwater_disk_free_bytes").unwrap() > 0.0);
    assert!(value(&text, "process_resident_memory_bytes").unwrap() > 1e6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_tells_how_long_a_batch_took_and_how_far_others_are_behind() {
    let cluster = with_a_record().await;
    add_group(&cluster).await;
    // On all nodes together: leadership may move, and a batch be sent again.
    let mut texts = Vec::new();
    for number in 0..3 {
        texts.push(metrics(&cluster, number).await);
    }
    let sum = |series: &str| texts.iter().filter_map(|text| value(text, series)).sum::<f64>();
    for stage in ["admit", "queue", "sync", "replicate", "commit", "answer"] {
        let series = format!("highwater_produce_stage_seconds_count{{stage=\"{stage}\"}}");
        assert!(sum(&series) >= 1.0, "{stage}: {}", sum(&series));
    }
    assert!(sum("highwater_disk_sync_seconds_count") >= 1.0);
    assert!(sum("highwater_disk_round_jobs_sum") >= 1.0);
    assert!(sum("highwater_leaderships_begun_total") >= 1.0);
    let group = format!("highwater_group_lag_records{{{PARTITION},group=\"billing\"}}");
    let up_to_date = async || {
        let number = leader(&cluster).await;
        let text = metrics(&cluster, number).await;
        if value(&text, &group) != Some(1.0) {
            return false;
        }
        let others = NAMES[..3].iter().enumerate().filter(|(other, _)| *other != number);
        let mut lags = others.map(|(_, name)| format!("highwater_replica_lag_entries{{{PARTITION},node=\"{name}\"}}"));
        lags.all(|lag| value(&text, &lag) == Some(0.0))
    };
    until("the group is behind, and both followers have everything", up_to_date).await;
}
