//! Tells who leads how many partitions, each time that changes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use highwater::{Picture, Profile};
use tokio::time::sleep;

use super::node::say;

/// Elections of many partitions come in bursts; one line for each burst is enough.
const SETTLE: Duration = Duration::from_millis(500);
/// How long to wait before connecting again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Watches the cluster for as long as it is polled. What it tells is a convenience: its own troubles stay silent.
pub(super) async fn tell(profile_path: PathBuf) {
    let mut told = String::new();
    loop {
        if let Ok(profile) = Profile::load(&profile_path)
            && let Ok(client) = profile.builder().connect().await
        {
            let mut pictures = client.cluster().watch();
            while let Some(picture) = pictures.next().await {
                let line = leaders(&picture);
                if line != told && !line.is_empty() {
                    say(&line);
                    told = line;
                }
                sleep(SETTLE).await;
            }
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// One line; empty if there are no topics.
fn leaders(picture: &Picture) -> String {
    let mut led: BTreeMap<&str, usize> = picture.nodes().map(|node| (node.name.as_str(), 0)).collect();
    let mut leaderless = 0;
    for partition in picture.topics().flat_map(|topic| &topic.partitions) {
        match partition.leader.as_str() {
            "" => leaderless += 1,
            leader => *led.entry(leader).or_default() += 1,
        }
    }
    line(&led, leaderless)
}

fn line(led: &BTreeMap<&str, usize>, leaderless: usize) -> String {
    if led.values().sum::<usize>() + leaderless == 0 {
        return String::new();
    }
    let counts: Vec<String> = led.iter().map(|(node, count)| format!("{node} {count}")).collect();
    let mut line = format!("Partitions led: {}", counts.join(", "));
    if leaderless > 0 {
        line.push_str(&format!("; without leader: {leaderless}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_counts_leaders_and_those_without() {
        let led = BTreeMap::from([("n1", 2), ("n2", 0)]);
        assert_eq!(line(&led, 0), "Partitions led: n1 2, n2 0");
        assert_eq!(line(&led, 1), "Partitions led: n1 2, n2 0; without leader: 1");
        assert_eq!(line(&BTreeMap::from([("n1", 0)]), 0), "");
    }
}
