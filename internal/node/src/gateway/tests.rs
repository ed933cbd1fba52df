//! Records to JSON and back, and the description against what it describes.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use highwater_proto::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, HEADER_NAME_BYTES_MAX, RECORD_HEADERS_MAX, RECORD_KEY_BYTES_MAX,
};
use highwater_proto::v1::{Compression, ConsumeResponse, Header, Reason, Record, RecordBatch, StoredBatch};
use prost::Message;
use serde_json::{Value, json};

use super::batches::{Cut, Encoded, to_json};
use super::json::AppendBody;
use super::limits::{
    ANSWER_BYTES_PER_S_LEAST, BODY_BYTES_MAX, BUFFERED_BYTES_MAX, FETCH_BYTES_DEFAULT, FETCH_BYTES_MAX,
    FETCH_RECORDS_DEFAULT, FETCH_RECORDS_MAX, PRINCIPAL_BUFFERED_BYTES_MAX, WAIT_MS_MAX,
};
use super::{fetch, routes};
use crate::status::Problem;

const ALL: Cut = Cut {
    offset: 0,
    records_max: FETCH_RECORDS_MAX,
    bytes_max: FETCH_BYTES_MAX,
};

fn encoded(body: &str) -> Result<Encoded, Problem> {
    Encoded::new(&AppendBody::read(body.as_bytes()).unwrap().records, 99)
}

fn stored(base_offset: u64, records: Vec<Record>) -> StoredBatch {
    let record_count = records.len() as u32;
    let batch = RecordBatch {
        records,
        compressed_records: Bytes::new(),
    };
    sealed(base_offset, record_count, Compression::None, &batch)
}

fn sealed(base_offset: u64, record_count: u32, compression: Compression, batch: &RecordBatch) -> StoredBatch {
    let batch = Bytes::from(batch.encode_to_vec());
    StoredBatch {
        base_offset,
        record_count,
        compression: compression as i32,
        crc32c: crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &batch) as u32,
        append_time_ms: 1,
        batch,
    }
}

fn values(base_offset: u64, values: &[&'static str]) -> StoredBatch {
    let record = |value: &&'static str| Record {
        value: Bytes::from_static(value.as_bytes()),
        ..Default::default()
    };
    stored(base_offset, values.iter().map(record).collect())
}

fn read(batches: Vec<StoredBatch>, cut: Cut) -> Result<Value, Problem> {
    let response = ConsumeResponse {
        batches,
        high_watermark: 100,
        log_start: 2,
        node: String::new(),
    };
    to_json(&response, cut).map(|json| serde_json::from_slice(&json).unwrap())
}

fn offsets(answer: &Value) -> Vec<u64> {
    let records = answer["records"].as_array().unwrap();
    records
        .iter()
        .map(|record| record["offset"].as_u64().unwrap())
        .collect()
}

#[test]
fn records_come_out_as_they_went_in() {
    let body = r#"{"records":[{"key":"aw==","value":"TGV0J3MgR28gIzEK","timestamp_ms":-5,
        "headers":[{"name":"b","value":"AQ=="},{"name":"a","value":""},{"name":"b","value":"Ag=="}]},{"value":""}]}"#;
    let request = encoded(body).unwrap().request("orders", 3, producer(), Some(9));
    assert_eq!(
        (request.record_count, request.partition, request.expected_offset),
        (2, 3, Some(9))
    );
    let batch = RecordBatch::decode(request.batch).unwrap();
    let answer = read(vec![sealed(7, 2, Compression::None, &batch)], Cut { offset: 7, ..ALL }).unwrap();
    assert_eq!(
        answer,
        json!({
            "records": [
                {"offset": 7, "timestamp_ms": -5, "key": "aw==", "value": "TGV0J3MgR28gIzEK", "headers": [
                    {"name": "b", "value": "AQ=="}, {"name": "a", "value": ""}, {"name": "b", "value": "Ag=="}]},
                {"offset": 8, "timestamp_ms": 99, "key": null, "value": "", "headers": []},
            ],
            "next_offset": 9, "high_watermark": 100, "log_start": 2,
        })
    );
}

fn producer() -> super::json::Producer {
    super::json::Producer {
        id: crate::hex::Id::random(),
        sequence: 0,
    }
}

