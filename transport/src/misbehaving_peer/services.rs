//! What a peer asks for beyond data: programs, forwarding, pings, proofs; and ends that hang
//! (RFC 4254 §4, §6 and §7).

use std::time::Duration;

use super::channels::{extended, in_use, numbers};
use super::{
    CHANNEL, Rig, Role, State, confirmation, data, misbehaved, only, open, payload, request,
};
use crate::channel::ChannelId;
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::connection::{GlobalRequest, Ping, Request};
use crate::message::number;
use crate::packet::Input;
use crate::session::SessionStart;

const BOTH: [Role; 2] = [Role::Client, Role::Server];
const ID: ChannelId = ChannelId(CHANNEL);

fn global(name: &[u8], data: &[u8]) -> Vec<u8> {
    payload(|w| {
        GlobalRequest {
            name,
            want_reply: true,
            data,
        }
        .encode(w);
    })
}

fn ping(data: &[u8]) -> Vec<u8> {
    payload(|w| Ping { data }.encode(number::PING, w))
}

#[test]
fn what_is_not_offered_is_refused_and_runs_nothing() {
    // C10, C11. On a channel in use nothing starts; a second subsystem is one of them.
    let strings = |count: usize| {
        payload(|w| {
            (0..count).for_each(|_| w.string(b"x"));
        })
    };
    let raw = |name: &[u8], fields: &[u8]| {
        payload(|w| {
            w.u8(number::CHANNEL_REQUEST);
            w.u32(CHANNEL);
            w.string(name);
            w.bool(true);
            w.bytes(fields);
        })
    };
    let pty = [&strings(1)[..], &[0; 16], &strings(1)].concat();
    let requests = [
        raw(b"shell", b""),
        raw(b"exec", &strings(1)),
        raw(b"env", &strings(2)),
        raw(b"pty-req", &pty),
        raw(b"subsystem", &strings(1)),
        raw(b"x11-req", b"\x00"),
        raw(b"auth-agent-req@openssh.com", b""),
        raw(b"xon-xoff", b"\x01"),
        raw(b"break", &[0; 4]),
        raw(b"eow@openssh.com", b""),
        raw(b"keepalive@openssh.com", b""),
        raw(b"tun@openssh.com", b""),
        raw(b"", b""),
    ];
    for role in BOTH {
        for message in &requests {
            let told = in_use(role).tell(message).unwrap();
            assert!(told.events.is_empty(), "{told:?}");
            assert_eq!(
                told.heard,
                [only(number::CHANNEL_FAILURE, super::PEER_CHANNEL)]
            );
        }
        for name in [
            &b"tcpip-forward"[..],
            b"cancel-tcpip-forward",
            b"streamlocal-forward@openssh.com",
            b"cancel-streamlocal-forward@openssh.com",
            b"hostkeys-prove-00@openssh.com",
            b"hostkeys-00@openssh.com",
            b"",
        ] {
            let at = [&strings(1)[..], &[0, 0, 0, 80]].concat();
            let data = if name.starts_with(b"hostkeys") {
                strings(1)
            } else {
                at
            };
            let told = in_use(role).tell(&global(name, &data)).unwrap();
            assert_eq!(numbers(&told.heard), [82], "{told:?}");
        }
    }
}

#[test]
fn extended_data_of_unknown_types_ends_the_connection_and_stderr_does_not() {
    // C7.
    for role in BOTH {
        for data_type in [0, 2, 3, 255, u32::MAX] {
            let outcome = misbehaved(in_use(role).tell(&extended(data_type, b"oops")));
            assert_eq!(outcome, PeerMisbehaved::UnknownExtendedData { data_type });
        }
        let told = in_use(role).tell(&extended(1, b"oops")).unwrap();
        assert_eq!(told.events.len(), 1);
    }
}

