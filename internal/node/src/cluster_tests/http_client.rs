//! A small HTTP client, which sends what it is told to, and the description's schemas against real answers.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use super::*;

const DESCRIPTION: &str = include_str!("../gateway/openapi.json");

/// One connection.
pub(super) struct HttpClient {
    stream: TlsStream<TcpStream>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) json: Value,
}

impl HttpClient {
    pub(super) async fn connect(port: u16, files: TlsFiles) -> HttpClient {
        let mut config = client_config(files);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        HttpClient {
            stream: connector.connect(name, tcp).await.unwrap(),
        }
    }

    pub(super) async fn get(&mut self, target: &str) -> HttpAnswer {
        self.send(&request("GET", target, "")).await;
        self.answer().await
    }

    pub(super) async fn post(&mut self, topic: &str, body: &Value) -> HttpAnswer {
        let target = format!("/v1/topics/{topic}/records");
        self.send(&request("POST", &target, &body.to_string())).await;
        self.answer().await
    }

    pub(super) async fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub(super) async fn answer(&mut self) -> HttpAnswer {
        timeout(PATIENCE, self.read_answer()).await.expect("an answer")
    }

    /// Whether the other side has closed the connection and said nothing before.
    pub(super) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest))
            .await
            .expect("an end");
        read.is_err() || rest.is_empty()
    }

    async fn read_answer(&mut self) -> HttpAnswer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        HttpAnswer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            json: serde_json::from_slice(&body).unwrap_or(Value::Null),
            head,
        }
    }
}

impl HttpAnswer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The answer, if it is as described under that name.
    #[track_caller]
    pub(super) fn ok(self, schema: &str) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.conforms(schema)
    }

    /// The error, if it has this status and reason and is as described.
    #[track_caller]
    pub(super) fn refused(self, status: u16, reason: &str) -> Value {
        assert_eq!(
            (self.status, &self.json["error"]["reason"]),
            (status, &reason.into()),
            "{self:?}"
        );
        self.conforms("Error")["error"].clone()
    }

    #[track_caller]
    fn conforms(self, schema: &str) -> Value {
        let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
        let schema = &description["components"]["schemas"][schema];
        assert!(schema.is_object(), "no such schema");
        if let Err(why) = conforms(&description, schema, &self.json) {
            panic!("{why}: {}", self.json);
        }
        self.json
    }
}

pub(super) fn request(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The parts of JSON Schema that the description uses for answers.
fn conforms(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let path = name.strip_prefix('#').unwrap();
        return conforms(root, root.pointer(path).unwrap(), value);
    }
    let allowed = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        Value::Null => vec![kind(value).into()],
        one => vec![one.clone()],
    };
    if !allowed.contains(&kind(value).into()) {
        return Err(format!("{value} is none of {allowed:?}"));
    }
    let is_listed = schema["enum"].as_array().is_none_or(|listed| listed.contains(value));
    let is_constant = schema.get("const").is_none_or(|constant| constant == value);
    let is_in_range = schema["minimum"]
        .as_i64()
        .is_none_or(|least| value.as_i64().is_none_or(|value| value >= least));
    if !(is_listed && is_constant && is_in_range) {
        return Err(format!("{value} does not conform to {schema}"));
    }
    for item in value.as_array().into_iter().flatten() {
        conforms(root, &schema["items"], item)?;
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Err(format!("{name} is missing"));
        }
    }
    for (name, field) in fields {
        match schema["properties"].get(name) {
            Some(described) => conforms(root, described, field)?,
            None if schema["additionalProperties"] == false => return Err(format!("{name} is not described")),
            None => {}
        }
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
