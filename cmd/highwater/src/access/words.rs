//! From the words of the command line to rules and grants.

use highwater::proto::v1;

use crate::exit::{Code, Failure, Result};

/// What all tenants share, in rules and grants.
pub(crate) const CLUSTER: &str = "@cluster";
const ACTIONS: [&str; 6] = ["produce", "consume", "describe", "manage", "admin", "*"];

/// To whom, what, and on what.
#[derive(Debug, clap::Args)]
pub(super) struct GrantArgs {
    /// The client: NAME of the own tenant or TENANT/NAME, and `*` or TENANT/* for all clients of a tenant.
    pub(super) client: String,
    /// A role; or with --topic, --group or --tenant-itself an action.
    pub(super) what: String,
    /// The topics that the action is allowed on: a name, or the beginning of names and `*`.
    #[arg(long, value_name = "PATTERN")]
    pub(super) topic: Option<String>,
    /// The consumer groups that the action is allowed on, likewise.
    #[arg(long, value_name = "PATTERN", conflicts_with = "topic")]
    pub(super) group: Option<String>,
    /// The action is on the tenant as such: its list of topics, its policy.
    #[arg(long, conflicts_with_all = ["topic", "group"])]
    pub(super) tenant_itself: bool,
    /// The tenant in which it counts. Default: the own one.
    #[arg(long, value_name = "NAME")]
    pub(super) tenant: Option<String>,
    /// It counts in what all tenants share: nodes, leaders, settings.
    #[arg(long, conflicts_with_all = ["tenant", "topic", "group", "tenant_itself"])]
    pub(super) cluster: bool,
    /// Not allowed, whatever other rules say.
    #[arg(long)]
    pub(super) deny: bool,
    /// The first word is a role of the own making, not a client.
    #[arg(long)]
    pub(super) role: bool,
    /// Change nothing; tell what would be different.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Whether it is given or taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Grant,
    Revoke,
}

pub(super) fn effect(deny: bool) -> &'static str {
    if deny { "deny" } else { "allow" }
}

/// Where it counts.
pub(super) fn domain(args: &GrantArgs, own_tenant: &str) -> String {
    match (&args.tenant, args.cluster) {
        (_, true) => CLUSTER.to_owned(),
        (Some(tenant), false) => tenant.clone(),
        (None, false) => own_tenant.to_owned(),
    }
}

/// A client in full.
pub(super) fn full_name(client: &str, own_tenant: &str) -> String {
    match client.contains('/') {
        true => client.to_owned(),
        false => format!("{own_tenant}/{client}"),
    }
}

pub(super) fn change(args: &GrantArgs, own_tenant: &str, direction: Direction) -> Result<v1::PolicyChange> {
    let (rules, grants) = lines(args, own_tenant)?;
    Ok(match direction {
        Direction::Grant => v1::PolicyChange {
            add_rules: rules,
            add_grants: grants,
            ..Default::default()
        },
        Direction::Revoke => v1::PolicyChange {
            remove_rules: rules,
            remove_grants: grants,
            ..Default::default()
        },
    })
}

fn lines(args: &GrantArgs, own_tenant: &str) -> Result<(Vec<v1::Rule>, Vec<v1::Grant>)> {
    let domain = domain(args, own_tenant);
    let Some(resource) = resource(args) else {
        return Ok((Vec::new(), vec![grant(args, own_tenant, domain)?]));
    };
    if !ACTIONS.contains(&args.what.as_str()) {
        let message = format!("`{}` is no action", args.what);
        return Err(
            Failure::new(Code::Usage, message).hint("actions are produce, consume, describe, manage, admin and *")
        );
    }
    let subject = if args.role {
        args.client.clone()
    } else {
        full_name(&args.client, own_tenant)
    };
    if subject.ends_with("/*") {
        let message = "a rule is about one client or a role, not about all clients of a tenant";
        return Err(Failure::new(Code::Usage, message).hint("give them a role, and rules to the role with --role"));
    }
    let rule = |action: &str| v1::Rule {
        subject: subject.clone(),
        domain: domain.clone(),
        resource: resource.clone(),
        action: action.to_owned(),
        deny: args.deny,
    };
    // Whoever is to use a topic must be able to find it.
    let needs_sight = !args.deny && ["produce", "consume"].contains(&args.what.as_str());
    let rules = [rule(&args.what)]
        .into_iter()
        .chain(needs_sight.then(|| rule("describe")));
    Ok((rules.collect(), Vec::new()))
}

fn resource(args: &GrantArgs) -> Option<String> {
    let topic = args.topic.as_ref().map(|pattern| format!("topic:{pattern}"));
    let group = args.group.as_ref().map(|pattern| format!("group:{pattern}"));
    topic.or(group).or(args.tenant_itself.then(|| "tenant:".to_owned()))
}

