//! What the transport allocates: nothing for a packet, and nothing by a length that a peer names.
//!
//! One test without a harness, because the profiler counts for the whole process, and a harness says
//! something when a test takes long.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use ketch_keys::PrivateKey;
use ketch_keys::PublicKey;
use ketch_transport::algorithm::{CipherName, Compression};
use ketch_transport::auth::Credential;
use ketch_transport::channel::ChannelId;
use ketch_transport::config::{ClientConfig, ServerConfig};
use ketch_transport::connection::Connection;
use ketch_transport::crypto::{Suite, SystemRandom};
use ketch_transport::error::ConnectionError;
use ketch_transport::event::Event;
use ketch_transport::message::auth::{
    Banner, MethodRequest, PkOk, UserauthFailure, UserauthRequest,
};
use ketch_transport::message::connection::{
    ChannelData, ChannelOnly, ChannelOpen, ChannelRequest, ExtendedData, GlobalRequest,
    OpenConfirmation, OpenFailure, Request, WindowAdjust,
};
use ketch_transport::message::kex::{ClientPublic, KexInit, ServerReply};
use ketch_transport::message::number;
use ketch_transport::message::transport::{Disconnect, ExtInfo, Service, Unimplemented};
use ketch_transport::packet::{
    Input, PACKET_DATA_MAX, PACKET_LEN_MAX, PacketError, Receiver, Sender,
};
use ketch_wire::{NameList, Reader, Writer};
use zeroize::Zeroizing;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Blocks and bytes that `work` allocates.
fn allocated<T>(work: impl FnOnce() -> T) -> (T, u64, u64) {
    let before = dhat::HeapStats::get();
    let value = work();
    let after = dhat::HeapStats::get();
    (
        value,
        after.total_blocks - before.total_blocks,
        after.total_bytes - before.total_bytes,
    )
}

fn main() {
    nothing_is_allocated_for_a_packet_or_by_a_length_that_a_peer_names();
}

fn nothing_is_allocated_for_a_packet_or_by_a_length_that_a_peer_names() {
    let _profiler = dhat::Profiler::builder().testing().build();
    for &cipher in CipherName::AEAD {
        bulk_data_allocates_nothing(cipher);
    }
    for suite in Suite::every() {
        packets_allocate_nothing(suite);
    }
    what_hides_a_gibibyte_costs_half_a_mebibyte();
    named_packet_lengths_allocate_nothing();
    named_field_lengths_allocate_nothing();
    a_kexinit_allocates_by_its_own_length();
}

/// One side: a machine and its arena.
struct End {
    connection: Connection,
    arena: Vec<u8>,
    filled: usize,
    channel: Option<ChannelId>,
    received: usize,
    logged_in: bool,
}

impl End {
    fn new(connection: Connection) -> Self {
        let arena = vec![0; 2 << 20];
        Self {
            connection,
            arena,
            filled: 0,
            channel: None,
            received: 0,
            logged_in: false,
        }
    }

    /// Moves all output of `from` here, and takes it.
    fn take_from(&mut self, from: &mut Self, now: Instant) {
        from.connection.flush(now).unwrap();
        let output = from.connection.output();
        self.arena[self.filled..self.filled + output.len()].copy_from_slice(output);
        self.filled += output.len();
        let len = output.len();
        from.connection.output_taken(len);
        let mut input = Input::new(&mut self.arena[..self.filled]);
        while let Some(event) = self.connection.next(&mut input, now).unwrap() {
            match event {
                Event::Data(id, data) => {
                    self.received += data.bytes.len();
                    self.connection.give_credit(id, data.bytes.len());
                }
                Event::HostKey(_) => self.connection.accept_host_key().unwrap(),
                Event::AuthWanted { .. } => {
                    let password = Zeroizing::new("secret".to_owned());
                    self.connection
                        .authenticate(&Credential::Password(password))
                        .unwrap();
                }
                Event::Attempt(_) => self.logged_in = self.connection.accept_auth(now).unwrap(),
                Event::Authenticated => self.logged_in = true,
                Event::Request(id, _) => {
                    self.connection.answer_request(true, true).unwrap();
                    self.channel = Some(id);
                }
                Event::ChannelReady(id) => self.channel = Some(id),
                other => panic!("{other:?}"),
            }
        }
        let taken = input.position();
        self.arena.copy_within(taken..self.filled, 0);
        self.filled -= taken;
    }

