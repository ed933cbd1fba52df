//! Sending by SMTP: one connection for one message, in plain text, to a server that relays for us.
//!
//! A server that takes a message says so once, after all of it. If that answer does not come, or a crash is between it and the note of it on
//! our disk, the message comes again, with the same `Message-ID`: SMTP has no way to ask whether it was taken. So the server gets as long for
//! that answer as the standard says (RFC 5321, 4.5.3.2): a shorter patience makes doubles.
//!
//! Deliberately absent: TLS and logins. The server is meant to be a relay beside this process, which speaks to the world.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::message::Message;

/// How long connecting, and the answer to each step before the message, may take.
const STEP: Duration = Duration::from_secs(60);
/// The same for the answer to `DATA`.
const DATA: Duration = Duration::from_secs(2 * 60);
/// The same for the message itself, and the answer to its last dot.
const TAKING: Duration = Duration::from_secs(10 * 60);
/// The longest line of an answer, bytes; the standard allows 512.
const LINE_BYTES_MAX: u64 = 1024;
/// How many lines an answer has at most.
const LINES_MAX: usize = 100;
/// How the enhanced code of an answer begins that says that the server does not let us, whatever the message is (RFC 3463, 3.8).
const NOT_US: &str = "5.7.";

/// The longest that one message can take: the steps are the connection, four of its answers, `DATA` and the message.
pub(super) const MESSAGE_MAX: Duration = Duration::from_secs(5 * STEP.as_secs() + DATA.as_secs() + TAKING.as_secs());

/// Why a message has not been sent, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// The server will never take it.
    #[error("{during} was answered {answer}")]
    Rejected {
        /// What was answered.
        during: &'static str,
        /// The answer's first line.
        answer: String,
    },
    /// The server does not take it now, or does not take anything of ours.
    #[error("{during} was answered {answer}")]
    Refused {
        /// What was answered.
        during: &'static str,
        /// The answer's first line.
        answer: String,
    },
    /// The server could not be talked to; if that was after all of the message, it may have been sent.
    #[error("{during}: {problem}")]
    Broken {
        /// What was not answered.
        during: &'static str,
        /// Why not.
        problem: io::Error,
    },
}

/// One thing that is said, and answered.
struct Step {
    /// Its name.
    during: &'static str,
    /// What is said; nothing before the greeting.
    line: String,
    /// How long saying it and the answer may take.
    patience: Duration,
}

/// Sends a message through the server at `host:port`. Returns when the server has taken it.
///
/// Not cancel safe: the server may take the message.
///
/// # Errors
/// [`Unsent`]; only after `Rejected` it makes no sense to try again.
pub async fn send(server: &str, message: &Message) -> Result<(), Unsent> {
    let stream = in_time("the connection", STEP, TcpStream::connect(server)).await?;
    let (reader, writer) = stream.into_split();
    converse(BufReader::new(reader), writer, message).await
}

async fn in_time<T>(
    during: &'static str,
    patience: Duration,
    doing: impl Future<Output = io::Result<T>>,
) -> Result<T, Unsent> {
    let late = |_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", patience.as_secs()),
        ))
    };
    let done = timeout(patience, doing).await.unwrap_or_else(late);
    done.map_err(|problem| Unsent::Broken { during, problem })
}

async fn converse(
    mut reader: impl AsyncBufRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    message: &Message,
) -> Result<(), Unsent> {
    for Step { during, line, patience } in steps(message) {
        let answering = async {
            writer.write_all(line.as_bytes()).await?;
            writer.flush().await?;
            answer(&mut reader).await
        };
        judge(during, in_time(during, patience, answering).await?)?;
    }
    // It has been taken; whether the server hears this does not matter.
    let _ = writer.write_all(b"QUIT\r\n").await;
    Ok(())
}

fn steps(message: &Message) -> [Step; 6] {
    let (from, to) = (&message.from, &message.to);
    let (_, domain) = from.split_once('@').unwrap_or_default();
    let step = |during, line, patience| Step { during, line, patience };
    [
        step("the greeting", String::new(), STEP),
        step("EHLO", format!("EHLO {domain}\r\n"), STEP),
        step("MAIL", format!("MAIL FROM:<{from}>\r\n"), STEP),
        step("RCPT", format!("RCPT TO:<{to}>\r\n"), STEP),
        step("DATA", "DATA\r\n".to_owned(), DATA),
        step("the message", on_the_wire(message), TAKING),
    ]
}

/// Whether an answer lets us go on. A refusal is about this message only from its receiver on, and not if it says that it is about us.
fn judge(during: &'static str, answer: String) -> Result<(), Unsent> {
    if answer.starts_with(if during == "DATA" { '3' } else { '2' }) {
        return Ok(());
    }
    let is_for_good = answer.starts_with('5');
    let enhanced = answer.get(4..).unwrap_or_default();
    let is_about_message = match during {
        "RCPT" => !enhanced.starts_with(NOT_US),
        "DATA" | "the message" => true,
        _ => false,
    };
    Err(match is_for_good && is_about_message {
        true => Unsent::Rejected { during, answer },
        false => Unsent::Refused { during, answer },
    })
}

