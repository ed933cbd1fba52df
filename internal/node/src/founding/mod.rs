//! How a cluster comes to be, exactly once, and how a node finds its way into one that exists.
//!
//! Every node starts by asking around ([`Probe`](ProbeAnswer)): the seeds by address, everyone gossip knows by name. From
//! the answers [`decide`] says what to do next; it is a pure function, and the table of its cases is its test.
//!
//! **Founding.** `bootstrap` names the first nodes, and its first is the founder. In order:
//!
//! 1. The founder has an answer from *every* listed node; all of their directories are empty, and nobody who answered
//!    knows a cluster.
//! 2. It draws the cluster id and gives each member a replica id of the catalog: the *plan*. It records both.
//! 3. It asks each listed node to *adopt* them. A node records them durably before it says yes, and says no if it has
//!    recorded another id, holds anything, or is not the incarnation that the plan names. From then on it runs an empty
//!    catalog replica that cannot do anything until the founder speaks to it.
//! 4. When all have adopted, the founder starts its own catalog replica and initialises the group with all of them as
//!    voters. Whoever is elected proposes `Found` with the plan, unless it is in the catalog.
//!
//! **Why there is never a second cluster id.** Only a founder draws one, only when every listed node is empty, and all
//! of them record it before anything is initialised; nobody replaces a recorded id. So once anything can have been
//! committed, each voter's directory holds the id, and a founder would have to see *all* of them empty again.
//! A wiped node of a running cluster hears of the cluster from any node that it reaches, and joins it as a new
//! incarnation; if it reaches too few, it waits. If all listed disks are wiped, nothing of the cluster is left.
//!
//! **Crashes on the way.** Until step 4 nothing exists but recorded ids, so every step can be done again:
//!
//! * The founder stops and restarts: it finds its own record and goes on with the same id and plan.
//! * A member loses its disk after adopting: it answers empty under a new incarnation. The founder, whose catalog is
//!   still pristine, makes a new plan with the same id, and with a fresh replica id for that member.
//! * The founder loses its disk after some adopted: it hears the id from them and must not draw another. If *every*
//!   other listed node answers and none of their catalogs has history, nothing can have been committed (a majority would
//!   have history), so it takes the id over and plans anew, itself under a fresh replica id. If one of them has history
//!   the cluster exists, and it joins. If one does not answer, it waits.
//!
//! A replica id is never given to two incarnations, so no vote can be forgotten along the way.
//!
//! **Joining** is the rest: a node that no plan names asks the catalog's leader, which registers its incarnation, adds
//! its replica as a learner, and answers with the ids. The node asks once more, now with that replica as the one that it
//! begins, so that the catalog knows it as running; then it records the ids, makes the replica once, and starts it. If it
//! stops in between, it is given another one.
//!
//! **A lost catalog replica** (its vote or its log's end is gone, the rest of the directory is not) is replaced the same
//! way: the node joins under the incarnation that it has, says which replica it has lost, and gets another id. What is
//! left of the lost one is deleted when the new one runs.
//!
//! Deliberately absent: giving up (a node that cannot find its cluster waits and says for whom), and any decision from
//! gossip alone, which only supplies addresses.

mod decision;
mod discovery;
mod member;

use highwater_catalog::CatalogReplica;
use serde::{Deserialize, Serialize};

use crate::hex::Id;

use decision::{Step, decide};
pub(crate) use discovery::{Discovery, DiscoveryOptions};
pub(crate) use member::{Membership, OwnName};

/// Whom a cluster is founded with. Recorded by each of them before it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) founder: String,
    pub(crate) members: Vec<PlannedMember>,
}

/// One first voter of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlannedMember {
    pub(crate) name: String,
    pub(crate) incarnation: Id,
    pub(crate) address: String,
    pub(crate) rack: String,
    /// Of its catalog replica.
    pub(crate) replica_id: u64,
}

impl Plan {
    pub(crate) fn member(&self, name: &str) -> Option<&PlannedMember> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// What a node says about itself to whoever asks; also how it sees itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProbeAnswer {
    pub(crate) name: String,
    pub(crate) incarnation: Id,
    pub(crate) address: String,
    pub(crate) rack: String,
    /// As recorded in its data directory.
    pub(crate) cluster_id: Option<Id>,
    /// Nothing of any cluster was ever recorded in its data directory.
    pub(crate) empty: bool,
    /// Whether its cluster can have history: it joined one, or its catalog replica has seen a vote or an entry.
    pub(crate) established: bool,
    /// Whom it was to found a cluster with.
    pub(crate) plan: Option<Plan>,
}

/// The founder's request to record the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Adopt {
    pub(crate) cluster_id: Id,
    pub(crate) plan: Plan,
}

/// A node's request to become a member of an existing cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Join {
    pub(crate) name: String,
    pub(crate) incarnation: Id,
    pub(crate) address: String,
    pub(crate) rack: String,
    pub(crate) version: String,
    /// The newest rules that its program knows; absent: the first ones.
    #[serde(default = "first_level")]
    pub(crate) feature_level: u32,
    /// Of this incarnation; it is to get another one.
    #[serde(default)]
    pub(crate) lost_catalog_replica: Option<u64>,
    /// The catalog replica that the node was given and that it is going to run next: from now on it counts as running, and no
    /// directory without it may make it. An older version does not read this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) begins_catalog_replica: Option<u64>,
}