fn grant(args: &GrantArgs, own_tenant: &str, domain: String) -> Result<v1::Grant> {
    if args.deny || args.role {
        let message = "--deny and --role need what the action is on: --topic, --group or --tenant-itself";
        return Err(Failure::new(Code::Usage, message));
    }
    if ACTIONS.contains(&args.what.as_str()) {
        let message = format!(
            "`{}` is an action, and needs what it is on: --topic, --group or --tenant-itself",
            args.what
        );
        return Err(Failure::new(Code::Usage, message).hint("or name a role: owner, producer, consumer, viewer"));
    }
    Ok(v1::Grant {
        client: full_name(&args.client, own_tenant),
        role: args.what.clone(),
        domain,
    })
}

/// The lines that a change adds to a policy or removes from it, as far as they make a difference.
pub(super) fn missing(policy: &v1::GetPolicyResponse, change: &v1::PolicyChange, direction: Direction) -> Vec<String> {
    let (rules, grants, sign) = match direction {
        Direction::Grant => (&change.add_rules, &change.add_grants, '+'),
        Direction::Revoke => (&change.remove_rules, &change.remove_grants, '-'),
    };
    let is_news = |is_there: bool| is_there == (direction == Direction::Revoke);
    let rules = rules.iter().filter(|rule| is_news(policy.rules.contains(rule)));
    let grants = grants.iter().filter(|grant| is_news(policy.grants.contains(grant)));
    let rules = rules.map(|rule| format!("{sign} {}", rule_text(rule)));
    let grants = grants.map(|grant| format!("{sign} {}", grant_text(grant)));
    rules.chain(grants).collect()
}

/// As a line of a casbin policy.
pub(crate) fn rule_text(rule: &v1::Rule) -> String {
    let v1::Rule {
        subject,
        domain,
        resource,
        action,
        deny,
    } = rule;
    format!("p, {subject}, {domain}, {resource}, {action}, {}", effect(*deny))
}

/// The same for a grant.
pub(crate) fn grant_text(grant: &v1::Grant) -> String {
    format!("g, {}, {}, {}", grant.client, grant.role, grant.domain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        grant: GrantArgs,
    }

    fn added(words: &str) -> std::result::Result<Vec<String>, String> {
        let words = std::iter::once("grant").chain(words.split(' '));
        let args = Cli::try_parse_from(words).map_err(|error| error.to_string())?.grant;
        let change = change(&args, "shop", Direction::Grant).map_err(|failure| failure.message)?;
        Ok(missing(&v1::GetPolicyResponse::default(), &change, Direction::Grant))
    }

    #[test]
    fn words_become_rules_and_grants() {
        let cases: [(&str, &[&str]); 8] = [
            ("web producer", &["+ g, shop/web, producer, shop"]),
            ("* owner", &["+ g, shop/*, owner, shop"]),
            ("ops/anna operator --cluster", &["+ g, ops/anna, operator, @cluster"]),
            (
                "shop/web consumer --tenant billing",
                &["+ g, shop/web, consumer, billing"],
            ),
            (
                "web produce --topic orders.*",
                &[
                    "+ p, shop/web, shop, topic:orders.*, produce, allow",
                    "+ p, shop/web, shop, topic:orders.*, describe, allow",
                ],
            ),
            (
                "web consume --topic a --deny",
                &["+ p, shop/web, shop, topic:a, consume, deny"],
            ),
            (
                "reader manage --role --group g*",
                &["+ p, reader, shop, group:g*, manage, allow"],
            ),
            (
                "web manage --tenant-itself",
                &["+ p, shop/web, shop, tenant:, manage, allow"],
            ),
        ];
        for (words, lines) in cases {
            assert_eq!(added(words).unwrap(), lines, "{words}");
        }
    }

    #[test]
    fn words_that_do_not_fit_are_refused_with_what_is_missing() {
        let cases = [
            ("web produce", "needs what it is on"),
            ("web producer --topic a", "`producer` is no action"),
            ("web producer --deny", "need what the action is on"),
            ("* produce --topic a", "not about all clients"),
            ("web produce --topic a --group b", "cannot be used with"),
            ("web operator --cluster --tenant a", "cannot be used with"),
        ];
        for (words, why) in cases {
            let refused = added(words).unwrap_err();
            assert!(refused.contains(why), "{words}: {refused}");
        }
    }

    #[test]
    fn only_what_makes_a_difference_is_told() {
        let grant = v1::Grant {
            client: "shop/web".to_owned(),
            role: "owner".to_owned(),
            domain: "shop".to_owned(),
        };
        let policy = v1::GetPolicyResponse {
            grants: vec![grant.clone()],
            ..Default::default()
        };
        let add = v1::PolicyChange {
            add_grants: vec![grant.clone()],
            ..Default::default()
        };
        let remove = v1::PolicyChange {
            remove_grants: vec![grant],
            ..Default::default()
        };
        assert!(missing(&policy, &add, Direction::Grant).is_empty());
        assert_eq!(
            missing(&policy, &remove, Direction::Revoke),
            ["- g, shop/web, owner, shop"]
        );
        let empty = v1::GetPolicyResponse::default();
        assert!(missing(&empty, &remove, Direction::Revoke).is_empty());
    }
}
