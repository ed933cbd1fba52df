//! `backup.json`: what a backup holds, but for the records themselves.
//!
//! It is written last, in one step, when all files of records are on the disk. So a directory without it is no backup, or one that did not
//! come to its end. Its first line carries the SHA-256 of everything behind that line, and it names the SHA-256 of each file of records; so
//! one number vouches for the whole backup.
//!
//! Paths are made from names of tenants and topics, which are checked first: a manifest cannot lead out of its directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use highwater::proto::v1;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::format::VERSION;
use crate::exit::{Code, Failure, Result};
use crate::files::{self, Access};
use crate::names;
use crate::tenant::quota;

/// The file's name.
const FILE: &str = "backup.json";
/// The directory of the files of records.
const RECORDS: &str = "records";
/// What the file says that it is.
const FORMAT: &str = "highwater backup";
/// The largest file that is written and read, bytes.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// What a partition takes in it at most, bytes.
const PARTITION_BYTES_MAX: u64 = 300;
/// What stands before and behind the checksum in the first line.
const SEAL: (&[u8], &[u8]) = (b"{ \"sha256\": \"", b"\",\n");

/// All that a backup holds, but for the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: String,
    pub(super) version: u32,
    /// The version of the program that made it.
    pub(super) made_by: String,
    pub(super) cluster_name: String,
    pub(super) cluster_id: String,
    /// Milliseconds since 1970-01-01 UTC, by the clock of the machine that made it.
    pub(super) begun_ms: u64,
    pub(super) ended_ms: u64,
    /// Rules and grants that are about no tenant below; `None` if only some tenants or topics were asked for.
    pub(super) cluster_policy: Option<Policy>,
    pub(super) tenants: Vec<Tenant>,
    pub(super) topics: Vec<Topic>,
}

/// Rules and grants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) rules: Vec<Rule>,
    pub(super) grants: Vec<Grant>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) subject: String,
    pub(super) domain: String,
    pub(super) resource: String,
    pub(super) action: String,
    pub(super) deny: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pub(super) client: String,
    pub(super) role: String,
    pub(super) domain: String,
}

/// Limits by their names; what is absent is not limited.
pub(super) type Quota = BTreeMap<String, u64>;

/// A tenant, and the rules and grants that count in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tenant {
    pub(super) name: String,
    pub(super) suspended: bool,
    pub(super) quota: Quota,
    /// The quotas of its clients, `*` among them.
    pub(super) client_quotas: BTreeMap<String, Quota>,
    pub(super) policy: Policy,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Topic {
    pub(super) tenant: String,
    pub(super) name: String,
    pub(super) replication: u32,
    pub(super) retention_ms: Option<u64>,
    pub(super) retention_bytes: Option<u64>,
    pub(super) leader_rack: String,
    pub(super) partitions: Vec<Partition>,
    pub(super) groups: Vec<GroupOffset>,
}

/// The records of a partition, and the file that holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Partition {
    pub(super) partition: u32,
    pub(super) first_offset: u64,
    /// Exclusive.
    pub(super) end_offset: u64,
    pub(super) file_bytes: u64,
    pub(super) sha256: String,
}

/// How far a consumer group had come on a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupOffset {
    pub(super) group: String,
    pub(super) partition: u32,
    /// The next offset to consume.
    pub(super) offset: u64,
}

impl Partition {
    /// How many records there are.
    pub(super) fn count(&self) -> u64 {
        self.end_offset.saturating_sub(self.first_offset)
    }

    /// Where a record of this offset lies in a partition that begins with the first of them.
    pub(super) fn place_of(&self, offset: u64) -> u64 {
        offset.clamp(self.first_offset, self.end_offset) - self.first_offset
    }
}

impl Topic {
    /// `tenant/topic`, as clients of any tenant name it.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }

    pub(super) fn count(&self) -> u64 {
        self.partitions
            .iter()
            .map(Partition::count)
            .fold(0, u64::saturating_add)
    }
}

