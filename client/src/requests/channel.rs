//! SFTP on a channel of an SSH connection: [`Requests`] as one of the connection's applications.

use std::{sync::Arc, time::Instant};

use ketch_transport::driver::{Application, Arena, ChannelIo, CloseReason, Lent, Place};

use super::{
    Requests, Settings,
    calls::Shared,
    link::{Fill, Full, Link, Places},
};
use crate::transfer::disk::{Disk, Spawn};

/// SFTP on a channel.
#[derive(Debug)]
pub(crate) struct SftpChannel {
    requests: Requests,
}

impl SftpChannel {
    /// The application for a channel that is to be opened; `shared` is what its handles hold.
    ///
    /// Work for slow disks goes to the blocking threads of `runtime`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        settings: Settings,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let spawn: Spawn = Arc::new(move |work| drop(runtime.spawn_blocking(work)));
        Self {
            requests: Requests::new(shared, Disk::new(spawn), settings),
        }
    }
}

impl Application for SftpChannel {
    fn on_open(&mut self, io: &mut ChannelIo<'_>) {
        let waker = io.waker();
        self.requests
            .on_open(&mut Channel(io), Arc::new(move || waker.wake()));
    }

    fn on_data(&mut self, data: Lent<'_>, io: &mut ChannelIo<'_>) {
        self.requests.on_data(data.bytes, data.at, &mut Channel(io));
    }

    fn on_eof(&mut self, io: &mut ChannelIo<'_>) {
        self.requests.on_eof(&mut Channel(io));
    }

    fn end_of_turn(&mut self, arena: &Arena, io: &mut ChannelIo<'_>) {
        self.requests.end_of_turn(arena, &mut Channel(io));
    }

    fn drive(&mut self, io: &mut ChannelIo<'_>) {
        self.requests.drive(&mut Channel(io));
    }

    fn deadline(&self) -> Option<Instant> {
        self.requests.deadline()
    }

    fn is_idle(&self) -> bool {
        self.requests.is_idle()
    }

    fn on_closed(&mut self, why: &Arc<CloseReason>) {
        self.requests.on_closed(Arc::clone(why) as _);
    }
}

impl Places for Arena {
    fn bytes(&self, place: Place) -> &[u8] {
        Self::bytes(self, place)
    }
}

/// A channel, as the requests see it.
struct Channel<'a, 'io>(&'a mut ChannelIo<'io>);

impl Link for Channel<'_, '_> {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn queued(&mut self) -> usize {
        self.0.queued()
    }

    fn sendable_peak(&mut self) -> usize {
        self.0.window_peak()
    }

    fn send(&mut self, packet: &[u8]) -> Result<(), Full> {
        self.0.send(packet).map_err(|_| Full)
    }

    fn send_filled(&mut self, packet: &mut dyn Fill) -> Option<usize> {
        let (header_len, data_len) = packet.len();
        let mut room = self.0.room(header_len + data_len)?;
        let filled = room
            .fill(header_len, |slots| packet.fill(slots))
            .min(data_len);
        if filled > 0 {
            room.write_at(0, packet.header(filled));
            room.commit(header_len + filled);
        }
        Some(filled)
    }

    fn give_credit(&mut self, bytes: usize) {
        self.0.give_credit(bytes);
    }

    fn close(&mut self) {
        self.0.close();
    }
}
