//! An [`Engine`] on an SSH channel: the server's [`Application`].
//!
//! This file and `accept.rs` are the ones that own time and tasks; all under them is told the time
//! and asks for tasks.
#![expect(clippy::disallowed_methods, reason = "drivers own time and tasks")]

use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ketch_protocol::{DATA_HEADER_LEN, Data, RequestId};
use ketch_transport::driver::{Application, Arena, ChannelIo, CloseReason, Lent, Place};
use tracing::{debug, warn};

use crate::accept::Alarm;
use crate::engine::{Broken, Engine, HashStep, Hasher, Host, Mailbox, Outlet, Places};
use crate::fs::blocking;
use crate::fs::staging::Staging;
use crate::handles::HandleBudget;
use crate::observer::{Event, Watch};
use crate::policy::bandwidth::Throttle;
use crate::policy::quota::Metered;
use crate::policy::terms::Belonging;
use crate::policy::{Access, Policy};
use crate::root::Root;
use crate::session::Cancel;
use crate::shares::{Kind, Share};

/// Bytes of replies that are handed to the channel's queue at a time; the rest stays with the
/// session, which takes no new requests while it is much.
const QUEUED_MAX: usize = 256 * 1024;
/// How long a reply waits for room in place before it goes through the channel's queue. It is
/// waiting for the client's window, then, of which a part is left that no room fits into; a client
/// may well give no more before that part is used up.
const ROOM_PATIENCE: Duration = Duration::from_millis(10);

/// What the sessions of one user have in common.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) root: Arc<Root>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) budget: Arc<HandleBudget>,
    /// What threads its sessions may use.
    pub(crate) share: Share,
    pub(crate) idle_timeout: Duration,
    /// The user's file system once more, if a ledger is kept of it.
    pub(crate) quota: Option<Arc<Metered>>,
    /// How fast all of the user's sessions may be together.
    pub(crate) throttle: Option<Arc<Throttle>>,
    /// And if its uploads appear when they are whole.
    pub(crate) staging: Option<Arc<Staging>>,
    pub(crate) belonging: Option<Arc<Belonging>>,
}

impl Account {
    /// The same, to look only.
    pub(crate) fn read_only(&self) -> Self {
        let policy = Policy {
            access: Access::ReadOnly,
            ..(*self.policy).clone()
        };
        Self {
            root: Arc::clone(&self.root),
            policy: Arc::new(policy),
            budget: Arc::clone(&self.budget),
            share: self.share.clone(),
            idle_timeout: self.idle_timeout,
            belonging: self.belonging.clone(),
            quota: self.quota.clone(),
            throttle: self.throttle.clone(),
            staging: self.staging.clone(),
        }
    }

    /// Has the user's tree counted for the quota, if there is one and it is time. `at_start`: a
    /// session begins.
    fn count(&self, now: Instant, at_start: bool) {
        // Users that came with a reload.
        if at_start
            && let Some(staging) = &self.staging
            && let Some(work) = staging.reap_once()
        {
            drop(tokio::spawn(work));
        }
        if let Some(metered) = &self.quota
            && (at_start || metered.has_refused())
            && let Some(work) = metered.count_if_due(now, at_start, Instant::now)
        {
            drop(tokio::spawn(work));
        }
    }
}

/// The subsystem `sftp` on one channel.
#[derive(Debug)]
pub(crate) struct SftpChannel {
    account: Arc<Account>,
    state: State,
    room: RoomState,
    held: Held,
    /// When a command last came, or a part of an answer left.
    last_command: Instant,
    /// How many commands had come by then.
    commands: u64,
    watch: Option<Arc<Watch>>,
    alarm: Alarm,
    names_link_first: bool,
    /// When the channel was opened, until observers know of its end.
    opened: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// The channel is not open yet.
    New,
    Running(Box<Engine<TokioHost>>),
    /// The client will send nothing more: what it asked for is still answered.
    Draining(Box<Engine<TokioHost>>),
    /// Closed by us; what still comes is passed over.
    Over,
}

impl SftpChannel {
    /// `names_link_first`: as [`habits`](crate::session::habits) has it of this client.
    pub(crate) fn new(
        account: Arc<Account>,
        watch: Option<Arc<Watch>>,
        alarm: Alarm,
        names_link_first: bool,
    ) -> Self {
        let last_command = Instant::now();
        Self {
            account,
            state: State::New,
            room: RoomState::default(),
            held: Held::default(),
            last_command,
            commands: 0,
            watch,
            alarm,
            names_link_first,
            opened: None,
        }
    }

