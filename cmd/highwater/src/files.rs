//! Writing small files so that a crash leaves the old one or the new one, and never a readable private key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::exit::{Failure, Result};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The owner only: private keys.
    Private,
    /// Everybody.
    Public,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// Makes `path` a directory that only the owner may enter; one that exists is left as it is.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| {
            let failure = |why: String| Failure::setup(format!("cannot make the directory {}: {why}", path.display()));
            match error.kind() {
                ErrorKind::AlreadyExists => failure("it exists and is not a directory".to_owned()),
                _ => failure(error.to_string()),
            }
            .hint("check the path and who may write there, or give another directory")
        })
}

/// Reads a whole text file; `what` names it in the failure.
pub(crate) fn read_text(what: &str, path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Failure::setup(format!("cannot read {what} {}: {error}", path.display())))
}

/// The user who may do everything anyway.
const ROOT: u32 = 0;

/// The rights to a key that somebody else would have by this mode. Root may let a group read its file: so a container that runs as another
/// user is given one (`fsGroup` in Kubernetes).
fn foreign_rights(mode: u32, owner: u32, own: u32) -> u32 {
    const GROUP_READS: u32 = 0o040;
    const OTHERS: u32 = 0o077;
    let is_lent = owner == ROOT && own != ROOT;
    mode & if is_lent { OTHERS & !GROUP_READS } else { OTHERS }
}

/// Refuses a private key that somebody else could have read, or could replace. One that is not there is for others to
/// complain of.
pub(crate) fn check_key(path: &Path) -> Result<()> {
    let Ok(metadata) = fs::metadata(path) else {
        return Ok(());
    };
    let (mode, owner, name) = (metadata.mode() & 0o777, metadata.uid(), path.display());
    let own = rustix::process::geteuid().as_raw();
    if foreign_rights(mode, owner, own) != 0 {
        let why = format!(
            "others than its owner may use the private key {name}, its mode is {mode:o}; `chmod 600 {name}` mends that"
        );
        return Err(Failure::setup(why));
    }
    if owner != own && owner != ROOT {
        let why = format!(
            "the private key {name} belongs to user {owner}, but this is user {own}; `chown {own} {name}` mends that"
        );
        return Err(Failure::setup(why));
    }
    Ok(())
}

/// Understands a TOML text; the error says in one line what is wrong, and where.
pub(crate) fn parse_toml<T: DeserializeOwned>(text: &str) -> std::result::Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
            return error.message().to_owned();
        };
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
        format!("line {line}, column {column}: {}", error.message())
    })
}

/// Writes `bytes` to `path` in one step: aside, synced, renamed.
pub(crate) fn replace(path: &Path, bytes: &[u8], access: Access) -> Result<()> {
    let failure = |error: io::Error| Failure::setup(format!("cannot write {}: {error}", path.display()));
    let aside = aside(path);
    write_synced(&aside, bytes, access).map_err(failure)?;
    fs::rename(&aside, path).map_err(failure)?;
    sync_directory(path).map_err(failure)
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn write_synced(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    // A leftover of a crash could have other permissions, so the file is always made anew.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(access.mode())
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert!(check_key(&path).is_ok(), "whoever reads it says that it is not there");
        replace(&path, b"key", Access::Private).unwrap();
        check_key(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let failure = check_key(&path).unwrap_err();
        assert!(failure.message.contains("640"), "{failure}");
    }

    #[test]
    fn a_private_file_is_private_even_over_a_leftover() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(aside(&path), "leftover").unwrap();
        fs::write(&path, "old").unwrap();
        replace(&path, b"new", Access::Private).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!aside(&path).exists());
    }
}
