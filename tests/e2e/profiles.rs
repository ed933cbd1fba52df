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

/// Writes a profile; its path.
fn written(path: &Path, port: u16) -> String {
    let text = format!("addresses = [\"localhost:{port}\"]\nca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"c.key\"\n");
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{error}"));
    path.to_string_lossy().into_owned()
}

/// Runs a command that is refused; its complaint.
fn refused(home: &Path, args: &[&str]) -> String {
    let (code, _, stderr) = run(home, args);
    assert_eq!(code, Some(4), "{args:?}: {stderr}");
    stderr
}

fn address(home: &Path, args: &[&str]) -> String {
    shown(home, args)["addresses"][0]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn nothing_is_overwritten_that_is_kept_nowhere_else() {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let home = directory.path();
    let add = |name: &'static str, port: u16| {
        let file = written(&home.join(format!("{port}.profile")), port);
        [
            "config".to_owned(),
            "add".to_owned(),
            name.to_owned(),
            "--from".to_owned(),
            file,
        ]
    };
    let (one, other) = (add("one", 7_001), add("one", 7_002));
    succeed(home, &one.each_ref().map(String::as_str));
    let other = other.each_ref().map(String::as_str);
    assert!(refused(home, &other).contains("a profile one already"));
    assert_eq!(address(home, &["--profile", "one"]), "localhost:7001");
    succeed(home, &[&other[..], &["--force"]].concat());
    assert_eq!(address(home, &["--profile", "one"]), "localhost:7002");

    let in_use = home.join("highwater/config.toml");
    let by_hand = written(&in_use, 7_003);
    let complaint = refused(home, &["config", "use", "one"]);
    assert!(complaint.contains("config add NAME --from"), "{complaint}");
    assert_eq!(address(home, &[]), "localhost:7003");
    succeed(home, &["config", "add", "mine", "--from", &by_hand]);
    succeed(home, &["config", "use", "one"]);
    assert_eq!(address(home, &[]), "localhost:7002");
    succeed(home, &["config", "use", "mine"]);
    std::fs::write(&in_use, "# to be done\n").unwrap_or_else(|error| panic!("{error}"));
    refused(home, &["config", "use", "one"]);
    succeed(home, &["config", "use", "one", "--force"]);
    assert_eq!(address(home, &[]), "localhost:7002");
}

#[test]
fn a_directory_does_not_stand_in_for_a_profile_of_its_name() {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let home = directory.path();
    let file = written(&home.join("some.profile"), 7_001);
    succeed(home, &["config", "add", "shop", "--from", &file]);
    std::fs::create_dir(home.join("shop")).unwrap_or_else(|error| panic!("{error}"));
    let mut command = Command::new(binary());
    command.args(["config", "show", "--profile", "shop"]).current_dir(home);
    let output = command
        .env("XDG_CONFIG_HOME", home)
        .env_remove("HIGHWATER_CONFIG")
        .output();
    let output = output.unwrap_or_else(|error| panic!("{error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("localhost:7001"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn profiles_are_kept_by_name_and_one_of_them_is_used() {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let home = directory.path();
    for (name, port) in [("one", 7_001), ("two", 7_002)] {
        let file = written(&home.join(format!("{name}.profile")), port);
        succeed(home, &["config", "add", name, "--from", &file]);
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
