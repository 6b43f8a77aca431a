//! Key exchange (RFC 4253 §7 to §9, RFC 4419, RFC 5656, RFC 8731), the first and every later one, in
//! both roles.
//!
//! States are moved: each holds what it needs and nothing else. What differs between the roles is
//! who sends its public value first and who signs: [`Side`] and the states named after it.
//!
//! A client sends its `KEXINIT` at once, and if it remembers the host, its public value right behind
//! it, for the method that the host chose last time; RFC 4253 §7's flag is not set, because servers
//! that read it wrong are many. A server sends its `KEXINIT` when the client's identification is in:
//! it comes with the client's first bytes, so nothing is lost, and tells whether the client is known
//! to keep strict key exchange.

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::Arc;

use ketch_keys::{PublicKey, SignatureAlgorithm};
use ketch_wire::{NameList, Reader, Writer};

use crate::algorithm::{Compression, Kex, marker};
use crate::config::{HostKey, Remembered};
use crate::crypto::derive::{Agreed, Direction, ExchangeHash, GroupTranscript, Transcript};
use crate::crypto::kex::{ClientShare, Group, TESTED_BITS_MAX, UnsafeGroup, respond};
use crate::crypto::{Random, kex};
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::info::HostProof;
use crate::message::kex::{ClientPublic, GroupChoice, GroupRequest, KexInit, ServerReply};
use crate::message::number;
use crate::negotiation::{self, Negotiated};
use crate::outbox::Outbox;
use crate::packet::{Packet, Receiver};
use crate::profile::Preferences;
use crate::strict;

/// Bits of the group that a client would like best in a group exchange (RFC 4419 §3).
const GROUP_BITS_PREFERRED: u32 = 4096;

/// What only one of the roles has.
#[derive(Debug)]
pub(crate) enum Side {
    /// What it knows of the host.
    Client {
        /// The key of the first exchange, which no later one may change.
        host_key: Option<PublicKey>,
        remembered: Option<Remembered>,
    },
    /// With what it proves itself: one for each type of key.
    Server { host_keys: Arc<[Arc<HostKey>]> },
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
    /// What the last exchange that both sides finished agreed on.
    current: Option<Negotiated>,
    /// What the two offers would have led to, had nothing been remembered.
    unprejudiced: Option<Kex>,
    /// Server: what an RSA key proves itself with later on: of what the client offered, the best.
    rsa_proofs: SignatureAlgorithm,
    /// Client: the signature of the first exchange.
    host_signature: Vec<u8>,
    state: State,
    exchanges: u64,
}

enum State {
    /// Server: the client's identification is not in.
    AwaitingIdentification,
    /// Keys are in use, or nothing has begun.
    Settled,
    /// Our `KEXINIT` is out, theirs is not in; a client may have guessed.
    SentInit {
        ours: Vec<u8>,
        guess: Option<(Kex, ClientShare)>,
    },
    /// Client: the server's group is awaited.
    AwaitingGroup(Exchange),
    /// Client: both offers are known and our public value is out.
    AwaitingReply(Exchange, ClientShare),
    /// Server: both offers are known, the client's public value is not in.
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
        f.write_str(match self {
            Self::AwaitingIdentification => "AwaitingIdentification",
            Self::Settled => "Settled",
            Self::SentInit { .. } => "SentInit",
            Self::AwaitingGroup(_) => "AwaitingGroup",
            Self::AwaitingReply(..) => "AwaitingReply",
            Self::AwaitingInit(_) => "AwaitingInit",
            Self::AwaitingVerdict(..) => "AwaitingVerdict",
            Self::AwaitingNewKeys(..) => "AwaitingNewKeys",
            Self::Broken => "Broken",
        })
    }
}

/// Both offers, and what they agree on.
struct Exchange {
    ours: Vec<u8>,
    theirs: Vec<u8>,
    negotiated: Negotiated,
    /// The peer's next packet is a wrong guess (RFC 4253 §7).
    skip_guess: bool,
    /// The group of a group exchange, as the two sides named it.
    group: Option<ChosenGroup>,
}

