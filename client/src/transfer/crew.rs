//! How many channels and connections work on a plan, as a machine: facts in, decisions out.
//!
//! What was measured decides (sshd 9.2): over a long path an upload is held up by the 2 MiB window
//! of its channel, so many channels share a large file at once, on one connection; on a short one
//! the processes of the server are the limit, which a second connection has for itself, and a third
//! takes time from both. Setting one up costs some 20 ms of processor time on both sides, so enough
//! has to be left to do. Channels beyond what the path holds would only fill the server's buffers.
//! What was refused once is not asked for again.

use super::{options::Streams, pace::FAR, plan::Facts};

/// Bytes that make another channel worth its round trips, on a long path: two windows of sshd's.
const CHANNEL_WORTH: u64 = 4 * 1024 * 1024;
/// Bytes that make a second connection worth its set-up, on a short path.
const CONNECTION_WORTH: u64 = 192 * 1024 * 1024;
/// Connections at most on a short path: three were slower than two.
const CONNECTIONS_NEAR: u32 = 2;
/// Files that make a second channel worth its set-up, on a short path: each has a program of the
/// server's to itself, which is what small files wait for.
pub(crate) const MANY_FILES: usize = 2048;
/// Channels at most on a short path: a program each, beside the two that encrypt.
const CHANNELS_NEAR: u32 = 2;
/// Bytes for each connection that make another one worth its round trips, on a long path.
const CONNECTION_WORTH_FAR: u64 = 256 * 1024 * 1024;

/// In which direction the bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Down,
    Up,
}

/// Something to open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Another channel of a connection that there is.
    Channel,
    /// Another connection, with one channel.
    Connection,
}

/// Who decides.
#[derive(Debug)]
pub(crate) struct Crew {
    direction: Direction,
    streams: Streams,
    /// Channels and connections that there are, or are being opened.
    channels: u32,
    connections: u32,
    no_more_channels: bool,
    no_more_connections: bool,
}

impl Crew {
    /// For a plan that one channel of one connection works on. Without `further`, no second
    /// connection can be made.
    pub(crate) const fn new(direction: Direction, streams: Streams, further: bool) -> Self {
        Self {
            direction,
            streams,
            channels: 1,
            connections: 1,
            no_more_channels: false,
            no_more_connections: !further,
        }
    }

    /// What to open now; it counts as there until [`Crew::on_refused`] or [`Crew::on_lost`].
    pub(crate) fn poll(&mut self, facts: &Facts) -> Option<Step> {
        let rtt = facts.rtt?;
        if facts.workers == 0 || facts.is_held || facts.is_low {
            return None;
        }
        let step = if rtt >= FAR {
            self.far(facts)?
        } else {
            self.near(facts)?
        };
        match step {
            Step::Channel => self.channels += 1,
            Step::Connection => self.connections += 1,
        }
        Some(step)
    }

    fn far(&self, facts: &Facts) -> Option<Step> {
        let worth = |bytes: u64, is_worth: u64| u32::try_from(bytes / is_worth).unwrap_or(u32::MAX);
        match self.direction {
            Direction::Up => {
                let wanted = worth(facts.joint_bytes, CHANNEL_WORTH).min(self.streams.channels);
                if self.channels < wanted && !self.no_more_channels {
                    return Some(Step::Channel);
                }
            }
            // A path that looks long at first may be a server that is slow to start.
            Direction::Down if !facts.is_rtt_sure => {}
            Direction::Down => {
                let wanted = worth(facts.joint_bytes, CONNECTION_WORTH_FAR);
                return self.connection(wanted.saturating_add(1).min(self.streams.connections));
            }
        }
        None
    }

    fn near(&self, facts: &Facts) -> Option<Step> {
        let channels = CHANNELS_NEAR.min(self.streams.channels);
        if facts.files >= MANY_FILES && self.channels < channels && !self.no_more_channels {
            return Some(Step::Channel);
        }
        (facts.joint_bytes >= CONNECTION_WORTH).then_some(())?;
        self.connection(CONNECTIONS_NEAR.min(self.streams.connections))
    }

    fn connection(&self, wanted: u32) -> Option<Step> {
        let is_wanted = self.connections < wanted && !self.no_more_connections;
        is_wanted.then_some(Step::Connection)
    }

    /// It could not be opened, and will not be asked for again.
    pub(crate) const fn on_refused(&mut self, step: Step) {
        match step {
            Step::Channel => {
                self.channels = self.channels.saturating_sub(1);
                self.no_more_channels = true;
            }
            Step::Connection => {
                self.connections = self.connections.saturating_sub(1);
                self.no_more_connections = true;
            }
        }
    }

    /// What was opened further did not pay, and is gone: no more of it.
    pub(crate) const fn on_unpaid(&mut self) {
        self.on_made_anew();
        self.no_more_channels = true;
        self.no_more_connections = true;
    }

    /// All connections were lost, and one was made anew.
    pub(crate) const fn on_made_anew(&mut self) {
        self.channels = 1;
        self.connections = 1;
    }
}

