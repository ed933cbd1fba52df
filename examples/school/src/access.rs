//! `school init`: the tenant, its access rules and its topics, made or mended until they are as wanted.
//!
//! An operator runs it, any number of times, and several may run it at once: each looks, makes what is missing, and looks again if somebody
//! else was faster. The rules about the three clients are exactly those of [`RULES`]: what somebody has given them beside is taken
//! away again. The operator gives itself the right to make these four topics, and none to read or write them.
//!
//! Deliberately absent: certificates (whoever issues those of the cluster does), and any change of a topic that is there.

use std::time::Duration;

use highwater::proto::v1::{GetPolicyResponse, Grant, PolicyChange, Rule};
use highwater::{Client, CreateTopic, Error, Reason};
use tokio::time::{Instant, sleep};

use crate::names::{COURSES, GATEWAY, PARTITIONS, RULES, STUDENTS, TENANT, TOPICS};

/// How long all of it may take: nodes learn of a change a moment later.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the school is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The cluster says so.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// A topic is there, and different; it is not changed, for a key's records would be in two partitions.
    #[error(
        "topic {TENANT}/{topic} has {found} partitions, and {PARTITIONS} are wanted: delete it, with its records, or use another cluster"
    )]
    Partitions {
        /// The topic.
        topic: &'static str,
        /// How many it has.
        found: usize,
    },
}

/// Makes what is missing and takes away what is too much; tells each thing that was changed, a line each. No line: it was so already.
///
/// # Errors
/// [`InitError`]: not an operator; a topic of that name that does not fit.
pub async fn init(client: &Client) -> Result<Vec<String>, InitError> {
    let until = Instant::now() + DEADLINE;
    let mut told = Vec::new();
    loop {
        match step(client, &mut told).await {
            Ok(()) => return Ok(told),
            Err(InitError::Cluster(error)) if may_pass(&error) && Instant::now() < until => {
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

async fn step(client: &Client, told: &mut Vec<String>) -> Result<(), InitError> {
    make_tenant(client, told).await?;
    mend_rules(client, told).await?;
    for topic in TOPICS {
        make_topic(client, topic, told).await?;
    }
    Ok(())
}

async fn make_tenant(client: &Client, told: &mut Vec<String>) -> Result<(), InitError> {
    let access = client.access();
    if access.tenants().await?.iter().any(|tenant| tenant.name == TENANT) {
        return Ok(());
    }
    // No role for all its clients: each is given what it needs, by name.
    access.create_tenant(TENANT, Some("")).await?;
    told.push(format!("tenant {TENANT}"));
    Ok(())
}

async fn mend_rules(client: &Client, told: &mut Vec<String>) -> Result<(), InitError> {
    let access = client.access();
    let who = access.who_am_i().await?;
    let policy = access.policy(TENANT).await?;
    let change = difference(&policy, &wanted_rules(&format!("{}/{}", who.tenant, who.client)));
    let lines = described(&change);
    if lines.is_empty() {
        return Ok(());
    }
    access.change(policy.version, change).await?;
    told.extend(lines);
    Ok(())
}

async fn make_topic(client: &Client, topic: &'static str, told: &mut Vec<String>) -> Result<(), InitError> {
    let name = format!("{TENANT}/{topic}");
    let found = match client.topics().get(&name).await {
        Err(error) if error.reason() == Some(Reason::TopicNotFound) => {
            let wanted = CreateTopic {
                partitions: PARTITIONS,
                // For ever: databases are made of events, and events of commands.
                retention_ms: Some(0),
                ..CreateTopic::default()
            };
            client.topics().create(&name, wanted).await?;
            told.push(format!("topic {name}"));
            return Ok(());
        }
        found => found?.partitions.len(),
    };
    match found == PARTITIONS as usize {
        true => Ok(()),
        false => Err(InitError::Partitions { topic, found }),
    }
}

fn wanted_rules(operator: &str) -> Vec<Rule> {
    let rule = |subject: String, resource: String, action: &str| Rule {
        subject,
        domain: TENANT.to_owned(),
        resource,
        action: action.to_owned(),
        deny: false,
    };
    let of_clients = RULES
        .iter()
        .map(|(client, kind, name, action)| rule(format!("{TENANT}/{client}"), format!("{kind}:{name}"), action));
    let own = TOPICS.iter().flat_map(|topic| {
        ["describe", "manage"].map(|action| rule(operator.to_owned(), format!("topic:{topic}"), action))
    });
    of_clients.chain(own).collect()
}

/// What has to be changed so that the rules about our clients are the wanted ones, and no role gives them more.
fn difference(policy: &GetPolicyResponse, wanted: &[Rule]) -> PolicyChange {
    let clients = [STUDENTS, COURSES, GATEWAY].map(|client| format!("{TENANT}/{client}"));
    let is_ours = |rule: &&Rule| rule.domain == TENANT && clients.contains(&rule.subject);
    let everybody = format!("{TENANT}/*");
    let gives_us =
        |grant: &&Grant| grant.domain == TENANT && (clients.contains(&grant.client) || grant.client == everybody);
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

    #[test]
    fn rules_are_added_once_and_what_is_too_much_is_taken_away() {
        let wanted = wanted_rules("acme/app");
        let mut policy = GetPolicyResponse::default();
        assert_eq!(difference(&policy, &wanted).add_rules, wanted);
        policy.rules = wanted.clone();
        assert_eq!(difference(&policy, &wanted), PolicyChange::default());

        let too_much = Rule {
            action: "produce".to_owned(),
            ..wanted[0].clone()
        };
        let too_much = Rule {
            resource: "topic:students".to_owned(),
            ..too_much
        };
        let of_another = Rule {
            subject: "school/auditor".to_owned(),
            ..too_much.clone()
        };
        let owner = Grant {
            client: "school/*".to_owned(),
            role: "owner".to_owned(),
            domain: TENANT.to_owned(),
        };
        policy.rules.extend([too_much.clone(), of_another]);
        policy.grants.push(owner.clone());
        let change = difference(&policy, &wanted);
        assert_eq!(
            (change.remove_rules.as_slice(), change.remove_grants.as_slice()),
            ([too_much].as_slice(), [owner].as_slice())
        );
        assert_eq!(
            described(&change),
            ["rule - school/gateway produce topic:students", "role - school/* owner"]
        );
    }

    #[test]
    fn only_workers_write_events_and_only_the_gateway_commands() {
        for rule in wanted_rules("acme/app").iter().filter(|rule| rule.action == "produce") {
            let words = (rule.subject.as_str(), rule.resource.as_str());
            let right = [
                ("school/gateway", "topic:student-commands"),
                ("school/gateway", "topic:course-commands"),
                ("school/students", "topic:students"),
                ("school/courses", "topic:courses"),
            ];
            assert!(right.contains(&words), "{words:?}");
        }
    }
}
