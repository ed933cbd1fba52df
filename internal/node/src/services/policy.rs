//! AccessService: the policy as its users see and change it; tenants are in `tenants`.
//!
//! What is allowed here is itself decided by the policy: operators may change everything, who may manage a tenant what counts in that
//! tenant. Nobody else learns what it says, but of himself.

use std::sync::Arc;

use highwater_catalog::{self as catalog, Access, CLUSTER_DOMAIN, Command, Domain, Effect, PolicyChange, Reply, names};
use highwater_proto::v1;
use highwater_proto::v1::access_service_server::AccessService;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::deadline::deadline;
use super::{Context, principal, targets};
use crate::access::{Action, Client, Denied, Principal, Reason, Resource};
use crate::status::Problem;

/// The policy.
pub(super) struct Policy {
    pub(super) context: Arc<Context>,
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
        let principal = principal(&request)?;
        let request = request.into_inner();
        let own = client_of(&principal)?.to_text();
        let client = if request.client.is_empty() {
            own.clone()
        } else {
            request.client
        };
        let change = request.change.map(change_of);
        if client != own || change.is_some() {
            self.may(&principal, Action::Manage, &request.domain)?;
        }
        let access = self.context.authority.access();
        let access = match change {
            Some(change) => Arc::new(
                access
                    .changed(&change)
                    .map_err(|refusal| Problem::from_refusal(&refusal))?,
            ),
            None => access,
        };
        let question = (client.as_str(), request.domain.as_str(), request.resource.as_str());
        Ok(Response::new(self.explanation(&access, question, &request.action)?))
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
        let rules = change
            .add_rules
            .iter()
            .chain(&change.remove_rules)
            .map(|rule| &rule.domain);
        let grants = change
            .add_grants
            .iter()
            .chain(&change.remove_grants)
            .map(|grant| &grant.domain);
        let mut domains: Vec<&String> = rules.chain(grants).collect();
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
        let command = Command::ChangePolicy {
            expected_version: request.expected_version,
            change,
        };
        let reply = self.context.catalog.command(&command, deadline).await?;
        let version = version_of(&reply)?;
        self.context.catalog.catch_up(deadline).await;
        Ok(v1::ChangePolicyResponse { version })
    }

    fn explanation(
        &self,
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
        let (allowed, reason) = authority.explain(access, Client { tenant, name }, domain, named, action);
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
