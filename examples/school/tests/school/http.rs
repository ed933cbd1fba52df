//! Requests to the gateway.

use highwater_tests::http::{Answer, ask};

use crate::program::KEY;

/// With the key of the tests.
pub(crate) fn with_key(address: &str, method: &str, path: &str, body: &str) -> Answer {
    ask(address, method, path, &[("x-api-key", KEY)], body)
}

/// The same, and waits for what becomes of the command.
pub(crate) fn waiting(address: &str, method: &str, path: &str, body: &str) -> Answer {
    ask(
        address,
        method,
        path,
        &[("x-api-key", KEY), ("prefer", "wait=30")],
        body,
    )
}
