//! The stored forms of tenants and policy, byte for byte.

use super::access::{first_policy, grant, rule, set_up};
use super::golden::{assert_golden, stored};
use super::quotas::{change_quota, setting};
use super::*;
use crate::{Effect, Error, Limit, PolicyChange, QuotaChange};

const FIRST_POLICY: &str = concat!(
    r#"{"add_rules":[{"subject":"operator","domain":"@cluster","resource":"cluster:","action":"*","effect":"allow"},"#,
    r#"{"subject":"owner","domain":"*","resource":"*","action":"*","effect":"allow"}],"#,
    r#""add_grants":[{"client":"ops/anna","role":"operator","domain":"@cluster"},"#,
    r#"{"client":"acme/*","role":"owner","domain":"acme"}]}"#
);

fn clearing_streams() -> QuotaChange {
    QuotaChange {
        clear: [Limit::Streams].into(),
        ..QuotaChange::default()
    }
}

#[test]
fn commands_have_this_form() {
    let mut denying = rule("acme/web", "acme", "topic:orders.*", "produce");
    denying.effect = Effect::Deny;
    let change = PolicyChange {
        add_rules: vec![denying],
        remove_grants: vec![grant("acme/*", "owner", "acme")],
        ..PolicyChange::default()
    };
    let cases = [
        (
            set_up(&["ops", "acme"], first_policy()),
            format!(r#"{{"set_up_access":{{"tenants":["ops","acme"],"policy":{FIRST_POLICY}}}}}"#),
        ),
        (
            Command::ChangePolicy {
                expected_version: 7,
                change,
            },
            concat!(
                r#"{"change_policy":{"expected_version":7,"change":{"add_rules":[{"subject":"acme/web","domain":"acme","#,
                r#""resource":"topic:orders.*","action":"produce","effect":"deny"}],"#,
                r#""remove_grants":[{"client":"acme/*","role":"owner","domain":"acme"}]}}}"#
            )
            .to_string(),
        ),
        (
            Command::CreateTenant {
                tenant: "shop".to_string(),
                clients_role: Some("owner".to_string()),
            },
            r#"{"create_tenant":{"tenant":"shop","clients_role":"owner"}}"#.to_string(),
        ),
        (
            Command::SuspendTenant {
                tenant: "shop".to_string(),
                suspended: true,
            },
            r#"{"suspend_tenant":{"tenant":"shop","suspended":true}}"#.to_string(),
        ),
        (
            change_quota("shop", None, setting(&[(Limit::ProduceBytesPerSecond, 1_000), (Limit::Topics, 3)])),
            concat!(
                r#"{"change_quota":{"tenant":"shop","#,
                r#""change":{"set":{"produce_bytes_per_second":1000,"topics":3}}}}"#
            )
            .to_string(),
        ),
        (
            change_quota("shop", Some("web"), clearing_streams()),
            r#"{"change_quota":{"tenant":"shop","client":"web","change":{"clear":["streams"]}}}"#.to_string(),
        ),
        (
            Command::DeleteTenant {
                tenant: "shop".to_string(),
            },
            r#"{"delete_tenant":{"tenant":"shop"}}"#.to_string(),
        ),
    ];
    for (command, json) in cases {
        assert_golden(&command.encode(), 1, &json);
        assert_eq!(Command::decode(&stored(&json)), Ok(command));
    }
    let reply = Reply::Policy { version: 7 };
    assert_golden(&reply.encode(), 1, r#"{"policy":{"version":7}}"#);
    assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
}

const ACCESS: &str = concat!(
    r#""feature_level":4,"access":{"version":7,"tenants":{"acme":{},"ops":{"suspended":true}},"#,
    r#""rules":[{"subject":"operator","domain":"@cluster","resource":"cluster:","action":"*","effect":"allow"},"#,
    r#"{"subject":"owner","domain":"*","resource":"*","action":"*","effect":"allow"}],"#,
    r#""grants":[{"client":"acme/*","role":"owner","domain":"acme"},"#,
    r#"{"client":"ops/anna","role":"operator","domain":"@cluster"}]}}"#
);

#[test]
fn a_checkpoint_holds_tenants_rules_and_grants() {
    let mut fixture = Fixture::with_access();
    fixture.version(Command::SuspendTenant {
        tenant: "ops".to_string(),
        suspended: true,
    });
    let checkpoint = fixture.catalog.encode();
    let text = String::from_utf8_lossy(&checkpoint);
    let version = fixture.catalog.access().version();
    let expected = ACCESS.replace(r#""version":7"#, &format!(r#""version":{version}"#));
    assert!(text.ends_with(&expected), "{text}");
    assert_eq!(Catalog::decode(&checkpoint), Ok(fixture.catalog));
}

#[test]
fn a_checkpoint_holds_quotas_and_refuses_impossible_ones() {
    let mut fixture = Fixture::with_access();
    fixture.version(change_quota("ops", None, setting(&[(Limit::StoredBytes, 5)])));
    fixture.version(change_quota("ops", Some("*"), setting(&[(Limit::Connections, 2)])));
    let checkpoint = String::from_utf8(fixture.catalog.encode()[1..].to_vec()).unwrap();
    let expected = concat!(
        r#""tenants":{"acme":{},"ops":{"quota":{"stored_bytes":5},"#,
        r#""client_quotas":{"*":{"connections":2}}}}"#
    );
    assert!(checkpoint.contains(expected), "{checkpoint}");
    assert_eq!(Catalog::decode(&stored(&checkpoint)), Ok(fixture.catalog));
    let broken = checkpoint.replacen(r#""connections":2"#, r#""topics":2"#, 1);
    match Catalog::decode(&stored(&broken)) {
        Err(Error::Inconsistent { why, .. }) => assert!(why.contains("topics"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_checkpoint_whose_access_cannot_be_is_refused() {
    let mut fixture = Fixture::with_access();
    fixture.topic(create("orders", 1, 1));
    let checkpoint = String::from_utf8(fixture.catalog.encode()[1..].to_vec()).unwrap();
    let version = fixture.catalog.access().version();
    let cases = [
        (
            r#""feature_level":4"#.to_string(),
            r#""feature_level":3"#,
            "need feature level 4",
        ),
        (
            format!(r#""access":{{"version":{version}"#),
            r#""access":{"version":0"#,
            "never set up",
        ),
        (
            format!(r#""access":{{"version":{version}"#),
            r#""access":{"version":99"#,
            "after the last change",
        ),
        (r#""acme":{},"#.to_string(), "", "tenant acme owns topics"),
        (r#""role":"operator""#.to_string(), r#""role":"owner""#, "operator"),
        (r#""action":"*""#.to_string(), r#""action":"all""#, "action"),
        (
            r#""role":"owner","domain":"acme""#.to_string(),
            r#""role":"owner","domain":"acne""#,
            "tenant acne",
        ),
    ];
    for (from, to, why) in cases {
        let broken = checkpoint.replacen(&from, to, 1);
        assert_ne!(broken, checkpoint, "{from} is not in the checkpoint");
        match Catalog::decode(&stored(&broken)) {
            Err(Error::Inconsistent { why: found, .. }) => assert!(found.contains(why), "{to}: {found}"),
            other => panic!("{to}: {other:?}"),
        }
    }
}
