//! The way into a cluster: ask around, decide, act, and again until this node runs a catalog replica that has history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use highwater_catalog::FEATURE_LEVEL;
use highwater_partition::Member;
use highwater_partition::log::{ClusterId, ReplicaId};
use tokio::time::{Instant, sleep};

use super::decision::Waiting;
use super::member::{Membership, is_pristine};
use super::{Adopt, Join, JoinAnswer, Plan, ProbeAnswer, Step, decide};
use crate::data_dir::DataDir;
use crate::error::Failure;
use crate::failures::Failures;
use crate::gossip::Gossip;
use crate::hex::Id;
use crate::link::{AddressBook, Link};
use crate::peer_calls::{self, ADOPT, JOIN, PROBE};
use crate::replicas::{CATALOG_GROUP, Keeper, Registry};

/// How long to wait for one node's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for being let in; longer than the other side takes to say no.
const JOIN_ANSWER_TIMEOUT: Duration = Duration::from_secs(7);
/// The pause between rounds of asking.
const ROUND_PAUSE: Duration = Duration::from_millis(300);
/// How often a node that waits says so again.
const REMINDER: Duration = Duration::from_secs(30);
/// How many times a hint to the catalog's leader is followed before the next round.
const HINTS_MAX: usize = 3;

/// What discovery works with.
pub(crate) struct DiscoveryOptions {
    pub(crate) membership: Arc<Membership>,
    pub(crate) data: Arc<DataDir>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) link: Link,
    pub(crate) addresses: Arc<AddressBook>,
    pub(crate) gossip: Arc<Gossip>,
    pub(crate) seeds: Vec<String>,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) version: String,
    pub(crate) failures: Failures,
}

/// Looks for the cluster, or founds it.
pub(crate) struct Discovery {
    options: DiscoveryOptions,
    reminder: Reminder,
    /// This node's catalog replica, if it can never run again.
    lost: Option<ReplicaId>,
    /// The one that it was given instead, or as its first; it counts as running, whether it was made yet or not.
    given: Option<u64>,
}

impl Discovery {
    pub(crate) fn new(options: DiscoveryOptions) -> Discovery {
        Discovery {
            options,
            reminder: Reminder::default(),
            lost: None,
            given: None,
        }
    }

    /// Returns once this node runs a catalog replica and owes the cluster no further step of its founding. `lost` is the
    /// catalog replica that this node had.
    pub(crate) async fn run(mut self, lost: Option<ReplicaId>) {
        self.lost = lost;
        while !self.is_settled() {
            if let Err(why) = self.round().await {
                self.reminder.say(&Waiting { on: Vec::new(), why });
            }
            tokio::select! {
                biased;
                () = self.options.membership.adopted() => {}
                () = sleep(ROUND_PAUSE) => {}
            }
        }
    }

    fn is_settled(&self) -> bool {
        let Some(catalog) = self.options.registry.catalog() else {
            return false;
        };
        let own_name = &self.options.membership.own().name;
        let is_founder = self.options.data.plan().is_some_and(|plan| plan.founder == *own_name);
        !is_founder || !is_pristine(&catalog)
    }

    async fn round(&mut self) -> Result<(), String> {
        let own = self.options.membership.probe();
        if let (Some(cluster_id), Some(plan)) = (own.cluster_id, &own.plan) {
            self.announce(ClusterId(cluster_id.0)).await?;
            if plan.founder != own.name && self.lost.is_none() {
                return self.start_planned(&own.name, cluster_id, plan).await;
            }
        }
        let others = self.ask_around().await;
        // Asking takes a while, in which this node may have adopted a plan. Whoever knows a cluster now may then know the one
        // founded with this very node: joining it would replace the catalog replica that the plan gives. A cluster comes
        // to be only after all have adopted, so whatever is not seen here has not been heard of above.
        if self.options.membership.probe() != own {
            return Ok(());
        }
        match decide(&own, &self.options.bootstrap, &others) {
            Step::Wait(waiting) => {
                self.reminder.say(&waiting);
                Ok(())
            }
            Step::Join { cluster_id } => self.join(cluster_id, &others).await,
            Step::Found { .. } if self.lost.is_some() => {
                Err("its catalog replica is lost, and no other node has a catalog with history".to_owned())
            }
            Step::Found { cluster_id, plan } => self.found(&own, cluster_id, plan).await,
        }
    }

