//! `highwater config list|show|add|use|remove`: client profiles by name.
//!
//! A profile is a file. Those with a name lie beside each other in the configuration directory, as `NAME.toml`; the one that is used
//! when nobody says otherwise is `config.toml`, a copy of one of them, or written by hand. `--profile NAME` takes another one for a
//! single command. Nothing that is kept nowhere else is overwritten unasked.
//!
//! Deliberately absent: private keys. A profile says where they are, and they stay there.

use std::path::{Path, PathBuf};

use highwater::Profile;
use serde_json::json;

use crate::exit::{Code, Failure, Result};
use crate::files::{self, Access};
use crate::names;
use crate::output::{self, Format, Table};
use crate::profile::{ProfileArgs, directory, failure, named};

/// The name that the profile in use has itself.
const IN_USE: &str = "config";

const EXAMPLES: &str = "\
Examples:
  highwater config add dev --from highwater-dev/profile.toml
  highwater config use dev
  highwater config list
  highwater topic list --profile production        one command with another profile
  highwater config show";

/// Keep client profiles by name, and choose the one to use.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// How to print it.
    #[arg(long, value_enum, default_value_t, global = true)]
    output: Format,
    #[command(flatten)]
    profile: ProfileArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the profiles that have names.
    List,
    /// Show the profile that commands use, and whether its files are there.
    Show,
    /// Give a profile a name: its file is copied, with absolute paths.
    Add {
        /// The name.
        name: String,
        /// The profile's file.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Replace the one that has this name.
        #[arg(long)]
        force: bool,
    },
    /// Use this profile from now on.
    Use {
        /// Its name.
        name: String,
        /// Also if the one that was in use until now has no name, and is lost.
        #[arg(long)]
        force: bool,
    },
    /// Forget a profile; its certificates stay.
    Remove {
        /// Its name.
        name: String,
    },
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::List => list(args.output),
        Command::Show => show(&args.profile, args.output),
        Command::Add { name, from, force } => add(name, from, *force, args.output),
        Command::Use { name, force } => choose(name, *force, args.output),
        Command::Remove { name } => remove(name, args.output),
    }
}

fn list(format: Format) -> Result<()> {
    let directory = directory()?;
    let in_use = Profile::load(directory.join(format!("{IN_USE}.toml"))).ok();
    let mut found = Vec::new();
    for name in names_in(&directory)? {
        let profile = Profile::load(named(&directory, &name));
        let is_in_use = profile.as_ref().is_ok_and(|profile| Some(profile) == in_use.as_ref());
        found.push((name, profile, is_in_use));
    }
    if format == Format::Json {
        let profiles = found.iter().map(|(name, profile, is_in_use)| {
            let addresses = profile.as_ref().map(|profile| profile.addresses.clone()).ok();
            json!({ "name": name, "in_use": is_in_use, "addresses": addresses })
        });
        return output::json(&json!({ "profiles": profiles.collect::<Vec<_>>() }));
    }
    let mut table = Table::new(&["PROFILE", "IN USE", "ADDRESSES"]);
    for (name, profile, is_in_use) in found {
        let addresses = profile.map_or_else(|error| format!("({error})"), |profile| profile.addresses.join(","));
        table.row([name, if is_in_use { "yes" } else { "-" }.to_owned(), addresses]);
    }
    table.print()
}

fn show(args: &ProfileArgs, format: Format) -> Result<()> {
    let path = args.path()?;
    let profile = args.load()?;
    let files = [("ca", &profile.ca), ("cert", &profile.cert), ("key", &profile.key)];
    if format == Format::Json {
        let files = files.map(|(what, file)| (what.to_owned(), json!({ "path": file, "exists": file.exists() })));
        return output::json(&json!({
            "profile": path,
            "addresses": profile.addresses,
            "cluster_name": profile.cluster_name,
            "rack": profile.rack,
            "files": serde_json::Map::from_iter(files),
        }));
    }
    output::line(format!("Profile    {}", path.display()))?;
    output::line(format!("Addresses  {}", profile.addresses.join(", ")))?;
    if let Some(rack) = &profile.rack {
        output::line(format!("Rack       {rack}"))?;
    }
    for (what, file) in files {
        let missing = if file.exists() { "" } else { "  (not there)" };
        output::line(format!("{what:<9}  {}{missing}", file.display()))?;
    }
    Ok(())
}

