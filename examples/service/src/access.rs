//! The subcommand `init` of an application: its tenant, its access rules and its topics, made or mended until they are as wanted.
//!
//! An operator runs it, any number of times, and several may run it at once: each looks, makes what is missing, and looks again if somebody
//! else was faster. The rules about the application's clients are exactly those of [`Needs::rules`]: what somebody has given them beside is
//! taken away again. The operator gives itself the right to find and manage these topics, which it keeps, and none to read or write them.
//!
//! Deliberately absent: certificates (whoever issues those of the cluster does), any change of a topic that is there, and taking away what a
//! former operator gave itself.

use std::path::PathBuf;
use std::time::Duration;

use highwater::proto::v1::{GetPolicyResponse, Grant, PolicyChange, Rule};
use highwater::{Client, Error, Profile, Reason};
use tokio::time::{Instant, sleep};

use crate::logs::{self, LogFormat};
use crate::topics::{self, TopicError};

/// How long all of it may take: nodes learn of a change a moment later.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(100);

/// What an application needs of a cluster. None of its clients gets more.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// The tenant that owns its topics, and that its clients are of.
    pub tenant: &'static str,
    /// Its topics. Records are kept for ever: states are made of them.
    pub topics: &'static [&'static str],
    /// How many partitions each topic has.
    pub partitions: u32,
    /// Client, kind of resource (`topic` or `group`), name, action. Whoever uses a topic must be able to find it: `describe`.
    pub rules: &'static [(&'static str, &'static str, &'static str, &'static str)],
}

/// Settings of the subcommand.
#[derive(Debug, Clone, clap::Args)]
pub struct InitSettings {
    /// The profile of an operator of the cluster.
    #[arg(long, env = "HIGHWATER_CONFIG", value_name = "FILE")]
    profile: PathBuf,
    /// How lines of the log look.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or directives of parts.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    log_level: String,
}

/// Why the cluster is not as the application needs it.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The cluster says so, or cannot be reached.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// The log of what happens.
    #[error("{0}")]
    Logs(String),
    /// A topic is there, and cannot be used.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Whoever runs this may not look at the cluster's tenants.
    #[error("only an operator of the cluster can prepare it: {0}")]
    NotOperator(Error),
}

/// The subcommand: makes what is missing, and prints each thing that it changed.
///
/// # Errors
/// [`InitError`].
pub async fn run(settings: &InitSettings, needs: &Needs) -> Result<(), InitError> {
    logs::init(settings.log_format, &settings.log_level).map_err(InitError::Logs)?;
    let client = Client::from_profile(&Profile::load(&settings.profile)?).await?;
    let changed = init(&client, needs).await?;
    for line in &changed {
        println!("{line}");
    }
    match changed.len() {
        0 => println!("It is so already; nothing was changed."),
        count => println!("{count} changes."),
    }
    Ok(())
}

