//! Many clients post the same events to two servers while a node of the cluster is killed; others follow through that, and through the
//! death of a server.
//!
//! Invariants: each event is in the log once; all answers about an event name the same one; exactly one client has stored it, and only who
//! posted another message than that one is told so; who follows sees each event once and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join3;
use highwater::{Client, Profile};
use highwater_activity::event::{Posted, partition_of};
use highwater_activity::limits::READ_DEADLINE;
use highwater_activity::v1::activity_service_client::ActivityServiceClient;
use highwater_activity::v1::follow_request::Start;
use highwater_activity::v1::{AddRequest, AddResponse, Event, FollowRequest, GetRequest, ListRequest};
use highwater_activity::{PARTITIONS, TOPIC};
use highwater_tests::{TestCluster, eventually};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::DEADLINE;
use crate::server::{Printing, Server};

const DEPLOYMENTS: u64 = 4;
const IDS: u64 = 50;
const CLIENTS: u64 = 8;
/// The time at which client 0 says that it sends; client 1 says one more, so that the time tells whose event it is.
const FIRST_SENT_AT_MS: u64 = 1_000_000;

/// What a client was told about an event.
struct Answer {
    client: u64,
    posted: AddRequest,
    response: AddResponse,
    /// An earlier attempt may have stored it.
    was_retried: bool,
}

fn posted_by(client: u64, deployment_id: u64, id: u64) -> AddRequest {
    // About every fifth event the clients do not agree.
    let message = match id % 5 {
        0 => format!("event {id}, says client {client}"),
        _ => format!("event {id} <b>&amp;"),
    };
    AddRequest {
        deployment_id,
        id,
        message,
        sent_at_ms: FIRST_SENT_AT_MS + client,
    }
}

/// Posts everything, each event until there is an answer; the last one only when a node has been killed.
async fn post_all(
    client: u64,
    mut server: ActivityServiceClient<Channel>,
    answered: Arc<AtomicUsize>,
    mut killed: watch::Receiver<bool>,
) -> Vec<Answer> {
    let mut all: Vec<AddRequest> = (1..=IDS)
        .flat_map(|id| (1..=DEPLOYMENTS).map(move |deployment| posted_by(client, deployment, id)))
        .collect();
    if client >= CLIENTS - 2 {
        all.reverse();
    }
    let mut answers = Vec::new();
    let count = all.len();
    for (number, posted) in (1..).zip(all) {
        if number == count {
            killed.wait_for(|killed| *killed).await.unwrap();
        }
        let (response, was_retried) = add(&mut server, &posted).await;
        answered.fetch_add(1, Ordering::Relaxed);
        answers.push(Answer {
            client,
            posted,
            response,
            was_retried,
        });
    }
    answers
}

