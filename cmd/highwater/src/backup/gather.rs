//! What a cluster holds beside its records: tenants, policy, quotas, topics, and how far consumer groups have come.
//!
//! Invariants: offsets of groups are asked for here, before anybody looks where the partitions end, so no offset of a backup lies beyond its
//! records. What this client may not see ends the backup with an error that names it; where it cannot be known, a note says so.

use std::collections::{BTreeMap, BTreeSet};

use highwater::proto::v1;
use highwater::{Access, Client, Reason};

use super::manifest::{GroupOffset, Policy, Quota, Tenant};
use super::rights::{self, Wanted};
use super::selection::Selection;
use super::{SYSTEM_TENANT, in_tenant};
use crate::exit::{Code, Failure, Result};
use crate::output;
use crate::profile::failure;
use crate::tenant::quota;

/// How often the topics of a tenant are listed until they are as many as the cluster says: somebody may make or delete one meanwhile.
const LISTINGS_MAX: usize = 3;

/// The name under which each client has a quota that has none of its own.
const EVERY_CLIENT: &str = "*";

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Name and id.
    pub(super) cluster: (String, String),
    pub(super) cluster_policy: Option<Policy>,
    pub(super) tenants: Vec<Tenant>,
    /// By tenant and name.
    pub(super) topics: Vec<(v1::Topic, Vec<GroupOffset>)>,
}

/// Asks the cluster.
pub(super) async fn gather(client: &Client, selection: &Selection) -> Result<Found> {
    let access = client.access();
    let who = access.who_am_i().await.map_err(failure)?;
    let cluster = client.cluster().describe().await.map_err(failure)?;
    let mut found = Found {
        cluster: (cluster.cluster_name, cluster.cluster_id),
        ..Found::default()
    };
    let mut topics = Vec::new();
    if !selection.topics.is_empty() {
        for name in &selection.topics {
            topics.push(client.topics().get(&name.to_string()).await.map_err(failure)?);
        }
        if !who.no_policy {
            check_groups_are_seen(&access, &who, selection).await?;
        }
    } else if who.no_policy {
        topics = topics_without_policy(client, &who, selection).await?;
    } else {
        let policy = take_policy(&access, selection, &mut found).await?;
        for tenant in &found.tenants {
            rights::check_no_group_is_hidden(&policy, &who, &tenant.name)?;
            topics.extend(topics_of(client, &who, &tenant.name).await?);
        }
    }
    topics.sort_by(|one, other| (&one.tenant, &one.name).cmp(&(&other.tenant, &other.name)));
    topics.dedup_by(|one, other| one.topic_id == other.topic_id);
    rights::check(&access, &who, wanted(&topics), "consumer").await?;
    for topic in topics {
        let groups = groups_of(client, &topic).await?;
        found.topics.push((topic, groups));
    }
    Ok(found)
}

/// All that is to be read.
fn wanted(topics: &[v1::Topic]) -> Vec<Wanted> {
    let mut tenants: Vec<&str> = topics.iter().map(|topic| topic.tenant.as_str()).collect();
    tenants.dedup();
    let groups = tenants.into_iter().map(|tenant| Wanted::all_groups(tenant, "describe"));
    let topics = topics
        .iter()
        .map(|topic| Wanted::topic(&topic.tenant, &topic.name, "consume"));
    groups.chain(topics).collect()
}

/// Refuses if a rule hides consumer groups of the topics' tenants from this client. Whether one does is not for everybody to know.
async fn check_groups_are_seen(access: &Access, who: &v1::WhoAmIResponse, selection: &Selection) -> Result<()> {
    let tenants: BTreeSet<&str> = selection.topics.iter().map(|topic| topic.tenant.as_str()).collect();
    for tenant in tenants {
        match access.policy(tenant).await {
            Ok(policy) => rights::check_no_group_is_hidden(&lines_of(policy), who, tenant)?,
            Err(error) if error.reason() == Some(Reason::PermissionDenied) => output::note(format!(
                "{}/{} may not see the policy of {tenant}: consumer groups that a rule hides from it may be missing.",
                who.tenant, who.client
            )),
            Err(error) => return Err(failure(error)),
        }
    }
    Ok(())
}

