//! The log of a node: events on standard error, as text or as JSON, filtered by level and room.
//!
//! What is written within a call also says which one: its method, tenant, client and whatever id came with it (target `call`, see
//! highwater-node). The filter can be changed while the node runs; the form cannot.
//!
//! Deliberately absent: files, rotation and shipping. Whoever starts the process has its standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Error;

use crate::exit::{Code, Failure, Result};
use crate::settings::{LogFormat, Process};

/// Puts another filter in the place of the one in use.
type Replace = Box<dyn Fn(EnvFilter) -> std::result::Result<(), Error> + Send + Sync>;

/// The log that was started.
pub(crate) struct Logging {
    replace: Replace,
}

impl Logging {
    /// Starts logging as the settings say; once in a process.
    pub(crate) fn start(process: &Process) -> Result<Self> {
        let filter = process.filter().map_err(Failure::setup)?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        let (replace, started): (Replace, _) = match process.log_format {
            LogFormat::Text => {
                let builder = builder.with_ansi(false).with_filter_reloading();
                let handle = builder.reload_handle();
                (Box::new(move |filter| handle.reload(filter)), builder.try_init())
            }
            LogFormat::Json => {
                let builder = builder.json().flatten_event(true).with_filter_reloading();
                let handle = builder.reload_handle();
                (Box::new(move |filter| handle.reload(filter)), builder.try_init())
            }
        };
        started.map_err(|error| Failure::new(Code::Failure, format!("cannot start logging: {error}")))?;
        Ok(Self { replace })
    }

    /// Filters as the settings say from now on; on failure as before.
    pub(crate) fn retune(&self, process: &Process) -> std::result::Result<(), String> {
        (self.replace)(process.filter()?).map_err(|error| error.to_string())
    }
}
