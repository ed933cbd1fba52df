//! Backups: a cluster comes back in another one record by record, with rights, quotas and offsets; whatever is not whole is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use highwater::{Client, ConsumedRecord, Profile};
use highwater_tests::{Finished, TestCluster, binary, eventually, run, run_with_input};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{PATIENCE, create_tenant, numbers, produce};

const ORDERS: usize = 2_000;
const CONSUMED: usize = 700;
/// What a topic may take that is larger, unless its records are compressed.
const PACKED_BYTES_MAX: u64 = 1_000_000;

fn words(cluster: &TestCluster, words: &str) -> Finished {
    let arguments: Vec<&str> = words.split(' ').collect();
    run(&mut cluster.command(&arguments), PATIENCE)
}

fn in_json(cluster: &TestCluster, line: &str) -> Value {
    let text = words(cluster, &format!("{line} --output json")).success().stdout();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
}

fn as_client(cluster: &TestCluster, profile: &Path, line: &str, input: impl Into<Vec<u8>>) -> Finished {
    let arguments: Vec<&str> = line.split(' ').collect();
    run_with_input(&mut cluster.command_as(profile, &arguments), input.into(), PATIENCE)
}

/// The profile of a client that owns the tenant shop.
fn shop(cluster: &TestCluster) -> PathBuf {
    let made = cluster.directory().join("shop-web.toml");
    if made.exists() {
        made
    } else {
        cluster.profile_for("shop", "web")
    }
}

/// A path as a word of a command line.
fn word(path: &Path) -> &str {
    path.to_str().unwrap_or_else(|| panic!("{} is no text", path.display()))
}

/// All records of a partition that can be read.
fn records(cluster: &TestCluster, topic: &str, partition: u32) -> Vec<ConsumedRecord> {
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let profile = Profile::load(cluster.profile()).unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async {
        let client = Client::from_profile(&profile)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let consumer = client.consumer(topic, partition).stop_at_end().build().await;
        let mut consumer = consumer.unwrap_or_else(|error| panic!("{topic}: {error}"));
        let mut records = Vec::new();
        while let Some(record) = consumer.next_record().await {
            records.push(record.unwrap_or_else(|error| panic!("{topic}: {error}")));
        }
        records
    })
}

/// The records of a topic in the one cluster are those in the other, at offsets that are lower by what was trimmed; answers how much that is.
#[track_caller]
fn assert_same_records(from: &TestCluster, to: &TestCluster, topic: &str, partition: u32) -> u64 {
    let (before, after) = (records(from, topic, partition), records(to, topic, partition));
    assert!(!before.is_empty(), "{topic}/{partition} has records");
    assert_eq!(before.len(), after.len(), "{topic}/{partition}");
    let first = before[0].offset;
    for (before, mut after) in before.into_iter().zip(after) {
        after.offset += first;
        after.append_time_ms = before.append_time_ms;
        assert_eq!(before, after, "{topic}/{partition}");
    }
    first
}

/// Keyed, with headers, and with times of their own.
fn orders() -> Vec<u8> {
    let line = |number: usize| {
        let line = json!({
            "key": format!("customer {}", number % 50),
            "value": format!("order {number}"),
            "headers": [["number", number.to_string()], ["number", "again"]],
            "timestamp_ms": 1_700_000_000_000u64 + number as u64,
        });
        format!("{line}\n")
    };
    (0..ORDERS).map(line).collect::<String>().into_bytes()
}

/// Rules and grants, without the version of the policy.
fn policy(cluster: &TestCluster) -> BTreeSet<String> {
    let policy = in_json(cluster, "access list --all");
    let lines = ["rules", "grants"].map(|kind| policy[kind].as_array().cloned().unwrap_or_default());
    lines.into_iter().flatten().map(|line| line.to_string()).collect()
}

/// The quotas of a tenant, and of those clients that have one of their own.
fn quotas(cluster: &TestCluster, tenant: &str) -> Value {
    let described = in_json(cluster, &format!("tenant describe {tenant}"));
    let clients = described["clients"].as_array().cloned().unwrap_or_default();
    let everyone = clients
        .iter()
        .find(|client| client["client"] == "*")
        .map(|client| client["quota"].clone());
    let is_own = |client: &&Value| client["client"] == "*" || Some(&client["quota"]) != everyone.as_ref();
    let own = clients
        .iter()
        .filter(is_own)
        .filter(|client| client["quota"] != json!({}));
    let own: Vec<Value> = own.map(|client| json!([client["client"], client["quota"]])).collect();
    json!([described["quota"], described["suspended"], own])
}

