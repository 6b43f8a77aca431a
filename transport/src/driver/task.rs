//! The task of a connection in use: turns of reading, dealing out, driving and writing.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep_until};

use super::handle::{CloseReason, Command, Shared};
use super::link::Link;
use super::now;
use super::router::Router;
use crate::config::Timers;
use crate::error::ConnectionError;
use crate::message::transport::DisconnectReason;

/// Lengths of reads that are bulk data, yet too short to be worth the wake-up.
const BULK_PIECE: Range<usize> = 16 * 1024..128 * 1024;
/// Turns without a break before other tasks get theirs.
const TURNS_MAX: u32 = 32;

/// How long a connection lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lifetime {
    /// A client's: as long as somebody holds a handle.
    WhileHandled,
    /// A server's: as long as the peer stays.
    WhilePeerStays,
}

/// The future that runs a connection; it ends with it.
pub(super) struct Task<S> {
    link: Link<S>,
    shared: Arc<Shared>,
    router: Router,
    lifetime: Lifetime,
    timers: Timers,
    /// Since when a client's connection has nothing to do.
    idle_since: Option<Instant>,
    /// Bulk data came in a small piece: the stream may fill before it is read again.
    pause: bool,
    sleep: Pin<Box<Sleep>>,
    state: State,
}

