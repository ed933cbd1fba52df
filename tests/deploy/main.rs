//! The pods of the Helm chart as processes: what Kubernetes would do with `deploy/kubernetes/highwater.yaml`, on one machine.
//!
//! The chart's values, names, probes and volumes are logic, and a schema says nothing about whether it works. So a small
//! Kubernetes is played here, from the manifest that is checked in (which `tests/deploy/run` keeps equal to the chart):
//!
//! | who | does | where |
//! |---|---|---|
//! | the Job for certificates | runs the very command; its secrets are made as its kustomization says | `secrets.rs` |
//! | a container | the very command and environment, its user, no rights, a read-only root, volumes at their paths | `container.rs` |
//! | DNS | names of pods and Services, in a file that each container sees as `/etc/hosts` | `names.rs` |
//! | kubelet | expands the environment, probes, waits with `preStop`, sends SIGTERM, and SIGKILL when the grace is over | `pod.rs` |
//! | StatefulSet | starts pods as its policy says, keeps their volumes, updates them one by one from the last one on | `world.rs` |
//!
//! Every start of a pod gets an address that no pod had before, as in Kubernetes. Only one thing is put in the place of what the
//! manifest says: all pods share one network, so `0.0.0.0`, all addresses of a pod, becomes the one that it has.
//! That is a loopback address, on which the admin listener wants no certificate and tells reasons; how it answers elsewhere is tested in the
//! node (`cluster_tests/console.rs`, `admin/tests.rs`).
//!
//! Deliberately absent: the scheduler, quotas of memory and CPU, network policies, `minReadySeconds` (the next node is updated as
//! soon as the one before is ready, which is harder).

mod container;
mod manifest;
mod names;
mod pod;
mod secrets;
mod world;

use std::time::Duration;

use highwater_tests::{Producing, eventually, run};
use serde_json::Value;

use world::World;

/// Longer than anything takes unless it hangs, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many records are acknowledged after each event.
const RECORDS_AFTER_AN_EVENT: usize = 2_000;
/// How many nodes the manifest has.
const NODES: usize = 3;

/// A topic, and a producer that writes to it through the client Service.
fn under_load(world: &World) -> Producing {
    let create = ["topic", "create", "numbers", "--partitions", "3"];
    run(&mut world.client(&create), PATIENCE).success();
    let load = Producing::start(&mut world.client(&["produce", "numbers", "-v"]));
    load.wait_for_more(RECORDS_AFTER_AN_EVENT, PATIENCE);
    load
}

/// Ends the load: nothing of it failed, and everything is there once.
fn complete(world: &World, load: Producing) {
    let produced = load.finish(PATIENCE);
    produced.finished.success();
    assert_eq!(produced.acknowledged.len(), produced.fed, "failed produces");
    let consume = ["consume", "numbers", "--from", "beginning", "--exit-at-end"];
    let consumed = run(&mut world.client(&consume), PATIENCE).success().stdout();
    let mut found: Vec<usize> = consumed.lines().filter_map(|line| line.parse().ok()).collect();
    found.sort_unstable();
    assert!(
        found.iter().copied().eq(0..produced.fed),
        "{} records were acknowledged and {} are there",
        produced.fed,
        found.len()
    );
}

fn described(world: &World) -> Value {
    let described = run(
        &mut world.client(&["cluster", "describe", "--output", "json"]),
        PATIENCE,
    );
    let text = described.success().stdout();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
}

/// Waits until a node has so many replicas.
fn wait_for_replicas(world: &World, node: usize, count: u64) {
    eventually("the node has its replicas", PATIENCE, || {
        let has = described(world)["nodes"][node]["replicas"].as_u64();
        has.filter(|has| *has >= count)
    });
}

#[test]
fn probes_tell_the_truth_while_a_cluster_is_founded() {
    let Some(mut world) = World::open() else { return };
    world.start(0);
    world.wait_live(0);
    let why = eventually("the node says what it waits for", PATIENCE, || {
        let (status, why) = world.readiness(0)?;
        (status == 503 && why.contains("has not found its cluster")).then_some(why)
    });
    assert!(world.ready_pods().is_empty(), "{why}");
    world.start_missing();
    world.wait_all_ready();
    let described = described(&world);
    let racks = described["nodes"].as_array().into_iter().flatten();
    let racks: Vec<&str> = racks.filter_map(|node| node["rack"].as_str()).collect();
    assert_eq!(racks, ["zone-0", "zone-1", "zone-2"], "{described}");
    let load = under_load(&world);
    complete(&world, load);
}

