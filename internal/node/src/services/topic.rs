//! TopicService: topics of a tenant.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use highwater_catalog::limits::RACK_BYTES_MAX;
use highwater_catalog::{Command, Reply, Topic};
use highwater_partition::log::GroupId;
use highwater_proto::v1;
use highwater_proto::v1::topic_service_server::TopicService;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::deadline::deadline;
use super::tenants::check_not_system;
use super::{Context, principal, targets};
use crate::access::{Action, Principal, Resource, TopicName};
use crate::describe;
use crate::status::Problem;

/// How long a new topic's answer waits at most for its partitions' leaders.
const LEADERS_PATIENCE: Duration = Duration::from_secs(10);
/// Leaders that are asked at the same time whether they are followed.
const QUESTIONS_AT_ONCE: usize = 32;

/// Topics by name.
pub(super) struct Topics {
    pub(super) context: Arc<Context>,
}

#[tonic::async_trait]
impl TopicService for Topics {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let act = self.context.act(&request, "CreateTopic", targets::create_topic)?;
        let created = self.create(act.principal(), request.get_ref(), act.deadline()).await;
        let created = created.map(|topic| v1::CreateTopicResponse { topic: Some(topic) });
        act.end(created).await
    }

    async fn get_topic(&self, request: Request<v1::GetTopicRequest>) -> Result<Response<v1::GetTopicResponse>, Status> {
        let principal = principal(&request)?;
        let deadline = deadline(request.metadata());
        let permit = self
            .context
            .permit_topic(&principal, Action::Describe, &request.get_ref().topic)?;
        let Some(name) = permit.topic(Action::Describe) else {
            return Err(Problem::Internal("a permit without a topic".to_owned()).into());
        };
        let topic = match self.known(name) {
            Some(topic) => topic,
            None => {
                // It may have been created on another node a moment ago.
                self.context.know_catalog(deadline).await?;
                let missing = || Problem::TopicNotFound {
                    topic: name.to_string(),
                };
                self.known(name).ok_or_else(missing)?
            }
        };
        let topic = Some(self.describe(&topic));
        Ok(Response::new(v1::GetTopicResponse { topic }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let principal = principal(&request)?;
        let deadline = deadline(request.metadata());
        let own = self.context.own_tenant(&principal)?;
        let wanted = request.into_inner().tenant;
        let tenant = if wanted.is_empty() { own } else { &wanted };
        self.context.know_catalog(deadline).await?;
        let mut topics: Vec<Topic> = self
            .context
            .host
            .read(|catalog| catalog.topics(tenant).cloned().collect());
        topics.retain(|topic| self.context.may_see(&principal, tenant, &topic.name));
        let topics = topics.iter().map(|topic| self.describe(topic)).collect();
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn update_topic(
        &self,
        request: Request<v1::UpdateTopicRequest>,
    ) -> Result<Response<v1::UpdateTopicResponse>, Status> {
        let act = self.context.act(&request, "UpdateTopic", targets::update_topic)?;
        let updated = self.update(act.principal(), request.into_inner(), act.deadline()).await;
        let updated = updated.map(|topic| v1::UpdateTopicResponse { topic: Some(topic) });
        act.end(updated).await
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let act = self.context.act(&request, "DeleteTopic", targets::delete_topic)?;
        let deleted = self.delete(act.principal(), request.into_inner(), act.deadline()).await;
        act.end(deleted).await
    }
}

impl Topics {
    async fn create(
        &self,
        principal: &Principal,
        request: &v1::CreateTopicRequest,
        deadline: Instant,
    ) -> Result<v1::Topic, Problem> {
        let name = TopicName::parse(&request.topic, self.context.own_tenant(principal)?)?;
        // That there is no such topic is what everybody expects who makes one: it is no answer.
        let asked = self
            .context
            .authority
            .authorize(principal, Action::Manage, Resource::Topic(name.clone()));
        asked.map_err(|denied| denied.openly(Action::Manage))?;
        check_not_system(&name.tenant)?;
        let command = Command::CreateTopic {
            tenant: name.tenant,
            name: name.topic,
            partitions: request.partitions,
            replication: request.replication,
            retention_ms: request.config.and_then(|config| config.retention_ms),
            retention_bytes: request.config.and_then(|config| config.retention_bytes),
            avoid: self.context.nodes_to_avoid(),
        };
        self.decide(&command, deadline).await
    }

    async fn delete(
        &self,
        principal: &Principal,
        request: v1::DeleteTopicRequest,
        deadline: Instant,
    ) -> Result<v1::DeleteTopicResponse, Problem> {
        let permit = self.context.permit_topic(principal, Action::Manage, &request.topic)?;
        let Some(name) = permit.topic(Action::Manage).cloned() else {
            return Err(Problem::Internal("a permit without a topic".to_owned()));
        };
        check_not_system(&name.tenant)?;
        let command = Command::DeleteTopic {
            tenant: name.tenant,
            name: name.topic,
            topic_id: request.topic_id,
        };
        match self.context.catalog.command(&command, deadline).await? {
            Reply::Done => {}
            other => return Err(unexpected(&other)),
        }
        self.context.catalog.catch_up(deadline).await;
        Ok(v1::DeleteTopicResponse {})
    }

    async fn update(
        &self,
        principal: &Principal,
        request: v1::UpdateTopicRequest,
        deadline: Instant,
    ) -> Result<v1::Topic, Problem> {
        let permit = self.context.permit_topic(principal, Action::Manage, &request.topic)?;
        let Some(name) = permit.topic(Action::Manage) else {
            return Err(Problem::Internal("a permit without a topic".to_owned()));
        };
        if request.partitions.is_some() {
            check_not_system(&name.tenant)?;
        }
        self.context.know_catalog(deadline).await?;
        check_rack(request.leader_rack.as_deref().unwrap_or_default())?;
        match request.replication {
            Some(_) => self.resize(principal, name, request, deadline).await,
            None => self.decide(&self.update_command(name, request), deadline).await,
        }
    }

    /// Whatever is there when the change is decided must have been looked at here: the command names the topic by its id, and the
    /// number of its partitions, which only become more; so it is refused if there are others by then.
    async fn resize(
        &self,
        principal: &Principal,
        name: &TopicName,
        mut request: v1::UpdateTopicRequest,
        deadline: Instant,
    ) -> Result<v1::Topic, Problem> {
        let topic = self.known(name).ok_or_else(|| not_found(name))?;
        let have = topic.partitions.len() as u32;
        request.topic_id.get_or_insert(topic.topic_id);
        if request.partitions.is_some_and(|wanted| wanted > have) {
            // New ones come first, and get their leaders: only then can they get other replicas.
            let more = v1::UpdateTopicRequest {
                replication: None,
                ..request.clone()
            };
            self.decide(&self.update_command(name, more), deadline).await?;
            principal.note_begun();
        }
        request.partitions.get_or_insert(have);
        self.check_leaders(name, deadline).await?;
        self.decide(&self.update_command(name, request), deadline).await
    }

    fn update_command(&self, name: &TopicName, request: v1::UpdateTopicRequest) -> Command {
        Command::UpdateTopic {
            tenant: name.tenant.clone(),
            name: name.topic.clone(),
            topic_id: request.topic_id,
            partitions: request.partitions,
            replication: request.replication,
            retention_ms: request.retention_ms,
            retention_bytes: request.retention_bytes,
            leader_rack: request.leader_rack,
            avoid: self.context.nodes_to_avoid(),
        }
    }

    /// Other replicas can only be given to a partition that has a leader: it has members then, and they follow.
    async fn check_leaders(&self, name: &TopicName, deadline: Instant) -> Result<(), Problem> {
        let topic = self.known(name).ok_or_else(|| not_found(name))?;
        let asked = futures::stream::iter(topic.partitions).map(|partition| async move {
            let is_led = self.context.is_led(GroupId(partition.group_id), deadline).await;
            (!is_led).then_some(partition.partition)
        });
        let leaderless: Vec<u32> = asked
            .buffer_unordered(QUESTIONS_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        leaderless.iter().min().map_or(Ok(()), |partition| {
            let what = format!("partition {partition} of topic `{name}`");
            Err(Problem::NoQuorum { what })
        })
    }

    /// Has a command decided that makes or changes a topic, and waits until all its partitions have leaders.
    async fn decide(&self, command: &Command, deadline: Instant) -> Result<v1::Topic, Problem> {
        let topic = match self.context.catalog.command(command, deadline).await? {
            Reply::Topic(topic) => topic,
            other => return Err(unexpected(&other)),
        };
        let patience = deadline.min(Instant::now() + LEADERS_PATIENCE);
        // Without leaders in time the topic exists all the same; the answer says which leaders are known.
        let _ = timeout_at(patience, self.wait_for_leaders(&topic)).await;
        Ok(self.describe(&topic))
    }

    async fn wait_for_leaders(&self, topic: &Topic) {
        let mut applied = self.context.host.progress();
        let mut changes = self.context.registry.changes();
        let mut nodes = self.context.leaders.nodes();
        let mut tellings = self.context.leaders.tellings();
        loop {
            let is_known = self
                .context
                .host
                .read(|catalog| catalog.topic_by_id(topic.topic_id).is_some());
            let has_leader = |partition: &highwater_catalog::Partition| {
                self.context.leaders.leader(GroupId(partition.group_id)).is_some()
            };
            if is_known && topic.partitions.iter().all(has_leader) {
                return;
            }
            let changed = tokio::select! {
                biased;
                changed = applied.changed() => changed,
                changed = changes.changed() => changed,
                changed = nodes.changed() => changed,
                changed = tellings.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn known(&self, name: &TopicName) -> Option<Topic> {
        self.context
            .host
            .read(|catalog| catalog.topic(&name.tenant, &name.topic).cloned())
    }

    fn describe(&self, topic: &Topic) -> v1::Topic {
        describe::topic(topic, &self.context.leaders, &self.context.registry)
    }
}

fn not_found(name: &TopicName) -> Problem {
    Problem::TopicNotFound {
        topic: name.to_string(),
    }
}

/// The catalog looks again; but what it refuses stands in its log for ever.
fn check_rack(rack: &str) -> Result<(), Problem> {
    if rack.len() <= RACK_BYTES_MAX {
        return Ok(());
    }
    Err(Problem::TooLarge {
        field: "leader_rack",
        found: rack.len() as u64,
        limit: RACK_BYTES_MAX as u64,
    })
}

fn unexpected(reply: &Reply) -> Problem {
    match reply {
        Reply::Refused(refusal) => Problem::from_refusal(refusal),
        other => Problem::Internal(format!("the catalog answered {other:?}")),
    }
}
