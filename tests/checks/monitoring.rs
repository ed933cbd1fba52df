//! Dashboards and alerts: everything that they ask for is told, and whoever is called finds in docs/troubleshooting.md what to do.
//!
//! docs/metrics.md is compared with what a node serves (`cluster_tests/metrics.rs`), so it stands for that here.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use highwater_tests::markdown::anchors;

const DOCUMENT: &str = include_str!("../../docs/metrics.md");
const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yaml");
const TROUBLES: &str = include_str!("../../docs/troubleshooting.md");
const ERRORS: &str = include_str!("../../api/proto/highwater/v1/error.proto");
/// What a histogram is asked for by.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// The kinds of all metrics, by name.
fn documented() -> BTreeMap<&'static str, &'static str> {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| {
        let (name, rest) = row.split_once('`')?;
        Some((name, rest.split('|').nth(1)?.trim()))
    });
    cells.filter(|(name, _)| is_metric(name)).collect()
}

fn is_metric(word: &str) -> bool {
    word.starts_with("highwater_") || word.starts_with("process_")
}

fn words(text: &str) -> BTreeSet<&str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    words.filter(|word| is_metric(word)).collect()
}

/// Metrics that a text asks for and that nobody tells.
fn unknown(text: &str) -> Vec<String> {
    let kinds = documented();
    let is_told = |word: &str| match OF_HISTOGRAMS.iter().find_map(|end| word.strip_suffix(end)) {
        Some(histogram) => kinds.get(histogram) == Some(&"histogram"),
        None => kinds.get(word).is_some_and(|kind| *kind != "histogram"),
    };
    let asked = words(text).into_iter().filter(|word| !is_told(word));
    asked.map(str::to_owned).collect()
}

/// The reasons of the wire contract, as people see them.
fn reasons() -> BTreeSet<&'static str> {
    let values = ERRORS.lines().filter_map(|line| line.trim().strip_prefix("REASON_"));
    values
        .filter_map(|value| value.split_once(" = "))
        .map(|(name, _)| name)
        .collect()
}

/// The reasons that stand in the page's table.
fn explained() -> BTreeSet<&'static str> {
    let (_, table) = TROUBLES.split_once("<!-- reasons:").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once('`'))
        .map(|(name, _)| name)
        .collect()
}

fn dashboards() -> Vec<(PathBuf, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let boards = entries.filter(|path| path.extension().is_some_and(|end| end == "json"));
    boards
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// What a dashboard's panels and its variables ask for.
fn expressions(board: &serde_json::Value) -> Vec<&str> {
    let panels = board["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array());
    let asked = targets.flatten().map(|target| &target["expr"]);
    let variables = board["templating"]["list"].as_array().unwrap().iter();
    let listed = variables.filter_map(|variable| variable["query"].get("query"));
    asked.chain(listed).map(|text| text.as_str().unwrap()).collect()
}

/// One Prometheus may know several clusters.
#[test]
fn every_expression_of_a_dashboard_is_about_the_chosen_cluster() {
    let board_text = |(_, text): (PathBuf, String)| text;
    for text in dashboards().into_iter().map(board_text) {
        let board: serde_json::Value = serde_json::from_str(&text).unwrap();
        for expression in expressions(&board) {
            let of_cluster = expression.matches("cluster=~\"$cluster\"").count();
            let asked = expression.matches("highwater_").count() + expression.matches("process_").count();
            let lists_clusters = expression == "label_values(highwater_node_ready, cluster)";
            // The job's name has `highwater` in it.
            let asked = if expression.contains("up{") { 1 } else { asked };
            assert!(lists_clusters || of_cluster == asked, "{expression}");
        }
    }
}

#[test]
fn every_metric_on_a_dashboard_exists() {
    let boards = dashboards();
    assert_eq!(boards.len(), 3, "overview, partition, tenant");
    for (path, text) in boards {
        let board: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(!expressions(&board).is_empty(), "{}", path.display());
        for expression in expressions(&board) {
            let asked = words(expression);
            assert!(!asked.is_empty() || expression.contains("up{"), "{expression}");
            let unknown = unknown(expression);
            assert!(unknown.is_empty(), "{}: {unknown:?} in {expression}", path.display());
        }
    }
}

#[test]
fn every_metric_in_an_alert_exists_and_every_alert_says_what_to_do() {
    let alerts: Vec<&str> = ALERTS.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10, "{}", alerts.len());
    for alert in alerts {
        for part in ["expr: ", "severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "no `{part}` in {alert}");
        }
        let expressions = alert.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
        let unknown: Vec<String> = expressions.flat_map(unknown).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {alert}");
    }
}

#[test]
fn every_reason_is_explained_and_no_other() {
    assert!(reasons().len() > 30, "{:?}", reasons());
    assert_eq!(explained(), reasons());
}

#[test]
fn every_alert_leads_to_its_section() {
    let anchors = anchors(TROUBLES).unwrap();
    for alert in ALERTS.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap().trim().to_lowercase();
        let mut links = alert.lines().filter_map(|line| line.trim().strip_prefix("runbook: "));
        let wanted = format!("docs/troubleshooting.md#{name}");
        assert_eq!(links.next(), Some(wanted.as_str()), "{alert}");
        assert!(anchors.contains(&name), "docs/troubleshooting.md has no section {name}");
    }
}

#[test]
fn a_metric_that_nobody_tells_is_noticed() {
    assert_eq!(
        unknown("rate(highwater_nothing_total[5m])"),
        ["highwater_nothing_total"]
    );
    assert!(unknown("highwater_disk_sync_seconds_bucket").is_empty());
    assert_eq!(
        unknown("highwater_disk_sync_seconds").len(),
        1,
        "a histogram has no value of its own"
    );
    assert_eq!(
        unknown("highwater_disk_full_bucket").len(),
        1,
        "nor has a gauge buckets"
    );
}
