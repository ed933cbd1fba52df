//! A day at school: who may do what, what is answered, and what the cache does.

use std::net::TcpListener;
use std::path::Path;
use std::thread;

use highwater_tests::http::{ask, get};
use highwater_tests::{Finished, eventually, run_with_input};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::http::{waiting, with_key};
use crate::program::{KEY, PATIENCE, Program, School, school};

#[test]
fn a_day_at_school() {
    let school = School::open();
    init_again_changes_nothing(&school);

    let courses = school.start_courses("courses.sqlite");
    let students = school.start_students("students.sqlite", &courses);
    let gateway = school.start_gateway(&students, &courses);
    [&courses, &students, &gateway].into_iter().for_each(is_healthy);
    errors_are_lines_of_json_if_that_is_wanted(&school);
    a_key_is_needed(&gateway);
    commands_are_answered(&gateway);
    lists_come_in_pages(&gateway);
    a_students_courses_are_cached_until_they_change(&gateway, &students);
    the_command_line_asks_the_gateway(&school, &gateway);
    nobody_may_more_than_it_needs(&school);
    // What is in the cache needs no service.
    courses.stop();
    assert_eq!(courses_of_ada(&gateway)["cached"], 1);
    requests_are_counted(&gateway, &students);
    students.stop();
    who_waits_is_answered_when_the_gateway_ends(&school, gateway);
    a_service_that_cannot_begin_yet_can_be_stopped(&school);
    an_event_of_a_newer_program_ends_who_reads_it(&school);
}

/// Each says so over gRPC, where it answers; also the gateway, and to anybody.
fn is_healthy(service: &Program) {
    let runtime = Runtime::new().unwrap();
    eventually("it is healthy", PATIENCE, || {
        let answer = runtime.block_on(async {
            let endpoint = Endpoint::from_shared(service.url()).unwrap();
            let mut client = HealthClient::new(endpoint.connect().await.unwrap());
            client.check(HealthCheckRequest::default()).await.unwrap()
        });
        (answer.into_inner().status() == ServingStatus::Serving).then_some(())
    });
}

fn errors_are_lines_of_json_if_that_is_wanted(school: &School) {
    for service in ["students", "courses", "gateway"] {
        let mut command = school.alone(service, Path::new("nowhere.toml"));
        command
            .args(["--port", "0", "--metrics-port", "0"])
            .env("LOG_FORMAT", "json");
        let ended = highwater_tests::run(&mut command, PATIENCE).ends_with(1, &["nowhere.toml"]);
        for line in ended.stderr.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(line["message"].is_string(), "{line}");
        }
    }
}

/// Nobody handles the command, and the client would wait for 30 seconds.
fn who_waits_is_answered_when_the_gateway_ends(school: &School, gateway: Program) {
    let commands = || {
        let read = "consume student-commands --from beginning --exit-at-end";
        as_client(school, &school.students, read).stdout().lines().count()
    };
    let before = commands();
    let address = gateway.address.clone();
    let client = thread::spawn(move || waiting(&address, "DELETE", "/v1/students/ada", ""));
    eventually("the command is in the queue", PATIENCE, || {
        (commands() > before).then_some(())
    });
    gateway.stop();
    let answer = client.join().unwrap().is(202);
    assert_eq!(answer.json()["state"], "pending");
    assert!(
        answer
            .header("location")
            .unwrap()
            .starts_with("/v1/commands/student-commands/")
    );
}

/// It is the last thing in its partition, and no service may go on behind it.
fn an_event_of_a_newer_program_ends_who_reads_it(school: &School) {
    as_client(school, &school.students, "produce students").success();
    for (service, profile) in [("students", &school.students), ("gateway", &school.gateway)] {
        let mut command = school.alone(service, profile);
        command.args(["--port", "0", "--metrics-port", "0"]);
        let ended = highwater_tests::run(&mut command, PATIENCE);
        ended.ends_with(1, &["is not understood, so it is of a newer program"]);
    }
}

