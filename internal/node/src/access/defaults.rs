//! The policy that a new cluster begins with: `certs/policy.csv`, compiled in.

use std::collections::BTreeSet;

use highwater_catalog::{CLUSTER_DOMAIN, Command, Effect, Grant, OPERATOR_ROLE, PolicyChange, Rule};

const POLICY: &str = include_str!("../../../../certs/policy.csv");

/// The role that all clients of a tenant have in it if nobody says otherwise.
pub(crate) const OWNER_ROLE: &str = "owner";

/// What a node's configuration says of the first policy.
#[derive(Debug, Clone)]
pub(crate) struct FirstPolicy {
    /// `tenant/client` each.
    pub(crate) operators: Vec<String>,
    /// Beside those of the operators.
    pub(crate) tenants: Vec<String>,
}

impl FirstPolicy {
    /// The command that sets access up; None as long as nobody is named who could change it afterwards. `owners` are the tenants that own
    /// topics already.
    pub(crate) fn command(&self, owners: impl IntoIterator<Item = String>) -> Option<Command> {
        if self.operators.is_empty() {
            return None;
        }
        let of_operators = self.operators.iter().filter_map(|client| client.split_once('/'));
        let of_operators = of_operators.map(|(tenant, _)| tenant.to_owned());
        let tenants: BTreeSet<String> = of_operators.chain(self.tenants.iter().cloned()).chain(owners).collect();
        let mut policy = parse(POLICY);
        policy.add_grants.extend(self.operators.iter().map(|client| Grant {
            client: client.clone(),
            role: OPERATOR_ROLE.to_owned(),
            domain: CLUSTER_DOMAIN.to_owned(),
        }));
        policy.add_grants.extend(tenants.iter().map(|tenant| Grant {
            client: format!("{tenant}/*"),
            role: OWNER_ROLE.to_owned(),
            domain: tenant.clone(),
        }));
        Some(Command::SetUpAccess {
            tenants: tenants.into_iter().collect(),
            policy,
        })
    }
}

/// Lines that are none are passed over: less is allowed then, never more. A test sees that there are none.
fn parse(text: &str) -> PolicyChange {
    let mut change = PolicyChange::default();
    for line in lines(text) {
        match line.as_slice() {
            ["p", subject, domain, resource, action, effect @ ("allow" | "deny")] => change.add_rules.push(Rule {
                subject: (*subject).to_owned(),
                domain: (*domain).to_owned(),
                resource: (*resource).to_owned(),
                action: (*action).to_owned(),
                effect: if *effect == "allow" {
                    Effect::Allow
                } else {
                    Effect::Deny
                },
            }),
            ["g", client, role, domain] => change.add_grants.push(Grant {
                client: (*client).to_owned(),
                role: (*role).to_owned(),
                domain: (*domain).to_owned(),
            }),
            _ => {}
        }
    }
    change
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split(',').map(str::trim).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_first_policy_is_read() {
        let change = parse(POLICY);
        assert_eq!(change.add_rules.len() + change.add_grants.len(), lines(POLICY).count());
        let written: Vec<String> = change.add_rules.iter().map(Rule::to_string).collect();
        let read: Vec<String> = lines(POLICY).map(|fields| fields.join(", ")).collect();
        assert_eq!(written, read);
    }
}
