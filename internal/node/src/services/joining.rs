//! JoinGroup and DescribeGroup: between a member's stream and the group's task.
//!
//! A stream is read only as fast as the task takes what it says, and cut off if it does not take the answers. That it is gone is
//! told to the task, which keeps the member for its session.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use highwater_catalog::limits::TOPIC_PARTITIONS_MAX;
use highwater_proto::limits::{GROUP_RELEASE_MS, GROUP_SESSION_MS};
use highwater_proto::v1;
use highwater_proto::v1::join_group_request::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::Instrument;

use super::Wanted;
use super::groups::{Call, Groups, action_on_topic, confirmed_end, name, wanted};
use super::revocation::{Grounds, while_allowed};
use crate::access::{Action, Resource};
use crate::coordinator::{ANSWERS_MAX, Assignment, Event, Home, Joining, MemberView, Partitions, StreamId};
use crate::status::Problem;

/// The partition whose leader coordinates a topic's groups.
const HOME_PARTITION: u32 = 0;
/// How long a stream may take to say who it is.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) type Assignments = Pin<Box<dyn Stream<Item = Result<v1::JoinGroupResponse, Status>> + Send>>;

/// A group at its home, which this node leads.
struct Known {
    group: String,
    home: Home,
    /// What the caller was allowed to do.
    allowed: Vec<(Action, Resource)>,
}

impl Groups {
    pub(super) async fn join(
        &self,
        call: Call,
        mut incoming: Streaming<v1::JoinGroupRequest>,
    ) -> Result<Assignments, Problem> {
        let join = first(&mut incoming).await?;
        let deadline = Instant::now() + FIRST_MESSAGE_TIMEOUT;
        let member = text("member", &join.member)?;
        let (session, release) = durations(&join)?;
        let held = partitions(&join.partitions)?;
        let place = wanted(&join.topic, join.topic_id, HOME_PARTITION);
        let known = self.home(&call, Action::Consume, &place, &join.group, deadline).await?;
        self.check_level()?;
        let coordinator = &self.context.coordinator;
        let room = coordinator.room()?;
        let (answers, told) = mpsc::channel(ANSWERS_MAX);
        let stream = coordinator.next_stream();
        let events = coordinator.group(&known.group, known.home)?;
        let joining = Joining {
            member: member.clone(),
            client: call.principal.short_name(),
            stream,
            session,
            release,
            held,
            answers,
            room,
        };
        let joined = timeout_at(deadline, events.send(Event::Join(joining))).await;
        if !matches!(joined, Ok(Ok(()))) {
            let why = format!("group `{}` is just changing its coordinator", known.group);
            return Err(Problem::Overloaded(why));
        }
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let listening = listen(incoming, member.clone(), stream, events.clone());
        let listened = async move {
            // An answer that has ended is the end of the stream; the caller need not end its side first.
            let why = ended.run_until_cancelled(listening).await.and_then(Result::err);
            // Nobody is left to tell if the task has ended.
            let _ = events.send(Event::LoseStream { member, stream, why }).await;
        };
        tokio::spawn(listened.in_current_span());
        let told = ReceiverStream::new(told).map(move |told| {
            let _ended_with_this = &guard;
            told.map(on_the_wire).map_err(Status::from)
        });
        let grounds = Grounds::new(self.context.clone(), call.principal, known.allowed);
        Ok(Box::pin(while_allowed(told, grounds)))
    }

    pub(super) async fn describe(
        &self,
        call: Call,
        request: v1::DescribeGroupRequest,
    ) -> Result<v1::DescribeGroupResponse, Problem> {
        let place = wanted(&request.topic, request.topic_id, HOME_PARTITION);
        let deadline = call.deadline;
        let known = self
            .home(&call, Action::Describe, &place, &request.group, deadline)
            .await?;
        let mut members = Vec::new();
        if let Some(group) = self.context.coordinator.known_group(&known.group, &known.home) {
            let (answer, answered) = oneshot::channel();
            let asked = timeout_at(deadline, group.send(Event::Describe(answer))).await;
            if matches!(asked, Ok(Ok(()))) {
                // A task that ends meanwhile has no members.
                members = timeout_at(deadline, answered)
                    .await
                    .ok()
                    .and_then(Result::ok)
                    .unwrap_or_default();
            }
        }
        Ok(v1::DescribeGroupResponse {
            members: members.into_iter().map(member_on_the_wire).collect(),
        })
    }

