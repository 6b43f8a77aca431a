//! A peer that says what it is told to say, for tests: real keys and packets, no manners.
//!
//! [`Rig`] joins a [`Connection`] in either role to such a peer and walks both to any [`State`].
//! The submodules provoke every violation that the RFCs, strict key exchange and our limits know.

mod channels;
mod key_exchange;
mod login;
mod order;
mod packets;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_wire::{NameList, Reader, Writer};
use zeroize::Zeroizing;

use crate::algorithm::{CipherName, marker};
use crate::auth::Credential;
use crate::channel::ChannelId;
use crate::config::{ClientConfig, ServerConfig};
use crate::connection::Connection;
use crate::crypto::derive::{Agreed, Direction, ExchangeHash, Transcript};
use crate::crypto::ecdh::Ephemeral;
use crate::crypto::hostkey::HostKeyPair;
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::event::Event;
use crate::message::auth::{CONNECTION_SERVICE, MethodRequest, UserauthRequest};
use crate::message::connection::{ChannelOnly, ChannelOpen, ChannelRequest, OpenConfirmation};
use crate::message::connection::{ChannelData, Request};
use crate::message::kex::{EcdhInit, EcdhReply, KexInit};
use crate::message::number;
use crate::message::transport::Service;
use crate::packet::{Input, PACKET_LEN_MAX, Receiver, Sender};
use crate::pair::Seeded;

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
    pub(super) follows: bool,
}

impl Default for Offer {
    fn default() -> Self {
        Self { kex: "curve25519-sha256", strict: true, cipher: "aes256-gcm@openssh.com", follows: false }
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
    pub(super) host_key: HostKeyPair,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    random: Seeded,
    first: bool,
    session_id: Option<ExchangeHash>,
    machine_identification: String,
    ours: Vec<u8>,
    theirs: Vec<u8>,
    machine_public: Vec<u8>,
    ephemeral: Option<Ephemeral>,
    agreed: Option<Agreed>,
}

const IDENTIFICATION: &str = "SSH-2.0-raw";

pub(super) fn payload(encode: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut Writer::new(&mut bytes));
    bytes
}

pub(super) fn key_pair(seed: u8) -> HostKeyPair {
    HostKeyPair::from_ed25519_seed(&Zeroizing::new([seed; 32]))
}

impl Rig {
    /// Before identifications are exchanged.
    #[expect(clippy::disallowed_methods, reason = "a place for the virtual clock to start")]
    pub(super) fn unidentified(role: Role, offer: Offer) -> Self {
        let now = Instant::now();
        let random = Box::new(Seeded::new(1));
        let machine = match role {
            Role::Client => Connection::client(ClientConfig::new("ann"), random, now),
            Role::Server => Connection::server(ServerConfig::new(Arc::new(key_pair(1))), random, now),
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
            ephemeral: None,
            agreed: None,
        }
    }

    /// In [`State::BeforeKexInit`].
    pub(super) fn new(role: Role, offer: Offer) -> Self {
        let mut rig = Self::unidentified(role, offer);
        let line = String::from_utf8(rig.machine.output().to_vec().split(|&b| b == b'\r').next().unwrap().to_vec());
        rig.machine_identification = line.unwrap();
        rig.machine.output_taken(rig.machine_identification.len() + 2);
        let line = format!("{IDENTIFICATION}\r\n");
        rig.feed(&mut line.into_bytes()).unwrap();
        rig.listen();
        rig
    }

