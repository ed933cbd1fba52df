//! How many of something there are at the moment.

use std::sync::Arc;

/// Counts those that hold a [`Ticket`].
#[derive(Debug, Default)]
pub(crate) struct Crowd(Arc<()>);

/// Stands for one of them; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    _held: Arc<()>,
}

impl Crowd {
    /// One more.
    pub(crate) fn enter(&self) -> Ticket {
        Ticket { _held: self.0.clone() }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1 // this itself
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_have_gone_do_not_count() {
        let crowd = Crowd::default();
        let tickets = [crowd.enter(), crowd.enter()];
        let third = crowd.enter();
        assert_eq!(crowd.count(), 3);
        drop(tickets);
        assert_eq!(crowd.count(), 1);
        drop(third);
        assert_eq!(crowd.count(), 0);
    }
}
