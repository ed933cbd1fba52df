//! A session: commands in order, and their results.
//!
//! The session's name is its key, so its commands are in one partition, and their results in the same partition of the other topic. That one
//! it follows, from where it ends before the first command is sent, and picks out what is its own. Sessions that share a partition read each
//! other's results and skip them: that is the price of topics that are as many as partitions and not as many as sessions.
//!
//! Invariant: an answer is told once, to the command that it belongs to. A result says where its command is, and a session knows where its own
//! commands are: in the same partition, at the offsets that the log has told. So a command that somebody else publishes with this session's
//! name and number has its result, and is not taken for an answer.

use std::collections::BTreeSet;
use std::time::Duration;

use highwater::{
    Client, ConsumedRecord, Consumer, Error, KeyHash, Outcome as Written, Partitioner, Position, ProduceError, Producer,
};
use highwater_service::transform::source_of;
use tokio::time::{sleep, timeout};

use crate::wire::{self, COMMAND_TOPIC, Outcome, RESULT_TOPIC};

/// After how long the user is told why there is no answer yet.
pub const NOTICE: Duration = Duration::from_secs(5);
/// How long to wait before results that could not be read are read again.
const PAUSE: Duration = Duration::from_millis(500);

/// How many commands are remembered of which it is not known whether they are in the log. Answers to older ones are not told.
const UNKNOWN_MAX: usize = 1_000;

/// What is said when nothing has been heard of a command for [`NOTICE`].
const NO_ANSWER: &str = "no back end has answered yet; the command is in the log and will be answered";
/// What is said when the log has refused a command.
const NOT_THERE: &str = "the command is not in the log";
/// What is said when it is not known whether the log has taken a command.
const MAYBE_THERE: &str = "whether the command is in the log is not known; if it is, it will be answered";
/// What is said when the log has not taken a command for [`NOTICE`].
const NOT_TAKEN: &str = "the log has not taken the command yet; it is still being tried";

/// One who asks.
#[derive(Debug)]
pub struct Session {
    client: Client,
    asked: Asked,
    partition: u32,
    producer: Producer,
    results: Consumer,
    /// The next result to read.
    position: u64,
}

/// What has been asked, by which answers are known.
#[derive(Debug)]
struct Asked {
    /// The session's name.
    session: String,
    /// How many commands have been sent.
    sent: u64,
    /// The numbers of those of which it is not known whether, and where, they are in the log.
    unknown: BTreeSet<u64>,
}

/// A result of this session.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// The answer that is waited for.
    Answer(Answer),
    /// The answer to an earlier command, by its number, of which it was not known whether it is in the log.
    Late(u64, Answer),
}

impl Asked {
    fn remember(&mut self, number: u64) {
        self.unknown.insert(number);
        if self.unknown.len() > UNKNOWN_MAX {
            self.unknown.pop_first();
        }
    }

    /// What a result is to this session, which waits for the one of its command at offset `own`.
    fn hear(&mut self, result: &ConsumedRecord, own: u64) -> Option<Heard> {
        if wire::session(result) != Some(&self.session) {
            return None;
        }
        let answer = Answer {
            outcome: wire::outcome(result)?,
            text: wire::text(result),
        };
        let source = source_of(result)?;
        if source == own {
            return Some(Heard::Answer(answer));
        }
        // Of such a command the number is all that is known; it is told as what it is, late, and once.
        let number = wire::number(result)?;
        let is_late = source < own && self.unknown.remove(&number);
        is_late.then_some(Heard::Late(number, answer))
    }
}

