//! Administrative acts: whatever changes the cluster, its policy or its topics is told to the audit once, which makes one record of it as far
//! as its limits allow.
//!
//! A handler of such a method begins an [`Act`] before anything else, carries it out in its name, and ends it with what came of it. An
//! act that is dropped before its end, because the caller went away or the node stops, is recorded all the same, as one of unknown
//! outcome: nobody can change something unseen by not waiting for the answer.
//!
//! What a caller is not permitted is part of the act, so it leaves no record of its own.
//!
//! Deliberately absent: calls that only ask what an act would do, or how far one is; they change nothing.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::deadline::deadline;
use super::{Context, principal};
use crate::access::{Action, Principal, Refused, Resource};
use crate::audit::{self, OnItsWay, Outcome};
use crate::port::Peer;
use crate::status::Problem;

/// The methods that are administrative acts.
pub(crate) const ACTS: [(&str, &str); 16] = [
    ("AccessService", "ChangePolicy"),
    ("AccessService", "CreateTenant"),
    ("AccessService", "SuspendTenant"),
    ("AccessService", "DeleteTenant"),
    ("AccessService", "ChangeQuota"),
    ("ClusterService", "TransferLeader"),
    ("ClusterService", "DrainNode"),
    ("ClusterService", "DecommissionNode"),
    ("ClusterService", "MoveReplica"),
    ("ClusterService", "RecoverPartition"),
    ("ClusterService", "UpdateSettings"),
    ("GroupService", "ResetOffset"),
    ("GroupService", "DeleteGroup"),
    ("TopicService", "CreateTopic"),
    ("TopicService", "UpdateTopic"),
    ("TopicService", "DeleteTopic"),
];

/// What is told of an act whose handler did not come to its end.
const CUT_SHORT: &str = "its caller went away, or the node stopped, before it was answered";
/// What an act was about whose request nobody has read.
const UNREAD: &str = "the cluster";

/// An act that is being carried out.
///
/// Invariant: it is told to the audit exactly once, unless it only looks.
pub(super) struct Act {
    context: Arc<Context>,
    principal: Principal,
    deadline: Instant,
    method: &'static str,
    target: String,
    /// It was begun by one of those who run the cluster; what it does may end that, and is recorded as an operator's all the same.
    was_operators: bool,
    /// It is recorded already, or is none.
    is_over: bool,
}

impl Context {
    /// Begins an act; `target` says in words what it is about.
    pub(super) fn act<T>(
        self: &Arc<Self>,
        request: &Request<T>,
        method: &'static str,
        target: impl FnOnce(&Principal, &T) -> String,
    ) -> Result<Act, Problem> {
        let principal = principal(request)?.in_an_act();
        Ok(Act {
            context: self.clone(),
            deadline: deadline(request.metadata()),
            method,
            target: target(&principal, request.get_ref()),
            was_operators: self.is_operator(&principal),
            principal,
            is_over: false,
        })
    }

    /// Only operators pass, before a request is read. For who does not, an act has failed already.
    pub(super) fn admit_operator(&self, peer: &Peer, path: &str) -> Result<(), Problem> {
        let principal = Principal::of(peer);
        let Some(method) = act_at(path) else {
            self.authority.authorize(&principal, Action::Admin, Resource::Cluster)?;
            return Ok(());
        };
        let principal = principal.in_an_act();
        let asked = self.authority.authorize(&principal, Action::Admin, Resource::Cluster);
        asked.map(drop).map_err(|denied| {
            let problem = denied.into();
            let what = (method, UNREAD.to_owned());
            let _unawaited = self.record_act(&principal, false, what, Err(&problem));
            problem
        })
    }

    /// That a node's certificate was used as a client's, which is refused to everybody.
    pub(super) fn audit_node(&self, peer: &Peer) {
        let _refused = self
            .authority
            .authorize(&Principal::of(peer), Action::Describe, Resource::Cluster);
    }