/// What of a group exchange goes into the exchange hash (RFC 4419 §3).
struct ChosenGroup {
    request: GroupRequest,
    p: Vec<u8>,
    g: Vec<u8>,
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

/// How far the exchange is, for the [table](crate::admission) of what may come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Nothing goes on, or our `KEXINIT` alone is out: the peer may not know yet.
    Settled,
    /// The first exchange: the peer's `KEXINIT` is awaited.
    FirstInit,
    /// The method's messages are awaited.
    Method { first: bool },
    /// The peer's `NEWKEYS` is awaited.
    NewKeys { first: bool },
}

impl Handshake {
    pub(crate) const fn new(
        side: Side,
        preferences: Preferences,
        our_identification: String,
    ) -> Self {
        let state = if side.is_client() {
            State::Settled
        } else {
            State::AwaitingIdentification
        };
        Self {
            side,
            preferences,
            our_identification,
            their_identification: String::new(),
            session_id: None,
            strict: false,
            current: None,
            unprejudiced: None,
            rsa_proofs: SignatureAlgorithm::RsaSha512,
            host_signature: Vec::new(),
            state,
            exchanges: 0,
        }
    }

    /// The peer's identification is in; a server answers it with its `KEXINIT`.
    pub(crate) fn on_identification(
        &mut self,
        theirs: String,
        random: &mut dyn Random,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        self.their_identification = theirs;
        if matches!(self.state, State::AwaitingIdentification) {
            if !strict::is_known(&self.their_identification) {
                // Its KEXINIT may say otherwise, but ours leaves before it is read.
                strict::leave_out_unsafe(&mut self.preferences);
            }
            self.state = State::Settled;
            self.start(random, outbox)?;
        }
        Ok(())
    }

    /// The session identifier: the first exchange's hash.
    pub(crate) const fn session_id(&self) -> Option<&ExchangeHash> {
        self.session_id.as_ref()
    }

    /// What the keys in use were agreed with.
    pub(crate) const fn current(&self) -> Option<&Negotiated> {
        self.current.as_ref()
    }

    /// Whether the client is to compress once it is in.
    pub(crate) fn compresses_to_server(&self) -> bool {
        self.current
            .is_some_and(|agreed| agreed.client_to_server.compression != Compression::None)
    }

    /// How many exchanges were finished.
    pub(crate) const fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// Client: the host key of the first exchange. Server: the one that it proved itself with.
    pub(crate) fn host_key(&self) -> Option<&PublicKey> {
        match &self.side {
            Side::Client { host_key, .. } => host_key.as_ref(),
            Side::Server { host_keys } => {
                let algorithm = self.current.as_ref()?.host_key;
                let key = host_keys.iter().find(|key| key.signs_with(algorithm))?;
                Some(key.shown_with(algorithm))
            }
        }
    }

    /// Client: what to remember of the host for the next connection, once keys are in use.
    pub(crate) fn to_remember(&self) -> Option<Remembered> {
        let current = self.current.as_ref()?;
        Some(Remembered {
            identification: self.their_identification.clone(),
            kex: self.unprejudiced.unwrap_or(current.kex),
            host_key: current.host_key,
            strict: self.strict,
        })
    }

    /// Server: the algorithm by which RSA keys prove themselves beside the key exchange, as OpenSSH
    /// chooses it: that of the exchange if that was RSA, or else the best that the client takes.
    pub(crate) const fn rsa_proofs(&self) -> SignatureAlgorithm {
        self.rsa_proofs
    }

    /// Client: with what the host proved itself in the first exchange, once it did.
    pub(crate) fn host_proof(&self) -> Option<HostProof> {
        Some(HostProof {
            host_key: self.host_key()?.clone(),
            session_id: self.session_id?.as_bytes().to_vec(),
            signature: self.host_signature.clone(),
        })
    }

    /// Whether an exchange is going on, or the first is still to begin.
    pub(crate) const fn is_active(&self) -> bool {
        !matches!(self.state, State::Settled)
    }

    /// How far it is.
    pub(crate) fn step(&self) -> Step {
        let first = self.is_first();
        match &self.state {
            State::AwaitingIdentification => Step::FirstInit,
            State::Settled | State::SentInit { .. } if first => Step::FirstInit,
            State::Settled | State::SentInit { .. } => Step::Settled,
            State::AwaitingNewKeys(..) | State::AwaitingVerdict(..) => Step::NewKeys { first },
            _ => Step::Method { first },
        }
    }

