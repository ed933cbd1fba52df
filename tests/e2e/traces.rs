//! Traces: from the program that produces a record through access, proposal, disks and followers to the one that consumes it.

use std::collections::BTreeSet;
use std::path::Path;

use highwater::{Client, CreateTopic, Profile, Record, TraceParent};
use highwater_tests::collector::{CollectedSpan, Collector};
use highwater_tests::{TestCluster, eventually, run_with_input};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

use crate::PATIENCE;
use crate::gateway::{has_curl, shell};

/// A trace that a program has begun, and what the spans about it say of both.
const PARENT: TraceParent = TraceParent {
    trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
    span_id: 0x00f0_67aa_0ba9_02b7,
    sampled: true,
};
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
/// What the nodes are to say to the collector, as OpenTelemetry has it in the environment, and as it comes.
const HEADERS: &str = "authorization=Bearer%20of-this-test,x-scope=tests";
const AUTHORIZATION: &str = "Bearer of-this-test";

/// Has the nodes tell the collector of batches whose clients say so, and of one in so many of the others.
fn start(mut cluster: TestCluster, collector: &Collector, protocol: &str, one_in: &str) -> TestCluster {
    let authority = format!("{}/ca.pem", cluster.certificates());
    let is_encrypted = collector.endpoint().starts_with("https");
    for position in 0..3 {
        let node = cluster.node(position);
        node.set("--traces-endpoint", &collector.endpoint());
        node.set("--traces-protocol", protocol);
        node.set("--traces-one-in", one_in);
        node.set_variable("OTEL_EXPORTER_OTLP_HEADERS", HEADERS);
        if is_encrypted {
            node.set("--traces-ca", &authority);
        }
    }
    for position in 0..3 {
        cluster.node(position).start();
    }
    cluster.wait_ready();
    cluster
}

/// Three nodes that will be told, and a collector with a certificate that they can trust.
fn encrypted() -> (TestCluster, Collector) {
    let cluster = TestCluster::prepare(3);
    let pair = Path::new(&cluster.certificates()).join("node-n1");
    let collector = Collector::start_encrypted(&pair);
    (cluster, collector)
}

/// The span of [`PARENT`], where it is current.
fn context() -> Context {
    let span = SpanContext::new(
        TraceId::from(PARENT.trace_id),
        SpanId::from(PARENT.span_id),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    );
    Context::new().with_remote_span_context(span)
}

/// The first span of that name that has `value` as `attribute`, once it is told.
fn told(collector: &Collector, name: &str, attribute: &str, value: &str) -> CollectedSpan {
    eventually(name, PATIENCE, || {
        let is_wanted = |span: &CollectedSpan| {
            let found = span.attributes.get(attribute).map(String::as_str);
            span.name == name && found == Some(value)
        };
        collector.trace(TRACE).into_iter().find(is_wanted)
    })
}

/// The one span of that name.
#[track_caller]
fn only<'a>(spans: &'a [CollectedSpan], name: &str) -> &'a CollectedSpan {
    let found: Vec<&CollectedSpan> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

/// The whole way of one batch, as the nodes tell it, once they have.
fn way(collector: &Collector) -> Vec<CollectedSpan> {
    eventually("the whole way of the batch is told", PATIENCE, || {
        let spans = collector.trace(TRACE);
        (spans.len() >= 7).then_some(spans)
    })
}

/// Every stage is there, within what it is a part of, and the whole is the child of the client's span.
fn check_way(spans: &[CollectedSpan], cluster: &mut TestCluster, topic: &str) {
    let leader = cluster.leader(topic, 0);
    let names: Vec<String> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let whole = only(spans, &format!("produce {topic}"));
    assert_eq!(whole.parent, SPAN);
    assert_eq!(whole.error, "");
    for (key, value) in [
        ("service.name", "highwater"),
        ("service.namespace", "test"),
        ("service.instance.id", &names[leader]),
        ("messaging.system", "highwater"),
        ("messaging.destination.name", topic),
        ("messaging.destination.partition.id", "0"),
        ("messaging.batch.message_count", "1"),
        ("highwater.base_offset", "0"),
        ("highwater.client", "spiffe://test/tenant/acme/client/app"),
    ] {
        assert_eq!(
            whole.attributes.get(key).map(String::as_str),
            Some(value),
            "{key}: {whole:#?}"
        );
    }
    let commit = only(spans, "commit");
    assert_eq!((&only(spans, "access").parent, &commit.parent), (&whole.id, &whole.id));
    let replicated: Vec<&CollectedSpan> = spans.iter().filter(|span| span.name == "replicate").collect();
    for part in [only(spans, "propose"), only(spans, "sync")].iter().chain(&replicated) {
        assert_eq!(part.parent, commit.id, "{part:#?}");
        assert!(part.time_ns.0 >= commit.time_ns.0, "{part:#?} began before {commit:#?}");
    }
    let followers: BTreeSet<&str> = replicated
        .iter()
        .filter_map(|span| span.attributes.get("highwater.follower").map(String::as_str))
        .collect();
    let others = names.iter().filter(|name| **name != names[leader]).map(String::as_str);
    assert_eq!(followers, others.collect(), "{spans:#?}");
    for span in spans {
        assert!(span.time_ns.0 <= span.time_ns.1, "{span:#?}");
        for (header, value) in [("authorization", AUTHORIZATION), ("x-scope", "tests")] {
            let came_with = span.came_with.get(header).map(String::as_str);
            assert_eq!(came_with, Some(value), "{header}: {span:#?}");
        }
    }
    assert!(whole.time_ns.0 <= commit.time_ns.0 && commit.time_ns.1 <= whole.time_ns.1);
}

