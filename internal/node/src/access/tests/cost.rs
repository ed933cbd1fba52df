//! What a decision costs: `make bench-access`. A benchmark, so no test runs it, and it asserts nothing about time.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::*;

/// Rules of the whole policy.
const RULES: usize = 10_000;
/// Tenants that they are spread over.
const TENANTS: usize = 100;
/// Rules about the client that asks, the most that there may be about one.
const OWN_RULES: [usize; 3] = [1, 16, 64];
const HITS: u32 = 1_000_000;
const MISSES: u32 = 2_000;
/// Of changes of the policy.
const VERSIONS: u32 = 20;

/// A policy of so many rules, of which `own` are about client `web` of tenant `shop`.
fn policy(own: usize) -> Policy {
    let mut policy = Policy::first();
    let mut rules: Vec<Rule> = (0..own)
        .map(|number| rule("shop/web", "shop", &format!("topic:own-{number}.*"), "produce"))
        .collect();
    for number in 0..TENANTS {
        policy.apply(Command::CreateTenant {
            tenant: format!("tenant-{number}"),
            clients_role: None,
        });
    }
    for number in rules.len()..RULES {
        let tenant = format!("tenant-{}", number % TENANTS);
        let (client, topic) = (
            format!("{tenant}/client-{}", number / 400),
            format!("topic:orders-{number}"),
        );
        rules.push(rule(&client, &tenant, &topic, "consume"));
    }
    for some in rules.chunks(1_000) {
        policy.add(some.to_vec(), Vec::new());
    }
    assert!(policy.access().rules().count() >= RULES);
    policy
}

fn each(count: u32, mut act: impl FnMut(u32)) -> Duration {
    let begin = Instant::now();
    (0..count).for_each(&mut act);
    begin.elapsed() / count
}

#[test]
#[ignore = "a benchmark: make bench-access"]
fn what_decisions_cost() {
    println!("{RULES} rules in {TENANTS} tenants; means\n");
    println!(
        "{:>9} {:>12} {:>12} {:>22}",
        "OWN RULES", "KEPT", "NEW NAME", "FIRST OF A VERSION"
    );
    for own in OWN_RULES {
        let mut policy = policy(own);
        let authority = Authority::fixed(policy.access().clone(), &[]);
        let web = client("shop", "web");
        let ask = |name: String| black_box(authority.authorize(&web, Action::Produce, topic("shop", &name))).is_ok();
        assert!(ask("own-0.a".to_owned()));
        let kept = each(HITS, |_| assert!(ask("own-0.a".to_owned())));
        let new = each(MISSES, |number| assert!(ask(format!("own-0.{number}"))));
        let versions: Vec<Access> = (0..VERSIONS)
            .map(|number| {
                policy.add(
                    vec![rule("shop/other", "shop", &format!("topic:t{number}"), "produce")],
                    Vec::new(),
                );
                policy.access().clone()
            })
            .collect();
        let mut versions = versions.into_iter();
        let mut first = Duration::ZERO;
        for access in versions.by_ref() {
            authority.replace(access);
            first += each(1, |_| assert!(ask("own-0.a".to_owned())));
        }
        println!("{own:>9} {kept:>12?} {new:>12?} {:>22?}", first / VERSIONS);
    }
}
