//! The cluster that the tests of access ask: tenants with things of the same names, and callers of every kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_proto::v1::group_service_client::GroupServiceClient;

use super::super::access::{grant, rule};
use super::super::http_client::HttpClient;
use super::super::trail::has_audit;
use super::super::*;
use super::reference::Who;

/// The topic that each tenant has.
pub(super) const TOPIC: &str = "orders";
/// And the consumer group.
pub(super) const GROUP: &str = "billing";
/// A topic and a group that nobody has.
const NO_TOPIC: &str = "absent";
const NO_GROUP: &str = "nothing";
/// The tenants that have something.
pub(super) const OWNERS: [&str; 3] = ["shop", "other", OPERATOR_TENANT];
/// A tenant that nobody has made.
const NO_TENANT: &str = "gone";

/// Everybody who calls.
pub(super) const CALLERS: [Who; 12] = [
    Who::Node,
    Who::Operator,
    Who::Owner,
    Who::Producer,
    Who::Consumer,
    Who::Viewer,
    Who::Denied,
    Who::Shorter,
    Who::Longer,
    Who::Stranger,
    Who::Other,
    Who::Unmade,
];

impl Who {
    /// The tenant and the name of the client; nodes have none.
    pub(super) fn client(self) -> Option<(&'static str, &'static str)> {
        let of_shop = |name| Some(("shop", name));
        match self {
            Who::Node => None,
            Who::Operator => Some((OPERATOR_TENANT, "tester")),
            Who::Owner => of_shop("owner"),
            Who::Producer => of_shop("producer"),
            Who::Consumer => of_shop("consumer"),
            Who::Viewer => of_shop("viewer"),
            Who::Denied => of_shop("denied"),
            Who::Shorter => of_shop("shorter"),
            Who::Longer => of_shop("longer"),
            Who::Stranger => of_shop("stranger"),
            Who::Other => Some(("other", "tester")),
            Who::Unmade => Some((NO_TENANT, "tester")),
        }
    }

    pub(super) fn certificate(self, ca: &TestCa) -> TlsFiles {
        match self.client() {
            Some((tenant, name)) => ca.client_files(tenant, name),
            None => ca.node_files(CLUSTER, "b"),
        }
    }

    /// Something in the caller's own tenant, or in another one, that is there or is not; also in a tenant that is not.
    pub(super) fn targets(self) -> Vec<Target> {
        let (own, name) = self.client().unwrap_or(("shop", "none"));
        let foreign = if own == "shop" { "other" } else { "shop" };
        let target = |tenant: &str, exists: bool| Target {
            caller: name.to_owned(),
            is_own: tenant == own,
            exists,
            topic: format!("{tenant}/{}", if exists { TOPIC } else { NO_TOPIC }),
            group: if exists { GROUP } else { NO_GROUP }.to_owned(),
            tenant: tenant.to_owned(),
            node: if exists { "a" } else { "z" }.to_owned(),
        };
        // Who is of no tenant has nothing of its own.
        let own_exists = OWNERS.contains(&own);
        vec![
            target(own, own_exists),
            target(own, false),
            target(foreign, true),
            target(foreign, false),
            target(NO_TENANT, false),
        ]
    }
}

/// What a call is about, in every way in which a call can name it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The caller's own name, for names that must not meet.
    pub(super) caller: String,
    pub(super) is_own: bool,
    pub(super) exists: bool,
    /// `tenant/topic`.
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) tenant: String,
    pub(super) node: String,
}

impl Target {
    /// Text about this as it would be about `other`. Messages put what they name between backquotes.
    pub(super) fn renamed(&self, other: &Target, text: &str) -> String {
        let names = [
            (&self.topic, &other.topic),
            (&self.group, &other.group),
            (&self.tenant, &other.tenant),
        ];
        names.iter().fold(text.to_owned(), |text, (from, to)| {
            text.replace(&format!("`{from}`"), &format!("`{to}`"))
        })
    }
}

/// Three nodes; each of the tenants has a topic with one record that says whose it is, and a group.
pub(super) struct World {
    pub(super) cluster: TestCluster,
    /// The node that leads a tenant's topic.
    leaders: BTreeMap<String, usize>,
    channels: BTreeMap<(Who, usize), Channel>,
    /// What there was before anybody asked.
    before: Picture,
}

/// What nothing that is asked here may change.
#[derive(Debug, PartialEq)]
struct Picture {
    policy: Arc<highwater_catalog::Access>,
    /// Tenant, name, id and number of partitions.
    topics: Vec<(String, String, u64, usize)>,
    settings: highwater_catalog::Settings,
    /// Name, drained, leaving.
    nodes: Vec<(String, bool, bool)>,
}

