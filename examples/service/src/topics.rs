//! Topics that a service needs, made if they are not there.

use highwater::proto::v1::Topic;
use highwater::{Client, CreateTopic, Error, Reason};

/// The topic of that name, made with so many partitions if there is none. Its records are kept for ever: a state is rebuilt from them.
///
/// May be called by many processes at the same time.
///
/// # Errors
/// As [`Topics::create`](highwater::Topics::create), but for `TOPIC_EXISTS`.
pub async fn ensure(client: &Client, name: &str, partitions: u32) -> Result<Topic, Error> {
    let wanted = CreateTopic {
        partitions,
        retention_ms: Some(0),
        ..Default::default()
    };
    match client.topics().create(name, wanted).await {
        Err(error) if error.reason() == Some(Reason::TopicExists) => client.topics().get(name).await,
        made => made,
    }
}
