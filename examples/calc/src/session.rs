//! A session: commands in order, and their results.
//!
//! The session's name is its key, so its commands are in one partition, and their results in the same partition of the other topic. That one
//! it follows, from where it ends before the first command is sent, and picks out what is its own. Sessions that share a partition read each
//! other's results and skip them: that is the price of topics that are as many as partitions and not as many as sessions.
//!
//! Invariant: an answer is told once, to the command that it belongs to.

use std::time::Duration;

use highwater::{Client, ConsumedRecord, Consumer, Error, KeyHash, Partitioner, Position, ProduceError, Producer};
use tokio::time::{sleep, timeout};

use crate::wire::{self, COMMAND_TOPIC, Outcome, RESULT_TOPIC};

/// After how long the user is told why there is no answer yet.
pub const NOTICE: Duration = Duration::from_secs(5);
/// How long to wait before results that could not be read are read again.
const PAUSE: Duration = Duration::from_millis(500);

/// What is said when nothing has been heard of a command for [`NOTICE`].
const NO_ANSWER: &str = "no back end has answered yet; the command is in the log and will be answered";
/// What is said when the log has not taken a command for [`NOTICE`].
const NOT_TAKEN: &str = "the log has not taken the command yet; it is still being tried";

/// One who asks.
#[derive(Debug)]
pub struct Session {
    client: Client,
    name: String,
    partition: u32,
    producer: Producer,
    results: Consumer,
    /// The next result to read.
    position: u64,
    /// How many commands have been sent.
    sent: u64,
}

/// What a command was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub outcome: Outcome,
    /// The answer, or what is wrong.
    pub text: String,
}

impl Session {
    /// Begins a session, with a name of its own.
    ///
    /// # Errors
    /// As those of building producers and consumers.
    pub async fn open(client: &Client) -> Result<Self, Error> {
        let name = format!("{:016x}", rand::random::<u64>());
        let producer = client.producer(COMMAND_TOPIC).build().await?;
        let partition = KeyHash
            .partition(Some(name.as_bytes()), producer.partitions())
            .unwrap_or(0);
        let results = client
            .consumer(RESULT_TOPIC, partition)
            .from(Position::End)
            .build()
            .await?;
        Ok(Self {
            position: results.position(partition).unwrap_or(0),
            client: client.clone(),
            name,
            partition,
            producer,
            results,
            sent: 0,
        })
    }

    /// The session's name, random.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Publishes a command, and waits for its answer, however long that takes. `tell` is told meanwhile why it takes long.
    ///
    /// # Errors
    /// If the log does not take the command: the error says whether it may be there all the same. Its answer is told then when it comes
    /// before that to a later command.
    pub async fn ask(&mut self, text: &str, tell: &mut impl FnMut(&str)) -> Result<Answer, ProduceError> {
        self.sent += 1;
        let record = wire::command(&self.name, self.sent, text);
        let taken = async { self.producer.send(record).await?.await };
        noticed(taken, NOTICE, NOT_TAKEN, tell).await?;
        let number = self.sent;
        loop {
            let waiting = Box::pin(self.next_result());
            let (told, answer) = noticed(waiting, NOTICE, NO_ANSWER, tell).await;
            if told == number {
                return Ok(answer);
            }
            tell(&format!(
                "the answer to command {told}, which was late: {}",
                answer.text
            ));
        }
    }

    /// The next result of this session, with the number of its command.
    async fn next_result(&mut self) -> (u64, Answer) {
        loop {
            let record = self.next_record().await;
            if wire::session(&record) != Some(&self.name) {
                continue;
            }
            if let (Some(number), Some(outcome)) = (wire::number(&record), wire::outcome(&record)) {
                let text = wire::text(&record);
                return (number, Answer { outcome, text });
            }
        }
    }

    /// Reads on, whatever happens to the cluster.
    async fn next_record(&mut self) -> ConsumedRecord {
        loop {
            match self.results.next_record().await {
                Some(Ok(record)) => {
                    self.position = record.offset + 1;
                    return record;
                }
                Some(Err(error @ (Error::CorruptBatch { .. } | Error::UnsupportedCompression { .. }))) => {
                    tracing::error!(%error, "results cannot be read");
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "results cannot be read at the moment");
                    self.read_again().await;
                }
                None => self.read_again().await,
            }
        }
    }

    async fn read_again(&mut self) {
        loop {
            sleep(PAUSE).await;
            let results = self.client.consumer(RESULT_TOPIC, self.partition);
            match results.from(Position::Offset(self.position)).build().await {
                Ok(results) => {
                    self.results = results;
                    return;
                }
                Err(error) => tracing::warn!(%error, "results cannot be read at the moment"),
            }
        }
    }
}

/// Awaits the future, and tells the notice once if that takes longer than `after`.
async fn noticed<T>(future: impl Future<Output = T>, after: Duration, notice: &str, tell: &mut impl FnMut(&str)) -> T {
    let mut future = std::pin::pin!(future);
    match timeout(after, &mut future).await {
        Ok(value) => value,
        Err(_) => {
            tell(notice);
            future.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_long_is_told_so_once_and_goes_on_waiting() {
        for (after, notices) in [(Duration::from_secs(3_600), 0), (Duration::ZERO, 1)] {
            let mut told = Vec::new();
            let answer = async {
                sleep(Duration::from_millis(20)).await;
                7
            };
            let mut tell = |notice: &str| told.push(notice.to_owned());
            assert_eq!(noticed(answer, after, NO_ANSWER, &mut tell).await, 7);
            assert_eq!(told, vec![NO_ANSWER; notices]);
        }
    }
}
