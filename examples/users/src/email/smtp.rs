//! Sending by SMTP: one connection for one message, in plain text, to a server that relays for us.
//!
//! A server that takes a message says so once, after all of it. A crash between that answer and the note of it on our disk makes the message
//! come again, with the same `Message-ID`: SMTP has no way to ask whether it was taken.
//!
//! Deliberately absent: TLS and logins. The server is meant to be a relay beside this process, which speaks to the world.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::message::Message;

/// How long the whole conversation about one message may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// The longest line of an answer, bytes; the standard allows 512.
const LINE_BYTES_MAX: u64 = 1024;
/// How many lines an answer has at most.
const LINES_MAX: usize = 100;

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
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Sends a message through the server at `host:port`. Returns when the server has taken it.
///
/// Not cancel safe: the server may take the message.
///
/// # Errors
/// [`Unsent`]; only after `Rejected` it makes no sense to try again.
pub async fn send(server: &str, message: &Message) -> Result<(), Unsent> {
    let sending = async {
        let stream = TcpStream::connect(server).await?;
        let (reader, writer) = stream.into_split();
        converse(BufReader::new(reader), writer, message).await
    };
    let late = || {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no end within {} s", DEADLINE.as_secs()),
        )
    };
    timeout(DEADLINE, sending).await.map_err(|_| late())?
}

async fn converse(
    mut reader: impl AsyncBufRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    message: &Message,
) -> Result<(), Unsent> {
    let (from, to) = (&message.from, &message.to);
    let (_, domain) = from.split_once('@').unwrap_or_default();
    let steps = [
        ("the greeting", None, false),
        ("EHLO", Some(format!("EHLO {domain}\r\n")), false),
        ("MAIL", Some(format!("MAIL FROM:<{from}>\r\n")), false),
        ("RCPT", Some(format!("RCPT TO:<{to}>\r\n")), true),
        ("DATA", Some("DATA\r\n".to_owned()), true),
        ("the message", Some(on_the_wire(message)), true),
    ];
    for (during, line, may_reject) in steps {
        if let Some(line) = line {
            writer.write_all(line.as_bytes()).await?;
            writer.flush().await?;
        }
        let answer = answer(&mut reader).await?;
        let is_good = answer.starts_with(if during == "DATA" { '3' } else { '2' });
        if !is_good {
            return Err(match may_reject && answer.starts_with('5') {
                true => Unsent::Rejected { during, answer },
                false => Unsent::Refused { during, answer },
            });
        }
    }
    // It has been taken; whether the server hears this does not matter.
    let _ = writer.write_all(b"QUIT\r\n").await;
    Ok(())
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
            format!("{begin}250 ok\r\n354 go\r\n554 no\r\n"),
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
        ] {
            assert!(matches!(say(answers).await.0, Err(Unsent::Refused { .. })), "{answers}");
        }
        let endless = "250-a\r\n".repeat(LINES_MAX + 1);
        for answers in ["", "220 hi", "hi\r\n", &endless, &"2".repeat(2000)] {
            assert!(matches!(say(answers).await.0, Err(Unsent::Broken(_))), "{answers}");
        }
    }
}
