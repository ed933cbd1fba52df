//! What a replica has, for an operator who considers to have its partition go on from it alone.
//!
//! A partition whose majority is gone for good is recovered in three places: an operator asks (`services::recover`), the catalog
//! declares all its replicas dead and gives the survivor's place to a new id that continues it, and that one's node makes it
//! so (`replicas::take_over`). Here is what is asked before, and again until the new one leads; and what follows from the answers.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_partition::PeerError;
use highwater_partition::log::GroupId;
use serde::{Deserialize, Serialize};

use crate::leaders::Leaders;
use crate::peer_calls::{self, STANDING};
use crate::replicas::Registry;

/// How long a node may take to say what its replica has.
const STANDING_TIMEOUT: Duration = Duration::from_secs(3);

/// What a node's replica of a group has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) replica: u64,
    pub(crate) leads: bool,
    /// It hears from no leader; or it leads, and hears no majority.
    pub(crate) is_forsaken: bool,
    pub(crate) log_start: u64,
    /// What it knows to be committed.
    pub(crate) high_watermark: u64,
    /// What it would go on with.
    pub(crate) log_end: u64,
    /// When its last entry was appended, by the clock of the leader then; 0: unknown.
    pub(crate) last_append_ms: u64,
    /// The term and index of its last entry.
    #[serde(default)]
    pub(crate) last: (u64, u64),
    /// Entries that its last leader had committed and that it does not have.
    pub(crate) entries_missing: u64,
    /// Records of it are damaged, and nobody else could put them right.
    pub(crate) is_damaged: bool,
    /// Who votes, as far as it knows: replicas and their nodes. None that it knows of, or that its version tells: empty.
    #[serde(default)]
    pub(crate) voters: Vec<(u64, String)>,
}

/// What the replicas of a group have that run and answer, by node.
pub(crate) type Standings = BTreeMap<String, Standing>;

/// What this node's replica of a group has.
pub(crate) async fn standing(registry: &Registry, group: u64) -> Result<Standing, String> {
    match registry.hosted(GroupId(group)) {
        Some(hosted) => Ok(hosted.standing().await),
        None => Err("its replica there does not run; the node's log says why".to_owned()),
    }
}

/// Why a node says nothing of its replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Silence {
    /// There is none that runs.
    NotRunning,
    NoAnswer(String),
}

impl Leaders {
    /// What the replica of a group has that runs on a node.
    pub(crate) async fn standing(&self, node: &str, group: GroupId) -> Result<Standing, Silence> {
        if node == self.own {
            let own = standing(&self.registry, group.0).await;
            return own.map_err(|_| Silence::NotRunning);
        }
        let body = vec![peer_calls::encode_number(group.0)];
        match self.link.call_node(node, STANDING, body, STANDING_TIMEOUT).await {
            Ok(answer) => peer_calls::decode_json(&answer).map_err(Silence::NoAnswer),
            Err(PeerError::Refused { .. }) => Err(Silence::NotRunning),
            Err(error) => Err(Silence::NoAnswer(error.to_string())),
        }
    }

    /// Whether the group has a leader that a majority follows, by that one's own word. One that leads in vain is still taken
    /// for the leader everywhere, since it goes on as soon as it hears the others; but its group can change nothing.
    pub(crate) async fn is_led(&self, group: GroupId) -> bool {
        let Some(leader) = self.leader(group) else {
            return false;
        };
        let standing = self.standing(&leader.node, group).await;
        standing.is_ok_and(|it| it.leads && !it.is_forsaken)
    }
}

