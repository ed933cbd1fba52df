//! Who may do what: each of the three services is a client of its own, and may what it needs. `users init` makes it so.

use highwater_service::access::Needs;

use crate::events::{PARTITIONS, USER_ADDED, USERS};
use crate::feed;

/// The client that `users serve` is.
const SERVER: &str = "server";
/// The client that `users metrics` is.
const METRICS: &str = "metrics";
/// The client that `users email` is.
const EMAIL: &str = "email";
/// The group of `users email`, unless it is told another one.
pub const EMAIL_GROUP: &str = "email";

/// What the application needs.
pub const NEEDS: Needs = Needs {
    tenant: "users",
    topics: &[USERS, USER_ADDED],
    partitions: PARTITIONS,
    rules: &[
        (SERVER, "topic", USERS, "describe"),
        (SERVER, "topic", USERS, "produce"),
        (SERVER, "topic", USERS, "consume"),
        (SERVER, "topic", USER_ADDED, "describe"),
        (SERVER, "topic", USER_ADDED, "produce"),
        (SERVER, "topic", USER_ADDED, "consume"),
        (SERVER, "group", feed::GROUP, "consume"),
        (METRICS, "topic", USER_ADDED, "describe"),
        (METRICS, "topic", USER_ADDED, "consume"),
        (EMAIL, "topic", USER_ADDED, "describe"),
        (EMAIL, "topic", USER_ADDED, "consume"),
        (EMAIL, "group", EMAIL_GROUP, "consume"),
    ],
};