fn add(name: &str, from: &Path, force: bool, format: Format) -> Result<()> {
    check(name)?;
    let directory = directory()?;
    let path = named(&directory, name);
    if !force && path.exists() {
        let failure = Failure::new(Code::Refused, format!("there is a profile {name} already"));
        return Err(failure.hint("choose another name, or replace it with --force"));
    }
    let mut profile = Profile::load(from).map_err(failure)?;
    for file in [&mut profile.ca, &mut profile.cert, &mut profile.key] {
        let absolute = std::path::absolute(&*file);
        *file = absolute.map_err(|error| Failure::setup(format!("{}: {error}", file.display())))?;
    }
    files::make_directory(&directory)?;
    files::replace(&path, profile.to_toml().as_bytes(), Access::Public)?;
    done(
        format,
        "added",
        name,
        format!("Added profile {name}; `highwater config use {name}` makes it the one in use."),
    )
}

fn choose(name: &str, force: bool, format: Format) -> Result<()> {
    check(name)?;
    let directory = directory()?;
    let path = named(&directory, name);
    if !path.exists() {
        return Err(unknown(name));
    }
    let profile = Profile::load(&path).map_err(failure)?;
    if !force {
        check_kept(&directory)?;
    }
    files::replace(&named(&directory, IN_USE), profile.to_toml().as_bytes(), Access::Public)?;
    done(format, "using", name, format!("Using profile {name}."))
}

/// Refuses to lose a profile that is in use and has no name: somebody has written it by hand.
fn check_kept(directory: &Path) -> Result<()> {
    let path = named(directory, IN_USE);
    if !path.exists() {
        return Ok(());
    }
    if let Ok(in_use) = Profile::load(&path) {
        let is_it = |name: &String| Profile::load(named(directory, name)).is_ok_and(|profile| profile == in_use);
        if names_in(directory)?.iter().any(is_it) {
            return Ok(());
        }
    }
    let path = path.display();
    let message = format!("{path} is none of the profiles that have names, and would be lost");
    let hint = format!("keep it with `highwater config add NAME --from {path}`, or give it up with --force");
    Err(Failure::new(Code::Refused, message).hint(hint))
}

fn remove(name: &str, format: Format) -> Result<()> {
    check(name)?;
    let path = named(&directory()?, name);
    match std::fs::remove_file(&path) {
        Ok(()) => done(format, "removed", name, format!("Removed profile {name}.")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(unknown(name)),
        Err(error) => Err(Failure::setup(format!("cannot remove {}: {error}", path.display()))),
    }
}

fn done(format: Format, what: &str, name: &str, text: String) -> Result<()> {
    match format {
        Format::Json => output::json(&json!({ what: name })),
        Format::Text => output::line(text),
    }
}

fn check(name: &str) -> Result<()> {
    names::check("profile", name)?;
    if name == IN_USE {
        let message = format!("`{IN_USE}` is what the profile in use is called itself");
        return Err(Failure::usage(message).hint("choose another name"));
    }
    Ok(())
}

fn unknown(name: &str) -> Failure {
    Failure::new(Code::NotFound, format!("there is no profile {name}"))
        .hint("`highwater config list` shows those that there are; `highwater config add` makes one")
}

/// The names in a directory, in order; none if there is no such directory.
fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::setup(format!("cannot read {}: {error}", directory.display()))),
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let profiles = paths.filter(|path| path.extension().is_some_and(|end| end == "toml"));
    let names = profiles.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    let mut names: Vec<String> = names.filter(|name| check(name).is_ok()).collect();
    names.sort_unstable();
    Ok(names)
}
