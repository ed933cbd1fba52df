//! Topics that a service needs, made if they are not there, and refused if a state cannot be built on them.

use highwater::proto::v1::Topic;
use highwater::{Client, CreateTopic, Error, Reason};

/// Why a topic cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The cluster says so, or cannot be reached.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// It is there, and different; it is not changed, for a key's records would be in two partitions.
    #[error("topic {topic} has {found} partitions, and {wanted} are wanted: use another cluster or tenant")]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: usize,
        /// How many it shall have.
        wanted: u32,
    },
    /// It does not keep its records, of which states are made.
    #[error(
        "topic {topic} does not keep all its records, of which states are made: highwater topic update {topic} \
         --retention-ms 0 --retention-bytes 0"
    )]
    Retention {
        /// The topic.
        topic: String,
    },
}

/// The topic of that name, made with so many partitions if there is none. Its records are kept for ever: a state is rebuilt from them.
///
/// May be called by many processes at the same time. Making a topic takes a right that a service need not have: it looks first.
///
/// # Errors
/// [`TopicError`].
pub async fn ensure(client: &Client, name: &str, partitions: u32) -> Result<Topic, TopicError> {
    Ok(ensure_told(client, name, partitions).await?.0)
}

/// The same, and whether it was made just now.
pub(crate) async fn ensure_told(client: &Client, name: &str, partitions: u32) -> Result<(Topic, bool), TopicError> {
    let topics = client.topics();
    match topics.get(name).await {
        Err(error) if error.reason() == Some(Reason::TopicNotFound) => {}
        found => return Ok((checked(found?, name, partitions)?, false)),
    }
    let wanted = CreateTopic {
        partitions,
        retention_ms: Some(0),
        ..Default::default()
    };
    match topics.create(name, wanted).await {
        Err(error) if error.reason() == Some(Reason::TopicExists) => {
            Ok((checked(topics.get(name).await?, name, partitions)?, false))
        }
        made => Ok((made?, true)),
    }
}

fn checked(topic: Topic, name: &str, partitions: u32) -> Result<Topic, TopicError> {
    if topic.partitions.len() != partitions as usize {
        return Err(TopicError::Partitions {
            topic: name.to_owned(),
            found: topic.partitions.len(),
            wanted: partitions,
        });
    }
    let config = topic.config.unwrap_or_default();
    if config.retention_ms != Some(0) || config.retention_bytes.unwrap_or(0) != 0 {
        return Err(TopicError::Retention { topic: name.to_owned() });
    }
    Ok(topic)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater::proto::v1::{Partition, TopicConfig};

    use super::*;

    #[test]
    fn a_topic_that_loses_records_or_is_split_otherwise_is_refused() {
        let topic = |retention_ms, retention_bytes| Topic {
            config: Some(TopicConfig {
                retention_ms,
                retention_bytes,
            }),
            partitions: vec![Partition::default(); 3],
            ..Default::default()
        };
        checked(topic(Some(0), None), "t", 3).unwrap();
        checked(topic(Some(0), Some(0)), "t", 3).unwrap();
        for loses in [topic(None, None), topic(Some(1), None), topic(Some(0), Some(1))] {
            let refused = checked(loses, "t", 3).unwrap_err();
            assert!(matches!(refused, TopicError::Retention { .. }), "{refused}");
        }
        let refused = checked(topic(Some(0), None), "t", 4).unwrap_err();
        assert!(matches!(refused, TopicError::Partitions { found: 3, .. }), "{refused}");
    }
}
