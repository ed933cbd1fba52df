//! What changes in each partition when its topic's replication does.
//!
//! New replicas go behind those that there are, to the best nodes that hold none of the group. Of those that there are,
//! the ones go that are missed least, one after the other: first what cannot serve, then what a rack has too many of, then
//! what stands on the most loaded node. The preferred leader stays if it can serve; something always stays.
//!
//! What goes is not gone yet: it becomes `replaced`, and has data and vote until its group has let go of it.

use std::cmp::Reverse;

use crate::catalog::Catalog;
use crate::limits::REPLACED_REPLICAS_MAX;
use crate::model::{Partition, Replica, Topic};
use crate::placement::{Placer, Standing};
use crate::reply::Refusal;
use crate::topics::UNNUMBERED;

impl Catalog {
    /// Brings every partition of the topic to so many replicas; the new ones have no ids yet.
    pub(crate) fn resize(&self, topic: &mut Topic, replication: u32, placer: &mut Placer) -> Result<(), Refusal> {
        topic.replication = replication;
        for partition in &mut topic.partitions {
            let have = partition.replicas.len();
            let want = replication as usize;
            if want > have {
                grow(partition, want - have, placer)?;
            } else if want < have {
                self.shrink(partition, have - want, placer)?;
            }
        }
        Ok(())
    }

    fn shrink(&self, partition: &mut Partition, count: usize, placer: &mut Placer) -> Result<(), Refusal> {
        if partition.replaced.len() + count > REPLACED_REPLICAS_MAX {
            return Err(Refusal::TooManyReplaced {
                group_id: partition.group_id,
                limit: REPLACED_REPLICAS_MAX,
            });
        }
        for _ in 0..count {
            let at = self.least_missed(&partition.replicas, placer);
            placer.uncount(&partition.replicas[at].node, at == 0);
            let goes = partition.replicas.remove(at);
            if at == 0 {
                placer.count_leader(&partition.replicas[0].node);
            }
            partition.replaced.push(goes);
        }
        partition.changed = true;
        Ok(())
    }

    /// The place of the replica that should go first; there must be more than one.
    fn least_missed(&self, replicas: &[Replica], placer: &Placer) -> usize {
        let rack_uses = |rack: &str| {
            let others = replicas.iter().filter(|other| placer.rack(&other.node) == rack);
            others.count()
        };
        let rank = |at: &usize| {
            let replica = &replicas[*at];
            let standing = placer.standing(&replica.node);
            let can_serve = !self.is_dead(replica) && standing != Standing::Avoided;
            let stays = *at == 0 && can_serve;
            let worth = (can_serve, stays, replica.started, standing == Standing::Open);
            let rack_uses = rack_uses(placer.rack(&replica.node));
            (
                worth,
                Reverse(rack_uses),
                Reverse(placer.load(&replica.node).replicas),
                Reverse(*at),
            )
        };
        (0..replicas.len()).min_by_key(rank).unwrap_or(0)
    }
}

fn grow(partition: &mut Partition, count: usize, placer: &mut Placer) -> Result<(), Refusal> {
    let names = |replicas: &'_ [Replica]| replicas.iter().map(|it| it.node.clone()).collect::<Vec<_>>();
    let (held, barred) = (names(&partition.replicas), names(&partition.replaced));
    let Some(nodes) = placer.add(&held, &barred, count) else {
        let group_id = partition.group_id;
        return Err(Refusal::Unfinished { group_id });
    };
    let new = nodes.into_iter().map(|node| Replica::new(UNNUMBERED, node.to_string()));
    partition.replicas.extend(new);
    partition.changed = true;
    Ok(())
}
