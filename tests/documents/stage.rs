//! Where the script of a page is run, and what is judged of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use highwater_tests::{ReservedPort, binary};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::page::{Page, Step};
use crate::script::{note, script};
use crate::{PATIENCE, prints};

/// Programs beside those of every system, which a page may use if the machine has them.
const TOOLS: [&str; 3] = ["curl", "openssl", "jq"];
/// How often it is looked whether the script has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How much of what a step printed is shown if it fails.
const LINES_SHOWN: usize = 30;

/// A directory for one page.
struct Stage {
    directory: TempDir,
    ports: [ReservedPort; 2],
}

impl Stage {
    fn new() -> std::io::Result<Self> {
        let stage = Self {
            directory: tempfile::tempdir()?,
            ports: [ReservedPort::take(), ReservedPort::take()],
        };
        for directory in [stage.here(), stage.notes(), stage.programs()] {
            fs::create_dir(directory)?;
        }
        symlink(binary(), stage.programs().join("highwater"))?;
        Ok(stage)
    }

    /// Where the commands are given.
    fn here(&self) -> PathBuf {
        self.directory.path().join("here")
    }

    /// What each step printed.
    fn notes(&self) -> PathBuf {
        self.directory.path().join("notes")
    }

    fn programs(&self) -> PathBuf {
        self.directory.path().join("bin")
    }

    /// The shell that runs a script, with nothing of our own environment that could change what the commands do.
    fn shell(&self, script: &Path) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let [port, admin_port] = self.ports.each_ref().map(|port| port.number().to_string());
        let mut shell = Command::new("bash");
        shell
            .arg(script)
            .env_clear()
            .env("PATH", format!("{}:{path}", self.programs().display()))
            .env("HOME", self.here())
            .env("NOTES", self.notes())
            .env("PORT", port)
            .env("ADMIN_PORT", admin_port)
            .current_dir(self.here())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        shell
    }
}

/// A shell and whatever it has started, all of which ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            // There is nobody left in it if all went well.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// What each step of a page printed, the step with it.
pub(crate) type Printed<'a> = Vec<(&'a Step, String)>;

/// Runs a page, unless the machine lacks something that it needs.
///
/// # Errors
/// With the line: what failed, or printed something else than the page says.
pub(crate) fn run(page: &Page) -> Result<(), String> {
    if let Some(tool) = missing_tool(page) {
        eprintln!(
            "######  SKIPPED: there is no {tool}, so the commands of {} did not run.  ######",
            page.path
        );
        let is_ci = std::env::var("CI").as_deref() == Ok("true");
        return if is_ci {
            Err(format!(": {tool} is missing"))
        } else {
            Ok(())
        };
    }
    for (step, printed) in perform(page)? {
        if let Some(output) = &step.output {
            prints::compare(output, &printed).map_err(|why| format!(":{}: {why}", step.line))?;
        }
    }
    Ok(())
}

/// Runs a page, and gives what it printed.
///
/// # Errors
/// With the line, what failed.
pub(crate) fn perform(page: &Page) -> Result<Printed<'_>, String> {
    let trouble = |error: std::io::Error| format!(": {error}");
    let stage = Stage::new().map_err(trouble)?;
    let path = stage.directory.path().join("script");
    fs::write(&path, script(page)).map_err(trouble)?;
    let shell = stage.shell(&path).spawn().map_err(trouble)?;
    let ended = end_of(&mut Running(shell));
    let read =
        |name: &str| fs::read(stage.notes().join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if let Err(why) = ended {
        let last = last_note(&stage.notes()).unwrap_or_default();
        let printed = read(&last).unwrap_or_default();
        let line = last.trim_start_matches("line-").trim_start_matches('0').to_owned();
        return Err(format!(
            ":{line}: {why}; the block that begins there printed:\n{}",
            end(&printed)
        ));
    }
    let run = page.steps.iter().filter(|step| step.is_run);
    let printed = run.map(|step| Ok((step, read(&note(step)).map_err(trouble)?)));
    printed.collect()
}

/// Waits until the shell has ended well.
fn end_of(shell: &mut Running) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match shell.0.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("a command ended with {status}")),
            Ok(None) => sleep(POLL_INTERVAL),
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("not done within {PATIENCE:?}"))
}

/// What the last step that was begun wrote to.
fn last_note(notes: &Path) -> Option<String> {
    let names = fs::read_dir(notes).ok()?.filter_map(Result::ok);
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("line-")).max()
}

fn end(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().collect();
    let shown = lines.len().saturating_sub(LINES_SHOWN);
    lines[shown..].iter().map(|line| format!("    {line}\n")).collect()
}

fn missing_tool(page: &Page) -> Option<&'static str> {
    let uses = |tool: &str| {
        let run = page.steps.iter().filter(|step| step.is_run);
        let mut words = run.flat_map(|step| step.shell.split_whitespace());
        words.any(|word| word == tool)
    };
    TOOLS.into_iter().find(|tool| uses(tool) && !is_here(tool))
}

fn is_here(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use super::*;

    fn page(text: &str) -> Page {
        Page::read("a.md", text).expect("a page")
    }

    #[test]
    fn a_command_that_fails_is_told_with_its_block() {
        let page = page("```sh\ntrue\n```\n\n```sh\necho before\nfalse | cat\n```\n");
        let error = run(&page).expect_err("it fails");
        assert!(error.starts_with(":5: ") && error.contains("before"), "{error}");
    }

    #[test]
    fn what_is_printed_is_compared() {
        let text = |shown: &str| format!("```sh\necho '{{\"a\": 1}}'\n```\n<!-- prints -->\n```json\n{shown}\n```\n");
        assert_eq!(run(&page(&text("{\"a\":1}"))), Ok(()));
        assert!(run(&page(&text("{\"a\":2}"))).is_err());
    }

    #[test]
    fn what_stays_and_ends_badly_is_told() {
        let page = page("```sh\nhighwater serve --config nothing.toml # until Ctrl-C\n```\n");
        let error = run(&page).expect_err("there is no such file");
        // At once, or when it is interrupted at the end.
        assert!(error.contains("nothing.toml"), "{error}");
    }
}
