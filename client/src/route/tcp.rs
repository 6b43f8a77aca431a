//! From a name to a TCP connection, by the quickest of its addresses (RFC 8305, "Happy Eyeballs").
//!
//! The resolver gives the addresses of both families in its order of preference (RFC 6724); they
//! are interleaved, so that a family that leads nowhere costs one [`STAGGER`] and not the time-out
//! of all its addresses. The first that answers wins, and the others are dropped.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout};

use super::Endpoint;
use crate::connect::Timeouts;
use crate::platform::tcp;

/// Most addresses of a name that are tried: each may take its whole time.
const ADDRESSES_MAX: usize = 8;

/// How long an address is tried alone before the next one joins it (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// Connects to the address of `to` that answers first.
pub(crate) async fn dial(to: &Endpoint, timeouts: &Timeouts) -> Result<TcpStream, DialError> {
    let addresses = look_up(to, timeouts.tcp).await.map_err(DialError::Lookup)?;
    let connect = |address| dial_address(address, timeouts);
    let stream = race(interleave(addresses), STAGGER, connect).await;
    stream.map_err(DialError::Unreachable)
}

/// All addresses of a name, in the resolver's order; never none.
pub(super) async fn look_up(to: &Endpoint, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    let lookup = lookup_host((to.host.as_str(), to.port));
    let found: Vec<_> = timeout(limit, lookup)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
        .collect();
    if found.is_empty() {
        let kind = io::ErrorKind::NotFound;
        return Err(io::Error::new(kind, "the name has no address"));
    }
    Ok(found)
}

async fn dial_address(address: SocketAddr, timeouts: &Timeouts) -> io::Result<TcpStream> {
    let stream = timeout(timeouts.tcp, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    tcp::tune(&stream, timeouts.keepalive, timeouts.gone_after())?;
    Ok(stream)
}

/// Takes one address of each family in turn, beginning with the one that was first (RFC 8305 §4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut mixed: Vec<_> = first
        .into_iter()
        .flat_map(|address| [Some(address), second.next()])
        .flatten()
        .collect();
    mixed.extend(second);
    mixed.truncate(ADDRESSES_MAX);
    mixed
}

/// Starts one attempt every `stagger`, the next one at once when one fails, and gives the first
/// stream. Everything else under way is dropped with the future.
async fn race<S, F>(
    addresses: Vec<SocketAddr>,
    stagger: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<S, Unreachable>
where
    F: Future<Output = io::Result<S>>,
{
    let mut waiting = addresses.into_iter();
    let mut running: Vec<(SocketAddr, Pin<Box<F>>)> = Vec::new();
    let mut tried = Vec::new();
    let mut next = Box::pin(sleep_until(Instant::now()));
    poll_fn(|cx| {
        loop {
            let mut at = 0;
            while let Some((address, attempt)) = running.get_mut(at) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        tracing::debug!(%address, %error, "no connection to this address");
                        tried.push((*address, error));
                        drop(running.remove(at));
                        next.as_mut().reset(Instant::now());
                    }
                    Poll::Pending => at += 1,
                }
            }
            if waiting.len() == 0 && running.is_empty() {
                let tried = std::mem::take(&mut tried);
                return Poll::Ready(Err(Unreachable { tried }));
            }
            if waiting.len() == 0 || next.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            running.extend(waiting.next().map(|to| (to, Box::pin(connect(to)))));
            next.as_mut().reset(Instant::now() + stagger);
        }
    })
    .await
}

/// Why there is no TCP connection.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The name has no address.
    Lookup(io::Error),
    /// None of its addresses answered.
    Unreachable(Unreachable),
}

/// What became of each address that was tried, in the order in which they failed.
#[derive(Debug)]
pub struct Unreachable {
    tried: Vec<(SocketAddr, io::Error)>,
}

