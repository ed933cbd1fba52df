//! Settings of a node from all their sources, changed while it runs, and what its log tells and never tells.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use highwater_tests::{Finished, TestCluster, binary, eventually, run};

use crate::{PATIENCE, consume, produce};

/// Runs `highwater serve` with nothing in its environment but these.
fn serve(arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(binary());
    command
        .arg("serve")
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied());
    run(&mut command, PATIENCE)
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap_or_else(|error| panic!("cannot make a directory: {error}"))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn settings_are_printed_with_where_they_come_from_as_a_file_that_says_the_same() {
    let directory = directory();
    let path = directory.path().join("node.toml");
    write(
        &path,
        "node = 'of-file'\nlisten = 'file:1'\nrack = 'file'\n[tls]\nkey = '/keys/n1.key'\n",
    );
    let variables = [
        ("HIGHWATER_NODE_CONFIG", &*text(&path)),
        ("HIGHWATER_NODE", "of-variable"),
        ("HIGHWATER_LISTEN", "variable:1"),
    ];
    let printed = serve(&["--print-config", "--node", "of-flag"], &variables)
        .success()
        .stdout();
    let file = format!("file {}, key", path.display());
    for line in [
        "node = \"of-flag\" # flag --node",
        "listen = \"variable:1\" # environment variable HIGHWATER_LISTEN",
        &format!("rack = \"file\" # {file} rack"),
        "cluster = \"highwater\" # default",
        &format!("key = \"/keys/n1.key\" # {file} tls.key"),
    ] {
        assert!(
            printed.lines().any(|found| found == line),
            "{line} is not in\n{printed}"
        );
    }
    let again = directory.path().join("printed.toml");
    write(&again, &printed);
    let twice = serve(&["--print-config", "--config", &text(&again)], &[])
        .success()
        .stdout();
    let values = |text: &str| -> Vec<String> {
        let settings = text.lines().filter(|line| !line.starts_with('#'));
        settings
            .filter_map(|line| Some(line.split_once(" # ")?.0.to_owned()))
            .collect()
    };
    assert_eq!(values(&printed), values(&twice));
    assert!(values(&printed).len() > 20, "{printed}");
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_would_be_right() {
    let directory = directory();
    let path = directory.path().join("node.toml");
    write(&path, "retention_intervall_ms = 5\n");
    let file = text(&path);
    serve(&["--config", &file], &[]).fails_with(6, &[&file, "`retention_intervall_ms`", "`retention_interval_ms`?"]);
    write(&path, "retention_interval_ms = 5\n");
    serve(&["--config", &file], &[]).fails_with(6, &["`retention_interval_ms` is 5", &file, "from 100 to 86400000"]);
    let unknown = [("HIGHWATER_DATADIR", "/data")];
    serve(&[], &unknown).fails_with(6, &["HIGHWATER_DATADIR", "HIGHWATER_DATA_DIR?"]);
    let wrong = [("HIGHWATER_WORKERS", "all")];
    serve(&[], &wrong).fails_with(6, &["`workers`", "\"all\"", "HIGHWATER_WORKERS", "from 0 to 256"]);
    let unusable = [("HIGHWATER_NODE", "Node One")];
    serve(&[], &unusable).fails_with(6, &["`node`", "\"Node One\"", "HIGHWATER_NODE"]);
    serve(&["--seeds", "a"], &[("HIGHWATER_NODE", "n1")]).fails_with(6, &["`data_dir`"]);
    // A variable that is set to nothing names no file.
    serve(
        &["--seeds", "a"],
        &[("HIGHWATER_NODE", "n1"), ("HIGHWATER_NODE_CONFIG", "")],
    )
    .fails_with(6, &["`data_dir`"]);
}

#[test]
fn sighup_takes_what_can_be_taken_and_says_what_cannot() {
    let mut cluster = TestCluster::prepare(1);
    let path = cluster.directory().join("node.toml");
    write(&path, "log = 'info'\nretention_interval_ms = 30000\n");
    cluster.node(0).set("--config", &text(&path));
    cluster.node(0).start();
    cluster.wait_ready();
    cluster.create_topic("numbers", 1);
    let log = |cluster: &TestCluster| cluster.nodes()[0].log();
    assert!(!log(&cluster).contains("DEBUG"), "{}", log(&cluster));

    write(
        &path,
        "log = 'info,call=debug'\nretention_interval_ms = 500\nrack = 'r2'\n",
    );
    cluster.nodes()[0].hang_up();
    let said = |words: &'static [&'static str]| {
        move |cluster: &TestCluster| {
            let log = log(cluster);
            words.iter().all(|word| log.contains(word)).then_some(())
        }
    };
    let taken = said(&[
        "settings are in force",
        "call=debug",
        "retention_interval_ms = 500 (was 30000)",
        "need a restart",
        "rack = \\\"r2\\\"",
    ]);
    eventually("the settings are in force", PATIENCE, || taken(&cluster));
    produce(&cluster, "numbers", "one\n");
    let told = said(&[
        "DEBUG",
        "begins",
        "method=\"LogService/",
        "tenant=\"acme\"",
        "client=\"app\"",
    ]);
    eventually("calls are told of", PATIENCE, || told(&cluster));

    write(&path, "log = 'loud=louder=loudest'\n");
    let reload = |pid: u32| cluster.run(&["reload", "--pid", &pid.to_string()]);
    reload(std::process::id()).fails_with(3, &["is no `highwater serve`"]);
    reload(cluster.nodes()[0].pid().unwrap_or(0)).success();
    let refused = said(&["the settings stay as they are", "loudest"]);
    eventually("the wrong file is refused", PATIENCE, || refused(&cluster));
    assert!(cluster.node(0).stop().success());
}

