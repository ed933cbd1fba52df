//! Connecting: who is accepted, who is refused, and whether the user is told why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use highwater::{
    Client, ConnectionProblem, Error, News, NodeFailure, Picture, Profile, Resolver, TlsFiles, WatchResolver,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::certificates::{Authority, EXPIRED, NOT_YET_VALID, VALID};
use crate::cluster::{Cluster, TOPIC};
use crate::{server, until, within};

/// Connects, and expects that no node could be reached.
async fn failures(builder: highwater::ClientBuilder) -> Vec<NodeFailure> {
    match within(builder.connect_deadline(Duration::from_secs(10)).connect()).await {
        Err(Error::NoNodeReachable { failures }) => failures,
        other => panic!("{other:?}"),
    }
}

/// A node with these files, and what a good client is told about it.
async fn problem_with_node(cluster: &Cluster, files: &TlsFiles) -> ConnectionProblem {
    let (runtime, address) = server::start(0, ([127, 0, 0, 1], 0).into(), files, cluster.shared.clone());
    let began = Instant::now();
    let failures = failures(cluster.builder().seeds([address.to_string()])).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "certificates do not get better by waiting"
    );
    runtime.shutdown_background();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].node, address.to_string());
    failures[0].problem.clone()
}

#[tokio::test]
async fn one_seed_suffices_and_a_profile_holds_all_that_is_needed() {
    let cluster = Cluster::start(3, 1);
    let files = cluster.authority.client();
    let profile = Profile {
        addresses: vec![cluster.addresses()[1].clone()],
        ca: files.ca,
        cert: files.cert,
        key: files.key,
        cluster_name: None,
        rack: None,
    };
    let path = cluster.path().join("profile.toml");
    std::fs::write(&path, profile.to_toml()).unwrap();
    let client = within(Client::from_profile(&Profile::load(&path).unwrap()))
        .await
        .unwrap();
    assert_eq!(client.cluster().picture().nodes().count(), 3);
    assert_eq!(within(client.cluster().describe()).await.unwrap().cluster_name, "test");
}

#[tokio::test]
async fn when_nobody_answers_each_seed_is_listed_with_its_cause() {
    let cluster = Cluster::start(1, 1);
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let builder = cluster.builder().seeds([gone.clone(), "no port".to_owned()]);
    let error = within(builder.connect_deadline(Duration::from_secs(1)).connect())
        .await
        .unwrap_err();
    let Error::NoNodeReachable { failures } = &error else {
        panic!("{error}");
    };
    assert!(matches!(failures[0].problem, ConnectionProblem::Tcp(_)), "{error}");
    assert!(matches!(failures[1].problem, ConnectionProblem::Address(_)), "{error}");
    assert!(error.to_string().contains(&gone), "{error}");
}

/// Listens, but never says anything.
async fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[tokio::test]
async fn silent_seeds_do_not_use_up_the_time_of_the_others() {
    let cluster = Cluster::start(1, 1);
    let (_one, one) = silent().await;
    let (_other, other) = silent().await;
    let began = Instant::now();
    let builder = cluster.builder().seeds([one, other, cluster.addresses()[0].clone()]);
    within(builder.connect()).await.unwrap();
    // A silent node is given up after 3 s.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn connecting_ends_at_its_deadline_also_when_everybody_is_silent() {
    let cluster = Cluster::start(1, 1);
    let (_one, one) = silent().await;
    let (_other, other) = silent().await;
    let began = Instant::now();
    let builder = cluster.builder().seeds([one.clone(), other.clone()]);
    let error = within(builder.deadline(Duration::from_millis(300)).connect())
        .await
        .unwrap_err()
        .to_string();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    for address in [one, other] {
        assert!(error.contains(&format!("{address}: no answer within 300ms")), "{error}");
    }
}

