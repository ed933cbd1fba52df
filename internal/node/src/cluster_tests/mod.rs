//! Whole clusters in one process: real ports, real certificates, real directories; only the processes are missing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod absences;
mod access;
mod audit;
mod audit_strangers;
mod connections;
mod console;
mod contract;
mod currency;
mod figures;
mod following;
mod founding;
mod gateway;
mod gateway_bounds;
mod groups;
mod groups_kept;
mod http_client;
mod joining;
mod leading;
mod matrix;
mod metrics;
mod moves;
mod outsiders;
#[allow(unreachable_pub)] // public where it is at home
#[path = "../../../../tests/src/ports.rs"]
mod ports;
mod quotas;
mod quotas_in_full;
mod raw_client;
mod readiness;
mod records;
mod recoveries;
mod refusals;
mod replacements;
mod retention;
mod revocation;
mod trail;
mod upgrades;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_proto::v1;
use highwater_proto::v1::Reason;
use highwater_proto::v1::cluster_service_client::ClusterServiceClient;
use highwater_proto::v1::log_service_client::LogServiceClient;
use highwater_proto::v1::topic_service_client::TopicServiceClient;
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use self::ports::ReservedPort;
use crate::node::Pace;
use crate::test_ca::{CLUSTER, TestCa};
use crate::tls::TlsFiles;
use crate::{Config, Node, NodeHandle, StartError, TlsConfig};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Its client may change the cluster.
const OPERATOR_TENANT: &str = "ops";
/// The tenants whose clients appear in tests.
const TENANTS: [&str; 4] = ["shop", "thief", "other", "strangers"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Up to four nodes; the first three found the cluster.
struct TestCluster {
    ca: TestCa,
    directory: TempDir,
    ports: [u16; 4],
    /// They stay ours while a node is down.
    _reserved: [ReservedPort; 4],
    /// Whom the nodes are told to ask.
    seeds: Vec<usize>,
    nodes: [Option<NodeHandle>; 4],
    pace: Pace,
    /// Off unless a test is about it: any free port may be the one that a stopped node comes back to.
    admin_listen: &'static str,
    console_records: bool,
}

impl TestCluster {
    fn new() -> TestCluster {
        if std::env::var_os("TEST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_env("TEST_LOG");
            let _ = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_test_writer()
                .try_init();
        }
        let reserved = NAMES.map(|_| ReservedPort::take());
        TestCluster {
            ca: TestCa::new(),
            directory: TempDir::new().unwrap(),
            ports: reserved.each_ref().map(ReservedPort::number),
            _reserved: reserved,
            seeds: (0..4).collect(),
            nodes: [None, None, None, None],
            pace: Pace::default(),
            admin_listen: "",
            console_records: false,
        }
    }

    /// Three nodes, started together and ready.
    async fn founded() -> TestCluster {
        TestCluster::founded_with_seeds((0..4).collect()).await
    }

    async fn founded_with_seeds(seeds: Vec<usize>) -> TestCluster {
        let mut cluster = TestCluster::new();
        cluster.seeds = seeds;
        cluster.found().await;
        cluster
    }

    /// Starts three nodes together and waits until they are ready.
    async fn found(&mut self) {
        for number in 0..3 {
            self.start(number).await;
        }
        for number in 0..3 {
            self.ready(number).await;
        }
    }

    fn config(&self, number: usize) -> Config {
        let name = NAMES[number];
        let files = self.ca.node_files(CLUSTER, name);
        Config {
            node: name.to_owned(),
            cluster: CLUSTER.to_owned(),
            listen: format!("127.0.0.1:{}", self.ports[number]),
            admin_listen: self.admin_listen.to_owned(),
            console_records: self.console_records,
            data_dir: self.data_dir(number),
            seeds: self
                .seeds
                .iter()
                .map(|number| format!("127.0.0.1:{}", self.ports[*number]))
                .collect(),
            bootstrap: NAMES[..3].iter().map(|name| (*name).to_owned()).collect(),
            tls: TlsConfig {
                ca: files.authorities,
                cert: files.certificate,
                key: files.key,
                ..TlsConfig::default()
            },
            operators: vec![format!("{OPERATOR_TENANT}/tester")],
            tenants: TENANTS.map(str::to_owned).to_vec(),
            segment_bytes_max: 4 * 1024 * 1024,
            retention_interval_ms: 200,
            ..Config::default()
        }
    }

    fn data_dir(&self, number: usize) -> PathBuf {
        self.directory.path().join(NAMES[number])
    }

    async fn try_start(&self, number: usize) -> Result<NodeHandle, StartError> {
        Box::pin(Node::start_at(self.config(number), self.pace)).await
    }

    async fn start(&mut self, number: usize) {
        self.nodes[number] = Some(self.try_start(number).await.unwrap());
    }

    async fn stop(&mut self, number: usize) {
        Box::pin(self.nodes[number].take().unwrap().shutdown()).await;
    }

    fn wipe(&self, number: usize) {
        assert!(self.nodes[number].is_none(), "wiping a running node");
        std::fs::remove_dir_all(self.data_dir(number)).unwrap();
    }

    /// Copies a data directory; the copy is put in its place by `restore`.
    fn copy(&self, number: usize) -> TempDir {
        assert!(self.nodes[number].is_none(), "copying a running node");
        let copy = TempDir::new().unwrap();
        copy_directory(&self.data_dir(number), copy.path());
        copy
    }

    fn restore(&self, number: usize, copy: &TempDir) {
        self.wipe(number);
        copy_directory(copy.path(), &self.data_dir(number));
    }

    async fn ready(&self, number: usize) {
        let ready = self.nodes[number].as_ref().unwrap().ready();
        timeout(PATIENCE, ready)
            .await
            .unwrap_or_else(|_| panic!("{} is not ready", NAMES[number]));
    }

    /// Connections as a client of `tenant`.
    async fn client(&self, number: usize, tenant: &str) -> TestClient {
        TestClient::connect(self.ports[number], self.ca.client_files(tenant, "tester")).await
    }

    /// Has the batch answered by whichever node leads: on a busy machine leadership may move at any moment. A batch that
    /// was tried before is answered as a duplicate.
    async fn produce(&self, tenant: &str, request: v1::ProduceRequest) -> Result<v1::ProduceResponse, Reason> {
        let attempts = async {
            let all = 0..self.nodes.len();
            for number in all.cycle().filter(|number| self.nodes[*number].is_some()) {
                let mut client = self.client(number, tenant).await;
                let status = match client.log.produce(request.clone()).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => status,
                };
                match reason(&status) {
                    Reason::NotLeader | Reason::NoQuorum | Reason::UnknownOutcome | Reason::Unavailable => {}
                    other => return Err(other),
                }
            }
            unreachable!("the cycle has no end");
        };
        timeout(PATIENCE, attempts).await.expect("nobody leads")
    }

    /// The number of the node called `name`.
    fn number(name: &str) -> usize {
        NAMES.iter().position(|known| *known == name).unwrap()
    }
}

