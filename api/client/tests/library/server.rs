//! One node of the test cluster: the services of the contract over TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use highwater::TlsFiles;
use highwater::proto::detail;
use highwater::proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use highwater::proto::v1::group_service_server::GroupServiceServer;
use highwater::proto::v1::log_service_server::{LogService, LogServiceServer};
use highwater::proto::v1::produce_stream_response::Result as Answer;
use highwater::proto::v1::topic_service_server::{TopicService, TopicServiceServer};
use highwater::proto::v1::{self, ErrorDetail, Outcome, Reason};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::cluster::{Failure, Shared, TOPIC, error};

/// Starts a node in a runtime of its own.
pub fn start(number: usize, address: SocketAddr, files: &TlsFiles, shared: Arc<Shared>) -> (Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let acceptor = acceptor(files);
    let _entered = runtime.enter();
    let listener = std::net::TcpListener::bind(address);
    // A port just left may take a moment to be free again.
    let listener = listener.unwrap_or_else(|_| bind_again(address));
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let (connections, incoming) = mpsc::channel::<io::Result<Connection>>(64);
    runtime.spawn(accept(listener, acceptor, connections));
    let node = Node { number, shared };
    let router = Server::builder()
        .max_concurrent_streams(highwater::proto::limits::CONNECTION_STREAMS_MAX)
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .add_service(LogServiceServer::new(node.clone()))
        .add_service(TopicServiceServer::new(node.clone()))
        .add_service(GroupServiceServer::new(node.clone()))
        .add_service(ClusterServiceServer::new(node));
    runtime.spawn(router.serve_with_incoming(ReceiverStream::new(incoming)));
    (runtime, address)
}

/// Listens on an address that somebody is about to leave.
pub fn bind_again(address: SocketAddr) -> std::net::TcpListener {
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match std::net::TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(std::time::Instant::now() < give_up, "{address}: {error}"),
        }
        std::thread::yield_now();
    }
}

fn acceptor(files: &TlsFiles) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&files.cert).unwrap()],
            PrivateKeyDer::from_pem_file(&files.key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, connections: mpsc::Sender<io::Result<Connection>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, connections) = (acceptor.clone(), connections.clone());
        tokio::spawn(async move {
            tcp.set_nodelay(true).unwrap();
            if let Ok(tls) = acceptor.accept(tcp).await {
                let _ = connections.send(Ok(Connection(tls))).await;
            }
        });
    }
}

struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[derive(Clone)]
pub struct Node {
    number: usize,
    pub shared: Arc<Shared>,
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn boxed<T: Send + 'static>(receiver: mpsc::Receiver<Result<T, Status>>) -> Response<Boxed<T>> {
    Response::new(ReceiverStream::new(receiver).boxed())
}

pub fn status(code: Code, detail: &ErrorDetail) -> Status {
    detail::to_status(code, detail)
}

#[tonic::async_trait]
impl LogService for Node {
    async fn produce(&self, _: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        Err(Status::unimplemented("the library uses the stream"))
    }

    type ProduceStreamStream = Boxed<v1::ProduceStreamResponse>;

    async fn produce_stream(
        &self,
        requests: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let (answers, receiver) = mpsc::channel(64);
        let (shared, number) = (self.shared.clone(), self.number);
        let mut requests = requests.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let request_id = request.request_id;
                let result = match shared.produce(number, request) {
                    Ok(None) => continue,
                    Ok(Some(appended)) => Answer::Appended(appended),
                    Err(Failure::Refuse(detail)) => Answer::Error(detail),
                    Err(Failure::Break) => {
                        let _ = answers.send(Err(Status::unavailable("the stream breaks"))).await;
                        return;
                    }
                };
                let response = v1::ProduceStreamResponse {
                    request_id,
                    result: Some(result),
                };
                if answers.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(boxed(receiver))
    }

    type ConsumeStream = Boxed<v1::ConsumeResponse>;