enum State {
    Running,
    /// A last word is on its way.
    Ending {
        why: Arc<CloseReason>,
        until: Instant,
    },
    Ended,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Task<S> {
    pub(super) fn new(
        link: Link<S>,
        shared: Arc<Shared>,
        router: Router,
        lifetime: Lifetime,
        timers: Timers,
    ) -> Self {
        let sleep = Box::pin(sleep_until(now().into()));
        Self {
            link,
            shared,
            router,
            lifetime,
            timers,
            idle_since: None,
            pause: false,
            sleep,
            state: State::Running,
        }
    }

    /// One turn; says whether anything moved.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let now = now();
        let mut moved = self.shared.take_wake();
        self.link.borrow_buffers();
        if self
            .link
            .connection
            .poll_timeout()
            .is_some_and(|at| at <= now)
        {
            self.link.connection.handle_timeout(now)?;
            moved = true;
        }
        self.take_commands(now)?;
        let read = match self.link.poll_read(cx)? {
            Poll::Ready(0) => return Err(CloseReason::Eof),
            Poll::Ready(len) => {
                self.pause = BULK_PIECE.contains(&len);
                true
            }
            Poll::Pending => false,
        };
        self.deal_out(now)?;
        self.look_idle(now)?;
        self.link.connection.flush(now)?;
        self.shared.observed.update(&self.link.connection);
        moved |= read;
        loop {
            match self.link.poll_write(cx) {
                Poll::Ready(Ok(1..)) => moved = true,
                Poll::Ready(Ok(0)) | Poll::Pending => return Ok(moved),
                Poll::Ready(Err(error)) => {
                    // A peer that has left may have said why.
                    if let Poll::Ready(Ok(1..)) = self.link.poll_read(cx) {
                        self.deal_out(now)?;
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Ends a client's connection on which nothing was asked for in a long time, and a server's on
    /// which nothing runs.
    fn look_idle(&mut self, now: Instant) -> Result<(), CloseReason> {
        let is_idle = match self.lifetime {
            Lifetime::WhileHandled => self.router.is_idle(),
            Lifetime::WhilePeerStays => self.router.is_unused(),
        };
        self.idle_since = is_idle.then(|| self.idle_since.unwrap_or(now));
        match self.idle_until() {
            Some(until) if until <= now => Err(CloseReason::Idle),
            _ => Ok(()),
        }
    }

    fn idle_until(&self) -> Option<Instant> {
        self.idle_since?.checked_add(self.timers.idle?)
    }

    /// Hands every packet that was read to its application, and ends the turn: also where a packet
    /// ends the connection, what came before it is written.
    fn deal_out(&mut self, now: Instant) -> Result<(), ConnectionError> {
        while self.deal_out_round(now)? {}
        Ok(())
    }

    /// Says whether there are packets left, for whose payloads there was no space in this round.
    fn deal_out_round(&mut self, now: Instant) -> Result<bool, ConnectionError> {
        let (connection, mut input) = self.link.input();
        let dealt = loop {
            match connection.next(&mut input, now) {
                Ok(None) => break Ok(input.position()),
                Ok(Some(event)) => {
                    if let Err(error) = self.router.on_event(event, connection, now) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let again = input.wants_space();
        let (connection, arena) = self.link.parts();
        let ended = self.router.end_turn(arena, connection, now);
        self.link.taken(dealt?);
        ended.map(|()| again)
    }

    fn take_commands(&mut self, now: Instant) -> Result<(), CloseReason> {
        while let Some(command) = self.shared.next_command() {
            match command {
                Command::Open {
                    kind,
                    window,
                    application,
                    reply,
                } => {
                    let connection = &mut self.link.connection;
                    self.router
                        .open(connection, now, kind, window, application, reply)?;
                }
                Command::Forward {
                    address,
                    port,
                    target,
                    reply,
                } => {
                    let connection = &mut self.link.connection;
                    self.router
                        .forward(connection, address, port, target, reply)?;
                }
                Command::CancelForward {
                    address,
                    port,
                    reply,
                } => {
                    let connection = &mut self.link.connection;
                    self.router
                        .cancel_forward(connection, address, port, reply)?;
                }
                Command::Ping(reply) => self.router.ping(&mut self.link.connection, reply)?,
                Command::NoMoreSessions => self.link.connection.send_no_more_sessions()?,
                Command::Rekey => self.link.connection.rekey(now)?,
                Command::Disconnect => return Err(CloseReason::Requested),
            }
        }
        if self.lifetime == Lifetime::WhileHandled && self.shared.is_abandoned() {
            return Err(CloseReason::Requested);
        }
        Ok(())
    }

    /// Everybody learns why; a last word leaves if the stream takes it in time.
    fn begin_end(&mut self, why: CloseReason) {
        tracing::debug!(%why, "connection ends");
        let now = now();
        // The turn that ended it did not come to its own end.
        self.shared.observed.update(&self.link.connection);
        if matches!(why, CloseReason::Requested | CloseReason::Idle) {
            // What applications queued before goes first.
            let _ = self.link.connection.flush(now);
            self.link
                .connection
                .disconnect(DisconnectReason::BY_APPLICATION, "");
        }
        let why = Arc::new(why);
        self.router.close(&why);
        self.state = State::Ending {
            why,
            until: now + self.timers.close,
        };
    }

    /// Writes what is left and shuts the stream down, within the time for it.
    fn poll_end(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        loop {
            match self.link.poll_write(cx) {
                Poll::Ready(Ok(0)) => break,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return self.poll_sleep(cx, until),
            }
        }
        match Pin::new(&mut self.link.stream).poll_shutdown(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => self.poll_sleep(cx, until),
        }
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let until = until.into();
        if self.sleep.deadline() != until {
            self.sleep.as_mut().reset(until);
        }
        self.sleep.as_mut().poll(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Task<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let _entered = this.link.span.clone().entered();
        this.shared.register(cx.waker());
        let mut turns = 0;
        while matches!(this.state, State::Running) {
            match this.turn(cx) {
                Err(why) => this.begin_end(why),
                Ok(true) => {
                    if let Some(pause) = this.timers.receive_pause
                        && std::mem::take(&mut this.pause)
                    {
                        std::thread::sleep(pause);
                    }
                }
                Ok(false) => {
                    this.link.return_buffers();
                    let deadlines = [
                        this.link.connection.poll_timeout(),
                        this.router.deadline(),
                        this.idle_until(),
                    ];
                    let Some(until) = deadlines.into_iter().flatten().min() else {
                        return Poll::Pending;
                    };
                    if this.poll_sleep(cx, until).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
            // Also an application whose deadline never moves leaves others their turn.
            turns += 1;
            if turns == TURNS_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if let State::Ending { why, until } = &this.state {
            let (why, until) = (Arc::clone(why), *until);
            if this.poll_end(cx, until).is_pending() {
                return Poll::Pending;
            }
            this.state = State::Ended;
            this.shared.close(why);
        }
        Poll::Ready(())
    }
}

impl<S> Drop for Task<S> {
    /// A task that is dropped unfinished leaves nobody waiting.
    fn drop(&mut self) {
        let why = match &self.state {
            State::Ending { why, .. } => Arc::clone(why),
            State::Running | State::Ended => Arc::new(CloseReason::Requested),
        };
        self.router.close(&why);
        self.shared.close(why);
    }
}