#[test]
fn a_channel_that_the_peer_never_closes_is_given_up_after_half_a_minute() {
    // C5. Its number is not used again before the peer has closed it, too.
    for role in BOTH {
        let mut rig = in_use(role);
        rig.machine.close(ID);
        rig.machine.flush(rig.now).unwrap();
        assert_eq!(numbers(&rig.listen()), [96, 97]);
        let told = rig.wait(Duration::from_secs(29)).unwrap();
        assert!(told.events.is_empty(), "{told:?}");
        let told = rig.wait(Duration::from_secs(1)).unwrap();
        assert_eq!(told.events, ["Closed(ChannelId(0))"]);
        if role == Role::Client {
            let next = rig.machine.open_session("echo", 1_000).unwrap();
            assert_eq!(next, Some(ChannelId(1)));
            rig.listen();
        }
        let told = rig.tell(&data(CHANNEL, b"late")).unwrap();
        assert!(told.events.is_empty() && told.heard.is_empty());
        let told = rig.tell(&only(number::CHANNEL_CLOSE, CHANNEL)).unwrap();
        assert!(told.events.is_empty() && told.heard.is_empty());
        if role == Role::Client {
            let next = rig.machine.open_session("echo", 1_000).unwrap();
            assert_eq!(next, Some(ID));
        }
    }
}

#[test]
fn a_peer_that_takes_nothing_does_not_keep_a_channel_from_closing() {
    for role in BOTH {
        let mut rig = in_use(role);
        rig.machine.send(ID, &[0; 5_000]).unwrap();
        rig.machine.close(ID);
        rig.machine.flush(rig.now).unwrap();
        assert_eq!(numbers(&rig.listen()), [94]);
        let told = rig.wait(Duration::from_secs(30)).unwrap();
        assert_eq!(
            told.heard.iter().filter(|m| m[0] == 97).count(),
            1,
            "{told:?}"
        );
        let told = rig.wait(Duration::from_secs(30)).unwrap();
        assert_eq!(told.events, ["Closed(ChannelId(0))"]);
    }
}

#[test]
fn channels_that_are_never_closed_end_the_connection_some_time() {
    let mut rig = in_use(Role::Client);
    let ended = (0..200_u32).find_map(|_| {
        let id = rig.machine.open_session("echo", 1_000).unwrap().unwrap();
        rig.listen();
        rig.tell(&confirmation(id.0, 50, 1_000, 32_768)).unwrap();
        rig.tell(&only(number::CHANNEL_SUCCESS, id.0)).unwrap();
        rig.machine.close(id);
        rig.machine.flush(rig.now).unwrap();
        rig.tell(&[number::REQUEST_FAILURE]).ok();
        rig.wait(Duration::from_secs(30)).err()
    });
    let never = ConnectionError::Misbehaved(PeerMisbehaved::NeverCloses);
    assert!(
        matches!(&ended, Some(error) if *error == never),
        "{ended:?}"
    );
}

#[test]
fn pings_are_answered_when_somebody_is_in_and_never_pile_up() {
    // K6.
    for role in BOTH {
        for state in [State::FirstUnderKeys, State::BeforeService, State::InLogin] {
            let told = Rig::at(role, true, state).tell(&ping(b"hello")).unwrap();
            assert!(told.heard.iter().all(|reply| reply[0] != number::PONG));
        }
        let told = in_use(role).tell(&ping(b"hello")).unwrap();
        let pong = payload(|w| Ping { data: b"hello" }.encode(number::PONG, w));
        assert_eq!(told.heard, std::slice::from_ref(&pong));
        // A peer that asks and never reads: large pings have no answer, small ones end at 64 KiB.
        for (len, most) in [(250 * 1024, 0), (30 * 1024, 100 * 1024), (5, 66 * 1024)] {
            let mut rig = in_use(role);
            let question = ping(&vec![7; len]);
            for _ in 0..5_000 {
                rig.sender.send(&question).unwrap();
                let mut bytes = rig.sender.output().to_vec();
                rig.sender.consume(bytes.len());
                let mut input = Input::new(&mut bytes);
                assert!(rig.machine.next(&mut input, rig.now).unwrap().is_none());
            }
            assert!(rig.machine.output().len() <= most, "{len}");
        }
        // In a key exchange of ours one waits, and is answered behind it.
        let mut rig = Rig::at(role, true, State::RekeyAsked);
        for _ in 0..1_000 {
            assert!(rig.tell(&ping(b"hello")).unwrap().heard.is_empty());
        }
        rig.tell_kexinit().unwrap();
        rig.tell_public().unwrap();
        let mut heard = rig.tell_newkeys().unwrap().heard;
        rig.machine.flush(rig.now).unwrap();
        heard.extend(rig.listen());
        let pongs = heard.iter().filter(|reply| **reply == pong).count();
        assert!(pongs <= 1, "{heard:?}");
        let told = rig.tell(&ping(b"again")).unwrap();
        assert_eq!(told.heard.last().map(|reply| reply[0]), Some(number::PONG));
    }
}

