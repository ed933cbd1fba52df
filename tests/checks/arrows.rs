//! Who may import whom.
//!
//! The rooms of this workspace keep their shape only if the arrows between them do: the log knows nothing of Raft and
//! networks, the partition nothing of TLS and gRPC, the client library nothing of the inside. This check reads the real
//! dependency graph from `cargo metadata` and compares it with the tables below. Whoever needs a new arrow changes the
//! table, in sight of everybody. What may be linked at all stands in `deny.toml`.
//!
//! Every rule is also tried on a made-up graph that breaks it.

mod metadata;

use std::collections::{BTreeMap, BTreeSet};

use metadata::{Graph, Kind, deny_file};

/// Each crate of the workspace and the crates of the workspace that it may link. `*`: all that it needs.
const ARROWS: &[(&str, &[&str])] = &[
    ("highwater-proto", &[]),
    ("highwater", &["highwater-proto"]),
    ("highwater-log", &[]),
    ("highwater-partition", &["highwater-log"]),
    ("highwater-catalog", &["highwater-log"]),
    (
        "highwater-node",
        &["highwater-catalog", "highwater-partition", "highwater-proto"],
    ),
    ("highwater-verify", &["highwater"]),
    (
        "highwater-cli",
        &["highwater-node", "highwater", "highwater-verify", "highwater-log"],
    ),
    (
        "highwater-simulation",
        &["highwater-log", "highwater-partition", "highwater-verify"],
    ),
    ("highwater-model", &[]),
    (
        "highwater-fuzz",
        &[
            "highwater",
            "highwater-log",
            "highwater-node",
            "highwater-partition",
            "highwater-proto",
        ],
    ),
    ("highwater-tests", &["*"]),
    // Example applications stand on what everybody gets, and on nothing else.
    ("highwater-service", &["highwater"]),
    ("highwater-activity", EXAMPLE),
    ("highwater-calc", EXAMPLE),
    ("highwater-school", EXAMPLE),
    ("highwater-users", EXAMPLE),
];

/// What an example application may link.
const EXAMPLE: &[&str] = &["highwater", "highwater-service"];

/// Crates whose tests may start real clusters, as those of `tests` do.
const MAY_USE_CLUSTERS: &[&str] = &[
    "highwater-service",
    "highwater-activity",
    "highwater-calc",
    "highwater-school",
    "highwater-users",
];

/// Crates that nothing may need, not even for its tests.
const LEAVES: &[&str] = &[
    "highwater-tests",
    "highwater-simulation",
    "highwater-model",
    "highwater-fuzz",
    "highwater-activity",
    "highwater-calc",
    "highwater-school",
    "highwater-users",
];

/// What a crate must not reach, however indirectly.
const NEVER: &[(&str, &[&str])] = &[
    ("highwater-log", &["tokio", "openraft", "prost", "tonic"]),
    ("highwater-partition", &["tonic", "rustls", "chitchat"]),
    (
        "highwater-catalog",
        &[
            "tokio", "mio", "socket2", "openraft", "prost", "tonic", "rustls", "rand",
        ],
    ),
    (
        "highwater",
        &[
            "highwater-log",
            "highwater-partition",
            "highwater-catalog",
            "highwater-node",
            "openraft",
        ],
    ),
    ("highwater-proto", &["rustls", "openraft"]),
];

/// Libraries whose types cross crates, or that are costly: exactly one version of each.
const ONE_VERSION: &[&str] = &[
    "bytes",
    "http",
    "hyper",
    "openraft",
    "prost",
    "ring",
    "rustls",
    "tokio",
    "tokio-rustls",
    "tonic",
    "tracing",
];

/// Words that are no name for a crate: they say where code was put, not what it is for.
const NO_NAMES: &[&str] = &["common", "util", "utils", "helper", "helpers", "misc", "shared", "core"];

fn linked(graph: &Graph) -> impl Iterator<Item = (&String, &String)> {
    graph
        .edges
        .iter()
        .filter(|(_, _, kind)| *kind != Kind::Dev)
        .map(|(from, to, _)| (from, to))
}

