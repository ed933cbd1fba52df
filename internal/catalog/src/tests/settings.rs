//! The feature level and the settings of the cluster.

use super::*;
use crate::levels::{GROUPS_LEVEL, POLICIES_LEVEL};
use crate::{FEATURE_LEVEL, Settings};

fn raise(level: u32) -> Command {
    Command::RaiseFeatureLevel { level }
}

fn timer_step(step: u32) -> Command {
    Command::UpdateSettings {
        timer_step: Some(step),
        replace_after_ms: None,
        catch_up_bytes_per_second: None,
        balance: None,
        groups_kept_ms: None,
    }
}

pub(super) fn groups_kept_ms(kept_ms: u64) -> Command {
    Command::UpdateSettings {
        timer_step: None,
        replace_after_ms: None,
        catch_up_bytes_per_second: None,
        balance: None,
        groups_kept_ms: Some(kept_ms),
    }
}

#[test]
fn a_cluster_begins_at_level_1_and_its_level_never_falls() {
    let mut fixture = Fixture::unfounded();
    assert_eq!(fixture.refused(raise(2)), Refusal::NotFounded);
    fixture.apply(found(CLUSTER_ID, 1));
    assert_eq!(fixture.catalog.feature_level(), 1);
    fixture.done_twice(raise(2));
    assert_eq!(fixture.catalog.feature_level(), 2);
    fixture.done(raise(1));
    assert_eq!(fixture.catalog.feature_level(), 2);
    for level in [0, FEATURE_LEVEL + 1] {
        let refusal = fixture.refused(raise(level));
        assert!(
            matches!(&refusal, Refusal::InvalidValue { field, .. } if field == "level"),
            "{refusal}"
        );
    }
}

#[test]
fn nothing_of_level_2_is_accepted_before_the_level_is_raised() {
    let mut fixture = Fixture::founded(2);
    let topic = fixture.topic(create("orders", 1, 1));
    let replica = &topic.partitions[0].replicas[0];
    let mut avoiding = create("other", 1, 1);
    if let Command::CreateTopic { avoid, .. } = &mut avoiding {
        avoid.push("n0".to_string());
    }
    for command in [
        register_2("n1", 1, "", None),
        avoiding,
        resize("orders", 2),
        move_to(1, replica.replica_id, "n1"),
        prefer(1, replica.replica_id),
        decommission("n1", true),
        drain("n1", true),
        remove("n1"),
        timer_step(2),
    ] {
        assert_eq!(command.feature_level(), 2, "{command:?}");
        assert_eq!(fixture.refused(command), Refusal::FeatureLevel { needed: 2, level: 1 });
    }
    for command in [
        found(CLUSTER_ID, 2),
        register("n1", 1),
        create("a", 1, 1),
        delete("a", None),
        raise(2),
    ] {
        assert_eq!(command.feature_level(), 1, "{command:?}");
    }
    assert_eq!(Fixture::unfounded().refused(timer_step(2)), Refusal::NotFounded);
}

#[test]
fn how_long_groups_are_kept_is_not_set_while_a_node_could_not_read_it() {
    let mut fixture = Fixture::level_2(&[""]);
    fixture.done(raise(GROUPS_LEVEL));
    let (needed, level) = (POLICIES_LEVEL, GROUPS_LEVEL);
    for kept_ms in [3_600_000, 604_800_000] {
        let command = groups_kept_ms(kept_ms);
        assert_eq!(command.feature_level(), POLICIES_LEVEL);
        assert_eq!(fixture.refused(command), Refusal::FeatureLevel { needed, level });
    }
    fixture.done(timer_step(2));
    let stored = String::from_utf8(fixture.catalog.encode()).unwrap();
    assert!(!stored.contains("groups_kept_ms"), "{stored}");
    fixture.done(raise(POLICIES_LEVEL));
    fixture.done_twice(groups_kept_ms(3_600_000));
    assert_eq!(fixture.catalog.settings().groups_kept_ms, 3_600_000);
}

#[test]
fn a_node_that_supports_less_than_the_cluster_has_is_refused() {
    let mut fixture = Fixture::level_2(&[""]);
    let (node, level, needed) = ("n1".to_string(), 1, 2);
    assert_eq!(
        fixture.refused(register("n1", 1)),
        Refusal::TooOld { node, level, needed }
    );
    fixture.join(1, "");
    assert_eq!(fixture.catalog.node("n1").unwrap().feature_level, 2);
}

#[test]
fn settings_have_defaults_and_change_one_by_one() {
    let mut fixture = Fixture::level_2(&[""]);
    fixture.done(raise(POLICIES_LEVEL));
    let defaults = Settings {
        timer_step: 1,
        replace_after_ms: 600_000,
        catch_up_bytes_per_second: 20_000_000,
        balance: true,
        groups_kept_ms: 604_800_000,
    };
    assert_eq!(fixture.catalog.settings(), &defaults);
    fixture.done_twice(timer_step(3));
    let off = Command::UpdateSettings {
        timer_step: None,
        replace_after_ms: Some(1_000),
        catch_up_bytes_per_second: Some(1_000_000),
        balance: Some(false),
        groups_kept_ms: None,
    };
    fixture.done_twice(off);
    fixture.done_twice(groups_kept_ms(86_400_000));
    let changed = Settings {
        timer_step: 3,
        replace_after_ms: 1_000,
        catch_up_bytes_per_second: 1_000_000,
        balance: false,
        groups_kept_ms: 86_400_000,
    };
    assert_eq!(fixture.catalog.settings(), &changed);
}

#[test]
fn settings_out_of_bounds_are_refused_by_name() {
    let mut fixture = Fixture::level_2(&[""]);
    fixture.done(raise(POLICIES_LEVEL));
    let settings = |timer_step, replace_after_ms, catch_up_bytes_per_second| Command::UpdateSettings {
        timer_step,
        replace_after_ms,
        catch_up_bytes_per_second,
        balance: None,
        groups_kept_ms: None,
    };
    for (command, wrong) in [
        (settings(Some(0), None, None), "timer_step"),
        (settings(Some(4), None, None), "timer_step"),
        (settings(None, Some(999), None), "replace_after_ms"),
        (settings(None, Some(2_592_000_001), None), "replace_after_ms"),
        (settings(None, None, Some(999_999)), "catch_up_bytes_per_second"),
        (settings(None, None, Some(100_000_000_001)), "catch_up_bytes_per_second"),
        (groups_kept_ms(0), "groups_kept_ms"),
        (groups_kept_ms(3_599_999), "groups_kept_ms"),
        (groups_kept_ms(315_360_000_001), "groups_kept_ms"),
        (groups_kept_ms(u64::MAX), "groups_kept_ms"),
    ] {
        match fixture.refused(command) {
            Refusal::InvalidValue { field, .. } => assert_eq!(field, wrong),
            other => panic!("{other:?}"),
        }
    }
    fixture.done(settings(Some(3), Some(2_592_000_000), Some(100_000_000_000)));
    fixture.done(groups_kept_ms(3_600_000));
    fixture.done(groups_kept_ms(315_360_000_000));
}

/// A node that went on without the rules that come into force would differ from the others for ever: it stops instead.
#[test]
fn a_level_that_this_build_does_not_know_cannot_be_read() {
    assert_eq!(
        Command::decode(&raise(FEATURE_LEVEL).encode()),
        Ok(raise(FEATURE_LEVEL))
    );
    let newer = Command::decode(&raise(FEATURE_LEVEL + 1).encode());
    assert!(newer.is_err_and(|error| error.to_string().contains("feature level to")));
}