    async fn consume(&self, request: Request<v1::ConsumeRequest>) -> Result<Response<Self::ConsumeStream>, Status> {
        let request = request.into_inner();
        let (responses, receiver) = mpsc::channel(1);
        {
            let mut state = self.shared.lock();
            let freshness = request.freshness.and_then(|freshness| freshness.kind);
            state.freshness_asked.push(freshness);
            if state.behind.contains(&(self.number, request.partition)) {
                state.handed_over += 1;
                let detail = error(Reason::ReplicaBehind, Outcome::NotApplied);
                return Err(status(Code::Unavailable, &detail));
            }
            let partition = &state.partitions[request.partition as usize];
            if request.offset < partition.log_start {
                let mut detail = error(Reason::OffsetOutOfRange, Outcome::Unspecified);
                detail.range = Some(v1::OffsetRange {
                    log_start: partition.log_start,
                    high_watermark: partition.log_end,
                });
                return Err(status(Code::OutOfRange, &detail));
            }
        }
        tokio::spawn(serve(self.clone(), request, responses));
        Ok(boxed(receiver))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        use v1::list_offsets_request::Position;
        let request = request.into_inner();
        let state = self.shared.lock();
        let not_leader = |detail: ErrorDetail| status(Code::FailedPrecondition, &detail);
        state.check_leader(self.number, request.partition).map_err(not_leader)?;
        let partition = &state.partitions[request.partition as usize];
        let offset = match request.position {
            Some(Position::Earliest(_)) => partition.log_start,
            Some(Position::TimestampMs(time_ms)) => {
                let found = partition.batches.iter().find(|batch| batch.append_time_ms >= time_ms);
                found.map_or(partition.log_end, |batch| batch.base_offset)
            }
            Some(Position::Latest(_)) | None => partition.log_end,
        };
        Ok(Response::new(v1::ListOffsetsResponse { offset }))
    }
}

/// Serves one batch per response, so that scripts can break streams anywhere, then waits for more.
async fn serve(node: Node, request: v1::ConsumeRequest, responses: mpsc::Sender<Result<v1::ConsumeResponse, Status>>) {
    let mut changes = node.shared.changes();
    let mut offset = request.offset;
    loop {
        let response = {
            let mut state = node.shared.lock();
            let partition = &state.partitions[request.partition as usize];
            let end = |batch: &v1::StoredBatch| batch.base_offset + u64::from(batch.record_count);
            let batch = partition.batches.iter().find(|batch| end(batch) > offset).cloned();
            let (high_watermark, log_start) = (partition.log_end, partition.log_start);
            batch.map(|batch| {
                offset = end(&batch);
                let mut response = v1::ConsumeResponse {
                    batches: vec![batch],
                    high_watermark,
                    log_start,
                    node: state.nodes[node.number].name.clone(),
                };
                state.batches_served += 1;
                (state.read_script)(node.number, &mut response).map(|()| response)
            })
        };
        match response {
            Some(response) => {
                let failed = response.is_err();
                if responses.send(response).await.is_err() || failed {
                    return;
                }
            }
            None => tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = responses.closed() => return,
            },
        }
    }
}

impl Node {
    /// Whether this call is to be done, but not answered.
    pub fn hides_answer(&self) -> bool {
        let mut state = self.shared.lock();
        let hides = state.unanswered_calls > 0;
        state.unanswered_calls = state.unanswered_calls.saturating_sub(1);
        hides
    }
}

