//! How many consumer groups a tenant may have, as far as this node sees them: on the partitions of which a replica is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use highwater_catalog::Limit;

use super::{OverQuota, Quotas, lock};

/// New groups that are being decided on, by tenant and name, and by how many calls. As many as calls go on.
pub(super) type Coming = Mutex<BTreeMap<(String, Bytes), usize>>;

/// Room for a new group; counts until it is dropped. By then the group is there, or will not be.
#[derive(Debug)]
pub(crate) struct NewGroup<'a> {
    coming: &'a Coming,
    key: (String, Bytes),
}

impl Drop for NewGroup<'_> {
    fn drop(&mut self) {
        let mut coming = lock(self.coming);
        if let Some(calls) = coming.get_mut(&self.key) {
            *calls -= 1;
            if *calls == 0 {
                coming.remove(&self.key);
            }
        }
    }
}

impl Quotas {
    /// Room for a consumer group that is new to one of a tenant's partitions; None: as many as come have room.
    pub(crate) fn room_for_group(&self, tenant: &str, new: &Bytes) -> Result<Option<NewGroup<'_>>, OverQuota> {
        let most = self
            .host
            .read(|catalog| catalog.access().tenant_limit(tenant, Limit::Groups));
        let Some(most) = most else { return Ok(None) };
        // Held while the groups are counted: one that is being decided on becomes one that is there before it leaves here.
        let mut coming = lock(&self.new_groups);
        let mut names = self.group_names(tenant);
        let of_tenant = coming.keys().filter(|(of, _)| of == tenant);
        names.extend(of_tenant.map(|(_, name)| name.clone()));
        if !names.contains(new) && names.len() as u64 >= most {
            return Err(OverQuota {
                most,
                retry_after: None,
                ..self.tenant(tenant).over(Limit::Groups, Duration::ZERO)
            });
        }
        let key = (tenant.to_owned(), new.clone());
        *coming.entry(key.clone()).or_default() += 1;
        Ok(Some(NewGroup {
            coming: &self.new_groups,
            key,
        }))
    }

    /// The consumer groups that keep offsets in partitions of a tenant of which a replica is here.
    pub(super) fn group_names(&self, tenant: &str) -> BTreeSet<Bytes> {
        let hosted = self.hosted_of(tenant);
        hosted.iter().flat_map(|hosted| hosted.group_names()).collect()
    }
}
