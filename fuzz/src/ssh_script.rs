//! A whole machine against a peer that has good keys and keeps no rule.
//!
//! The peer is a machine of the other role, so that every key exchange succeeds; between what it
//! says of itself it says whatever the script has it say, sealed like the rest. So the bytes of the
//! fuzzer reach what lies behind the keys: the login and the channels.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_keys::PrivateKey;
use ketch_transport::algorithm::{Kex, SignatureAlgorithm};
use ketch_transport::auth::{Credential, Method, Prompt, Questions};
use ketch_transport::channel::ChannelId;
use ketch_transport::config::{AuthMethod, ClientConfig, CommonConfig, HostKey, ServerConfig};
use ketch_transport::connection::Connection;
use ketch_transport::crypto::{Random, RandomFailed};
use ketch_transport::error::ConnectionError;
use ketch_transport::event::{Event, SessionRequest};
use ketch_transport::message::kex::KexInit;
use ketch_transport::packet::Input;
use ketch_transport::profile::{Preferences, Profile};
use ketch_wire::{NameList, Writer};

/// Most that a machine may have waiting for its peer: the output buffer and the packet it adds.
const OUTPUT_MAX: usize = 2 << 20;
/// The password that lets in.
const PASSWORD: &str = "open sesame";
/// Key exchanges that cost little, of every profile.
const KEX: [Kex; 4] = [
    Kex::Curve25519Sha256,
    Kex::Curve25519Sha256Libssh,
    Kex::EcdhNistP256,
    Kex::EcdhNistP384,
];

/// A client, and a host that keeps no rule.
///
/// Nothing of a channel is told before the login, and nothing at all but its key by a host whose key
/// is not accepted.
pub fn ssh_client_script(data: &[u8]) {
    run(true, data);
}

/// A server, and a client that keeps no rule.
///
/// Nobody is in without the password, and nothing of a channel is told before somebody is.
pub fn ssh_server_script(data: &[u8]) {
    run(false, data);
}

/// A client and a host that never agree on keys: what the host says comes in clear.
///
/// The first byte says which method its `KEXINIT` offers; it is followed by payloads, each behind a
/// byte of length. Nobody is asked for a credential.
pub fn ssh_strange_host(data: &[u8]) {
    let Some((&choice, payloads)) = data.split_first() else {
        return;
    };
    let preferences = Profile::Legacy.for_client();
    let kex = preferences.kex[usize::from(choice) % preferences.kex.len()];
    let mut config = ClientConfig::new("user");
    config.common.preferences = preferences;
    let mut client = Side::new(|now| Connection::client(config, Box::new(Seeded(7)), now));
    let mut stream = b"SSH-2.0-stranger\r\n".to_vec();
    let mut kexinit = Vec::new();
    host_offer(kex.name()).encode(&mut Writer::new(&mut kexinit));
    in_clear(&kexinit, &mut stream);
    for payload in pieces(payloads).take(50) {
        in_clear(payload, &mut stream);
    }
    let _ = client.receive(&stream);
    assert!(!client.is_asked, "no key was agreed on");
    assert!(client.connection.output().len() <= OUTPUT_MAX);
}

fn host_offer(kex: &str) -> KexInit<'_> {
    let list = |names| NameList::new(names).expect("a few names");
    KexInit {
        cookie: [1; 16],
        kex: list(kex),
        host_key: list("ssh-ed25519"),
        cipher_client_to_server: list("aes128-ctr"),
        cipher_server_to_client: list("aes128-ctr"),
        mac_client_to_server: list("hmac-sha2-256"),
        mac_server_to_client: list("hmac-sha2-256"),
        compression_client_to_server: list("none"),
        compression_server_to_client: list("none"),
        languages_client_to_server: NameList::EMPTY,
        languages_server_to_client: NameList::EMPTY,
        first_kex_packet_follows: false,
    }
}

/// A packet as it is before there are keys (RFC 4253 §6).
fn in_clear(payload: &[u8], stream: &mut Vec<u8>) {
    let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
    let packet_len = u32::try_from(payload.len() + padding + 1).expect("a few kilobytes");
    stream.extend_from_slice(&packet_len.to_be_bytes());
    stream.push(u8::try_from(padding).expect("less than 16"));
    stream.extend_from_slice(payload);
    stream.extend(std::iter::repeat_n(0, padding));
}