/// The arrows between crates of the workspace against the table.
fn wrong_arrows(graph: &Graph) -> Vec<String> {
    let table: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (from, to) in linked(graph).filter(|(from, to)| graph.is_ours(from) && graph.is_ours(to)) {
        let (from, to) = (graph.name(from), graph.name(to));
        let allowed = table.get(from).copied().unwrap_or_default();
        if !allowed.contains(&"*") && !allowed.contains(&to) {
            wrong.push(format!("{from} must not import {to}; it may import {allowed:?}"));
        }
    }
    let of_tests = |(from, to, kind): &&(String, String, Kind)| {
        *kind == Kind::Dev && graph.name(to) == "highwater-tests" && MAY_USE_CLUSTERS.contains(&graph.name(from))
    };
    let into_leaves = graph.edges.iter().filter(|(_, to, _)| LEAVES.contains(&graph.name(to)));
    for (from, to, _) in into_leaves.filter(|edge| !of_tests(edge)) {
        wrong.push(format!(
            "{} needs {}, which nothing may need",
            graph.name(from),
            graph.name(to)
        ));
    }
    wrong
}

/// Crates of the workspace that the tables do not know, or whose name says nothing.
fn wrong_crates(graph: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in graph.packages.values().filter(|package| package.source.is_none()) {
        let name = &package.name;
        if !ARROWS.iter().any(|(known, _)| known == name) {
            wrong.push(format!("{name} is not in ARROWS: say what it may import"));
        }
        if let Some(word) = name.split(['-', '_']).find(|word| NO_NAMES.contains(word)) {
            wrong.push(format!("{name}: {word:?} does not say what the crate is for"));
        }
    }
    wrong
}

/// A way from one crate to something that it must not reach.
fn forbidden_ways(graph: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, never) in NEVER {
        let Some(start) = graph
            .packages
            .keys()
            .find(|id| graph.is_ours(id) && graph.name(id) == *name)
        else {
            continue;
        };
        for (end, way) in ways_from(graph, start) {
            if never.contains(&graph.name(&end)) {
                wrong.push(format!(
                    "{name} must never reach {}: {}",
                    graph.name(&end),
                    way.join(" → ")
                ));
            }
        }
    }
    wrong
}

/// Everything that `start` links, each with one shortest way to it, as names.
fn ways_from(graph: &Graph, start: &str) -> BTreeMap<String, Vec<String>> {
    let mut direct: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in linked(graph) {
        direct.entry(from).or_default().push(to);
    }
    let mut ways = BTreeMap::from([(start.to_string(), vec![graph.name(start).to_string()])]);
    let mut next = std::collections::VecDeque::from([start]);
    while let Some(from) = next.pop_front() {
        for to in direct.get(from).into_iter().flatten() {
            if !ways.contains_key(*to) {
                let mut way = ways[from].clone();
                way.push(graph.name(to).to_string());
                ways.insert(to.to_string(), way);
                next.push_back(to);
            }
        }
    }
    ways.remove(start);
    ways
}

/// `bans.deny` of `deny.toml`: crate to the only crates that may need it directly.
fn bans(deny: &toml::Table) -> BTreeMap<String, Vec<String>> {
    let text = |value: &toml::Value| {
        value
            .as_str()
            .unwrap_or_else(|| panic!("{value} is no text"))
            .to_string()
    };
    let entries = deny["bans"]["deny"]
        .as_array()
        .unwrap_or_else(|| panic!("bans.deny is no list"));
    let wrappers = |entry: &toml::Value| {
        let wrappers = entry.get("wrappers").and_then(|wrappers| wrappers.as_array());
        wrappers.into_iter().flatten().map(text).collect()
    };
    entries
        .iter()
        .map(|entry| (text(&entry["crate"]), wrappers(entry)))
        .collect()
}

