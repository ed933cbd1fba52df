//! The console: pages for people on the admin listener, and the JSON that they are made of.
//!
//! ```text
//!   browser ── assets (HTML, CSS, modules; in the binary) ── polls /api/v1/… ──► Console ─┬─ sampler ── the cluster, once a second
//!                                                        └─ follows /api/v1/tail ─────────┤             while somebody looks
//!                                                                                         ├─ events  ── a ring, filled by watching
//!                                                                                         └─ tail    ── records of replicas here
//! ```
//!
//! A console is as this node sees the cluster, and says so: nodes and replicas tell each other (the same call as `highwater cluster describe`
//! uses), while offsets of groups and records are told only of partitions that have a replica here.
//!
//! Invariants:
//! * Nothing can be changed here; there is only GET (`admin::guard`).
//! * A list has pages, an answer a largest size, a stream a longest time, and all of them stand at the head of their files.
//! * However many look, the cluster is asked once a second at most, once a second more about each tenant that is shown, and not at all while
//!   nobody does ([`sampler`], [`kept`]). What is much work on this node is done once a second at most, and not on the threads that serve.
//! * Records are shown only if the node's settings say so, and then by a permit like everywhere else ([`tail`]).
//!
//! Deliberately absent: anything from other hosts, a framework, a build step, and history from before somebody looked; Prometheus has that.

mod access;
mod answer;
mod assets;
mod cluster;
mod events;
mod groups;
mod kept;
mod picture;
mod record;
mod sampler;
mod tail;
mod tenants;
mod topics;
mod watcher;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::services::Context;
use events::Events;
use groups::Groups;
use kept::Kept;
use sampler::Sampler;
use tenants::TenantUse;

/// Tails at the same time on one node.
const TAILS_MAX: usize = 8;

/// The console of one node.
pub(crate) struct Console {
    context: Arc<Context>,
    /// Whether it shows records.
    records: bool,
    sampler: Sampler,
    groups_here: Kept<(), Groups>,
    /// By tenant.
    uses: Kept<String, TenantUse>,
    events: Events,
    tails: Arc<Semaphore>,
}

type Desk = State<Arc<Console>>;

impl Console {
    pub(crate) fn new(context: Arc<Context>, records: bool) -> Arc<Console> {
        Arc::new(Console {
            context,
            records,
            sampler: Sampler::default(),
            groups_here: Kept::default(),
            uses: Kept::default(),
            events: Events::new(),
            tails: Arc::new(Semaphore::new(TAILS_MAX)),
        })
    }

    /// Looks at the cluster for as long as the node runs: often while somebody is shown it, and always for what happens.
    pub(crate) async fn keep(self: Arc<Self>) {
        tokio::join!(
            self.sampler.keep(&self.context),
            watcher::watch(&self.context, &self.events)
        );
    }
}

/// What there is, for [`index`] and for whoever reads this.
const PATHS: [&str; 10] = [
    "/api/v1/cluster",
    "/api/v1/topics?search=&page=",
    "/api/v1/topics/{tenant}/{topic}?search=&page=",
    "/api/v1/groups?search=&page=",
    "/api/v1/groups/{tenant}/{topic}/{group}",
    "/api/v1/tenants?search=&page=",
    "/api/v1/tenants/{tenant}",
    "/api/v1/access?tenant=",
    "/api/v1/events?after=&start=",
    "/api/v1/tail?tenant=&topic=&partition=&back=&contains=",
];

/// The pages and what they ask for.
pub(crate) fn pages(console: Arc<Console>) -> Router {
    Router::new()
        .route("/api/v1", get(index))
        .route("/api/v1/cluster", get(cluster::cluster))
        .route("/api/v1/topics", get(topics::list))
        .route("/api/v1/topics/{tenant}/{topic}", get(topics::one))
        .route("/api/v1/groups", get(groups::list))
        .route("/api/v1/groups/{tenant}/{topic}/{group}", get(groups::one))
        .route("/api/v1/tenants", get(tenants::list))
        .route("/api/v1/tenants/{tenant}", get(tenants::one))
        .route("/api/v1/access", get(access::access))
        .route("/api/v1/events", get(events::since))
        .route("/api/v1/tail", get(tail::tail))
        .with_state(console)
        .fallback(get(assets::asset))
}

async fn index() -> Response {
    answer::json(&json!({ "service": "highwater console", "paths": PATHS }))
}
