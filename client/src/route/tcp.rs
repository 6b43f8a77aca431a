//! From a name to a TCP connection, by the quickest of its addresses (RFC 8305, "Happy Eyeballs").
//!
//! The resolver gives the addresses of both families in its order of preference (RFC 6724); they
//! are interleaved, so that a family that leads nowhere costs one [`STAGGER`] and not the time-out
//! of all its addresses. The first that answers wins, and the others are dropped.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Endpoint;
use crate::connect::Timeouts;
use crate::platform::tcp;

/// Most addresses of a name that are tried: each may take its whole time.
const ADDRESSES_MAX: usize = 8;

/// How long an address is tried alone before the next one joins it (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// How long it takes until all addresses are tried once more, where that is wanted (OpenSSH has the
/// same pause).
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

/// Which addresses of a name may be used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AddressFamily {
    /// Both families.
    #[default]
    Any,
    /// IPv4 alone.
    Inet,
    /// IPv6 alone.
    Inet6,
}

impl AddressFamily {
    const fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Inet => address.is_ipv4(),
            Self::Inet6 => address.is_ipv6(),
        }
    }
}

/// From where and how often addresses are connected to, and which.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Dialling {
    pub family: AddressFamily,
    /// The address of this machine to connect from; addresses of the other family are left out.
    pub from: Option<IpAddr>,
    /// How often all addresses are tried; zero counts as one.
    pub attempts: u32,
}

impl Dialling {
    fn may_use(&self, address: SocketAddr) -> bool {
        let fits = |from: IpAddr| from.is_ipv4() == address.is_ipv4();
        self.family.has(address.ip()) && self.from.is_none_or(fits)
    }
}

/// Connects to the address of `to` that answers first.
pub(crate) async fn dial(
    to: &Endpoint,
    by: &Dialling,
    timeouts: &Timeouts,
) -> Result<TcpStream, DialError> {
    let mut addresses = look_up(to, timeouts.tcp).await.map_err(DialError::Lookup)?;
    addresses.retain(|address| by.may_use(*address));
    if addresses.is_empty() {
        let kind = io::ErrorKind::NotFound;
        let error = io::Error::new(kind, "the name has no address of the wanted family");
        return Err(DialError::Lookup(error));
    }
    let addresses = interleave(addresses);
    let connect = |address| dial_address(address, by.from, timeouts);
    let try_all = || race(addresses.clone(), STAGGER, connect);
    persist(by.attempts, try_all)
        .await
        .map_err(DialError::Unreachable)
}

/// Tries so often, with a pause before each attempt but the first; the last failure counts.
async fn persist<S, F>(attempts: u32, try_all: impl Fn() -> F) -> Result<S, Unreachable>
where
    F: Future<Output = Result<S, Unreachable>>,
{
    let mut left = attempts.max(1);
    loop {
        left -= 1;
        match try_all().await {
            Err(error) if left > 0 => {
                tracing::debug!(%error, left, "no connection, it is tried again");
                sleep(ATTEMPT_PAUSE).await;
            }
            done => return done,
        }
    }
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

async fn dial_address(
    address: SocketAddr,
    from: Option<IpAddr>,
    timeouts: &Timeouts,
) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = timeout(timeouts.tcp, socket.connect(address))
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
                sleep(Duration::from_millis(after)).await;
                outcome.map(|()| address).map_err(io::Error::from)
            }
        })
        .await;
        (won, started.into_inner(), millis(begun))
    }

    #[test]
    fn addresses_of_the_wanted_family_and_of_that_of_the_source_are_used() {
        let all = addresses(&["[::1]:1", "192.0.2.1:1"]);
        let of = |family, from: Option<&str>| {
            let by = Dialling {
                family,
                from: from.map(|from| from.parse().unwrap()),
                attempts: 1,
            };
            all.iter().map(|each| by.may_use(*each)).collect::<Vec<_>>()
        };
        assert_eq!(of(AddressFamily::Any, None), [true, true]);
        assert_eq!(of(AddressFamily::Inet, None), [false, true]);
        assert_eq!(of(AddressFamily::Inet6, None), [true, false]);
        assert_eq!(of(AddressFamily::Any, Some("192.0.2.9")), [false, true]);
        assert_eq!(of(AddressFamily::Any, Some("::1")), [true, false]);
        assert_eq!(of(AddressFamily::Inet, Some("::1")), [false, false]);
    }

    #[tokio::test]
    async fn a_connection_comes_from_the_address_that_was_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = Endpoint::new("127.0.0.1".parse().unwrap(), port);
        let timeouts = Timeouts::default();
        let mut by = Dialling {
            from: Some("127.0.0.9".parse().unwrap()),
            ..Dialling::default()
        };
        let stream = dial(&to, &by, &timeouts).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), by.from.unwrap());
        assert_eq!(stream.local_addr().unwrap(), peer);

        // What cannot be bound to is an address that failed, and a family without addresses is told.
        by.from = Some("192.0.2.77".parse().unwrap());
        let error = dial(&to, &by, &timeouts).await.unwrap_err();
        assert!(matches!(error, DialError::Unreachable(_)), "{error:?}");
        by.from = None;
        by.family = AddressFamily::Inet6;
        let error = dial(&to, &by, &timeouts).await.unwrap_err();
        let DialError::Lookup(error) = error else {
            panic!("{error:?}")
        };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn all_addresses_are_tried_as_often_as_was_said_a_second_apart() {
        let run = async |attempts: u32, succeeds_at: u32| {
            let begun = Instant::now();
            let count = std::cell::Cell::new(0);
            let done = persist(attempts, async || {
                count.set(count.get() + 1);
                match count.get() == succeeds_at {
                    true => Ok(()),
                    false => Err(Unreachable { tried: Vec::new() }),
                }
            })
            .await;
            (done.is_ok(), count.get(), begun.elapsed().as_secs())
        };
        assert_eq!(run(0, 9).await, (false, 1, 0));
        assert_eq!(run(1, 9).await, (false, 1, 0));
        assert_eq!(run(4, 9).await, (false, 4, 3));
        assert_eq!(run(4, 3).await, (true, 3, 2));
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
