//! The channels of one connection (RFC 4254): their table, and what their messages lead to.
//!
//! One code for both roles. A client opens channels and takes none of its peer but those of ports
//! that it had the peer listen on; a server takes sessions and, if the embedding program wants,
//! connections to carry. Whatever a peer asks for that somebody else has to decide is a [`Question`]:
//! until it is answered no further message is taken, so that answers come in order.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `opening` | channels come to be |
//! | `requests` | what is asked for and told on a channel |
//! | `flow` | data, windows, and how channels end |
//! | `global` | what is about no channel: keepalives, forwarding, pings |
//! | `host_keys` | a server tells its host keys and proves that it holds them |

mod flow;
mod global;
mod host_keys;
#[cfg(test)]
mod model;
mod opening;
mod requests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ketch_wire::Reader;

use crate::channel::{Channel, ChannelId, End, Opening};
use crate::config::Limits;
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::event::Event;
use crate::message::connection::{
    ChannelData, ChannelOnly, ChannelOpen, ChannelRequest, ExtendedData, GlobalRequest,
    OpenConfirmation, OpenFailure, Ping, WindowAdjust,
};
use crate::message::number;
use crate::outbox::Outbox;
use crate::packet::Lent;
use global::Global;
pub(crate) use host_keys::HostKeyProofs;

/// Replies without a request that are passed over before the connection ends.
const UNSOLICITED_MAX: u32 = 64;
/// How long a peer may take to answer a `CLOSE`, or to take what waits before ours.
const CLOSE_TIME: Duration = Duration::from_secs(30);
/// Channels whose `CLOSE` the peer never answered, before the connection ends.
const REAPED_MAX: usize = 64;

/// Whether the peer may open sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sessions {
    /// A server's peer may.
    Accepted,
    /// A client's peer may not.
    Refused,
    /// A server's peer said that it would open no more (`no-more-sessions@openssh.com`).
    NoMore,
}

/// What the peer asked for and somebody else has to decide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Question {
    /// Something on a session channel.
    Request { id: ChannelId, want_reply: bool },
    /// A channel.
    Open {
        sender: u32,
        window: u32,
        max_packet: u32,
    },
    /// To listen on a port, which the answer has to name if it was to be chosen.
    Forward { want_reply: bool, chosen: bool },
    /// To listen no more.
    CancelForward { want_reply: bool },
}

/// All channels of a connection.
#[derive(Debug)]
pub(crate) struct Mux {
    /// By our number; a number is used again when both sides have closed.
    channels: Vec<Option<Channel>>,
    sessions: Sessions,
    limits: Limits,
    question: Option<Question>,
    /// Channels that were given up, to be told.
    given_up: VecDeque<ChannelId>,
    /// A channel of ours was opened, so that the peer's next number cannot be guessed.
    opened: bool,
    global: Global,
    host_keys: HostKeyProofs,
    unsolicited: u32,
}

impl Mux {
    pub(crate) fn new(sessions: Sessions, limits: Limits) -> Self {
        Self {
            channels: Vec::new(),
            sessions,
            limits,
            question: None,
            given_up: VecDeque::new(),
            opened: false,
            global: Global::default(),
            host_keys: HostKeyProofs::default(),
            unsolicited: 0,
        }
    }

