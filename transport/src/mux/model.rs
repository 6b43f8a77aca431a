//! Every order in which a peer can open, fill and end two channels, against a model of what RFC 4254
//! §5 says about them: events, replies, and which message ends the connection.

use std::time::Instant;

use ketch_wire::Writer;

use super::{Mux, Sessions};
use crate::channel::{ChannelId, End};
use crate::config::Limits;
use crate::event::Event;
use crate::message::connection::{
    ChannelData, ChannelOnly, ChannelOpen, ChannelRequest, Request, WindowAdjust,
};
use crate::message::number;
use crate::outbox::Outbox;
use crate::packet::Lent;

/// Messages in a sequence.
const LENGTH: usize = 6;
/// Channels that may be there at a time.
const CHANNELS: usize = 2;
/// The window that the peer has on each, what it sends at once, and by how much it adjusts ours.
const WINDOW: u32 = 100;
const PIECE: u32 = 40;
const ADJUST: u32 = 1 << 31;

/// What happens, by our number of the channel it happens on.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Request(u32),
    Data(u32),
    Eof(u32),
    Close(u32),
    Adjust(u32),
    /// This side closes it.
    WeClose(u32),
}

const STEPS: [Step; 13] = [
    Step::Open,
    Step::Request(0),
    Step::Data(0),
    Step::Eof(0),
    Step::Close(0),
    Step::Adjust(0),
    Step::WeClose(0),
    Step::Request(1),
    Step::Data(1),
    Step::Eof(1),
    Step::Close(1),
    Step::Adjust(1),
    Step::WeClose(1),
];

/// A channel, as the model has it.
#[derive(Clone, Copy, Debug, Default)]
struct Modelled {
    runs: bool,
    eof: bool,
    closing: bool,
    /// What the peer has sent of its window.
    used: u32,
    /// How often it has adjusted ours.
    adjusted: u32,
}

/// What comes of a step: the event's name, and the numbers of the replies. `None` ends the connection.
type Outcome = Option<(&'static str, Vec<u8>)>;

fn expected(model: &mut [Option<Modelled>; CHANNELS], step: Step) -> Outcome {
    let quiet = Some(("", vec![]));
    let slot = |id: u32| usize::try_from(id).unwrap();
    match step {
        Step::Open => match model.iter_mut().find(|channel| channel.is_none()) {
            Some(free) => {
                *free = Some(Modelled::default());
                Some(("", vec![91]))
            }
            None => Some(("", vec![92])),
        },
        Step::Request(id) => {
            let channel = model[slot(id)].as_mut()?;
            if channel.closing {
                return quiet;
            }
            if channel.runs {
                return Some(("", vec![100]));
            }
            channel.runs = true;
            Some(("Request", vec![99]))
        }
        Step::Data(id) => {
            let channel = model[slot(id)].as_mut()?;
            channel.used += PIECE;
            if channel.used > WINDOW {
                return None;
            }
            if channel.eof || channel.closing || !channel.runs {
                return quiet;
            }
            Some(("Data", vec![]))
        }
        Step::Eof(id) => {
            let channel = model[slot(id)].as_mut()?;
            if std::mem::replace(&mut channel.eof, true) || channel.closing || !channel.runs {
                return quiet;
            }
            Some(("Eof", vec![]))
        }
        Step::Close(id) => {
            let channel = model[slot(id)].take()?;
            Some(("Closed", if channel.closing { vec![] } else { vec![97] }))
        }
        Step::Adjust(id) => {
            let channel = model[slot(id)].as_mut()?;
            channel.adjusted += 1;
            // The first window and one adjust fit into 32 bits, a second one does not.
            if channel.adjusted > 1 { None } else { quiet }
        }
        Step::WeClose(id) => match model[slot(id)].as_mut() {
            Some(channel) if !channel.closing => {
                channel.closing = true;
                Some(("", vec![96, 97]))
            }
            _ => quiet,
        },
    }
}

/// The machine, and the numbers of what it has said.
struct Machine {
    mux: Mux,
    outbox: Outbox,
    now: Instant,
}

impl Machine {
    fn new(now: Instant) -> Self {
        let limits = Limits {
            channels_max: CHANNELS,
            window_bytes: WINDOW,
            window_bytes_max: WINDOW,
            ..Limits::default()
        };
        Self {
            mux: Mux::new(Sessions::Accepted, limits),
            outbox: Outbox::default(),
            now,
        }
    }

    fn step(&mut self, step: Step) -> Outcome {
        let event = match message(step) {
            Some(payload) => self.tell(&payload)?,
            None => {
                if let Step::WeClose(id) = step
                    && let Some(channel) = self.mux.get(ChannelId(id))
                {
                    channel.send.wanted = End::Closed;
                }
                ""
            }
        };
        self.mux.flush(self.now, &mut self.outbox).unwrap();
        Some((event, self.said()))
    }

    fn tell(&mut self, payload: &[u8]) -> Option<&'static str> {
        let lent = Lent {
            bytes: payload,
            at: 0,
        };
        let number = payload[0];
        let outcome = self
            .mux
            .on_message(number, lent, self.now, &mut self.outbox);
        let name = match outcome.ok()? {
            None => "",
            Some(Event::Request(..)) => "Request",
            Some(Event::Data(..)) => "Data",
            Some(Event::Eof(_)) => "Eof",
            Some(Event::Closed(_)) => "Closed",
            Some(other) => panic!("{other:?}"),
        };
        if self.mux.is_waiting() {
            self.mux
                .answer_request(true, true, &mut self.outbox)
                .unwrap();
        }
        Some(name)
    }

    /// The numbers of the messages that are in the output: packets in clear.
    fn said(&mut self) -> Vec<u8> {
        let output = self.outbox.sender.output();
        let mut numbers = Vec::new();
        let mut rest = output;
        while let Some((len, packet)) = rest.split_first_chunk() {
            let len = usize::try_from(u32::from_be_bytes(*len)).unwrap();
            numbers.push(packet[1]);
            rest = &packet[len..];
        }
        let len = output.len();
        self.outbox.sender.consume(len);
        numbers
    }
}