    /// When a session is closed in which nothing is asked. What does not come to a command keeps none
    /// open, be it ignored packets or a command that never ends; nor does a client that takes no
    /// answers. One that waits for the server's own disk is not closed.
    fn idle_end(&self) -> Option<Instant> {
        match &self.state {
            State::Running(engine) | State::Draining(engine) if !engine.is_working() => {
                // A time-out too long to be told is none.
                self.last_command.checked_add(self.account.idle_timeout)
            }
            _ => None,
        }
    }

    /// Does something with the engine and closes the channel if that breaks it.
    fn with_engine<R>(
        &mut self,
        io: &mut ChannelIo<'_>,
        call: impl FnOnce(&mut Engine<TokioHost>, &mut Channel<'_, '_>) -> Result<R, Broken>,
    ) -> Option<R> {
        let (State::Running(engine) | State::Draining(engine)) = &mut self.state else {
            return None;
        };
        let mut channel = Channel {
            io,
            room: &mut self.room,
            held: &mut self.held,
            throttle: self.account.throttle.as_deref(),
        };
        let result = call(engine, &mut channel);
        let commands = engine.commands();
        if std::mem::take(&mut self.room.has_sent) || commands != self.commands {
            self.commands = commands;
            self.last_command = io.now();
        }
        match result {
            Ok(result) => Some(result),
            Err(why) => {
                warn!(user = %self.account.policy.user, %why, "sftp session closed");
                self.end(io, 1);
                None
            }
        }
    }

    fn end(&mut self, io: &mut ChannelIo<'_>, exit_status: u32) {
        self.state = State::Over;
        io.send_eof();
        io.send_exit_status(exit_status);
        io.close();
    }
}

impl Application for SftpChannel {
    fn on_open(&mut self, io: &mut ChannelIo<'_>) {
        let waker = io.waker();
        let mailbox = Mailbox::new(move || waker.wake());
        let alarm = self.alarm.clone();
        mailbox.on_panic(move || alarm.raise());
        let Account {
            root,
            policy,
            budget,
            share,
            ..
        } = &*self.account;
        let (root, policy, budget) = (Arc::clone(root), Arc::clone(policy), Arc::clone(budget));
        let mut engine = Engine::new(TokioHost(share.clone()), root, policy, budget, mailbox);
        if self.names_link_first {
            engine.read_link_first();
        }
        self.last_command = io.now();
        self.account.count(self.last_command, true);
        if let Some(watch) = &self.watch {
            self.opened = Some(self.last_command);
            engine.observed(Arc::clone(watch));
            watch.tell(&Event::SessionOpened { who: &watch.who });
        }
        self.state = State::Running(Box::new(engine));
        debug!(user = %self.account.policy.user, "sftp session begins");
    }

    fn on_data(&mut self, data: Lent<'_>, io: &mut ChannelIo<'_>) {
        let len = data.bytes.len();
        if let Some(throttle) = &self.account.throttle
            && let Some(flow) = &throttle.upload
        {
            // What comes in a window that nobody paid for, the first one and what it grew by, is
            // charged now.
            let paid = self.held.prepaid.min(len);
            self.held.prepaid = self.held.prepaid.saturating_sub(paid);
            flow.pass(io.now(), len.saturating_sub(paid));
        }
        let taken = self.with_engine(io, |engine, out| engine.on_data(data.bytes, data.at, out));
        if taken.is_none() {
            io.give_credit(len);
        }
    }

