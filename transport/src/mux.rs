//! The channels of one connection (RFC 4254 §5): their table, their messages, global requests.
//!
//! One code for both roles. A client opens sessions and refuses those of its peer; a server accepts
//! sessions up to a bound and knows one request for them, `subsystem`.

use ketch_wire::{Reader, Writer};

use crate::channel::{Channel, ChannelId, End, MAX_PACKET, Opening, QueueFull, RecvHalf, SendHalf};
use crate::config::Limits;
use crate::error::{ConnectionError, Escaped, PeerMisbehaved};
use crate::event::{Event, Exit, Refusal};
use crate::message::connection::{
    ChannelData, ChannelOnly, ChannelOpen, ChannelRequest, DATA_HEADER_LEN, ExtendedData,
    GlobalRequest, OpenConfirmation, OpenFailure, Request, WindowAdjust,
};
use crate::message::number;
use crate::outbox::Outbox;
use crate::packet::{Lent, SLOTS_MAX, Slots};

/// Replies without a request that are passed over before the connection ends.
const UNSOLICITED_MAX: u32 = 64;
/// The global request by which either side asks whether the other is there.
const KEEPALIVE: &[u8] = b"keepalive@openssh.com";

/// Whether the peer may open sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sessions {
    /// A server's peer may.
    Accepted,
    /// A client's peer may not.
    Refused,
}

/// All channels of a connection.
#[derive(Debug)]
pub(crate) struct Mux {
    /// By our number; a number is used again when both sides have closed.
    channels: Vec<Option<Channel>>,
    sessions: Sessions,
    limits: Limits,
    /// Global requests of ours that were not answered yet.
    global_pending: u32,
    unsolicited: u32,
}

impl Mux {
    pub(crate) const fn new(sessions: Sessions, limits: Limits) -> Self {
        Self {
            channels: Vec::new(),
            sessions,
            limits,
            global_pending: 0,
            unsolicited: 0,
        }
    }

    /// The channel with our number.
    pub(crate) fn get(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.channels.get_mut(usize::try_from(id.0).ok()?)?.as_mut()
    }

    fn insert(&mut self, channel: Channel) -> Option<ChannelId> {
        let free = self.channels.iter().position(Option::is_none);
        let index = match free {
            Some(index) => {
                self.channels[index] = Some(channel);
                index
            }
            None if self.channels.len() < self.limits.channels_max => {
                self.channels.push(Some(channel));
                self.channels.len() - 1
            }
            None => return None,
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

    /// Opens a session and asks for a subsystem once it is open; `None` if there are too many.
    pub(crate) fn open_session(
        &mut self,
        subsystem: &str,
        window: u32,
        outbox: &mut Outbox,
    ) -> Result<Option<ChannelId>, ConnectionError> {
        let channel = Channel {
            opening: Opening::Asked {
                subsystem: subsystem.to_owned(),
            },
            send: SendHalf::new(self.limits.channel_queue_bytes),
            recv: RecvHalf::new(window, self.limits.window_bytes_max),
            requests_pending: 0,
        };
        let Some(id) = self.insert(channel) else {
            return Ok(None);
        };
        let channel_type = ChannelOpen::SESSION;
        let open = ChannelOpen {
            channel_type,
            sender: id.0,
            window,
            max_packet: MAX_PACKET,
        };
        outbox.message(|w| open.encode(w))?;
        Ok(Some(id))
    }

    /// Asks the peer whether it is there.
    pub(crate) fn send_keepalive(&mut self, outbox: &mut Outbox) -> Result<(), ConnectionError> {
        self.global_pending = self.global_pending.saturating_add(1);
        let request = GlobalRequest {
            name: KEEPALIVE,
            want_reply: true,
        };
        outbox.message(|w| request.encode(w))?;
        Ok(())
    }

    /// Takes a message of the connection protocol (numbers 80 to 127).
    pub(crate) fn on_message<'a>(
        &mut self,
        number: u8,
        payload: Lent<'a>,
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
                self.named(number, message.recipient)?
                    .1
                    .send
                    .adjust(message.bytes)?;
                Ok(None)
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
                let (id, channel) = self.named(number, message.recipient)?;
                if channel.recv.end != End::Open {
                    return Ok(None);
                }
                channel.recv.end = End::Eof;
                Ok(Some(Event::Eof(id)))
            }
            number::CHANNEL_CLOSE => {
                let message = ChannelOnly::decode(fields).map_err(malformed)?;
                self.on_close(message.recipient, outbox)
            }
            number::GLOBAL_REQUEST => {
                let message = GlobalRequest::decode(fields).map_err(malformed)?;
                if message.want_reply {
                    outbox.message(|w| w.u8(number::REQUEST_FAILURE))?;
                }
                Ok(None)
            }
            number::REQUEST_SUCCESS | number::REQUEST_FAILURE => {
                match self.global_pending.checked_sub(1) {
                    Some(pending) => self.global_pending = pending,
                    None => self.count_unsolicited()?,
                }
                Ok(None)
            }
            number::PING | number::PONG => Ok(None),
            _ => Err(PeerMisbehaved::Unexpected {
                number,
                state: "on a connection",
            }
            .into()),
        }
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

