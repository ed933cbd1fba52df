//! Standard output for long streams: written by a thread of its own, in large pieces.
//!
//! A reader that pauses (a pager, a slow pipe) must not stop the connection's keep-alive, so the async side never
//! writes itself. What waits for the thread is bounded; then the async side waits too, and with it the cluster.

use std::io::{self, Write};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::exit::{Code, Failure, Result, output_failure};

/// A piece is handed over at this size, bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// How many pieces may wait for the thread.
const PIECES_WAITING_MAX: usize = 4;

/// A buffered standard output.
pub(crate) struct Sink {
    piece: Vec<u8>,
    pieces: mpsc::Sender<Piece>,
    writer: JoinHandle<io::Result<()>>,
}

/// What the thread is given.
enum Piece {
    Bytes(Vec<u8>),
    /// To be answered when all before it is written.
    Mark(oneshot::Sender<()>),
}

impl Sink {
    /// Starts the writer of standard output.
    pub(crate) fn stdout() -> Result<Self> {
        Self::new(io::stdout())
    }

    fn new(output: impl Write + Send + 'static) -> Result<Self> {
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
        let writer = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || write_pieces(output, waiting))
            .map_err(|error| Failure::new(Code::Failure, format!("cannot start a thread: {error}")))?;
        Ok(Self {
            piece: Vec::with_capacity(PIECE_BYTES),
            pieces,
            writer,
        })
    }

    /// The buffer to append to; call [`Sink::relieve`] after each record.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.piece
    }

    /// Hands the buffer over if it is large enough. Returns false when the output cannot be written any more.
    pub(crate) async fn relieve(&mut self) -> bool {
        self.piece.len() < PIECE_BYTES || self.flush().await
    }

    /// Hands over whatever there is. Returns false when the output cannot be written any more.
    pub(crate) async fn flush(&mut self) -> bool {
        if self.piece.is_empty() {
            return !self.pieces.is_closed();
        }
        let Ok(place) = self.pieces.reserve().await else {
            return false;
        };
        // Taken only now, so that a cancelled flush loses nothing.
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        place.send(Piece::Bytes(piece));
        true
    }

    /// Hands over whatever there is, and waits until all of it is written. Returns false when it cannot be.
    pub(crate) async fn write_out(&mut self) -> bool {
        let (mark, written) = oneshot::channel();
        self.flush().await && self.pieces.send(Piece::Mark(mark)).await.is_ok() && written.await.is_ok()
    }

    /// Writes what is left, and says whether everything was written.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.flush().await;
        let Self { pieces, writer, .. } = self;
        drop(pieces);
        let joined = tokio::task::spawn_blocking(move || writer.join()).await;
        match joined {
            Ok(Ok(written)) => written.map_err(|error| output_failure(&error)),
            _ => Err(Failure::new(Code::Failure, "the thread that writes the output failed")),
        }
    }
}

fn write_pieces(mut output: impl Write, mut waiting: mpsc::Receiver<Piece>) -> io::Result<()> {
    while let Some(piece) = waiting.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => {
                output.write_all(&bytes)?;
                output.flush()?;
            }
            Piece::Mark(mark) => drop(mark.send(())), // whoever asked may have given up
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Collected(Arc<Mutex<Vec<u8>>>);

    impl Write for Collected {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn everything_arrives_in_order() {
        let collected = Collected::default();
        let mut sink = Sink::new(collected.clone()).unwrap();
        let mut expected = Vec::new();
        for number in 0..50_000 {
            let line = format!("{number}\n");
            sink.buffer().extend_from_slice(line.as_bytes());
            assert!(sink.relieve().await);
            expected.extend_from_slice(line.as_bytes());
        }
        sink.finish().await.unwrap();
        assert_eq!(*collected.0.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn what_is_written_out_has_been_taken_by_the_reader() {
        let collected = Collected::default();
        let mut sink = Sink::new(collected.clone()).unwrap();
        for number in 0..100u8 {
            sink.buffer().push(number);
            assert!(sink.write_out().await);
            assert_eq!(collected.0.lock().unwrap().last(), Some(&number));
        }
        let mut closed = Sink::new(Closed).unwrap();
        closed.buffer().push(b'x');
        assert!(!closed.write_out().await);
    }

    #[tokio::test]
    async fn a_closed_pipe_ends_quietly() {
        let mut sink = Sink::new(Closed).unwrap();
        loop {
            sink.buffer().push(b'x');
            if !sink.flush().await {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(sink.finish().await.unwrap_err().code, Code::OutputClosed);
    }
}
