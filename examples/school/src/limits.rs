//! How large things may be, and how one is told that they are not.

/// Letters of an id.
pub const ID_LETTERS_MAX: usize = 64;
/// Letters of a name or a title.
pub const NAME_LETTERS_MAX: usize = 200;
/// Letters of an e-mail address.
pub const EMAIL_LETTERS_MAX: usize = 254;
/// Letters of a course's description.
pub const DESCRIPTION_LETTERS_MAX: usize = 2_000;
/// What a course counts for.
pub const CREDITS_MAX: u32 = 60;
/// Courses that one student is enrolled in. At most [`BATCH_MAX`], as they are asked for at once.
pub const ENROLMENTS_MAX: usize = 64;
/// Students that a worker knows, and courses.
pub const KNOWN_MAX: usize = 100_000;
/// Enrolments of all students that a worker knows.
pub const ENROLMENTS_TOTAL_MAX: usize = 1_000_000;
/// Students or courses of one page.
pub const PAGE_MAX: u32 = 100;
/// Courses that are asked for at once.
pub const BATCH_MAX: usize = 100;
/// How long a client may have the gateway wait for what becomes of a command, seconds.
pub const WAIT_SECONDS_MAX: u64 = 30;
/// Letters of the reason why a command was rejected; more is cut off.
pub const REASON_LETTERS_MAX: usize = 300;

const _: () = assert!(ENROLMENTS_MAX <= BATCH_MAX);

/// Bytes that what a worker knows may take at most.
pub(crate) const KNOWN_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of a student (or a course) at the worst: an id of [`ID_LETTERS_MAX`] letters on the heap (80), its entry in a hash table that has
/// just doubled while the old one is still there (170), and the first node of a tree of enrolments (300).
const KNOWN_ONE_BYTES: usize = 640;
/// Bytes of an enrolment at the worst: an id on the heap (80), and its part of a tree whose nodes are half full (60).
const ENROLMENT_BYTES: usize = 160;

// 100,000 × 640 + 1,000,000 × 160 bytes = 224 MB, and 256 MiB are 268 MB. A test of `student` measures it.
const _: () = assert!(KNOWN_MAX * KNOWN_ONE_BYTES + ENROLMENTS_TOTAL_MAX * ENROLMENT_BYTES <= KNOWN_BYTES_MAX);

/// Something that was said is not valid: which field, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    field: &'static str,
    problem: String,
}

impl Invalid {
    /// A problem of a field.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

impl From<Invalid> for tonic::Status {
    fn from(invalid: Invalid) -> Self {
        Self::invalid_argument(invalid.to_string())
    }
}

/// An id: small letters, digits, and `.`, `_`, `-` behind the first; it stands in paths as it is.
///
/// # Errors
/// Names the field and the rule.
pub fn id(field: &'static str, text: &str) -> Result<(), Invalid> {
    let plain = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let is_right = match text.as_bytes() {
        [first, rest @ ..] => plain(*first) && rest.iter().all(|letter| plain(*letter) || b"._-".contains(letter)),
        [] => false,
    };
    if is_right && text.len() <= ID_LETTERS_MAX {
        return Ok(());
    }
    let rule = format!("1 to {ID_LETTERS_MAX} of a-z, 0-9, `.`, `_` and `-`, and a letter or digit first");
    Err(Invalid::new(field, rule))
}

/// A text that is not empty, of at most so many letters.
///
/// # Errors
/// Names the field and the limit.
pub fn text(field: &'static str, text: &str, letters_max: usize) -> Result<(), Invalid> {
    if text.trim().is_empty() {
        return Err(Invalid::new(field, "must not be empty"));
    }
    no_longer(field, text, letters_max)
}

/// A text of at most so many letters, which may be empty.
///
/// # Errors
/// Names the field and the limit.
pub fn no_longer(field: &'static str, text: &str, letters_max: usize) -> Result<(), Invalid> {
    match text.chars().count() {
        count if count > letters_max => Err(Invalid::new(
            field,
            format!("has {count} letters; at most {letters_max}"),
        )),
        _ => Ok(()),
    }
}

/// How many of a page were asked for.
///
/// # Errors
/// Names the limit.
pub fn page(limit: u32) -> Result<u32, Invalid> {
    match limit {
        0 => Ok(PAGE_MAX),
        1..=PAGE_MAX => Ok(limit),
        _ => Err(Invalid::new("limit", format!("is {limit}; at most {PAGE_MAX}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_plain() {
        for good in ["a", "ada", "9-lives", "x.y_z", &"a".repeat(ID_LETTERS_MAX)] {
            id("id", good).unwrap();
        }
        for bad in ["", "-a", "Ada", "a/b", "a b", "ä", &"a".repeat(ID_LETTERS_MAX + 1)] {
            assert!(
                id("id", bad).unwrap_err().to_string().starts_with("id: 1 to 64"),
                "{bad}"
            );
        }
    }

    #[test]
    fn letters_are_counted_and_not_bytes() {
        text("name", &"ä".repeat(3), 3).unwrap();
        assert_eq!(
            text("name", "abcd", 3).unwrap_err().to_string(),
            "name: has 4 letters; at most 3"
        );
        assert_eq!(text("name", " ", 3).unwrap_err().to_string(), "name: must not be empty");
        no_longer("description", "", 3).unwrap();
    }

    #[test]
    fn a_page_has_a_size() {
        assert_eq!(page(0), Ok(PAGE_MAX));
        assert_eq!(page(1), Ok(1));
        page(PAGE_MAX + 1).unwrap_err();
    }
}