/// Why a command has no answer here.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The log does not take it.
    #[error("{standing}: {0}", standing = standing(.0))]
    NotTaken(#[source] ProduceError),
    /// The results cannot be read, and trying again would not help: a right was taken away, or the topic is another one.
    #[error("the command is in the log and will be answered, but the answer cannot be read: {0}")]
    Unread(#[source] Error),
}

/// Whether a command that was not taken is in the log.
fn standing(error: &ProduceError) -> &'static str {
    match error.outcome() {
        Written::NotApplied => NOT_THERE,
        _ => MAYBE_THERE,
    }
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
            asked: Asked {
                session: name,
                sent: 0,
                unknown: BTreeSet::new(),
            },
            partition,
            producer,
            results,
        })
    }

    /// The session's name, random.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.asked.session
    }

    /// Publishes a command, and waits for its answer, however long that takes. `tell` is told meanwhile why it takes long.
    ///
    /// # Errors
    /// If the log does not take the command: the error says whether it may be there all the same. Its answer is told then when it comes
    /// before that to a later command. And if results cannot be read any more.
    pub async fn ask(&mut self, text: &str, tell: &mut impl FnMut(&str)) -> Result<Answer, Unanswered> {
        self.asked.sent += 1;
        let record = wire::command(&self.asked.session, self.asked.sent, text);
        let taken = async { self.producer.send(record).await?.await };
        let own = match noticed(taken, NOTICE, NOT_TAKEN, tell).await {
            Ok(delivered) => delivered.offset,
            Err(error) => {
                if error.outcome() != Written::NotApplied {
                    self.asked.remember(self.asked.sent);
                }
                return Err(Unanswered::NotTaken(error));
            }
        };
        loop {
            let waiting = Box::pin(self.next_result(own));
            let heard = noticed(waiting, NOTICE, NO_ANSWER, tell).await;
            match heard.map_err(Unanswered::Unread)? {
                Heard::Answer(answer) => return Ok(answer),
                Heard::Late(number, answer) => {
                    let text = wire::shown(&answer.text);
                    tell(&format!("the answer to command {number}, which was late: {text}"));
                }
            }
        }
    }

    /// The next result of this session, which waits for the one of its command at offset `own`.
    async fn next_result(&mut self, own: u64) -> Result<Heard, Error> {
        loop {
            let record = self.next_record().await?;
            if let Some(heard) = self.asked.hear(&record, own) {
                return Ok(heard);
            }
        }
    }

    /// Reads on, whatever passing happens to the cluster.
    async fn next_record(&mut self) -> Result<ConsumedRecord, Error> {
        loop {
            match self.results.next_record().await {
                Some(Ok(record)) => {
                    self.position = record.offset + 1;
                    return Ok(record);
                }
                Some(Err(error @ (Error::CorruptBatch { .. } | Error::UnsupportedCompression { .. }))) => {
                    tracing::error!(%error, "results cannot be read");
                }
                Some(Err(error)) if error.is_retryable() => {
                    tracing::warn!(%error, "results cannot be read at the moment");
                    self.read_again().await?;
                }
                Some(Err(error)) => return Err(error),
                None => self.read_again().await?,
            }
        }
    }

    async fn read_again(&mut self) -> Result<(), Error> {
        loop {
            sleep(PAUSE).await;
            let results = self.client.consumer(RESULT_TOPIC, self.partition);
            match results.from(Position::Offset(self.position)).build().await {
                Ok(results) => {
                    self.results = results;
                    return Ok(());
                }
                Err(error) if error.is_retryable() => tracing::warn!(%error, "results cannot be read at the moment"),
                Err(error) => return Err(error),
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
    use highwater::Record;
    use highwater_service::transform::SOURCE;

    use super::*;
    use crate::wire::tests::consumed;

    /// The result of a command of that session and number, at that offset.
    fn result(session: &str, number: u64, source: Option<u64>, text: &str) -> ConsumedRecord {
        let command = consumed(wire::command(session, number, "add 1 1"), 0, 0);
        let result: Record = wire::result(&command, Outcome::Ok, text.to_owned());
        let result = match source {
            Some(source) => result.with_header(SOURCE, source.to_string()),
            None => result,
        };
        consumed(result, 0, 0)
    }

    fn asked() -> Asked {
        Asked {
            session: "a1".to_owned(),
            sent: 2,
            unknown: BTreeSet::new(),
        }
    }

    fn answer(text: &str) -> Answer {
        Answer {
            outcome: Outcome::Ok,
            text: text.to_owned(),
        }
    }

    #[test]
    fn only_the_result_of_the_own_command_is_its_answer() {
        let mut asked = asked();
        for (forged, what) in [
            (result("a1", 2, None, "forged"), "it answers no command"),
            (result("a1", 2, Some(8), "forged"), "of a command that was there before"),
            (result("a1", 2, Some(10), "forged"), "of a command that came after"),
            (result("b1", 2, Some(9), "forged"), "of another session"),
        ] {
            assert_eq!(asked.hear(&forged, 9), None, "{what}");
        }
        // The number is not what counts.
        for number in [2, 7] {
            let own = result("a1", number, Some(9), "2");
            assert_eq!(asked.hear(&own, 9), Some(Heard::Answer(answer("2"))));
        }
    }

    #[test]
    fn a_late_answer_is_told_once_and_only_if_one_is_missing() {
        let mut asked = asked();
        let late = result("a1", 1, Some(4), "late");
        assert_eq!(asked.hear(&late, 9), None);
        asked.remember(1);
        assert_eq!(asked.hear(&result("a1", 3, Some(4), "forged"), 9), None);
        assert_eq!(asked.hear(&late, 9), Some(Heard::Late(1, answer("late"))));
        assert_eq!(asked.hear(&late, 9), None);
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let mut asked = asked();
        (0..=UNKNOWN_MAX as u64).for_each(|number| asked.remember(number));
        assert_eq!((asked.unknown.len(), asked.unknown.first()), (UNKNOWN_MAX, Some(&1)));
    }

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
