//! Names that look like something that they are not: none of them leads anywhere, in any method that takes a name.

use super::table::Name;
use super::*;

/// Ways to write a topic of `shop` so that it could pass for something else, or to mean several.
const TOPICS: [&str; 66] = [
    "SHOP/orders",
    "Shop/orders",
    "shop/Orders",
    "shop/ORDERS",
    "shop//orders",
    "/shop/orders",
    "shop/orders/",
    "//shop/orders",
    "shop/./orders",
    "./shop/orders",
    "../shop/orders",
    "shop/../shop/orders",
    "other/../shop/orders",
    "other/orders/../../shop/orders",
    "shop/..",
    "shop/.",
    "shop/.orders",
    "shop/-orders",
    "shop/orders..",
    "shop/or..ders",
    "shop\\orders",
    "shop\\/orders",
    "shop/orders\0",
    "shop\0/orders",
    "shop/\0",
    "\0shop/orders",
    " shop/orders",
    "shop/orders ",
    "shop/ orders",
    "shop /orders",
    "shop/\torders",
    "shop\n/orders",
    "shop/orders\r\n",
    "shop%2Forders",
    "%73hop/orders",
    "shop/%6Frders",
    "shop%252Forders",
    "shop\u{2044}orders",
    "shop\u{2215}orders",
    "shop\u{ff0f}orders",
    "\u{ff53}hop/orders",
    "\u{455}hop/orders",
    "shop/\u{43e}rders",
    "shop/orders\u{200b}",
    "shop\u{200d}/orders",
    "shop/\u{202e}sredro",
    "\u{feff}shop/orders",
    "shop/orders\u{301}",
    "shop/order\u{17f}",
    "*",
    "*/*",
    "*/orders",
    "shop/*",
    "shop/order*",
    "shop/order?",
    "shop/[o]rders",
    "@cluster",
    "@cluster/orders",
    "topic:orders",
    "shop/topic:orders",
    "tenant/shop/topic/orders",
    "spiffe://testing/tenant/shop/client/owner",
    "",
    "/",
    "shop/",
    "/orders",
];

/// The same for a group.
const GROUPS: [&str; 22] = [
    "BILLING",
    "Billing",
    " billing",
    "billing ",
    "billing\0",
    "billing\n",
    "bill*",
    "*",
    "?illing",
    "../billing",
    "shop/billing",
    "shop:billing",
    "group:billing",
    "billing/",
    "bill..ing",
    "b\u{131}lling",
    "b\u{456}lling",
    "\u{ff42}illing",
    "billing\u{200b}",
    "",
    ".",
    "..",
];

/// For a tenant.
const TENANTS: [&str; 22] = [
    "SHOP",
    "Shop",
    " shop",
    "shop ",
    "shop\0",
    "shop\n",
    "shop/",
    "/shop",
    "../shop",
    "other/../shop",
    "shop/orders",
    "%73hop",
    "\u{455}hop",
    "\u{ff53}hop",
    "shop\u{200b}",
    "*",
    "sh*",
    "shop*",
    "@cluster",
    "tenant:shop",
    ".",
    "..",
];

/// And for a node.
const NODES: [&str; 14] = [
    "A",
    " a",
    "a ",
    "a\0",
    "a/",
    "../a",
    "./a",
    "*",
    "a*",
    "?",
    "\u{430}",
    "\u{ff41}",
    "a\u{200b}",
    "",
];

/// Longer than a name may be, and as long as a request may be.
const LENGTHS: [usize; 2] = [129, 1024 * 1024];

/// A target of which one name is a trick.
fn tricked(target: &Target, name: Name, trick: &str) -> Target {
    let trick = trick.to_owned();
    let target = target.clone();
    match name {
        Name::Topic => Target { topic: trick, ..target },
        Name::Group => Target { group: trick, ..target },
        Name::Tenant => Target {
            tenant: trick,
            ..target
        },
        Name::Node => Target { node: trick, ..target },
    }
}

fn tricks(name: Name) -> Vec<String> {
    let known: &[&str] = match name {
        Name::Topic => &TOPICS,
        Name::Group => &GROUPS,
        Name::Tenant => &TENANTS,
        Name::Node => &NODES,
    };
    let long = LENGTHS.map(|length| "a".repeat(length));
    known.iter().map(|trick| (*trick).to_owned()).chain(long).collect()
}

/// Whether a trick came to nothing: it is refused, or nothing is allowed by it.
fn is_harmless(row: &Row, who: Who, trick: &str, method: &Method, answer: &Answer) -> bool {
    use Reason as R;
    if let (Ok(Some(message)), "Explain") = (answer, row.method) {
        let explained = v1::ExplainResponse::decode(message.clone()).unwrap();
        // This one is a domain, and he is its operator.
        return !explained.allowed || (trick, who) == ("@cluster", Who::Operator);
    }
    if let (Ok(_), "GetPolicy", Who::Operator) = (answer, row.method, who) {
        return true; // he may see all of it, however he asks
    }
    let refusals = [
        R::InvalidArgument,
        R::PermissionDenied,
        R::TopicNotFound,
        R::TenantNotFound,
        R::NodeNotFound,
        R::PolicyChanged,
    ];
    refusal(method, answer).is_some_and(|reason| refusals.contains(&reason))
}