/// The message with the line ends of the wire, and so that no line of it is the one that ends it.
fn on_the_wire(message: &Message) -> String {
    let text = format!("{}\n{}", message.head, message.body);
    let mut wire = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        if line.starts_with('.') {
            wire.push('.');
        }
        wire.push_str(line);
        wire.push_str("\r\n");
    }
    wire.push_str(".\r\n");
    wire
}

/// The first line of an answer, all of which is read.
async fn answer(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let wrong = |problem: String| io::Error::new(io::ErrorKind::InvalidData, problem);
    let mut first = None;
    for _ in 0..LINES_MAX {
        let mut bytes = Vec::new();
        (&mut *reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut bytes)
            .await?;
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        let has_code = line.len() >= 3 && line.bytes().take(3).all(|byte| byte.is_ascii_digit());
        if !bytes.ends_with(b"\n") || !has_code {
            return Err(wrong(format!(
                "the server ended or said {line:?}, which is no answer of SMTP"
            )));
        }
        let goes_on = line.as_bytes().get(3) == Some(&b'-');
        let first = first.get_or_insert(line);
        if !goes_on {
            return Ok(first.clone());
        }
    }
    Err(wrong(format!("an answer has more than {LINES_MAX} lines")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::email::message::Place;

    fn message(body: &str) -> Message {
        Message {
            topic_id: 1,
            place: Place {
                partition: 0,
                offset: 0,
            },
            from: "w@users.example".to_owned(),
            to: "a@b".to_owned(),
            created_ms: 0,
            head: "Subject: Welcome\n".to_owned(),
            body: body.to_owned(),
        }
    }

    async fn say(answers: &str) -> (Result<(), Unsent>, String) {
        let mut said = Vec::new();
        let sent = converse(BufReader::new(answers.as_bytes()), &mut said, &message("a\n.\n")).await;
        (sent, String::from_utf8(said).unwrap())
    }

    #[tokio::test]
    async fn a_message_is_sent_step_by_step() {
        let (sent, said) = say("220 hi\r\n250-a\r\n250 b\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n").await;
        sent.unwrap();
        let expected = "EHLO users.example\r\nMAIL FROM:<w@users.example>\r\nRCPT TO:<a@b>\r\nDATA\r\n\
                        Subject: Welcome\r\n\r\na\r\n..\r\n.\r\nQUIT\r\n";
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn only_what_concerns_the_message_rejects_it() {
        let begin = "220 hi\r\n250 a\r\n250 ok\r\n";
        let rejected = [
            format!("{begin}550 nobody\r\n"),
            format!("{begin}550 5.1.1 nobody\r\n"),
            format!("{begin}250 ok\r\n554 5.7.1 no\r\n"),
            format!("{begin}250 ok\r\n354 go\r\n554 no\r\n"),
            format!("{begin}250 ok\r\n354 go\r\n554 5.7.1 spam\r\n"),
        ];
        for answers in rejected {
            assert!(
                matches!(say(&answers).await.0, Err(Unsent::Rejected { .. })),
                "{answers}"
            );
        }
        for answers in [
            "554 go away\r\n",
            "220 hi\r\n250 a\r\n550 not you\r\n",
            &format!("{begin}451 later\r\n"),
            &format!("{begin}554 5.7.1 relay access denied\r\n"),
            &format!("{begin}550-5.7.0 log in\r\n550 first\r\n"),
        ] {
            assert!(matches!(say(answers).await.0, Err(Unsent::Refused { .. })), "{answers}");
        }
        let endless = "250-a\r\n".repeat(LINES_MAX + 1);
        for answers in ["", "220 hi", "hi\r\n", &endless, &"2".repeat(2000)] {
            assert!(matches!(say(answers).await.0, Err(Unsent::Broken { .. })), "{answers}");
        }
    }

    /// Says each answer after so many seconds; what came of it.
    async fn say_slowly(answers: [(u64, &str); 6]) -> Result<(), Unsent> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (reader, writer) = tokio::io::split(ours);
        let saying = async {
            let (_heard, mut saying) = tokio::io::split(theirs);
            for (seconds, answer) in answers {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                saying.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let message = message("a\n");
        tokio::select! {
            sent = converse(BufReader::new(reader), writer, &message) => sent,
            () = saying => Ok(()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_has_the_time_of_the_standard_for_each_step() {
        let slow = [
            (59, "220 hi"),
            (59, "250 a"),
            (59, "250 ok"),
            (59, "250 ok"),
            (119, "354 go"),
            (599, "250 taken"),
        ];
        say_slowly(slow).await.unwrap();
        for (place, seconds, words) in [
            (0, 61, "the greeting: no answer within 60 s"),
            (3, 61, "RCPT: no answer within 60 s"),
            (4, 121, "DATA: no answer within 120 s"),
            (5, 601, "the message: no answer within 600 s"),
        ] {
            let mut slower = slow;
            slower[place].0 = seconds;
            let problem = say_slowly(slower).await.unwrap_err();
            assert!(matches!(problem, Unsent::Broken { .. }), "{problem}");
            assert_eq!(problem.to_string(), words);
        }
    }
}
