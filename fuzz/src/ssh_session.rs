//! Two whole SSH machines that talk to each other, and one that is talked to by a stranger.
//!
//! The machines do no I/O (`ketch_transport::connection`), so a session is a few buffers here, and
//! the bytes of the fuzzer say how it is cut, what the applications do, and what goes wrong on the
//! way.

use std::sync::Arc;
use std::time::Instant;

use ketch_keys::PrivateKey;
use ketch_transport::auth::Credential;
use ketch_transport::channel::ChannelId;
use ketch_transport::config::{ClientConfig, ServerConfig};
use ketch_transport::connection::Connection;
use ketch_transport::crypto::{Random, RandomFailed};
use ketch_transport::error::ConnectionError;
use ketch_transport::event::Event;
use ketch_transport::packet::Input;

/// Most that a machine may have waiting for its peer: the output buffer and the packet it adds.
const OUTPUT_MAX: usize = 2 << 20;

/// A server before any keys: the stranger's bytes are identification and packets in clear.
///
/// Nobody gets past authentication without keys, whatever they send.
pub fn ssh_stranger(data: &[u8]) {
    let mut server = Side::server(1);
    let Some((&piece_len, stream)) = data.split_first() else {
        return;
    };
    let Some((&framed, stream)) = stream.split_first() else {
        return;
    };
    // Half of the time the bytes are payloads that get good frames, so that more is reached.
    let stream = if framed % 2 == 0 {
        stream.to_vec()
    } else {
        frames(stream)
    };
    for piece in stream.chunks(usize::from(piece_len) + 1) {
        if server.receive(piece).is_err() {
            break;
        }
    }
    assert!(!server.authenticated, "a stranger got in");
}

/// An identification line, then each part of `payloads` as a packet in clear (RFC 4253 §6). The
/// first byte of a part is its length.
fn frames(mut payloads: &[u8]) -> Vec<u8> {
    let mut stream = b"SSH-2.0-stranger\r\n".to_vec();
    while let Some((&len, rest)) = payloads.split_first() {
        let (payload, rest) = rest.split_at((usize::from(len) * 8).min(rest.len()));
        payloads = rest;
        if payload.is_empty() {
            continue;
        }
        // Length, padding length, payload and padding are a multiple of eight bytes together.
        let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
        let packet_len = u32::try_from(payload.len() + padding + 1).expect("a few kilobytes");
        stream.extend_from_slice(&packet_len.to_be_bytes());
        stream.push(u8::try_from(padding).expect("less than 16"));
        stream.extend_from_slice(payload);
        stream.extend(std::iter::repeat_n(0, padding));
    }
    stream
}

/// A client and a server with a channel each byte of which is accounted for.
///
/// Bytes arrive in any pieces, either side asks for new keys at any moment, and sends, and stops.
/// Unless a byte is changed on the way all data comes in order and whole; if one is, no data comes
/// that was not sent.
pub fn ssh_session(data: &[u8]) {
    let Some((&[changed, at_high, at_low], script)) = data.split_first_chunk() else {
        return;
    };
    let mut client = Side::client(2);
    let mut server = Side::server(3);
    let mut to_server = Wire::default();
    let mut to_client = Wire::default();
    if changed != 0 {
        to_client.change = Some((usize::from(u16::from_be_bytes([at_high, at_low])), changed));
    }
    for &step in script.iter().take(200) {
        let amount = usize::from(step >> 3) + 1;
        let done = match step % 8 {
            0 => server.receive(&to_server.take(amount * 4)),
            1 => client.receive(&to_client.take(amount * 4)),
            2 => server.receive(&to_server.take(usize::MAX)),
            3 => client.receive(&to_client.take(usize::MAX)),
            4 => client.say(amount * 97),
            5 => server.say(amount * 1009),
            6 => client.connection.rekey(client.now),
            _ => server.connection.rekey(server.now),
        };
        let done = done.and_then(|()| client.flush(&mut to_server));
        let done = done.and_then(|()| server.flush(&mut to_client));
        if let Err(error) = done {
            assert!(to_client.changed, "{error:?} without a change on the way");
            break;
        }
        assert!(to_server.bytes.len() + to_client.bytes.len() <= 2 * OUTPUT_MAX);
    }
    if to_client.change.is_none() {
        settle(&mut client, &mut server, &mut to_server, &mut to_client);
        assert_eq!(client.heard.len(), server.said.len(), "all of it came");
        assert_eq!(server.heard.len(), client.said.len(), "all of it came");
    }
    assert!(
        server.said.starts_with(&client.heard),
        "what came is what was sent"
    );
    assert!(
        client.said.starts_with(&server.heard),
        "what came is what was sent"
    );
}

