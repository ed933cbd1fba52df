//! The tail cache: recent frames of all logs of a node as shared `Bytes`, bounded in bytes for the whole node.
//!
//! For each log it holds a contiguous run of frames that ends at the tail. A frame that is not on disk yet is pinned: the disk
//! could not serve it. Otherwise the oldest frames go first, whichever log they belong to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::entry::Frame;
use crate::ids::EntryId;

/// Recent frames of all logs of a node, bounded in bytes.
pub struct TailCache {
    bytes_max: AtomicUsize,
    state: Mutex<CacheState>,
}

/// How often records were looked for, since the cache was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheReads {
    /// They were there.
    pub hits: u64,
    /// They had to be read from the disk.
    pub misses: u64,
}

/// Invariants: `bytes` is the sum over all frames held; each frame held has exactly one entry in `order`, and each entry its frame.
#[derive(Default)]
struct CacheState {
    bytes: usize,
    reads: CacheReads,
    next_key: u64,
    tails: BTreeMap<u64, Tail>,
    /// Log and index, in order of insertion.
    order: VecDeque<(u64, u64)>,
}

/// The frames held of one log.
#[derive(Default)]
struct Tail {
    frames: VecDeque<Frame>,
    /// Everything below this index is on disk.
    written_end: u64,
    /// Counts truncations, so that a late report about a dropped frame is not taken for its successor's.
    generation: u64,
}

/// A log's place in the cache; gives it up when dropped.
pub(crate) struct CacheKey {
    cache: Arc<TailCache>,
    key: u64,
}

impl TailCache {
    /// A cache that holds at most `bytes_max` bytes beside what is not on disk yet.
    pub fn new(bytes_max: usize) -> Arc<TailCache> {
        Arc::new(TailCache {
            bytes_max: AtomicUsize::new(bytes_max),
            state: Mutex::default(),
        })
    }

    /// Bytes of the frames held.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// How often records were looked for.
    pub fn reads(&self) -> CacheReads {
        self.lock().reads
    }

    /// From now on it holds at most `bytes_max` bytes beside what is not on disk yet; what is too much is let go of at once.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.lock().evict(bytes_max);
    }

    fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new log, whose entries below `written_end` are on disk.
    pub(crate) fn join(self: &Arc<Self>, written_end: u64) -> Arc<CacheKey> {
        let mut state = self.lock();
        let key = state.next_key;
        state.next_key += 1;
        state.tails.insert(
            key,
            Tail {
                written_end,
                ..Tail::default()
            },
        );
        Arc::new(CacheKey {
            cache: self.clone(),
            key,
        })
    }
}

impl Drop for CacheKey {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        let frames = state
            .tails
            .remove(&self.key)
            .map(|tail| tail.frames)
            .unwrap_or_default();
        state.bytes -= frames.iter().map(Frame::len_bytes).sum::<usize>();
        state.order.retain(|(key, _)| *key != self.key);
    }
}

impl CacheKey {
    /// Adds frames behind the tail; returns the generation to report them written with.
    pub(crate) fn push(&self, frames: impl IntoIterator<Item = Frame>) -> u64 {
        let mut state = self.cache.lock();
        let CacheState {
            bytes, tails, order, ..
        } = &mut *state;
        let tail = tails.entry(self.key).or_default();
        for frame in frames {
            *bytes += frame.len_bytes();
            order.push_back((self.key, frame.header.id.index));
            tail.frames.push_back(frame);
        }
        let generation = tail.generation;
        state.evict(self.cache.bytes_max());
        generation
    }

    /// Notes that everything below `index_end` is on disk.
    pub(crate) fn written(&self, generation: u64, index_end: u64) {
        let mut state = self.cache.lock();
        if let Some(tail) = state
            .tails
            .get_mut(&self.key)
            .filter(|tail| tail.generation == generation)
        {
            tail.written_end = tail.written_end.max(index_end);
        }
        state.evict(self.cache.bytes_max());
    }

    /// Drops all frames from `first` on; returns the new generation.
    pub(crate) fn truncate(&self, first: u64) -> u64 {
        let mut state = self.cache.lock();
        let CacheState {
            bytes, tails, order, ..
        } = &mut *state;
        let tail = tails.entry(self.key).or_default();
        while tail.frames.back().is_some_and(|frame| frame.header.id.index >= first) {
            *bytes -= tail.frames.pop_back().map_or(0, |frame| frame.len_bytes());
        }
        order.retain(|(key, index)| *key != self.key || *index < first);
        tail.written_end = tail.written_end.min(first);
        tail.generation += 1;
        tail.generation
    }

