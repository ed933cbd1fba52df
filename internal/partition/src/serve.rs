//! The receiving side: what peers may say to this replica.
//!
//! The peer link proves which node speaks. This module decides whether that node may say this, here:
//!
//! * the message is meant for this very replica id, not for an earlier one on this node;
//! * the replica it speaks for is on that node by the membership this replica knows. A candidate must be a member of
//!   it; a leader need not be, for a replica that slept through a change of the membership learns of the new members
//!   from nobody else. While no membership is known, anybody may introduce itself;
//! * the term is at most `TERM_JUMP_MAX` ahead of ours.
//!
//! A message that fails is an `Error::BadMessage` for its sender; the group goes on unharmed.
//!
//! Known limit: a voter that slept through a change of the membership gives no vote to a candidate that joined
//! meanwhile. Whoever became a voter was added by a majority of the voters before, so this costs an election only when
//! all of that majority that could lead are away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use highwater_log::{Log, Space};
use tokio::sync::mpsc;

use crate::codec::{append, bad, calls, kind, recall};
use crate::contact::Ear;
use crate::error::Error;
use crate::install::Receiver;
use crate::memory::Memory;
use crate::mending;
use crate::network::TERM_JUMP_MAX;
use crate::peers::PeerStream;
use crate::types::{AppendRequest, AppendResult, Raft, Vote};

/// How long a request with entries waits for room on the disk before it is refused. Below a leader's patience with a stream.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Checks and answers the messages of peers.
#[derive(Clone)]
pub(crate) struct Server {
    replica_id: u64,
    raft: Raft,
    log: Log,
    manifests: Receiver,
    memory: Arc<Memory>,
    ear: Arc<Ear>,
}

impl Server {
    pub(crate) fn new(
        replica_id: u64,
        raft: Raft,
        log: Log,
        manifests: Receiver,
        memory: Arc<Memory>,
        ear: Arc<Ear>,
    ) -> Server {
        Server {
            replica_id,
            manifests,
            raft,
            log,
            memory,
            ear,
        }
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Answers one append.
    pub(crate) async fn append(&self, from: &str, body: Bytes) -> Result<Vec<Bytes>, Error> {
        let (to, request, certain) = append::decode_request(body)?;
        self.check(from, to, &request.vote)?;
        self.memory.note_leader(&request.vote, certain);
        self.ear.note(&request);
        self.check_space(&request).await?;
        let previous = request.prev_log_id;
        let last = request
            .entries
            .last()
            .map(openraft::entry::RaftEntry::log_id)
            .or(previous);
        let response = self.raft.append_entries(request).await.map_err(raft_error)?;
        if previous.is_none() && response.is_conflict() {
            return Err(bad("an append behind nothing met a conflict"));
        }
        let result = response.into_stream_result(previous, last);
        Ok(vec![append::encode_result(&result)])
    }

    pub(crate) async fn vote(&self, from: &str, body: Bytes) -> Result<Vec<Bytes>, Error> {
        let (to, request) = calls::decode_vote_request(body)?;
        self.check(from, to, &request.vote)?;
        // a candidate has its own vote, and the log that it shows, on its disk by now
        let candidate = request.vote.leader_id.voted_for;
        self.memory.note(candidate, &request.vote, request.last_log_id);
        let response = self.raft.vote(request).await.map_err(raft_error)?;
        Ok(vec![calls::encode_vote_response(&response)])
    }

    pub(crate) async fn pre_vote(&self, from: &str, body: Bytes) -> Result<Vec<Bytes>, Error> {
        let (to, request) = calls::decode_vote_request(body)?;
        self.check(from, to, &request.vote)?;
        let response = self.raft.pre_vote(request).await.map_err(raft_error)?;
        Ok(vec![calls::encode_vote_response(&response)])
    }

    pub(crate) async fn transfer(&self, from: &str, body: Bytes) -> Result<Vec<Bytes>, Error> {
        let (to, request) = calls::decode_transfer_request(body)?;
        self.check(from, to, request.from_leader())?;
        let response = self.raft.handle_transfer_leader(request).await.map_err(raft_error)?;
        Ok(vec![calls::encode_transfer_response(&response)])
    }

    /// Checks the question for the confirmed high watermark; any node of the group may ask.
    pub(crate) fn check_confirm(&self, from: &str, body: Bytes) -> Result<(), Error> {
        let to = calls::decode_confirm_request(body)?;
        self.check_receiver(to)?;
        self.check_member(from)
    }

    /// What this replica remembers of a member's promises. Whoever asks about a replica that this one knows must be on its
    /// node; about one that it does not know, it remembers what that one has shown.
    pub(crate) fn remember(&self, from: &str, body: Bytes) -> Result<Vec<Bytes>, Error> {
        let (to, asker) = recall::decode_remember(body)?;
        self.check_receiver(to)?;
        let metrics = self.raft.server_metrics();
        let metrics = openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics);
        match metrics.membership_config.membership().get_node(&asker) {
            Some(name) if name.0 != from => {
                Err(bad(format!("{from} asks for replica {asker}, which is on {}", name.0)))
            }
            _ => Ok(vec![recall::encode_seen(self.memory.of(asker).as_ref())]),
        }
    }

    /// Entries or a manifest for a member that has lost them.
    pub(crate) async fn recall(&self, from: &str, kind: u8, body: Bytes) -> Result<Vec<Bytes>, Error> {
        self.check_member(from)?;
        recall_call(&self.log, self.replica_id, kind, body).await
    }