/// Delivers everything until nobody has anything to say.
fn settle(client: &mut Side, server: &mut Side, to_server: &mut Wire, to_client: &mut Wire) {
    for _ in 0..10_000 {
        client.flush(to_server).expect("nothing was changed");
        server.flush(to_client).expect("nothing was changed");
        if to_server.bytes.is_empty() && to_client.bytes.is_empty() {
            return;
        }
        server
            .receive(&to_server.take(usize::MAX))
            .expect("nothing was changed");
        client
            .receive(&to_client.take(usize::MAX))
            .expect("nothing was changed");
    }
    panic!("they talk for ever");
}

/// A connection in use of which one side is tested, and the other says what it is told.
pub(crate) struct Joined {
    tested: Side,
    other: Side,
}

impl Joined {
    /// Somebody is logged in, and no channel is open.
    pub(crate) fn logged_in(tests_client: bool) -> Self {
        let (mut client, mut server) = (Side::client(2), Side::server(3));
        client.opens = false;
        let (mut to_server, mut to_client) = (Wire::default(), Wire::default());
        settle(&mut client, &mut server, &mut to_server, &mut to_client);
        assert!(client.authenticated && server.authenticated);
        let (tested, other) = if tests_client {
            (client, server)
        } else {
            (server, client)
        };
        Self { tested, other }
    }

    pub(crate) fn tested(&mut self) -> &mut Connection {
        &mut self.tested.connection
    }

    /// The other side says `payload`; what comes of it goes to `on_event`.
    pub(crate) fn tell(
        &mut self,
        payload: &[u8],
        mut on_event: impl FnMut(&mut Connection, &Event<'_>) -> Result<(), ConnectionError>,
    ) -> Result<(), ConnectionError> {
        let Self { tested, other } = self;
        other.connection.say_raw(payload)?;
        let mut bytes = other.connection.output().to_vec();
        other.connection.output_taken(bytes.len());
        let mut input = Input::new(&mut bytes);
        while let Some(event) = tested.connection.next(&mut input, tested.now)? {
            on_event(&mut tested.connection, &event)?;
            assert!(
                !tested.connection.is_waiting(),
                "every question is answered once"
            );
        }
        Ok(())
    }

    /// The tested side says what it has to say, to nobody.
    pub(crate) fn flush(&mut self) -> Result<(), ConnectionError> {
        self.tested.connection.flush(self.tested.now)?;
        let len = self.tested.connection.output().len();
        self.tested.connection.output_taken(len);
        Ok(())
    }
}

/// One direction of the stream.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    /// How many bytes were taken before.
    taken: usize,
    /// The byte to change: where in the stream, and with what.
    change: Option<(usize, u8)>,
    /// Whether it has been.
    changed: bool,
}

impl Wire {
    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut piece: Vec<u8> = self.bytes.drain(..len.min(self.bytes.len())).collect();
        if let Some((at, with)) = self.change
            && let Some(index) = at.checked_sub(self.taken)
            && let Some(byte) = piece.get_mut(index)
        {
            *byte ^= with;
            self.changed = true;
        }
        self.taken += piece.len();
        piece
    }
}

/// One machine and its application: says numbers that count up, and keeps what it hears.
struct Side {
    connection: Connection,
    now: Instant,
    /// What was read from the stream and is no whole packet yet.
    arena: Vec<u8>,
    channel: Option<ChannelId>,
    authenticated: bool,
    /// What the other side wrote.
    heard: Vec<u8>,
    /// What was put into the channel.
    said: Vec<u8>,
    /// What is yet to be put into the channel.
    wanted: usize,
    is_client: bool,
    /// Whether it opens a channel as soon as it is in.
    opens: bool,
}

impl Side {
    fn client(seed: u64) -> Self {
        let connect =
            |now| Connection::client(ClientConfig::new("user"), Box::new(Seeded(seed)), now);
        Self::new(true, connect)
    }

