//! A connection that ends when the other side takes what it is sent too slowly, or not at all.
//!
//! Answers are held in memory until they are taken, so whoever takes them byte by byte would hold that memory for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How slow the other side may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long it may take nothing.
    pub(super) stall: Duration,
    /// What it must take on the whole, beyond the first `stall`, bytes a second.
    pub(super) bytes_per_s_least: u64,
}

/// The stream, with a limit to how long a write may take.
pub(super) struct Patient<S> {
    stream: S,
    patience: Patience,
    wait: Option<Wait>,
}

/// The other side makes us wait: from the first write that it does not take at once until everything is written.
struct Wait {
    began: Instant,
    taken: u64,
    /// When to give up.
    end: Pin<Box<Sleep>>,
}

impl Wait {
    fn new(patience: Patience) -> Wait {
        let began = Instant::now();
        Wait {
            began,
            taken: 0,
            end: Box::pin(sleep_until(began + patience.stall)),
        }
    }

    fn took(&mut self, bytes: usize, patience: Patience) {
        self.taken += bytes as u64;
        let earned = Duration::from_millis(self.taken.saturating_mul(1000) / patience.bytes_per_s_least);
        let stalled = Instant::now() + patience.stall;
        self.end
            .as_mut()
            .reset(stalled.min(self.began + patience.stall + earned));
    }
}

impl<S: AsyncWrite + Unpin> Patient<S> {
    pub(super) fn new(stream: S, patience: Patience) -> Patient<S> {
        Patient {
            stream,
            patience,
            wait: None,
        }
    }

    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                if let Some(wait) = &mut self.wait {
                    wait.took(bytes, self.patience);
                }
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => self.keep_waiting(context),
        }
    }

    fn finished(&mut self, context: &mut Context<'_>, finished: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if finished.is_ready() {
            self.wait = None;
            return finished;
        }
        self.keep_waiting(context)
    }

    fn keep_waiting<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let patience = self.patience;
        let wait = self.wait.get_or_insert_with(|| Wait::new(patience));
        ready!(wait.end.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.finished(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.finished(context, ended)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{sleep, timeout};

    use super::*;

    const PATIENCE: Patience = Patience {
        stall: Duration::from_secs(30),
        bytes_per_s_least: 8,
    };
    const SECOND: Duration = Duration::from_secs(1);

    /// Takes so many bytes, each time after a pause.
    async fn take(theirs: &mut DuplexStream, bytes: usize, pause: Duration) -> io::Result<()> {
        loop {
            sleep(pause).await;
            theirs.read_exact(&mut vec![0; bytes]).await?;
        }
    }

    /// How long an answer of so many bytes takes with a reader that does that, and how it ends.
    async fn answer(bytes: usize, taken: usize, pause: Duration) -> (io::Result<()>, Duration) {
        let (ours, mut theirs) = duplex(8);
        let mut patient = Patient::new(ours, PATIENCE);
        let begin = Instant::now();
        let answering = async {
            patient.write_all(&vec![0; bytes]).await?;
            patient.flush().await
        };
        let ended = tokio::select! {
            ended = answering => ended,
            _ = take(&mut theirs, taken, pause) => panic!("it reads on"),
        };
        (ended, begin.elapsed())
    }

    fn timed_out(ended: io::Result<()>) -> bool {
        ended.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_ends_if_nothing_is_taken_and_goes_on_if_enough_is() {
        let (ended, took) = answer(8 + 8 * 600, 8, SECOND).await;
        assert!(ended.is_ok() && took >= 600 * SECOND, "{ended:?} after {took:?}");
        let (ended, took) = answer(9, 8, 3600 * SECOND).await;
        assert!(timed_out(ended) && took >= PATIENCE.stall, "{took:?}");
        assert!(took < 2 * PATIENCE.stall, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_ends_if_it_is_taken_too_slowly_on_the_whole() {
        // Something every two seconds, but half of what is asked for.
        let (ended, took) = answer(8 * 600, 8, 2 * SECOND).await;
        assert!(timed_out(ended), "{took:?}");
        assert!((30 * SECOND..70 * SECOND).contains(&took), "{took:?}");
        // A short answer may be slow.
        let (ended, took) = answer(8 + 8 * 10, 8, 2 * SECOND).await;
        assert!(ended.is_ok(), "{ended:?} after {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_has_its_own_time() {
        let (ours, mut theirs) = duplex(8);
        let mut patient = Patient::new(ours, PATIENCE);
        let answering = async {
            for _ in 0..100 {
                patient.write_all(&[0; 16]).await.unwrap();
                patient.flush().await.unwrap();
            }
        };
        tokio::select! {
            () = answering => {}
            _ = take(&mut theirs, 16, 10 * SECOND) => panic!("it reads on"),
        }
        let stalled = timeout(2 * PATIENCE.stall, patient.write_all(&[0; 100])).await.unwrap();
        assert!(timed_out(stalled));
    }
}
