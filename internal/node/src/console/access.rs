//! `GET /api/v1/access`: who has which role, and what roles and clients may do, as the policy has it.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use highwater_catalog::{CLUSTER_DOMAIN, Effect, Grant, Rule};
use serde_json::{Value, json};

use super::answer::{PAGE_ROWS, limited};
use super::{Console, Desk, answer};
use crate::gateway::Query;
use crate::status::Problem;

/// Rules and grants shown at once; who has more uses `highwater access list`.
const SHOWN_MAX: usize = 4 * PAGE_ROWS;

pub(super) async fn access(State(console): Desk, RawQuery(query): RawQuery) -> Response {
    answer::answer(console.access(query.as_deref().unwrap_or_default()))
}

impl Console {
    fn access(&self, query: &str) -> Result<Value, Problem> {
        let query = Query::read(query, &["tenant"])?;
        let tenant = limited("tenant", query.text("tenant").unwrap_or_default())?;
        let access = self.context.authority.access();
        // What is said for all tenants, and for the cluster, concerns each.
        let concerns = |domain: &str| tenant.is_empty() || [tenant, "*", CLUSTER_DOMAIN].contains(&domain);
        let rules: Vec<&Rule> = access.rules().filter(|rule| concerns(&rule.domain)).collect();
        let grants: Vec<&Grant> = access.grants().filter(|grant| concerns(&grant.domain)).collect();
        Ok(json!({
            "node": self.context.node,
            "has_policy": access.is_set_up(),
            "version": access.version(),
            "rules_in_all": rules.len(),
            "grants_in_all": grants.len(),
            "rules": rules.into_iter().take(SHOWN_MAX).map(rule).collect::<Vec<_>>(),
            "grants": grants.into_iter().take(SHOWN_MAX).collect::<Vec<_>>(),
        }))
    }
}

fn rule(rule: &Rule) -> Value {
    json!({
        "subject": rule.subject,
        "domain": rule.domain,
        "resource": rule.resource,
        "action": rule.action,
        "allows": rule.effect == Effect::Allow,
    })
}
