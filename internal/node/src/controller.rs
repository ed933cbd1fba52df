//! Makes what the catalog says come true.
//!
//! Two loops on every node, each driven by changes and each able to begin again at any point:
//!
//! * [`Controller::keep_replicas`]: makes and starts the replicas placed here, and deletes those that are retired or whose
//!   group has a committed tombstone.
//! * [`Controller::keep_registered`]: tells the catalog this node's address, rack and version.
//!
//! The others have files of their own: the catalog's members (`catalog_members`), the members of all other groups
//! (`groups`), which node gets what (`planner`), who leads (`leadership`), and retention.
//!
//! The catalog holds the target; the group's own membership is the truth, and is read anew before each step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_catalog::{Catalog, CatalogReplica, Command, FEATURE_LEVEL, Placement, Refusal, Reply};
use highwater_partition::log::{ClusterId, GroupId};
use highwater_partition::{Member, Role};
use tokio::time::{Instant, sleep};

use crate::absences::Absences;
use crate::access::FirstPolicy;
use crate::catalog::{CatalogClient, CatalogHost, member};
use crate::data_dir::{DataDir, Stage};
use crate::error::Failure;
use crate::failures::Failures;
use crate::first_start::FirstStart;
use crate::founding::OwnName;
use crate::hex::Id;
use crate::leaders::Leaders;
use crate::link::Link;
use crate::replicas::{CATALOG_GROUP, Hosted, Keeper, Registry, ReplicaError};
use crate::status::Problem;

/// How long to wait after something did not work.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a command to the catalog may take.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a node looks whether it hears from the catalog's leader; if not, it asks others whether it is still a member.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);
/// How long a new group's members wait, each for those before it, for somebody to make the first membership.
const FIRST_MEMBERS_PATIENCE: Duration = Duration::from_secs(1);

/// The groups here without any membership, and since when they have been seen so.
type Pristine = BTreeMap<GroupId, Instant>;

/// What the controller works with.
pub(crate) struct Controller {
    pub(crate) own: OwnName,
    pub(crate) version: String,
    pub(crate) cluster: String,
    pub(crate) data: Arc<DataDir>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) host: Arc<CatalogHost>,
    pub(crate) client: CatalogClient,
    pub(crate) first_start: FirstStart,
    pub(crate) link: Link,
    pub(crate) leaders: Leaders,
    pub(crate) first_policy: FirstPolicy,
    /// Kept by whoever leads the catalog.
    pub(crate) absences: Mutex<Absences>,
    pub(crate) failures: Failures,
}

impl Controller {
    // ----------------------------------------------------------------------------------------------- replicas here

    pub(crate) async fn keep_replicas(self: Arc<Self>) {
        let mut progress = self.host.progress();
        let mut pristine = Pristine::default();
        loop {
            progress.mark_unchanged();
            if let Err(error) = self.reconcile(&mut pristine).await {
                match error.is_early {
                    true => tracing::debug!(%error, "a replica is not as the catalog wants it yet"),
                    false => tracing::error!(%error, "a replica is not as the catalog wants it"),
                }
                sleep(RETRY_PAUSE).await;
                continue;
            }
            tokio::select! {
                biased;
                changed = progress.changed() => if changed.is_err() { return },
                () = sleep(FIRST_MEMBERS_PATIENCE), if !pristine.is_empty() => {}
            }
        }
    }

    async fn reconcile(&self, pristine: &mut Pristine) -> Result<(), ReplicaError> {
        let Some(cluster_id) = self.data.cluster_id() else {
            return Ok(());
        };
        self.check_cluster_id();
        // A replica that fails must not stand in the way of the others; the first failure is answered.
        let mut all = Ok(());
        for record in self.data.replicas() {
            let may_go = |catalog: &Catalog| catalog.may_be_removed(record.group, record.replica);
            if self.host.read(may_go) {
                let removed = self.keeper.remove(record.group_id(), record.replica_id()).await;
                all = all.and(removed);
            }
        }
        if !self.new_placements().is_empty() {
            self.first_start.be_certain().await;
            let made = self.make_placed(cluster_id).await;
            all = all.and(made);
        }
        self.note_pristine(pristine);
        for (group, since) in pristine.iter() {
            let initialized = self.initialize(*group, since.elapsed()).await;
            all = all.and(initialized);
        }
        all
    }

