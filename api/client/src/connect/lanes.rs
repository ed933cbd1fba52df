//! How many connections to one address, and which of them takes the next long stream.
//!
//! One connection is enough for most: it carries all calls and many streams. But one connection is also one TCP flow and
//! one TLS session, worked off by one thread at a time on either side, and a lost packet stops all its streams. So streams
//! go where the fewest are, and another connection is made when each has [`STREAMS_EACH`], up to [`SPREAD_MAX`]. Beyond that
//! only the limit of streams that nodes allow on a connection makes more, up to [`CONNECTIONS_MAX`]; then there is no room,
//! and whoever wants a stream tries again.
//!
//! When streams end, one idle connection is kept beside the first, so that a stream that comes and goes does not cost a
//! handshake each time; other idle ones are closed.

use highwater_proto::limits::CONNECTION_STREAMS_MAX;

/// Streams on each connection before another one is made.
const STREAMS_EACH: usize = 32;
/// How many connections are made for the sake of speed.
const SPREAD_MAX: usize = 4;
/// How many streams of a connection may be leased; the rest is for calls.
const STREAMS_MAX: usize = CONNECTION_STREAMS_MAX as usize - 28;
/// How many connections to one address at most.
const CONNECTIONS_MAX: usize = 32;
/// How many connections without streams are kept beside the first.
const SPARE: usize = 1;

const _: () = assert!(STREAMS_EACH <= STREAMS_MAX && SPREAD_MAX <= CONNECTIONS_MAX);

/// Where a stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the connection of that number.
    At(usize),
    /// On a further connection.
    Further,
    /// Nowhere at the moment.
    Full,
}

/// The place for one more stream, by the number of streams on each connection.
pub(super) fn place(streams: &[usize]) -> Place {
    let enough = match streams.len() < SPREAD_MAX {
        true => STREAMS_EACH,
        false => STREAMS_MAX,
    };
    let least = (0..streams.len()).min_by_key(|number| streams[*number]);
    match least.filter(|number| streams[*number] < enough) {
        Some(number) => Place::At(number),
        None if streams.len() < CONNECTIONS_MAX => Place::Further,
        None => Place::Full,
    }
}

/// Which connection to close, by the number of streams on each.
pub(super) fn surplus(streams: &[usize]) -> Option<usize> {
    let idle = (1..streams.len()).filter(|number| streams[*number] == 0);
    idle.skip(SPARE).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The streams of each connection when so many have come.
    fn filled(count: usize) -> Vec<usize> {
        let mut streams = vec![0];
        for _ in 0..count {
            match place(&streams) {
                Place::At(number) => streams[number] += 1,
                Place::Further => streams.push(1),
                Place::Full => break,
            }
        }
        streams
    }

    #[test]
    fn few_streams_share_the_first_connection_and_more_are_spread() {
        assert_eq!(filled(STREAMS_EACH), [STREAMS_EACH]);
        assert_eq!(filled(STREAMS_EACH + 1), [STREAMS_EACH, 1]);
        assert_eq!(filled(SPREAD_MAX * STREAMS_EACH), [STREAMS_EACH; SPREAD_MAX]);
        assert_eq!(
            filled(SPREAD_MAX * STREAMS_MAX),
            [STREAMS_MAX; SPREAD_MAX],
            "then they are filled"
        );
        assert_eq!(filled(SPREAD_MAX * STREAMS_MAX + 1).len(), SPREAD_MAX + 1);
    }

    #[test]
    fn a_connection_whose_streams_have_ended_gets_the_next_ones() {
        assert_eq!(place(&[20, 3]), Place::At(1));
    }

    #[test]
    fn there_is_an_end_to_it() {
        let most = filled(usize::from(u16::MAX));
        assert_eq!(most, [STREAMS_MAX; CONNECTIONS_MAX]);
        assert_eq!(place(&most), Place::Full);
    }

    #[test]
    fn of_the_idle_ones_the_first_and_a_spare_are_kept() {
        assert_eq!(surplus(&[0, 0]), None);
        assert_eq!(surplus(&[0, 5, 0]), None);
        assert_eq!(surplus(&[0, 0, 7, 0]), Some(3));
        assert_eq!(surplus(&[7, 0, 0]), Some(2));
    }
}
