//! The table of all settings of `highwater serve`: the one place where a setting is declared.
//!
//! Flags and their help, variables, what a file may say, `--print-config` and docs/configuration.md come from it. A new setting is a
//! row here and a field of [`Config`](highwater_node::Config) or [`Process`](super::Process), where its default is.

use std::ops::RangeInclusive;

use highwater_node::config::{
    ADMIN_NAMES_MAX, BOOTSTRAP_NODES_MAX, CONNECTION_AGE_MAX_MS, FIRST_TENANTS_MAX, OPERATORS_MAX, RACK_BYTES_MAX,
    RETENTION_INTERVAL_MS, SEEDS_MAX, SEGMENT_BYTES, TAIL_CACHE_BYTES, TRACES_ENDPOINT_BYTES_MAX, TRACES_ONE_IN,
    TRACES_PER_SECOND_MAX,
};

use super::WORKERS_MAX;
use super::values::Kind;

/// One setting.
#[derive(Debug, PartialEq)]
pub(crate) struct Setting {
    /// Its name in the file; `tls.ca` stands as `ca` in the table `tls`.
    pub(crate) key: &'static str,
    /// Its flag, without the dashes.
    pub(crate) flag: &'static str,
    /// Its variable in the environment, named like the flag.
    pub(crate) variable: &'static str,
    /// What stands for the value in the help.
    pub(crate) placeholder: &'static str,
    /// What a value looks like, and its limits.
    pub(crate) kind: Kind,
    /// What it is for, in sentences.
    pub(crate) meaning: &'static str,
    /// When a new value comes into force.
    pub(crate) taken: Taken,
}

/// When a new value of a setting comes into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// When the process starts.
    AtStart,
    /// When the process starts, and at SIGHUP.
    AtSighup,
}

const WORKERS: RangeInclusive<u64> = 0..=WORKERS_MAX as u64;

