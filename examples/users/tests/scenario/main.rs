//! All services on one real cluster: what was promised to whom is what is there at the end.

#![allow(clippy::unwrap_used)]

mod mail;
mod processes;
mod starts;
mod topics;
mod troubles;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use highwater_tests::{Finished, Program, TestCluster, eventually, http, run, without_settings};
use highwater_users::proto::{CreateUserRequest, CreateUserResponse, GetUserRequest, Position};
use highwater_users::samples;
use mail::Mail;
use processes::{Client, DEADLINE, cli, cli_json, connect, listed, messages, start, welcomed};
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;

/// For how many addresses two servers race at least.
const RACES: usize = 40;
/// Until each of them has won once, for how many at most.
const RACES_MAX: usize = 400;
/// How many users one server creates and the other one must know at once.
const OWN_WRITES: usize = 30;
pub(crate) async fn create(client: &mut Client, email: &str, first_name: &str) -> Result<CreateUserResponse, Status> {
    let request = CreateUserRequest {
        email: email.to_owned(),
        first_name: first_name.to_owned(),
        last_name: "Müller".to_owned(),
        postal_address: "1 Quay".to_owned(),
        birthdate: None,
    };
    client.create_user(request).await.map(tonic::Response::into_inner)
}

/// Creates a user, however often that has to be tried; `may_exist`: somebody may have been faster. What may have been created may be there.
pub(crate) async fn create_surely(client: &mut Client, email: &str, first_name: &str, mut may_exist: bool) {
    let creating = async {
        loop {
            match create(client, email, first_name).await {
                Ok(_) => return,
                Err(status) if status.code() == Code::AlreadyExists && may_exist => return,
                Err(status) if status.code() == Code::Unavailable => {
                    may_exist |= status.message().contains("may have been");
                }
                Err(status) => panic!("{email}: {status}"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, creating).await.unwrap();
}

async fn try_first_name(client: &mut Client, email: &str, min_positions: Vec<Position>) -> Result<String, Status> {
    let email = email.to_owned();
    let answer = client.get_user(GetUserRequest { email, min_positions }).await?;
    Ok(answer.into_inner().user.unwrap().first_name)
}

/// What a server says that has read up to there, sooner or later: each of its answers is that, or that it has not.
async fn first_name(client: &mut Client, email: &str, min_positions: Vec<Position>) -> String {
    let answer = async {
        loop {
            match try_first_name(client, email, min_positions.clone()).await {
                Err(status) if status.code() == Code::Unavailable => {}
                answer => return answer.unwrap(),
            }
        }
    };
    tokio::time::timeout(DEADLINE, answer).await.unwrap()
}

#[test]
fn all_that_was_promised_is_there_and_nothing_twice() {
    let mut cluster = TestCluster::start(3);
    // Both servers begin with an empty log at the same time.
    let mut running = Running::start(&cluster);
    let runtime = Runtime::new().unwrap();
    let mut promised = promise(&running.addresses(), &runtime);
    promised.extend(troubles::users_come_while_things_are_killed(
        &mut cluster,
        &runtime,
        &mut running,
    ));
    promised.insert(one_more(&running.addresses()[0], &runtime));
    let promised: Vec<String> = promised.into_iter().collect();

    all_is_there(&mut running, &cluster.directory().join("outbox.mbox"), &promised);
    all_can_be_looked_at(&mut running, &runtime);
    mail_goes_to_a_server(&cluster, &promised);
    // A server that begins anew makes the same of the log, and no more samples.
    let Running {
        servers,
        metrics,
        email,
    } = running;
    let [first, second] = servers;
    first.stop();
    let mut third = start(&cluster, "three", &["serve"]);
    assert_eq!(listed(&third.address("users")), promised);
    for service in [second, third, metrics, email] {
        service.stop();
    }
}

/// The services.
pub(crate) struct Running {
    pub(crate) servers: [Program; 2],
    metrics: Program,
    pub(crate) email: Program,
}

impl Running {
    fn start(cluster: &TestCluster) -> Self {
        Self {
            servers: ["one", "two"].map(|name| start(cluster, name, &["serve"])),
            metrics: start(cluster, "metrics", &["metrics"]),
            email: start(cluster, "email-0", &["email"]),
        }
    }

    /// Where the servers are.
    pub(crate) fn addresses(&mut self) -> [String; 2] {
        self.servers.each_mut().map(|server| server.address("users"))
    }
}

/// All who have been told that they are users, as long as nothing is killed.
fn promise([one, two]: &[String; 2], runtime: &Runtime) -> BTreeSet<String> {
    samples_are_there_once(one, two);
    let mut promised: BTreeSet<String> = listed(one).into_iter().collect();
    promised.extend(runtime.block_on(one_of_two_wins(one, two)));
    promised.extend(runtime.block_on(own_writes_are_read_at_the_other(one, two)));
    promised.extend(commands_do_what_they_say(one, two));
    promised
}

/// However much the workers that were killed had done already, there is something left for the last one.
fn one_more(address: &str, runtime: &Runtime) -> String {
    let email = "last@users.example";
    runtime.block_on(async { create_surely(&mut connect(address).await, email, "Last", false).await });
    email.to_owned()
}

fn all_is_there(running: &mut Running, outbox: &Path, promised: &[String]) {
    for server in running.addresses() {
        eventually("the server lists all users", DEADLINE, || {
            (listed(&server) == promised).then_some(())
        });
    }
    let page = running.metrics.address("page");
    eventually("metrics count all users", DEADLINE, || {
        (counted(&page) >= promised.len() as u64).then_some(())
    });
    assert_eq!(counted(&page), promised.len() as u64);
    eventually("all users are welcomed", DEADLINE, || {
        (messages(outbox).len() >= promised.len()).then_some(())
    });
    assert_eq!(welcomed(outbox), promised);
    places_are_all_different(outbox);
}

fn samples_are_there_once(one: &str, two: &str) {
    let users = listed(one);
    assert_eq!(users.len(), samples::COUNT);
    let same = eventually("the other server lists them", DEADLINE, || {
        let others = listed(two);
        (others.len() >= users.len()).then_some(others)
    });
    assert_eq!(same, users);
}

/// Two servers are asked at the same moment for the same address: one says yes, the other one that it is there, and both know whose it is.
async fn one_of_two_wins(one: &str, two: &str) -> Vec<String> {
    let (mut first, mut second) = (connect(one).await, connect(two).await);
    let mut won = [0, 0];
    let mut made = Vec::new();
    while won[0] + won[1] < RACES || won.contains(&0) {
        let number = made.len();
        assert!(number < RACES_MAX, "there was no race: {won:?}");
        let email = format!("race{number}@users.example");
        made.push(email.clone());
        let (left, right) = race(&mut first, &mut second, &email, number % 2 == 0).await;
        let (winner, position, loser) = match (left, right) {
            (Ok(yes), Err(no)) => ("First", yes.position, no),
            (Err(no), Ok(yes)) => ("Second", yes.position, no),
            (Err(one), Err(other)) if [&one, &other].iter().any(|no| no.code() == Code::Unavailable) => {
                // Nobody was told who has won; only that the user is there can be asked for.
                create_surely(&mut first, &email, "First", true).await;
                continue;
            }
            other => panic!("{email}: {other:?}"),
        };
        if loser.code() == Code::Unavailable {
            continue; // it was not told that it has lost
        }
        assert_eq!(loser.code(), Code::AlreadyExists, "{loser}");
        won[usize::from(winner == "Second")] += 1;
        for client in [&mut first, &mut second] {
            let name = first_name(client, &email, position.into_iter().collect()).await;
            assert_eq!(name, winner);
        }
    }
    made
}

/// Both ask at once; what the first and the second are answered. What is asked first goes out a little earlier.
async fn race(
    first: &mut Client,
    second: &mut Client,
    email: &str,
    is_first_first: bool,
) -> (Result<CreateUserResponse, Status>, Result<CreateUserResponse, Status>) {
    let (left, right) = (create(first, email, "First"), create(second, email, "Second"));
    if is_first_first {
        return tokio::join!(left, right);
    }
    let (right, left) = tokio::join!(right, left);
    (left, right)
}

/// Creates users until it is told where one of them is, which is then the last of those that it has made.
async fn create_one(client: &mut Client, stem: &str, made: &mut Vec<String>) -> Position {
    let creating = async {
        for attempt in 0.. {
            let email = format!("{stem}.{attempt}@users.example");
            made.push(email.clone());
            match create(client, &email, "Own").await {
                Err(status) if status.code() == Code::Unavailable => {
                    create_surely(client, &email, "Own", true).await;
                }
                created => return created.unwrap().position.unwrap(),
            }
        }
        unreachable!()
    };
    tokio::time::timeout(DEADLINE, creating).await.unwrap()
}

async fn own_writes_are_read_at_the_other(one: &str, two: &str) -> Vec<String> {
    let (mut first, mut second) = (connect(one).await, connect(two).await);
    let mut made = Vec::new();
    let mut last = Position::default();
    for number in 0..OWN_WRITES {
        last = create_one(&mut first, &format!("own{number}"), &mut made).await;
        let email = made.last().unwrap();
        assert_eq!(first_name(&mut second, email, vec![last]).await, "Own");
    }
    // What nobody has written yet is waited for, and then said to be missing.
    let beyond = Position {
        offset: last.offset + 1000,
        ..last
    };
    let status = try_first_name(&mut second, &made[0], vec![beyond]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let words = format!(
        "partition {} has been read up to offset {} (exclusive)",
        last.partition, last.offset
    );
    assert!(status.message().contains(&words), "{status}");
    let nowhere = Position {
        partition: 3,
        offset: 0,
    };
    let status = try_first_name(&mut second, &made[0], vec![nowhere]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    made
}

fn commands_do_what_they_say(one: &str, two: &str) -> Vec<String> {
    let create = [
        "create",
        "--email",
        "Zoe.Zulu@Users.Example",
        "--firstname",
        "Zoe",
        "--lastname",
        "Zulu",
    ];
    let create = [
        &create[..],
        &["--postaladdress", "9 Quay, Port", "--birthdate", "1899-12-31"],
    ]
    .concat();
    cli(one, &create).fails_with(1, &["birthdate: 1899-12-31 is not from 1900-01-01"]);
    let create = [&create[..create.len() - 1], &["1910-05-06"]].concat();
    let made = cli(one, &create).success().stdout();
    let position = made.lines().find_map(|line| line.strip_prefix("min-offset ")).unwrap();
    cli(one, &create).fails_with(1, &["there is a user with the e-mail address zoe.zulu@users.example"]);

    let got = cli(two, &["get", "zoe.zulu@users.example", "--min-offset", position])
        .success()
        .stdout();
    assert!(got.contains("Zoe Zulu\n") && got.contains("1910-05-06 (age 1"), "{got}");
    cli(one, &["get", "oe.zulu@users.example"]).fails_with(1, &["there is no user"]);
    let found = |arguments: &[&str]| -> Vec<Value> {
        let users = cli_json(one, &[&["search"], arguments].concat());
        users.into_iter().map(|user| user["email"].clone()).collect()
    };
    assert_eq!(found(&["--name=oe zu"]), ["zoe.zulu@users.example"]);
    assert_eq!(found(&["--agefrom=110", "--ageto="]), ["zoe.zulu@users.example"]);
    assert_eq!(found(&["--agefrom=110", "--ageto=150"]), ["zoe.zulu@users.example"]);
    assert_eq!(found(&["--agefrom=", "--ageto=200"]).len(), samples::COUNT + 1);
    // Also those without birthdate.
    for empty in [
        &["--agefrom=", "--ageto="][..],
        &["--agefrom="],
        &["--ageto="],
        &["--name=", "--agefrom="],
    ] {
        assert_eq!(found(empty), listed(one), "{empty:?}");
    }
    assert_eq!(found(&["--name=zoe zulu", "--agefrom=", "--ageto="]).len(), 1);
    assert_eq!(found(&["--name=", "--agefrom=110"]), ["zoe.zulu@users.example"]);
    cli(one, &["search"]).fails_with(1, &["name: a name, age_from or age_to is wanted"]);
    let versions = cli(one, &["version"]).success().stdout();
    assert_eq!(versions.matches("version 0.").count(), 2, "{versions}");
    assert!(cli(one, &["list"]).success().stdout().ends_with(" users\n"));
    cli("127.0.0.1:9", &["list"]).fails_with(1, &["cannot reach 127.0.0.1:9"]);
    the_address_may_stand_in_a_file(one);
    vec!["zoe.zulu@users.example".to_owned()]
}

fn the_address_may_stand_in_a_file(address: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, format!("address = {address:?}\noutput = \"json\"\n")).unwrap();
    let cli = || without_settings(env!("CARGO_BIN_EXE_users-cli").as_ref());
    let got = |finished: Finished| -> Value { serde_json::from_str(&finished.success().stdout()).unwrap() };
    let by_flag = got(run(
        cli()
            .args(["get", "zoe.zulu@users.example", "--config"])
            .arg(file.path()),
        DEADLINE,
    ));
    assert_eq!(by_flag["last_name"], "Zulu");
    let by_variable = run(
        cli().args(["get", "zoe.zulu@users.example"]).env("CONFIG", file.path()),
        DEADLINE,
    );
    assert_eq!(got(by_variable), by_flag);
    fs::write(&file, "adress = \"127.0.0.1:9\"\n").unwrap();
    run(cli().arg("list").env("CONFIG", file.path()), DEADLINE).fails_with(2, &["no setting \"adress\""]);
}

fn counted(page: &str) -> u64 {
    let numbers = http::get(page, "/months.json").is(200).json();
    let months = numbers["months"].as_array().unwrap();
    let sum: u64 = months.iter().map(|month| month["users"].as_u64().unwrap()).sum();
    assert_eq!(numbers["users"], sum);
    sum
}

/// Each message is about a record of its own, and those of a partition are about all of its records.
fn places_are_all_different(outbox: &Path) {
    let mut offsets: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for message in messages(outbox) {
        let (partition, offset) = message["X-Highwater-Position"].split_once('/').unwrap();
        offsets
            .entry(partition.to_owned())
            .or_default()
            .push(offset.parse().unwrap());
    }
    assert_eq!(offsets.len(), 3);
    for (partition, offsets) in offsets {
        assert!(
            offsets.iter().copied().eq(0..offsets.len() as u64),
            "{partition}: {offsets:?}"
        );
    }
}

fn all_can_be_looked_at(running: &mut Running, runtime: &Runtime) {
    let page = running.metrics.address("page");
    let html = http::get(&page, "/").is(200).text;
    assert!(
        html.contains("<h1>New users per month</h1>") && html.contains("<td class=\"number\">"),
        "{html}"
    );
    http::get(&page, "/nothing").is(404);
    let health = [
        page,
        running.email.address("health over gRPC"),
        running.addresses()[0].clone(),
    ];
    for address in health {
        assert_eq!(
            runtime.block_on(processes::health(&address)),
            ServingStatus::Serving,
            "{address}"
        );
    }
    for (service, words) in [
        (
            &mut running.servers[0],
            "users_requests_total{method=\"create_user\",outcome=\"already_exists\"}",
        ),
        (
            &mut running.metrics,
            "users_metrics_requests_total{method=\"page\",outcome=\"ok\"}",
        ),
        (
            &mut running.email,
            "users_email_requests_total{method=\"message\",outcome=\"ok\"}",
        ),
    ] {
        let address = service.address("metrics");
        http::get(&address, "/readyz").is(200);
        let metrics = http::get(&address, "/metrics").is(200).text;
        assert!(metrics.contains(words), "{words}: {metrics}");
    }
}

/// Another worker sends everything by SMTP: it is killed in the middle and goes on, in order, each message once; only what the server was
/// given in the moment of the kill may have come twice, and then it has the same id.
fn mail_goes_to_a_server(cluster: &TestCluster, promised: &[String]) {
    let unwelcome = "una.doyle@users.example";
    let (mail, address) = Mail::start(unwelcome);
    let arguments = [
        "email",
        "--group",
        "mail",
        "--smtp",
        &address,
        "--progress",
        "mail.progress",
    ];
    let mut worker = start(cluster, "mail-0", &arguments);
    eventually("some mail is sent", DEADLINE, || {
        (mail.taken().len() > promised.len() / 3).then_some(())
    });
    worker.kill();
    let worker = start(cluster, "mail-1", &arguments);
    let receivers = |mail: &Mail| -> Vec<String> {
        let receivers: BTreeSet<String> = mail.taken().into_iter().map(|letter| letter.to).collect();
        receivers.into_iter().collect()
    };
    let wanted: Vec<String> = promised.iter().filter(|email| *email != unwelcome).cloned().collect();
    eventually("all mail is sent", DEADLINE, || {
        (receivers(&mail) == wanted).then_some(())
    });
    worker.stop();
    let letters = mail.taken();
    let different: BTreeSet<_> = letters.iter().collect();
    let ids: BTreeSet<String> = letters.iter().map(mail::Letter::id).collect();
    assert_eq!((different.len(), ids.len()), (wanted.len(), wanted.len()));
    assert!(
        letters.len() <= wanted.len() + 1,
        "{} messages to {} users",
        letters.len(),
        wanted.len()
    );
    // The outbox's own worker has gone on undisturbed.
    assert_eq!(welcomed(&cluster.directory().join("outbox.mbox")), promised);
}
