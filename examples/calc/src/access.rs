//! Who may do what: a prompt cannot answer, a back end cannot ask, and the log service writes nothing. `calc init` makes it so.

use highwater_service::access::Needs;

use crate::backend::GROUP;
use crate::wire::{COMMAND_TOPIC, PARTITIONS, RESULT_TOPIC};

/// The client that `calc backend` is.
const BACKEND: &str = "backend";
/// The client that `calc log` is.
const LOG: &str = "log";
/// The client that `calc connect` is.
const PROMPT: &str = "prompt";

/// What the application needs.
pub const NEEDS: Needs = Needs {
    tenant: "calc",
    topics: &[COMMAND_TOPIC, RESULT_TOPIC],
    partitions: PARTITIONS,
    rules: &[
        (BACKEND, "topic", COMMAND_TOPIC, "describe"),
        (BACKEND, "topic", COMMAND_TOPIC, "consume"),
        (BACKEND, "group", GROUP, "consume"),
        (BACKEND, "topic", RESULT_TOPIC, "describe"),
        (BACKEND, "topic", RESULT_TOPIC, "produce"),
        (BACKEND, "topic", RESULT_TOPIC, "consume"),
        (LOG, "topic", COMMAND_TOPIC, "describe"),
        (LOG, "topic", COMMAND_TOPIC, "consume"),
        (LOG, "topic", RESULT_TOPIC, "describe"),
        (LOG, "topic", RESULT_TOPIC, "consume"),
        (PROMPT, "topic", COMMAND_TOPIC, "describe"),
        (PROMPT, "topic", COMMAND_TOPIC, "produce"),
        (PROMPT, "topic", RESULT_TOPIC, "describe"),
        (PROMPT, "topic", RESULT_TOPIC, "consume"),
    ],
};
