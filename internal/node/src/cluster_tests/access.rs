//! The policy in a whole cluster: who may change it, and that a change counts everywhere at once.

use futures::StreamExt;
use highwater_proto::v1::access_service_client::AccessServiceClient;
use highwater_proto::v1::group_service_client::GroupServiceClient;
use tonic::Status;

use super::*;

pub(super) fn grant(client: &str, role: &str, domain: &str) -> v1::Grant {
    v1::Grant {
        client: client.to_owned(),
        role: role.to_owned(),
        domain: domain.to_owned(),
    }
}

pub(super) fn rule(subject: &str, domain: &str, resource: &str, action: &str) -> v1::Rule {
    v1::Rule {
        subject: subject.to_owned(),
        domain: domain.to_owned(),
        resource: resource.to_owned(),
        action: action.to_owned(),
        deny: false,
    }
}

pub(super) fn adding(grant: v1::Grant) -> v1::PolicyChange {
    v1::PolicyChange {
        add_grants: vec![grant],
        ..Default::default()
    }
}

pub(super) fn removing(grant: v1::Grant) -> v1::PolicyChange {
    v1::PolicyChange {
        remove_grants: vec![grant],
        ..Default::default()
    }
}

/// Three nodes with their first policy, and topic `orders` of tenant `shop` on all of them.
pub(super) async fn cluster() -> TestCluster {
    let cluster = TestCluster::founded().await;
    let is_set_up = |catalog: &highwater_catalog::Catalog| catalog.access().is_set_up();
    cluster.until_everywhere("the first policy", is_set_up).await;
    cluster.client(0, "shop").await.create("orders", 1).await;
    cluster
}

