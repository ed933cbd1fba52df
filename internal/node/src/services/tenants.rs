//! Tenants, for operators.

use std::time::Duration;

use highwater_catalog::names::SYSTEM_TENANT;
use highwater_catalog::{Catalog, Command, Reply};
use highwater_proto::v1;
use tokio::time::{Instant, timeout_at};

use super::Context;
use super::policy::version_of;
use crate::access::{OWNER_ROLE, Principal};
use crate::status::Problem;

/// How long a change waits for the first policy.
const ACCESS_PATIENCE: Duration = Duration::from_secs(5);

impl Context {
    pub(super) async fn list_tenants(
        &self,
        principal: &Principal,
        deadline: Instant,
    ) -> Result<Vec<v1::Tenant>, Problem> {
        self.operator(principal)?;
        self.know_catalog(deadline).await?;
        let described = self.host.read(|catalog| {
            let tenants = catalog.access().tenants().iter();
            let described = tenants.map(|(name, tenant)| describe(catalog, name, tenant.suspended));
            described.collect()
        });
        Ok(described)
    }

    pub(super) async fn create_tenant(
        &self,
        principal: &Principal,
        request: v1::CreateTenantRequest,
        deadline: Instant,
    ) -> Result<(), Problem> {
        check_not_system(&request.tenant)?;
        let role = request.clients_role.unwrap_or_else(|| OWNER_ROLE.to_owned());
        let command = Command::CreateTenant {
            tenant: request.tenant,
            clients_role: Some(role).filter(|role| !role.is_empty()),
        };
        self.change_tenant(principal, &command, deadline).await
    }

    pub(super) async fn suspend_tenant(
        &self,
        principal: &Principal,
        request: v1::SuspendTenantRequest,
        deadline: Instant,
    ) -> Result<(), Problem> {
        let v1::SuspendTenantRequest { tenant, suspended } = request;
        check_not_system(&tenant)?;
        let command = Command::SuspendTenant { tenant, suspended };
        self.change_tenant(principal, &command, deadline).await
    }

    /// Suspended first, so that nobody makes topics meanwhile. If it ends in between, it can be called again.
    pub(super) async fn delete_tenant(
        &self,
        principal: &Principal,
        request: v1::DeleteTenantRequest,
        deadline: Instant,
    ) -> Result<(), Problem> {
        self.operator(principal)?;
        let tenant = request.tenant;
        check_not_system(&tenant)?;
        if request.confirm_name != tenant {
            return Err(Problem::Invalid {
                field: "confirm_name",
                why: "it must be the tenant's name once more, for what is deleted is gone; nothing was deleted"
                    .to_owned(),
            });
        }
        if request.delete_topics {
            let suspending = Command::SuspendTenant {
                tenant: tenant.clone(),
                suspended: true,
            };
            self.change_tenant(principal, &suspending, deadline).await?;
            principal.note_begun();
            self.delete_topics_of(principal, &tenant, deadline).await?;
        }
        let command = Command::DeleteTenant { tenant };
        self.change_tenant(principal, &command, deadline).await
    }

    async fn delete_topics_of(&self, principal: &Principal, tenant: &str, deadline: Instant) -> Result<(), Problem> {
        let topics: Vec<(String, u64)> = self.host.read(|catalog| {
            let topics = catalog.topics(tenant);
            topics.map(|topic| (topic.name.clone(), topic.topic_id)).collect()
        });
        for (name, topic_id) in topics {
            let command = Command::DeleteTopic {
                tenant: tenant.to_owned(),
                name: name.clone(),
                topic_id: Some(topic_id),
            };
            match self.catalog.command(&command, deadline).await? {
                Reply::Done => {
                    tracing::info!(target: "audit", %principal, tenant, topic = name, "a topic is deleted with its tenant");
                }
                Reply::Refused(refusal) => return Err(Problem::from_refusal(&refusal)),
                other => return Err(Problem::Internal(format!("the catalog answered {other:?}"))),
            }
        }
        Ok(())
    }

    pub(super) async fn change_tenant(
        &self,
        principal: &Principal,
        command: &Command,
        deadline: Instant,
    ) -> Result<(), Problem> {
        self.operator(principal)?;
        self.wait_for_access(deadline).await;
        let reply = self.catalog.command(command, deadline).await?;
        version_of(&reply)?;
        self.catalog.catch_up(deadline).await;
        Ok(())
    }

    /// A cluster whose nodes name an operator gets its first policy within seconds of its founding. Whoever is faster waits for it.
    async fn wait_for_access(&self, deadline: Instant) {
        let mut applied = self.host.progress();
        let set_up = async {
            while !self.host.read(|catalog| catalog.access().is_set_up()) {
                if applied.changed().await.is_err() {
                    return; // the node stops
                }
            }
        };
        let until = deadline.min(Instant::now() + ACCESS_PATIENCE);
        // Without a policy the catalog says so itself.
        let _ = timeout_at(until, set_up).await;
    }
}

/// What the cluster keeps for itself is nobody's to make or delete.
pub(super) fn check_not_system(tenant: &str) -> Result<(), Problem> {
    if tenant != SYSTEM_TENANT {
        return Ok(());
    }
    let why = format!("the tenant `{SYSTEM_TENANT}` and its topics are the cluster's own");
    Err(Problem::Refused(why))
}

fn describe(catalog: &Catalog, name: &str, suspended: bool) -> v1::Tenant {
    let (mut topics, mut partitions) = (0, 0);
    for topic in catalog.topics(name) {
        topics += 1;
        partitions += topic.partitions.len() as u32;
    }
    v1::Tenant {
        name: name.to_owned(),
        suspended,
        topics,
        partitions,
    }
}