    fn on_eof(&mut self, _: &mut ChannelIo<'_>) {
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Running(mut engine) => {
                engine.end_watches();
                State::Draining(engine)
            }
            state => state,
        };
    }

    fn end_of_turn(&mut self, arena: &Arena, io: &mut ChannelIo<'_>) {
        self.with_engine(io, |engine, out| {
            engine.end_of_turn(arena, out);
            Ok(())
        });
    }

    fn drive(&mut self, io: &mut ChannelIo<'_>) {
        self.room.waited = self
            .room
            .since
            .is_some_and(|since| io.now() >= since + ROOM_PATIENCE);
        // What is still held says so again.
        self.held.data_until = None;
        let drive = |engine: &mut Engine<TokioHost>, out: &mut Channel<'_, '_>| {
            out.release_credit();
            engine.drive(out)
        };
        if self.with_engine(io, drive) == Some(true) {
            io.waker().wake();
        }
        if self.account.quota.is_some() {
            self.account.count(io.now(), false);
        }
        if self.room.waited {
            // Nothing made use of it: what waits now waits from now on.
            (self.room.since, self.room.waited) = (None, false);
        }
        if let State::Draining(engine) = &self.state
            && engine.is_idle()
        {
            self.end(io, 0);
        }
        if self.idle_end().is_some_and(|end| io.now() >= end) {
            debug!(user = %self.account.policy.user, "nothing was asked in an sftp session for too long");
            // A client that takes no replies would keep the channel, and them, for ever.
            io.drop_queued();
            self.end(io, 0);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let room = self.room.since.map(|since| since + ROOM_PATIENCE);
        let (events, held) = match &self.state {
            State::Running(engine) | State::Draining(engine) => {
                let held = [self.held.data_until, self.held.credit_until];
                (engine.deadline(), held)
            }
            State::New | State::Over => (None, [None; 2]),
        };
        let idle = self.idle_end();
        let held = held.into_iter().flatten();
        idle.into_iter().chain(room).chain(events).chain(held).min()
    }

    fn on_closed(&mut self, why: &Arc<CloseReason>) {
        debug!(user = %self.account.policy.user, %why, "sftp session is over");
        self.state = State::Over;
    }
}

impl Drop for SftpChannel {
    fn drop(&mut self) {
        // What its engine has to tell comes first.
        self.state = State::Over;
        if let (Some(watch), Some(opened)) = (&self.watch, self.opened) {
            watch.tell(&Event::SessionClosed {
                who: &watch.who,
                duration: Instant::now().saturating_duration_since(opened),
            });
        }
    }
}

/// The wait of the first reply in line for room.
#[derive(Debug, Default)]
struct RoomState {
    /// Since when, if less than it needs could be sent.
    since: Option<Instant>,
    /// It was long enough.
    waited: bool,
    /// Something was sent.
    has_sent: bool,
    /// Where a reply is put together that goes through the queue.
    scratch: Vec<u8>,
}

/// The channel as the engine sees it.
struct Channel<'c, 'io> {
    io: &'c mut ChannelIo<'io>,
    room: &'c mut RoomState,
    held: &'c mut Held,
    throttle: Option<&'c Throttle>,
}

/// What a user's bandwidth holds back.
#[derive(Debug, Default)]
struct Held {
    /// `DATA` replies, until then.
    data_until: Option<Instant>,
    /// Credit, in bytes, and until when.
    credit: usize,
    credit_until: Option<Instant>,
    /// Bytes of given credit that were charged, and have not come yet.
    prepaid: usize,
}

impl Outlet for Channel<'_, '_> {
    fn space(&mut self) -> usize {
        QUEUED_MAX.saturating_sub(self.io.queued())
    }

    fn send(&mut self, bytes: &[u8]) {
        // The queue holds twice of what is ever put in; a full one would be our own mistake, which
        // the client sees as a reply that does not come.
        match self.io.send(bytes) {
            Ok(()) => self.room.has_sent = true,
            Err(full) => warn!(%full, "replies do not fit into the queue of their channel"),
        }
    }

    fn data(
        &mut self,
        id: RequestId,
        len: u32,
        read: &mut dyn FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        if self.throttle.is_none() {
            return self.data_now(id, len, read);
        }
        if self.holds_data() {
            return None;
        }
        let result = self.data_now(id, len, read);
        if let Some(Ok(bytes)) = result {
            self.sent_data(bytes);
        }
        result
    }

    fn holds_data(&mut self) -> bool {
        let flow = self
            .throttle
            .and_then(|throttle| throttle.download.as_ref());
        self.held.data_until = flow.and_then(|flow| flow.closed_until(self.io.now()));
        self.held.data_until.is_some()
    }

    fn sent_data(&mut self, bytes: usize) {
        if let Some(flow) = self
            .throttle
            .and_then(|throttle| throttle.download.as_ref())
        {
            flow.pass(self.io.now(), bytes);
        }
    }

    fn give_credit(&mut self, bytes: usize) {
        if bytes > 0 && self.throttle.is_some() {
            self.held.credit = self.held.credit.saturating_add(bytes);
            self.release_credit();
        } else if bytes > 0 {
            self.io.give_credit(bytes);
        }
    }
}