#[test]
fn bad_base64_is_named_with_record_and_field() {
    for (record, expected) in [
        (r#"{"value":"a"}"#, "`value`: of records[1] is not base64"),
        (r#"{"value":"aGk"}"#, "`value`: of records[1] is not base64"),
        (r#"{"value":"","key":"!"}"#, "`key`: of records[1] is not base64"),
        (
            r#"{"value":"","headers":[{"name":"n","value":"-"}]}"#,
            "`headers`: of records[1]",
        ),
    ] {
        let why = encoded(&format!(r#"{{"records":[{{"value":""}},{record}]}}"#))
            .unwrap_err()
            .to_string();
        assert!(why.contains(expected), "{record}: {why}");
    }
}

#[test]
fn keys_decide_together_or_not_at_all() {
    let of = |keys: &[&str]| {
        let record = |key: &&str| json!({ "key": key, "value": "" });
        let mut records: Vec<Value> = keys.iter().map(record).collect();
        records.push(json!({ "value": "" }));
        encoded(&json!({ "records": records }).to_string()).unwrap()
    };
    // "21" goes to 0 of 12: 1173551340 is divisible by it.
    assert_eq!(of(&["MjE=", "MjE="]).partition(12).unwrap(), Some(0));
    assert_eq!(of(&[]).partition(12).unwrap(), None);
    let apart = of(&["MjE=", "YWJj"]);
    assert_eq!(apart.partition(1).unwrap(), Some(0));
    let why = apart.partition(12).unwrap_err().to_string();
    assert!(why.contains("several partitions, 0 and"), "{why}");
}

#[test]
fn answers_begin_and_end_inside_of_batches() {
    let batches = || vec![values(10, &["a", "b", "c"]), values(13, &["d", "e"])];
    let cut = |offset, records_max| Cut {
        offset,
        records_max,
        ..ALL
    };
    let some = read(batches(), cut(11, 3)).unwrap();
    assert_eq!((offsets(&some), &some["next_offset"]), (vec![11, 12, 13], &json!(14)));
    let rest = read(batches(), cut(14, 3)).unwrap();
    assert_eq!((offsets(&rest), &rest["next_offset"]), (vec![14], &json!(15)));
    let none = read(vec![], cut(20, 3)).unwrap();
    assert_eq!((offsets(&none), &none["next_offset"]), (vec![], &json!(20)));
}

#[test]
fn bytes_are_limited_but_a_single_record_is_given_whole_up_to_a_limit() {
    let long: &'static str = Box::leak("x".repeat(3000).into_boxed_str());
    let batch = || vec![values(0, &["a", long, "b"])];
    let cut = |offset, bytes_max| Cut {
        offset,
        bytes_max,
        ..ALL
    };
    assert_eq!(offsets(&read(batch(), cut(0, 2000)).unwrap()), [0]);
    assert_eq!(offsets(&read(batch(), cut(1, 2000)).unwrap()), [1]);
    let all = read(batch(), cut(0, 100_000)).unwrap();
    let exactly = all["records"].to_string().len() as u64 - 2;
    assert_eq!(offsets(&read(batch(), cut(0, exactly)).unwrap()), [0, 1, 2]);
    assert_eq!(offsets(&read(batch(), cut(0, exactly - 1)).unwrap()), [0, 1]);
    let huge: &'static str = Box::leak("x".repeat(FETCH_BYTES_MAX as usize).into_boxed_str());
    // Whoever goes on behind it reads the rest of its batch.
    let batch = || vec![values(0, &["a", huge, "b"])];
    assert_eq!(offsets(&read(batch(), cut(0, FETCH_BYTES_MAX)).unwrap()), [0]);
    let error = read(batch(), cut(1, FETCH_BYTES_MAX)).unwrap_err().to_json();
    assert_eq!(
        (&error["reason"], &error["field"], &error["limit"]),
        (&json!("TOO_LARGE"), &json!("record"), &json!(FETCH_BYTES_MAX))
    );
    assert_eq!(error["range"], json!({ "log_start": 1, "high_watermark": 2 }));
    assert_eq!(offsets(&read(batch(), cut(2, FETCH_BYTES_MAX)).unwrap()), [2]);
}

#[test]
fn a_record_that_cannot_be_read_is_told_for_its_own_offset() {
    // A header whose name is no text, as only a compressed batch can bring it here.
    let header = [&[0x1a, 4, 0x0a, 2][..], &[0xff, 0xfe]].concat();
    let record = |content: &[u8]| [&[0x0a, content.len() as u8][..], content].concat();
    let content = [record(&[]), record(&header), record(&[])].concat();
    let batch = || vec![compressed(5, 3, &content)];
    let before = read(batch(), Cut { offset: 5, ..ALL }).unwrap();
    assert_eq!((offsets(&before), &before["next_offset"]), (vec![5], &json!(6)));
    let refused = read(batch(), Cut { offset: 6, ..ALL }).unwrap_err();
    let Problem::BrokenBatch { range, .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!((range.log_start, range.high_watermark), (6, 7));
    assert_eq!(offsets(&read(batch(), Cut { offset: 7, ..ALL }).unwrap()), [7]);
}

#[test]
fn compressed_batches_are_opened_up_to_the_limit_and_broken_ones_are_told_for_their_offsets() {
    let records = RecordBatch {
        records: vec![Record::default(); 40],
        compressed_records: Bytes::new(),
    };
    let whole = compressed(5, 40, &records.encode_to_vec());
    assert_eq!(offsets(&read(vec![whole], Cut { offset: 44, ..ALL }).unwrap()), [44]);
    let bomb = compressed(5, 40, &vec![0; 64 * 1024 * 1024]);
    let refused = read(vec![bomb.clone()], Cut { offset: 6, ..ALL }).unwrap_err();
    let Problem::BrokenBatch { range, why } = &refused else {
        panic!("{refused}")
    };
    assert_eq!((range.log_start, range.high_watermark), (5, 45));
    assert!(why.contains("more than"), "{why}");
    // What comes before it is given first.
    let before = read(vec![values(3, &["a", "b"]), bomb], Cut { offset: 3, ..ALL }).unwrap();
    assert_eq!((offsets(&before), &before["next_offset"]), (vec![3, 4], &json!(5)));
}

fn compressed(base_offset: u64, record_count: u32, content: &[u8]) -> StoredBatch {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    std::io::Write::write_all(&mut encoder, content).unwrap();
    let batch = RecordBatch {
        records: vec![],
        compressed_records: encoder.finish().unwrap().into(),
    };
    sealed(base_offset, record_count, Compression::Lz4, &batch)
}

#[test]
fn names_of_headers_are_escaped() {
    let record = Record {
        headers: vec![Header {
            name: "a\"\u{1}ö".to_owned(),
            value: Bytes::new(),
        }],
        ..Default::default()
    };
    let answer = read(vec![stored(0, vec![record])], ALL).unwrap();
    assert_eq!(answer["records"][0]["headers"][0]["name"], "a\"\u{1}ö");
}

// ------------------------------------------------------------------------------------------------ the description

fn description() -> Value {
    serde_json::from_str(routes::DESCRIPTION).unwrap()
}

#[test]
fn the_description_has_every_path_and_method() {
    let described = description();
    let paths = described["paths"].as_object().unwrap();
    assert_eq!(paths.len(), routes::ROUTES.len());
    for (path, methods) in routes::ROUTES {
        for method in methods.split(", ") {
            assert!(paths[path][method.to_lowercase()].is_object(), "{method} {path}");
        }
    }
}

#[test]
fn the_description_has_every_reason() {
    let described = description();
    let reasons = &described["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["reason"]["enum"];
    let described: Vec<&str> = reasons.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let known = (1..).map_while(|number| Reason::try_from(number).ok());
    let mut expected: Vec<&str> = known
        .map(|reason| reason.as_str_name().strip_prefix("REASON_").unwrap())
        .collect();
    expected.extend(["PATH_NOT_FOUND", "METHOD_NOT_ALLOWED"]);
    assert_eq!(described, expected);
}

#[test]
fn the_description_has_every_parameter_and_limit() {
    let described = description();
    let records = &described["paths"]["/v1/topics/{topic}/records"];
    let parameters = records["get"]["parameters"].as_array().unwrap();
    let names: Vec<&Value> = parameters.iter().map(|parameter| &parameter["name"]).collect();
    assert_eq!(names, fetch::PARAMETERS);
    let limits = |name: &str| {
        let found = parameters.iter().find(|parameter| parameter["name"] == name).unwrap();
        (found["schema"]["default"].clone(), found["schema"]["maximum"].clone())
    };
    assert_eq!(limits("max"), (json!(FETCH_RECORDS_DEFAULT), json!(FETCH_RECORDS_MAX)));
    assert_eq!(
        limits("max_bytes"),
        (json!(FETCH_BYTES_DEFAULT), json!(FETCH_BYTES_MAX))
    );
    assert_eq!(limits("wait_ms"), (json!(0), json!(WAIT_MS_MAX)));
    let schemas = &described["components"]["schemas"];
    assert_eq!(
        schemas["Append"]["properties"]["records"]["maxItems"],
        BATCH_RECORDS_MAX
    );
    assert_eq!(
        schemas["NewRecord"]["properties"]["headers"]["maxItems"],
        RECORD_HEADERS_MAX
    );
    let text = routes::DESCRIPTION;
    for limit in [
        BODY_BYTES_MAX,
        BATCH_BYTES_MAX,
        RECORD_KEY_BYTES_MAX,
        HEADER_NAME_BYTES_MAX,
    ] {
        assert!(text.contains(&format!("At most {limit} bytes")), "{limit}");
    }
}

#[test]
fn the_description_and_the_page_agree_on_the_limits() {
    let page = include_str!("../../../../docs/gateway.md");
    let grouped = |number: u64| {
        let digits = number.to_string();
        let parts: Vec<&str> = digits
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(|part| std::str::from_utf8(part).unwrap())
            .collect();
        parts.join(",")
    };
    let limits = [
        FETCH_RECORDS_DEFAULT,
        FETCH_RECORDS_MAX,
        FETCH_BYTES_DEFAULT,
        FETCH_BYTES_MAX,
        WAIT_MS_MAX,
    ];
    for limit in limits
        .into_iter()
        .chain([BODY_BYTES_MAX as u64, u64::from(BATCH_RECORDS_MAX)])
        .chain([BUFFERED_BYTES_MAX as u64, PRINCIPAL_BUFFERED_BYTES_MAX as u64])
        .chain([ANSWER_BYTES_PER_S_LEAST])
    {
        assert!(page.contains(&grouped(limit)), "{limit} is not on the page");
    }
}
