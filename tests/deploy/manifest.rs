//! The objects of `deploy/kubernetes/highwater.yaml`.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Everything that is given to Kubernetes.
#[derive(Debug)]
pub(crate) struct Manifest(Vec<Value>);

impl Manifest {
    /// Reads the manifest that is checked in.
    pub(crate) fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/highwater.yaml");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        Self(parse_all(&text))
    }

    /// The only object of its kind.
    pub(crate) fn only(&self, kind: &str) -> &Value {
        let mut found = self.0.iter().filter(|object| object["kind"] == kind);
        match (found.next(), found.next()) {
            (Some(object), None) => object,
            _ => panic!("the manifest does not have exactly one {kind}"),
        }
    }

    /// The object of that kind and name.
    pub(crate) fn object(&self, kind: &str, name: &str) -> &Value {
        let mut objects = self.0.iter();
        let found = objects.find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("the manifest has no {kind} {name}"))
    }

    /// All objects of a kind.
    pub(crate) fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }
}

/// Kubernetes reads YAML 1.1, where 0400 is octal.
fn parse_all(text: &str) -> Vec<Value> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(text, options).unwrap_or_else(|error| panic!("no YAML: {error}"))
}

/// One YAML document.
pub(crate) fn parse(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("no YAML ({error}): {text}"))
}

/// The text at a place that must have one.
#[track_caller]
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text wanted: {value}"))
}

/// The number at a place that must have one.
#[track_caller]
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number wanted: {value}"))
}

/// The items of a list; none if there is no list.
pub(crate) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