/// Parts of the script, each behind a byte that says how long it is.
fn pieces(mut script: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&len, rest) = script.split_first()?;
        let (piece, rest) = rest.split_at(usize::from(len).min(rest.len()));
        script = rest;
        Some(piece)
    })
    .filter(|piece| !piece.is_empty())
}

fn run(is_client: bool, data: &[u8]) {
    let Some((&[suite, setting], script)) = data.split_first_chunk() else {
        return;
    };
    let common = || {
        let mut common = CommonConfig::default();
        common.preferences = preferences(suite);
        common
    };
    let (is_known, knows_password) = (setting & 1 == 0, setting & 2 == 0);
    let client = || {
        let mut config = ClientConfig::new("user");
        config.common = common();
        Side::new(|now| Connection::client(config, Box::new(Seeded(2)), now))
    };
    let server = || {
        let seed = if is_known { 9 } else { 8 };
        let keys = [seed, 10].map(|seed| {
            let key = PrivateKey::from_ed25519_seed([seed; 32].into());
            Arc::new(HostKey::new(key))
        });
        let mut config = ServerConfig::new(keys);
        config.common = common();
        config.announce_host_keys = setting & 4 != 0;
        config.methods.push(AuthMethod::KeyboardInteractive);
        Side::new(|now| Connection::server(config, Box::new(Seeded(3)), now))
    };
    let (mut victim, mut peer) = if is_client {
        (client(), server())
    } else {
        (server(), client())
    };
    peer.is_rogue = true;
    // A rogue host asks its own questions; a rogue client may know the password or not.
    peer.knows_password = knows_password;
    if act_out(&mut victim, &mut peer, script).is_ok() {
        // What it was told of is what it can go on with.
        let _ = exchange(&mut victim, &mut peer, 2);
    }
    assert!(victim.connection.output().len() <= OUTPUT_MAX);
    if is_client {
        assert!(is_known || !victim.is_asked, "a credential for a stranger");
    } else {
        assert!(knows_password || !victim.is_in, "a stranger got in");
    }
}

/// The cheap ones of every profile, chosen by a byte.
fn preferences(choice: u8) -> Preferences {
    let mut all = Profile::Legacy.for_client();
    let choice = usize::from(choice);
    all.kex = vec![KEX[choice % KEX.len()]];
    all.host_key = vec![SignatureAlgorithm::Ed25519];
    all.cipher = vec![all.cipher[choice / 4 % all.cipher.len()]];
    all.mac = vec![all.mac[choice / 7 % all.mac.len()]];
    all
}

/// Carries what both said to the other, so many times. The victim's error ends it, the peer's not.
fn exchange(victim: &mut Side, peer: &mut Side, times: usize) -> Result<(), ConnectionError> {
    for _ in 0..times {
        let said = victim.said()?;
        let _ = peer.receive(&said);
        let said = peer.said().unwrap_or_default();
        victim.receive(&said)?;
    }
    Ok(())
}

fn act_out(victim: &mut Side, peer: &mut Side, script: &[u8]) -> Result<(), ConnectionError> {
    for piece in pieces(script).take(100) {
        let (&step, rest) = piece.split_first().expect("not empty");
        let argument = rest.first().copied().unwrap_or_default();
        match step % 12 {
            0..=2 => exchange(victim, peer, usize::from(argument % 8) + 1)?,
            // Something of the peer's own making, under its keys.
            3 | 4 if !rest.is_empty() => drop(peer.connection.say_raw(rest)),
            5 | 6 => {
                let mut message = EXAMPLES[usize::from(argument) % EXAMPLES.len()].to_vec();
                // Two bytes change one of its own.
                for change in rest.get(1..).unwrap_or_default().chunks_exact(2) {
                    let at = usize::from(change[0]) % message.len();
                    message[at] = change[1];
                }
                let _ = peer.connection.say_raw(&message);
            }
            // Something that is no packet of its.
            7 => victim.receive(rest)?,
            8 => drop(peer.connection.rekey(peer.now)),
            9 => {
                let time = Duration::from_millis(u64::from(argument) * 50);
                victim.now += time;
                victim.connection.handle_timeout(victim.now)?;
            }
            10 => victim.act(argument)?,
            _ => drop(peer.act(argument)),
        }
        assert!(victim.connection.output().len() <= OUTPUT_MAX);
    }
    Ok(())
}

