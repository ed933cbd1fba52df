//! CPU time: of this process from its clock, of the nodes from what they tell of themselves.
//!
//! The nodes' figures are those of the whole cluster, with whatever else it does; of an idle one that is little.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater::Cluster;
use rustix::time::{ClockId, clock_gettime};

use crate::output;

/// What was used up to some moment.
#[derive(Debug)]
pub(super) struct Used {
    client: Duration,
    /// By node; empty if that is not known.
    servers: BTreeMap<String, Duration>,
}

/// What was used between two moments.
#[derive(Debug)]
pub(super) struct Cost {
    pub(super) client: Duration,
    /// Of all nodes together. `None` if one did not tell, or was restarted meanwhile.
    pub(super) servers: Option<Duration>,
}

impl Used {
    /// Asks the nodes first and looks at the own clock last, for what follows is to be measured.
    pub(super) async fn before(cluster: &Cluster) -> Self {
        let servers = servers(cluster).await;
        Self {
            client: client(),
            servers,
        }
    }

    /// What was used since then; the other way round.
    pub(super) async fn since(self, cluster: &Cluster) -> Cost {
        let client = client().saturating_sub(self.client);
        let after = servers(cluster).await;
        Cost {
            client,
            servers: difference(&self.servers, &after),
        }
    }
}

fn client() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

async fn servers(cluster: &Cluster) -> BTreeMap<String, Duration> {
    let described = match cluster.describe().await {
        Ok(described) => described,
        Err(error) => {
            output::note(format!("the CPU time of the nodes is not known: {error}"));
            return BTreeMap::new();
        }
    };
    let told = described.nodes.into_iter().filter_map(|node| {
        let us = node.cpu_us?;
        Some((node.name, Duration::from_micros(us)))
    });
    told.collect()
}

/// A node that was not there before, is not there afterwards, or counts from 0 again makes the sum unknown.
fn difference(before: &BTreeMap<String, Duration>, after: &BTreeMap<String, Duration>) -> Option<Duration> {
    if before.is_empty() || !before.keys().eq(after.keys()) {
        return None;
    }
    let used = after.iter().map(|(node, after)| after.checked_sub(*before.get(node)?));
    used.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nodes: &[(&str, u64)]) -> BTreeMap<String, Duration> {
        let named = nodes
            .iter()
            .map(|(name, ms)| ((*name).to_owned(), Duration::from_millis(*ms)));
        named.collect()
    }

    #[test]
    fn the_sum_is_known_only_if_every_node_ran_all_the_time() {
        let before = of(&[("n1", 10), ("n2", 20)]);
        let used = difference(&before, &of(&[("n1", 11), ("n2", 25)]));
        assert_eq!(used, Some(Duration::from_millis(6)));
        for after in [
            of(&[("n1", 11)]),
            of(&[("n1", 11), ("n2", 2)]),
            of(&[("n1", 11), ("n3", 25)]),
        ] {
            assert_eq!(difference(&before, &after), None, "{after:?}");
        }
        assert_eq!(difference(&of(&[]), &of(&[])), None);
    }
}
