//! `highwater top`: the essentials of a cluster in a terminal, over and over until Ctrl-C or q.
//!
//! It asks through the same calls as any client, so it needs a profile and no way to the nodes' admin listeners. Of nodes it tells everything;
//! of topics those of the client's own tenant that it may see. Rates are differences of two looks, so the first look has none.
//!
//! [`gather`] looks, [`screen`] shows, [`terminal`] borrows the terminal and gives it back.

mod gather;
mod screen;
mod terminal;

use std::io::IsTerminal;
use std::time::Duration;

use tokio::time::sleep;

use self::gather::{Look, View};
use self::terminal::Terminal;
use crate::durations;
use crate::exit::{Code, Failure, Result};
use crate::output::{self, Format};
use crate::profile::ProfileArgs;

/// The shortest time between two looks: each asks all nodes.
const INTERVAL_LEAST: Duration = Duration::from_millis(500);
/// Between the two looks of `--once`, for rates.
const ONCE_PAUSE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  highwater top
  highwater top --interval 5s
  highwater top --once                    one picture, for a script or a report
  highwater top --output json | jq .findings

Ends with q or Ctrl-C. If the output is no terminal, it prints one picture and ends.";

/// Show nodes, leaders, rates, lag and what needs attention, as it changes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Print one picture and end.
    #[arg(long)]
    once: bool,
    /// Time between two looks, at least 500ms.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse, default_value = "2s")]
    interval: Duration,
    /// How to print it; json prints one picture.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    /// How long to try each call, at most 24h.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse, default_value = "5s")]
    deadline: Duration,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    if args.interval < INTERVAL_LEAST {
        let message = format!("--interval is {:?}; at least {INTERVAL_LEAST:?}", args.interval);
        return Err(Failure::new(Code::Usage, message));
    }
    let client = args.profile.connect(args.deadline).await?;
    let is_watched = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if args.once || args.output == Format::Json || !is_watched {
        let first = gather::look(&client).await?;
        sleep(ONCE_PAUSE).await;
        return print(&View::of(Some(&first), &gather::look(&client).await?), args.output);
    }
    let mut terminal = Terminal::borrow()?;
    let mut before: Option<Look> = None;
    loop {
        let look = tokio::select! {
            biased;
            () = terminal.ended() => return Ok(()),
            look = gather::look(&client) => look,
        };
        match look {
            Ok(look) => {
                terminal.show(&screen::text(
                    &View::of(before.as_ref(), &look),
                    Some(terminal.size().1),
                ))?;
                before = Some(look);
            }
            // The cluster may be back at the next look.
            Err(failure) => terminal.show(&format!("{failure}\n\nTrying again; q ends.\n"))?,
        }
        tokio::select! {
            biased;
            () = terminal.ended() => return Ok(()),
            () = sleep(args.interval) => {}
        }
    }
}

fn print(view: &View, format: Format) -> Result<()> {
    match format {
        Format::Json => output::json(view),
        Format::Text => output::line(screen::text(view, None).trim_end()),
    }
}
