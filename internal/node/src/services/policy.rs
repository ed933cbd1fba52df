//! AccessService: the policy as its users see and change it; tenants are in `tenants`.
//!
//! What is allowed here is itself decided by the policy: operators may change everything, who may manage a tenant what counts in that
//! tenant. Who may describe a tenant is told the rules and grants that count in it; everybody else learns what the policy says of himself.
//!
//! Who manages a tenant learns nothing of others by what is refused: a change is asked about (`highwater_catalog::Proposer`) before it is
//! proposed, and one that is only tried is judged like a real one.

use std::sync::Arc;

use highwater_catalog::{
    self as catalog, Access, CLUSTER_DOMAIN, Command, Domain, Effect, PolicyChange, Proposer, Reply, names,
};
use highwater_proto::v1;
use highwater_proto::v1::access_service_server::AccessService;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::deadline::deadline;
use super::turns::Turns;
use super::{Context, principal, targets};
use crate::access::{Action, Client, Denied, Principal, Reason, Resource};
use crate::status::Problem;

/// The policy.
pub(super) struct Policy {
    pub(super) context: Arc<Context>,
    turns: Turns,
}

#[tonic::async_trait]
impl AccessService for Policy {
    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let principal = principal(&request)?;
        let client = client_of(&principal)?;
        let authority = &self.context.authority;
        let access = authority.access();
        let grants = access
            .grants()
            .filter(|grant| grant.includes(client.tenant, client.name));
        Ok(Response::new(v1::WhoAmIResponse {
            identity: principal.to_string(),
            tenant: client.tenant.to_owned(),
            client: client.name.to_owned(),
            grants: grants.map(grant_on_the_wire).collect(),
            configured_operator: authority.is_configured_operator(client),
            no_policy: !access.is_set_up(),
            shut_out: authority.shut_out(client).is_some(),
        }))
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        let (principal, deadline) = (principal(&request)?, deadline(request.metadata()));
        let tenant = request.into_inner().tenant;
        self.may(&principal, Action::Describe, &tenant)?;
        self.context.know_catalog(deadline).await?;
        let access = self.context.authority.access();
        let is_shown = |domain: &str| tenant.is_empty() || domain == tenant || domain == "*";
        let rules = access.rules().filter(|rule| is_shown(&rule.domain));
        let grants = access.grants().filter(|grant| is_shown(&grant.domain));
        Ok(Response::new(v1::GetPolicyResponse {
            version: access.version(),
            rules: rules.map(rule_on_the_wire).collect(),
            grants: grants.map(grant_on_the_wire).collect(),
        }))
    }

    async fn change_policy(
        &self,
        request: Request<v1::ChangePolicyRequest>,
    ) -> Result<Response<v1::ChangePolicyResponse>, Status> {
        let act = self
            .context
            .act(&request, "ChangePolicy", |_, request| lines_of(request))?;
        let changed = self.change(act.principal(), request.into_inner(), act.deadline()).await;
        act.end(changed).await
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        let (principal, deadline) = (principal(&request)?, deadline(request.metadata()));
        let request = request.into_inner();
        let own = client_of(&principal)?.to_text();
        let client = if request.client.is_empty() {
            own.clone()
        } else {
            request.client
        };
        let change = request.change.map(change_of);
        let change = change.filter(|change| *change != PolicyChange::default());
        if client != own || change.is_some() {
            self.may(&principal, Action::Manage, &request.domain)?;
        }
        let mut access = self.context.authority.access();
        if let Some(change) = change {
            self.may_change(&principal, &change)?;
            (access, _) = self.tried(&principal, access, change, deadline).await?;
        }
        let question = (client.as_str(), request.domain.as_str(), request.resource.as_str());
        let explained = self.explanation(&principal, &access, question, &request.action)?;
        Ok(Response::new(explained))
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        let (principal, deadline) = (principal(&request)?, deadline(request.metadata()));
        let tenants = self.context.list_tenants(&principal, deadline).await?;
        Ok(Response::new(v1::ListTenantsResponse { tenants }))
    }

    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Result<Response<v1::CreateTenantResponse>, Status> {
        let act = self.context.act(&request, "CreateTenant", targets::create_tenant)?;
        let request = request.into_inner();
        let done = self.context.create_tenant(act.principal(), request, act.deadline());
        let done = done.await.map(|()| v1::CreateTenantResponse {});
        act.end(done).await
    }

    async fn suspend_tenant(
        &self,
        request: Request<v1::SuspendTenantRequest>,
    ) -> Result<Response<v1::SuspendTenantResponse>, Status> {
        let act = self.context.act(&request, "SuspendTenant", targets::suspend_tenant)?;
        let request = request.into_inner();
        let done = self.context.suspend_tenant(act.principal(), request, act.deadline());
        let done = done.await.map(|()| v1::SuspendTenantResponse {});
        act.end(done).await
    }

    async fn delete_tenant(
        &self,
        request: Request<v1::DeleteTenantRequest>,
    ) -> Result<Response<v1::DeleteTenantResponse>, Status> {
        let act = self.context.act(&request, "DeleteTenant", targets::delete_tenant)?;
        let request = request.into_inner();
        let done = self.context.delete_tenant(act.principal(), request, act.deadline());
        let done = done.await.map(|()| v1::DeleteTenantResponse {});
        act.end(done).await
    }

    async fn describe_tenant(
        &self,
        request: Request<v1::DescribeTenantRequest>,
    ) -> Result<Response<v1::DescribeTenantResponse>, Status> {
        let (principal, deadline) = (principal(&request)?, deadline(request.metadata()));
        let tenant = request.into_inner().tenant;
        if !self.context.is_operator(&principal) {
            self.may(&principal, Action::Describe, &tenant)?;
        }
        Ok(Response::new(self.context.describe_tenant(&tenant, deadline).await?))
    }

    async fn change_quota(
        &self,
        request: Request<v1::ChangeQuotaRequest>,
    ) -> Result<Response<v1::ChangeQuotaResponse>, Status> {
        let act = self.context.act(&request, "ChangeQuota", targets::change_quota)?;
        let request = request.into_inner();
        let done = self.context.change_quota(act.principal(), request, act.deadline());
        let done = done.await.map(|()| v1::ChangeQuotaResponse {});
        act.end(done).await
    }
}