    // ------------------------------------------------------------------------------------------------ asking around

    /// Everyone who answers, by name, but for this node.
    async fn ask_around(&self) -> BTreeMap<String, ProbeAnswer> {
        let own_name = &self.options.membership.own().name;
        let names: BTreeSet<String> = {
            let nodes = self.options.gossip.nodes().borrow().clone();
            let listed = self.options.bootstrap.iter().cloned();
            nodes
                .iter()
                .map(|node| node.name.clone())
                .chain(listed)
                .filter(|name| name != own_name)
                .collect()
        };
        let by_name = names.iter().map(|name| self.probe_node(name));
        let by_address = self.options.seeds.iter().map(|address| self.probe_address(address));
        let (by_name, by_address) = join(join_all(by_name), join_all(by_address)).await;
        let mut answers = BTreeMap::new();
        for answer in by_name
            .into_iter()
            .chain(by_address)
            .flatten()
            .filter(|answer| answer.name != *own_name)
        {
            self.options.addresses.learn(&answer.name, &answer.address);
            answers.insert(answer.name.clone(), answer);
        }
        answers
    }

    async fn probe_node(&self, name: &str) -> Option<ProbeAnswer> {
        let answered = self
            .options
            .link
            .call_node(name, PROBE, Vec::new(), ANSWER_TIMEOUT)
            .await;
        let answer = answered
            .inspect_err(|error| tracing::debug!(node = name, %error, "no answer to a probe"))
            .ok()?;
        read_probe(name, &answer)
    }

    async fn probe_address(&self, address: &str) -> Option<ProbeAnswer> {
        if address == self.options.membership.own().address {
            return None;
        }
        let answered = self
            .options
            .link
            .call_address(address, None, PROBE, Vec::new(), ANSWER_TIMEOUT)
            .await;
        let (name, answer) = answered
            .inspect_err(|error| tracing::debug!(address, %error, "no answer to a probe"))
            .ok()?;
        read_probe(&name, &answer)
    }

    // ----------------------------------------------------------------------------------------------------- founding

    /// A member's part: runs the empty replica that the plan gives it.
    async fn start_planned(&mut self, own_name: &str, cluster_id: Id, plan: &Plan) -> Result<(), String> {
        let Some(planned) = plan.member(own_name) else {
            return Err("the recorded plan does not name this node".to_owned());
        };
        tracing::info!(cluster_id = %cluster_id, founder = %plan.founder, "taking part in the founding");
        self.make_catalog(cluster_id, planned.replica_id).await
    }

    /// The founder's part; every step may have been done before.
    async fn found(&mut self, own: &ProbeAnswer, known: Option<Id>, plan: Plan) -> Result<(), String> {
        let adopt = Adopt {
            cluster_id: known.unwrap_or_else(Id::random),
            plan,
        };
        self.options.membership.adopt_own(own, adopt.clone()).await?;
        let cluster_id = adopt.cluster_id;
        self.announce(ClusterId(cluster_id.0)).await?;
        let body = peer_calls::encode_json(&adopt)?;
        for member in adopt.plan.members.iter().filter(|member| member.name != own.name) {
            let asked = self
                .options
                .link
                .call_node(&member.name, ADOPT, vec![body.clone()], ANSWER_TIMEOUT)
                .await;
            asked.map_err(|error| format!("founding waits for {}: {error}", member.name))?;
        }
        let planned = adopt
            .plan
            .member(&own.name)
            .ok_or("the plan does not name its founder")?;
        if self.options.registry.catalog().is_none() {
            self.make_catalog(cluster_id, planned.replica_id).await?;
        }
        let members = adopt.plan.members.iter().map(|member| Member {
            replica_id: ReplicaId(member.replica_id),
            node: member.name.clone(),
        });
        tracing::info!(cluster_id = %cluster_id, nodes = adopt.plan.members.len(), "founding the cluster");
        let initialized = self.options.keeper.initialize(CATALOG_GROUP, members.collect()).await;
        initialized.map_err(|error| error.to_string())
    }

