//! What one node is told when it starts.
//!
//! Only what belongs to this node alone stands here. What all replicas must agree on (timers, topics, placement) is
//! in the catalog and cannot be set for a single node.

mod traces;

use std::path::PathBuf;

pub use highwater_catalog::limits::{ADDRESS_BYTES_MAX, RACK_BYTES_MAX};
use highwater_catalog::names::{self, SYSTEM_TENANT};
use serde::{Deserialize, Serialize};

pub use self::traces::{TRACES_ENDPOINT_BYTES_MAX, TRACES_ONE_IN, TRACES_PER_SECOND_MAX, TracesConfig, TracesProtocol};

/// The most seed addresses that a node accepts.
pub const SEEDS_MAX: usize = 64;
/// The most nodes that may found a cluster together.
pub const BOOTSTRAP_NODES_MAX: usize = 5;
/// The most operators that a node accepts.
pub const OPERATORS_MAX: usize = 64;
/// The most names of the admin listener.
pub const ADMIN_NAMES_MAX: usize = 64;
/// How long each of them may be.
const ADMIN_NAME_BYTES_MAX: usize = 253;
/// The most tenants that a node's configuration names.
pub const FIRST_TENANTS_MAX: usize = 256;
/// How large a segment may be made, bytes: from what holds a largest batch several times over up to what a start can still look through.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 4 * 1024 * 1024..=16 * 1024 * 1024 * 1024;

/// How much memory recent frames may be given, bytes: up to 1 TiB.
pub const TAIL_CACHE_BYTES: std::ops::RangeInclusive<u64> = 0..=1024 * 1024 * 1024 * 1024;

/// How often retention may be looked after, milliseconds: up to once a day.
pub const RETENTION_INTERVAL_MS: std::ops::RangeInclusive<u64> = 100..=24 * 60 * 60 * 1000;

/// How old clients' connections may be allowed to become, milliseconds: up to a week.
pub const CONNECTION_AGE_MAX_MS: std::ops::RangeInclusive<u64> = 1_000..=7 * 24 * 60 * 60 * 1000;

/// The configuration of one node. `Default` is complete but for `node`, `data_dir` and `tls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The stable name of this node; must be the one in its certificate.
    pub node: String,
    /// The name of the cluster; must be the one in the certificates. Default `highwater`.
    pub cluster: String,
    /// Where the one port listens, `host:port`; port 0 takes a free one. Default `127.0.0.1:7400`.
    pub listen: String,
    /// Where the admin listener listens, `host:port`: liveness, readiness, metrics and the console; port 0 takes a free one, empty turns it
    /// off. On loopback it is plain HTTP, and whoever reaches it needs no certificate. Elsewhere it speaks TLS and takes certificates of the
    /// cluster's operators; without one it tells only `/livez` and `/readyz`. Default `127.0.0.1:7401`.
    pub admin_listen: String,
    /// Further names under which browsers may ask the admin listener; addresses and `localhost` always may. Default: none.
    pub admin_names: Vec<String>,
    /// Whether `/metrics` of the admin listener is for everybody who reaches it, also elsewhere than on loopback. Default: no.
    pub admin_open_metrics: bool,
    /// Whether the console shows records: on loopback to whoever reaches it, elsewhere to operators who may consume the topic. Default: no.
    pub console_records: bool,
    /// Where other nodes and clients reach this node, `host:port`. Empty: the address that it listens on.
    pub advertise: String,
    /// Where everything that must outlive the process is kept. One directory, one node, one process.
    pub data_dir: PathBuf,
    /// Addresses (`host:port`) of nodes to ask for the cluster. This node's own address may be among them.
    pub seeds: Vec<String>,
    /// Names of the nodes that found the cluster together, the same list on each of them; the first founds it. They
    /// become the catalog's voters. May be empty on nodes that join later, and is without effect once founded.
    pub bootstrap: Vec<String>,
    /// The failure domain that this node stands in; replicas of a partition are spread over racks. May be empty.
    pub rack: String,
    /// The clients that may change the cluster through this node (drain, decommission, move, settings, tenants, policy), whatever the
    /// policy says: `tenant/client` each. As soon as a node that leads the catalog names one, the cluster gets its first policy, in which
    /// these clients are operators. Default: none.
    pub operators: Vec<String>,
    /// The tenants that the first policy knows beside those of the operators and those that own topics: all their clients own what is in
    /// them. Without effect once there is a policy. Default: `default`.
    pub tenants: Vec<String>,
    /// The certificates.
    pub tls: TlsConfig,
    /// Which traces are told, and where.
    pub traces: TracesConfig,
    /// Memory for recent frames, for all partitions of the node together, bytes. Default 256 MiB.
    pub tail_cache_bytes: usize,
    /// How large a segment file grows before the next one is begun, bytes. Default 128 MiB.
    pub segment_bytes_max: u64,
    /// How often the partitions led here are looked at for records that are older or more than their topic keeps,
    /// milliseconds. Default 30,000.
    pub retention_interval_ms: u64,
    /// How old a client's connection may become, milliseconds; then the client makes another one, and proves itself again.
    /// Default 3,600,000.
    pub connection_age_max_ms: u64,
}

