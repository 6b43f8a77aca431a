//! Which message may come when: every message number, in every state, in both roles, with and
//! without strict key exchange, against the table of [`admission`].

use ketch_wire::NameList;

use super::userauth_request;
use super::{
    CHANNEL, Rig, Role, State, confirmation, data, misbehaved, only, open, payload, request,
};
use crate::admission::{self, Part, Reaction as Admission, Stage, method_numbers};
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::auth::MethodRequest;
use crate::message::connection::{OpenFailure, Request, WindowAdjust};
use crate::message::number;
use crate::message::transport::{ExtInfo, Service};

/// What a message does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reaction {
    /// The connection ends: the peer broke the protocol.
    Fatal,
    /// The connection ends: the peer said so.
    Ended,
    /// Nothing comes of it.
    Ignored,
    /// It is what it should be.
    Accepted,
    /// `UNIMPLEMENTED` is the answer (RFC 4253 §11.4).
    Unknown,
}

use Reaction::{Accepted, Ended, Fatal, Ignored, Unknown};

/// Where the table has a state.
const fn stage(state: State) -> Stage {
    match state {
        State::BeforeKexInit => Stage::FirstKexInit,
        State::BeforePublic => Stage::FirstMethod,
        State::BeforeNewKeys => Stage::FirstNewKeys,
        State::FirstUnderKeys | State::BeforeService => Stage::Service,
        State::InLogin => Stage::Auth,
        // The peer need not know yet that we ask for new keys.
        State::InUse | State::RekeyAsked => Stage::Open,
        State::RekeyBeforePublic => Stage::LaterMethod,
        State::RekeyBeforeNewKeys => Stage::LaterNewKeys,
    }
}

/// What the table says of a message, and what the part that takes it has to find.
fn expected(role: Role, strict: bool, state: State, number: u8) -> Reaction {
    let is_client = role == Role::Client;
    // What comes before KEXINIT is held against a strict peer when its KEXINIT comes.
    let strict = strict && state != State::BeforeKexInit;
    match admission::reaction(number, stage(state), is_client, strict) {
        Admission::Take(Part::Connection) => Ended,
        Admission::Take(Part::Kex) if (30..=49).contains(&number) => {
            if number == method_numbers(is_client, false)[0] {
                Accepted
            } else {
                Fatal
            }
        }
        // RFC 8308 §2.4: the first packet under keys; from a server, also before it lets in.
        Admission::Take(Part::ExtInfo)
            if state == State::FirstUnderKeys || state == State::InLogin && is_client =>
        {
            Ignored
        }
        // RFC 4254 on an open channel that this side did not just ask for. Replies to nothing are
        // counted.
        Admission::Take(Part::Channels) => match number {
            81 | 82 | 99 | 100 => Ignored,
            91 | 92 => Fatal,
            _ => Accepted,
        },
        // Nobody asked these questions, and nobody answers what was not asked.
        Admission::Take(Part::Auth) if number < 60 => Accepted,
        Admission::Take(Part::Kex) => Accepted,
        Admission::Drop | Admission::DropUnlessStrict => Ignored,
        Admission::Unimplemented => Unknown,
        Admission::Fatal | Admission::Take(Part::ExtInfo | Part::Auth) => Fatal,
    }
}

const STATES: [State; 10] = [
    State::BeforeKexInit,
    State::BeforePublic,
    State::BeforeNewKeys,
    State::FirstUnderKeys,
    State::BeforeService,
    State::InLogin,
    State::InUse,
    State::RekeyAsked,
    State::RekeyBeforePublic,
    State::RekeyBeforeNewKeys,
];

/// A well-formed message with that number: what is wrong with it is when it comes, and nothing else.
pub(super) fn message(rig: &mut Rig, number: u8) -> Vec<u8> {
    let text = |w: &mut ketch_wire::Writer<'_>| w.string(b"");
    match number {
        number::DISCONNECT => payload(|w| {
            w.bytes(&[number, 0, 0, 0, 11]);
            w.string(b"");
            w.string(b"");
        }),
        number::IGNORE => payload(|w| {
            w.u8(number);
            text(w);
        }),
        number::SERVICE_REQUEST | number::SERVICE_ACCEPT => payload(|w| {
            Service {
                name: Service::USERAUTH,
            }
            .encode(number, w)
        }),
        number::EXT_INFO => payload(|w| {
            ExtInfo {
                server_sig_algs: NameList::new("ssh-ed25519").ok(),
                ..ExtInfo::default()
            }
            .encode(w)
        }),
        number::KEXINIT => rig.kexinit(),
        // Both have the form that they have when they come in time.
        30 | 31 if rig.by_role(31, 30) == number && rig.can_agree() => rig.public(),
        30 => payload(|w| {
            w.u8(number);
            w.string(&[9; 32]);
        }),
        number::USERAUTH_REQUEST => userauth_request(MethodRequest::None),
        number::USERAUTH_FAILURE => payload(|w| {
            w.u8(number);
            w.string(b"password");
            w.bool(false);
        }),
        number::USERAUTH_BANNER => payload(|w| {
            w.u8(number);
            w.string(b"hello");
            w.string(b"");
        }),
        number::GLOBAL_REQUEST => payload(|w| {
            w.u8(number);
            w.string(b"keepalive@openssh.com");
            w.bool(true);
        }),
        number::CHANNEL_OPEN => open(8, 1_000, 32_768),
        number::CHANNEL_OPEN_CONFIRMATION => confirmation(CHANNEL, 8, 1_000, 32_768),
        number::CHANNEL_OPEN_FAILURE => payload(|w| {
            OpenFailure {
                recipient: CHANNEL,
                reason: 1,
                description: b"",
            }
            .encode(w)
        }),
        number::CHANNEL_WINDOW_ADJUST => payload(|w| {
            WindowAdjust {
                recipient: CHANNEL,
                bytes: 5,
            }
            .encode(w)
        }),
        number::CHANNEL_DATA => data(CHANNEL, b"data"),
        number::CHANNEL_EXTENDED_DATA => payload(|w| {
            w.bytes(&[number, 0, 0, 0, 0, 0, 0, 0, 1]);
            w.string(b"oops");
        }),
        number::CHANNEL_REQUEST => request(CHANNEL, Request::Other(b"shell")),
        96 | 97 | 99 | 100 => only(number, CHANNEL),
        number::PING | number::PONG => payload(|w| {
            w.u8(number);
            text(w);
        }),
        _ => vec![number],
    }
}