/// Good messages of the login and of channels, for the script to change. Channel 0, window 64 KiB.
const EXAMPLES: [&[u8]; 30] = [
    b"\x01\0\0\0\x02\0\0\0\x03bye\0\0\0\0",
    b"\x02\0\0\0\x03abc",
    b"\x05\0\0\0\x0cssh-userauth",
    b"\x06\0\0\0\x0cssh-userauth",
    b"\x07\0\0\0\x01\0\0\0\x0fserver-sig-algs\0\0\0\x0bssh-ed25519",
    b"\x32\0\0\0\x04user\0\0\0\x0essh-connection\0\0\0\x04none",
    b"\x32\0\0\0\x04user\0\0\0\x0essh-connection\0\0\0\x08password\0\0\0\0\x05wrong",
    b"\x32\0\0\0\x04user\0\0\0\x0essh-connection\0\0\0\x14keyboard-interactive\0\0\0\0\0\0\0\0",
    b"\x33\0\0\0\x12publickey,password\0",
    b"\x33\0\0\0\x08password\x01",
    b"\x34",
    b"\x35\0\0\0\x05hello\0\0\0\0",
    b"\x3c\0\0\0\x01a\0\0\0\x01b\0\0\0\0\0\0\0\x01\0\0\0\x03pw:\0",
    b"\x3d\0\0\0\x01\0\0\0\x05wrong",
    b"\x50\0\0\0\x15keepalive@openssh.com\x01",
    b"\x50\0\0\0\x0dtcpip-forward\x01\0\0\0\x09127.0.0.1\0\0\0\0",
    b"\x51",
    b"\x52",
    b"\x5a\0\0\0\x07session\0\0\0\x01\0\x01\0\0\0\0\x80\0",
    b"\x5a\0\0\0\x0cdirect-tcpip\0\0\0\x01\0\x01\0\0\0\0\x80\0\0\0\0\x01h\0\0\0\x16\0\0\0\x01o\0\0\0\x01",
    b"\x5b\0\0\0\0\0\0\0\x01\0\x01\0\0\0\0\x80\0",
    b"\x5c\0\0\0\0\0\0\0\x01\0\0\0\x02no\0\0\0\0",
    b"\x5d\0\0\0\0\0\0\x10\0",
    b"\x5e\0\0\0\0\0\0\0\x04data",
    b"\x5f\0\0\0\0\0\0\0\x01\0\0\0\x04oops",
    b"\x60\0\0\0\0",
    b"\x61\0\0\0\0",
    b"\x62\0\0\0\0\0\0\0\x09subsystem\x01\0\0\0\x04sftp",
    b"\x62\0\0\0\0\0\0\0\x0bexit-status\0\0\0\0\x07",
    b"\xc0\0\0\0\x04ping",
];

/// A machine and what stands for its application.
struct Side {
    connection: Connection,
    now: Instant,
    arena: Vec<u8>,
    channels: Vec<ChannelId>,
    /// Client: a credential was wanted.
    is_asked: bool,
    is_in: bool,
    is_rogue: bool,
    knows_password: bool,
    attempts: u8,
}

