//! Tenants: made, suspended and deleted by operators.

use crate::access::{Access, CLUSTER_DOMAIN, Grant, Tenant};
use crate::catalog::Catalog;
use crate::names;
use crate::reply::{Refusal, Reply};

impl Catalog {
    /// Makes a tenant. If all its clients shall have a role in it, that is granted in the same step.
    pub(crate) fn create_tenant(
        &mut self,
        index: u64,
        tenant: &str,
        clients_role: Option<&str>,
    ) -> Result<Reply, Refusal> {
        self.require_access()?;
        names::validate("tenant", tenant)?;
        let mut access = Access::clone(&self.state.access);
        if access.tenants.insert(tenant.to_owned(), Tenant::default()).is_some() {
            return Err(Refusal::TenantExists {
                tenant: tenant.to_owned(),
            });
        }
        if let Some(role) = clients_role {
            access.grants.insert(Grant {
                client: format!("{tenant}/*"),
                role: role.to_owned(),
                domain: tenant.to_owned(),
            });
        }
        access.check_references()?;
        self.put_access(index, access)
    }

    pub(crate) fn suspend_tenant(&mut self, index: u64, tenant: &str, suspended: bool) -> Result<Reply, Refusal> {
        self.require_access()?;
        self.state.access.require_tenant(tenant)?;
        let mut access = Access::clone(&self.state.access);
        if let Some(tenant) = access.tenants.get_mut(tenant) {
            tenant.suspended = suspended;
        }
        self.put_access(index, access)
    }

    /// Forgets an empty tenant, with all rules and grants that are about it. Its last operator stays.
    pub(crate) fn delete_tenant(&mut self, index: u64, tenant: &str) -> Result<Reply, Refusal> {
        self.require_access()?;
        let topics = self.index.topic_count(tenant);
        if topics > 0 {
            return Err(Refusal::TenantInUse {
                tenant: tenant.to_owned(),
                topics,
            });
        }
        let mut access = Access::clone(&self.state.access);
        if access.tenants.remove(tenant).is_none() {
            return Err(Refusal::TenantNotFound {
                tenant: tenant.to_owned(),
            });
        }
        let is_of = |subject: &str| subject.split_once('/').is_some_and(|(of, _)| of == tenant);
        let is_in = |domain: &str| domain != CLUSTER_DOMAIN && domain == tenant;
        access
            .rules
            .retain(|rule| !is_of(&rule.subject) && !is_in(&rule.domain));
        access
            .grants
            .retain(|grant| !is_of(&grant.client) && !is_in(&grant.domain));
        access.check_references()?;
        self.put_access(index, access)
    }

    /// Whether topics may be made for a tenant: always, before access is set up.
    pub(crate) fn require_active_tenant(&self, tenant: &str) -> Result<(), Refusal> {
        let access = &self.state.access;
        if !access.is_set_up() {
            return Ok(());
        }
        access.require_tenant(tenant)?;
        match access.tenants.get(tenant) {
            Some(Tenant { suspended: true, .. }) => Err(Refusal::TenantSuspended {
                tenant: tenant.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}
