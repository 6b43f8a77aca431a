//! Data on channels, the windows that bound it, and how channels end (RFC 4254 §5.2 and §5.3).

use std::time::Instant;

use ketch_wire::Writer;

use super::{CLOSE_TIME, Mux};
use crate::channel::{ChannelId, Closing, End, Opening, QueueFull, SendHalf, Stream};
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::event::{Event, Refusal};
use crate::message::connection::{
    ChannelData, ChannelOnly, DATA_HEADER_LEN, ExtendedData, WindowAdjust,
};
use crate::message::number;
use crate::outbox::Outbox;
use crate::packet::{Lent, SLOTS_MAX, Slots};

/// Where a peer's data goes.
enum Destination {
    /// To whoever uses the channel.
    Application,
    /// To nobody; the peer may send as much again.
    Drained,
    /// To nobody, and it counts against the window.
    Dropped,
}

impl Mux {
    pub(super) fn on_adjust<'a>(
        &mut self,
        message: WindowAdjust,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let number = number::CHANNEL_WINDOW_ADJUST;
        let (_, channel) = self.named(number, message.recipient)?;
        if matches!(channel.opening, Opening::Asked(_) | Opening::Guessed) {
            let state = "before its channel is open";
            return Err(PeerMisbehaved::Unexpected { number, state }.into());
        }
        channel.send.adjust(message.bytes)?;
        Ok(None)
    }

    /// Debits data from its window and says where it goes.
    fn admit_data(
        &mut self,
        number: u8,
        recipient: u32,
        len: usize,
    ) -> Result<(ChannelId, Destination), ConnectionError> {
        let (id, channel) = self.named(number, recipient)?;
        channel.recv.debit(len)?;
        // After EOF (RFC 4254 §5.3) nobody listens; the window bounds it.
        if channel.recv.end != End::Open {
            return Ok((id, Destination::Dropped));
        }
        // Nor when we are about to close. But the peer may be too, and its queue has to drain first.
        if channel.send.wanted == End::Closed {
            channel.recv.give_credit(len);
            return Ok((id, Destination::Drained));
        }
        if channel.shows_life() {
            return Ok((id, Destination::Application));
        }
        if matches!(channel.opening, Opening::Bare) {
            // Sent along with the request for a program, before the peer knew that it is refused.
            return Ok((id, Destination::Dropped));
        }
        let state = "before its channel is ready";
        Err(PeerMisbehaved::Unexpected { number, state }.into())
    }

    pub(super) fn on_data<'a>(
        &mut self,
        message: ChannelData<'a>,
        payload: Lent<'a>,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let len = message.data.len();
        match self.admit_data(number::CHANNEL_DATA, message.recipient, len)? {
            (id, Destination::Application) => {
                Ok(Some(Event::Data(id, payload.skip(DATA_HEADER_LEN))))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn on_extended_data<'a>(
        &mut self,
        message: ExtendedData<'a>,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let number = number::CHANNEL_EXTENDED_DATA;
        let len = message.data.len();
        let (id, destination) = self.admit_data(number, message.recipient, len)?;
        if message.data_type != ExtendedData::STDERR {
            let data_type = message.data_type;
            return Err(PeerMisbehaved::UnknownExtendedData { data_type }.into());
        }
        match destination {
            Destination::Application => Ok(Some(Event::ExtendedData(
                id,
                message.data_type,
                message.data,
            ))),
            Destination::Drained | Destination::Dropped => Ok(None),
        }
    }

    pub(super) fn on_eof<'a>(
        &mut self,
        recipient: u32,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let number = number::CHANNEL_EOF;
        let (id, channel) = self.named(number, recipient)?;
        if matches!(channel.opening, Opening::Asked(_) | Opening::Guessed) {
            let state = "before its channel is open";
            return Err(PeerMisbehaved::Unexpected { number, state }.into());
        }
        if channel.recv.end != End::Open {
            return Ok(None);
        }
        channel.recv.end = End::Eof;
        let is_heard = channel.shows_life() && channel.send.wanted != End::Closed;
        Ok(is_heard.then_some(Event::Eof(id)))
    }

    pub(super) fn on_close<'a>(
        &mut self,
        recipient: u32,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let number = number::CHANNEL_CLOSE;
        let (id, channel) = self.named(number, recipient)?;
        if matches!(channel.opening, Opening::Asked(_) | Opening::Guessed) {
            // It was neither opened nor refused: whoever waits for that would wait for ever.
            let state = "before its channel is open";
            return Err(PeerMisbehaved::Unexpected { number, state }.into());
        }
        channel.recv.end = End::Closed;
        channel.send.abandon();
        let was_in_use = matches!(channel.opening, Opening::Ready | Opening::Bare);
        let is_refused = matches!(channel.opening, Opening::Requested);
        if channel.send.sent != End::Closed {
            let recipient = channel.send.recipient;
            outbox.message(|w| ChannelOnly { recipient }.encode(number::CHANNEL_CLOSE, w))?;
        }
        self.remove(id);
        if is_refused {
            return Ok(Some(Event::ChannelRefused(id, Refusal::Closed)));
        }
        Ok(was_in_use.then_some(Event::Closed(id)))
    }

    /// Puts bytes into the channel's queue.
    pub(crate) fn enqueue(
        &mut self,
        id: ChannelId,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<(), QueueFull> {
        self.get(id)
            .map_or(Ok(()), |channel| channel.send.enqueue(stream, bytes))
    }

    /// Bytes of bulk data that would leave now.
    pub(crate) fn sendable(&mut self, id: ChannelId, outbox: &Outbox) -> usize {
        if !outbox.is_open() {
            return 0;
        }
        let free = outbox.sender.free();
        self.get(id).map_or(0, |channel| {
            if channel.send.wanted != End::Open {
                return 0;
            }
            let most = channel.send.data_max.saturating_mul(SLOTS_MAX);
            channel
                .send
                .window()
                .saturating_sub(channel.send.queued())
                .min(free)
                .min(most)
        })
    }

    /// The largest run of slots that the channel may ever get.
    pub(crate) fn slots_peak(&mut self, id: ChannelId) -> usize {
        self.get(id).map_or(0, |channel| {
            channel
                .send
                .window_peak()
                .min(channel.send.data_max.saturating_mul(SLOTS_MAX))
        })
    }

    /// Slots for `len` bytes on a channel, behind everything that waits in its queue.
    pub(crate) fn slots<'o>(
        &mut self,
        id: ChannelId,
        len: usize,
        outbox: &'o mut Outbox,
    ) -> Result<Option<(Slots<'o>, &mut SendHalf)>, ConnectionError> {
        if len > self.sendable(id, outbox) {
            return Ok(None);
        }
        self.flush_queue(id, outbox)?;
        let Some(channel) = self.get(id) else {
            return Ok(None);
        };
        if channel.send.queued() > 0 || channel.send.window() < len {
            return Ok(None);
        }
        let slots = outbox
            .sender
            .slots(channel.send.recipient, len, channel.send.data_max);
        Ok(slots.map(|slots| (slots, &mut channel.send)))
    }

    /// Sends what waits in a channel's queues, as far as its window and the buffer admit.
    fn flush_queue(&mut self, id: ChannelId, outbox: &mut Outbox) -> Result<(), ConnectionError> {
        let Some(channel) = self.get(id) else {
            return Ok(());
        };
        let recipient = channel.send.recipient;
        while outbox.is_open() && outbox.sender.free() > 0 {
            let (stream, piece) = channel.send.next_piece();
            if piece.is_empty() {
                break;
            }
            let len = piece.len();
            let wire_len = u32::try_from(len).unwrap_or(0);
            outbox.now(|w: &mut Writer<'_>| {
                match stream {
                    Stream::Data => w.bytes(&ChannelData::header(recipient, wire_len)),
                    Stream::Stderr => w.bytes(&ExtendedData::header(recipient, wire_len)),
                }
                w.bytes(piece);
            })?;
            channel.send.dequeue(stream, len);
        }
        Ok(())
    }

    /// Sends what every channel has to send: queued data, credit, EOF and CLOSE, in that order.
    pub(crate) fn flush(
        &mut self,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        if !outbox.is_open() {
            return Ok(());
        }
        self.flush_pong(outbox)?;
        for index in 0..self.channels.len() {
            let Ok(id) = u32::try_from(index).map(ChannelId) else {
                continue;
            };
            self.flush_queue(id, outbox)?;
            let Some(channel) = self.get(id) else {
                continue;
            };
            if matches!(channel.opening, Opening::Asked(_)) {
                continue; // the peer has given no number yet
            }
            if channel.send.sent == End::Closed {
                continue; // nothing may follow CLOSE: the peer may have forgotten the channel
            }
            let recipient = channel.send.recipient;
            if let Some(bytes) = channel.recv.take_adjust() {
                outbox.message(|w| WindowAdjust { recipient, bytes }.encode(w))?;
            }
            let queued = channel.send.queued();
            if channel.send.wanted == End::Closed && channel.closing.is_none() {
                let at = now + CLOSE_TIME;
                channel.closing = Some(Closing { at, queued });
            }
            if queued > 0 {
                continue;
            }
            if channel.send.wanted >= End::Eof && channel.send.sent == End::Open {
                channel.send.sent = End::Eof;
                outbox.message(|w| ChannelOnly { recipient }.encode(number::CHANNEL_EOF, w))?;
            }
            if channel.send.wanted == End::Closed {
                channel.send.sent = End::Closed;
                let at = now + CLOSE_TIME;
                channel.closing = Some(Closing { at, queued });
                outbox.message(|w| ChannelOnly { recipient }.encode(number::CHANNEL_CLOSE, w))?;
            }
        }
        Ok(())
    }
}
