//! What a node tells Prometheus, in its text format (0.0.4), at `/metrics` of the admin listener.
//!
//! Nearly everything is known elsewhere already: the status of replicas, the catalog, counters at the port, accounts of tenants. It is read
//! when somebody asks ([`Metrics::text`]), so that it costs nothing otherwise and cannot disagree with what commands show.
//!
//! Invariants:
//! * Every name begins with `highwater_`, or with `process_` where all programs use the same one, ends with its unit, and stands in
//!   docs/metrics.md; a test compares them.
//! * How many lines there are is bounded: partitions by [`partitions::TOLD_MAX`], the same ones on each node, groups by
//!   [`lags::GROUPS_TOLD_MAX`], tenants by their own limit. Names of clients, addresses and offsets are never labels.
//!
//! Deliberately absent: anything that is pushed, and rates, which whoever asks can compute from counters.

mod family;
mod lags;
mod partitions;
mod process;
mod scrub;
mod timings;

use std::sync::Arc;

use highwater_partition::log::Space;

use crate::access::Authority;
use crate::audit::Audit;
use crate::catalog::{CatalogHost, Currency};
use crate::link::Link;
use crate::port::{Crowd, PortCounters};
use crate::quotas::Quotas;
use crate::readiness::NotReady;
use crate::replicas::Registry;
use crate::status::Refused;
use crate::storage::Storage;
use crate::tls::Credentials;
use crate::traces::Traces;
pub(crate) use family::Families;
pub(crate) use timings::Timings;

type Readiness = tokio::sync::watch::Receiver<Option<NotReady>>;

/// Where the figures come from.
pub(crate) struct Metrics {
    pub(crate) node: String,
    pub(crate) not_ready: Readiness,
    pub(crate) port: Arc<PortCounters>,
    pub(crate) link: Link,
    /// Who is connected with the admin listener.
    pub(crate) guests: Arc<Crowd>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalog: Arc<CatalogHost>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) traces: Traces,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) refused: Arc<Refused>,
    pub(crate) audit: Audit,
    pub(crate) currency: Arc<Currency>,
}

impl Metrics {
    /// All that there is to tell now.
    pub(crate) fn text(&self) -> String {
        let mut families = Families::default();
        self.node(&mut families);
        self.disk(&mut families);
        self.connections(&mut families);
        self.refused.tell(&mut families);
        self.access(&mut families);
        self.audit.tell(&mut families);
        self.storage.timings().tell(&mut families);
        self.traces.tell(&mut families);
        partitions::tell(&mut families, &self.node, &self.registry, &self.catalog);
        self.quotas.tell(&mut families);
        process::tell(&mut families);
        families.into_text()
    }

    fn node(&self, families: &mut Families) {
        let version = env!("CARGO_PKG_VERSION");
        families
            .begin("highwater_node_info", "Always 1; the labels say what this node is.")
            .value(&[("node", &self.node), ("version", version)], 1.0);
        families.tell(
            "highwater_node_ready",
            "Whether this node is ready: 1 or 0; /readyz says why not.",
            flag(self.not_ready.borrow().is_none()),
        );
        families.tell(
            "highwater_catalog_current",
            "Whether this node has heard from a quorum of the catalog lately: 1 or 0; if not, it serves no client.",
            flag(self.currency.check().is_ok()),
        );
        families.tell(
            "highwater_certificate_expiry_timestamp_seconds",
            "When the certificate that this node uses expires, seconds since 1970.",
            self.credentials.expiry_seconds() as f64,
        );
    }

    fn disk(&self, families: &mut Families) {
        let Ok(room) = self.storage.room() else { return };
        families.tell(
            "highwater_disk_free_bytes",
            "Free on the disk of the data directory, the reserve not counted.",
            room.free_bytes as f64,
        );
        families.tell(
            "highwater_disk_size_bytes",
            "Size of the disk of the data directory.",
            room.total_bytes as f64,
        );
        families.tell(
            "highwater_disk_full",
            "Whether this node takes no records because its disk is nearly full: 1 or 0.",
            flag(room.space == Space::Full),
        );
        families.tell(
            "highwater_tail_cache_bytes",
            "Bytes of recent entries in memory, for consumers and followers.",
            self.storage.cached_bytes() as f64,
        );
        let reads = self.storage.cache_reads();
        let mut told = families.begin(
            "highwater_tail_cache_reads_total",
            "Reads of consumers, by whether the records were in memory.",
        );
        told.value(&[("result", "hit")], reads.hits as f64);
        told.value(&[("result", "miss")], reads.misses as f64);
        scrub::tell_pace(families, &self.storage.scrub_pace());
    }

    fn access(&self, families: &mut Families) {
        let asked = self.authority.asked();
        let mut told = families.begin(
            "highwater_access_decisions_total",
            "How often it was asked what a client may do, by whether that had been decided before.",
        );
        told.value(&[("result", "known")], asked.known as f64);
        told.value(&[("result", "decided")], asked.decided as f64);
    }

    fn connections(&self, families: &mut Families) {
        let mut open = families.begin("highwater_connections", "Connections that are open, by kind.");
        for (kind, count) in [
            ("client", self.port.open_grpc()),
            ("gateway", self.port.open_http()),
            ("peer", self.link.open_connections()),
            ("admin", self.guests.count()),
        ] {
            open.value(&[("kind", kind)], count as f64);
        }
        families.tell(
            "highwater_connections_accepted_total",
            "TCP connections that came to the port.",
            self.port.accepted() as f64,
        );
        let mut refused = families.begin(
            "highwater_connections_refused_total",
            "Connections that were closed before they were served, by reason.",
        );
        for (reason, count) in [
            ("not_tls", self.port.not_tls()),
            ("handshake_timeout", self.port.timed_out()),
            ("handshake_failed", self.port.failed()),
            ("limit", self.port.refused()),
            ("handshakes_limit", self.port.crowded()),
        ] {
            refused.value(&[("reason", reason)], count as f64);
        }
        families.tell(
            "highwater_connections_slowed_total",
            "How often a connection was not read for a while because its client made this node read much that no call takes.",
            self.port.slowed() as f64,
        );
    }
}

/// What is so is 1, what is not is 0.
fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}
