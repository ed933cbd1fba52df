//! What the `highwater` binary is made of, as a bill of materials (CycloneDX 1.5, JSON) on standard output.
//!
//! From `cargo metadata` and Cargo.lock: every package that is linked into the binary on the platform given, or that runs while it is built (scope
//! `excluded`), with version, licence, checksum and what it needs itself. Neither the clock nor the machine is in it, so the same source
//! gives the same bytes.
//!
//! usage: sbom [PLATFORM]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

/// The package of the binary.
const MAIN: &str = "highwater-cli";
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// By id of a package, the ids of those that it needs, and whether it is linked.
type Edges = BTreeMap<String, Vec<(String, bool)>>;

fn main() -> ExitCode {
    let platform = std::env::args().nth(1).unwrap_or_else(|| PLATFORM.to_owned());
    match bill(&platform) {
        Ok(bill) => {
            println!("{bill:#}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn bill(platform: &str) -> Result<Value, String> {
    let metadata = metadata(platform)?;
    let checksums = checksums()?;
    let packages: BTreeMap<&str, &Value> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let edges = edges(&metadata);
    let main = packages.iter().find(|(_, package)| package["name"] == MAIN);
    let (main, main_package) = main.ok_or_else(|| format!("there is no package {MAIN}"))?;
    let linked = reachable(main, &edges, true);
    let all = reachable(main, &edges, false);
    let describe = |id: &&String| {
        let package = packages.get(id.as_str())?;
        Some(component(package, linked.contains(*id), &checksums))
    };
    let others = all.iter().filter(|id| id.as_str() != *main);
    let needs = |id: &String| {
        let needed: BTreeSet<String> = edges
            .get(id)
            .into_iter()
            .flatten()
            .map(|(needed, _)| reference(needed, &packages))
            .collect();
        json!({ "ref": reference(id, &packages), "dependsOn": needed })
    };
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application",
            "bom-ref": reference(main, &packages),
            "name": "highwater",
            "version": main_package["version"],
            "purl": format!("pkg:generic/highwater@{}", text(&main_package["version"])),
            "licenses": [{ "expression": main_package["license"] }],
        }},
        "components": others.collect::<Vec<_>>().iter().filter_map(describe).collect::<Vec<_>>(),
        "dependencies": all.iter().map(needs).collect::<Vec<_>>(),
    }))
}

fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

fn metadata(platform: &str) -> Result<Value, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = [
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        platform,
    ];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output();
    let output = output.map_err(|error| format!("cargo metadata did not start: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

/// By name and version, the SHA-256 of a package's archive.
fn checksums() -> Result<BTreeMap<(String, String), String>, String> {
    let path = root().join("Cargo.lock");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lock: toml::Table = text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
    let packages = lock
        .get("package")
        .and_then(toml::Value::as_array)
        .cloned()
        .unwrap_or_default();
    let of_one = |package: &toml::Value| {
        let field = |name: &str| Some(package.get(name)?.as_str()?.to_owned());
        Some(((field("name")?, field("version")?), field("checksum")?))
    };
    Ok(packages.iter().filter_map(of_one).collect())
}

/// Who needs whom, what only tests need left out.
fn edges(metadata: &Value) -> Edges {
    let of_node = |node: &Value| {
        let needed = list(&node["deps"]).iter().filter_map(|dependency| {
            let kinds: Vec<Option<&str>> = list(&dependency["dep_kinds"])
                .iter()
                .map(|kind| kind["kind"].as_str())
                .collect();
            let is_linked = kinds.contains(&None);
            (is_linked || kinds.contains(&Some("build"))).then(|| (text(&dependency["pkg"]).to_owned(), is_linked))
        });
        (text(&node["id"]).to_owned(), needed.collect())
    };
    list(&metadata["resolve"]["nodes"]).iter().map(of_node).collect()
}

fn reachable(from: &str, edges: &Edges, only_linked: bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(id) = next.pop() {
        let needed = edges.get(&id).into_iter().flatten();
        next.extend(
            needed
                .filter(|(id, is_linked)| (*is_linked || !only_linked) && !found.contains(id))
                .map(|(id, _)| id.clone()),
        );
        found.insert(id);
    }
    found
}

fn component(package: &Value, is_linked: bool, checksums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (text(&package["name"]), text(&package["version"]));
    let mut component = json!({
        "type": "library",
        "bom-ref": url(package),
        "name": name,
        "version": version,
        "scope": if is_linked { "required" } else { "excluded" },
        "purl": url(package),
    });
    if let Some(license) = package["license"].as_str() {
        // The old way to write it.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

fn reference(id: &str, packages: &BTreeMap<&str, &Value>) -> String {
    packages.get(id).map_or_else(|| id.to_owned(), |package| url(package))
}

/// The package URL, which names a package everywhere.
fn url(package: &Value) -> String {
    let (name, version) = (text(&package["name"]), text(&package["version"]));
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
