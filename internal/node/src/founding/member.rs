//! How this node answers others who look for a cluster: what it knows, adopting a plan, letting a new node in.

use std::sync::Arc;
use std::time::Duration;

use highwater_catalog::{Catalog, Command, Reply};
use highwater_partition::log::{ClusterId, ReplicaId};
use highwater_partition::{Member, Partition, Role};
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use super::{Adopt, Join, JoinAnswer, ProbeAnswer, check_adopt};
use crate::catalog::{CatalogHost, Readable, propose_here};
use crate::data_dir::{DataDir, Stage};
use crate::hex::Id;
use crate::peer_calls::CommandAnswer;
use crate::replicas::{CATALOG_GROUP, Registry};

/// The longest that letting a node in takes before it is told to try again.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What a node is called and where it is found.
#[derive(Debug, Clone)]
pub(crate) struct OwnName {
    pub(crate) name: String,
    /// As advertised, `host:port`.
    pub(crate) address: String,
    pub(crate) rack: String,
}

/// This node's place in its cluster, or on the way to one.
pub(crate) struct Membership {
    own: OwnName,
    data: Arc<DataDir>,
    registry: Arc<Registry>,
    host: Arc<CatalogHost>,
    /// Held while a plan is checked and recorded, by the founder for its own and by the adopter for others'.
    recording: Mutex<()>,
    /// A plan was recorded.
    adopted: Notify,
}

impl Membership {
    pub(crate) fn new(
        own: OwnName,
        data: Arc<DataDir>,
        registry: Arc<Registry>,
        host: Arc<CatalogHost>,
    ) -> Arc<Membership> {
        Arc::new(Membership {
            own,
            data,
            registry,
            host,
            recording: Mutex::new(()),
            adopted: Notify::new(),
        })
    }

    pub(crate) fn own(&self) -> &OwnName {
        &self.own
    }

    pub(crate) fn incarnation(&self) -> Id {
        self.data.incarnation()
    }

    /// How this node sees itself, and what it tells others.
    pub(crate) fn probe(&self) -> ProbeAnswer {
        let plan = self.data.plan();
        let cluster_id = self.data.cluster_id().map(|id| Id(id.0));
        let has_history = match self.registry.catalog() {
            Some(catalog) => !is_pristine(&catalog),
            None => self.has_unopened_catalog(),
        };
        ProbeAnswer {
            name: self.own.name.clone(),
            incarnation: self.data.incarnation(),
            address: self.own.address.clone(),
            rack: self.own.rack.clone(),
            cluster_id,
            empty: self.data.is_empty(),
            established: cluster_id.is_some() && (plan.is_none() || has_history),
            plan,
        }
    }

    /// Whether there is a catalog replica here that has run before and does not run yet, or never will again. As long as
    /// nobody can look into it, it must be taken for what is left of a cluster: two wiped nodes would otherwise found
    /// another one while the third is still opening its replica.
    fn has_unopened_catalog(&self) -> bool {
        let mut replicas = self.data.replicas().into_iter();
        replicas.any(|replica| replica.group_id() == CATALOG_GROUP && replica.stage != Stage::Preparing)
    }

    /// Records the founder's plan, if nothing speaks against it.
    pub(crate) async fn adopt(&self, from: &str, adopt: Adopt) -> Result<(), String> {
        let _recording = self.recording.lock().await;
        check_adopt(&self.probe(), from, &adopt)?;
        self.record(adopt).await?;
        self.adopted.notify_one();
        Ok(())
    }

    /// Records this node's own plan as the founder, unless something has changed since it was made from `seen`.
    pub(super) async fn adopt_own(&self, seen: &ProbeAnswer, adopt: Adopt) -> Result<(), String> {
        let _recording = self.recording.lock().await;
        if self.probe() != *seen {
            return Err("another plan has come first".to_owned());
        }
        self.record(adopt).await
    }

    /// Waits until a founder's plan has been recorded.
    pub(super) async fn adopted(&self) {
        self.adopted.notified().await;
    }

    async fn record(&self, adopt: Adopt) -> Result<(), String> {
        let data = self.data.clone();
        let recording = move || data.record_cluster(ClusterId(adopt.cluster_id.0), Some(adopt.plan));
        let recorded = tokio::task::spawn_blocking(recording).await;
        recorded
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }

