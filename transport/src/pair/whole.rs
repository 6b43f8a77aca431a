//! One short session from the first byte to the last, and what can be done to it on the way.
//!
//! Identification, key exchange, login, a channel with data both ways, new keys, more data, the
//! end. Both machines are seeded, so that every run says the same bytes; each test changes one
//! thing between them. Cut anywhere, the session stays the same. Changed by a bit, or with a packet
//! lost, repeated, swapped or slipped in, it ends: in clear text because the signature of the host
//! covers it or strict key exchange (Terrapin, CVE-2023-48795) forbids it, and under keys because
//! of the tag.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::{Arc, Seeded, host_key, user_key};
use crate::algorithm::{CipherName, Compression, Kex, MacName, SignatureAlgorithm};
use crate::auth::Credential;
use crate::config::{ClientConfig, CommonConfig, ServerConfig};
use crate::connection::Connection;
use crate::crypto::{Random, RandomFailed};
use crate::error::ConnectionError;
use crate::event::{Event, SessionRequest};
use crate::message::number;
use crate::packet::Input;

/// Who says what is meddled with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum From {
    Client = 0,
    Server = 1,
}

const BOTH: [From; 2] = [From::Client, From::Server];

/// What happens on the way. Positions count the bytes of a direction, numbers its packets, the
/// identification being the first.
#[derive(Clone, Copy, Debug)]
enum Meddling {
    Nothing,
    /// What is before this byte arrives first, and is taken.
    Cut(usize),
    /// Bit `.1` of byte `.0`.
    Flip(usize, u32),
    Lose(usize),
    Repeat(usize),
    /// This one arrives behind the one that follows it.
    Swap(usize),
    /// A good packet in clear arrives before this one, and the later one is lost.
    Slip {
        before: usize,
        message: &'static [u8],
        lost: Option<usize>,
    },
}

/// A piece of the stream: the identification line or a packet.
#[derive(Clone, Debug)]
struct Frame {
    start: usize,
    len: usize,
    is_sealed: bool,
    /// Padding at its end that nothing vouches for: of a packet in clear.
    loose: usize,
}

impl Frame {
    const fn end(&self) -> usize {
        self.start + self.len
    }
}

/// Takes the stream apart. Under AES-GCM the length of a packet is there to be read.
#[derive(Debug, Default)]
struct Framing {
    frames: Vec<Frame>,
    is_sealed: bool,
}

impl Framing {
    fn take<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        if bytes.is_empty() {
            return None;
        }
        let start = self.frames.last().map_or(0, Frame::end);
        let (len, loose, is_sealed);
        if self.frames.is_empty() {
            (loose, is_sealed) = (0, false);
            len = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        } else {
            let packet = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            let packet = usize::try_from(packet).unwrap();
            is_sealed = self.is_sealed;
            if is_sealed {
                (len, loose) = (4 + packet + 16, 0);
            } else {
                (len, loose) = (4 + packet, usize::from(bytes[4]));
                self.is_sealed = bytes[5] == number::NEWKEYS;
            }
        }
        self.frames.push(Frame {
            start,
            len,
            is_sealed,
            loose,
        });
        let (frame, rest) = bytes.split_at(len);
        *bytes = rest;
        Some(frame)
    }
}

/// One direction of the stream.
#[derive(Debug)]
struct Way {
    meddling: Meddling,
    framing: Framing,
    /// What waits for the packet behind it.
    held: Vec<u8>,
}

impl Way {
    /// What arrives of what was sent, in the pieces in which it does.
    fn carry(&mut self, mut sent: &[u8]) -> Vec<Vec<u8>> {
        let mut pieces = vec![Vec::new()];
        loop {
            let number = self.framing.frames.len();
            let Some(frame) = self.framing.take(&mut sent) else {
                break;
            };
            let Frame { start, len, .. } = *self.framing.frames.last().unwrap();
            let within = |at: usize| at.checked_sub(start).filter(|&at| at < len);
            let piece = pieces.last_mut().unwrap();
            match self.meddling {
                Meddling::Cut(at) if within(at).is_some() => {
                    let (left, right) = frame.split_at(at - start);
                    piece.extend_from_slice(left);
                    pieces.push(right.to_vec());
                }
                Meddling::Flip(at, bit) if within(at).is_some() => {
                    piece.extend_from_slice(frame);
                    let flipped = piece.len() - len + (at - start);
                    piece[flipped] ^= 1 << bit;
                }
                Meddling::Lose(lost) if lost == number => {}
                Meddling::Repeat(twice) if twice == number => {
                    piece.extend_from_slice(frame);
                    piece.extend_from_slice(frame);
                }
                Meddling::Swap(late) if late == number => self.held = frame.to_vec(),
                Meddling::Slip {
                    before,
                    message,
                    lost,
                } => {
                    if before == number {
                        piece.extend(in_clear(message));
                    }
                    if lost != Some(number) {
                        piece.extend_from_slice(frame);
                    }
                }
                _ => {
                    piece.extend_from_slice(frame);
                    piece.append(&mut self.held);
                }
            }
        }
        pieces
    }
}

