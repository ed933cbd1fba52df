//! What stands in for retention here: now and then the leader is asked to let go of the log's front.

use std::sync::Arc;
use std::time::Duration;

use highwater_partition::Watermark;
use highwater_verify::history::RetentionAllowed;

use super::world::{PARTITION, World, sleep_ms};
use crate::random::Random;

/// How long a trim may take; afterwards it may still happen.
const TRIM: Duration = Duration::from_secs(3);

/// Trims until told to stop.
pub(crate) async fn trim(world: Arc<World>) {
    let mut random = Random::stream(world.plan.seed, "trims", 0);
    while world.plan.trim_ms > 0 && !world.is_stopping() {
        let pause_ms = random.between(1, 2 * world.plan.trim_ms);
        sleep_ms(pause_ms).await;
        let Some((partition, life, _)) = world.leader().and_then(|leader| world.serving(leader)) else {
            continue;
        };
        let Watermark {
            log_start,
            high_watermark,
        } = *partition.watermark().borrow();
        let records = high_watermark - log_start;
        let kept = if random.permille(200) {
            0
        } else {
            random.below(records + 1)
        };
        let up_to = high_watermark - kept;
        // it may be done at any time from now on
        world.history().record_retention(RetentionAllowed {
            at_ns: world.now_ns(),
            partition: PARTITION,
            up_to,
        });
        let asked = life.spawn(world.task_seed(), async move {
            tokio::time::timeout(TRIM, partition.trim(up_to)).await
        });
        if let Ok(Ok(Ok(start))) = asked.await {
            world.note(format_args!("trimmed to {start}, asked for {up_to}"));
            world.count(|figures| figures.trims += 1);
        }
    }
}