/// Its cluster takes connections, and says nothing.
fn a_service_that_cannot_begin_yet_can_be_stopped(school: &School) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("localhost:{}", silent.local_addr().unwrap().port());
    let profiles = [&school.students, &school.courses, &school.gateway];
    for (service, profile) in ["students", "courses", "gateway"].into_iter().zip(profiles) {
        let lines = std::fs::read_to_string(profile).unwrap();
        let lines = lines.lines().map(|line| match line.starts_with("addresses") {
            true => format!("addresses = [{address:?}]\n"),
            false => format!("{line}\n"),
        });
        let profile = school.cluster.directory().join(format!("silent-{service}.toml"));
        std::fs::write(&profile, lines.collect::<String>()).unwrap();
        let name = format!("silent-{service}");
        let mut command = school.alone(service, &profile);
        let mut program = highwater_tests::Program::start(&name, &mut command, school.cluster.directory());
        let connection = silent.accept().unwrap();
        let metrics = program.address("metrics");
        get(&metrics, "/livez").is(200);
        let text = get(&metrics, "/readyz").is(503).text;
        assert!(text.starts_with("waiting for "), "{text}");
        program.stop();
        drop(connection);
    }
}

fn init_again_changes_nothing(school: &School) {
    let version = || {
        school
            .cluster
            .json(&["access", "list", "--tenant", "school", "--output", "json"])["version"]
            .clone()
    };
    let before = version();
    assert_eq!(
        school.init().success().stdout(),
        "It is so already; nothing was changed.\n"
    );
    assert_eq!(version(), before);
    // What somebody adds to what a client may do is taken away again.
    let too_much = [
        "access",
        "grant",
        "school/gateway",
        "produce",
        "--tenant",
        "school",
        "--topic",
        "students",
    ];
    school.cluster.run(&too_much).success();
    let mended = school.init().success().stdout();
    assert!(
        mended.contains("rule - school/gateway produce topic:students"),
        "{mended}"
    );
    assert_eq!(
        school.init().success().stdout(),
        "It is so already; nothing was changed.\n"
    );
}

fn as_client(school: &School, profile: &Path, words: &str) -> Finished {
    let arguments: Vec<&str> = words.split(' ').collect();
    run_with_input(
        &mut school.cluster.command_as(profile, &arguments),
        b"ada=x\n".to_vec(),
        PATIENCE,
    )
}

/// There are records in all topics, for from an empty one nothing is read.
fn nobody_may_more_than_it_needs(school: &School) {
    let (gateway, students, courses) = (&school.gateway, &school.students, &school.courses);
    let stranger = school.cluster.profile_for("school", "stranger");
    let operator = school.cluster.profile().to_owned();
    let read = |topic: &str| format!("consume {topic} --from beginning --exit-at-end");
    let write = |topic: &str| format!("produce {topic}");
    let (denied, hidden) = ("PERMISSION_DENIED", "TOPIC_NOT_FOUND");
    let cases = [
        (gateway, write("students"), denied),
        (gateway, write("courses"), denied),
        (gateway, read("student-commands"), denied),
        (students, write("student-commands"), denied),
        (students, write("courses"), denied),
        (students, read("course-commands"), hidden),
        (courses, write("course-commands"), denied),
        (courses, read("students"), hidden),
        (courses, read("student-commands"), hidden),
        (&stranger, read("students"), hidden),
        (&operator, read("school/students"), denied),
        (&operator, write("school/student-commands"), denied),
        (students, "topic create more".to_owned(), denied),
        (
            students,
            "consume student-commands --group other --member m --from beginning --exit-at-end".to_owned(),
            denied,
        ),
    ];
    for (profile, words, reason) in cases {
        // A node may not have heard of the last change yet.
        let what = format!("{}: {words}: {reason}", profile.display());
        eventually(&what, PATIENCE, || {
            let finished = as_client(school, profile, &words);
            (finished.code() != 0 && finished.stderr.contains(reason)).then_some(())
        });
    }
    no_service_may_prepare_the_cluster(school);
}

fn no_service_may_prepare_the_cluster(school: &School) {
    let mut init = self::school();
    init.arg("init").arg("--profile").arg(&school.students);
    let refused = highwater_tests::run(&mut init, PATIENCE);
    assert!(
        refused.code() == 1 && refused.stderr.contains("PERMISSION_DENIED"),
        "{}",
        refused.stderr
    );
}