    /// Lets a node in, if this node leads the catalog: registers its incarnation and adds its replica as a learner.
    /// Asking again gives the same answer.
    pub(crate) async fn let_in(&self, from: &str, join: Join) -> JoinAnswer {
        if from != join.name {
            let why = format!("{from} asks for {}", join.name);
            return JoinAnswer::Failed { why };
        }
        let (Some(catalog), Some(cluster_id)) = (self.registry.catalog(), self.data.cluster_id()) else {
            return JoinAnswer::Failed {
                why: format!("{} is in no cluster", self.own.name),
            };
        };
        // Older versions cannot read a registration that tells a level; from level 2 on there are none.
        let feature_level = match self.host.read(Catalog::feature_level) {
            1 => 1,
            _ => join.feature_level,
        };
        let join = Join { feature_level, ..join };
        let letting_in = let_in_here(&catalog, Id(cluster_id.0), join);
        timeout(JOIN_TIMEOUT, letting_in)
            .await
            .unwrap_or_else(|_| JoinAnswer::Failed {
                why: "the catalog has no quorum at the moment".to_owned(),
            })
    }
}

async fn let_in_here(catalog: &Partition, cluster_id: Id, join: Join) -> JoinAnswer {
    let status = catalog.status();
    if status.role != Role::Leader {
        let leader = status.leader.map(|leader| leader.node);
        return JoinAnswer::NotLeader { leader };
    }
    let (node, held) = (join.name.clone(), join.held());
    let register = Command::RegisterNode {
        name: join.name,
        incarnation: join.incarnation.0,
        address: join.address,
        rack: join.rack,
        version: join.version,
        feature_level: join.feature_level,
        catalog_replica: held,
    };
    let register = match Readable::new(register.encode().into()) {
        Ok(register) => register,
        Err(error) => return JoinAnswer::Failed { why: error.to_string() },
    };
    let reply = match propose_here(catalog, register).await {
        CommandAnswer::Reply(reply) => reply,
        CommandAnswer::NotLeader(leader) => return JoinAnswer::NotLeader { leader },
        CommandAnswer::Unknown(why) => return JoinAnswer::Failed { why },
    };
    let replica_id = match Reply::decode(&reply) {
        Ok(Reply::Node { replica_id }) => replica_id,
        Ok(Reply::Refused(refusal)) => {
            return JoinAnswer::Failed {
                why: refusal.to_string(),
            };
        }
        other => {
            return JoinAnswer::Failed {
                why: format!("the catalog answered {other:?}"),
            };
        }
    };
    let member = Member {
        replica_id: ReplicaId(replica_id),
        node,
    };
    match catalog.ensure_learner(member).await {
        Ok(()) => JoinAnswer::Joined { cluster_id, replica_id },
        Err(error) => JoinAnswer::Failed { why: error.to_string() },
    }
}

/// Whether the replica has seen neither a vote nor an entry.
pub(super) fn is_pristine(catalog: &Partition) -> bool {
    let status = catalog.status();
    status.term == 0 && status.voters.is_empty()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::plan_abc;
    use super::*;
    use crate::failures::Failures;

    #[test]
    fn a_catalog_replica_that_is_not_open_yet_counts_as_a_cluster() {
        let directory = tempfile::TempDir::new().unwrap();
        let data = Arc::new(DataDir::open(directory.path(), "prod", "a", Id([7; 16])).unwrap());
        let own = OwnName {
            name: "a".to_owned(),
            address: "a:1".to_owned(),
            rack: String::new(),
        };
        let membership = Membership::new(
            own,
            data.clone(),
            Registry::new(),
            CatalogHost::new(Failures::default()),
        );
        let catalog = [(CATALOG_GROUP, ReplicaId(1))];
        data.record_cluster(ClusterId([3; 16]), Some(plan_abc())).unwrap();
        data.record_preparing(&catalog).unwrap();
        assert!(!membership.probe().established, "it has never run");
        data.record_started(&catalog).unwrap();
        assert!(membership.probe().established);
    }
}
