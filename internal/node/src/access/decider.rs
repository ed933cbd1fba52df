//! casbin: the policy's answer for one client in one domain.
//!
//! casbin goes through all rules that it knows at each question, at about a microsecond each. So it is given only those that can
//! matter: the rules about the client and about the roles that it has in that domain. The limits of the catalog bound how many these are:
//! 64 rules about each role and client in one domain, 64 in all tenants, and 16 roles of a client and 16 of all clients of its tenant. What was
//! stored by an older version may be more.
//!
//! To make an enforcer costs some tenths of a millisecond, to give it other rules costs microseconds. So those that are done with are kept, and
//! used again for whoever comes next: `fill` takes away all that they were told before.
//!
//! Whatever goes wrong in here is a denial.

use std::sync::{LazyLock, Mutex, PoisonError};

use casbin::function_map::OperatorFunction;
use casbin::rhai::Dynamic;
use casbin::{CoreApi, DefaultModel, Enforcer, MemoryAdapter};
use futures::FutureExt;
use highwater_catalog::{Access, Domain, Effect, Rule, covers};

/// How questions and rules are compared.
const MODEL: &str = include_str!("../../../../certs/model.conf");
/// The role that every client has in the cluster's domain.
pub(super) const CLIENT_ROLE: &str = "client";
/// Every action, in a rule.
const ANY: &str = "*";

/// How many enforcers are kept for later.
const SPARES_MAX: usize = 64;
static SPARES: Mutex<Vec<Enforcer>> = Mutex::new(Vec::new());

/// A client as the policy names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) name: &'a str,
}

impl Client<'_> {
    /// `tenant/client`.
    pub(crate) fn to_text(self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }
}

/// The rules that can matter to one client in one domain.
pub(super) struct Decider {
    client: String,
    domain: String,
    roles: Vec<String>,
    rules: Vec<Rule>,
    /// None: no rule can matter, or casbin does not take them.
    enforcer: Option<Enforcer>,
}

impl Decider {
    pub(super) fn new(access: &Access, client: Client<'_>, domain: Domain<'_>) -> Decider {
        let subject = client.to_text();
        let roles = roles_of(access, client, domain);
        let mut decider = Decider {
            rules: rules_of(access, &roles, &subject, domain).cloned().collect(),
            roles: roles.into_iter().map(str::to_owned).collect(),
            client: subject,
            domain: domain.as_str().to_owned(),
            enforcer: None,
        };
        decider.enforcer = decider.enforcer_of(&decider.rules);
        decider
    }

    /// How many rules it has to look at.
    pub(super) fn rules_count(&self) -> usize {
        self.rules.len()
    }

    /// Whether it would be the same under another version of the policy.
    pub(super) fn holds_in(&self, access: &Access, client: Client<'_>, domain: Domain<'_>) -> bool {
        let roles = roles_of(access, client, domain);
        let rules = rules_of(access, &roles, &self.client, domain);
        self.roles.iter().eq(&roles) && self.rules.iter().eq(rules)
    }

    /// Whether an action on a resource is allowed.
    pub(super) fn allows(&self, resource: &str, action: &str) -> bool {
        self.enforcer
            .as_ref()
            .is_some_and(|enforcer| self.ask(enforcer, resource, action))
    }

    /// The rule that decides, if one does: the first one that denies, or else the first one that allows.
    ///
    /// Looked for without casbin, which only says whether some rule does: to try each by itself takes as many fillings as there are rules.
    /// These are about this client and its roles in this domain already, so that only the resource and the action are left to compare.
    pub(super) fn deciding_rule(&self, resource: &str, action: &str) -> Option<&Rule> {
        let is_about = |rule: &&Rule| [ANY, action].contains(&rule.action.as_str()) && covers(&rule.resource, resource);
        let mut matching = self.rules.iter().filter(is_about);
        let denies = matching.clone().find(|rule| rule.effect == Effect::Deny);
        denies.or_else(|| matching.next())
    }

    fn ask(&self, enforcer: &Enforcer, resource: &str, action: &str) -> bool {
        let question = (self.client.as_str(), self.domain.as_str(), resource, action);
        enforcer.enforce(question).unwrap_or_else(|error| {
            tracing::error!(%error, client = self.client, resource, action, "the policy cannot decide; it denies");
            false
        })
    }

    fn enforcer_of(&self, rules: &[Rule]) -> Option<Enforcer> {
        if rules.is_empty() {
            return None;
        }
        let made = enforcer(rules, &self.roles, &self.client, &self.domain);
        made.inspect_err(|error| tracing::error!(%error, client = self.client, "the policy cannot be read; it denies"))
            .ok()
    }
}

impl Drop for Decider {
    fn drop(&mut self) {
        if let Some(enforcer) = self.enforcer.take() {
            keep_for_later(enforcer);
        }
    }
}

fn roles_of<'a>(access: &'a Access, client: Client<'a>, domain: Domain<'a>) -> Vec<&'a str> {
    let granted = access.roles_of(client.tenant, client.name, domain);
    granted
        .chain((domain == Domain::Cluster).then_some(CLIENT_ROLE))
        .collect()
}

fn rules_of<'a>(
    access: &'a Access,
    roles: &'a [&'a str],
    client: &'a str,
    domain: Domain<'a>,
) -> impl Iterator<Item = &'a Rule> {
    let subjects = roles.iter().copied().chain([client]);
    subjects.flat_map(move |subject| access.rules_about(subject, domain))
}

