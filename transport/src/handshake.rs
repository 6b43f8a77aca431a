//! Key exchange (RFC 4253 §7 to §9, RFC 8731), the first and every later one, in both roles.
//!
//! States are moved: each holds what it needs and nothing else. What differs between the roles is
//! who sends its public value first and who signs: [`Side`] and the two states named after it.

use std::sync::Arc;

use ketch_wire::{NameList, Reader};

use crate::algorithm::{
    self, COMPRESSION_NAMES, CipherName, MAC_NAMES, Negotiated, Preferences, marker,
};
use crate::crypto::derive::{Agreed, Direction, ExchangeHash, Transcript};
use crate::crypto::hostkey::{HostKeyPair, PublicKey};
use crate::crypto::kex::{self, ClientShare, RespondError};
use crate::crypto::{Random, Suite};
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::kex::{EcdhInit, EcdhReply, KexInit};
use crate::message::number;
use crate::outbox::Outbox;
use crate::packet::{Packet, Receiver};

/// What only one of the roles has.
#[derive(Debug)]
pub(crate) enum Side {
    /// Remembers the host key of the first exchange, which no later one may change.
    Client { host_key: Option<PublicKey> },
    /// Signs.
    Server { host_key: Arc<HostKeyPair> },
}

impl Side {
    const fn is_client(&self) -> bool {
        matches!(self, Self::Client { .. })
    }
}

/// The key exchange of one connection.
#[derive(Debug)]
pub(crate) struct Handshake {
    side: Side,
    preferences: Preferences,
    our_identification: String,
    their_identification: String,
    session_id: Option<ExchangeHash>,
    strict: bool,
    state: State,
}

enum State {
    /// Keys are in use, or nothing has begun.
    Settled,
    /// Our `KEXINIT` is out, theirs is not in.
    SentInit { ours: Vec<u8> },
    /// Client: both are known and our public value is out.
    AwaitingReply(Exchange, ClientShare),
    /// Server: both are known, the client's public value is not in.
    AwaitingInit(Exchange),
    /// Client: the reply is right; whether the host key is trusted is being decided.
    AwaitingVerdict(Agreed, Negotiated),
    /// Our `NEWKEYS` is out, theirs is not in.
    AwaitingNewKeys(Agreed, Negotiated),
    /// A step failed: the connection is ending.
    Broken,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl State {
    const fn name(&self) -> &'static str {
        match self {
            Self::Settled => "outside a key exchange",
            Self::SentInit { .. } => "before KEXINIT",
            Self::AwaitingReply(..) => "before KEX_ECDH_REPLY",
            Self::AwaitingInit(_) => "before KEX_ECDH_INIT",
            Self::AwaitingVerdict(..) => "before the host key is accepted",
            Self::AwaitingNewKeys(..) => "before NEWKEYS",
            Self::Broken => "after a failed key exchange",
        }
    }
}

/// Both offers, and what they agree on.
struct Exchange {
    ours: Vec<u8>,
    theirs: Vec<u8>,
    negotiated: Negotiated,
    /// The peer's next packet is a wrong guess (RFC 4253 §7).
    skip_guess: bool,
}

/// What a message of the key exchange led to.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// Nothing that the rest needs to know.
    Going,
    /// Client, first exchange: is this host key trusted? Nothing is read before the answer.
    HostKey(PublicKey),
    /// Keys of both directions are in use.
    Done {
        /// It was the first exchange.
        first: bool,
    },
}

impl Handshake {
    pub(crate) const fn new(
        side: Side,
        preferences: Preferences,
        our_identification: String,
    ) -> Self {
        Self {
            side,
            preferences,
            our_identification,
            their_identification: String::new(),
            session_id: None,
            strict: false,
            state: State::Settled,
        }
    }

    pub(crate) fn on_identification(&mut self, theirs: String) {
        self.their_identification = theirs;
    }

    /// The session identifier: the first exchange's hash.
    pub(crate) const fn session_id(&self) -> Option<&ExchangeHash> {
        self.session_id.as_ref()
    }

    /// The host key of the first exchange, once it is trusted or was shown.
    pub(crate) fn host_key(&self) -> Option<&PublicKey> {
        match &self.side {
            Side::Client { host_key } => host_key.as_ref(),
            Side::Server { host_key } => Some(host_key.public_key()),
        }
    }

    /// Whether an exchange is going on.
    pub(crate) const fn is_active(&self) -> bool {
        !matches!(self.state, State::Settled)
    }

