//! `highwater topic create|list|describe|update|delete`.

use highwater::proto::v1;
use highwater::{CreateTopic, Topics, UpdateTopic};
use serde_json::{Value, json};

use crate::exit::{Failure, Result};
use crate::output::{self, Format, Table};
use crate::profile::{CommonArgs, failure};

const EXAMPLES: &str = "\
Examples:
  highwater topic create orders --partitions 3 --replication 3
  highwater topic list
  highwater topic list --tenant shop
  highwater topic describe orders --output json
  highwater topic update orders --partitions 6 --retention-ms 86400000
  highwater topic delete orders";

/// Create, list, describe, change and delete topics.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a topic, and wait until its partitions have leaders.
    Create(CreateArgs),
    /// List the topics of a tenant.
    List {
        /// The tenant; of another one than the own those that this client may see.
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
    },
    /// Show a topic's partitions: replicas, leader, offsets.
    Describe {
        /// The topic.
        name: String,
    },
    /// Change a topic; what is not given stays as it is.
    Update(UpdateArgs),
    /// Delete a topic and its records.
    Delete {
        /// The topic.
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The topic: a-z 0-9 . _ -, beginning with a letter or digit.
    name: String,
    /// How many partitions.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    partitions: u32,
    /// How many replicas of each partition. Default: three, or as many as there are nodes.
    #[arg(long, value_name = "COUNT")]
    replication: Option<u32>,
    /// How long records are kept, milliseconds; 0: for ever. Default: the cluster's, seven days.
    #[arg(long, value_name = "MS")]
    retention_ms: Option<u64>,
    /// How many bytes each partition keeps; 0: no bound.
    #[arg(long, value_name = "BYTES")]
    retention_bytes: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct UpdateArgs {
    /// The topic.
    name: String,
    /// How many partitions there shall be: more than there are. Keyed records then go to other partitions than before.
    #[arg(long, value_name = "COUNT")]
    partitions: Option<u32>,
    /// How many replicas of each partition.
    #[arg(long, value_name = "COUNT")]
    replication: Option<u32>,
    /// How long records are kept, milliseconds; 0: for ever.
    #[arg(long, value_name = "MS")]
    retention_ms: Option<u64>,
    /// How many bytes each partition keeps; 0: no bound.
    #[arg(long, value_name = "BYTES")]
    retention_bytes: Option<u64>,
    /// The rack that leaders should stand in; empty: any.
    #[arg(long, value_name = "RACK")]
    leader_rack: Option<String>,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    if let Command::Create(create) = &args.command {
        check(create)?;
    }
    let topics = args.common.connect().await?.topics();
    let format = args.common.output;
    match &args.command {
        Command::Create(args) => create(&topics, args, format).await,
        Command::List { tenant } => list(&topics, tenant.as_deref(), format).await,
        Command::Describe { name } => describe(&topics, name, format).await,
        Command::Update(args) => update(&topics, args, format).await,
        Command::Delete { name } => delete(&topics, name, format).await,
    }
}

/// On the wire 0 leaves the number to the cluster; whoever types 0 means something else.
fn check(args: &CreateArgs) -> Result<()> {
    if args.partitions == 0 || args.replication == Some(0) {
        return Err(Failure::usage("a topic has at least one partition and one replica")
            .hint("leave --replication out for the cluster's default"));
    }
    Ok(())
}

async fn create(topics: &Topics, args: &CreateArgs, format: Format) -> Result<()> {
    let wanted = CreateTopic {
        partitions: args.partitions,
        replication: args.replication.unwrap_or(0),
        retention_ms: args.retention_ms,
        retention_bytes: args.retention_bytes,
    };
    let topic = topics.create(&args.name, wanted).await.map_err(failure)?;
    match format {
        Format::Json => output::json(&document(&topic)),
        Format::Text => output::line(format!(
            "Created {}: partitions {}, replication {}.",
            topic.name,
            topic.partitions.len(),
            topic.replication
        )),
    }
}

async fn update(topics: &Topics, args: &UpdateArgs, format: Format) -> Result<()> {
    let change = UpdateTopic {
        partitions: args.partitions,
        replication: args.replication,
        retention_ms: args.retention_ms,
        retention_bytes: args.retention_bytes,
        leader_rack: args.leader_rack.clone(),
    };
    if change == UpdateTopic::default() {
        return Err(
            Failure::usage("nothing is to be changed").hint("`highwater topic update --help` shows what can be")
        );
    }
    let topic = topics.update(&args.name, change).await.map_err(failure)?;
    match format {
        Format::Json => output::json(&document(&topic)),
        Format::Text => output::line(format!(
            "Changed {}: partitions {}, replication {}, retention {}.",
            topic.name,
            topic.partitions.len(),
            topic.replication,
            retention(&topic.config.unwrap_or_default())
        )),
    }
}

async fn list(topics: &Topics, tenant: Option<&str>, format: Format) -> Result<()> {
    let topics = match tenant {
        Some(tenant) => topics.list_of(tenant).await,
        None => topics.list().await,
    };
    let topics = topics.map_err(failure)?;
    if format == Format::Json {
        return output::json(&json!({ "topics": topics.iter().map(document).collect::<Vec<_>>() }));
    }
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "REPLICATION", "WITHOUT LEADER"]);
    for topic in &topics {
        let leaderless = topic
            .partitions
            .iter()
            .filter(|partition| partition.leader.is_empty())
            .count();
        let counts = [topic.partitions.len(), topic.replication as usize, leaderless].map(|count| count.to_string());
        let [partitions, replication, leaderless] = counts;
        table.row([topic.name.clone(), partitions, replication, leaderless]);
    }
    table.print()
}

