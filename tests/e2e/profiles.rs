//! Profiles by name, and completions: commands that need no cluster.

use std::path::Path;
use std::process::{Command, Stdio};

use highwater_tests::binary;
use serde_json::Value;

/// Runs a command with its configuration below `home`; its exit code, output and complaints.
fn run(home: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary())
        .args(args)
        .env("XDG_CONFIG_HOME", home)
        .env_remove("HIGHWATER_CONFIG")
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{args:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn succeed(home: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = run(home, args);
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    stdout
}

fn shown(home: &Path, args: &[&str]) -> Value {
    let text = succeed(home, &[&["config", "show", "--output", "json"], args].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn profiles_are_kept_by_name_and_one_of_them_is_used() {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let home = directory.path();
    for (name, port) in [("one", 7_001), ("two", 7_002)] {
        let file = home.join(format!("{name}.profile"));
        let text = format!("addresses = [\"localhost:{port}\"]\nca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"c.key\"\n");
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("{error}"));
        succeed(home, &["config", "add", name, "--from", &file.to_string_lossy()]);
    }
    let (code, _, stderr) = run(home, &["config", "show"]);
    assert_ne!(code, Some(0), "none is in use yet");
    assert!(stderr.contains("config.toml"), "{stderr}");
    succeed(home, &["config", "use", "one"]);
    let used = shown(home, &[]);
    assert_eq!(used["addresses"][0], "localhost:7001");
    assert_eq!(
        used["files"]["ca"]["path"],
        home.join("ca.pem").to_string_lossy().into_owned()
    );
    assert_eq!(used["files"]["ca"]["exists"], false);
    assert_eq!(shown(home, &["--profile", "two"])["addresses"][0], "localhost:7002");
    let listed = succeed(home, &["config", "list"]);
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[1..],
        [["one", "yes", "localhost:7001"], ["two", "-", "localhost:7002"]]
    );
    succeed(home, &["config", "remove", "one"]);
    assert_eq!(
        shown(home, &[])["addresses"][0],
        "localhost:7001",
        "what is in use stays"
    );
    for (args, word) in [
        (["config", "use", "one"], "no profile one"),
        (["config", "remove", "one"], "no profile one"),
        (["config", "use", "../two"], "not a valid name"),
        (["config", "use", "config"], "itself"),
    ] {
        let (code, _, stderr) = run(home, &args);
        assert_ne!(code, Some(0), "{args:?}");
        assert!(stderr.contains(word), "{args:?}: {stderr}");
    }
}

#[test]
fn completions_know_the_commands() {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    for shell in ["bash", "zsh", "fish"] {
        let script = succeed(directory.path(), &["completions", shell]);
        for word in ["produce", "decommission", "--replication"] {
            let word = word.trim_start_matches("--");
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
}
