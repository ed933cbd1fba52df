//! GroupService: claims and offsets of consumer groups, which each partition keeps itself; `joining` has the rest.
//!
//! A claim, a commit and a group that is forgotten are entries of the partition's log; what is decided about them there is passed
//! on. Nodes of an older version could not read them, so they need the rules of [`GROUPS_LEVEL`] in force.
//!
//! Deliberately absent: who should consume what, which is the coordinator's.

use std::sync::Arc;

use bytes::Bytes;
use highwater_catalog::levels::GROUPS_LEVEL;
use highwater_catalog::{Catalog, names};
use highwater_partition::log::{GROUPS_MAX, GroupState};
use highwater_partition::{CommandError, GroupError, Partition};
use highwater_proto::v1;
use highwater_proto::v1::group_service_server::GroupService;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status, Streaming};

use super::acts::Act;
use super::deadline::deadline;
use super::joining::{Assignments, text};
use super::{Context, Wanted, principal, targets};
use crate::access::{Action, Principal, Resource};
use crate::quotas::NewGroup;
use crate::replicas::Opened;
use crate::status::{Problem, range};

/// The member that a reset claims a partition for.
const NOBODY: Bytes = Bytes::new();

/// Groups of a partition.
pub(super) struct Groups {
    pub(super) context: Arc<Context>,
}

#[tonic::async_trait]
impl GroupService for Groups {
    type JoinGroupStream = Assignments;

    async fn join_group(
        &self,
        request: Request<Streaming<v1::JoinGroupRequest>>,
    ) -> Result<Response<Self::JoinGroupStream>, Status> {
        let (call, incoming) = Call::of(request)?;
        Ok(Response::new(self.join(call, incoming).await?))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        let (call, request) = Call::of(request)?;
        Ok(Response::new(self.describe(call, request).await?))
    }

    async fn claim_partition(
        &self,
        request: Request<v1::ClaimPartitionRequest>,
    ) -> Result<Response<v1::ClaimPartitionResponse>, Status> {
        let (call, request) = Call::of(request)?;
        let member = name("member", &request.member)?;
        let place = wanted(&request.topic, request.topic_id, request.partition);
        let led = self.open(call, Action::Consume, &place, &request.group).await?;
        let _room = led.room_in_quota()?;
        let claimed = led.partition().claim(led.group.clone(), member);
        let claimed = led.decided(claimed).await?;
        Ok(Response::new(v1::ClaimPartitionResponse {
            claim: claimed.claim,
            offset: claimed.offset,
        }))
    }

    async fn commit_offset(
        &self,
        request: Request<v1::CommitOffsetRequest>,
    ) -> Result<Response<v1::CommitOffsetResponse>, Status> {
        let (call, request) = Call::of(request)?;
        let place = wanted(&request.topic, request.topic_id, request.partition);
        let led = self.open(call, Action::Consume, &place, &request.group).await?;
        let committed = led
            .partition()
            .commit_offset(led.group.clone(), request.claim, request.offset);
        led.decided(committed).await?;
        Ok(Response::new(v1::CommitOffsetResponse {}))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let (call, request) = Call::of(request)?;
        let place = wanted(&request.topic, request.topic_id, request.partition);
        let (opened, _) = self
            .context
            .open(&call.principal, Action::Describe, &place, call.deadline)
            .await?;
        if request.confirmed {
            confirmed_end(&self.context, &opened, call.deadline).await?;
        }
        let partition = opened.partition();
        let groups = match &request.group {
            Some(wanted) => {
                let wanted = name("group", wanted)?;
                let found = partition.group(&wanted);
                found.map(|state| (wanted, state)).into_iter().collect()
            }
            None => partition.groups(),
        };
        let tenant = self.context.topic_name(&call.principal, &request.topic)?.tenant;
        let may_see = |group: &Bytes| {
            let group = String::from_utf8_lossy(group).into_owned();
            let resource = Resource::Group {
                tenant: tenant.clone(),
                group,
            };
            let asked = self
                .context
                .authority
                .check(&call.principal, Action::Describe, &resource);
            asked.is_ok()
        };
        let groups = groups.into_iter().filter(|(group, _)| may_see(group));
        Ok(Response::new(v1::ListGroupsResponse {
            groups: groups.map(on_the_wire).collect(),
            range: Some(range(partition.status().watermark)),
        }))
    }

