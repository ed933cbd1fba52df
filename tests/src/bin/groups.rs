//! `make groups`: members and nodes of a consumer group are killed, paused and restarted under load, and a verdict.
//!
//! `groups [--seed N] [--seconds N]`. Without a seed one is drawn and printed. The exit code is 0 if it passed, 1 if something failed, 2 if
//! the run proves nothing. `groups member PROFILE NOTES NAME` is one member, which the run starts itself.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater_tests::groups::{Plan, member, run};
use highwater_verify::Outcome;

/// How long a full run troubles members and nodes.
const SECONDS: u64 = 300;
const FAILED: u8 = 1;
const VOID: u8 = 2;
const USAGE: &str = "usage: groups [--seed N] [--seconds N]";

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let [command, profile, notes, name] = given.as_slice()
        && command == "member"
    {
        return be_member(Path::new(profile), name, Path::new(notes));
    }
    match plan(&given) {
        Ok(plan) => show(&plan),
        Err(why) => {
            eprintln!("error: {why}\n{USAGE}");
            ExitCode::from(VOID)
        }
    }
}

fn be_member(profile: &Path, name: &str, notes: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match runtime.block_on(member(profile, name, notes)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(FAILED)
        }
    }
}

fn plan(given: &[String]) -> Result<Plan, String> {
    let drawn = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut seed = drawn.map_or(1, |time| time.as_nanos() as u64 % 1_000_000_000);
    let mut seconds = SECONDS;
    let mut given = given.iter();
    while let Some(name) = given.next() {
        let mut number = || {
            let value = given.next().ok_or_else(|| format!("{name} needs a number"))?;
            value
                .parse::<u64>()
                .map_err(|_| format!("{name} {value}: not a number"))
        };
        match name.as_str() {
            "--seed" => seed = number()?,
            "--seconds" => seconds = number()?,
            _ => return Err(format!("{name} is not known")),
        }
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok(Plan {
        seed,
        duration: Duration::from_secs(seconds),
        evidence: program
            .ancestors()
            .nth(2)
            .map(|target| target.join("chaos"))
            .unwrap_or_default(),
        program,
    })
}

fn show(plan: &Plan) -> ExitCode {
    println!("seed {}: {} s of trouble", plan.seed, plan.duration.as_secs());
    let report = match run(plan) {
        Ok(report) => report,
        Err(why) => {
            println!("groups: no verdict; seed {}: {why}", plan.seed);
            return ExitCode::from(FAILED);
        }
    };
    print!("{report}");
    match report.outcome() {
        Outcome::Pass => ExitCode::SUCCESS,
        Outcome::Fail => ExitCode::from(FAILED),
        Outcome::Void => ExitCode::from(VOID),
    }
}
