//! `highwater version`: which version this is, and of which commit; both come from `build.rs`.

use serde_json::json;

use crate::exit::Result;
use crate::output::{self, Format};

/// Version, commit and its day, as `--version` tells them.
pub(crate) const SUMMARY: &str = env!("HIGHWATER_BUILD_SUMMARY");

/// Print the version, and the commit that it was built from.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match args.output {
        Format::Text => output::line(format!("highwater {SUMMARY}")),
        Format::Json => output::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "commit": env!("HIGHWATER_BUILD_COMMIT"),
            "date": env!("HIGHWATER_BUILD_DATE"),
        })),
    }
}