/// Makes what is missing and takes away what is too much; tells each thing that was changed, a line each. No line: it was so already.
///
/// # Errors
/// [`InitError`]: not an operator; a topic of that name that does not fit.
pub async fn init(client: &Client, needs: &Needs) -> Result<Vec<String>, InitError> {
    let until = Instant::now() + DEADLINE;
    let mut told = Vec::new();
    loop {
        match step(client, needs, &mut told).await {
            Ok(()) => return Ok(told),
            Err(InitError::Cluster(error) | InitError::Topic(TopicError::Cluster(error)))
                if may_pass(&error) && Instant::now() < until =>
            {
                tracing::debug!(%error, "looking again");
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Somebody else was faster, or the node that answered has not heard of the last change yet.
fn may_pass(error: &Error) -> bool {
    let passing = [
        Reason::PolicyChanged,
        Reason::Refused,
        Reason::TenantNotFound,
        Reason::TopicExists,
        Reason::PermissionDenied,
    ];
    error.reason().is_some_and(|reason| passing.contains(&reason)) || error.is_retryable()
}

async fn step(client: &Client, needs: &Needs, told: &mut Vec<String>) -> Result<(), InitError> {
    make_tenant(client, needs, told).await?;
    mend_rules(client, needs, told).await?;
    for topic in needs.topics {
        make_topic(client, &format!("{}/{topic}", needs.tenant), needs.partitions, told).await?;
    }
    Ok(())
}

async fn make_tenant(client: &Client, needs: &Needs, told: &mut Vec<String>) -> Result<(), InitError> {
    let access = client.access();
    let tenants = access.tenants().await.map_err(|error| match error.reason() {
        Some(Reason::PermissionDenied) => InitError::NotOperator(error),
        _ => error.into(),
    })?;
    if tenants.iter().any(|tenant| tenant.name == needs.tenant) {
        return Ok(());
    }
    // No role for all its clients: each is given what it needs, by name.
    access.create_tenant(needs.tenant, Some("")).await?;
    told.push(format!("tenant {}", needs.tenant));
    Ok(())
}

async fn mend_rules(client: &Client, needs: &Needs, told: &mut Vec<String>) -> Result<(), InitError> {
    let access = client.access();
    let who = access.who_am_i().await?;
    let policy = access.policy(needs.tenant).await?;
    let change = needs.difference(&policy, &needs.wanted(&format!("{}/{}", who.tenant, who.client)));
    let lines = described(&change);
    if lines.is_empty() {
        return Ok(());
    }
    access.change(policy.version, change).await?;
    told.extend(lines);
    Ok(())
}

async fn make_topic(client: &Client, name: &str, partitions: u32, told: &mut Vec<String>) -> Result<(), InitError> {
    let (_, was_made) = topics::ensure_told(client, name, partitions).await?;
    if was_made {
        told.push(format!("topic {name}"));
    }
    Ok(())
}

impl Needs {
    fn wanted(&self, operator: &str) -> Vec<Rule> {
        let rule = |subject: String, resource: String, action: &str| Rule {
            subject,
            domain: self.tenant.to_owned(),
            resource,
            action: action.to_owned(),
            deny: false,
        };
        let of_clients = self.rules.iter().map(|(client, kind, name, action)| {
            rule(format!("{}/{client}", self.tenant), format!("{kind}:{name}"), action)
        });
        let own = self.topics.iter().flat_map(|topic| {
            ["describe", "manage"].map(|action| rule(operator.to_owned(), format!("topic:{topic}"), action))
        });
        of_clients.chain(own).collect()
    }

    /// What has to be changed so that the rules about our clients are the wanted ones, and no role gives them more.
    fn difference(&self, policy: &GetPolicyResponse, wanted: &[Rule]) -> PolicyChange {
        let everybody = format!("{}/*", self.tenant);
        let is_client = |name: &str| {
            let own =
                |client: &str| name.strip_prefix(self.tenant).and_then(|rest| rest.strip_prefix('/')) == Some(client);
            self.rules.iter().any(|(client, ..)| own(client))
        };
        // What is denied was denied on purpose, by somebody else: it gives nothing that would be too much.
        let is_ours = |rule: &&Rule| !rule.deny && rule.domain == self.tenant && is_client(&rule.subject);
        let gives_us =
            |grant: &&Grant| grant.domain == self.tenant && (is_client(&grant.client) || grant.client == everybody);
        PolicyChange {
            add_rules: wanted
                .iter()
                .filter(|rule| !policy.rules.contains(rule))
                .cloned()
                .collect(),
            remove_rules: policy
                .rules
                .iter()
                .filter(is_ours)
                .filter(|rule| !wanted.contains(rule))
                .cloned()
                .collect(),
            add_grants: Vec::new(),
            remove_grants: policy.grants.iter().filter(gives_us).cloned().collect(),
        }
    }
}

fn described(change: &PolicyChange) -> Vec<String> {
    let rule = |sign: char, rule: &Rule| format!("rule {sign} {} {} {}", rule.subject, rule.action, rule.resource);
    let added = change.add_rules.iter().map(|added| rule('+', added));
    let removed = change.remove_rules.iter().map(|removed| rule('-', removed));
    let taken = change
        .remove_grants
        .iter()
        .map(|grant| format!("role - {} {}", grant.client, grant.role));
    added.chain(removed).chain(taken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs {
        tenant: "school",
        topics: &["commands"],
        partitions: 3,
        rules: &[
            ("gateway", "topic", "commands", "describe"),
            ("gateway", "topic", "commands", "produce"),
            ("worker", "group", "workers", "consume"),
        ],
    };

    #[test]
    fn rules_are_added_once_and_what_is_too_much_is_taken_away() {
        let wanted = NEEDS.wanted("acme/app");
        let mut policy = GetPolicyResponse::default();
        assert_eq!(NEEDS.difference(&policy, &wanted).add_rules, wanted);
        policy.rules = wanted.clone();
        assert_eq!(NEEDS.difference(&policy, &wanted), PolicyChange::default());

        let too_much = Rule {
            action: "produce".to_owned(),
            resource: "topic:students".to_owned(),
            ..wanted[0].clone()
        };
        let of_another = Rule {
            subject: "school/auditor".to_owned(),
            ..too_much.clone()
        };
        let owner = Grant {
            client: "school/*".to_owned(),
            role: "owner".to_owned(),
            domain: "school".to_owned(),
        };
        let denied = Rule {
            deny: true,
            ..wanted[0].clone()
        };
        policy.rules.extend([too_much.clone(), of_another, denied]);
        policy.grants.push(owner.clone());
        let change = NEEDS.difference(&policy, &wanted);
        assert_eq!(
            (change.remove_rules.as_slice(), change.remove_grants.as_slice()),
            ([too_much].as_slice(), [owner].as_slice())
        );
        assert_eq!(
            described(&change),
            ["rule - school/gateway produce topic:students", "role - school/* owner"]
        );
    }
}
