//! What is done with channels from outside: open, fill, give credit, end (RFC 4254 §5 and §6.5).
//!
//! Calls only note what is wanted or fill output in place; [`Connection::flush`] makes packets of it.

use super::Connection;
use crate::channel::{ChannelId, End, QueueFull};
use crate::error::ConnectionError;
use crate::packet::Slots;
use crate::room::Room;

impl Connection {
    /// Opens a channel for a subsystem (RFC 4254 §6.5), with a window of `window` bytes at first.
    /// `None` if there are too many channels; otherwise [`Event::ChannelReady`](crate::event::Event::ChannelReady) or
    /// [`Event::ChannelRefused`](crate::event::Event::ChannelRefused) follows.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn open_session(
        &mut self,
        subsystem: &str,
        window: u32,
    ) -> Result<Option<ChannelId>, ConnectionError> {
        self.mux.open_session(subsystem, window, &mut self.outbox)
    }

    /// Server: answers [`Event::Subsystem`](crate::event::Event::Subsystem).
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn answer_subsystem(
        &mut self,
        channel: ChannelId,
        accepted: bool,
    ) -> Result<(), ConnectionError> {
        self.mux
            .answer_subsystem(channel, accepted, &mut self.outbox)
    }

    /// Tells the peer how the program on a channel ended.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn send_exit_status(
        &mut self,
        channel: ChannelId,
        status: u32,
    ) -> Result<(), ConnectionError> {
        self.mux.send_exit_status(channel, status, &mut self.outbox)
    }

    /// Copies bytes into a channel's queue, all or nothing; they leave with the next
    /// [`Connection::flush`], as far as the peer's window admits.
    ///
    /// # Errors
    /// [`QueueFull`] if they do not fit.
    pub fn send(&mut self, channel: ChannelId, bytes: &[u8]) -> Result<(), QueueFull> {
        self.mux.enqueue(channel, bytes)
    }

    /// Bytes that [`Connection::room`] would give on a channel now.
    #[must_use]
    pub fn sendable(&mut self, channel: ChannelId) -> usize {
        self.mux.sendable(channel, &self.outbox)
    }

    /// Bytes that wait in a channel's queue.
    #[must_use]
    pub fn queued(&mut self, channel: ChannelId) -> usize {
        self.mux
            .get(channel)
            .map_or(0, |channel| channel.send.queued())
    }

    /// The largest room that a channel may ever get: the peer's largest window so far.
    #[must_use]
    pub fn room_peak(&mut self, channel: ChannelId) -> usize {
        self.mux.slots_peak(channel)
    }

    /// Room for `len` bytes on a channel, in the packets in which they will leave. `None` if the
    /// window, the output buffer or a key exchange does not admit them now.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn room(
        &mut self,
        channel: ChannelId,
        len: usize,
    ) -> Result<Option<Room<'_>>, ConnectionError> {
        let granted = self.mux.slots(channel, len, &mut self.outbox)?;
        Ok(granted.map(|(slots, half): (Slots<'_>, _)| Room::new(slots, half)))
    }

    /// Received bytes were consumed; the peer may send as many again.
    pub fn give_credit(&mut self, channel: ChannelId, len: usize) {
        if let Some(channel) = self.mux.get(channel) {
            channel.recv.give_credit(len);
        }
    }

    /// No more data follows on a channel, once its queue is empty.
    pub fn send_eof(&mut self, channel: ChannelId) {
        self.end(channel, End::Eof);
    }

    /// Drops what waits in a channel's queue.
    pub fn drop_queued(&mut self, channel: ChannelId) {
        if let Some(channel) = self.mux.get(channel) {
            channel.send.abandon();
        }
    }

    /// Closes a channel, once its queue is empty.
    pub fn close(&mut self, channel: ChannelId) {
        self.end(channel, End::Closed);
    }

    fn end(&mut self, channel: ChannelId, end: End) {
        if let Some(channel) = self.mux.get(channel) {
            channel.send.wanted = channel.send.wanted.max(end);
        }
    }

    /// Whether any channel exists.
    #[must_use]
    pub fn has_channels(&self) -> bool {
        !self.mux.is_empty()
    }
}
