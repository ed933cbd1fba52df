//! `users serve`: the server's parts put together, and the order in which they begin.
//!
//! Nothing is answered before the state is up to date and the samples are there: so no user is missed by a read, and none comes before the
//! samples in a partition. Until then the port is closed, and `/readyz` says what is waited for.

use std::error::Error;
use std::time::Duration;

use highwater::Client;
use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use highwater_service::{Start, View, Writer, topics};
use tokio::time::sleep;
use tonic::service::Routes;

use crate::server::Server;
use crate::users::Users;
use crate::{days, events, feed, proto, samples};

/// What the service waits for before it is ready.
const WAITING: &str = "users";
/// How long to wait before samples that could not be appended are tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// What `users serve` can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// What every service can be told.
    #[command(flatten)]
    pub service: ServiceSettings,
    /// This server's name among those that feed the topic of new users; by default a random one.
    #[arg(long, env = "MEMBER")]
    pub member: Option<String>,
    /// Whether to begin with fifty made-up users where there are none. All servers of a topic say the same.
    #[arg(long, env = "SAMPLES", default_value_t = true, action = clap::ArgAction::Set)]
    pub samples: bool,
}

/// Serves until the process is told to stop.
///
/// # Errors
/// What makes it impossible to begin or to go on: a topic was deleted and made again; errors of listening.
pub async fn run(settings: Settings) -> Result<(), Box<dyn Error + Send + Sync>> {
    let stop = Stop::on_signals()?;
    let telemetry = Telemetry::new("users", &[WAITING])?;
    let metrics = serving::listen("metrics", settings.service.metrics_address()).await?;
    let metrics = serving::http(metrics, telemetry.router(), stop.clone());
    let serving = serve(&settings, &telemetry, &stop);
    let metrics = async {
        metrics.await;
        Ok(())
    };
    tokio::try_join!(serving, metrics)?;
    Ok(())
}

async fn serve(settings: &Settings, telemetry: &Telemetry, stop: &Stop) -> Result<(), Box<dyn Error + Send + Sync>> {
    let prepared = tokio::select! {
        () = stop.wait() => return Ok(()),
        prepared = prepare(settings) => prepared?,
    };
    let (client, writer) = prepared;
    let view = writer.view().clone();
    let listener = serving::listen("users", settings.service.address()).await?;
    // Whoever is told that it is ready can connect now.
    telemetry.there(WAITING);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let routes = Routes::new(Server::new(writer, telemetry.clone()).service()).add_service(reflection);
    let member = settings.member.clone();
    let member = member.unwrap_or_else(|| format!("users-{:016x}", rand::random::<u64>()));
    let serving = async {
        let grpc = serving::grpc(listener, routes, telemetry.clone(), stop.clone());
        tokio::join!(grpc, feed::run(&client, &member, stop));
    };
    tokio::select! {
        () = serving => Ok(()),
        why = view.lost() => Err(why.into()),
    }
}

/// Topics, the state up to date, and the samples.
async fn prepare(settings: &Settings) -> Result<(Client, Writer<Users>), Box<dyn Error + Send + Sync>> {
    let client = settings.service.connect().await?;
    topics::ensure(&client, events::USERS, events::PARTITIONS).await?;
    topics::ensure(&client, events::USER_ADDED, events::PARTITIONS).await?;
    let view = View::open(&client, events::USERS, Start::State, Users::default()).await?;
    let preparing = async {
        view.caught_up().await;
        let writer = Writer::open(&client, events::USERS, view.clone()).await?;
        begin_with_samples(settings, &writer).await;
        Ok::<_, highwater::Error>(writer)
    };
    let writer = tokio::select! {
        writer = preparing => writer?,
        why = view.lost() => return Err(why.into()),
    };
    tracing::info!(users = writer.view().read(Users::count), "the state is up to date");
    Ok((client, writer))
}

/// However often that has to be tried, if they are wanted.
async fn begin_with_samples(settings: &Settings, writer: &Writer<Users>) {
    while settings.samples
        && let Err(error) = samples::ensure(writer, days::now_ms()).await
    {
        tracing::warn!(error, "the samples are not there yet; trying again");
        sleep(PAUSE).await;
    }
}
