//! Putting a node together, and taking it apart again.

mod begin;
mod handle;
mod parts;
mod resources;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::audit::{Audit, Ledger};
use crate::catalog::{CatalogClient, CatalogHost, Currency, STALE_AFTER, keep_addresses};
use crate::clock::now_ms;
use crate::config::Config;
use crate::console::Console;
use crate::data_dir::DataDir;
use crate::dead_replicas::DeadReplicas;
use crate::error::{Failure, StartError};
use crate::failures::Failures;
use crate::first_start::FirstStart;
use crate::founding::{Membership, OwnName};
use crate::gateway::{Entrance, Gateway};
use crate::gossip::{self, Gossip, GossipOptions};
use crate::leaders::{self, Push, Told};
use crate::link::{AddressBook, Link, LinkOptions};
use crate::metrics::Timings;
use crate::opening::Opening;
use crate::peer_handler::PeerHandler;
use crate::port::{Port, PortOptions, connections};
use crate::quotas::Quotas;
use crate::readiness::{NotReady, Readiness};
use crate::replicas::{CatchingUp, Keeper, KeeperOptions, Registry};
use crate::services::{ServerParts, serve};
use crate::storage::Storage;
use crate::tls::Credentials;
use crate::traces::Traces;
use crate::tuning::Tuning;

use begin::{Begin, behind, watched};
pub use handle::NodeHandle;
use resources::{bind, load_credentials, open_data_dir, wait_for_own_name};

/// The version that this node tells others.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One node of a cluster.
pub struct Node;

impl Node {
    /// Checks the configuration, takes the data directory and the port, and starts everything. Returns as soon as the
    /// port is served; opening the replicas and finding or founding the cluster goes on behind it (see
    /// [`NodeHandle::ready`] and [`NodeHandle::failed`]).
    pub async fn start(config: Config) -> Result<NodeHandle, StartError> {
        Node::start_at(config, Pace::default()).await
    }

    pub(crate) async fn start_at(config: Config, pace: Pace) -> Result<NodeHandle, StartError> {
        Foundation::lay(config, pace).await?.serve().await
    }
}

/// Times that only tests choose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) gossip_interval: Duration,
    /// After what silence of the catalog's quorum clients are refused.
    pub(crate) stale_after: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            gossip_interval: gossip::INTERVAL,
            stale_after: STALE_AFTER,
        }
    }
}

/// What everything else stands on: the directory, the port, the link and who keeps the replicas.
struct Foundation {
    config: Config,
    tuning: watch::Sender<Tuning>,
    pace: Pace,
    credentials: Arc<Credentials>,
    failures: Failures,
    port: Port,
    admin: Option<Admin>,
    data: Arc<DataDir>,
    boot: u64,
    storage: Arc<Storage>,
    registry: Arc<Registry>,
    host: Arc<CatalogHost>,
    quotas: Arc<Quotas>,
    membership: Arc<Membership>,
    addresses: Arc<AddressBook>,
    link: Link,
    told: Arc<Told>,
    not_ready: Arc<watch::Sender<Option<NotReady>>>,
    inbox: gossip::GossipInbox,
    keeper: Arc<Keeper>,
    entrance: Entrance,
    audit: Audit,
    ledger: Ledger,
    traces: Traces,
}

