//! What is asked for and told on a channel (RFC 4254 §5.4 and §6).

use super::{Mux, Question};
use crate::channel::{Asked, ChannelId, End, Opening};
use crate::error::{ConnectionError, Escaped};
use crate::event::{Event, Exit, Refusal, SessionRequest};
use crate::message::connection::{ChannelOnly, ChannelRequest, ExitSignal, Request};
use crate::message::number;
use crate::outbox::Outbox;
use crate::packet::SendError;
use crate::session::Pty;

impl Mux {
    pub(super) fn on_request<'a>(
        &mut self,
        message: ChannelRequest<'a>,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let ChannelRequest {
            recipient,
            want_reply,
            request,
        } = message;
        let (id, channel) = self.named(number::CHANNEL_REQUEST, recipient)?;
        if channel.send.wanted == End::Closed {
            // Nobody listens any more; before our CLOSE an answer still has somewhere to go.
            refuse(
                channel.send.recipient,
                want_reply && channel.send.sent != End::Closed,
                outbox,
            )?;
            return Ok(None);
        }
        let asked = match (request, &channel.opening) {
            (Request::Subsystem(name), Opening::Bare) => Some(SessionRequest::Subsystem(name)),
            (Request::Exec(command), Opening::Bare) => Some(SessionRequest::Exec(command)),
            (Request::Shell, Opening::Bare) => Some(SessionRequest::Shell),
            (Request::Env { name, value }, Opening::Bare) => {
                match (std::str::from_utf8(name), std::str::from_utf8(value)) {
                    (Ok(name), Ok(value)) => Some(SessionRequest::Env { name, value }),
                    _ => None,
                }
            }
            (Request::Pty(pty), Opening::Bare) => Pty::from_request(&pty).map(SessionRequest::Pty),
            _ => None,
        };
        if let Some(asked) = asked {
            self.question = Some(Question::Request { id, want_reply });
            return Ok(Some(Event::Request(id, asked)));
        }
        let told = match request {
            Request::ExitStatus(status) if channel.shows_life() => {
                Some(Event::Exit(id, Exit::Status(status)))
            }
            Request::ExitSignal(signal) if channel.shows_life() => {
                Some(Event::Exit(id, exit_of(signal)))
            }
            Request::WindowChange(size) if matches!(channel.opening, Opening::Ready) => {
                Some(Event::WindowChange(id, size))
            }
            Request::Signal(name) if matches!(channel.opening, Opening::Ready) => {
                Some(Event::Signal(id, name))
            }
            _ => None,
        };
        let recipient = channel.send.recipient;
        if told.is_some() && want_reply {
            outbox.message(|w| ChannelOnly { recipient }.encode(number::CHANNEL_SUCCESS, w))?;
        } else {
            refuse(recipient, want_reply, outbox)?;
        }
        Ok(told)
    }

    /// Grants what the peer asked for on a session, or does not.
    pub(crate) fn answer_request(
        &mut self,
        accepted: bool,
        starts: bool,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        let Some(Question::Request { id, want_reply }) = self.question else {
            return Ok(());
        };
        self.question = None;
        let Some(channel) = self.get(id) else {
            return Ok(());
        };
        if accepted && starts {
            channel.opening = Opening::Ready;
        }
        let recipient = channel.send.recipient;
        let number = if accepted {
            number::CHANNEL_SUCCESS
        } else {
            number::CHANNEL_FAILURE
        };
        if want_reply {
            outbox.message(|w| ChannelOnly { recipient }.encode(number, w))?;
        }
        Ok(())
    }

    pub(super) fn on_request_reply<'a>(
        &mut self,
        recipient: u32,
        number: u8,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let (id, channel) = self.named(number, recipient)?;
        // Before the channel is there nothing on it can have been answered.
        let asked = match channel.opening {
            Opening::Guessed => None,
            _ => channel.asked.pop_front(),
        };
        let Some(asked) = asked else {
            self.count_unsolicited()?;
            return Ok(None);
        };
        let is_wanted = matches!(channel.opening, Opening::Requested | Opening::Ready);
        if number == number::CHANNEL_SUCCESS {
            if asked == Asked::Pty || !matches!(channel.opening, Opening::Requested) {
                return Ok(None);
            }
            channel.opening = Opening::Ready;
            return Ok(Some(Event::ChannelReady(id)));
        }
        if !is_wanted {
            return Ok(None);
        }
        channel.opening = Opening::Refused;
        channel.send.abandon();
        channel.send.wanted = End::Closed;
        let refusal = match asked {
            Asked::Pty => Refusal::Pty,
            Asked::Subsystem => Refusal::Subsystem,
            Asked::Exec => Refusal::Exec,
            Asked::Shell => Refusal::Shell,
        };
        Ok(Some(Event::ChannelRefused(id, refusal)))
    }

    /// Tells the peer something on a channel in use, for which it has no answer.
    pub(crate) fn tell(
        &mut self,
        id: ChannelId,
        request: Request<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        if let Some(channel) = self.get(id)
            && matches!(channel.opening, Opening::Ready)
            && channel.send.sent != End::Closed
        {
            let recipient = channel.send.recipient;
            let message = ChannelRequest {
                recipient,
                want_reply: false,
                request,
            };
            outbox.message(|w| message.encode(w))?;
        }
        Ok(())
    }
}

fn refuse(recipient: u32, want_reply: bool, outbox: &mut Outbox) -> Result<(), SendError> {
    if want_reply {
        outbox.message(|w| ChannelOnly { recipient }.encode(number::CHANNEL_FAILURE, w))?;
    }
    Ok(())
}

fn exit_of(signal: ExitSignal<'_>) -> Exit {
    Exit::Signal {
        name: Escaped(signal.signal.as_bytes()).to_string(),
        core_dumped: signal.core_dumped,
        message: Escaped(signal.message).to_string(),
    }
}
