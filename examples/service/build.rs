//! Tells the applications which commit they are built from, and of which day that is.
//!
//! As `cmd/highwater` does it: from `HIGHWATER_COMMIT` and `SOURCE_DATE_EPOCH` if they are set, else from git, else `unknown`: never from the
//! clock, so that the same source gives the same binary.

use std::path::Path;
use std::process::Command;

/// What is told where nobody knows.
const UNKNOWN: &str = "unknown";
/// How much of a commit's name is told.
const COMMIT_LETTERS: usize = 12;

fn main() {
    for variable in ["HIGHWATER_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let is_checkout = is_checkout();
    if is_checkout {
        watch_checkout();
    }
    let ask = |arguments: &[&str]| is_checkout.then(|| git(arguments)).flatten();
    let commit = set("HIGHWATER_COMMIT").or_else(|| ask(&["rev-parse", "HEAD"]));
    let seconds = set("SOURCE_DATE_EPOCH").or_else(|| ask(&["log", "-1", "--format=%ct"]));
    let short = commit.map(|commit| commit.chars().take(COMMIT_LETTERS).collect());
    let day = seconds.and_then(|seconds| day(&seconds));
    let known = |part: Option<String>| part.unwrap_or_else(|| UNKNOWN.to_owned());
    let version = known(set("CARGO_PKG_VERSION"));
    let (commit, date) = (known(short), known(day));
    println!("cargo::rustc-env=HIGHWATER_BUILD_SUMMARY={version} ({commit}, {date})");
    println!("cargo::rustc-env=HIGHWATER_BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=HIGHWATER_BUILD_DATE={date}");
}

/// A variable that is set to one line that is not empty; more would be read by cargo as something else.
fn set(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok()?;
    let value = value.trim();
    (!value.is_empty() && !value.contains(['\n', '\r'])).then(|| value.to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*"])
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

/// Whether git speaks of this source, and not of a checkout that it was unpacked in.
fn is_checkout() -> bool {
    let own = set("CARGO_MANIFEST_DIR").and_then(|directory| Path::new(&directory).join("../..").canonicalize().ok());
    let top = git(&["rev-parse", "--show-toplevel"]).and_then(|top| Path::new(&top).canonicalize().ok());
    own.is_some() && own == top
}

/// These change when the checkout moves; what is not there must not be watched, as it would be built anew each time.
fn watch_checkout() {
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--path-format=absolute", "--git-path", name]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// The day of a moment, in UTC.
fn day(seconds: &str) -> Option<String> {
    let seconds = seconds.parse().ok()?;
    let moment = time::OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    Some(moment.date().to_string())
}
