//! The tokio driver (RFC 4253 to 4254 are behind it): one task for each connection.
//!
//! The task owns the stream, the receive arena, the [`Connection`] and one [`Application`] for each
//! channel. A turn of it reads as much as there is, hands every packet to the application on its
//! channel, tells the applications that the turn ends (noted places are still good), lets each of
//! them produce output, and writes all of it at once. Reading goes on while the stream takes
//! nothing; one channel never stops another.
//!
//! [`Login`] comes first: a connection without applications, driven by linear code that answers its
//! questions. [`Login::run`] turns it into the task and a [`ConnectionHandle`].

use std::sync::Arc;
use std::time::Instant;

use crate::channel::ChannelId;
use crate::connection::Connection;
use crate::error::ConnectionError;
use crate::event::Exit;
use crate::session::WindowSize;

mod arena;
mod handle;
mod link;
mod login;
mod observed;
mod process;
mod router;
mod streams;
mod task;

pub use crate::channel::QueueFull;
pub use crate::packet::{Lent, Place};
pub use crate::room::Room;
pub use arena::{ARENA_LEN, Arena};
pub use handle::{
    CloseReason, ConnectionHandle, DriverWaker, EarlyChannel, EarlyOpen, ForwardError, OpenError,
    PingError,
};
pub use login::{Login, LoginEvent};
pub use process::{Output, Process, STDERR_UNREAD_MAX, Stderr, Stdin, Stdout, WaitError, process};
pub use router::{Acceptor, ForwardTarget, RefuseAll, Setup};
pub use streams::{ChannelStream, STREAM_QUEUE_MAX, stream};

/// The time, as the runtime has it: a test that pauses tokio's clock pauses deadlines with it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What runs on a channel: an SFTP client or server session, a byte stream.
///
/// All calls of one connection come from its task, one at a time. None may block or wait: what takes
/// long goes to another thread, which calls [`DriverWaker::wake`] when it is done.
pub trait Application: Send {
    /// The channel is open; for a client, the program runs. On a channel that was opened early
    /// nothing of it is known yet, and [`Application::on_closed`] tells if it is refused.
    fn on_open(&mut self, io: &mut ChannelIo<'_>) {
        let _ = io;
    }

    /// Data came. Give credit for it once it is consumed ([`ChannelIo::give_credit`]).
    fn on_data(&mut self, data: Lent<'_>, io: &mut ChannelIo<'_>);

    /// Data came beside the stream: what the program says on stderr, of type 1; there is no other. By
    /// default it is dropped and given back.
    fn on_extended_data(&mut self, data_type: u32, data: &[u8], io: &mut ChannelIo<'_>) {
        let _ = data_type;
        io.give_credit(data.len());
    }

    /// The peer will send no more data.
    fn on_eof(&mut self, io: &mut ChannelIo<'_>) {
        let _ = io;
    }

    /// The program at the other end is done.
    fn on_exit(&mut self, exit: Exit) {
        let _ = exit;
    }

    /// Server: the client's terminal has another size.
    fn on_window_change(&mut self, size: WindowSize, io: &mut ChannelIo<'_>) {
        let _ = (size, io);
    }

    /// Server: the program is to get a signal, named without `SIG`.
    fn on_signal(&mut self, name: &str, io: &mut ChannelIo<'_>) {
        let _ = (name, io);
    }

    /// All that was read in this turn was handed out. Noted places are good until this returns.
    fn end_of_turn(&mut self, arena: &Arena, io: &mut ChannelIo<'_>) {
        let _ = (arena, io);
    }

    /// Once a turn, last: produce output, start what waits. A turn comes when the stream is
    /// readable or took output, a [`DriverWaker`] was used, or [`Application::deadline`] passed.
    fn drive(&mut self, io: &mut ChannelIo<'_>) {
        let _ = io;
    }

    /// When [`Application::drive`] has to be called at the latest.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Whether nothing is under way that was asked for: then a connection on which that is so for
    /// long enough may be closed ([`Timers::idle`](crate::config::Timers::idle)). By default
    /// something always is, as long as the channel is open.
    fn is_idle(&self) -> bool {
        false
    }

    /// The channel or the connection is gone; nothing is called after this.
    fn on_closed(&mut self, why: &Arc<CloseReason>) {
        let _ = why;
    }
}