    /// Whether an answer is awaited, before which no message is taken.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.question.is_some()
    }

    /// The channel with our number.
    pub(crate) fn get(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.channels.get_mut(usize::try_from(id.0).ok()?)?.as_mut()
    }

    /// Gives a channel a number, unless there are too many.
    fn insert(&mut self, channel: Channel) -> Option<ChannelId> {
        let is_live = |channel: &&Channel| !matches!(channel.opening, Opening::Reaped);
        let live = self.channels.iter().flatten().filter(is_live).count();
        if live >= self.limits.channels_max {
            return None;
        }
        let free = self.channels.iter().position(Option::is_none);
        let index = match free {
            Some(index) => {
                self.channels[index] = Some(channel);
                index
            }
            None => {
                self.channels.push(Some(channel));
                self.channels.len() - 1
            }
        };
        u32::try_from(index).ok().map(ChannelId)
    }

    fn remove(&mut self, id: ChannelId) {
        if let Some(slot) = usize::try_from(id.0)
            .ok()
            .and_then(|i| self.channels.get_mut(i))
        {
            *slot = None;
        }
    }

    /// Takes a message of the connection protocol (numbers 80 to 127), or a ping.
    pub(crate) fn on_message<'a>(
        &mut self,
        number: u8,
        payload: Lent<'a>,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let fields = Reader::new(payload.bytes.get(1..).unwrap_or_default());
        let malformed = |source| PeerMisbehaved::Malformed { number, source };
        match number {
            number::CHANNEL_DATA => {
                let message = ChannelData::decode(fields).map_err(malformed)?;
                self.on_data(message, payload)
            }
            number::CHANNEL_WINDOW_ADJUST => {
                let message = WindowAdjust::decode(fields).map_err(malformed)?;
                self.on_adjust(message)
            }
            number::CHANNEL_EXTENDED_DATA => {
                let message = ExtendedData::decode(fields).map_err(malformed)?;
                self.on_extended_data(message)
            }
            number::CHANNEL_OPEN => {
                let message = ChannelOpen::decode(fields).map_err(malformed)?;
                self.on_open(message, outbox)
            }
            number::CHANNEL_OPEN_CONFIRMATION => {
                let message = OpenConfirmation::decode(fields).map_err(malformed)?;
                self.on_confirmation(message, outbox)
            }
            number::CHANNEL_OPEN_FAILURE => {
                let message = OpenFailure::decode(fields).map_err(malformed)?;
                self.on_open_failure(message)
            }
            number::CHANNEL_REQUEST => {
                let message = ChannelRequest::decode(fields).map_err(malformed)?;
                self.on_request(message, outbox)
            }
            number::CHANNEL_SUCCESS | number::CHANNEL_FAILURE => {
                let message = ChannelOnly::decode(fields).map_err(malformed)?;
                self.on_request_reply(message.recipient, number)
            }
            number::CHANNEL_EOF => {
                let message = ChannelOnly::decode(fields).map_err(malformed)?;
                self.on_eof(message.recipient)
            }
            number::CHANNEL_CLOSE => {
                let message = ChannelOnly::decode(fields).map_err(malformed)?;
                self.on_close(message.recipient, outbox)
            }
            number::GLOBAL_REQUEST => {
                let message = GlobalRequest::decode(fields).map_err(malformed)?;
                self.on_global_request(message, now, outbox)
            }
            number::REQUEST_SUCCESS | number::REQUEST_FAILURE => {
                self.on_global_reply(number, payload.bytes.get(1..).unwrap_or_default())
            }
            number::PING => {
                let message = Ping::decode(fields).map_err(malformed)?;
                self.on_ping(message, outbox)?;
                Ok(None)
            }
            number::PONG => {
                Ping::decode(fields).map_err(malformed)?;
                self.on_pong()
            }
            _ => Err(PeerMisbehaved::Unexpected {
                number,
                state: "on a connection",
            }
            .into()),
        }
    }

    /// What happened without a message: channels were given up.
    pub(crate) fn next_event(&mut self) -> Option<Event<'static>> {
        self.given_up.pop_front().map(Event::Closed)
    }

    /// The channel that a message names.
    fn named(
        &mut self,
        number: u8,
        recipient: u32,
    ) -> Result<(ChannelId, &mut Channel), PeerMisbehaved> {
        let id = ChannelId(recipient);
        match self.get(id) {
            Some(channel) if channel.recv.end != End::Closed => Ok((id, channel)),
            _ => Err(PeerMisbehaved::NoSuchChannel {
                number,
                channel: recipient,
            }),
        }
    }

    fn count_unsolicited(&mut self) -> Result<(), PeerMisbehaved> {
        self.unsolicited += 1;
        if self.unsolicited > UNSOLICITED_MAX {
            return Err(PeerMisbehaved::Unsolicited);
        }
        Ok(())
    }

    /// When [`Mux::handle_timeout`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let closing = |channel: &Channel| channel.closing.map(|closing| closing.at);
        self.channels.iter().flatten().filter_map(closing).min()
    }

    /// Helps ends along that hang: drops what the peer does not take, forgets what it does not
    /// close.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        outbox: &Outbox,
    ) -> Result<(), PeerMisbehaved> {
        for (index, channel) in self.channels.iter_mut().enumerate() {
            let Some(channel) = channel else { continue };
            let Some(closing) = channel.closing.as_mut().filter(|closing| closing.at <= now) else {
                continue;
            };
            closing.at = now + CLOSE_TIME;
            if channel.send.sent != End::Closed {
                let queued = channel.send.queued();
                let moves = queued < std::mem::replace(&mut closing.queued, queued);
                if !moves && outbox.is_open() {
                    channel.send.abandon();
                }
                continue;
            }
            let was_in_use = matches!(channel.opening, Opening::Ready | Opening::Bare);
            channel.closing = None;
            channel.opening = Opening::Reaped;
            channel.send.abandon();
            if let Ok(id) = u32::try_from(index)
                && was_in_use
            {
                self.given_up.push_back(ChannelId(id));
            }
        }
        let is_reaped = |channel: &&Channel| matches!(channel.opening, Opening::Reaped);
        if self.channels.iter().flatten().filter(is_reaped).count() > REAPED_MAX {
            return Err(PeerMisbehaved::NeverCloses);
        }
        Ok(())
    }

    /// Whether any channel exists.
    pub(crate) fn is_empty(&self) -> bool {
        self.channels.iter().all(Option::is_none)
    }
}
