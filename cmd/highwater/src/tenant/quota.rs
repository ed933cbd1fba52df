//! `highwater tenant describe|quota`: what a tenant and its clients may use, and what they use.

use std::collections::BTreeMap;

use highwater::Access;
use highwater::proto::v1::{Amounts, ChangeQuotaRequest, ClientUse, DescribeTenantResponse};
use serde_json::{Map, Value, json};

use crate::exit::{Code, Failure, Result};
use crate::output::{self, Format, Table};
use crate::profile::failure;

/// How many limits there are.
const COUNT: usize = 9;
/// The limits, as they are written.
const LIMITS: [&str; COUNT] = [
    "produce_bytes_per_second",
    "consume_bytes_per_second",
    "requests_per_second",
    "connections",
    "streams",
    "topics",
    "partitions",
    "groups",
    "stored_bytes",
];
/// What may stand behind a number, and what it is then multiplied with.
const UNITS: [(&str, u64); 6] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
];

/// One limit and what it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    limit: usize,
    value: u64,
}

/// What changes of a quota.
#[derive(Debug, clap::Args)]
pub(super) struct Change {
    /// The tenant.
    tenant: String,
    /// One of its clients, or `*`: each client that has no quota of its own. Without it: all clients together.
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
    /// A limit that counts from now on; the number may end with k, M, G, Ki, Mi or Gi. Repeatable.
    #[arg(long, value_name = "LIMIT=NUMBER", value_parser = parse_setting)]
    set: Vec<Setting>,
    /// A limit that counts no longer. Repeatable.
    #[arg(long, value_name = "LIMIT", value_parser = LIMITS)]
    clear: Vec<String>,
}

fn parse_setting(text: &str) -> std::result::Result<Setting, String> {
    let (name, number) = text.split_once('=').ok_or("it is not of the form LIMIT=NUMBER")?;
    let limit = LIMITS.iter().position(|limit| *limit == name);
    let limit = limit.ok_or_else(|| format!("there is no limit {name}; there are {}", LIMITS.join(", ")))?;
    let value = parse_number(number)?;
    Ok(Setting { limit, value })
}

/// A whole number, perhaps with a unit.
fn parse_number(text: &str) -> std::result::Result<u64, String> {
    let unit = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit));
    let (digits, factor) = unit.map_or((text, 1), |(unit, factor)| (&text[..text.len() - unit.len()], factor));
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no whole number, like 500, 20k or 64Mi"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text} is too large"))
}

pub(super) async fn change(access: &Access, change: &Change, format: Format) -> Result<()> {
    if change.set.is_empty() && change.clear.is_empty() {
        let hint = format!(
            "say what: --set LIMIT=NUMBER or --clear LIMIT, of {}",
            LIMITS.join(", ")
        );
        return Err(Failure::new(Code::Usage, "nothing is to be changed").hint(hint));
    }
    let mut set = Amounts::default();
    for Setting { limit, value } in &change.set {
        *places(&mut set)[*limit] = Some(*value);
    }
    let request = ChangeQuotaRequest {
        tenant: change.tenant.clone(),
        client: change.client.clone(),
        set: Some(set),
        clear: change.clear.clone(),
    };
    access.change_quota(request).await.map_err(failure)?;
    describe(access, &change.tenant, format).await
}

pub(super) async fn describe(access: &Access, tenant: &str, format: Format) -> Result<()> {
    let described = access.describe_tenant(tenant).await.map_err(failure)?;
    match format {
        Format::Json => output::json(&in_json(&described)),
        Format::Text => in_words(&described),
    }
}

fn in_words(described: &DescribeTenantResponse) -> Result<()> {
    let state = if described.suspended { "suspended" } else { "active" };
    output::line(format!("Tenant {}, {state}.\n", described.tenant))?;
    let mut table = Table::new(&["LIMIT", "USED", "QUOTA"]);
    let (quota, used) = (described.quota.unwrap_or_default(), described.used.unwrap_or_default());
    for ((name, quota), used) in LIMITS.iter().zip(values(quota)).zip(values(used)) {
        table.row([(*name).to_owned(), number(used), number(quota)]);
    }
    table.print()?;
    if described.clients.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let mut table = Table::new(&[
        "CLIENT",
        "PRODUCE B/S",
        "CONSUME B/S",
        "REQUESTS/S",
        "CONNECTIONS",
        "STREAMS",
    ]);
    for client in &described.clients {
        let cells = of_client(client);
        table.row([
            client.client.clone(),
            cell(cells[0]),
            cell(cells[1]),
            cell(cells[2]),
            cell(cells[3]),
            cell(cells[4]),
        ]);
    }
    table.print()
}

