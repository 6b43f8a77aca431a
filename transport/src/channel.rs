//! One channel (RFC 4254 §5): two windows, what waits for the peer's, and how each side ends.

use std::collections::VecDeque;
use std::time::Instant;

use crate::error::PeerMisbehaved;
use crate::packet::PACKET_DATA_MAX;
use crate::session::SessionStart;

/// Smallest packets that a peer may want on a channel; below, nothing useful fits.
pub(crate) const MAX_PACKET_MIN: u32 = 256;
/// Most data bytes in one packet that we accept, as we tell the peer (RFC 4254 §5.1).
pub(crate) const MAX_PACKET: u32 = 64 * 1024;
/// Most data bytes that leave before the peer has opened the channel at all.
///
/// They are debited from the window that it grants later. What a client says first is a few hundred
/// bytes; a server that takes them early has this much room in any case.
pub const EAGER_BYTES_MAX: u32 = 16 * 1024;

/// A channel's number on our side.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ChannelId(pub(crate) u32);

impl ChannelId {
    /// The channel of that number, whether there is one or not: for fuzzing only.
    #[doc(hidden)]
    #[must_use]
    pub const fn for_tests(number: u32) -> Self {
        Self(number)
    }
}

/// How far a direction has come to its end.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum End {
    /// Data may come.
    Open,
    /// No more data will come.
    Eof,
    /// Nothing will come.
    Closed,
}

/// How far the opening has come.
#[derive(Debug)]
pub(crate) enum Opening {
    /// Ours: `CHANNEL_OPEN` is out, and this is what it is for.
    Asked(Purpose),
    /// Ours: `CHANNEL_OPEN` is out, and all that follows it too, with a guessed number.
    Guessed,
    /// Ours: the request for the program is out.
    Requested,
    /// Ours: what was asked for was refused; it is about to be closed.
    Refused,
    /// The peer's: no program was asked for yet.
    Bare,
    /// In use.
    Ready,
    /// Given up: the peer never answered our `CLOSE`. Only its number is kept.
    Reaped,
}

/// What a channel of ours is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// This program.
    Session(Box<SessionStart>),
    /// A connection that is carried: there is nothing more to ask for.
    Connection,
}

/// A request of ours that the peer has to answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Asked {
    Pty,
    Subsystem,
    Exec,
    Shell,
}

/// When an end that hangs is helped along.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub(crate) at: Instant,
    /// What waited to be sent when the clock was started.
    pub(crate) queued: usize,
}

/// What we may send and what waits to be sent.
#[derive(Debug)]
pub(crate) struct SendHalf {
    /// The peer's number for the channel.
    pub(crate) recipient: u32,
    /// Bytes that the peer still takes.
    window: u32,
    /// The largest that was ever on offer.
    window_peak: u32,
    /// What was lent before the peer granted anything, and what of it was sent and is still to be
    /// debited from what it grants.
    early: u32,
    debt: u32,
    /// Most data bytes in one packet.
    pub(crate) data_max: usize,
    queue: Queue,
    /// What a program writes beside its output.
    stderr: Queue,
    queue_max: usize,
    /// How far the application wants to end it, and how far it is ended.
    pub(crate) wanted: End,
    pub(crate) sent: End,
}

/// Bytes that wait.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    head: usize,
}

impl Queue {
    const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
        }
    }

    const fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.head > 0 && self.head * 2 >= self.bytes.len() {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn front(&self, len: usize) -> &[u8] {
        &self.bytes[self.head..self.head + len.min(self.len())]
    }

    fn advance(&mut self, len: usize) {
        self.head += len;
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
            // A burst's room is not kept for ever.
            self.bytes.shrink_to(64 * 1024);
        }
    }
}

/// Which of a channel's two outgoing streams bytes belong to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stream {
    Data,
    Stderr,
}