#[derive(Clone)]
struct TestClient {
    log: LogServiceClient<Channel>,
    topics: TopicServiceClient<Channel>,
    cluster: ClusterServiceClient<Channel>,
    channel: Channel,
}

impl TestClient {
    async fn connect(port: u16, files: TlsFiles) -> TestClient {
        let config = Arc::new(client_config(files));
        let connector = tower::service_fn(move |_| {
            let connector = tokio_rustls::TlsConnector::from(config.clone());
            async move {
                let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::try_from("localhost").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
            }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        TestClient {
            log: LogServiceClient::new(channel.clone()),
            topics: TopicServiceClient::new(channel.clone()),
            cluster: ClusterServiceClient::new(channel.clone()),
            channel,
        }
    }

    async fn create(&mut self, topic: &str, partitions: u32) -> v1::Topic {
        let request = v1::CreateTopicRequest {
            topic: topic.to_owned(),
            partitions,
            replication: 3,
            config: None,
        };
        let created = timeout(PATIENCE, self.topics.create_topic(request)).await.unwrap();
        created.unwrap().into_inner().topic.unwrap()
    }

    /// As soon as the node serves clients.
    async fn describe(&mut self) -> v1::DescribeClusterResponse {
        let describing = async {
            loop {
                match self.cluster.describe_cluster(v1::DescribeClusterRequest {}).await {
                    Err(status) if reason(&status) == Reason::Unavailable => {}
                    described => return described.unwrap().into_inner(),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, describing).await.expect("it serves nobody")
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_directory(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn client_config(files: TlsFiles) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(files.authorities).unwrap())
        .unwrap();
    let chain = CertificateDer::pem_file_iter(files.certificate)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_file(files.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn reason(status: &tonic::Status) -> Reason {
    let detail = highwater_proto::detail::from_status(status);
    detail.unwrap_or_else(|| panic!("no detail in {status:?}")).reason()
}

/// A batch of one record for each value.
fn batch_of(topic: &str, sequence: u64, values: &[&str]) -> v1::ProduceRequest {
    let record = |value: &&str| v1::Record {
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    };
    let batch = v1::RecordBatch {
        records: values.iter().map(record).collect(),
        compressed_records: Bytes::new(),
    };
    v1::ProduceRequest {
        topic: topic.to_owned(),
        producer_id: Bytes::from_static(b"0123456789abcdef"),
        sequence,
        record_count: values.len() as u32,
        batch: batch.encode_to_vec().into(),
        request_id: sequence,
        ..Default::default()
    }
}

/// The values of a response's batches, in order.
fn values_of(response: &v1::ConsumeResponse) -> Vec<String> {
    let records = response.batches.iter().flat_map(|batch| {
        let decoded = v1::RecordBatch::decode(batch.batch.clone()).unwrap();
        assert_eq!(decoded.records.len() as u32, batch.record_count);
        decoded.records
    });
    records
        .map(|record| String::from_utf8(record.value.to_vec()).unwrap())
        .collect()
}
