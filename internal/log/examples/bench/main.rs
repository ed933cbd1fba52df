//! What the log costs over the disk and the processor below it. Each figure stands beside a floor: plain code that does the least
//! that must be done, measured in the same run, in turns with the log, so that a busy machine is busy for both.
//!
//! `make bench-log`, or `cargo run --release -p highwater-log --example bench -- [--dir DIR]`. The files lie in a new directory
//! in DIR (by default where temporary files lie) and are removed again. Ends with an error only if a limit is missed that does not
//! depend on the machine's load: the time to open, the memory and the files of idle logs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod append;
mod common;
mod idle;
mod open;
mod read;
mod recorded;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use table::Table;

/// The product's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let base = match arguments[..] {
        [open::FILL, dir, segments] => open::fill(Path::new(dir), segments.parse().unwrap()),
        ["--dir", dir] => PathBuf::from(dir),
        [] => std::env::temp_dir(),
        _ => {
            eprintln!("usage: bench [--dir DIR]");
            return ExitCode::from(2);
        }
    };
    let scratch = Scratch::new(&base);
    let mut table = Table::default();
    append::bulk(&scratch.0, &mut table);
    append::lone(&scratch.0, &mut table);
    read::sequential(&scratch.0, &mut table);
    open::after_kill(&scratch.0, &mut table);
    idle::thousand(&scratch.0, &mut table);
    println!("\n{table}");
    if table.is_broken() {
        eprintln!("a limit that holds on any machine is missed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A directory for the run's files, removed at the end, also at that of a run that fails.
struct Scratch(PathBuf);

impl Scratch {
    fn new(base: &Path) -> Scratch {
        let dir = base.join(format!("highwater-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // nothing can be done about it
    }
}
