//! Random policies, random questions: casbin against a model that shares no line with it.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;

/// Questions in all, over all policies.
const QUESTIONS: usize = 1_000_000;
const QUESTIONS_OF_A_POLICY: usize = 5_000;
/// Of so many questions one is explained, too.
const EXPLAINED_OF: usize = 250;

/// What is allowed, straight from the words of `certs/policy.csv`.
fn reference(access: &Access, (tenant, name): (&str, &str), domain: &str, resource: &str, action: &str) -> bool {
    let is_active = |tenant: &str| access.tenants().get(tenant).is_some_and(|tenant| !tenant.suspended);
    let in_cluster = domain == "@cluster";
    if !is_active(tenant) || (!in_cluster && access.tenants().contains_key(domain) && !is_active(domain)) {
        return false;
    }
    let mut who: BTreeSet<String> = BTreeSet::from([format!("{tenant}/{name}")]);
    if in_cluster {
        who.insert("client".to_owned());
    }
    for grant in access.grants() {
        let (of, which) = grant.client.split_once('/').unwrap();
        if of == tenant && (which == "*" || which == name) && grant.domain == domain {
            who.insert(grant.role.clone());
        }
    }
    let (mut allows, mut denies) = (false, false);
    for rule in access.rules() {
        let here = rule.domain == domain || (rule.domain == "*" && !in_cluster);
        let about = match rule.resource.split_once('*') {
            Some((beginning, _)) => resource.len() >= beginning.len() && &resource[..beginning.len()] == beginning,
            None => rule.resource == resource,
        };
        if here && about && who.contains(&rule.subject) && ["*", action].contains(&rule.action.as_str()) {
            match rule.effect {
                Effect::Allow => allows = true,
                Effect::Deny => denies = true,
            }
        }
    }
    allows && !denies
}

const TENANTS: [&str; 4] = ["ops", "shop", "next", "shopx"];
const CLIENTS: [&str; 4] = ["web", "we", "webx", "anna"];
const NAMES: [&str; 7] = ["orders", "order", "orders.eu", "orders.eu.x", "o", "billing", "b"];

fn pick<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(random).unwrap()
}

fn pattern(random: &mut StdRng) -> String {
    let kind = pick(random, &["topic", "group"]);
    match random.random_range(0..8) {
        0 => "*".to_owned(),
        1 => "tenant:".to_owned(),
        2 => "cluster:".to_owned(),
        3 => format!("{kind}:*"),
        4 | 5 => format!("{kind}:{}*", pick(random, &["o", "order", "orders", "orders.", "b"])),
        _ => format!("{kind}:{}", pick(random, &NAMES)),
    }
}

fn random_rule(random: &mut StdRng) -> Rule {
    let client = format!("{}/{}", pick(random, &TENANTS), pick(random, &CLIENTS));
    let is_client = random.random_bool(0.3);
    let role = pick(random, &["owner", "producer", "client", "own", "operator"]).to_owned();
    let domains = ["shop", "next", "shopx", "@cluster", "*"];
    let domain = pick(random, if is_client { &domains[..4] } else { &domains });
    Rule {
        subject: if is_client { client } else { role },
        domain: domain.to_owned(),
        resource: pattern(random),
        action: pick(random, &["produce", "consume", "describe", "manage", "admin", "*"]).to_owned(),
        effect: if random.random_bool(0.25) {
            Effect::Deny
        } else {
            Effect::Allow
        },
    }
}

fn random_policy(random: &mut StdRng) -> Policy {
    let mut policy = Policy::first();
    policy.apply(Command::CreateTenant {
        tenant: "shopx".to_owned(),
        clients_role: None,
    });
    let rules = (0..random.random_range(0..40)).map(|_| random_rule(random)).collect();
    policy.add(rules, Vec::new());
    let known: BTreeSet<String> = policy.access().rules().map(|rule| rule.subject.clone()).collect();
    let roles: Vec<&str> = known
        .iter()
        .map(String::as_str)
        .filter(|role| !role.contains('/'))
        .collect();
    let grants = (0..random.random_range(0..20)).map(|_| {
        let domain = pick(random, &["shop", "next", "shopx", "@cluster"]);
        let clients: &[&str] = if domain == "@cluster" {
            &CLIENTS
        } else {
            &["web", "we", "webx", "*"]
        };
        let client = format!("{}/{}", pick(random, &TENANTS), pick(random, clients));
        grant(&client, pick(random, &roles), domain)
    });
    let grants = grants.collect();
    policy.add(Vec::new(), grants);
    if random.random_bool(0.3) {
        policy.apply(Command::SuspendTenant {
            tenant: pick(random, &TENANTS).to_owned(),
            suspended: true,
        });
    }
    policy
}

fn random_resource(random: &mut StdRng) -> Resource {
    let tenant = pick(random, &["shop", "next", "shopx", "sho", "ops"]);
    match random.random_range(0..8) {
        0 => Resource::Cluster,
        1 => super::tenant(tenant),
        2 | 3 => group(tenant, pick(random, &NAMES)),
        _ => topic(tenant, pick(random, &NAMES)),
    }
}

#[test]
fn casbin_decides_a_million_questions_as_the_words_of_the_policy_do() {
    let mut random = StdRng::seed_from_u64(1);
    let mut yes = 0;
    for number in 0..QUESTIONS / QUESTIONS_OF_A_POLICY {
        let policy = random_policy(&mut random);
        let access = policy.access();
        let authority = policy.authority();
        for asked in 0..QUESTIONS_OF_A_POLICY {
            let who = (pick(&mut random, &TENANTS), pick(&mut random, &CLIENTS));
            let (resource, action) = (random_resource(&mut random), *ACTIONS.choose(&mut random).unwrap());
            let (domain, named) = resource.in_policy();
            let expected = reference(access, who, domain.as_str(), &named.to_text(), action.name());
            let asking = Client {
                tenant: who.0,
                name: who.1,
            };
            let found = authority.allows(asking, domain, named, action);
            assert_eq!(
                found, expected,
                "policy {number}: {who:?} {action:?} {resource}: {access:#?}"
            );
            if asked % EXPLAINED_OF == 0 {
                let (explained, reason) = authority.explain(access, asking, domain, named, action);
                let decided = match &reason {
                    Reason::Rule(rule) => rule.effect == Effect::Allow,
                    _ => false,
                };
                assert_eq!(
                    (explained, decided),
                    (expected, expected),
                    "policy {number}: {who:?} {resource}: {reason:?}"
                );
            }
            yes += usize::from(found);
        }
    }
    assert!(
        (QUESTIONS / 20..QUESTIONS / 2).contains(&yes),
        "{yes} of {QUESTIONS} allowed: not a fair sample"
    );
}