    // ------------------------------------------------------------------------------------------------------ joining

    async fn join(&mut self, cluster_id: Id, others: &BTreeMap<String, ProbeAnswer>) -> Result<(), String> {
        if self.options.registry.catalog().is_some() {
            return Err("others have a cluster that this node was to found; it waits to hear from it".to_owned());
        }
        let mut why = "nobody in the cluster could be asked".to_owned();
        let mut asked = Vec::new();
        for other in others.values().filter(|other| other.established) {
            asked.push(other.name.clone());
            match self.ask_for_place(&other.name, cluster_id).await {
                Ok(replica_id) => return self.take_place(cluster_id, replica_id).await,
                Err(refused) => why = refused,
            }
        }
        let why =
            format!("joining cluster {cluster_id} needs a majority of its catalog's voters with their data: {why}");
        self.reminder.say(&Waiting { on: asked, why });
        Ok(())
    }

    /// Asks for a catalog replica, and once it is given one, to have it count as running before anything is made of it: a data
    /// directory without it is then found to be an old copy.
    async fn ask_for_place(&mut self, first: &str, cluster_id: Id) -> Result<u64, String> {
        let mut given = self.given.take();
        for _ in 0..2 {
            let (joined, replica_id) = self.ask_to_join(first, &self.request(given)).await?;
            if joined != cluster_id {
                return Err(format!("{first} is in cluster {joined}, not {cluster_id}"));
            }
            if given == Some(replica_id) {
                self.given = given;
                return Ok(replica_id);
            }
            given = Some(replica_id);
        }
        Err(format!("{first} gives one catalog replica after another"))
    }

    fn request(&self, given: Option<u64>) -> Join {
        let own = self.options.membership.own().clone();
        Join {
            name: own.name,
            incarnation: self.options.membership.incarnation(),
            address: own.address,
            rack: own.rack,
            version: self.options.version.clone(),
            feature_level: FEATURE_LEVEL,
            lost_catalog_replica: self.lost.map(|lost| lost.0),
            begins_catalog_replica: given,
        }
    }

    /// Asks `first` and whomever it names as the catalog's leader.
    async fn ask_to_join(&self, first: &str, join: &Join) -> Result<(Id, u64), String> {
        let body = peer_calls::encode_json(join)?;
        let mut node = first.to_owned();
        for _ in 0..HINTS_MAX {
            let asked = self
                .options
                .link
                .call_node(&node, JOIN, vec![body.clone()], JOIN_ANSWER_TIMEOUT)
                .await;
            let answer: JoinAnswer = peer_calls::decode_json(&asked.map_err(|error| error.to_string())?)?;
            match answer {
                JoinAnswer::Joined { cluster_id, replica_id } => return Ok((cluster_id, replica_id)),
                JoinAnswer::NotLeader { leader: Some(leader) } if leader == join.name => {
                    let former = format!("{node} remembers {leader} as the catalog's leader, which has lost its data");
                    return Err(format!("{former}; another one has to be elected"));
                }
                JoinAnswer::NotLeader { leader: Some(leader) } if leader != node => node = leader,
                JoinAnswer::NotLeader { .. } => return Err(format!("{node} knows no leader of the catalog")),
                JoinAnswer::Failed { why } if node == first => return Err(format!("{node}: {why}")),
                JoinAnswer::Failed { why } => {
                    return Err(format!("{first} takes {node} for the catalog's leader, but {why}"));
                }
            }
        }
        Err("the catalog's leader keeps moving".to_owned())
    }