impl Policy {
    pub(super) fn new(context: Arc<Context>) -> Policy {
        Policy {
            context,
            turns: Turns::default(),
        }
    }

    /// Whether the caller may do `action` to the policy of a domain: an operator, or who may do it to that tenant.
    fn may(&self, principal: &Principal, action: Action, domain: &str) -> Result<(), Problem> {
        // Asked in silence: who is no operator may still be allowed it in the tenant.
        if self.context.is_operator(principal) {
            return Ok(());
        }
        // What is no tenant's name is never asked about: answers are kept, by the names as they are written.
        if !names::is_valid(domain) {
            return self.context.operator(principal);
        }
        let resource = Resource::Tenant(domain.to_owned());
        self.context.authority.authorize(principal, action, resource)?;
        Ok(())
    }

    fn may_change(&self, principal: &Principal, change: &PolicyChange) -> Result<(), Problem> {
        let mut domains: Vec<&str> = change.domains().collect();
        domains.sort_unstable();
        domains.dedup();
        if domains.is_empty() {
            return self.context.operator(principal);
        }
        domains
            .into_iter()
            .try_for_each(|domain| self.may(principal, Action::Manage, domain))
    }

    async fn change(
        &self,
        principal: &Principal,
        request: v1::ChangePolicyRequest,
        deadline: Instant,
    ) -> Result<v1::ChangePolicyResponse, Problem> {
        let change = change_of(request.change.unwrap_or_default());
        self.may_change(principal, &change)?;
        let change = self
            .proposed(principal, change, (request.expected_version, deadline))
            .await?;
        let command = Command::ChangePolicy {
            expected_version: request.expected_version,
            change,
        };
        let reply = self.context.catalog.command(&command, deadline).await?;
        let version = version_of(&reply)?;
        self.context.catalog.catch_up(deadline).await;
        Ok(v1::ChangePolicyResponse { version })
    }

    /// The change, if it may be proposed for this version of the policy; by no other one it is judged, and to no other one applied.
    async fn proposed(
        &self,
        principal: &Principal,
        change: PolicyChange,
        (expected, deadline): (u64, Instant),
    ) -> Result<PolicyChange, Problem> {
        self.context.know_catalog(deadline).await?;
        let access = self.context.authority.access();
        let version = access.version();
        if !access.is_set_up() {
            return Ok(change); // which the catalog refuses
        }
        if version != expected {
            return Err(Problem::PolicyChanged { version });
        }
        let (_, change) = self.tried(principal, access, change, deadline).await?;
        Ok(change)
    }

    /// The policy as it would be after a change, which is given back.
    async fn tried(
        &self,
        principal: &Principal,
        access: Arc<Access>,
        change: PolicyChange,
        deadline: Instant,
    ) -> Result<(Arc<Access>, PolicyChange), Problem> {
        let by = match self.context.is_operator(principal) {
            true => Proposer::Operator,
            false => Proposer::Manager,
        };
        let tenant = principal.tenant().unwrap_or_default();
        let turn = self.turns.take(by, tenant, deadline).await?;
        let trying = spawn_blocking(move || {
            let _turn = turn; // it ends with the work, also if nobody waits for that any more
            let after = access.proposed(&change, by);
            (after.map(Arc::new), change)
        });
        let (after, change) = trying.await.map_err(|error| Problem::Internal(error.to_string()))?;
        Ok((after.map_err(|refusal| Problem::from_refusal(&refusal))?, change))
    }

