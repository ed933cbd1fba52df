//! What a restore will do: everything is looked at before anything is changed.

use std::collections::BTreeSet;
use std::path::Path;

use highwater::proto::v1;
use highwater::{Client, Reason};

use super::manifest::{self, Manifest, Partition, Policy, Tenant, Topic};
use super::policy::{Changes, Comparison, Mode};
use super::rights::{self, Wanted};
use super::selection::Selection;
use super::{SYSTEM_TENANT, compare, gather};
use crate::exit::{Code, Failure, Result};
use crate::profile::failure;

/// All of it.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) who: v1::WhoAmIResponse,
    pub(super) cluster_name: String,
    pub(super) changes: Changes,
    pub(super) topics: Vec<TopicPlan<'a>>,
    /// What the cluster has and keeps, although the backup has it otherwise or not at all.
    pub(super) kept: Vec<String>,
}

/// A topic of the backup in this cluster.
#[derive(Debug)]
pub(super) struct TopicPlan<'a> {
    pub(super) topic: &'a Topic,
    pub(super) replication: u32,
    /// It is there, with these many records of each partition.
    pub(super) there: Option<Vec<u64>>,
    /// How many bytes each partition is to keep, once its records are there. `None`: that is so already, or stays as the cluster has it.
    pub(super) retention_bytes: Option<u64>,
}

impl TopicPlan<'_> {
    /// How many records of a partition are there already.
    pub(super) fn records_there(&self, partition: &Partition) -> u64 {
        let there = self
            .there
            .as_ref()
            .and_then(|there| there.get(partition.partition as usize));
        there.copied().unwrap_or(0)
    }

    /// How many records are still to be appended.
    pub(super) fn records_left(&self) -> u64 {
        let partitions = self.topic.partitions.iter();
        let left = partitions.map(|partition| partition.count() - self.records_there(partition).min(partition.count()));
        left.sum()
    }
}

/// What of a backup is to be restored, and how.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) directory: &'a Path,
    pub(super) topics: Vec<&'a Topic>,
    pub(super) tenants: Vec<&'a Tenant>,
    /// Rules and grants that are about no single tenant of the backup.
    pub(super) shared: Option<&'a Policy>,
    pub(super) mode: Mode,
    /// In place of what the backup says.
    pub(super) replication: Option<u32>,
}

impl<'a> Wish<'a> {
    /// What is selected of a backup. Fails if something is named that it does not have.
    pub(super) fn new(
        directory: &'a Path,
        manifest: &'a Manifest,
        selection: &Selection,
        mode: Mode,
        replication: Option<u32>,
    ) -> Result<Wish<'a>> {
        let lacks = |what: String| Failure::new(Code::NotFound, format!("the backup has no {what}"));
        for name in &selection.topics {
            let is_it = |topic: &Topic| topic.tenant == name.tenant && topic.name == name.topic;
            if !manifest.topics.iter().any(is_it) {
                return Err(lacks(format!("topic {name}")));
            }
            if name.tenant == SYSTEM_TENANT {
                let message = format!("topic {name} is the cluster's own, and cannot be restored");
                return Err(Failure::new(Code::Refused, message).hint("it is there to be read, in the backup"));
            }
        }
        for name in &selection.tenants {
            let of_topics = manifest.topics.iter().map(|topic| &topic.tenant);
            if !manifest
                .tenants
                .iter()
                .map(|tenant| &tenant.name)
                .chain(of_topics)
                .any(|tenant| tenant == name)
            {
                return Err(lacks(format!("tenant {name}")));
            }
        }
        let topics = manifest.topics.iter().filter(|topic| topic.tenant != SYSTEM_TENANT);
        let tenants = manifest
            .tenants
            .iter()
            .filter(|tenant| selection.has_tenant(&tenant.name));
        Ok(Wish {
            directory,
            topics: topics
                .filter(|topic| selection.has_topic(&topic.tenant, &topic.name))
                .collect(),
            tenants: tenants.collect(),
            shared: manifest.cluster_policy.as_ref().filter(|_| selection.is_all()),
            mode,
            replication,
        })
    }
}

