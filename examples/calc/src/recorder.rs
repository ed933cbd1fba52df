//! The log service: every command and every result, in a file and on standard output.
//!
//! It follows both topics as two views whose state is the file ([`journal`](crate::journal)): where the file ends, they begin.

use std::future::pending;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use highwater::ConsumedRecord;
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use highwater_service::{Start, State, View};
use tokio::sync::mpsc;
use tokio::task::block_in_place;

use crate::journal::{Journal, JournalError, Line};
use crate::service::{self, Failed, Service};
use crate::wire::{COMMAND_TOPIC, RESULT_TOPIC};

/// What the log service can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct LogSettings {
    #[command(flatten)]
    service: ServiceSettings,
    /// The file that everything is written to. It is made, or gone on with.
    #[arg(long, env = "CALC_LOG", value_name = "FILE", default_value = "calc.jsonl")]
    file: PathBuf,
}

/// One topic's part of the file.
struct Recorded {
    topic: &'static str,
    journal: Arc<Mutex<Journal>>,
    telemetry: Telemetry,
    /// Told what ends the service.
    failures: mpsc::Sender<JournalError>,
}

impl State for Recorded {
    fn position(&self, partition: u32) -> u64 {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.position(self.topic, partition)
    }

    fn apply(&mut self, _partition: u32, records: &[ConsumedRecord]) {
        let request = self.telemetry.request(self.topic);
        let written = block_in_place(|| {
            let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
            let lines = journal.append(self.topic, records)?;
            print(&lines);
            Ok(())
        });
        match written {
            Ok(()) => request.outcome("ok"),
            // One is enough: it ends the process.
            Err(error) => drop(self.failures.try_send(error)),
        }
    }
}

fn print(lines: &[Line]) {
    let mut text = String::new();
    lines.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    let mut output = io::stdout().lock();
    // The file is what counts; nobody need look on.
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// Records until the process is told to end.
///
/// # Errors
/// [`Failed`].
pub async fn run(settings: &LogSettings) -> Result<(), Failed> {
    service::run(
        &settings.service,
        &[COMMAND_TOPIC, RESULT_TOPIC],
        async |service: Service| {
            tokio::select! {
                () = service.stop.wait() => Ok(()),
                ended = record(&settings.file, &service) => ended,
            }
        },
    )
    .await
}

/// Ends only if it cannot go on.
async fn record(file: &Path, service: &Service) -> Result<(), Failed> {
    let journal = block_in_place(|| Journal::open(file, service.topic_ids.clone()))?;
    let journal = Arc::new(Mutex::new(journal));
    let (failures, mut failed) = mpsc::channel(1);
    let open = async |topic| {
        let recorded = Recorded {
            topic,
            journal: journal.clone(),
            telemetry: service.telemetry.clone(),
            failures: failures.clone(),
        };
        View::open(&service.client, topic, Start::State, recorded).await
    };
    let (commands, results) = (open(COMMAND_TOPIC).await?, open(RESULT_TOPIC).await?);
    let tell_caught_up = async {
        for (topic, view) in [(COMMAND_TOPIC, &commands), (RESULT_TOPIC, &results)] {
            view.caught_up().await;
            service.telemetry.there(topic);
        }
        pending::<()>().await;
    };
    tokio::select! {
        () = tell_caught_up => Ok(()),
        Some(error) = failed.recv() => Err(error.into()),
        why = commands.lost() => Err(why.into()),
        why = results.lost() => Err(why.into()),
    }
}
