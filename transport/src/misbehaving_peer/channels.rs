//! Channels that are not as RFC 4254 has them.

use std::collections::BTreeSet;

use super::{CHANNEL, PEER_WINDOW, Rig, Role, State, confirmation, data, misbehaved, only, open};
use super::{payload, request};
use crate::channel::{ChannelId, MAX_PACKET};
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::connection::{ChannelOpen, GlobalRequest, OpenFailure, Request, WindowAdjust};
use crate::message::number;
use crate::session::Tcpip;

const BOTH: [Role; 2] = [Role::Client, Role::Server];
const ID: ChannelId = ChannelId(CHANNEL);

pub(super) fn in_use(role: Role) -> Rig {
    Rig::at(role, true, State::InUse)
}

pub(super) fn adjust(bytes: u32) -> Vec<u8> {
    payload(|w| {
        WindowAdjust {
            recipient: CHANNEL,
            bytes,
        }
        .encode(w)
    })
}

pub(super) fn extended(data_type: u32, data: &[u8]) -> Vec<u8> {
    payload(|w| {
        w.u8(number::CHANNEL_EXTENDED_DATA);
        w.u32(CHANNEL);
        w.u32(data_type);
        w.string(data);
    })
}

pub(super) fn numbers(heard: &[Vec<u8>]) -> Vec<u8> {
    heard.iter().map(|message| message[0]).collect()
}

#[test]
fn channels_that_do_not_exist_are_not_talked_about() {
    for role in BOTH {
        for channel in [1, 9, 10, u32::MAX] {
            for number in [91, 92, 93, 94, 95, 96, 97, 98, 99, 100] {
                let mut message = super::order::message(&mut in_use(role), number);
                message[1..5].copy_from_slice(&channel.to_be_bytes());
                let expected = PeerMisbehaved::NoSuchChannel { number, channel };
                assert_eq!(misbehaved(in_use(role).tell(&message)), expected);
            }
        }
    }
}

#[test]
fn data_stays_within_the_window_and_the_packet() {
    let largest = usize::try_from(MAX_PACKET).unwrap();
    for role in BOTH {
        let window = if role == Role::Client {
            100_000
        } else {
            2 << 20
        };
        for wrap in [
            |bytes: &[u8]| data(CHANNEL, bytes),
            |bytes: &[u8]| extended(1, bytes),
        ] {
            let exceeded = misbehaved(in_use(role).tell(&wrap(&vec![0; largest + 1])));
            let expected = PeerMisbehaved::WindowExceeded {
                len: largest + 1,
                allowed: largest,
            };
            assert_eq!(exceeded, expected);
            let mut rig = in_use(role);
            let mut left = window;
            while left > 0 {
                let len = left.min(largest);
                rig.tell(&wrap(&vec![0; len])).unwrap();
                left -= len;
            }
            let exceeded = misbehaved(rig.tell(&wrap(&[0])));
            assert_eq!(
                exceeded,
                PeerMisbehaved::WindowExceeded { len: 1, allowed: 0 }
            );
        }
        // What is given back may be sent again.
        let mut rig = in_use(role);
        let mut allowed = window;
        for _ in 0..200 {
            let len = allowed.min(30_000);
            rig.tell(&data(CHANNEL, &vec![0; len])).unwrap();
            rig.machine.give_credit(ID, len);
            allowed -= len;
            rig.machine.flush(rig.now).unwrap();
            for message in rig.listen() {
                assert_eq!(message[0], number::CHANNEL_WINDOW_ADJUST);
                let bytes = u32::from_be_bytes(message[5..9].try_into().unwrap());
                allowed += usize::try_from(bytes).unwrap();
            }
        }
    }
}

#[test]
fn windows_past_two_to_the_32_are_refused() {
    for role in BOTH {
        for (first, second, fits) in [
            (u32::MAX - PEER_WINDOW, 0, true),
            (u32::MAX - PEER_WINDOW, 1, false),
            (u32::MAX - PEER_WINDOW + 1, 0, false),
            (u32::MAX, 0, false),
            (1 << 31, 1 << 31, false),
            (0, 0, true),
        ] {
            let mut rig = in_use(role);
            let outcome = rig
                .tell(&adjust(first))
                .and_then(|_| rig.tell(&adjust(second)));
            if fits {
                outcome.unwrap();
            } else {
                assert_eq!(
                    misbehaved(outcome),
                    PeerMisbehaved::WindowOverflow,
                    "{first} {second}"
                );
            }
        }
    }
}

