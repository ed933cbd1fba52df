//! The mutants: mistakes that the simulation must catch, each in a process of its own, by name.
//!
//! A mutant that survives is a failure of the simulation. The first sixteen are mistakes that logs like this one are known for; the others belong
//! to what this one does besides.

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
}

const MIXED: Hunt = Hunt::Group {
    seeds: 40,
    nodes: 0,
    only: "",
};

const MUTANTS: [Mutant; 21] = [
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
        hunt: Hunt::Group {
            seeds: 80,
            nodes: 3,
            only: "wipe,crash-one",
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
    Mutant {
        name: "page cache trusted",
        hunt: Hunt::Group {
            seeds: 20,
            nodes: 0,
            only: "sync-error",
        },
    },
    Mutant {
        name: "memory not asked",
        hunt: Hunt::Group {
            seeds: 40,
            nodes: 0,
            only: "old-copy",
        },
    },
    Mutant {
        name: "purge without a manifest",
        hunt: Hunt::Log { seeds: 2 },
    },
    Mutant {
        name: "refill not synced",
        hunt: Hunt::Group {
            seeds: 40,
            nodes: 0,
            only: "rot",
        },
    },
    Mutant {
        name: "damage served as an end",
        hunt: Hunt::Group {
            seeds: 40,
            nodes: 0,
            only: "rot",
        },
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
        let outcome = hunt_in_process(mutant.name, &mutant.hunt, arguments.seed);
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