/// Posts an event until there is an answer, and whether that took more than one attempt.
async fn add(server: &mut ActivityServiceClient<Channel>, posted: &AddRequest) -> (AddResponse, bool) {
    let mut was_retried = false;
    loop {
        match server.add(posted.clone()).await {
            Ok(response) => return (response.into_inner(), was_retried),
            Err(status) if status.code() == Code::Unavailable => was_retried = true,
            Err(status) => panic!("{posted:?}: {status}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Follows until there have been so many events, going on behind the last one whatever happens.
async fn follow(mut server: ActivityServiceClient<Channel>, deployment_id: u64, count: u64) -> Vec<Event> {
    let mut seen: Vec<Event> = Vec::new();
    while (seen.len() as u64) < count {
        let start = seen.last().map(|event| Start::FromPosition(event.position + 1));
        let Ok(stream) = server
            .follow(FollowRequest {
                deployment_id,
                start,
                min_position: None,
            })
            .await
        else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut stream = stream.into_inner();
        while let Ok(Some(response)) = stream.message().await {
            seen.push(response.event.unwrap());
            if seen.len() as u64 == count {
                break;
            }
        }
    }
    seen
}

/// All events of a deployment, by pages.
async fn list(server: &mut ActivityServiceClient<Channel>, deployment_id: u64, page_size: u32) -> Vec<Event> {
    let mut request = ListRequest {
        deployment_id,
        page_size,
        ..Default::default()
    };
    let mut events = Vec::new();
    loop {
        let page = server.list(request).await.unwrap().into_inner();
        assert!(page.events.len() <= page_size as usize);
        events.extend(page.events);
        match page.next_position {
            Some(next) => request.from_position = next,
            None => return events,
        }
    }
}

/// Everything in the log, by deployment and id; fails if an event is there twice.
async fn stored(profile: &Path) -> BTreeMap<(u64, u64), (u64, Posted)> {
    let client = Client::from_profile(&Profile::load(profile).unwrap()).await.unwrap();
    let mut consumer = client.consume_topic(TOPIC).stop_at_end().build().await.unwrap();
    let mut events = BTreeMap::new();
    while let Some(record) = consumer.next_record().await {
        let record = record.unwrap();
        let posted = Posted::from_record(&record).unwrap();
        assert_eq!(record.partition, partition_of(posted.deployment_id, PARTITIONS));
        let earlier = events.insert((posted.deployment_id, posted.id), (record.offset, posted));
        assert!(earlier.is_none(), "twice: {earlier:?}");
    }
    events
}

fn assert_consistent(answers: &[Answer], stored: &BTreeMap<(u64, u64), (u64, Posted)>) {
    assert_eq!(stored.len() as u64, DEPLOYMENTS * IDS);
    for ((deployment, id), (position, event)) in stored {
        let is_about = |answer: &&Answer| (answer.posted.deployment_id, answer.posted.id) == (*deployment, *id);
        let about: Vec<&Answer> = answers.iter().filter(is_about).collect();
        assert_eq!(about.len() as u64, CLIENTS);
        let winner = event.sent_at_ms - FIRST_SENT_AT_MS;
        let received_at_ms = about[0].response.received_at_ms;
        for answer in &about {
            let told = &answer.response;
            let first = (told.position, told.sent_at_ms, told.received_at_ms);
            assert_eq!(
                first,
                (*position, event.sent_at_ms, received_at_ms),
                "{deployment}/{id}"
            );
            assert_eq!(
                told.differs,
                answer.posted.message != event.message,
                "{deployment}/{id}, {}",
                answer.client
            );
            match told.already_there {
                false => assert_eq!(answer.client, winner, "{deployment}/{id}"),
                true => assert!(answer.client != winner || answer.was_retried, "{deployment}/{id}"),
            }
        }
    }
}

fn assert_each_once_in_order(seen: &[Event], listed: &[Event]) {
    assert!(seen.windows(2).all(|pair| pair[0].position < pair[1].position));
    assert_eq!(seen, listed);
    let ids: BTreeSet<u64> = seen.iter().map(|event| event.id).collect();
    assert_eq!(ids, (1..=IDS).collect());
}

#[test]
fn each_id_is_stored_once_whoever_posts_it_and_whoever_dies() {
    let mut cluster = TestCluster::start(3);
    let mut first = Server::start(&cluster);
    // It forgets each message at once, so that everything it shows comes from the log.
    let second = Server::start_with(&cluster, cluster.profile(), &[("MESSAGE_MEMORY_BYTES", "0")]);
    let runtime = Runtime::new().unwrap();
    let (mut to_first, mut to_second) = {
        let _runtime = runtime.enter();
        (first.client(), second.client())
    };
    let followers: Vec<_> = (1..=2)
        .flat_map(|deployment| [(&to_first, deployment), (&to_second, deployment)])
        .map(|(server, deployment)| runtime.spawn(follow(server.clone(), deployment, IDS)))
        .collect();
    let (posting, leader) = post_while_a_node_dies(&mut cluster, &runtime, [&to_first, &to_second]);

    runtime.block_on(async {
        let mut answers = Vec::new();
        for client in posting {
            answers.extend(client.await.unwrap());
        }
        assert_consistent(&answers, &stored(cluster.profile()).await);
        for (follower, deployment) in followers.into_iter().zip([1, 1, 2, 2]) {
            let seen = follower.await.unwrap();
            let listed = list(&mut to_first, deployment, 7).await;
            assert_eq!(listed, list(&mut to_second, deployment, 200).await);
            assert_each_once_in_order(&seen, &listed);
        }
        own_writes_are_read_at_the_other_server(&mut to_first, &mut to_second).await;
    });
    a_follower_outlives_a_server(&mut first, &second);
    cluster.node(leader).start();
    cluster.wait_ready();
}

type Posting = JoinHandle<Vec<Answer>>;

/// All clients, each at one of the servers; which of the nodes was killed while they were posting.
fn post_while_a_node_dies(
    cluster: &mut TestCluster,
    runtime: &Runtime,
    servers: [&ActivityServiceClient<Channel>; 2],
) -> (Vec<Posting>, usize) {
    // Looked up before, since posting would go on meanwhile.
    let leader = cluster.leader(TOPIC, partition_of(1, PARTITIONS) as usize);
    let answered = Arc::new(AtomicUsize::new(0));
    let (killed, is_killed) = watch::channel(false);
    let posting: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let server = servers[client as usize % 2].clone();
            runtime.spawn(post_all(client, server, answered.clone(), is_killed.clone()))
        })
        .collect();
    eventually("a quarter has been answered", DEADLINE, || {
        (answered.load(Ordering::Relaxed) as u64 > DEPLOYMENTS * IDS * CLIENTS / 4).then_some(())
    });
    cluster.node(leader).kill();
    killed.send_replace(true);
    (posting, leader)
}

/// Asks until there is an answer. While the partition has no leader, the event that is waited for may take longer to be stored than a server
/// waits for it; that it is not there yet may be said only after that time.
async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, Status>) -> T {
    let asking = async {
        loop {
            let asked = Instant::now();
            match ask().await {
                Ok(answer) => return answer,
                Err(status) => {
                    assert!(
                        [Code::OutOfRange, Code::Unavailable].contains(&status.code()),
                        "{status}"
                    );
                    // Both of its forms say what is wanted. Anything else may fail at once.
                    let is_not_yet = status.message().contains("is wanted");
                    assert!(
                        !is_not_yet || asked.elapsed() >= READ_DEADLINE,
                        "not waited for: {status}"
                    );
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, asking).await.unwrap()
}

/// The second server is asked for what the first one is only about to store: it waits.
async fn own_writes_are_read_at_the_other_server(
    first: &mut ActivityServiceClient<Channel>,
    second: &mut ActivityServiceClient<Channel>,
) {
    let mut follower = second.clone();
    let (mut last, _) = add(first, &posted_by(0, 9, 1)).await;
    for id in 2..=20 {
        let min_position = Some(last.position + 1);
        let get = GetRequest {
            deployment_id: 9,
            id,
            min_position,
        };
        let follow = FollowRequest {
            deployment_id: 9,
            start: Some(Start::FromId(id)),
            min_position,
        };
        let get = patiently(async || Ok(second.get(get).await?.into_inner().event.unwrap()));
        let follow = patiently(async || {
            let followed = follower.follow(follow).await?.into_inner().message().await?;
            Ok(followed.unwrap().event.unwrap())
        });
        let posted = posted_by(0, 9, id);
        let (found, followed, added) = join3(get, follow, add(first, &posted)).await;
        assert_eq!(followed, found);
        (last, _) = added;
        assert_eq!(
            (found.position, found.received_at_ms),
            (last.position, last.received_at_ms)
        );
        assert_eq!((found.message, found.sent_at_ms), (posted.message, FIRST_SENT_AT_MS));
    }
}

/// The command line follows at a server that is killed and comes back; meanwhile the other one takes more.
fn a_follower_outlives_a_server(dying: &mut Server, other: &Server) {
    const MORE: u64 = 10;
    let count = (IDS + MORE) as usize;
    let (max, retry_for_ms) = (count.to_string(), DEADLINE.as_millis().to_string());
    let following = Printing::start(dying.cli(&["follow", "1", "--max", &max, "--retry-for-ms", &retry_for_ms]));
    following.wait_lines(IDS as usize);
    dying.kill();
    for id in IDS + 1..=IDS + MORE {
        let json = format!(r#"{{"id":{id},"deployment_id":1,"message":"meanwhile"}}"#);
        other.run(&["add", &json]).success();
    }
    dying.start_again();
    let lines = following.wait_lines(count);
    following.wait().success();
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let positions: Vec<u64> = events.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    assert!(positions.windows(2).all(|pair| pair[0] < pair[1]), "{positions:?}");
    let ids: BTreeSet<u64> = events.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert_eq!((ids.len(), events.len()), (count, count));
}