/// Whether a server that introduces itself so is known to bear several channels and connections,
/// and several that write one file.
pub(crate) fn bears_many(identification: &str) -> bool {
    crate::quirks::Quirks::of(identification).may_stripe_writes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1024 * 1024;

    fn facts(rtt_ms: u64, joint_mib: u64) -> Facts {
        Facts {
            workers: 1,
            rtt: Some(Duration::from_millis(rtt_ms)),
            is_rtt_sure: true,
            files: 0,
            joint_bytes: joint_mib * MIB,
            has_work: true,
            is_held: false,
            is_low: false,
        }
    }

    fn all(crew: &mut Crew, facts: &Facts) -> Vec<Step> {
        std::iter::from_fn(|| crew.poll(facts)).collect()
    }

    #[test]
    fn a_large_upload_over_a_long_path_has_ten_channels_at_once() {
        let mut crew = Crew::new(Direction::Up, Streams::default(), true);
        assert_eq!(all(&mut crew, &facts(50, 256)), [Step::Channel; 9]);
        assert_eq!(all(&mut crew, &facts(50, 256)), []);
    }

    #[test]
    fn a_small_one_has_as_many_as_pay() {
        let mut crew = Crew::new(Direction::Up, Streams::default(), true);
        assert_eq!(all(&mut crew, &facts(50, 7)), []);
        assert_eq!(all(&mut crew, &facts(50, 13)), [Step::Channel; 2]);
    }

    #[test]
    fn a_short_path_has_a_second_connection_and_no_third() {
        for direction in [Direction::Up, Direction::Down] {
            let mut crew = Crew::new(direction, Streams::default(), true);
            assert_eq!(all(&mut crew, &facts(0, 100)), []);
            assert_eq!(all(&mut crew, &facts(0, 10_000)), [Step::Connection]);
        }
    }

    #[test]
    fn many_small_files_on_a_short_path_have_a_second_channel() {
        let many = |rtt_ms| Facts {
            files: MANY_FILES,
            ..facts(rtt_ms, 0)
        };
        for direction in [Direction::Up, Direction::Down] {
            let mut crew = Crew::new(direction, Streams::default(), true);
            assert_eq!(all(&mut crew, &many(0)), [Step::Channel]);
            assert_eq!(all(&mut crew, &facts(0, 10_000)), [Step::Connection]);
            let mut crew = Crew::new(direction, Streams::default(), true);
            assert_eq!(all(&mut crew, &many(50)), []);
            let mut crew = Crew::new(direction, Streams::default().channels(1), true);
            assert_eq!(all(&mut crew, &many(0)), []);
        }
    }

    #[test]
    fn nothing_is_opened_before_the_round_trip_is_known_or_where_nobody_works_or_may() {
        let mut crew = Crew::new(Direction::Up, Streams::default(), true);
        let unknown = Facts {
            rtt: None,
            ..facts(0, 10_000)
        };
        let nobody = Facts {
            workers: 0,
            ..facts(50, 10_000)
        };
        let held = Facts {
            is_held: true,
            ..facts(50, 10_000)
        };
        let low = Facts {
            is_low: true,
            ..facts(50, 10_000)
        };
        assert_eq!(all(&mut crew, &unknown), []);
        for facts in [nobody, held, low] {
            assert_eq!(all(&mut crew, &facts), []);
        }
    }

    #[test]
    fn a_session_that_cannot_be_made_again_has_one_connection() {
        let mut crew = Crew::new(Direction::Down, Streams::default(), false);
        assert_eq!(all(&mut crew, &facts(0, 10_000)), []);
    }

    #[test]
    fn after_a_loss_all_may_be_opened_again_but_what_was_refused() {
        let mut crew = Crew::new(Direction::Up, Streams::default(), true);
        assert_eq!(all(&mut crew, &facts(50, 256)).len(), 9);
        crew.on_made_anew();
        assert_eq!(all(&mut crew, &facts(50, 256)).len(), 9);
        crew.on_refused(Step::Channel);
        crew.on_made_anew();
        assert_eq!(all(&mut crew, &facts(50, 256)), []);
    }

    #[test]
    fn what_did_not_pay_is_not_opened_again() {
        for direction in [Direction::Up, Direction::Down] {
            let mut crew = Crew::new(direction, Streams::default(), true);
            assert!(!all(&mut crew, &facts(50, 10_000)).is_empty());
            crew.on_unpaid();
            assert_eq!(all(&mut crew, &facts(50, 10_000)), []);
            assert_eq!(all(&mut crew, &facts(0, 10_000)), []);
        }
    }

    proptest! {
        #[test]
        fn the_bounds_are_kept_and_what_was_refused_is_not_asked_for_again(
            up in any::<bool>(), channels in 0..20_u32, connections in 0..10_u32,
            events in proptest::collection::vec((0..200_u64, 0..5_000_u64, any::<bool>()), 1..100),
        ) {
            let direction = if up { Direction::Up } else { Direction::Down };
            let streams = Streams::default().channels(channels).connections(connections);
            let mut crew = Crew::new(direction, streams, true);
            let mut refused = Vec::new();
            for (rtt, mib, refuses) in events {
                if let Some(step) = crew.poll(&facts(rtt, mib)) {
                    prop_assert!(!refused.contains(&step));
                    if refuses {
                        crew.on_refused(step);
                        refused.push(step);
                    }
                }
                prop_assert!(crew.channels <= channels.max(1));
                prop_assert!(crew.connections <= connections.max(1));
            }
        }
    }
}