/// What an application may do with its channel while it is called.
#[derive(Debug)]
pub struct ChannelIo<'a> {
    connection: &'a mut Connection,
    channel: ChannelId,
    now: Instant,
    waker: &'a DriverWaker,
    failure: &'a mut Option<ConnectionError>,
}

impl ChannelIo<'_> {
    /// The time of this turn.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Wakes the connection's task, from any task or thread.
    #[must_use]
    pub fn waker(&self) -> DriverWaker {
        self.waker.clone()
    }

    /// The peer's identification line.
    #[must_use]
    pub fn peer_identification(&self) -> &str {
        self.connection.peer_identification().unwrap_or_default()
    }

    /// Bytes for which [`ChannelIo::room`] would give room now: bounded by the peer's window and the
    /// output buffer; 0 while keys are exchanged.
    #[must_use]
    pub fn sendable(&mut self) -> usize {
        self.connection.sendable(self.channel)
    }

    /// Copies bytes into the channel's queue, all or nothing. They leave at the end of the turn,
    /// many to a packet, as far as the peer's window admits.
    ///
    /// # Errors
    /// [`QueueFull`] if they do not fit beside what waits
    /// ([`channel_queue_bytes`](crate::config::Limits::channel_queue_bytes)).
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), QueueFull> {
        self.connection.send(self.channel, bytes)
    }

    /// Bytes that wait in the channel's queue.
    #[must_use]
    pub fn queued(&mut self) -> usize {
        self.connection.queued(self.channel)
    }

    /// Room for `len` bytes, to be filled in place; `None` if not all of it is
    /// [sendable](ChannelIo::sendable) now, or the queue cannot leave before it.
    pub fn room(&mut self, len: usize) -> Option<Room<'_>> {
        match self.connection.room(self.channel, len) {
            Ok(room) => room,
            Err(error) => {
                *self.failure = Some(error);
                None
            }
        }
    }

    /// The largest room that will ever be given, as the peer's windows have been so far: a message
    /// that is longer has to go through [`ChannelIo::send`].
    #[must_use]
    pub fn window_peak(&mut self) -> usize {
        self.connection.room_peak(self.channel)
    }

    /// Received bytes were consumed: the peer may send as many again. Sent in larger pieces.
    pub fn give_credit(&mut self, bytes: usize) {
        self.connection.give_credit(self.channel, bytes);
    }

    /// No more data follows, once the queue is empty.
    pub fn send_eof(&mut self) {
        self.connection.send_eof(self.channel);
    }

    /// As [`ChannelIo::send`], beside the stream: what a program says on stderr.
    ///
    /// # Errors
    /// [`QueueFull`] if it does not fit beside what waits.
    pub fn send_stderr(&mut self, bytes: &[u8]) -> Result<(), QueueFull> {
        self.connection.send_stderr(self.channel, bytes)
    }

    /// Tells the peer how the program ended (RFC 4254 §6.10).
    pub fn send_exit_status(&mut self, status: u32) {
        self.send_exit(&Exit::Status(status));
    }

    /// Tells the peer how the program ended (RFC 4254 §6.10).
    pub fn send_exit(&mut self, exit: &Exit) {
        let outcome = self.connection.send_exit(self.channel, exit);
        self.note(outcome);
    }

    /// Client: tells the program that its terminal has another size (RFC 4254 §6.7).
    pub fn send_window_change(&mut self, size: WindowSize) {
        let outcome = self.connection.send_window_change(self.channel, size);
        self.note(outcome);
    }

    /// Client: sends the program a signal, named without `SIG` (RFC 4254 §6.9).
    pub fn send_signal(&mut self, name: &str) {
        let outcome = self.connection.send_signal(self.channel, name);
        self.note(outcome);
    }

    fn note(&mut self, outcome: Result<(), ConnectionError>) {
        if let Err(error) = outcome {
            *self.failure = Some(error);
        }
    }

    /// Drops what waits in the queue: for a peer that gives no window, behind which a close would
    /// wait for ever.
    pub fn drop_queued(&mut self) {
        self.connection.drop_queued(self.channel);
    }

    /// Closes the channel, once the queue is empty.
    pub fn close(&mut self) {
        self.connection.close(self.channel);
    }
}