    /// Whether the peer's `KEXINIT` is in and its `NEWKEYS` is not: it may send nothing else.
    pub(crate) const fn expects_kex_only(&self) -> bool {
        !matches!(self.state, State::Settled | State::SentInit { .. })
    }

    /// Whether a host key waits for a verdict.
    pub(crate) const fn awaits_verdict(&self) -> bool {
        matches!(self.state, State::AwaitingVerdict(..))
    }

    /// Whether the first exchange is not done and is known to be strict: nothing optional may come.
    pub(crate) fn forbids_optional(&self) -> bool {
        self.strict && self.is_first()
    }

    /// Whether the exchange going on, if any, is the first.
    fn is_first(&self) -> bool {
        match &self.state {
            // The session identifier is the hash of the first exchange alone.
            State::AwaitingNewKeys(agreed, _) => self.session_id == Some(agreed.hash),
            _ => self.session_id.is_none(),
        }
    }

    /// Sends our `KEXINIT`, unless an exchange is going on already.
    pub(crate) fn start(
        &mut self,
        random: &mut dyn Random,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        if self.is_active() {
            return Ok(());
        }
        let mut cookie = [0; 16];
        random.fill(&mut cookie)?;
        let ours = self.kexinit(cookie);
        outbox.shut();
        outbox.now(|w| w.bytes(&ours))?;
        self.state = State::SentInit { ours };
        Ok(())
    }