    /// The way to a group's coordinator. That this node leads is confirmed, so all that was committed by former leaders is known here.
    async fn home(
        &self,
        call: &Call,
        action: Action,
        place: &Wanted<'_>,
        group: &str,
        deadline: Instant,
    ) -> Result<Known, Problem> {
        let context = &self.context;
        let group = text("group", group)?;
        let name = context.topic_name(&call.principal, place.topic)?;
        let topic_action = action_on_topic(action);
        let (opened, _) = context.open(&call.principal, topic_action, place, deadline).await?;
        let allowed = self.permit(&call.principal, action, place.topic, &group)?;
        let topic = (name.tenant, name.topic);
        let home = context.coordinator.home(opened.clone(), topic)?;
        confirmed_end(context, &opened, deadline).await?;
        Ok(Known { group, home, allowed })
    }
}

/// The message that a stream begins with.
async fn first(incoming: &mut Streaming<v1::JoinGroupRequest>) -> Result<v1::Join, Problem> {
    let missing = || Problem::Invalid {
        field: "join",
        why: format!(
            "it must be the first message of a stream, within {} s",
            FIRST_MESSAGE_TIMEOUT.as_secs()
        ),
    };
    match timeout(FIRST_MESSAGE_TIMEOUT, incoming.message()).await {
        Ok(Ok(Some(v1::JoinGroupRequest {
            message: Some(Message::Join(join)),
        }))) => Ok(join),
        Ok(Err(status)) => Err(Problem::from_library(&status).unwrap_or_else(missing)),
        _ => Err(missing()),
    }
}

/// Tells the group's task what a member says, until its stream ends. An error is the member's fault.
async fn listen(
    mut incoming: Streaming<v1::JoinGroupRequest>,
    member: String,
    stream: StreamId,
    events: mpsc::Sender<Event>,
) -> Result<(), Problem> {
    loop {
        let request = match incoming.message().await {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            // Otherwise the connection is gone; nobody reads an answer.
            Err(status) => return Problem::from_library(&status).map_or(Ok(()), Err),
        };
        let event = match request.message {
            Some(Message::Holding(holding)) => Event::Report {
                member: member.clone(),
                stream,
                version: holding.version,
                held: partitions(&holding.partitions)?,
            },
            Some(Message::Leave(_)) => Event::Leave {
                member: member.clone(),
                stream,
            },
            Some(Message::Join(_)) | None => {
                return Err(Problem::Invalid {
                    field: "message",
                    why: "after the first one it is what the member holds, or that it leaves".to_owned(),
                });
            }
        };
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
}

fn durations(join: &v1::Join) -> Result<(Duration, Duration), Problem> {
    let between = |field: &'static str, value: u32, (least, most): (u32, u32)| match (least..=most).contains(&value) {
        true => Ok(Duration::from_millis(u64::from(value))),
        false => Err(Problem::Invalid {
            field,
            why: format!("{value} ms; from {least} to {most} are accepted"),
        }),
    };
    let session = between("session_ms", join.session_ms, GROUP_SESSION_MS)?;
    let release = between("release_ms", join.release_ms, GROUP_RELEASE_MS)?;
    Ok((session, release))
}

fn partitions(given: &[u32]) -> Result<Partitions, Problem> {
    let partitions: BTreeSet<u32> = given.iter().copied().collect();
    match partitions.last() {
        Some(last) if *last >= TOPIC_PARTITIONS_MAX => Err(Problem::Invalid {
            field: "partitions",
            why: format!("{last}; a topic has {TOPIC_PARTITIONS_MAX} at most, counted from 0"),
        }),
        _ => Ok(partitions),
    }
}

pub(super) fn text(field: &'static str, given: &str) -> Result<String, Problem> {
    name(field, given).map(|_| given.to_owned())
}

fn on_the_wire(assignment: Assignment) -> v1::JoinGroupResponse {
    v1::JoinGroupResponse {
        version: assignment.version,
        partitions: assignment.partitions.into_iter().collect(),
    }
}

fn member_on_the_wire(view: MemberView) -> v1::GroupMember {
    v1::GroupMember {
        member: view.member,
        client: view.client,
        assigned: view.assigned.into_iter().collect(),
        holding: view.held.into_iter().collect(),
        silent_ms: u64::try_from(view.silence.as_millis()).unwrap_or(u64::MAX),
    }
}
