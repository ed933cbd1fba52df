//! Who may do what: the server may read and write the one topic, and no more. `activity init` makes it so.

use highwater_service::access::Needs;

use crate::{PARTITIONS, TOPIC};

/// The client that `activity serve` is.
const SERVER: &str = "server";

/// What the application needs.
pub const NEEDS: Needs = Needs {
    tenant: "activity",
    topics: &[TOPIC],
    partitions: PARTITIONS,
    rules: &[
        (SERVER, "topic", TOPIC, "describe"),
        (SERVER, "topic", TOPIC, "produce"),
        (SERVER, "topic", TOPIC, "consume"),
    ],
};