    /// Whether the peer has said that it keeps strict key exchange, and so do we.
    pub(crate) const fn is_strict(&self) -> bool {
        self.strict
    }

    /// Server: whether that message has the first exchange computed, which costs more than all that
    /// came before.
    pub(crate) fn is_work(&self, packet: &Packet<'_>) -> bool {
        let is_init = packet.payload.bytes.first() == Some(&number::KEX_ECDH_INIT);
        let awaits = matches!(&self.state, State::AwaitingInit(exchange) if !exchange.skip_guess);
        is_init && awaits && self.is_first()
    }

    /// Whether a host key waits for a verdict.
    pub(crate) const fn awaits_verdict(&self) -> bool {
        matches!(self.state, State::AwaitingVerdict(..))
    }

    /// Whether the exchange going on, if any, is the first.
    fn is_first(&self) -> bool {
        self.exchanges == 0
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
        let guess = self.guess(random, outbox)?;
        self.state = State::SentInit { ours, guess };
        Ok(())
    }

    /// Client, first exchange: our public value for the method that the host chose last time.
    fn guess(
        &self,
        random: &mut dyn Random,
        outbox: &mut Outbox,
    ) -> Result<Option<(Kex, ClientShare)>, ConnectionError> {
        let Some(kex) = self.remembered_kex().filter(|_| self.is_first()) else {
            return Ok(None);
        };
        let share = ClientShare::generate(kex, None, random)?;
        let message = ClientPublic {
            public: share.public(),
        };
        outbox.now(|w| message.encode(number::KEX_ECDH_INIT, w))?;
        Ok(Some((kex, share)))
    }

    /// The method that is guessed: one that we offer, and whose public value needs no question.
    fn remembered_kex(&self) -> Option<Kex> {
        let Side::Client {
            remembered: Some(remembered),
            ..
        } = &self.side
        else {
            return None;
        };
        let kex = remembered.kex;
        (self.preferences.kex.contains(&kex) && !kex.is_group_exchange()).then_some(kex)
    }

    fn kexinit(&self, cookie: [u8; 16]) -> Vec<u8> {
        let markers = match (&self.side, self.is_first()) {
            (Side::Client { .. }, true) => [marker::EXT_INFO_CLIENT, marker::STRICT_CLIENT],
            (Side::Server { .. }, true) => [marker::EXT_INFO_SERVER, marker::STRICT_SERVER],
            (_, false) => ["", ""], // they count in the first exchange only
        };
        let Preferences {
            kex,
            cipher,
            mac,
            compression,
            ..
        } = &self.preferences;
        // What is guessed stands first: then it is chosen if the server has it at all.
        let guessed = self.remembered_kex();
        let kex = guessed
            .iter()
            .chain(kex.iter().filter(|&&kex| Some(kex) != guessed));
        let kex = join(kex.map(|kex| kex.name()).chain(markers));
        let host_key = join(self.host_key_algorithms().iter().map(|key| key.name()));
        let cipher = join(cipher.iter().map(|cipher| cipher.name()));
        let mac = join(mac.iter().map(|mac| mac.name()));
        let compression = join(compression.iter().map(|each| each.name()));
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
        message.encode(&mut Writer::new(&mut payload));
        payload
    }

