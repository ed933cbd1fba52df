//! GroupService: claims and offsets of consumer groups, which each partition keeps itself.
//!
//! A claim, a commit and a group that is forgotten are entries of the partition's log; what is decided about them there is passed
//! on. Nodes of an older version could not read them, so they need the rules of level 3 in force.
//!
//! Deliberately absent: who should consume what.

use std::sync::Arc;

use bytes::Bytes;
use highwater_catalog::{Catalog, names};
use highwater_partition::log::GroupState;
use highwater_partition::{CommandError, GroupError};
use highwater_proto::v1;
use highwater_proto::v1::group_service_server::GroupService;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::deadline::deadline;
use super::{Context, Wanted, principal};
use crate::access::{Action, Principal};
use crate::replicas::Opened;
use crate::status::{Problem, range};

/// The level of rules at which partitions keep groups.
pub(crate) const GROUPS_LEVEL: u32 = 3;
/// The member that a reset claims a partition for.
const NOBODY: Bytes = Bytes::new();

/// Groups of a partition.
pub(super) struct Groups {
    pub(super) context: Arc<Context>,
}

#[tonic::async_trait]
impl GroupService for Groups {
    async fn claim_partition(
        &self,
        request: Request<v1::ClaimPartitionRequest>,
    ) -> Result<Response<v1::ClaimPartitionResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let group = name("group", &request.group)?;
        let member = name("member", &request.member)?;
        let place = wanted(&request.topic, request.topic_id, request.partition);
        let opened = self.open_to_write(&call, Action::Consume, &place).await?;
        let claimed = opened.partition().claim(group.clone(), member);
        let claimed = self.decided(&opened, &group, call.deadline, claimed).await?;
        Ok(Response::new(v1::ClaimPartitionResponse {
            claim: claimed.claim,
            offset: claimed.offset,
        }))
    }

    async fn commit_offset(
        &self,
        request: Request<v1::CommitOffsetRequest>,
    ) -> Result<Response<v1::CommitOffsetResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let group = name("group", &request.group)?;
        let place = wanted(&request.topic, request.topic_id, request.partition);
        let opened = self.open_to_write(&call, Action::Consume, &place).await?;
        let committed = opened
            .partition()
            .commit_offset(group.clone(), request.claim, request.offset);
        self.decided(&opened, &group, call.deadline, committed).await?;
        Ok(Response::new(v1::CommitOffsetResponse {}))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let place = wanted(&request.topic, request.topic_id, request.partition);
        let (opened, _) = self
            .context
            .open(&call.principal, Action::Describe, &place, call.deadline)
            .await?;
        let partition = opened.partition();
        let groups = match &request.group {
            Some(wanted) => {
                let wanted = name("group", wanted)?;
                let found = partition.group(&wanted);
                found.map(|state| (wanted, state)).into_iter().collect()
            }
            None => partition.groups(),
        };
        Ok(Response::new(v1::ListGroupsResponse {
            groups: groups.into_iter().map(on_the_wire).collect(),
            range: Some(range(partition.status().watermark)),
        }))
    }

    async fn reset_offset(
        &self,
        request: Request<v1::ResetOffsetRequest>,
    ) -> Result<Response<v1::ResetOffsetResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let group = name("group", &request.group)?;
        let place = wanted(&request.topic, request.topic_id, request.partition);
        let opened = self.open_to_write(&call, Action::Manage, &place).await?;
        let partition = opened.partition();
        // Before anybody is shut out for it; what is decided in the end is the partition's own.
        let log_end = partition.status().watermark.high_watermark;
        if request.offset > log_end {
            return Err(self.problem(&opened, &group, GroupError::BeyondEnd { log_end }).into());
        }
        let reset = async {
            // A claim of its own, so that no commit of a member can follow the reset unseen.
            let claimed = partition.claim(group.clone(), NOBODY).await?;
            partition
                .commit_offset(group.clone(), claimed.claim, request.offset)
                .await
        };
        self.decided(&opened, &group, call.deadline, reset).await?;
        tracing::info!(
            target: "audit", principal = %call.principal, partition = %opened.what, group = request.group,
            offset = request.offset, "the offset of a group is reset"
        );
        Ok(Response::new(v1::ResetOffsetResponse {}))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let group = name("group", &request.group)?;
        let place = wanted(&request.topic, request.topic_id, request.partition);
        let opened = self.open_to_write(&call, Action::Manage, &place).await?;
        let partition = opened.partition();
        // A leader may have groups to apply that were claimed before its time.
        let confirmed = timeout_at(call.deadline, partition.confirmed_high_watermark()).await;
        match confirmed {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(self.problem(&opened, &group, error.into()).into()),
            Err(_) => return Err(no_quorum(&opened).into()),
        }
        let seen = partition.group(&group);
        if let Some(seen) = &seen {
            let forgotten = partition.forget_group(group.clone(), seen);
            self.decided(&opened, &group, call.deadline, forgotten).await?;
            tracing::info!(
                target: "audit", principal = %call.principal, partition = %opened.what, group = request.group,
                "a group is deleted"
            );
        }
        Ok(Response::new(v1::DeleteGroupResponse {
            existed: seen.is_some(),
        }))
    }
}