/// Looks at the cluster. Nothing is changed.
pub(super) async fn plan<'a>(client: &Client, wish: &Wish<'a>) -> Result<Plan<'a>> {
    let access = client.access();
    let who = access.who_am_i().await.map_err(failure)?;
    let cluster = client.cluster().describe().await.map_err(failure)?;
    let (changes, mut kept) = plan_policy(client, wish).await?;
    check_replication(wish, cluster.nodes.len())?;
    rights::check(&access, &who, wanted(&wish.topics, &changes), "owner").await?;
    let mut topics = Vec::new();
    for topic in &wish.topics {
        let is_new_tenant = changes.tenants.contains(&topic.tenant);
        topics.push(plan_topic(client, wish, topic, is_new_tenant, &mut kept).await?);
    }
    Ok(Plan {
        who,
        cluster_name: cluster.cluster_name,
        changes,
        topics,
        kept,
    })
}

async fn plan_policy(client: &Client, wish: &Wish<'_>) -> Result<(Changes, Vec<String>)> {
    let has_any = !wish.tenants.is_empty() || wish.shared.is_some();
    if wish.mode == Mode::Leave || !has_any {
        return Ok((Changes::default(), Vec::new()));
    }
    let is_wanted = |name: &str| wish.tenants.iter().any(|tenant| tenant.name == name);
    let (there, policy) = gather::policy_of(&client.access(), is_wanted).await?;
    let mut compared = Comparison::new(&wish.tenants, wish.shared, &there, &policy);
    let beyond = std::mem::take(&mut compared.beyond);
    Ok((compared.decide(wish.mode)?, beyond))
}

/// All that is to be done to topics in tenants that exist. Those that are made are the restoring client's until the end.
fn wanted(topics: &[&Topic], changes: &Changes) -> Vec<Wanted> {
    let there = || topics.iter().filter(|topic| !changes.tenants.contains(&topic.tenant));
    let with_groups = there().filter(|topic| !topic.groups.is_empty());
    let tenants: BTreeSet<&str> = with_groups.map(|topic| topic.tenant.as_str()).collect();
    let groups = tenants
        .into_iter()
        .flat_map(|tenant| ["describe", "manage"].map(|action| Wanted::all_groups(tenant, action)));
    groups.chain(there().flat_map(|topic| of_topic(topic))).collect()
}

/// All that is to be done to a topic.
pub(super) fn of_topic(topic: &Topic) -> [Wanted; 4] {
    let actions = ["describe", "manage", "produce", "consume"];
    actions.map(|action| Wanted::topic(&topic.tenant, &topic.name, action))
}

fn check_replication(wish: &Wish<'_>, nodes: usize) -> Result<()> {
    for topic in &wish.topics {
        let replication = wish.replication.unwrap_or(topic.replication);
        if replication as usize > nodes {
            let name = topic.full_name();
            let message =
                format!("topic {name} needs {replication} nodes for its replicas, and the cluster has {nodes}");
            return Err(
                Failure::new(Code::Refused, message).hint("say how many replicas topics shall have with --replication")
            );
        }
    }
    Ok(())
}

async fn plan_topic<'a>(
    client: &Client,
    wish: &Wish<'a>,
    topic: &'a Topic,
    is_new_tenant: bool,
    kept: &mut Vec<String>,
) -> Result<TopicPlan<'a>> {
    let mut plan = TopicPlan {
        topic,
        replication: wish.replication.unwrap_or(topic.replication),
        there: None,
        retention_bytes: topic.retention_bytes.filter(|bytes| *bytes > 0),
    };
    if is_new_tenant {
        return Ok(plan);
    }
    let name = topic.full_name();
    let found = match client.topics().get(&name).await {
        Ok(found) => found,
        Err(error) if error.reason() == Some(Reason::TopicNotFound) => return Ok(plan),
        Err(error) => return Err(failure(error)),
    };
    if found.partitions.len() != topic.partitions.len() {
        let (there, had) = (found.partitions.len(), topic.partitions.len());
        let message =
            format!("topic {name} exists with {there} partitions, and the backup has {had}; nothing was changed");
        return Err(Failure::new(Code::Refused, message).hint(compare::ONLY_MISSING));
    }
    if differs(&found, &plan) {
        kept.push(format!("topic {name} exists, with other settings than in the backup"));
    }
    plan.retention_bytes = limit_left(&found, &plan);
    let mut there = Vec::new();
    for partition in &topic.partitions {
        let file = manifest::file(wish.directory, &topic.tenant, &topic.name, partition.partition);
        there.push(compare::records_there(client, &name, partition, file).await?);
    }
    plan.there = Some(there);
    Ok(plan)
}

