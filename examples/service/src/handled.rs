//! Up to where a [`Transform`](crate::transform::Transform)'s source has been handled, as the destination itself says: each of its records names
//! the record that it follows from.

use std::collections::HashMap;

use highwater::ConsumedRecord;

use crate::view::State;

/// The header that says which record of the source a record follows from: the offset in decimal digits.
pub const SOURCE: &str = "source-offset";
/// The header that says which topic that is: its id in decimal digits. Another topic of the same name has the same offsets.
pub const SOURCE_TOPIC: &str = "source-topic";

/// The state of the destination, and up to where the source has been handled.
#[derive(Debug)]
pub(crate) struct Handled<S> {
    pub(crate) state: S,
    /// By partition, the last offset of the source that something has followed from.
    sources: HashMap<u32, u64>,
    /// Of which topic those are, as the records say.
    source_topics: HashMap<u32, u64>,
}

impl<S> Handled<S> {
    /// Nothing is known yet.
    pub(crate) fn new(state: S) -> Self {
        Self {
            state,
            sources: HashMap::new(),
            source_topics: HashMap::new(),
        }
    }

    /// Another topic that records have followed from, if there is one.
    pub(crate) fn other_source(&self, topic_id: u64) -> Option<u64> {
        self.source_topics.values().copied().find(|id| *id != topic_id)
    }

    /// Whether nothing has followed from this record of the source yet.
    pub(crate) fn is_new(&self, record: &ConsumedRecord) -> bool {
        let source = self.sources.get(&record.partition);
        source.is_none_or(|source| *source < record.offset)
    }
}

impl<S: State> State for Handled<S> {
    /// A state that keeps itself has the record before already; but only that record says up to where the source has been handled.
    fn position(&self, partition: u32) -> u64 {
        self.state.position(partition).saturating_sub(1)
    }

    fn apply(&mut self, partition: u32, records: &[ConsumedRecord]) {
        if let Some(source) = records.iter().rev().find_map(source_of) {
            self.sources.insert(partition, source);
        }
        if let Some(topic_id) = records.iter().rev().find_map(|record| number(record, SOURCE_TOPIC)) {
            self.source_topics.insert(partition, topic_id);
        }
        let position = self.state.position(partition);
        let known = records.partition_point(|record| record.offset < position);
        if known < records.len() {
            self.state.apply(partition, &records[known..]);
        }
    }
}

/// The offset of the source that a record of the destination follows from.
#[must_use]
pub fn source_of(record: &ConsumedRecord) -> Option<u64> {
    number(record, SOURCE)
}

fn number(record: &ConsumedRecord, name: &str) -> Option<u64> {
    let header = record.headers.iter().find(|header| header.name == name)?;
    std::str::from_utf8(&header.value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state that keeps itself, and has been kept at an offset.
    struct Kept(u64);

    impl State for Kept {
        fn position(&self, _partition: u32) -> u64 {
            self.0
        }

        fn apply(&mut self, _partition: u32, records: &[ConsumedRecord]) {
            assert_eq!(records.first().map(|record| record.offset), Some(self.0));
            self.0 += records.len() as u64;
        }
    }

    fn record(offset: u64, source: Option<u64>) -> ConsumedRecord {
        let headers = source.map(|source| highwater::Header {
            name: SOURCE.to_owned(),
            value: source.to_string().into(),
        });
        ConsumedRecord {
            partition: 0,
            offset,
            key: None,
            value: "".into(),
            headers: headers.into_iter().collect(),
            timestamp_ms: 0,
            append_time_ms: 0,
        }
    }

    #[test]
    fn a_state_that_keeps_itself_is_told_nothing_twice_and_yet_what_has_been_handled_is_known() {
        let mut handled = Handled::new(Kept(5));
        let first = handled.position(0);
        assert_eq!(first, 4);
        handled.apply(0, &[record(first, Some(7))]);
        assert_eq!(handled.state.0, 5);
        assert!(!handled.is_new(&record(7, None)));
        assert!(handled.is_new(&record(8, None)));
        handled.apply(0, &[record(5, Some(8)), record(6, Some(8))]);
        assert_eq!(handled.state.0, 7);
        assert!(!handled.is_new(&record(8, None)));
    }
}