fn a_key_is_needed(gateway: &Program) {
    let address = &gateway.address;
    let keys: [&[(&str, &str)]; 3] = [
        &[],
        &[("x-api-key", "another-key-of-some-length")],
        &[("x-api-key", "")],
    ];
    for headers in keys {
        for (method, path) in [("GET", "/v1/students"), ("POST", "/v1/courses"), ("GET", "/nothing")] {
            let refused = ask(address, method, path, headers, "{}").is(401);
            assert!(refused.text.contains("x-api-key"), "{refused:?}");
        }
    }
    with_key(address, "GET", "/nothing", "").is(404);
    with_key(address, "GET", "/v1/students", "").is(200);
    assert!(!gateway.log().contains(KEY));
}

fn commands_are_answered(gateway: &Program) {
    who_waits_is_told_what_became_of_a_command(&gateway.address);
    who_does_not_wait_can_ask(&gateway.address);
    changes_are_applied_or_rejected(&gateway.address);
    what_is_wrong_is_named(&gateway.address);
}

fn who_waits_is_told_what_became_of_a_command(address: &str) {
    let logic = r#"{"id":"logic","title":"Logic","credits":3}"#;
    let applied = waiting(address, "POST", "/v1/courses", logic).is(200);
    assert_eq!(applied.json()["state"], "applied");
    assert_eq!(applied.header("preference-applied"), Some("wait"));
    let course = json!({"id": "logic", "title": "Logic", "description": "", "credits": 3});
    assert_eq!(with_key(address, "GET", "/v1/courses/logic", "").is(200).json(), course);
    let rejected = waiting(address, "POST", "/v1/courses", logic).is(409);
    assert_eq!(rejected.json()["reason"], "there is a course logic already");
}

fn who_does_not_wait_can_ask(address: &str) {
    let ada = r#"{"id":"ada","name":"Ada","email":"ada@example.org"}"#;
    let taken = with_key(address, "POST", "/v1/students", ada).is(202);
    let command = taken.json()["command"].as_str().unwrap().to_owned();
    assert!(command.starts_with("student-commands/"), "{command}");
    let location = taken.header("location").unwrap().to_owned();
    assert_eq!(location, format!("/v1/commands/{command}"));
    eventually("it is applied", PATIENCE, || {
        let state = with_key(address, "GET", &location, "").is(200).json()["state"].clone();
        assert!(state == "pending" || state == "applied", "{state}");
        (state == "applied").then_some(())
    });
    let student = json!({"id": "ada", "name": "Ada", "email": "ada@example.org"});
    assert_eq!(with_key(address, "GET", "/v1/students/ada", "").is(200).json(), student);
}

fn changes_are_applied_or_rejected(address: &str) {
    let renamed = r#"{"name":"Ada L.","email":"ada@example.org"}"#;
    waiting(address, "PUT", "/v1/students/ada", renamed).is(200);
    assert_eq!(
        with_key(address, "GET", "/v1/students/ada", "").is(200).json()["name"],
        "Ada L."
    );
    let rejected = waiting(address, "DELETE", "/v1/students/eve", "").is(409);
    assert_eq!(rejected.json()["reason"], "there is no student eve");
}

