//! A client's connection after the handshake, as its server reads and writes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::overhead::Watch;
use super::places::Place;
use super::{Peer, ServerStream};
use crate::tls::Trust;

/// A client's connection, handed over after the handshake.
#[derive(Debug)]
pub struct Connection {
    stream: ServerStream,
    peer: Arc<Peer>,
    /// Whether its certificate is still good.
    trust: Trust,
    /// Ready when it must end.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Sees its frames, if it has any.
    watch: Option<Watch>,
    /// Until this is over it is not read.
    rest: Option<Pin<Box<Sleep>>>,
    /// Our share of the connections allowed; given back when the connection is dropped.
    _place: Place,
}

impl Connection {
    pub(super) fn new(
        stream: ServerStream,
        peer: Arc<Peer>,
        trust: Trust,
        watch: Option<Watch>,
        place: Place,
    ) -> Connection {
        Connection {
            stream,
            peer,
            cut: Box::pin(trust.lost().clone().cancelled_owned()),
            trust,
            watch,
            rest: None,
            _place: place,
        }
    }

    /// Cancelled when the connection is over. Cancelling it breaks the connection off.
    pub(crate) fn over(&self) -> CancellationToken {
        self.trust.lost().clone()
    }

    fn is_cut(&self) -> io::Result<()> {
        match self.trust.lost().is_cancelled() {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    /// Ready when it may be read.
    fn poll_rested(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(context));
            // The client's other connections may have used up what has come since.
            let more = self.watch.as_mut().map(Watch::settle).unwrap_or_default();
            self.rest = (!more.is_zero()).then(|| Box::pin(sleep(more)));
        }
        Poll::Ready(())
    }

    fn poll_stream(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rested(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(watch) = &mut self.watch {
            watch.read(&buffer.filled()[before..]);
            let wait = watch.wait();
            self.rest = (!wait.is_zero()).then(|| Box::pin(sleep(wait)));
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, bytes: &[u8]) {
        if let Some(watch) = &mut self.watch {
            watch.wrote(bytes);
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_cut()?;
        if let Poll::Ready(read) = self.poll_stream(context, buffer) {
            return Poll::Ready(read);
        }
        // So that it is noticed when nothing comes.
        ready!(self.cut.as_mut().poll(context));
        Poll::Ready(self.is_cut())
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_cut()?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.wrote(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_cut()?;
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        let mut left = written;
        for slice in slices {
            let of_slice = left.min(slice.len());
            self.wrote(&slice[..of_slice]);
            left -= of_slice;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