    /// A client offers what it accepts, a server what it has keys for.
    fn host_key_algorithms(&self) -> Vec<SignatureAlgorithm> {
        let wanted = self.preferences.host_key.iter().copied();
        match &self.side {
            Side::Client { .. } => wanted.collect(),
            Side::Server { host_keys } => wanted
                .filter(|&algorithm| host_keys.iter().any(|key| key.signs_with(algorithm)))
                .collect(),
        }
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
            (State::SentInit { ours, guess }, number::KEXINIT) => {
                let theirs = KexInit::decode(fields).map_err(malformed)?;
                let exchange = self.on_kexinit(ours, payload, &theirs, packet.sequence)?;
                self.on_agreed(exchange, guess, random, outbox)
            }
            (State::AwaitingReply(mut exchange, share), 30..=49) if exchange.skip_guess => {
                exchange.skip_guess = false;
                self.state = State::AwaitingReply(exchange, share);
                Ok(Outcome::Going)
            }
            (State::AwaitingGroup(mut exchange), 30..=49) if exchange.skip_guess => {
                exchange.skip_guess = false;
                self.state = State::AwaitingGroup(exchange);
                Ok(Outcome::Going)
            }
            (State::AwaitingInit(mut exchange), 30..=49) if exchange.skip_guess => {
                exchange.skip_guess = false;
                self.state = State::AwaitingInit(exchange);
                Ok(Outcome::Going)
            }
            (State::AwaitingGroup(exchange), number::KEX_DH_GEX_GROUP) => {
                let choice = GroupChoice::decode(fields).map_err(malformed)?;
                self.on_group(exchange, &choice, random, outbox)
            }
            (State::AwaitingReply(exchange, share), _) if number == exchange.reply_number() => {
                let reply = ServerReply::decode(fields).map_err(malformed)?;
                self.on_reply(&exchange, share, &reply, outbox)
            }
            (State::AwaitingInit(exchange), number::KEX_ECDH_INIT) => {
                let init = ClientPublic::decode(fields).map_err(malformed)?;
                self.on_init(&exchange, &init, random, outbox)
            }
            (State::AwaitingNewKeys(agreed, negotiated), number::NEWKEYS) => {
                fields.finish().map_err(malformed)?;
                Ok(self.on_newkeys(&agreed, negotiated, receiver))
            }
            _ => Err(PeerMisbehaved::Unexpected {
                number,
                state: "in this key exchange",
            }
            .into()),
        }
    }

    /// The peer's offer: what do the two agree on?
    fn on_kexinit(
        &mut self,
        ours: Vec<u8>,
        theirs_payload: &[u8],
        theirs: &KexInit<'_>,
        sequence: u32,
    ) -> Result<Exchange, ConnectionError> {
        let our_message = KexInit::decode(Reader::new(ours.get(1..).unwrap_or_default()))
            .expect("our own message decodes");
        let negotiated = if self.side.is_client() {
            negotiation::negotiate(&our_message, theirs)
        } else {
            negotiation::negotiate(theirs, &our_message)
        };
        let mut negotiated = negotiated.map_err(ConnectionError::NoCommonAlgorithm)?;
        if self.is_first() {
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
            if !self.strict && (self.preferences.require_strict || negotiated.needs_strict()) {
                return Err(PeerMisbehaved::NotStrict.into());
            }
            let of_exchange = negotiated.host_key.plain();
            let rsa = [SignatureAlgorithm::RsaSha512, SignatureAlgorithm::RsaSha256];
            let offered = theirs.host_key;
            let best = rsa.into_iter().find(|each| offered.contains(each.name()));
            self.rsa_proofs = match rsa.contains(&of_exchange) {
                true => of_exchange,
                false => best.unwrap_or(SignatureAlgorithm::RsaSha512),
            };
            let plain = self.preferences.kex.iter();
            self.unprejudiced = plain.copied().find(|kex| theirs.kex.contains(kex.name()));
        }
        // The marks of the first exchange count for the whole connection.
        negotiated.strict = self.strict;
        if !self.strict && negotiated.needs_strict() {
            return Err(PeerMisbehaved::NotStrict.into());
        }
        tracing::debug!(
            kex = %negotiated.kex,
            host_key = %negotiated.host_key,
            client_to_server = %negotiated.client_to_server,
            server_to_client = %negotiated.server_to_client,
            strict = negotiated.strict,
            "algorithms agreed"
        );
        Ok(Exchange {
            ours,
            theirs: theirs_payload.to_vec(),
            skip_guess: theirs.first_kex_packet_follows && !negotiated.guess_is_right,
            negotiated,
            group: None,
        })
    }

    /// Both offers are known: the client speaks next.
    fn on_agreed(
        &mut self,
        mut exchange: Exchange,
        guess: Option<(Kex, ClientShare)>,
        random: &mut dyn Random,
        outbox: &mut Outbox,
    ) -> Result<Outcome, ConnectionError> {
        let kex = exchange.negotiated.kex;
        self.state = match guess {
            _ if !self.side.is_client() => State::AwaitingInit(exchange),
            Some((guessed, share)) if guessed == kex => State::AwaitingReply(exchange, share),
            // It is out already, and the server takes it for a value of the chosen method.
            Some(_) => return Err(ConnectionError::WrongGuess),
            None if kex.is_group_exchange() => {
                let (min, max) = self.group_bits().into_inner();
                let request = GroupRequest {
                    min,
                    preferred: GROUP_BITS_PREFERRED.clamp(min, max),
                    max,
                };
                outbox.now(|w| request.encode(w))?;
                let (p, g) = (Vec::new(), Vec::new());
                exchange.group = Some(ChosenGroup { request, p, g });
                State::AwaitingGroup(exchange)
            }
            None => {
                let share = ClientShare::generate(kex, None, random)?;
                let message = ClientPublic {
                    public: share.public(),
                };
                outbox.now(|w| message.encode(number::KEX_ECDH_INIT, w))?;
                State::AwaitingReply(exchange, share)
            }
        };
        Ok(Outcome::Going)
    }

    /// Client: the sizes of groups that are asked for. A server that has only larger ones of its own
    /// then names a published one, which costs nothing to test.
    fn group_bits(&self) -> RangeInclusive<u32> {
        let (min, max) = self.preferences.group_bits.clone().into_inner();
        min..=max.min(TESTED_BITS_MAX.max(min))
    }

    /// Client: the server's group, which has to be one that was asked for, and safe.
    fn on_group(
        &mut self,
        mut exchange: Exchange,
        choice: &GroupChoice<'_>,
        random: &mut dyn Random,
        outbox: &mut Outbox,
    ) -> Result<Outcome, ConnectionError> {
        let bits = self.group_bits();
        let group = Group::new(choice.p, choice.g, bits, random).map_err(|error| match error {
            UnsafeGroup::Random(source) => ConnectionError::RandomFailed(source),
            _ => PeerMisbehaved::UnsafeGroup.into(),
        })?;
        let share = ClientShare::generate(exchange.negotiated.kex, Some(&group), random)?;
        let message = ClientPublic {
            public: share.public(),
        };
        outbox.now(|w| message.encode(number::KEX_DH_GEX_INIT, w))?;
        if let Some(chosen) = &mut exchange.group {
            chosen.p = choice.p.to_vec();
            chosen.g = choice.g.to_vec();
        }
        self.state = State::AwaitingReply(exchange, share);
        Ok(Outcome::Going)
    }

    /// Client: the server's half.
    fn on_reply(
        &mut self,
        exchange: &Exchange,
        share: ClientShare,
        reply: &ServerReply<'_>,
        outbox: &mut Outbox,
    ) -> Result<Outcome, ConnectionError> {
        let negotiated = &exchange.negotiated;
        let key = PublicKey::from_blob(reply.host_key).map_err(|_| PeerMisbehaved::BadHostKey)?;
        let too_short = key
            .rsa_bits()
            .is_some_and(|bits| bits < self.preferences.rsa_bits_min);
        if too_short {
            return Err(PeerMisbehaved::WeakHostKey.into());
        }
        let client_public = share.public().to_vec();
        let secret = share
            .agree(reply.public)
            .map_err(|_| PeerMisbehaved::BadPublicValue)?;
        let transcript = Transcript {
            client_identification: self.our_identification.as_bytes(),
            server_identification: self.their_identification.as_bytes(),
            client_kexinit: &exchange.ours,
            server_kexinit: &exchange.theirs,
            host_key: reply.host_key,
            client_public: &client_public,
            server_public: reply.public,
            group: exchange.group.as_ref().map(ChosenGroup::transcript),
        };
        let agreed = Agreed::new(negotiated.kex.hash(), &transcript, secret);
        // Whether the key is of the agreed type is checked with the signature.
        // Nobody sits before a server: whether its device was touched says nothing.
        let _presence = key
            .verify(negotiated.host_key, agreed.hash.as_bytes(), reply.signature)
            .map_err(|_| PeerMisbehaved::BadHostSignature)?;
        let Side::Client { host_key, .. } = &mut self.side else {
            return Err(PeerMisbehaved::BadHostKey.into());
        };
        match host_key {
            None => {
                *host_key = Some(key.clone());
                self.host_signature = reply.signature.to_vec();
                self.state = State::AwaitingVerdict(agreed, *negotiated);
                Ok(Outcome::HostKey(key))
            }
            Some(first) if *first == key => {
                self.send_newkeys(agreed, *negotiated, outbox)?;
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
        init: &ClientPublic<'_>,
        random: &mut dyn Random,
        outbox: &mut Outbox,
    ) -> Result<Outcome, ConnectionError> {
        let negotiated = &exchange.negotiated;
        let Side::Server { host_keys } = &self.side else {
            return Err(PeerMisbehaved::BadHostKey.into());
        };
        let algorithm = negotiated.host_key;
        let host_key = host_keys
            .iter()
            .find(|key| key.signs_with(algorithm))
            .ok_or(ConnectionError::NoHostKey)?;
        let kex::Response { public, secret } = respond(negotiated.kex, init.public, random)
            .map_err(|error| match error {
                kex::RespondError::BadPublicValue => PeerMisbehaved::BadPublicValue.into(),
                kex::RespondError::Random(source) => ConnectionError::RandomFailed(source),
            })?;
        let blob = host_key.shown_with(algorithm).as_blob();
        let transcript = Transcript {
            client_identification: self.their_identification.as_bytes(),
            server_identification: self.our_identification.as_bytes(),
            client_kexinit: &exchange.theirs,
            server_kexinit: &exchange.ours,
            host_key: blob,
            client_public: init.public,
            server_public: &public,
            group: None,
        };
        let agreed = Agreed::new(negotiated.kex.hash(), &transcript, secret);
        let signature = host_key
            .sign(algorithm, agreed.hash.as_bytes())
            .map_err(|_| ConnectionError::NoHostKey)?;
        let reply = ServerReply {
            host_key: blob,
            public: &public,
            signature: &signature,
        };
        outbox.now(|w| reply.encode(number::KEX_ECDH_REPLY, w))?;
        self.send_newkeys(agreed, *negotiated, outbox)?;
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
        let (direction, suite) = if self.side.is_client() {
            (Direction::ClientToServer, negotiated.client_to_server)
        } else {
            (Direction::ServerToClient, negotiated.server_to_client)
        };
        let keys = agreed.key_material(&session_id, direction, suite);
        outbox.sender.install(suite, &keys, negotiated.strict);
        outbox.open()?;
        self.state = State::AwaitingNewKeys(agreed, negotiated);
        Ok(())
    }

    fn on_newkeys(
        &mut self,
        agreed: &Agreed,
        negotiated: Negotiated,
        receiver: &mut Receiver,
    ) -> Outcome {
        let session_id = *self.session_id.get_or_insert(agreed.hash);
        let (direction, suite) = if self.side.is_client() {
            (Direction::ServerToClient, negotiated.server_to_client)
        } else {
            (Direction::ClientToServer, negotiated.client_to_server)
        };
        let keys = agreed.key_material(&session_id, direction, suite);
        receiver.install(suite, &keys, negotiated.strict);
        self.state = State::Settled;
        self.current = Some(negotiated);
        let first = self.is_first();
        self.exchanges += 1;
        Outcome::Done { first }
    }

    /// What was agreed on, while our side of the exchange is done and the peer's is not.
    pub(crate) const fn negotiated(&self) -> Option<&Negotiated> {
        match &self.state {
            State::AwaitingNewKeys(_, negotiated) => Some(negotiated),
            _ => None,
        }
    }
}

impl Exchange {
    /// The number of the server's reply.
    const fn reply_number(&self) -> u8 {
        if self.negotiated.kex.is_group_exchange() {
            number::KEX_DH_GEX_REPLY
        } else {
            number::KEX_ECDH_REPLY
        }
    }
}

impl ChosenGroup {
    fn transcript(&self) -> GroupTranscript<'_> {
        GroupTranscript {
            min: self.request.min,
            preferred: self.request.preferred,
            max: self.request.max,
            p: &self.p,
            g: &self.g,
        }
    }
}

/// Names with commas between them; empty ones are left out.
fn join(names: impl Iterator<Item = &'static str>) -> String {
    names
        .filter(|name| !name.is_empty())
        .collect::<Vec<_>>()
        .join(",")
}
