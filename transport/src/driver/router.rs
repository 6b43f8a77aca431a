//! Which application runs on which channel; events of the connection go to it and nowhere else.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::handle::{CloseReason, DriverWaker, OpenError};
use super::{Application, Arena, ChannelIo};
use crate::channel::ChannelId;
use crate::connection::Connection;
use crate::error::ConnectionError;
use crate::event::Event;

/// Says what a server runs on a channel.
pub trait Acceptor: Send {
    /// The application for a subsystem that the peer asks for; `None` refuses it.
    fn subsystem(&mut self, name: &str) -> Option<Box<dyn Application>>;
}

/// Runs nothing: what a client passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefuseAll;

impl Acceptor for RefuseAll {
    fn subsystem(&mut self, _name: &str) -> Option<Box<dyn Application>> {
        None
    }
}

/// Somebody who waits for a channel to open.
type OpenReply = oneshot::Sender<Result<ChannelId, OpenError>>;

enum Slot {
    Free,
    Opening(Box<dyn Application>, OpenReply),
    Running(Box<dyn Application>),
    /// The channel is gone; what came before it went is still to be written, at the end of the turn.
    Leaving(Box<dyn Application>),
}

/// The applications of one connection, by channel.
pub(super) struct Router {
    slots: Vec<Slot>,
    acceptor: Box<dyn Acceptor>,
    waker: DriverWaker,
    failure: Option<ConnectionError>,
}

impl Router {
    pub(super) const fn new(acceptor: Box<dyn Acceptor>, waker: DriverWaker) -> Self {
        Self {
            slots: Vec::new(),
            acceptor,
            waker,
            failure: None,
        }
    }

    fn slot(&mut self, id: ChannelId) -> &mut Slot {
        let index = usize::try_from(id.0).unwrap_or_default();
        if self.slots.len() <= index {
            // The machine bounds channel numbers by the number of channels.
            self.slots.resize_with(index + 1, || Slot::Free);
        }
        &mut self.slots[index]
    }

    /// Puts something on a channel whose number may still be that of one that is leaving.
    fn occupy(&mut self, id: ChannelId, slot: Slot) {
        if let Slot::Leaving(mut application) = std::mem::replace(self.slot(id), slot) {
            application.on_closed(&Arc::new(CloseReason::Channel));
        }
    }

    /// Opens a channel for an application of ours.
    pub(super) fn open(
        &mut self,
        connection: &mut Connection,
        subsystem: &str,
        window: u32,
        application: Box<dyn Application>,
        reply: OpenReply,
    ) -> Result<(), ConnectionError> {
        match connection.open_session(subsystem, window)? {
            Some(id) => self.occupy(id, Slot::Opening(application, reply)),
            None => drop(reply.send(Err(OpenError::TooMany))),
        }
        Ok(())
    }

    /// Calls the application on a channel, if one runs there.
    fn with(
        &mut self,
        id: ChannelId,
        connection: &mut Connection,
        now: Instant,
        call: impl FnOnce(&mut dyn Application, &mut ChannelIo<'_>),
    ) {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        let Self {
            slots,
            waker,
            failure,
            ..
        } = self;
        if let Some(Slot::Running(application)) = slots.get_mut(index) {
            let mut io = ChannelIo {
                connection,
                channel: id,
                now,
                waker,
                failure,
            };
            call(&mut **application, &mut io);
        }
    }

    /// Hands an event to the application it is for.
    pub(super) fn on_event(
        &mut self,
        event: Event<'_>,
        connection: &mut Connection,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        match event {
            Event::Data(id, data) => {
                self.with(id, connection, now, |application, io| {
                    application.on_data(data, io)
                });
            }
            Event::ExtendedData(id, data_type, data) => {
                self.with(id, connection, now, |application, io| {
                    application.on_extended_data(data_type, data, io);
                });
            }
            Event::Eof(id) => {
                self.with(id, connection, now, |application, io| {
                    application.on_eof(io)
                });
            }
            Event::Exit(id, exit) => {
                self.with(id, connection, now, |application, _| {
                    application.on_exit(exit)
                });
            }
            Event::ChannelReady(id) => self.on_ready(id, connection, now),
            Event::ChannelRefused(id, refusal) => {
                if let Slot::Opening(_, reply) = std::mem::replace(self.slot(id), Slot::Free) {
                    let _ = reply.send(Err(OpenError::Refused(refusal)));
                }
            }
            Event::Closed(id) => {
                if let Slot::Running(application) = std::mem::replace(self.slot(id), Slot::Free) {
                    *self.slot(id) = Slot::Leaving(application);
                }
            }
            Event::Subsystem(id, name) => {
                let application = self.acceptor.subsystem(name);
                connection.answer_subsystem(id, application.is_some())?;
                if let Some(application) = application {
                    self.occupy(id, Slot::Running(application));
                    self.with(id, connection, now, |application, io| {
                        application.on_open(io)
                    });
                }
            }
            // Questions of the login, which is over.
            Event::HostKey(_)
            | Event::AuthWanted { .. }
            | Event::Sign(_)
            | Event::Questions(_)
            | Event::PasswordExpired(_)
            | Event::Banner(_)
            | Event::Attempt(_)
            | Event::Authenticated => {}
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn on_ready(&mut self, id: ChannelId, connection: &mut Connection, now: Instant) {
        let Slot::Opening(application, reply) = std::mem::replace(self.slot(id), Slot::Free) else {
            return;
        };
        if reply.send(Ok(id)).is_err() {
            // Nobody waits any more: the channel was opened for nothing.
            connection.close(id);
            return;
        }
        *self.slot(id) = Slot::Running(application);
        self.with(id, connection, now, |application, io| {
            application.on_open(io)
        });
    }

    /// The turn ends: places are still good; then everybody may produce output.
    pub(super) fn end_turn(
        &mut self,
        arena: Option<&Arena>,
        connection: &mut Connection,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let Self {
            slots,
            waker,
            failure,
            ..
        } = self;
        for (index, slot) in slots.iter_mut().enumerate() {
            let Ok(channel) = u32::try_from(index).map(ChannelId) else {
                continue;
            };
            if let (Slot::Running(application) | Slot::Leaving(application), Some(arena)) =
                (&mut *slot, arena)
            {
                let mut io = ChannelIo {
                    connection,
                    channel,
                    now,
                    waker,
                    failure,
                };
                application.end_of_turn(arena, &mut io);
            }
            match slot {
                Slot::Running(application) => {
                    let mut io = ChannelIo {
                        connection,
                        channel,
                        now,
                        waker,
                        failure,
                    };
                    application.drive(&mut io);
                }
                Slot::Leaving(application) => {
                    application.on_closed(&Arc::new(CloseReason::Channel));
                    *slot = Slot::Free;
                }
                Slot::Free | Slot::Opening(..) => {}
            }
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// The earliest time at which an application wants a turn.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadline = |slot: &Slot| match slot {
            Slot::Running(application) => application.deadline(),
            Slot::Free | Slot::Opening(..) | Slot::Leaving(_) => None,
        };
        self.slots.iter().filter_map(deadline).min()
    }

    /// The connection is gone: everybody learns why.
    pub(super) fn close(&mut self, why: &Arc<CloseReason>) {
        for slot in self.slots.drain(..) {
            match slot {
                Slot::Free => {}
                Slot::Opening(_, reply) => {
                    let _ = reply.send(Err(OpenError::Closed(Arc::clone(why))));
                }
                Slot::Running(mut application) | Slot::Leaving(mut application) => {
                    application.on_closed(why);
                }
            }
        }
    }
}