    /// Drops all frames; everything below `written_end` is on disk or no longer wanted. Returns the new generation.
    pub(crate) fn reset(&self, written_end: u64) -> u64 {
        let generation = self.truncate(0);
        if let Some(tail) = self.cache.lock().tails.get_mut(&self.key) {
            tail.written_end = written_end;
        }
        generation
    }

    /// Everything below this index is on disk.
    pub(crate) fn written_end(&self) -> u64 {
        self.cache
            .lock()
            .tails
            .get(&self.key)
            .map_or(0, |tail| tail.written_end)
    }

    /// The id of an entry, if its frame is held.
    pub(crate) fn id_at(&self, index: u64) -> Option<EntryId> {
        let state = self.cache.lock();
        let frames = &state.tails.get(&self.key)?.frames;
        let place = index.checked_sub(frames.front()?.header.id.index)?;
        frames.get(usize::try_from(place).ok()?).map(|frame| frame.header.id)
    }

    /// Index of the first frame held.
    pub(crate) fn first_index(&self) -> Option<u64> {
        let state = self.cache.lock();
        state
            .tails
            .get(&self.key)?
            .frames
            .front()
            .map(|frame| frame.header.id.index)
    }

    /// Frames `start..end`, at most `bytes_max` unless the first alone is larger; None if `start` is not held.
    pub(crate) fn read(&self, start: u64, end: u64, bytes_max: usize) -> Option<Vec<Frame>> {
        let state = self.cache.lock();
        let frames = &state.tails.get(&self.key)?.frames;
        let first = frames.front()?.header.id.index;
        let skip = usize::try_from(start.checked_sub(first)?).ok()?;
        frames.get(skip)?;
        let mut budget = Budget::new(bytes_max);
        let wanted = frames.range(skip..).take_while(|frame| frame.header.id.index < end);
        Some(
            wanted
                .take_while(|frame| budget.take(frame.len_bytes()))
                .cloned()
                .collect(),
        )
    }

    /// Frames with records from the one that holds `offset` on, below `offset_end`; None if it is not held.
    pub(crate) fn read_records(&self, offset: u64, offset_end: u64, bytes_max: usize) -> Option<Vec<Frame>> {
        let mut state = self.cache.lock();
        let tail = state.tails.get(&self.key);
        let found = tail.and_then(|tail| tail.read_records(offset, offset_end, bytes_max));
        match found {
            Some(_) => state.reads.hits += 1,
            None => state.reads.misses += 1,
        }
        found
    }
}

impl Tail {
    fn read_records(&self, offset: u64, offset_end: u64, bytes_max: usize) -> Option<Vec<Frame>> {
        let frames = &self.frames;
        frames.front().filter(|frame| frame.header.base_offset <= offset)?;
        let skip = frames.partition_point(|frame| frame.offset_end() <= offset);
        frames.get(skip)?;
        let mut budget = Budget::new(bytes_max);
        let below = frames
            .range(skip..)
            .take_while(|frame| frame.offset_end() <= offset_end);
        let records = below.filter(|frame| frame.header.record_count > 0);
        Some(
            records
                .take_while(|frame| budget.take(frame.len_bytes()))
                .cloned()
                .collect(),
        )
    }
}

impl CacheState {
    /// Drops the oldest frames until the budget is kept, or the oldest one is pinned: what came later is then pinned as well.
    fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some((key, index)) = self.order.front().copied() else {
                return;
            };
            let Some(tail) = self.tails.get_mut(&key).filter(|tail| index < tail.written_end) else {
                return;
            };
            self.order.pop_front();
            let dropped = tail.frames.pop_front();
            debug_assert_eq!(
                dropped.as_ref().map(|frame| frame.header.id.index),
                Some(index),
                "cache order is broken"
            );
            self.bytes -= dropped.map_or(0, |frame| frame.len_bytes());
        }
    }
}

/// Counts bytes towards a limit; the first item always fits.
pub(crate) struct Budget {
    left: Option<usize>,
    bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Budget {
        Budget { left: None, bytes_max }
    }

    /// Whether an item of so many bytes still fits.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let left = match self.left {
            None => Some(self.bytes_max.saturating_sub(bytes)),
            Some(left) => left.checked_sub(bytes),
        };
        let Some(left) = left else {
            return false;
        };
        self.left = Some(left);
        true
    }
}
