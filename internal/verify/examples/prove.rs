//! A workload against a running cluster, and the verdict: `prove PROFILE TOPIC [SECONDS]`. Makes the topic.

use std::time::Duration;

use highwater::{CreateTopic, Profile};
use highwater_verify::workload::{Clock, Workload, scan_replicas};
use highwater_verify::{Requirements, check};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (profile, topic) = (arguments.next(), arguments.next());
    let (Some(profile), Some(topic)) = (profile, topic) else {
        return Err("usage: prove PROFILE TOPIC [SECONDS]".into());
    };
    let seconds = arguments.next().map_or(Ok(10), |seconds| seconds.parse())?;

    let profile = Profile::load(profile)?;
    let client = profile.builder().connect().await?;
    let partitions = CreateTopic {
        partitions: 2,
        ..CreateTopic::default()
    };
    client.topics().create(&topic, partitions).await?;

    let clock = Clock::start();
    let running = Workload::new(topic.clone(), 1).start(client, clock).await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let mut history = running.stop().await;
    let scans = scan_replicas(&profile.builder(), &topic, clock, Duration::from_secs(60), &mut history).await?;
    for problem in &scans.problems {
        println!("not scanned: {problem}");
    }
    let requirements = Requirements {
        replicas_min: 3,
        ..Requirements::default()
    };
    let verdict = check(&history, &requirements);
    print!("{verdict}");
    if !verdict.passed() {
        return Err("the run did not pass".into());
    }
    Ok(())
}
