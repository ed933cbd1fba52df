//! Reading a gossip message, and what can be checked of it before chitchat sees it.
//!
//! A message is the sender's address (where to answer) and chitchat's own bytes. chitchat keeps the inside of its
//! messages to itself, but their byte form is public, and so is the form of the ids in it. So the digest, which opens
//! two of the three messages, is walked here: its sender must be in it, names and numbers must be plausible, and the
//! number of ids bounded. Of what follows, the delta, only the number of compressed blocks is bounded: each inflates to
//! at most 64 KiB.
//!
//! Layout (chitchat 0.11, little-endian): u16 magic · u8 version · u8 type · for types 0 and 1 the digest: u16 count,
//! then per node its id and three u64 (heartbeat, last collected version, last version) · for types 1 and 2 the delta:
//! blocks of u8 kind (0 ends) · u16 length · bytes.

use std::net::SocketAddr;

use chitchat::{ChitchatId, ChitchatMessage, Deserializable, Serializable};
use highwater_catalog::names;

use super::NODES_MAX;

const SYN: u8 = 0;
const SYN_ACK: u8 = 1;
const ACK: u8 = 2;
/// Heartbeats and versions grow by a few per second; no honest one comes near this.
const COUNTER_MAX: u64 = 1 << 40;
/// Compressed blocks in one message; an honest one has a handful.
const BLOCKS_MAX: usize = 64;
const LAST_BLOCK: u8 = 0;

/// A message that has passed.
#[derive(Debug)]
pub(super) struct Checked {
    /// Where its sender wants to be answered.
    pub(super) address: SocketAddr,
    /// All nodes that the digest lists.
    pub(super) listed: Vec<ChitchatId>,
    pub(super) message: ChitchatMessage,
}

/// The bytes of a message for the link.
pub(super) fn encode(own_address: SocketAddr, message: &ChitchatMessage) -> Vec<u8> {
    let mut bytes = own_address.serialize_to_vec();
    message.serialize(&mut bytes);
    bytes
}

/// Reads a message of the authenticated node `from`, or says why it is dropped.
pub(super) fn decode(from: &str, mut bytes: &[u8]) -> Result<Checked, String> {
    let address = SocketAddr::deserialize(&mut bytes).map_err(|error| error.to_string())?;
    let listed = walk(from, address, bytes)?;
    let message = ChitchatMessage::deserialize(&mut bytes).map_err(|error| error.to_string())?;
    if !bytes.is_empty() {
        return Err(format!("{} bytes follow the message", bytes.len()));
    }
    Ok(Checked {
        address,
        listed,
        message,
    })
}

fn walk(from: &str, address: SocketAddr, mut bytes: &[u8]) -> Result<Vec<ChitchatId>, String> {
    let [_, _, _, message_type]: [u8; 4] = read(&mut bytes)?;
    let mut listed = Vec::new();
    if matches!(message_type, SYN | SYN_ACK) {
        listed = walk_digest(&mut bytes)?;
        let lists_sender = |id: &ChitchatId| *id.node_id == *from && id.gossip_advertise_addr == address;
        if !listed.iter().any(lists_sender) {
            return Err(format!("its digest does not list its sender {from:?} at {address}"));
        }
    }
    if matches!(message_type, SYN_ACK | ACK) {
        walk_blocks(bytes)?;
    }
    Ok(listed)
}

fn walk_digest(bytes: &mut &[u8]) -> Result<Vec<ChitchatId>, String> {
    let count = usize::from(read::<u16>(bytes)?);
    if count > NODES_MAX {
        return Err(format!("its digest lists {count} nodes, {NODES_MAX} are allowed"));
    }
    let mut listed = Vec::with_capacity(count);
    for _ in 0..count {
        let id: ChitchatId = read(bytes)?;
        if !names::is_valid(&id.node_id) {
            return Err(format!("its digest lists {:?}, which is not a name", id.node_id));
        }
        for _ in 0..3 {
            let counter: u64 = read(bytes)?;
            if counter > COUNTER_MAX {
                return Err(format!(
                    "its digest has an implausible counter {counter} of node {}",
                    id.node_id
                ));
            }
        }
        listed.push(id);
    }
    Ok(listed)
}

