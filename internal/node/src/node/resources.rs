//! What a node takes hold of before anything runs: its certificate, its data directory, its port, its own name.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{Instant, sleep};

use crate::config::{Config, ConfigError};
use crate::data_dir::DataDir;
use crate::error::StartError;
use crate::hex::Id;
use crate::port::{Port, PortError};
use crate::tls::{ClientNames, Credentials, TlsError, TlsFiles};

/// How long a starting node waits for its own advertised name to become resolvable.
const OWN_NAME_PATIENCE: Duration = Duration::from_secs(30);
const OWN_NAME_PAUSE: Duration = Duration::from_millis(500);

pub(super) fn load_credentials(config: &Config) -> Result<Arc<Credentials>, StartError> {
    let files = TlsFiles {
        certificate: config.tls.cert.clone(),
        key: config.tls.key.clone(),
        authorities: config.tls.ca.clone(),
        revoked: Some(config.tls.crl.clone()).filter(|path| !path.as_os_str().is_empty()),
    };
    let unusable = |error: TlsError| StartError::Credentials(error.to_string());
    let names = match config.tls.client_name_from_cn {
        true => ClientNames::UriOrCommonName,
        false => ClientNames::Uri,
    };
    let credentials = Credentials::load_with(files, names).map_err(unusable)?;
    credentials.require(&config.cluster, &config.node).map_err(unusable)?;
    Ok(credentials)
}

pub(super) async fn open_data_dir(config: &Config) -> Result<DataDir, StartError> {
    let (path, cluster, node) = (config.data_dir.clone(), config.cluster.clone(), config.node.clone());
    let opening = tokio::task::spawn_blocking(move || DataDir::open(&path, &cluster, &node, Id::random()));
    let opened = opening.await.map_err(|error| StartError::Internal(error.to_string()))?;
    Ok(opened?)
}

pub(super) async fn bind(config: &Config) -> Result<Port, StartError> {
    let refused = |why: String| StartError::Port {
        address: config.listen.clone(),
        why,
    };
    let mut addresses = lookup_host(&config.listen)
        .await
        .map_err(|error| refused(error.to_string()))?;
    let address = addresses
        .next()
        .ok_or_else(|| refused("the name has no address".to_owned()))?;
    Port::bind(address).await.map_err(|error| match error {
        PortError::InUse { .. } => refused("it is in use by another process".to_owned()),
        PortError::Refused { source, .. } => refused(source.to_string()),
    })
}

/// In some environments a node's own name becomes known only a while after it has started.
pub(super) async fn wait_for_own_name(address: &str) -> Result<(), StartError> {
    let give_up = Instant::now() + OWN_NAME_PATIENCE;
    loop {
        match lookup_host(address).await.map(|mut addresses| addresses.next()) {
            Ok(Some(_)) => return Ok(()),
            failed if Instant::now() >= give_up => {
                let why = format!("`{address}` cannot be resolved: {failed:?}");
                return Err(ConfigError::new("advertise", why).into());
            }
            _ => sleep(OWN_NAME_PAUSE).await,
        }
    }
}
