//! Two [`Connection`]s against each other, for tests: no socket, a virtual clock, and a seed that
//! decides how bytes are cut, what is late, who writes how much, and when keys are exchanged.
//!
//! The same seed gives the same run. [`talk`] is what the channels carry; [`laws`] says what has to
//! hold whatever the seed. [`whole`] is one short session, and all that can be done to it on the way.

mod laws;
mod talk;
mod whole;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_keys::PrivateKey;
use zeroize::Zeroizing;

use crate::algorithm::CipherName;
use crate::algorithm::SignatureAlgorithm;
use crate::auth::{AuthAttempt, Credential, Method};
use crate::channel::ChannelId;
use crate::config::{ClientConfig, CommonConfig, ServerConfig};
use crate::connection::Connection;
use crate::crypto::{Random, RandomFailed};
use crate::event::{Event, SessionRequest};
use crate::packet::{Input, PACKET_LEN_MAX};
use talk::{Plan, Talk};

/// Unpredictable bytes that a seed predicts.
#[derive(Clone, Debug)]
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (the generator is splitmix64).
    pub(crate) const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap();
        usize::try_from(self.number() % end).unwrap()
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed> {
        for piece in out.chunks_mut(8) {
            piece.copy_from_slice(&self.number().to_le_bytes()[..piece.len()]);
        }
        Ok(())
    }
}

/// What the seed decides once for a whole run.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// Most bytes that move at once between an output and the wire, or the wire and an arena.
    pub(crate) cut_max: usize,
    /// Most bytes on the way in one direction.
    pub(crate) wire_max: usize,
    pub(crate) cipher: CipherName,
    /// First window of every channel, and what it may grow to.
    pub(crate) window: u32,
    pub(crate) window_max: u32,
    pub(crate) queue_max: usize,
    /// Most data bytes of one direction of one channel.
    pub(crate) data_max: usize,
    /// Channels in all, and at a time.
    pub(crate) channels: usize,
    pub(crate) channels_at_once: usize,
    /// Whether sides close channels before they are done.
    pub(crate) cuts: bool,
    /// Key exchanges that are asked for.
    pub(crate) rekeys: usize,
    /// After how many bytes keys are exchanged unasked.
    pub(crate) rekey_bytes: Option<u64>,
}

impl Weather {
    pub(crate) fn new(random: &mut Seeded) -> Self {
        let cut_max = random.pick(&[1, 3, 17, 100, 1_000, 10_000, 100_000]);
        // Runs with small pieces carry less, so that all take about as long.
        let data_max = (cut_max * 400).clamp(2_000, 600_000);
        let window = random.pick(&[1, 100, 5_000, 40_000, 300_000]);
        let data_max = data_max.min(usize::try_from(window).unwrap() * 60);
        Self {
            cut_max,
            wire_max: random.pick(&[1, 50, 4_000, 200_000]).max(cut_max),
            cipher: random.pick(CipherName::AEAD),
            window,
            window_max: window * random.pick(&[1, 2, 8]),
            queue_max: random.pick(&[1_000, 64 * 1024, 512 * 1024]),
            data_max,
            channels: 1 + random.below(6),
            channels_at_once: 1 + random.below(3),
            cuts: random.one_in(2),
            rekeys: random.pick(&[0, 3, 30]),
            rekey_bytes: random.pick(&[None, None, Some(50_000)]),
        }
    }

    fn common(&self) -> CommonConfig {
        let mut common = CommonConfig::default();
        common.preferences.cipher = vec![self.cipher];
        common.limits.window_bytes = self.window;
        common.limits.window_bytes_max = self.window_max;
        common.limits.channel_queue_bytes = self.queue_max;
        common.limits.channels_max = self.channels_at_once;
        // Cut into single bytes, a handshake takes long; the deadlines have tests of their own.
        common.timers.handshake = Duration::from_secs(3600);
        common.timers.authentication = Duration::from_secs(3600);
        common.timers.keepalive = Some(Duration::from_millis(200));
        common.timers.keepalives_max = 100_000;
        common.rekey.bytes = self.rekey_bytes;
        common
    }
}

/// A question that the machine waits for an answer to.
#[derive(Debug)]
enum Question {
    HostKey,
    Credential { first: bool },
    Attempt(AuthAttempt),
}

/// One side: a machine, what arrived for it, and what its channels carry.
pub(crate) struct End {
    pub(crate) connection: Connection,
    /// Bytes on their way to this end.
    wire: VecDeque<u8>,
    /// Bytes that arrived and were not taken.
    arrived: Vec<u8>,
    question: Option<Question>,
    logged_in: bool,
    talks: BTreeMap<u32, Talk>,
    /// Channels that ended as they should.
    finished: usize,
    /// Those of them that were refused.
    refused: usize,
}

