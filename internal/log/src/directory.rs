//! What stands in a log's directory: hard state, manifest, checkpoint, and the segments with what their headers say. Reading it finishes
//! what was interrupted (replacements, purges, installations), and changes nothing else.

use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::{self, CHECKPOINT};
use crate::create::is_unfinished;
use crate::error::Error;
use crate::format::checkpoint::Checkpoint;
use crate::format::files::{Mark, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::hard_state::HardState;
use crate::log::OpenLog;
use crate::manifest::{self, Manifest};
use crate::round::{Op, Round};
use crate::segment::{Place, Segment, segment_first_index, segment_path};

pub(crate) struct Directory {
    pub(crate) mark: Mark,
    pub(crate) manifest: Option<Arc<Manifest>>,
    /// None also if it is older than the manifest.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Those that are there, in order; without a good header only where there must be one.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Segments behind the end of the log, last first.
    pub(crate) beyond: Vec<Arc<Segment>>,
}

impl Directory {
    pub(crate) fn read(open: &OpenLog) -> Result<(HardState, Directory), Error> {
        let OpenLog {
            dir, disk, identity, ..
        } = open;
        let mut hard = match HardState::read(&**disk, dir, *identity) {
            Err(Error::HardStateLost { .. }) if is_unfinished(open)? => {
                return Err(Error::NeverCreated { path: dir.clone() });
            }
            read => read?,
        };
        let manifest = manifest::read(&**disk, dir, identity)?;
        let floor_end = manifest.as_ref().map_or(0, |manifest| manifest.state.next_index);
        if let Some(manifest) = manifest.as_deref().filter(|_| hard.mark().index_end < floor_end) {
            begin_anew(open, &mut hard, manifest)?;
        }
        let checkpoint = checkpoint::read(&**disk, dir, *identity)?;
        let mut directory = Directory {
            mark: hard.mark(),
            manifest,
            checkpoint: checkpoint.filter(|checkpoint| checkpoint.state.next_index >= floor_end),
            segments: Vec::new(),
            beyond: Vec::new(),
        };
        directory.read_segments(open)?;
        Ok((hard, directory))
    }

    pub(crate) fn floor_end(&self) -> u64 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.state.next_index)
    }

    /// Everything below this index was synced and must be there.
    pub(crate) fn certain_end(&self) -> u64 {
        let checkpoint = self
            .checkpoint
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.state.next_index);
        self.mark.index_end.max(checkpoint)
    }

    /// Up to here a sync has succeeded: up to the mark, or to where the replay starts if that lies behind it. Both were written behind a sync
    /// of everything before them.
    pub(crate) fn certain_place(&self, start: Place) -> Place {
        let marked = Place {
            segment_first_index: self.mark.segment_first_index,
            position: self.mark.position,
        };
        marked.max(start)
    }

    /// The file of this segment must be there, with its header: it holds what is certain, or is the marked one.
    fn is_certain(&self, first_index: u64) -> bool {
        first_index < self.certain_end() || first_index == self.mark.segment_first_index
    }

    fn read_segments(&mut self, open: &OpenLog) -> Result<(), Error> {
        let OpenLog {
            dir, disk, identity, ..
        } = open;
        let mut names = disk.list(dir).map_err(|error| Error::io("list", dir, error))?;
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            let path = dir.join(name);
            disk.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
        self.finish_purge(open, &mut names)?;
        let mut last_good: Option<SegmentHeader> = None;
        for first_index in names.iter().filter_map(|name| segment_first_index(name)) {
            let assumed = assumed_header(open, first_index);
            if !self.beyond.is_empty() {
                self.beyond.insert(0, Segment::headless(dir, assumed));
                continue;
            }
            let header = match read_header(open, first_index) {
                Ok(header) if last_good.is_none_or(|last| last.is_before(&header)) => Ok(header),
                Ok(_) => Err(Error::damaged(
                    &segment_path(dir, first_index),
                    0,
                    first_index,
                    "its header does not follow on",
                )),
                Err(error) => Err(error),
            };
            match header {
                Ok(header) => {
                    last_good = Some(header);
                    self.segments.push(Segment::new(dir, header));
                }
                Err(error @ Error::Damaged { .. }) if self.is_certain(first_index) => {
                    tracing::error!(%error, identity = %identity, "a segment without a good header");
                    self.segments.push(Segment::headless(dir, assumed));
                }
                Err(Error::Damaged { .. }) => self.beyond.insert(0, Segment::headless(dir, assumed)),
                Err(error) => return Err(error),
            }
        }
        self.assume_headers(open);
        Ok(())
    }

    /// Lookups by offset and time go by headers, which must be in order: a headless segment is taken to begin where the one behind it does,
    /// so that whoever looks for something in it comes from the one before.
    fn assume_headers(&mut self, open: &OpenLog) {
        let mut behind = SegmentHeader {
            base_offset: u64::MAX,
            append_time_before_ms: u64::MAX,
            ..assumed_header(open, 0)
        };
        for segment in self.segments.iter_mut().rev() {
            if segment.headless {
                let header = SegmentHeader {
                    first_index: segment.header.first_index,
                    ..behind
                };
                *segment = Segment::headless(&open.dir, header);
            } else {
                behind = segment.header;
            }
        }
    }

    /// Finishes an interrupted purge: removes the segments that lie wholly below the floor, oldest first.
    fn finish_purge(&self, open: &OpenLog, names: &mut Vec<String>) -> Result<(), Error> {
        let OpenLog { dir, disk, .. } = open;
        let floor_end = self.floor_end();
        let first_indexes = names.iter().filter_map(|name| segment_first_index(name));
        let Some(kept) = first_indexes.filter(|first_index| *first_index <= floor_end).max() else {
            return Ok(());
        };
        let below = |name: &str| {
            let first_index = segment_first_index(&name.replace(".index", ".log"));
            first_index.is_some_and(|first_index| first_index < kept)
        };
        for path in names.iter().filter(|name| below(name)).map(|name| dir.join(name)) {
            tracing::info!(path = %path.display(), "removing what an interrupted purge left");
            disk.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
        names.retain(|name| !below(name));
        Ok(())
    }
}

