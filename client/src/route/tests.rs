//! Proxies that are written here from their specifications, and say what a test wants them to say.

#![expect(
    clippy::disallowed_methods,
    reason = "the proxy of a test is a task of its own"
)]

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::error::CredentialsFault;
use super::*;
use crate::{Failure as _, Kind};

/// What the server behind the proxy says at once.
const GREETING: &[u8] = b"SSH-2.0-behind\r\n";

fn target() -> Endpoint {
    Endpoint::new("sftp.example.com".parse().unwrap(), 2222)
}

fn at(host: &str) -> Endpoint {
    Endpoint::new(host.parse().unwrap(), 22)
}

fn credentials() -> ProxyCredentials {
    ProxyCredentials::new("ann", "secret".to_owned())
}

/// A step of a proxy: it reads exactly these bytes, or it says these.
#[derive(Clone, Debug)]
enum Step {
    Read(Vec<u8>),
    Say(Vec<u8>),
}

fn read(bytes: impl AsRef<[u8]>) -> Step {
    Step::Read(bytes.as_ref().to_vec())
}

fn say(bytes: impl AsRef<[u8]>) -> Step {
    Step::Say(bytes.as_ref().to_vec())
}

/// Goes through the steps, then holds the connection open until the client leaves.
async fn play(mut stream: impl AsyncRead + AsyncWrite + Unpin, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Read(expected) => {
                let mut got = vec![0; expected.len()];
                stream.read_exact(&mut got).await.unwrap();
                assert_eq!(
                    got.escape_ascii().to_string(),
                    expected.escape_ascii().to_string()
                );
            }
            Step::Say(bytes) => {
                for byte in bytes.chunks(7) {
                    if stream.write_all(byte).await.is_err() {
                        return; // the client has had enough
                    }
                }
            }
        }
    }
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest.escape_ascii().to_string(), "");
}

fn start(steps: Vec<Step>) -> (DuplexStream, JoinHandle<()>) {
    let (ours, theirs) = duplex(16);
    (ours, tokio::spawn(play(theirs, steps)))
}

/// What the server said must be all that is left in the stream.
async fn greeting(mut stream: DuplexStream) {
    let mut got = [0; GREETING.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, GREETING);
}

const REQUEST: &str = "CONNECT sftp.example.com:2222 HTTP/1.1\r\nHost: sftp.example.com:2222\r\n";

async fn http(
    credentials: Option<&ProxyCredentials>,
    reply: impl AsRef<[u8]>,
) -> Result<DuplexStream, ProxyFault> {
    let login = match credentials {
        None => "\r\n",
        Some(_) => "Proxy-Authorization: Basic YW5uOnNlY3JldA==\r\n\r\n", // RFC 7617 §2
    };
    let reply = [reply.as_ref(), GREETING].concat();
    let (mut stream, _) = start(vec![read(format!("{REQUEST}{login}")), say(reply)]);
    http_connect::connect(&mut stream, &target(), credentials)
        .await
        .map(|()| stream)
}

#[tokio::test]
async fn an_http_proxys_yes_is_taken_and_not_a_byte_more() {
    for reply in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200\r\n\r\n",
        "HTTP/1.1 200 Connection established\r\nVia: x\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 204 x\n\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        greeting(http(None, reply).await.unwrap()).await;
        greeting(http(Some(&credentials()), reply).await.unwrap()).await;
    }
}