/// Whether a group can only go on from the replica on `survivor` alone: that one's standing, or why not.
///
/// The members are those that the newest log names: a replica that missed the last changes knows former ones, and the catalog
/// knows those that are wanted, which may never have become members. The newest log is the one that an election would prefer
/// (last term, then last index): of two that are left it has more of what was committed, however long the other one is.
pub(crate) fn judge<'a>(survivor: &str, standings: &'a Standings) -> Result<&'a Standing, String> {
    let Some(own) = standings.get(survivor) else {
        return Err(format!(
            "the replica on {survivor} does not run; the node's log says why"
        ));
    };
    let mut led = standings.iter().filter(|(_, it)| it.leads && !it.is_forsaken);
    if let Some((node, _)) = led.next() {
        return Err(format!("it is led by {node}: nothing is to be recovered"));
    }
    let Some((newest_node, newest)) = standings.iter().max_by_key(|(_, it)| it.last) else {
        unreachable!("{survivor} is one of them");
    };
    if newest.voters.is_empty() {
        return Err(format!("{newest_node} does not tell who votes in it"));
    }
    let is_present = |(replica, node): &&(u64, String)| standings.get(node).is_some_and(|it| it.replica == *replica);
    let present: Vec<&str> = newest
        .voters
        .iter()
        .filter(is_present)
        .map(|(_, node)| node.as_str())
        .collect();
    if present.len() > newest.voters.len() / 2 {
        return Err(format!(
            "a majority of its voters is on nodes that are there ({}): they elect a leader by themselves; if they cannot, stop \
             those that are to be given up",
            present.join(", ")
        ));
    }
    if own.last < newest.last {
        return Err(format!(
            "the replica on {newest_node} has a newer log (term {}, index {}, against term {}, index {}): go on from that one, or \
             stop its node if it is to be given up",
            newest.last.0, newest.last.1, own.last.0, own.last.1
        ));
    }
    if !own.is_forsaken {
        return Err(format!(
            "the replica on {survivor} has heard from the others a moment ago; look again in some seconds"
        ));
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use super::*;

    /// Forsaken, in a group of the replicas 1 to 5 on the nodes a to e.
    fn standing(replica: u64, last: (u64, u64)) -> Standing {
        let voters = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")];
        Standing {
            replica,
            leads: false,
            is_forsaken: true,
            log_start: 0,
            high_watermark: 0,
            log_end: last.1,
            last_append_ms: 0,
            last,
            entries_missing: 0,
            is_damaged: false,
            voters: voters.map(|(replica, node)| (replica, node.to_owned())).to_vec(),
        }
    }

    fn standings<const N: usize>(all: [(&str, Standing); N]) -> Standings {
        all.map(|(node, standing)| (node.to_owned(), standing)).into()
    }

    fn refused(survivor: &str, standings: &Standings) -> String {
        judge(survivor, standings).expect_err("it is accepted")
    }

    #[test]
    fn of_two_that_are_left_the_newer_log_is_gone_on_from_however_long_the_other_is() {
        let left = standings([("a", standing(1, (3, 200))), ("b", standing(2, (4, 150)))]);
        assert_eq!(judge("b", &left), Ok(&left["b"]));
        let why = refused("a", &left);
        assert!(why.contains("on b") && why.contains("term 4, index 150"), "{why}");
    }

    #[test]
    fn a_majority_of_those_that_vote_helps_itself() {
        let mut all = standings([1, 2, 3].map(|it| (["a", "b", "c"][it - 1], standing(it as u64, (1, 9)))));
        assert!(refused("a", &all).contains("(a, b, c)"), "{}", refused("a", &all));
        // An empty new one in the place of a voter has no vote.
        let newcomer = Standing {
            voters: Vec::new(),
            ..standing(9, (0, 0))
        };
        all.insert("c".to_owned(), newcomer);
        assert!(judge("a", &all).is_ok());
    }

    #[test]
    fn whoever_leads_with_a_majority_is_left_alone_and_one_that_leads_in_vain_is_not() {
        let leader = Standing {
            leads: true,
            ..standing(2, (4, 150))
        };
        let left = standings([("b", leader.clone())]);
        assert!(judge("b", &left).is_ok(), "it leads in vain");
        let sound = Standing {
            is_forsaken: false,
            ..leader
        };
        let led = standings([("a", standing(1, (4, 150))), ("b", sound)]);
        assert!(refused("a", &led).contains("led by b"));
    }

    #[test]
    fn one_that_has_heard_from_others_or_does_not_tell_who_votes_is_not_gone_on_from() {
        let fresh = Standing {
            is_forsaken: false,
            ..standing(1, (1, 1))
        };
        assert!(refused("a", &standings([("a", fresh)])).contains("a moment ago"));
        let silent = Standing {
            voters: Vec::new(),
            ..standing(1, (1, 1))
        };
        assert!(refused("a", &standings([("a", silent)])).contains("does not tell"));
        assert!(refused("a", &Standings::new()).contains("does not run"));
    }

    #[test]
    fn an_answer_of_an_older_version_can_be_read() {
        let older = r#"{"replica":1,"leads":false,"is_forsaken":true,"log_start":0,"high_watermark":0,"log_end":0,
            "last_append_ms":0,"entries_missing":0,"is_damaged":false}"#;
        let read: Standing = serde_json::from_str(older).expect("it is read");
        assert!(read.voters.is_empty() && read.last == (0, 0));
    }
}