impl Rig {
    /// Whether the machine's half of an exchange is known, or is not needed.
    fn can_agree(&self) -> bool {
        self.role == Role::Server || !self.machine_public.is_empty()
    }
}

fn reaction(rig: &mut Rig, number: u8) -> Reaction {
    let message = message(rig, number);
    match rig.tell(&message) {
        Err(ConnectionError::Disconnected { .. }) => Ended,
        Err(ConnectionError::Misbehaved(_)) => Fatal,
        Err(other) => panic!("{number}: {other:?}"),
        Ok(told)
            if told
                .heard
                .first()
                .is_some_and(|reply| reply[0] == number::UNIMPLEMENTED) =>
        {
            Unknown
        }
        Ok(told) if told.events.is_empty() && told.heard.is_empty() => Ignored,
        Ok(_) => Accepted,
    }
}

#[test]
fn every_message_in_every_state_does_what_the_table_says() {
    let mut wrong = Vec::new();
    for role in [Role::Client, Role::Server] {
        for strict in [false, true] {
            for state in STATES {
                for number in 0..=u8::MAX {
                    let expected = expected(role, strict, state, number);
                    let seen = reaction(&mut Rig::at(role, strict, state), number);
                    // What is accepted need not show: credit, the last NEWKEYS, an answer that waits
                    // for the exchange to end.
                    let fits = seen == expected
                        || (expected == Accepted && seen == Ignored)
                        || (expected == Unknown && seen == Ignored && state == State::RekeyAsked);
                    if !fits {
                        wrong.push(format!(
                            "{role:?} {strict} {state:?} {number}: {seen:?}, not {expected:?}"
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_came_before_a_strict_kexinit_is_held_against_it() {
    for role in [Role::Client, Role::Server] {
        for strict in [false, true] {
            let mut rig = Rig::at(role, strict, State::BeforeKexInit);
            rig.tell(&[number::IGNORE, 0, 0, 0, 0]).unwrap();
            let outcome = rig.tell_kexinit();
            if strict {
                let state = "before KEXINIT of a strict key exchange";
                let unexpected = PeerMisbehaved::Unexpected {
                    number: number::IGNORE,
                    state,
                };
                assert_eq!(misbehaved(outcome), unexpected);
            } else {
                outcome.unwrap();
                rig.tell_public().unwrap();
                rig.tell_newkeys().unwrap();
            }
        }
    }
}

#[test]
fn data_behind_a_kexinit_is_fatal_at_once() {
    for role in [Role::Client, Role::Server] {
        let mut rig = Rig::at(role, true, State::InUse);
        rig.tell_kexinit().unwrap();
        let unexpected = misbehaved(rig.tell(&data(CHANNEL, b"data")));
        let state = "in a key exchange";
        assert_eq!(
            unexpected,
            PeerMisbehaved::Unexpected {
                number: number::CHANNEL_DATA,
                state
            }
        );
    }
}

#[test]
fn messages_behind_one_that_waits_for_a_verdict_are_not_looked_at() {
    // A2, A1: while an attempt is being decided nothing is taken, and what was sent early counts as
    // if it had been sent after the verdict.
    let mut rig = Rig::at(Role::Server, true, State::InLogin);
    let told = rig.tell(&userauth_request(MethodRequest::None)).unwrap();
    assert_eq!(told.events.len(), 1);
    rig.sender.send(&open(8, 1_000, 32_768)).unwrap();
    let mut early = rig.sender.output().to_vec();
    assert!(rig.feed(&mut early.clone()).unwrap().events.is_empty());
    rig.machine.reject_auth().unwrap();
    let unexpected = misbehaved(rig.feed(&mut early));
    let state = "in authentication";
    assert_eq!(
        unexpected,
        PeerMisbehaved::Unexpected {
            number: number::CHANNEL_OPEN,
            state
        }
    );
}