    fn server(seed: u64) -> Self {
        let key = PrivateKey::from_ed25519_seed([9; 32].into());
        let config = ServerConfig::new([Arc::new(key.into())]);
        Self::new(false, |now| {
            Connection::server(config, Box::new(Seeded(seed)), now)
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "one moment is as good as any: time stands still"
    )]
    fn new(
        is_client: bool,
        connect: impl FnOnce(Instant) -> Result<Connection, ConnectionError>,
    ) -> Self {
        let now = Instant::now();
        Self {
            connection: connect(now).expect("a good configuration"),
            now,
            arena: Vec::new(),
            channel: None,
            authenticated: false,
            heard: Vec::new(),
            said: Vec::new(),
            wanted: 0,
            is_client,
            opens: true,
        }
    }

    /// Wants to write `len` bytes more; they wait until there is a channel with room.
    fn say(&mut self, len: usize) -> Result<(), ConnectionError> {
        self.wanted = (self.wanted + len).min(1 << 20);
        Ok(())
    }

    /// Writes what there is room for and moves all output to the wire.
    fn flush(&mut self, wire: &mut Wire) -> Result<(), ConnectionError> {
        if let Some(channel) = self.channel {
            let len = self.wanted.min(self.connection.sendable(channel));
            if len > 0
                && let Some(mut room) = self.connection.room(channel, len)?
            {
                let next: Vec<u8> = (self.said.len()..)
                    .take(len)
                    .map(|n| n.to_le_bytes()[0])
                    .collect();
                room.write_at(0, &next);
                room.commit(len);
                self.said.extend_from_slice(&next);
                self.wanted -= len;
            }
        }
        self.connection.flush(self.now)?;
        let output = self.connection.output();
        assert!(output.len() <= OUTPUT_MAX, "the output buffer is bounded");
        wire.bytes.extend_from_slice(output);
        let len = output.len();
        self.connection.output_taken(len);
        Ok(())
    }

    fn receive(&mut self, piece: &[u8]) -> Result<(), ConnectionError> {
        let mut arena = std::mem::take(&mut self.arena);
        arena.extend_from_slice(piece);
        let mut input = Input::new(&mut arena);
        while let Some(event) = self.connection.next(&mut input, self.now)? {
            self.on_event(event)?;
        }
        self.arena = input.peek().to_vec();
        Ok(())
    }

    fn on_event(&mut self, event: Event<'_>) -> Result<(), ConnectionError> {
        match event {
            Event::HostKey(_) => self.connection.accept_host_key()?,
            Event::AuthWanted { .. } => {
                self.connection
                    .authenticate(&Credential::Password("open sesame".to_owned().into()))?;
            }
            Event::Attempt(_) => self.authenticated = self.connection.accept_auth(self.now)?,
            Event::Authenticated => {
                self.authenticated = true;
                if self.opens {
                    self.connection.open_session("echo", 64 * 1024)?;
                }
            }
            Event::ChannelReady(channel) => self.channel = Some(channel),
            Event::Request(channel, _) => {
                self.connection.answer_request(true, true)?;
                self.channel = Some(channel);
            }
            Event::Data(channel, lent) => {
                assert!(self.authenticated, "data before authentication");
                self.heard.extend_from_slice(lent.bytes);
                self.connection.give_credit(channel, lent.bytes.len());
            }
            other => assert!(self.is_client || self.authenticated, "{other:?}"),
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

    /// Both deliver all (2, 3), both write (4, 5).
    const GOOD: [u8; 24] = [
        2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 0x7c, 0xfd, 2, 3, 2, 3, 6, 2, 0xfd, 3, 7, 3, 0x7c, 2,
    ];

    #[test]
    fn a_good_session_says_something() {
        let mut client = Side::client(2);
        let mut server = Side::server(3);
        let (mut to_server, mut to_client) = (Wire::default(), Wire::default());
        client.say(100_000).unwrap();
        server.say(100_000).unwrap();
        settle(&mut client, &mut server, &mut to_server, &mut to_client);
        assert!(client.authenticated && server.authenticated);
        assert_eq!((client.heard.len(), server.heard.len()), (100_000, 100_000));
    }

    #[test]
    fn sessions_pass_cut_changed_and_rekeyed() {
        ssh_session(&[&[0, 0, 0][..], &GOOD].concat());
        // Byte by byte, nearly: four at a time.
        ssh_session(&[&[0, 0, 0][..], &[0, 1].repeat(100)].concat());
        for at in (0_u16..3000).step_by(97) {
            let [high, low] = at.to_be_bytes();
            ssh_session(&[&[0x40, high, low][..], &GOOD].concat());
        }
    }

    #[test]
    fn strangers_stay_outside() {
        ssh_stranger(b"\xff\0SSH-2.0-x\r\n\0\0\0\x0c\x04payload\0\0\0\0");
        ssh_stranger(b"\x03\x01\x02\x14payload of a kexinit");
        ssh_stranger(
            &[
                &[255, 1][..],
                &[2, 50, 0, 0, 0, 4],
                b"user",
                &[1, 80, 90, 94],
            ]
            .concat(),
        );
    }
}
