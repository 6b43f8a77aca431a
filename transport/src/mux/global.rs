//! What is about no channel (RFC 4254 §4 and §7.1): keepalives, ports that a server listens on for a
//! client, and pings.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ketch_wire::{Reader, Writer};

use super::{Mux, Question, Sessions};
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::event::Event;
use crate::message::connection::{BoundPort, ForwardAddress, GlobalRequest, Ping};
use crate::message::number;
use crate::outbox::Outbox;
use crate::packet::SendError;
use ketch_keys::PublicKey;

/// Most global requests of ours that wait for their answers.
const PENDING_MAX: usize = 64;
/// Global requests that are looked at in a second, and at once after a pause; the rest fail unread.
const REQUESTS_PER_SECOND: u32 = 10;
const REQUESTS_BURST: u32 = 20;
/// Output that waits, in bytes, above which pings are not answered.
const PONG_OUTPUT_MAX: usize = 64 * 1024;
/// Longest data of a ping that is answered.
const PING_DATA_MAX: usize = 32 * 1024;
/// Pings of ours that wait for their answers.
const PINGS_MAX: u32 = 16;

/// A global request of ours that waits for its answer.
#[derive(Debug)]
enum Asked {
    Keepalive,
    /// To listen; the port, unless the peer was to choose it.
    Forward(Option<u16>),
    CancelForward,
    /// To prove that it holds these keys.
    HostKeys(Vec<PublicKey>),
}

/// Global requests of both sides, and pings.
#[derive(Debug, Default)]
pub(super) struct Global {
    /// Ours that were not answered yet, in their order (RFC 4254 §4).
    asked: VecDeque<Asked>,
    /// Ports that the peer listens on for us.
    forwards: usize,
    allowance: Allowance,
    /// The peer said that it answers pings.
    pings_are_answered: bool,
    pings: u32,
    /// The answer to a ping that came during a key exchange: one, whatever comes.
    pong: Option<Vec<u8>>,
}

impl Global {
    pub(super) const fn is_forwarding(&self) -> bool {
        self.forwards > 0
    }
}

/// How many requests of the peer are looked at: a bucket that time fills.
#[derive(Debug, Default)]
struct Allowance {
    used: u32,
    since: Option<Instant>,
}

impl Allowance {
    /// Takes one, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let slot = Duration::from_secs(1) / REQUESTS_PER_SECOND;
        let passed = now.saturating_duration_since(since);
        let regained = passed.as_nanos() / slot.as_nanos();
        if regained > 0 {
            self.used = self
                .used
                .saturating_sub(u32::try_from(regained).unwrap_or(u32::MAX));
            self.since = Some(now);
        }
        if self.used == REQUESTS_BURST {
            return false;
        }
        self.used += 1;
        true
    }
}

impl Mux {
    fn ask(
        &mut self,
        asked: Asked,
        name: &[u8],
        data: &[u8],
        outbox: &mut Outbox,
    ) -> Result<bool, SendError> {
        if self.global.asked.len() >= PENDING_MAX {
            return Ok(false);
        }
        self.global.asked.push_back(asked);
        let request = GlobalRequest {
            name,
            want_reply: true,
            data,
        };
        outbox.message(|w| request.encode(w))?;
        Ok(true)
    }

    /// Asks the peer whether it is there.
    pub(crate) fn send_keepalive(&mut self, outbox: &mut Outbox) -> Result<(), ConnectionError> {
        self.ask(Asked::Keepalive, GlobalRequest::KEEPALIVE, &[], outbox)?;
        Ok(())
    }

    /// Asks the peer to listen; [`Event::ForwardAnswered`] follows. `false` if too much is asked.
    pub(crate) fn ask_forward(
        &mut self,
        address: &str,
        port: u16,
        outbox: &mut Outbox,
    ) -> Result<bool, ConnectionError> {
        let asked = Asked::Forward((port != 0).then_some(port));
        let data = forward_data(address, port);
        // Servers number what listens as they number channels.
        self.opened = true;
        Ok(self.ask(asked, GlobalRequest::FORWARD, &data, outbox)?)
    }

    /// Asks the peer to listen no more; [`Event::ForwardCancelled`] follows.
    pub(crate) fn ask_cancel_forward(
        &mut self,
        address: &str,
        port: u16,
        outbox: &mut Outbox,
    ) -> Result<bool, ConnectionError> {
        let data = forward_data(address, port);
        let name = GlobalRequest::CANCEL_FORWARD;
        Ok(self.ask(Asked::CancelForward, name, &data, outbox)?)
    }