impl End {
    const fn new(connection: Connection) -> Self {
        Self {
            connection,
            wire: VecDeque::new(),
            arrived: Vec::new(),
            question: None,
            logged_in: false,
            talks: BTreeMap::new(),
            finished: 0,
            refused: 0,
        }
    }

    /// Takes what arrived, up to `cut` more bytes.
    fn read(&mut self, cut: usize, weather: &Weather, now: Instant) {
        let cut = cut.min(self.wire.len());
        self.arrived.extend(self.wire.drain(..cut));
        let mut arena = std::mem::take(&mut self.arrived);
        let mut input = Input::new(&mut arena);
        while let Some(event) = self.connection.next(&mut input, now).unwrap() {
            self.on_event(event, weather);
        }
        let taken = input.position();
        arena.drain(..taken);
        let unfinished_max = usize::try_from(PACKET_LEN_MAX).unwrap() + 64;
        assert!(self.connection.is_waiting() || arena.len() <= unfinished_max);
        self.arrived = arena;
    }

    fn on_event(&mut self, event: Event<'_>, weather: &Weather) {
        match event {
            Event::HostKey(key) => {
                assert_eq!(&key, host_key().public_key());
                self.question = Some(Question::HostKey);
            }
            Event::AuthWanted { methods, .. } => {
                let first = methods.is_none();
                self.question = Some(Question::Credential { first });
            }
            Event::Attempt(attempt) => self.question = Some(Question::Attempt(attempt)),
            Event::Authenticated => self.logged_in = true,
            Event::Request(_, SessionRequest::Subsystem("none")) => {
                self.connection.answer_request(false, true).unwrap();
            }
            Event::Request(id, SessionRequest::Subsystem(name)) => {
                let talk = Talk::new(&Plan::parse(name).flipped());
                assert!(
                    self.talks.insert(id.0, talk).is_none(),
                    "a number used twice"
                );
                self.connection.answer_request(true, true).unwrap();
            }
            Event::ChannelReady(id) => self.talk(id).on_ready(),
            Event::ChannelRefused(id, _) => {
                let talk = self.talks.remove(&id.0).unwrap();
                assert!(talk.is_refused());
                self.finished += 1;
                self.refused += 1;
            }
            Event::Data(id, data) => {
                let window_max = usize::try_from(weather.window_max).unwrap();
                self.talk(id).on_data(data.bytes, window_max);
            }
            // A channel that was refused its subsystem ends without ever having carried anything.
            Event::Eof(id) | Event::Closed(id) if !self.talks.contains_key(&id.0) => {}
            Event::Eof(id) => self.talk(id).on_eof(),
            Event::Closed(id) => {
                let talk = self.talks.remove(&id.0).unwrap();
                talk.on_closed();
                self.finished += 1;
            }
            other => panic!("{other:?}"),
        }
    }

    fn talk(&mut self, id: ChannelId) -> &mut Talk {
        self.talks.get_mut(&id.0).unwrap()
    }

    /// Answers a question of the login.
    fn answer(&mut self, now: Instant) {
        let connection = &mut self.connection;
        match self.question.take() {
            None => {}
            Some(Question::HostKey) => connection.accept_host_key().unwrap(),
            Some(Question::Credential { first: true }) => {
                assert_eq!(connection.authenticate(&Credential::None).unwrap(), None);
            }
            Some(Question::Credential { first: false }) => {
                let key = Credential::public_key(user_key().public_key().clone());
                let data = connection.authenticate(&key).unwrap().unwrap();
                let blob = user_key().sign(SignatureAlgorithm::Ed25519, &data).unwrap();
                connection.signature(&blob).unwrap();
            }
            Some(Question::Attempt(attempt)) => match attempt.method {
                Method::PublicKey { key, .. } => {
                    assert_eq!(&key, user_key().public_key());
                    assert!(connection.accept_auth(now).unwrap());
                    self.logged_in = true;
                }
                _ => connection.reject_auth().unwrap(),
            },
        }
    }

    /// Lets the channels send, take and end.
    fn drive(&mut self, random: &mut Seeded) {
        for (&id, talk) in &mut self.talks {
            talk.drive(ChannelId(id), &mut self.connection, random);
        }
    }

    /// Puts output on the wire to the other end.
    fn write(&mut self, to: &mut Self, cut: usize, wire_max: usize) {
        let output = self.connection.output();
        let len = cut.min(output.len()).min(wire_max - to.wire.len());
        to.wire.extend(&output[..len]);
        self.connection.output_taken(len);
    }

    fn is_done(&self) -> bool {
        self.talks.is_empty() && !self.connection.has_channels()
    }
}

fn host_key() -> PrivateKey {
    PrivateKey::from_ed25519_seed(Zeroizing::new([7; 32]))
}

