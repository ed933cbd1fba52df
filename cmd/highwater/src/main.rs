//! The `highwater` command: one binary that serves, administers, produces and consumes.
//!
//! Each verb has a file of its own; what they share is small: how a command ends ([`exit`]), how it prints
//! ([`output`]), and whom it talks to ([`profile`]). The command knows the node only through
//! [`highwater_node::Node`] and its words for what needs attention, and the cluster only through the client library, as any
//! other user does. Only `highwater log` knows the files, for those who look at them offline.
//!
//! Deliberately absent: logic of the cluster. What a verb decides is how to ask and how to show the answer.

mod access;
mod args;
mod audit;
mod backup;
mod bench;
mod certificates;
mod certs;
mod cluster;
mod completions;
mod consume;
mod dev;
mod durations;
mod exit;
mod files;
mod format;
mod group;
mod health;
mod json_lines;
mod lines;
mod log;
mod logging;
mod names;
mod output;
mod produce;
mod profile;
mod profiles;
mod progress;
mod reload;
mod serve;
mod settings;
mod sink;
mod tenant;
mod top;
mod topic;
mod version;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match args::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