impl Join {
    /// What the node's data directory holds of the catalog's group, as far as the catalog must know.
    fn held(&self) -> Option<CatalogReplica> {
        let lost = self.lost_catalog_replica.map(CatalogReplica::Lost);
        self.begins_catalog_replica.map(CatalogReplica::Runs).or(lost)
    }
}

fn first_level() -> u32 {
    1
}

/// What the asked node can say about a [`Join`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JoinAnswer {
    /// The node is registered, and its catalog replica is a learner.
    Joined {
        cluster_id: Id,
        /// Of the new node's catalog replica.
        replica_id: u64,
    },
    /// Ask this node, if one is named; otherwise try again.
    NotLeader { leader: Option<String> },
    /// It was not possible now.
    Failed { why: String },
}

/// Whether a node that sees itself as `own` may adopt. The answer says why not.
pub(crate) fn check_adopt(own: &ProbeAnswer, from: &str, adopt: &Adopt) -> Result<(), String> {
    if adopt.plan.founder != from {
        return Err(format!("{from} asks to adopt a plan of {}", adopt.plan.founder));
    }
    match own.cluster_id {
        Some(recorded) if recorded != adopt.cluster_id => {
            return Err(format!("{} has recorded cluster id {recorded}", own.name));
        }
        Some(_) if own.plan.as_ref() == Some(&adopt.plan) => return Ok(()), // A retry.
        Some(_) if own.established => return Err(format!("{} is in a running cluster", own.name)),
        Some(_) => {}
        None if !own.empty => return Err(format!("the data directory of {} is not empty", own.name)),
        None => {}
    }
    let Some(planned) = adopt.plan.member(&own.name) else {
        return Err(format!("the plan does not name {}", own.name));
    };
    if planned.incarnation != own.incarnation {
        return Err(format!("{} is another incarnation than the planned one", own.name));
    }
    let before = own.plan.as_ref().and_then(|plan| plan.member(&own.name));
    if before.is_some_and(|before| before.replica_id != planned.replica_id) {
        return Err(format!("{} has another catalog replica than the planned one", own.name));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn id(byte: u8) -> Id {
        Id([byte; 16])
    }

    pub(crate) fn empty(name: &str, incarnation: u8) -> ProbeAnswer {
        ProbeAnswer {
            name: name.to_owned(),
            incarnation: id(incarnation),
            address: format!("{name}:7400"),
            rack: String::new(),
            cluster_id: None,
            empty: true,
            established: false,
            plan: None,
        }
    }

    pub(crate) fn planned(name: &str, incarnation: u8, replica_id: u64) -> PlannedMember {
        PlannedMember {
            name: name.to_owned(),
            incarnation: id(incarnation),
            address: format!("{name}:7400"),
            rack: String::new(),
            replica_id,
        }
    }

    pub(crate) fn plan_abc() -> Plan {
        Plan {
            founder: "a".to_owned(),
            members: vec![planned("a", 1, 1), planned("b", 2, 2), planned("c", 3, 3)],
        }
    }

    pub(crate) fn adopted(name: &str, incarnation: u8) -> ProbeAnswer {
        ProbeAnswer {
            cluster_id: Some(id(0xcc)),
            empty: false,
            plan: Some(plan_abc()),
            ..empty(name, incarnation)
        }
    }

    fn adopt(cluster: u8, plan: Plan) -> Adopt {
        Adopt {
            cluster_id: id(cluster),
            plan,
        }
    }

    #[test]
    fn an_empty_node_adopts_and_a_retry_is_fine() {
        assert_eq!(check_adopt(&empty("b", 2), "a", &adopt(0xcc, plan_abc())), Ok(()));
        assert_eq!(check_adopt(&adopted("b", 2), "a", &adopt(0xcc, plan_abc())), Ok(()));
    }

    #[test]
    fn another_id_a_full_directory_and_a_running_cluster_refuse() {
        let why = check_adopt(&adopted("b", 2), "a", &adopt(0xdd, plan_abc())).err();
        assert!(why.is_some_and(|why| why.contains("cluster id")));
        let full = ProbeAnswer {
            empty: false,
            ..empty("b", 2)
        };
        assert!(check_adopt(&full, "a", &adopt(0xcc, plan_abc())).is_err());
        let mut changed = plan_abc();
        changed.members[2] = planned("c", 9, 4);
        assert_eq!(
            check_adopt(&adopted("b", 2), "a", &adopt(0xcc, changed.clone())),
            Ok(())
        );
        let running = ProbeAnswer {
            established: true,
            ..adopted("b", 2)
        };
        assert!(check_adopt(&running, "a", &adopt(0xcc, changed)).is_err());
    }

    #[test]
    fn a_plan_for_others_or_from_others_is_refused() {
        assert!(check_adopt(&empty("z", 2), "a", &adopt(0xcc, plan_abc())).is_err());
        assert!(check_adopt(&empty("b", 9), "a", &adopt(0xcc, plan_abc())).is_err());
        assert!(check_adopt(&empty("b", 2), "c", &adopt(0xcc, plan_abc())).is_err());
        let mut changed = plan_abc();
        changed.members[1].replica_id = 7;
        assert!(check_adopt(&adopted("b", 2), "a", &adopt(0xcc, changed)).is_err());
    }
}