/// Without a policy a client sees its own tenant, and nobody sees all.
async fn topics_without_policy(
    client: &Client,
    who: &v1::WhoAmIResponse,
    selection: &Selection,
) -> Result<Vec<v1::Topic>> {
    if let Some(other) = selection.tenants.iter().find(|tenant| **tenant != who.tenant) {
        let message = format!(
            "the cluster has no policy, so {}/{} sees nothing of tenant {other}",
            who.tenant, who.client
        );
        return Err(Failure::new(Code::Refused, message).hint("back each tenant up as a client of its own"));
    }
    output::note(format!(
        "The cluster has no policy: this is a backup of the topics of tenant {}, and of nothing else.",
        who.tenant
    ));
    client.topics().list().await.map_err(failure)
}

/// Fills in tenants and policy; answers the policy as a whole.
async fn take_policy(access: &Access, selection: &Selection, found: &mut Found) -> Result<Policy> {
    let is_wanted = |tenant: &str| tenant != SYSTEM_TENANT && selection.has_tenant(tenant);
    let (tenants, policy) = policy_of(access, is_wanted).await?;
    let is_known = |name: &String| tenants.iter().any(|tenant| tenant.name == *name);
    if let Some(unknown) = selection.tenants.iter().find(|name| !is_known(name)) {
        let failure = Failure::new(Code::NotFound, format!("there is no tenant {unknown} to back up"));
        return Err(
            failure.hint("`highwater tenant list` shows the tenants; the audit is backed up with --topic system/audit")
        );
    }
    let is_of_none = |domain: &str| !tenants.iter().any(|tenant| tenant.name == domain);
    found.cluster_policy = selection.is_all().then(|| policy.only(is_of_none));
    found.tenants = tenants;
    Ok(policy)
}

/// Some of the tenants of a cluster, and its whole policy.
pub(super) async fn policy_of(access: &Access, is_wanted: impl Fn(&str) -> bool) -> Result<(Vec<Tenant>, Policy)> {
    let known = access.tenants().await.map_err(not_an_operator)?;
    let policy = lines_of(access.policy("").await.map_err(not_an_operator)?);
    let mut tenants = Vec::new();
    for tenant in known.iter().filter(|tenant| is_wanted(&tenant.name)) {
        tenants.push(take_tenant(access, tenant, &policy).await?);
    }
    Ok((tenants, policy))
}

fn lines_of(policy: v1::GetPolicyResponse) -> Policy {
    Policy {
        rules: policy.rules.into_iter().map(Into::into).collect(),
        grants: policy.grants.into_iter().map(Into::into).collect(),
    }
}

async fn take_tenant(access: &Access, tenant: &v1::Tenant, policy: &Policy) -> Result<Tenant> {
    let described = access.describe_tenant(&tenant.name).await.map_err(failure)?;
    Ok(Tenant {
        name: tenant.name.clone(),
        suspended: tenant.suspended,
        quota: quota::by_name(described.quota),
        client_quotas: own_quotas(&described.clients),
        policy: policy.only(|domain| domain == tenant.name),
    })
}

/// Quotas that clients have of their own. The cluster tells what counts for a client, with the limits of `*` where it has none of its own; what
/// is the same as there is not told apart from that.
fn own_quotas(clients: &[v1::ClientUse]) -> BTreeMap<String, Quota> {
    let everyone = clients.iter().find(|client| client.client == EVERY_CLIENT);
    let everyone = quota::by_name(everyone.and_then(|client| client.quota));
    let quotas = clients.iter().map(|client| {
        let mut quota = quota::by_name(client.quota);
        if client.client != EVERY_CLIENT {
            quota.retain(|name, limit| everyone.get(name) != Some(limit));
        }
        (client.client.clone(), quota)
    });
    quotas.filter(|(_, quota)| !quota.is_empty()).collect()
}