    /// In any state; the offer is the default but for its mark.
    pub(super) fn at(role: Role, strict: bool, state: State) -> Self {
        let mut rig = Self::new(role, Offer { strict, ..Offer::default() });
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
        if state >= State::BeforeService {
            self.tell(&[number::IGNORE, 0, 0, 0, 0]).unwrap();
        }
        if state >= State::InLogin {
            let number = self.by_role(number::SERVICE_ACCEPT, number::SERVICE_REQUEST);
            self.tell(&payload(|w| Service { name: Service::USERAUTH }.encode(number, w))).unwrap();
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
                self.tell(&confirmation(CHANNEL, PEER_CHANNEL, PEER_WINDOW, 32_768)).unwrap();
                let success = ChannelOnly { recipient: CHANNEL };
                self.tell(&payload(|w| success.encode(number::CHANNEL_SUCCESS, w))).unwrap();
            }
            Role::Server => {
                self.tell(&open(PEER_CHANNEL, PEER_WINDOW, 32_768)).unwrap();
                self.tell(&request(CHANNEL, Request::Subsystem("echo"))).unwrap();
            }
        }
    }

    /// Seals a payload, gives it to the machine, and says what came of it.
    pub(super) fn tell(&mut self, payload: &[u8]) -> Outcome {
        self.sender.send(payload).unwrap();
        let mut bytes = self.sender.output().to_vec();
        self.sender.consume(bytes.len());
        self.feed(&mut bytes)
    }

    /// Gives bytes to the machine. What it asks on the way in is answered as a friend would.
    pub(super) fn feed(&mut self, bytes: &mut [u8]) -> Outcome {
        let mut told = Told::default();
        let mut input = Input::new(bytes);
        while let Some(event) = self.machine.next(&mut input, self.now)? {
            told.events.push(format!("{event:?}"));
            match event {
                Event::HostKey(_) => self.machine.accept_host_key()?,
                Event::AuthWanted { methods: None, .. } => {
                    self.machine.authenticate(&Credential::None)?;
                }
                Event::Subsystem(id, _) => self.machine.answer_subsystem(id, true)?,
                _ => {}
            }
        }
        self.machine.flush(self.now)?;
        told.heard = self.listen();
        Ok(told)
    }

    /// Opens what the machine sent; keys change where it says so.
    pub(super) fn listen(&mut self) -> Vec<Vec<u8>> {
        let mut bytes = self.machine.output().to_vec();
        self.machine.output_taken(bytes.len());
        let mut input = Input::new(&mut bytes);
        let mut heard = Vec::new();
        while let Some(packet) = self.receiver.next(&mut input).unwrap() {
            let payload = packet.payload.bytes.to_vec();
            self.on_heard(&payload);
            heard.push(payload);
        }
        assert_eq!(input.remaining(), 0);
        heard
    }

    fn on_heard(&mut self, payload: &[u8]) {
        let fields = Reader::new(&payload[1..]);
        match payload[0] {
            number::KEXINIT => self.theirs = payload.to_vec(),
            number::KEX_ECDH_INIT => {
                self.machine_public = EcdhInit::decode(fields).unwrap().public.to_vec();
            }
            number::KEX_ECDH_REPLY => {
                let reply = EcdhReply::decode(fields).unwrap();
                self.agree(reply.host_key, reply.public);
                let hash = self.agreed.as_ref().unwrap().hash;
                self.host_key.public_key().verify(&hash, reply.signature).unwrap();
            }
            number::NEWKEYS => {
                let (cipher, keys) = self.keys(self.machine_direction());
                self.receiver.install(cipher, &keys, self.offer.strict);
            }
            _ => {}
        }
    }

    const fn machine_direction(&self) -> Direction {
        match self.role {
            Role::Client => Direction::ClientToServer,
            Role::Server => Direction::ServerToClient,
        }
    }

    fn keys(&self, direction: Direction) -> (CipherName, crate::crypto::KeyMaterial) {
        let cipher = CipherName::from_name(self.offer.cipher).unwrap();
        let agreed = self.agreed.as_ref().unwrap();
        (cipher, agreed.key_material(&self.session_id.unwrap(), direction, cipher))
    }

    /// Both public values are known: the secret and the hash are, too.
    fn agree(&mut self, host_key: &[u8], machine_public: &[u8]) {
        let ephemeral = self.ephemeral.take().unwrap();
        let our_public = *ephemeral.public();
        let secret = ephemeral.agree(machine_public).unwrap();
        let machine = (self.machine_identification.as_bytes(), &self.theirs[..], machine_public);
        let raw = (IDENTIFICATION.as_bytes(), &self.ours[..], &our_public[..]);
        let (client, server) = if self.role == Role::Client { (machine, raw) } else { (raw, machine) };
        let transcript = Transcript {
            client_identification: client.0,
            server_identification: server.0,
            client_kexinit: client.1,
            server_kexinit: server.1,
            host_key,
            client_public: client.2,
            server_public: server.2,
        };
        let agreed = Agreed::new(&transcript, &secret[..]);
        self.session_id.get_or_insert(agreed.hash);
        self.agreed = Some(agreed);
    }

    /// The peer's `KEXINIT`.
    pub(super) fn kexinit(&self) -> Vec<u8> {
        let Offer { kex, strict, cipher, follows } = self.offer;
        let mark = self.by_role(marker::STRICT_SERVER, marker::STRICT_CLIENT);
        let marked = format!("{kex},{mark}");
        // As every peer does, it leaves the mark out once keys are in use.
        let kex = if strict && self.first { &marked } else { kex };
        let list = |names| NameList::new(names).unwrap();
        let message = KexInit {
            cookie: [9; 16],
            kex: list(kex),
            host_key: list("ssh-ed25519"),
            cipher_client_to_server: list(cipher),
            cipher_server_to_client: list(cipher),
            mac_client_to_server: list("hmac-sha2-256"),
            mac_server_to_client: list("hmac-sha2-256"),
            compression_client_to_server: list("none"),
            compression_server_to_client: list("none"),
            languages_client_to_server: NameList::EMPTY,
            languages_server_to_client: NameList::EMPTY,
            first_kex_packet_follows: follows,
        };
        payload(|w| message.encode(w))
    }

    pub(super) fn tell_kexinit(&mut self) -> Outcome {
        self.ours = self.kexinit();
        self.tell(&self.ours.clone())
    }

    /// The message with the peer's public value: `KEX_ECDH_INIT` to a server, the reply to a client.
    pub(super) fn public(&mut self) -> Vec<u8> {
        let ephemeral = Ephemeral::generate(&mut self.random).unwrap();
        let public = *ephemeral.public();
        self.ephemeral = Some(ephemeral);
        if self.role == Role::Server {
            return payload(|w| EcdhInit { public: &public }.encode(w));
        }
        let host_key = self.host_key.public_key().as_blob().to_vec();
        self.agree(&host_key, &self.machine_public.clone());
        let signature = self.host_key.sign(&self.agreed.as_ref().unwrap().hash).unwrap();
        payload(|w| EcdhReply { host_key: &host_key, public: &public, signature: &signature }.encode(w))
    }

    pub(super) fn tell_public(&mut self) -> Outcome {
        let message = self.public();
        self.tell(&message)
    }

    pub(super) fn tell_newkeys(&mut self) -> Outcome {
        let outcome = self.tell(&[number::NEWKEYS])?;
        let direction = match self.machine_direction() {
            Direction::ClientToServer => Direction::ServerToClient,
            Direction::ServerToClient => Direction::ClientToServer,
        };
        let (cipher, keys) = self.keys(direction);
        self.sender.install(cipher, &keys, self.offer.strict);
        self.first = false;
        Ok(outcome)
    }

    /// A whole exchange of new keys that the peer starts.
    pub(super) fn rekey(&mut self) -> Outcome {
        self.tell_kexinit()?;
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
    let request = UserauthRequest { user: "ann", service: CONNECTION_SERVICE, method };
    payload(|w| request.encode(w))
}

pub(super) fn open(sender: u32, window: u32, max_packet: u32) -> Vec<u8> {
    let open = ChannelOpen { channel_type: ChannelOpen::SESSION, sender, window, max_packet };
    payload(|w| open.encode(w))
}

pub(super) fn confirmation(recipient: u32, sender: u32, window: u32, max_packet: u32) -> Vec<u8> {
    payload(|w| OpenConfirmation { recipient, sender, window, max_packet }.encode(w))
}

pub(super) fn request(recipient: u32, request: Request<'_>) -> Vec<u8> {
    payload(|w| ChannelRequest { recipient, want_reply: true, request }.encode(w))
}

pub(super) fn data(recipient: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = ChannelData::header(recipient, u32::try_from(data.len()).unwrap()).to_vec();
    bytes.extend_from_slice(data);
    bytes
}

pub(super) fn only(number: u8, recipient: u32) -> Vec<u8> {
    payload(|w| ChannelOnly { recipient }.encode(number, w))
}
