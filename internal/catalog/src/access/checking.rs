//! Whether what a checkpoint says of access can be.

use crate::access::{Access, pattern};
use crate::names;
use crate::reply::Refusal;

impl Access {
    /// The first invariant that does not hold, in words; `owners` are the tenants that own topics.
    pub(crate) fn flaw<'a>(&self, revision: u64, mut owners: impl Iterator<Item = &'a str>) -> Option<String> {
        if !self.is_set_up() {
            return (!self.is_empty()).then(|| "it has tenants or rules, but access was never set up".to_owned());
        }
        if self.version > revision {
            return Some(format!("the policy is of {}, after the last change", self.version));
        }
        if let Some(owner) = owners.find(|owner| !self.tenants.contains_key(*owner)) {
            return Some(format!("tenant {owner} owns topics and is not listed"));
        }
        self.check().err().map(|refusal| refusal.to_string())
    }

    fn check(&self) -> Result<(), Refusal> {
        for (name, tenant) in &self.tenants {
            names::validate("tenant", name)?;
            tenant.check_quotas()?;
        }
        self.rules.iter().try_for_each(pattern::check_rule)?;
        self.grants.iter().try_for_each(pattern::check_grant)?;
        self.check_references()?;
        self.check_limits()
    }
}
