//! `highwater backup DIR`, `highwater backup verify DIR` and `highwater restore DIR`: a cluster's records, and who may do what with them, in
//! a directory, and back into another cluster.
//!
//! ```text
//! cluster ─► rights, tenants, policy, topics, offsets of groups ─► records of each partition ─► DIR/records/TENANT/TOPIC/PARTITION
//!             gather                                               take, writer                ─► DIR/backup.json, last
//! DIR ─► every byte checked ─► compared with the cluster ─► tenants and policy ─► topics ─► records ─► offsets of groups ─► limits
//!        verify, reader        plan, policy, compare        policy              restore
//! ```
//!
//! All of it goes through the client library, as any other user's work does, and with that user's rights. The bytes on disk are known in
//! `format`, and those of `backup.json` in `manifest`, and nowhere else.
//!
//! # What holds
//!
//! * A backup is whole or it is none: `backup.json` is written last, in one step, when everything else is synced.
//! * Nothing is left out in silence: what this client may not see, and what cannot be read, ends the backup.
//! * Records of a partition are a run of offsets without gaps, from where it began to an end that its leader confirmed; and the offsets of
//!   groups were asked for before those ends, so none lies beyond them.
//! * A restore changes nothing before the backup was read to its end, and compared with the cluster.
//! * Each batch is appended only at the offset that it must get. So whatever is interrupted, and whoever else writes, no record is there
//!   twice, and none is missing between two others; and a restore that was interrupted finds out where it was by comparing what is there.
//! * What exists is never taken away or written over: no topic, no right, no offset of a group.
//! * What could cut a topic or stop the restore comes behind the records: retention by bytes, and quotas. Records may take more room than they
//!   did, as they are compressed otherwise.
//!
//! # What is bounded
//!
//! Memory: [`PARTITIONS_AT_ONCE`] partitions, each with what is read ahead of it and one block (`format`). `backup.json` is read whole, up to
//! a limit.
//!
//! # What is absent
//!
//! One moment for all partitions: each ends where its leader was when its turn came. Backups that build on another one. The numbers that
//! producers retry by: a retry from before the backup is new to the restored cluster. The times at which records were appended, which the
//! leader sets: they stand in the files, for whoever reads those. The tenant `system`, which is the cluster's own.

mod compare;
mod format;
mod gather;
mod lent;
mod manifest;
mod plan;
mod policy;
mod reader;
mod report;
mod restore;
mod rights;
mod selection;
mod summary;
mod take;
mod unfit;
mod verify;
mod writer;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use self::restore::Args as RestoreArgs;
pub(crate) use self::restore::run as restore;
use self::selection::Selection;
use crate::exit::{Failure, Result};
use crate::profile::CommonArgs;

/// How many partitions are copied, or restored, at a time.
const PARTITIONS_AT_ONCE: usize = 4;
/// The tenant that is the cluster's own.
const SYSTEM_TENANT: &str = "system";

const EXAMPLES: &str = "\
Examples:
  highwater backup /backups/2026-01-31                       everything
  highwater backup /backups/shop-2026-01-31 --tenant shop
  highwater backup /backups/orders --topic shop/orders --topic shop/returns
  highwater backup verify /backups/2026-01-31                needs no cluster
  highwater restore /backups/2026-01-31

It is made by an operator of the cluster who may also consume in each tenant:
  highwater access grant ops/backup operator --cluster
  highwater access grant ops/backup consumer --tenant shop
With --topic the right to consume the topic is enough.";

/// Copy topics, tenants, policy and the offsets of groups into a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The directory; it is made, or must be empty.
    #[arg(value_name = "DIR", required = true)]
    directory: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Read every byte of a backup, and fail if anything is not as it was written. Needs no cluster.
    Verify {
        /// The backup.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let format = args.common.output;
    match (&args.command, &args.directory) {
        (Some(Command::Verify { directory }), _) => verify::run(directory, format),
        (None, Some(directory)) => {
            let client = args.common.connect().await?;
            take::run(&client, directory, &args.selection, format).await
        }
        (None, None) => Err(Failure::usage("a directory is needed")),
    }
}

/// A topic as clients of any tenant name it.
fn in_tenant(tenant: &str, topic: &str) -> String {
    format!("{tenant}/{topic}")
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