/// The topics of a tenant; as many as the cluster says that it has, or an error.
async fn topics_of(client: &Client, who: &v1::WhoAmIResponse, tenant: &str) -> Result<Vec<v1::Topic>> {
    let access = client.access();
    let (mut listed, mut suspended, mut count) = (Vec::new(), false, 0);
    for _ in 0..LISTINGS_MAX {
        let tenants = access.tenants().await.map_err(not_an_operator)?;
        let known = tenants.iter().find(|known| known.name == tenant);
        (suspended, count) = known.map_or((false, 0), |known| (known.suspended, known.topics));
        // Nobody may look into a suspended tenant: then it has none that could be left out, or that is an error.
        listed = if count == 0 {
            Vec::new()
        } else {
            client.topics().list_of(tenant).await.map_err(failure)?
        };
        if listed.len() == count as usize {
            return Ok(listed);
        }
    }
    if suspended {
        let message = format!("tenant {tenant} is suspended, so nobody may read its {count} topics");
        let hint = format!(
            "`highwater tenant resume {tenant}` for the time of the backup, or name the tenants to back up with --tenant"
        );
        return Err(Failure::new(Code::Refused, message).hint(hint));
    }
    let who = format!("{}/{}", who.tenant, who.client);
    let message = format!(
        "tenant {tenant} has {count} topics, and {who} may see {} of them",
        listed.len()
    );
    Err(Failure::new(Code::Refused, message).hint(format!("`highwater access grant {who} consumer --tenant {tenant}`")))
}

async fn groups_of(client: &Client, topic: &v1::Topic) -> Result<Vec<GroupOffset>> {
    let found = client
        .groups()
        .list(&in_tenant(&topic.tenant, &topic.name))
        .await
        .map_err(failure)?;
    let offsets = found.into_iter().filter_map(|on| {
        Some(GroupOffset {
            group: on.group,
            partition: on.partition,
            offset: on.offset?,
        })
    });
    // A partition that was added since the topic was listed is not in this backup.
    let known = topic.partitions.len();
    Ok(offsets.filter(|on| (on.partition as usize) < known).collect())
}

impl Policy {
    /// The rules and grants of some domains.
    pub(super) fn only(&self, is_wanted: impl Fn(&str) -> bool) -> Policy {
        Policy {
            rules: self
                .rules
                .iter()
                .filter(|rule| is_wanted(&rule.domain))
                .cloned()
                .collect(),
            grants: self
                .grants
                .iter()
                .filter(|grant| is_wanted(&grant.domain))
                .cloned()
                .collect(),
        }
    }
}

/// Tenants and policy are for operators.
fn not_an_operator(error: highwater::Error) -> Failure {
    let is_denied = error.reason() == Some(Reason::PermissionDenied);
    let failure = failure(error);
    if !is_denied {
        return failure;
    }
    failure.hint(
        "tenants and policy are for operators (`highwater access grant CLIENT operator --cluster`); \
         with --topic TENANT/TOPIC whoever may use a topic needs no more",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_only_has_what_every_client_has_has_no_quota_of_its_own() {
        let client = |name: &str, streams, topics| v1::ClientUse {
            client: name.to_owned(),
            quota: Some(v1::Amounts {
                streams,
                topics,
                ..v1::Amounts::default()
            }),
            used: None,
        };
        let clients = [
            client("*", Some(90), None),
            client("busy", Some(90), None),
            client("limited", Some(5), None),
            client("other", Some(90), Some(3)),
        ];
        let own = own_quotas(&clients);
        assert_eq!(own.keys().collect::<Vec<_>>(), ["*", "limited", "other"]);
        assert_eq!(own["other"], Quota::from([("topics".to_owned(), 3)]));
        assert!(own_quotas(&[client("busy", None, None)]).is_empty());
    }
}
