//! Channels come to be (RFC 4254 §5.1), ours and the peer's.

use ketch_wire::{Reader, Writer};

use super::{Mux, Question, Sessions};
use crate::channel::{Asked, Channel, ChannelId, MAX_PACKET, Opening, Purpose, RecvHalf, SendHalf};
use crate::error::{ConnectionError, Escaped, PeerMisbehaved};
use crate::event::{Event, PeerChannel, Refusal};
use crate::message::connection::{
    ChannelOpen, ChannelRequest, OpenConfirmation, OpenFailure, Request, TcpipOpen,
};
use crate::message::number;
use crate::outbox::Outbox;
use crate::packet::SendError;
use crate::session::{SessionStart, Tcpip};

/// The number that a server gives to the first channel: OpenSSH's and ours take the lowest.
const GUESSED_NUMBER: u32 = 0;

impl Mux {
    /// Opens a session and asks for its program once it is open; `None` if there are too many
    /// channels.
    pub(crate) fn open_session(
        &mut self,
        start: SessionStart,
        window: u32,
        outbox: &mut Outbox,
    ) -> Result<Option<ChannelId>, ConnectionError> {
        let opening = Opening::Asked(Purpose::Session(Box::new(start)));
        self.open(ChannelOpen::SESSION, &[], opening, window, outbox)
    }

    /// Opens a channel that carries a connection.
    pub(crate) fn open_tcpip(
        &mut self,
        channel_type: &[u8],
        tcpip: &Tcpip,
        window: u32,
        outbox: &mut Outbox,
    ) -> Result<Option<ChannelId>, ConnectionError> {
        let mut rest = Vec::new();
        tcpip.as_message().encode(&mut Writer::new(&mut rest));
        let opening = Opening::Asked(Purpose::Connection);
        self.open(channel_type, &rest, opening, window, outbox)
    }

    /// Opens a session and sends all that follows without waiting for anything, to the number that
    /// the peer is expected to give. `None` if the number cannot be foreseen.
    pub(crate) fn open_early(
        &mut self,
        start: &SessionStart,
        window: u32,
        outbox: &mut Outbox,
    ) -> Result<Option<ChannelId>, ConnectionError> {
        if self.opened || self.sessions != Sessions::Refused {
            return Ok(None);
        }
        let opened = self.open(ChannelOpen::SESSION, &[], Opening::Guessed, window, outbox)?;
        if let Some(channel) = opened.and_then(|id| self.get(id)) {
            channel.send.guess(GUESSED_NUMBER);
            ask_for(channel, start, outbox)?;
        }
        Ok(opened)
    }

    /// What was opened early is void: the peer did not let us in, and has not looked at it.
    pub(crate) fn forget_early(&mut self) -> bool {
        let was_early = !self.is_empty();
        self.channels.clear();
        self.opened = false;
        was_early
    }

    fn open(
        &mut self,
        channel_type: &[u8],
        rest: &[u8],
        opening: Opening,
        window: u32,
        outbox: &mut Outbox,
    ) -> Result<Option<ChannelId>, ConnectionError> {
        let send = SendHalf::new(self.limits.channel_queue_bytes);
        let recv = RecvHalf::new(window, self.limits.window_bytes_max);
        let Some(id) = self.insert(Channel::new(opening, send, recv)) else {
            return Ok(None);
        };
        self.opened = true;
        let open = ChannelOpen {
            channel_type,
            sender: id.0,
            window,
            max_packet: MAX_PACKET,
            rest,
        };
        outbox.message(|w| open.encode(w))?;
        Ok(Some(id))
    }

