//! The way back to the nearest replica.
//!
//! A reader that had to leave the replica that the picker likes best reads from another one for as long as that serves, which
//! may be another rack, or the leader. So it asks the picker about once a minute whether there is a better one by now. If there
//! is, it opens a stream there while the present one goes on, and changes over between two messages when that is open; a node
//! that does not open it costs the reader nothing, and is set aside as if it had been read from.
//!
//! It asks the picker for what is *better*, never for another choice, so equals do not take readers from each other. A node that
//! hands the reader over again is set aside for longer each time (`aside`), and readers come no sooner than after the interval.

use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, Sleep, sleep_until};

use super::fetcher::{End, Fetcher, Source};
use crate::error::Error;

/// How long a reader stays with a replica before it looks for a better one.
const INTERVAL: Duration = Duration::from_secs(60);
/// By how much longer at most, milliseconds: readers that left a node together do not come back together.
const SPREAD_MS: u64 = 10_000;
/// How long a better replica may take to open its stream.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream that is being opened at a node.
struct Opening {
    node: String,
    source: BoxFuture<'static, Result<Source, Error>>,
}

/// Looks for a better replica than the one that serves.
pub(super) struct Returning {
    due: Pin<Box<Sleep>>,
    opening: Option<Opening>,
}

impl Returning {
    pub(super) fn new() -> Self {
        Self {
            due: Box::pin(sleep_until(next_look())),
            opening: None,
        }
    }

    /// Ready with a stream from a better replica than `current`. Cancel safe: what has begun goes on with the next call.
    pub(super) async fn better(&mut self, fetcher: &Fetcher, current: &str) -> Source {
        loop {
            let Some(opening) = &mut self.opening else {
                self.due.as_mut().await;
                self.due.as_mut().reset(next_look());
                self.opening = begin(fetcher, current);
                continue;
            };
            let opened = (&mut opening.source).await;
            let node = std::mem::take(&mut opening.node);
            self.opening = None;
            match opened {
                Ok(source) => return source,
                Err(error) => note_failure(fetcher, &node, error),
            }
        }
    }
}

fn next_look() -> Instant {
    Instant::now() + INTERVAL + Duration::from_millis(rand::random_range(0..SPREAD_MS))
}

fn begin(fetcher: &Fetcher, current: &str) -> Option<Opening> {
    let route = &fetcher.route;
    let target = route.caller.pick_better(&route.topic, fetcher.partition, current)?;
    Some(Opening {
        node: target.node.clone(),
        source: fetcher.opening(target, OPENING_TIMEOUT).boxed(),
    })
}

fn note_failure(fetcher: &Fetcher, node: &str, error: Error) {
    // What is final there is not final here, where the records still come.
    let (End::Retry(error) | End::Fatal(error)) = fetcher.refused(error) else {
        return;
    };
    tracing::debug!(partition = fetcher.partition, node, %error, "the better node does not serve");
    let route = &fetcher.route;
    route
        .caller
        .failed_reader(&route.topic, fetcher.partition, node, &error);
}