    fn on_data<'a>(
        &mut self,
        message: ChannelData<'a>,
        payload: Lent<'a>,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let (id, channel) = self.named(number::CHANNEL_DATA, message.recipient)?;
        channel.recv.debit(message.data.len())?;
        // After EOF (RFC 4254 §5.3) nobody listens; the window bounds it.
        if channel.recv.end != End::Open {
            return Ok(None);
        }
        // Nor when we are about to close. But the peer may be too, and its queue has to drain first.
        if channel.send.wanted == End::Closed {
            channel.recv.give_credit(message.data.len());
            return Ok(None);
        }
        if !matches!(channel.opening, Opening::Ready) {
            let state = "before its channel is ready";
            return Err(PeerMisbehaved::Unexpected {
                number: number::CHANNEL_DATA,
                state,
            }
            .into());
        }
        Ok(Some(Event::Data(id, payload.skip(DATA_HEADER_LEN))))
    }

    fn on_extended_data<'a>(
        &mut self,
        message: ExtendedData<'a>,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let (id, channel) = self.named(number::CHANNEL_EXTENDED_DATA, message.recipient)?;
        channel.recv.debit(message.data.len())?;
        if channel.recv.end != End::Open || !matches!(channel.opening, Opening::Ready) {
            return Ok(None);
        }
        if channel.send.wanted == End::Closed {
            channel.recv.give_credit(message.data.len());
            return Ok(None);
        }
        Ok(Some(Event::ExtendedData(
            id,
            message.data_type,
            message.data,
        )))
    }

    fn on_open<'a>(
        &mut self,
        message: ChannelOpen<'_>,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let refuse = |outbox: &mut Outbox, reason, description: &[u8]| {
            let failure = OpenFailure {
                recipient: message.sender,
                reason,
                description,
            };
            outbox.message(|w| failure.encode(w))
        };
        if self.sessions == Sessions::Refused {
            refuse(
                outbox,
                OpenFailure::PROHIBITED,
                b"this side opens the channels",
            )?;
            return Ok(None);
        }
        if message.channel_type != ChannelOpen::SESSION {
            refuse(
                outbox,
                OpenFailure::UNKNOWN_TYPE,
                b"only sessions are served",
            )?;
            return Ok(None);
        }
        let mut send = SendHalf::new(self.limits.channel_queue_bytes);
        if send
            .confirm(message.sender, message.window, message.max_packet)
            .is_err()
        {
            refuse(
                outbox,
                OpenFailure::PROHIBITED,
                b"the maximum packet size is too small",
            )?;
            return Ok(None);
        }
        let window = self.limits.window_bytes;
        let channel = Channel {
            opening: Opening::Bare,
            send,
            recv: RecvHalf::new(window, self.limits.window_bytes_max),
            requests_pending: 0,
        };
        let Some(id) = self.insert(channel) else {
            refuse(outbox, OpenFailure::RESOURCE_SHORTAGE, b"too many channels")?;
            return Ok(None);
        };
        let confirmation = OpenConfirmation {
            recipient: message.sender,
            sender: id.0,
            window,
            max_packet: MAX_PACKET,
        };
        outbox.message(|w| confirmation.encode(w))?;
        Ok(None)
    }

    fn on_confirmation<'a>(
        &mut self,
        message: OpenConfirmation,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let number = number::CHANNEL_OPEN_CONFIRMATION;
        let (_, channel) = self.named(number, message.recipient)?;
        let Opening::Asked { subsystem } = &channel.opening else {
            return Err(PeerMisbehaved::Unsolicited.into());
        };
        channel
            .send
            .confirm(message.sender, message.window, message.max_packet)?;
        let request = Request::Subsystem(subsystem);
        let request = ChannelRequest {
            recipient: message.sender,
            want_reply: true,
            request,
        };
        outbox.message(|w| request.encode(w))?;
        channel.opening = Opening::Requested;
        channel.requests_pending = 1;
        Ok(None)
    }

    fn on_open_failure<'a>(
        &mut self,
        message: OpenFailure<'_>,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let (id, channel) = self.named(number::CHANNEL_OPEN_FAILURE, message.recipient)?;
        if !matches!(channel.opening, Opening::Asked { .. }) {
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

    fn on_request<'a>(
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
        match (request, &channel.opening) {
            (Request::Subsystem(name), Opening::Bare) => {
                channel.opening = Opening::Deciding { want_reply };
                Ok(Some(Event::Subsystem(id, name)))
            }
            (Request::ExitStatus(status), Opening::Ready) => {
                Ok(Some(Event::Exit(id, Exit::Status(status))))
            }
            (Request::ExitSignal(signal), Opening::Ready) => {
                Ok(Some(Event::Exit(id, Exit::Signal(signal.to_owned()))))
            }
            _ => {
                if want_reply && channel.send.sent != End::Closed {
                    let recipient = channel.send.recipient;
                    outbox.message(|w| {
                        ChannelOnly { recipient }.encode(number::CHANNEL_FAILURE, w);
                    })?;
                }
                Ok(None)
            }
        }
    }

    fn on_request_reply<'a>(
        &mut self,
        recipient: u32,
        number: u8,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let (id, channel) = self.named(number, recipient)?;
        let Some(pending) = channel.requests_pending.checked_sub(1) else {
            self.count_unsolicited()?;
            return Ok(None);
        };
        channel.requests_pending = pending;
        if !matches!(channel.opening, Opening::Requested) {
            return Ok(None);
        }
        if number == number::CHANNEL_SUCCESS {
            channel.opening = Opening::Ready;
            return Ok(Some(Event::ChannelReady(id)));
        }
        channel.send.wanted = End::Closed;
        Ok(Some(Event::ChannelRefused(id, Refusal::Subsystem)))
    }

    fn on_close<'a>(
        &mut self,
        recipient: u32,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let (id, channel) = self.named(number::CHANNEL_CLOSE, recipient)?;
        if matches!(channel.opening, Opening::Asked { .. }) {
            // It was neither opened nor refused: whoever waits for that would wait for ever.
            return Err(PeerMisbehaved::Unexpected {
                number: number::CHANNEL_CLOSE,
                state: "before its channel is open",
            }
            .into());
        }
        channel.recv.end = End::Closed;
        channel.send.abandon();
        let was_ready = matches!(channel.opening, Opening::Ready);
        let refused =
            matches!(channel.opening, Opening::Requested) && channel.send.wanted != End::Closed;
        if channel.send.sent != End::Closed {
            let recipient = channel.send.recipient;
            outbox.message(|w| ChannelOnly { recipient }.encode(number::CHANNEL_CLOSE, w))?;
        }
        self.remove(id);
        if refused {
            return Ok(Some(Event::ChannelRefused(id, Refusal::Closed)));
        }
        Ok(was_ready.then_some(Event::Closed(id)))
    }

    /// Server: there is such a subsystem, or there is not.
    pub(crate) fn answer_subsystem(
        &mut self,
        id: ChannelId,
        accepted: bool,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        let Some(channel) = self.get(id) else {
            return Ok(());
        };
        let Opening::Deciding { want_reply } = channel.opening else {
            return Ok(());
        };
        channel.opening = if accepted {
            Opening::Ready
        } else {
            Opening::Bare
        };
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

    /// Tells the peer how the program ended.
    pub(crate) fn send_exit_status(
        &mut self,
        id: ChannelId,
        status: u32,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        if let Some(channel) = self.get(id)
            && matches!(channel.opening, Opening::Ready)
            && channel.send.sent != End::Closed
        {
            let recipient = channel.send.recipient;
            let request = Request::ExitStatus(status);
            let message = ChannelRequest {
                recipient,
                want_reply: false,
                request,
            };
            outbox.message(|w| message.encode(w))?;
        }
        Ok(())
    }

    /// Puts bytes into the channel's queue.
    pub(crate) fn enqueue(&mut self, id: ChannelId, bytes: &[u8]) -> Result<(), QueueFull> {
        self.get(id)
            .map_or(Ok(()), |channel| channel.send.enqueue(bytes))
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

    /// Sends what waits in a channel's queue, as far as its window and the buffer admit.
    fn flush_queue(&mut self, id: ChannelId, outbox: &mut Outbox) -> Result<(), ConnectionError> {
        let Some(channel) = self.get(id) else {
            return Ok(());
        };
        while outbox.is_open() && outbox.sender.free() > 0 {
            let piece = channel.send.next_piece();
            if piece.is_empty() {
                break;
            }
            let len = piece.len();
            let header =
                ChannelData::header(channel.send.recipient, u32::try_from(len).unwrap_or(0));
            outbox.now(|w: &mut Writer<'_>| {
                w.bytes(&header);
                w.bytes(piece);
            })?;
            channel.send.dequeue(len);
            channel.send.debit(len);
        }
        Ok(())
    }

    /// Sends what every channel has to send: queued data, credit, EOF and CLOSE, in that order.
    pub(crate) fn flush(&mut self, outbox: &mut Outbox) -> Result<(), ConnectionError> {
        if !outbox.is_open() {
            return Ok(());
        }
        for index in 0..self.channels.len() {
            let Ok(id) = u32::try_from(index).map(ChannelId) else {
                continue;
            };
            self.flush_queue(id, outbox)?;
            let Some(channel) = self.get(id) else {
                continue;
            };
            if matches!(channel.opening, Opening::Asked { .. }) {
                continue; // the peer has given no number yet
            }
            if channel.send.sent == End::Closed {
                continue; // nothing may follow CLOSE: the peer may have forgotten the channel
            }
            let recipient = channel.send.recipient;
            if let Some(bytes) = channel.recv.take_adjust() {
                outbox.message(|w| WindowAdjust { recipient, bytes }.encode(w))?;
            }
            if channel.send.queued() > 0 {
                continue;
            }
            if channel.send.wanted >= End::Eof && channel.send.sent == End::Open {
                channel.send.sent = End::Eof;
                outbox.message(|w| ChannelOnly { recipient }.encode(number::CHANNEL_EOF, w))?;
            }
            if channel.send.wanted == End::Closed {
                channel.send.sent = End::Closed;
                outbox.message(|w| ChannelOnly { recipient }.encode(number::CHANNEL_CLOSE, w))?;
            }
        }
        Ok(())
    }

    /// Whether any channel exists.
    pub(crate) fn is_empty(&self) -> bool {
        self.channels.iter().all(Option::is_none)
    }
}
