//! Who may do what: the policy, and tenants.
//!
//! A *rule* says what a role or one client may do; a *grant* gives a role to a client. Both are the wire contract's own types
//! ([`proto::v1::Rule`](crate::proto::v1::Rule), [`proto::v1::Grant`](crate::proto::v1::Grant)), as nothing could be added to them here.
//!
//! A change names the version of the policy that it was made for, so that two who change it at once notice each other.
//! [`Access::change`] may be refused although it was done: if the answer to its first attempt was lost. Whoever looks again sees which
//! it is.

use std::sync::Arc;
use std::time::Duration;

use highwater_proto::limits::MESSAGE_BYTES_MAX;
use highwater_proto::v1;
use highwater_proto::v1::access_service_client::AccessServiceClient;
use tonic::transport::Channel;

use crate::calls::{Caller, timed};
use crate::deadline::Deadline;
use crate::doubt::Doubt;
use crate::error::{Error, Reason};
use crate::picker::Purpose;

/// The policy, and tenants. Made by [`Client::access`](crate::Client::access).
#[derive(Debug, Clone)]
pub struct Access {
    caller: Arc<Caller>,
    deadline: Duration,
}

fn access_client(channel: Channel) -> AccessServiceClient<Channel> {
    AccessServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// One call, made again on other nodes until the deadline; `$doubt` notes attempts that may have been done.
macro_rules! call {
    ($access:expr, $action:expr, $request:expr, $method:ident, $doubt:expr) => {{
        let request = $request;
        let doubt: &Doubt = $doubt;
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { doubt.note(access_client(channel).$method(request).await) }
        };
        let until = Deadline::after($access.deadline);
        $access.caller.call($action, Purpose::Admin, until, call).await
    }};
}

impl Access {
    pub(crate) fn new(caller: Arc<Caller>, deadline: Duration) -> Self {
        Self { caller, deadline }
    }

    /// Who the cluster takes this client for, and which roles it has. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Deadline`].
    pub async fn who_am_i(&self) -> Result<v1::WhoAmIResponse, Error> {
        call!(self, "ask who I am", v1::WhoAmIRequest {}, who_am_i, &Doubt::default())
    }

    /// The rules and grants that count in a tenant, or all of them if it is empty. Cancel safe.
    ///
    /// # Errors
    /// Reason `PERMISSION_DENIED`: only operators see everything, and only who may `describe` a tenant what counts there;
    /// [`Error::Deadline`].
    pub async fn policy(&self, tenant: &str) -> Result<v1::GetPolicyResponse, Error> {
        let request = v1::GetPolicyRequest {
            tenant: tenant.to_owned(),
        };
        call!(self, "get the policy", request, get_policy, &Doubt::default())
    }

    /// Adds and removes rules and grants in one step; answers the version that is in force then. What is there already, or gone
    /// already, is no error.
    ///
    /// Not cancel safe: if the future is dropped, it may be done all the same.
    ///
    /// # Errors
    /// Reasons `POLICY_CHANGED` (look again), `PERMISSION_DENIED`, `INVALID_ARGUMENT`, `TENANT_NOT_FOUND`, `REFUSED` (a role without rules,
    /// the last operator, too many rules); [`Error::Deadline`].
    pub async fn change(&self, expected_version: u64, change: v1::PolicyChange) -> Result<u64, Error> {
        let request = v1::ChangePolicyRequest {
            expected_version,
            change: Some(change),
        };
        let changed = call!(self, "change the policy", request, change_policy, &Doubt::default())?;
        Ok(changed.version)
    }

