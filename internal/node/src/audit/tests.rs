//! What is kept of a flood, and that nobody is kept waiting.

#![allow(clippy::unwrap_used)]

use super::limits::{QUEUE_EVENTS_MAX, STRANGERS_SHARE, TENANTS_SHARE};
use super::*;
use crate::access::{Action, Resource};
use crate::failures::Failures;
use crate::identity::Identity;

fn audit(has_operators: bool) -> Audit {
    Audit::new(CatalogHost::new(Failures::default()), has_operators)
}

fn client(name: &str) -> Principal {
    Principal::new(&Identity::Client {
        cluster: "prod".to_owned(),
        tenant: "shop".to_owned(),
        name: name.to_owned(),
    })
}

fn refused() -> Refused {
    let denied = crate::access::Denied::Forbidden {
        principal: "somebody".to_owned(),
        what: "anything".to_owned(),
    };
    Refused::new(Action::Admin, &Resource::Cluster, &denied)
}

fn act<'a>(principal: &'a Principal) -> Act<'a> {
    Act {
        principal,
        is_operators: true,
        method: "CreateTopic",
        target: "topic shop/orders".to_owned(),
        outcome: Outcome::Done,
        why: String::new(),
    }
}

fn queued(audit: &Audit) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        let batch = audit.inner.queue.take();
        if batch.is_empty() {
            return all;
        }
        all.extend(batch.into_iter().map(|queued| queued.event));
    }
}

#[test]
fn a_flood_of_refusals_leaves_few_records_and_the_number_of_the_others() {
    let audit = audit(true);
    let attempts: u64 = 100_000;
    let (who, refused) = (client("web"), refused());
    for _ in 0..attempts {
        audit.denied(&who, &refused, || "no rule allows it".to_owned());
    }
    let kept = queued(&audit).len() as u64;
    assert!((1..1000).contains(&kept), "{kept} records");
    let suppressed = attempts - kept;
    assert_eq!(audit.inner.queue.take_suppressed(Kind::Denied), suppressed);
    let mut families = Families::default();
    audit.tell(&mut families);
    let (told, text) = (
        format!("_total{{kind=\"denied\"}} {suppressed}\n"),
        families.into_text(),
    );
    assert!(text.contains(&told), "{text}");
}

#[test]
fn a_flood_from_many_addresses_takes_bounded_room_and_none_of_the_acts() {
    let audit = audit(true);
    for number in 0..100_000_u32 {
        let remote = (std::net::Ipv4Addr::from_bits(number), 1).into();
        audit.unauthenticated(remote, None, "connect", "no certificate".to_owned());
    }
    let kept = queued(&audit).len();
    assert!((1..1000).contains(&kept), "{kept} records");
    let of_outsider = Event {
        cause: Cause::Strangers,
        ..Audit::event_of(act(&client("web")))
    };
    while audit.record(of_outsider.clone()).is_some() {}
    for _ in 0..QUEUE_EVENTS_MAX - QUEUE_EVENTS_MAX / STRANGERS_SHARE {
        assert!(audit.act(act(&client("anna"))).0.is_some());
    }
    assert!(audit.act(act(&client("anna"))).0.is_none(), "the queue is full");
}

#[test]
fn the_largest_batch_that_callers_can_cause_is_one_that_the_partition_takes() {
    for letter in ["\0", "x", "é", "\""] {
        let audit = audit(true);
        let large = letter.repeat(1_000_000);
        let who = client("anna");
        let largest = || Act {
            target: large.clone(),
            why: large.clone(),
            ..act(&who)
        };
        while audit.act(largest()).0.is_some() {}
        let place = |number| event::Place {
            node: "n1",
            boot: crate::hex::Id([1; 16]),
            number,
            suppressed: 0,
            former: None,
        };
        let mut records = 0;
        loop {
            let taken = audit.inner.queue.take();
            if taken.is_empty() {
                break;
            }
            let sealed = taken.iter().enumerate().map(|(number, queued)| batches::Sealed {
                time_ms: 1,
                value: event::encode(&queued.event, place(number as u64)).unwrap().into(),
                hash: "00".repeat(32),
            });
            let sealed: Vec<batches::Sealed> = sealed.collect();
            records += sealed.len();
            let request = batches::request("n1", crate::hex::Id([1; 16]), 0, &sealed);
            let checked = crate::batch::check(&request, who.digest());
            assert!(checked.is_ok(), "{letter:?}: {:?}", checked.err());
        }
        assert!(records > 10, "{letter:?}: {records}");
    }
}

#[test]
fn acts_are_limited_only_for_those_who_may_not_carry_them_out() {
    let audit = audit(true);
    let who = client("anna");
    for _ in 0..500 {
        let _unawaited = audit.act(act(&who));
    }
    assert_eq!(queued(&audit).len(), 500);
    for _ in 0..500 {
        let _unawaited = audit.refused_act(act(&who), || Some("no rule allows it".to_owned()));
    }
    let kept = queued(&audit);
    assert!((1..100).contains(&kept.len()), "{}", kept.len());
    assert_eq!(audit.inner.queue.take_suppressed(Kind::Act), 500 - kept.len() as u64);
    assert_eq!(kept[0].why, "no rule allows it");
}

#[test]
fn acts_of_a_tenant_are_limited_and_take_nothing_from_other_tenants_and_operators() {
    let audit = audit(true);
    let of = |tenant: &str| {
        Principal::new(&Identity::Client {
            cluster: "prod".to_owned(),
            tenant: tenant.to_owned(),
            name: "app".to_owned(),
        })
    };
    let done = |tenant: &str, is_operators, attempts: usize| {
        let who = of(tenant);
        let act = || Act {
            is_operators,
            ..act(&who)
        };
        (0..attempts).filter(|_| audit.act(act()).0.is_some()).count()
    };
    let burst = TENANTS_ACTS.each.burst as usize;
    let attempts = 20 * burst;
    let kept = done("busy", false, attempts);
    assert!((burst..2 * burst).contains(&kept), "{kept}");
    assert_eq!(audit.inner.queue.take_suppressed(Kind::Act), (attempts - kept) as u64);
    assert_eq!(done("calm", false, 10), 10);
    let tenants = ["a", "b", "c"].map(|tenant| done(tenant, false, burst)).into_iter();
    let kept = kept + 10 + tenants.sum::<usize>();
    assert_eq!(kept, QUEUE_EVENTS_MAX / TENANTS_SHARE, "what all tenants may take");
    let operators = done("ops", true, QUEUE_EVENTS_MAX);
    assert_eq!(operators, QUEUE_EVENTS_MAX - kept);
}

#[tokio::test]
async fn without_a_policy_nothing_is_kept_and_nobody_waits() {
    let audit = audit(false);
    let who = client("anna");
    let record = audit.act(act(&who));
    audit.denied(&who, &refused(), || "no rule allows it".to_owned());
    let far = Instant::now() + Duration::from_secs(3600);
    audit.wait(record, far).await;
    assert!(queued(&audit).is_empty());
    audit.finish().await;
}

#[tokio::test]
async fn before_there_is_a_topic_events_wait_and_their_causers_do_not() {
    let audit = audit(true);
    let who = client("anna");
    let record = audit.act(act(&who));
    audit.wait(record, Instant::now() + Duration::from_secs(3600)).await;
    assert_eq!(queued(&audit).len(), 1);
}
