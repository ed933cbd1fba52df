//! Ports for the nodes of a development cluster: asked for, remembered, or any free ones.

use std::net::{Ipv4Addr, TcpListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::exit::{Failure, Result};

/// Where the ports begin if nobody says otherwise and they are free.
const PORT_DEFAULT: u16 = 7400;
/// How far behind a node's port its console is; more than there are nodes.
const CONSOLE_DISTANCE: u16 = 10;
/// Nodes of a killed `highwater dev` need a moment to notice and to close their ports.
const RELEASE_DEADLINE: Duration = Duration::from_secs(5);
const RELEASE_INTERVAL: Duration = Duration::from_millis(50);

/// Chooses `count` ports: from `first` on, which must be free then; any free ones for 0; without a wish from the
/// default on, or any free ones.
pub(super) fn choose(count: u32, first: Option<u16>) -> Result<Vec<u16>> {
    match first {
        Some(0) => any_free(count as usize),
        Some(first) => {
            let ports = row(count, first).ok_or_else(|| {
                Failure::usage(format!("--port {first} leaves no room for {count} ports below 65536"))
            })?;
            match ports.iter().find(|port| !is_free(**port)) {
                Some(taken) => Err(Failure::setup(format!("port {taken} is in use"))
                    .hint("give another --port, or --port 0 for any free ones")),
                None => Ok(ports),
            }
        }
        None => match row(count, PORT_DEFAULT).filter(|ports| ports.iter().all(|port| is_free(*port))) {
            Some(ports) => Ok(ports),
            None => any_free(count as usize),
        },
    }
}

/// A port for the console of each node: so far behind the node's own, or any free ones.
pub(super) fn beside(ports: &[u16]) -> Result<Vec<u16>> {
    let near: Option<Vec<u16>> = ports.iter().map(|port| port.checked_add(CONSOLE_DISTANCE)).collect();
    let is_good = |port: &u16| is_free(*port) && !ports.contains(port);
    if let Some(near) = near.filter(|near| near.iter().all(is_good)) {
        return Ok(near);
    }
    // Twice as many as are needed, since they may be those of the nodes, which are free, too.
    let mut free = any_free(2 * ports.len())?;
    free.retain(|port| !ports.contains(port));
    free.truncate(ports.len());
    Ok(free)
}

/// The same ports again, but for those that somebody else has taken for good.
pub(super) fn keep_or_replace(wanted: &[u16]) -> Result<Vec<u16>> {
    let deadline = Instant::now() + RELEASE_DEADLINE;
    while !wanted.iter().all(|port| is_free(*port)) && Instant::now() < deadline {
        sleep(RELEASE_INTERVAL);
    }
    let kept: Vec<Option<u16>> = wanted.iter().map(|port| is_free(*port).then_some(*port)).collect();
    let missing = kept.iter().filter(|port| port.is_none()).count();
    let mut fresh = any_free(missing)?.into_iter();
    Ok(kept
        .into_iter()
        .filter_map(|port| port.or_else(|| fresh.next()))
        .collect())
}

fn row(count: u32, first: u16) -> Option<Vec<u16>> {
    (0..count)
        .map(|number| u16::try_from(u32::from(first) + number).ok())
        .collect()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Listens on all of them at once, so that they differ.
fn any_free(count: usize) -> Result<Vec<u16>> {
    let probe = || -> std::io::Result<Vec<u16>> {
        let listeners = (0..count)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<std::io::Result<Vec<_>>>()?;
        listeners
            .iter()
            .map(|listener| Ok(listener.local_addr()?.port()))
            .collect()
    };
    probe().map_err(|error| Failure::setup(format!("cannot find free ports: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_port_that_is_asked_for_and_taken_is_refused() {
        let squatter = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = squatter.local_addr().unwrap().port();
        let failure = choose(1, Some(taken)).unwrap_err();
        assert!(failure.message.contains(&taken.to_string()), "{failure}");
    }

    #[test]
    fn free_ports_differ() {
        let mut ports = choose(9, Some(0)).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 9);
    }

    #[test]
    fn consoles_have_ports_of_their_own_also_where_the_near_ones_are_taken() {
        let ports = choose(3, Some(0)).unwrap();
        let near = beside(&ports).unwrap();
        assert_eq!(near.len(), 3);
        assert!(near.iter().all(|port| !ports.contains(port)), "{ports:?} {near:?}");
        let _squatter = TcpListener::bind((Ipv4Addr::LOCALHOST, near[1]));
        let others = beside(&ports).unwrap();
        assert!(others.len() == 3 && !others.contains(&near[1]), "{others:?}");
        assert!(beside(&[65_530]).unwrap()[0] != 65_530);
    }

    #[test]
    fn ports_end_at_65535() {
        assert!(choose(3, Some(65_534)).is_err());
        assert_eq!(row(2, 65_534), Some(vec![65_534, 65_535]));
    }
}