impl Foundation {
    async fn lay(config: Config, pace: Pace) -> Result<Foundation, StartError> {
        config.validate()?;
        let credentials = load_credentials(&config)?;
        let data = Arc::new(open_data_dir(&config).await?);
        let port = bind(&config).await?;
        let admin = Admin::bind(&config.admin_listen).await?;
        let traces = Traces::start(&config)?;
        let failures = Failures::default();
        let timings = Timings::new().map_err(|error| StartError::Internal(error.to_string()))?;
        let storage = Storage::start(&config, failures.clone(), timings);
        let storage = Arc::new(storage.map_err(|error| StartError::Internal(error.to_string()))?);
        let registry = Registry::new();
        let host = CatalogHost::new(failures.clone());
        let quotas = Quotas::new(&config.node, host.clone(), registry.clone());
        let own = OwnName {
            name: config.node.clone(),
            address: config.advertised_address(port.local_addr()),
            rack: config.rack.clone(),
        };
        let membership = Membership::new(own, data.clone(), registry.clone(), host.clone());
        let (mailbox, inbox) = gossip::mailbox();
        let addresses = Arc::new(AddressBook::default());
        let told = Arc::new(Told::default());
        let not_ready = Arc::new(watch::Sender::new(Some(NotReady::Starting)));
        let entrance = Entrance::default();
        let audit = Audit::new(host.clone(), !config.operators.is_empty());
        let ledger = Ledger {
            cluster: config.cluster.clone(),
            host: host.clone(),
            registry: registry.clone(),
            #[cfg(test)]
            answers_lost: Arc::default(),
        };
        let boot = now_ms(); // later starts have larger ones
        let link = Link::new(LinkOptions {
            credentials: credentials.clone(),
            incarnation: data.incarnation().0,
            boot,
            cluster_id: data.cluster_id(),
            directory: addresses.clone(),
            handler: Arc::new(PeerHandler {
                membership: membership.clone(),
                registry: registry.clone(),
                catalog: host.clone(),
                storage: storage.clone(),
                gossip: mailbox,
                told: told.clone(),
                not_ready: not_ready.subscribe(),
                notices: credentials.notices(),
                quotas: quotas.clone(),
                gateway: entrance.clone(),
                audit: audit.clone(),
                ledger: ledger.clone(),
            }),
        });
        let keeper = Arc::new(Keeper::new(KeeperOptions {
            data: data.clone(),
            storage: storage.clone(),
            registry: registry.clone(),
            catalog: host.clone(),
            link: link.clone(),
            failures: failures.clone(),
        }));
        Ok(Foundation {
            tuning: Tuning::publish(&config),
            config,
            pace,
            credentials,
            failures,
            port,
            admin,
            data,
            boot,
            storage,
            registry,
            host,
            quotas,
            membership,
            addresses,
            link,
            told,
            not_ready,
            inbox,
            keeper,
            entrance,
            audit,
            ledger,
            traces,
        })
    }

    async fn serve(mut self) -> Result<NodeHandle, StartError> {
        let gossip = Arc::new(self.start_gossip().await?);
        let leaders = self.leaders(&gossip);
        let catalog = CatalogClient::new(
            &self.config.node,
            self.host.clone(),
            self.registry.clone(),
            self.link.clone(),
        );
        let (dead, dead_replicas) = DeadReplicas::new(self.data.clone());
        let first_start = FirstStart {
            node: self.config.node.clone(),
            keeper: self.keeper.clone(),
            host: self.host.clone(),
            client: catalog.clone(),
            dead,
        };
        let controller = Arc::new(self.controller(catalog.clone(), first_start.clone(), leaders.clone()));
        let (draining, stopping) = (CancellationToken::new(), CancellationToken::new());
        let currency = Currency::new(&self.config.node, self.pace.stale_after);
        let (registry, has_room) = (self.registry.clone(), self.storage.has_room());
        let catching_up = |replicas| CatchingUp::new(registry, has_room, replicas);
        let opening = Opening::new(self.data.clone(), first_start, catching_up);
        let readiness = Readiness {
            opening: opening.waiting(),
            behind: opening.behind(),
            controller: controller.clone(),
            currency: currency.clone(),
            host: self.host.clone(),
            registry: self.registry.clone(),
            failures: self.failures.clone(),
            credentials: self.credentials.clone(),
            not_ready: self.not_ready.clone(),
            draining: draining.clone(),
        };
        let keep_current = currency.clone().keep(catalog.clone());
        let context = Arc::new(self.context(catalog, currency, leaders.clone(), &draining, &stopping));
        let catalog_opened = CancellationToken::new();
        let begin = Begin {
            opening,
            discovery: self.discovery(gossip.clone()),
            catalog_opened: catalog_opened.clone(),
            failures: self.failures.clone(),
        };
        let mut works = self.works(gossip);
        works.push(begin.run().boxed());
        let behind_catalog = [
            controller.clone().keep_replicas().boxed(),
            controller.clone().keep_registered().boxed(),
            controller.clone().keep_members().boxed(),
            controller.clone().keep_groups().boxed(),
            controller.clone().keep_placement().boxed(),
            controller.clone().keep_leaderships().boxed(),
            controller.clone().keep_settings().boxed(),
            controller.clone().keep_retention(self.tuning.subscribe()).boxed(),
            controller.clone().keep_reported(dead_replicas).boxed(),
            keep_current.boxed(),
            readiness.keep().boxed(),
            self.audit_writer(leaders.clone()).run().boxed(),
        ];
        works.extend(behind_catalog.map(|work| behind(catalog_opened.clone(), work).boxed()));
        let watch = |work| tokio::spawn(watched(work, self.failures.clone()));
        let mut loops: Vec<JoinHandle<()>> = works.into_iter().map(watch).collect();
        let address = self.port.local_addr();
        let admin_address = self.admin.as_ref().map(Admin::address);
        let metrics = self.metrics(&context);
        if let Some(admin) = self.admin {
            let console = Console::new(context.clone(), self.config.console_records);
            let desk = admin::Desk {
                not_ready: self.not_ready.subscribe(),
                notices: self.credentials.notices(),
                metrics: Box::new(move || metrics.text()),
                opens_metrics: self.config.admin_open_metrics,
                names: self
                    .config
                    .admin_names
                    .iter()
                    .map(|name| name.to_ascii_lowercase())
                    .collect(),
                credentials: self.credentials.clone(),
                authority: context.authority.clone(),
                currency: context.currency.clone(),
            };
            loops.push(tokio::spawn(console.clone().keep()));
            loops.push(tokio::spawn(admin.run(desk, console)));
        }
        let (grpc, incoming) = connections();
        let (http, http_incoming) = connections();
        let gateway = Gateway::new(context.clone());
        self.entrance.open(&gateway);
        let parts = ServerParts { context, incoming };
        let grpc_server = run_server(parts, address, stopping.clone(), self.failures.clone());
        let server = tokio::spawn(join(grpc_server, gateway.serve(http_incoming)).map(drop));
        let options = PortOptions {
            credentials: self.credentials.clone(),
            link: self.link.clone(),
            quotas: self.quotas.clone(),
            grpc,
            http,
            audit: self.audit.clone(),
        };
        tokio::spawn(self.port.run(options, stopping.clone().cancelled_owned()));
        Ok(NodeHandle {
            address,
            admin_address,
            not_ready: self.not_ready,
            failures: self.failures,
            tuning: self.tuning,
            registry: self.registry,
            keeper: self.keeper,
            storage: self.storage,
            leaders,
            link: self.link,
            credentials: self.credentials,
            audit: self.audit,
            traces: self.traces,
            draining,
            stopping,
            server,
            loops,
            data: self.data,
            #[cfg(test)]
            controller,
            #[cfg(test)]
            ledger: self.ledger,
            #[cfg(test)]
            quotas: self.quotas,
        })
    }