/// Requests that are refused, and how.
const WRONG: [(&str, &str, &str, u16, &str); 17] = [
    (
        "POST",
        "/v1/students",
        r#"{"id":"Ada!","name":"x","email":"a@b"}"#,
        400,
        "id: 1 to 64",
    ),
    (
        "POST",
        "/v1/students",
        r#"{"id":"x","name":"","email":"a@b"}"#,
        400,
        "name: must not be empty",
    ),
    (
        "PUT",
        "/v1/students/ada",
        r#"{"name":"x"}"#,
        400,
        "body: missing field `email`",
    ),
    (
        "PUT",
        "/v1/students/ada",
        r#"{"name":"x","email":"a@b","age":3}"#,
        400,
        "body: unknown field `age`",
    ),
    (
        "PUT",
        "/v1/courses/logic",
        r#"{"title":"x","credits":61}"#,
        400,
        "credits: are 61; at most 60",
    ),
    ("GET", "/v1/students?limit=101", "", 400, "limit: is 101; at most 100"),
    (
        "GET",
        "/v1/commands/student-commands/x/1",
        "",
        400,
        "command: is not PARTITION/OFFSET",
    ),
    ("GET", "/v1/students/eve", "", 404, "there is no student eve"),
    ("GET", "/v1/courses/magic", "", 404, "there is no course magic"),
    ("GET", "/v1/commands/other/0/0", "", 404, "no such topic"),
    ("GET", "/v1/commands/student-commands/3/0", "", 404, "no such partition"),
    ("GET", "/v1/students/%FF", "", 400, "path: "),
    ("DELETE", "/v1/courses/%FF", "", 400, "path: "),
    ("PUT", "/v1/students/ada/courses/%FF", "", 400, "path: "),
    ("GET", "/v1/commands/%FF/0/0", "", 400, "path: "),
    ("PATCH", "/v1/students/ada", "{}", 405, "PATCH is not for this path"),
    ("PUT", "/v1/courses", "{}", 405, "PUT is not for this path"),
];

/// In JSON, whatever it is.
fn what_is_wrong_is_named(address: &str) {
    for (method, path, body, status, problem) in WRONG {
        let refused = with_key(address, method, path, body).is(status);
        let told = refused.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(told.contains(problem), "{refused:?}");
        assert_eq!(refused.header("allow").is_some(), status == 405, "{refused:?}");
    }
    let large = with_key(address, "POST", "/v1/students", &" ".repeat(20_000)).is(413);
    assert!(large.json()["error"].is_string(), "{large:?}");
}

fn lists_come_in_pages(gateway: &Program) {
    let address = &gateway.address;
    for id in ["algebra", "rhetoric"] {
        let course = json!({"id": id, "title": format!("About {id}")}).to_string();
        waiting(address, "POST", "/v1/courses", &course).is(200);
    }
    let ids = |path: &str| {
        let page = with_key(address, "GET", path, "").is(200).json();
        let courses = page["courses"].as_array().unwrap().iter();
        let ids: Vec<String> = courses
            .map(|course| course["id"].as_str().unwrap().to_owned())
            .collect();
        (ids.join(" "), page["more"].as_bool().unwrap())
    };
    assert_eq!(ids("/v1/courses?limit=2"), ("algebra logic".to_owned(), true));
    assert_eq!(ids("/v1/courses?limit=2&after=logic"), ("rhetoric".to_owned(), false));
    assert_eq!(ids("/v1/courses?title=about"), ("algebra rhetoric".to_owned(), false));
}

fn courses_of_ada(gateway: &Program) -> Value {
    with_key(&gateway.address, "GET", "/v1/students/ada/courses", "")
        .is(200)
        .json()
}

