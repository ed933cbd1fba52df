//! Who may call what, about what: every method × every kind of caller × own, foreign and absent things, each against `reference`, which
//! says it from the documents alone.
//!
//! The methods come from the descriptors, so that one without a row in `table` fails; callers and their things are in `world`, tricks with
//! names in `tricks`, callers that do not get as far as calling in `strangers`. Answers about what a caller may not see must be the same
//! bytes whether it is there or not, but for its name.

mod alike;
mod reference;
mod strangers;
mod table;
mod tricks;
mod words;
mod world;

use std::collections::BTreeSet;

use futures::future::join_all;
use highwater_proto::{FILE_DESCRIPTOR_SET, detail};
use serde_json::json;
use tonic::{Code, Status};

use self::alike::differences;
use self::reference::{Deed, Needs, Outcome, Thing, Who, expected};
use self::table::{ROWS, Row};
pub(super) use self::words::needs_in_words;
use self::world::{CALLERS, Target, World};
use super::gateway::records;
use super::http_client::{HttpAnswer, request};
use super::raw_client::{Method, call, methods};
use super::*;

/// What comes back from a call.
type Answer = Result<Option<Bytes>, Status>;

/// How soon a call is made again that nobody could answer.
const PAUSE: Duration = Duration::from_millis(20);

/// The reason of a refusal; of a batch's on its stream, too.
fn refusal(method: &Method, answer: &Answer) -> Option<Reason> {
    match answer {
        Err(status) => {
            let detail = detail::from_status(status);
            Some(detail.map_or(Reason::Unspecified, |detail| detail.reason()))
        }
        Ok(Some(message)) => batch_refusal(method, message).map(|detail| detail.reason()),
        Ok(None) => None,
    }
}

/// What is wrong with a batch, by its answer on its stream.
fn batch_refusal(method: &Method, message: &Bytes) -> Option<v1::ErrorDetail> {
    if !method.path.ends_with("/ProduceStream") {
        return None;
    }
    match v1::ProduceStreamResponse::decode(message.clone()).unwrap().result {
        Some(v1::produce_stream_response::Result::Error(detail)) => Some(detail),
        _ => None,
    }
}

fn outcome(refusal: Option<Reason>) -> Outcome {
    match refusal {
        Some(Reason::PermissionDenied) => Outcome::Denied,
        Some(Reason::TopicNotFound) => Outcome::NotFound,
        _ => Outcome::Allowed,
    }
}

/// Whether nobody could answer at the moment, as may be on a busy machine.
fn is_worth_another(refusal: Option<Reason>) -> bool {
    use Reason as R;
    let passing = [
        R::Unspecified,
        R::Unavailable,
        R::NoQuorum,
        R::UnknownOutcome,
        R::Overloaded,
    ];
    refusal.is_some_and(|reason| passing.contains(&reason))
}

