//! What this node answers other nodes over the peer link: for its replicas, and for itself.
//!
//! Whoever has a certificate for a node of the cluster may connect, for somebody has to tell a new node what the cluster is. Only members may
//! change something: a node that has not registered, or was removed, hands over no command but its registration, moves no leadership, forwards
//! no client, is no peer of a partition, writes no audit and is not believed to lead anything. In the catalog's group whoever leads is listened
//! to, or a node whose catalog is old could never learn who has joined meanwhile.
//!
//! Deliberately absent: keeping out who has the key of a node. It registers, and is a member; its certificate has to be revoked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use highwater_catalog::Command;
use highwater_partition::log::GroupId;
use highwater_partition::{PeerStream, Unstarted};
use prost::Message;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::audit::{Audit, Ledger};
use crate::catalog::{CatalogHost, Readable, propose_here};
use crate::clock::now_ms;
use crate::describe;
use crate::founding::Membership;
use crate::gateway::Entrance;
use crate::gossip::GossipMailbox;
use crate::leaders::{self, Told};
use crate::leadership::transfer_here;
use crate::link::{Hello, LinkHandler, NODE_LEVEL, Refusal, UNKNOWN_KIND};
use crate::peer_calls::{
    self, ADOPT, APPLIED, AUDIT, CLOCK, COMMAND, CommandAnswer, GATEWAY, JOIN, LEADERS, PROBE, REPLICAS, REVISION,
    STANDING, TRANSFER, USAGE,
};
use crate::port::Peer;
use crate::quotas::Quotas;
use crate::readiness::NotReady;
use crate::recoveries;
use crate::replicas::{CATALOG_GROUP, Registry};
use crate::storage::Storage;

/// How long a handed-over command waits for a quorum; who sent it has given up by then.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the catalog's leader waits for a majority before it does not tell its revision; who asked has given up by then.
const REVISION_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes what other nodes send; cheap to clone.
#[derive(Clone)]
pub(crate) struct PeerHandler {
    pub(crate) membership: Arc<Membership>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalog: Arc<CatalogHost>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) gossip: GossipMailbox,
    /// Takes in who leads what.
    pub(crate) told: Arc<Told>,
    pub(crate) not_ready: watch::Receiver<Option<NotReady>>,
    /// What else is to be known of this node, in words.
    pub(crate) notices: watch::Receiver<Vec<String>>,
    /// What is used of quotas here.
    pub(crate) quotas: Arc<Quotas>,
    /// Takes what other nodes' gateways forward.
    pub(crate) gateway: Entrance,
    /// Is told of nodes that were turned away.
    pub(crate) audit: Audit,
    /// Takes what other nodes have to record.
    pub(crate) ledger: Ledger,
}

impl LinkHandler for PeerHandler {
    fn call(&self, from: &str, group: u64, kind: u8, body: Bytes) -> BoxFuture<'static, Result<Vec<Bytes>, Refusal>> {
        let (handler, from) = (self.clone(), from.to_owned());
        if group == NODE_LEVEL && kind == GATEWAY {
            let forwarded = async move {
                handler.check_member(&from)?;
                handler.gateway.take(body).await
            };
            return forwarded.boxed();
        }
        if group == NODE_LEVEL {
            return async move { handler.node_call(&from, kind, body).await.map(|answer| vec![answer]) }.boxed();
        }
        let group = GroupId(group);
        let call = async move {
            handler.check_peer(&from, group).map_err(Refusal::NotBegun)?;
            let unstarted = handler.registry.unstarted(group).filter(|_| Unstarted::answers(kind));
            let answer = match unstarted {
                Some(unstarted) => unstarted.handle_call(&from, kind, body).await,
                None => {
                    let partition = handler.registry.for_peer(&from, group).await?;
                    partition.handle_call(&from, kind, body).await
                }
            };
            answer.map_err(|error| error.to_string().into())
        };
        call.boxed()
    }

    fn stream(&self, from: &str, group: u64, kind: u8, stream: PeerStream) -> BoxFuture<'static, ()> {
        let (handler, from) = (self.clone(), from.to_owned());
        let serve = async move {
            handler.check_peer(&from, GroupId(group))?;
            let partition = handler.registry.for_peer(&from, GroupId(group)).await?;
            partition
                .handle_stream(&from, kind, stream)
                .await
                .map_err(|error| error.to_string())
        };
        let ended = move |ended: Result<(), String>| {
            if let Err(why) = ended {
                tracing::debug!(group, why, "a stream of a peer ended");
            }
        };
        serve.map(ended).boxed()
    }

    fn gossip(&self, from: &str, message: Bytes) {
        self.gossip.deliver(from, message);
    }

    fn hello(&self, _from: &str, _hello: &Hello) -> Result<(), String> {
        Ok(())
    }

    fn turned_away(&self, peer: &Peer, why: &str) {
        let who = Some(peer.identity.to_string());
        self.audit
            .unauthenticated(peer.remote_addr, who, "connect", why.to_owned());
    }
}

