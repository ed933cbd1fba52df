//! A disk for each node: a file system of its own in an image, so that its power can be cut.
//!
//! Images lie on a tmpfs where there is one: a real disk's speed is not what is tested, and hundreds of cuts cost
//! nothing there. What a cut took is measured with a **canary**: a file written and never synced just before. If it is
//! whole afterwards, nothing was cut, and the fault does not count. Another one, synced long before, must be whole.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::power::{self, Journal};
use super::tools::{self, has};

/// Size of an image; sparse, so it takes only what is written.
const IMAGE_BYTES: u64 = 4 << 30;
const CANARY_BYTES: usize = 64 * 1024;
const CANARY_BYTE: u8 = 0xca;
const SYNCED: &str = "canary-synced";
const BALLAST: &str = "ballast";
const UNSYNCED: &str = "canary-unsynced";
/// How often a file system that is still in use is tried again.
const UNMOUNT_TRIES: usize = 100;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(20);

/// What a node's disk is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    /// Metadata may be newer than the data it tells of: after a cut, files end in zeros.
    Ext4Writeback,
    Xfs,
}

impl FileSystem {
    /// All, in the order in which nodes get them.
    pub(crate) const ALL: [Self; 3] = [Self::Ext4, Self::Ext4Writeback, Self::Xfs];

    pub(crate) fn maker(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4Writeback => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
        }
    }

    pub(crate) fn is_here(self) -> bool {
        has(self.maker())
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Ext4Writeback => "ext4 data=writeback",
            Self::Xfs => "xfs",
        })
    }
}

/// One node's disk. Unmounted when it is dropped.
#[derive(Debug)]
pub(crate) struct Image {
    file: PathBuf,
    mount: PathBuf,
    kind: FileSystem,
    mounted: bool,
}

impl Image {
    /// Makes and mounts an image.
    pub(crate) fn make(directory: &Path, name: &str, kind: FileSystem) -> Result<Self, String> {
        let mut image = Self {
            file: directory.join(format!("{name}.img")),
            mount: directory.join(format!("{name}.mount")),
            kind,
            mounted: false,
        };
        let cannot = |error: io::Error| format!("cannot make {}: {error}", image.file.display());
        fs::create_dir_all(&image.mount).map_err(cannot)?;
        let file = File::create(&image.file).map_err(cannot)?;
        file.set_len(IMAGE_BYTES).map_err(cannot)?;
        let quiet: &[&str] = match kind {
            // A small journal, and nothing left to be initialised later.
            FileSystem::Ext4 | FileSystem::Ext4Writeback => &["-q", "-F", "-E", "lazy_itable_init=0", "-J", "size=16"],
            FileSystem::Xfs => &["-q", "-f"],
        };
        tools::run(Command::new(kind.maker()).args(quiet).arg(&image.file))?;
        image.mount()?;
        let synced = image.mount.join(SYNCED);
        let written = write_canary(&synced).and_then(|()| {
            fs::create_dir(image.data_dir())?;
            File::open(&synced)?.sync_all()?;
            File::open(&image.mount)?.sync_all()
        });
        written.map_err(|error| format!("cannot prepare {}: {error}", image.mount.display()))?;
        Ok(image)
    }

    pub(crate) fn kind(&self) -> FileSystem {
        self.kind
    }