/// The PEM files that a node proves itself with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate authorities that peers and clients must come from.
    pub ca: PathBuf,
    /// This node's certificate, with intermediates behind it.
    pub cert: PathBuf,
    /// The private key of `cert`.
    pub key: PathBuf,
    /// Lists of certificates that are revoked (PEM, one or more); empty: there are none.
    pub crl: PathBuf,
    /// Whether a certificate without any URI may be that of a client whose common name is `tenant/client`. Default: no.
    pub client_name_from_cn: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            node: String::new(),
            cluster: "highwater".to_owned(),
            listen: "127.0.0.1:7400".to_owned(),
            admin_listen: "127.0.0.1:7401".to_owned(),
            admin_names: Vec::new(),
            admin_open_metrics: false,
            console_records: false,
            advertise: String::new(),
            data_dir: PathBuf::new(),
            seeds: Vec::new(),
            bootstrap: Vec::new(),
            rack: String::new(),
            operators: Vec::new(),
            tenants: vec!["default".to_owned()],
            tls: TlsConfig::default(),
            traces: TracesConfig::default(),
            tail_cache_bytes: 256 * 1024 * 1024,
            segment_bytes_max: 128 * 1024 * 1024,
            retention_interval_ms: 30_000,
            connection_age_max_ms: 60 * 60 * 1000,
        }
    }
}

/// A field of the configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration field `{field}`: {why}")]
pub struct ConfigError {
    /// The field's name, as in the file.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub why: String,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, why: impl Into<String>) -> Self {
        ConfigError { field, why: why.into() }
    }
}

impl Config {
    /// Checks everything that can be checked without touching a file or a socket.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_name_field("node", &self.node)?;
        check_name_field("cluster", &self.cluster)?;
        check_address("listen", &self.listen)?;
        self.check_admin()?;
        if !self.advertise.is_empty() {
            check_dialable("advertise", &self.advertise)?;
        } else if is_unspecified(&self.listen) {
            let why = format!("is needed, because others cannot dial `{}`", self.listen);
            return Err(ConfigError::new("advertise", why));
        }
        self.check_paths()?;
        self.check_seeds()?;
        self.check_bootstrap()?;
        self.check_operators()?;
        self.check_tenants()?;
        self.traces.validate()?;
        // As the catalog has it: a node that it refuses would wait to be let in for ever.
        if self.rack.len() > RACK_BYTES_MAX || !self.rack.chars().all(|letter| letter.is_ascii_graphic()) {
            let why = format!("must be at most {RACK_BYTES_MAX} visible ASCII characters without spaces");
            return Err(ConfigError::new("rack", why));
        }
        check_between("tail_cache_bytes", self.tail_cache_bytes as u64, TAIL_CACHE_BYTES)?;
        check_between("segment_bytes_max", self.segment_bytes_max, SEGMENT_BYTES)?;
        check_between(
            "retention_interval_ms",
            self.retention_interval_ms,
            RETENTION_INTERVAL_MS,
        )?;
        check_between(
            "connection_age_max_ms",
            self.connection_age_max_ms,
            CONNECTION_AGE_MAX_MS,
        )
    }

    /// Where others reach this node, given the port that it really listens on (`listen` may have asked for any).
    pub fn advertised_address(&self, listening: std::net::SocketAddr) -> String {
        if !self.advertise.is_empty() {
            return self.advertise.clone();
        }
        match self.listen.rsplit_once(':') {
            Some((host, _)) => format!("{host}:{}", listening.port()),
            None => listening.to_string(),
        }
    }

    fn check_paths(&self) -> Result<(), ConfigError> {
        let paths = [
            ("data_dir", &self.data_dir),
            ("tls.ca", &self.tls.ca),
            ("tls.cert", &self.tls.cert),
            ("tls.key", &self.tls.key),
        ];
        match paths.iter().find(|(_, path)| path.as_os_str().is_empty()) {
            Some((field, _)) => Err(ConfigError::new(field, "must name a path")),
            None => Ok(()),
        }
    }

    fn check_seeds(&self) -> Result<(), ConfigError> {
        if self.seeds.len() > SEEDS_MAX {
            let why = format!("{} addresses, at most {SEEDS_MAX} are accepted", self.seeds.len());
            return Err(ConfigError::new("seeds", why));
        }
        self.seeds.iter().try_for_each(|seed| check_address("seeds", seed))
    }

    fn check_operators(&self) -> Result<(), ConfigError> {
        if self.operators.len() > OPERATORS_MAX {
            let why = format!(
                "names {} clients, at most {OPERATORS_MAX} are accepted",
                self.operators.len()
            );
            return Err(ConfigError::new("operators", why));
        }
        for operator in &self.operators {
            let Some((tenant, client)) = operator.split_once('/') else {
                let why = format!("`{operator}` is not of the form tenant/client");
                return Err(ConfigError::new("operators", why));
            };
            check_name_field("operators", tenant)?;
            check_not_system("operators", tenant)?;
            check_name_field("operators", client)?;
        }
        Ok(())
    }

    fn check_admin(&self) -> Result<(), ConfigError> {
        if !self.admin_listen.is_empty() {
            check_address("admin_listen", &self.admin_listen)?;
        }
        let is_name = |name: &String| {
            let letters = name
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "-._".contains(letter));
            letters && !name.is_empty() && name.len() <= ADMIN_NAME_BYTES_MAX
        };
        if let Some(wrong) = self.admin_names.iter().find(|name| !is_name(name)) {
            let why =
                format!("`{wrong}` is not a host name of at most {ADMIN_NAME_BYTES_MAX} characters, without a port");
            return Err(ConfigError::new("admin_names", why));
        }
        if self.admin_names.len() > ADMIN_NAMES_MAX {
            let why = format!(
                "{} names, at most {ADMIN_NAMES_MAX} are accepted",
                self.admin_names.len()
            );
            return Err(ConfigError::new("admin_names", why));
        }
        Ok(())
    }

    fn check_tenants(&self) -> Result<(), ConfigError> {
        let count = self.tenants.len();
        if count > FIRST_TENANTS_MAX {
            let why = format!("names {count} tenants, at most {FIRST_TENANTS_MAX} are accepted; others are made later");
            return Err(ConfigError::new("tenants", why));
        }
        for tenant in &self.tenants {
            check_name_field("tenants", tenant)?;
            check_not_system("tenants", tenant)?;
        }
        Ok(())
    }

    fn check_bootstrap(&self) -> Result<(), ConfigError> {
        let count = self.bootstrap.len();
        for (position, name) in self.bootstrap.iter().enumerate() {
            check_name_field("bootstrap", name)?;
            if self.bootstrap[..position].contains(name) {
                return Err(ConfigError::new("bootstrap", format!("names `{name}` twice")));
            }
        }
        if count > 0 && (count > BOOTSTRAP_NODES_MAX || count.is_multiple_of(2)) {
            let why = format!("names {count} nodes; the catalog has 1, 3 or {BOOTSTRAP_NODES_MAX} voters");
            return Err(ConfigError::new("bootstrap", why));
        }
        Ok(())
    }
}

