//! The way out of a connection: two bounded queues and the one task that writes.
//!
//! `ordered` carries calls, answers and stream data, bounded in frames and bytes. `urgent` carries only small frames
//! that must not wait behind data and that the reader may send, as offering there never waits.
//! Invariant: frames of `ordered` are written in the order in which they were queued.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::frame::{Frame, HEADER_BYTES};
use super::limits::{OUTBOX_BYTES_MAX, OUTBOX_FRAMES_MAX, URGENT_FRAMES_MAX, WRITE_SLICES_MAX};

/// Headers are encoded side by side into buffers of this size, bytes.
const HEADER_BUFFER_BYTES: usize = 4096;

/// No room, or nobody who writes any more: the frame was not sent and will not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotQueued;

/// The senders' side.
#[derive(Debug)]
pub(super) struct Outbox {
    ordered: mpsc::Sender<Queued>,
    urgent: mpsc::Sender<Frame>,
    bytes: Arc<Semaphore>,
    queued: AtomicU64,
    written: Arc<AtomicU64>,
}

/// The writer's side.
#[derive(Debug)]
pub(super) struct Queues {
    ordered: mpsc::Receiver<Queued>,
    urgent: mpsc::Receiver<Frame>,
    written: Arc<AtomicU64>,
    batch: Batch,
}

/// A frame and its share of the bytes that may wait; given back once it is written.
#[derive(Debug)]
struct Queued {
    frame: Frame,
    permit: OwnedSemaphorePermit,
}

pub(super) fn outbox() -> (Outbox, Queues) {
    let (ordered, ordered_receiver) = mpsc::channel(OUTBOX_FRAMES_MAX);
    let (urgent, urgent_receiver) = mpsc::channel(URGENT_FRAMES_MAX);
    let written = Arc::new(AtomicU64::new(0));
    let bytes = Arc::new(Semaphore::new(OUTBOX_BYTES_MAX + HEADER_BYTES));
    let queues = Queues {
        ordered: ordered_receiver,
        urgent: urgent_receiver,
        written: written.clone(),
        batch: Batch::default(),
    };
    (
        Outbox {
            ordered,
            urgent,
            bytes,
            queued: AtomicU64::new(0),
            written,
        },
        queues,
    )
}

impl Outbox {
    /// Queues a frame if there is room at once.
    pub(super) fn try_send(&self, frame: Frame) -> Result<(), NotQueued> {
        let permit = self
            .bytes
            .clone()
            .try_acquire_many_owned(weight(&frame))
            .map_err(|_| NotQueued)?;
        self.queued.fetch_add(1, Ordering::Relaxed);
        self.ordered.try_send(Queued { frame, permit }).map_err(|_| NotQueued)
    }

    /// Queues a frame, waiting for room. Fails when the connection has ended.
    pub(super) async fn send(&self, frame: Frame) -> Result<(), NotQueued> {
        let permit = self
            .bytes
            .clone()
            .acquire_many_owned(weight(&frame))
            .await
            .map_err(|_| NotQueued)?;
        self.queued.fetch_add(1, Ordering::Relaxed);
        self.ordered.send(Queued { frame, permit }).await.map_err(|_| NotQueued)
    }

    /// Queues a small frame ahead of the ordered ones. Never waits.
    pub(super) fn send_urgent(&self, frame: Frame) -> Result<(), NotQueued> {
        self.urgent.try_send(frame).map_err(|_| NotQueued)
    }

    /// Ordered frames offered so far: every use of the connection, but no pings.
    pub(super) fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Frames written so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Wakes those who wait for room; the connection has ended.
    pub(super) fn close(&self) {
        self.bytes.close();
    }
}

fn weight(frame: &Frame) -> u32 {
    (HEADER_BYTES + frame.body_bytes()) as u32
}

/// What is being written, as slices. Outlives an interrupted write, so that it can be completed.
#[derive(Debug, Default)]
struct Batch {
    chunks: VecDeque<Bytes>,
    permits: Vec<OwnedSemaphorePermit>,
    headers: BytesMut,
    frames: u64,
}

impl Batch {
    fn push(&mut self, frame: Frame) {
        if self.headers.capacity() < HEADER_BYTES {
            self.headers = BytesMut::with_capacity(HEADER_BUFFER_BYTES);
        }
        frame.encode_header(&mut self.headers);
        self.chunks.push_back(self.headers.split().freeze());
        self.chunks
            .extend(frame.body.into_iter().filter(|part| !part.is_empty()));
        self.frames += 1;
    }

    fn take(&mut self, queued: Queued) {
        self.permits.push(queued.permit);
        self.push(queued.frame);
    }

    fn is_full(&self) -> bool {
        self.chunks.len() >= WRITE_SLICES_MAX
    }

    async fn write(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        while !self.chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk);
            }
            let count = self.chunks.len().min(WRITE_SLICES_MAX);
            let bytes = stream.write_vectored(&slices[..count]).await?;
            if bytes == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.advance(bytes);
        }
        self.permits.clear();
        Ok(())
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some(chunk) = self.chunks.front_mut() {
            if bytes < chunk.len() {
                chunk.advance(bytes);
                return;
            }
            bytes -= chunk.len();
            self.chunks.pop_front();
        }
    }
}

impl Queues {
    /// Writes until the queues are closed or the stream breaks, and flushes whenever there is nothing more to write.
    pub(super) async fn write_to(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        loop {
            self.gather();
            if self.batch.frames == 0 {
                stream.flush().await?;
                if !self.wait().await {
                    return Ok(());
                }
                self.gather();
            }
            self.batch.write(stream).await?;
            self.written
                .fetch_add(std::mem::take(&mut self.batch.frames), Ordering::Relaxed);
        }
    }

    /// Completes a write that was interrupted, writes the urgent frames that are queued, for the other side to learn
    /// why the connection ends, and closes.
    pub(super) async fn write_last_words(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        while let Ok(frame) = self.urgent.try_recv() {
            self.batch.push(frame);
        }
        self.batch.write(stream).await?;
        stream.shutdown().await
    }

    /// Takes what is queued, as much as one write can carry.
    fn gather(&mut self) {
        while !self.batch.is_full() {
            if let Ok(frame) = self.urgent.try_recv() {
                self.batch.push(frame);
            } else if let Ok(queued) = self.ordered.try_recv() {
                self.batch.take(queued);
            } else {
                return;
            }
        }
    }

    /// Waits for the next frame; `false` when there will be none.
    async fn wait(&mut self) -> bool {
        tokio::select! {
            biased;
            Some(frame) = self.urgent.recv() => self.batch.push(frame),
            Some(queued) = self.ordered.recv() => self.batch.take(queued),
            else => return false,
        }
        true
    }
}
