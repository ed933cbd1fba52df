//! openraft's network over `Peers`.
//!
//! Entries go through one pipelined stream to each follower (see `append_stream`), on the bulk lane. Everything small
//! and urgent goes as single calls on the control lane: heartbeats, votes, pre-votes, hand-overs. Heartbeats may share
//! frames with those of other groups; the rest does not wait for anybody. openraft would take a missing pre-vote for a
//! granted one and a missing hand-over for an unreachable peer, so both are here.
//!
//! What peers answer is checked before openraft believes it: an answer with a term far ahead of the request's is
//! refused, because one such answer could use up the terms.
//!
//! A follower behind the floor is sent the manifest (see `install`).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use highwater_log::{GroupId, Log};
use openraft::base::OptionalSend;
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{AppendEntriesResponse, SnapshotResponse, StreamAppendError};

use crate::append_stream::{self, AppendStream, Follower};
use crate::catch_up::{CatchUp, CatchUpPace};
use crate::codec::{append, bad, calls, kind};
use crate::error::Error;
use crate::install;
use crate::memory::Memory;
use crate::peers::{Lane, PeerError, Peers};
use crate::snapshot::{GroupSnapshot, SnapshotData, Snapshots};
use crate::stages::ReplicaStages;
use crate::status::Voters;
use crate::types::{
    AppendRequest, AppendResult, NodeName, RpcError, TransferRequest, TransferResponse, TypeConfig, Vote, VoteRequest,
    VoteResponse, log_id,
};

/// How far one message may raise the term. An election raises it by one, so this is never reached in earnest; without
/// it a single message could use up all terms there are.
pub(crate) const TERM_JUMP_MAX: u64 = 1 << 20;

/// Makes openraft's connections to the other replicas of one group.
pub(crate) struct GroupNetwork {
    pub(crate) group_id: GroupId,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) log: Log,
    pub(crate) catch_up: CatchUpPace,
    pub(crate) voters: Voters,
    pub(crate) stages: ReplicaStages,
}

impl GroupNetwork {
    fn client(&self, target: u64, node: &NodeName, lane: Lane) -> PeerClient {
        PeerClient {
            peers: self.peers.clone(),
            snapshots: self.snapshots.clone(),
            memory: self.memory.clone(),
            log: self.log.clone(),
            catch_up: self.catch_up.clone(),
            voters: self.voters.clone(),
            stages: self.stages.clone(),
            group_id: self.group_id,
            target,
            node: node.0.clone(),
            lane,
            open_pause: append_stream::OPEN_RETRY_PAUSE_LEAST,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, node: &NodeName) -> PeerClient {
        self.client(target, node, Lane::Bulk)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeName) -> PeerClient {
        self.client(target, node, Lane::Control)
    }
}

/// The way to one other replica.
pub(crate) struct PeerClient {
    peers: Arc<dyn Peers>,
    snapshots: Arc<Snapshots>,
    memory: Arc<Memory>,
    log: Log,
    catch_up: CatchUpPace,
    voters: Voters,
    stages: ReplicaStages,
    group_id: GroupId,
    target: u64,
    node: String,
    lane: Lane,
    /// What follows the next failure to open a stream.
    open_pause: Duration,
}

impl PeerClient {
    fn peer(&self) -> Follower {
        Follower {
            id: self.target,
            node: self.node.clone(),
            let_go: self.snapshots.let_go().clone(),
            memory: self.memory.clone(),
            log: self.log.clone(),
            catch_up: CatchUp::new(self.catch_up.clone(), self.target, self.voters.clone()),
            stages: self.stages.clone(),
        }
    }

    async fn call(&self, kind: u8, body: Vec<Bytes>, option: &RPCOption) -> Result<Bytes, RpcError> {
        let timeout = option.hard_ttl();
        let call = self
            .peers
            .call(&self.node, self.group_id, Lane::Control, kind, body, timeout);
        call.await.map_err(rpc_error)
    }

    async fn heartbeat(&self, body: Vec<Bytes>, option: &RPCOption) -> Result<Bytes, RpcError> {
        let timeout = option.hard_ttl();
        let call = self
            .peers
            .heartbeat(&self.node, self.group_id, kind::APPEND, body, timeout);
        call.await.map_err(rpc_error)
    }