fn enforcer(rules: &[Rule], roles: &[String], client: &str, domain: &str) -> casbin::Result<Enforcer> {
    let spare = SPARES.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut enforcer = spare.map_or_else(new_enforcer, Ok)?;
    fill(&mut enforcer, rules, roles, (client, domain))?;
    Ok(enforcer)
}

fn keep_for_later(enforcer: Enforcer) {
    let mut spares = SPARES.lock().unwrap_or_else(PoisonError::into_inner);
    if spares.len() < SPARES_MAX {
        spares.push(enforcer);
    }
}

/// One that knows no rules yet.
fn new_enforcer() -> casbin::Result<Enforcer> {
    let Some(model) = model() else {
        return Err(std::io::Error::other("the model cannot be read").into());
    };
    let mut enforcer = ready(Enforcer::new_raw(model, MemoryAdapter::default()))?;
    enforcer.add_function("covers", OperatorFunction::Arg2(covers_text));
    Ok(enforcer)
}

/// Makes these its rules, and these the client's roles, in place of all that it knew.
fn fill(
    enforcer: &mut Enforcer,
    rules: &[Rule],
    roles: &[String],
    (client, domain): (&str, &str),
) -> casbin::Result<()> {
    let model = enforcer.get_mut_model();
    model.clear_policy();
    let fields = rules.iter().map(|rule| {
        let Rule {
            subject,
            domain,
            resource,
            action,
            effect,
        } = rule.clone();
        vec![subject, domain, resource, action, effect.to_string()]
    });
    let granted = roles
        .iter()
        .map(|role| vec![client.to_owned(), (*role).to_owned(), domain.to_owned()]);
    // It takes none of them if it knows one of them already.
    if !model.add_policies("p", "p", fields.collect()) || !model.add_policies("g", "g", granted.collect()) {
        return Err(std::io::Error::other("it has rules or roles of before").into());
    }
    enforcer.build_role_links()
}

/// The model, read once.
fn model() -> Option<DefaultModel> {
    static READ: LazyLock<Option<DefaultModel>> = LazyLock::new(|| {
        let read = ready(DefaultModel::from_str(MODEL));
        read.inspect_err(|error| tracing::error!(%error, "certs/model.conf cannot be read; all is denied"))
            .ok()
    });
    READ.clone()
}

/// casbin's futures wait for files only, and there are none.
fn ready<T>(future: impl Future<Output = casbin::Result<T>>) -> casbin::Result<T> {
    let waits = || std::io::Error::other("casbin waits for something");
    future.now_or_never().unwrap_or_else(|| Err(waits().into()))
}

fn covers_text(pattern: Dynamic, resource: Dynamic) -> Dynamic {
    match (pattern.into_immutable_string(), resource.into_immutable_string()) {
        (Ok(pattern), Ok(resource)) => covers(&pattern, &resource).into(),
        _ => false.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::{Policy, grant, rule};

    /// Roles of the client, each with as many rules as it may have. More than changes make; older versions stored as many.
    const ROLES: usize = 30;
    const RULES: usize = 64;

    /// Each rule by itself, by casbin.
    fn found_by_casbin<'a>(decider: &'a Decider, resource: &str, action: &str) -> Option<&'a Rule> {
        let matches = |rule: &&Rule| {
            let alone = Rule {
                effect: Effect::Allow,
                ..(*rule).clone()
            };
            let Some(enforcer) = decider.enforcer_of(&[alone]) else {
                return false;
            };
            let is_it = decider.ask(&enforcer, resource, action);
            keep_for_later(enforcer);
            is_it
        };
        let matching: Vec<&Rule> = decider.rules.iter().filter(matches).collect();
        let denies = matching.iter().find(|rule| rule.effect == Effect::Deny);
        denies.or(matching.first()).copied()
    }

    #[test]
    fn the_rule_that_decides_is_the_one_by_which_casbin_does() {
        let mut policy = Policy::first();
        for role in 0..ROLES {
            let name = format!("role-{role}");
            let rules = (0..RULES).map(|number| {
                let action = ["produce", "consume", "*"][number % 3];
                let mut made = rule(&name, "next", &format!("topic:t{number}.{role}*"), action);
                if role % 10 == 9 {
                    made.effect = Effect::Deny;
                }
                made
            });
            policy.add(rules.collect(), vec![grant("next/web", &name, "next")]);
        }
        let client = Client {
            tenant: "next",
            name: "web",
        };
        let decider = Decider::new(policy.access(), client, Domain::Tenant("next"));
        assert_eq!(decider.rules.len(), ROLES * RULES);
        for (topic, expected) in [
            ("t3.14", Some(Effect::Allow)),
            ("t3.9", Some(Effect::Deny)),
            ("t3.29", Some(Effect::Deny)),
            ("t3.19", Some(Effect::Deny)), // though a role before it allows it
            ("t4.14", None),
        ] {
            let resource = format!("topic:{topic}");
            let found = decider.deciding_rule(&resource, "produce");
            assert_eq!(found, found_by_casbin(&decider, &resource, "produce"), "{topic}");
            assert_eq!(found.map(|rule| rule.effect), expected, "{topic}");
        }
    }
}