    /// Whether a client may do something, and why; also as it would be after a change. Cancel safe.
    ///
    /// # Errors
    /// Reasons `PERMISSION_DENIED` (about others, or with a change: only who may change that domain), `INVALID_ARGUMENT`, and what a
    /// change can be refused with; [`Error::Deadline`].
    pub async fn explain(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, Error> {
        call!(self, "explain a decision", request, explain, &Doubt::default())
    }

    /// All tenants. For operators. Cancel safe.
    ///
    /// # Errors
    /// Reason `PERMISSION_DENIED`; [`Error::Deadline`].
    pub async fn tenants(&self) -> Result<Vec<v1::Tenant>, Error> {
        let listed = call!(
            self,
            "list tenants",
            v1::ListTenantsRequest {},
            list_tenants,
            &Doubt::default()
        )?;
        Ok(listed.tenants)
    }

    /// Makes a tenant, all of whose clients have a role in it: `owner` if that is `None`, none if it is empty. For operators.
    ///
    /// Not cancel safe: if the future is dropped, it may be done all the same.
    ///
    /// # Errors
    /// Reasons `REFUSED` (there is such a tenant, or no such role), `INVALID_ARGUMENT`, `PERMISSION_DENIED`; [`Error::Deadline`].
    pub async fn create_tenant(&self, tenant: &str, clients_role: Option<&str>) -> Result<(), Error> {
        let request = v1::CreateTenantRequest {
            tenant: tenant.to_owned(),
            clients_role: clients_role.map(str::to_owned),
        };
        let action = format!("create tenant {tenant}");
        call!(self, &action, request, create_tenant, &Doubt::default()).map(drop)
    }

    /// Shuts the clients of a tenant out, or lets them in again. For operators. Repeating it changes nothing.
    ///
    /// Not cancel safe: if the future is dropped, it may be done all the same.
    ///
    /// # Errors
    /// Reasons `TENANT_NOT_FOUND`, `PERMISSION_DENIED`; [`Error::Deadline`].
    pub async fn suspend_tenant(&self, tenant: &str, suspended: bool) -> Result<(), Error> {
        let request = v1::SuspendTenantRequest {
            tenant: tenant.to_owned(),
            suspended,
        };
        let action = format!("suspend tenant {tenant}");
        call!(self, &action, request, suspend_tenant, &Doubt::default()).map(drop)
    }

    /// What a tenant and its clients may use, and what they use now, as far as the cluster's nodes answer. Cancel safe.
    ///
    /// # Errors
    /// Reasons `PERMISSION_DENIED` (it is for operators, and who may `describe` the tenant), `TENANT_NOT_FOUND`; [`Error::Deadline`].
    pub async fn describe_tenant(&self, tenant: &str) -> Result<v1::DescribeTenantResponse, Error> {
        let request = v1::DescribeTenantRequest {
            tenant: tenant.to_owned(),
        };
        let action = format!("describe tenant {tenant}");
        call!(self, &action, request, describe_tenant, &Doubt::default())
    }

    /// Changes what a tenant, or one of its clients, may use; limits that are not named stay. For operators. Repeating it changes nothing.
    ///
    /// Not cancel safe: if the future is dropped, it may be done all the same.
    ///
    /// # Errors
    /// Reasons `TENANT_NOT_FOUND`, `INVALID_ARGUMENT`, `REFUSED` (too many clients with quotas), `PERMISSION_DENIED`; [`Error::Deadline`].
    pub async fn change_quota(&self, request: v1::ChangeQuotaRequest) -> Result<(), Error> {
        let action = format!("change a quota of tenant {}", request.tenant);
        call!(self, &action, request, change_quota, &Doubt::default()).map(drop)
    }

    /// Forgets a tenant with its rules and grants, and if `delete_topics` with its topics and all their records. For operators. It cannot
    /// be undone, so the nodes do it only if `confirm_name` is the tenant's name once more: have whoever asks for it give that.
    ///
    /// Not cancel safe: if the future is dropped, it may be done all the same, also in part; it can be called again.
    ///
    /// # Errors
    /// Reasons `TENANT_NOT_FOUND`, `INVALID_ARGUMENT` (`confirm_name` is another one), `REFUSED` (it has topics), `PERMISSION_DENIED`;
    /// [`Error::Deadline`].
    pub async fn delete_tenant(&self, tenant: &str, confirm_name: &str, delete_topics: bool) -> Result<(), Error> {
        let request = v1::DeleteTenantRequest {
            tenant: tenant.to_owned(),
            delete_topics,
            confirm_name: confirm_name.to_owned(),
        };
        let doubt = Doubt::default();
        let action = format!("delete tenant {tenant}");
        match call!(self, &action, request, delete_tenant, &doubt) {
            Err(error) if doubt.is_open() && error.reason() == Some(Reason::TenantNotFound) => Ok(()),
            other => other.map(drop),
        }
    }
}
