//! What is told about a running service: metrics for Prometheus, and whether it lives and is ready, over HTTP.
//!
//! `/metrics`, `/livez` (it answers, so it lives) and `/readyz` (200, or 503 with what it waits for). A service that speaks HTTP merges
//! [`Telemetry::router`] into its own routes; one that speaks gRPC serves it on a port of its own, and gRPC's health service says the same.
//!
//! Invariant: the labels of metrics come from the program, never from a request, so that no client can make them many.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
    register_histogram_vec_with_registry, register_int_counter_vec_with_registry,
};
use tokio::sync::watch;

/// Upper bounds of the buckets of request times, seconds.
const BUCKETS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// The metrics and the readiness of one service. Clones are of the same ones.
#[derive(Debug, Clone)]
pub struct Telemetry {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    /// What is waited for; nothing when the service is ready.
    waiting: Arc<Mutex<Vec<&'static str>>>,
    ready: Arc<watch::Sender<bool>>,
}

/// A request that is being answered. Counted when it is dropped.
#[derive(Debug)]
pub struct Request {
    telemetry: Telemetry,
    method: &'static str,
    outcome: &'static str,
    begun: Instant,
}

impl Telemetry {
    /// Metrics named `SERVICE_…`; the service is ready once all of `waiting` are [`there`](Self::there).
    ///
    /// # Errors
    /// A name that Prometheus does not allow.
    pub fn new(service: &str, waiting: &[&'static str]) -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some(service.to_owned()), None)?;
        let requests = Opts::new("requests_total", "Requests answered, by method and outcome.");
        let seconds =
            HistogramOpts::new("request_seconds", "How long requests took, by method.").buckets(BUCKETS.to_vec());
        Ok(Self {
            requests: register_int_counter_vec_with_registry!(requests, &["method", "outcome"], registry)?,
            seconds: register_histogram_vec_with_registry!(seconds, &["method"], registry)?,
            registry,
            waiting: Arc::new(Mutex::new(waiting.to_vec())),
            ready: Arc::new(watch::Sender::new(waiting.is_empty())),
        })
    }

    /// For metrics of the service's own.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A request has come; `method` is a name that the program has, not one out of the request.
    #[must_use]
    pub fn request(&self, method: &'static str) -> Request {
        Request {
            telemetry: self.clone(),
            method,
            outcome: "error",
            begun: Instant::now(),
        }
    }

    /// One of the things that were waited for is there.
    pub fn there(&self, what: &'static str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|waited| *waited != what);
        self.ready.send_replace(waiting.is_empty());
    }

    /// Resolves once the service is ready. Cancel safe.
    pub async fn is_ready(&self) {
        // The sender lives as long as this.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// The three paths.
    pub fn router(&self) -> Router {
        let (metrics, readiness) = (self.clone(), self.clone());
        Router::new()
            .route("/metrics", get(move || async move { metrics.text() }))
            .route("/livez", get(|| async { "it lives\n" }))
            .route("/readyz", get(move || async move { readiness.readiness() }))
    }

    fn text(&self) -> Response {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => text.into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }

    fn readiness(&self) -> Response {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.is_empty() {
            true => "ready\n".into_response(),
            false => {
                let text = format!("waiting for {}\n", waiting.join(", "));
                (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
            }
        }
    }
}

impl Request {
    /// How it is counted; without this, as an error.
    pub fn outcome(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }

    /// Counts it as `ok`, or with gRPC's name of what went wrong, and gives the result back.
    ///
    /// # Errors
    /// The one given.
    pub fn answered<T>(self, result: Result<T, tonic::Status>) -> Result<T, tonic::Status> {
        match &result {
            Ok(_) => self.outcome("ok"),
            Err(status) => self.outcome(name(status.code())),
        }
        result
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let labels = [self.method, self.outcome];
        self.telemetry.requests.with_label_values(&labels).inc();
        let seconds = self.begun.elapsed().as_secs_f64();
        self.telemetry
            .seconds
            .with_label_values(&[self.method])
            .observe(seconds);
    }
}

fn name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "ok",
        tonic::Code::InvalidArgument => "invalid_argument",
        tonic::Code::NotFound => "not_found",
        tonic::Code::AlreadyExists => "already_exists",
        tonic::Code::FailedPrecondition => "failed_precondition",
        tonic::Code::PermissionDenied => "permission_denied",
        tonic::Code::Unauthenticated => "unauthenticated",
        tonic::Code::ResourceExhausted => "resource_exhausted",
        tonic::Code::DeadlineExceeded => "deadline_exceeded",
        tonic::Code::Unavailable => "unavailable",
        tonic::Code::Aborted => "aborted",
        tonic::Code::OutOfRange => "out_of_range",
        tonic::Code::DataLoss => "data_loss",
        _ => "internal",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_service_is_ready_when_all_that_it_waits_for_is_there() {
        let telemetry = Telemetry::new("test", &["users", "mail"]).unwrap();
        assert_eq!(telemetry.readiness().status(), StatusCode::SERVICE_UNAVAILABLE);
        telemetry.there("mail");
        assert_eq!(telemetry.readiness().status(), StatusCode::SERVICE_UNAVAILABLE);
        telemetry.there("users");
        telemetry.is_ready().await;
        assert_eq!(telemetry.readiness().status(), StatusCode::OK);
    }

    #[test]
    fn a_request_that_was_given_up_counts_as_an_error() {
        let telemetry = Telemetry::new("test", &[]).unwrap();
        drop(telemetry.request("get"));
        telemetry.request("get").answered(Ok(())).unwrap();
        let refused: Result<(), _> = telemetry.request("get").answered(Err(tonic::Status::not_found("")));
        refused.unwrap_err();
        for (outcome, count) in [("error", 1), ("ok", 1), ("not_found", 1)] {
            assert_eq!(
                telemetry.requests.with_label_values(&["get", outcome]).get(),
                count,
                "{outcome}"
            );
        }
    }
}