#[test]
fn pings_of_ours_leave_only_for_peers_that_said_they_answer() {
    let mut rig = in_use(Role::Client);
    assert!(!rig.machine.send_ping().unwrap());
    rig.machine.mux.on_pings_offered();
    for _ in 0..16 {
        assert!(rig.machine.send_ping().unwrap());
    }
    assert!(!rig.machine.send_ping().unwrap(), "enough of them wait");
    assert_eq!(numbers(&rig.listen()), [number::PING; 16]);
    let pong = payload(|w| Ping { data: b"ketch" }.encode(number::PONG, w));
    for _ in 0..16 {
        assert_eq!(rig.tell(&pong).unwrap().events, ["Pong"]);
    }
    assert!(rig.tell(&pong).unwrap().events.is_empty(), "nobody asked");
}

#[test]
fn each_host_key_proves_itself_once_on_a_connection() {
    // C12.
    let mut rig = in_use(Role::Server);
    let host_keys = [std::sync::Arc::new(crate::config::HostKey::from(
        super::key_pair(1),
    ))];
    rig.machine.mux.set_host_keys(host_keys.to_vec());
    let blob = rig.host_key.public_key().as_blob().to_vec();
    let keys = |blobs: &[&[u8]]| payload(|w| blobs.iter().for_each(|blob| w.string(blob)));
    let ask = |rig: &mut Rig, blobs: &[&[u8]]| {
        let message = global(GlobalRequest::PROVE_HOST_KEYS, &keys(blobs));
        rig.tell(&message).unwrap().heard
    };
    let refused = vec![vec![number::REQUEST_FAILURE]];
    assert_eq!(ask(&mut rig, &[b"no key"]), refused);
    assert_eq!(ask(&mut rig, &[&blob, &blob]), refused, "one of them twice");
    assert_eq!(ask(&mut rig, &[]), refused);
    let proof = ask(&mut rig, &[&blob]);
    assert_eq!(proof[0][0], number::REQUEST_SUCCESS);
    // The client's half takes it for what it is, and nothing else.
    let session_id = rig.session_id().unwrap();
    let mut proofs = crate::mux::HostKeyProofs::default();
    proofs.set_session_id(session_id.as_bytes());
    let ours = || vec![rig.host_key.public_key().clone()];
    assert_eq!(proofs.verify(ours(), &proof[0][1..]).unwrap(), ours());
    let mut wrong = proof[0][1..].to_vec();
    *wrong.last_mut().unwrap() ^= 1;
    assert!(proofs.verify(ours(), &wrong).unwrap().is_empty());
    assert!(proofs.verify(ours(), &[]).unwrap().is_empty());
    proofs.set_session_id(b"another session");
    assert!(proofs.verify(ours(), &proof[0][1..]).unwrap().is_empty());
    for _ in 0..1_000 {
        assert_eq!(ask(&mut rig, &[&blob]), refused);
    }
    let many = keys(&vec![&blob[..]; 17]);
    let outcome = rig
        .wait(Duration::from_secs(10))
        .and_then(|_| rig.tell(&global(GlobalRequest::PROVE_HOST_KEYS, &many)));
    assert!(matches!(
        misbehaved(outcome),
        PeerMisbehaved::Malformed { .. }
    ));
}

