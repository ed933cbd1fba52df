//! The five-minute start of the README, as it stands there: `cargo run -p highwater --example five_minutes`, in the directory in
//! which `highwater dev` was started.

use highwater::{Client, CreateTopic, Profile, Record};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let profile = Profile::load("highwater-dev/profile.toml")?;
    let client = Client::from_profile(&profile).await?;
    let topic = CreateTopic {
        partitions: 3,
        ..Default::default()
    };
    client.topics().create("greetings", topic).await?;

    // Send: `send` returns when the record has a place in a batch, the delivery when it is stored.
    let producer = client.producer("greetings").build().await?;
    let mut deliveries = Vec::new();
    for number in 0..1_000 {
        let record = Record::keyed(format!("key {}", number % 10), format!("hello {number}"));
        deliveries.push(producer.send(record).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close().await;

    // Read: all partitions, from the beginning, to where they end now. Without `stop_at_end` the stream follows the tail.
    let mut consumer = client.consume_topic("greetings").stop_at_end().build().await?;
    while let Some(record) = consumer.next_record().await {
        let record = record?;
        println!(
            "{}/{}: {}",
            record.partition,
            record.offset,
            String::from_utf8_lossy(&record.value)
        );
    }
    Ok(())
}