    fn kexinit(&self, cookie: [u8; 16]) -> Vec<u8> {
        let Preferences {
            kex,
            host_key,
            cipher,
        } = &self.preferences;
        let markers = match (&self.side, self.session_id) {
            (Side::Client { .. }, None) => [marker::EXT_INFO_CLIENT, marker::STRICT_CLIENT],
            (Side::Server { .. }, None) => [marker::EXT_INFO_SERVER, marker::STRICT_SERVER],
            (_, Some(_)) => ["", ""], // they count in the first exchange only
        };
        let join = |names: &mut dyn Iterator<Item = &'static str>| {
            names
                .filter(|name| !name.is_empty())
                .collect::<Vec<_>>()
                .join(",")
        };
        let kex = join(&mut kex.iter().map(|kex| kex.name()).chain(markers));
        let host_key = join(&mut host_key.iter().map(|key| key.name()));
        let cipher = join(&mut cipher.iter().map(|cipher| cipher.name()));
        let mac = MAC_NAMES.join(",");
        let compression = COMPRESSION_NAMES.join(",");
        let list = |names| NameList::new(names).expect("our own names are names");
        let message = KexInit {
            cookie,
            kex: list(&kex),
            host_key: list(&host_key),
            cipher_client_to_server: list(&cipher),
            cipher_server_to_client: list(&cipher),
            mac_client_to_server: list(&mac),
            mac_server_to_client: list(&mac),
            compression_client_to_server: list(&compression),
            compression_server_to_client: list(&compression),
            languages_client_to_server: NameList::EMPTY,
            languages_server_to_client: NameList::EMPTY,
            first_kex_packet_follows: false,
        };
        let mut payload = Vec::new();
        message.encode(&mut ketch_wire::Writer::new(&mut payload));
        payload
    }

    /// Takes a message of the key exchange (numbers 20 to 49).
    pub(crate) fn on_packet(
        &mut self,
        packet: Packet<'_>,
        random: &mut dyn Random,
        outbox: &mut Outbox,
        receiver: &mut Receiver,
    ) -> Result<Outcome, ConnectionError> {
        let payload = packet.payload.bytes;
        let (&number, fields) = payload.split_first().unwrap_or((&0, &[]));
        let fields = Reader::new(fields);
        let malformed = |source| PeerMisbehaved::Malformed { number, source };
        if number == number::KEXINIT && matches!(self.state, State::Settled) {
            self.start(random, outbox)?;
        }
        // A failing step leaves the state broken; the connection ends then anyway.
        match (std::mem::replace(&mut self.state, State::Broken), number) {
            (State::SentInit { ours }, number::KEXINIT) => {
                let theirs = KexInit::decode(fields).map_err(malformed)?;
                self.on_kexinit(ours, payload, &theirs, packet.sequence, random, outbox)
            }
            (State::AwaitingReply(mut exchange, share), 30..=49) if exchange.skip_guess => {
                exchange.skip_guess = false;
                self.state = State::AwaitingReply(exchange, share);
                Ok(Outcome::Going)
            }
            (State::AwaitingInit(mut exchange), 30..=49) if exchange.skip_guess => {
                exchange.skip_guess = false;
                self.state = State::AwaitingInit(exchange);
                Ok(Outcome::Going)
            }
            (State::AwaitingReply(exchange, share), number::KEX_ECDH_REPLY) => {
                let reply = EcdhReply::decode(fields).map_err(malformed)?;
                self.on_reply(&exchange, share, &reply, outbox)
            }
            (State::AwaitingInit(exchange), number::KEX_ECDH_INIT) => {
                let init = EcdhInit::decode(fields).map_err(malformed)?;
                self.on_init(&exchange, &init, random, outbox)
            }
            (State::AwaitingNewKeys(agreed, negotiated), number::NEWKEYS) => {
                fields.finish().map_err(malformed)?;
                Ok(self.on_newkeys(&agreed, &negotiated, receiver))
            }
            (state, number) => Err(PeerMisbehaved::Unexpected {
                number,
                state: state.name(),
            }
            .into()),
        }
    }

    fn on_kexinit(
        &mut self,
        ours: Vec<u8>,
        theirs_payload: &[u8],
        theirs: &KexInit<'_>,
        sequence: u32,
        random: &mut dyn Random,
        outbox: &mut Outbox,
    ) -> Result<Outcome, ConnectionError> {
        let our_message = KexInit::decode(Reader::new(ours.get(1..).unwrap_or_default()))
            .expect("our own message decodes");
        let negotiated = if self.side.is_client() {
            algorithm::negotiate(&our_message, theirs)
        } else {
            algorithm::negotiate(theirs, &our_message)
        };
        let mut negotiated = negotiated.map_err(ConnectionError::NoCommonAlgorithm)?;
        if self.session_id.is_none() {
            self.strict = negotiated.strict;
            // Strict: nothing may have come before KEXINIT (OpenSSH PROTOCOL §1.10).
            if self.strict && sequence != 0 {
                let state = "before KEXINIT of a strict key exchange";
                return Err(PeerMisbehaved::Unexpected {
                    number: number::IGNORE,
                    state,
                }
                .into());
            }
        }
        // The marks of the first exchange count for the whole connection.
        negotiated.strict = self.strict;
        let ciphers = [negotiated.client_to_server, negotiated.server_to_client];
        if !self.strict && ciphers.contains(&CipherName::ChaCha20Poly1305) {
            return Err(PeerMisbehaved::NotStrict.into());
        }
        let exchange = Exchange {
            ours,
            theirs: theirs_payload.to_vec(),
            negotiated,
            skip_guess: theirs.first_kex_packet_follows && !negotiated.guess_is_right,
        };
        self.state = if self.side.is_client() {
            let share = ClientShare::generate(negotiated.kex, None, random)?;
            outbox.now(|w| {
                EcdhInit {
                    public: share.public(),
                }
                .encode(w)
            })?;
            State::AwaitingReply(exchange, share)
        } else {
            State::AwaitingInit(exchange)
        };
        Ok(Outcome::Going)
    }

    /// Client: the server's half.
    fn on_reply(
        &mut self,
        exchange: &Exchange,
        share: ClientShare,
        reply: &EcdhReply<'_>,
        outbox: &mut Outbox,
    ) -> Result<Outcome, ConnectionError> {
        let client_public = share.public().to_vec();
        let secret = share
            .agree(reply.public)
            .map_err(|_| PeerMisbehaved::BadPublicValue)?;
        let agreed = Agreed::new(
            exchange.negotiated.kex.hash(),
            &Transcript {
                client_identification: self.our_identification.as_bytes(),
                server_identification: self.their_identification.as_bytes(),
                client_kexinit: &exchange.ours,
                server_kexinit: &exchange.theirs,
                host_key: reply.host_key,
                group: None,
                client_public: &client_public,
                server_public: reply.public,
            },
            secret,
        );
        let key = PublicKey::from_blob(reply.host_key).map_err(|_| PeerMisbehaved::BadHostKey)?;
        if !key.algorithms().contains(&exchange.negotiated.host_key) {
            return Err(PeerMisbehaved::BadHostKey.into());
        }
        key.verify(
            exchange.negotiated.host_key,
            agreed.hash.as_bytes(),
            reply.signature,
        )
        .map(drop)
        .map_err(|_| PeerMisbehaved::BadHostSignature)?;
        let Side::Client { host_key } = &mut self.side else {
            return Err(PeerMisbehaved::BadHostKey.into());
        };
        match host_key {
            None => {
                *host_key = Some(key.clone());
                self.state = State::AwaitingVerdict(agreed, exchange.negotiated);
                Ok(Outcome::HostKey(key))
            }
            Some(first) if *first == key => {
                self.send_newkeys(agreed, exchange.negotiated, outbox)?;
                Ok(Outcome::Going)
            }
            Some(_) => Err(PeerMisbehaved::BadHostKey.into()),
        }
    }

    /// Client: the host key of the first exchange is trusted.
    pub(crate) fn accept_host_key(&mut self, outbox: &mut Outbox) -> Result<(), ConnectionError> {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::AwaitingVerdict(agreed, negotiated) => {
                self.send_newkeys(agreed, negotiated, outbox)
            }
            other => {
                self.state = other;
                Ok(())
            }
        }
    }

    /// Server: the client's half.
    fn on_init(
        &mut self,
        exchange: &Exchange,
        init: &EcdhInit<'_>,
        random: &mut dyn Random,
        outbox: &mut Outbox,
    ) -> Result<Outcome, ConnectionError> {
        let Side::Server { host_key } = &self.side else {
            return Err(PeerMisbehaved::BadHostKey.into());
        };
        let response = kex::respond(exchange.negotiated.kex, init.public, random).map_err(
            |error| match error {
                RespondError::BadPublicValue => PeerMisbehaved::BadPublicValue.into(),
                RespondError::Random(failed) => ConnectionError::from(failed),
            },
        )?;
        let blob = host_key.public_key().as_blob();
        let agreed = Agreed::new(
            exchange.negotiated.kex.hash(),
            &Transcript {
                client_identification: self.their_identification.as_bytes(),
                server_identification: self.our_identification.as_bytes(),
                client_kexinit: &exchange.theirs,
                server_kexinit: &exchange.ours,
                host_key: blob,
                group: None,
                client_public: init.public,
                server_public: &response.public,
            },
            response.secret,
        );
        let signature = host_key
            .sign(exchange.negotiated.host_key, agreed.hash.as_bytes())
            .map_err(|_| PeerMisbehaved::BadHostSignature)?;
        outbox.now(|w| {
            EcdhReply {
                host_key: blob,
                public: &response.public,
                signature: &signature,
            }
            .encode(w);
        })?;
        self.send_newkeys(agreed, exchange.negotiated, outbox)?;
        Ok(Outcome::Going)
    }

    /// Sends `NEWKEYS` and seals with the new keys from then on.
    fn send_newkeys(
        &mut self,
        agreed: Agreed,
        negotiated: Negotiated,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        let session_id = *self.session_id.get_or_insert(agreed.hash);
        outbox.now(|w| w.u8(number::NEWKEYS))?;
        let (direction, cipher) = if self.side.is_client() {
            (Direction::ClientToServer, negotiated.client_to_server)
        } else {
            (Direction::ServerToClient, negotiated.server_to_client)
        };
        let suite = Suite::aead(cipher);
        let keys = agreed.key_material(&session_id, direction, suite);
        outbox.sender.install(suite, &keys, negotiated.strict);
        outbox.open()?;
        self.state = State::AwaitingNewKeys(agreed, negotiated);
        Ok(())
    }

    fn on_newkeys(
        &mut self,
        agreed: &Agreed,
        negotiated: &Negotiated,
        receiver: &mut Receiver,
    ) -> Outcome {
        let session_id = *self.session_id.get_or_insert(agreed.hash);
        let (direction, cipher) = if self.side.is_client() {
            (Direction::ServerToClient, negotiated.server_to_client)
        } else {
            (Direction::ClientToServer, negotiated.client_to_server)
        };
        let suite = Suite::aead(cipher);
        let keys = agreed.key_material(&session_id, direction, suite);
        receiver.install(suite, &keys, negotiated.strict);
        self.state = State::Settled;
        Outcome::Done {
            first: session_id == agreed.hash,
        }
    }

    /// What was agreed on, while our side of the exchange is done and the peer's is not.
    pub(crate) const fn negotiated(&self) -> Option<&Negotiated> {
        match &self.state {
            State::AwaitingNewKeys(_, negotiated) => Some(negotiated),
            _ => None,
        }
    }
}
