//! `highwater certs ca|node|client|cluster`: certificates for development, tests and small clusters.

mod set;

use std::net::IpAddr;
use std::path::PathBuf;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::certificates::{Authority, CA_CERTIFICATE, CA_STEM, PairPaths, Subject, Validity};
use crate::exit::{Failure, Result};
use crate::output;

/// How long an authority is valid, unless told otherwise.
const AUTHORITY_DAYS: u32 = 3650;
/// How long other certificates are valid, unless told otherwise.
const CERTIFICATE_DAYS: u32 = 365;
/// The longest that anything may be valid: certificates know no year beyond 9999.
const DAYS_MAX: i64 = 1_000_000;

const EXAMPLES: &str = "\
Examples:
  highwater certs ca --out certs --cluster highwater
  highwater certs node n1 --ca-dir certs --out certs --dns n1.highwater.internal
  highwater certs client acme billing --ca-dir certs --out certs
  highwater certs cluster n1 n2 n3 --cluster highwater --client acme/billing --out certs";

/// Make certificates.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Make a certificate authority for one cluster.
    Ca(CaArgs),
    /// Make the certificate of a node.
    Node(NodeArgs),
    /// Make the certificate of a client of a tenant.
    Client(ClientArgs),
    /// Make all certificates of a cluster at once, and its authority if there is none yet.
    Cluster(set::Args),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CaArgs {
    /// The directory for ca.pem and ca.key; made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The name of the cluster that all its certificates are for.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// The node's name.
    name: String,
    #[command(flatten)]
    issue: IssueArgs,
    /// A DNS name of the node besides localhost; may be repeated. Our own clients do not need it.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An IP address of the node besides the loopback addresses; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// The tenant whose topics the client uses.
    tenant: String,
    /// The client's name.
    name: String,
    #[command(flatten)]
    issue: IssueArgs,
}

#[derive(Debug, clap::Args)]
struct IssueArgs {
    /// The directory with ca.pem and ca.key.
    #[arg(long, value_name = "DIR")]
    ca_dir: PathBuf,
    /// The directory for the certificate (.pem) and its private key (.key); made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
struct CommonArgs {
    /// For how many days from now it is valid. Default: 3650 for an authority, 365 for others.
    #[arg(long, conflicts_with = "not_after", value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: Option<u32>,
    /// Valid from this time on, RFC 3339; five minutes ago if not given.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    not_before: Option<OffsetDateTime>,
    /// Valid until this time, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    not_after: Option<OffsetDateTime>,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
}

impl CommonArgs {
    fn validity(&self, days_default: u32) -> Result<Validity> {
        let mut validity = Validity::days(self.days.unwrap_or(days_default));
        validity.not_before = self.not_before.unwrap_or(validity.not_before);
        validity.not_after = self.not_after.unwrap_or(validity.not_after);
        if validity.not_after <= validity.not_before {
            return Err(Failure::usage("the certificate would end before it begins")
                .hint("give --not-after a later time than --not-before"));
        }
        Ok(validity)
    }
}

fn parse_time(text: &str) -> std::result::Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|error| format!("{error}; write it as RFC 3339, for example 2030-01-31T00:00:00Z"))
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Ca(args) => make_authority(args),
        Command::Node(args) => {
            let subject = Subject::Node {
                name: args.name.clone(),
                dns: args.dns.clone(),
                addresses: args.ip.clone(),
            };
            issue(&subject, &args.issue)
        }
        Command::Client(args) => {
            let subject = Subject::Client {
                tenant: args.tenant.clone(),
                name: args.name.clone(),
            };
            issue(&subject, &args.issue)
        }
        Command::Cluster(args) => set::make(args),
    }
}

fn make_authority(args: &CaArgs) -> Result<()> {
    let (_, pair) = Authority::create(&args.cluster, args.common.validity(AUTHORITY_DAYS)?)?;
    let paths = pair.write(&args.out, CA_STEM, args.common.force)?;
    tell(&paths)?;
    output::note("Keep the key secret: who has it can become any node and any client.");
    Ok(())
}

fn issue(subject: &Subject, args: &IssueArgs) -> Result<()> {
    let authority = Authority::load(&args.ca_dir)?;
    let pair = authority.issue(subject, args.common.validity(CERTIFICATE_DAYS)?)?;
    let paths = pair.write(&args.out, &subject.file_stem(), args.common.force)?;
    tell(&paths)?;
    let ca = args.ca_dir.join(CA_CERTIFICATE);
    output::note(format!(
        "For cluster {}, to be used with {}.",
        authority.cluster(),
        ca.display()
    ));
    Ok(())
}

fn tell(paths: &PairPaths) -> Result<()> {
    output::line(paths.certificate.display())?;
    output::line(paths.key.display())
}
