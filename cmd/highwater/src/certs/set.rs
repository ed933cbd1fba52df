//! `highwater certs cluster`: the authority and all certificates of a cluster in one go, for whatever sets clusters up.
//!
//! It may be given again and again: an authority that is there stays, everything else is made anew.

use std::path::PathBuf;

use super::{AUTHORITY_DAYS, CERTIFICATE_DAYS, CommonArgs, tell};
use crate::certificates::{Authority, CA_STEM, Pair, Subject, Validity};
use crate::exit::{Failure, Result};
use crate::output;

/// Stands for the node's name in its DNS names.
const NODE: &str = "{node}";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The nodes' names.
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
    /// The name of the cluster that all certificates are for.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The directory with ca.pem and ca.key, if there is an authority already; else one is made. Default: that of --out.
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// The directory for all files, those of the authority among them; made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A client that gets a certificate; may be repeated.
    #[arg(long, value_name = "TENANT/CLIENT", value_parser = parse_client)]
    client: Vec<Subject>,
    /// A DNS name of each node, in which {node} stands for the node's own name; may be repeated.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

fn parse_client(text: &str) -> std::result::Result<Subject, String> {
    let (tenant, name) = text.split_once('/').ok_or("write it as tenant/client")?;
    Ok(Subject::Client {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
    })
}

pub(super) fn make(args: &Args) -> Result<()> {
    let ca_dir = args.ca_dir.as_ref().unwrap_or(&args.out);
    let (authority, authority_pair) = match Authority::is_in(ca_dir) {
        true => Authority::load_pair(ca_dir)?,
        false => Authority::create(&args.cluster, Validity::days(AUTHORITY_DAYS))?,
    };
    if authority.cluster() != args.cluster {
        let message = format!(
            "the authority in {} is that of cluster {}",
            ca_dir.display(),
            authority.cluster()
        );
        return Err(Failure::setup(message).hint("give another --ca-dir, or that cluster's name"));
    }
    // Nothing is written before all of it could be made.
    let validity = args.common.validity(CERTIFICATE_DAYS)?;
    let mut made = Vec::new();
    for subject in args
        .nodes
        .iter()
        .map(|node| args.node(node))
        .chain(args.client.iter().cloned())
    {
        made.push((subject.file_stem(), authority.issue(&subject, validity)?));
    }
    args.write_authority(&authority_pair)?;
    for (stem, pair) in made {
        tell(&pair.write(&args.out, &stem, args.common.force)?)?;
    }
    output::note(format!("For cluster {}.", authority.cluster()));
    Ok(())
}

impl Args {
    fn node(&self, name: &str) -> Subject {
        Subject::Node {
            name: name.to_owned(),
            dns: self.dns.iter().map(|dns| dns.replace(NODE, name)).collect(),
            addresses: Vec::new(),
        }
    }

    /// An authority that is in its place already is left as it is.
    fn write_authority(&self, pair: &Pair) -> Result<()> {
        if Authority::is_in(&self.out) && self.ca_dir.as_ref().is_none_or(|ca_dir| *ca_dir == self.out) {
            return Ok(());
        }
        tell(&pair.write(&self.out, CA_STEM, self.common.force)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;

    use clap::Parser;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }

    fn args(out: &Path, more: &[&str]) -> Args {
        let own = ["set", "n1", "n2", "--out", out.to_str().unwrap()];
        Only::try_parse_from(own.iter().chain(more)).unwrap().args
    }

    fn read(directory: &Path, file: &str) -> String {
        fs::read_to_string(directory.join(file)).unwrap()
    }

    #[test]
    fn an_authority_that_is_there_stays_and_the_rest_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path();
        let more = ["--cluster", "c", "--client", "acme/app", "--dns", "{node}.example"];
        make(&args(out, &more)).unwrap();
        let files = ["ca.pem", "ca.key", "node-n1.pem", "node-n2.key", "client-acme-app.pem"];
        let before = files.map(|file| read(out, file));
        assert!(make(&args(out, &more)).unwrap_err().message.contains("exists already"));
        make(&args(out, &[&more[..], &["--force"]].concat())).unwrap();
        let stayed: Vec<bool> = files
            .iter()
            .zip(&before)
            .map(|(file, before)| read(out, file) == *before)
            .collect();
        assert_eq!(stayed, [true, true, false, false, false]);
        let der = CertificateDer::from_pem_slice(read(out, "node-n1.pem").as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap().value;
        assert!(format!("{names:?}").contains("n1.example"), "{names:?}");
    }

    #[test]
    fn an_authority_from_elsewhere_is_taken_along() {
        let directory = tempfile::tempdir().unwrap();
        let (elsewhere, out) = (directory.path().join("elsewhere"), directory.path().join("out"));
        make(&args(&elsewhere, &["--cluster", "c"])).unwrap();
        make(&args(
            &out,
            &["--cluster", "c", "--ca-dir", elsewhere.to_str().unwrap()],
        ))
        .unwrap();
        for file in ["ca.pem", "ca.key"] {
            assert_eq!(read(&out, file), read(&elsewhere, file));
        }
    }

    #[test]
    fn the_authority_of_another_cluster_is_refused_before_anything_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let (elsewhere, out) = (directory.path().join("elsewhere"), directory.path().join("out"));
        make(&args(&elsewhere, &["--cluster", "other"])).unwrap();
        let refused = make(&args(
            &out,
            &["--cluster", "c", "--ca-dir", elsewhere.to_str().unwrap()],
        ))
        .unwrap_err();
        assert!(refused.message.contains("is that of cluster other"), "{refused}");
        assert!(!out.exists());
    }
}
