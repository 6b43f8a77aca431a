//! A peer that says what it is told to say, for tests: real keys and packets, no manners.
//!
//! [`Rig`] joins a [`Connection`] in either role to such a peer and walks both to any [`State`].
//! The submodules provoke every violation that the RFCs, strict key exchange and our limits know.

mod channel_ends;
mod channels;
mod early;
mod floods;
mod key_exchange;
mod login;
mod methods;
mod offers;
mod order;
mod packets;
mod peer;
mod services;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_keys::PrivateKey;
use ketch_wire::Writer;
use zeroize::Zeroizing;

use crate::algorithm::{Kex, SignatureAlgorithm};
use crate::channel::ChannelId;
use crate::config::{ClientConfig, ServerConfig};
use crate::connection::Connection;
use crate::crypto::derive::{Agreed, ExchangeHash};
use crate::crypto::kex::ClientShare;
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::auth::{CONNECTION_SERVICE, MethodRequest, UserauthRequest};
use crate::message::connection::{ChannelData, Request};
use crate::message::connection::{ChannelOnly, ChannelOpen, ChannelRequest, OpenConfirmation};
use crate::message::number;
use crate::message::transport::Service;
use crate::packet::{PACKET_LEN_MAX, Receiver, Sender};
use crate::pair::Seeded;
use crate::profile::Preferences;

/// What the machine under test is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Client,
    Server,
}

/// How far machine and peer have come, the same names for both roles.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum State {
    /// Identifications are exchanged.
    BeforeKexInit,
    /// The peer's `KEXINIT` is in; its public value is not.
    BeforePublic,
    /// The peer's public value is in; its `NEWKEYS` is not.
    BeforeNewKeys,
    /// Keys are in use, and no packet came under them.
    FirstUnderKeys,
    /// One did. The service is not asked for, or not granted.
    BeforeService,
    /// A server waits for a request, a client for the answer to its own.
    InLogin,
    /// Logged in, with channel 0 open.
    InUse,
    /// The machine's `KEXINIT` for new keys is out.
    RekeyAsked,
    /// The peer's is in, its public value is not.
    RekeyBeforePublic,
    /// Its public value is in, its `NEWKEYS` is not.
    RekeyBeforeNewKeys,
}

/// What the peer offers.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) kex: &'static str,
    pub(super) strict: bool,
    pub(super) cipher: &'static str,
    pub(super) mac: &'static str,
    pub(super) follows: bool,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            kex: "curve25519-sha256",
            strict: true,
            cipher: "aes256-gcm@openssh.com",
            mac: "hmac-sha2-256",
            follows: false,
        }
    }
}

/// What a message led to.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Events, as they show themselves.
    pub(super) events: Vec<String>,
    /// Payloads that the machine sent.
    pub(super) heard: Vec<Vec<u8>>,
}

pub(super) type Outcome = Result<Told, ConnectionError>;

/// The channel of [`State::InUse`] on the machine's side, and the number that the peer gave it.
pub(super) const CHANNEL: u32 = 0;
pub(super) const PEER_CHANNEL: u32 = 7;
/// The window that the peer gives there.
pub(super) const PEER_WINDOW: u32 = 1_000;

/// A machine and its peer.
pub(super) struct Rig {
    pub(super) role: Role,
    pub(super) machine: Connection,
    pub(super) now: Instant,
    pub(super) offer: Offer,
    pub(super) host_key: PrivateKey,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    random: Seeded,
    first: bool,
    session_id: Option<ExchangeHash>,
    machine_identification: String,
    ours: Vec<u8>,
    theirs: Vec<u8>,
    machine_public: Vec<u8>,
    share: Option<ClientShare>,
    agreed: Option<Agreed>,
}

/// Of a program that is known to keep strict key exchange, whether it does or not.
const IDENTIFICATION: &str = "SSH-2.0-ketch_0.0.0-raw";

pub(super) fn payload(encode: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut Writer::new(&mut bytes));
    bytes
}

pub(super) fn key_pair(seed: u8) -> PrivateKey {
    PrivateKey::from_ed25519_seed(Zeroizing::new([seed; 32]))
}

impl Rig {
    /// Before identifications are exchanged.
    pub(super) fn unidentified(role: Role, offer: Offer) -> Self {
        Self::unidentified_with(role, offer, |_| {})
    }