    pub(super) fn on_open<'a>(
        &mut self,
        message: ChannelOpen<'_>,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let ChannelOpen {
            channel_type,
            sender,
            window,
            max_packet,
            rest,
        } = message;
        let is_server = self.sessions != Sessions::Refused;
        let carried = match channel_type {
            ChannelOpen::DIRECT_TCPIP if is_server => true,
            ChannelOpen::FORWARDED_TCPIP if !is_server && self.global.is_forwarding() => true,
            ChannelOpen::SESSION if self.sessions == Sessions::Accepted => false,
            ChannelOpen::SESSION if is_server => {
                let words = b"no more sessions, as was said";
                refuse(sender, OpenFailure::PROHIBITED, words, outbox)?;
                return Ok(None);
            }
            _ if !is_server => {
                let words = b"this side opens the channels";
                refuse(sender, OpenFailure::PROHIBITED, words, outbox)?;
                return Ok(None);
            }
            _ => {
                let words = b"there are no channels of this type";
                refuse(sender, OpenFailure::UNKNOWN_TYPE, words, outbox)?;
                return Ok(None);
            }
        };
        if !carried {
            self.question = Some(Question::Open {
                sender,
                window,
                max_packet,
            });
            self.answer_open(true, Opening::Bare, outbox)?;
            return Ok(None);
        }
        let number = number::CHANNEL_OPEN;
        let tcpip = TcpipOpen::decode(Reader::new(rest))
            .map_err(|source| PeerMisbehaved::Malformed { number, source })?;
        let Some(tcpip) = Tcpip::from_message(&tcpip) else {
            let words = b"the host is no text";
            refuse(sender, OpenFailure::CONNECT_FAILED, words, outbox)?;
            return Ok(None);
        };
        self.question = Some(Question::Open {
            sender,
            window,
            max_packet,
        });
        Ok(Some(Event::ChannelAsked(if is_server {
            PeerChannel::DirectTcpip(tcpip)
        } else {
            PeerChannel::ForwardedTcpip(tcpip)
        })))
    }

    /// Opens the channel that the peer asked for, or refuses it. `None` if it is refused.
    pub(crate) fn answer_open(
        &mut self,
        accepted: bool,
        opening: Opening,
        outbox: &mut Outbox,
    ) -> Result<Option<ChannelId>, ConnectionError> {
        let Some(Question::Open {
            sender,
            window,
            max_packet,
        }) = self.question
        else {
            return Ok(None);
        };
        self.question = None;
        if !accepted {
            refuse(sender, OpenFailure::PROHIBITED, b"not allowed", outbox)?;
            return Ok(None);
        }
        let mut send = SendHalf::new(self.limits.channel_queue_bytes);
        if send.confirm(sender, window, max_packet).is_err() {
            let words = b"the maximum packet size is too small";
            refuse(sender, OpenFailure::PROHIBITED, words, outbox)?;
            return Ok(None);
        }
        let window = self.limits.window_bytes;
        let recv = RecvHalf::new(window, self.limits.window_bytes_max);
        let Some(id) = self.insert(Channel::new(opening, send, recv)) else {
            let words = b"too many channels";
            refuse(sender, OpenFailure::RESOURCE_SHORTAGE, words, outbox)?;
            return Ok(None);
        };
        let confirmation = OpenConfirmation {
            recipient: sender,
            sender: id.0,
            window,
            max_packet: MAX_PACKET,
        };
        outbox.message(|w| confirmation.encode(w))?;
        Ok(Some(id))
    }

    pub(super) fn on_confirmation<'a>(
        &mut self,
        message: OpenConfirmation,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let number = number::CHANNEL_OPEN_CONFIRMATION;
        let (id, channel) = self.named(number, message.recipient)?;
        let is_guessed = matches!(channel.opening, Opening::Guessed);
        if !is_guessed && !matches!(channel.opening, Opening::Asked(_)) {
            return Err(PeerMisbehaved::Unsolicited.into());
        }
        if is_guessed && message.sender != GUESSED_NUMBER {
            return Err(ConnectionError::WrongChannelForeseen);
        }
        channel
            .send
            .confirm(message.sender, message.window, message.max_packet)?;
        match std::mem::replace(&mut channel.opening, Opening::Requested) {
            Opening::Asked(Purpose::Session(start)) => ask_for(channel, &start, outbox)?,
            Opening::Asked(Purpose::Connection) => {
                channel.opening = Opening::Ready;
                return Ok(Some(Event::ChannelReady(id)));
            }
            _ => {} // all of it is out
        }
        Ok(None)
    }

    pub(super) fn on_open_failure<'a>(
        &mut self,
        message: OpenFailure<'_>,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let (id, channel) = self.named(number::CHANNEL_OPEN_FAILURE, message.recipient)?;
        if !matches!(channel.opening, Opening::Asked(_) | Opening::Guessed) {
            return Err(PeerMisbehaved::Unsolicited.into());
        }
        self.remove(id);
        let description = Escaped(message.description).to_string();
        Ok(Some(Event::ChannelRefused(
            id,
            Refusal::Channel {
                reason: message.reason,
                description,
            },
        )))
    }
}

fn refuse(
    recipient: u32,
    reason: u32,
    description: &[u8],
    outbox: &mut Outbox,
) -> Result<(), SendError> {
    let failure = OpenFailure {
        recipient,
        reason,
        description,
    };
    outbox.message(|w| failure.encode(w))
}

/// Sends the requests for a program and its surroundings.
fn ask_for(
    channel: &mut Channel,
    start: &SessionStart,
    outbox: &mut Outbox,
) -> Result<(), SendError> {
    let recipient = channel.send.recipient;
    let mut outcome = Ok(());
    start.requests(|request, want_reply| {
        channel.asked.extend(match request {
            Request::Pty(_) => Some(Asked::Pty),
            Request::Subsystem(_) => Some(Asked::Subsystem),
            Request::Exec(_) => Some(Asked::Exec),
            Request::Shell => Some(Asked::Shell),
            _ => None,
        });
        let message = ChannelRequest {
            recipient,
            want_reply,
            request,
        };
        if outcome.is_ok() {
            outcome = outbox.message(|w| message.encode(w));
        }
    });
    outcome
}
