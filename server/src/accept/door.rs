//! Where connections come in. A server that has no descriptor left must not spin, and must not let
//! those who wait at the door wait without end: one descriptor is kept in reserve, by which they are
//! taken and closed.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{debug, warn};

/// How long nobody is taken when the system has nothing left for it, not even by the reserve.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener, and a descriptor in reserve.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    reserve: Option<File>,
    /// It was said that there are no more descriptors.
    is_exhausted: bool,
    /// How often the system was asked.
    attempts: u64,
}

/// What comes of somebody who connects.
#[derive(Debug)]
pub(super) enum Came {
    Guest(TcpStream, SocketAddr),
    /// There is no descriptor for this one: it was closed.
    TurnedAway(SocketAddr),
}

impl Door {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            reserve: reserve(),
            is_exhausted: false,
            attempts: 0,
        }
    }

    /// Waits for somebody. May be dropped at any time: nobody is lost by that.
    ///
    /// # Errors
    /// What `accept` says if the listener itself is broken.
    pub(super) async fn next(&mut self) -> io::Result<Came> {
        loop {
            self.attempts += 1;
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.is_exhausted = false;
                    if self.reserve.is_none() {
                        self.reserve = reserve();
                    }
                    return Ok(Came::Guest(stream, peer));
                }
                Err(error) if is_about_connection(&error) => debug!(%error, "accept"),
                Err(error) if is_exhaustion(&error) => {
                    if !std::mem::replace(&mut self.is_exhausted, true) {
                        warn!(%error, "connections are turned away");
                    }
                    match self.turn_away().await {
                        Turned::Away(peer) => return Ok(Came::TurnedAway(peer)),
                        // The system says that there are no descriptors before it looks whether
                        // there is anybody. Now it is known, and the next turn waits for somebody.
                        Turned::Nobody => {}
                        Turned::Cannot => sleep(PAUSE).await,
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes one by the reserve and closes it.
    async fn turn_away(&mut self) -> Turned {
        if self.reserve.take().is_none() {
            // Somebody else in the process was quicker the last time.
            self.reserve = reserve();
            return Turned::Cannot;
        }
        self.attempts += 1;
        let accepted = poll_fn(|cx| {
            Poll::Ready(match self.listener.poll_accept(cx) {
                Poll::Ready(Ok((_, peer))) => Turned::Away(peer),
                Poll::Ready(Err(_)) => Turned::Cannot,
                Poll::Pending => Turned::Nobody,
            })
        });
        let turned = accepted.await;
        self.reserve = reserve();
        turned
    }
}

/// What became of turning one away.
enum Turned {
    Away(SocketAddr),
    /// There is nobody.
    Nobody,
    /// Not even by the reserve.
    Cannot,
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

/// The connection was gone before it was accepted (accept(2)).
pub(crate) fn is_about_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
    ) || is_of_the_network(error)
}

/// What Linux passes on of a connection that was not accepted yet, and wants to be taken as "try
/// again" (accept(2), "Error handling").
fn is_of_the_network(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passed_on = [
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        #[cfg(target_os = "linux")]
        Errno::NONET,
        Errno::OPNOTSUPP,
    ];
    passed_on
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// There is no descriptor or memory for another one, for now.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Command, Stdio};

    use rustix::process::{Resource, Rlimit, setrlimit};

    use super::*;

    /// Set in the process that has few descriptors.
    const CHILD: &str = "KETCH_TEST_FEW_DESCRIPTORS";
    const DESCRIPTORS: u64 = 64;
    const CONNECTS: usize = 1000;

    #[test]
    fn what_is_wrong_with_one_connection_ends_no_listener() {
        use rustix::io::Errno;
        for errno in [
            Errno::NETDOWN,
            Errno::PROTO,
            Errno::NOPROTOOPT,
            Errno::HOSTDOWN,
            Errno::NONET,
            Errno::HOSTUNREACH,
            Errno::OPNOTSUPP,
            Errno::NETUNREACH,
            Errno::CONNABORTED,
        ] {
            assert!(is_about_connection(&errno.into()), "{errno:?}");
        }
        for errno in [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::MFILE] {
            assert!(!is_about_connection(&errno.into()), "{errno:?}");
        }
    }

    #[test]
    fn a_server_without_descriptors_turns_connections_away_and_does_not_spin() {
        if std::env::var_os(CHILD).is_some() {
            return child();
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("accept::door::tests::a_server_without_descriptors_turns_connections_away_and_does_not_spin")
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = |what: &str| -> String {
            let mut lines = lines.by_ref().map(Result::unwrap);
            // The harness of tests writes into the same line.
            let line =
                lines.find_map(|line| line.split_once(what).map(|(_, rest)| rest.to_owned()));
            line.unwrap()
        };
        let address: SocketAddr = said("address ").parse().unwrap();
        for _ in 0..CONNECTS {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            // Each is taken, greeted or closed: nobody is left waiting.
            let _ = stream.read(&mut [0]);
        }
        let counts = said("counts ");
        let counts: Vec<usize> = counts.split(' ').map(|n| n.parse().unwrap()).collect();
        let [guests, turned_away, attempts] = counts[..] else {
            panic!("{counts:?}");
        };
        assert_eq!(guests + turned_away, CONNECTS);
        assert!(guests > 10 && turned_away > 900, "{guests} {turned_away}");
        // Four for each that is turned away: one that fails and one by the reserve, and the same once
        // more to learn that there is nobody else.
        assert!(attempts <= 4 * CONNECTS + 10, "{attempts}");
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }

    /// Takes all that come, and lets them go when no more come.
    fn child() {
        let few = Rlimit {
            current: Some(DESCRIPTORS),
            maximum: Some(DESCRIPTORS),
        };
        setrlimit(Resource::Nofile, few).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            println!("\naddress {}", listener.local_addr().unwrap());
            let mut door = Door::new(listener);
            let (mut guests, mut turned_away) = (Vec::new(), 0);
            while guests.len() + turned_away < CONNECTS {
                match door.next().await.unwrap() {
                    Came::Guest(stream, _) => {
                        stream.try_write(b"!").unwrap();
                        guests.push(stream);
                    }
                    Came::TurnedAway(_) => turned_away += 1,
                }
            }
            println!("\ncounts {} {turned_away} {}", guests.len(), door.attempts);
            io::stdout().flush().unwrap();
            guests.clear();
            // It recovers: the next one is a guest.
            let Came::Guest(stream, _) = door.next().await.unwrap() else {
                panic!("there are descriptors again");
            };
            stream.try_write(b"!").unwrap();
        });
        let _ = io::stdin().read(&mut [0]);
    }
}