/// A packet as it is before there are keys (RFC 4253 §6).
fn in_clear(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
    let len = u32::try_from(payload.len() + padding + 1).unwrap();
    let mut packet = len.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// One machine and its application: the client's says two things, the server's says them back.
#[derive(Debug)]
struct Side {
    machine: Connection,
    is_client: bool,
    arrived: Vec<u8>,
    events: Vec<String>,
    error: Option<ConnectionError>,
    logged_in: bool,
    heard: Vec<u8>,
    is_done: bool,
}

impl Side {
    const fn new(machine: Connection, is_client: bool) -> Self {
        Self {
            machine,
            is_client,
            arrived: Vec::new(),
            events: Vec::new(),
            error: None,
            logged_in: false,
            heard: Vec::new(),
            is_done: false,
        }
    }

    fn take(&mut self, piece: &[u8], now: Instant) {
        if self.error.is_some() {
            return;
        }
        self.arrived.extend_from_slice(piece);
        let mut arena = std::mem::take(&mut self.arrived);
        let mut input = Input::new(&mut arena);
        let outcome = loop {
            match self.machine.next(&mut input, now) {
                Ok(Some(event)) => {
                    self.events.push(match &event {
                        // Where in the arena they lie depends on the cuts.
                        Event::Data(id, data) => format!("{id:?} {:?}", data.bytes),
                        event => format!("{event:?}"),
                    });
                    if let Err(error) = self.on_event(event, now) {
                        break Err(error);
                    }
                }
                Ok(None) => break self.machine.flush(now),
                Err(error) => break Err(error),
            }
        };
        self.error = outcome.err();
        let taken = input.position();
        arena.drain(..taken);
        self.arrived = arena;
    }

    fn on_event(&mut self, event: Event<'_>, now: Instant) -> Result<(), ConnectionError> {
        let machine = &mut self.machine;
        match event {
            Event::HostKey(key) => {
                assert_eq!(&key, host_key().public_key());
                machine.accept_host_key()?;
            }
            Event::AuthWanted { .. } => {
                let key = Credential::public_key(user_key().public_key().clone());
                let data = machine.authenticate(&key)?.unwrap();
                let signature = user_key().sign(SignatureAlgorithm::Ed25519, &data).unwrap();
                machine.signature(&signature)?;
            }
            Event::Attempt(_) => self.logged_in = machine.accept_auth(now)?,
            Event::Authenticated => {
                self.logged_in = true;
                machine.open_session("echo", 10_000)?;
            }
            Event::Request(_, SessionRequest::Subsystem("echo")) => {
                machine.answer_request(true, true)?;
            }
            Event::ChannelReady(id) => machine.send(id, b"one").unwrap(),
            Event::Data(id, data) => {
                self.heard.extend_from_slice(data.bytes);
                machine.give_credit(id, data.bytes.len());
                if !self.is_client {
                    machine.send(id, data.bytes).unwrap();
                } else if self.heard == b"one" {
                    machine.rekey(now)?;
                    machine.send(id, b"two").unwrap();
                } else {
                    machine.send_eof(id);
                }
            }
            Event::Eof(id) => machine.close(id),
            Event::Closed(_) => self.is_done = true,
            other => panic!("{other:?}"),
        }
        Ok(())
    }
}

/// A seeded source of randomness that fails from some call on, and counts the calls.
#[derive(Debug)]
struct Failing {
    source: Seeded,
    calls: Arc<AtomicUsize>,
    from: usize,
}

impl Random for Failing {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed> {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= self.from {
            return Err(RandomFailed);
        }
        self.source.fill(out)
    }
}

fn common() -> CommonConfig {
    let mut common = CommonConfig::default();
    // One of each, so that the lists are short and the bits of all of them can be flipped.
    common.preferences.kex = vec![Kex::Curve25519Sha256];
    common.preferences.host_key = vec![SignatureAlgorithm::Ed25519];
    common.preferences.cipher = vec![CipherName::Aes256Gcm];
    common.preferences.mac = vec![MacName::HmacSha256Etm];
    common.preferences.compression = vec![Compression::None];
    common
}

fn client(random: impl Random + 'static, now: Instant) -> Result<Side, ConnectionError> {
    let mut config = ClientConfig::new("ann");
    config.common = common();
    let machine = Connection::client(config, Box::new(random), now)?;
    Ok(Side::new(machine, true))
}

fn server(random: impl Random + 'static, now: Instant) -> Result<Side, ConnectionError> {
    let mut config = ServerConfig::new([Arc::new(host_key().into())]);
    config.common = common();
    let machine = Connection::server(config, Box::new(random), now)?;
    Ok(Side::new(machine, false))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a place for the virtual clock to start"
)]
fn start() -> Instant {
    Instant::now()
}