    fn record_act(
        &self,
        principal: &Principal,
        was_operators: bool,
        (method, target): (&'static str, String),
        came_of_it: Result<(), &Problem>,
    ) -> OnItsWay {
        let (outcome, why) = match came_of_it {
            Ok(()) => (Outcome::Done, String::new()),
            Err(problem) if problem.is_unknown() => (Outcome::Unknown, problem.to_string()),
            Err(problem) if principal.has_begun() => (Outcome::Unknown, format!("begun, and not ended: {problem}")),
            Err(problem) => (Outcome::Refused, problem.to_string()),
        };
        // Operators are asked for by themselves: some acts fail for what they ask before anybody is permitted anything.
        let is_operators = was_operators || (principal.refused().is_none() && self.is_operator(principal));
        let act = audit::Act {
            principal,
            is_operators,
            method,
            target,
            outcome,
            why,
        };
        if came_of_it.is_ok() || !principal.is_outsider() || is_operators {
            return self.audit.act(act);
        }
        let why = |refused: &Refused| {
            let (action, resource) = (refused.action.name(), &refused.resource);
            let reason = self.authority.reason(principal, refused);
            format!("may not {action} {resource}: {reason}")
        };
        self.audit.refused_act(act, || principal.refused().map(why))
    }
}

impl Act {
    /// In whose name to carry it out.
    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The same; it is none if the caller only wants to look.
    pub(super) fn unless(mut self, only_looks: bool) -> Act {
        self.is_over = only_looks;
        self
    }

    /// Records what came of it, and answers as soon as that is written, or a moment later.
    pub(super) async fn end<T>(mut self, came_of_it: Result<T, Problem>) -> Result<Response<T>, Status> {
        if !self.is_over {
            let record = self.told(came_of_it.as_ref().map(drop));
            self.context.audit.wait(record, self.deadline).await;
        }
        Ok(Response::new(came_of_it?))
    }

    fn told(&mut self, came_of_it: Result<(), &Problem>) -> OnItsWay {
        self.is_over = true;
        let what = (self.method, std::mem::take(&mut self.target));
        let context = &self.context;
        context.record_act(&self.principal, self.was_operators, what, came_of_it)
    }
}

impl Drop for Act {
    fn drop(&mut self) {
        if !self.is_over {
            let _unawaited = self.told(Err(&Problem::Unknown(CUT_SHORT.to_owned())));
        }
    }
}

/// The act behind `/package.Service/Method`.
fn act_at(path: &str) -> Option<&'static str> {
    let (service, method) = path.strip_prefix("/highwater.v1.")?.split_once('/')?;
    let mut acts = ACTS.iter();
    let found = acts.find(|(known, name)| *known == service && *name == method);
    found.map(|(_, method)| *method)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::classes::{Class, METHODS};
    use super::*;

    /// Methods that change nothing of the cluster. What clients do with their records and their places in groups is no administration.
    const OTHERS: [(&str, &str); 18] = [
        ("AccessService", "WhoAmI"),
        ("AccessService", "GetPolicy"),
        ("AccessService", "Explain"),
        ("AccessService", "ListTenants"),
        ("AccessService", "DescribeTenant"),
        ("ClusterService", "DescribeCluster"),
        ("ClusterService", "WatchCluster"),
        ("GroupService", "JoinGroup"),
        ("GroupService", "DescribeGroup"),
        ("GroupService", "ClaimPartition"),
        ("GroupService", "CommitOffset"),
        ("GroupService", "ListGroups"),
        ("LogService", "Produce"),
        ("LogService", "ProduceStream"),
        ("LogService", "Consume"),
        ("LogService", "ListOffsets"),
        ("TopicService", "GetTopic"),
        ("TopicService", "ListTopics"),
    ];

    #[test]
    fn every_method_is_an_act_or_is_known_to_be_none() {
        let all: BTreeSet<(&str, &str)> = METHODS.iter().map(|(service, method, _)| (*service, *method)).collect();
        let told: BTreeSet<(&str, &str)> = ACTS.into_iter().chain(OTHERS).collect();
        assert_eq!(told, all);
        assert_eq!(told.len(), ACTS.len() + OTHERS.len());
    }

    #[test]
    fn what_operators_alone_may_do_is_an_act_unless_it_only_looks() {
        let of_operators = METHODS.iter().filter(|(_, _, class)| *class == Class::Operator);
        for (service, method, _) in of_operators.filter(|(_, method, _)| *method != "ListTenants") {
            assert_eq!(act_at(&format!("/highwater.v1.{service}/{method}")), Some(*method));
        }
    }
}