#[tokio::test]
async fn a_port_without_tls_is_recognised() {
    let cluster = Cluster::start(1, 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let builder = cluster
        .builder()
        .seeds([address])
        .connect_deadline(Duration::from_secs(2));
    let error = within(builder.connect()).await.unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn nodes_with_wrong_certificates_are_refused_with_the_reason() {
    let cluster = Cluster::start(1, 1);
    let foreign = Authority::new(&cluster.path().join("foreign"));
    let ours = &cluster.authority;
    let wrong = [
        (foreign.node("x"), "not signed by our authority"),
        (ours.sign("x1", "spiffe://test/node/x", EXPIRED), "expired"),
        (ours.sign("x2", "spiffe://test/node/x", NOT_YET_VALID), "not valid yet"),
        (ours.sign("x3", "spiffe://other/node/x", VALID), "cluster \"other\""),
        (
            ours.sign("x4", "spiffe://test/tenant/acme/client/x", VALID),
            "a client, not to a node",
        ),
        (ours.sign("x5", "https://test/node/x", VALID), "is not an identity"),
    ];
    for (files, reason) in wrong {
        // The node itself must accept the client, so that only its own certificate is at fault.
        let files = TlsFiles {
            ca: ours.client().ca,
            ..files
        };
        let problem = problem_with_node(&cluster, &files).await;
        assert!(matches!(problem, ConnectionProblem::NodeCertificate(_)), "{problem}");
        assert!(problem.to_string().contains(reason), "{problem}, expected: {reason}");
    }
}

#[tokio::test]
async fn a_client_with_a_foreign_certificate_learns_that_it_was_refused() {
    let cluster = Cluster::start(1, 1);
    let foreign = Authority::new(&cluster.path().join("foreign"));
    let files = TlsFiles {
        ca: cluster.authority.client().ca,
        ..foreign.sign("client", "spiffe://test/tenant/acme/client/app", VALID)
    };
    let failures = failures(cluster.builder_with(files)).await;
    let problem = &failures[0].problem;
    assert!(matches!(problem, ConnectionProblem::OwnCertificate(_)), "{problem}");
}

#[tokio::test]
async fn unusable_files_are_named_with_the_reason() {
    let cluster = Cluster::start(1, 1);
    let good = cluster.authority.client();
    let uri = "spiffe://test/tenant/acme/client/app";
    let garbage = cluster.path().join("garbage.pem");
    std::fs::write(&garbage, "nothing").unwrap();
    let other_key = cluster.authority.sign("other", uri, VALID).key;
    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = good.clone();
        change(&mut files);
        files
    };
    let cases = [
        (
            cluster.authority.sign("expired", uri, EXPIRED),
            "expired.pem",
            "expired at",
        ),
        (
            cluster.authority.sign("early", uri, NOT_YET_VALID),
            "early.pem",
            "not valid before",
        ),
        (
            cluster.authority.sign("nobody", "https://x", VALID),
            "nobody.pem",
            "is not an identity",
        ),
        (
            with(&|files| files.ca = "/nonexistent/ca.pem".into()),
            "/nonexistent/ca.pem",
            "cannot be read",
        ),
        (
            with(&|files| files.cert = garbage.clone()),
            "garbage.pem",
            "no certificate",
        ),
        (
            with(&|files| files.key = garbage.clone()),
            "garbage.pem",
            "nothing of the kind",
        ),
        (
            with(&|files| files.key = other_key.clone()),
            "other.key",
            "does not fit the certificate",
        ),
    ];
    for (files, file, reason) in cases {
        let error = within(cluster.builder_with(files).connect()).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::File { .. }), "{text}");
        assert!(
            text.contains(file) && text.contains(reason),
            "{text}; expected: {file}: {reason}"
        );
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn the_picture_follows_the_cluster_also_when_the_watched_node_dies() {
    let mut cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    within(async {
        let leader = |client: &Client| {
            let picture = client.cluster().picture();
            let topic = picture.topic("acme", TOPIC).unwrap();
            topic.partitions[0].leader.clone()
        };
        assert_eq!(leader(&client), "a");
        cluster.set_leader(0, 1);
        until("the leader is b", || leader(&client) == "b").await;

        let watched = cluster
            .shared
            .lock()
            .watchers
            .iter()
            .position(|watchers| *watchers > 0)
            .unwrap();
        cluster.kill(watched);
        cluster.shared.lock().watchers[watched] = 0;
        until("another node is watched", || {
            cluster.shared.lock().watchers.iter().sum::<usize>() > 0
        })
        .await;
        cluster.set_leader(0, 2);
        until("the leader is c", || leader(&client) == "c").await;

        let mut pictures = client.cluster().watch();
        assert_eq!(pictures.next().await.unwrap().nodes().count(), 3);
    })
    .await;
}

#[tokio::test]
async fn nodes_without_a_watch_are_polled() {
    let cluster = Cluster::start(1, 1);
    cluster.shared.lock().watch_is_implemented = false;
    let client = within(cluster.client()).await;
    assert!(client.cluster().picture().topic("acme", TOPIC).is_some());
    cluster.shared.lock().nodes[0].rack = "r1".to_owned();
    let rack = || client.cluster().picture().node("a").map(|node| node.rack.clone());
    until("the change is seen", || rack().as_deref() == Some("r1")).await;
}

/// The default resolver without one node.
#[derive(Debug)]
struct Without(WatchResolver, &'static str);

impl Resolver for Without {
    fn picture(&self) -> Arc<Picture> {
        let mut picture = Picture::clone(&self.0.picture());
        picture.retain_nodes(|node| node.name != self.1);
        Arc::new(picture)
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }
    fn learn(&self, news: News) -> bool {
        self.0.learn(news)
    }
}

#[tokio::test]
async fn the_default_resolver_can_be_wrapped_and_follows_the_cluster_all_the_same() {
    let cluster = Cluster::start(3, 1);
    let settings = cluster.builder();
    let resolver = Without(within(WatchResolver::connect(&settings)).await.unwrap(), "c");
    let client = within(settings.resolver(Arc::new(resolver)).connect()).await.unwrap();
    within(async {
        let mut pictures = client.cluster().watch();
        let names = |picture: &Picture| picture.nodes().map(|node| node.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&pictures.next().await.unwrap()), ["a", "b"]);
        crate::consuming::fill(&client, 0, 0..3).await;
        for _ in 0..10 {
            let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
            crate::consuming::take(&mut consumer, 3).await;
            assert_eq!(consumer.served_by(0).unwrap(), "b");
        }
        cluster.set_leader(0, 1);
        let leads = |picture: &Picture| picture.topic("acme", TOPIC).unwrap().partitions[0].leader == "b";
        while !leads(&pictures.next().await.unwrap()) {}
    })
    .await;
    let seedless = Client::builder().tls(cluster.authority.client());
    let refused = within(WatchResolver::connect(&seedless)).await;
    assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
}
