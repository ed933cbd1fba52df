//! The mutants: mistakes that the simulation must catch, each in a process of its own, by name.
//!
//! A mutant that survives is a failure of the simulation. One whose feature does not exist yet is listed as such, and becomes a
//! failure as soon as the feature is there.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::arguments::MutantArguments;

/// A mistake, and how it is hunted.
struct Mutant {
    name: &'static str,
    hunt: Hunt,
}

enum Hunt {
    /// By the log alone, on so many scripts.
    Log { seeds: u64 },
    /// By groups: seeds, replicas (0: mixed), only these faults (empty: all).
    Group { seeds: u64, nodes: u64, only: &'static str },
    /// Not yet: the mistake cannot be made before a file of this directory holds this text.
    Missing {
        directory: &'static str,
        text: &'static str,
    },
}

const MIXED: Hunt = Hunt::Group {
    seeds: 40,
    nodes: 0,
    only: "",
};

const MUTANTS: [Mutant; 16] = [
    Mutant {
        name: "no sync on append",
        hunt: MIXED,
    },
    Mutant {
        name: "no sync on vote",
        hunt: MIXED,
    },
    Mutant {
        name: "acknowledge before sync",
        hunt: MIXED,
    },
    Mutant {
        name: "truncate at first bad checksum",
        hunt: Hunt::Log { seeds: 1 },
    },
    Mutant {
        name: "retry after failed sync",
        hunt: Hunt::Log { seeds: 4 },
    },
    Mutant {
        name: "serve above commit",
        hunt: MIXED,
    },
    Mutant {
        name: "lose producers at a trim",
        hunt: Hunt::Missing {
            directory: "internal/log/src",
            text: "pub fn purge(",
        },
    },
    Mutant {
        name: "checkpoint ahead of the log",
        hunt: Hunt::Log { seeds: 4 },
    },
    Mutant {
        name: "follower's verdict unchecked",
        hunt: Hunt::Log { seeds: 1 },
    },
    Mutant {
        name: "refused batch forgotten",
        hunt: MIXED,
    },
    Mutant {
        name: "LogEntryDiscarded reported as not applied",
        hunt: Hunt::Group {
            seeds: 60,
            nodes: 5,
            only: "tangle",
        },
    },
    Mutant {
        name: "replica started empty",
        hunt: MIXED,
    },
    Mutant {
        name: "out-of-range from a lagging follower",
        hunt: MIXED,
    },
    Mutant {
        name: "stale frame accepted after truncation",
        hunt: MIXED,
    },
    Mutant {
        name: "vote lost by truncation",
        hunt: MIXED,
    },
    Mutant {
        name: "dead replica votes",
        hunt: MIXED,
    },
];

/// Hunts every mutant; fails if one survives.
pub(crate) fn run(arguments: &MutantArguments) -> ExitCode {
    let wanted = |mutant: &&Mutant| arguments.name.as_deref().is_none_or(|name| name == mutant.name);
    let mut survived = 0;
    let mut hunted = 0;
    for mutant in MUTANTS.iter().filter(wanted) {
        hunted += 1;
        let began = Instant::now();
        let outcome = match &mutant.hunt {
            Hunt::Missing { directory, text } => missing(directory, text),
            hunt => hunt_in_process(mutant.name, hunt, arguments.seed),
        };
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Ok(how) => println!("{:<42} {how} ({seconds:.0} s)", mutant.name),
            Err(why) => {
                survived += 1;
                println!("{:<42} SURVIVED: {why} ({seconds:.0} s)", mutant.name);
            }
        }
    }
    println!("mutants: {hunted}, {survived} survived");
    if survived > 0 || hunted == 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs this program with the mutant until it is caught. By what and at which seed, or why it was not.
fn hunt_in_process(name: &str, hunt: &Hunt, seed: u64) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    match hunt {
        Hunt::Log { seeds } => command.args(["log", "--seeds", &seeds.to_string()]),
        Hunt::Group { seeds, nodes, only } => {
            command.args(["group", "--until-caught", "--seeds", &seeds.to_string()]);
            if *nodes > 0 {
                command.args(["--nodes", &nodes.to_string()]);
            }
            if !only.is_empty() {
                command.args(["--only", only]);
            }
            &mut command
        }
        Hunt::Missing { .. } => &mut command,
    };
    let seed = seed.to_string();
    command.args(["--seed", &seed, "--mutant", name]);
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let violation = text.lines().find_map(|line| line.strip_prefix("VIOLATION "));
    match violation {
        Some(violation) if !output.status.success() => Ok(format!("caught: {}", shortened(violation))),
        _ => {
            let end = text.lines().last().unwrap_or("it said nothing");
            Err(format!("{}: {end}", output.status))
        }
    }
}

/// The first words of a line.
fn shortened(line: &str) -> String {
    const LETTERS: usize = 150;
    match line.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Whether the mistake can still not be made.
fn missing(directory: &str, text: &str) -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = std::fs::read_dir(root.join(directory)).map_err(|error| format!("{directory}: {error}"))?;
    for file in files {
        let path = file.map_err(|error| error.to_string())?.path();
        if path.is_file() && std::fs::read_to_string(&path).is_ok_and(|source| source.contains(text)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(format!(
                "{directory}/{name} has {text:?} now: make this mistake possible"
            ));
        }
    }
    Ok("not yet possible: nothing is trimmed".to_owned())
}