async fn describe(topics: &Topics, name: &str, format: Format) -> Result<()> {
    let topic = topics.get(name).await.map_err(failure)?;
    if format == Format::Json {
        return output::json(&document(&topic));
    }
    let config = topic.config.unwrap_or_default();
    output::line(format!(
        "Topic        {}/{} (id {})",
        topic.tenant, topic.name, topic.topic_id
    ))?;
    output::line(format!("Replication  {}", topic.replication))?;
    output::line(format!("Retention    {}", retention(&config)))?;
    if !topic.leader_rack.is_empty() {
        output::line(format!("Leader rack  {}", topic.leader_rack))?;
    }
    output::line("")?;
    let heading = [
        "PARTITION",
        "LEADER",
        "TERM",
        "REPLICAS",
        "LEAVING",
        "LOG START",
        "HIGH WATERMARK",
    ];
    let mut table = Table::new(&heading);
    for partition in &topic.partitions {
        table.row([
            partition.partition.to_string(),
            or_dash(&partition.leader),
            partition.term.to_string(),
            partition.replicas.join(","),
            or_dash(&partition.leaving.join(",")),
            optional(partition.log_start),
            optional(partition.high_watermark),
        ]);
    }
    table.print()
}

async fn delete(topics: &Topics, name: &str, format: Format) -> Result<()> {
    topics.delete(name).await.map_err(failure)?;
    match format {
        Format::Json => output::json(&json!({ "deleted": name })),
        Format::Text => output::line(format!("Deleted {name}.")),
    }
}

fn retention(config: &v1::TopicConfig) -> String {
    let time = match config.retention_ms {
        None => "the cluster's default time".to_owned(),
        Some(0) => "for ever".to_owned(),
        Some(ms) => format!("{ms} ms"),
    };
    match config.retention_bytes {
        None | Some(0) => time,
        Some(bytes) => format!("{time}, at most {bytes} bytes a partition"),
    }
}

/// Shows that there is nothing, where a blank could be a mistake.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

fn optional(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn document(topic: &v1::Topic) -> Value {
    let partitions = topic.partitions.iter().map(|partition| {
        json!({
            "partition": partition.partition,
            "leader": (!partition.leader.is_empty()).then_some(&partition.leader),
            "term": partition.term,
            "replicas": partition.replicas,
            "leaving": partition.leaving,
            "log_start": partition.log_start,
            "high_watermark": partition.high_watermark,
        })
    });
    let config = topic.config.unwrap_or_default();
    json!({
        "tenant": topic.tenant,
        "topic": topic.name,
        "topic_id": topic.topic_id,
        "replication": topic.replication,
        "retention_ms": config.retention_ms,
        "retention_bytes": config.retention_bytes,
        "leader_rack": topic.leader_rack,
        "partitions": partitions.collect::<Vec<_>>(),
    })
}