fn walk_blocks(mut bytes: &[u8]) -> Result<(), String> {
    for _ in 0..=BLOCKS_MAX {
        if read::<u8>(&mut bytes)? == LAST_BLOCK {
            return Ok(());
        }
        let length = usize::from(read::<u16>(&mut bytes)?);
        bytes = bytes.get(length..).ok_or("its delta is cut short")?;
    }
    Err(format!("its delta has more than {BLOCKS_MAX} blocks"))
}

fn read<T: Deserializable>(bytes: &mut &[u8]) -> Result<T, String> {
    T::deserialize(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use chitchat::transport::{ChannelTransport, Transport};
    use chitchat::{ChitchatConfig, spawn_chitchat};
    use proptest::prelude::*;

    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// The bytes of a real first message of node `n1` at port 1.
    async fn real_message() -> Vec<u8> {
        let transport = ChannelTransport::default();
        let mut receiver = transport.open(address(2)).await.unwrap();
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new("n1", 1, address(1)),
            cluster_id: "testing".to_owned(),
            gossip_interval: std::time::Duration::from_millis(10),
            listen_addr: address(1),
            seed_nodes: vec![address(2).to_string()],
            failure_detector_config: chitchat::FailureDetectorConfig::default(),
            marked_for_deletion_grace_period: std::time::Duration::from_secs(1),
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let _handle = spawn_chitchat(config, Vec::new(), &transport).await.unwrap();
        let (_, message) = receiver.recv().await.unwrap();
        encode(address(1), &message)
    }

    #[tokio::test]
    async fn a_message_is_taken_only_from_the_node_and_address_it_lists() {
        let bytes = real_message().await;
        let checked = decode("n1", &bytes).unwrap();
        assert_eq!((checked.address, checked.listed.len()), (address(1), 1));
        assert!(decode("n2", &bytes).unwrap_err().contains("does not list its sender"));

        let mut moved = bytes.clone();
        moved[5] = 9; // the port of the address to answer to
        assert!(decode("n1", &moved).unwrap_err().contains("does not list its sender"));
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(decode("n1", &longer).unwrap_err().contains("follow the message"));
        assert!(decode("n1", &bytes[..bytes.len() - 1]).is_err());
    }

    #[tokio::test]
    async fn implausible_digests_are_dropped() {
        let bytes = real_message().await;
        let head = address(1).serialize_to_vec().len() + 4;
        let mut many = bytes.clone();
        many[head..head + 2].copy_from_slice(&(NODES_MAX as u16 + 1).to_le_bytes());
        assert!(decode("n1", &many).unwrap_err().contains("257 nodes"));
        let id_bytes = ChitchatId::new("n1", 1, address(1)).serialize_to_vec().len();
        let mut heartbeat = bytes.clone();
        heartbeat[head + 2 + id_bytes + 7] = 1; // its highest byte
        assert!(decode("n1", &heartbeat).unwrap_err().contains("implausible counter"));
        let mut name = bytes;
        name[head + 4] = b'N';
        assert!(decode("n1", &name).unwrap_err().contains("not a name"));
    }

    #[test]
    fn a_delta_of_very_many_blocks_is_dropped() {
        let mut bytes = address(1).serialize_to_vec();
        bytes.extend([0x53, 0xb0, 0, ACK]);
        for _ in 0..=BLOCKS_MAX {
            bytes.extend([2, 1, 0, 0]);
        }
        bytes.push(LAST_BLOCK);
        assert!(decode("n1", &bytes).unwrap_err().contains("blocks"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes: Vec<u8>, message_type in 0_u8..5) {
            let mut framed = address(1).serialize_to_vec();
            framed.extend([0x53, 0xb0, 0, message_type]);
            framed.extend(&bytes);
            let _ = decode("n1", &framed);
            let _ = decode("n1", &bytes);
        }
    }
}