fn assumed_header(open: &OpenLog, first_index: u64) -> SegmentHeader {
    SegmentHeader {
        cluster_id: open.identity.cluster_id,
        group_id: open.identity.group_id,
        first_index,
        base_offset: 0,
        term_before: 0,
        chain_before: 0,
        append_time_before_ms: 0,
    }
}

fn read_header(open: &OpenLog, first_index: u64) -> Result<SegmentHeader, Error> {
    let OpenLog {
        dir, identity, disk, ..
    } = open;
    let path = segment_path(dir, first_index);
    let file = disk.open(&path).map_err(|error| Error::io("open", &path, error))?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
    let count = file
        .read_at(&mut bytes, 0)
        .map_err(|error| Error::io("read", &path, error))?;
    let damaged = |why: String| Error::damaged(&path, 0, first_index, why);
    let header = SegmentHeader::decode(&bytes[..count]).map_err(|error| damaged(error.to_string()))?;
    let ours = (identity.cluster_id, identity.group_id, first_index);
    if (header.cluster_id, header.group_id, header.first_index) != ours {
        return Err(damaged("the header names another group or index".into()));
    }
    Ok(header)
}

/// Finishes an interrupted installation: the manifest is there, and the mark below the floor says that nothing else of it is certain.
fn begin_anew(open: &OpenLog, hard: &mut HardState, manifest: &Manifest) -> Result<(), Error> {
    let OpenLog { dir, disk, .. } = open;
    tracing::warn!(path = %dir.display(), floor = %manifest.last(), "the log begins anew behind its manifest");
    let names = disk.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let goes = |name: &&String| name.ends_with(".log") || name.ends_with(".index") || *name == CHECKPOINT;
    let removals = names
        .iter()
        .filter(goes)
        .map(|name| Op::Remove { path: dir.join(name) });
    let segment = Segment::new(dir, manifest.next_segment(&open.identity));
    let mark = Mark {
        segment_first_index: segment.header.first_index,
        position: SEGMENT_HEADER_BYTES,
        last_term: manifest.last().term,
        index_end: manifest.state.next_index,
        chain: manifest.state.chain,
        commit_end: manifest.state.next_index,
    };
    let mut ops: Vec<Op> = removals.collect();
    ops.extend([
        Op::Sync,
        Op::Create {
            file: segment.file.clone(),
            head: Bytes::from(segment.header.encode()),
        },
        Op::Sync,
        hard.set_mark(mark),
    ]);
    Round::new(&**disk, 0).run(vec![ops]).map(drop)
}