/// What must not stand in a log: lines of the private keys, and their bytes as hexadecimal digits.
fn key_material(certificates: &Path) -> Vec<String> {
    let entries = fs::read_dir(certificates).unwrap_or_else(|error| panic!("{}: {error}", certificates.display()));
    let paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let keys = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "key"));
    let mut material = Vec::new();
    for key in keys {
        let pem = fs::read(key).unwrap_or_else(|error| panic!("{}: {error}", key.display()));
        let (_, parsed) = x509_parser::pem::parse_x509_pem(&pem).unwrap_or_else(|error| panic!("{error}"));
        // The private number itself: 32 bytes behind their tag. What follows is public, and stands in the certificate as well.
        let tag = parsed.contents.windows(2).position(|two| two == [0x04, 32]);
        let begin = tag.unwrap_or_else(|| panic!("{} holds no private number", key.display())) + 2;
        let private = &parsed.contents[begin..begin + 32];
        material.push(private.iter().map(|byte| format!("{byte:02x}")).collect());
        material.push(format!("{private:?}").trim_matches(['[', ']']).to_owned());
        let pem = String::from_utf8_lossy(&pem).into_owned();
        material.extend(
            pem.lines()
                .filter(|line| !line.starts_with("---"))
                .take(2)
                .map(str::to_owned),
        );
    }
    assert!(material.len() >= 12, "{material:?}");
    material
}

#[test]
fn a_log_that_tells_everything_tells_no_secrets_and_no_records() {
    const RECORD: &str = "the-record-of-this-test";
    let mut cluster = TestCluster::prepare(1);
    cluster.node(0).set("--log", "trace");
    cluster.node(0).set("--log-format", "json");
    cluster.node(0).start();
    cluster.wait_ready();
    cluster.create_topic("secrets", 1);
    produce(&cluster, "secrets", format!("{RECORD}\n"));
    assert_eq!(consume(&cluster, "secrets"), format!("{RECORD}\n").into_bytes());
    assert!(cluster.node(0).stop().success());
    let log = cluster.nodes()[0].log();
    let mut lines = 0;
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event["level"].is_string() && event["timestamp"].is_string(), "{line}");
        lines += 1;
    }
    assert!(lines > 1000, "only {lines} lines");
    assert!(
        log.contains("\"name\":\"call\"") && log.contains("\"client\":\"app\""),
        "no call is told of"
    );
    let mut forbidden = key_material(&PathBuf::from(cluster.certificates()));
    forbidden.push(RECORD.to_owned());
    forbidden.push(format!("{:?}", RECORD.as_bytes()).trim_matches(['[', ']']).to_owned());
    for secret in forbidden {
        let told = log.lines().find(|line| line.contains(&secret));
        assert_eq!(told, None, "the log tells {secret}");
    }
}

#[test]
fn the_version_tells_commit_and_day() {
    let of = |arguments: &[&str]| run(Command::new(binary()).args(arguments), PATIENCE).success().stdout();
    let (text, flag) = (of(&["version"]), of(&["--version"]));
    assert_eq!(text, flag);
    let told: serde_json::Value =
        serde_json::from_str(&of(&["version", "--output", "json"])).unwrap_or_else(|error| panic!("{error}"));
    let field = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    let (version, commit, date) = (field("version"), field("commit"), field("date"));
    assert_eq!(
        text.trim(),
        format!("highwater {version} ({}, {date})", &commit[..commit.len().min(12)])
    );
    assert!(commit == "unknown" || commit.len() == 40, "{commit}");
    assert!(date == "unknown" || date.len() == 10, "{date}");
}