    /// The same, of a server that is configured as `configure` has it.
    pub(super) fn unidentified_with(
        role: Role,
        offer: Offer,
        configure: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        Self::configured(role, offer, |_| {}, configure)
    }

    /// The same, of a machine that prefers what `choose` has it prefer.
    pub(super) fn unidentified_as(
        role: Role,
        offer: Offer,
        choose: impl FnOnce(&mut Preferences),
    ) -> Self {
        Self::configured(role, offer, choose, |_| {})
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a place for the virtual clock to start"
    )]
    fn configured(
        role: Role,
        offer: Offer,
        choose: impl FnOnce(&mut Preferences),
        configure: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let now = Instant::now();
        let random = Box::new(Seeded::new(1));
        // One method, so that its messages are what the tests say; and the one in which a server
        // has more to say.
        let narrow = |preferences: &mut Preferences| {
            preferences.kex = vec![Kex::Curve25519Sha256, Kex::Curve25519Sha256Libssh];
            if role == Role::Client {
                preferences.kex.push(Kex::DhGroupExchangeSha256);
            }
            preferences.host_key = vec![SignatureAlgorithm::Ed25519];
            choose(preferences);
        };
        let machine = match role {
            Role::Client => {
                let mut config = ClientConfig::new("ann");
                narrow(&mut config.common.preferences);
                Connection::client(config, random, now)
            }
            Role::Server => {
                let mut config = ServerConfig::new([Arc::new(key_pair(1).into())]);
                narrow(&mut config.common.preferences);
                configure(&mut config);
                Connection::server(config, random, now)
            }
        };
        Self {
            role,
            machine: machine.unwrap(),
            now,
            offer,
            host_key: key_pair(1),
            sender: Sender::new(),
            receiver: Receiver::new(PACKET_LEN_MAX),
            random: Seeded::new(2),
            first: true,
            session_id: None,
            machine_identification: String::new(),
            ours: Vec::new(),
            theirs: Vec::new(),
            machine_public: Vec::new(),
            share: None,
            agreed: None,
        }
    }

    /// In [`State::BeforeKexInit`].
    pub(super) fn new(role: Role, offer: Offer) -> Self {
        let mut rig = Self::unidentified(role, offer);
        rig.identify();
        rig
    }

    /// Exchanges identifications.
    pub(super) fn identify(&mut self) {
        let rig = self;
        let line = rig.machine.output().split(|&byte| byte == b'\r').next();
        rig.machine_identification = String::from_utf8(line.unwrap().to_vec()).unwrap();
        rig.machine
            .output_taken(rig.machine_identification.len() + 2);
        let line = format!("{IDENTIFICATION}\r\n");
        rig.feed(&mut line.into_bytes()).unwrap();
        rig.listen();
    }

    /// In any state; the offer is the default but for its mark.
    pub(super) fn at(role: Role, strict: bool, state: State) -> Self {
        let mut rig = Self::new(
            role,
            Offer {
                strict,
                ..Offer::default()
            },
        );
        rig.walk(state);
        rig
    }

    /// Goes on, from [`State::BeforeKexInit`], to a state.
    pub(super) fn walk(&mut self, state: State) {
        if state >= State::BeforePublic {
            self.tell_kexinit().unwrap();
        }
        if state >= State::BeforeNewKeys {
            self.tell_public().unwrap();
        }
        if state >= State::FirstUnderKeys {
            self.tell_newkeys().unwrap();
        }
        self.walk_from_keys(state);
    }

    /// Goes on, from [`State::FirstUnderKeys`], to a state.
    pub(super) fn walk_from_keys(&mut self, state: State) {
        if state >= State::BeforeService {
            self.tell(&[number::IGNORE, 0, 0, 0, 0]).unwrap();
        }
        if state >= State::InLogin {
            let number = self.by_role(number::SERVICE_ACCEPT, number::SERVICE_REQUEST);
            self.tell(&payload(|w| {
                Service {
                    name: Service::USERAUTH,
                }
                .encode(number, w)
            }))
            .unwrap();
        }
        if state >= State::InUse {
            self.log_in();
            self.open_channel();
        }
        if state >= State::RekeyAsked {
            self.machine.rekey(self.now).unwrap();
            self.listen();
        }
        if state >= State::RekeyBeforePublic {
            self.tell_kexinit().unwrap();
        }
        if state >= State::RekeyBeforeNewKeys {
            self.tell_public().unwrap();
        }
    }

    /// Picks what fits the role of the machine.
    pub(super) fn by_role<T>(&self, client: T, server: T) -> T {
        match self.role {
            Role::Client => client,
            Role::Server => server,
        }
    }

    fn log_in(&mut self) {
        match self.role {
            Role::Client => drop(self.tell(&[number::USERAUTH_SUCCESS]).unwrap()),
            Role::Server => {
                self.tell(&userauth_request(MethodRequest::None)).unwrap();
                assert!(self.machine.accept_auth(self.now).unwrap());
                self.listen();
            }
        }
    }

    fn open_channel(&mut self) {
        match self.role {
            Role::Client => {
                let id = self.machine.open_session("echo", 100_000).unwrap();
                assert_eq!(id, Some(ChannelId(CHANNEL)));
                self.tell(&confirmation(CHANNEL, PEER_CHANNEL, PEER_WINDOW, 32_768))
                    .unwrap();
                let success = ChannelOnly { recipient: CHANNEL };
                self.tell(&payload(|w| success.encode(number::CHANNEL_SUCCESS, w)))
                    .unwrap();
            }
            Role::Server => {
                self.tell(&open(PEER_CHANNEL, PEER_WINDOW, 32_768)).unwrap();
                self.tell(&request(CHANNEL, Request::Subsystem("echo")))
                    .unwrap();
            }
        }
    }

    /// A whole exchange of new keys that the peer starts, however long the machine lets it wait.
    pub(super) fn rekey(&mut self) -> Outcome {
        self.tell_kexinit()?;
        while self.machine.is_waiting() {
            self.wait(Duration::from_millis(100))?;
        }
        self.tell_public()?;
        self.tell_newkeys()
    }

    /// The peer's session identifier, which is the machine's.
    pub(super) const fn session_id(&self) -> Option<ExchangeHash> {
        self.session_id
    }

    /// Time passes, without a packet.
    pub(super) fn wait(&mut self, time: Duration) -> Outcome {
        self.now += time;
        self.machine.handle_timeout(self.now)?;
        self.feed(&mut [])
    }
}

