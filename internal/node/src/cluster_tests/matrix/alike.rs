//! Answers that must not tell whether something is there.

use super::Answer;
use super::reference::Outcome;
use super::world::Target;

/// All of an answer that a caller can see.
pub(super) fn bytes(answer: &Answer) -> Vec<u8> {
    match answer {
        Ok(message) => message.as_deref().unwrap_or_default().to_vec(),
        Err(status) => {
            let (code, message) = (status.code() as i32, status.message());
            [format!("{code}: {message} ").as_bytes(), status.details()].concat()
        }
    }
}

/// Answers to one caller that tell more than that something cannot be had. `also_given`: what is given tells of others' things, too.
pub(super) fn differences(answers: &[(Target, Outcome, Vec<u8>)], also_given: bool) -> Vec<String> {
    let mut different = Vec::new();
    for (there, found, text) in answers.iter().filter(|(target, ..)| target.exists) {
        for (absent, found_absent, text_absent) in answers {
            let is_pair = !absent.exists && absent.is_own == there.is_own;
            let is_refused = *found != Outcome::Allowed || (also_given && !there.is_own);
            if !is_pair || !is_refused || found != found_absent {
                continue;
            }
            if there.renamed(absent, text) != *text_absent {
                let (text, text_absent) = (String::from_utf8_lossy(text), String::from_utf8_lossy(text_absent));
                let (there, absent) = (&there.topic, &absent.topic);
                different.push(format!(
                    "what is answered about {there} and {absent} differs: {text:?} {text_absent:?}"
                ));
            }
        }
    }
    different
}