/// All settings, in the order in which they are told. In a file, tables such as `tls` come last.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        key: "node",
        flag: "node",
        variable: "HIGHWATER_NODE",
        placeholder: "NAME",
        kind: Kind::Name,
        meaning: "The stable name of this node; must be the one in its certificate.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "cluster",
        flag: "cluster",
        variable: "HIGHWATER_CLUSTER",
        placeholder: "NAME",
        kind: Kind::Name,
        meaning: "The name of the cluster; must be the one in the certificates.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "listen",
        flag: "listen",
        variable: "HIGHWATER_LISTEN",
        placeholder: "ADDRESS",
        kind: Kind::Address,
        meaning: "Where the one port listens; port 0 takes a free one.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "admin_listen",
        flag: "admin-listen",
        variable: "HIGHWATER_ADMIN_LISTEN",
        placeholder: "ADDRESS",
        kind: Kind::Address,
        meaning: "Where the admin listener listens: /livez, /readyz, /metrics and the console. On loopback plain \
                  HTTP for whoever reaches it; elsewhere TLS with an operator's certificate, and without one \
                  only the first two. Empty turns it off.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "admin_names",
        flag: "admin-names",
        variable: "HIGHWATER_ADMIN_NAMES",
        placeholder: "NAME,…",
        kind: Kind::List(ADMIN_NAMES_MAX, "names"),
        meaning: "Further host names under which browsers may ask the admin listener; addresses and localhost \
                  always may.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "admin_open_metrics",
        flag: "admin-open-metrics",
        variable: "HIGHWATER_ADMIN_OPEN_METRICS",
        placeholder: "BOOL",
        kind: Kind::Switch,
        meaning: "Whether /metrics of the admin listener is for everybody who reaches it, also elsewhere than on \
                  loopback.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "console_records",
        flag: "console-records",
        variable: "HIGHWATER_CONSOLE_RECORDS",
        placeholder: "BOOL",
        kind: Kind::Switch,
        meaning: "Whether the console shows records: on loopback to whoever reaches it, elsewhere to operators \
                  who may consume the topic.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "advertise",
        flag: "advertise",
        variable: "HIGHWATER_ADVERTISE",
        placeholder: "ADDRESS",
        kind: Kind::Address,
        meaning: "Where other nodes and clients reach this node. Empty: the address that it listens on.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "data_dir",
        flag: "data-dir",
        variable: "HIGHWATER_DATA_DIR",
        placeholder: "DIR",
        kind: Kind::Path,
        meaning: "Where everything that must outlive the process is kept. One directory, one node, one \
                  process.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "rack",
        flag: "rack",
        variable: "HIGHWATER_RACK",
        placeholder: "NAME",
        kind: Kind::Text(RACK_BYTES_MAX),
        meaning: "The failure domain that this node stands in; replicas of a partition are spread over racks. \
                  May be empty.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "seeds",
        flag: "seeds",
        variable: "HIGHWATER_SEEDS",
        placeholder: "ADDRESS,…",
        kind: Kind::List(SEEDS_MAX, "addresses"),
        meaning: "Addresses of nodes to ask for the cluster. This node's own may be among them.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "bootstrap",
        flag: "bootstrap",
        variable: "HIGHWATER_BOOTSTRAP",
        placeholder: "NAME,…",
        kind: Kind::List(BOOTSTRAP_NODES_MAX, "names"),
        meaning: "Names of the nodes that found the cluster together, one, three or five, the same list on \
                  each of them; the first founds it. Without effect once that is done, and empty on nodes that \
                  join later.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "operators",
        flag: "operators",
        variable: "HIGHWATER_OPERATORS",
        placeholder: "TENANT/CLIENT,…",
        kind: Kind::List(OPERATORS_MAX, "clients"),
        meaning: "Clients that may change the cluster through this node, whatever the policy says, \
                  tenant/client each. The first ones give the cluster its first policy.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "tenants",
        flag: "tenants",
        variable: "HIGHWATER_TENANTS",
        placeholder: "NAME,…",
        kind: Kind::List(FIRST_TENANTS_MAX, "names"),
        meaning: "Tenants that the first policy knows beside those of the operators and those that own topics. \
                  Without effect once there is a policy.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "tail_cache_bytes",
        flag: "tail-cache-bytes",
        variable: "HIGHWATER_TAIL_CACHE_BYTES",
        placeholder: "BYTES",
        kind: Kind::Count(TAIL_CACHE_BYTES, "bytes"),
        meaning: "Memory for recent frames, for all partitions of the node together.",
        taken: Taken::AtSighup,
    },
    Setting {
        key: "segment_bytes_max",
        flag: "segment-bytes-max",
        variable: "HIGHWATER_SEGMENT_BYTES_MAX",
        placeholder: "BYTES",
        kind: Kind::Count(SEGMENT_BYTES, "bytes"),
        meaning: "How large a segment file grows before the next one is begun.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "retention_interval_ms",
        flag: "retention-interval-ms",
        variable: "HIGHWATER_RETENTION_INTERVAL_MS",
        placeholder: "MS",
        kind: Kind::Count(RETENTION_INTERVAL_MS, "milliseconds"),
        meaning: "How often partitions led here are looked at for records that their topics keep no longer.",
        taken: Taken::AtSighup,
    },
    Setting {
        key: "connection_age_max_ms",
        flag: "connection-age-max-ms",
        variable: "HIGHWATER_CONNECTION_AGE_MAX_MS",
        placeholder: "MS",
        kind: Kind::Count(CONNECTION_AGE_MAX_MS, "milliseconds"),
        meaning: "How old a client's connection may become before the client has to make another one and prove \
                  itself again. A new value counts for connections that begin after it.",
        taken: Taken::AtSighup,
    },
    Setting {
        key: "workers",
        flag: "workers",
        variable: "HIGHWATER_WORKERS",
        placeholder: "COUNT",
        kind: Kind::Count(WORKERS, "threads"),
        meaning: "Worker threads beside the disk writer. 0 runs the node on one thread, which is fastest on \
                  small machines.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "log",
        flag: "log",
        variable: "HIGHWATER_LOG",
        placeholder: "FILTER",
        kind: Kind::Filter,
        meaning: "What to log, to standard error: a level (error, warn, info, debug, trace, off), or a filter \
                  with levels of single rooms, such as info,highwater_node::link=debug.",
        taken: Taken::AtSighup,
    },
    Setting {
        key: "log_format",
        flag: "log-format",
        variable: "HIGHWATER_LOG_FORMAT",
        placeholder: "FORMAT",
        kind: Kind::Choice(&["text", "json"]),
        meaning: "How to log: a line of text or a JSON object for each event.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "tls.ca",
        flag: "ca",
        variable: "HIGHWATER_CA",
        placeholder: "FILE",
        kind: Kind::Path,
        meaning: "The certificate authorities that peers and clients must come from, PEM.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "tls.cert",
        flag: "cert",
        variable: "HIGHWATER_CERT",
        placeholder: "FILE",
        kind: Kind::Path,
        meaning: "This node's certificate, PEM, with intermediates behind it.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "tls.key",
        flag: "key",
        variable: "HIGHWATER_KEY",
        placeholder: "FILE",
        kind: Kind::Path,
        meaning: "The private key of the certificate, PEM.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "tls.crl",
        flag: "crl",
        variable: "HIGHWATER_CRL",
        placeholder: "FILE",
        kind: Kind::Path,
        meaning: "Lists of certificates that are revoked, PEM. Empty: there are none.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "tls.client_name_from_cn",
        flag: "client-name-from-cn",
        variable: "HIGHWATER_CLIENT_NAME_FROM_CN",
        placeholder: "BOOL",
        kind: Kind::Switch,
        meaning: "Whether a certificate without any URI may be that of a client whose common name is \
                  tenant/client.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "traces.endpoint",
        flag: "traces-endpoint",
        variable: "HIGHWATER_TRACES_ENDPOINT",
        placeholder: "URL",
        kind: Kind::Text(TRACES_ENDPOINT_BYTES_MAX),
        meaning: "Where a collector takes traces (OTLP), http://host:port or https://host:port. Empty: nothing is \
                  traced.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "traces.protocol",
        flag: "traces-protocol",
        variable: "HIGHWATER_TRACES_PROTOCOL",
        placeholder: "PROTOCOL",
        kind: Kind::Choice(&["grpc", "http"]),
        meaning: "How the collector takes them: OTLP over gRPC, or over HTTP, at /v1/traces if the endpoint has no \
                  path of its own.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "traces.ca",
        flag: "traces-ca",
        variable: "HIGHWATER_TRACES_CA",
        placeholder: "FILE",
        kind: Kind::Path,
        meaning: "The certificate authorities that a collector with https:// must come from, PEM.",
        taken: Taken::AtStart,
    },
    Setting {
        key: "traces.one_in",
        flag: "traces-one-in",
        variable: "HIGHWATER_TRACES_ONE_IN",
        placeholder: "COUNT",
        kind: Kind::Count(TRACES_ONE_IN, "batches"),
        meaning: "Of the batches whose client has no trace of its own, one in so many is traced; 0: none.",
        taken: Taken::AtSighup,
    },
    Setting {
        key: "traces.per_second_max",
        flag: "traces-per-second-max",
        variable: "HIGHWATER_TRACES_PER_SECOND_MAX",
        placeholder: "COUNT",
        kind: Kind::Count(TRACES_PER_SECOND_MAX, "traces"),
        meaning: "The most traces that this node begins or goes on with in a second.",
        taken: Taken::AtSighup,
    },
];