/// What the group has committed, by partition. A member that left at once may have claimed one more without committing.
fn offsets(cluster: &TestCluster, topic: &str, group: &str) -> BTreeMap<u64, u64> {
    let described = in_json(cluster, &format!("group describe {topic} {group}"));
    let partitions = described["partitions"].as_array().cloned().unwrap_or_default();
    let committed = partitions
        .iter()
        .filter_map(|on| Some((on["partition"].as_u64()?, on["offset"].as_u64()?)));
    committed.collect()
}

/// Three nodes that let go of records soon, in files as small as can be.
fn trimming_cluster(name: &str) -> TestCluster {
    let mut cluster = TestCluster::prepare_named(name, 3);
    for node in 0..3 {
        cluster.node(node).set("--segment-bytes-max", "4194304");
        cluster.node(node).set("--retention-interval-ms", "200");
        cluster.node(node).start();
    }
    cluster.wait_ready();
    cluster
}

/// Tenants with topics, rules and quotas, a topic that has been trimmed, one that must not be, and groups that have not consumed everything.
fn full_cluster() -> TestCluster {
    let cluster = trimming_cluster("test");
    create_tenant(&cluster, "shop");
    words(&cluster, "tenant create billing --clients-role none").success();
    words(&cluster, "access grant billing/app owner --tenant billing").success();
    words(
        &cluster,
        "access grant shop/web consume --topic secret* --deny --tenant shop",
    )
    .success();
    words(
        &cluster,
        "access grant auditor consume --role --topic * --tenant billing",
    )
    .success();
    words(&cluster, "access grant shop/web auditor --tenant billing").success();
    words(&cluster, "tenant quota shop --set topics=20 --set partitions=40").success();
    words(&cluster, "tenant quota shop --client * --set streams=90").success();
    words(&cluster, "tenant quota shop --client batch --set streams=5").success();
    words(&cluster, "tenant create closed").success();
    words(&cluster, "tenant suspend closed").success();

    let (shop, billing) = (shop(&cluster), cluster.profile_for("billing", "app"));
    let create = |profile: &Path, line: &str| {
        eventually("every node knows the tenant", PATIENCE, || {
            (as_client(&cluster, profile, line, "").code() == 0).then_some(())
        });
    };
    create(&shop, "topic create orders --partitions 3 --retention-ms 0");
    as_client(
        &cluster,
        &shop,
        "produce orders --format json --compression zstd",
        orders(),
    )
    .success();
    let consume = format!("consume orders --group fulfilment --from beginning --max {CONSUMED}");
    as_client(&cluster, &shop, &consume, "").success();
    create(&billing, "topic create bills --replication 1");
    as_client(&cluster, &billing, "produce bills --compression lz4", numbers(500)).success();
    // It may store nothing more, which must not stop what it has stored from coming back.
    words(&cluster, "tenant quota billing --set stored_bytes=0").success();
    trim(&cluster);
    pack(&cluster);
    cluster
}

/// A topic that keeps all its records only while they are compressed.
fn pack(cluster: &TestCluster) {
    words(
        cluster,
        &format!("topic create packed --retention-bytes {PACKED_BYTES_MAX}"),
    )
    .success();
    let lines = format!("{}\n", "x".repeat(999)).repeat(10_000);
    as_client(cluster, cluster.profile(), "produce packed --compression zstd", lines).success();
}

/// A topic that has lost its first records.
fn trim(cluster: &TestCluster) {
    words(cluster, "topic create trimmed --retention-bytes 1000000").success();
    let line = "x".repeat(999);
    eventually("something is trimmed", PATIENCE, || {
        produce(cluster, "trimmed", format!("{line}\n").repeat(3_000));
        let described = in_json(cluster, "topic describe trimmed");
        (described["partitions"][0]["log_start"].as_u64() > Some(0)).then_some(())
    });
    // Nothing more goes while it is backed up and compared.
    words(cluster, "topic update trimmed --retention-bytes 1000000000").success();
    let last = records(cluster, "trimmed", 0).pop().map_or(0, |record| record.offset);
    words(cluster, &format!("group reset trimmed late --to {}", last - 50)).success();
}

