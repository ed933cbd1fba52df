//! How a program that measures begins and ends.

use std::error::Error;
use std::process::ExitCode;
use std::vec;

/// Reads the arguments, measures, and says what went wrong. It ends with 2 if it is the arguments, which is told with the
/// usage; with 1 if it is the measurement. Whoever asks for help gets the usage, and nothing is measured.
pub fn measured<A>(
    usage: &str,
    read: impl FnOnce(vec::IntoIter<String>) -> Result<A, String>,
    measure: impl FnOnce(&A) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if given.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("usage: {usage}");
        return ExitCode::SUCCESS;
    }
    let arguments = match read(given.into_iter()) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("error: {why}\nusage: {usage}");
            return ExitCode::from(2);
        }
    };
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