fn a_students_courses_are_cached_until_they_change(gateway: &Program, students: &Program) {
    let address = &gateway.address;
    waiting(address, "PUT", "/v1/students/ada/courses/logic", "").is(200);
    let first = courses_of_ada(gateway);
    assert_eq!(
        (&first["cached"], &first["enrolments"][0]["course"]["title"]),
        (&json!(0), &json!("Logic"))
    );
    assert_eq!(courses_of_ada(gateway)["cached"], 1);

    let renamed = r#"{"title":"Logic II","credits":3}"#;
    waiting(address, "PUT", "/v1/courses/logic", renamed).is(200);
    let changed = courses_of_ada(gateway);
    assert_eq!(
        (&changed["cached"], &changed["enrolments"][0]["course"]["title"]),
        (&json!(0), &json!("Logic II"))
    );
    assert_eq!(courses_of_ada(gateway)["cached"], 1);
    // What is about another course throws nothing out.
    waiting(address, "PUT", "/v1/courses/algebra", r#"{"title":"Algebra II"}"#).is(200);
    assert_eq!(courses_of_ada(gateway)["cached"], 1);

    waiting(address, "DELETE", "/v1/courses/logic", "").is(200);
    with_key(address, "GET", "/v1/courses/logic", "").is(404);
    let deleted = courses_of_ada(gateway);
    assert_eq!(
        (&deleted["cached"], &deleted["enrolments"][0]["state"]),
        (&json!(0), &json!("deleted"))
    );
    let metrics = get(&students.metrics, "/metrics").is(200).text;
    assert!(
        metrics.contains(r#"school_students_course_cache_total{outcome="invalidated"} 2"#),
        "{metrics}"
    );

    waiting(address, "PUT", "/v1/students/ada/courses/magic", "").is(200);
    assert_eq!(courses_of_ada(gateway)["enrolments"][1]["state"], "unknown");
    waiting(address, "DELETE", "/v1/students/ada/courses/magic", "").is(200);
}

fn the_command_line_asks_the_gateway(school: &School, gateway: &Program) {
    let kim = ["--name", "Kim", "--email", "kim@example.org"];
    let ask = |words: &str, more: &[&str]| school.ask(gateway, &[&words.split(' ').collect::<Vec<_>>(), more].concat());
    let told = |words: &str, more: &[&str]| -> Vec<Value> {
        let text = ask(words, more).success().stdout();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let created = told("create-student kim", &kim);
    assert_eq!(created[0]["state"], "applied");
    ask("create-student kim", &kim).fails_with(1, &["rejected: there is a student kim already"]);
    let command = created[0]["command"].as_str().unwrap();
    assert_eq!(told(&format!("command {command}"), &[])[0]["state"], "applied");

    told(
        "update-student kim",
        &["--name", "Kim L.", "--email", "kim@example.org"],
    );
    let student = json!({"id": "kim", "name": "Kim L.", "email": "kim@example.org"});
    assert_eq!(told("student kim", &[]), std::slice::from_ref(&student));
    assert!(told("students", &[]).contains(&student));
    told("enrol kim algebra", &[]);
    assert_eq!(
        told("courses-of kim", &[])[0]["enrolments"][0]["course"]["title"],
        "Algebra II"
    );
    told("withdraw kim algebra", &[]);
    ask("withdraw kim algebra", &[]).fails_with(1, &["rejected: student kim is not enrolled in algebra"]);
    assert_eq!(told("courses", &["--title", "BRA"])[0]["id"], "algebra");
    assert_eq!(told("course rhetoric", &[])[0]["title"], "About rhetoric");
    ask("course magic", &[]).fails_with(1, &["there is no course magic"]);

    assert_eq!(told("delete-student kim --wait 0", &[])[0]["state"], "pending");
    eventually("kim has left", PATIENCE, || {
        (ask("student kim", &[]).code() == 1).then_some(())
    });
    ask("students --address 127.0.0.1:9", &[]).fails_with(1, &["cannot reach 127.0.0.1:9"]);
    ask("students --api-keys nowhere", &[]).fails_with(1, &["nowhere: No such file"]);
}

fn requests_are_counted(gateway: &Program, students: &Program) {
    let told = get(&gateway.metrics, "/metrics").is(200).text;
    for line in [
        r#"school_gateway_requests_total{method="create_course",outcome="applied"} 3"#,
        r#"school_gateway_requests_total{method="create_course",outcome="rejected"} 1"#,
        r#"school_gateway_requests_total{method="create_student",outcome="pending"} 1"#,
        r#"school_gateway_requests_total{method="any",outcome="unauthenticated"} 9"#,
        r#"school_gateway_requests_total{method="none",outcome="not_allowed"} 2"#,
        r#"school_gateway_requests_total{method="get_student",outcome="invalid_argument"} 1"#,
        r#"school_gateway_requests_total{method="delete_course",outcome="invalid_argument"} 1"#,
        r#"school_gateway_request_seconds_count{method="create_course"} 4"#,
    ] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
    let told = get(&students.metrics, "/metrics").is(200).text;
    assert!(
        told.contains(r#"school_students_requests_total{method="GetStudentCourses",outcome="ok"}"#),
        "{told}"
    );
}
