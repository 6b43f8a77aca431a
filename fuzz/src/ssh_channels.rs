//! Channels against a script: both roles of a connection in use, fed with good and bad messages of
//! the connection protocol (RFC 4254).
//!
//! The bytes of the fuzzer are the payloads, sealed as they come: no key stands between it and the
//! machine that deals with channels.

use ketch_transport::channel::ChannelId;
use ketch_transport::connection::Connection;
use ketch_transport::error::ConnectionError;
use ketch_transport::event::Event;
use ketch_transport::session::{SessionStart, Tcpip};

use crate::ssh_session::Joined;

/// Most that either side may have waiting for its peer.
const OUTPUT_MAX: usize = 2 << 20;

/// One side says whatever it wants on a connection in use. The other never panics, keeps its output
/// bounded, and answers every question once.
///
/// The first byte says who is tested. Then come steps: 0 to 199 is the length of a payload, larger
/// values are what the tested side does itself.
pub fn ssh_channels(data: &[u8]) {
    let Some((&role, mut script)) = data.split_first() else {
        return;
    };
    let mut joined = Joined::logged_in(role % 2 == 0);
    let mut answered = 0_u32;
    while let Some((&step, rest)) = script.split_first() {
        script = rest;
        let outcome = if step < 200 {
            let (payload, rest) = rest.split_at(usize::from(step).min(rest.len()));
            script = rest;
            if payload.is_empty() {
                continue;
            }
            joined.tell(payload, |connection, event| {
                answered += 1;
                answer(connection, event, answered)
            })
        } else {
            act(joined.tested(), step)
        };
        if outcome.and_then(|()| joined.flush()).is_err() {
            return;
        }
        assert!(joined.tested().output().len() <= OUTPUT_MAX);
    }
}

/// Answers what has to be answered, now this way, now the other.
fn answer(
    connection: &mut Connection,
    event: &Event<'_>,
    turn: u32,
) -> Result<(), ConnectionError> {
    let yes = !turn.is_multiple_of(3);
    match event {
        Event::Request(_, request) => connection.answer_request(yes, request.starts())?,
        Event::ChannelAsked(_) => drop(connection.answer_open(yes)?),
        Event::ForwardAsked { .. } => connection.answer_forward(yes.then_some(80))?,
        Event::CancelForwardAsked { .. } => connection.answer_cancel_forward(yes)?,
        Event::Data(id, data) => connection.give_credit(*id, data.bytes.len()),
        Event::ExtendedData(id, _, data) => connection.give_credit(*id, data.len()),
        _ => {}
    }
    Ok(())
}

/// What the tested side does by itself.
fn act(connection: &mut Connection, step: u8) -> Result<(), ConnectionError> {
    let id = ChannelId::for_tests(u32::from(step % 3));
    match step {
        200..=209 => drop(connection.open_session("sftp", 1000)?),
        210..=213 => drop(connection.open_session(SessionStart::exec("true").env("A", "b"), 9)?),
        214..=215 => drop(connection.open_session_early(&SessionStart::shell(), 77)?),
        216..=219 => drop(connection.open_direct_tcpip(&Tcpip::to("host", 1), 1000)?),
        220..=223 => drop(connection.ask_forward("", 0)?),
        224..=225 => drop(connection.ask_cancel_forward("", 80)?),
        226..=227 => drop(connection.send_ping()?),
        228..=233 => drop(connection.send(id, &[7; 3000])),
        234..=237 => drop(connection.send_stderr(id, &[7; 30])),
        238..=241 => connection.send_eof(id),
        242..=247 => connection.close(id),
        248..=249 => connection.drop_queued(id),
        250..=251 => connection.send_signal(id, "INT")?,
        _ => connection.send_no_more_sessions()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(parts: &[&[u8]]) -> Vec<u8> {
        let mut script = Vec::new();
        for part in parts {
            script.push(u8::try_from(part.len()).unwrap());
            script.extend_from_slice(part);
        }
        script
    }

    #[test]
    fn good_and_bad_messages_do_no_harm() {
        let open = b"\x5a\0\0\0\x07session\0\0\0\x07\0\0\x10\0\0\0\x80\0";
        let shell = b"\x62\0\0\0\0\0\0\0\x05shell\x01";
        let good = parts(&[open, shell, b"\x5e\0\0\0\0\0\0\0\x02hi", b"\x61\0\0\0\0"]);
        for role in [0, 1] {
            ssh_channels(&[&[role][..], &good].concat());
            for cut in 0..good.len() {
                ssh_channels(&[&[role][..], &good[..cut]].concat());
            }
            for step in 200..=255 {
                let script = [&[role, 200, step, step][..], &good, &[step, 245]].concat();
                ssh_channels(&script);
            }
            for number in 80..=100 {
                let message = [number, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];
                ssh_channels(&[&[role, 201][..], &parts(&[&message, &message[..5]])].concat());
            }
        }
    }
}
