//! Decisions under a policy of ten thousand rules: that they are right, and what they cost. `make bench-access` makes enough of them for
//! the times to mean something, and shows them; nothing is asserted about time.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::*;

/// Rules of the whole policy.
const RULES: usize = 10_000;
/// Tenants that they are spread over.
const TENANTS: usize = 100;
/// Rules about the client that asks, the most that there may be about one.
const OWN_RULES: [usize; 3] = [1, 16, 64];
/// How often each is asked, unless it is for the times: what was asked before, something new, and first after changes.
const FEW: [u32; 3] = [100, 20, 1];
const MANY: [u32; 3] = [1_000_000, 2_000, 20];
/// Enough for the allocator to tidy up.
const TIDY_BYTES: usize = 64 * 1024;
/// Set by `make bench-access`.
const BENCH: &str = "HIGHWATER_BENCH";

/// A policy of so many rules, of which `own` are about client `web` of tenant `next`.
fn policy(own: usize) -> Policy {
    let mut policy = Policy::first();
    let mut rules: Vec<Rule> = (0..own)
        .map(|number| rule("next/web", "next", &format!("topic:own-{number}.*"), "produce"))
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
fn decisions_under_ten_thousand_rules_are_right_whatever_was_kept() {
    let [hits, misses, versions] = if std::env::var_os(BENCH).is_some() { MANY } else { FEW };
    println!("{RULES} rules in {TENANTS} tenants; means\n");
    println!(
        "{:>9} {:>12} {:>12} {:>16} {:>16}",
        "OWN RULES", "KEPT", "NEW NAME", "OTHERS CHANGED", "OWN CHANGED"
    );
    for own in OWN_RULES {
        let mut policy = policy(own);
        let authority = Authority::fixed(policy.access(), &[]);
        let web = client("next", "web");
        let ask = |name: String| black_box(authority.authorize(&web, Action::Produce, topic("next", &name))).is_ok();
        assert!(ask("own-0.a".to_owned()));
        assert!(!ask("orders-7".to_owned()), "a rule of another tenant");
        let kept = each(hits, |_| assert!(ask("own-0.a".to_owned())));
        let new = each(misses, |number| assert!(ask(format!("own-0.{number}"))));
        let others = first_of_version(&mut policy, &authority, versions, "next/other");
        // A role that the client has; its own rules may be as many as there can be.
        policy.add(
            vec![rule("worker", "next", "topic:t", "produce")],
            vec![grant("next/web", "worker", "next")],
        );
        let its_own = first_of_version(&mut policy, &authority, versions, "worker");
        println!("{own:>9} {kept:>12?} {new:>12?} {others:>16?} {its_own:>16?}");
    }
}

/// What the first question costs after a rule about `subject` was added.
fn first_of_version(policy: &mut Policy, authority: &Authority, versions: u32, subject: &str) -> Duration {
    let web = client("next", "web");
    let mut first = Duration::ZERO;
    for number in 0..versions {
        let more = rule(subject, "next", &format!("topic:t{number}"), "produce");
        policy.add(vec![more], Vec::new());
        authority.replace(policy.access());
        // The policy before was freed just now, tens of thousands of little pieces. The allocator tidies up after them when it next
        // gives out something large: now, and not within what is measured.
        black_box(vec![0_u8; TIDY_BYTES]);
        first += each(1, |_| {
            assert!(
                authority
                    .authorize(&web, Action::Produce, topic("next", "own-0.a"))
                    .is_ok()
            );
        });
    }
    first / versions
}