fn message(step: Step) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let w = &mut Writer::new(&mut bytes);
    match step {
        Step::Open => ChannelOpen {
            channel_type: ChannelOpen::SESSION,
            sender: 77,
            window: 1_000,
            max_packet: 32_768,
            rest: &[],
        }
        .encode(w),
        Step::Request(recipient) => ChannelRequest {
            recipient,
            want_reply: true,
            request: Request::Subsystem("x"),
        }
        .encode(w),
        Step::Data(recipient) => {
            w.bytes(&ChannelData::header(recipient, PIECE));
            w.bytes(&[0; PIECE as usize]);
        }
        Step::Eof(recipient) => ChannelOnly { recipient }.encode(number::CHANNEL_EOF, w),
        Step::Close(recipient) => ChannelOnly { recipient }.encode(number::CHANNEL_CLOSE, w),
        Step::Adjust(recipient) => {
            let bytes = ADJUST;
            WindowAdjust { recipient, bytes }.encode(w);
        }
        Step::WeClose(_) => return None,
    }
    Some(bytes)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
fn every_order_of_six_messages_on_two_channels_does_what_the_model_says() {
    let now = Instant::now();
    let mut sequence = vec![0_usize];
    let mut runs = 0_u32;
    while !sequence.is_empty() {
        let mut machine = Machine::new(now);
        let mut model = [None; CHANNELS];
        let mut ended = false;
        for &index in &sequence {
            let wanted = expected(&mut model, STEPS[index]);
            let seen = machine.step(STEPS[index]);
            let steps = || sequence.iter().map(|&i| STEPS[i]).collect::<Vec<_>>();
            assert_eq!(seen, wanted, "{:?}", steps());
            ended = wanted.is_none();
        }
        runs += 1;
        // Longer sequences first, but nothing follows the end.
        if sequence.len() < LENGTH && !ended {
            sequence.push(0);
            continue;
        }
        while let Some(last) = sequence.pop() {
            if last + 1 < STEPS.len() {
                sequence.push(last + 1);
                break;
            }
        }
    }
    assert!(runs > 50_000, "{runs} sequences");
}