/// Both sides and what is between them.
#[derive(Debug)]
struct Session {
    client: Side,
    server: Side,
    /// By who says it.
    ways: [Way; 2],
    now: Instant,
}

impl Session {
    fn new(from: From, meddling: Meddling) -> Self {
        let now = start();
        let client = client(Seeded::new(1), now).unwrap();
        let server = server(Seeded::new(2), now).unwrap();
        Self::between(client, server, now, from, meddling)
    }

    fn between(client: Side, server: Side, now: Instant, from: From, meddling: Meddling) -> Self {
        let ways = BOTH.map(|way| Way {
            meddling: if way == from {
                meddling
            } else {
                Meddling::Nothing
            },
            framing: Framing::default(),
            held: Vec::new(),
        });
        Self {
            client,
            server,
            ways,
            now,
        }
    }

    /// One side's words to the other. Says whether there were any.
    fn deliver(&mut self, from: From) -> bool {
        let (speaker, listener) = match from {
            From::Client => (&mut self.client, &mut self.server),
            From::Server => (&mut self.server, &mut self.client),
        };
        let said = speaker.machine.output().to_vec();
        speaker.machine.output_taken(said.len());
        for piece in self.ways[from as usize].carry(&said) {
            listener.take(&piece, self.now);
        }
        !said.is_empty()
    }

    /// Goes on until both are done, or something is wrong. Where nothing is said any more time
    /// passes, until somebody has waited for long enough.
    fn run(mut self) -> Self {
        for _ in 0..1_000 {
            let is_said = self.deliver(From::Client) | self.deliver(From::Server);
            let (client, server) = (&mut self.client, &mut self.server);
            if client.error.is_some() || server.error.is_some() {
                return self;
            }
            if is_said {
                continue;
            }
            if client.is_done && server.is_done {
                return self;
            }
            let deadlines = [&client.machine, &server.machine].map(Connection::poll_timeout);
            self.now = deadlines.into_iter().flatten().min().unwrap();
            for side in [client, server] {
                side.error = side.machine.handle_timeout(self.now).err();
                side.take(&[], self.now);
            }
        }
        panic!("neither goes on nor ends: {self:?}");
    }

    fn events(&self) -> [&[String]; 2] {
        [&self.client.events, &self.server.events]
    }

    fn is_whole(&self) -> bool {
        let sides = [&self.client, &self.server];
        sides
            .iter()
            .all(|side| side.is_done && side.error.is_none() && side.arrived.is_empty())
    }

    fn is_logged_in(&self) -> bool {
        self.client.logged_in || self.server.logged_in
    }
}

/// The session that nobody meddles with.
fn untouched() -> Session {
    let session = Session::new(From::Client, Meddling::Nothing).run();
    assert!(session.is_whole(), "{session:?}");
    assert_eq!(session.client.heard, b"onetwo");
    assert_eq!(session.server.heard, b"onetwo");
    assert_eq!(session.client.machine.info().traffic.rekeys, 1);
    session
}

fn frames(session: &Session, from: From) -> Vec<Frame> {
    session.ways[from as usize].framing.frames.clone()
}

#[test]
fn cut_at_any_byte_a_session_is_the_same() {
    let whole = untouched();
    for from in BOTH {
        for at in 0..frames(&whole, from).last().unwrap().end() {
            let session = Session::new(from, Meddling::Cut(at)).run();
            assert!(session.is_whole(), "{from:?} {at}: {session:?}");
            assert_eq!(session.events(), whole.events(), "{from:?} {at}");
        }
    }
}