#[test]
fn forwarded_connections_come_only_to_those_who_asked() {
    let tcpip = |channel_type: &[u8]| {
        let mut message = open(8, 1_000, 32_768);
        message.splice(1..12, payload(|w| w.string(channel_type)));
        let at = crate::session::Tcpip::to("localhost", 8_080);
        message.extend(payload(|w| at.as_message().encode(w)));
        message
    };
    let mut rig = in_use(Role::Client);
    let told = rig.tell(&tcpip(b"forwarded-tcpip")).unwrap();
    assert!(told.events.is_empty() && numbers(&told.heard) == [92]);
    assert!(rig.machine.ask_forward("localhost", 0).unwrap());
    assert!(rig.machine.ask_forward("localhost", 8_080).unwrap());
    rig.listen();
    let bound = |port: u32| {
        payload(|w| {
            w.u8(number::REQUEST_SUCCESS);
            w.u32(port);
        })
    };
    assert_eq!(
        rig.tell(&bound(40_000)).unwrap().events,
        ["ForwardAnswered(Some(40000))"]
    );
    assert_eq!(
        rig.tell(&[number::REQUEST_SUCCESS]).unwrap().events,
        ["ForwardAnswered(Some(8080))"]
    );
    let told = rig.tell(&tcpip(b"forwarded-tcpip")).unwrap();
    assert_eq!(told.events.len(), 1, "{told:?}");
    assert!(rig.machine.ask_forward("localhost", 0).unwrap());
    for wrong in [bound(0), bound(65_536), vec![number::REQUEST_SUCCESS]] {
        let mut rig = in_use(Role::Client);
        assert!(rig.machine.ask_forward("localhost", 0).unwrap());
        assert!(matches!(
            misbehaved(rig.tell(&wrong)),
            PeerMisbehaved::Malformed { .. }
        ));
    }
    assert_eq!(
        rig.tell(&[number::REQUEST_FAILURE]).unwrap().events,
        ["ForwardAnswered(None)"]
    );
}

#[test]
fn no_more_sessions_means_none() {
    let mut rig = in_use(Role::Server);
    let told = rig
        .tell(&global(GlobalRequest::NO_MORE_SESSIONS, &[]))
        .unwrap();
    assert_eq!(numbers(&told.heard), [81]);
    assert_eq!(
        numbers(&rig.tell(&open(8, 1_000, 32_768)).unwrap().heard),
        [92]
    );
    // What is open goes on.
    assert_eq!(rig.tell(&data(CHANNEL, b"data")).unwrap().events.len(), 1);
    // A client is not told such things.
    let told = in_use(Role::Client)
        .tell(&global(GlobalRequest::NO_MORE_SESSIONS, &[]))
        .unwrap();
    assert_eq!(numbers(&told.heard), [82]);
}

#[test]
fn programs_that_speak_before_they_are_said_to_run_are_heard() {
    let mut rig = in_use(Role::Client);
    let start = SessionStart::exec("true").env("A", "b");
    let id = rig.machine.open_session(start, 1_000).unwrap().unwrap();
    rig.listen();
    let told = rig.tell(&confirmation(id.0, 9, 1_000, 32_768)).unwrap();
    assert_eq!(numbers(&told.heard), [98, 98]);
    assert_eq!(rig.tell(&data(id.0, b"early")).unwrap().events.len(), 1);
    let told = rig.tell(&request(id.0, Request::ExitStatus(3))).unwrap();
    assert_eq!(told.events, ["Exit(ChannelId(1), Status(3))"]);
    let told = rig.tell(&only(number::CHANNEL_SUCCESS, id.0)).unwrap();
    assert!(told.events.is_empty());
    assert_eq!(
        rig.tell(&only(number::CHANNEL_CLOSE, id.0)).unwrap().events,
        ["Closed(ChannelId(1))"]
    );
}
