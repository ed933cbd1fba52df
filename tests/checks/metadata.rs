//! The dependency graph of the workspace, as `cargo metadata` tells it.
#![allow(dead_code, reason = "each check uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// For which purpose one package needs another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Linked.
    Normal,
    /// Run while building.
    Build,
    /// For tests only.
    Dev,
}

/// One package.
#[derive(Debug, Clone, Default)]
pub(crate) struct Package {
    /// As in its manifest.
    pub(crate) name: String,
    /// As in its manifest.
    pub(crate) version: String,
    /// An SPDX expression; None if the package names none.
    pub(crate) license: Option<String>,
    /// Where it came from; None for a package of this workspace.
    pub(crate) source: Option<String>,
    /// Targets: (kind, name, whether rustdoc documents it).
    pub(crate) targets: Vec<(String, String, bool)>,
}

/// Packages and who needs whom. Packages are named by the id that cargo gives them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Graph {
    pub(crate) packages: BTreeMap<String, Package>,
    pub(crate) edges: BTreeSet<(String, String, Kind)>,
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// The file `deny.toml`.
pub(crate) fn deny_file() -> toml::Table {
    let path = root().join("deny.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Graph {
    /// The graph of this workspace with default features, for all platforms.
    pub(crate) fn of_workspace() -> Graph {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(root());
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("cargo metadata did not start: {error}"));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo metadata failed: {complaint}");
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("cargo metadata: {error}"));
        Graph::from_json(&json)
    }

    fn from_json(json: &Value) -> Graph {
        let mut graph = Graph::default();
        for package in list(&json["packages"]) {
            graph.packages.insert(text(&package["id"]), package_of(package));
        }
        for node in list(&json["resolve"]["nodes"]) {
            for dependency in list(&node["deps"]) {
                for kind in list(&dependency["dep_kinds"]) {
                    let kind = kind_of(&kind["kind"]);
                    graph.edges.insert((text(&node["id"]), text(&dependency["pkg"]), kind));
                }
            }
        }
        assert!(
            !graph.packages.is_empty() && !graph.edges.is_empty(),
            "cargo metadata says nothing"
        );
        graph
    }

    /// Whether the package is one of ours.
    pub(crate) fn is_ours(&self, id: &str) -> bool {
        self.packages.get(id).is_some_and(|package| package.source.is_none())
    }

    /// The name of a package.
    pub(crate) fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.packages.get(id).map_or(id, |package| &package.name)
    }
}

fn package_of(package: &Value) -> Package {
    let target = |target: &Value| {
        let kind = list(&target["kind"]).first().map(text).unwrap_or_default();
        (kind, text(&target["name"]), target["doc"].as_bool().unwrap_or(true))
    };
    Package {
        name: text(&package["name"]),
        version: text(&package["version"]),
        license: package["license"].as_str().map(str::to_string),
        source: package["source"].as_str().map(str::to_string),
        targets: list(&package["targets"]).iter().map(target).collect(),
    }
}

fn kind_of(kind: &Value) -> Kind {
    match kind.as_str() {
        None => Kind::Normal,
        Some("build") => Kind::Build,
        Some("dev") => Kind::Dev,
        Some(other) => panic!("cargo metadata names an unknown kind of dependency: {other}"),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}