/// What a new one says of itself.
pub(super) fn new(cluster: (String, String), begun_ms: u64) -> Manifest {
    Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_name: cluster.0,
        cluster_id: cluster.1,
        begun_ms,
        ended_ms: begun_ms,
        cluster_policy: None,
        tenants: Vec::new(),
        topics: Vec::new(),
    }
}

/// The file of a partition's records.
pub(super) fn file(directory: &Path, tenant: &str, topic: &str, partition: u32) -> PathBuf {
    topic_directory(directory, tenant, topic).join(format!("{partition:05}"))
}

/// The directory of a topic's files.
pub(super) fn topic_directory(directory: &Path, tenant: &str, topic: &str) -> PathBuf {
    records_directory(directory).join(tenant).join(topic)
}

/// The directory of all files of records.
pub(super) fn records_directory(directory: &Path) -> PathBuf {
    directory.join(RECORDS)
}

impl Manifest {
    /// Writes it in one step; the backup is whole from then on.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let text = sealed(&self.text()?);
        check_bytes(text.len() as u64, BYTES_MAX)?;
        let written = files::replace(&directory.join(FILE), &text, Access::Private);
        written.map_err(|failure| {
            let failure = Failure {
                code: Code::Failure,
                ..failure
            };
            failure.hint("see that there is room, remove the unfinished backup, and begin anew")
        })
    }

    /// Refuses what could not be read again, before the records of so many partitions are copied.
    pub(super) fn check_room(&self, partitions: usize) -> Result<()> {
        let known = self.text()?.len() as u64;
        check_bytes(known + partitions as u64 * PARTITION_BYTES_MAX, BYTES_MAX)
    }

    fn text(&self) -> Result<Vec<u8>> {
        let text = serde_json::to_vec_pretty(self);
        text.map_err(|error| Failure::new(Code::Failure, format!("cannot write {FILE}: {error}")))
    }

    /// Reads it, and checks all but the files that it names.
    pub(super) fn read(directory: &Path) -> Result<Manifest> {
        let path = directory.join(FILE);
        let refused = |why: String| Failure::new(Code::Refused, format!("{}: {why}", path.display()));
        let text = read_limited(&path)?;
        let text = unsealed(&text).map_err(refused)?;
        let version: Version = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
        if version.format != FORMAT {
            return Err(refused(format!("it is {:?}, and not a {FORMAT}", version.format)));
        }
        if version.version != VERSION {
            let why = format!(
                "the backup is of version {} of the format (made by highwater {}), and this program knows {VERSION}",
                version.version, version.made_by
            );
            return Err(refused(why).hint("use a program of that version"));
        }
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
        manifest.check().map_err(refused)?;
        Ok(manifest)
    }

    /// What nobody who made it with this program would have written.
    fn check(&self) -> std::result::Result<(), String> {
        for tenant in &self.tenants {
            check_name("tenant", &tenant.name)?;
            for quota in tenant.client_quotas.values().chain([&tenant.quota]) {
                let unknown = |name: &str| format!("it limits {name}, which this program does not know");
                quota::from_names(quota).map_err(unknown)?;
            }
        }
        for topic in &self.topics {
            check_name("tenant", &topic.tenant)?;
            check_name("topic", &topic.name)?;
            let numbered = (0..).zip(&topic.partitions);
            for (number, partition) in numbered {
                if partition.partition != number || partition.first_offset > partition.end_offset {
                    return Err(format!(
                        "partition {number} of {} is not as it could be",
                        topic.full_name()
                    ));
                }
            }
            let count = topic.partitions.len();
            if let Some(other) = topic.groups.iter().find(|on| on.partition as usize >= count) {
                let (group, name) = (&other.group, topic.full_name());
                return Err(format!(
                    "group {group} is on partition {} of {name}, which has {count}",
                    other.partition
                ));
            }
        }
        Ok(())
    }
}

