//! The programs under test, and what can be seen of them from outside.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use highwater_tests::{Finished, Program, TestCluster, run, without_settings};
use highwater_users::proto::users_client::UsersClient;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// How long anything may take on a small machine that does other things too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

pub(crate) type Client = UsersClient<Channel>;

/// `users` with these arguments, on that cluster.
pub(crate) fn users(cluster: &TestCluster, arguments: &[&str]) -> Command {
    let mut command = without_settings(Path::new(env!("CARGO_BIN_EXE_users")));
    command.args(arguments).env("HIGHWATER_CONFIG", cluster.profile());
    command.current_dir(cluster.directory());
    command
}

/// Starts it.
#[track_caller]
pub(crate) fn start(cluster: &TestCluster, name: &str, arguments: &[&str]) -> Program {
    Program::start(name, &mut users(cluster, arguments), cluster.directory())
}

pub(crate) async fn channel(address: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
}

pub(crate) async fn connect(address: &str) -> Client {
    Client::new(channel(address).await.unwrap())
}

/// What gRPC's health service says.
pub(crate) async fn health(address: &str) -> ServingStatus {
    let mut client = HealthClient::new(channel(address).await.unwrap());
    let answer = client.check(HealthCheckRequest::default()).await.unwrap();
    answer.into_inner().status()
}

/// Runs `users-cli` against that server.
pub(crate) fn cli(address: &str, arguments: &[&str]) -> Finished {
    let mut command = without_settings(Path::new(env!("CARGO_BIN_EXE_users-cli")));
    run(command.args(arguments).env("ADDRESS", address), DEADLINE)
}

/// The lines of JSON that `users-cli` prints.
pub(crate) fn cli_json(address: &str, arguments: &[&str]) -> Vec<Value> {
    let text = cli(address, &[arguments, &["--output", "json"]].concat())
        .success()
        .stdout();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The e-mail addresses of all users that a server lists.
pub(crate) fn listed(address: &str) -> Vec<String> {
    let users = cli_json(address, &["list"]);
    users
        .iter()
        .map(|user| user["email"].as_str().unwrap().to_owned())
        .collect()
}

/// Every header of each message of an outbox, in order.
pub(crate) fn messages(outbox: &Path) -> Vec<HashMap<String, String>> {
    let text = fs::read_to_string(outbox).unwrap_or_default();
    let mut messages: Vec<HashMap<String, String>> = Vec::new();
    for line in text.lines() {
        if line.starts_with("From ") {
            messages.push(HashMap::new());
        } else if let (Some((name, value)), Some(message)) = (line.split_once(": "), messages.last_mut()) {
            message.insert(name.to_owned(), value.to_owned());
        }
    }
    messages
}

/// The receivers of all messages of an outbox, in order of their names.
pub(crate) fn welcomed(outbox: &Path) -> Vec<String> {
    let messages = messages(outbox);
    let receivers = messages.iter().filter_map(|message| message.get("To"));
    let mut receivers: Vec<String> = receivers.map(|to| to.trim_matches(['<', '>']).to_owned()).collect();
    receivers.sort();
    receivers
}
