//! The stored forms of feature level 4, byte for byte, and what was stored before it.

use super::golden::{assert_golden, stored};
use super::settings::groups_kept_ms;
use super::*;
use crate::Error;

const BEFORE: &str = concat!(
    r#"{"cluster":{"id":"c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1","name":"test"},"revision":5,"next_topic_id":1,"#,
    r#""next_group_id":1,"next_replica_id":2,"nodes":{"n0":{"name":"n0","incarnation":"00000000000000000000000000000000","#,
    r#""address":"n0.example:9000","rack":"","version":"0.2.0","feature_level":2,"catalog_replica_id":1,"#,
    r#""catalog_replica_started":true,"past_lives":[]}},"topics":{},"tombstones":{},"feature_level":3,"#,
    r#""settings":{"timer_step":2,"replace_after_ms":600000,"catch_up_bytes_per_second":20000000,"balance":true}}"#
);

/// At level 3, with a setting that is not the default.
fn before() -> Fixture {
    let mut fixture = Fixture::level_2(&[""]);
    fixture.done(Command::RaiseFeatureLevel { level: 3 });
    fixture.done(Command::UpdateSettings {
        timer_step: Some(2),
        replace_after_ms: None,
        catch_up_bytes_per_second: None,
        balance: None,
        groups_kept_ms: None,
    });
    fixture
}

/// What a cluster has stored after [`before`] that keeps groups for a day.
fn after() -> String {
    let after = BEFORE.replacen(r#""revision":5"#, r#""revision":7"#, 1);
    let after = after.replacen(r#","feature_level":3,"#, r#","feature_level":4,"#, 1);
    after.replacen(r#""balance":true}"#, r#""balance":true,"groups_kept_ms":86400000}"#, 1)
}

#[test]
fn a_command_has_this_form() {
    let json = concat!(
        r#"{"update_settings":{"timer_step":null,"replace_after_ms":null,"catch_up_bytes_per_second":null,"#,
        r#""balance":null,"groups_kept_ms":86400000}}"#
    );
    assert_golden(&groups_kept_ms(86_400_000).encode(), 1, json);
    assert_eq!(Command::decode(&stored(json)), Ok(groups_kept_ms(86_400_000)));
}

#[test]
fn a_checkpoint_of_level_3_is_as_it_was_and_keeps_groups_for_a_week() {
    let fixture = before();
    assert_golden(&fixture.catalog.encode(), 1, BEFORE);
    let read = Catalog::decode(&stored(BEFORE)).unwrap();
    assert_eq!(read.settings().groups_kept_ms, 7 * 24 * 60 * 60 * 1000);
    assert_eq!(read, fixture.catalog);
}

#[test]
fn a_checkpoint_has_this_form() {
    let mut fixture = before();
    fixture.done(Command::RaiseFeatureLevel { level: 4 });
    fixture.done(groups_kept_ms(86_400_000));
    assert_golden(&fixture.catalog.encode(), 1, &after());
    assert_eq!(Catalog::decode(&stored(&after())), Ok(fixture.catalog));
}

#[test]
fn a_checkpoint_that_breaks_an_invariant_is_refused() {
    let kept = r#""groups_kept_ms":86400000"#;
    for (from, to, why) in [
        (
            r#","feature_level":4,"#,
            r#","feature_level":3,"#,
            "level 4, but level 3",
        ),
        (kept, r#""groups_kept_ms":3599999"#, "groups_kept_ms"),
        (kept, r#""groups_kept_ms":315360000001"#, "groups_kept_ms"),
    ] {
        let broken = after().replacen(from, to, 1);
        assert_ne!(broken, after(), "{from} is not in the checkpoint");
        let decoded = Catalog::decode(&stored(&broken));
        assert!(
            matches!(&decoded, Err(Error::Inconsistent { why: found, .. }) if found.contains(why)),
            "{to}: {decoded:?}"
        );
    }
}
