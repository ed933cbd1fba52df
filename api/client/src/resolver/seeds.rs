//! Seeds: the addresses from which a client finds its cluster.
//!
//! A seed is `host:port`. A host that is a name may stand for many nodes, as that of a Kubernetes service does; then each
//! of its addresses is tried on its own, so that one behind which nobody answers does not hide the others. Names are looked
//! up anew each time, for nodes come and go. A name with one address is left as it is: then the connection carries it, and
//! a proxy can go by it.
//!
//! Deliberately absent: SRV records, and waiting for names; one that is not found is reported like an address that does
//! not answer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep_until, timeout};

use crate::deadline::Deadline;

/// How long the first addresses are left to answer alone before the next one is asked, too.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long a name may take to be looked up; then it is left to whoever connects to it.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// How many addresses are tried, of all seeds together.
const ADDRESSES_MAX: usize = 256;

/// Finds the addresses of `host:port`.
type LookUp = fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

fn ask_the_system(seed: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
    async move { Ok(lookup_host(seed).await?.collect()) }.boxed()
}

/// Where to look for the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Seeds {
    named: Vec<String>,
    look_up: LookUp,
}

/// One address to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seed {
    pub(crate) address: String,
    /// The seed that it comes from.
    named: String,
}

impl Seed {
    /// What to call it in an error.
    pub(crate) fn label(&self) -> String {
        match self.address == self.named {
            true => self.address.clone(),
            false => format!("{} ({})", self.named, self.address),
        }
    }
}

impl Seeds {
    pub(crate) fn new(named: Vec<String>) -> Self {
        Self {
            named,
            look_up: ask_the_system,
        }
    }

    /// All addresses as they are now, in the order of the seeds, each once. Takes no longer than a quarter of `patience`.
    pub(crate) async fn addresses(&self, patience: Duration) -> Vec<Seed> {
        let limit = LOOK_UP_TIMEOUT.min(patience / 4);
        let looked_up = self
            .named
            .iter()
            .map(|named| timeout(limit, (self.look_up)(named.clone())));
        let looked_up = join_all(looked_up).await;
        let mut seeds: Vec<Seed> = Vec::new();
        for (named, found) in self.named.iter().zip(looked_up) {
            let addresses = match found {
                Ok(Ok(found)) if found.len() > 1 => found.iter().map(SocketAddr::to_string).collect(),
                _ => vec![named.clone()],
            };
            for address in addresses {
                let is_new = seeds.iter().all(|seed| seed.address != address);
                if is_new && seeds.len() < ADDRESSES_MAX {
                    let named = named.clone();
                    seeds.push(Seed { address, named });
                }
            }
        }
        seeds
    }
}

/// The first success of trying each seed once, or all failures in the order of the seeds. The next one is tried when the
/// others have failed or have not answered for a moment, so silent ones do not use up the time.
pub(crate) async fn first_of<T, E, F>(
    seeds: Vec<Seed>,
    deadline: Deadline,
    open: impl Fn(Seed) -> F,
) -> Result<(Seed, T), Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let interval = INTERVAL.min(deadline.left() / 2 / seeds.len().max(1) as u32);
    let mut waiting = seeds.into_iter().enumerate();
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    let mut next_at = Instant::now();
    loop {
        if attempts.is_empty() || Instant::now() >= next_at {
            attempts.extend(waiting.next().map(|(place, seed)| {
                let opened = open(seed.clone());
                async move { (place, seed, opened.await) }
            }));
            next_at = Instant::now() + interval;
        }
        tokio::select! {
            biased;
            Some((place, seed, opened)) = attempts.next() => match opened {
                Ok(opened) => return Ok((seed, opened)),
                Err(error) => failures.push((place, error)),
            },
            () = sleep_until(next_at), if waiting.len() > 0 => {}
            else => break,
        }
    }
    failures.sort_by_key(|(place, _)| *place);
    Err(failures.into_iter().map(|(_, error)| error).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// `three` has three addresses, `one` has one, `slow` never answers, nothing else is known.
    fn look_up(seed: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let (host, port) = seed.split_once(':').unwrap();
        let port = port.parse().unwrap();
        let address = |last: u8| SocketAddr::from(([10, 0, 0, last], port));
        match host {
            "three" => futures::future::ready(Ok((1..=3).map(address).collect())).boxed(),
            "one" => futures::future::ready(Ok(vec![address(9)])).boxed(),
            "slow" => futures::future::pending().boxed(),
            _ => futures::future::ready(Err(io::ErrorKind::NotFound.into())).boxed(),
        }
    }

    fn seeds(named: &[&str]) -> Seeds {
        Seeds {
            named: named.iter().map(|named| (*named).to_owned()).collect(),
            look_up,
        }
    }

    async fn labels(named: &[&str]) -> Vec<String> {
        let found = seeds(named).addresses(PATIENCE).await;
        found.iter().map(Seed::label).collect()
    }

    #[tokio::test]
    async fn a_name_stands_for_all_its_addresses() {
        let found = seeds(&["three:7100"]).addresses(PATIENCE).await;
        let addresses: Vec<&str> = found.iter().map(|seed| seed.address.as_str()).collect();
        assert_eq!(addresses, ["10.0.0.1:7100", "10.0.0.2:7100", "10.0.0.3:7100"]);
        assert_eq!(found[1].label(), "three:7100 (10.0.0.2:7100)");
    }

    #[tokio::test]
    async fn a_name_with_one_address_or_none_or_without_an_answer_is_left_to_who_connects() {
        let seeds = ["one:1", "unknown:1", "slow:1"];
        assert_eq!(labels(&seeds).await, seeds);
    }

    #[tokio::test]
    async fn an_address_is_tried_once_although_it_has_two_names() {
        let found = labels(&["10.0.0.2:1", "three:1", "three:1"]).await;
        assert_eq!(found, ["10.0.0.2:1", "three:1 (10.0.0.1:1)", "three:1 (10.0.0.3:1)"]);
    }

    /// Tries the addresses of `three`; what each does is told by its last number.
    async fn first(does: fn(u8) -> Option<Result<u8, u8>>) -> Result<u8, Vec<u8>> {
        let three = seeds(&["three:1"]).addresses(PATIENCE).await;
        let open = |seed: Seed| async move {
            let last: SocketAddr = seed.address.parse().unwrap();
            let last = last.to_string().as_bytes()[7] - b'0';
            match does(last) {
                Some(result) => result,
                None => futures::future::pending().await,
            }
        };
        let found = first_of(three, Deadline::after(PATIENCE), open).await;
        found.map(|(_, number)| number)
    }

    #[tokio::test]
    async fn a_refusing_and_a_silent_address_of_a_name_do_not_hide_the_one_that_serves() {
        let found = first(|number| match number {
            1 => Some(Err(1)),
            2 => None,
            _ => Some(Ok(number)),
        });
        assert_eq!(found.await, Ok(3));
    }

    #[tokio::test]
    async fn when_all_fail_each_failure_is_listed_in_order_and_none_is_waited_for() {
        let began = Instant::now();
        assert_eq!(first(|number| Some(Err(number))).await, Err(vec![1, 2, 3]));
        assert!(began.elapsed() < INTERVAL, "the next one is tried at once");
    }
}
