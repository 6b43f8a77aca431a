//! What one channel of a [`Pair`](super::Pair) carries: two streams of bytes that both ends can
//! compute, sent in pieces of any size, consumed late, ended in any order.

use super::{Seeded, Weather};
use crate::channel::{ChannelId, QueueFull};
use crate::connection::Connection;

/// What a channel is to carry; its name as a subsystem tells the other end.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    seed: u64,
    /// Bytes from this end, and to it.
    out: usize,
    into: usize,
    /// Whether this end closes when both directions are done; otherwise the other one does.
    closes: bool,
    /// Bytes after which this end, and the other one, close the channel without being done.
    cut: Option<usize>,
    their_cut: Option<usize>,
    refused: bool,
}

impl Plan {
    pub(super) fn new(random: &mut Seeded, weather: &Weather) -> Self {
        let mut cut = || (weather.cuts && random.one_in(4)).then(|| random.below(weather.data_max));
        let (cut, their_cut) = (cut(), cut());
        Self {
            seed: random.number(),
            out: random.below(weather.data_max),
            into: random.below(weather.data_max),
            closes: random.one_in(2),
            cut,
            their_cut,
            refused: random.one_in(10),
        }
    }

    /// The name of the subsystem.
    pub(super) fn name(&self) -> String {
        let Self {
            seed,
            out,
            into,
            closes,
            cut,
            their_cut,
            refused,
        } = self;
        if *refused {
            return "none".to_owned();
        }
        let number = |cut: &Option<usize>| cut.map_or(-1, |at| i64::try_from(at).unwrap());
        let (cut, their_cut) = (number(cut), number(their_cut));
        format!(
            "{seed} {out} {into} {} {cut} {their_cut}",
            u8::from(*closes)
        )
    }

    pub(super) fn parse(name: &str) -> Self {
        let mut words = name.split(' ').map(|word| word.parse::<i128>().unwrap());
        let mut word = || words.next().unwrap();
        let length = |word: i128| usize::try_from(word).unwrap();
        Self {
            seed: u64::try_from(word()).unwrap(),
            out: length(word()),
            into: length(word()),
            closes: word() == 1,
            cut: usize::try_from(word()).ok(),
            their_cut: usize::try_from(word()).ok(),
            refused: false,
        }
    }

    /// As the other end sees it.
    pub(super) const fn flipped(self) -> Self {
        Self {
            seed: self.seed ^ 1,
            out: self.into,
            into: self.out,
            closes: !self.closes,
            cut: self.their_cut,
            their_cut: self.cut,
            refused: self.refused,
        }
    }
}

/// Byte `at` of a stream.
fn byte(seed: u64, at: usize) -> u8 {
    let at = u64::try_from(at).unwrap();
    seed.wrapping_add(at)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .to_be_bytes()[0]
}

/// One end of a channel at work.
#[derive(Debug)]
pub(super) struct Talk {
    plan: Plan,
    ready: bool,
    sent: usize,
    received: usize,
    unconsumed: usize,
    eof_sent: bool,
    eof_seen: bool,
    closed: bool,
}

impl Talk {
    /// The peer opened it and the subsystem was granted.
    pub(super) fn new(plan: &Plan) -> Self {
        let ready = true;
        Self {
            ready,
            ..Self::opening(plan)
        }
    }

    /// We asked for it.
    pub(super) fn opening(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            ready: false,
            sent: 0,
            received: 0,
            unconsumed: 0,
            eof_sent: false,
            eof_seen: false,
            closed: false,
        }
    }

    pub(super) const fn on_ready(&mut self) {
        self.ready = true;
    }

    pub(super) const fn is_refused(&self) -> bool {
        self.plan.refused
    }

    /// Bytes sent and received.
    pub(super) const fn carried(&self) -> usize {
        self.sent + self.received
    }

    pub(super) fn on_data(&mut self, data: &[u8], window_max: usize) {
        assert!(!self.closed && !self.eof_seen, "data after the end");
        let seed = self.plan.seed ^ 1;
        for (index, &seen) in data.iter().enumerate() {
            assert_eq!(seen, byte(seed, self.received + index));
        }
        self.received += data.len();
        self.unconsumed += data.len();
        assert!(self.received <= self.plan.into);
        assert!(self.unconsumed <= window_max, "more than the window admits");
    }

    pub(super) fn on_eof(&mut self) {
        assert!(!self.eof_seen);
        self.eof_seen = true;
        let cut_short = self.closed || self.plan.their_cut.is_some();
        assert!(self.received == self.plan.into || cut_short);
    }

    /// Both ends have closed it: unless one was to cut it short, all has arrived.
    pub(super) fn on_closed(&self) {
        let Self { plan, .. } = self;
        if plan.cut.is_none() && plan.their_cut.is_none() {
            assert_eq!((self.sent, self.received), (plan.out, plan.into));
            assert!(self.eof_sent && self.eof_seen);
        }
    }

    /// Consumes some, sends some, and ends when it is time.
    pub(super) fn drive(
        &mut self,
        id: ChannelId,
        connection: &mut Connection,
        random: &mut Seeded,
    ) {
        if !self.ready {
            return;
        }
        if random.one_in(2) {
            let len = random.below(self.unconsumed + 1);
            connection.give_credit(id, len);
            self.unconsumed -= len;
        }
        if self.closed {
            return;
        }
        if self
            .plan
            .cut
            .is_some_and(|at| self.sent + self.received >= at)
        {
            connection.close(id);
            self.closed = true;
            return;
        }
        self.send(id, connection, random);
        if self.sent == self.plan.out && !self.eof_sent {
            connection.send_eof(id);
            self.eof_sent = true;
        }
        if self.eof_sent && self.eof_seen && (self.plan.closes || self.plan.their_cut.is_some()) {
            connection.close(id);
            self.closed = true;
        }
    }

    fn send(&mut self, id: ChannelId, connection: &mut Connection, random: &mut Seeded) {
        let left = self.plan.out - self.sent;
        if left == 0 {
            return;
        }
        let most = [1, 100, 40_000, 300_000][random.below(4)];
        let len = (1 + random.below(most)).min(left);
        // With its seed a piece is the same whichever way it goes.
        let seed = self.plan.seed;
        let piece = |from: usize, len: usize| -> Vec<u8> {
            (from..from + len).map(|at| byte(seed, at)).collect()
        };
        if random.one_in(2) {
            match connection.send(id, &piece(self.sent, len)) {
                Ok(()) => self.sent += len,
                Err(QueueFull) => assert!(connection.queued(id) > 0 || len > 1_000),
            }
            return;
        }
        let len = len.min(connection.sendable(id));
        if len == 0 {
            return;
        }
        if let Some(mut room) = connection.room(id, len).unwrap() {
            assert_eq!(room.len(), len);
            let header = random.below(len.min(20));
            room.write_at(0, &piece(self.sent, header));
            let mut at = self.sent + header;
            room.fill(header, |slots| {
                for slot in slots {
                    let len = slot.len();
                    slot.copy_from_slice(&piece(at, len));
                    at += len;
                }
            });
            assert_eq!(at, self.sent + len);
            // Sometimes less came than there was room for.
            let committed = if random.one_in(4) {
                random.below(len + 1)
            } else {
                len
            };
            room.commit(committed);
            self.sent += committed;
        }
    }
}
