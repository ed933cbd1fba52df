//! Whether this client may do all that a backup or a restore will ask for, before it begins.
//!
//! What a client may not see looks as if it did not exist. So a backup that only looked around would leave out in silence what is hidden
//! from it; here it asks the cluster, resource by resource, and what is missing is named.

use futures::{StreamExt, TryStreamExt, stream};
use highwater::Access;
use highwater::proto::v1;

use super::manifest::{Policy, Rule};
use crate::access::words;
use crate::exit::{Code, Failure, Result};
use crate::profile::failure;

/// How many questions are asked at a time.
const QUESTIONS_AT_ONCE: usize = 16;
/// So many rights that are missing are named.
const MISSING_SHOWN_MAX: usize = 10;
/// All consumer groups of a tenant, as rules name them.
const ALL_GROUPS: &str = "group:*";

/// Something that is to be done in a tenant.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) tenant: String,
    pub(super) resource: String,
    pub(super) action: &'static str,
}

impl Wanted {
    pub(super) fn topic(tenant: &str, topic: &str, action: &'static str) -> Wanted {
        Wanted {
            tenant: tenant.to_owned(),
            resource: format!("topic:{topic}"),
            action,
        }
    }

    pub(super) fn all_groups(tenant: &str, action: &'static str) -> Wanted {
        Wanted {
            tenant: tenant.to_owned(),
            resource: ALL_GROUPS.to_owned(),
            action,
        }
    }
}

/// Refuses unless all of it is allowed; `role` is what usually gives the right.
pub(super) async fn check(access: &Access, who: &v1::WhoAmIResponse, wanted: Vec<Wanted>, role: &str) -> Result<()> {
    let missing = missing(access, wanted).await?;
    let Some((first, _)) = missing.first() else {
        return Ok(());
    };
    let client = format!("{}/{}", who.tenant, who.client);
    let hint = format!(
        "`highwater access grant {client} {role} --tenant {}` gives it that",
        first.tenant
    );
    let mut told: Vec<String> = missing.iter().take(MISSING_SHOWN_MAX).map(text).collect();
    if missing.len() > told.len() {
        told.push(format!("and {} more", missing.len() - told.len()));
    }
    Err(Failure::new(Code::Refused, format!("{client} may not {}", told.join("; "))).hint(hint))
}

fn text((wanted, why): &(Wanted, String)) -> String {
    format!("{} {} in {}: {why}", wanted.action, wanted.resource, wanted.tenant)
}

/// What is not allowed, and why.
pub(super) async fn missing(access: &Access, wanted: Vec<Wanted>) -> Result<Vec<(Wanted, String)>> {
    let asked = stream::iter(wanted).map(|wanted| async move {
        let request = v1::ExplainRequest {
            client: String::new(),
            domain: wanted.tenant.clone(),
            resource: wanted.resource.clone(),
            action: wanted.action.to_owned(),
            change: None,
        };
        let answer = access.explain(request).await.map_err(failure)?;
        Ok::<_, Failure>((!answer.allowed).then_some((wanted, answer.reason)))
    });
    let answers: Vec<_> = asked.buffered(QUESTIONS_AT_ONCE).try_collect().await?;
    Ok(answers.into_iter().flatten().collect())
}

/// Refuses if a rule hides some consumer groups of a tenant from a client that sees all others.
pub(super) fn check_no_group_is_hidden(policy: &Policy, who: &v1::WhoAmIResponse, tenant: &str) -> Result<()> {
    let client = format!("{}/{}", who.tenant, who.client);
    let hides = |rule: &&Rule| {
        let counts_here = [tenant, "*"].contains(&rule.domain.as_str());
        let is_sight = ["describe", "*"].contains(&rule.action.as_str());
        rule.deny && counts_here && is_sight && rule.resource.starts_with("group:")
    };
    let roles = who.grants.iter().filter(|grant| grant.domain == tenant);
    let roles: Vec<&str> = roles.map(|grant| grant.role.as_str()).collect();
    let is_about = |rule: &&Rule| rule.subject == client || roles.contains(&rule.subject.as_str());
    match policy.rules.iter().filter(hides).find(is_about) {
        None => Ok(()),
        Some(rule) => {
            let rule = words::rule_text(&rule.clone().into());
            let message =
                format!("the rule `{rule}` hides consumer groups of {tenant} from {client}, which would be left out");
            Err(Failure::new(Code::Refused, message).hint("make the backup as a client that no such rule is about"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(subject: &str, domain: &str, resource: &str, action: &str, deny: bool) -> Rule {
        Rule {
            subject: subject.to_owned(),
            domain: domain.to_owned(),
            resource: resource.to_owned(),
            action: action.to_owned(),
            deny,
        }
    }

    #[test]
    fn a_rule_that_hides_a_group_from_this_client_is_found() {
        let who = v1::WhoAmIResponse {
            tenant: "ops".to_owned(),
            client: "backup".to_owned(),
            grants: vec![v1::Grant {
                client: "ops/backup".to_owned(),
                role: "consumer".to_owned(),
                domain: "shop".to_owned(),
            }],
            ..Default::default()
        };
        let hides = |rule: Rule| {
            let policy = Policy {
                rules: vec![rule],
                grants: Vec::new(),
            };
            check_no_group_is_hidden(&policy, &who, "shop").is_err()
        };
        assert!(hides(rule("ops/backup", "shop", "group:secret*", "describe", true)));
        assert!(hides(rule("consumer", "*", "group:secret", "*", true)));
        for harmless in [
            rule("ops/backup", "shop", "group:secret", "describe", false),
            rule("ops/backup", "shop", "group:secret", "manage", true),
            rule("ops/backup", "billing", "group:secret", "describe", true),
            rule("ops/anna", "shop", "group:secret", "describe", true),
            rule("viewer", "shop", "group:secret", "describe", true),
        ] {
            assert!(!hides(harmless.clone()), "{harmless:?}");
        }
    }
}
