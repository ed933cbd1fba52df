//! `highwater access whoami|list|grant|revoke|explain`.
//!
//! People think in "this client may produce to those topics"; the policy has rules and grants. `words` turns the one into the other.

mod explain;
pub(crate) mod words;

use highwater::proto::v1;
use highwater::{Access, Error, Reason};
use serde_json::{Value, json};

use self::words::GrantArgs;
use crate::exit::Result;
use crate::output::{self, Format, Table};
use crate::profile::{CommonArgs, failure};

const EXAMPLES: &str = "\
Examples:
  highwater access whoami
  highwater access list
  highwater access grant web producer                        a role, in the own tenant
  highwater access grant 'web' produce --topic 'orders.*'    an action, on topics whose names begin so
  highwater access grant shop/web consumer --tenant billing  a client of another tenant
  highwater access grant web consume --topic secrets --deny  who denies wins
  highwater access grant reader consume --role --topic 'public.*'  a rule of a role of your own
  highwater access grant web producer --dry-run              what would change
  highwater access revoke '*' owner                          no longer every client of the tenant
  highwater access explain web produce --topic orders.eu

Roles that there are from the beginning: owner, producer, consumer, viewer; operator with --cluster.
Actions: produce, consume, describe, manage, admin, and * for all of them.";

/// See and change who may do what.
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
    /// Show who the cluster takes this client for, and which roles it has.
    Whoami,
    /// List the rules and grants that count in a tenant.
    List {
        /// The tenant. Default: the own one.
        #[arg(long, value_name = "NAME", conflicts_with = "all")]
        tenant: Option<String>,
        /// Those of all tenants and of the cluster; for operators.
        #[arg(long)]
        all: bool,
    },
    /// Give a client a role, or allow it an action.
    Grant(GrantArgs),
    /// Take back what `grant` with the same words has given.
    Revoke(GrantArgs),
    /// Tell whether a client may do something, and which rule says so.
    Explain(explain::Args),
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let access = args.common.connect().await?.access();
    let format = args.common.output;
    match &args.command {
        Command::Whoami => whoami(&access, format).await,
        Command::List { tenant, all } => {
            let tenant = match (all, tenant) {
                (true, _) => String::new(),
                (false, Some(tenant)) => tenant.clone(),
                (false, None) => own_tenant(&access).await?,
            };
            list(&access, &tenant, format).await
        }
        Command::Grant(args) => change(&access, args, words::Direction::Grant, format).await,
        Command::Revoke(args) => change(&access, args, words::Direction::Revoke, format).await,
        Command::Explain(args) => explain::run(&access, args, format).await,
    }
}

async fn own_tenant(access: &Access) -> Result<String> {
    Ok(access.who_am_i().await.map_err(failure)?.tenant)
}

async fn whoami(access: &Access, format: Format) -> Result<()> {
    let who = access.who_am_i().await.map_err(failure)?;
    if format == Format::Json {
        return output::json(&json!({
            "identity": who.identity,
            "tenant": who.tenant,
            "client": who.client,
            "grants": who.grants.iter().map(grant_document).collect::<Vec<_>>(),
            "configured_operator": who.configured_operator,
            "no_policy": who.no_policy,
            "shut_out": who.shut_out,
        }));
    }
    output::line(format!("{} ({}/{})", who.identity, who.tenant, who.client))?;
    if who.configured_operator {
        output::line("An operator, as the configuration of the node that answered has it.")?;
    }
    if who.no_policy {
        return output::line("There is no policy yet: each client may do everything in its own tenant.");
    }
    if who.shut_out {
        return output::line(format!(
            "Tenant {} is suspended or does not exist: nothing is allowed.",
            who.tenant
        ));
    }
    if who.grants.is_empty() {
        return output::line("It has no roles; rules about it by name are shown by `highwater access list`.");
    }
    print_grants(&who.grants)
}

async fn list(access: &Access, tenant: &str, format: Format) -> Result<()> {
    let policy = access.policy(tenant).await.map_err(failure)?;
    if format == Format::Json {
        return output::json(&json!({
            "version": policy.version,
            "rules": policy.rules.iter().map(rule_document).collect::<Vec<_>>(),
            "grants": policy.grants.iter().map(grant_document).collect::<Vec<_>>(),
        }));
    }
    let mut table = Table::new(&["SUBJECT", "WHERE", "RESOURCE", "ACTION", "EFFECT"]);
    for rule in &policy.rules {
        table.row([
            rule.subject.clone(),
            rule.domain.clone(),
            rule.resource.clone(),
            rule.action.clone(),
            words::effect(rule.deny).to_owned(),
        ]);
    }
    table.print()?;
    output::line("")?;
    print_grants(&policy.grants)
}

fn print_grants(grants: &[v1::Grant]) -> Result<()> {
    let mut table = Table::new(&["CLIENT", "ROLE", "WHERE"]);
    for grant in grants {
        table.row([grant.client.clone(), grant.role.clone(), grant.domain.clone()]);
    }
    table.print()
}

/// Changes the policy as it is now. Somebody who changes it at the same moment is looked at again: nothing that was said depends on what
/// else is in it.
async fn change(access: &Access, args: &GrantArgs, direction: words::Direction, format: Format) -> Result<()> {
    let own = own_tenant(access).await?;
    let change = words::change(args, &own, direction)?;
    let domain = words::domain(args, &own);
    let seen = if domain.starts_with('@') {
        String::new()
    } else {
        domain.clone()
    };
    loop {
        let policy = access.policy(&seen).await.map_err(failure)?;
        let missing = words::missing(&policy, &change, direction);
        if args.dry_run {
            return explain::dry_run(access, args, &own, &change, &missing, format).await;
        }
        match access.change(policy.version, change.clone()).await {
            Ok(version) => return told(&missing, version, format),
            Err(Error::Refused(refusal)) if refusal.reason == Reason::PolicyChanged => {}
            Err(error) => return Err(failure(error)),
        }
    }
}

fn told(lines: &[String], version: u64, format: Format) -> Result<()> {
    if format == Format::Json {
        return output::json(&json!({ "version": version, "changed": lines }));
    }
    if lines.is_empty() {
        return output::line("It is so already; nothing was changed.");
    }
    lines.iter().try_for_each(output::line)?;
    output::line(format!("In force, as version {version} of the policy."))
}

fn rule_document(rule: &v1::Rule) -> Value {
    json!({
        "subject": rule.subject,
        "domain": rule.domain,
        "resource": rule.resource,
        "action": rule.action,
        "effect": words::effect(rule.deny),
    })
}

fn grant_document(grant: &v1::Grant) -> Value {
    json!({ "client": grant.client, "role": grant.role, "domain": grant.domain })
}
