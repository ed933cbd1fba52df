//! All services on one real cluster: what was promised to whom is what is there at the end.

#![allow(clippy::unwrap_used)]

mod mail;
mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_tests::{TestCluster, eventually};
use highwater_users::proto::users_client::UsersClient;
use highwater_users::proto::{CreateUserRequest, CreateUserResponse, GetUserRequest, Position};
use highwater_users::samples;
use mail::Mail;
use processes::{DEADLINE, Service, cli, cli_json, http, listed, messages, welcomed};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// For how many addresses two servers race.
const RACES: usize = 40;
/// How many users one server creates and the other one must know at once.
const OWN_WRITES: usize = 30;
/// How often things are killed while users are created.
const KILLS: usize = 4;
/// How many users are created around each kill, by each of two clients.
const TROUBLED: usize = 30;

type Client = UsersClient<Channel>;

async fn connect(address: &str) -> Client {
    UsersClient::connect(format!("http://{address}")).await.unwrap()
}

async fn create(client: &mut Client, email: &str, first_name: &str) -> Result<CreateUserResponse, Status> {
    let request = CreateUserRequest {
        email: email.to_owned(),
        first_name: first_name.to_owned(),
        last_name: "Müller".to_owned(),
        postal_address: "1 Quay".to_owned(),
        birthdate: None,
    };
    client.create_user(request).await.map(tonic::Response::into_inner)
}

async fn first_name(client: &mut Client, email: &str, min_positions: Vec<Position>) -> Result<String, Status> {
    let email = email.to_owned();
    let answer = client.get_user(GetUserRequest { email, min_positions }).await?;
    Ok(answer.into_inner().user.unwrap().first_name)
}

#[test]
fn all_that_was_promised_is_there_and_nothing_twice() {
    let mut cluster = TestCluster::start(3);
    let outbox = cluster.directory().join("outbox.mbox");
    // Both begin with an empty log at the same time.
    let mut servers = ["one", "two"].map(|name| Service::start(&cluster, name, &["serve"]));
    let mut metrics = Service::start(&cluster, "metrics", &["metrics"]);
    let mut email = Service::start(&cluster, "email-0", &["email"]);
    let [one, two] = servers.each_mut().map(|server| server.address("users"));
    let page = metrics.address("metrics");

    samples_are_there_once(&one, &two);
    let runtime = Runtime::new().unwrap();
    let mut promised: BTreeSet<String> = listed(&one).into_iter().collect();
    promised.extend(runtime.block_on(one_of_two_wins(&one, &two)));
    promised.extend(runtime.block_on(own_writes_are_read_at_the_other(&one, &two)));
    promised.extend(commands_do_what_they_say(&one, &two));
    promised.extend(users_come_while_things_are_killed(
        &mut cluster,
        &runtime,
        [&one, &two],
        &mut email,
    ));
    let promised: Vec<String> = promised.into_iter().collect();

    for server in [&one, &two] {
        eventually("the server lists all users", DEADLINE, || {
            (listed(server) == promised).then_some(())
        });
    }
    eventually("metrics count all users", DEADLINE, || {
        (counted(&page) >= promised.len() as u64).then_some(())
    });
    assert_eq!(counted(&page), promised.len() as u64);
    eventually("all users are welcomed", DEADLINE, || {
        (messages(&outbox).len() >= promised.len()).then_some(())
    });
    assert_eq!(welcomed(&outbox), promised);
    places_are_all_different(&outbox);
    pages_can_be_read(&page, &mut servers[0]);

    email = mail_goes_to_a_server(&cluster, email, &promised);
    // A server that begins anew makes the same of the log, and no more samples.
    let [first, second] = servers;
    first.stop();
    let mut third = Service::start(&cluster, "three", &["serve"]);
    assert_eq!(listed(&third.address("users")), promised);
    assert_eq!(counted(&page), promised.len() as u64);
    for service in [second, third, metrics, email] {
        service.stop();
    }
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
    for number in 0..RACES {
        let email = format!("race{number}@users.example");
        let (left, right) = tokio::join!(
            create(&mut first, &email, "First"),
            create(&mut second, &email, "Second")
        );
        let (winner, position, loser) = match (left, right) {
            (Ok(yes), Err(no)) => ("First", yes.position, no),
            (Err(no), Ok(yes)) => ("Second", yes.position, no),
            other => panic!("{email}: {other:?}"),
        };
        assert_eq!(loser.code(), Code::AlreadyExists, "{loser}");
        won[usize::from(winner == "Second")] += 1;
        for client in [&mut first, &mut second] {
            assert_eq!(
                first_name(client, &email, position.into_iter().collect())
                    .await
                    .unwrap(),
                winner
            );
        }
        made.push(email);
    }
    assert!(won.iter().all(|won| *won > 0), "there was no race: {won:?}");
    made
}

