//! One SSH connection as a machine, client or server: bytes and facts in, bytes and events out.
//!
//! It composes the packet layer, the handshake, [authentication](crate::auth) and the
//! channels, and decides in one place which message may come when. It has no
//! socket, clock or task: bytes come in through [`Connection::next`], leave through
//! [`Connection::output`], and time is an argument.
//!
//! After any call, [`Connection::flush`] turns what channels have to send into packets.

mod channels;
mod login;

use std::time::Instant;

use ketch_wire::{NameList, Reader};

use crate::admission::{Part, Reaction, Stage, reaction};
use crate::auth::client::ClientAuth;
use crate::auth::server::{ServerAuth, UserKeys};
use crate::config::{ClientConfig, CommonConfig, Remembered, ServerConfig};
use crate::crypto::Random;
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::event::Event;
use crate::handshake::{self, Handshake, Side, Step};
use crate::info::{Algorithms, ConnectionInfo, HostProof, Traffic};
use crate::keeper::Keeper;
use crate::message::number;
use crate::message::transport::{Disconnect, DisconnectReason, ExtInfo, Unimplemented};
use crate::mux::{Mux, Sessions};
use crate::outbox::Outbox;
use crate::packet::{
    Identification, IdentificationReader, Input, Lent, PACKET_LEN_MAX_BEFORE_AUTH, Packet,
    PacketError, Progress, Receiver,
};
use crate::profile::Preferences;
use crate::strict;

/// Most bytes of a peer's description that are kept.
const DESCRIPTION_LEN_MAX: usize = 512;

/// One SSH connection.
pub struct Connection {
    identification: Ident,
    receiver: Receiver,
    pub(crate) outbox: Outbox,
    handshake: Handshake,
    auth: Auth,
    pub(crate) mux: Mux,
    keeper: Keeper,
    random: Box<dyn Random>,
    /// The next packet is the first after the peer's first `NEWKEYS` (RFC 8308 §2.4).
    first_after_newkeys: bool,
    ext_info_sent: bool,
    /// The peer's `KEXINIT`, if it starts exchanges faster than they are answered.
    held_back: Option<HeldBack>,
    /// Server: whether somebody is asked before the first exchange is computed.
    asks_before_keys: bool,
    /// Server: the client's half of the first exchange, which is computed when it is allowed.
    to_compute: Option<Kept>,
}

/// A message that is kept.
#[derive(Debug)]
struct Kept {
    payload: Vec<u8>,
    sequence: u32,
}

impl Kept {
    fn of(packet: Packet<'_>) -> Self {
        Self {
            payload: packet.payload.bytes.to_vec(),
            sequence: packet.sequence,
        }
    }

    fn packet(&self) -> Packet<'_> {
        let payload = Lent {
            bytes: &self.payload,
            at: 0,
        };
        Packet {
            payload,
            sequence: self.sequence,
        }
    }
}

/// A `KEXINIT` that is answered later. Nothing is read meanwhile.
#[derive(Debug)]
struct HeldBack {
    until: Instant,
    message: Kept,
}

/// The peer's identification, or the reader that waits for it.
#[derive(Debug)]
enum Ident {
    Reading(IdentificationReader),
    Known(Identification),
}

/// Authentication in either role.
#[derive(Debug)]
enum Auth {
    Client(ClientAuth),
    Server(ServerAuth),
}

impl Auth {
    const fn is_waiting(&self) -> bool {
        match self {
            Self::Client(auth) => auth.is_waiting(),
            Self::Server(auth) => auth.is_waiting(),
        }
    }

    /// Whether the service for authentication was granted.
    const fn has_service(&self) -> bool {
        match self {
            Self::Client(auth) => auth.has_service(),
            Self::Server(auth) => auth.has_service(),
        }
    }