#[test]
fn a_trace_goes_from_the_producers_span_through_the_nodes_to_the_consumer() {
    let (cluster, collector) = encrypted();
    let mut cluster = start(cluster, &collector, "grpc", "0");
    cluster.create_topic("orders", 1);
    let profile = Profile::load(cluster.profile()).unwrap_or_else(|error| panic!("{error}"));
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let consumed = runtime.block_on(async {
        let client = Client::from_profile(&profile).await?;
        let producer = client.producer("orders").build().await?;
        let delivery = {
            let _current = context().attach();
            // There is room, so it does not wait: the context is current for it.
            producer.try_send(Record::new("traced"))?
        };
        delivery.await?;
        producer.send(Record::new("not traced")).await?.await?;
        let mut consumer = client.consume_topic("orders").stop_at_end().build().await?;
        let mut records = Vec::new();
        while let Some(record) = consumer.next_record().await {
            records.push(record?);
        }
        Ok::<_, Box<dyn std::error::Error>>(records)
    });
    let consumed = consumed.unwrap_or_else(|error| panic!("{error}"));
    let context = consumed[0].trace_context();
    assert_eq!(context.span().span_context().trace_id(), TraceId::from(PARENT.trace_id));
    assert_eq!(context.span().span_context().span_id(), SpanId::from(PARENT.span_id));
    assert!(!consumed[1].trace_context().has_active_span());

    let spans = way(&collector);
    check_way(&spans, &mut cluster, "orders");
    assert_eq!(collector.spans().len(), spans.len(), "nothing else is traced");
}

#[test]
fn the_same_over_http_for_what_the_command_line_says_of_its_trace() {
    let (cluster, collector) = encrypted();
    let mut cluster = start(cluster, &collector, "http", "0");
    cluster.create_topic("orders", 1);
    let mut produce = cluster.command(&["produce", "orders"]);
    produce.env("TRACEPARENT", PARENT.to_string());
    run_with_input(&mut produce, b"traced\n".to_vec(), PATIENCE).success();
    let consumed = cluster.run(&[
        "consume",
        "orders",
        "--from",
        "beginning",
        "--exit-at-end",
        "--format",
        "json",
    ]);
    let line = consumed.success().stdout();
    assert!(line.contains("traceparent"), "{line}");
    check_way(&way(&collector), &mut cluster, "orders");

    // What a quota refuses is told, too.
    let quota = ["tenant", "quota", "acme", "--set", "produce_bytes_per_second=1"];
    cluster.run(&quota).success();
    let refused = eventually("a refusal is told", PATIENCE, || {
        let mut produce = cluster.command(&["produce", "orders", "--deadline", "1s"]);
        produce.env("TRACEPARENT", PARENT.to_string());
        let _ = run_with_input(&mut produce, b"too much\n".to_vec(), PATIENCE);
        let mut spans = collector.spans().into_iter();
        spans.find(|span| span.name == "produce orders" && !span.error.is_empty())
    });
    assert_eq!((refused.trace.as_str(), refused.parent.as_str()), (TRACE, SPAN));
    assert!(refused.error.contains("produce_bytes_per_second"), "{refused:?}");

    let wrong = cluster.run(&["produce", "orders", "--trace", "4711"]);
    wrong.fails_with(2, &["--trace", "00-"]);
}

#[test]
fn of_batches_without_a_trace_some_begin_one_and_a_collector_that_is_away_costs_nothing_else() {
    let collector = Collector::start();
    let mut cluster = start(TestCluster::prepare(3), &collector, "http", "1");
    let address = collector.address();
    cluster.create_topic("orders", 1);
    crate::produce(&cluster, "orders", "first\n");
    let first = eventually("a trace began by itself", PATIENCE, || {
        let spans = collector.spans();
        spans
            .into_iter()
            .find(|span| span.name == "produce orders" && span.parent.is_empty())
    });
    assert_eq!(first.error, "");

    drop(collector);
    crate::produce(&cluster, "orders", "second\n");
    let leader = cluster.leader("orders", 0);
    eventually("the log tells that the collector is away", PATIENCE, || {
        cluster
            .node(leader)
            .log()
            .contains("the collector takes no traces")
            .then_some(())
    });
    let collector = Collector::start_again(address);
    let mut number = 0;
    eventually("traces come again", PATIENCE, || {
        number += 1;
        crate::produce(&cluster, "orders", format!("again {number}\n"));
        collector
            .spans()
            .iter()
            .any(|span| span.name == "produce orders")
            .then_some(())
    });
    eventually("the log tells that it is back", PATIENCE, || {
        cluster
            .node(leader)
            .log()
            .contains("the collector takes traces again")
            .then_some(())
    });
    let log = cluster.node(leader).log();
    assert_eq!(log.matches("the collector takes no traces").count(), 1, "{log}");
}