impl Channel<'_, '_> {
    /// Gives as much of the credit that is held back as may be given now.
    fn release_credit(&mut self) {
        let flow = self.throttle.and_then(|throttle| throttle.upload.as_ref());
        self.held.credit_until = None;
        while self.held.credit > 0 {
            let mut part = self.held.credit;
            if let Some(flow) = flow {
                let now = self.io.now();
                self.held.credit_until = flow.closed_until(now);
                if self.held.credit_until.is_some() {
                    return;
                }
                part = part.min(flow.part());
                flow.pass(now, part);
                self.held.prepaid = self.held.prepaid.saturating_add(part);
            }
            self.held.credit = self.held.credit.saturating_sub(part);
            self.io.give_credit(part);
        }
    }

    fn data_now(
        &mut self,
        id: RequestId,
        len: u32,
        read: &mut dyn FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let len = usize::try_from(len).unwrap_or_default();
        let total = DATA_HEADER_LEN.saturating_add(len);
        if let Some(mut room) = self.io.room(total) {
            (self.room.since, self.room.waited) = (None, false);
            let result = room.fill(DATA_HEADER_LEN, read);
            if let Ok(got @ 1..) = result {
                room.write_at(0, &Data::header(id, u32::try_from(got).unwrap_or(u32::MAX)));
                room.commit(DATA_HEADER_LEN.saturating_add(got));
                self.room.has_sent = true;
            }
            return Some(result);
        }
        if self.io.sendable() == 0 || self.io.queued() > 0 {
            // There is a turn when that changes.
            self.room.since = None;
            return None;
        }
        if self.room.waited || total > self.io.window_peak() {
            (self.room.since, self.room.waited) = (None, false);
            return Some(self.data_through_queue(id, total, read));
        }
        let now = self.io.now();
        self.room.since.get_or_insert(now);
        None
    }

    fn data_through_queue(
        &mut self,
        id: RequestId,
        total: usize,
        read: &mut dyn FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut scratch = std::mem::take(&mut self.room.scratch);
        scratch.resize(total, 0);
        let body = scratch.get_mut(DATA_HEADER_LEN..).unwrap_or_default();
        let result = read(&mut [IoSliceMut::new(body)]);
        if let Ok(got @ 1..) = result {
            let head = Data::header(id, u32::try_from(got).unwrap_or(u32::MAX));
            if let Some(place) = scratch.first_chunk_mut() {
                *place = head;
            }
            let end = DATA_HEADER_LEN.saturating_add(got);
            self.send(scratch.get(..end).unwrap_or_default());
        }
        self.room.scratch = scratch;
        result
    }
}

impl Places for Arena {
    fn bytes(&self, start: usize, len: usize) -> &[u8] {
        self.bytes(Place { start, len })
    }
}

/// The clocks of this machine, the tasks of its runtime, and one user's share of the threads.
#[derive(Clone, Debug)]
pub(crate) struct TokioHost(Share);

impl Host for TokioHost {
    fn spawn(&self, kind: Kind, work: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let share = self.0.clone();
        drop(tokio::spawn(async move {
            let _turn = share.turn(kind).await;
            work.await;
        }));
    }

    fn spawn_until(
        &self,
        cancel: Arc<Cancel>,
        kind: Kind,
        work: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) {
        let share = self.0.clone();
        drop(tokio::spawn(async move {
            // Given up meanwhile, it needs no place to say so.
            let _turn = cancel.or(share.turn(kind)).await;
            work.await;
        }));
    }

    fn hasher(&self) -> Hasher {
        let share = self.0.clone();
        Box::new(move |step: HashStep| {
            let share = share.clone();
            Box::pin(async move {
                let _turn = share.turn(Kind::Compute).await;
                blocking(move || Ok(step.perform())).await
            })
        })
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_time(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shares::Shares;

    #[tokio::test]
    async fn what_is_given_up_ends_without_waiting_for_its_turn() {
        let shares = Shares::new();
        let share = shares.user();
        let mut held = Vec::new();
        let nothing = Arc::<Cancel>::default();
        // All that one user may have.
        for _ in 0..crate::shares::LONG_MAX / 4 {
            held.extend(nothing.or(share.turn(Kind::Long)).await);
        }
        let cancel = Arc::<Cancel>::default();
        let (done, mut is_done) = tokio::sync::oneshot::channel();
        let work = Box::pin(async move { done.send(()).unwrap() });
        TokioHost(share).spawn_until(Arc::clone(&cancel), Kind::Long, work);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(is_done.try_recv().is_err(), "there was no place");
        cancel.set();
        is_done.await.unwrap();
    }
}
