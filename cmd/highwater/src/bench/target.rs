//! The topic that is measured on: one that is there, or one that is made for the run and deleted after it.

use highwater::proto::limits::{REPLICATION_MAX, TOPIC_PARTITIONS_MAX};
use highwater::{Client, CreateTopic};

use crate::exit::Result;
use crate::output;
use crate::profile::failure;

/// Which topic.
#[derive(Debug, clap::Args)]
pub(super) struct TargetArgs {
    /// The topic. Without it one is made for this run, `bench-…`, and deleted afterwards.
    topic: Option<String>,
    /// How many partitions the topic has that is made. Default: 1.
    #[arg(long, value_name = "COUNT", conflicts_with = "topic",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(TOPIC_PARTITIONS_MAX)))]
    partitions: Option<u32>,
    /// How many replicas each of its partitions has. Default: three, or as many as there are nodes.
    #[arg(long, value_name = "COUNT", conflicts_with = "topic",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(REPLICATION_MAX)))]
    replication: Option<u32>,
    /// Do not delete the topic that was made, for example to read it with `bench consume`.
    #[arg(long, conflicts_with = "topic")]
    keep_topic: bool,
}

/// The topic, as it was found or made.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) partitions: usize,
    pub(super) replication: u32,
    delete: bool,
}

impl Target {
    /// A topic that is there.
    pub(super) async fn find(client: &Client, name: &str) -> Result<Self> {
        let topic = client.topics().get(name).await.map_err(failure)?;
        Ok(Self {
            name: name.to_owned(),
            partitions: topic.partitions.len(),
            replication: topic.replication,
            delete: false,
        })
    }

    /// The one that is named, or a new one.
    pub(super) async fn open(client: &Client, args: &TargetArgs) -> Result<Self> {
        if let Some(name) = &args.topic {
            return Self::find(client, name).await;
        }
        let name = format!("bench-{:08x}", rand::random::<u32>());
        let wanted = CreateTopic {
            partitions: args.partitions.unwrap_or(1),
            replication: args.replication.unwrap_or(0),
            ..CreateTopic::default()
        };
        let topic = client.topics().create(&name, wanted).await.map_err(failure)?;
        Ok(Self {
            name,
            partitions: topic.partitions.len(),
            replication: topic.replication,
            delete: !args.keep_topic,
        })
    }

    /// Deletes what was made. What was measured counts also if that fails.
    pub(super) async fn close(&self, client: &Client) {
        if !self.delete {
            return;
        }
        if let Err(error) = client.topics().delete(&self.name).await {
            output::note(format!(
                "topic {} was made for this run and is still there: {error}",
                self.name
            ));
        }
    }
}
