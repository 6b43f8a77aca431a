//! How channels end, and what comes behind their end (RFC 4254 §5.3).

use super::channels::{adjust, extended, in_use, numbers};
use super::{CHANNEL, PEER_WINDOW, Rig, Role, confirmation, data, misbehaved, only, open, request};
use crate::channel::ChannelId;
use crate::error::PeerMisbehaved;
use crate::event::Exit;
use crate::message::connection::Request;
use crate::message::number;

const BOTH: [Role; 2] = [Role::Client, Role::Server];
const ID: ChannelId = ChannelId(CHANNEL);

#[test]
fn a_number_is_used_again_when_both_sides_have_closed() {
    for role in BOTH {
        let mut rig = in_use(role);
        rig.machine.close(ID);
        rig.machine.flush(rig.now).unwrap();
        assert_eq!(numbers(&rig.listen()), [96, 97]);
        let next = |rig: &mut Rig| match role {
            Role::Client => rig.machine.open_session("echo", 1_000).unwrap().unwrap().0,
            Role::Server => {
                let heard = rig.tell(&open(50, 1_000, 32_768)).unwrap().heard;
                u32::from_be_bytes(heard[0][5..9].try_into().unwrap())
            }
        };
        assert_eq!(next(&mut rig), 1, "the peer has not closed it yet");
        rig.listen();
        let told = rig.tell(&only(number::CHANNEL_CLOSE, CHANNEL)).unwrap();
        assert_eq!((told.events.len(), told.heard.len()), (1, 0), "{told:?}");
        assert_eq!(next(&mut rig), CHANNEL);
    }
}

#[test]
fn data_behind_the_end_reaches_nobody() {
    for role in BOTH {
        let mut rig = in_use(role);
        assert_eq!(
            rig.tell(&only(number::CHANNEL_EOF, CHANNEL))
                .unwrap()
                .events
                .len(),
            1
        );
        assert!(
            rig.tell(&only(number::CHANNEL_EOF, CHANNEL))
                .unwrap()
                .events
                .is_empty()
        );
        let ended = (0..1_000).find_map(|_| {
            let outcome = rig.tell(&data(CHANNEL, &[0; 5_000]));
            outcome
                .map(|told| assert!(told.events.is_empty() && told.heard.is_empty()))
                .err()
        });
        assert!(matches!(
            misbehaved(Err(ended.unwrap())),
            PeerMisbehaved::WindowExceeded { .. }
        ));
        // The other direction goes on behind an EOF, and a close is still answered.
        let mut rig = in_use(role);
        rig.tell(&only(number::CHANNEL_EOF, CHANNEL)).unwrap();
        rig.machine.send(ID, b"answer").unwrap();
        rig.machine.flush(rig.now).unwrap();
        assert_eq!(numbers(&rig.listen()), [94]);
        assert_eq!(
            numbers(
                &rig.tell(&only(number::CHANNEL_CLOSE, CHANNEL))
                    .unwrap()
                    .heard
            ),
            [97]
        );
        for number in [93, 94, 95, 96, 97, 98, 99] {
            let mut rig = in_use(role);
            rig.tell(&only(number::CHANNEL_CLOSE, CHANNEL)).unwrap();
            let message = super::order::message(&mut rig, number);
            let expected = PeerMisbehaved::NoSuchChannel {
                number,
                channel: CHANNEL,
            };
            assert_eq!(misbehaved(rig.tell(&message)), expected);
        }
    }
}

#[test]
fn nothing_follows_a_close_of_ours() {
    // The peer forgets the channel when it has answered our CLOSE: credit, or a reply to a request
    // that was on its way, would name a channel that does not exist.
    for role in BOTH {
        let mut rig = in_use(role);
        rig.tell(&data(CHANNEL, &[0; 60_000])).unwrap();
        rig.machine.close(ID);
        rig.machine.flush(rig.now).unwrap();
        assert_eq!(numbers(&rig.listen()), [96, 97]);
        rig.machine.give_credit(ID, 60_000);
        rig.machine.send(ID, b"late").unwrap();
        rig.machine.send_exit(ID, &Exit::Status(0)).unwrap();
        for message in [
            data(CHANNEL, &[0; 30_000]),
            extended(1, b"oops"),
            adjust(5),
            request(CHANNEL, Request::Other(b"keepalive@openssh.com")),
            only(number::CHANNEL_EOF, CHANNEL),
        ] {
            let told = rig.tell(&message).unwrap();
            assert!(told.heard.is_empty(), "{told:?}");
        }
        rig.tell(&only(number::CHANNEL_CLOSE, CHANNEL)).unwrap();
        assert!(!rig.machine.has_channels());
    }
}

#[test]
fn two_sides_that_close_with_full_queues_get_rid_of_them() {
    // Each CLOSE waits behind data that waits for the other side's window.
    for role in BOTH {
        let mut rig = in_use(role);
        let window = usize::try_from(PEER_WINDOW).unwrap();
        rig.machine.send(ID, &vec![0; window + 500]).unwrap();
        rig.machine.close(ID);
        rig.machine.flush(rig.now).unwrap();
        assert_eq!(numbers(&rig.listen()), [94]);
        // The peer has as much waiting, and reads nothing any more before it could send its own.
        let mut credit = false;
        for _ in 0..34 {
            let told = rig.tell(&data(CHANNEL, &[0; 60_000])).unwrap();
            assert!(told.events.is_empty());
            credit |= numbers(&told.heard).contains(&number::CHANNEL_WINDOW_ADJUST);
        }
        assert!(credit, "what nobody reads is given back");
        assert_eq!(
            numbers(&rig.tell(&adjust(500)).unwrap().heard),
            [94, 96, 97]
        );
    }
}

#[test]
fn a_refused_subsystem_closes_its_channel() {
    let mut rig = in_use(Role::Client);
    let id = rig.machine.open_session("none", 1_000).unwrap().unwrap();
    rig.listen();
    rig.tell(&confirmation(id.0, 8, 1_000, 32_768)).unwrap();
    let told = rig.tell(&only(number::CHANNEL_FAILURE, id.0)).unwrap();
    assert_eq!((told.events.len(), numbers(&told.heard)), (1, vec![96, 97]));
    let told = rig.tell(&only(number::CHANNEL_CLOSE, id.0)).unwrap();
    assert!(told.events.is_empty() && told.heard.is_empty());
    assert_eq!(rig.machine.open_session("echo", 1_000).unwrap(), Some(id));
}

#[test]
fn a_channel_that_was_never_opened_is_not_closed() {
    let mut rig = in_use(Role::Client);
    let id = rig.machine.open_session("echo", 1_000).unwrap().unwrap();
    rig.listen();
    let outcome = rig.tell(&only(number::CHANNEL_CLOSE, id.0));
    assert!(matches!(
        misbehaved(outcome),
        PeerMisbehaved::Unexpected {
            number: number::CHANNEL_CLOSE,
            ..
        }
    ));
}
