//! Rights in tenants that a restore has just made: nobody could have granted them before. They are taken back at the end.
//!
//! If a restore fails or is interrupted, they stay, as the next one needs them; that one tells of them as something that the cluster has and the
//! backup has not.

use std::collections::BTreeSet;

use highwater::Access;
use highwater::proto::v1;

use super::manifest::Rule;
use super::plan::{self, Plan};
use super::policy::change_policy;
use super::rights::{self, Wanted};
use crate::exit::Result;

/// What is lent in a tenant: everything on these.
const RESOURCES: [(&str, &str); 2] = [("topic:*", "--topic"), ("group:*", "--group")];

/// Rules that were added for the restoring client.
#[derive(Debug, Default)]
pub(super) struct Lent {
    rules: Vec<v1::Rule>,
}

/// Lends what the client lacks in tenants that are new.
pub(super) async fn lend(access: &Access, plan: &Plan<'_>) -> Result<Lent> {
    let new = plan.topics.iter().map(|topic| topic.topic);
    let new = new.filter(|topic| plan.changes.tenants.contains(&topic.tenant));
    let wanted = new.flat_map(|topic| {
        let groups = ["describe", "manage"].map(|action| Wanted::all_groups(&topic.tenant, action));
        plan::of_topic(topic).into_iter().chain(groups)
    });
    let missing = rights::missing(access, wanted.collect()).await?;
    let tenants: BTreeSet<String> = missing.into_iter().map(|(wanted, _)| wanted.tenant).collect();
    let client = format!("{}/{}", plan.who.tenant, plan.who.client);
    let lent = Lent {
        rules: rules_for(&client, &tenants, &plan.changes.rules),
    };
    if !lent.is_empty() {
        let change = v1::PolicyChange {
            add_rules: lent.rules.clone(),
            ..Default::default()
        };
        change_policy(access, &change).await?;
    }
    Ok(lent)
}

/// Everything in these tenants, but for rules that the restore has just put back: those are the backup's, and stay.
fn rules_for(client: &str, tenants: &BTreeSet<String>, restored: &[Rule]) -> Vec<v1::Rule> {
    let rules = tenants.iter().flat_map(|tenant| {
        RESOURCES.map(|(resource, _)| Rule {
            subject: client.to_owned(),
            domain: tenant.clone(),
            resource: resource.to_owned(),
            action: "*".to_owned(),
            deny: false,
        })
    });
    let lent = rules.filter(|rule| !restored.contains(rule));
    lent.map(Into::into).collect()
}

impl Lent {
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) async fn give_back(&self, access: &Access) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let change = v1::PolicyChange {
            remove_rules: self.rules.clone(),
            ..Default::default()
        };
        change_policy(access, &change).await
    }

    /// What takes them back by hand.
    pub(super) fn commands(&self) -> Vec<String> {
        let command = |rule: &v1::Rule| {
            let flag = RESOURCES.iter().find(|(resource, _)| *resource == rule.resource);
            let flag = flag.map_or("--topic", |(_, flag)| flag);
            format!(
                "highwater access revoke {} '*' {flag} '*' --tenant {}",
                rule.subject, rule.domain
            )
        };
        self.rules.iter().map(command).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lent_can_be_taken_back_by_hand() {
        let lent = Lent {
            rules: vec![v1::Rule {
                subject: "ops/backup".to_owned(),
                domain: "shop".to_owned(),
                resource: "group:*".to_owned(),
                action: "*".to_owned(),
                deny: false,
            }],
        };
        assert_eq!(
            lent.commands(),
            ["highwater access revoke ops/backup '*' --group '*' --tenant shop"]
        );
    }

    #[test]
    fn what_the_restore_has_put_back_is_not_lent_and_so_never_taken_away() {
        let tenants = BTreeSet::from(["billing".to_owned(), "shop".to_owned()]);
        let lent = rules_for("ops/backup", &tenants, &[]);
        assert_eq!(lent.len(), 4);
        let restored: Vec<Rule> = lent.iter().take(1).cloned().map(Into::into).collect();
        assert_eq!(rules_for("ops/backup", &tenants, &restored), lent[1..]);
        assert_eq!(rules_for("ops/other", &tenants, &restored).len(), 4);
    }
}
