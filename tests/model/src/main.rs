//! Checks every case of the model and prints what it came to. `model --long` takes the larger worlds.

use std::process::ExitCode;
use std::time::Instant;

use highwater_model::{CASES, Expected};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_long = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--long"] => true,
        _ => {
            eprintln!("usage: model [--long]");
            return ExitCode::from(2);
        }
    };
    let mut states = 0;
    let mut good = true;
    let began = Instant::now();
    for case in CASES {
        let start = Instant::now();
        let found = case.check(is_long);
        states += found.states;
        let is_expected = found.is(case.expected);
        good &= is_expected;
        let word = if is_expected { "good" } else { "BAD" };
        let wanted = match case.expected {
            Expected::Holds => "must hold",
            Expected::Refuted => "must not",
        };
        println!(
            "{word}: {} ({wanted}): {found}, {:.1} s",
            case.name,
            start.elapsed().as_secs_f64()
        );
        for step in found.refuted.iter().flat_map(|(_, steps)| steps) {
            println!("    {step:?}");
        }
    }
    println!(
        "{} cases, {states} states, {:.1} s",
        CASES.len(),
        began.elapsed().as_secs_f64()
    );
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
