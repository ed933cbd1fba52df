//! Answers that must not tell whether something is there.

use highwater_proto::detail;

use super::reference::Outcome;
use super::world::Target;
use super::{Answer, Method, batch_refusal};

/// All of an answer that a caller can see.
pub(super) fn text(method: &Method, answer: &Answer) -> String {
    match answer {
        Ok(message) => match message.as_ref().and_then(|message| batch_refusal(method, message)) {
            Some(detail) => format!("{detail:?}"),
            None => format!("{message:?}"),
        },
        Err(status) => {
            let detail = detail::from_status(status);
            let again = detail.as_ref().map(|detail| detail::to_status(status.code(), detail));
            let is_whole =
                again.is_none_or(|again| (again.message(), again.details()) == (status.message(), status.details()));
            assert!(is_whole, "there is more in it than its detail: {status:?}");
            format!("{:?} {} {detail:?}", status.code(), status.message())
        }
    }
}

/// Answers to one caller that tell more than that something cannot be had. `also_given`: what is given tells of others' things, too.
pub(super) fn differences(answers: &[(Target, Outcome, String)], also_given: bool) -> Vec<String> {
    let mut different = Vec::new();
    for (number, (one, found, text)) in answers.iter().enumerate() {
        for (other, other_found, other_text) in &answers[..number] {
            let is_same_place = one.is_own == other.is_own;
            let must_be_alike = match found {
                // What is hidden looks like what is not there, wherever.
                Outcome::NotFound => true,
                Outcome::Denied => is_same_place,
                Outcome::Allowed => also_given && is_same_place && !one.is_own,
            };
            if found == other_found && must_be_alike && one.renamed(other, text) != *other_text {
                let (one, other) = (&one.topic, &other.topic);
                different.push(format!(
                    "what is answered about {one} and {other} differs: {text} {other_text}"
                ));
            }
        }
    }
    different
}
