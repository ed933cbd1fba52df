//! The data directory of a development cluster.
//!
//! ```text
//! highwater-dev/
//!   lock            held while a `highwater dev` runs
//!   dev.toml        the nodes and their ports, so that a restart finds the same cluster
//!   profile.toml    for clients
//!   certs/          the authority, a certificate for each node, one for the client
//!   n1/ n2/ n3/     data directories of the nodes
//!   logs/           what each node said since the last start, and `.old` since the one before
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ports;
use crate::certificates::{Authority, CA_CERTIFICATE, Subject, Validity};
use crate::exit::{Failure, Result};
use crate::files::{self, Access};
use crate::output;

/// The name of every development cluster.
pub(super) const CLUSTER: &str = "dev";
/// The tenant and name of the client that the profile is for.
const TENANT: &str = "dev";
const CLIENT: &str = "cli";
/// Development certificates outlive any experiment.
const CERTIFICATE_DAYS: u32 = 3650;
/// The most nodes that one machine is asked to run.
pub(super) const NODES_MAX: u32 = 9;
const NODES_DEFAULT: u32 = 3;

/// One node as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodePlace {
    pub(super) name: String,
    pub(super) port: u16,
    /// Of its console; 0: none was chosen yet.
    #[serde(default)]
    pub(super) console_port: u16,
}

impl NodePlace {
    /// Where the node listens and is reached.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where its admin listener is.
    pub(super) fn console(&self) -> String {
        format!("127.0.0.1:{}", self.console_port)
    }
}

/// What `dev.toml` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    nodes: Vec<NodePlace>,
}

/// A locked, complete data directory.
pub(super) struct Layout {
    directory: PathBuf,
    nodes: Vec<NodePlace>,
    /// Held for as long as the cluster runs.
    _lock: File,
}