    /// Replicas placed on this very incarnation that are not recorded as started: unknown here, or not made to the end.
    fn new_placements(&self) -> Vec<Placement> {
        let records = self.data.replicas();
        let started = records.iter().filter(|record| record.stage != Stage::Preparing);
        let known: BTreeSet<(u64, u64)> = started.map(|record| (record.group, record.replica)).collect();
        let incarnation = self.data.incarnation();
        self.host.read(|catalog| {
            let is_this_life = catalog
                .node(&self.own.name)
                .is_some_and(|node| Id(node.incarnation) == incarnation);
            let wanted = catalog
                .groups_on(&self.own.name)
                .filter(|placement| is_this_life && !placement.dead);
            wanted
                .filter(|wanted| !known.contains(&(wanted.group_id, wanted.replica_id)))
                .collect()
        })
    }

    /// Makes what is placed here and new, by what is certain about the catalog.
    async fn make_placed(&self, cluster_id: ClusterId) -> Result<(), ReplicaError> {
        let mut all = Ok(());
        let mut new = Vec::new();
        for placed in self.new_placements() {
            match self.vacate(&placed).await {
                Ok(()) => new.push(placed),
                failed => all = all.and(failed),
            }
        }
        if new.is_empty() {
            return all;
        }
        tracing::info!(replicas = new.len(), "making replicas");
        let made = self.first_start.make(cluster_id, new).await;
        all.and(made)
    }

    /// Ends other replicas of the group here. The catalog gives a place on the same node to a new id only if the old one is
    /// dead. If that is not known here, an operator has given it up in a recovery; or the directory is an old copy.
    async fn vacate(&self, new: &Placement) -> Result<(), ReplicaError> {
        let group = GroupId(new.group_id);
        let records = self.data.replicas().into_iter();
        for other in records.filter(|record| record.group == new.group_id && record.replica != new.replica_id) {
            if other.stage == Stage::Started && new.continues != Some(other.replica) {
                let replica = other.replica;
                match self.host.read(|catalog| catalog.is_recovered(group.0)) {
                    true => tracing::warn!(group = group.0, replica, "a replica was given up by a recovery"),
                    false => tracing::error!(
                        group = group.0,
                        replica,
                        "a replica was given up that is not dead here: an old copy"
                    ),
                }
                self.first_start.dead.record(other.id()).await;
            }
            self.keeper.end(group, other.replica_id()).await?;
        }
        Ok(())
    }

    fn note_pristine(&self, pristine: &mut Pristine) {
        let hosted = self.registry.all();
        let is_new = |hosted: &&Arc<Hosted>| hosted.group_id != CATALOG_GROUP && hosted.status().voters.is_empty();
        let new: BTreeSet<GroupId> = hosted.iter().filter(is_new).map(|hosted| hosted.group_id).collect();
        pristine.retain(|group, _| new.contains(group));
        for group in new {
            pristine.entry(group).or_insert_with(Instant::now);
        }
    }

    /// Gives a group its first members. The preferred leader does it at once, the others in turn if nothing has been
    /// heard of the group for a while: the nodes before them are not there. All of them make the same first entry, from
    /// the placement that the topic was created with, so it does no harm if several do it.
    async fn initialize(&self, group: GroupId, pristine_for: Duration) -> Result<(), ReplicaError> {
        let members = self.host.read(|catalog| {
            let (_, partition) = catalog.partition_of_group(group.0)?;
            if partition.changed {
                return None; // Its members come from its leader: others than the first ones must never found it.
            }
            let mut living = partition.replicas.iter().filter(|replica| !catalog.is_dead(replica));
            let turn = living.position(|replica| replica.node == self.own.name)?;
            let is_due = pristine_for >= FIRST_MEMBERS_PATIENCE * u32::try_from(turn).unwrap_or(u32::MAX);
            is_due.then(|| partition.replicas.iter().map(member).collect::<Vec<_>>())
        });
        match members {
            Some(members) => self.keeper.initialize(group, members).await,
            None => Ok(()),
        }
    }

    fn check_cluster_id(&self) {
        let recorded = self.data.cluster_id().map(|id| Id(id.0));
        let committed = self.host.read(|catalog| catalog.cluster_id()).map(Id);
        if let (Some(recorded), Some(committed)) = (recorded, committed)
            && recorded != committed
        {
            let why = format!("the catalog is of cluster {committed}, the data directory of {recorded}");
            self.failures.report(Failure::Inconsistent(why));
        }
    }

    // --------------------------------------------------------------------------------------------- this node's entry