    const fn is_done(&self) -> bool {
        match self {
            Self::Client(auth) => auth.is_done(),
            Self::Server(auth) => auth.is_done(),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("identification", &self.identification)
            .field("handshake", &self.handshake)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// A client's side; its identification and `KEXINIT` wait in the output at once.
    ///
    /// # Errors
    /// [`ConnectionError::RandomFailed`].
    pub fn client(
        config: ClientConfig,
        random: Box<dyn Random>,
        now: Instant,
    ) -> Result<Self, ConnectionError> {
        let ClientConfig {
            user,
            remembered,
            mut common,
        } = config;
        if remembered.as_ref().is_some_and(|host| !host.strict) {
            strict::put_unsafe_last(&mut common.preferences);
        }
        Self::new(
            Side::Client {
                host_key: None,
                remembered,
            },
            Auth::Client(ClientAuth::new(user)),
            IdentificationReader::of_server(),
            Sessions::Refused,
            common,
            random,
            now,
        )
    }

    /// A server's side; its identification waits in the output at once, its `KEXINIT` when the
    /// client's identification is in.
    ///
    /// # Errors
    /// [`ConnectionError::RandomFailed`].
    pub fn server(
        config: ServerConfig,
        random: Box<dyn Random>,
        now: Instant,
    ) -> Result<Self, ConnectionError> {
        let ServerConfig {
            host_keys,
            methods,
            banner,
            announce_host_keys,
            announced_host_keys,
            ask_before_keys,
            common,
        } = config;
        let user_keys = user_keys(&common.preferences);
        let auth = ServerAuth::new(&methods, banner, user_keys, &common.limits);
        let auth = Auth::Server(auth);
        let announced = announced_host_keys.map(|keys| keys.to_vec());
        let announced = announced.or_else(|| announce_host_keys.then(|| host_keys.to_vec()));
        let mut connection = Self::new(
            Side::Server { host_keys },
            auth,
            IdentificationReader::of_client(),
            Sessions::Accepted,
            common,
            random,
            now,
        )?;
        connection.mux.set_host_keys(announced.unwrap_or_default());
        connection.asks_before_keys = ask_before_keys;
        Ok(connection)
    }

    fn new(
        side: Side,
        auth: Auth,
        reader: IdentificationReader,
        sessions: Sessions,
        common: CommonConfig,
        mut random: Box<dyn Random>,
        now: Instant,
    ) -> Result<Self, ConnectionError> {
        let CommonConfig {
            preferences,
            limits,
            timers,
            rekey,
        } = common;
        let ours = Identification::ketch();
        let mut outbox = Outbox::default();
        outbox.sender.send_clear_line(ours.as_str());
        let mut handshake = Handshake::new(side, preferences, ours.as_str().to_owned());
        outbox.sender.refill_padding(&mut *random)?;
        // A server's waits for the client's identification.
        handshake.start(&mut *random, &mut outbox)?;
        Ok(Self {
            identification: Ident::Reading(reader),
            receiver: Receiver::new(PACKET_LEN_MAX_BEFORE_AUTH),
            outbox,
            handshake,
            auth,
            mux: Mux::new(sessions, limits),
            keeper: Keeper::new(timers, rekey, now),
            random,
            first_after_newkeys: false,
            ext_info_sent: false,
            held_back: None,
            asks_before_keys: false,
            to_compute: None,
        })
    }

    /// Takes the next packet from `input` and says what it means.
    ///
    /// Call it until it returns `None`: then `input` holds no whole packet any more, or an answer is
    /// awaited ([`Connection::is_waiting`]). What is left has to be in front of the next input.
    ///
    /// # Errors
    /// [`ConnectionError`] ends the connection; [`Connection::output`] may hold a last word.
    pub fn next<'a>(
        &mut self,
        input: &mut Input<'a>,
        now: Instant,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        match self.next_event(input, now) {
            Err(error) => {
                self.say_why(&error);
                Err(error)
            }
            ok => ok,
        }
    }

    fn next_event<'a>(
        &mut self,
        input: &mut Input<'a>,
        now: Instant,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        loop {
            if let Some(event) = self.mux.next_event() {
                return Ok(Some(event));
            }
            if self.is_waiting() {
                return Ok(None);
            }
            if let Ident::Reading(reader) = &mut self.identification {
                match reader
                    .read(input)
                    .map_err(ConnectionError::Identification)?
                {
                    Progress::Incomplete => return Ok(None),
                    Progress::Complete(theirs) => {
                        self.handshake.on_identification(
                            theirs.as_str().to_owned(),
                            &mut *self.random,
                            &mut self.outbox,
                        )?;
                        self.identification = Ident::Known(theirs);
                    }
                }
            }
            let Some(packet) = self.receiver.next(input)? else {
                return Ok(self.on_nothing_to_read());
            };
            self.keeper.on_packet(now, packet.payload.bytes.len());
            if let Some(event) = self.on_packet(packet, now)? {
                return Ok(Some(event));
            }
        }
    }

    /// Whether payloads come compressed: then [`Connection::next`] needs an input with space
    /// ([`Input::with_space`]).
    #[must_use]
    pub const fn inflates(&self) -> bool {
        self.receiver.inflates()
    }

