//! A client profile: where the cluster is and who we are, in one TOML file.
//!
//! ```toml
//! addresses = ["localhost:7100", "localhost:7101", "localhost:7102"]
//! ca = "certs/ca.pem"
//! cert = "certs/client.pem"
//! key = "certs/client.key"
//! rack = "north" # optional, as is cluster_name
//! ```
//!
//! Relative paths are relative to the file, so that a profile can be moved together with its certificates.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{ClientBuilder, Error, TlsFiles};

/// Addresses and certificate paths, as a profile file holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Seed addresses, `host:port`, where the host may be a name for several nodes; any one that answers suffices to find the
    /// others.
    pub addresses: Vec<String>,
    /// PEM file of the authority (or authorities) that signs the nodes' certificates.
    pub ca: PathBuf,
    /// PEM file of the client's certificate, followed by its chain if there is one.
    pub cert: PathBuf,
    /// PEM file of the client's private key.
    pub key: PathBuf,
    /// The cluster's name; absent: the one in the client's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// The failure domain that the client stands in, as the nodes' `rack`: replicas there are read from first. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
}

impl Profile {
    /// Reads a profile; relative paths in it become relative to the file's directory.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read or is not a profile.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file_error = |problem: String| Error::File {
            path: path.to_owned(),
            problem,
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| file_error(format!("the profile cannot be read: {error}")))?;
        let mut profile: Profile = toml::from_str(&text)
            .map_err(|error| file_error(format!("is not a client profile: {}", problem(&text, &error))))?;
        if profile.addresses.is_empty() {
            return Err(file_error("`addresses` is empty: name at least one node".to_owned()));
        }
        if let Some(wrong) = profile.addresses.iter().find(|address| !is_host_and_port(address)) {
            return Err(file_error(format!(
                "`addresses`: {wrong:?} is not of the form host:port"
            )));
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        for file in [&mut profile.ca, &mut profile.cert, &mut profile.key] {
            *file = directory.join(&*file);
        }
        Ok(profile)
    }

    /// The text of a profile file that says this.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text =
            String::from("# Where the cluster is, and who the client is. Paths are relative to this file.\n");
        // A struct of strings always has a TOML form; an empty body would be refused by `load`.
        text.push_str(&toml::to_string(self).unwrap_or_default());
        text
    }

    /// A builder with what the profile says, to which more can be added.
    pub fn builder(&self) -> ClientBuilder {
        let builder = ClientBuilder::new().seeds(&self.addresses).tls(TlsFiles {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
        });
        let builder = match &self.cluster_name {
            Some(name) => builder.cluster_name(name),
            None => builder,
        };
        match &self.rack {
            Some(rack) => builder.rack(rack),
            None => builder,
        }
    }
}

/// What is wrong with a TOML text, and in which line.
fn problem(text: &str, error: &toml::de::Error) -> String {
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {}", before.matches('\n').count() + 1, error.message()),
        None => error.message().to_owned(),
    }
}

fn is_host_and_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn profile() -> Profile {
        Profile {
            addresses: vec!["localhost:7100".to_owned()],
            ca: "certs/ca.pem".into(),
            cert: "certs/client.pem".into(),
            key: "/keys/client.key".into(),
            cluster_name: None,
            rack: Some("north".to_owned()),
        }
    }

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profile.toml");
        std::fs::write(&path, profile().to_toml()).unwrap();
        let loaded = Profile::load(&path).unwrap();
        assert_eq!(loaded.ca, directory.path().join("certs/ca.pem"));
        assert_eq!(loaded.key, PathBuf::from("/keys/client.key"));
        assert_eq!((loaded.addresses, loaded.rack), (profile().addresses, profile().rack));
    }

    #[test]
    fn a_profile_with_a_typing_error_names_file_and_field() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profile.toml");
        std::fs::write(&path, profile().to_toml().replace("cert =", "crt =")).unwrap();
        let error = Profile::load(&path).unwrap_err().to_string();
        assert!(error.contains("profile.toml") && error.contains("crt"), "{error}");
        assert!(error.contains("line 4") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn an_address_without_a_port_is_told_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profile.toml");
        for wrong in ["localhost", "localhost:", ":7400", "localhost:70000", "localhost:http"] {
            std::fs::write(&path, profile().to_toml().replace("localhost:7100", wrong)).unwrap();
            let error = Profile::load(&path).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("host:port"), "{error}");
        }
    }

    #[test]
    fn a_missing_profile_names_the_file() {
        let error = Profile::load("/nonexistent/profile.toml").unwrap_err().to_string();
        assert!(error.contains("/nonexistent/profile.toml"), "{error}");
    }
}
