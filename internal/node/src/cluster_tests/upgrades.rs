//! What earlier versions left on disk is read, served and gone on with.
//!
//! `golden/level-1` is the data directory of the only node of a cluster, stopped in an orderly way, as the last version
//! wrote it that knew only the rules of feature level 1. It holds topic `dev/orders` with two partitions: 50 records
//! `record 1` … in the first, `one` and `two` in the second; another topic was made and deleted.

use highwater_catalog::{Catalog, FEATURE_LEVEL};

use super::*;

const OWN_CLUSTER: &str = "dev";
const TENANT: &str = "dev";
const NODE: &str = "n1";

/// A running node on a copy of the directory, and what it needs.
struct Upgraded {
    ca: TestCa,
    directory: TempDir,
    port: u16,
}

impl Upgraded {
    fn new() -> Upgraded {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/level-1");
        let directory = TempDir::new().unwrap();
        copy_directory(&golden, directory.path());
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Upgraded {
            ca: TestCa::new(),
            directory,
            port: held.local_addr().unwrap().port(),
        }
    }

    async fn start(&self) -> NodeHandle {
        let files = self.ca.node_files(OWN_CLUSTER, NODE);
        let config = Config {
            node: NODE.to_owned(),
            cluster: OWN_CLUSTER.to_owned(),
            listen: format!("127.0.0.1:{}", self.port),
            admin_listen: String::new(),
            data_dir: self.directory.path().to_owned(),
            bootstrap: vec![NODE.to_owned()],
            operators: vec![format!("{TENANT}/tester")],
            tls: TlsConfig {
                ca: files.authorities,
                cert: files.certificate,
                key: files.key,
                ..TlsConfig::default()
            },
            ..Config::default()
        };
        let node = Box::pin(Node::start(config)).await.unwrap();
        timeout(PATIENCE, node.ready()).await.expect("it is not ready");
        node
    }

    async fn client(&self) -> TestClient {
        TestClient::connect(self.port, self.ca.client_files_of(OWN_CLUSTER, TENANT, "tester")).await
    }

    async fn read(&self, partition: u32, count: usize) -> Vec<String> {
        let request = v1::ConsumeRequest {
            topic: "orders".to_owned(),
            partition,
            ..Default::default()
        };
        let mut client = self.client().await;
        let mut stream = client.log.consume(request).await.unwrap().into_inner();
        let mut values = Vec::new();
        while values.len() < count {
            let next = timeout(PATIENCE, stream.message()).await.unwrap();
            values.extend(values_of(&next.unwrap().unwrap()));
        }
        values
    }
}

async fn until_raised(node: &NodeHandle) {
    let raised = async {
        while node.host().read(Catalog::feature_level) < FEATURE_LEVEL {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, raised).await.expect("the rules are not raised");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_the_last_version_is_served_and_gone_on_with() {
    let upgraded = Upgraded::new();
    let node = upgraded.start().await;
    let expected: Vec<String> = (1..=50).map(|number| format!("record {number}")).collect();
    assert_eq!(upgraded.read(0, 50).await, expected);
    assert_eq!(upgraded.read(1, 2).await, ["one", "two"]);
    until_raised(&node).await;
    let change = v1::UpdateTopicRequest {
        topic: "orders".to_owned(),
        partitions: Some(3),
        ..Default::default()
    };
    let mut client = upgraded.client().await;
    let changed = client.topics.update_topic(change).await.unwrap().into_inner().topic;
    assert_eq!(changed.unwrap().partitions.len(), 3);
    let answer = client.log.produce(batch_of("orders", 0, &["more"])).await.unwrap();
    assert_eq!(answer.into_inner().base_offset, 50);
    Box::pin(node.shutdown()).await;
    let node = upgraded.start().await;
    assert_eq!(node.host().read(Catalog::feature_level), FEATURE_LEVEL);
    assert_eq!(upgraded.read(0, 51).await.last().unwrap(), "more");
    Box::pin(node.shutdown()).await;
}