#[tokio::test]
async fn an_http_proxys_no_says_what_is_wrong() {
    use CredentialsFault as C;
    let refused = async |credentials: Option<&ProxyCredentials>, reply: &str| {
        let fault = http(credentials, reply).await.unwrap_err();
        let error = ProxyError {
            proxy: at("proxy.example.com"),
            target: target(),
            fault,
        };
        for part in ["proxy.example.com:22", "sftp.example.com:2222"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(!format!("{error} {error:?}").contains("secret"));
        error
    };
    let mine = credentials();
    for (credentials, reply, expected) in [
        (
            None,
            "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"a\"\r\n\r\n",
            C::Wanted,
        ),
        (None, "HTTP/1.1 407 x\r\n\r\n", C::Wanted),
        (
            Some(&mine),
            "HTTP/1.1 407 x\r\nproxy-authenticate: Digest a, Basic b\r\n\r\n",
            C::Refused,
        ),
        (
            Some(&mine),
            "HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\n\r\n",
            C::UnknownWay,
        ),
        (
            None,
            "HTTP/1.1 401 x\r\nWWW-Authenticate: NTLM\r\n\r\n",
            C::UnknownWay,
        ),
    ] {
        let error = refused(credentials, reply).await;
        assert_eq!((error.kind(), error.is_transient()), (Kind::Auth, false));
        match error.fault {
            ProxyFault::Credentials(fault) => assert_eq!(fault, expected, "{reply}"),
            other => panic!("{other:?}"),
        }
    }
    let error = refused(None, "HTTP/1.1 403 Not \x1b[2J you\r\n\r\n").await;
    assert_eq!(error.kind(), Kind::Permission);
    assert!(
        error.to_string().contains(r"403, Not \x1b[2J you"),
        "{error}"
    );
    let error = refused(None, "HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
    assert_eq!((error.kind(), error.is_transient()), (Kind::Network, true));
    let error = refused(None, "HTTP/1.1 101 Switching\r\n\r\n").await;
    assert_eq!(error.kind(), Kind::Permission);
}

#[tokio::test]
async fn what_is_no_answer_of_http_is_said_so_at_once() {
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(2000));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    for reply in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 20\r\n\r\n",
        "HTTP/1.1 2000 x\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/1.1  200 x\r\n\r\n",
        "HTTP/1.x 200 x\r\n\r\n",
        "\x05\x00",
        "\r\n\r\n",
        &endless,
        &interim,
    ] {
        let fault = http(None, reply).await.unwrap_err();
        assert!(
            matches!(fault, ProxyFault::Garbled { .. }),
            "{reply:?}: {fault:?}"
        );
    }
}

#[tokio::test]
async fn credentials_that_a_proxys_protocol_cannot_say_are_not_sent() {
    let long = "x".repeat(256);
    for (user, password) in [("a:b", "c"), ("a\r\nX: y", "c"), ("a", "b\nc")] {
        let mut nobody = duplex(16).0;
        let mine = ProxyCredentials::new(user, password.to_owned());
        let fault = http_connect::connect(&mut nobody, &target(), Some(&mine)).await;
        assert!(matches!(
            fault,
            Err(ProxyFault::Credentials(CredentialsFault::Unusable))
        ));
    }
    for (user, password) in [("", "c"), ("a", ""), (&long, "c"), ("a", &long)] {
        let mut nobody = duplex(16).0;
        let mine = ProxyCredentials::new(user, password.to_owned());
        let fault = socks5::connect(&mut nobody, &target(), Some(&mine)).await;
        assert!(matches!(
            fault,
            Err(ProxyFault::Credentials(CredentialsFault::Unusable))
        ));
    }
    for user in ["a\0b", &long] {
        let mut nobody = duplex(16).0;
        let named = socks4::address_or_name(&target()).unwrap();
        let fault = socks4::connect(&mut nobody, named, user, 22).await;
        assert!(matches!(
            fault,
            Err(ProxyFault::Credentials(CredentialsFault::Unusable))
        ));
    }
}