    async fn reset_offset(
        &self,
        request: Request<v1::ResetOffsetRequest>,
    ) -> Result<Response<v1::ResetOffsetResponse>, Status> {
        let act = self.context.act(&request, "ResetOffset", targets::reset_offset)?;
        let done = self.reset(Call::in_act(&act), request.into_inner()).await;
        act.end(done).await
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let act = self.context.act(&request, "DeleteGroup", targets::delete_group)?;
        let done = self.delete(Call::in_act(&act), request.into_inner()).await;
        act.end(done).await
    }
}

/// Who calls, and until when.
pub(super) struct Call {
    pub(super) principal: Principal,
    pub(super) deadline: Instant,
}

impl Call {
    fn of<T>(request: Request<T>) -> Result<(Call, T), Problem> {
        let call = Call {
            principal: principal(&request)?,
            deadline: deadline(request.metadata()),
        };
        Ok((call, request.into_inner()))
    }

    fn in_act(act: &Act) -> Call {
        Call {
            principal: act.principal().clone(),
            deadline: act.deadline(),
        }
    }
}

/// What a caller must be allowed to do to a topic to do `action` to a group on it.
pub(super) fn action_on_topic(action: Action) -> Action {
    match action {
        Action::Manage => Action::Describe,
        other => other,
    }
}

/// A group on a partition whose leader this node may be.
struct Led<'a> {
    context: &'a Context,
    call: Call,
    opened: Opened,
    group: Bytes,
}

impl Groups {
    async fn reset(&self, call: Call, request: v1::ResetOffsetRequest) -> Result<v1::ResetOffsetResponse, Problem> {
        let place = wanted(&request.topic, request.topic_id, request.partition);
        let led = self.open(call, Action::Manage, &place, &request.group).await?;
        led.reset(request.offset).await?;
        Ok(v1::ResetOffsetResponse {})
    }

    async fn delete(&self, call: Call, request: v1::DeleteGroupRequest) -> Result<v1::DeleteGroupResponse, Problem> {
        let place = wanted(&request.topic, request.topic_id, request.partition);
        let led = self.open(call, Action::Manage, &place, &request.group).await?;
        let existed = led.forget().await?;
        Ok(v1::DeleteGroupResponse { existed })
    }

    /// The way to everything that writes.
    async fn open(&self, call: Call, action: Action, wanted: &Wanted<'_>, group: &str) -> Result<Led<'_>, Problem> {
        let context = &*self.context;
        let group_name = text("group", group)?;
        let (opened, _) = context
            .open(&call.principal, action_on_topic(action), wanted, call.deadline)
            .await?;
        self.permit(&call.principal, action, wanted.topic, &group_name)?;
        self.check_level()?;
        Ok(Led {
            context,
            call,
            opened,
            group: Bytes::from(group_name),
        })
    }

    /// Whether the caller may do `action` to a group on a topic that it may use. What to do from then on is to hold for as long.
    pub(super) fn permit(
        &self,
        principal: &Principal,
        action: Action,
        topic: &str,
        group: &str,
    ) -> Result<Vec<(Action, Resource)>, Problem> {
        let topic = self.context.topic_name(principal, topic)?;
        let resource = Resource::Group {
            tenant: topic.tenant.clone(),
            group: group.to_owned(),
        };
        self.context.authority.authorize(principal, action, resource.clone())?;
        Ok(vec![
            (action_on_topic(action), Resource::Topic(topic)),
            (action, resource),
        ])
    }

    pub(super) fn check_level(&self) -> Result<(), Problem> {
        let level = self.context.host.read(Catalog::feature_level);
        if level >= GROUPS_LEVEL {
            return Ok(());
        }
        let why = format!(
            "consumer groups need rules of level {GROUPS_LEVEL}, and level {level} is in force until every node of the cluster \
             is there and knows newer ones"
        );
        Err(Problem::Unavailable { why, hint: None })
    }
}

impl Led<'_> {
    fn partition(&self) -> &Partition {
        self.opened.partition()
    }

