//! Administrative calls: topics and the cluster.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use highwater_proto::v1::{self, TopicConfig};
use tokio_stream::wrappers::WatchStream;

use crate::calls::{Caller, cluster_client, no_topic, timed, topic_client};
use crate::deadline::Deadline;
use crate::doubt::Doubt;
use crate::error::Reason;
use crate::picker::Purpose;
use crate::resolver::News;
use crate::{Error, Picture};

/// Calls about topics. What they do is tried on one node after the other until the deadline.
#[derive(Debug, Clone)]
pub struct Topics {
    caller: Arc<Caller>,
    deadline: Duration,
}

/// A topic to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateTopic {
    /// How many partitions; 0: one.
    pub partitions: u32,
    /// How many replicas of each partition; 0: three, or as many as there are nodes.
    pub replication: u32,
    /// How long records are kept, milliseconds; 0: for ever; absent: the cluster's default.
    pub retention_ms: Option<u64>,
    /// How many bytes each partition keeps; 0 or absent: no bound.
    pub retention_bytes: Option<u64>,
}

/// What to change of a topic; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateTopic {
    /// How many partitions there shall be; never fewer than there are.
    pub partitions: Option<u32>,
    /// How many replicas of each partition.
    pub replication: Option<u32>,
    /// How long records are kept, milliseconds; 0: for ever.
    pub retention_ms: Option<u64>,
    /// How many bytes each partition keeps; 0: no bound.
    pub retention_bytes: Option<u64>,
    /// The rack that leaders should stand in; empty: any.
    pub leader_rack: Option<String>,
}

impl Topics {
    pub(crate) fn new(caller: Arc<Caller>, deadline: Duration) -> Self {
        Self { caller, deadline }
    }

    /// The same calls with another deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Creates a topic and waits until its partitions have leaders.
    ///
    /// If an attempt ended without an answer and the next one finds a topic just as wanted, that is success, and its partitions may
    /// get their leaders a moment later. Whether somebody else made that one at the same time cannot be told.
    /// Dropping the future leaves open whether the topic is created.
    ///
    /// # Errors
    /// Reasons `TOPIC_EXISTS`, `INVALID_ARGUMENT`, `NOT_ENOUGH_NODES`; [`Error::Deadline`].
    pub async fn create(&self, name: &str, topic: CreateTopic) -> Result<v1::Topic, Error> {
        let deadline = Deadline::after(self.deadline);
        let doubt = &Doubt::default();
        let request = v1::CreateTopicRequest {
            topic: name.to_owned(),
            partitions: topic.partitions,
            replication: topic.replication,
            config: Some(TopicConfig {
                retention_ms: topic.retention_ms,
                retention_bytes: topic.retention_bytes,
            }),
        };
        let action = format!("create topic {name}");
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { doubt.note(topic_client(channel).create_topic(request).await) }
        };
        let created = match self.caller.call(&action, Purpose::Admin, deadline, call).await {
            Ok(response) => response.topic.ok_or_else(no_topic)?,
            Err(error) if error.reason() == Some(Reason::TopicExists) && doubt.is_open() => {
                let found = self.caller.look_up(name, deadline).await?;
                if !is_as_wanted(&found, &topic) {
                    return Err(error);
                }
                found
            }
            Err(error) => return Err(error),
        };
        self.caller.resolver.learn(News::Topic(created.clone()));
        Ok(created)
    }

    /// The topic of that name.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Reason `TOPIC_NOT_FOUND`; [`Error::Deadline`].
    pub async fn get(&self, name: &str) -> Result<v1::Topic, Error> {
        self.caller.look_up(name, Deadline::after(self.deadline)).await
    }

    /// All topics of the client's tenant, by name.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Deadline`].
    pub async fn list(&self) -> Result<Vec<v1::Topic>, Error> {
        self.list_some("", "list topics").await
    }

    /// The topics of a tenant that the client may see, by name; none of a tenant that does not exist.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the node that answers is of a version that lists only the client's own tenant; [`Error::Deadline`].
    pub async fn list_of(&self, tenant: &str) -> Result<Vec<v1::Topic>, Error> {
        let topics = self.list_some(tenant, &format!("list topics of {tenant}")).await?;
        if topics.iter().any(|topic| topic.tenant != tenant) {
            let problem = "the node that answered is too old to list topics of another tenant than the own one";
            return Err(Error::invalid("tenant", problem));
        }
        Ok(topics)
    }

    async fn list_some(&self, tenant: &str, action: &str) -> Result<Vec<v1::Topic>, Error> {
        let request = v1::ListTopicsRequest {
            tenant: tenant.to_owned(),
        };
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { topic_client(channel).list_topics(request).await }
        };
        let deadline = Deadline::after(self.deadline);
        let response = self.caller.call(action, Purpose::Admin, deadline, call).await?;
        Ok(response.topics)
    }

    /// Changes a topic. New partitions have leaders when this answers; new replicas get their records behind it.
    ///
    /// With more partitions, keyed records go to other partitions than before.
    ///
    /// An attempt without an answer is made again: what somebody else has changed of the same in between is changed back.
    ///
    /// Not cancel safe: if the future is dropped, the topic may have been changed, or may still be.
    ///
    /// # Errors
    /// Reasons `TOPIC_NOT_FOUND`, `INVALID_ARGUMENT`, `NOT_ENOUGH_NODES`, `TOO_LARGE`, `REFUSED`; [`Error::Deadline`].
    pub async fn update(&self, name: &str, change: UpdateTopic) -> Result<v1::Topic, Error> {
        let deadline = Deadline::after(self.deadline);
        let request = v1::UpdateTopicRequest {
            topic: name.to_owned(),
            topic_id: None,
            partitions: change.partitions,
            replication: change.replication,
            retention_ms: change.retention_ms,
            retention_bytes: change.retention_bytes,
            leader_rack: change.leader_rack,
        };
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { topic_client(channel).update_topic(request).await }
        };
        let action = format!("update topic {name}");
        let answer = self.caller.call(&action, Purpose::Admin, deadline, call).await?;
        let topic = answer.topic.ok_or_else(no_topic)?;
        self.caller.resolver.learn(News::Topic(topic.clone()));
        Ok(topic)
    }

    /// Deletes a topic with its records.
    ///
    /// If an attempt ended without an answer and the next one finds no topic, or another one of that name, that is success.
    ///
    /// Not cancel safe: if the future is dropped, the topic may have been deleted, or may still be.
    ///
    /// # Errors
    /// Reason `TOPIC_NOT_FOUND`; [`Error::Deadline`].
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let deadline = Deadline::after(self.deadline);
        let topic = self.caller.look_up(name, deadline).await?;
        let doubt = &Doubt::default();
        let request = v1::DeleteTopicRequest {
            topic: name.to_owned(),
            topic_id: Some(topic.topic_id),
        };
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { doubt.note(topic_client(channel).delete_topic(request).await) }
        };
        let action = format!("delete topic {name}");
        match self.caller.call(&action, Purpose::Admin, deadline, call).await {
            Ok(_) => {}
            // An earlier attempt has done it.
            Err(error) if is_gone(&error) && doubt.is_open() => {}
            Err(error) => return Err(error),
        }
        self.caller.resolver.learn(News::TopicRemoved(topic.topic_id));
        Ok(())
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error.reason(), Some(Reason::TopicNotFound | Reason::TopicChanged))
}