#[tokio::test]
async fn addresses_are_named_as_each_protocol_wants_it() {
    let http = |to: Endpoint, line: &str| {
        let (mut stream, proxy) = start(vec![
            read(format!("CONNECT {line} HTTP/1.1\r\nHost: {line}\r\n\r\n")),
            say("HTTP/1.1 200 OK\r\n\r\n"),
        ]);
        async move {
            http_connect::connect(&mut stream, &to, None).await.unwrap();
            drop(stream);
            proxy.await.unwrap();
        }
    };
    http(at("192.0.2.1"), "192.0.2.1:22").await;
    http(at("2001:db8::1"), "[2001:db8::1]:22").await;

    let socks5 = async |to: Endpoint, named: &[u8]| {
        let request = [&[5, 1, 0], named, &[0, 22]].concat();
        let (mut stream, proxy) = start(vec![
            read([5, 1, 0]),
            say([5, 0]),
            read(request),
            say([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
        ]);
        socks5::connect(&mut stream, &to, None).await.unwrap();
        drop(stream);
        proxy.await.unwrap();
    };
    socks5(at("192.0.2.1"), &[1, 192, 0, 2, 1]).await;
    let mut v6 = vec![4, 0x20, 1, 0xd, 0xb8];
    v6.resize(16, 0);
    v6.push(1);
    socks5(at("2001:db8::1"), &v6).await;
    socks5(at("ab"), &[3, 2, b'a', b'b']).await;

    let none = &mut duplex(16).0;
    let zone = at("fe80::1%eth0");
    for fault in [
        http_connect::connect(none, &zone, None).await,
        socks5::connect(none, &zone, None).await,
        socks4::address_or_name(&zone).map(|_| ()),
    ] {
        assert!(matches!(fault, Err(ProxyFault::LocalAddress)), "{fault:?}");
    }
    let v6 = socks4::address_or_name(&at("::1"));
    assert!(matches!(v6, Err(ProxyFault::Ipv6)), "{v6:?}");
}

#[tokio::test]
async fn socks5_with_and_without_credentials() {
    let request = [
        &[5, 1, 0, 3, 16],
        &b"sftp.example.com"[..],
        &2222_u16.to_be_bytes(),
    ]
    .concat();
    for address in [
        &[1, 10, 0, 0, 1, 0, 80][..],
        &[3, 3, b'a', b'.', b'b', 0, 80],
        &[3, 0, 0, 80],
        &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80],
    ] {
        let yes = [&[5, 0, 0], address, GREETING].concat();
        let plain = vec![read([5, 1, 0]), say([5, 0]), read(&request), say(&yes)];
        let unasked = vec![read([5, 2, 0, 2]), say([5, 0]), read(&request), say(&yes)];
        let login = [&[1, 3], &b"ann"[..], &[6], b"secret"].concat();
        let asked = vec![
            read([5, 2, 0, 2]),
            say([5, 2]),
            read(login),
            say([1, 0]),
            read(&request),
            say(&yes),
        ];
        let mine = credentials();
        for (credentials, steps) in [(None, plain), (Some(&mine), unasked), (Some(&mine), asked)] {
            let (mut stream, _) = start(steps);
            let outcome = socks5::connect(&mut stream, &target(), credentials).await;
            outcome.unwrap();
            greeting(stream).await;
        }
    }
}

#[tokio::test]
async fn what_a_socks5_proxy_refuses_is_told_apart() {
    use CredentialsFault as C;
    let run = async |with: bool, says: &[&[u8]]| {
        // The proxy of this test answers without looking.
        let (mut ours, mut theirs) = duplex(4096);
        theirs.write_all(&says.concat()).await.unwrap();
        let mine = credentials();
        let fault = socks5::connect(&mut ours, &target(), with.then_some(&mine)).await;
        drop(theirs);
        fault.unwrap_err()
    };
    for (with, says, expected) in [
        (false, &[&[5, 0xff][..]][..], C::Wanted),
        (true, &[&[5, 0xff]], C::UnknownWay),
        (true, &[&[5, 2], &[1, 1]], C::Refused),
        (true, &[&[5, 2], &[5, 0xff]], C::Refused),
    ] {
        match run(with, says).await {
            ProxyFault::Credentials(fault) => assert_eq!(fault, expected, "{says:?}"),
            other => panic!("{says:?}: {other:?}"),
        }
    }
    for code in 1..=8 {
        let fault = run(false, &[&[5, 0], &[5, code, 0, 1]]).await;
        match (code, fault) {
            (2 | 7 | 8, ProxyFault::Refused(said)) | (_, ProxyFault::NoWay(said)) => {
                assert_eq!(said.code(), u16::from(code));
            }
            (_, other) => panic!("{code}: {other:?}"),
        }
    }
    for says in [
        &[&[4, 0][..]][..],
        &[b"HTTP/1.1 400 Bad Request\r\n"],
        &[&[5, 2]], // not offered
        &[&[5, 1]],
        &[&[5, 0], &[4, 0, 0, 1]],
        &[&[5, 0], &[5, 9, 0, 1]],
        &[&[5, 0], &[5, 0, 0, 2]],
    ] {
        let fault = run(false, says).await;
        assert!(
            matches!(fault, ProxyFault::Garbled { .. }),
            "{says:?}: {fault:?}"
        );
    }
}

#[tokio::test]
async fn socks4_names_an_address_and_socks4a_a_name() {
    let to = 2222_u16.to_be_bytes();
    let yes = [&[0, 90, 1, 2, 3, 4, 5, 6], GREETING].concat();
    for (host, user, request) in [
        (
            "192.0.2.1",
            "",
            [&[4, 1], &to[..], &[192, 0, 2, 1, 0]].concat(),
        ),
        (
            "192.0.2.1",
            "ann",
            [&[4, 1], &to[..], &[192, 0, 2, 1], b"ann\0"].concat(),
        ),
        (
            "a.b",
            "ann",
            [&[4, 1], &to[..], &[0, 0, 0, 1], b"ann\0a.b\0"].concat(),
        ),
    ] {
        let (mut stream, _) = start(vec![read(request), say(&yes)]);
        let target = Endpoint::new(host.parse().unwrap(), 2222);
        let named = socks4::address_or_name(&target).unwrap();
        socks4::connect(&mut stream, named, user, 2222)
            .await
            .unwrap();
        greeting(stream).await;
    }
    let local = socks4::address(&at("localhost"), Duration::from_secs(10)).await;
    assert!(format!("{local:?}").contains("127.0.0.1"), "{local:?}");

    let run = async |user: &str, reply: &[u8]| {
        let (mut ours, mut theirs) = duplex(4096);
        theirs.write_all(reply).await.unwrap();
        let named = socks4::address_or_name(&target()).unwrap();
        let fault = socks4::connect(&mut ours, named, user, 22)
            .await
            .unwrap_err();
        drop(theirs);
        fault
    };
    let reply = |code| [0, code, 0, 0, 0, 0, 0, 0];
    assert!(matches!(run("", &reply(91)).await, ProxyFault::NoWay(_)));
    let wanted = run("", &reply(92)).await;
    assert!(
        matches!(wanted, ProxyFault::Credentials(CredentialsFault::Wanted)),
        "{wanted:?}"
    );
    let refused = run("ann", &reply(93)).await;
    assert!(
        matches!(refused, ProxyFault::Credentials(CredentialsFault::Refused)),
        "{refused:?}"
    );
    for garbage in [
        &reply(0)[..],
        &reply(94),
        &[4, 90, 0, 0, 0, 0, 0, 0],
        b"HTTP/1.1 400",
    ] {
        let fault = run("", garbage).await;
        assert!(
            matches!(fault, ProxyFault::Garbled { .. }),
            "{garbage:?}: {fault:?}"
        );
    }
}

#[tokio::test]
async fn a_proxy_that_hangs_up_is_a_network_failure() {
    let mine = credentials();
    let cut = async |protocol: usize, len: usize| {
        let says: &[u8] = match protocol {
            0 => b"HTTP/1.1 200 OK\r\n\r",
            1 => &[5, 2, 1, 0, 5, 0, 0, 3, 9, 1, 2, 3],
            _ => &[0, 90, 0, 0, 0, 0, 0],
        };
        let (mut ours, mut theirs) = duplex(4096);
        theirs
            .write_all(&says[..len.min(says.len())])
            .await
            .unwrap();
        theirs.shutdown().await.unwrap();
        let named = socks4::address_or_name(&target()).unwrap();
        match protocol {
            0 => http_connect::connect(&mut ours, &target(), Some(&mine)).await,
            1 => socks5::connect(&mut ours, &target(), Some(&mine)).await,
            _ => socks4::connect(&mut ours, named, "ann", 22).await,
        }
    };
    for protocol in 0..3 {
        for len in 0..20 {
            let fault = cut(protocol, len).await.unwrap_err();
            assert!(
                matches!(fault, ProxyFault::Lost(_)),
                "{protocol} {len}: {fault:?}"
            );
        }
    }
}

proptest! {
    /// Whatever a proxy says: an end without a panic, and never more read than was sent.
    #[test]
    fn no_reply_of_a_proxy_is_too_strange(reply in prop::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mine = credentials();
            for protocol in 0..4 {
                let (mut ours, mut theirs) = duplex(4096);
                let reply = match protocol {
                    3 => [b"HTTP/1.1 ", &reply[..]].concat(),
                    _ => reply.clone(),
                };
                theirs.write_all(&reply).await.unwrap();
                theirs.shutdown().await.unwrap();
                let named = socks4::address_or_name(&target()).unwrap();
                let _ = match protocol {
                    0 | 3 => http_connect::connect(&mut ours, &target(), Some(&mine)).await,
                    1 => socks5::connect(&mut ours, &target(), Some(&mine)).await,
                    _ => socks4::connect(&mut ours, named, "ann", 22).await,
                };
            }
        });
    }
}