/// What the peer may send.
#[derive(Debug)]
pub(crate) struct RecvHalf {
    /// Bytes that the peer may still send.
    window: u32,
    /// What the window is kept at.
    target: u32,
    target_max: u32,
    /// Bytes that were consumed and not given back yet.
    credit: u32,
    pub(crate) end: End,
}

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) opening: Opening,
    pub(crate) send: SendHalf,
    pub(crate) recv: RecvHalf,
    /// Requests of ours that await `CHANNEL_SUCCESS` or `CHANNEL_FAILURE`, in their order.
    pub(crate) asked: VecDeque<Asked>,
    pub(crate) closing: Option<Closing>,
}

impl Channel {
    pub(crate) const fn new(opening: Opening, send: SendHalf, recv: RecvHalf) -> Self {
        Self {
            opening,
            send,
            recv,
            asked: VecDeque::new(),
            closing: None,
        }
    }

    /// The program shows that it runs: some servers let it speak before they say that it does.
    pub(crate) fn shows_life(&mut self) -> bool {
        if matches!(self.opening, Opening::Requested) {
            self.opening = Opening::Ready;
        }
        matches!(self.opening, Opening::Ready)
    }
}

/// What does not fit into a channel's queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueueFull;

impl std::fmt::Display for QueueFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the channel's queue is full")
    }
}

impl std::error::Error for QueueFull {}

impl SendHalf {
    pub(crate) const fn new(queue_max: usize) -> Self {
        Self {
            recipient: 0,
            window: 0,
            window_peak: 0,
            early: 0,
            debt: 0,
            data_max: 0,
            queue: Queue::new(),
            stderr: Queue::new(),
            queue_max,
            wanted: End::Open,
            sent: End::Open,
        }
    }

    /// The peer named its number, window and packet size.
    pub(crate) fn confirm(
        &mut self,
        recipient: u32,
        window: u32,
        max_packet: u32,
    ) -> Result<(), PeerMisbehaved> {
        if max_packet < MAX_PACKET_MIN {
            return Err(PeerMisbehaved::PacketsTooSmall);
        }
        self.recipient = recipient;
        self.debt = self.early.saturating_sub(self.window);
        (self.early, self.window, self.window_peak) = (0, 0, 0);
        self.data_max =
            usize::try_from(max_packet).map_or(PACKET_DATA_MAX, |n| n.min(PACKET_DATA_MAX));
        self.adjust(window)
    }

    /// Sends to a number that the peer is going to give, within a window that it is going to grant.
    pub(crate) fn guess(&mut self, recipient: u32) {
        self.recipient = recipient;
        self.window = EAGER_BYTES_MAX;
        self.window_peak = EAGER_BYTES_MAX;
        self.early = EAGER_BYTES_MAX;
        self.data_max = PACKET_DATA_MAX;
    }

    /// The peer takes more.
    pub(crate) fn adjust(&mut self, bytes: u32) -> Result<(), PeerMisbehaved> {
        let paid = bytes.min(self.debt);
        self.window = self
            .window
            .checked_add(bytes - paid)
            .ok_or(PeerMisbehaved::WindowOverflow)?;
        self.debt -= paid;
        self.window_peak = self.window_peak.max(self.window);
        Ok(())
    }

    pub(crate) fn window(&self) -> usize {
        usize::try_from(self.window).unwrap_or(usize::MAX)
    }

    pub(crate) fn window_peak(&self) -> usize {
        usize::try_from(self.window_peak).unwrap_or(usize::MAX)
    }