/// Who calls, and until when.
struct Call {
    principal: Principal,
    deadline: Instant,
}

impl Call {
    fn of<T>(request: &Request<T>) -> Result<Call, Problem> {
        Ok(Call {
            principal: principal(request)?,
            deadline: deadline(request.metadata()),
        })
    }
}

impl Groups {
    async fn open_to_write(&self, call: &Call, action: Action, wanted: &Wanted<'_>) -> Result<Opened, Problem> {
        let (opened, _) = self
            .context
            .open(&call.principal, action, wanted, call.deadline)
            .await?;
        let level = self.context.host.read(Catalog::feature_level);
        if level < GROUPS_LEVEL {
            let why = format!(
                "consumer groups need rules of level {GROUPS_LEVEL}, and level {level} is in force until every node of the cluster \
                 is there and knows newer ones"
            );
            return Err(Problem::Unavailable { why, hint: None });
        }
        Ok(opened)
    }

    /// Waits for what the partition decides.
    async fn decided<T>(
        &self,
        opened: &Opened,
        group: &Bytes,
        deadline: Instant,
        deciding: impl Future<Output = Result<T, GroupError>>,
    ) -> Result<T, Problem> {
        match timeout_at(deadline, deciding).await {
            Ok(decided) => decided.map_err(|error| self.problem(opened, group, error)),
            Err(_) => Err(Problem::Unknown(format!(
                "no majority of the replicas of {} answered in time",
                opened.what
            ))),
        }
    }

    fn problem(&self, opened: &Opened, group: &Bytes, error: GroupError) -> Problem {
        let what = opened.what.to_string();
        match error {
            GroupError::Stale => Problem::StaleClaim {
                group: String::from_utf8_lossy(group).into_owned(),
                what,
            },
            GroupError::BeyondEnd { log_end } => Problem::Invalid {
                field: "offset",
                why: format!("it lies beyond the end of {what}, which is {log_end}"),
            },
            GroupError::TooManyGroups => Problem::Refused(format!(
                "{what} has as many consumer groups as it can keep; delete some"
            )),
            GroupError::Command(CommandError::NotLeader {
                leader: Some(leader),
                term,
            }) => Problem::NotLeader {
                what,
                hint: self.context.leaders.hint_at(&leader.node, term),
            },
            GroupError::Command(CommandError::NotLeader { leader: None, .. }) => no_quorum(opened),
            GroupError::Command(CommandError::Stopped) => opened.gone(),
            GroupError::Command(CommandError::Unknown(why)) => Problem::Unknown(why),
            GroupError::Command(error @ (CommandError::DiskFull | CommandError::Refused(_))) => {
                Problem::Overloaded(format!("{what}: {error}"))
            }
        }
    }
}

fn no_quorum(opened: &Opened) -> Problem {
    Problem::NoQuorum {
        what: opened.what.to_string(),
    }
}

fn wanted(topic: &str, topic_id: Option<u64>, partition: u32) -> Wanted<'_> {
    Wanted {
        topic,
        topic_id,
        partition,
    }
}

/// A name of a group or member: both stand in tables and logs, and travel with every claim.
fn name(field: &'static str, text: &str) -> Result<Bytes, Problem> {
    match names::validate(field, text) {
        Ok(()) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Err(error) => Err(Problem::Invalid {
            field,
            why: error.to_string(),
        }),
    }
}

fn on_the_wire((group, state): (Bytes, GroupState)) -> v1::Group {
    v1::Group {
        group: String::from_utf8_lossy(&group).into_owned(),
        member: String::from_utf8_lossy(&state.member).into_owned(),
        claim: state.claim,
        offset: state.offset,
        used_ms: state.append_time_ms,
    }
}