    /// Tells the peer that no more sessions will be asked for.
    pub(crate) fn send_no_more_sessions(
        &mut self,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        let request = GlobalRequest {
            name: GlobalRequest::NO_MORE_SESSIONS,
            want_reply: false,
            data: &[],
        };
        outbox.message(|w| request.encode(w))?;
        Ok(())
    }

    /// Asks the peer to prove that it holds host keys; [`Event::HostKeysProved`] follows.
    pub(crate) fn ask_proofs(
        &mut self,
        keys: Vec<PublicKey>,
        outbox: &mut Outbox,
    ) -> Result<bool, ConnectionError> {
        if keys.is_empty() || keys.len() > super::host_keys::KEYS_MAX {
            return Ok(false);
        }
        let mut data = Vec::new();
        let mut w = Writer::new(&mut data);
        keys.iter().for_each(|key| w.string(key.as_blob()));
        let name = GlobalRequest::PROVE_HOST_KEYS;
        Ok(self.ask(Asked::HostKeys(keys), name, &data, outbox)?)
    }

    pub(super) fn on_global_request<'a>(
        &mut self,
        message: GlobalRequest<'a>,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let GlobalRequest {
            name,
            want_reply,
            data,
        } = message;
        let number = number::GLOBAL_REQUEST;
        let malformed = |source| PeerMisbehaved::Malformed { number, source };
        let is_server = self.sessions != Sessions::Refused;
        let is_looked_at = name == GlobalRequest::KEEPALIVE || self.global.allowance.take(now);
        match name {
            _ if !is_looked_at => {}
            GlobalRequest::FORWARD if is_server => {
                let at = ForwardAddress::decode(Reader::new(data)).map_err(malformed)?;
                if let Some((address, port)) = text_of(at) {
                    let chosen = port == 0;
                    self.question = Some(Question::Forward { want_reply, chosen });
                    return Ok(Some(Event::ForwardAsked { address, port }));
                }
            }
            GlobalRequest::CANCEL_FORWARD if is_server => {
                let at = ForwardAddress::decode(Reader::new(data)).map_err(malformed)?;
                if let Some((address, port)) = text_of(at) {
                    self.question = Some(Question::CancelForward { want_reply });
                    return Ok(Some(Event::CancelForwardAsked { address, port }));
                }
            }
            GlobalRequest::NO_MORE_SESSIONS if is_server => {
                self.sessions = Sessions::NoMore;
                if want_reply {
                    outbox.message(|w| w.u8(number::REQUEST_SUCCESS))?;
                }
                return Ok(None);
            }
            GlobalRequest::HOST_KEYS if !is_server => {
                let offered = self.host_keys.on_offer(data).map_err(malformed)?;
                reply_failure(want_reply, outbox)?;
                return Ok((!offered.is_empty()).then_some(Event::HostKeysOffered(offered)));
            }
            GlobalRequest::PROVE_HOST_KEYS if is_server && want_reply => {
                if let Some(proofs) = self.host_keys.prove(data).map_err(malformed)? {
                    outbox.message(|w| {
                        w.u8(number::REQUEST_SUCCESS);
                        w.bytes(&proofs);
                    })?;
                    return Ok(None);
                }
            }
            _ => {}
        }
        reply_failure(want_reply, outbox)?;
        Ok(None)
    }

    /// Answers the peer's wish that we listen: with the port, or not at all.
    pub(crate) fn answer_forward(
        &mut self,
        bound: Option<u16>,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        let Some(Question::Forward { want_reply, chosen }) = self.question else {
            return Ok(());
        };
        self.question = None;
        let Some(bound) = bound else {
            return Ok(reply_failure(want_reply, outbox)?);
        };
        if want_reply {
            outbox.message(|w| {
                w.u8(number::REQUEST_SUCCESS);
                if chosen {
                    w.u32(u32::from(bound));
                }
            })?;
        }
        Ok(())
    }

    /// Answers the peer's wish that we listen no more.
    pub(crate) fn answer_cancel_forward(
        &mut self,
        done: bool,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        let Some(Question::CancelForward { want_reply }) = self.question else {
            return Ok(());
        };
        self.question = None;
        if !done {
            return Ok(reply_failure(want_reply, outbox)?);
        }
        if want_reply {
            outbox.message(|w| w.u8(number::REQUEST_SUCCESS))?;
        }
        Ok(())
    }

    pub(super) fn on_global_reply<'a>(
        &mut self,
        number: u8,
        data: &[u8],
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let Some(asked) = self.global.asked.pop_front() else {
            self.count_unsolicited()?;
            return Ok(None);
        };
        let granted = number == number::REQUEST_SUCCESS;
        let malformed = |source| PeerMisbehaved::Malformed { number, source };
        Ok(match asked {
            Asked::Keepalive => None,
            Asked::Forward(_) if !granted => Some(Event::ForwardAnswered(None)),
            Asked::Forward(port) => {
                self.global.forwards += 1;
                let port = match port {
                    Some(port) => port,
                    None => {
                        let bound = BoundPort::decode(Reader::new(data)).map_err(malformed)?;
                        u16::try_from(bound.0).unwrap_or_default()
                    }
                };
                Some(Event::ForwardAnswered(Some(port)))
            }
            Asked::CancelForward => {
                self.global.forwards = self.global.forwards.saturating_sub(usize::from(granted));
                Some(Event::ForwardCancelled(granted))
            }
            Asked::HostKeys(_) if !granted => Some(Event::HostKeysProved(Vec::new())),
            Asked::HostKeys(keys) => {
                let proved = self.host_keys.verify(keys, data).map_err(malformed)?;
                Some(Event::HostKeysProved(proved))
            }
        })
    }

    /// The peer said in `EXT_INFO` that it answers pings.
    pub(crate) const fn on_pings_offered(&mut self) {
        self.global.pings_are_answered = true;
    }

    /// Sends a ping; [`Event::Pong`] follows. `false` if the peer did not say that it answers them,
    /// or enough of them wait.
    pub(crate) fn send_ping(&mut self, outbox: &mut Outbox) -> Result<bool, ConnectionError> {
        if !self.global.pings_are_answered || self.global.pings == PINGS_MAX {
            return Ok(false);
        }
        self.global.pings += 1;
        outbox.message(|w| Ping { data: b"ketch" }.encode(number::PING, w))?;
        Ok(true)
    }

    pub(super) fn on_pong<'a>(&mut self) -> Result<Option<Event<'a>>, ConnectionError> {
        let Some(left) = self.global.pings.checked_sub(1) else {
            self.count_unsolicited()?;
            return Ok(None);
        };
        self.global.pings = left;
        Ok(Some(Event::Pong))
    }

    /// Answers a ping, unless the peer takes nothing (CVE-2025-26466): the answers would pile up.
    pub(super) fn on_ping(
        &mut self,
        message: Ping<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), SendError> {
        let Ping { data } = message;
        if data.len() > PING_DATA_MAX || outbox.sender.output().len() > PONG_OUTPUT_MAX {
            return Ok(());
        }
        if outbox.is_open() {
            return outbox.now(|w| message.encode(number::PONG, w));
        }
        if self.global.pong.is_none() {
            self.global.pong = Some(data.to_vec());
        }
        Ok(())
    }

    /// Answers the ping that came during a key exchange.
    pub(super) fn flush_pong(&mut self, outbox: &mut Outbox) -> Result<(), SendError> {
        match self.global.pong.take() {
            Some(data) => outbox.now(|w| Ping { data: &data }.encode(number::PONG, w)),
            None => Ok(()),
        }
    }
}