fn check_name_field(field: &'static str, name: &str) -> Result<(), ConfigError> {
    names::validate(field, name).map_err(|why| ConfigError::new(field, why.to_string()))
}

fn check_not_system(field: &'static str, tenant: &str) -> Result<(), ConfigError> {
    if tenant != SYSTEM_TENANT {
        return Ok(());
    }
    let why = format!("names the tenant `{SYSTEM_TENANT}`, which is the cluster's own and has no clients");
    Err(ConfigError::new(field, why))
}

fn check_between(field: &'static str, value: u64, allowed: std::ops::RangeInclusive<u64>) -> Result<(), ConfigError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = allowed.into_inner();
    Err(ConfigError::new(
        field,
        format!("{value} is not between {least} and {most}"),
    ))
}

fn check_address(field: &'static str, address: &str) -> Result<(), ConfigError> {
    let wrong = || ConfigError::new(field, format!("`{address}` is not of the form host:port"));
    if address.len() > ADDRESS_BYTES_MAX {
        return Err(wrong());
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host_is_whole = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    if host.is_empty()
        || !host_is_whole
        || !address.chars().all(|letter| letter.is_ascii_graphic())
        || port.parse::<u16>().is_err()
    {
        return Err(wrong());
    }
    Ok(())
}

fn is_unspecified(address: &str) -> bool {
    ["0.0.0.0:", "[::]:"].iter().any(|host| address.starts_with(host))
}

fn check_dialable(field: &'static str, address: &str) -> Result<(), ConfigError> {
    check_address(field, address)?;
    if is_unspecified(address) || address.ends_with(":0") {
        let why = format!("`{address}` cannot be dialled; name a host and port that others reach");
        return Err(ConfigError::new(field, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater_catalog::{Catalog, Command, FoundingNode, Reply};

    use super::*;

    fn sound() -> Config {
        Config {
            node: "a".to_owned(),
            data_dir: "data".into(),
            tls: TlsConfig {
                ca: "ca.pem".into(),
                cert: "a.pem".into(),
                key: "a.key".into(),
                ..TlsConfig::default()
            },
            bootstrap: ["a", "b", "c"].map(str::to_owned).to_vec(),
            seeds: vec!["b.example:7400".to_owned(), "[::1]:7400".to_owned()],
            ..Config::default()
        }
    }

    #[test]
    fn a_sound_configuration_passes() {
        assert_eq!(sound().validate(), Ok(()));
    }

    #[test]
    fn each_flaw_names_its_field() {
        let with = |change: fn(&mut Config)| {
            let mut config = sound();
            change(&mut config);
            config.validate().unwrap_err().field
        };
        assert_eq!(with(|config| config.node = "A".to_owned()), "node");
        assert_eq!(with(|config| config.cluster = String::new()), "cluster");
        assert_eq!(with(|config| config.listen = "7400".to_owned()), "listen");
        assert_eq!(with(|config| config.listen = "::1:7400".to_owned()), "listen");
        assert_eq!(with(|config| config.admin_listen = "7401".to_owned()), "admin_listen");
        assert_eq!(with(|config| config.listen = "0.0.0.0:7400".to_owned()), "advertise");
        assert_eq!(with(|config| config.advertise = "0.0.0.0:7400".to_owned()), "advertise");
        assert_eq!(with(|config| config.advertise = "a:0".to_owned()), "advertise");
        assert_eq!(with(|config| config.data_dir = PathBuf::new()), "data_dir");
        assert_eq!(with(|config| config.tls.key = PathBuf::new()), "tls.key");
        assert_eq!(with(|config| config.seeds = vec!["b:70000".to_owned()]), "seeds");
        assert_eq!(
            with(|config| config.seeds = vec!["b:1".to_owned(); SEEDS_MAX + 1]),
            "seeds"
        );
        assert_eq!(with(|config| config.bootstrap.truncate(2)), "bootstrap");
        assert_eq!(with(|config| config.bootstrap[2] = "a".to_owned()), "bootstrap");
        assert_eq!(with(|config| config.operators = vec!["anna".to_owned()]), "operators");
        assert_eq!(with(|config| config.operators = vec!["ops/A".to_owned()]), "operators");
        assert_eq!(with(|config| config.tenants = vec!["@cluster".to_owned()]), "tenants");
        assert_eq!(
            with(|config| config.tenants = vec!["a".to_owned(); FIRST_TENANTS_MAX + 1]),
            "tenants"
        );
        assert_eq!(
            with(|config| config.operators = vec!["ops/anna".to_owned(); OPERATORS_MAX + 1]),
            "operators"
        );
        assert_eq!(with(|config| config.tenants = vec!["system".to_owned()]), "tenants");
        assert_eq!(
            with(|config| config.operators = vec!["system/anna".to_owned()]),
            "operators"
        );
        assert_eq!(with(|config| config.rack = "r\n".to_owned()), "rack");
        assert_eq!(with(|config| config.rack = "room 1".to_owned()), "rack");
        assert_eq!(
            with(|config| config.advertise = "knoten-ä:7400".to_owned()),
            "advertise"
        );
        assert_eq!(
            with(|config| config.advertise = format!("{}:7400", "a".repeat(ADDRESS_BYTES_MAX - 4))),
            "advertise"
        );
        assert_eq!(with(|config| config.segment_bytes_max = 1), "segment_bytes_max");
        assert_eq!(with(|config| config.tail_cache_bytes = 1 << 41), "tail_cache_bytes");
        assert_eq!(with(|config| config.connection_age_max_ms = 0), "connection_age_max_ms");
    }

    #[test]
    fn what_passes_here_is_let_in_by_the_catalog() {
        let mut config = sound();
        config.advertise = format!("{}:7400", "a".repeat(ADDRESS_BYTES_MAX - 5));
        config.rack = "~".repeat(RACK_BYTES_MAX);
        assert_eq!(config.validate(), Ok(()));
        let node = FoundingNode {
            name: config.node,
            incarnation: [1; 16],
            address: config.advertise,
            rack: config.rack,
            replica_id: 1,
        };
        let found = Command::Found {
            cluster_id: [2; 16],
            cluster_name: config.cluster,
            nodes: vec![node],
        };
        assert!(matches!(Catalog::new().apply(1, &found), Reply::Founded { .. }));
    }

    #[test]
    fn the_advertised_address_is_the_configured_one_or_the_listening_one() {
        let listening = "127.0.0.1:4711".parse().unwrap();
        let mut config = sound();
        config.listen = "localhost:0".to_owned();
        assert_eq!(config.advertised_address(listening), "localhost:4711");
        config.advertise = "a.example:7400".to_owned();
        assert_eq!(config.advertised_address(listening), "a.example:7400");
    }
}
