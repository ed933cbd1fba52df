//! Users to begin with, so that there is something to look at.
//!
//! They are appended to each partition only as its very first records, by the same conditional append as everything else: so they are there
//! once, though several servers start together, and they do not come back. Their addresses are of a domain that nobody has.

use std::fmt;

use highwater::Record;
use highwater_service::{Declined, Writer};

use crate::events;
use crate::proto::User;
use crate::users::Users;

/// First name, last name and, as it is ASCII, the address before the `@`.
const NAMES: [(&str, &str, &str); 50] = [
    ("Ada", "Berg", "ada.berg"),
    ("Adil", "Rahman", "adil.rahman"),
    ("Aiko", "Mori", "aiko.mori"),
    ("Alba", "Serra", "alba.serra"),
    ("Amara", "Okoye", "amara.okoye"),
    ("Anton", "Weiss", "anton.weiss"),
    ("Bao", "Tran", "bao.tran"),
    ("Bea", "Rossi", "bea.rossi"),
    ("Björn", "Lund", "bjorn.lund"),
    ("Cem", "Öztürk", "cem.ozturk"),
    ("Chloé", "Martin", "chloe.martin"),
    ("Dana", "Novak", "dana.novak"),
    ("Diego", "Peña", "diego.pena"),
    ("Edda", "Frost", "edda.frost"),
    ("Elif", "Kaya", "elif.kaya"),
    ("Emil", "Hansen", "emil.hansen"),
    ("Esi", "Mensah", "esi.mensah"),
    ("Farid", "Aziz", "farid.aziz"),
    ("Fiona", "Walsh", "fiona.walsh"),
    ("Goran", "Horvat", "goran.horvat"),
    ("Greta", "Vogel", "greta.vogel"),
    ("Hana", "Suzuki", "hana.suzuki"),
    ("Hugo", "Moreau", "hugo.moreau"),
    ("Ines", "Costa", "ines.costa"),
    ("Ivan", "Petrov", "ivan.petrov"),
    ("Jana", "Dvořák", "jana.dvorak"),
    ("Jonas", "Keller", "jonas.keller"),
    ("Juana", "Ramos", "juana.ramos"),
    ("Kaito", "Sato", "kaito.sato"),
    ("Karin", "Holm", "karin.holm"),
    ("Kofi", "Boateng", "kofi.boateng"),
    ("Lena", "Fischer", "lena.fischer"),
    ("Liam", "Byrne", "liam.byrne"),
    ("Łucja", "Nowak", "lucja.nowak"),
    ("Mei", "Chen", "mei.chen"),
    ("Milo", "Janssen", "milo.janssen"),
    ("Nadia", "Haddad", "nadia.haddad"),
    ("Nils", "Eriksson", "nils.eriksson"),
    ("Olga", "Smirnova", "olga.smirnova"),
    ("Omar", "Farouk", "omar.farouk"),
    ("Paola", "Greco", "paola.greco"),
    ("Priya", "Nair", "priya.nair"),
    ("Ravi", "Patel", "ravi.patel"),
    ("Rosa", "Lopez", "rosa.lopez"),
    ("Sven", "Dahl", "sven.dahl"),
    ("Tala", "Reyes", "tala.reyes"),
    ("Tomas", "Silva", "tomas.silva"),
    ("Una", "Doyle", "una.doyle"),
    ("Yusuf", "Demir", "yusuf.demir"),
    ("Zoë", "Baker", "zoe.baker"),
];
const STREETS: [&str; 7] = [
    "Quay",
    "Mill Lane",
    "Station Road",
    "Orchard Way",
    "High Street",
    "Lighthouse Walk",
    "Market Square",
];
const TOWNS: [&str; 5] = ["Northport", "Eastmere", "Southcliff", "Westford", "Midhaven"];
/// They have come one by one, the last of them now: so that the months look like something.
const APART_MS: i64 = 8 * 24 * 60 * 60 * 1000;

/// Nothing refuses a sample.
#[derive(Debug)]
enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// Appends the samples to those partitions that nothing has ever been appended to.
///
/// # Errors
/// If that cannot be done or is not known to be done; it may be tried again.
pub async fn ensure(writer: &Writer<Users>, now_ms: i64) -> Result<(), String> {
    let partitions = writer.view().partitions();
    for partition in 0..partitions {
        let own = all(now_ms).filter(|user| events::partition(&user.email, partitions) == partition);
        let records: Vec<Record> = own.map(|user| events::created(&user)).collect();
        let decide = |users: &Users| -> Result<_, Never> {
            let is_first = users.is_untouched(partition);
            Ok(if is_first { records.clone() } else { Vec::new() })
        };
        let decided = writer.decide(partition, decide).await;
        decided.map_err(|declined: Declined<Never>| declined.to_string())?;
    }
    Ok(())
}

/// How many there are.
pub const COUNT: usize = NAMES.len();

/// All of them, the last one created at that moment.
pub fn all(now_ms: i64) -> impl Iterator<Item = User> {
    NAMES.iter().enumerate().map(move |(place, (first, last, local))| User {
        email: format!("{local}@users.example"),
        first_name: (*first).to_owned(),
        last_name: (*last).to_owned(),
        postal_address: format!(
            "{} {}, {}",
            place + 1,
            STREETS[place % STREETS.len()],
            TOWNS[place % TOWNS.len()]
        ),
        // Steps that have no factor in common with the ranges, so that years, months and days differ.
        birthdate: Some(format!(
            "{}-{:02}-{:02}",
            1940 + place * 23 % 66,
            1 + place * 5 % 12,
            1 + place * 11 % 28
        )),
        created_ms: now_ms - APART_MS * (NAMES.len() - 1 - place) as i64,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use crate::proto::CreateUserRequest;
    use crate::{days, rules};

    #[test]
    fn samples_are_users_like_all_others() {
        let now_ms = days::now_ms();
        let emails: BTreeSet<String> = all(now_ms).map(|user| user.email).collect();
        assert_eq!(emails.len(), COUNT);
        for sample in all(now_ms) {
            let request = CreateUserRequest {
                email: sample.email.clone(),
                first_name: sample.first_name.clone(),
                last_name: sample.last_name.clone(),
                postal_address: sample.postal_address.clone(),
                birthdate: sample.birthdate.clone(),
            };
            assert_eq!(rules::user(request, sample.created_ms).unwrap(), sample);
        }
    }
}