fn banned(graph: &Graph, bans: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, to, _) in &graph.edges {
        let (from, to) = (graph.name(from), graph.name(to));
        match bans.get(to) {
            Some(wrappers) if !wrappers.iter().any(|wrapper| wrapper == from) => {
                wrong.push(format!(
                    "{from} needs {to}, which deny.toml allows only to {wrappers:?}"
                ));
            }
            _ => {}
        }
    }
    wrong
}

fn several_versions(graph: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in ONE_VERSION {
        let found = graph.packages.values().filter(|package| package.name == *name);
        let versions: BTreeSet<&str> = found.map(|package| package.version.as_str()).collect();
        if versions.len() > 1 {
            wrong.push(format!("there must be one version of {name}, there are {versions:?}"));
        }
    }
    wrong
}

/// A binary that is named like a library would overwrite its documentation.
fn clashing_docs(graph: &Graph) -> Vec<String> {
    let ours = || graph.packages.values().filter(|package| package.source.is_none());
    let name_of = |name: &str| name.replace('-', "_");
    let targets = |kind: &'static str| {
        ours()
            .flat_map(|package| &package.targets)
            .filter(move |(found, _, doc)| found == kind && *doc)
    };
    let libraries: BTreeSet<String> = targets("lib").map(|(_, name, _)| name_of(name)).collect();
    let clashing = targets("bin").filter(|(_, name, _)| libraries.contains(&name_of(name)));
    clashing
        .map(|(_, name, _)| format!("the binary {name} is named like a library: set doc = false"))
        .collect()
}

