//! Why a call has no answer but a reason, and whether anything of it was done.

use super::reader::TOO_MANY_CALLS;

/// How a node begins to refuse a kind of call that it does not know.
pub(crate) const UNKNOWN_KIND: &str = "unknown kind of call";

/// In the kind of a failure's frame: nothing was done. Earlier builds sent 0 there whatever had happened.
const NOT_BEGUN: u8 = 1;

/// The reason for a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing of it was done.
    NotBegun(String),
    /// It was begun, and may be done in part or whole.
    Failed(String),
}

impl Refusal {
    /// As it arrived: the kind of its frame, and its text. Of earlier builds the text alone tells.
    pub(super) fn read(kind: u8, why: String) -> Refusal {
        match kind == NOT_BEGUN || why == TOO_MANY_CALLS || why.starts_with(UNKNOWN_KIND) {
            true => Refusal::NotBegun(why),
            false => Refusal::Failed(why),
        }
    }

    pub(super) fn kind(&self) -> u8 {
        match self {
            Refusal::NotBegun(_) => NOT_BEGUN,
            Refusal::Failed(_) => 0,
        }
    }

    pub(super) fn begun(&self) -> bool {
        matches!(self, Refusal::Failed(_))
    }

    pub(super) fn why(&self) -> &str {
        let (Refusal::NotBegun(why) | Refusal::Failed(why)) = self;
        why
    }
}

/// Whoever says no more has begun.
impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal::Failed(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_begun_is_known_by_its_kind_and_from_earlier_builds_by_its_text() {
        let read = |kind, why: &str| Refusal::read(kind, why.to_owned());
        for refusal in [
            Refusal::NotBegun("not now".to_owned()),
            Refusal::Failed("half way".to_owned()),
        ] {
            assert_eq!(read(refusal.kind(), refusal.why()), refusal);
        }
        assert!(!read(0, TOO_MANY_CALLS).begun());
        assert!(!read(0, "unknown kind of call 11").begun());
        assert!(read(0, "internal error: the handler of the call panicked").begun());
        assert!(read(0, "the message has 9 bytes, 8 are allowed").begun());
    }
}
