//! What a node is told about traces.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check_between};

/// How long the collector's address may be, bytes.
pub const TRACES_ENDPOINT_BYTES_MAX: usize = 512;

/// Of how many batches one may be traced, if it is not their client that says so; 0: none.
pub const TRACES_ONE_IN: std::ops::RangeInclusive<u64> = 0..=1_000_000_000;

/// How many traces a node may begin or go on with in a second.
pub const TRACES_PER_SECOND_MAX: std::ops::RangeInclusive<u64> = 0..=100_000;

/// What is traced, and the collector that is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesConfig {
    /// Where a collector takes spans (OTLP), `http://host:port` or `https://host:port`; empty: nothing is traced.
    pub endpoint: String,
    /// How it takes them. Default: gRPC.
    pub protocol: TracesProtocol,
    /// The authorities (PEM) that the collector's certificate must come from; for `https` only.
    pub ca: PathBuf,
    /// Of the batches whose client has no trace of its own, one in so many is traced; 0: none. Default 100.
    pub one_in: u32,
    /// The most traces that this node begins or goes on with in a second. Default 100.
    pub per_second_max: u32,
}

/// How a collector takes spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TracesProtocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP, protobuf, at `/v1/traces` if the endpoint has no path of its own.
    Http,
}

impl TracesConfig {
    /// Whether spans go to the collector by TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.endpoint.starts_with("https://")
    }

    /// Checks everything that can be checked without touching a file or a socket.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.endpoint.is_empty() {
            return Ok(());
        }
        let has_host = |uri: http::Uri| uri.host().is_some_and(|host| !host.is_empty());
        let is_one = self.endpoint.len() <= TRACES_ENDPOINT_BYTES_MAX
            && (self.is_encrypted() || self.endpoint.starts_with("http://"))
            && self.endpoint.parse().is_ok_and(has_host);
        if !is_one {
            let why = format!(
                "`{:.64}` is not of the form http://host:port or https://host:port, at most {TRACES_ENDPOINT_BYTES_MAX} bytes",
                self.endpoint
            );
            return Err(ConfigError::new("traces.endpoint", why));
        }
        if self.is_encrypted() == self.ca.as_os_str().is_empty() {
            let why = match self.is_encrypted() {
                true => "must name a file with the authorities that the collector's certificate comes from",
                false => "is for collectors with https:// only",
            };
            return Err(ConfigError::new("traces.ca", why));
        }
        check_between("traces.one_in", self.one_in.into(), TRACES_ONE_IN)?;
        check_between(
            "traces.per_second_max",
            self.per_second_max.into(),
            TRACES_PER_SECOND_MAX,
        )
    }
}

impl Default for TracesConfig {
    fn default() -> Self {
        TracesConfig {
            endpoint: String::new(),
            protocol: TracesProtocol::Grpc,
            ca: PathBuf::new(),
            one_in: 100,
            per_second_max: 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(endpoint: &str, change: fn(&mut TracesConfig)) -> Result<(), &'static str> {
        let mut config = TracesConfig {
            endpoint: endpoint.to_owned(),
            ..TracesConfig::default()
        };
        change(&mut config);
        config.validate().map_err(|error| error.field)
    }

    #[test]
    fn a_collector_is_named_by_scheme_host_and_port() {
        for right in [
            "",
            "http://collector:4317",
            "http://[::1]:4318/custom",
            "http://collector",
        ] {
            assert_eq!(with(right, |_| ()), Ok(()), "{right}");
        }
        let long = format!("http://{}", "a".repeat(TRACES_ENDPOINT_BYTES_MAX));
        for wrong in ["collector:4317", "ftp://collector", "http://", "https://a b", &long] {
            assert_eq!(with(wrong, |_| ()), Err("traces.endpoint"), "{wrong}");
        }
    }

    #[test]
    fn authorities_belong_to_encrypted_ways_and_to_no_others() {
        let ca = |traces: &mut TracesConfig| traces.ca = "ca.pem".into();
        assert_eq!(with("https://collector:4317", |_| ()), Err("traces.ca"));
        assert_eq!(with("https://collector:4317", ca), Ok(()));
        assert_eq!(with("http://collector:4317", ca), Err("traces.ca"));
    }

    #[test]
    fn how_much_is_traced_has_limits() {
        let endpoint = "http://collector:4317";
        assert_eq!(with(endpoint, |traces| traces.one_in = u32::MAX), Err("traces.one_in"));
        let many = |traces: &mut TracesConfig| traces.per_second_max = u32::MAX;
        assert_eq!(with(endpoint, many), Err("traces.per_second_max"));
    }
}
