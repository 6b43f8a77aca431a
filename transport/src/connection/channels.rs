//! What is done with channels from outside: open, fill, give credit, end (RFC 4254 §5 and §6.5).
//!
//! Calls only note what is wanted or fill output in place; [`Connection::flush`] makes packets of it.

use super::{Auth, Connection};
use crate::channel::{ChannelId, End, Opening, QueueFull, Stream};
use crate::error::ConnectionError;
use crate::event::Exit;
use crate::message::connection::{ChannelOpen, ExitSignal, Request};
use crate::packet::Slots;
use crate::room::Room;
use crate::session::{SessionStart, Tcpip, WindowSize};
use ketch_keys::PublicKey;

impl Connection {
    /// Opens a channel for a program (RFC 4254 §6.1), with a window of `window` bytes at first; a
    /// `&str` is the name of a subsystem.
    /// `None` if there are too many channels; otherwise [`Event::ChannelReady`](crate::event::Event::ChannelReady) or
    /// [`Event::ChannelRefused`](crate::event::Event::ChannelRefused) follows.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn open_session(
        &mut self,
        start: impl Into<SessionStart>,
        window: u32,
    ) -> Result<Option<ChannelId>, ConnectionError> {
        self.mux
            .open_session(start.into(), window, &mut self.outbox)
    }

    /// Client: opens the first channel and sends what follows without waiting for the server: the
    /// request for the program, and up to [`EAGER_BYTES_MAX`](crate::channel::EAGER_BYTES_MAX) of
    /// data, to the number that the server is expected to give. Also while the last request to log
    /// in is unanswered.
    ///
    /// OpenSSH's server and ours take that. Another may end the connection, also with
    /// [`ConnectionError::WrongChannelForeseen`]; ask for it only where it is known to work.
    ///
    /// `None`, and nothing is sent, if a channel was opened before, or the time is not right: under
    /// compression a server inflates what comes behind its word that the user is in, and what was
    /// sent before that word was read is not deflated.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn open_session_early(
        &mut self,
        start: &SessionStart,
        window: u32,
    ) -> Result<Option<ChannelId>, ConnectionError> {
        let in_time = match &self.auth {
            Auth::Client(auth) => {
                auth.is_done() || auth.awaits_server() && !self.handshake.compresses_to_server()
            }
            Auth::Server(_) => false,
        };
        if !in_time {
            return Ok(None);
        }
        self.mux.open_early(start, window, &mut self.outbox)
    }

    /// Client: opens a channel that carries a connection which the server makes (RFC 4254 §7.2).
    /// As [`Connection::open_session`].
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn open_direct_tcpip(
        &mut self,
        to: &Tcpip,
        window: u32,
    ) -> Result<Option<ChannelId>, ConnectionError> {
        let channel_type = ChannelOpen::DIRECT_TCPIP;
        self.mux
            .open_tcpip(channel_type, to, window, &mut self.outbox)
    }

    /// Server: opens a channel that carries a connection which came to a port that the client had it
    /// listen on (RFC 4254 §7.2). As [`Connection::open_session`].
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn open_forwarded_tcpip(
        &mut self,
        at: &Tcpip,
        window: u32,
    ) -> Result<Option<ChannelId>, ConnectionError> {
        let channel_type = ChannelOpen::FORWARDED_TCPIP;
        self.mux
            .open_tcpip(channel_type, at, window, &mut self.outbox)
    }

    /// Server: answers [`Event::Request`](crate::event::Event::Request), which says whether it
    /// [`starts`](crate::event::SessionRequest::starts) the program.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn answer_request(&mut self, accepted: bool, starts: bool) -> Result<(), ConnectionError> {
        self.mux.answer_request(accepted, starts, &mut self.outbox)
    }

    /// Answers [`Event::ChannelAsked`](crate::event::Event::ChannelAsked). `None` if the channel is
    /// not open then: also where there are too many.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn answer_open(&mut self, accepted: bool) -> Result<Option<ChannelId>, ConnectionError> {
        self.mux
            .answer_open(accepted, Opening::Ready, &mut self.outbox)
    }

    /// Server: answers [`Event::ForwardAsked`](crate::event::Event::ForwardAsked) with the port that
    /// it listens on.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn answer_forward(&mut self, bound: Option<u16>) -> Result<(), ConnectionError> {
        self.mux.answer_forward(bound, &mut self.outbox)
    }

    /// Server: answers [`Event::CancelForwardAsked`](crate::event::Event::CancelForwardAsked).
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn answer_cancel_forward(&mut self, done: bool) -> Result<(), ConnectionError> {
        self.mux.answer_cancel_forward(done, &mut self.outbox)
    }

    /// Client: asks the server to listen (RFC 4254 §7.1).
    /// [`Event::ForwardAnswered`](crate::event::Event::ForwardAnswered) follows; `false` if too much
    /// waits for an answer.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn ask_forward(&mut self, address: &str, port: u16) -> Result<bool, ConnectionError> {
        self.mux.ask_forward(address, port, &mut self.outbox)
    }

    /// Client: asks the server to listen no more.
    /// [`Event::ForwardCancelled`](crate::event::Event::ForwardCancelled) follows; `false` if too
    /// much waits for an answer.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn ask_cancel_forward(
        &mut self,
        address: &str,
        port: u16,
    ) -> Result<bool, ConnectionError> {
        self.mux.ask_cancel_forward(address, port, &mut self.outbox)
    }

    /// Client: asks the server to prove that it holds host keys.
    /// [`Event::HostKeysProved`](crate::event::Event::HostKeysProved) follows; `false` if there are
    /// none or too many, or too much waits for an answer.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn ask_proofs(&mut self, keys: Vec<PublicKey>) -> Result<bool, ConnectionError> {
        self.mux.ask_proofs(keys, &mut self.outbox)
    }

    /// Client: tells the server that it opens no more sessions (OpenSSH's PROTOCOL §2.2).
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn send_no_more_sessions(&mut self) -> Result<(), ConnectionError> {
        self.mux.send_no_more_sessions(&mut self.outbox)
    }

    /// Sends a ping; [`Event::Pong`](crate::event::Event::Pong) follows. `false` if the peer did not
    /// say that it answers them, or enough of them wait.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn send_ping(&mut self) -> Result<bool, ConnectionError> {
        self.mux.send_ping(&mut self.outbox)
    }

    /// Tells the peer how the program on a channel ended.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn send_exit(&mut self, channel: ChannelId, exit: &Exit) -> Result<(), ConnectionError> {
        let request = match exit {
            Exit::Status(status) => Request::ExitStatus(*status),
            Exit::Signal {
                name,
                core_dumped,
                message,
            } => Request::ExitSignal(ExitSignal {
                signal: name,
                core_dumped: *core_dumped,
                message: message.as_bytes(),
                language: b"",
            }),
        };
        self.mux.tell(channel, request, &mut self.outbox)
    }

    /// Client: the terminal of a program has another size.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn send_window_change(
        &mut self,
        channel: ChannelId,
        size: WindowSize,
    ) -> Result<(), ConnectionError> {
        self.mux
            .tell(channel, Request::WindowChange(size), &mut self.outbox)
    }

    /// Client: sends a signal, named without `SIG`, to a program.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn send_signal(&mut self, channel: ChannelId, name: &str) -> Result<(), ConnectionError> {
        self.mux
            .tell(channel, Request::Signal(name), &mut self.outbox)
    }

    /// As [`Connection::send`], beside the stream: what a program says on stderr.
    ///
    /// # Errors
    /// [`QueueFull`] if it does not fit.
    pub fn send_stderr(&mut self, channel: ChannelId, bytes: &[u8]) -> Result<(), QueueFull> {
        self.mux.enqueue(channel, Stream::Stderr, bytes)
    }

    /// Copies bytes into a channel's queue, all or nothing; they leave with the next
    /// [`Connection::flush`], as far as the peer's window admits.
    ///
    /// # Errors
    /// [`QueueFull`] if they do not fit.
    pub fn send(&mut self, channel: ChannelId, bytes: &[u8]) -> Result<(), QueueFull> {
        self.mux.enqueue(channel, Stream::Data, bytes)
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