impl Unreachable {
    /// Every address with what the system said about it.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = (SocketAddr, &io::Error)> {
        self.tried.iter().map(|(address, error)| (*address, error))
    }

    /// Whether all of them were silent, as when a firewall drops everything.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        let silent = |(_, error): &(_, io::Error)| error.kind() == io::ErrorKind::TimedOut;
        self.tried.iter().all(silent)
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (address, error)) in self.tried.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unreachable {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_families_take_turns_and_the_resolvers_first_is_first() {
        let mixed = |texts: &[&str]| interleave(addresses(texts));
        assert_eq!(
            mixed(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]),
            addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"])
        );
        assert_eq!(
            mixed(&["1.1.1.1:1", "[::1]:1", "[::2]:1", "[::3]:1"]),
            addresses(&["1.1.1.1:1", "[::1]:1", "[::2]:1", "[::3]:1"])
        );
        assert_eq!(mixed(&[]), []);
        let many: Vec<_> = (1..=20)
            .map(|n| SocketAddr::from(([1, 1, 1, n], 1)))
            .collect();
        let both = [many, addresses(&["[::1]:1"])].concat();
        let mixed = interleave(both);
        assert_eq!(mixed.len(), ADDRESSES_MAX);
        assert!(mixed[1].is_ipv6(), "{mixed:?}");
    }

    /// Runs a race in which `answer` says after how many milliseconds what comes of an address.
    async fn run(
        texts: &[&str],
        answer: impl Fn(SocketAddr) -> (u64, Result<(), io::ErrorKind>),
    ) -> (Result<SocketAddr, Unreachable>, Vec<(SocketAddr, u64)>, u64) {
        let begun = Instant::now();
        let started = RefCell::new(Vec::new());
        let millis = |since: Instant| u64::try_from(since.elapsed().as_millis()).unwrap();
        let won = race(addresses(texts), STAGGER, |address| {
            started.borrow_mut().push((address, millis(begun)));
            let (after, outcome) = answer(address);
            async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                outcome.map(|()| address).map_err(io::Error::from)
            }
        })
        .await;
        (won, started.into_inner(), millis(begun))
    }

    const BLACK_HOLE: u64 = 10_000;

    #[tokio::test(start_paused = true)]
    async fn a_family_that_leads_nowhere_costs_one_stagger() {
        let texts = ["[2001:db8::1]:22", "192.0.2.1:22", "[2001:db8::2]:22"];
        let (won, started, took) = run(&texts, |address| {
            if address.is_ipv6() {
                (BLACK_HOLE, Err(io::ErrorKind::TimedOut))
            } else {
                (40, Ok(()))
            }
        })
        .await;
        let expected = addresses(&texts);
        assert_eq!(won.unwrap(), expected[1]);
        assert_eq!(started, [(expected[0], 0), (expected[1], 250)]);
        assert_eq!(took, 290);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_still_wins_if_it_answers_first() {
        let texts = ["[2001:db8::1]:22", "192.0.2.1:22"];
        let (won, started, took) = run(&texts, |address| {
            (if address.is_ipv6() { 300 } else { 100 }, Ok(()))
        })
        .await;
        assert_eq!(won.unwrap(), addresses(&texts)[0]);
        assert_eq!((started.len(), took), (2, 300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_starts_the_next_address_at_once() {
        let texts = ["192.0.2.1:22", "192.0.2.2:22", "192.0.2.3:22"];
        let (won, started, took) = run(&texts, |address| match address.to_string().as_str() {
            "192.0.2.3:22" => (10, Ok(())),
            _ => (5, Err(io::ErrorKind::ConnectionRefused)),
        })
        .await;
        assert_eq!(won.unwrap(), addresses(&texts)[2]);
        let times: Vec<_> = started.iter().map(|(_, at)| *at).collect();
        assert_eq!((times, took), (vec![0, 5, 10], 20));
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_stands_in_the_error() {
        let texts = ["[2001:db8::1]:22", "192.0.2.1:22"];
        let (won, _, took) = run(&texts, |address| {
            if address.is_ipv6() {
                (BLACK_HOLE, Err(io::ErrorKind::TimedOut))
            } else {
                (1, Err(io::ErrorKind::ConnectionRefused))
            }
        })
        .await;
        let error = won.unwrap_err();
        assert_eq!(took, BLACK_HOLE);
        assert_eq!(error.addresses().len(), 2);
        assert!(!error.is_timeout());
        let text = error.to_string();
        for part in [
            "[2001:db8::1]:22: timed out",
            "192.0.2.1:22: connection refused",
            "; ",
        ] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_race_that_is_dropped_drops_its_attempts() {
        let alive = std::rc::Rc::new(());
        let attempt = race(
            addresses(&["192.0.2.1:22", "192.0.2.2:22"]),
            STAGGER,
            |_| {
                let alive = std::rc::Rc::clone(&alive);
                async move {
                    let _alive = alive;
                    std::future::pending::<io::Result<()>>().await
                }
            },
        );
        assert!(timeout(Duration::from_secs(1), attempt).await.is_err());
        assert_eq!(std::rc::Rc::strong_count(&alive), 1);
    }
}