/// Nothing that the operator may not see is left out in silence.
fn backup_needs_rights(cluster: &TestCluster, directory: &Path) {
    let line = format!("backup {}", word(directory));
    words(cluster, &line)
        .fails_with(4, &["tenant billing has 1 topics", "acme/app may see 0"])
        .with_hint(&["highwater access grant acme/app consumer --tenant billing"]);
    let shop = shop(cluster);
    as_client(cluster, &shop, &line, "")
        .fails_with(4, &["PERMISSION_DENIED"])
        .with_hint(&["--topic"]);
    words(cluster, "access grant acme/app consumer --tenant billing").success();
    words(cluster, "access grant acme/app produce --topic * --tenant shop").success();
    eventually("what may be seen but not consumed is named", PATIENCE, || {
        words(cluster, &line)
            .stderr
            .contains("acme/app may not describe group:* in shop")
            .then_some(())
    });
    words(cluster, "access revoke acme/app produce --topic * --tenant shop").success();
    words(cluster, "access grant acme/app consumer --tenant shop").success();
    assert!(!directory.exists(), "nothing was begun");
    no_group_is_left_out_in_silence(cluster, &shop);
}

/// Nor is that so if only a topic is backed up.
fn no_group_is_left_out_in_silence(cluster: &TestCluster, shop: &Path) {
    let directory = cluster.directory().join("orders-only");
    let line = format!("backup {} --topic shop/orders", word(&directory));
    let hidden = "describe --group secret* --deny --tenant shop";
    words(cluster, &format!("access grant shop/web {hidden}")).success();
    eventually("a rule that hides groups is named", PATIENCE, || {
        // A node that does not know the rule yet has let it be made.
        let _ = fs::remove_dir_all(&directory);
        let told = as_client(cluster, shop, &line, "");
        (told.code() == 4 && told.stderr.contains("hides consumer groups of shop")).then_some(())
    });
    words(cluster, &format!("access revoke shop/web {hidden}")).success();
}

fn back_up(cluster: &TestCluster, directory: &Path) {
    eventually("every node knows the grants", PATIENCE, || {
        (words(cluster, &format!("backup {}", word(directory))).code() == 0).then_some(())
    });
}

#[test]
fn a_cluster_comes_back_in_another_one() {
    let from = full_cluster();
    let directory = from.directory().join("backup");
    backup_needs_rights(&from, &directory);
    back_up(&from, &directory);
    let verify = format!("backup verify {}", word(&directory));
    let verified = in_json(&from, &verify);
    assert_eq!(verified["topics"].as_array().map(Vec::len), Some(4), "{verified}");

    let to = trimming_cluster("other");
    create_tenant(&to, "soon-gone");
    words(&to, "tenant delete soon-gone --confirm soon-gone").success();
    let restore = format!("restore {}", word(&directory));
    let dry = words(&to, &format!("{restore} --dry-run")).success().stdout();
    assert!(
        dry.contains("Nothing was changed") && dry.contains("+ tenant shop"),
        "{dry}"
    );
    assert_eq!(words(&to, "topic describe trimmed").code(), 3, "nothing was changed");
    let told = words(&to, &restore).success().stdout();
    assert!(told.contains("acme/trimmed/0 began at offset"), "{told}");

    for partition in 0..3 {
        assert_eq!(assert_same_records(&from, &to, "shop/orders", partition), 0);
    }
    assert_same_records(&from, &to, "billing/bills", 0);
    let trimmed = assert_same_records(&from, &to, "trimmed", 0);
    assert!(trimmed > 0);
    assert_eq!(policy(&to), policy(&from));
    for tenant in ["shop", "billing", "acme", "closed"] {
        assert_eq!(quotas(&to, tenant), quotas(&from, tenant), "{tenant}");
    }
    let topic = |cluster: &TestCluster, name: &str| {
        let described = in_json(cluster, &format!("topic describe {name}"));
        ["replication", "retention_ms", "retention_bytes"].map(|setting| described[setting].clone())
    };
    for name in ["shop/orders", "billing/bills", "trimmed", "packed"] {
        assert_eq!(topic(&to, name), topic(&from, name), "{name}");
    }
    assert_eq!(
        offsets(&to, "shop/orders", "fulfilment"),
        offsets(&from, "shop/orders", "fulfilment")
    );
    let late = |cluster| offsets(cluster, "trimmed", "late")[&0];
    assert_eq!(late(&to) + trimmed, late(&from));

    words(&to, &restore)
        .fails_with(
            4,
            &[
                "acme/app may not manage group:* in shop",
                "produce topic:bills in billing",
            ],
        )
        .with_hint(&["highwater access grant acme/app owner --tenant shop"]);
    for tenant in ["shop", "billing"] {
        words(&to, &format!("access grant acme/app owner --tenant {tenant}")).success();
    }
    eventually("every node knows the grants", PATIENCE, || {
        (words(&to, &restore).code() == 0).then_some(())
    });
    groups_go_on(&to);
    restoring_again_takes_nothing_back(&to, &restore);
    // Last: by now whatever was to be trimmed is.
    assert_eq!(assert_same_records(&from, &to, "packed", 0), 0);
    damage_is_refused(&to, &directory);
}