#[tonic::async_trait]
impl TopicService for Node {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let topic = {
            let mut state = self.shared.lock();
            if request.topic == TOPIC || state.topics.contains_key(&request.topic) {
                return Err(status(
                    Code::AlreadyExists,
                    &error(Reason::TopicExists, Outcome::NotApplied),
                ));
            }
            let partitions = (0..request.partitions.max(1)).map(|partition| v1::Partition {
                partition,
                ..Default::default()
            });
            let topic = v1::Topic {
                tenant: "acme".to_owned(),
                name: request.topic.clone(),
                topic_id: 100 + state.topics.len() as u64,
                replication: request.replication,
                config: request.config,
                partitions: partitions.collect(),
                leader_rack: String::new(),
            };
            state.topics.insert(request.topic, topic.clone());
            topic
        };
        self.shared.changed();
        if self.hides_answer() {
            return Err(status(
                Code::Unavailable,
                &error(Reason::UnknownOutcome, Outcome::Unknown),
            ));
        }
        Ok(Response::new(v1::CreateTopicResponse { topic: Some(topic) }))
    }

    async fn get_topic(&self, request: Request<v1::GetTopicRequest>) -> Result<Response<v1::GetTopicResponse>, Status> {
        let name = request.into_inner().topic;
        let found = self
            .shared
            .lock()
            .all_topics()
            .into_iter()
            .find(|topic| topic.name == name);
        match found {
            Some(topic) => Ok(Response::new(v1::GetTopicResponse { topic: Some(topic) })),
            None => Err(status(
                Code::NotFound,
                &error(Reason::TopicNotFound, Outcome::NotApplied),
            )),
        }
    }

    async fn list_topics(&self, _: Request<v1::ListTopicsRequest>) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let topics = self.shared.lock().all_topics();
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn update_topic(
        &self,
        request: Request<v1::UpdateTopicRequest>,
    ) -> Result<Response<v1::UpdateTopicResponse>, Status> {
        let request = request.into_inner();
        let topic = {
            let mut state = self.shared.lock();
            let Some(topic) = state.topics.get_mut(&request.topic) else {
                return Err(status(
                    Code::NotFound,
                    &error(Reason::TopicNotFound, Outcome::NotApplied),
                ));
            };
            topic.replication = request.replication.unwrap_or(topic.replication);
            topic.leader_rack = request.leader_rack.unwrap_or_default();
            topic.clone()
        };
        self.shared.changed();
        if self.hides_answer() {
            return Err(status(
                Code::Unavailable,
                &error(Reason::UnknownOutcome, Outcome::Unknown),
            ));
        }
        Ok(Response::new(v1::UpdateTopicResponse { topic: Some(topic) }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let removed = self.shared.lock().topics.remove(&request.into_inner().topic);
        self.shared.changed();
        if removed.is_none() {
            return Err(status(
                Code::NotFound,
                &error(Reason::TopicNotFound, Outcome::NotApplied),
            ));
        }
        if self.hides_answer() {
            return Err(status(
                Code::Unavailable,
                &error(Reason::UnknownOutcome, Outcome::Unknown),
            ));
        }
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }
}

#[tonic::async_trait]
impl ClusterService for Node {
    async fn describe_cluster(
        &self,
        _: Request<v1::DescribeClusterRequest>,
    ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
        let state = self.shared.lock();
        Ok(Response::new(v1::DescribeClusterResponse {
            cluster_name: "test".to_owned(),
            cluster_id: "cluster-1".to_owned(),
            node: state.nodes[self.number].name.clone(),
            nodes: state.nodes.clone(),
            ..Default::default()
        }))
    }

    type WatchClusterStream = Boxed<v1::WatchClusterResponse>;

    async fn watch_cluster(
        &self,
        _: Request<v1::WatchClusterRequest>,
    ) -> Result<Response<Self::WatchClusterStream>, Status> {
        if !self.shared.lock().watch_is_implemented {
            return Err(Status::unimplemented("not here"));
        }
        let (messages, receiver) = mpsc::channel(4);
        let (shared, number) = (self.shared.clone(), self.number);
        tokio::spawn(async move {
            let mut changes = shared.changes();
            shared.lock().watchers[number] += 1;
            loop {
                let message = {
                    let state = shared.lock();
                    v1::WatchClusterResponse {
                        cluster_id: "cluster-1".to_owned(),
                        full: true,
                        nodes: state.nodes.clone(),
                        topics: state.all_topics(),
                        ..Default::default()
                    }
                };
                if messages.send(Ok(message)).await.is_err() || changes.changed().await.is_err() {
                    break;
                }
            }
            shared.lock().watchers[number] -= 1;
        });
        Ok(boxed(receiver))
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        Err(no_operator())
    }

    async fn drain_node(&self, _: Request<v1::DrainNodeRequest>) -> Result<Response<v1::DrainNodeResponse>, Status> {
        Err(no_operator())
    }

    async fn decommission_node(
        &self,
        _: Request<v1::DecommissionNodeRequest>,
    ) -> Result<Response<v1::DecommissionNodeResponse>, Status> {
        Err(no_operator())
    }

    async fn move_replica(
        &self,
        _: Request<v1::MoveReplicaRequest>,
    ) -> Result<Response<v1::MoveReplicaResponse>, Status> {
        Err(no_operator())
    }

    async fn recover_partition(
        &self,
        _: Request<v1::RecoverPartitionRequest>,
    ) -> Result<Response<v1::RecoverPartitionResponse>, Status> {
        Err(no_operator())
    }

    async fn update_settings(
        &self,
        _: Request<v1::UpdateSettingsRequest>,
    ) -> Result<Response<v1::UpdateSettingsResponse>, Status> {
        Err(no_operator())
    }
}

/// Nobody changes this cluster.
fn no_operator() -> Status {
    status(
        Code::PermissionDenied,
        &error(Reason::PermissionDenied, Outcome::NotApplied),
    )
}