impl Side {
    #[expect(
        clippy::disallowed_methods,
        reason = "one moment is as good as any: time passes as the script says"
    )]
    fn new(connect: impl FnOnce(Instant) -> Result<Connection, ConnectionError>) -> Self {
        let now = Instant::now();
        Self {
            connection: connect(now).expect("a good configuration"),
            now,
            arena: Vec::new(),
            channels: Vec::new(),
            is_asked: false,
            is_in: false,
            is_rogue: false,
            knows_password: false,
            attempts: 0,
        }
    }

    fn said(&mut self) -> Result<Vec<u8>, ConnectionError> {
        self.connection.flush(self.now)?;
        let said = self.connection.output().to_vec();
        self.connection.output_taken(said.len());
        Ok(said)
    }

    fn receive(&mut self, piece: &[u8]) -> Result<(), ConnectionError> {
        let mut arena = std::mem::take(&mut self.arena);
        arena.extend_from_slice(piece);
        let mut input = Input::new(&mut arena);
        while let Some(event) = self.connection.next(&mut input, self.now)? {
            self.on_event(event)?;
        }
        let rest = input.peek().to_vec();
        self.arena = rest;
        Ok(())
    }

    fn on_event(&mut self, event: Event<'_>) -> Result<(), ConnectionError> {
        match event {
            Event::HostKey(key) => {
                let known = PrivateKey::from_ed25519_seed([9; 32].into());
                if self.is_rogue || &key == known.public_key() {
                    self.connection.accept_host_key()?;
                }
            }
            Event::AuthWanted { .. } => {
                self.is_asked = true;
                let password = if self.knows_password || !self.is_rogue {
                    PASSWORD
                } else {
                    "wrong"
                };
                self.attempts += 1;
                let credential = match self.attempts % 3 {
                    1 => Credential::None,
                    2 => Credential::Password(password.to_owned().into()),
                    _ => Credential::KeyboardInteractive,
                };
                self.connection.authenticate(&credential)?;
            }
            Event::Questions(questions) => {
                assert!(self.is_asked);
                let answers = vec![String::from("answer").into(); questions.prompts.len()];
                self.connection.answers(&answers)?;
            }
            Event::PasswordExpired(_) => {
                self.connection.authenticate(&Credential::PasswordChange {
                    old: PASSWORD.to_owned().into(),
                    new: String::from("new").into(),
                })?;
            }
            Event::Attempt(attempt) => self.judge(&attempt.method)?,
            Event::Authenticated => {
                self.is_in = true;
                self.open(64 * 1024)?;
            }
            Event::Banner(_) => assert!(!self.is_in),
            other => {
                assert!(self.is_in || self.is_rogue, "before the login: {other:?}");
                self.on_channel_event(other)?;
            }
        }
        Ok(())
    }

    /// Server: an honest one asks for the password, another does what comes to its mind.
    fn judge(&mut self, method: &Method) -> Result<(), ConnectionError> {
        assert!(!self.is_in || self.is_rogue, "an attempt behind the login");
        self.attempts = self.attempts.wrapping_add(1);
        let is_right =
            matches!(method, Method::Password(password) if password.as_str() == PASSWORD);
        if !self.is_rogue {
            if is_right {
                self.is_in = self.connection.accept_auth(self.now)?;
                return Ok(());
            }
            return self.connection.reject_auth();
        }
        match self.attempts % 6 {
            0 => self.connection.password_expired("new one, please"),
            1 | 2 => self.connection.reject_auth(),
            3 => {
                let left = [AuthMethod::Password, AuthMethod::KeyboardInteractive];
                self.connection.accept_auth_partially(&left)
            }
            4 => {
                let prompt = Prompt {
                    text: String::from("who?"),
                    echo: true,
                };
                let mut questions = Questions::default();
                questions.prompts.push(prompt);
                self.connection.ask(&questions)
            }
            _ => {
                self.is_in = self.connection.accept_auth(self.now)?;
                Ok(())
            }
        }
    }

    fn on_channel_event(&mut self, event: Event<'_>) -> Result<(), ConnectionError> {
        match event {
            Event::Request(channel, request) => {
                let is_start = matches!(request, SessionRequest::Subsystem(_));
                self.connection.answer_request(is_start, is_start)?;
                if is_start {
                    self.channels.push(channel);
                }
            }
            Event::ChannelReady(channel) => {
                assert!(self.channels.contains(&channel), "nobody opened it");
            }
            Event::ChannelRefused(channel, _) => self.channels.retain(|other| *other != channel),
            Event::ChannelAsked(_) => {
                if let Some(channel) = self.connection.answer_open(true)? {
                    self.channels.push(channel);
                }
            }
            Event::ForwardAsked { .. } => self.connection.answer_forward(Some(2022))?,
            Event::CancelForwardAsked { .. } => self.connection.answer_cancel_forward(true)?,
            Event::Data(channel, lent) => {
                let is_there = self.channels.contains(&channel) || self.is_rogue;
                assert!(is_there, "data on no channel");
                self.connection.give_credit(channel, lent.bytes.len());
            }
            Event::Closed(channel) => self.channels.retain(|other| *other != channel),
            Event::HostKeysOffered(keys) => drop(self.connection.ask_proofs(keys)?),
            _ => {}
        }
        assert!(self.channels.len() <= 10 || self.is_rogue);
        Ok(())
    }

    /// What a host says first may come before it is known that it gives what was asked for.
    fn open(&mut self, window: u32) -> Result<(), ConnectionError> {
        let opened = self.connection.open_session("sftp", window)?;
        self.channels.extend(opened);
        Ok(())
    }

    /// Something that an application may want at any moment after the login.
    fn act(&mut self, what: u8) -> Result<(), ConnectionError> {
        if !self.is_in {
            return Ok(());
        }
        let channel = self.channels.first().copied();
        match (what % 9, channel) {
            (0, _) => self.open(1 << 14)?,
            (1, _) => self.connection.rekey(self.now)?,
            (2, _) => drop(self.connection.send_ping()?),
            (3, _) => drop(self.connection.ask_forward("localhost", 0)?),
            (4 | 5, Some(channel)) => drop(self.connection.send(channel, &[what; 5_000])),
            (6, Some(channel)) => self.connection.send_eof(channel),
            (7, Some(channel)) => self.connection.close(channel),
            (8, Some(channel)) => drop(self.connection.send_stderr(channel, b"oops")),
            _ => {}
        }
        Ok(())
    }
}

