//! Attempts of a call that may have been done although nobody said so.
//!
//! The library repeats a call whose answer was lost. If an earlier attempt had been done, the repetition finds what that has left:
//! the topic exists, or the group is gone. That is then what was asked for, and no error. But it may be said only if an earlier
//! attempt is in doubt; otherwise somebody else was first.

use std::sync::atomic::{AtomicBool, Ordering};

use tonic::{Response, Status};

use crate::connect::was_never_sent;
use crate::error::{Outcome, Refusal};

/// Whether an attempt of one call may have been done.
#[derive(Debug, Default)]
pub(crate) struct Doubt(AtomicBool);

impl Doubt {
    /// Passes the answer to an attempt on, and notes whether it leaves open what became of it.
    pub(crate) fn note<T>(&self, answer: Result<Response<T>, Status>) -> Result<Response<T>, Status> {
        if answer.as_ref().is_err_and(outcome_is_open) {
            self.0.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Whether an attempt without an answer may have been done.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn outcome_is_open(status: &Status) -> bool {
    !was_never_sent(status) && Refusal::from_status("", status).outcome == Outcome::Unknown
}

#[cfg(test)]
mod tests {
    use highwater_proto::detail;
    use highwater_proto::v1::{self, ErrorDetail};
    use tonic::Code;

    use super::*;

    #[test]
    fn only_an_attempt_that_may_have_been_done_leaves_doubt_and_it_stays() {
        let refused = |outcome: v1::Outcome| {
            let detail = ErrorDetail {
                reason: v1::Reason::Unavailable as i32,
                outcome: outcome as i32,
                ..Default::default()
            };
            Err::<Response<()>, Status>(detail::to_status(Code::Unavailable, &detail))
        };
        let doubt = Doubt::default();
        assert!(doubt.note(refused(v1::Outcome::NotApplied)).is_err());
        assert!(!doubt.is_open());
        assert!(doubt.note(refused(v1::Outcome::Unknown)).is_err());
        assert!(doubt.note(Ok(Response::new(()))).is_ok());
        assert!(doubt.is_open());
        let broken = Doubt::default();
        assert!(
            broken
                .note::<()>(Err(Status::unavailable("the connection broke")))
                .is_err()
        );
        assert!(broken.is_open(), "below the services nobody knows");
    }
}