impl PeerHandler {
    async fn node_call(&self, from: &str, kind: u8, body: Bytes) -> Result<Bytes, Refusal> {
        let answer = match kind {
            PROBE => peer_calls::encode_json(&self.membership.probe()),
            ADOPT => {
                let adopt = peer_calls::decode_json(&body)?;
                self.membership.adopt(from, adopt).await.map(|()| Bytes::new())
            }
            JOIN => {
                let join = peer_calls::decode_json(&body)?;
                peer_calls::encode_json(&self.membership.let_in(from, join).await)
            }
            COMMAND => return Ok(self.command(from, body).await?.encode()),
            APPLIED => Ok(peer_calls::encode_number(self.catalog.now().applied)),
            CLOCK => Ok(peer_calls::encode_number(now_ms())),
            LEADERS => leaders::hear(&self.told, (from, self.catalog.members().include(from)), body),
            REPLICAS => {
                let name = &self.membership.own().name;
                let state = (self.not_ready.borrow().clone(), self.notices.borrow().clone());
                let own = describe::own_part(name, &self.registry, &self.catalog, &self.storage, state).await;
                Ok(own.encode_to_vec().into())
            }
            TRANSFER => {
                self.check_member(from)?;
                let transfer = peer_calls::decode_json(&body)?;
                transfer_here(&self.registry, transfer).await.map(|()| Bytes::new())
            }
            STANDING => {
                let group = peer_calls::decode_number(&body).ok_or_else(|| "a question for no group".to_owned())?;
                peer_calls::encode_json(&recoveries::standing(&self.registry, group).await?)
            }
            AUDIT => {
                self.check_member(from)?;
                return self.ledger.receive(from, body).await;
            }
            USAGE => self.quotas.answer(&body).await,
            REVISION => self.revision().await.map(peer_calls::encode_number),
            other => return Err(Refusal::NotBegun(format!("{UNKNOWN_KIND} {other}"))),
        };
        answer.map_err(Refusal::from)
    }

    /// The catalog's revision, if nobody else can know a newer one.
    async fn revision(&self) -> Result<u64, String> {
        let catalog = self.registry.catalog().ok_or("it has not found its cluster yet")?;
        let confirmed = timeout(REVISION_TIMEOUT, catalog.confirmed_by_lease()).await;
        confirmed
            .map_err(|_| "no majority has acknowledged it in time".to_owned())?
            .map_err(|error| error.to_string())?;
        Ok(self.catalog.now().revision)
    }

    /// Refuses who is no member, as far as is known here; who has just become one is refused for a moment, and asks again.
    fn check_member(&self, from: &str) -> Result<(), Refusal> {
        self.membership_of(from).map_err(Refusal::NotBegun)
    }

    /// Nobody has a replica of a partition who is not in the cluster.
    fn check_peer(&self, from: &str, group: GroupId) -> Result<(), String> {
        match group == CATALOG_GROUP {
            true => Ok(()),
            false => self.membership_of(from),
        }
    }

    fn membership_of(&self, node: &str) -> Result<(), String> {
        match self.catalog.members().include(node) {
            true => Ok(()),
            false => Err(format!("{node} is no member of the cluster")),
        }
    }

    /// A node registers nobody but itself. What else a member hands over may come from a client, whom it has authorised.
    async fn command(&self, from: &str, body: Bytes) -> Result<CommandAnswer, Refusal> {
        let command = Readable::new(body).map_err(|error| error.to_string())?;
        match command.command() {
            Command::RegisterNode { name, .. } if name == from => {}
            Command::RegisterNode { name, .. } => return Err(format!("{from} asks to register {name}").into()),
            _ => self.check_member(from)?,
        }
        let Some(catalog) = self.registry.catalog() else {
            return Ok(CommandAnswer::NotLeader(None));
        };
        let proposed = timeout(COMMAND_TIMEOUT, propose_here(&catalog, command)).await;
        Ok(proposed.unwrap_or_else(|_| CommandAnswer::Unknown("no majority answered in time".to_owned())))
    }
}
