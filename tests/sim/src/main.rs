//! `sim`: simulations of the log and of groups, replayable from a seed. See the README.
//!
//! Built by `make sim` only: simulations need their own runtime in `highwater-partition` (`--cfg highwater_simulation`), tokio's
//! seed (`--cfg tokio_unstable`) and the deliberate mistakes (`--cfg highwater_mutants`). In any other build this program only
//! says so.

#[cfg(all(highwater_simulation, highwater_mutants))]
mod arguments;
#[cfg(all(highwater_simulation, highwater_mutants))]
mod group;
#[cfg(all(highwater_simulation, highwater_mutants))]
mod groups;
#[cfg(all(highwater_simulation, highwater_mutants))]
mod logs;
#[cfg(all(highwater_simulation, highwater_mutants))]
mod mutants;
#[cfg(all(highwater_simulation, highwater_mutants))]
mod panics;
#[cfg(all(highwater_simulation, highwater_mutants))]
mod random;

#[cfg(all(highwater_simulation, highwater_mutants))]
fn main() -> std::process::ExitCode {
    arguments::run()
}

#[cfg(not(all(highwater_simulation, highwater_mutants)))]
fn main() -> std::process::ExitCode {
    eprintln!("this build cannot simulate; `make sim` makes one that can");
    std::process::ExitCode::from(2)
}
