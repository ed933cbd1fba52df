//! A topic that is deleted and made again: what was known of the old one says nothing about the new one, and nobody goes on with it.

use std::fs;
use std::net::TcpStream;

use highwater_tests::{Finished, ReservedPort, TestCluster, eventually, http, run};
use highwater_users::samples;
use tokio::runtime::Runtime;

use crate::create_surely;
use crate::mail::Mail;
use crate::processes::{DEADLINE, connect, messages, start, users, welcomed};

/// Runs a service to its end, which it finds by itself.
fn ends(cluster: &TestCluster, arguments: &[&str], metrics_port: u16) -> Finished {
    let mut command = users(cluster, arguments);
    command.args(["--port", "0", "--metrics-port", &metrics_port.to_string()]);
    run(&mut command, DEADLINE)
}

fn says(ended: &Finished, words: &[&str]) {
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    for word in words {
        assert!(last.contains(word), "{word:?} is not in: {last}");
    }
}

#[test]
fn what_is_known_of_a_topic_that_was_made_again_is_refused() {
    let cluster = TestCluster::start(1);
    let mut server = start(&cluster, "serve", &["serve"]);
    let address = server.address("users");
    let (mail, relay) = Mail::start("nobody@users.example");
    let by_mail = [
        "email",
        "--group",
        "mail",
        "--smtp",
        &relay,
        "--progress",
        "mail.progress",
    ];
    all_are_welcomed_by_both(&cluster, &mail, &by_mail);

    let port = ReservedPort::take();
    std::thread::scope(|scope| {
        let page = scope.spawn(|| ends(&cluster, &["metrics"], port.number()));
        is_ready(&format!("127.0.0.1:{}", port.number()));
        cluster.run(&["topic", "delete", "user-added"]).success();
        is_refused(&cluster, "outbox.mbox", &["email"]);
        is_refused(&cluster, "mail.progress", &by_mail);
        says(&page.join().unwrap(), &["topic user-added was deleted and made again"]);
    });
    assert_eq!(mail.taken().len(), samples::COUNT);
    with_another_file_it_begins_anew(&cluster, &address);
    server.stop();
}

/// All samples, by one worker into its outbox, and by one with an SMTP server. Both have ended then.
fn all_are_welcomed_by_both(cluster: &TestCluster, mail: &Mail, by_mail: &[&str]) {
    let outbox = cluster.directory().join("outbox.mbox");
    let writer = start(cluster, "email", &["email"]);
    let sender = start(cluster, "mail", by_mail);
    eventually("all samples are welcomed twice", DEADLINE, || {
        (messages(&outbox).len() == samples::COUNT && mail.taken().len() == samples::COUNT).then_some(())
    });
    writer.stop();
    sender.stop();
}

fn is_ready(metrics: &str) {
    eventually("the page counts", DEADLINE, || {
        let is_there = TcpStream::connect(metrics).is_ok();
        (is_there && http::get(metrics, "/readyz").status == 200).then_some(())
    });
}

/// And the server, which has gone on, feeds the new topic.
fn with_another_file_it_begins_anew(cluster: &TestCluster, server: &str) {
    let worker = start(cluster, "second", &["email", "--outbox", "second.mbox"]);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async { create_surely(&mut connect(server).await, "new@users.example", "New", false).await });
    let outbox = cluster.directory().join("second.mbox");
    eventually("the new user is welcomed", DEADLINE, || {
        (welcomed(&outbox) == ["new@users.example"]).then_some(())
    });
    worker.stop();
}

fn is_refused(cluster: &TestCluster, file_name: &str, arguments: &[&str]) {
    let file = cluster.directory().join(file_name);
    let text = fs::read_to_string(&file).unwrap();
    let named = ["X-Highwater-Topic: ", "topic "].map(|name| text.lines().find_map(|line| line.strip_prefix(name)));
    let before: u64 = named.into_iter().flatten().next().unwrap().parse().unwrap();
    let ended = ends(cluster, arguments, 0);
    says(
        &ended,
        &[
            file_name,
            &format!("with the id {before};"),
            "the one that is there now has the id",
        ],
    );
    assert!(
        !ended.stderr.contains(&format!("has the id {before}:")),
        "{}",
        ended.stderr
    );
    assert_eq!(fs::read_to_string(file).unwrap(), text);
}
