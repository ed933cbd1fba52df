//! A container: a process that sees its volumes at their paths, everything else read-only, as a user without rights.
//!
//! It is made of a mount namespace, which needs a Linux that lets us have one. As root we also become the container's user; otherwise
//! we stay who we are, in a user namespace.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use highwater_tests::binary;
use serde_json::Value;

use crate::manifest::{items, number, text};

/// Where programs are looked for; the image has ours in the first of them.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const PROGRAM: &str = "/usr/local/bin/highwater";

/// Something of ours at a path of the container.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) is_read_only: bool,
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
}

/// Whether this machine lets us have containers.
pub(crate) fn is_possible() -> bool {
    let tried = unshare()
        .args(["sh", "-c", "mount -t tmpfs tmpfs /etc && setpriv --pdeathsig KILL true"])
        .output();
    tried.is_ok_and(|output| output.status.success())
}

/// A process in a container: `arguments` with `environment` and nothing else, confined as the pod and the container say.
pub(crate) fn command(
    (pod, container): (&Value, &Value),
    mounts: &[Mount],
    environment: &[(String, String)],
    arguments: &[String],
) -> Command {
    let mut command = unshare();
    let script = script(mounts, is_confined(container));
    command
        .args(["sh", "-c", &script, "sh"])
        .args(privileges(pod, container))
        .arg("--")
        .args(arguments);
    command.env_clear().env("PATH", PATH);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

fn is_confined(container: &Value) -> bool {
    container["securityContext"]["readOnlyRootFilesystem"] == true
}

/// Puts everything in its place, and becomes the process that is given to it.
fn script(mounts: &[Mount], is_root_read_only: bool) -> String {
    let program = Mount {
        source: binary(),
        target: PROGRAM.to_owned(),
        is_read_only: true,
    };
    let mounts: Vec<&Mount> = mounts.iter().chain([&program]).collect();
    let covers: BTreeSet<PathBuf> = mounts.iter().map(|mount| cover(mount)).collect();
    let mut lines = vec!["set -e".to_owned()];
    lines.extend(
        covers
            .iter()
            .map(|cover| format!("mount -t tmpfs tmpfs {}", quoted(cover))),
    );
    lines.extend(mounts.iter().map(|mount| bind(mount)));
    if is_root_read_only {
        let covered = covers.iter().map(PathBuf::as_path).chain([Path::new("/")]);
        lines.extend(covered.map(|path| format!("mount -o remount,bind,ro {}", quoted(path))));
    }
    lines.push("exec setpriv \"$@\"".to_owned());
    lines.join("\n")
}

/// The deepest directory of this machine above the mount's path: it is covered, so that paths can be made below it.
fn cover(mount: &Mount) -> PathBuf {
    let above = Path::new(&mount.target).ancestors().skip(1).find(|path| path.is_dir());
    let above = above.filter(|path| path.parent().is_some() && !mount.source.starts_with(path));
    let Some(above) = above else {
        panic!("{} cannot be had for {}", mount.target, mount.source.display());
    };
    above.to_owned()
}

fn bind(mount: &Mount) -> String {
    let (source, target) = (quoted(&mount.source), quoted(Path::new(&mount.target)));
    let place = match mount.source.is_dir() {
        true => format!("mkdir -p {target}"),
        false => format!("mkdir -p $(dirname {target}) && touch {target}"),
    };
    let read_only = match mount.is_read_only {
        true => format!(" && mount -o remount,bind,ro {target}"),
        false => String::new(),
    };
    format!("{place} && mount --bind {source} {target}{read_only}")
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Arguments of `setpriv`. The process must not outlive the test, however the test ends.
fn privileges(pod: &Value, container: &Value) -> Vec<String> {
    let mut arguments = vec!["--pdeathsig=KILL".to_owned()];
    let (ours, own) = (&pod["securityContext"], &container["securityContext"]);
    if own["allowPrivilegeEscalation"] == false {
        arguments.push("--no-new-privs".to_owned());
    }
    if items(&own["capabilities"]["drop"]).any(|dropped| text(dropped) == "ALL") {
        arguments.extend(["--inh-caps=-all", "--bounding-set=-all"].map(str::to_owned));
    }
    if is_root() {
        arguments.push(format!("--reuid={}", number(&ours["runAsUser"])));
        arguments.push(format!("--regid={}", number(&ours["runAsGroup"])));
        arguments.push(format!("--groups={}", number(&ours["fsGroup"])));
    }
    arguments
}