/// A route of each kind to a proxy at that endpoint.
fn routes(proxy: &Endpoint) -> [Route; 4] {
    let proxy = proxy.clone();
    [
        Route::HttpConnect {
            proxy: proxy.clone(),
            credentials: None,
        },
        Route::Socks4 {
            proxy: proxy.clone(),
            user: None,
        },
        Route::Socks4a {
            proxy: proxy.clone(),
            user: None,
        },
        Route::Socks5 {
            proxy,
            credentials: None,
        },
    ]
}

async fn open(route: &Route, timeouts: &Timeouts) -> ConnectError {
    let target = Endpoint::new("localhost".parse().unwrap(), 2222);
    let user = "ann".parse().unwrap();
    let by = Dialling::default();
    let opened = route.open(&target, &user, &by, timeouts).await;
    let error = opened.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("localhost:2222"), "{text}");
    error
}

#[tokio::test]
async fn a_silent_proxy_is_given_up_and_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = Endpoint::new("127.0.0.1".parse().unwrap(), port);
    let timeouts = Timeouts {
        proxy: Duration::from_millis(30),
        ..Timeouts::default()
    };
    for route in routes(&proxy) {
        let error = open(&route, &timeouts).await;
        assert_eq!(
            (error.kind(), error.is_transient()),
            (Kind::Timeout, true),
            "{error:?}"
        );
        assert!(error.to_string().contains(&proxy.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named_with_its_addresses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let proxy = Endpoint::new("127.0.0.1".parse().unwrap(), port);
    for route in routes(&proxy) {
        let error = open(&route, &Timeouts::default()).await;
        assert_eq!(error.kind(), Kind::Network, "{error:?}");
        assert!(error.to_string().contains("refused"), "{error}");
    }
}

#[tokio::test]
async fn a_stream_through_a_proxy_sends_small_packets_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let steps = vec![
            read("CONNECT sftp.example.com:2222 HTTP/1.1\r\nHost: sftp.example.com:2222\r\n\r\n"),
            say("HTTP/1.1 200 OK\r\n\r\n"),
        ];
        play(stream, steps).await;
    });
    let address = Endpoint::new("127.0.0.1".parse().unwrap(), port);
    let route = Route::HttpConnect {
        proxy: address,
        credentials: None,
    };
    let timeouts = Timeouts::default();
    let opened = route
        .open(
            &target(),
            &"ann".parse().unwrap(),
            &Dialling::default(),
            &timeouts,
        )
        .await;
    let RouteStream::Tcp(stream) = opened.unwrap() else {
        panic!("a proxy is reached by TCP")
    };
    assert!(stream.nodelay().unwrap());
    drop(stream);
    proxy.await.unwrap();
}

#[test]
fn routes_print_no_secret() {
    let route = Route::Socks5 {
        proxy: at("proxy"),
        credentials: Some(credentials()),
    };
    assert!(!format!("{route:?}").contains("secret"));
}

#[test]
fn an_endpoint_is_written_as_in_a_url() {
    assert_eq!(at("host").to_string(), "host:22");
    assert_eq!(at("192.0.2.1").to_string(), "192.0.2.1:22");
    assert_eq!(at("::1").to_string(), "[::1]:22");
}