/// A member of the group consumes what was not consumed before, and nothing else.
fn groups_go_on(to: &TestCluster) {
    let shop = shop(to);
    let consumed = as_client(
        to,
        &shop,
        "consume orders --group fulfilment --from beginning --exit-at-end",
        "",
    );
    assert_eq!(consumed.success().stdout().lines().count(), ORDERS - CONSUMED);
}

fn restoring_again_takes_nothing_back(to: &TestCluster, restore: &str) {
    let there = offsets(to, "shop/orders", "fulfilment");
    let told = words(to, restore).fails_with(1, &["as the cluster had them"]);
    assert!(
        told.stderr.contains("Left alone: group fulfilment on shop/orders/"),
        "{}",
        told.stderr
    );
    assert_eq!(offsets(to, "shop/orders", "fulfilment"), there);

    words(to, "access revoke shop/web auditor --tenant billing").success();
    words(to, "tenant quota shop --set topics=21").success();
    words(to, restore)
        .fails_with(4, &["g, shop/web, auditor, billing", "topics was 20, and is 21 here"])
        .with_hint(&["--policy merge"]);
    words(to, &format!("{restore} --policy leave")).fails_with(1, &["as the cluster had them"]);
    assert_eq!(quotas(to, "shop")[0]["topics"], 21);
    words(to, &format!("{restore} --policy merge")).fails_with(1, &["as the cluster had them"]);
    assert_eq!(quotas(to, "shop")[0]["topics"], 20);

    let shop = shop(to);
    as_client(to, &shop, "produce orders", "one more\n").success();
    words(to, restore)
        .fails_with(4, &["shop/orders/", "has other records than the backup"])
        .with_hint(&["--topic TENANT/TOPIC"]);
    let other = format!("{restore} --topic acme/trimmed");
    words(to, &other).success();
    words(to, "topic delete trimmed").success();
    words(to, "topic create trimmed --partitions 2").success();
    words(to, &other)
        .fails_with(4, &["acme/trimmed exists with 2 partitions"])
        .with_hint(&["--topic TENANT/TOPIC"]);
}

/// What is not as it was written is refused by name and place, before anything is changed.
fn damage_is_refused(to: &TestCluster, directory: &Path) {
    let (verify, restore) = (
        format!("backup verify {}", word(directory)),
        format!("restore {}", word(directory)),
    );
    let refused = |place: &str| {
        words(to, &verify).fails_with(1, &[place]);
        words(to, &restore).fails_with(1, &[place]);
    };
    let path = directory.join("records/shop/orders/00001");
    let whole = fs::read(&path).unwrap_or_else(|error| panic!("{error}"));
    let write = |bytes: &[u8]| fs::write(&path, bytes).unwrap_or_else(|error| panic!("{error}"));
    let mut flipped = whole.clone();
    flipped[200] ^= 4;
    write(&flipped);
    refused("records/shop/orders/00001 is damaged at byte 12");
    write(&whole[..whole.len() - 1]);
    refused("records/shop/orders/00001 is damaged");
    write(&whole);
    words(to, &verify).success();
    let (manifest, aside) = (directory.join("backup.json"), directory.join("aside"));
    fs::rename(manifest, aside).unwrap_or_else(|error| panic!("{error}"));
    words(to, &restore).fails_with(4, &["did not come to its end"]);
}

