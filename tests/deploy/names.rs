//! The cluster's DNS: a file that every container sees as its `/etc/hosts`.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The size of the file, bytes: it is written in one piece, and never becomes shorter, so that nobody reads half of it.
const FILE_BYTES: usize = 4096;

/// Names and their addresses.
#[derive(Debug)]
pub(crate) struct Names {
    hosts: File,
    directory: PathBuf,
}

impl Names {
    /// Nobody is known yet.
    pub(crate) fn new(directory: &Path) -> Self {
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        };
        write("nsswitch.conf", "hosts: files\n");
        write("host.conf", "multi on\n");
        write("hosts", "");
        let path = directory.join("hosts");
        let hosts = File::options().write(true).open(&path);
        let mut names = Self {
            hosts: hosts.unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display())),
            directory: directory.to_owned(),
        };
        names.set(&[]);
        names
    }

    /// From now on these names are known, and no others.
    pub(crate) fn set(&mut self, known: &[(Ipv4Addr, String)]) {
        let lines = known.iter().map(|(address, name)| format!("{address} {name}\n"));
        let mut text = lines.collect::<String>().into_bytes();
        assert!(text.len() <= FILE_BYTES, "{} bytes of names", text.len());
        text.resize(FILE_BYTES, b'\n');
        let written = self
            .hosts
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.hosts.write_all(&text));
        written.unwrap_or_else(|error| panic!("cannot write names: {error}"));
    }

    /// The files that a container needs in `/etc`.
    pub(crate) fn files(&self) -> [(PathBuf, String); 3] {
        ["hosts", "host.conf", "nsswitch.conf"].map(|name| (self.directory.join(name), format!("/etc/{name}")))
    }
}