    /// Produces a packet's worth of data in place.
    fn produce(&mut self) {
        let channel = self.channel.unwrap();
        let mut room = self
            .connection
            .room(channel, PACKET_DATA_MAX)
            .unwrap()
            .unwrap();
        room.fill(0, |slots| {
            for slot in slots {
                slot.fill(7);
            }
        });
        room.commit(PACKET_DATA_MAX);
    }
}

#[expect(clippy::disallowed_methods, reason = "a place for the clock to start")]
fn connected(cipher: CipherName) -> (End, End, Instant) {
    let now = Instant::now();
    let mut config = ClientConfig::new("ann");
    config.common.preferences.cipher = vec![cipher];
    let random = || Box::new(SystemRandom::new());
    let mut client = End::new(Connection::client(config, random(), now).unwrap());
    let host_key = Arc::new(PrivateKey::from_ed25519_seed(Zeroizing::new([7; 32])).into());
    let config = ServerConfig::new([host_key]);
    let mut server = End::new(Connection::server(config, random(), now).unwrap());
    let mut asked = false;
    while server.channel.is_none() || client.channel.is_none() {
        client.take_from(&mut server, now);
        server.take_from(&mut client, now);
        if client.logged_in && !asked {
            asked = true;
            client
                .connection
                .open_session("echo", 2 << 20)
                .unwrap()
                .unwrap();
        }
    }
    (client, server, now)
}

fn bulk_data_allocates_nothing(cipher: CipherName) {
    const PACKETS: usize = 1_000;
    let (mut client, mut server, now) = connected(cipher);
    let mut turn = |packets: usize| {
        for _ in 0..packets {
            client.produce();
            server.produce();
            server.take_from(&mut client, now);
            client.take_from(&mut server, now);
        }
        server.received
    };
    turn(200); // buffers find their size
    let (received, blocks, _) = allocated(|| turn(PACKETS));
    assert_eq!(received, (PACKETS + 200) * PACKET_DATA_MAX);
    assert_eq!(blocks, 0, "{cipher}: blocks for {PACKETS} packets each way");
}

/// Both ends of the packet layer, compressed and not.
fn packets_allocate_nothing(suite: Suite) {
    const PACKETS: usize = 100;
    for compression in [Compression::None, Compression::ZlibOpenSsh] {
        let suite = Suite {
            compression,
            ..suite
        };
        let mut sender = Sender::with_test_keys(suite);
        let mut receiver = Receiver::with_test_keys(suite, PACKET_LEN_MAX);
        let mut arena = vec![0; 1 << 20];
        let mut turn = |packets| {
            let mut received = 0;
            for _ in 0..packets {
                sender.send(&[7; 1000]).unwrap();
                let slots = sender.slots(1, PACKET_DATA_MAX, PACKET_DATA_MAX).unwrap();
                slots.commit(PACKET_DATA_MAX);
                let len = sender.output().len();
                arena[..len].copy_from_slice(sender.output());
                sender.consume(len);
                let mut input = Input::with_space(&mut arena, len);
                while let Some(packet) = receiver.next(&mut input).unwrap() {
                    received += packet.payload.bytes.len();
                }
                assert_eq!(input.remaining(), 0);
            }
            received
        };
        let each = turn(10) / 10; // buffers find their size
        let (received, blocks, _) = allocated(|| turn(PACKETS));
        assert_eq!(received, PACKETS * each);
        assert_eq!(blocks, 0, "{suite}: blocks for {PACKETS} packets each way");
    }
}

/// A stream of packets that would inflate to a gibibyte: the first is refused, with no more memory
/// than the state of the inflation and the space for one payload.
fn what_hides_a_gibibyte_costs_half_a_mebibyte() {
    let plain = Suite::aead(CipherName::Aes256Gcm);
    let suite = Suite {
        compression: Compression::ZlibOpenSsh,
        ..plain
    };
    let mut bomb = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..1024 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 2 << 20);
    for piece_len in [1024, 200_000] {
        let mut sender = Sender::with_test_keys(plain);
        sender.send(&bomb[..piece_len]).unwrap();
        let sealed = sender.output().to_vec();
        let (outcome, _, bytes) = allocated(|| {
            let mut receiver = Receiver::with_test_keys(suite, PACKET_LEN_MAX);
            let space = usize::try_from(PACKET_LEN_MAX).unwrap();
            let mut arena = vec![0; sealed.len() + space];
            arena[..sealed.len()].copy_from_slice(&sealed);
            let mut input = Input::with_space(&mut arena, sealed.len());
            receiver.next(&mut input).map(|packet| packet.is_some())
        });
        assert_eq!(outcome, Err(PacketError::BadCompression));
        let bytes = usize::try_from(bytes).unwrap() - sealed.len();
        assert!(bytes <= 512 * 1024, "{bytes} bytes for {piece_len}");
    }
}