/// The answer to a request once somebody can give one.
async fn ask(channel: &Channel, method: &Method, request: Vec<u8>) -> Answer {
    let request = Bytes::from(request);
    let asking = async {
        loop {
            let answer = call(channel, method, request.clone()).await;
            if !is_worth_another(refusal(method, &answer)) {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let last = || format!("nobody answers {}", method.path);
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{}", last()))
}

fn method_of(row: &Row) -> Method {
    let path = row.path();
    let known = methods(FILE_DESCRIPTOR_SET).into_iter();
    let mut found = known.filter(|method| method.path == path);
    found.next().unwrap_or_else(|| panic!("there is no {path}"))
}

#[test]
fn every_method_has_a_row() {
    let rows: BTreeSet<String> = ROWS.iter().map(Row::path).collect();
    let known: BTreeSet<String> = methods(FILE_DESCRIPTOR_SET)
        .into_iter()
        .map(|method| method.path)
        .collect();
    assert_eq!(rows, known);
}

/// What is wrong with the answers to one caller's requests of one kind.
async fn check(world: &World, row: &Row, who: Who) -> Vec<String> {
    let method = method_of(row);
    let (mut wrong, mut answers) = (Vec::new(), Vec::new());
    for target in who.targets() {
        let channel = world.channel(who, world.node_for(&target));
        let answer = ask(channel, &method, (row.request)(&target)).await;
        let found = outcome(refusal(&method, &answer));
        let wanted = expected(who, row.needs, row.names_topic(), target.is_own, target.exists);
        if found != wanted {
            let (path, topic) = (&method.path, &target.topic);
            wrong.push(format!(
                "{who:?}, {path} about {topic}: {found:?} and not {wanted:?}: {answer:?}"
            ));
        }
        answers.push((target, found, alike::text(&method, &answer)));
    }
    let different = differences(&answers, row.needs == Needs::Client);
    wrong.extend(different.iter().map(|text| format!("{who:?}, {}: {text}", method.path)));
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_of_everybody_about_everything_is_answered_as_the_documents_say() {
    let world = World::new().await;
    let mut wrong = Vec::new();
    for row in &ROWS {
        let checks = CALLERS.into_iter().map(|who| check(&world, row, who));
        wrong.extend(join_all(checks).await.into_iter().flatten());
    }
    assert!(
        wrong.is_empty(),
        "{} answers are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    world.is_untouched();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_answer_everybody_who_is_let_in_and_other_methods_nobody() {
    let world = World::new().await;
    let public = [
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let unknown = [
        "/highwater.v1.LogService/Steal",
        "/highwater.v1.ClusterService/",
        "/highwater.v2.LogService/Produce",
        "/highwater.v1.LogService/Produce/",
    ];
    for who in CALLERS {
        let channel = world.channel(who, 0);
        for method in public.into_iter().flat_map(methods) {
            // Health takes it for nothing, reflection for the question for all services.
            let answer = ask(channel, &method, vec![0x3a, 0]).await;
            assert_eq!(expected(who, Needs::Nothing, false, false, false), Outcome::Allowed);
            assert!(matches!(answer, Ok(Some(_))), "{who:?}, {}: {answer:?}", method.path);
        }
        for path in unknown {
            let method = Method {
                path: path.to_owned(),
                takes_stream: false,
            };
            let status = call(channel, &method, Bytes::new()).await.unwrap_err();
            assert_eq!(status.code(), Code::Unimplemented, "{who:?}, {path}: {status}");
        }
    }
}

/// The gateway's answers as those of a call.
fn outcome_over_http(answer: &HttpAnswer) -> Option<Outcome> {
    let reason = answer.json["error"]["reason"].as_str();
    match (answer.status, reason) {
        (403, Some("PERMISSION_DENIED")) => Some(Outcome::Denied),
        (404, Some("TOPIC_NOT_FOUND")) => Some(Outcome::NotFound),
        (429 | 503 | 504, _) => None,
        _ => Some(Outcome::Allowed),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_answers_everybody_as_the_documents_say() {
    let world = World::new().await;
    let mut wrong = Vec::new();
    for (method, deed, partition) in [
        ("GET", &[(Deed::Consume, Thing::Topic)], json!(null)),
        ("POST", &[(Deed::Produce, Thing::Topic)], json!(0)),
        ("POST", &[(Deed::Produce, Thing::Topic)], json!(null)),
    ] {
        for who in CALLERS {
            let mut answers = Vec::new();
            for target in who.targets() {
                let mut http = world.http(who, world.node_for(&target)).await;
                let path = format!("/v1/topics/{}/records", target.topic.replace('/', "%2F"));
                let mut body = records(&["matrix"]);
                if !partition.is_null() {
                    body["partition"] = partition.clone();
                }
                let text = if method == "GET" {
                    String::new()
                } else {
                    body.to_string()
                };
                let asking = async {
                    loop {
                        http.send(&request(method, &path, &text)).await;
                        let answer = http.answer().await;
                        if let Some(found) = outcome_over_http(&answer) {
                            return (answer, found);
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                };
                let (answer, found) = timeout(PATIENCE, asking).await.expect("nobody answers");
                let wanted = expected(who, Needs::All(deed), true, target.is_own, target.exists);
                if found != wanted {
                    wrong.push(format!(
                        "{who:?}, {method} {path}: {found:?} and not {wanted:?}: {answer:?}"
                    ));
                }
                answers.push((target, found, format!("{} {}", answer.status, answer.json)));
            }
            let different = differences(&answers, false);
            wrong.extend(different.iter().map(|text| format!("{who:?}, {method}: {text}")));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} answers are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    world.is_untouched();
    for who in CALLERS {
        let mut http = world.http(who, 0).await;
        for path in ["/", "/v1", "/v1/openapi.json"] {
            assert_eq!(http.get(path).await.status, 200, "{who:?}: {path}");
        }
    }
}

/// What somebody sees of a tenant's own things.
async fn sees(world: &World, who: Who, tenant: &str) {
    let channel = world.channel(who, world.leader(tenant)).clone();
    let decoded = async |path: &str, request: Vec<u8>| {
        let method = Method {
            path: path.to_owned(),
            takes_stream: false,
        };
        ask(&channel, &method, request).await.unwrap().unwrap()
    };
    let listed = decoded("/highwater.v1.TopicService/ListTopics", Vec::new()).await;
    let topics = v1::ListTopicsResponse::decode(listed).unwrap().topics;
    let watched = decoded("/highwater.v1.ClusterService/WatchCluster", Vec::new()).await;
    let watched = v1::WatchClusterResponse::decode(watched).unwrap().topics;
    let described = decoded("/highwater.v1.ClusterService/DescribeCluster", Vec::new()).await;
    let replicas = v1::DescribeClusterResponse::decode(described).unwrap().replicas;
    for topics in [topics, watched] {
        let names: Vec<_> = topics
            .iter()
            .map(|topic| (topic.tenant.as_str(), topic.name.as_str()))
            .collect();
        assert_eq!(names, [(tenant, world::TOPIC)], "{who:?}");
    }
    assert!(
        !replicas.is_empty() && replicas.iter().all(|replica| replica.tenant == tenant),
        "{replicas:?}"
    );
    for name in [world::TOPIC.to_owned(), format!("{tenant}/{}", world::TOPIC)] {
        let consume = v1::ConsumeRequest {
            topic: name.clone(),
            ..Default::default()
        };
        let consumed = decoded("/highwater.v1.LogService/Consume", consume.encode_to_vec()).await;
        let values = values_of(&v1::ConsumeResponse::decode(consumed).unwrap());
        assert_eq!(values, [tenant], "{who:?}: {name}");
        let list = v1::ListGroupsRequest {
            topic: name,
            ..Default::default()
        };
        let groups = decoded("/highwater.v1.GroupService/ListGroups", list.encode_to_vec()).await;
        let groups = v1::ListGroupsResponse::decode(groups).unwrap().groups;
        let members: Vec<_> = groups
            .iter()
            .map(|group| (group.group.as_str(), group.member.as_str()))
            .collect();
        assert_eq!(members, [(world::GROUP, tenant)], "{who:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_whose_topics_and_groups_have_the_same_names_never_meet() {
    let world = World::new().await;
    for (who, tenant) in [
        (Who::Owner, "shop"),
        (Who::Other, "other"),
        (Who::Operator, OPERATOR_TENANT),
    ] {
        sees(&world, who, tenant).await;
    }
}
