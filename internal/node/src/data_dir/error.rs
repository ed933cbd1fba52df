//! What can be wrong with a data directory.

use std::path::{Path, PathBuf};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("data directory {path} is in use by another process", path = path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// It belongs to another node or another cluster.
    #[error("data directory {path} belongs to {what} `{found}`, not to `{wanted}`", path = path.display())]
    Foreign {
        /// The data directory.
        path: PathBuf,
        /// `node`, `cluster` or `cluster id`.
        what: &'static str,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// It has no identity of ours, and it is not empty.
    #[error("{path} is not a data directory, and not empty: it holds `{found}`", path = path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// A file in it is not what this version writes, or is damaged.
    #[error("{path}: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system refused an operation.
    #[error("cannot {operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: `create`, `write`, …
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl DataDirError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        DataDirError::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    /// What a person can do about it, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            DataDirError::InUse { .. } => "end the other process, or give this node its own `data_dir`",
            DataDirError::Foreign { .. } => "point `data_dir` at this node's own directory, or at an empty one",
            DataDirError::NotOurs { .. } => {
                "check `data_dir`: a new node needs a directory that is empty, or that does not exist yet"
            }
            DataDirError::Damaged { .. } => {
                "restore the file, or give the node an empty directory: the other nodes hold its data"
            }
            DataDirError::Io { .. } => "check that the path exists, is writable by this user, and has space",
        }
    }
}