async fn own_writes_are_read_at_the_other(one: &str, two: &str) -> Vec<String> {
    let (mut first, mut second) = (connect(one).await, connect(two).await);
    let mut made = Vec::new();
    let mut last = Position::default();
    for number in 0..OWN_WRITES {
        let email = format!("own{number}@users.example");
        last = create(&mut first, &email, "Own").await.unwrap().position.unwrap();
        assert_eq!(first_name(&mut second, &email, vec![last]).await.unwrap(), "Own");
        made.push(email);
    }
    // What nobody has written yet is waited for, and then said to be missing.
    let beyond = Position {
        offset: last.offset + 1000,
        ..last
    };
    let status = first_name(&mut second, &made[0], vec![beyond]).await.unwrap_err();
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
    let status = first_name(&mut second, &made[0], vec![nowhere]).await.unwrap_err();
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
    assert_eq!(found(&["--agefrom=", "--ageto=200"]).len(), samples::COUNT + 1);
    cli(one, &["search"]).fails_with(1, &["name: a name, age_from or age_to is wanted"]);
    let versions = cli(one, &["version"]).success().stdout();
    assert_eq!(versions.matches("version 0.").count(), 2, "{versions}");
    assert!(cli(one, &["list"]).success().stdout().ends_with(" users\n"));
    cli("127.0.0.1:9", &["list"]).fails_with(1, &["cannot reach 127.0.0.1:9"]);
    vec!["zoe.zulu@users.example".to_owned()]
}

/// Creates a user, however often that has to be tried. After an answer that says that it may have been created, it may be there.
async fn create_surely(client: &mut Client, email: &str) {
    let mut may_exist = false;
    loop {
        match create(client, email, "Troubled").await {
            Ok(_) => return,
            Err(status) if status.code() == Code::AlreadyExists && may_exist => return,
            Err(status) if status.code() == Code::Unavailable => {
                may_exist |= status.message().contains("may have been")
            }
            Err(status) => panic!("{email}: {status}"),
        }
    }
}

/// Two clients create users, each at its server. How many they have created already is counted.
fn create_at_both(
    runtime: &Runtime,
    servers: [&str; 2],
    round: usize,
    count: &Arc<AtomicUsize>,
) -> Vec<JoinHandle<Vec<String>>> {
    let create = |(place, server): (usize, &str)| {
        let (count, server) = (count.clone(), server.to_owned());
        runtime.spawn(async move {
            let mut client = connect(&server).await;
            let mut made = Vec::new();
            for number in 0..TROUBLED {
                let email = format!("troubled{round}.{place}.{number}@users.example");
                create_surely(&mut client, &email).await;
                count.fetch_add(1, Ordering::Relaxed);
                made.push(email);
            }
            made
        })
    };
    servers.into_iter().enumerate().map(create).collect()
}

/// A node of the cluster, the one that leads a partition of users, is killed while users are created; the writer of messages is killed in
/// the middle of writing and started again, several times.
fn users_come_while_things_are_killed(
    cluster: &mut TestCluster,
    runtime: &Runtime,
    servers: [&str; 2],
    email: &mut Service,
) -> Vec<String> {
    let outbox = cluster.directory().join("outbox.mbox");
    let leader = cluster.leader("users", 1);
    let mut made = Vec::new();
    for round in 1..=KILLS {
        let before = messages(&outbox).len();
        let count = Arc::new(AtomicUsize::new(0));
        let creating = create_at_both(runtime, servers, round, &count);
        if round == 2 {
            eventually("users are created", DEADLINE, || {
                (count.load(Ordering::Relaxed) >= 5).then_some(())
            });
            cluster.node(leader).kill();
        }
        // Dozens are there to be written by now, so that it is in the middle of them.
        eventually("messages are written", DEADLINE, || {
            (messages(&outbox).len() > before).then_some(())
        });
        email.kill();
        *email = Service::start(cluster, &format!("email-{round}"), &["email"]);
        for creating in creating {
            made.extend(runtime.block_on(creating).unwrap());
        }
    }
    cluster.node(leader).start();
    cluster.wait_ready();
    made
}

fn counted(page: &str) -> u64 {
    let (status, body) = http(page, "/months.json");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let numbers: Value = serde_json::from_str(&body).unwrap();
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

fn pages_can_be_read(page: &str, server: &mut Service) {
    let (_, html) = http(page, "/");
    assert!(
        html.contains("<h1>New users per month</h1>") && html.contains("<td class=\"number\">"),
        "{html}"
    );
    assert_eq!(http(page, "/readyz").0, "HTTP/1.1 200 OK");
    let (_, metrics) = http(&server.address("metrics"), "/metrics");
    assert!(
        metrics.contains("users_requests_total{method=\"create_user\",outcome=\"already_exists\"}"),
        "{metrics}"
    );
}

/// Another worker sends everything by SMTP: it is killed in the middle and goes on, in order, each message once; only what the server was
/// given in the moment of the kill may have come twice, and then it has the same id.
fn mail_goes_to_a_server(cluster: &TestCluster, email: Service, promised: &[String]) -> Service {
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
    let mut worker = Service::start(cluster, "mail-0", &arguments);
    eventually("some mail is sent", DEADLINE, || {
        (mail.taken().len() > promised.len() / 3).then_some(())
    });
    worker.kill();
    let worker = Service::start(cluster, "mail-1", &arguments);
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
    email
}