    async fn take_place(&mut self, cluster_id: Id, replica_id: u64) -> Result<(), String> {
        let data = self.options.data.clone();
        let id = ClusterId(cluster_id.0);
        let recorded = tokio::task::spawn_blocking(move || data.record_cluster(id, None)).await;
        recorded
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        self.announce(id).await?;
        tracing::info!(cluster_id = %cluster_id, replica_id, "joined the cluster");
        self.make_catalog(cluster_id, replica_id).await?;
        if let Some(lost) = self.lost.take() {
            let removed = self.options.keeper.remove(CATALOG_GROUP, lost).await;
            removed.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    // -------------------------------------------------------------------------------------------------------- both

    async fn make_catalog(&self, cluster_id: Id, replica_id: u64) -> Result<(), String> {
        let new = vec![(CATALOG_GROUP, ReplicaId(replica_id))];
        let made = self.options.keeper.make(ClusterId(cluster_id.0), new).await;
        made.map_err(|error| error.to_string())
    }

    /// Makes the recorded cluster id known to the others.
    async fn announce(&self, cluster_id: ClusterId) -> Result<(), String> {
        self.options.link.set_cluster_id(cluster_id).map_err(|other| {
            let why = format!(
                "cluster id {} is in force, but {} is recorded",
                Id(other.0),
                Id(cluster_id.0)
            );
            self.options.failures.report(Failure::Inconsistent(why.clone()));
            why
        })?;
        self.options.gossip.set_cluster_id(cluster_id).await;
        Ok(())
    }
}

fn read_probe(name: &str, answer: &[u8]) -> Option<ProbeAnswer> {
    match peer_calls::decode_json::<ProbeAnswer>(answer) {
        Ok(answer) if answer.name == name => Some(answer),
        Ok(answer) => {
            tracing::warn!(node = name, calls_itself = %answer.name, "a node answers under another name");
            None
        }
        Err(why) => {
            tracing::warn!(node = name, %why, "a node answers nonsense");
            None
        }
    }
}

/// Says what is waited for: when that changes, and every so often. Reasons that take turns are not said at each turn.
#[derive(Default)]
struct Reminder {
    /// At most [`SAID_MAX`], oldest first.
    said: VecDeque<(Waiting, Instant)>,
}

/// Reasons that are remembered as said.
const SAID_MAX: usize = 8;

impl Reminder {
    fn say(&mut self, waiting: &Waiting) {
        if !self.is_due(waiting) {
            return;
        }
        tracing::info!(for_nodes = %waiting.on.join(", "), why = %waiting.why, "waiting for a cluster");
    }

    /// Whether this was not said a short time ago; if so, it counts as said.
    fn is_due(&mut self, waiting: &Waiting) -> bool {
        self.said.retain(|(_, at)| at.elapsed() < REMINDER);
        if self.said.iter().any(|(said, _)| said == waiting) {
            return false;
        }
        if self.said.len() == SAID_MAX {
            self.said.pop_front();
        }
        self.said.push_back((waiting.clone(), Instant::now()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(why: &str) -> Waiting {
        Waiting {
            on: vec!["n1".to_owned()],
            why: why.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reasons_that_take_turns_are_said_once_in_a_while() {
        let mut reminder = Reminder::default();
        assert!(reminder.is_due(&waiting("refused")) && reminder.is_due(&waiting("dialling again shortly")));
        for _ in 0..10 {
            assert!(!reminder.is_due(&waiting("refused")) && !reminder.is_due(&waiting("dialling again shortly")));
        }
        tokio::time::advance(REMINDER).await;
        assert!(reminder.is_due(&waiting("refused")), "still waiting: said again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_is_remembered_within_a_bound() {
        let mut reminder = Reminder::default();
        for number in 0..100 {
            assert!(reminder.is_due(&waiting(&number.to_string())));
        }
        assert_eq!(reminder.said.len(), SAID_MAX);
    }
}
