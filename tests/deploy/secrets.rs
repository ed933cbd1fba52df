//! Secrets, and the Job that makes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use std::process::Command;

use highwater_tests::{binary, run};
use serde_json::Value;

use crate::PATIENCE;
use crate::manifest::{items, parse, text};

/// By name, the files of a secret or a ConfigMap.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// What `kubectl apply -k` makes of a kustomization and the files beside it.
pub(crate) fn generate(kustomization: &str, directory: &Path) -> BTreeMap<String, Files> {
    let kustomization = parse(kustomization);
    assert_eq!(kustomization["generatorOptions"]["disableNameSuffixHash"], true);
    let secrets = items(&kustomization["secretGenerator"]);
    secrets
        .map(|secret| (text(&secret["name"]).to_owned(), files(secret, directory)))
        .collect()
}

fn files(secret: &Value, directory: &Path) -> Files {
    let file = |given: &Value| {
        let Some((key, name)) = text(given).split_once('=') else {
            panic!("not of the form key=file: {given}");
        };
        (key.to_owned(), read(&directory.join(name)))
    };
    items(&secret["files"]).map(file).collect()
}

/// The secret of one more node, made by hand as docs/kubernetes.md has it.
pub(crate) fn of_node(node: &str, cluster: &str, authority: &Files, directory: &Path) -> Files {
    let (ca_dir, out) = (directory.join("authority"), directory.join("out"));
    for (key, name) in [("tls.crt", "ca.pem"), ("tls.key", "ca.key")] {
        let written = fs::create_dir_all(&ca_dir).and_then(|()| fs::write(ca_dir.join(name), &authority[key]));
        written.unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
    }
    let mut command = Command::new(binary());
    command.args(["certs", "cluster", node, "--cluster", cluster, "--ca-dir"]);
    run(command.arg(&ca_dir).arg("--out").arg(&out), PATIENCE).success();
    let from = [
        ("tls.crt", format!("node-{node}.pem")),
        ("tls.key", format!("node-{node}.key")),
        ("ca.crt", "ca.pem".to_owned()),
    ];
    let file = |(key, name): (&str, String)| (key.to_owned(), read(&out.join(name)));
    from.into_iter().map(file).collect()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}
