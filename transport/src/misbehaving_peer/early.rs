//! The first channel, used before anything about it is answered.

use super::channels::{adjust, in_use, numbers};
use super::{Rig, Role, State, confirmation, data, misbehaved, only};
use crate::channel::{ChannelId, EAGER_BYTES_MAX};
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::number;
use crate::session::SessionStart;

const FIRST: ChannelId = ChannelId(0);

fn sftp() -> SessionStart {
    SessionStart::subsystem("sftp")
}

/// A client whose request to log in is out, with a channel behind it that says something.
fn behind_the_request() -> (Rig, Vec<Vec<u8>>) {
    let mut rig = Rig::at(Role::Client, true, State::InLogin);
    let id = rig.machine.open_session_early(&sftp(), 1_000).unwrap();
    assert_eq!(id, Some(FIRST));
    rig.machine.send(FIRST, &[7; 100]).unwrap();
    rig.machine.flush(rig.now).unwrap();
    let heard = rig.listen();
    (rig, heard)
}

#[test]
fn all_of_it_leaves_behind_the_request_and_the_channel_is_there_when_the_user_is_in() {
    let (mut rig, heard) = behind_the_request();
    assert_eq!(numbers(&heard), [90, 98, 94]);
    assert_eq!(heard[1][1..5], [0; 4], "to the number that is foreseen");
    assert_eq!(heard[2], data(0, &[7; 100]));
    rig.tell(&[number::USERAUTH_SUCCESS]).unwrap();
    // As OpenSSH has it: no window at first, then one, then the answer.
    assert!(
        rig.tell(&confirmation(0, 0, 0, 32_768))
            .unwrap()
            .events
            .is_empty()
    );
    assert_eq!(rig.machine.sendable(FIRST), 0);
    rig.tell(&adjust(1_000)).unwrap();
    assert_eq!(rig.machine.sendable(FIRST), 900, "what was sent is debited");
    let told = rig.tell(&only(number::CHANNEL_SUCCESS, 0)).unwrap();
    assert_eq!(told.events, ["ChannelReady(ChannelId(0))"]);
    assert_eq!(rig.tell(&data(0, b"answer")).unwrap().events.len(), 1);
}

#[test]
fn no_more_than_its_allowance_leaves_early() {
    let mut rig = Rig::at(Role::Client, true, State::InLogin);
    rig.machine.open_session_early(&sftp(), 1_000).unwrap();
    let most = usize::try_from(EAGER_BYTES_MAX).unwrap();
    assert_eq!(rig.machine.sendable(FIRST), most);
    rig.machine.send(FIRST, &vec![1; most + 500]).unwrap();
    rig.machine.flush(rig.now).unwrap();
    let sent: usize = rig
        .listen()
        .iter()
        .filter(|message| message[0] == number::CHANNEL_DATA)
        .map(|message| message.len() - 9)
        .sum();
    assert_eq!(sent, most);
    rig.tell(&[number::USERAUTH_SUCCESS]).unwrap();
    rig.tell(&confirmation(0, 0, EAGER_BYTES_MAX + 400, 32_768))
        .unwrap();
    rig.machine.flush(rig.now).unwrap();
    let told = rig.tell(&adjust(100)).unwrap();
    assert_eq!(
        told.heard,
        [data(0, &[1; 100])],
        "{:?}",
        numbers(&told.heard)
    );
}

#[test]
fn another_number_than_was_foreseen_cannot_be_repaired() {
    let (mut rig, _) = behind_the_request();
    rig.tell(&[number::USERAUTH_SUCCESS]).unwrap();
    let outcome = rig.tell(&confirmation(0, 1, 1_000, 32_768));
    assert!(
        matches!(outcome, Err(ConnectionError::WrongChannelForeseen)),
        "{outcome:?}"
    );
}

#[test]
fn it_is_void_if_the_user_is_not_let_in() {
    let (mut rig, _) = behind_the_request();
    // OpenSSH says of each message that it does not know it, and goes on.
    for _ in 0..3 {
        rig.tell(&[number::UNIMPLEMENTED, 0, 0, 0, 9]).unwrap();
    }
    let failure = [&[number::USERAUTH_FAILURE, 0, 0, 0, 4][..], b"none", &[0]].concat();
    rig.tell(&failure).unwrap();
    assert!(rig.machine.forget_early());
    assert!(!rig.machine.has_channels());
    // Nothing was looked at over there, so that the number can be foreseen again.
    assert_eq!(rig.machine.open_session_early(&sftp(), 1).unwrap(), None);
}

#[test]
fn it_is_for_clients_in_time_and_for_the_first_channel() {
    for state in [State::FirstUnderKeys, State::BeforeKexInit, State::InUse] {
        let mut rig = Rig::at(Role::Client, true, state);
        let early = rig.machine.open_session_early(&sftp(), 1_000).unwrap();
        // Keys are there, and the request to log in is out with them.
        assert_eq!(early.is_some(), state == State::FirstUnderKeys);
    }
    let mut rig = in_use(Role::Server);
    assert_eq!(
        rig.machine.open_session_early(&sftp(), 1_000).unwrap(),
        None
    );
}

#[test]
fn nothing_is_told_of_it_before_it_is_open() {
    for message in [
        data(0, b"d"),
        only(number::CHANNEL_EOF, 0),
        only(number::CHANNEL_CLOSE, 0),
        adjust(5),
    ] {
        let (mut rig, _) = behind_the_request();
        rig.tell(&[number::USERAUTH_SUCCESS]).unwrap();
        let outcome = misbehaved(rig.tell(&message));
        assert!(
            matches!(outcome, PeerMisbehaved::Unexpected { .. }),
            "{outcome:?}"
        );
    }
    let (mut rig, _) = behind_the_request();
    rig.tell(&[number::USERAUTH_SUCCESS]).unwrap();
    let told = rig.tell(&only(number::CHANNEL_SUCCESS, 0)).unwrap();
    assert!(told.events.is_empty(), "an answer to what is not there");
}