    /// Where the node keeps its data.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.mount.join("data")
    }

    fn mount(&mut self) -> Result<(), String> {
        let options = match self.kind {
            FileSystem::Ext4 | FileSystem::Xfs => "loop,noatime",
            FileSystem::Ext4Writeback => "loop,noatime,data=writeback",
        };
        tools::run(
            Command::new("mount")
                .args(["-o", options])
                .args([&self.file, &self.mount]),
        )?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        let mut result = Ok(());
        for _ in 0..UNMOUNT_TRIES {
            result = tools::run(Command::new("umount").arg(&self.mount));
            if result.is_ok() {
                self.mounted = false;
                return result;
            }
            sleep(UNMOUNT_PAUSE);
        }
        result
    }

    /// Writes the canary that a cut must take, and opens the root through which the power is cut.
    pub(crate) fn prepare_cut(&self) -> Result<PreparedCut, String> {
        let cannot = |error: io::Error| format!("cannot prepare a cut of {}: {error}", self.mount.display());
        write_canary(&self.mount.join(UNSYNCED)).map_err(cannot)?;
        Ok(PreparedCut {
            root: File::open(&self.mount).map_err(cannot)?,
        })
    }

    /// After a cut, once nothing uses the file system: power is back. Gives the bytes of the canary that are gone.
    pub(crate) fn restore(&mut self) -> Result<u64, String> {
        self.unmount()?;
        self.mount()?;
        let synced = good_bytes(&self.mount.join(SYNCED));
        if synced != CANARY_BYTES {
            return Err(format!(
                "{}: only {synced} of {CANARY_BYTES} synced bytes survived",
                self.mount.display()
            ));
        }
        let lost = CANARY_BYTES - good_bytes(&self.mount.join(UNSYNCED));
        let _ = fs::remove_file(self.mount.join(UNSYNCED));
        Ok(lost as u64)
    }

    /// Takes all room that is left; gives how much that was.
    pub(crate) fn fill(&self) -> Result<u64, String> {
        let cannot = |error: io::Error| format!("cannot fill {}: {error}", self.mount.display());
        let file = File::create(self.mount.join(BALLAST)).map_err(cannot)?;
        let mut filled = 0;
        let mut piece: u64 = 256 << 20;
        let mut is_full = false;
        // Once it is full, each smaller piece only once: what a node then gives up to live on is its own.
        while piece >= 4096 {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), filled, piece) {
                Ok(()) => filled += piece,
                Err(rustix::io::Errno::NOSPC) => is_full = true,
                Err(error) => return Err(cannot(error.into())),
            }
            piece /= if is_full { 2 } else { 1 };
        }
        Ok(filled)
    }

    /// Gives the room back, for good: a power cut right behind it must not bring the file back, and fill the disk for ever.
    pub(crate) fn empty(&self) -> Result<(), String> {
        let removed = fs::remove_file(self.mount.join(BALLAST));
        let certain = removed.and_then(|()| File::open(&self.mount)?.sync_all());
        certain.map_err(|error| format!("cannot give room back on {}: {error}", self.mount.display()))
    }

    /// Lets the kernel write back everything, as it does by itself now and then.
    pub(crate) fn write_back(&self) {
        if let Ok(root) = File::open(&self.mount) {
            let _ = rustix::fs::syncfs(&root);
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // Somebody is still in there; it goes away with the last user.
            let _ = tools::run(Command::new("umount").arg("--lazy").arg(&self.mount));
        }
        let _ = fs::remove_file(&self.file);
    }
}

/// Everything ready to pull the plug.
pub(crate) struct PreparedCut {
    root: File,
}

impl PreparedCut {
    pub(crate) fn cut(self, journal: Journal) -> io::Result<()> {
        power::cut(&self.root, journal)
    }
}

fn write_canary(path: &Path) -> io::Result<()> {
    File::create(path)?.write_all(&[CANARY_BYTE; CANARY_BYTES])
}

fn good_bytes(path: &Path) -> usize {
    let found = fs::read(path).unwrap_or_default();
    found.iter().filter(|byte| **byte == CANARY_BYTE).count()
}

/// Whether power can be cut here: one real cut of a small image. The error says what is missing.
pub(crate) fn try_cut(directory: &Path) -> Result<(), String> {
    for tool in ["mount", "umount", FileSystem::Ext4.maker()] {
        if !has(tool) {
            return Err(format!("{tool} is not installed"));
        }
    }
    if !rustix::process::geteuid().is_root() {
        return Err("only root may mount images".to_owned());
    }
    let mut image = Image::make(directory, "probe", FileSystem::Ext4)?;
    let cut = image.prepare_cut()?;
    cut.cut(Journal::Lost)
        .map_err(|error| format!("the kernel refuses: {error}"))?;
    match image.restore()? {
        0 => Err("a cut takes nothing away here".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn good<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
        result.unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn room_that_was_given_back_is_still_there_after_a_power_cut_right_behind_it() {
        let directory = good(tempfile::tempdir());
        if let Err(why) = try_cut(directory.path()) {
            eprintln!("SKIPPED: power cannot be cut here: {why}");
            return;
        }
        let mut image = good(Image::make(directory.path(), "full", FileSystem::Ext4));
        assert!(good(image.fill()) > IMAGE_BYTES / 2);
        image.write_back();
        good(image.empty());
        good(good(image.prepare_cut()).cut(Journal::Lost));
        good(image.restore());
        assert!(!image.mount.join(BALLAST).exists(), "the disk would be full for ever");
    }
}