    /// Data of that length is on its way.
    pub(crate) fn debit(&mut self, len: usize) {
        self.window = self
            .window
            .saturating_sub(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// Puts bytes behind those that wait.
    pub(crate) fn enqueue(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), QueueFull> {
        if self.wanted != End::Open {
            return Ok(()); // nobody will read them
        }
        if self.queued() + bytes.len() > self.queue_max {
            return Err(QueueFull);
        }
        match stream {
            Stream::Data => self.queue.push(bytes),
            Stream::Stderr => self.stderr.push(bytes),
        }
        Ok(())
    }

    /// How much waits.
    pub(crate) const fn queued(&self) -> usize {
        self.queue.len() + self.stderr.len()
    }

    /// The next piece that window and packet size admit: what is beside the stream goes first.
    pub(crate) fn next_piece(&self) -> (Stream, &[u8]) {
        let most = self.data_max.min(self.window());
        if self.stderr.len() > 0 {
            return (Stream::Stderr, self.stderr.front(most));
        }
        (Stream::Data, self.queue.front(most))
    }

    /// The first `len` bytes of a queue are sent.
    pub(crate) fn dequeue(&mut self, stream: Stream, len: usize) {
        match stream {
            Stream::Data => self.queue.advance(len),
            Stream::Stderr => self.stderr.advance(len),
        }
        self.debit(len);
    }

    /// Nobody reads any more: what waits is dropped.
    pub(crate) fn abandon(&mut self) {
        self.queue = Queue::new();
        self.stderr = Queue::new();
    }
}

impl RecvHalf {
    pub(crate) const fn new(window: u32, window_max: u32) -> Self {
        Self {
            window,
            target: window,
            target_max: if window > window_max {
                window
            } else {
                window_max
            },
            credit: 0,
            end: End::Open,
        }
    }

    /// Data came.
    pub(crate) fn debit(&mut self, len: usize) -> Result<(), PeerMisbehaved> {
        let window = usize::try_from(self.window).unwrap_or(usize::MAX);
        let allowed = window.min(usize::try_from(MAX_PACKET).unwrap_or(usize::MAX));
        let exceeded = PeerMisbehaved::WindowExceeded { len, allowed };
        if len > allowed {
            return Err(exceeded);
        }
        self.window -= u32::try_from(len).map_err(|_| exceeded)?;
        Ok(())
    }

    /// Data was consumed; it is given back in larger pieces.
    pub(crate) fn give_credit(&mut self, len: usize) {
        let room = self.target.saturating_sub(self.window);
        self.credit = self
            .credit
            .saturating_add(u32::try_from(len).unwrap_or(u32::MAX))
            .min(room);
    }

    /// How much to give back now, if it is worth a message: a quarter of the window.
    ///
    /// A window that the peer had used up is too small for the path, and doubles up to its bound.
    pub(crate) fn take_adjust(&mut self) -> Option<u32> {
        if self.end != End::Open || self.credit == 0 || self.credit < self.target / 4 {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.credit);
        if self.window < MAX_PACKET && self.target < self.target_max {
            let grown = self.target.saturating_mul(2).min(self.target_max);
            bytes = bytes.saturating_add(grown - self.target);
            self.target = grown;
        }
        bytes = bytes.min(u32::MAX - self.window);
        self.window += bytes;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn half(window: u32, max_packet: u32) -> SendHalf {
        let mut half = SendHalf::new(1 << 20);
        half.confirm(3, window, max_packet).unwrap();
        half
    }

    #[test]
    fn windows_never_pass_two_to_the_32() {
        for (window, adjust, fits) in [
            (0, u32::MAX, true),
            (1, u32::MAX, false),
            (1 << 31, 1 << 31, false),
            (1 << 31, (1 << 31) - 1, true),
            (u32::MAX, 0, true),
            (u32::MAX, 1, false),
        ] {
            let outcome = half(window, 1024).adjust(adjust);
            assert_eq!(outcome.is_ok(), fits, "{window} + {adjust}");
        }
    }

    #[test]
    fn packets_of_no_useful_size_are_refused() {
        for max_packet in [0, 1, 2, MAX_PACKET_MIN - 1] {
            let outcome = SendHalf::new(10).confirm(1, 100, max_packet);
            assert_eq!(outcome, Err(PeerMisbehaved::PacketsTooSmall));
        }
        for max_packet in [MAX_PACKET_MIN, 1 << 20, u32::MAX] {
            assert!(half(100, max_packet).data_max <= PACKET_DATA_MAX);
        }
    }

    #[test]
    fn data_past_the_window_is_refused() {
        let mut recv = RecvHalf::new(100, 100);
        assert_eq!(recv.debit(60), Ok(()));
        assert_eq!(
            recv.debit(41),
            Err(PeerMisbehaved::WindowExceeded {
                len: 41,
                allowed: 40
            })
        );
        assert_eq!(recv.debit(40), Ok(()));
        let mut recv = RecvHalf::new(u32::MAX, u32::MAX);
        let large = usize::try_from(MAX_PACKET).unwrap() + 1;
        assert!(recv.debit(large).is_err(), "larger than the largest packet");
    }

    #[test]
    fn a_full_queue_takes_all_or_nothing() {
        let mut half = SendHalf::new(10);
        half.confirm(1, 4, 256).unwrap();
        assert_eq!(half.enqueue(Stream::Data, b"12345678"), Ok(()));
        assert_eq!(half.enqueue(Stream::Data, b"abc"), Err(QueueFull));
        assert_eq!(half.enqueue(Stream::Stderr, b"abc"), Err(QueueFull));
        assert_eq!(half.next_piece(), (Stream::Data, &b"1234"[..]));
        half.dequeue(Stream::Data, 4);
        assert_eq!(half.next_piece(), (Stream::Data, &b""[..]));
        assert_eq!(half.enqueue(Stream::Data, b"abc"), Ok(()));
        assert_eq!(half.enqueue(Stream::Stderr, b"oop"), Ok(()));
        half.adjust(100).unwrap();
        assert_eq!(half.next_piece(), (Stream::Stderr, &b"oop"[..]));
        half.dequeue(Stream::Stderr, 3);
        assert_eq!(half.next_piece(), (Stream::Data, &b"5678abc"[..]));
    }

    #[test]
    fn what_was_sent_early_is_debited_from_what_is_granted_later() {
        // OpenSSH confirms a session with no window at all, and grants one when a program runs.
        for (sent, confirmed, adjusts, left) in [
            (0, 1_000, &[][..], 1_000),
            (47, 1_000, &[], 953),
            (47, 0, &[2 << 20], (2 << 20) - 47),
            (EAGER_BYTES_MAX, 0, &[100, 0, EAGER_BYTES_MAX], 100),
            (100, 40, &[59], 0),
            (100, 40, &[60], 0),
            (100, 40, &[61], 1),
            (100, u32::MAX, &[100], u32::MAX),
        ] {
            let mut half = SendHalf::new(10);
            half.guess(0);
            let early = usize::try_from(EAGER_BYTES_MAX).unwrap();
            assert_eq!((half.window(), half.recipient), (early, 0));
            half.debit(usize::try_from(sent).unwrap());
            half.confirm(0, confirmed, 32_768).unwrap();
            for bytes in adjusts {
                half.adjust(*bytes).unwrap();
            }
            assert_eq!(half.window(), usize::try_from(left).unwrap(), "{sent}");
        }
        let mut half = SendHalf::new(10);
        half.guess(0);
        half.debit(100);
        half.confirm(0, u32::MAX, 32_768).unwrap();
        assert_eq!(half.adjust(101), Err(PeerMisbehaved::WindowOverflow));
    }

    proptest! {
        /// What the sender of a direction may send and what its receiver allows are one number,
        /// however data, consumption and adjusts interleave; and credit is never invented.
        #[test]
        fn both_ends_of_a_window_agree(
            window in 1_u32..100_000, grows in 0_u32..200_000,
            steps in proptest::collection::vec((0_usize..3, 0_usize..70_000), 0..200),
        ) {
            let mut recv = RecvHalf::new(window, grows);
            let mut send = half(window, MAX_PACKET);
            let (mut sent, mut consumed) = (0_usize, 0_usize);
            for (kind, amount) in steps {
                match kind {
                    0 => {
                        let len = amount.min(send.window()).min(send.data_max);
                        send.debit(len);
                        prop_assert_eq!(recv.debit(len), Ok(()));
                        sent += len;
                    }
                    1 => {
                        let len = amount.min(sent - consumed);
                        recv.give_credit(len);
                        consumed += len;
                    }
                    _ => if let Some(bytes) = recv.take_adjust() {
                        prop_assert_eq!(send.adjust(bytes), Ok(()));
                    },
                }
                prop_assert_eq!(usize::try_from(recv.window).unwrap(), send.window());
                let unconsumed = sent - consumed;
                prop_assert!(send.window() + unconsumed <= usize::try_from(recv.target).unwrap());
            }
        }
    }
}
