//! The admin listener: HTTP for whatever looks after the process, and the console ([`crate::console`]) for people.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | 200 as long as the process works: whoever gets no answer may end it |
//! | `/readyz` | 200 if the node is ready, else 503; the body says why in words, and what else is to be known, a line each |
//! | `/metrics` | all figures, for Prometheus ([`crate::metrics`]) |
//! | everything else | the console, and what it is made of (`/api/v1`) |
//!
//! Who may see what depends on how he comes, and nothing else:
//!
//! | comes | is told |
//! |---|---|
//! | to a loopback address, without TLS | everything (records only if the node's settings say so) |
//! | elsewhere, with TLS and the certificate of an operator | everything, but records only of topics that he may consume |
//! | elsewhere, without TLS | `/livez` and `/readyz`, yes or no without a word more; `/metrics` if the node's settings say so |
//!
//! A browser on the same machine runs pages of strangers, so `guard` looks at each request for what such pages cannot change.
//! Connections are few (`doorway`), and each lasts for a while at most: one that says nothing cannot keep others out. Whoever has proven nothing
//! has fewer and less time still.
//!
//! Deliberately absent: anything that changes something, cookies, sessions, and headers that let other sites in.

mod caller;
mod doorway;
mod guard;
mod probes;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio::net::{TcpListener, lookup_host};
use tokio::sync::watch;

pub(crate) use caller::{Caller, Who};
use doorway::Doorway;

use crate::access::Authority;
use crate::catalog::Currency;
use crate::console::Console;
use crate::error::StartError;
use crate::port::Crowd;
use crate::readiness::NotReady;
use crate::tls::Credentials;

/// The listener, bound and not served yet.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    guests: Arc<Crowd>,
}

/// What it needs to tell what it tells.
pub(crate) struct Desk {
    pub(crate) not_ready: watch::Receiver<Option<NotReady>>,
    pub(crate) notices: watch::Receiver<Vec<String>>,
    /// The figures for Prometheus; it takes milliseconds when there are many partitions.
    pub(crate) metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether `/metrics` is for everybody.
    pub(crate) opens_metrics: bool,
    /// Further names that browsers may know this listener by, in lower case.
    pub(crate) names: Vec<String>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) authority: Arc<Authority>,
    /// Whether the policy known here is new enough.
    pub(crate) currency: Arc<Currency>,
}

impl Admin {
    /// Takes the port that `listen` (`host:port`) names; None if it is empty.
    pub(crate) async fn bind(listen: &str) -> Result<Option<Admin>, StartError> {
        if listen.is_empty() {
            return Ok(None);
        }
        let refused = |why: String| StartError::AdminPort {
            address: listen.to_owned(),
            why,
        };
        let bound = async {
            let mut addresses = lookup_host(listen).await?;
            let address = addresses.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Admin {
                listener,
                address,
                guests: Arc::default(),
            })
        };
        let bound: io::Result<Admin> = bound.await;
        bound.map(Some).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => refused("it is in use by another process".to_owned()),
            _ => refused(error.to_string()),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Those who are connected with it.
    pub(crate) fn guests(&self) -> Arc<Crowd> {
        self.guests.clone()
    }

    /// Serves until it is cut off.
    pub(crate) async fn run(self, desk: Desk, console: Arc<Console>) {
        self.serve(desk, crate::console::pages(console)).await;
    }

    async fn serve(self, desk: Desk, pages: Router) {
        let credentials = match self.address.ip().is_loopback() {
            true => None,
            false => Some(desk.credentials.clone()),
        };
        let desk = Arc::new(desk);
        let pages = Router::new()
            .route("/livez", get(probes::live))
            .route("/readyz", get(probes::ready))
            .route("/metrics", get(probes::metrics))
            .with_state(desk.clone())
            .merge(pages)
            .layer(from_fn_with_state(desk, guard::guard));
        let pages = pages.into_make_service_with_connect_info::<Caller>();
        // It goes on for ever: a connection that cannot be taken is not its end.
        let _ = axum::serve(Doorway::new(self.listener, credentials, self.guests), pages).await;
    }
}
