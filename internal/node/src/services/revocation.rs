//! Streams that stay open for long end when their caller may no longer do what they are for.
//!
//! A change of the policy is a commit of the catalog, and every node applies it: each stream looks again then, and only then; other commits
//! cost it a look at which policy counts. A node that may have missed a change ends them all.

use std::sync::{Arc, Weak};

use futures::{Stream, StreamExt, stream};
use highwater_catalog::Access;
use tokio::sync::watch;
use tonic::Status;

use super::Context;
use crate::access::{Action, Denied, Principal, Refused, Resource};
use crate::catalog::Progress;
use crate::status::Problem;

/// What a caller must be allowed to do for as long as its stream is open.
pub(super) struct Grounds {
    context: Arc<Context>,
    principal: Principal,
    all: Vec<(Action, Resource)>,
    applied: watch::Receiver<Progress>,
    /// The policy by which all of it was allowed when it was looked at last; not held, for it is large.
    looked_at: Weak<Access>,
    /// Whether the policy known here is new enough.
    is_current: watch::Receiver<bool>,
}

impl Grounds {
    /// Begins to watch; what was allowed before is looked at again at once.
    pub(super) fn new(context: Arc<Context>, principal: Principal, all: Vec<(Action, Resource)>) -> Grounds {
        let mut applied = context.host.progress();
        applied.mark_changed();
        Grounds {
            is_current: context.currency.changes(),
            context,
            principal,
            all,
            applied,
            looked_at: Weak::new(),
        }
    }

    /// Has it stand on this, too, from now on. It was allowed by the policy that was looked at last, or by a later one.
    pub(super) fn also(&mut self, action: Action, resource: Resource) {
        let one = (action, resource);
        if !self.all.contains(&one) {
            self.all.push(one);
        }
    }

    /// Returns as soon as something of it is no longer allowed, or nobody can tell any more. Cancel safe.
    pub(super) async fn lost(&mut self) -> Problem {
        loop {
            let is_open = tokio::select! {
                biased;
                over = self.is_current.wait_for(|is_current| !is_current) => match over {
                    Ok(_) => return self.context.currency.refusal(),
                    Err(_) => false,
                },
                changed = self.applied.changed() => changed.is_ok(),
            };
            if !is_open {
                std::future::pending::<()>().await; // the node stops, which ends streams by itself
            }
            let in_force = Arc::downgrade(&self.context.authority.access());
            if in_force.ptr_eq(&self.looked_at) {
                continue;
            }
            self.looked_at = in_force;
            let mut all = self.all.iter();
            let lost = all.find_map(|(action, resource)| {
                let still = self.context.still(&self.principal, *action, resource);
                still.err().map(|denied| denied.openly(*action))
            });
            if let Some(denied) = lost {
                return denied.into();
            }
        }
    }
}

impl Context {
    /// Whether the caller may still do what it has opened a stream for. If not, the stream is to be cut, which the audit hears.
    pub(super) fn still(&self, principal: &Principal, action: Action, resource: &Resource) -> Result<(), Denied> {
        self.authority.check(principal, action, resource).inspect_err(|denied| {
            let refused = Refused::new(action, resource, denied);
            let why = || self.authority.reason(principal, &refused);
            self.audit.cut(principal, &refused, why);
        })
    }
}

/// The stream for as long as its grounds hold; then an error, and the end.
pub(super) fn while_allowed<T, S>(stream: S, grounds: Grounds) -> impl Stream<Item = Result<T, Status>> + Send
where
    T: Send,
    S: Stream<Item = Result<T, Status>> + Send + Unpin,
{
    stream::unfold(Some((stream, grounds)), |state| async {
        let (mut stream, mut grounds) = state?;
        tokio::select! {
            biased;
            problem = grounds.lost() => Some((Err(problem.into()), None)),
            next = stream.next() => next.map(|item| (item, Some((stream, grounds)))),
        }
    })
}
