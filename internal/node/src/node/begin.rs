//! What a node begins with, and how its work is watched.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use futures::future::{BoxFuture, join};
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::failures::Failures;
use crate::founding::Discovery;
use crate::opening::Opening;

/// What a node does first, once its port is served.
pub(super) struct Begin {
    pub(super) opening: Opening,
    pub(super) discovery: Discovery,
    pub(super) catalog_opened: CancellationToken,
    pub(super) failures: Failures,
}

impl Begin {
    pub(super) async fn run(self) {
        match self.opening.catalog().await {
            Ok(lost) => {
                self.catalog_opened.cancel();
                join(self.discovery.run(lost), self.opening.partitions()).await;
            }
            Err(error) => self.failures.report(Failure::Unopened(error.to_string())),
        }
    }
}

/// Work without which the node is not what it says it is: if it panics, the node ends.
pub(super) async fn watched(work: BoxFuture<'static, ()>, failures: Failures) {
    if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
        let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
        failures.report(Failure::Panicked(said.unwrap_or_default()));
    }
}

/// Work that begins when the catalog's replica is opened.
pub(super) async fn behind(catalog_opened: CancellationToken, work: BoxFuture<'static, ()>) {
    catalog_opened.cancelled().await;
    work.await;
}