    pub(crate) async fn keep_registered(self: Arc<Self>) {
        let mut progress = self.host.progress();
        loop {
            progress.mark_unchanged();
            let is_forgotten = self
                .registry
                .hosted(CATALOG_GROUP)
                .is_some_and(|own| own.is_forgotten());
            if (self.wants_to_register() || is_forgotten) && !self.register(is_forgotten).await {
                sleep(RETRY_PAUSE).await;
                continue;
            }
            tokio::select! {
                biased;
                changed = progress.changed() => if changed.is_err() { return },
                () = sleep(FORGOTTEN_AFTER) => {}
            }
        }
    }

    /// Only once the catalog here is this cluster's and knows this node: it has joined before.
    fn wants_to_register(&self) -> bool {
        let Some(own) = self.registry.hosted(CATALOG_GROUP) else {
            return false;
        };
        self.host.read(|catalog| {
            catalog.node(&self.own.name).is_some_and(|known| {
                known.incarnation != self.data.incarnation().0
                    || known.catalog_replica_id != own.replica_id.0
                    || !known.catalog_replica_started
                    || known.address != self.own.address
                    || known.rack != self.own.rack
                    || known.version != self.version
                    || known.removed
                    || known.feature_level != self.told_feature_level(catalog)
            })
        })
    }

    /// Older versions cannot read a registration that tells a level; from level 2 on there are none.
    fn told_feature_level(&self, catalog: &Catalog) -> u32 {
        match catalog.feature_level() {
            1 => 1,
            _ => FEATURE_LEVEL,
        }
    }

    /// Whether it is done. `anyway`: also if all is known here as it is, for what is known may be old.
    async fn register(&self, anyway: bool) -> bool {
        let Some(own) = self.registry.hosted(CATALOG_GROUP) else {
            return true;
        };
        // What is known here may be old: a newer entry of this node can be on its way.
        self.client.catch_up(Instant::now() + COMMAND_TIMEOUT).await;
        if !self.wants_to_register() && !anyway {
            return true;
        }
        let feature_level = self.host.read(|catalog| self.told_feature_level(catalog));
        let mut answer = self.propose_registration(&own, feature_level).await;
        if let Ok(Reply::Refused(Refusal::TooOld { needed, .. })) = answer
            && feature_level < needed
            && needed <= FEATURE_LEVEL
        {
            // The catalog is ahead of what is known of it here.
            answer = self.propose_registration(&own, FEATURE_LEVEL).await;
        }
        self.is_registered(&own, answer).await
    }

    async fn propose_registration(&self, own: &Hosted, feature_level: u32) -> Result<Reply, Problem> {
        let command = Command::RegisterNode {
            name: self.own.name.clone(),
            incarnation: self.data.incarnation().0,
            address: self.own.address.clone(),
            rack: self.own.rack.clone(),
            version: self.version.clone(),
            feature_level,
            catalog_replica: Some(CatalogReplica::Runs(own.replica_id.0)),
        };
        self.client.command(&command, Instant::now() + COMMAND_TIMEOUT).await
    }

    async fn is_registered(&self, own: &Hosted, answer: Result<Reply, Problem>) -> bool {
        match answer {
            Ok(Reply::Node { .. }) => true,
            Ok(Reply::Refused(
                refusal @ (Refusal::IncarnationReplaced { .. } | Refusal::NodeRemoved { .. } | Refusal::TooOld { .. }),
            )) => {
                self.failures.report(Failure::Inconsistent(refusal.to_string()));
                true
            }
            Ok(Reply::Refused(refusal @ Refusal::CatalogReplicaReplaced { .. })) => {
                self.first_start.dead.record((CATALOG_GROUP, own.replica_id)).await;
                self.failures.report(Failure::Inconsistent(refusal.to_string()));
                true
            }
            other => {
                tracing::debug!(?other, "this node is not registered yet");
                false
            }
        }
    }

    /// Whether this node is a member of the committed catalog under this incarnation, which knows that its replica of it runs:
    /// from then on a data directory without that replica is found to be an old copy.
    pub(crate) fn is_member(&self) -> bool {
        let Some(hosted) = self.registry.hosted(CATALOG_GROUP) else {
            return false;
        };
        let status = hosted.status();
        let is_here = |member: &Member| member.replica_id == hosted.replica_id;
        let in_group = status.role != Role::Stopped && status.voters.iter().chain(&status.learners).any(is_here);
        let incarnation = self.data.incarnation().0;
        let is_known = |catalog: &Catalog| {
            let node = catalog.node(&self.own.name);
            node.is_some_and(|node| node.incarnation == incarnation && node.catalog_replica_started)
        };
        in_group && self.host.read(is_known)
    }
}