    async fn vote_call(&self, kind: u8, request: &VoteRequest, option: &RPCOption) -> Result<VoteResponse, RpcError> {
        let body = vec![calls::encode_vote_request(self.target, request)];
        let reply = self.call(kind, body, option).await?;
        let response = calls::decode_vote_response(reply).map_err(broken)?;
        check_term(&request.vote, &response.vote).map_err(broken)?;
        if kind == kind::VOTE && response.vote_granted {
            self.memory.note(self.target, &response.vote, None);
        }
        Ok(response)
    }
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let vote = request.vote;
        let previous = request.prev_log_id;
        let certain = self.log.certain_last().map(log_id);
        let is_heartbeat = request.entries.is_empty();
        let (body, _) = append::encode_request(self.target, request, certain).map_err(broken)?;
        let reply = match is_heartbeat {
            true => self.heartbeat(body, &option).await?,
            false => self.call(kind::APPEND, body, &option).await?,
        };
        let result = append::decode_result(reply).map_err(broken)?;
        check_result(&vote, &result).map_err(broken)?;
        if previous.is_none() && matches!(result, Err(StreamAppendError::Conflict(_))) {
            return Err(broken(bad("a conflict with nothing")));
        }
        if let Ok(matching) = result {
            self.memory.note(self.target, &vote, matching);
        }
        Ok(match result {
            Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        if self.lane == Lane::Control {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let open = self
                .peers
                .open_stream(&self.node, self.group_id, Lane::Bulk, kind::APPEND_STREAM);
            let opened = match tokio::time::timeout(append_stream::OPEN_TIMEOUT, open).await {
                Ok(opened) => opened.map_err(rpc_error),
                Err(_) => Err(unreachable(format!("{} did not open a stream in time", self.node))),
            };
            if opened.is_err() {
                // openraft backs off only when it is asked for requests, which needs a stream; without this pause it
                // would try again thousands of times a second.
                tokio::time::sleep(self.open_pause).await;
                self.open_pause = (self.open_pause * 2).min(append_stream::OPEN_RETRY_PAUSE_MAX);
            }
            let stream = opened?;
            self.open_pause = append_stream::OPEN_RETRY_PAUSE_LEAST;
            let appends: BoxStream<'s, _> = Box::pin(AppendStream::new(self.peer(), input, stream));
            Ok(appends)
        })
    }

    async fn vote(&mut self, request: VoteRequest, option: RPCOption) -> Result<VoteResponse, RpcError> {
        self.vote_call(kind::VOTE, &request, &option).await
    }

    async fn pre_vote(&mut self, request: VoteRequest, option: RPCOption) -> Result<VoteResponse, RpcError> {
        self.vote_call(kind::PRE_VOTE, &request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: GroupSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let _sending = self.snapshots.sending();
        let to = (self.target, self.node.as_str());
        let send = install::send(self.peers.as_ref(), self.group_id, to, vote, &snapshot.snapshot);
        let sent = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            sent = send => sent,
        };
        // whatever went wrong, the next try begins anew, so it is not hurried
        let answer = sent.map_err(|err| StreamingError::Unreachable(Unreachable::from_string(err)))?;
        if let Err(err) = check_term(&vote, &answer) {
            return Err(StreamingError::Unreachable(Unreachable::from_string(err)));
        }
        if answer == vote {
            self.memory.note(self.target, &vote, snapshot.meta.last_log_id);
        }
        Ok(SnapshotResponse::new(answer))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferRequest,
        option: RPCOption,
    ) -> Result<TransferResponse, RpcError> {
        let body = vec![calls::encode_transfer_request(self.target, &request)];
        let reply = self.call(kind::TRANSFER, body, &option).await?;
        calls::decode_transfer_response(reply).map_err(broken)
    }
}

/// Asks the leader, replica and node, for what this kind of call confirms.
pub(crate) async fn confirm(
    peers: &dyn Peers,
    group_id: GroupId,
    (replica, node): (u64, &str),
    kind: u8,
    timeout: Duration,
) -> Result<calls::Confirmation, Error> {
    let body = vec![calls::encode_confirm_request(replica)];
    let call = peers.call(node, group_id, Lane::Control, kind, body, timeout);
    let reply = call.await.map_err(|err| Error::Raft(err.to_string()))?;
    calls::decode_confirmation(reply)
}

/// Refuses a result that would raise the term too far.
pub(crate) fn check_result(sent: &Vote, result: &AppendResult) -> Result<(), Error> {
    match result {
        Err(StreamAppendError::HigherVote(vote)) => check_term(sent, vote),
        _ => Ok(()),
    }
}

fn check_term(sent: &Vote, got: &Vote) -> Result<(), Error> {
    let (sent, got) = (sent.leader_id.term, got.leader_id.term);
    match got.saturating_sub(sent) {
        jump if jump <= TERM_JUMP_MAX => Ok(()),
        jump => Err(bad(format!("the answer to term {sent} is {jump} terms ahead"))),
    }
}

/// A peer that cannot be reached or refuses is left alone for a while; a broken exchange is tried again at once.
pub(crate) fn rpc_error(err: PeerError) -> RpcError {
    match err {
        PeerError::Unreachable { .. } | PeerError::Refused { .. } => unreachable(err.to_string()),
        PeerError::NoAnswer { .. } => RpcError::Network(NetworkError::from_string(err)),
    }
}

/// A peer that talks nonsense is left alone for a while.
pub(crate) fn broken(err: Error) -> RpcError {
    unreachable(err.to_string())
}

fn unreachable(why: String) -> RpcError {
    RpcError::Unreachable(Unreachable::from_string(why))
}