fn assert_clean(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

mod of_this_workspace {
    use super::*;

    #[test]
    fn crates_import_only_what_they_may() {
        let graph = Graph::of_workspace();
        assert_clean(wrong_arrows(&graph));
    }

    #[test]
    fn crates_are_known_and_have_a_purpose() {
        assert_clean(wrong_crates(&Graph::of_workspace()));
    }

    #[test]
    fn nothing_is_reached_that_must_not_be() {
        assert_clean(forbidden_ways(&Graph::of_workspace()));
    }

    #[test]
    fn banned_crates_are_absent_or_where_they_belong() {
        let graph = Graph::of_workspace();
        assert_clean(banned(&graph, &bans(&deny_file())));
        assert!(
            graph.packages.values().any(|package| package.name == "ring"),
            "ring is the TLS provider"
        );
    }

    #[test]
    fn shared_libraries_have_one_version() {
        assert_clean(several_versions(&Graph::of_workspace()));
    }

    #[test]
    fn binaries_do_not_overwrite_documentation() {
        assert_clean(clashing_docs(&Graph::of_workspace()));
    }
}

mod of_made_up_graphs {
    use super::metadata::Package;
    use super::*;

    /// A graph of edges `from → to`. What starts with `highwater` is ours.
    fn graph(edges: &[(&str, &str, Kind)]) -> Graph {
        let mut graph = Graph::default();
        for (from, to, kind) in edges {
            for name in [from, to] {
                let source = (!name.starts_with("highwater")).then(|| "registry".to_string());
                let package = Package {
                    name: name.to_string(),
                    source,
                    ..Package::default()
                };
                graph.packages.insert(name.to_string(), package);
            }
            graph.edges.insert((from.to_string(), to.to_string(), *kind));
        }
        graph
    }

    #[track_caller]
    fn assert_found(wrong: Vec<String>, expected: &[&str]) {
        assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
        for (wrong, expected) in wrong.iter().zip(expected) {
            assert!(wrong.contains(expected), "{wrong:?} does not say {expected:?}");
        }
    }

    #[test]
    fn an_arrow_backwards_is_found() {
        let wrong = wrong_arrows(&graph(&[("highwater-log", "highwater-partition", Kind::Normal)]));
        assert_found(wrong, &["highwater-log must not import highwater-partition"]);
        let wrong = wrong_arrows(&graph(&[("highwater", "highwater-log", Kind::Build)]));
        assert_found(wrong, &["highwater must not import highwater-log"]);
        assert_found(
            wrong_arrows(&graph(&[("highwater", "highwater-proto", Kind::Normal)])),
            &[],
        );
    }

    #[test]
    fn tests_may_need_more_but_nothing_needs_the_tests() {
        assert_found(wrong_arrows(&graph(&[("highwater-node", "highwater", Kind::Dev)])), &[]);
        assert_found(
            wrong_arrows(&graph(&[("highwater-tests", "highwater-log", Kind::Normal)])),
            &[],
        );
        let wrong = wrong_arrows(&graph(&[("highwater-node", "highwater-tests", Kind::Dev)]));
        assert_found(wrong, &["which nothing may need"]);
    }

    #[test]
    fn examples_stand_on_the_client_library_alone_and_only_their_tests_use_clusters() {
        let edge = |to, kind| wrong_arrows(&graph(&[("highwater-users", to, kind)]));
        assert_found(edge("highwater-service", Kind::Normal), &[]);
        assert_found(
            edge("highwater-proto", Kind::Normal),
            &["highwater-users must not import"],
        );
        assert_found(edge("highwater-tests", Kind::Dev), &[]);
        let linked = edge("highwater-tests", Kind::Normal);
        assert_found(linked, &["must not import highwater-tests", "which nothing may need"]);
        assert_found(edge("highwater-calc", Kind::Dev), &["which nothing may need"]);
    }

    #[test]
    fn a_new_crate_and_an_empty_name_are_found() {
        let wrong = wrong_crates(&graph(&[("highwater-common", "bytes", Kind::Normal)]));
        assert_found(wrong, &["is not in ARROWS", "does not say what the crate is for"]);
    }

    #[test]
    fn an_indirect_way_is_found_and_shown() {
        let edges = [
            ("highwater-log", "innocent", Kind::Normal),
            ("innocent", "tokio", Kind::Build),
        ];
        assert_found(forbidden_ways(&graph(&edges)), &["highwater-log → innocent → tokio"]);
        let edges = [
            ("highwater-log", "innocent", Kind::Normal),
            ("innocent", "tokio", Kind::Dev),
        ];
        assert_found(forbidden_ways(&graph(&edges)), &[]);
    }

    #[test]
    fn a_banned_crate_and_a_wrong_wrapper_are_found() {
        let bans = bans(&deny_file());
        let wrong = banned(&graph(&[("rustls", "aws-lc-rs", Kind::Normal)]), &bans);
        assert_found(wrong, &["rustls needs aws-lc-rs"]);
        let wrong = banned(&graph(&[("highwater-node", "openraft", Kind::Dev)]), &bans);
        assert_found(wrong, &["only to [\"highwater-partition\"]"]);
        assert_found(
            banned(&graph(&[("highwater-partition", "openraft", Kind::Normal)]), &bans),
            &[],
        );
    }

    #[test]
    fn a_second_version_is_found() {
        let mut graph = graph(&[("a", "tonic", Kind::Normal)]);
        assert_found(several_versions(&graph), &[]);
        let second = Package {
            name: "tonic".to_string(),
            version: "2".to_string(),
            ..Package::default()
        };
        graph.packages.insert("tonic 2".to_string(), second);
        assert_found(several_versions(&graph), &["one version of tonic"]);
    }

    #[test]
    fn a_documented_binary_named_like_a_library_is_found() {
        let target = |kind: &str, name: &str, doc| vec![(kind.to_string(), name.to_string(), doc)];
        let mut graph = graph(&[("highwater-cli", "highwater", Kind::Normal)]);
        let set = |graph: &mut Graph, package: &str, targets| {
            graph
                .packages
                .entry(package.to_string())
                .and_modify(|package| package.targets = targets);
        };
        set(&mut graph, "highwater", target("lib", "highwater", true));
        set(&mut graph, "highwater-cli", target("bin", "highwater", true));
        assert_found(clashing_docs(&graph), &["set doc = false"]);
        set(&mut graph, "highwater-cli", target("bin", "highwater", false));
        assert_found(clashing_docs(&graph), &[]);
    }
}
