//! What the parts of a node are made from.

use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::{Foundation, VERSION};
use crate::access::{Authority, FirstPolicy};
use crate::admin::Admin;
use crate::audit::Writer;
use crate::catalog::{CatalogClient, Currency};
use crate::controller::Controller;
use crate::coordinator::Coordinator;
use crate::first_start::FirstStart;
use crate::founding::{Discovery, DiscoveryOptions};
use crate::gossip::Gossip;
use crate::leaders::Leaders;
use crate::metrics::Metrics;
use crate::services::{AgeMax, Context, InFlight};

impl Foundation {
    pub(super) fn leaders(&self, gossip: &Gossip) -> Leaders {
        Leaders {
            own: self.config.node.clone(),
            registry: self.registry.clone(),
            catalog: self.host.clone(),
            told: self.told.clone(),
            nodes: gossip.nodes(),
            link: self.link.clone(),
            not_ready: self.not_ready.subscribe(),
            has_room: self.storage.has_room(),
        }
    }

    pub(super) fn context(
        &self,
        catalog: CatalogClient,
        currency: Arc<Currency>,
        leaders: Leaders,
        draining: &CancellationToken,
        stopping: &CancellationToken,
    ) -> Context {
        Context {
            node: self.config.node.clone(),
            cluster: self.config.cluster.clone(),
            data: self.data.clone(),
            registry: self.registry.clone(),
            host: self.host.clone(),
            catalog,
            currency,
            coordinator: Coordinator::new(self.host.clone(), leaders.clone(), stopping.clone()),
            leaders,
            link: self.link.clone(),
            storage: self.storage.clone(),
            not_ready: self.not_ready.subscribe(),
            notices: self.credentials.notices(),
            in_flight: InFlight::default(),
            authority: Arc::new(Authority::new(
                self.host.access(),
                &self.config.operators,
                self.audit.clone(),
            )),
            audit: self.audit.clone(),
            quotas: self.quotas.clone(),
            refused: Arc::default(),
            traces: self.traces.clone(),
            connection_age: AgeMax(self.tuning.subscribe()),
            draining: draining.clone(),
            stopping: stopping.clone(),
        }
    }

    pub(super) fn metrics(&self, context: &Context) -> Metrics {
        Metrics {
            node: self.config.node.clone(),
            not_ready: self.not_ready.subscribe(),
            port: self.port.counters(),
            link: self.link.clone(),
            guests: self.admin.as_ref().map(Admin::guests).unwrap_or_default(),
            registry: self.registry.clone(),
            catalog: self.host.clone(),
            storage: self.storage.clone(),
            quotas: self.quotas.clone(),
            traces: self.traces.clone(),
            credentials: self.credentials.clone(),
            authority: context.authority.clone(),
            refused: context.refused.clone(),
            audit: self.audit.clone(),
            currency: context.currency.clone(),
        }
    }

    pub(super) fn audit_writer(&self, leaders: Leaders) -> Writer {
        Writer {
            audit: self.audit.clone(),
            ledger: self.ledger.clone(),
            leaders,
            link: self.link.clone(),
            node: self.config.node.clone(),
            data: self.data.clone(),
        }
    }

    pub(super) fn controller(&self, client: CatalogClient, first_start: FirstStart, leaders: Leaders) -> Controller {
        Controller {
            own: self.membership.own().clone(),
            version: VERSION.to_owned(),
            cluster: self.config.cluster.clone(),
            data: self.data.clone(),
            keeper: self.keeper.clone(),
            registry: self.registry.clone(),
            host: self.host.clone(),
            client,
            first_start,
            link: self.link.clone(),
            leaders,
            first_policy: FirstPolicy {
                operators: self.config.operators.clone(),
                tenants: self.config.tenants.clone(),
            },
            absences: Mutex::default(),
            failures: self.failures.clone(),
        }
    }

    pub(super) fn discovery(&self, gossip: Arc<Gossip>) -> Discovery {
        Discovery::new(DiscoveryOptions {
            membership: self.membership.clone(),
            data: self.data.clone(),
            keeper: self.keeper.clone(),
            registry: self.registry.clone(),
            link: self.link.clone(),
            addresses: self.addresses.clone(),
            gossip,
            seeds: self.config.seeds.clone(),
            bootstrap: self.config.bootstrap.clone(),
            version: VERSION.to_owned(),
            failures: self.failures.clone(),
        })
    }
}