/// The violation that ended the connection.
pub(super) fn misbehaved(outcome: Outcome) -> PeerMisbehaved {
    match outcome {
        Err(ConnectionError::Misbehaved(misbehaved)) => misbehaved,
        other => panic!("{other:?}"),
    }
}

/// The reason of the `DISCONNECT` that the machine sent last.
pub(super) fn last_word(heard: &[Vec<u8>]) -> u32 {
    let last = heard.last().unwrap();
    assert_eq!(last[0], number::DISCONNECT, "{last:?}");
    u32::from_be_bytes(last[1..5].try_into().unwrap())
}

pub(super) fn userauth_request(method: MethodRequest<'_>) -> Vec<u8> {
    let request = UserauthRequest {
        user: "ann",
        service: CONNECTION_SERVICE,
        method,
    };
    payload(|w| request.encode(w))
}

pub(super) fn open(sender: u32, window: u32, max_packet: u32) -> Vec<u8> {
    let open = ChannelOpen {
        channel_type: ChannelOpen::SESSION,
        sender,
        window,
        max_packet,
        rest: &[],
    };
    payload(|w| open.encode(w))
}

pub(super) fn confirmation(recipient: u32, sender: u32, window: u32, max_packet: u32) -> Vec<u8> {
    payload(|w| {
        OpenConfirmation {
            recipient,
            sender,
            window,
            max_packet,
        }
        .encode(w)
    })
}

pub(super) fn request(recipient: u32, request: Request<'_>) -> Vec<u8> {
    payload(|w| {
        ChannelRequest {
            recipient,
            want_reply: true,
            request,
        }
        .encode(w)
    })
}

pub(super) fn data(recipient: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = ChannelData::header(recipient, u32::try_from(data.len()).unwrap()).to_vec();
    bytes.extend_from_slice(data);
    bytes
}

pub(super) fn only(number: u8, recipient: u32) -> Vec<u8> {
    payload(|w| ChannelOnly { recipient }.encode(number, w))
}