async fn try_tricks(world: &World, row: &Row, who: Who) -> Vec<String> {
    let (method, mut worked) = (method_of(row), Vec::new());
    let targets = who.targets();
    for name in row.names {
        for trick in tricks(*name) {
            for target in targets.iter().filter(|target| target.exists) {
                let tricked = tricked(target, *name, &trick);
                let channel = world.channel(who, world.node_for(target));
                let answer = ask(channel, &method, (row.request)(&tricked)).await;
                if !is_harmless(row, who, &trick, &method, &answer) {
                    let trick: String = trick.chars().take(40).collect();
                    worked.push(format!("{who:?}, {} with {name:?} {trick:?}: {answer:?}", method.path));
                }
            }
        }
    }
    worked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trick_with_a_name_leads_anywhere_in_any_method() {
    let world = World::new().await;
    let mut worked = Vec::new();
    for row in &ROWS {
        let tried = [Who::Other, Who::Operator, Who::Shorter].map(|who| try_tricks(&world, row, who));
        worked.extend(join_all(tried).await.into_iter().flatten());
    }
    assert!(worked.is_empty(), "{} worked:\n{}", worked.len(), worked.join("\n"));
    world.is_untouched();
    for (who, tenant) in [
        (Who::Owner, "shop"),
        (Who::Other, "other"),
        (Who::Operator, OPERATOR_TENANT),
    ] {
        sees(&world, who, tenant).await;
    }
}

/// Paths with which the gateway could be led to a topic of `shop`.
const PATHS: [&str; 20] = [
    "/v1/topics/shop/orders/records",
    "/v1/topics/SHOP%2Forders/records",
    "/v1/topics/shop%2FORDERS/records",
    "/v1/topics/shop%252Forders/records",
    "/v1/topics/shop%2f%2forders/records",
    "/v1/topics/shop%2Forders%2F/records",
    "/v1/topics/%2Fshop%2Forders/records",
    "/v1/topics/..%2Fshop%2Forders/records",
    "/v1/topics/other%2F..%2Fshop%2Forders/records",
    "/v1/topics/../topics/shop%2Forders/records",
    "/v1/topics/./shop%2Forders/records",
    "/v1//topics/shop%2Forders/records",
    "//v1/topics/shop%2Forders/records",
    "/V1/topics/shop%2Forders/records",
    "/v1/topics/shop%2Forders%00/records",
    "/v1/topics/shop%5Corders/records",
    "/v1/topics/%EF%BD%93hop%2Forders/records",
    "/v1/topics/shop%E2%81%84orders/records",
    "/v1/topics/shop%2F*/records",
    "/v1/topics/*/records",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trick_with_a_path_leads_anywhere_in_the_gateway() {
    let world = World::new().await;
    let mut http = world.http(Who::Other, world.leader("shop")).await;
    let body = records(&["trick"]).to_string();
    for path in PATHS {
        for (method, body) in [("GET", ""), ("POST", body.as_str()), ("DELETE", "")] {
            http.send(&request(method, path, body)).await;
            let answer = http.answer().await;
            assert!((400..500).contains(&answer.status), "{method} {path}: {answer:?}");
        }
        for identity in [
            "x-forwarded-client-cert",
            "x-tenant",
            "x-spiffe-id",
            "authorization",
            "forwarded",
        ] {
            let claim = "spiffe://testing/tenant/shop/client/owner";
            let target = "/v1/topics/shop%2Forders/records";
            http.send(&format!(
                "GET {target} HTTP/1.1\r\nhost: x\r\n{identity}: {claim}\r\n\r\n"
            ))
            .await;
            http.answer().await.refused(404, "TOPIC_NOT_FOUND");
        }
    }
    world.is_untouched();
    sees(&world, Who::Owner, "shop").await;
}

/// What is decided is kept by the names that were asked about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_the_policy_of_something_that_is_no_tenant_shuts_himself_out_of_nothing() {
    let world = World::new().await;
    let files = world.cluster.ca.client_files("other", "fresh");
    let channel = TestClient::connect(world.cluster.ports[0], files).await.channel;
    let row = ROWS.iter().find(|row| row.method == "GetPolicy").unwrap();
    for no_tenant in tricks(Name::Tenant) {
        let target = tricked(&Who::Other.targets()[0], Name::Tenant, &no_tenant);
        let asked = ask(&channel, &method_of(row), (row.request)(&target)).await;
        let status = asked.unwrap_err();
        assert_eq!(reason(&status), Reason::PermissionDenied);
        // Otherwise it was asked about, and every name is kept.
        assert!(status.message().ends_with("may not admin the cluster"), "{status}");
    }
    let row = ROWS.iter().find(|row| row.method == "DescribeCluster").unwrap();
    ask(&channel, &method_of(row), Vec::new()).await.unwrap();
}