fn user_key() -> PrivateKey {
    PrivateKey::from_ed25519_seed(Zeroizing::new([8; 32]))
}

/// A client and a server, and what is between them.
pub(crate) struct Pair {
    pub(crate) client: End,
    pub(crate) server: End,
    weather: Weather,
    random: Seeded,
    now: Instant,
    /// Channels that are still to be opened.
    to_open: usize,
    rekeys: usize,
}

impl Pair {
    #[expect(
        clippy::disallowed_methods,
        reason = "a place for the virtual clock to start"
    )]
    pub(crate) fn new(weather: Weather, mut random: Seeded) -> Self {
        let now = Instant::now();
        let mut config = ClientConfig::new("ann");
        config.common = weather.common();
        let source = Box::new(Seeded::new(random.number()));
        let client = Connection::client(config, source, now).unwrap();
        let mut config = ServerConfig::new([Arc::new(host_key().into())]);
        config.common = weather.common();
        let source = Box::new(Seeded::new(random.number()));
        let server = Connection::server(config, source, now).unwrap();
        Self {
            client: End::new(client),
            server: End::new(server),
            to_open: weather.channels,
            rekeys: weather.rekeys,
            weather,
            random,
            now,
        }
    }

    /// One thing happens.
    fn step(&mut self) {
        let Self {
            client,
            server,
            weather,
            random,
            now,
            ..
        } = self;
        let cut = 1 + random.below(weather.cut_max);
        match random.below(12) {
            0 | 1 => client.write(server, cut, weather.wire_max),
            2 | 3 => server.write(client, cut, weather.wire_max),
            4 | 5 => client.read(cut, weather, *now),
            6 | 7 => server.read(cut, weather, *now),
            8 => client.drive(random),
            9 => server.drive(random),
            10 => self.decide(),
            _ => self.pass_time(),
        }
        for end in [&mut self.client, &mut self.server] {
            end.connection.flush(self.now).unwrap();
            assert!(end.connection.output().len() <= 1024 * 1024);
        }
    }

    /// Somebody answers, opens a channel, or wants new keys.
    fn decide(&mut self) {
        let Self {
            client,
            server,
            weather,
            random,
            now,
            ..
        } = self;
        let logged_in = client.logged_in && server.logged_in;
        match random.below(4) {
            0 => client.answer(*now),
            1 => server.answer(*now),
            2 if logged_in && self.to_open > 0 => {
                let plan = Plan::new(random, weather);
                match client
                    .connection
                    .open_session(plan.name().as_str(), weather.window)
                    .unwrap()
                {
                    None => {
                        assert!(client.talks.len() + client.refused >= weather.channels_at_once);
                    }
                    Some(id) => {
                        client.talks.insert(id.0, Talk::opening(&plan));
                        self.to_open -= 1;
                    }
                }
            }
            3 if logged_in && self.rekeys > 0 => {
                self.rekeys -= 1;
                let who = random.below(3);
                if who != 1 {
                    client.connection.rekey(*now).unwrap();
                }
                if who != 0 {
                    server.connection.rekey(*now).unwrap();
                }
            }
            _ => {}
        }
    }

    fn pass_time(&mut self) {
        self.now += Duration::from_micros(u64::try_from(self.random.below(1_000)).unwrap());
        for end in [&mut self.client, &mut self.server] {
            if end
                .connection
                .poll_timeout()
                .is_some_and(|at| at <= self.now)
            {
                end.connection.handle_timeout(self.now).unwrap();
            }
        }
    }

    /// What has been achieved; it changes as long as anything moves but keepalives.
    fn progress(&self) -> [usize; 8] {
        let Self { client, server, .. } = self;
        let carried = |end: &End| end.talks.values().map(Talk::carried).sum();
        let logged_in = usize::from(client.logged_in) + usize::from(server.logged_in);
        let question = usize::from(client.question.is_some());
        [
            carried(client),
            carried(server),
            client.finished,
            server.finished,
            self.to_open,
            self.rekeys,
            logged_in,
            question,
        ]
    }

    /// Runs until every channel has carried what it should and is gone.
    pub(crate) fn run(&mut self) {
        // A byte at a time, a window of one byte costs thousands of steps a byte, new keys more.
        const IDLE_STEPS_MAX: usize = 1_000_000;
        let mut idle = 0;
        let mut progress = self.progress();
        while idle < IDLE_STEPS_MAX {
            self.step();
            let done = self.client.is_done() && self.server.is_done();
            if done && self.to_open == 0 && self.client.finished == self.weather.channels {
                return;
            }
            let now = self.progress();
            idle = if now == progress { idle + 1 } else { 0 };
            progress = now;
        }
        panic!(
            "nothing moves any more: {:?} {:?}, channels {:?} {:?}",
            self.client.connection, self.server.connection, self.client.talks, self.server.talks
        );
    }
}