impl Picture {
    fn of(cluster: &TestCluster, number: usize) -> Picture {
        cluster.nodes[number].as_ref().unwrap().host().read(|catalog| Picture {
            policy: catalog.access().clone(),
            topics: catalog
                .all_topics()
                .map(|topic| {
                    (
                        topic.tenant.clone(),
                        topic.name.clone(),
                        topic.topic_id,
                        topic.partitions.len(),
                    )
                })
                .collect(),
            settings: catalog.settings().clone(),
            nodes: catalog
                .members()
                .map(|node| (node.name.clone(), node.drained, node.leaving))
                .collect(),
        })
    }
}

impl World {
    pub(super) async fn new() -> World {
        let cluster = TestCluster::founded().await;
        let is_set_up = |catalog: &highwater_catalog::Catalog| {
            catalog.access().is_set_up() && catalog.feature_level() == highwater_catalog::FEATURE_LEVEL
        };
        cluster.until_everywhere("the first policy", is_set_up).await;
        // Which the cluster makes by itself, so it is not to come in between.
        cluster.until_everywhere("the topic of the audit", has_audit).await;
        let mut leaders = BTreeMap::new();
        for tenant in OWNERS {
            let created = cluster.client(0, tenant).await.create(TOPIC, 1).await;
            leaders.insert(tenant.to_owned(), TestCluster::number(&created.partitions[0].leader));
            cluster.produce(tenant, batch_of(TOPIC, 0, &[tenant])).await.unwrap();
            claim(&cluster, tenant).await;
        }
        let version = cluster.change(OPERATOR_TENANT, policy()).await.unwrap();
        let is_known = |catalog: &highwater_catalog::Catalog| catalog.access().version() >= version;
        cluster.until_everywhere("the policy", is_known).await;
        let mut channels = BTreeMap::new();
        for who in CALLERS {
            for number in 0..3 {
                let files = who.certificate(&cluster.ca);
                let client = TestClient::connect(cluster.ports[number], files).await;
                channels.insert((who, number), client.channel);
            }
        }
        World {
            before: Picture::of(&cluster, 0),
            cluster,
            leaders,
            channels,
        }
    }

    /// Nothing has changed of what all share or others have.
    pub(super) fn is_untouched(&self) {
        // The one that was asked knows of it, whichever that was.
        for (number, name) in NAMES[..3].iter().enumerate() {
            assert_eq!(Picture::of(&self.cluster, number), self.before, "at {name}");
        }
    }

    /// The node that leads a tenant's topic.
    pub(super) fn leader(&self, tenant: &str) -> usize {
        self.leaders[tenant]
    }

    /// The node to ask about a target: the one that could do it.
    pub(super) fn node_for(&self, target: &Target) -> usize {
        self.leaders.get(&target.tenant).copied().unwrap_or(0)
    }

    pub(super) fn channel(&self, who: Who, number: usize) -> &Channel {
        &self.channels[&(who, number)]
    }

    pub(super) async fn http(&self, who: Who, number: usize) -> HttpClient {
        HttpClient::connect(self.cluster.ports[number], who.certificate(&self.cluster.ca)).await
    }
}

/// Nobody owns `shop` any more but who is named.
fn policy() -> v1::PolicyChange {
    let role = |client: &str, role: &str| grant(&format!("shop/{client}"), role, "shop");
    let allow = |client: &str, resource: &str| rule(&format!("shop/{client}"), "shop", resource, "*");
    v1::PolicyChange {
        remove_grants: vec![role("*", "owner")],
        add_grants: vec![
            role("owner", "owner"),
            role("producer", "producer"),
            role("consumer", "consumer"),
            role("viewer", "viewer"),
            role("denied", "owner"),
        ],
        add_rules: vec![
            v1::Rule {
                deny: true,
                ..rule("shop/denied", "shop", "topic:orders", "consume")
            },
            v1::Rule {
                deny: true,
                ..rule("shop/denied", "shop", "topic:absent", "consume")
            },
            allow("shorter", "topic:order"),
            allow("shorter", "topic:absen"),
            allow("shorter", "group:billin"),
            allow("longer", "topic:orders.*"),
            allow("longer", "topic:absent.*"),
            allow("longer", "group:billing.*"),
        ],
        ..Default::default()
    }
}

/// Makes the group, whoever leads.
async fn claim(cluster: &TestCluster, tenant: &str) {
    let claiming = async {
        for number in (0..3).cycle() {
            let mut groups = GroupServiceClient::new(cluster.client(number, tenant).await.channel);
            let claim = v1::ClaimPartitionRequest {
                member: tenant.to_owned(),
                topic: TOPIC.to_owned(),
                group: GROUP.to_owned(),
                ..Default::default()
            };
            if groups.claim_partition(claim).await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, claiming).await.expect("nobody leads");
}
