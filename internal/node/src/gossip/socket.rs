//! chitchat's way to the peer link. Sending never waits, receiving can be cancelled at any point, and neither ever
//! fails: an error would end gossip for good, so whatever goes wrong with a message only drops that message.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatId, ChitchatMessage};

use super::check::{self, Checked};
use super::{GossipInbox, NODES_MAX};
use crate::link::Link;
use crate::link::limits::GOSSIP_BYTES_MAX;

/// What sender and receiver need to know of the nodes, kept up to date by the view.
#[derive(Debug, Default)]
pub(super) struct Roster {
    state: Mutex<RosterState>,
}

#[derive(Debug, Default)]
struct RosterState {
    /// Names of live nodes by the address that chitchat knows them by.
    names: BTreeMap<SocketAddr, String>,
    /// All ids that chitchat keeps, and those let through since that was last looked up.
    known: BTreeSet<ChitchatId>,
}

impl Roster {
    pub(super) fn set_names(&self, names: BTreeMap<SocketAddr, String>) {
        self.lock().names = names;
    }

    pub(super) fn set_known(&self, known: BTreeSet<ChitchatId>) {
        self.lock().known = known;
    }

    fn name_at(&self, address: SocketAddr) -> Option<String> {
        self.lock().names.get(&address).cloned()
    }

    /// Whether there is room for these nodes beside those known.
    fn admit(&self, listed: Vec<ChitchatId>) -> Result<(), String> {
        let mut state = self.lock();
        let unknown: Vec<_> = listed.into_iter().filter(|id| !state.known.contains(id)).collect();
        let count = state.known.len() + unknown.len();
        if count > NODES_MAX {
            return Err(format!(
                "with the nodes that it lists there would be {count}, {NODES_MAX} are allowed"
            ));
        }
        state.known.extend(unknown);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, RosterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the one socket.
pub(super) struct LinkTransport {
    socket: Mutex<Option<LinkSocket>>,
}

struct LinkSocket {
    link: Link,
    inbox: GossipInbox,
    own_address: SocketAddr,
    roster: Arc<Roster>,
}

impl LinkTransport {
    pub(super) fn new(link: Link, inbox: GossipInbox, own_address: SocketAddr, roster: Arc<Roster>) -> LinkTransport {
        LinkTransport {
            socket: Mutex::new(Some(LinkSocket {
                link,
                inbox,
                own_address,
                roster,
            })),
        }
    }
}

#[async_trait]
impl Transport for LinkTransport {
    async fn open(&self, _listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        match self.socket.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(socket) => Ok(Box::new(socket)),
            None => anyhow::bail!("the gossip socket is open already"),
        }
    }
}

#[async_trait]
impl Socket for LinkSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let bytes = check::encode(self.own_address, &message);
        if bytes.len() > GOSSIP_BYTES_MAX {
            tracing::warn!(%to, bytes = bytes.len(), GOSSIP_BYTES_MAX, "a gossip message is too long and was not sent");
            return Ok(());
        }
        match self.roster.name_at(to) {
            Some(node) => self.link.send_gossip(&node, Bytes::from(bytes)),
            None => self.link.send_gossip_to_address(to, Bytes::from(bytes)),
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let Some((from, bytes)) = self.inbox.receiver.recv().await else {
                std::future::pending::<()>().await; // the link has gone; gossip will be stopped, not fail
                continue;
            };
            match self.check(&from, &bytes) {
                Ok((address, message)) => return Ok((address, message)),
                Err(why) => tracing::debug!(from, why, "a gossip message was dropped"),
            }
        }
    }
}

impl LinkSocket {
    fn check(&self, from: &str, bytes: &[u8]) -> Result<(SocketAddr, ChitchatMessage), String> {
        let Checked {
            address,
            listed,
            message,
        } = check::decode(from, bytes)?;
        self.roster.admit(listed)?;
        Ok((address, message))
    }
}