/// Whether a restore would not have made the topic so: it makes it without a limit by bytes, and sets that when the records are there.
fn differs(found: &v1::Topic, plan: &TopicPlan<'_>) -> bool {
    let config = found.config.unwrap_or_default();
    let topic = plan.topic;
    let limits = [0, topic.retention_bytes.unwrap_or(0)];
    found.replication != plan.replication
        || config.retention_ms != topic.retention_ms
        || !limits.contains(&config.retention_bytes.unwrap_or(0))
        || found.leader_rack != topic.leader_rack
}

/// The limit by bytes that a restore has still to set, also one that goes on where another was interrupted.
fn limit_left(found: &v1::Topic, plan: &TopicPlan<'_>) -> Option<u64> {
    let there = found.config.and_then(|config| config.retention_bytes).unwrap_or(0);
    plan.retention_bytes.filter(|_| there == 0 && !differs(found, plan))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn topic(tenant: &str, name: &str) -> Topic {
        Topic {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            replication: 3,
            retention_ms: None,
            retention_bytes: None,
            leader_rack: String::new(),
            partitions: Vec::new(),
            groups: Vec::new(),
        }
    }

    fn manifest() -> Manifest {
        let mut manifest = manifest::new(Default::default(), 0);
        manifest.topics = vec![
            topic("shop", "orders"),
            topic("billing", "bills"),
            topic("system", "audit"),
        ];
        manifest
    }

    fn chosen(selection: &Selection) -> Result<Vec<String>> {
        let manifest = manifest();
        let wish = Wish::new(Path::new("x"), &manifest, selection, Mode::New, None)?;
        Ok(wish.topics.iter().map(|topic| topic.full_name()).collect())
    }

    fn named(tenants: &[&str]) -> Selection {
        Selection {
            tenants: tenants.iter().map(|name| (*name).to_owned()).collect(),
            ..Selection::default()
        }
    }

    #[test]
    fn what_is_the_clusters_own_is_left_out_and_what_is_not_there_is_told() {
        assert_eq!(chosen(&Selection::default()).unwrap(), ["shop/orders", "billing/bills"]);
        assert_eq!(chosen(&named(&["shop"])).unwrap(), ["shop/orders"]);
        assert_eq!(chosen(&named(&["shop", "other"])).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn a_topic_that_is_only_without_its_limit_by_bytes_still_gets_it() {
        let topic = Topic {
            retention_bytes: Some(1_000),
            ..topic("shop", "orders")
        };
        let plan = TopicPlan {
            topic: &topic,
            replication: 3,
            there: None,
            retention_bytes: Some(1_000),
        };
        let found = |replication, retention_bytes| v1::Topic {
            replication,
            config: Some(v1::TopicConfig {
                retention_ms: None,
                retention_bytes,
            }),
            ..v1::Topic::default()
        };
        let planned = |found: v1::Topic| (differs(&found, &plan), limit_left(&found, &plan));
        assert_eq!(planned(found(3, Some(0))), (false, Some(1_000)));
        assert_eq!(planned(found(3, None)), (false, Some(1_000)));
        assert_eq!(planned(found(3, Some(1_000))), (false, None));
        assert_eq!(planned(found(3, Some(999))), (true, None));
        // Somebody has changed it, or made it.
        assert_eq!(planned(found(2, Some(0))), (true, None));
    }

    #[test]
    fn more_replicas_than_nodes_are_refused_unless_fewer_are_asked_for() {
        let manifest = manifest();
        let check = |replication, nodes| {
            let wish = Wish::new(Path::new("x"), &manifest, &Selection::default(), Mode::New, replication).unwrap();
            check_replication(&wish, nodes)
        };
        assert!(
            check(None, 2)
                .unwrap_err()
                .message
                .contains("shop/orders needs 3 nodes")
        );
        assert!(check(None, 3).is_ok() && check(Some(1), 1).is_ok());
    }
}