    /// Room for one more group of the topic's tenant, if this one is new here; to be held until it is decided.
    fn room_in_quota(&self) -> Result<Option<NewGroup<'_>>, Problem> {
        if self.partition().group(&self.group).is_some() {
            return Ok(None);
        }
        Ok(self.context.quotas.room_for_group(&self.opened.tenant, &self.group)?)
    }

    async fn reset(&self, offset: u64) -> Result<(), Problem> {
        let _room = self.room_in_quota()?;
        let partition = self.partition();
        // Before anybody is shut out for it; what is decided in the end is the partition's own.
        let log_end = self.confirmed_end().await?;
        if offset > log_end {
            return Err(self.problem(GroupError::BeyondEnd { log_end }));
        }
        // A claim of its own, so that no commit of a member can follow the reset unseen.
        let claimed = self.decided(partition.claim(self.group.clone(), NOBODY)).await?;
        self.call.principal.note_begun();
        let committed = partition.commit_offset(self.group.clone(), claimed.claim, offset);
        self.decided(committed).await
    }

    /// Whether there was anything to forget.
    async fn forget(&self) -> Result<bool, Problem> {
        self.confirmed_end().await?;
        let Some(seen) = self.partition().group(&self.group) else {
            return Ok(false);
        };
        self.decided(self.partition().forget_group(self.group.clone(), &seen))
            .await?;
        Ok(true)
    }

    async fn confirmed_end(&self) -> Result<u64, Problem> {
        confirmed_end(self.context, &self.opened, self.call.deadline).await
    }

    /// Waits for what the partition decides.
    async fn decided<T>(&self, deciding: impl Future<Output = Result<T, GroupError>>) -> Result<T, Problem> {
        match timeout_at(self.call.deadline, deciding).await {
            Ok(decided) => decided.map_err(|error| self.problem(error)),
            Err(_) => Err(Problem::Unknown(format!(
                "no majority of the replicas of {} answered in time",
                self.opened.what
            ))),
        }
    }

    fn problem(&self, error: GroupError) -> Problem {
        let what = self.opened.what.to_string();
        match error {
            GroupError::Stale => Problem::StaleClaim {
                group: String::from_utf8_lossy(&self.group).into_owned(),
                what,
            },
            GroupError::BeyondEnd { log_end } => Problem::Invalid {
                field: "offset",
                why: format!("it lies beyond the end of {what}, which is {log_end}"),
            },
            GroupError::TooManyGroups => Problem::Refused(format!(
                "{what} keeps {GROUPS_MAX} consumer groups, and cannot keep more; delete some"
            )),
            GroupError::Command(CommandError::NotLeader {
                leader: Some(leader),
                term,
            }) => Problem::NotLeader {
                what,
                hint: self.context.leaders.hint_at(&leader.node, term),
            },
            GroupError::Command(CommandError::NotLeader { leader: None, .. }) => self.no_quorum(),
            GroupError::Command(CommandError::Stopped) => self.opened.gone(),
            GroupError::Command(CommandError::Unknown(why)) => Problem::Unknown(why),
            GroupError::Command(error @ (CommandError::DiskFull | CommandError::Refused(_))) => {
                Problem::Overloaded(format!("{what}: {error}"))
            }
        }
    }

    fn no_quorum(&self) -> Problem {
        Problem::NoQuorum {
            what: self.opened.what.to_string(),
        }
    }
}

/// The end of a partition that this node leads; all that was committed before the call is known here then.
pub(super) async fn confirmed_end(context: &Context, opened: &Opened, deadline: Instant) -> Result<u64, Problem> {
    let no_quorum = || Problem::NoQuorum {
        what: opened.what.to_string(),
    };
    let confirmed = timeout_at(deadline, opened.partition().confirmed_high_watermark()).await;
    // A follower has asked its leader; what it knows of groups itself may be old.
    let leads = opened.hosted.led_term().is_some();
    match (confirmed, context.leaders.hint(opened.hosted.group_id)) {
        (Ok(Ok(end)), _) if leads => Ok(end),
        (Ok(Err(CommandError::Stopped)), _) => Err(opened.gone()),
        (_, Some(hint)) if !leads => Err(Problem::NotLeader {
            what: opened.what.to_string(),
            hint,
        }),
        _ => Err(no_quorum()),
    }
}

pub(super) fn wanted(topic: &str, topic_id: Option<u64>, partition: u32) -> Wanted<'_> {
    Wanted {
        topic,
        topic_id,
        partition,
    }
}

/// A name of a group or member: both stand in tables and logs, and travel with every claim.
pub(super) fn name(field: &'static str, text: &str) -> Result<Bytes, Problem> {
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