/// The same "random" bytes in every run, so that a crash can be run again (xorshift64).
struct Seeded(u64);

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed> {
        for byte in out {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0.to_le_bytes()[0];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script of steps, each with its length in front.
    fn script(suite: u8, setting: u8, steps: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![suite, setting];
        for step in steps {
            bytes.push(u8::try_from(step.len()).unwrap());
            bytes.extend_from_slice(step);
        }
        bytes
    }

    #[test]
    fn every_example_at_every_stage_is_survived() {
        for (index, _) in EXAMPLES.iter().enumerate() {
            let index = u8::try_from(index).unwrap();
            for setting in [0, 1, 2, 4] {
                for rounds in [0, 1, 2, 4, 7] {
                    let data = script(
                        index,
                        setting,
                        &[
                            &[0, rounds],
                            &[5, index],
                            &[0, 7],
                            &[10, 4],
                            &[5, index, 4, 1],
                            &[8],
                            &[0, 7],
                            &[9, 200],
                            &[11, 4],
                            &[0, 7],
                        ],
                    );
                    ssh_client_script(&data);
                    ssh_server_script(&data);
                }
            }
        }
    }

    #[test]
    fn who_knows_the_password_gets_as_far_as_a_channel() {
        let mut config = ServerConfig::new([Arc::new(HostKey::new(
            PrivateKey::from_ed25519_seed([9; 32].into()),
        ))]);
        config.common.preferences = preferences(0);
        let mut server = Side::new(|now| Connection::server(config, Box::new(Seeded(3)), now));
        let mut config = ClientConfig::new("user");
        config.common.preferences = preferences(0);
        let mut client = Side::new(|now| Connection::client(config, Box::new(Seeded(2)), now));
        client.knows_password = true;
        exchange(&mut server, &mut client, 20).unwrap();
        assert!(server.is_in && client.is_in);
        assert_eq!((server.channels.len(), client.channels.len()), (1, 1));
    }

    #[test]
    fn strange_hosts_are_asked_nothing() {
        for choice in 0..20 {
            ssh_strange_host(&[&[choice, 12, 31][..], &[0, 0, 0, 1, 5], b"group"].concat());
            ssh_strange_host(&[choice, 1, 21]);
        }
    }
}
