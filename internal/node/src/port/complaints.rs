//! Counting, and sparing logging, of what goes wrong at the port.
//!
//! Anyone who reaches the port can cause these events at will, so each kind is counted and only some are logged.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::crowd::Crowd;

/// Complaints that are logged in one period.
const LOGGED_PER_PERIOD: u64 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// What has happened at the port since it was bound, and what is there now.
#[derive(Debug, Default)]
pub struct PortCounters {
    accepted: AtomicU64,
    not_tls: AtomicU64,
    timed_out: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    crowded: AtomicU64,
    slowed: AtomicU64,
    pub(super) grpc: Crowd,
    pub(super) http: Crowd,
    log: Mutex<LogWindow>,
}

/// One kind of complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Complaint {
    NotTls,
    TimedOut,
    Failed,
    Refused,
    Crowded,
    Slowed,
}

#[derive(Debug, Default)]
struct LogWindow {
    began: Option<Instant>,
    seen: u64,
}

impl PortCounters {
    /// TCP connections accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections that began with something else than TLS: garbage, plain HTTP.
    pub fn not_tls(&self) -> u64 {
        self.not_tls.load(Ordering::Relaxed)
    }

    /// Connections that did not finish their handshake in time.
    pub fn timed_out(&self) -> u64 {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Handshakes that failed: no certificate, a wrong one, or no common protocol.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Connections with a good certificate that were refused all the same.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections closed at once because too many handshakes with their address were going on.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }

    /// How often a connection was not read for a while because its client made us read too much beyond its calls.
    pub fn slowed(&self) -> u64 {
        self.slowed.load(Ordering::Relaxed)
    }

    /// gRPC connections that are open.
    pub fn open_grpc(&self) -> usize {
        self.grpc.count()
    }

    /// Connections that are open with the gateway.
    pub fn open_http(&self) -> usize {
        self.http.count()
    }

    pub(super) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn complain(&self, complaint: Complaint, remote: SocketAddr, why: impl Display) {
        let counter = match complaint {
            Complaint::NotTls => &self.not_tls,
            Complaint::TimedOut => &self.timed_out,
            Complaint::Failed => &self.failed,
            Complaint::Refused => &self.refused,
            Complaint::Crowded => &self.crowded,
            Complaint::Slowed => &self.slowed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let Some(unlogged) = self.may_log() else {
            return;
        };
        match complaint {
            // Whoever set up that client or node looks here for what is wrong with the certificate.
            Complaint::Failed | Complaint::Refused | Complaint::Crowded => {
                tracing::warn!(%remote, %why, unlogged, "a connection was refused");
            }
            Complaint::Slowed => tracing::warn!(%remote, %why, unlogged, "a connection is read slowly"),
            Complaint::NotTls | Complaint::TimedOut => {
                tracing::debug!(%remote, ?complaint, %why, unlogged, "connection closed");
            }
        }
    }

    /// `Some` if there is room in the log, with the number of complaints passed over in the last period.
    fn may_log(&self) -> Option<u64> {
        let mut window = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unlogged = 0;
        if window.began.is_none_or(|began| began.elapsed() >= PERIOD) {
            unlogged = window.seen.saturating_sub(LOGGED_PER_PERIOD);
            *window = LogWindow {
                began: Some(Instant::now()),
                seen: 0,
            };
        }
        window.seen += 1;
        (window.seen <= LOGGED_PER_PERIOD).then_some(unlogged)
    }
}
