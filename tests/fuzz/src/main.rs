//! Between a target's corpus, which is text files, and a directory of inputs, which guided fuzzers want; and one input alone.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use highwater_fuzz::{TARGETS, Target, target, to_hex};

const USAGE: &str = "usage: fuzz targets | fuzz unpack TARGET DIR | fuzz pack TARGET DIR | fuzz run TARGET FILE";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let named = |name: &str| target(name).ok_or_else(|| format!("there is no target {name}"));
    match arguments[..] {
        ["targets"] => TARGETS.iter().for_each(|target| println!("{}", target.name)),
        ["unpack", name, dir] => unpack(named(name)?, Path::new(dir))?,
        ["pack", name, dir] => pack(named(name)?, Path::new(dir))?,
        ["run", name, file] => (named(name)?.run)(&std::fs::read(file)?),
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn unpack(target: &Target, dir: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(dir)?;
    for (number, input) in target.corpus()?.into_iter().enumerate() {
        std::fs::write(dir.join(format!("saved-{number:04}")), input)?;
    }
    Ok(())
}

fn pack(target: &Target, dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut inputs = Vec::new();
    for file in std::fs::read_dir(dir)? {
        inputs.push(std::fs::read(file?.path())?);
    }
    inputs.sort_by_key(|input| (input.len(), input.clone()));
    let lines: String = inputs.iter().map(|input| to_hex(input) + "\n").collect();
    std::fs::write(target.corpus_path("found"), lines)?;
    println!("{}: {} inputs", target.name, inputs.len());
    Ok(())
}
