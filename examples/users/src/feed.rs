//! From `users` to `user-added`, exactly once, though every server works at it.
//!
//! The servers share the partitions of `users` as the group `user-added`; see [`highwater_service::transform`] for why none of them leaves
//! anything out or tells it twice, whichever is killed.

use std::time::Duration;

use highwater::{Client, ConsumedRecord, Record};
use highwater_service::serving::Stop;
use highwater_service::transform::{Failed, Route, Stateless, Transform};
use tokio::time::sleep;

use crate::events;

/// The group that shares the work.
pub(crate) const GROUP: &str = "user-added";
/// How long to wait before work that ended with an error is begun again.
const PAUSE: Duration = Duration::from_secs(5);

/// Works until `stop`, whatever happens. `member` is a name that no other server has at the same time.
pub async fn run(client: &Client, member: &str, stop: &Stop) {
    loop {
        let failed = tokio::select! {
            () = stop.wait() => return,
            opened = open(client, member) => match opened {
                Ok(transform) => transform.run(step, stop.wait()).await,
                Err(failed) => Err(failed),
            },
        };
        match failed {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "{} is not fed; trying again", events::USER_ADDED),
        }
        tokio::select! {
            () = stop.wait() => return,
            () = sleep(PAUSE) => (),
        }
    }
}

async fn open(client: &Client, member: &str) -> Result<Transform<Stateless>, Failed> {
    let route = Route {
        source: events::USERS.to_owned(),
        destination: events::USER_ADDED.to_owned(),
        group: GROUP.to_owned(),
        member: member.to_owned(),
    };
    Transform::stateless(client, route).await
}

/// What follows from a record of `users`.
fn step(_: &Stateless, record: &ConsumedRecord) -> Vec<Record> {
    match events::read_created(record) {
        Ok(user) => vec![events::added(user)],
        Err(problem) => {
            events::warn_skipped(events::USERS, record, &problem);
            Vec::new()
        }
    }
}