#[test]
fn every_variable_of_a_node_is_one_that_serve_reads() {
    let Some(world) = World::open() else { return };
    let help = run(&mut world.client(&["serve", "--help"]), PATIENCE)
        .success()
        .stdout();
    let variables = world.variables_of_nodes();
    let ours = variables.iter().filter(|name| name.starts_with("HIGHWATER_"));
    let unknown: Vec<&String> = ours.filter(|name| !help.contains(&format!("[env: {name}="))).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(variables.len() > 10, "{variables:?}");
}

/// Its image has no program that sends signals but ours.
#[test]
fn a_node_logs_more_without_a_restart_when_its_config_map_says_so() {
    let Some(mut world) = World::open() else { return };
    world.start(0);
    world.wait_live(0);
    world.rewrite(0, "settings", "node.toml", "log = 'info,call=debug'\n");
    let id = world.process_id(0).to_string();
    let reload = ["highwater", "reload", "--pid", &id].map(str::to_owned);
    run(&mut world.exec(0, reload.to_vec()), PATIENCE).success();
    eventually("the settings are in force", PATIENCE, || {
        let log = world.log(0);
        let is_taken = |line: &str| line.contains("settings are in force") && line.contains("call=debug");
        log.lines().any(is_taken).then_some(())
    });
}

#[test]
fn a_rolling_update_with_new_certificates_fails_no_produce() {
    let Some(mut world) = World::open() else { return };
    world.start_missing();
    world.wait_all_ready();
    let load = under_load(&world);
    let (authority, node) = (world.secret("highwater-authority"), world.secret("highwater-0-tls"));
    world.make_certificates();
    assert_eq!(world.secret("highwater-authority"), authority, "the authority stays");
    assert_ne!(world.secret("highwater-0-tls"), node, "certificates are made anew");
    for ordinal in (0..NODES).rev() {
        world.delete(ordinal);
        world.start(ordinal);
        world.wait_ready(ordinal);
        load.wait_for_more(RECORDS_AFTER_AN_EVENT, PATIENCE);
    }
    complete(&world, load);
}

#[test]
fn a_pod_that_is_lost_comes_back_elsewhere_and_a_lost_volume_is_made_good() {
    let Some(mut world) = World::open() else { return };
    world.start_missing();
    world.wait_all_ready();
    let load = under_load(&world);
    // A machine that dies: no drain, and the pod gets another address.
    world.kill(1);
    load.wait_for_more(RECORDS_AFTER_AN_EVENT, PATIENCE);
    world.start(1);
    world.wait_ready(1);
    load.wait_for_more(RECORDS_AFTER_AN_EVENT, PATIENCE);
    // The disk of the one that founded the cluster.
    world.kill(0);
    world.lose_volume(0);
    load.wait_for_more(RECORDS_AFTER_AN_EVENT, PATIENCE);
    world.start(0);
    world.wait_ready(0);
    wait_for_replicas(&world, 0, 3);
    load.wait_for_more(RECORDS_AFTER_AN_EVENT, PATIENCE);
    complete(&world, load);
}

#[test]
fn all_pods_at_once_come_back_at_other_addresses() {
    let Some(mut world) = World::open() else { return };
    world.start_missing();
    world.wait_all_ready();
    let load = under_load(&world);
    (0..NODES).for_each(|ordinal| world.kill(ordinal));
    world.start_missing();
    world.wait_all_ready();
    load.wait_for_more(RECORDS_AFTER_AN_EVENT, PATIENCE);
    complete(&world, load);
}

#[test]
fn a_node_more_gets_its_share_and_leaves_again_and_comes_back_with_an_empty_volume() {
    let Some(mut world) = World::open() else { return };
    world.start_missing();
    world.wait_all_ready();
    let load = under_load(&world);
    let more = world.add_replica();
    world.start(more);
    world.wait_ready(more);
    wait_for_replicas(&world, more, 1);
    load.wait_for_more(RECORDS_AFTER_AN_EVENT, PATIENCE);
    let decommission = ["cluster", "decommission", "highwater-3"];
    run(&mut world.client(&decommission), PATIENCE).success();
    world.kill(more);
    load.wait_for_more(RECORDS_AFTER_AN_EVENT, PATIENCE);
    world.lose_volume(more);
    world.start(more);
    world.wait_ready(more);
    wait_for_replicas(&world, more, 1);
    complete(&world, load);
}
