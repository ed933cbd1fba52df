//! The border to the disk. Everything the log does to files goes through [`Disk`] and [`DiskFile`], so that a simulated disk can
//! lose, tear and fail what a real one may lose, tear and fail.
//!
//! The contract is that of a POSIX file system: a write or a change of a directory is certain only after the sync of that file
//! or that directory; until then a crash may keep any part of it. A failed sync leaves the file's state unknown.

mod real;
pub mod simulated;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub use real::RealDisk;

/// An open file. All methods may be called from any thread.
pub trait DiskFile: Send + Sync {
    /// Reads at `position` until `buffer` is full or the file ends; returns the bytes read.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Reads so many bytes at `position`, fewer if the file ends before.
    fn read(&self, bytes: usize, position: u64) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        let count = self.read_at(&mut buffer, position)?;
        buffer.truncate(count);
        Ok(buffer)
    }
    /// Writes all parts one behind the other, starting at `position`; the file grows as needed.
    fn write_at(&self, parts: &[Bytes], position: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// The file's length, bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Gives an empty file so much room that writes within it find it, with zeros.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        write_zeros(self, bytes)
    }
    /// Returns when data and length are on stable storage.
    fn sync(&self) -> io::Result<()>;
}

/// A file system.
pub trait Disk: Send + Sync {
    /// Makes a new file; it must not exist.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory; it must not exist, its parent must.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Returns when the directory's entries are on stable storage.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Room that is left on the disk on which this directory lies, bytes. A disk that cannot tell has no end of it.
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    /// Size of that disk, bytes.
    fn total_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    /// Opens an existing file for reading only.
    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }
}

fn write_zeros(file: &(impl DiskFile + ?Sized), bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut position = 0;
    while position < bytes {
        let count = ZEROS.len().min(usize::try_from(bytes - position).unwrap_or(usize::MAX));
        file.write_at(&[Bytes::from_static(&ZEROS[..count])], position)?;
        position += count as u64;
    }
    Ok(())
}