    fn explanation(
        &self,
        principal: &Principal,
        access: &Access,
        (client, domain, resource): (&str, &str, &str),
        action: &str,
    ) -> Result<v1::ExplainResponse, Problem> {
        let invalid = |field, why: &str| Problem::Invalid {
            field,
            why: why.to_owned(),
        };
        let parts = client.split_once('/');
        let (tenant, name) = parts.ok_or_else(|| invalid("client", "it is not of the form tenant/client"))?;
        let domain = match domain {
            CLUSTER_DOMAIN => Domain::Cluster,
            tenant => Domain::Tenant(tenant),
        };
        let named = resource_of(resource)
            .ok_or_else(|| invalid("resource", "it is none of topic:NAME, group:NAME, tenant: and cluster:"))?;
        let action = Action::from_name(action)
            .ok_or_else(|| invalid("action", "it is none of produce, consume, describe, manage and admin"))?;
        let authority = &self.context.authority;
        let (client, is_foreign) = (Client { tenant, name }, principal.tenant() != Some(tenant));
        let (allowed, reason) = match is_foreign && !self.context.is_operator(principal) {
            true => authority.explain_foreign(access, client, domain, named, action),
            false => authority.explain(access, client, domain, named, action),
        };
        let rule = match &reason {
            Reason::Rule(rule) => Some(rule_on_the_wire(rule)),
            _ => None,
        };
        Ok(v1::ExplainResponse {
            allowed,
            rule,
            reason: reason.to_string(),
        })
    }
}

fn client_of(principal: &Principal) -> Result<Client<'_>, Problem> {
    let denied = || Denied::Forbidden {
        principal: principal.to_string(),
        what: "use the services for clients: it has a node's certificate".to_owned(),
    };
    principal.client().ok_or_else(|| denied().into())
}

/// A resource as it is written in rules.
fn resource_of(text: &str) -> Option<catalog::Resource<'_>> {
    match text.split_once(':')? {
        ("topic", name) => Some(catalog::Resource::Topic(name)),
        ("group", name) => Some(catalog::Resource::Group(name)),
        ("tenant", "") => Some(catalog::Resource::Tenant),
        ("cluster", "") => Some(catalog::Resource::Cluster),
        _ => None,
    }
}

/// The version that the catalog answers.
pub(super) fn version_of(reply: &Reply) -> Result<u64, Problem> {
    match reply {
        Reply::Policy { version } => Ok(*version),
        Reply::Refused(refusal) => Err(Problem::from_refusal(refusal)),
        other => Err(Problem::Internal(format!("the catalog answered {other:?}"))),
    }
}

/// What is to be added and removed, for the audit.
fn lines_of(request: &v1::ChangePolicyRequest) -> String {
    let change = change_of(request.change.clone().unwrap_or_default());
    let added = change.add_rules.iter().map(|rule| format!("+ {rule}"));
    let added = added.chain(change.add_grants.iter().map(|grant| format!("+ {grant}")));
    let removed = change.remove_rules.iter().map(|rule| format!("- {rule}"));
    let removed = removed.chain(change.remove_grants.iter().map(|grant| format!("- {grant}")));
    let lines: Vec<String> = added.chain(removed).collect();
    format!("policy: {}", lines.join("; "))
}

// ------------------------------------------------------------------------------------------------------------- the wire

fn change_of(change: v1::PolicyChange) -> PolicyChange {
    PolicyChange {
        add_rules: change.add_rules.into_iter().map(rule_of).collect(),
        remove_rules: change.remove_rules.into_iter().map(rule_of).collect(),
        add_grants: change.add_grants.into_iter().map(grant_of).collect(),
        remove_grants: change.remove_grants.into_iter().map(grant_of).collect(),
    }
}

fn rule_of(rule: v1::Rule) -> catalog::Rule {
    catalog::Rule {
        subject: rule.subject,
        domain: rule.domain,
        resource: rule.resource,
        action: rule.action,
        effect: if rule.deny { Effect::Deny } else { Effect::Allow },
    }
}

fn grant_of(grant: v1::Grant) -> catalog::Grant {
    catalog::Grant {
        client: grant.client,
        role: grant.role,
        domain: grant.domain,
    }
}

fn rule_on_the_wire(rule: &catalog::Rule) -> v1::Rule {
    v1::Rule {
        subject: rule.subject.clone(),
        domain: rule.domain.clone(),
        resource: rule.resource.clone(),
        action: rule.action.clone(),
        deny: rule.effect == Effect::Deny,
    }
}

fn grant_on_the_wire(grant: &catalog::Grant) -> v1::Grant {
    v1::Grant {
        client: grant.client.clone(),
        role: grant.role.clone(),
        domain: grant.domain.clone(),
    }
}
