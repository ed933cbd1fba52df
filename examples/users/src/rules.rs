//! What a user may look like. Every limit of a field is here, and every refusal names the field and its limit.
//!
//! E-mail addresses are ASCII, without quotes, comments and the like, although the standard has them: so an address can stand in a header
//! and in a command of SMTP as it is. They are compared in lower case.

use std::fmt;

use time::Date;

use crate::days;
use crate::proto::{CreateUserRequest, User};

/// The longest e-mail address, bytes; SMTP carries no longer one.
pub const EMAIL_BYTES_MAX: usize = 254;
/// The longest part before the `@`, bytes.
pub const EMAIL_LOCAL_BYTES_MAX: usize = 64;
/// The longest first name, and the longest last name, characters.
pub const NAME_LETTERS_MAX: usize = 100;
/// The longest postal address, characters.
pub const POSTAL_ADDRESS_LETTERS_MAX: usize = 500;
/// The first year that somebody may be born in.
pub const BIRTH_YEAR_MIN: i32 = 1900;
/// The longest part of a name that is searched for, characters: a whole name.
pub const NAME_PART_LETTERS_MAX: usize = 2 * NAME_LETTERS_MAX + 1;
/// The highest age that may be asked for, years.
pub const AGE_MAX: u32 = 200;

/// Marks that may stand before the `@` beside letters and digits.
const LOCAL_MARKS: &[u8] = b".!#$%&'*+-/=?^_`{|}~";

/// What is wrong with which field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Problem {
    /// As the contract names it.
    pub field: &'static str,
    /// In words, with the limit.
    pub problem: String,
}

impl Problem {
    /// A problem with a field.
    pub fn new(field: &'static str, problem: impl fmt::Display) -> Self {
        Self {
            field,
            problem: problem.to_string(),
        }
    }
}

/// The user that a request describes, as it is kept.
///
/// # Errors
/// The first field that is not as it should be.
pub fn user(request: CreateUserRequest, now_ms: i64) -> Result<User, Problem> {
    let birthdate = request.birthdate.filter(|text| !text.is_empty());
    Ok(User {
        email: email(&request.email)?,
        first_name: text("first_name", &request.first_name, NAME_LETTERS_MAX)?,
        last_name: text("last_name", &request.last_name, NAME_LETTERS_MAX)?,
        postal_address: text("postal_address", &request.postal_address, POSTAL_ADDRESS_LETTERS_MAX)?,
        birthdate: birthdate
            .map(|text| birth(&text, days::of_ms(now_ms)).map(|date| date.to_string()))
            .transpose()?,
        created_ms: now_ms,
    })
}

