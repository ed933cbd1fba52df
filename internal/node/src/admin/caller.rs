//! Who is at the other end of a connection to the admin listener, and for how long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::time::Instant;

use super::doorway::Doorway;
use crate::access::Principal;

/// How somebody came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// To a loopback address: somebody, or some program, on this machine.
    Local,
    /// From elsewhere, without TLS: anybody.
    Stranger,
    /// With a certificate of the cluster's authorities. What he may do is asked at each request.
    Proven(Principal),
}

/// The other end of a connection; every request carries it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) who: Who,
    lease: Lease,
}

impl Caller {
    pub(super) fn new(who: Who, lease: Lease) -> Caller {
        Caller { who, lease }
    }

    /// Has the connection last for so long from now on, for an answer that goes on.
    pub(crate) fn stay(&self, time: Duration) {
        self.lease.extend(Instant::now() + time);
    }
}

impl Connected<IncomingStream<'_, Doorway>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Doorway>) -> Caller {
        stream.io().caller().clone()
    }
}

/// Until when a connection may last.
#[derive(Debug, Clone)]
pub(super) struct Lease(Arc<Mutex<Instant>>);

impl Lease {
    pub(super) fn until(end: Instant) -> Lease {
        Lease(Arc::new(Mutex::new(end)))
    }

    pub(super) fn end(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extend(&self, end: Instant) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = end.max(*now);
    }
}