    /// What goes on from the start, whether there is a catalog or not.
    fn works(&self, gossip: Arc<Gossip>) -> Vec<BoxFuture<'static, ()>> {
        let push = Push {
            boot: self.boot,
            registry: self.registry.clone(),
            link: self.link.clone(),
            nodes: gossip.nodes(),
            not_ready: self.not_ready.subscribe(),
        };
        let addresses = keep_addresses(
            self.config.node.clone(),
            self.data.plan(),
            self.host.clone(),
            self.addresses.clone(),
        );
        vec![
            self.storage.clone().keep_room().boxed(),
            leaders::publish_state(self.not_ready.subscribe(), self.storage.has_room(), gossip).boxed(),
            push.run(self.config.node.clone()).boxed(),
            addresses.boxed(),
            self.credentials.clone().keep().boxed(),
            self.quotas.clone().keep(self.link.clone()).boxed(),
            self.quotas.clone().keep_counted().boxed(),
        ]
    }

    async fn start_gossip(&mut self) -> Result<Gossip, StartError> {
        let own = self.membership.own().clone();
        wait_for_own_name(&own.address).await?;
        let (_, no_inbox) = gossip::mailbox();
        let options = GossipOptions {
            link: self.link.clone(),
            inbox: std::mem::replace(&mut self.inbox, no_inbox),
            addresses: self.addresses.clone(),
            cluster: self.config.cluster.clone(),
            node: own.name,
            boot: self.boot,
            address: own.address,
            rack: own.rack,
            version: VERSION.to_owned(),
            incarnation: self.data.incarnation().0,
            cluster_id: self.data.cluster_id(),
            seeds: self.config.seeds.clone(),
            interval: self.pace.gossip_interval,
        };
        let started = Gossip::start(options).await;
        started.map_err(|error| StartError::Internal(error.to_string()))
    }
}

async fn run_server(parts: ServerParts, address: SocketAddr, stopping: CancellationToken, failures: Failures) {
    let ended = serve(parts).await;
    if !stopping.is_cancelled() {
        let why = ended.err().unwrap_or_else(|| "it ended by itself".to_owned());
        failures.report(Failure::Port { address, why });
    }
}