/// An e-mail address as it is kept and compared.
///
/// # Errors
/// If it is none, or none that this service takes.
pub fn email(text: &str) -> Result<String, Problem> {
    let wrong = |problem: String| Problem::new("email", problem);
    let text = text.trim();
    if text.len() > EMAIL_BYTES_MAX {
        return Err(wrong(format!(
            "has {} bytes; at most {EMAIL_BYTES_MAX} are allowed",
            text.len()
        )));
    }
    let (local, domain) = text.rsplit_once('@').ok_or_else(|| wrong("has no @".to_owned()))?;
    if !(1..=EMAIL_LOCAL_BYTES_MAX).contains(&local.len()) {
        let problem = format!(
            "has {} bytes before the @; 1 to {EMAIL_LOCAL_BYTES_MAX} are allowed",
            local.len()
        );
        return Err(wrong(problem));
    }
    let is_local = |byte: u8| byte.is_ascii_alphanumeric() || LOCAL_MARKS.contains(&byte);
    if !local.bytes().all(is_local) || local.split('.').any(str::is_empty) {
        return Err(wrong(
            "before the @ only ASCII letters, digits, some marks and single dots are allowed".to_owned(),
        ));
    }
    let is_label = |label: &str| {
        let inside = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inside && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    if !domain.split('.').all(is_label) {
        return Err(wrong(
            "behind the @ a domain of ASCII letters, digits and hyphens is wanted".to_owned(),
        ));
    }
    Ok(text.to_ascii_lowercase())
}

/// A text of 1 to `letters_max` characters, without blanks around it and without control characters.
///
/// # Errors
/// Which of these it is not.
pub fn text(field: &'static str, text: &str, letters_max: usize) -> Result<String, Problem> {
    let text = text.trim();
    let letters = text.chars().count();
    if !(1..=letters_max).contains(&letters) {
        return Err(Problem::new(
            field,
            format!("has {letters} characters; 1 to {letters_max} are allowed"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::new(
            field,
            "control characters, line breaks among them, are not allowed",
        ));
    }
    Ok(text.to_owned())
}

fn birth(text: &str, today: Date) -> Result<Date, Problem> {
    let wrong = |problem: String| Problem::new("birthdate", problem);
    let date = days::parse(text).ok_or_else(|| wrong(format!("{text:?} is no day; YYYY-MM-DD is wanted")))?;
    if date.year() < BIRTH_YEAR_MIN || date > today {
        return Err(wrong(format!(
            "{date} is not from {BIRTH_YEAR_MIN}-01-01 to today, {today}"
        )));
    }
    Ok(date)
}

/// An age that is asked for.
///
/// # Errors
/// If nobody becomes so old.
pub fn age(field: &'static str, years: u32) -> Result<u32, Problem> {
    if years > AGE_MAX {
        return Err(Problem::new(field, format!("{years} is more than {AGE_MAX}")));
    }
    Ok(years)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// 2026-01-02.
    const NOW_MS: i64 = 1_767_312_000_000;

    fn request() -> CreateUserRequest {
        CreateUserRequest {
            email: " Ann.Lee+x@Users.Example ".to_owned(),
            first_name: "Ann".to_owned(),
            last_name: "Lee".to_owned(),
            postal_address: "1 Quay, Port".to_owned(),
            birthdate: Some("1990-02-28".to_owned()),
        }
    }

    #[test]
    fn a_user_is_kept_with_the_address_in_lower_case() {
        let user = user(request(), NOW_MS).unwrap();
        assert_eq!(user.email, "ann.lee+x@users.example");
        assert_eq!(
            (user.birthdate.as_deref(), user.created_ms),
            (Some("1990-02-28"), NOW_MS)
        );
    }

    #[test]
    fn an_address_that_could_break_out_of_a_header_or_a_command_is_refused() {
        let long = format!("{}@b.example", "a".repeat(EMAIL_LOCAL_BYTES_MAX + 1));
        let longer = format!("a@{}example", "b.".repeat(EMAIL_BYTES_MAX));
        for address in [
            "",
            "a",
            "@b",
            "a@",
            "a b@c",
            "a@b>",
            "<a@b",
            "a\r\n@b",
            "a@b\r\nX: y",
            "a@@b",
            "a..b@c",
            ".a@b",
            "a@b..c",
            "a@-b",
            "ä@b",
            "a@ü",
            "a\"b@c",
            "a@b.",
            &long,
            &longer,
        ] {
            assert_eq!(email(address).unwrap_err().field, "email", "{address:?}");
        }
        for address in ["a@b", "a.b@c-d.example", "o'neil@users.example"] {
            assert_eq!(email(address).unwrap(), address);
        }
    }

    #[test]
    fn a_refusal_names_the_field_and_the_limit() {
        let long = "é".repeat(NAME_LETTERS_MAX + 1);
        type Set = fn(&mut CreateUserRequest, String);
        let cases: [(&str, &str, Set); 6] = [
            ("first_name: has 0 characters; 1 to 100", " ", |request, text| {
                request.first_name = text
            }),
            ("last_name: has 101 characters; 1 to 100", &long, |request, text| {
                request.last_name = text
            }),
            ("postal_address: control", "a\nb", |request, text| {
                request.postal_address = text
            }),
            ("birthdate: \"1990-13-01\" is no day", "1990-13-01", |request, text| {
                request.birthdate = Some(text)
            }),
            ("birthdate: 2026-01-03 is not from", "2026-01-03", |request, text| {
                request.birthdate = Some(text)
            }),
            ("birthdate: 1899-12-31 is not from", "1899-12-31", |request, text| {
                request.birthdate = Some(text)
            }),
        ];
        for (words, text, set) in cases {
            let mut request = request();
            set(&mut request, text.to_owned());
            let problem = user(request, NOW_MS).unwrap_err().to_string();
            assert!(problem.starts_with(words), "{problem}");
        }
    }
}
