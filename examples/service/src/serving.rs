//! Listening, and ending: a service that is told to stop takes no new request, answers those that it has, and ends.
//!
//! On SIGTERM or SIGINT everything that listens stops to take connections. Streams that go on for ever would hold the end up for ever, so
//! after [`DRAIN`] what is still open is cut; clients of such streams begin again elsewhere anyway.
//!
//! What one client may take of it has limits: see [`crate::connections`].
//!
//! Deliberately absent: TLS. Such a service stands behind something that has it, an ingress or a proxy.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::connections::{self, Limits, Protocol};
use crate::telemetry::Telemetry;

/// How long requests may still take once the service has been told to stop.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Tells everybody in a process that it is to end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Resolves when the process gets SIGTERM or SIGINT. To be called once.
    ///
    /// # Errors
    /// If signals cannot be handled.
    pub fn on_signals() -> std::io::Result<Self> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
            }
            tracing::info!("stopping");
            sender.send_replace(true);
            // Whoever holds a receiver sees the value also after this has ended.
        });
        Ok(Self(receiver))
    }

    /// One that is told by a sender: `true` is the end.
    #[cfg(test)]
    pub(crate) fn on(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }

    /// Resolves when the process is to end; at once if it already is. Cancel safe.
    pub async fn wait(&self) {
        // An error means that the sender is gone, after it has told.
        let _ = self.0.clone().wait_for(|stop| *stop).await;
    }
}

/// Listens, and says where: one line of the log, which scripts that gave port 0 read.
///
/// # Errors
/// The address, with why it cannot be listened on.
pub async fn listen(what: &str, address: SocketAddr) -> std::io::Result<TcpListener> {
    let with_address =
        |error: std::io::Error| std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(with_address)?;
    tracing::info!(address = %listener.local_addr()?, "{what} listens");
    Ok(listener)
}

/// Serves HTTP until `stop`.
pub async fn http(listener: TcpListener, routes: Router, stop: Stop) {
    tokio::select! {
        () = connections::serve(listener, routes, Protocol::Http, Limits::default(), stop.clone()) => (),
        () = drained(&stop) => (),
    }
}

/// Serves gRPC, with gRPC's health service, until `stop`. What is served is "not serving" until the service is ready.
pub async fn grpc(listener: TcpListener, routes: Routes, telemetry: Telemetry, stop: Stop) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let reporting = async {
        report(reporter, telemetry, stop.clone()).await;
        drained(&stop).await;
    };
    let routes = routes.add_service(health).into_axum_router();
    tokio::select! {
        () = connections::serve(listener, routes, Protocol::Http2, Limits::default(), stop.clone()) => (),
        () = reporting => (),
    }
}

/// gRPC's health service for one that speaks HTTP otherwise, since gRPC is HTTP/2: its routes, to be merged with others, and what tells it
/// how the service is, to be run until the service ends.
pub async fn health(telemetry: &Telemetry, stop: &Stop) -> (impl Future<Output = ()> + use<>, Router) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    // What is not there is answered as HTTP does it.
    let routes = Routes::new(health).into_axum_router().reset_fallback();
    (report(reporter, telemetry.clone(), stop.clone()), routes)
}

/// Says what the telemetry says, and that the service ends once it does.
async fn report(reporter: HealthReporter, telemetry: Telemetry, stop: Stop) {
    tokio::select! {
        () = telemetry.is_ready() => reporter.set_service_status("", ServingStatus::Serving).await,
        () = stop.wait() => (),
    }
    stop.wait().await;
    reporter.set_service_status("", ServingStatus::NotServing).await;
}

async fn drained(stop: &Stop) {
    stop.wait().await;
    sleep(DRAIN).await;
}