/// What a client uses and may use, of all that there is for clients.
fn of_client(client: &ClientUse) -> [(Option<u64>, Option<u64>); COUNT] {
    let used = values(client.used.unwrap_or_default());
    let quota = values(client.quota.unwrap_or_default());
    std::array::from_fn(|at| (used[at], quota[at]))
}

/// Used, and of how much; `*` uses nothing itself.
fn cell((used, quota): (Option<u64>, Option<u64>)) -> String {
    match (used, quota) {
        (Some(used), Some(quota)) => format!("{used} of {quota}"),
        (None, Some(quota)) => format!("of {quota}"),
        (used, None) => number(used),
    }
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn in_json(described: &DescribeTenantResponse) -> Value {
    let clients = described.clients.iter().map(|client| {
        json!({
            "client": client.client,
            "quota": object(client.quota),
            "used": object(client.used),
        })
    });
    json!({
        "tenant": described.tenant,
        "suspended": described.suspended,
        "quota": object(described.quota),
        "used": object(described.used),
        "clients": clients.collect::<Vec<_>>(),
    })
}

/// What there is of it, by name.
fn object(amounts: Option<Amounts>) -> Value {
    let given = by_name(amounts).into_iter();
    Value::Object(
        given
            .map(|(name, value)| (name, value.into()))
            .collect::<Map<String, Value>>(),
    )
}

/// The limits that are set, by name.
pub(crate) fn by_name(amounts: Option<Amounts>) -> BTreeMap<String, u64> {
    let named = LIMITS.iter().zip(values(amounts.unwrap_or_default()));
    named
        .filter_map(|(name, value)| Some(((*name).to_owned(), value?)))
        .collect()
}

/// Limits from their names; the error is a name that is none.
pub(crate) fn from_names(limits: &BTreeMap<String, u64>) -> std::result::Result<Amounts, &str> {
    let mut amounts = Amounts::default();
    for (name, value) in limits {
        let limit = LIMITS.iter().position(|limit| limit == name).ok_or(name.as_str())?;
        *places(&mut amounts)[limit] = Some(*value);
    }
    Ok(amounts)
}

fn values(mut amounts: Amounts) -> [Option<u64>; COUNT] {
    places(&mut amounts).map(|place| *place)
}

/// In the order of [`LIMITS`].
fn places(amounts: &mut Amounts) -> [&mut Option<u64>; COUNT] {
    [
        &mut amounts.produce_bytes_per_second,
        &mut amounts.consume_bytes_per_second,
        &mut amounts.requests_per_second,
        &mut amounts.connections,
        &mut amounts.streams,
        &mut amounts.topics,
        &mut amounts.partitions,
        &mut amounts.groups,
        &mut amounts.stored_bytes,
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn settings_are_a_limit_and_a_number_with_or_without_a_unit() {
        for (text, limit, value) in [
            ("topics=0", "topics", 0),
            ("produce_bytes_per_second=10M", "produce_bytes_per_second", 10_000_000),
            ("stored_bytes=2Gi", "stored_bytes", 2 << 30),
            ("requests_per_second=5k", "requests_per_second", 5_000),
        ] {
            let setting = parse_setting(text).unwrap();
            assert_eq!((LIMITS[setting.limit], setting.value), (limit, value), "{text}");
        }
        for wrong in [
            "topics",
            "topics=",
            "topics=many",
            "topics=-1",
            "topics=1T",
            "topic=1",
            "topics=99999999999G",
        ] {
            assert!(parse_setting(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_limited_is_shown_as_such() {
        let amounts = Amounts {
            streams: Some(4),
            ..Amounts::default()
        };
        let quota = Some(amounts);
        assert_eq!(object(quota), json!({ "streams": 4 }));
        assert_eq!(from_names(&by_name(quota)), Ok(amounts));
        assert_eq!(from_names(&BTreeMap::from([("stream".to_owned(), 4)])), Err("stream"));
        assert_eq!(cell((Some(3), Some(4))), "3 of 4");
        assert_eq!(cell((None, Some(4))), "of 4");
        assert_eq!((cell((None, None)), number(None)), ("-".to_owned(), "-".to_owned()));
    }
}