/// What every version has.
#[derive(Debug, Deserialize)]
struct Version {
    format: String,
    version: u32,
    #[serde(default)]
    made_by: String,
}

fn check_bytes(bytes: u64, most: u64) -> Result<()> {
    if bytes <= most {
        return Ok(());
    }
    let message = format!("{FILE} would have {bytes} bytes, and at most {most} are read again");
    Err(Failure::new(Code::Refused, message).hint("make several backups, of some tenants or topics each"))
}

fn check_name(what: &str, name: &str) -> std::result::Result<(), String> {
    names::wrong(name).map_or(Ok(()), |why| Err(format!("{what} {name:?} is not a valid name: {why}")))
}

fn read_limited(path: &Path) -> Result<Vec<u8>> {
    let failure = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => no_backup(path),
        _ => Failure::setup(format!("cannot read {}: {error}", path.display())),
    };
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(failure)?;
    file.take(BYTES_MAX + 1).read_to_end(&mut text).map_err(failure)?;
    if text.len() as u64 > BYTES_MAX {
        let why = format!("{} is larger than {BYTES_MAX} bytes", path.display());
        return Err(Failure::new(Code::Refused, why));
    }
    Ok(text)
}

fn no_backup(path: &Path) -> Failure {
    let directory = path.parent().unwrap_or(path);
    let name = directory.display();
    if records_directory(directory).is_dir() {
        let message =
            format!("{name} is a backup that did not come to its end: it has no {FILE}, which is written last");
        return Failure::new(Code::Refused, message).hint("remove it, and make the backup anew");
    }
    let failure = Failure::new(
        Code::NotFound,
        format!("there is no backup in {name}: it has no {FILE}"),
    );
    failure.hint("give the directory that `highwater backup` was given")
}

/// A document with its checksum in a first line of its own, so that it stays JSON.
fn sealed(text: &[u8]) -> Vec<u8> {
    let body = text.strip_prefix(b"{\n").unwrap_or(text);
    [SEAL.0, hex(&Sha256::digest(body)).as_bytes(), SEAL.1, body].concat()
}

/// The document without the checksum, if that is right.
fn unsealed(text: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let seal_bytes = SEAL.0.len() + 2 * <Sha256 as Digest>::output_size() + SEAL.1.len();
    let (line, body) = text.split_at_checked(seal_bytes).ok_or("it ends too early")?;
    let stored = line.strip_prefix(SEAL.0).and_then(|rest| rest.strip_suffix(SEAL.1));
    let stored = stored.ok_or("it does not begin with its checksum")?;
    let found = hex(&Sha256::digest(body));
    if found.as_bytes() != stored {
        let stored = String::from_utf8_lossy(stored);
        return Err(format!(
            "its SHA-256 is {found}, and {stored} stands in its first line: it was changed"
        ));
    }
    Ok([b"{\n", body].concat())
}

/// Bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl From<v1::Rule> for Rule {
    fn from(rule: v1::Rule) -> Rule {
        Rule {
            subject: rule.subject,
            domain: rule.domain,
            resource: rule.resource,
            action: rule.action,
            deny: rule.deny,
        }
    }
}

impl From<Rule> for v1::Rule {
    fn from(rule: Rule) -> v1::Rule {
        v1::Rule {
            subject: rule.subject,
            domain: rule.domain,
            resource: rule.resource,
            action: rule.action,
            deny: rule.deny,
        }
    }
}

impl From<v1::Grant> for Grant {
    fn from(grant: v1::Grant) -> Grant {
        Grant {
            client: grant.client,
            role: grant.role,
            domain: grant.domain,
        }
    }
}

impl From<Grant> for v1::Grant {
    fn from(grant: Grant) -> v1::Grant {
        v1::Grant {
            client: grant.client,
            role: grant.role,
            domain: grant.domain,
        }
    }
}

#[cfg(test)]
mod tests;