#[test]
fn calls_are_spans_of_the_trace_in_which_a_program_makes_them_whatever_is_answered() {
    let collector = Collector::start();
    let cluster = start(TestCluster::prepare(3), &collector, "grpc", "0");
    let load = |path: &Path| Profile::load(path).unwrap_or_else(|error| panic!("{error}"));
    let (profile, guest) = (load(cluster.profile()), load(&cluster.profile_for("acme", "guest")));
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let called = runtime.block_on(async {
        let (client, guest) = (
            Client::from_profile(&profile).await?,
            Client::from_profile(&guest).await?,
        );
        let topics = client.topics();
        topics.create("not-traced", CreateTopic::default()).await?;
        topics
            .create("orders", CreateTopic::default())
            .with_context(context())
            .await?;
        let refused = guest.access().tenants().with_context(context()).await;
        assert!(refused.is_err(), "{refused:?}");
        Ok::<_, Box<dyn std::error::Error>>(())
    });
    called.unwrap_or_else(|error| panic!("{error}"));

    let created = told(&collector, "TopicService/CreateTopic", "rpc.grpc.status_code", "0");
    assert_eq!((created.parent.as_str(), created.error.as_str()), (SPAN, ""));
    assert_eq!(
        created.attributes["highwater.client"],
        "spiffe://test/tenant/acme/client/app"
    );
    // Refused before any handler sees it.
    let refused = told(&collector, "AccessService/ListTenants", "rpc.grpc.status_code", "7");
    assert_eq!(refused.parent, SPAN);
    assert_ne!(refused.error, "");
    let spans = collector.spans();
    let others = spans.iter().filter(|span| span.trace != TRACE || span.parent != SPAN);
    assert_eq!(others.count(), 0, "{spans:#?}");
}

#[test]
fn a_request_of_the_gateway_is_a_span_of_its_callers_trace_and_what_it_appends_a_part_of_it() {
    if !has_curl() {
        return;
    }
    let collector = Collector::start();
    let mut cluster = start(TestCluster::prepare(3), &collector, "grpc", "0");
    cluster.create_topic("orders", 1);
    let leader = cluster.leader("orders", 0);
    let other = (leader + 1) % 3;
    let ask = |topic: &str, more: &str| {
        let line = format!(
            "curl --silent --show-error --cacert \"$CA\" --cert \"$CERT\" --key \"$KEY\" -H 'traceparent: {PARENT}' {more} \
             \"https://$NODE/v1/topics/{topic}/records\""
        );
        shell(&cluster, other, &line)
    };
    let appended = ask("orders", r#"-d '{"records":[{"value":"eA=="}]}'"#);
    assert_eq!(appended["base_offset"], 0, "{appended}");
    let spans = eventually("the whole way of the request is told", PATIENCE, || {
        let spans = collector.trace(TRACE);
        let is_told = |name: &str| spans.iter().any(|span| span.name == name && span.error.is_empty());
        let all = ["POST /v1/topics/{topic}/records", "produce orders", "commit"];
        all.into_iter().all(is_told).then_some(spans)
    });
    let request = only(&spans, "POST /v1/topics/{topic}/records");
    assert_eq!(request.parent, SPAN);
    assert_eq!(request.attributes["http.response.status_code"], "200");
    // The node that was asked has looked first whether it leads.
    let mut tried: Vec<&CollectedSpan> = spans.iter().filter(|span| span.name == "produce orders").collect();
    tried.retain(|span| span.error.is_empty());
    let [produce] = tried[..] else { panic!("{spans:#?}") };
    assert_eq!(
        (&produce.parent, &only(&spans, "commit").parent),
        (&request.id, &produce.id)
    );
    let names: Vec<String> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    for (span, node) in [(request, other), (produce, leader)] {
        assert_eq!(span.attributes["service.instance.id"], names[node], "{span:#?}");
        assert_eq!(
            span.attributes["highwater.client"],
            "spiffe://test/tenant/acme/client/app"
        );
    }

    let nowhere = ask("nowhere", "");
    assert_eq!(nowhere["error"]["reason"], "TOPIC_NOT_FOUND", "{nowhere}");
    let read = told(
        &collector,
        "GET /v1/topics/{topic}/records",
        "error.type",
        "TOPIC_NOT_FOUND",
    );
    assert_eq!((read.parent.as_str(), read.error.as_str()), (SPAN, ""));
    assert_eq!(read.attributes["http.response.status_code"], "404");
}
