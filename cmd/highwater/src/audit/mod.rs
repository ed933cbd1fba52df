//! `highwater audit tail|verify`: what was done to the cluster and what was refused, and whether any of it was changed since.
//!
//! Both read the topic `system/audit` through the client library, as anybody does who may. What a record says is `record`, whether the
//! records of a node follow from each other is `chain`.

mod chain;
mod record;
mod tail;
mod verify;

use highwater::{Client, Consumer, ConsumerBuilder};

use crate::exit::Result;
use crate::profile::{CommonArgs, failure};

/// Where the audit is.
const TOPIC: &str = "system/audit";
/// Its one partition.
const PARTITION: u32 = 0;

const EXAMPLES: &str = "\
Examples:
  highwater audit tail
  highwater audit tail --follow
  highwater audit tail --from 2026-01-31T12:00:00Z --max 100 --output json
  highwater audit verify

Operators of the cluster may read the audit, and whoever has a role in the tenant `system`, such as
  highwater access grant shop/auditor consumer --tenant system
`verify` ends with 1 and the offset if a record was changed, left out, doubled or put in between.";

/// Read what was done to the cluster and what was refused, and prove it.
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
    /// Print records, oldest first; without --from the last ones.
    Tail(tail::Args),
    /// Check that of all records that are kept none was changed, left out, doubled or put in between.
    Verify,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let client = args.common.connect().await?;
    match &args.command {
        Command::Tail(tail) => tail::run(&client, tail, args.common.output).await,
        Command::Verify => verify::run(&client, args.common.output).await,
    }
}

fn reader(client: &Client) -> ConsumerBuilder {
    client.consumer(TOPIC, PARTITION)
}

async fn open(builder: ConsumerBuilder) -> Result<Consumer> {
    builder.build().await.map_err(failure)
}
