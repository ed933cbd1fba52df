//! A service from its start to its end: it is healthy once it is ready, and when it is told to end it does, although a client holds a stream.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use highwater_service::serving::{self, DRAIN, Stop};
use highwater_service::telemetry::Telemetry;
use rustix::process::{Signal, getpid, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const DEADLINE: Duration = Duration::from_secs(30);

async fn listener() -> TcpListener {
    serving::listen("the test", "127.0.0.1:0".parse().unwrap())
        .await
        .unwrap()
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_healthy_when_it_is_ready_and_ends_when_it_is_told_to() {
    let telemetry = Telemetry::new("test", &["view"]).unwrap();
    let stop = Stop::on_signals().unwrap();
    let (for_grpc, for_http) = (listener().await, listener().await);
    let (grpc_address, http_address) = (for_grpc.local_addr().unwrap(), for_http.local_addr().unwrap());
    let grpc = tokio::spawn(serving::grpc(
        for_grpc,
        Routes::default(),
        telemetry.clone(),
        stop.clone(),
    ));
    // Another one never becomes ready, and yet ends.
    let for_unready = listener().await;
    let unready_address = for_unready.local_addr().unwrap();
    let unready = Telemetry::new("unready", &["never"]).unwrap();
    let unready = tokio::spawn(serving::grpc(for_unready, Routes::default(), unready, stop.clone()));
    let endpoint = Endpoint::from_shared(format!("http://{unready_address}")).unwrap();
    let mut unready_health = HealthClient::new(endpoint.connect().await.unwrap());
    let _held = unready_health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    let http = tokio::spawn(serving::http(for_http, telemetry.router(), stop.clone()));

    let endpoint = Endpoint::from_shared(format!("http://{grpc_address}")).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let mut status = async || {
        timeout(DEADLINE, watch.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .status()
    };
    assert_eq!(status().await, ServingStatus::NotServing);
    assert!(get(http_address, "/readyz").await.contains("waiting for view"));
    telemetry.there("view");
    assert_eq!(status().await, ServingStatus::Serving);
    assert!(get(http_address, "/readyz").await.starts_with("HTTP/1.0 200"));
    assert!(get(http_address, "/livez").await.starts_with("HTTP/1.0 200"));
    telemetry.request("look").outcome("ok");
    let metrics = get(http_address, "/metrics").await;
    assert!(
        metrics.contains("test_requests_total{method=\"look\",outcome=\"ok\"} 1"),
        "{metrics}"
    );

    let told = Instant::now();
    kill_process(getpid(), Signal::TERM).unwrap();
    assert_eq!(status().await, ServingStatus::NotServing);
    timeout(DEADLINE, stop.wait()).await.unwrap();
    timeout(DEADLINE, http).await.unwrap().unwrap();
    timeout(DEADLINE, grpc).await.unwrap().unwrap();
    timeout(DEADLINE, unready).await.unwrap().unwrap();
    // The stream was given its time, and then cut.
    assert!(told.elapsed() >= DRAIN, "{:?}", told.elapsed());
    assert!(TcpStream::connect(grpc_address).await.is_err());
}
