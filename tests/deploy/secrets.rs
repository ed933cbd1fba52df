//! Secrets, and the Job that makes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

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
        let path = directory.join(name);
        let content = fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        (key.to_owned(), content)
    };
    items(&secret["files"]).map(file).collect()
}
