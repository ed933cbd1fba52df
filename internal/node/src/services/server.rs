//! The gRPC server over the connections that the port hands it.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, TryFutureExt};
use highwater_proto::FILE_DESCRIPTOR_SET;
use highwater_proto::limits::{CONNECTION_STREAMS_MAX, HEADER_LIST_BYTES_MAX, MESSAGE_BYTES_MAX};
use highwater_proto::v1::access_service_server::AccessServiceServer;
use highwater_proto::v1::cluster_service_server::ClusterServiceServer;
use highwater_proto::v1::group_service_server::GroupServiceServer;
use highwater_proto::v1::log_service_server::LogServiceServer;
use highwater_proto::v1::topic_service_server::TopicServiceServer;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tower::filter::FilterLayer;
use tower::util::MapResponseLayer;

use super::calls::Calls;
use super::cluster::Cluster;
use super::connections::{Single, serve_each};
use super::groups::Groups;
use super::health::{LIVE, keep_health};
use super::log::Log;
use super::metering::Metering;
use super::policy::Policy;
use super::topic::Topics;
use super::{Context, classes};
use crate::port::Incoming;
use crate::status::explain_refusal;

/// How much a stream, and a connection, may send before it is read.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const FRAME_BYTES_MAX: u32 = 1024 * 1024;
/// Streams that a client may begin and give up again before they are looked at; one that goes on is disconnected. As many
/// as it may have open, so that a client that gives up everything at once has nothing to fear.
const RESETS_PENDING_MAX: usize = CONNECTION_STREAMS_MAX as usize;
/// Streams that had to be ended because of what a client did on them; then it is disconnected.
const RESETS_BY_US_MAX: usize = 1024;
/// A connection is asked for a sign of life after this time of silence, and ended without one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the server is made from.
pub(crate) struct ServerParts {
    pub(crate) context: Arc<Context>,
    pub(crate) incoming: Incoming,
}

/// Serves until the node stops and every call has ended.
pub(crate) async fn serve(parts: ServerParts) -> Result<(), String> {
    let ServerParts { context, incoming } = parts;
    let (reporter, health) = tonic_health::server::health_reporter();
    // Before the first call can come: a name that is not there would be taken for a process that does not work.
    reporter.set_service_status(LIVE, ServingStatus::Serving).await;
    reporter.set_service_status("", ServingStatus::NotServing).await;
    tokio::spawn(keep_health(context.not_ready.clone(), reporter));
    let reflection = described().build_v1().map_err(|error| error.to_string())?;
    // Many tools in use ask the version before the first only.
    let reflection_alpha = described().build_v1alpha().map_err(|error| error.to_string())?;
    let log = LogServiceServer::new(Log {
        context: context.clone(),
    });
    let topics = TopicServiceServer::new(Topics {
        context: context.clone(),
    });
    let groups = GroupServiceServer::new(Groups {
        context: context.clone(),
    });
    let cluster = ClusterServiceServer::new(Cluster {
        context: context.clone(),
    });
    let access = AccessServiceServer::new(Policy::new(context.clone()));
    let (asked, refused) = (context.clone(), context.refused.clone());
    let admitted = FilterLayer::new(
        move |request: http::Request<Body>| match classes::admit(&asked, &request) {
            Ok(()) => Ok(request),
            Err(problem) => {
                asked.refused.count(problem.detail().reason());
                Err(Status::from(problem))
            }
        },
    );
    let explained = move |response: http::Response<Body>| {
        let response = explain_refusal(response);
        refused.note(response.headers());
        response
    };
    let router = bounded()
        .layer(Calls(context.traces.clone()))
        .layer(MapResponseLayer::new(explained))
        .layer(admitted)
        .layer(Metering(context.refused.clone()))
        .add_service(health)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .add_service(
            log.max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(topics.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(groups.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(cluster.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(access.max_decoding_message_size(MESSAGE_BYTES_MAX));
    let serve_one = move |connection: Single, graceful| {
        let serving = router.clone().serve_with_incoming_shutdown(connection, graceful);
        serving.map_err(|error| error.to_string()).boxed()
    };
    serve_each(
        incoming,
        context.connection_age.clone(),
        context.stopping.clone(),
        Arc::new(serve_one),
    )
    .await;
    Ok(())
}

/// HTTP/2 with every limit that a connection has.
fn bounded() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(RESETS_PENDING_MAX))
        .http2_max_local_error_reset_streams(Some(RESETS_BY_US_MAX))
}

/// What reflection tells: the public services and the health service.
fn described() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
