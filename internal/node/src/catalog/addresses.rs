//! Where the nodes were when they registered last.
//!
//! Gossip tells better, but only of nodes that it has found, and it begins with the seeds. After all nodes were stopped,
//! those that are back must find each other even if none of their seeds is among them.

use std::sync::Arc;

use super::CatalogHost;
use crate::founding::Plan;
use crate::link::AddressBook;

/// Suggests the addresses in the founding plan, and those in the catalog now and whenever it changes.
pub(crate) async fn keep_addresses(own: String, plan: Option<Plan>, host: Arc<CatalogHost>, book: Arc<AddressBook>) {
    let suggest = |name: &str, address: &str| {
        if name != own {
            book.suggest(name, address);
        }
    };
    let mut progress = host.progress();
    loop {
        progress.mark_unchanged();
        host.read(|catalog| catalog.members().for_each(|node| suggest(&node.name, &node.address)));
        // What was committed last may not be known here yet, and is older there.
        let planned = plan.iter().flat_map(|plan| &plan.members);
        planned.for_each(|member| suggest(&member.name, &member.address));
        if progress.changed().await.is_err() {
            return;
        }
    }
}