fn named_packet_lengths_allocate_nothing() {
    let lengths = [
        0,
        1,
        12,
        0x7fff,
        0xffff,
        262_144,
        0x00ff_ffff,
        0x7fff_ffff,
        u32::MAX,
    ];
    for suite in std::iter::once(None).chain(Suite::every().map(Some)) {
        for len in lengths {
            let mut receiver = match suite {
                Some(suite) => Receiver::with_test_keys(suite, PACKET_LEN_MAX),
                None => Receiver::new(PACKET_LEN_MAX),
            };
            let mut arena = [0; 64];
            arena[..4].copy_from_slice(&u32::to_be_bytes(len));
            let (_, blocks, _) = allocated(|| receiver.next(&mut Input::new(&mut arena)).is_ok());
            assert_eq!(blocks, 0, "{suite:?} {len}");
        }
    }
}

/// A message's payload and the decoder of what follows its number.
type Case = (Vec<u8>, fn(Reader<'_>) -> bool);

fn case(encode: impl FnOnce(&mut Writer<'_>), decode: fn(Reader<'_>) -> bool) -> Case {
    let mut bytes = Vec::new();
    encode(&mut Writer::new(&mut bytes));
    (bytes, decode)
}

fn kexinit() -> Vec<u8> {
    let list = |names| NameList::new(names).unwrap();
    let (cipher, mac) = (list("aes256-gcm@openssh.com"), list("hmac-sha2-256"));
    let message = KexInit {
        cookie: [9; 16],
        kex: list("curve25519-sha256,kex-strict-c-v00@openssh.com"),
        host_key: list("ssh-ed25519"),
        cipher_client_to_server: cipher,
        cipher_server_to_client: cipher,
        mac_client_to_server: mac,
        mac_server_to_client: mac,
        compression_client_to_server: list("none"),
        compression_server_to_client: list("none"),
        languages_client_to_server: NameList::EMPTY,
        languages_server_to_client: NameList::EMPTY,
        first_kex_packet_follows: false,
    };
    case(|w| message.encode(w), |_| true).0
}

fn cases() -> Vec<Case> {
    let key = PublicKey::ed25519([5; 32]);
    let key = key.as_blob();
    let userauth = |method| UserauthRequest {
        user: "ann",
        service: b"ssh-connection",
        method,
    };
    let signed = userauth(MethodRequest::PublicKey {
        algorithm: b"ssh-ed25519",
        key,
        host_key: None,
        signature: key,
    });
    let password = userauth(MethodRequest::Password("secret"));
    let failure = UserauthFailure {
        methods: NameList::new("publickey").unwrap(),
        partial_success: false,
    };
    let request = |request| ChannelRequest {
        recipient: 1,
        want_reply: true,
        request,
    };
    let open = ChannelOpen {
        channel_type: ChannelOpen::SESSION,
        sender: 1,
        window: 2,
        max_packet: 3,
        rest: &[],
    };
    let confirmation = OpenConfirmation {
        recipient: 1,
        sender: 2,
        window: 3,
        max_packet: 4,
    };
    let mut data = ChannelData::header(1, 4).to_vec();
    data.extend_from_slice(b"data");
    let extended = [&[95, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4][..], b"oops"].concat();
    let banner = [&[53, 0, 0, 0, 5][..], b"hello", &[0; 4]].concat();
    vec![
        case(
            |w| {
                Disconnect {
                    reason: 2,
                    description: b"bye",
                }
                .encode(w)
            },
            |r| Disconnect::decode(r).is_ok(),
        ),
        case(
            |w| Unimplemented { sequence: 2 }.encode(w),
            |r| Unimplemented::decode(r).is_ok(),
        ),
        case(
            |w| {
                Service {
                    name: Service::USERAUTH,
                }
                .encode(5, w)
            },
            |r| Service::decode(r).is_ok(),
        ),
        case(
            |w| {
                ExtInfo {
                    server_sig_algs: NameList::new("ssh-ed25519").ok(),
                    ..ExtInfo::default()
                }
                .encode(w)
            },
            |r| ExtInfo::decode(r).is_ok(),
        ),
        (kexinit(), |r| KexInit::decode(r).is_ok()),
        case(
            |w| ClientPublic { public: &[9; 32] }.encode(30, w),
            |r| ClientPublic::decode(r).is_ok(),
        ),
        case(
            |w| {
                ServerReply {
                    host_key: key,
                    public: &[9; 32],
                    signature: key,
                }
                .encode(31, w)
            },
            |r| ServerReply::decode(r).is_ok(),
        ),
        case(|w| signed.encode(w), |r| UserauthRequest::decode(r).is_ok()),
        case(
            |w| password.encode(w),
            |r| UserauthRequest::decode(r).is_ok(),
        ),
        case(
            |w| failure.encode(w),
            |r| UserauthFailure::decode(r).is_ok(),
        ),
        (banner, |r| Banner::decode(r).is_ok()),
        case(
            |w| {
                PkOk {
                    algorithm: b"ssh-ed25519",
                    key,
                }
                .encode(w)
            },
            |r| PkOk::decode(r).is_ok(),
        ),
        case(
            |w| {
                GlobalRequest {
                    name: b"keepalive@openssh.com",
                    want_reply: true,
                    data: &[],
                }
                .encode(w)
            },
            |r| GlobalRequest::decode(r).is_ok(),
        ),
        case(|w| open.encode(w), |r| ChannelOpen::decode(r).is_ok()),
        case(
            |w| confirmation.encode(w),
            |r| OpenConfirmation::decode(r).is_ok(),
        ),
        case(
            |w| {
                OpenFailure {
                    recipient: 1,
                    reason: 1,
                    description: b"no",
                }
                .encode(w)
            },
            |r| OpenFailure::decode(r).is_ok(),
        ),
        case(
            |w| {
                WindowAdjust {
                    recipient: 1,
                    bytes: 2,
                }
                .encode(w)
            },
            |r| WindowAdjust::decode(r).is_ok(),
        ),
        (data, |r| ChannelData::decode(r).is_ok()),
        (extended, |r| ExtendedData::decode(r).is_ok()),
        case(
            |w| ChannelOnly { recipient: 1 }.encode(96, w),
            |r| ChannelOnly::decode(r).is_ok(),
        ),
        case(
            |w| request(Request::Subsystem("sftp")).encode(w),
            |r| ChannelRequest::decode(r).is_ok(),
        ),
        case(
            |w| request(Request::Exec(b"true")).encode(w),
            |r| ChannelRequest::decode(r).is_ok(),
        ),
    ]
}

fn named_field_lengths_allocate_nothing() {
    for (bytes, decode) in cases() {
        assert!(decode(Reader::new(&bytes[1..])), "message {}", bytes[0]);
        for at in 1..bytes.len().saturating_sub(3) {
            for named in [0x0000_ffff, 0x00ff_ffff, 0x7fff_ffff, u32::MAX] {
                let mut bytes = bytes.clone();
                bytes[at..at + 4].copy_from_slice(&u32::to_be_bytes(named));
                let (_, blocks, _) = allocated(|| decode(Reader::new(&bytes[1..])));
                assert_eq!(blocks, 0, "message {}, {named} at {at}", bytes[0]);
            }
        }
    }
}

/// The one message whose content is kept: for the hash.
#[expect(clippy::disallowed_methods, reason = "a place for the clock to start")]
fn a_kexinit_allocates_by_its_own_length() {
    let payload = kexinit();
    assert_eq!(payload[0], number::KEXINIT);
    for at in 17..payload.len() - 3 {
        let mut payload = payload.clone();
        payload[at..at + 4].copy_from_slice(&[0x7f; 4]);
        // In clear: length, padding, payload, padding to a multiple of eight.
        let padding = 16 - (5 + payload.len()) % 8;
        let len = u32::try_from(1 + payload.len() + padding).unwrap();
        let mut bytes = b"SSH-2.0-x\r\n".to_vec();
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.push(u8::try_from(padding).unwrap());
        bytes.extend_from_slice(&payload);
        bytes.resize(bytes.len() + padding, 0);
        let host_key = Arc::new(PrivateKey::from_ed25519_seed(Zeroizing::new([7; 32])).into());
        let now = Instant::now();
        let random = Box::new(SystemRandom::new());
        let mut server = Connection::server(ServerConfig::new([host_key]), random, now).unwrap();
        let mut input = Input::new(&mut bytes);
        let (outcome, _, allocated) = allocated(|| server.next(&mut input, now).map(|_| ()));
        let bound = 4 * u64::from(len) + 4_096;
        assert!(
            allocated <= bound,
            "{allocated} bytes by {} at {at}",
            payload.len()
        );
        let is_read = !matches!(outcome, Err(ConnectionError::Packet(_)));
        assert!(is_read, "the packet was to be right: {outcome:?}");
    }
}