fn is_as_wanted(found: &v1::Topic, wanted: &CreateTopic) -> bool {
    let config = found.config.unwrap_or_default();
    let partitions_fit = found.partitions.len() == wanted.partitions.max(1) as usize;
    let replication_fits = wanted.replication == 0 || found.replication == wanted.replication;
    let retention_fits = wanted.retention_ms.is_none() || config.retention_ms == wanted.retention_ms;
    let bytes_fit = config.retention_bytes.unwrap_or(0) == wanted.retention_bytes.unwrap_or(0);
    partitions_fit && replication_fits && retention_fits && bytes_fit
}

/// Calls about the cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) caller: Arc<Caller>,
    pub(crate) deadline: Duration,
}

impl Cluster {
    pub(crate) fn new(caller: Arc<Caller>, deadline: Duration) -> Self {
        Self { caller, deadline }
    }

    /// The same calls with another deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Nodes and replicas, as one node sees them.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Deadline`].
    pub async fn describe(&self) -> Result<v1::DescribeClusterResponse, Error> {
        let call = |channel, time_left| async move {
            cluster_client(channel)
                .describe_cluster(timed(v1::DescribeClusterRequest {}, time_left))
                .await
        };
        self.caller
            .call(
                "describe the cluster",
                Purpose::Admin,
                Deadline::after(self.deadline),
                call,
            )
            .await
    }

    /// The client's picture of nodes, topics and leaders as it is now.
    #[must_use]
    pub fn picture(&self) -> Arc<Picture> {
        self.caller.resolver.picture()
    }

    /// The client's picture of nodes, topics and leaders: first the present one, then each that follows.
    /// A slow reader misses pictures in between, never the last.
    pub fn watch(&self) -> impl Stream<Item = Arc<Picture>> + Send + Unpin + use<> {
        let resolver = self.caller.resolver.clone();
        WatchStream::new(resolver.changes()).map(move |_| resolver.picture())
    }
}
