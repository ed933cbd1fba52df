//! `highwater access explain`, and what a change would do.

use highwater::Access;
use highwater::proto::v1;
use serde_json::json;

use super::words::{self, CLUSTER, GrantArgs};
use super::{own_tenant, rule_document};
use crate::exit::Result;
use crate::output::{self, Format, Table};
use crate::profile::failure;

const ACTIONS: [&str; 5] = ["produce", "consume", "describe", "manage", "admin"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The client: NAME of the own tenant, or TENANT/NAME.
    client: String,
    /// produce, consume, describe, manage or admin.
    action: String,
    /// The topic.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// The consumer group.
    #[arg(long, value_name = "NAME", conflicts_with = "topic")]
    group: Option<String>,
    /// The tenant in which that is. Default: the own one. Without a topic or group the question is about the tenant as such.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// The cluster itself: nodes, leaders, settings.
    #[arg(long, conflicts_with_all = ["tenant", "topic", "group"])]
    cluster: bool,
}

pub(super) async fn run(access: &Access, args: &Args, format: Format) -> Result<()> {
    let own = own_tenant(access).await?;
    let topic = args.topic.as_ref().map(|name| format!("topic:{name}"));
    let group = args.group.as_ref().map(|name| format!("group:{name}"));
    let whole = if args.cluster { "cluster:" } else { "tenant:" };
    let domain = match (&args.tenant, args.cluster) {
        (_, true) => CLUSTER.to_owned(),
        (Some(tenant), false) => tenant.clone(),
        (None, false) => own.clone(),
    };
    let request = v1::ExplainRequest {
        client: words::full_name(&args.client, &own),
        domain,
        resource: topic.or(group).unwrap_or_else(|| whole.to_owned()),
        action: args.action.clone(),
        change: None,
    };
    let answer = access.explain(request.clone()).await.map_err(failure)?;
    if format == Format::Json {
        return output::json(&json!({
            "client": request.client,
            "domain": request.domain,
            "resource": request.resource,
            "action": request.action,
            "allowed": answer.allowed,
            "reason": answer.reason,
            "rule": answer.rule.as_ref().map(rule_document),
        }));
    }
    let may = if answer.allowed { "may" } else { "may not" };
    let v1::ExplainRequest {
        client,
        domain,
        resource,
        action,
        ..
    } = request;
    output::line(format!(
        "{client} {may} {action} {resource} in {domain}: {}.",
        answer.reason
    ))
}

/// What a change would add or remove, and what of the client's rights would be different. The cluster checks it as if it were meant.
pub(super) async fn dry_run(
    access: &Access,
    args: &GrantArgs,
    own_tenant: &str,
    change: &v1::PolicyChange,
    lines: &[String],
    format: Format,
) -> Result<()> {
    let client = words::full_name(&args.client, own_tenant);
    let about_one = !args.role && !client.ends_with('*');
    let example = Example {
        client: if about_one { client } else { String::new() },
        domain: words::domain(args, own_tenant),
        resource: example_resource(args),
    };
    let mut different = Vec::new();
    for action in ACTIONS {
        let before = example.ask(access, action, None).await?;
        let after = example.ask(access, action, Some(change.clone())).await?;
        if before != after {
            different.push((action, before, after));
        }
    }
    if format == Format::Json {
        let different = different
            .iter()
            .map(|(action, before, after)| json!({ "action": action, "before": before, "after": after }));
        return output::json(&json!({
            "dry_run": true,
            "changed": lines,
            "resource": example.resource,
            "different": different.collect::<Vec<_>>(),
        }));
    }
    match lines {
        [] => output::line("It is so already; nothing would be changed.")?,
        lines => lines.iter().try_for_each(output::line)?,
    }
    if about_one && !different.is_empty() {
        output::line(format!(
            "\n{} on {} in {}:",
            example.client, example.resource, example.domain
        ))?;
        let mut table = Table::new(&["ACTION", "NOW", "THEN"]);
        let word = |allowed: bool| if allowed { "yes" } else { "no" }.to_owned();
        for (action, before, after) in different {
            table.row([action.to_owned(), word(before), word(after)]);
        }
        table.print()?;
    }
    output::line("Nothing was changed.")
}

/// A question that shows what a change does.
struct Example {
    client: String,
    domain: String,
    resource: String,
}

impl Example {
    async fn ask(&self, access: &Access, action: &str, change: Option<v1::PolicyChange>) -> Result<bool> {
        let request = v1::ExplainRequest {
            client: self.client.clone(),
            domain: self.domain.clone(),
            resource: self.resource.clone(),
            action: action.to_owned(),
            change,
        };
        Ok(access.explain(request).await.map_err(failure)?.allowed)
    }
}

/// One resource that the change is about: of a pattern, the shortest name that it covers.
fn example_resource(args: &GrantArgs) -> String {
    let shortest = |pattern: &str| match pattern.strip_suffix('*') {
        Some("") => "x".to_owned(),
        Some(beginning) => beginning.to_owned(),
        None => pattern.to_owned(),
    };
    match (&args.topic, &args.group) {
        (Some(topic), _) => format!("topic:{}", shortest(topic)),
        (_, Some(group)) => format!("group:{}", shortest(group)),
        _ if args.cluster => "cluster:".to_owned(),
        _ if args.tenant_itself => "tenant:".to_owned(),
        _ => "topic:x".to_owned(),
    }
}