impl Layout {
    /// Takes the directory, and makes in it whatever is missing.
    pub(super) fn open(directory: &Path, nodes: Option<u32>, port: Option<u16>) -> Result<Self> {
        files::make_directory(directory)?;
        let directory = fs::canonicalize(directory)
            .map_err(|error| Failure::setup(format!("cannot use {}: {error}", directory.display())))?;
        let lock = lock(&directory)?;
        let remembered = directory.join("dev.toml");
        let nodes = match remembered.exists() {
            true => restore(&remembered, nodes, port)?,
            false => plan(nodes, port)?,
        };
        let layout = Self {
            directory,
            nodes,
            _lock: lock,
        };
        layout.make_certificates()?;
        files::make_directory(&layout.logs())?;
        write_toml(
            &remembered,
            &Remembered {
                nodes: layout.nodes.clone(),
            },
        )?;
        layout.write_profile()?;
        Ok(layout)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn nodes(&self) -> &[NodePlace] {
        &self.nodes
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(NodePlace::address).collect()
    }

    pub(super) fn profile(&self) -> PathBuf {
        self.directory.join("profile.toml")
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.certificates().join(CA_CERTIFICATE)
    }

    /// Certificate and key of a node.
    pub(super) fn node_pair(&self, name: &str) -> (PathBuf, PathBuf) {
        self.pair(&node_subject(name))
    }

    /// Certificate and key of the client.
    pub(super) fn client_pair(&self) -> (PathBuf, PathBuf) {
        self.pair(&client_subject())
    }

    pub(super) fn node_directory(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the nodes' logs are.
    pub(super) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    pub(super) fn log_path(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// The client of the profile, as nodes are told of their operators.
    pub(super) fn operator() -> String {
        format!("{TENANT}/{CLIENT}")
    }

    /// Names of the founding nodes: as many as the catalog may have voters.
    pub(super) fn bootstrap(&self) -> Vec<String> {
        let voters = match self.nodes.len() {
            0..=2 => 1,
            3..=4 => 3,
            _ => 5,
        };
        self.nodes.iter().take(voters).map(|node| node.name.clone()).collect()
    }

    fn certificates(&self) -> PathBuf {
        self.directory.join("certs")
    }

    fn pair(&self, subject: &Subject) -> (PathBuf, PathBuf) {
        let stem = self.certificates().join(subject.file_stem());
        let with = |extension: &str| PathBuf::from(format!("{}.{extension}", stem.display()));
        (with("pem"), with("key"))
    }

    /// Makes what is missing, so that a start that was interrupted is completed by the next one.
    fn make_certificates(&self) -> Result<()> {
        let directory = self.certificates();
        let validity = Validity::days(CERTIFICATE_DAYS);
        let authority = if self.ca().exists() {
            Authority::load(&directory)?
        } else {
            let (authority, pair) = Authority::create(CLUSTER, validity)?;
            pair.write(&directory, "ca", true)?;
            authority
        };
        let nodes = self.nodes.iter().map(|node| node_subject(&node.name));
        for subject in nodes.chain([client_subject()]) {
            // The key is written first, so that a certificate always has one.
            if !self.pair(&subject).0.exists() {
                authority
                    .issue(&subject, validity)?
                    .write(&directory, &subject.file_stem(), true)?;
            }
        }
        Ok(())
    }

    /// Paths in a profile are relative to it, so that the directory can be moved.
    fn write_profile(&self) -> Result<()> {
        let relative = |path: PathBuf| {
            path.strip_prefix(&self.directory)
                .map_or(path.clone(), Path::to_path_buf)
        };
        let (cert, key) = self.client_pair();
        let profile = Profile {
            addresses: self.addresses(),
            ca: relative(self.ca()),
            cert: relative(cert),
            key: relative(key),
        };
        write_toml(&self.profile(), &profile)
    }
}

/// A client profile as it is written.
#[derive(Serialize)]
struct Profile {
    addresses: Vec<String>,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

fn node_subject(name: &str) -> Subject {
    Subject::Node {
        name: name.to_owned(),
        dns: Vec::new(),
        addresses: Vec::new(),
    }
}

fn client_subject() -> Subject {
    Subject::Client {
        tenant: TENANT.to_owned(),
        name: CLIENT.to_owned(),
    }
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("lock");
    let failure = |error: std::io::Error| Failure::setup(format!("cannot lock {}: {error}", path.display()));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failure)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::setup(format!(
            "{} is in use by another `highwater dev`",
            directory.display()
        ))
        .hint("use that cluster, stop it, or give another --data-dir")),
        Err(TryLockError::Error(error)) => Err(failure(error)),
    }
}

fn write_toml(path: &Path, value: &impl Serialize) -> Result<()> {
    let text =
        toml::to_string(value).map_err(|error| Failure::setup(format!("cannot write {}: {error}", path.display())))?;
    files::replace(path, text.as_bytes(), Access::Public)
}

fn plan(nodes: Option<u32>, port: Option<u16>) -> Result<Vec<NodePlace>> {
    let count = nodes.unwrap_or(NODES_DEFAULT);
    let ports = ports::choose(count, port)?;
    let consoles = ports::beside(&ports)?;
    let places = ports.into_iter().zip(consoles).zip(1..);
    let places = places.map(|((port, console_port), number)| NodePlace {
        name: format!("n{number}"),
        port,
        console_port,
    });
    Ok(places.collect())
}

fn restore(path: &Path, nodes: Option<u32>, port: Option<u16>) -> Result<Vec<NodePlace>> {
    let remembered: Remembered = match fs::read_to_string(path) {
        Ok(text) => files::parse_toml(&text).map_err(|error| {
            Failure::setup(format!("cannot understand {}: {error}", path.display()))
                .hint("mend it, or give another --data-dir")
        })?,
        Err(error) if error.kind() == ErrorKind::NotFound => return plan(nodes, port),
        Err(error) => return Err(Failure::setup(format!("cannot read {}: {error}", path.display()))),
    };
    let mut places = remembered.nodes;
    if let Some(wanted) = nodes.filter(|wanted| *wanted as usize != places.len()) {
        return Err(Failure::setup(format!(
            "the cluster in this directory has {} nodes, not {wanted}",
            places.len()
        ))
        .hint("leave out --nodes, or give another --data-dir"));
    }
    if let Some(first) = port {
        let ports = ports::choose(places.len() as u32, Some(first))?;
        places.iter_mut().zip(ports).for_each(|(place, port)| place.port = port);
        choose_consoles(&mut places, false)?;
        return Ok(places);
    }
    let wanted: Vec<u16> = places.iter().map(|place| place.port).collect();
    for (place, port) in places.iter_mut().zip(ports::keep_or_replace(&wanted)?) {
        if place.port != port {
            output::note(format!(
                "Port {} is taken: {} moves to port {port}.",
                place.port, place.name
            ));
            place.port = port;
        }
    }
    choose_consoles(&mut places, true)?;
    Ok(places)
}

/// Ports for consoles, those of the last run if they can be kept. They may move in silence: nobody has written them down.
fn choose_consoles(places: &mut [NodePlace], keep: bool) -> Result<()> {
    let (ports, former): (Vec<u16>, Vec<u16>) = places.iter().map(|place| (place.port, place.console_port)).unzip();
    let can_be_kept = keep && !former.contains(&0) && !former.iter().any(|port| ports.contains(port));
    let consoles = match can_be_kept {
        true => ports::keep_or_replace(&former)?,
        false => ports::beside(&ports)?,
    };
    places
        .iter_mut()
        .zip(consoles)
        .for_each(|(place, port)| place.console_port = port);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn open(directory: &Path, nodes: Option<u32>) -> Result<Layout> {
        Layout::open(directory, nodes, Some(0))
    }

    #[test]
    fn a_restart_finds_the_same_nodes_and_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), None).unwrap();
        let (cert, _) = first.client_pair();
        let before = (first.nodes().to_vec(), fs::read(&cert).unwrap());
        drop(first);
        let second = Layout::open(directory.path(), None, None).unwrap();
        assert_eq!(before, (second.nodes().to_vec(), fs::read(&cert).unwrap()));
    }

    #[test]
    fn two_at_once_on_one_directory_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _first = open(directory.path(), None).unwrap();
        let failure = open(directory.path(), None).err().unwrap();
        assert!(failure.message.contains("in use by another"), "{failure}");
    }

    #[test]
    fn another_number_of_nodes_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path(), Some(1)).unwrap());
        let failure = open(directory.path(), Some(3)).err().unwrap();
        assert!(failure.message.contains("has 1 nodes, not 3"), "{failure}");
    }

    #[test]
    fn a_taken_port_is_replaced_and_the_profile_follows() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), Some(1)).unwrap();
        let taken = first.nodes()[0].port;
        drop(first);
        let _squatter = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
        let second = Layout::open(directory.path(), None, None).unwrap();
        assert_ne!(second.nodes()[0].port, taken);
        let profile = fs::read_to_string(second.profile()).unwrap();
        assert!(profile.contains(&second.nodes()[0].address()), "{profile}");
        assert!(profile.contains("certs/ca.pem") && !profile.contains(second.directory().to_str().unwrap()));
    }

    #[test]
    fn an_interrupted_first_start_is_completed() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), None).unwrap();
        let (cert, key) = first.node_pair("n2");
        drop(first);
        fs::remove_file(&cert).unwrap();
        let second = open(directory.path(), None).unwrap();
        assert!(second.node_pair("n2").0.exists() && key.exists());
    }
}