    /// Refuses entries while the disk is nearly full; not at once, so that the leader does not send them again and again.
    async fn check_space(&self, request: &AppendRequest) -> Result<(), Error> {
        if request.entries.is_empty() || self.log.space() != Space::Full {
            return Ok(());
        }
        tokio::time::sleep(FULL_PAUSE).await;
        match self.log.space() {
            Space::Full => Err(Error::DiskFull),
            Space::Low | Space::Plenty => Ok(()),
        }
    }

    fn check_member(&self, from: &str) -> Result<(), Error> {
        let metrics = self.raft.server_metrics();
        let metrics = openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics);
        match metrics.membership_config.nodes().any(|(_, name)| name.0 == from) {
            true => Ok(()),
            false => Err(bad(format!("{from} is no member of this group"))),
        }
    }

    /// Answers a stream of appends in order, until either side ends it.
    pub(crate) async fn append_stream(&self, from: &str, stream: PeerStream) -> Result<(), Error> {
        let PeerStream { sender, receiver } = stream;
        let refused = Arc::new(Mutex::new(None));
        let requests = self.requests(from.to_owned(), receiver, refused.clone());
        let mut results = Box::pin(self.raft.stream_append(requests));
        while let Some(result) = results.next().await {
            let result: AppendResult = result.map_err(raft_error)?;
            if sender.send(vec![append::encode_result(&result)]).await.is_err() {
                break;
            }
        }
        let refused = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        refused.map_or(Ok(()), Err)
    }

    /// Takes a manifest from the leader and installs it.
    pub(crate) async fn install_stream(&self, from: &str, stream: PeerStream) -> Result<(), Error> {
        let check = |to, vote: &Vote| self.check(from, to, vote);
        self.manifests.receive(stream, check).await
    }

    /// The checked requests of a stream; ends at the first that is refused, with the reason in `refused`.
    fn requests(
        &self,
        from: String,
        receiver: mpsc::Receiver<Bytes>,
        refused: Arc<Mutex<Option<Error>>>,
    ) -> BoxStream<'static, AppendRequest> {
        let checks = StreamChecks {
            server: self.clone(),
            from,
            checked: None,
        };
        let requests = futures::stream::unfold((receiver, checks), move |(mut receiver, mut checks)| {
            let refused = refused.clone();
            async move {
                let message = receiver.recv().await?;
                match checks.request(message).await {
                    Ok(request) => Some((request, (receiver, checks))),
                    Err(err) => {
                        *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(err);
                        None
                    }
                }
            }
        });
        Box::pin(requests)
    }

    /// Whether `from` may speak with `vote` to the replica `to`.
    fn check(&self, from: &str, to: u64, vote: &Vote) -> Result<(), Error> {
        self.check_receiver(to)?;
        let metrics = self.raft.server_metrics();
        let metrics = openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics);
        let (term, replica) = (vote.leader_id.term, vote.leader_id.voted_for);
        let our_term = metrics.vote.leader_id.term;
        if term.saturating_sub(our_term) > TERM_JUMP_MAX {
            return Err(bad(format!("term {term} is too far ahead of our term {our_term}")));
        }
        let membership = metrics.membership_config.membership();
        if membership.nodes().next().is_none() {
            return Ok(());
        }
        match membership.get_node(&replica) {
            Some(name) if name.0 == from => Ok(()),
            Some(name) => Err(bad(format!(
                "{from} speaks for replica {replica}, which is on {}",
                name.0
            ))),
            // Elected by a majority of a membership that we have not heard of yet; its entries tell it.
            None if vote.committed => Ok(()),
            None => Err(bad(format!(
                "{from} speaks for replica {replica}, which is no member of this group"
            ))),
        }
    }

    fn check_receiver(&self, to: u64) -> Result<(), Error> {
        check_receiver(self.replica_id, to)
    }
}

/// The checks of one stream. A vote that was checked once is not checked again: a leader's vote does not change.
struct StreamChecks {
    server: Server,
    from: String,
    checked: Option<Vote>,
}

impl StreamChecks {
    async fn request(&mut self, message: Bytes) -> Result<AppendRequest, Error> {
        let (to, request, certain) = append::decode_request(message)?;
        self.server.check_space(&request).await?;
        match self.checked == Some(request.vote) {
            true => self.server.check_receiver(to)?,
            false => self.server.check(&self.from, to, &request.vote)?,
        }
        self.checked = Some(request.vote);
        self.server.memory.note_leader(&request.vote, certain);
        self.server.ear.note(&request);
        Ok(request)
    }
}

/// Answers a member's call for entries or for a manifest, from the log alone.
pub(crate) async fn recall_call(log: &Log, own: u64, kind: u8, body: Bytes) -> Result<Vec<Bytes>, Error> {
    if kind == kind::MANIFEST {
        let (to, offset) = recall::decode_manifest_request(body)?;
        check_receiver(own, to)?;
        return Ok(recall::encode_manifest_piece(mending::serve_manifest(log, offset)));
    }
    let (to, first, end) = recall::decode_refill_request(body)?;
    check_receiver(own, to)?;
    Ok(recall::encode_refill(mending::serve(log, first, end).await?))
}

pub(crate) fn check_receiver(own: u64, to: u64) -> Result<(), Error> {
    match to == own {
        true => Ok(()),
        false => Err(bad(format!("a message for replica {to} reached replica {own}"))),
    }
}

/// What kind of message a call is.
pub(crate) fn unknown_kind(kind: u8) -> Error {
    bad(format!(
        "message kind {kind} is unknown; calls are {} to {}, streams {} to {}",
        kind::APPEND,
        kind::CONFIRM_START,
        kind::APPEND_STREAM,
        kind::INSTALL_STREAM
    ))
}

/// A failure of our own core, told to a peer.
fn raft_error(err: impl std::fmt::Display) -> Error {
    Error::Raft(err.to_string())
}