fn no_bit_can_be_changed(from: From) {
    let whole = untouched();
    for frame in frames(&whole, from) {
        for at in frame.start..frame.end() {
            for bit in 0..8 {
                let session = Session::new(from, Meddling::Flip(at, bit)).run();
                let place = format!("bit {bit} of byte {at} in {frame:?}");
                if at >= frame.end() - frame.loose {
                    // Nobody reads the padding of a packet in clear.
                    assert_eq!(session.events(), whole.events(), "{place}");
                    continue;
                }
                assert!(!session.is_whole(), "{place}: {session:?}");
                let is_early = !frame.is_sealed;
                assert!(!is_early || !session.is_logged_in(), "{place}: {session:?}");
            }
        }
    }
}

#[test]
fn no_bit_of_what_a_client_says_can_be_changed() {
    no_bit_can_be_changed(From::Client);
}

#[test]
fn no_bit_of_what_a_server_says_can_be_changed() {
    no_bit_can_be_changed(From::Server);
}

#[test]
fn no_packet_can_be_lost_repeated_or_swapped() {
    let whole = untouched();
    for from in BOTH {
        let frames = frames(&whole, from);
        for (number, frame) in frames.iter().enumerate() {
            for meddling in [
                Meddling::Lose(number),
                Meddling::Repeat(number),
                Meddling::Swap(number),
            ] {
                let is_last = number + 1 == frames.len();
                if is_last && !matches!(meddling, Meddling::Lose(_)) {
                    continue; // nothing comes behind it that would tell
                }
                let session = Session::new(from, meddling).run();
                assert!(!session.is_whole(), "{from:?} {meddling:?}: {session:?}");
                let is_early = !frame.is_sealed;
                assert!(
                    !is_early || !session.is_logged_in(),
                    "{from:?} {meddling:?}: {session:?}"
                );
            }
        }
    }
}

/// Terrapin: a message in clear that changes nothing but a counter, and later a packet less.
#[test]
fn nothing_can_be_slipped_in_before_there_are_keys() {
    const MESSAGES: [&[u8]; 6] = [
        &[number::IGNORE, 0, 0, 0, 0],
        &[number::DEBUG, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[number::UNIMPLEMENTED, 0, 0, 0, 0],
        &[number::EXT_INFO, 0, 0, 0, 0],
        &[number::USERAUTH_SUCCESS],
        &[200],
    ];
    let whole = untouched();
    for from in BOTH {
        let frames = frames(&whole, from);
        let first_sealed = frames.iter().position(|frame| frame.is_sealed).unwrap();
        for before in 1..first_sealed {
            for message in MESSAGES {
                for lost in [None, Some(first_sealed), Some(first_sealed + 1)] {
                    let slip = Meddling::Slip {
                        before,
                        message,
                        lost,
                    };
                    let session = Session::new(from, slip).run();
                    assert!(!session.is_logged_in(), "{from:?} {slip:?}: {session:?}");
                    assert!(!session.is_whole());
                }
            }
        }
    }
}

/// A source that fails is an error at whatever moment, and no key is made of what it left behind.
#[test]
fn without_randomness_nothing_goes_on() {
    for failing in BOTH {
        for from in 0.. {
            let now = start();
            let calls = Arc::new(AtomicUsize::new(0));
            let source = |way, seed| Failing {
                source: Seeded::new(seed),
                calls: if way == failing {
                    calls.clone()
                } else {
                    Arc::default()
                },
                from: if way == failing { from } else { usize::MAX },
            };
            let sides = client(source(From::Client, 1), now)
                .and_then(|client| Ok((client, server(source(From::Server, 2), now)?)));
            let (client, server) = match sides {
                Ok(sides) => sides,
                Err(error) => {
                    assert!(
                        matches!(error, ConnectionError::RandomFailed(_)),
                        "{error:?}"
                    );
                    continue;
                }
            };
            let session = Session::between(client, server, now, failing, Meddling::Nothing).run();
            if calls.load(Ordering::Relaxed) <= from {
                assert!(session.is_whole() && from > 3, "{session:?}");
                break;
            }
            let side = if failing == From::Client {
                session.client
            } else {
                session.server
            };
            let error = side.error.unwrap();
            assert!(
                matches!(error, ConnectionError::RandomFailed(_)),
                "{from}: {error:?}"
            );
        }
    }
}