fn reply_failure(want_reply: bool, outbox: &mut Outbox) -> Result<(), SendError> {
    if want_reply {
        outbox.message(|w| w.u8(number::REQUEST_FAILURE))?;
    }
    Ok(())
}

fn forward_data(address: &str, port: u16) -> Vec<u8> {
    let mut data = Vec::new();
    let (address, port) = (address.as_bytes(), u32::from(port));
    ForwardAddress { address, port }.encode(&mut Writer::new(&mut data));
    data
}

/// An address and a port; `None` if the address is no text.
fn text_of(at: ForwardAddress<'_>) -> Option<(&str, u16)> {
    let address = std::str::from_utf8(at.address).ok()?;
    Some((address, u16::try_from(at.port).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    fn twenty_requests_at_once_and_ten_a_second_are_looked_at() {
        let start = Instant::now();
        let mut allowance = Allowance::default();
        let taken =
            |allowance: &mut Allowance, now| (0..1_000).filter(|_| allowance.take(now)).count();
        assert_eq!(taken(&mut allowance, start), 20);
        assert_eq!(taken(&mut allowance, start + Duration::from_millis(99)), 0);
        assert_eq!(taken(&mut allowance, start + Duration::from_millis(100)), 1);
        assert_eq!(
            taken(&mut allowance, start + Duration::from_millis(1_100)),
            10
        );
        assert_eq!(
            taken(&mut allowance, start + Duration::from_secs(1_000)),
            20
        );
    }
}