/// It is slowed down by a quota, and killed when it has begun.
#[test]
fn an_interrupted_restore_goes_on_without_gap_or_double() {
    const LINES: usize = 8_000;
    const RETENTION_BYTES: u64 = 100_000_000;
    let from = TestCluster::start(1);
    let create = format!("topic create numbers --partitions 2 --retention-bytes {RETENTION_BYTES}");
    words(&from, &create).success();
    produce(&from, "numbers", incompressible(LINES));
    what_cannot_be_written_is_told(&from);
    let directory = from.directory().join("backup");
    words(&from, &format!("backup {} --topic acme/numbers", word(&directory))).success();

    let to = TestCluster::start(1);
    eventually("the policy is there", PATIENCE, || {
        (words(&to, "tenant quota acme --set produce_bytes_per_second=400k").code() == 0).then_some(())
    });
    let restore = format!("restore {} --topic acme/numbers", word(&directory));
    let arguments: Vec<&str> = restore.split(' ').collect();
    let mut restoring = to.command(&arguments);
    let restoring = restoring
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut restoring = restoring.unwrap_or_else(|error| panic!("{error}"));
    let retention_bytes = eventually("some records are there", PATIENCE, || {
        let described = words(&to, "topic describe numbers --output json").stdout();
        let described: Value = serde_json::from_str(&described).ok()?;
        let there = |partition: &Value| partition["high_watermark"].as_u64() > Some(0);
        let is_begun = described["partitions"].as_array()?.iter().any(there);
        is_begun.then(|| described["retention_bytes"].clone())
    });
    assert_eq!(retention_bytes, 0, "nothing is trimmed while it is filled");
    restoring.kill().unwrap_or_else(|error| panic!("{error}"));
    restoring.wait().unwrap_or_else(|error| panic!("{error}"));
    words(&to, "tenant quota acme --clear produce_bytes_per_second").success();

    let limit = format!("+ topic acme/numbers: retention_bytes={RETENTION_BYTES}");
    let dry = words(&to, &format!("{restore} --dry-run")).success();
    assert!(dry.stdout().contains(&limit), "{}", dry.stdout());
    let told = in_json(&to, &restore);
    let partitions = told["topics"][0]["partitions"].as_array().cloned().unwrap_or_default();
    let sum = |field: &str| partitions.iter().filter_map(|of| of[field].as_u64()).sum::<u64>();
    assert_eq!(sum("records"), LINES as u64, "{told}");
    assert!(
        sum("already_there") > 0 && sum("already_there") < LINES as u64,
        "it was killed midway: {told}"
    );
    for partition in 0..2 {
        assert_same_records(&from, &to, "acme/numbers", partition);
    }
    let described = in_json(&to, "topic describe numbers");
    assert_eq!(described["retention_bytes"], RETENTION_BYTES);
    let again = words(&to, &format!("{restore} --dry-run")).success();
    assert!(!again.stdout().contains(&limit), "{}", again.stdout());
}

/// Lines of a thousand digits that no compression makes much smaller.
fn incompressible(count: usize) -> String {
    let mut seed = 1u64;
    let mut digits = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        format!("{:010}", seed >> 31)
    };
    (0..count)
        .map(|_| (0..100).map(|_| digits()).collect::<String>() + "\n")
        .collect()
}

/// With a limit in place of a full disk: it ends with the file's name, and what is there is no backup.
fn what_cannot_be_written_is_told(from: &TestCluster) {
    let directory = from.directory().join("too-large");
    let (program, name) = (binary(), word(&directory).to_owned());
    let script = format!(
        "trap '' XFSZ; ulimit -f 400; exec {} backup {name} --topic acme/numbers",
        word(&program)
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("HIGHWATER_CONFIG", from.profile());
    let told = run(&mut command, PATIENCE).fails_with(1, &["cannot write", "too-large/records/acme/numbers/0000"]);
    assert!(told.stderr.contains("did not come to its end"), "{}", told.stderr);
    words(from, &format!("backup verify {name}")).fails_with(4, &["did not come to its end"]);
    words(from, &format!("backup {name} --topic acme/numbers")).fails_with(4, &["is not empty"]);
}
