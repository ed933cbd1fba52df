//! `highwater version`.

use serde_json::json;

use crate::exit::Result;
use crate::output::{self, Format};

/// Print the version.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    match args.output {
        Format::Text => output::line(format!("highwater {version}")),
        Format::Json => output::json(&json!({ "version": version })),
    }
}
