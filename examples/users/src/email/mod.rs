//! `users email`: a welcome message to each new user, into an outbox file or to an SMTP server.
//!
//! Workers share the partitions of `user-added` as a consumer group. What a worker has handled is noted where its effect is: in the outbox
//! itself, or in a small file beside the sending. The group's offset is committed only behind that. So a worker that is killed at any
//! moment and started again leaves nothing out, and what comes again is seen to be done. What is noted is of one topic, by its id: it is
//! refused if the topic was deleted and made again, or the first new users would count as welcomed.
//!
//! Invariant: a record is committed only when its message is synced in the outbox, has been taken or rejected by the SMTP server, or can
//! never be sent (an unknown form, an impossible address), which is logged.
//!
//! Deliberately absent: one outbox for several workers. Each has its own, and only its own knowledge: if a worker is killed between its sync
//! and its commit, and another one with another outbox takes over, the message stands in both, with the same `Message-ID`.

pub mod message;
pub mod outbox;
pub mod progress;
pub mod smtp;
mod source;
mod worker;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use highwater_service::topics;
use tonic::service::Routes;

use crate::access::EMAIL_GROUP;
use crate::{events, rules};
use source::Membership;
use worker::{Way, Worker};

/// How long no replica may serve a partition before the group is joined again.
const READ_DEADLINE: Duration = Duration::from_secs(2 * 60);
/// What the service waits for before it is ready.
const WAITING: &str = "user-added";

/// What `users email` can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// What every service can be told; at its port is gRPC's health service, and nothing else.
    #[command(flatten)]
    pub service: ServiceSettings,
    /// The file that messages are appended to.
    #[arg(long, env = "OUTBOX", value_name = "FILE", default_value = "outbox.mbox")]
    pub outbox: PathBuf,
    /// An SMTP server that messages are sent to instead.
    #[arg(long, env = "SMTP_ADDRESS", value_name = "HOST:PORT")]
    pub smtp: Option<String>,
    /// With --smtp: the file that says up to where messages have been sent.
    #[arg(long, env = "PROGRESS", value_name = "FILE", default_value = "email.progress")]
    pub progress: PathBuf,
    /// The sender's address.
    #[arg(long, env = "MAIL_FROM", default_value = "welcome@users.example", value_parser = sender)]
    pub from: String,
    /// The group that shares the work.
    #[arg(long, env = "GROUP", default_value = EMAIL_GROUP)]
    pub group: String,
    /// This worker's name in the group; by default a random one.
    #[arg(long, env = "MEMBER")]
    pub member: Option<String>,
}

fn sender(text: &str) -> Result<String, String> {
    rules::email(text).map_err(|problem| problem.problem)
}

/// Works until the process is told to stop.
///
/// # Errors
/// What makes it impossible to begin or to go on: the outbox cannot be written, or is of another topic; the topic is gone; a permission was
/// withdrawn.
pub async fn run(settings: Settings) -> Result<(), Box<dyn Error + Send + Sync>> {
    let stop = Stop::on_signals()?;
    let telemetry = Telemetry::new("users_email", &[WAITING])?;
    let metrics = serving::listen("metrics", settings.service.metrics_address()).await?;
    let health = serving::listen("health over gRPC", settings.service.address()).await?;
    let metrics = serving::http(metrics, telemetry.router(), stop.clone());
    let health = serving::grpc(health, Routes::default(), telemetry.clone(), stop.clone());
    let serving = async {
        tokio::join!(metrics, health);
        Ok(())
    };
    tokio::try_join!(work(&settings, &telemetry, &stop), serving)?;
    Ok(())
}

async fn work(settings: &Settings, telemetry: &Telemetry, stop: &Stop) -> Result<(), Box<dyn Error + Send + Sync>> {
    let worker = tokio::select! {
        () = stop.wait() => return Ok(()),
        worker = join(settings, telemetry) => worker?,
    };
    telemetry.there(WAITING);
    worker.run(stop).await
}

/// A member of the group, which begins at the beginning, with what has been handled already.
async fn join(settings: &Settings, telemetry: &Telemetry) -> Result<Worker, Box<dyn Error + Send + Sync>> {
    let client = settings.service.connect().await?;
    let topic_id = topics::ensure(&client, events::USER_ADDED, events::PARTITIONS)
        .await?
        .topic_id;
    let way = Way::open(settings, topic_id)?;
    let member = settings.member.clone();
    let membership = Membership {
        client,
        group: settings.group.clone(),
        member: member.unwrap_or_else(|| format!("email-{:016x}", rand::random::<u64>())),
        topic_id,
        deadline: READ_DEADLINE,
    };
    let consumer = membership.join().await?;
    Ok(Worker::new(
        membership,
        consumer,
        way,
        settings.from.clone(),
        telemetry.clone(),
    ))
}
