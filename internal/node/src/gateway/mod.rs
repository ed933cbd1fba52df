//! The JSON gateway: records in and out over HTTP/1.1, for whoever has curl and a certificate.
//!
//! ```text
//!   port ── http/1.1 ─► http ─► routes ─┬─ append ─ json, batches ─┐
//!                                       └─ fetch ── query, batches ┴► services ── access ── Permit ──► replicas
//!   another node ── link ─► Entrance ─► routes                     └► forward ── link ──► the leader's Entrance
//! ```
//!
//! It is another face of LogService: the same principal from the certificate, the same functions, permits, limits and
//! errors. What it adds is what a caller without our library lacks: it turns JSON into batches and back (`batches`),
//! keeps producers for those who bring none (`producers`), waits out an election, and carries a request to the node
//! that leads.
//!
//! Invariants:
//! * A request is forwarded once. The receiving node authorises the caller again and never forwards; it trusts the other
//!   node to say who the caller is, as it does for commands to the catalog.
//! * Nothing is begun that may be applied while no time is left to say so.
//! * A request that was sent to another node and not answered has an unknown outcome; only one that was certainly not
//!   carried out is answered as such.
//! * Every body, wait, answer and queue has a limit, and all of them stand in `limits`.
//!
//! Deliberately absent: HTTP/2 (that is gRPC's), cookies, sessions, content negotiation and cross-origin headers;
//! consumer groups; sending a request's records to several partitions, which could succeed in part.

mod answer;
mod append;
mod asking;
mod batches;
mod buffers;
mod fetch;
mod forward;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod http;
mod json;
mod limits;
mod origin;
mod patient;
mod producers;
mod query;
mod routes;
#[cfg(test)]
mod tests;
mod workers;

use std::sync::Arc;

use ::http::Method;
use ::http::uri::PathAndQuery;
use bytes::Bytes;
use highwater_proto::trace::TraceParent;
use tokio::time::Instant;

pub(crate) use forward::Entrance;
pub(crate) use query::Query;

use crate::access::Principal;
use crate::quotas::Payers;
use crate::services::Context;
use buffers::Buffers;
use forward::Forwards;
use limits::APPEND_TIME_LEAST;
use producers::Producers;
use workers::Workers;

/// The gateway of one node.
pub(crate) struct Gateway {
    context: Arc<Context>,
    buffers: Buffers,
    workers: Workers,
    forwards: Forwards,
    producers: Producers,
}

/// One request, whoever brought it.
#[derive(Clone)]
struct Call {
    principal: Principal,
    method: Method,
    target: PathAndQuery,
    body: Bytes,
    deadline: Instant,
    /// The partition that another node has chosen, if it has forwarded this; then it is not forwarded again.
    hop: Hop,
    /// What is done for it is a part of that.
    trace: Option<TraceParent>,
}

impl Call {
    /// Until when something may be begun that is not undone if nobody waits for it any more.
    fn begin_by(&self) -> Instant {
        self.deadline.checked_sub(APPEND_TIME_LEAST).unwrap_or(self.deadline)
    }
}

/// How a request came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hop {
    FromClient,
    FromNode { partition: Option<u32> },
}

impl Gateway {
    pub(crate) fn new(context: Arc<Context>) -> Arc<Gateway> {
        Arc::new(Gateway {
            context,
            buffers: Buffers::default(),
            workers: Workers::default(),
            forwards: Forwards::default(),
            producers: Producers::default(),
        })
    }

    /// Who pays for what a call moves.
    fn payers(&self, call: &Call) -> Payers {
        self.context.quotas.payers(call.principal.identity())
    }
}
