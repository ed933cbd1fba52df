//! What is measured on: three nodes with 30 partitions on a disk, under a steady load that hardly uses the machine.

use std::time::Duration;

use highwater_tests::chaos::{Load, Scene, Set};

/// Partitions of the topic.
pub(crate) const PARTITIONS: u32 = 30;
/// The deadline of a user who sets none.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(120);

/// Opens a scene. Each partition gets about 50 records a second, so that pauses are known to about 20 ms.
pub(crate) fn open(seed: u64) -> Scene {
    let load = Load {
        partitions: PARTITIONS,
        producers: 3,
        send_interval: Duration::from_millis(2),
        value_bytes_max: 200,
        // A partition that pauses must not hold up the records of others.
        in_flight_max: 8_192,
        delivery_deadline: Some(DELIVERY_DEADLINE),
        trims: false,
    };
    Scene::open(Set {
        load,
        on_disk: true,
        ..Set::small(seed)
    })
}

/// The node that leads most partitions, and which those are.
pub(crate) fn busiest(scene: &Scene) -> (usize, Vec<usize>) {
    let leaders = scene.leaders();
    let led_by = |node: usize| -> Vec<usize> {
        let led = leaders.iter().enumerate().filter(|(_, leader)| **leader == Some(node));
        led.map(|(partition, _)| partition).collect()
    };
    let nodes = (0..3).map(|node| (node, led_by(node)));
    nodes.max_by_key(|(_, led)| led.len()).unwrap_or_default()
}