#[test]
fn packets_too_small_to_carry_anything_are_refused() {
    for max_packet in [0, 1, 2, 255, 256, 1 << 20, u32::MAX] {
        let fits = max_packet >= 256;
        let told = in_use(Role::Server)
            .tell(&open(8, 1_000, max_packet))
            .unwrap();
        let expected = if fits { 91 } else { 92 };
        assert_eq!(told.heard[0][0], expected, "{max_packet}");
        let mut rig = in_use(Role::Client);
        let id = rig.machine.open_session("echo", 1_000).unwrap().unwrap();
        rig.listen();
        let outcome = rig.tell(&confirmation(id.0, 8, 1_000, max_packet));
        if !fits {
            assert_eq!(misbehaved(outcome), PeerMisbehaved::PacketsTooSmall);
            continue;
        }
        outcome.unwrap();
        // However large the packets that it takes, ours stay those that RFC 4253 §6.1 promises.
        rig.tell(&only(number::CHANNEL_SUCCESS, id.0)).unwrap();
        rig.machine.send(id, &[0; 1_000]).unwrap();
        rig.machine.flush(rig.now).unwrap();
        let heard = rig.listen();
        assert_eq!(heard.len(), if max_packet == 256 { 4 } else { 1 });
    }
}

#[test]
fn replies_to_nothing_are_counted_and_stop_nobody() {
    for role in BOTH {
        for number in [81, 82, 99, 100] {
            let mut rig = in_use(role);
            let reply = if number < 90 {
                vec![number]
            } else {
                only(number, CHANNEL)
            };
            for _ in 0..64 {
                assert!(rig.tell(&reply).unwrap().events.is_empty());
                assert_eq!(rig.tell(&data(CHANNEL, b"d")).unwrap().events.len(), 1);
            }
            assert_eq!(misbehaved(rig.tell(&reply)), PeerMisbehaved::Unsolicited);
        }
        for message in [
            confirmation(CHANNEL, 8, 1_000, 32_768),
            payload(|w| {
                OpenFailure {
                    recipient: CHANNEL,
                    reason: 1,
                    description: b"",
                }
                .encode(w)
            }),
        ] {
            assert_eq!(
                misbehaved(in_use(role).tell(&message)),
                PeerMisbehaved::Unsolicited
            );
        }
    }
}

#[test]
fn a_server_opens_ten_channels_and_forgets_those_it_refused() {
    let mut rig = in_use(Role::Server);
    for sender in 1..10 {
        assert_eq!(
            rig.tell(&open(sender, 1_000, 32_768)).unwrap().heard[0][0],
            91
        );
    }
    for sender in 10..2_000 {
        let heard = rig.tell(&open(sender, 1_000, 32_768)).unwrap().heard;
        assert_eq!(heard[0][..5], [&[92][..], &sender.to_be_bytes()].concat());
        assert_eq!(heard[0][5..9], OpenFailure::RESOURCE_SHORTAGE.to_be_bytes());
    }
    assert_eq!(
        numbers(&rig.tell(&only(number::CHANNEL_CLOSE, 4)).unwrap().heard),
        [97]
    );
    let heard = rig.tell(&open(77, 1_000, 32_768)).unwrap().heard;
    assert_eq!(
        heard[0][..9],
        [91, 0, 0, 0, 77, 0, 0, 0, 4],
        "the number that became free"
    );
}

#[test]
fn clients_let_nobody_open_channels_and_servers_only_sessions() {
    let mut rest = Vec::new();
    Tcpip::to("localhost", 80)
        .as_message()
        .encode(&mut ketch_wire::Writer::new(&mut rest));
    let types = [
        (&b"session"[..], 1, 0),
        (b"direct-tcpip", 1, 1),
        (b"forwarded-tcpip", 1, 3),
        (b"x11", 1, 3),
        (b"auth-agent@openssh.com", 1, 3),
        (b"tun@openssh.com", 1, 3),
        (b"direct-streamlocal@openssh.com", 1, 3),
        (b"", 1, 3),
    ];
    for (channel_type, from_client, from_server) in types {
        let message = ChannelOpen {
            channel_type,
            sender: 8,
            window: 1_000,
            max_packet: 32_768,
            rest: &rest,
        };
        let message = payload(|w| message.encode(w));
        for (role, reason) in [(Role::Client, from_client), (Role::Server, from_server)] {
            let told = in_use(role).tell(&message).unwrap();
            let asked = channel_type == b"direct-tcpip" && role == Role::Server;
            assert_eq!(told.events.len(), usize::from(asked));
            if reason == 0 {
                assert_eq!(told.heard[0][0], 91);
            } else {
                assert_eq!(told.heard[0][..5], [92, 0, 0, 0, 8]);
                assert_eq!(told.heard[0][5..9], u32::to_be_bytes(reason));
            }
        }
    }
}

