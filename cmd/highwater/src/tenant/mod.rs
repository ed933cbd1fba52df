//! `highwater tenant list|describe|create|quota|suspend|resume|delete`.

pub(crate) mod quota;

use highwater::Access;
use serde_json::json;

use crate::exit::{Code, Failure, Result};
use crate::output::{self, Format, Table};
use crate::profile::{CommonArgs, failure};

const EXAMPLES: &str = "\
Examples:
  highwater tenant list
  highwater tenant create shop
  highwater tenant create billing --clients-role none       an operator grants roles one by one
  highwater tenant describe shop                            what it uses, and may use
  highwater tenant quota shop --set produce_bytes_per_second=20M --set topics=50
  highwater tenant quota shop --client web --set connections=8
  highwater tenant quota shop --clear topics
  highwater tenant suspend shop
  highwater tenant delete shop --with-topics --confirm shop

A tenant is a name in certificates (spiffe://CLUSTER/tenant/NAME/client/…): `highwater certs client` makes them. All commands are for
operators; who may describe a tenant may describe it here, too.";

/// Make, list, limit, suspend and delete tenants.
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
    /// List all tenants.
    List,
    /// Show what a tenant and its clients use, and may use.
    Describe {
        /// The tenant.
        tenant: String,
    },
    /// Change what a tenant, or one of its clients, may use.
    Quota(quota::Change),
    /// Make a tenant.
    Create {
        /// Its name, as in its clients' certificates.
        tenant: String,
        /// The role that all its clients have in it; `none`: none.
        #[arg(long, value_name = "ROLE", default_value = "owner")]
        clients_role: String,
    },
    /// Shut the clients of a tenant out; what it has stays.
    Suspend {
        /// The tenant.
        tenant: String,
    },
    /// Let the clients of a tenant in again.
    Resume {
        /// The tenant.
        tenant: String,
    },
    /// Forget a tenant, with its rules and grants.
    Delete {
        /// The tenant.
        tenant: String,
        /// With its topics and all their records; without it, a tenant that has topics is refused.
        #[arg(long)]
        with_topics: bool,
        /// The tenant's name once more.
        #[arg(long, value_name = "TENANT", default_value = "", hide_default_value = true)]
        confirm: String,
    },
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let format = args.common.output;
    // The nodes refuse it, too; here it can be said which option is missing.
    if let Command::Delete { tenant, confirm, .. } = &args.command
        && confirm != tenant
    {
        let message = format!("deleting tenant {tenant} cannot be undone");
        return Err(Failure::new(Code::Usage, message).hint(format!("repeat its name: --confirm {tenant}")));
    }
    let access = args.common.connect().await?.access();
    match &args.command {
        Command::List => list(&access, format).await,
        Command::Describe { tenant } => quota::describe(&access, tenant, format).await,
        Command::Quota(change) => quota::change(&access, change, format).await,
        Command::Create { tenant, clients_role } => {
            let role = if clients_role == "none" { "" } else { clients_role };
            access.create_tenant(tenant, Some(role)).await.map_err(failure)?;
            told("created", tenant, format)
        }
        Command::Suspend { tenant } => {
            access.suspend_tenant(tenant, true).await.map_err(failure)?;
            told("suspended", tenant, format)
        }
        Command::Resume { tenant } => {
            access.suspend_tenant(tenant, false).await.map_err(failure)?;
            told("resumed", tenant, format)
        }
        Command::Delete {
            tenant,
            with_topics,
            confirm,
        } => {
            let deleting = access.delete_tenant(tenant, confirm, *with_topics);
            deleting.await.map_err(failure)?;
            told("deleted", tenant, format)
        }
    }
}

async fn list(access: &Access, format: Format) -> Result<()> {
    let tenants = access.tenants().await.map_err(failure)?;
    if format == Format::Json {
        let tenants = tenants.iter().map(|tenant| {
            json!({
                "tenant": tenant.name,
                "suspended": tenant.suspended,
                "topics": tenant.topics,
                "partitions": tenant.partitions,
            })
        });
        return output::json(&json!({ "tenants": tenants.collect::<Vec<_>>() }));
    }
    let mut table = Table::new(&["TENANT", "STATE", "TOPICS", "PARTITIONS"]);
    for tenant in &tenants {
        let state = if tenant.suspended { "suspended" } else { "active" };
        table.row([
            tenant.name.clone(),
            state.to_owned(),
            tenant.topics.to_string(),
            tenant.partitions.to_string(),
        ]);
    }
    table.print()
}

fn told(done: &str, tenant: &str, format: Format) -> Result<()> {
    match format {
        Format::Json => output::json(&json!({ done: tenant })),
        Format::Text => {
            let mut words = done.to_owned();
            words[..1].make_ascii_uppercase();
            output::line(format!("{words} tenant {tenant}."))
        }
    }
}