    /// Whether an answer is awaited, before which no packet is taken.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.handshake.awaits_verdict()
            || self.auth.is_waiting()
            || self.mux.is_waiting()
            || self.held_back.is_some()
            || self.to_compute.is_some()
    }

    /// Client: asks for the first credential, which was put off until everything was looked at that
    /// had come with the server's `NEWKEYS`.
    fn on_nothing_to_read<'a>(&mut self) -> Option<Event<'a>> {
        let Auth::Client(auth) = &mut self.auth else {
            return None;
        };
        auth.on_nothing_to_read().then_some(Event::AuthWanted {
            methods: None,
            partial: false,
        })
    }

    /// Client: whether it should be given whatever can be read without waiting before it is asked
    /// for the next event: what came with the server's `NEWKEYS` may say how to sign.
    #[must_use]
    pub fn reads_ahead(&self) -> bool {
        matches!(&self.auth, Auth::Client(auth) if auth.is_before_first_request())
    }

    fn on_packet<'a>(
        &mut self,
        packet: Packet<'a>,
        now: Instant,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let payload = packet.payload;
        let number = payload.bytes.first().copied().unwrap_or_default();
        let fields = Reader::new(payload.bytes.get(1..).unwrap_or_default());
        let first_after_newkeys = std::mem::take(&mut self.first_after_newkeys);
        let stage = self.stage();
        match reaction(number, stage, self.is_client(), self.handshake.is_strict()) {
            Reaction::Take(Part::Channels) => {
                self.mux.on_message(number, payload, now, &mut self.outbox)
            }
            Reaction::Take(Part::Connection) => Err(disconnected(fields)),
            Reaction::Take(Part::Kex) => self.on_kex(packet, now),
            Reaction::Take(Part::ExtInfo) => self.on_ext_info(fields, first_after_newkeys),
            Reaction::Take(Part::Auth) => self.on_auth(number, fields, now),
            Reaction::Drop | Reaction::DropUnlessStrict => Ok(None),
            Reaction::Unimplemented => {
                let sequence = packet.sequence;
                self.outbox
                    .message(|w| Unimplemented { sequence }.encode(w))?;
                Ok(None)
            }
            Reaction::Fatal => {
                let state = stage.describe();
                Err(PeerMisbehaved::Unexpected { number, state }.into())
            }
        }
    }

    /// How far the connection is, for the [table](crate::admission) of what may come.
    pub(crate) fn stage(&self) -> Stage {
        match self.handshake.step() {
            Step::FirstInit => Stage::FirstKexInit,
            Step::Method { first: true } => Stage::FirstMethod,
            Step::NewKeys { first: true } => Stage::FirstNewKeys,
            Step::Method { first: false } => Stage::LaterMethod,
            Step::NewKeys { first: false } => Stage::LaterNewKeys,
            Step::Settled if self.auth.is_done() => Stage::Open,
            Step::Settled if self.auth.has_service() => Stage::Auth,
            Step::Settled => Stage::Service,
        }
    }

    /// Client: with what the host proved itself, once its key was accepted.
    #[must_use]
    pub fn host_proof(&self) -> Option<HostProof> {
        self.handshake.host_proof()
    }

    #[cfg(test)]
    pub(crate) const fn rsa_proofs(&self) -> ketch_keys::SignatureAlgorithm {
        self.handshake.rsa_proofs()
    }

    /// For logs.
    pub(crate) const fn role_name(&self) -> &'static str {
        if self.is_client() { "client" } else { "server" }
    }

    const fn is_client(&self) -> bool {
        matches!(self.auth, Auth::Client(_))
    }

    fn on_kex<'a>(
        &mut self,
        packet: Packet<'_>,
        now: Instant,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        if !self.handshake.is_active() {
            let until = self.keeper.on_peer_rekey(now)?;
            if until > now {
                self.held_back = Some(HeldBack {
                    until,
                    message: Kept::of(packet),
                });
                return Ok(None);
            }
        }
        if self.asks_before_keys && self.handshake.is_work(&packet) {
            self.to_compute = Some(Kept::of(packet));
            return Ok(Some(Event::KeysWanted));
        }
        self.exchange(packet, now)
    }

    /// Server: computes the first key exchange, which [`Event::KeysWanted`] asked about. Without
    /// such a question it does nothing.
    ///
    /// # Errors
    /// [`ConnectionError`] ends the connection; [`Connection::output`] may hold a last word.
    pub fn exchange_keys(&mut self, now: Instant) -> Result<(), ConnectionError> {
        let Some(message) = self.to_compute.take() else {
            return Ok(());
        };
        let outcome = self.exchange(message.packet(), now);
        outcome.inspect_err(|error| self.say_why(error))?;
        Ok(())
    }

    /// A message of the key exchange whose time has come.
    fn exchange<'a>(
        &mut self,
        packet: Packet<'_>,
        now: Instant,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let _entered = tracing::debug_span!("kex").entered();
        let outcome = self.handshake.on_packet(
            packet,
            &mut *self.random,
            &mut self.outbox,
            &mut self.receiver,
        )?;
        self.send_ext_info()?;
        match outcome {
            handshake::Outcome::Going => {
                self.keeper.on_kex_active(now);
                Ok(None)
            }
            handshake::Outcome::HostKey(key) => Ok(Some(Event::HostKey(key))),
            handshake::Outcome::Done { first } => {
                self.keeper.on_kex_done(now, first);
                if !first {
                    return Ok(None);
                }
                self.first_after_newkeys = true;
                if let Some(session_id) = self.handshake.session_id() {
                    self.mux.set_session_id(session_id.as_bytes());
                }
                self.mux.set_rsa_proofs(self.handshake.rsa_proofs());
                if let Auth::Client(auth) = &mut self.auth {
                    auth.start();
                }
                Ok(None)
            }
        }
    }

    /// Server: tells, right after its first `NEWKEYS`, what it can do beyond the RFCs (RFC 8308
    /// §2.4): which signatures it verifies, and that they may cover the host key.
    fn send_ext_info(&mut self) -> Result<(), ConnectionError> {
        let wants = self
            .handshake
            .negotiated()
            .is_some_and(|agreed| agreed.client_reads_ext_info)
            // What a later offer says of it does not count (RFC 8308 §2.1).
            && self.handshake.exchanges() == 0;
        if let (true, false, Auth::Server(auth)) = (wants, self.ext_info_sent, &self.auth) {
            self.ext_info_sent = true;
            // Certificates are meant with their plain algorithms, as OpenSSH has it.
            let plain = auth
                .algorithms()
                .iter()
                .filter(|algorithm| !algorithm.is_certificate());
            let names: Vec<_> = plain.map(|algorithm| algorithm.name()).collect();
            let names = names.join(",");
            let message = ExtInfo {
                server_sig_algs: NameList::new(&names).ok(),
                ping: true,
                host_bound: true,
            };
            self.outbox.message(|w| message.encode(w))?;
        }
        Ok(())
    }

    fn on_ext_info<'a>(
        &mut self,
        fields: Reader<'_>,
        first_after_newkeys: bool,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let number = number::EXT_INFO;
        let message = ExtInfo::decode(fields)
            .map_err(|source| PeerMisbehaved::Malformed { number, source })?;
        // A server may send it once more just before it lets the user in (RFC 8308 §2.4).
        let may_come = match &mut self.auth {
            Auth::Client(auth) => auth.on_ext_info(&message, first_after_newkeys),
            Auth::Server(_) => first_after_newkeys,
        };
        if !may_come {
            let state = "but right after NEWKEYS";
            return Err(PeerMisbehaved::Unexpected { number, state }.into());
        }
        if message.ping {
            self.mux.on_pings_offered();
        }
        Ok(None)
    }

    /// The user that is logged in, or wants to be.
    #[must_use]
    pub fn user(&self) -> &str {
        match &self.auth {
            Auth::Client(auth) => auth.user(),
            Auth::Server(auth) => auth.user(),
        }
    }

    /// The peer's identification line, once it is known.
    #[must_use]
    pub fn peer_identification(&self) -> Option<&str> {
        match &self.identification {
            Ident::Known(identification) => Some(identification.as_str()),
            Ident::Reading(_) => None,
        }
    }

    /// How the connection is protected, and what went over it.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        let algorithms = self.handshake.current().map(|agreed| Algorithms {
            kex: agreed.kex,
            host_key: agreed.host_key,
            client_to_server: agreed.client_to_server,
            server_to_client: agreed.server_to_client,
            strict: agreed.strict,
        });
        ConnectionInfo {
            peer_identification: self.peer_identification().unwrap_or_default().to_owned(),
            algorithms,
            host_key_fingerprint: self
                .handshake
                .host_key()
                .map(|key| key.fingerprint())
                .unwrap_or_default(),
            traffic: self.traffic(),
        }
    }

    /// What went over the connection so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let (packets_in, bytes_in) = self.receiver.total();
        let (packets_out, bytes_out) = self.outbox.sender.total();
        Traffic {
            bytes_in,
            bytes_out,
            packets_in,
            packets_out,
            rekeys: self.handshake.exchanges().saturating_sub(1),
        }
    }

    /// Client: what to remember of the host, once keys are in use.
    #[must_use]
    pub fn to_remember(&self) -> Option<Remembered> {
        self.handshake.to_remember()
    }

    /// Exchanges keys now, whatever was sent under them so far.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn rekey(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.auth.is_done() && !self.handshake.is_active() {
            self.keeper.on_kex_active(now);
            self.handshake.start(&mut *self.random, &mut self.outbox)?;
        }
        Ok(())
    }

    /// Says something that no honest machine says, under the keys in use: for tests and fuzzing of
    /// the other side only.
    ///
    /// # Errors
    /// [`ConnectionError`] if it does not fit.
    #[doc(hidden)]
    pub fn say_raw(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        self.outbox.sender.send(payload)?;
        Ok(())
    }

    /// Turns what the channels have to send into packets, and starts a key exchange if one is due.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn flush(&mut self, now: Instant) -> Result<(), ConnectionError> {
        self.outbox.sender.refill_padding(&mut *self.random)?;
        self.mux.flush(now, &mut self.outbox)?;
        if self.outbox.sender.is_exhausted() {
            let error = ConnectionError::Packet(PacketError::Exhausted);
            self.say_why(&error);
            return Err(error);
        }
        let used = [
            (self.outbox.sender.used(), self.outbox.sender.rekey_bytes()),
            (self.receiver.used(), self.receiver.rekey_bytes()),
        ];
        if self.keeper.rekey_is_due(used, now) {
            self.rekey(now)?;
        }
        self.keeper.on_flush(now, !self.output().is_empty());
        Ok(())
    }

    /// Sealed bytes that wait to be written to the stream.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.outbox.sender.output()
    }

    /// The stream took the first `len` bytes of [`Connection::output`].
    pub fn output_taken(&mut self, len: usize) {
        self.outbox.sender.consume(len);
        self.keeper.on_output(len);
    }

    /// When [`Connection::handle_timeout`] should be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let keeper = self.keeper.deadline(self.auth.is_done(), self.is_waiting());
        let held_back = self.held_back.as_ref().map(|held| held.until);
        let deadlines = [keeper, held_back, self.mux.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// The clock has passed [`Connection::poll_timeout`].
    ///
    /// # Errors
    /// [`ConnectionError::TimedOut`] if a deadline passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if let Some(held) = self.held_back.take_if(|held| held.until <= now) {
            let outcome = self.exchange(held.message.packet(), now);
            outcome.inspect_err(|error| self.say_why(error))?;
        }
        let outcome = self.tick(now);
        outcome.inspect_err(|error| self.say_why(error))
    }

    fn tick(&mut self, now: Instant) -> Result<(), ConnectionError> {
        self.mux.handle_timeout(now, &self.outbox)?;
        let (authenticated, waiting) = (self.auth.is_done(), self.is_waiting());
        if self.keeper.handle_timeout(now, authenticated, waiting)? {
            self.mux.send_keepalive(&mut self.outbox)?;
        }
        Ok(())
    }

    /// An answer from outside came: the time it took is not the peer's.
    pub fn resume_clock(&mut self, now: Instant) {
        self.keeper.on_answer(now);
    }

    /// Client: what was opened early is void, for the server did not let us in. Whether there was
    /// anything.
    pub(crate) fn forget_early(&mut self) -> bool {
        !self.auth.is_done() && self.mux.forget_early()
    }

    /// Puts `DISCONNECT` behind what waits to be written.
    pub fn disconnect(&mut self, reason: DisconnectReason, description: &str) {
        let message = Disconnect {
            reason: reason.0,
            description: description.as_bytes(),
        };
        // Nothing can be done if not even this fits: the connection ends all the same.
        let _ = self.outbox.now(|w| message.encode(w));
    }

    /// Tells the peer why, as far as it should know.
    fn say_why(&mut self, error: &ConnectionError) {
        if let Some(reason) = error.reason() {
            self.disconnect(reason, &error.to_string());
        }
    }
}

/// Which users' keys a server takes.
fn user_keys(preferences: &Preferences) -> UserKeys {
    UserKeys {
        algorithms: preferences.user_key.clone(),
        rsa_bits_min: preferences.rsa_bits_min,
    }
}

/// The peer's last word.
fn disconnected(fields: Reader<'_>) -> ConnectionError {
    let number = number::DISCONNECT;
    match Disconnect::decode(fields) {
        Ok(message) => {
            let kept = message.description.len().min(DESCRIPTION_LEN_MAX);
            ConnectionError::Disconnected {
                reason: DisconnectReason(message.reason),
                description: message.description[..kept].to_vec(),
            }
        }
        Err(source) => PeerMisbehaved::Malformed { number, source }.into(),
    }
}
