//! Programs of the system that the faults need.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where system programs lie even if the search path of a plain user leaves them out.
const MORE_DIRECTORIES: &[&str] = &["/usr/sbin", "/sbin"];

/// Whether the program is installed.
pub(crate) fn has(program: &str) -> bool {
    find(program).is_some()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(MORE_DIRECTORIES.iter().map(PathBuf::from));
    directories
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Runs a program to its end; an error has what it said.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut located = Command::new(find(&program).ok_or_else(|| format!("{program} is not installed"))?);
    located.args(command.get_args()).stdin(Stdio::null());
    match located.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program}: {}: {}", output.status, said.trim()))
        }
        Err(error) => Err(format!("{program}: {error}")),
    }
}
