//! What browsers are served, without a browser (`browser/run` has one).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::DEADLINE;
use crate::server::Server;

fn ask(address: &str, path: &str, header: &str) -> BufReader<TcpStream> {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        connection,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\n{header}Connection: close\r\n\r\n"
    )
    .unwrap();
    BufReader::new(connection)
}

/// Head and body of an answer that ends.
pub(crate) fn get(address: &str, path: &str) -> (String, String) {
    let mut answer = String::new();
    ask(address, path, "").read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase().replacen("http", "HTTP", 1), body.to_owned())
}

/// The next `count` events of a stream: position as the browser keeps it, and what it is given.
fn events(server: &Server, path: &str, header: &str, count: usize) -> Vec<(u64, Value)> {
    let lines = ask(&server.web, path, header).lines().map_while(Result::ok);
    let (mut id, mut events) = (None, Vec::new());
    for line in lines {
        if let Some(told) = line.strip_prefix("id: ") {
            id = Some(told.parse().unwrap());
        }
        if let Some(data) = line.strip_prefix("data: ") {
            events.push((id.take().unwrap(), serde_json::from_str(data).unwrap()));
        }
        if events.len() == count {
            break;
        }
    }
    events
}

/// The page with what guards it, and a stream that goes on behind what the browser has seen.
pub(crate) fn page_and_events(server: &Server) {
    let address = &server.web;
    for (path, kind) in [
        ("/", "text/html"),
        ("/feed.js", "text/javascript"),
        ("/feed.css", "text/css"),
    ] {
        let (head, _) = get(address, path);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains(&format!("content-type: {kind}")), "{head}");
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{head}"
        );
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    }
    assert_eq!(get(address, "/deployments").1, "[1]");

    let all = events(server, "/events/1", "", 3);
    let ids: Vec<u64> = all.iter().map(|(_, event)| event["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 3, 2]);
    assert_eq!(all[1].1["message"], "<b>three</b>");
    let seen = all[0].0;
    assert_eq!(
        events(server, "/events/1", &format!("Last-Event-ID: {seen}\r\n"), 2),
        all[1..]
    );
    assert_eq!(events(server, &format!("/events/1?after={seen}"), "", 2), all[1..]);
    what_is_no_deployment(address);
}

fn what_is_no_deployment(address: &str) {
    for (path, words) in [
        ("/events/x", "deployment: a number"),
        ("/events/0", "deployment: 0 is not allowed"),
        ("/events/1?from=2", "after=POSITION"),
    ] {
        let (head, body) = get(address, path);
        assert!(
            head.starts_with("HTTP/1.1 400") && body.contains(words),
            "{head} {body}"
        );
    }
    assert!(get(address, "/nothing").0.starts_with("HTTP/1.1 404"));
}

/// There is a stream, and all that it says is that the log does not have what was seen.
pub(crate) fn is_told_to_begin_anew(server: &Server, path: &str) {
    let (head, body) = get(&server.web, path);
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("content-type: text/event-stream"),
        "{head}"
    );
    assert!(
        body.contains("event: beyond\n") && body.contains("data: position 2 is wanted"),
        "{body}"
    );
}
