//! A small SMTP server that keeps what it takes, and has its moods.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One of so many connections is told to come later.
const BUSY: usize = 20;

/// What the server has taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mail {
    taken: Arc<Mutex<Vec<Letter>>>,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Letter {
    pub(crate) to: String,
    pub(crate) text: String,
}

impl Letter {
    pub(crate) fn id(&self) -> String {
        let line = self.text.lines().find(|line| line.starts_with("Message-ID: "));
        line.unwrap().to_owned()
    }
}

impl Mail {
    /// Listens; the address. Whoever is `unwelcome` is refused for good, and now and then a connection is told to come later.
    pub(crate) fn start(unwelcome: &'static str) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mail = Self::default();
        let taking = mail.clone();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                // A client that is killed breaks off.
                let _ = stream.and_then(|stream| taking.converse(stream, number % BUSY == 2, unwelcome));
            }
        });
        (mail, address)
    }

    pub(crate) fn taken(&self) -> Vec<Letter> {
        self.taken.lock().unwrap().clone()
    }

    fn converse(&self, mut stream: TcpStream, is_busy: bool, unwelcome: &str) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        stream.write_all(b"220 mail.test\r\n")?;
        let mut to = String::new();
        while let Some(line) = lines.next().transpose()? {
            let answer = match line.split_once(':').map_or(line.as_str(), |(command, _)| command) {
                "RCPT TO" if is_busy => "451 later",
                "RCPT TO" => {
                    to = line["RCPT TO:<".len()..line.len() - 1].to_owned();
                    if to == unwelcome { "550 nobody" } else { "250 ok" }
                }
                "DATA" => "354 go on",
                "QUIT" => return Ok(()),
                command if command.starts_with("EHLO ") => "250-mail.test\r\n250 8BITMIME",
                _ => "250 ok",
            };
            stream.write_all(format!("{answer}\r\n").as_bytes())?;
            if answer.starts_with("354") {
                let Some(text) = text(&mut lines)? else {
                    return Ok(());
                };
                self.taken.lock().unwrap().push(Letter { to: to.clone(), text });
                stream.write_all(b"250 taken\r\n")?;
            }
        }
        Ok(())
    }
}

/// Up to the line with a dot; nothing if the client has gone before that, for then it has sent no message.
fn text(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> std::io::Result<Option<String>> {
    let mut text = Vec::new();
    for line in lines {
        match line? {
            line if line == "." => return Ok(Some(text.join("\n"))),
            line => text.push(line),
        }
    }
    Ok(None)
}