impl TestCluster {
    pub(super) async fn access(&self, number: usize, tenant: &str) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.client(number, tenant).await.channel)
    }

    /// Changes the policy as a client of a tenant, whatever its version is.
    pub(super) async fn change(&self, tenant: &str, change: v1::PolicyChange) -> Result<u64, Status> {
        self.change_at(0, tenant, change).await
    }

    /// The same at a certain node.
    pub(super) async fn change_at(&self, number: usize, tenant: &str, change: v1::PolicyChange) -> Result<u64, Status> {
        let mut client = self.access(number, tenant).await;
        let whole = v1::GetPolicyRequest {
            tenant: if tenant == OPERATOR_TENANT {
                String::new()
            } else {
                tenant.to_owned()
            },
        };
        let seen = client.get_policy(whole).await?.into_inner();
        let request = v1::ChangePolicyRequest {
            expected_version: seen.version,
            change: Some(change),
        };
        Ok(client.change_policy(request).await?.into_inner().version)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_manages_a_tenant_changes_what_counts_there_and_nothing_else() {
    let cluster = cluster().await;
    for (tenant, change) in [
        ("shop", adding(grant("shop/tester", "owner", "other"))),
        ("shop", adding(grant("shop/tester", "operator", "@cluster"))),
        ("shop", removing(grant("ops/tester", "operator", "@cluster"))),
        ("shop", removing(grant("other/*", "owner", "other"))),
        (
            "shop",
            v1::PolicyChange {
                add_rules: vec![rule("owner", "*", "*", "*")],
                ..Default::default()
            },
        ),
        ("shop", v1::PolicyChange::default()),
    ] {
        let status = cluster.change(tenant, change.clone()).await.unwrap_err();
        assert_eq!(reason(&status), Reason::PermissionDenied, "{change:?}");
    }
    let own = adding(grant("other/tester", "viewer", "shop"));
    let version = cluster.change("shop", own.clone()).await.unwrap();
    assert_eq!(cluster.change("shop", own).await.unwrap(), version);
    cluster
        .change(OPERATOR_TENANT, adding(grant("thief/tester", "viewer", "shop")))
        .await
        .unwrap();

    let mut shop = cluster.access(0, "shop").await;
    let seen = shop
        .get_policy(v1::GetPolicyRequest {
            tenant: "shop".to_owned(),
        })
        .await;
    let seen = seen.unwrap().into_inner();
    assert!(
        seen.grants.iter().all(|grant| grant.domain == "shop"),
        "{:?}",
        seen.grants
    );
    assert!(seen.version > version);
    for tenant in ["", "other"] {
        let request = v1::GetPolicyRequest {
            tenant: tenant.to_owned(),
        };
        assert_eq!(
            reason(&shop.get_policy(request).await.unwrap_err()),
            Reason::PermissionDenied
        );
    }
    let late = v1::ChangePolicyRequest {
        expected_version: version,
        change: Some(adding(grant("other/tester", "owner", "shop"))),
    };
    assert_eq!(
        reason(&shop.change_policy(late).await.unwrap_err()),
        Reason::PolicyChanged
    );
    let misspelled = cluster
        .change("shop", adding(grant("other/tester", "ovner", "shop")))
        .await;
    let status = misspelled.unwrap_err();
    assert!(status.message().contains("role ovner does not exist"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_learns_about_itself_and_managers_about_everybody() {
    let cluster = cluster().await;
    let mut shop = cluster.access(1, "shop").await;
    let who = shop.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(who.identity, format!("spiffe://{CLUSTER}/tenant/shop/client/tester"));
    assert_eq!((who.tenant.as_str(), who.client.as_str()), ("shop", "tester"));
    assert_eq!(who.grants, [grant("shop/*", "owner", "shop")]);
    assert!(!who.configured_operator && !who.no_policy && !who.shut_out);
    let ask = |client: &str, domain: &str, change| v1::ExplainRequest {
        client: client.to_owned(),
        domain: domain.to_owned(),
        resource: "topic:orders".to_owned(),
        action: "produce".to_owned(),
        change,
    };
    let own = shop.explain(ask("", "shop", None)).await.unwrap().into_inner();
    assert!(own.allowed);
    assert_eq!(own.rule, Some(rule("owner", "*", "*", "*")));
    assert_eq!(own.reason, "by the rule `p, owner, *, *, *, allow`");
    let foreign = shop.explain(ask("", "other", None)).await.unwrap().into_inner();
    assert_eq!((foreign.allowed, foreign.reason.as_str()), (false, "no rule allows it"));
    let other = shop
        .explain(ask("other/tester", "shop", None))
        .await
        .unwrap()
        .into_inner();
    assert!(!other.allowed);
    let change = adding(grant("other/tester", "producer", "shop"));
    let after = shop
        .explain(ask("other/tester", "shop", Some(change.clone())))
        .await
        .unwrap();
    assert!(after.into_inner().allowed, "as it would be");
    let still = shop
        .explain(ask("other/tester", "shop", None))
        .await
        .unwrap()
        .into_inner();
    assert!(!still.allowed, "nothing was changed");
    for request in [ask("other/tester", "other", None), ask("", "other", Some(change))] {
        assert_eq!(
            reason(&shop.explain(request).await.unwrap_err()),
            Reason::PermissionDenied
        );
    }
    let files = cluster.ca.node_files(CLUSTER, "intruder");
    let mut node = AccessServiceClient::new(TestClient::connect(cluster.ports[0], files).await.channel);
    let status = node.who_am_i(v1::WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(reason(&status), Reason::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_manages_a_tenant_learns_nothing_of_others_by_what_is_refused() {
    let cluster = cluster().await;
    let secret = v1::PolicyChange {
        add_rules: vec![rule("secret", "other", "topic:a", "consume")],
        ..Default::default()
    };
    cluster.change(OPERATOR_TENANT, secret).await.unwrap();
    let mut shop = cluster.access(0, "shop").await;
    let mut tried = async |client: &str, change| {
        let request = v1::ExplainRequest {
            client: client.to_owned(),
            domain: "shop".to_owned(),
            resource: "topic:orders".to_owned(),
            action: "produce".to_owned(),
            change,
        };
        shop.explain(request).await.map(tonic::Response::into_inner)
    };
    // What may not be changed is not tried either.
    for change in [
        removing(grant("ops/tester", "operator", "@cluster")),
        adding(grant("shop/tester", "secret", "other")),
    ] {
        let status = tried("", Some(change.clone())).await.unwrap_err();
        assert_eq!(reason(&status), Reason::PermissionDenied, "{change:?}");
    }
    for role in ["secret", "nothing"] {
        let change = adding(grant("shop/app", role, "shop"));
        for status in [
            tried("", Some(change.clone())).await.unwrap_err(),
            cluster.change("shop", change).await.unwrap_err(),
        ] {
            let told = status.message();
            assert!(told.contains(&format!("role {role} does not exist")), "{told}");
        }
    }
    let mut answers = Vec::new();
    for tenant in ["other", "nobody"] {
        let client = format!("{tenant}/feed");
        let change = adding(grant(&client, "producer", "shop"));
        let before = tried(&client, None).await.unwrap();
        let dry = tried(&client, Some(change.clone())).await.unwrap();
        cluster.change("shop", change.clone()).await.unwrap();
        answers.push([before, dry, tried(&client, None).await.unwrap()]);
        cluster
            .change("shop", removing(change.add_grants[0].clone()))
            .await
            .unwrap();
    }
    assert_eq!(answers[0], answers[1]);
    cluster
        .change("shop", adding(grant("nobody/feed", "producer", "shop")))
        .await
        .unwrap();
    let mut operator = cluster.access(0, OPERATOR_TENANT).await;
    let request = v1::ExplainRequest {
        client: "nobody/feed".to_owned(),
        domain: "shop".to_owned(),
        resource: "topic:orders".to_owned(),
        action: "produce".to_owned(),
        change: None,
    };
    let told = operator.explain(request).await.unwrap().into_inner();
    assert!(
        told.reason.contains("its tenant does not exist"),
        "operators are told: {told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_are_made_suspended_and_deleted_by_operators() {
    let cluster = cluster().await;
    let mut operator = cluster.access(0, OPERATOR_TENANT).await;
    let name = |tenant: &str| tenant.to_owned();
    let mut newcomer = cluster.client(0, "newcomer").await;
    let create = || v1::CreateTopicRequest {
        topic: "orders".to_owned(),
        partitions: 1,
        ..Default::default()
    };
    let status = newcomer.topics.create_topic(create()).await.unwrap_err();
    assert_eq!(reason(&status), Reason::PermissionDenied, "nobody has made its tenant");
    let mut who = AccessServiceClient::new(newcomer.channel.clone());
    assert!(who.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner().shut_out);
    let made = v1::CreateTenantRequest {
        tenant: name("newcomer"),
        clients_role: None,
    };
    operator.create_tenant(made.clone()).await.unwrap();
    assert_eq!(
        reason(&operator.create_tenant(made).await.unwrap_err()),
        Reason::Refused
    );
    timeout(PATIENCE, newcomer.topics.create_topic(create()))
        .await
        .unwrap()
        .unwrap();

    let suspend = |suspended| v1::SuspendTenantRequest {
        tenant: name("newcomer"),
        suspended,
    };
    operator.suspend_tenant(suspend(true)).await.unwrap();
    let status = newcomer
        .topics
        .list_topics(v1::ListTopicsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(reason(&status), Reason::PermissionDenied);
    operator.suspend_tenant(suspend(false)).await.unwrap();
    let listed = newcomer
        .topics
        .list_topics(v1::ListTopicsRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.into_inner().topics.len(), 1);

    let tenants = operator
        .list_tenants(v1::ListTenantsRequest {})
        .await
        .unwrap()
        .into_inner()
        .tenants;
    let found = tenants.iter().find(|tenant| tenant.name == "newcomer").unwrap();
    assert_eq!((found.suspended, found.topics, found.partitions), (false, 1, 1));
    let delete = |delete_topics| v1::DeleteTenantRequest {
        tenant: name("newcomer"),
        delete_topics,
        confirm_name: name("newcomer"),
    };
    for unconfirmed in ["", "Newcomer", "newcomer ", "shop"] {
        let request = v1::DeleteTenantRequest {
            confirm_name: name(unconfirmed),
            ..delete(true)
        };
        let status = operator.delete_tenant(request).await.unwrap_err();
        let detail = highwater_proto::detail::from_status(&status).unwrap();
        assert_eq!(
            (status.code(), detail.reason(), detail.field.as_str()),
            (tonic::Code::InvalidArgument, Reason::InvalidArgument, "confirm_name"),
            "{unconfirmed:?}"
        );
    }
    let untouched = newcomer.topics.list_topics(v1::ListTopicsRequest::default()).await;
    assert_eq!(
        untouched.unwrap().into_inner().topics.len(),
        1,
        "it is not even suspended"
    );
    let status = operator.delete_tenant(delete(false)).await.unwrap_err();
    assert!(status.message().contains("has 1 topics"), "{status}");
    operator.delete_tenant(delete(true)).await.unwrap();
    assert_eq!(
        reason(&operator.delete_tenant(delete(true)).await.unwrap_err()),
        Reason::TenantNotFound
    );
    let status = newcomer
        .topics
        .list_topics(v1::ListTopicsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(reason(&status), Reason::PermissionDenied);

    let mut shop = cluster.access(0, "shop").await;
    assert_eq!(
        reason(&shop.list_tenants(v1::ListTenantsRequest {}).await.unwrap_err()),
        Reason::PermissionDenied
    );
    assert_eq!(
        reason(&shop.suspend_tenant(suspend(true)).await.unwrap_err()),
        Reason::PermissionDenied
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_see_some_topics_and_groups_sees_those_and_no_others() {
    let cluster = cluster().await;
    let mut shop = cluster.client(0, "shop").await;
    shop.create("orders.eu", 1).await;
    let only_eu = v1::PolicyChange {
        remove_grants: vec![grant("shop/*", "owner", "shop")],
        add_grants: vec![grant("shop/admin", "owner", "shop")],
        add_rules: vec![
            rule("shop/tester", "shop", "topic:orders.*", "*"),
            rule("shop/tester", "shop", "group:eu*", "*"),
        ],
        ..Default::default()
    };
    cluster.change("shop", only_eu).await.unwrap();
    let listed = shop
        .topics
        .list_topics(v1::ListTopicsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .topics;
    assert_eq!(
        listed.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(),
        ["orders.eu"]
    );
    let described = shop.describe().await;
    assert!(
        described.replicas.iter().all(|replica| replica.topic == "orders.eu"),
        "{:?}",
        described.replicas
    );
    let watched = shop.cluster.watch_cluster(v1::WatchClusterRequest {}).await.unwrap();
    let first = timeout(PATIENCE, watched.into_inner().next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(
        first.topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(),
        ["orders.eu"]
    );
    for topic in ["orders", "nothing"] {
        let request = v1::GetTopicRequest {
            topic: topic.to_owned(),
        };
        assert_eq!(
            reason(&shop.topics.get_topic(request).await.unwrap_err()),
            Reason::TopicNotFound
        );
    }
    let create = |topic: &str| v1::CreateTopicRequest {
        topic: topic.to_owned(),
        ..Default::default()
    };
    let status = shop.topics.create_topic(create("other")).await.unwrap_err();
    assert_eq!(reason(&status), Reason::PermissionDenied);
    timeout(PATIENCE, shop.topics.create_topic(create("orders.us")))
        .await
        .unwrap()
        .unwrap();

    let claim = |group: &str| v1::ClaimPartitionRequest {
        topic: "orders.eu".to_owned(),
        group: group.to_owned(),
        member: "m".to_owned(),
        ..Default::default()
    };
    let mut reasons = Vec::new();
    for number in 0..3 {
        let mut groups = GroupServiceClient::new(cluster.client(number, "shop").await.channel);
        assert_eq!(
            reason(&groups.claim_partition(claim("us")).await.unwrap_err()),
            Reason::PermissionDenied
        );
        reasons.push(
            groups
                .claim_partition(claim("eu-1"))
                .await
                .map_err(|status| reason(&status))
                .err(),
        );
    }
    assert!(!reasons.contains(&Some(Reason::PermissionDenied)), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_another_tenant_are_listed_as_far_as_they_may_be_seen() {
    let cluster = cluster().await;
    cluster.client(0, "shop").await.create("orders.eu", 1).await;
    let client = cluster.client(0, OPERATOR_TENANT).await;
    let listed = async |tenant: &str| {
        let request = v1::ListTopicsRequest {
            tenant: tenant.to_owned(),
        };
        let topics = client.topics.clone().list_topics(request).await.unwrap();
        let topics = topics.into_inner().topics.into_iter();
        topics.map(|topic| (topic.tenant, topic.name)).collect::<Vec<_>>()
    };
    assert_eq!(listed("shop").await, [], "an operator reads nobody's topics unasked");
    let subject = format!("{OPERATOR_TENANT}/tester");
    let change = v1::PolicyChange {
        add_rules: vec![rule(&subject, "shop", "topic:orders.*", "describe")],
        ..Default::default()
    };
    cluster.change(OPERATOR_TENANT, change).await.unwrap();
    assert_eq!(listed("shop").await, [("shop".to_owned(), "orders.eu".to_owned())]);
    assert_eq!(listed("nobody").await, []);
    assert_eq!(listed("").await, [], "its own tenant has none");
}
