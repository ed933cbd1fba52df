//! Bringing up a replica that is behind the floor: the manifest first, then the log from the floor, as ever.
//!
//! The manifest goes over a stream of its own on the bulk lane, in pieces, so that its size is bound by the manifest's
//! limit and not by a message's. Both sides give up on a peer that does not go on; openraft then tries again from the
//! start. The receiver holds what has arrived, for one sender at a time, and hands openraft only what has passed all
//! checks: what openraft or the log refuse later would end the core.
//!
//! An installation that a crash interrupts is finished or forgotten by the log at its next opening.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_log::{GroupId, Log, Manifest};
use openraft::raft::SnapshotResponse;
use tokio::sync::{Mutex, oneshot};

use crate::codec::install::{self, Assembly};
use crate::codec::{bad, kind};
use crate::error::Error;
use crate::peers::{Lane, PeerError, PeerStream, Peers};
use crate::runtime;
use crate::snapshot::{GroupSnapshot, snapshot_of};
use crate::truncation::Truncations;
use crate::types::{Raft, TypeConfig, Vote};

/// How long opening the stream, and then each piece, may take.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the receiver may take to install what it has received whole.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends `manifest` to the replica `to` on `node`; its vote when it has installed it, or refused to because of that vote.
pub(crate) async fn send(
    peers: &dyn Peers,
    group_id: GroupId,
    (to, node): (u64, &str),
    vote: Vote,
    manifest: &Manifest,
) -> Result<Vote, PeerError> {
    let no_answer = |why: String| PeerError::NoAnswer {
        node: node.to_owned(),
        why,
    };
    let messages = install::encode(to, vote, manifest).map_err(|err| no_answer(err.to_string()))?;
    let open = peers.open_stream(node, group_id, Lane::Bulk, kind::INSTALL_STREAM);
    let open = tokio::time::timeout(PIECE_TIMEOUT, open).await;
    let mut stream = open.map_err(|_| no_answer("it did not open a stream in time".to_owned()))??;
    for message in messages {
        let sent = tokio::time::timeout(PIECE_TIMEOUT, stream.sender.send(vec![message])).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Err(no_answer("it did not take a manifest".to_owned()));
        }
    }
    match tokio::time::timeout(INSTALL_TIMEOUT, stream.receiver.recv()).await {
        Ok(Some(answer)) => install::decode_answer(answer).map_err(|err| no_answer(err.to_string())),
        Ok(None) => Err(no_answer("it refused a manifest".to_owned())),
        Err(_) => Err(no_answer("it did not install a manifest in time".to_owned())),
    }
}

/// Takes manifests from leaders.
#[derive(Clone)]
pub(crate) struct Receiver {
    raft: Raft,
    log: Log,
    truncations: Truncations,
    one_at_a_time: Arc<Mutex<()>>,
}

impl Receiver {
    pub(crate) fn new(raft: Raft, log: Log, truncations: Truncations) -> Receiver {
        Receiver {
            raft,
            log,
            truncations,
            one_at_a_time: Arc::default(),
        }
    }

    /// Receives a manifest and installs it. `check` says whether the sender may speak with its vote to this replica.
    pub(crate) async fn receive(
        &self,
        mut stream: PeerStream,
        check: impl FnOnce(u64, &Vote) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (to, head) = install::decode_head(next(&mut stream).await?)?;
        check(to, &head.vote)?;
        if !head.vote.committed {
            return Err(bad("a manifest from a candidate"));
        }
        let Ok(_one) = self.one_at_a_time.try_lock() else {
            return Err(bad("another manifest is being received"));
        };
        let vote = head.vote;
        let mut assembly = Assembly::new(head);
        while assembly.is_open() {
            assembly.add(&next(&mut stream).await?)?;
        }
        let manifest = assembly.finish()?;
        self.check(&vote, &manifest)?;
        if !self.log.has_space_for(&manifest) {
            return Err(Error::DiskFull);
        }
        let snapshot = snapshot_of(Arc::new(manifest))?;
        let answer = self.install(vote, snapshot).await?;
        // if the sender has gone, it will find out from the next append
        let _ = stream.sender.send(vec![install::encode_answer(&answer.vote)]).await;
        Ok(())
    }

    /// Hands a manifest to the core. To the end, also if the sender goes: the core goes on with it all the same.
    async fn install(&self, vote: Vote, snapshot: GroupSnapshot) -> Result<SnapshotResponse<TypeConfig>, Error> {
        let (raft, installing) = (self.raft.clone(), self.truncations.installing());
        let (done, installed) = oneshot::channel();
        runtime::spawn(async move {
            let _ = done.send(raft.install_full_snapshot(vote, snapshot).await);
            drop(installing);
        });
        match installed.await {
            Ok(answer) => answer.map_err(|err| Error::Raft(err.to_string())),
            Err(_) => Err(Error::Raft("a manifest was dropped".to_owned())),
        }
    }

    /// What a leader of this group could have sent. The core would end over anything else.
    fn check(&self, vote: &Vote, manifest: &Manifest) -> Result<(), Error> {
        manifest
            .check_group(&self.log.identity())
            .map_err(|err| bad(err.to_string()))?;
        let last = manifest.last();
        if last.term > vote.leader_id.term {
            let term = vote.leader_id.term;
            return Err(bad(format!("a manifest up to {last} from a leader of term {term}")));
        }
        let committed = self.log.committed(|state| state.last_entry());
        match committed {
            Some(committed) if last > committed && last.index <= committed.index => Err(bad(format!(
                "a manifest up to {last}, but entry {committed} is committed here"
            ))),
            _ => Ok(()),
        }
    }
}

async fn next(stream: &mut PeerStream) -> Result<Bytes, Error> {
    match tokio::time::timeout(PIECE_TIMEOUT, stream.receiver.recv()).await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(bad("a manifest ends too early")),
        Err(_) => Err(bad("a manifest does not go on")),
    }
}
