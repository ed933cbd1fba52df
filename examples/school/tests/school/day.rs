//! A day at school: who may do what, what is answered, and what the cache does.

use std::path::Path;

use highwater_tests::{Finished, eventually, run_with_input};
use serde_json::{Value, json};

use crate::http::{ask, get, waiting, with_key};
use crate::program::{KEY, PATIENCE, Program, School, school};

#[test]
fn a_day_at_school() {
    let school = School::open();
    init_again_changes_nothing(&school);

    let mut courses = school.start_courses("courses.sqlite");
    let mut students = school.start_students("students.sqlite", &courses);
    let mut gateway = school.start_gateway(&students, &courses);
    a_key_is_needed(&gateway);
    commands_are_answered(&gateway);
    lists_come_in_pages(&gateway);
    a_students_courses_are_cached_until_they_change(&gateway, &students);
    nobody_may_more_than_it_needs(&school);
    // What is in the cache needs no service.
    assert!(courses.stop().success(), "{}", courses.log());
    assert_eq!(courses_of_ada(&gateway)["cached"], 1);
    requests_are_counted(&gateway, &students);
    for service in [&mut gateway, &mut students] {
        assert!(service.stop().success(), "{}", service.log());
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
    let mut init = self::school();
    init.arg("init").arg("--profile").arg(students);
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
    let address = &gateway.address;
    let logic = r#"{"id":"logic","title":"Logic","credits":3}"#;
    let applied = waiting(address, "POST", "/v1/courses", logic).is(200);
    assert_eq!(applied.json()["state"], "applied");
    assert_eq!(applied.header("preference-applied"), Some("wait"));
    let course = json!({"id": "logic", "title": "Logic", "description": "", "credits": 3});
    assert_eq!(with_key(address, "GET", "/v1/courses/logic", "").is(200).json(), course);
    let rejected = waiting(address, "POST", "/v1/courses", logic).is(409);
    assert_eq!(rejected.json()["reason"], "there is a course logic already");

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

    let renamed = r#"{"name":"Ada L.","email":"ada@example.org"}"#;
    waiting(address, "PUT", "/v1/students/ada", renamed).is(200);
    assert_eq!(
        with_key(address, "GET", "/v1/students/ada", "").is(200).json()["name"],
        "Ada L."
    );
    let rejected = waiting(address, "DELETE", "/v1/students/eve", "").is(409);
    assert_eq!(rejected.json()["reason"], "there is no student eve");

    let wrong = [
        (
            "POST",
            "/v1/students",
            r#"{"id":"Ada!","name":"x","email":"a@b"}"#,
            "id: 1 to 64",
        ),
        (
            "POST",
            "/v1/students",
            r#"{"id":"x","name":"","email":"a@b"}"#,
            "name: must not be empty",
        ),
        (
            "PUT",
            "/v1/students/ada",
            r#"{"name":"x"}"#,
            "body: missing field `email`",
        ),
        (
            "PUT",
            "/v1/courses/logic",
            r#"{"title":"x","credits":61}"#,
            "credits: are 61; at most 60",
        ),
        ("GET", "/v1/students?limit=101", "", "limit: is 101; at most 100"),
        (
            "GET",
            "/v1/commands/student-commands/x/1",
            "",
            "command: is not PARTITION/OFFSET",
        ),
    ];
    for (method, path, body, problem) in wrong {
        let refused = with_key(address, method, path, body).is(400);
        assert!(refused.text.contains(problem), "{refused:?}");
    }
    with_key(address, "POST", "/v1/students", &" ".repeat(20_000)).is(413);
    for path in [
        "/v1/students/eve",
        "/v1/courses/magic",
        "/v1/commands/other/0/0",
        "/v1/commands/student-commands/3/0",
    ] {
        with_key(address, "GET", path, "").is(404);
    }
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

fn requests_are_counted(gateway: &Program, students: &Program) {
    let told = get(&gateway.metrics, "/metrics").is(200).text;
    for line in [
        r#"school_gateway_requests_total{method="create_course",outcome="applied"} 3"#,
        r#"school_gateway_requests_total{method="create_course",outcome="rejected"} 1"#,
        r#"school_gateway_requests_total{method="create_student",outcome="pending"} 1"#,
        r#"school_gateway_requests_total{method="any",outcome="unauthenticated"} 9"#,
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