#[test]
fn a_channel_without_a_program_carries_nothing() {
    // What was sent along with a request that is refused is dropped, as far as the window goes.
    let mut rig = in_use(Role::Server);
    rig.tell(&open(8, 1_000, 32_768)).unwrap();
    let (window, piece) = (2 << 20, 1 << 15);
    for _ in 0..window / piece {
        let told = rig.tell(&data(1, &vec![0; piece])).unwrap();
        assert!(told.events.is_empty() && told.heard.is_empty());
    }
    let (len, allowed) = (1, 0);
    let exceeded = PeerMisbehaved::WindowExceeded { len, allowed };
    assert_eq!(misbehaved(rig.tell(&data(1, b"d"))), exceeded);
    let state = "before its channel is ready";
    let expected = PeerMisbehaved::Unexpected {
        number: number::CHANNEL_DATA,
        state,
    };
    let mut rig = in_use(Role::Client);
    let id = rig.machine.open_session("echo", 1_000).unwrap().unwrap();
    rig.listen();
    assert_eq!(misbehaved(rig.tell(&data(id.0, b"data"))), expected);
}

#[test]
fn messages_cut_short_are_errors_and_nothing_worse() {
    let server = [
        State::BeforeKexInit,
        State::BeforePublic,
        State::BeforeService,
        State::InLogin,
    ];
    for role in BOTH {
        for state in server.into_iter().chain([State::InUse]) {
            let mut messages: Vec<Vec<u8>> = (0..=u8::MAX)
                .map(|number| super::order::message(&mut Rig::at(role, true, state), number))
                .filter(|message| message.len() > 1)
                .collect();
            let requests = [Request::Subsystem("sftp"), Request::ExitStatus(3)];
            messages.extend(requests.map(|each| request(CHANNEL, each)));
            let mut tolerated = BTreeSet::new();
            for message in messages {
                // Every cut of a short message, many of a long one.
                for cut in (1..message.len()).step_by(1 + message.len() / 100) {
                    if Rig::at(role, true, state).tell(&message[..cut]).is_ok() {
                        tolerated.insert(message[0]);
                    }
                }
            }
            // Nothing depends on these; a request behind a login is passed over as it is, and pings
            // are not looked at before it.
            let mut known = BTreeSet::from([2, 3, 4, number::USERAUTH_REQUEST]);
            if state != State::InUse {
                known.extend([number::PING, number::PONG]);
            }
            assert!(
                tolerated.is_subset(&known),
                "{role:?} {state:?} {tolerated:?}"
            );
        }
    }
}

#[test]
fn a_peer_that_asks_and_never_reads_is_left_in_bounded_memory() {
    let keepalive = |w: &mut ketch_wire::Writer<'_>| {
        GlobalRequest {
            name: b"keepalive@openssh.com",
            want_reply: true,
            data: &[],
        }
        .encode(w);
    };
    let questions = [
        payload(keepalive),
        request(CHANNEL, Request::Other(b"shell")),
        payload(|w| {
            ChannelOpen {
                channel_type: b"x",
                sender: 1,
                window: 1,
                max_packet: 1,
                rest: &[],
            }
            .encode(w);
        }),
        vec![200],
    ];
    for role in BOTH {
        // During an exchange that never ends, answers wait before it; otherwise in the output.
        for state in [State::InUse, State::RekeyAsked] {
            for question in &questions {
                let mut rig = Rig::at(role, true, state);
                let mut asked = 0;
                let ended = loop {
                    rig.sender.send(question).unwrap();
                    let mut bytes = rig.sender.output().to_vec();
                    rig.sender.consume(bytes.len());
                    let mut input = crate::packet::Input::new(&mut bytes);
                    match rig.machine.next(&mut input, rig.now) {
                        Ok(event) => assert!(event.is_none()),
                        Err(error) => break error,
                    }
                    asked += 1;
                    assert!(asked < 100_000);
                };
                assert!(matches!(ended, ConnectionError::OutputFull(_)), "{ended:?}");
                assert!(rig.machine.output().len() <= 1024 * 1024);
            }
        }
    }
}
