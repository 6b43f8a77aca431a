//! Messages of the agent protocol (draft-ietf-sshm-ssh-agent), as bytes and back.
//!
//! A frame is a length and a payload, the payload's first byte says what it is (§3). An agent is
//! another program, perhaps at the far end of a tunnel: its lengths and counts are bounded, and a
//! reply is taken only as the answer to what was asked.

use std::fmt;

use ketch_wire::{DecodeError, Reader, Writer};

/// Longest frame that is read, without its length, in bytes; OpenSSH's own bound.
pub const FRAME_LEN_MAX: usize = 256 * 1024;
/// Longest comment of a key that is read, in bytes.
const COMMENT_LEN_MAX: usize = 4 * 1024;

/// Message numbers (§5.1).
mod number {
    pub(super) const FAILURE: u8 = 5;
    pub(super) const SUCCESS: u8 = 6;
    pub(super) const REQUEST_IDENTITIES: u8 = 11;
    pub(super) const IDENTITIES_ANSWER: u8 = 12;
    pub(super) const SIGN_REQUEST: u8 = 13;
    pub(super) const SIGN_RESPONSE: u8 = 14;
    pub(super) const EXTENSION: u8 = 27;
    pub(super) const EXTENSION_FAILURE: u8 = 28;
    pub(super) const EXTENSION_RESPONSE: u8 = 29;
}

/// Name of the extension that binds a connection to an agent to a session (OpenSSH's
/// PROTOCOL.agent §1).
const SESSION_BIND: &[u8] = b"session-bind@openssh.com";

/// Which hash an RSA key signs with; other keys have no choice (§3.6.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SignFlags {
    /// What the key's type says; SHA-1 for RSA.
    #[default]
    None,
    /// `SSH_AGENT_RSA_SHA2_256`.
    RsaSha256,
    /// `SSH_AGENT_RSA_SHA2_512`.
    RsaSha512,
}

impl SignFlags {
    const fn bits(self) -> u32 {
        match self {
            Self::None => 0,
            Self::RsaSha256 => 2,
            Self::RsaSha512 => 4,
        }
    }
}

/// What an agent is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request<'a> {
    /// Which keys it holds (§3.5).
    Identities,
    /// To sign (§3.6).
    Sign {
        /// The public key, as a blob.
        key: &'a [u8],
        /// What to sign.
        data: &'a [u8],
        /// How.
        flags: SignFlags,
    },
    /// To take note of the server that signatures will be for: keys may be for some servers alone
    /// (`ssh-add -h`).
    Bind {
        /// The server's host key, as a blob.
        host_key: &'a [u8],
        /// The session identifier.
        session_id: &'a [u8],
        /// The host key's signature over that.
        signature: &'a [u8],
    },
}

impl Request<'_> {
    /// The whole frame.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        Writer::new(&mut frame).scope(|w| match *self {
            Self::Identities => w.u8(number::REQUEST_IDENTITIES),
            Self::Sign { key, data, flags } => {
                w.u8(number::SIGN_REQUEST);
                w.string(key);
                w.string(data);
                w.u32(flags.bits());
            }
            Self::Bind {
                host_key,
                session_id,
                signature,
            } => {
                w.u8(number::EXTENSION);
                w.string(SESSION_BIND);
                w.string(host_key);
                w.string(session_id);
                w.string(signature);
                w.bool(false); // it is no connection that forwards the agent
            }
        });
        frame
    }
}

/// Puts the bytes of a stream together to frames.
#[derive(Debug, Default)]
pub struct Frames {
    /// Grows as bytes come, never by a length that the agent names.
    bytes: Vec<u8>,
}

impl Frames {
    /// Takes what the stream gave.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether nothing is left over.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The payload of the next whole frame, if there is one.
    ///
    /// # Errors
    /// [`BadReply::TooLong`] as soon as its length is known.
    pub fn next_payload(&mut self) -> Result<Option<Vec<u8>>, BadReply> {
        let mut r = Reader::new(&self.bytes);
        let Ok(len) = r.u32() else {
            return Ok(None);
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > FRAME_LEN_MAX {
            return Err(BadReply::TooLong { len });
        }
        let Ok(payload) = r.bytes(len).map(<[u8]>::to_vec) else {
            return Ok(None);
        };
        self.bytes.drain(..len.saturating_add(4));
        Ok(Some(payload))
    }
}

/// A key that an agent lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listed<'a> {
    /// The public key or certificate, as a blob; its type may be one that nobody here knows.
    pub key: &'a [u8],
    /// What the user called it, as bytes: escape before showing.
    pub comment: &'a [u8],
}

/// The answer to [`Request::Identities`].
///
/// # Errors
/// [`BadReply`] for everything else.
pub fn decode_identities(payload: &[u8]) -> Result<Vec<Listed<'_>>, BadReply> {
    let mut r = reply(payload, number::IDENTITIES_ANSWER)?;
    let count = r.u32()?;
    let mut listed = Vec::new();
    for _ in 0..count {
        // A count beyond what is there ends here: each key has at least its lengths.
        listed.push(Listed {
            key: r.string(FRAME_LEN_MAX)?,
            comment: r.string(COMMENT_LEN_MAX)?,
        });
    }
    r.finish()?;
    Ok(listed)
}

/// The answer to [`Request::Sign`]: a signature blob, of which nothing is checked yet.
///
/// # Errors
/// [`BadReply`] for everything else.
pub fn decode_signature(payload: &[u8]) -> Result<&[u8], BadReply> {
    let mut r = reply(payload, number::SIGN_RESPONSE)?;
    let signature = r.string(FRAME_LEN_MAX)?;
    r.finish()?;
    Ok(signature)
}

/// The answer to [`Request::Bind`].
///
/// # Errors
/// [`BadReply`] for everything but consent.
pub fn decode_bound(payload: &[u8]) -> Result<(), BadReply> {
    let number = match payload.first() {
        Some(&number::EXTENSION_RESPONSE) => return Ok(()), // whatever it adds
        _ => number::SUCCESS,
    };
    Ok(reply(payload, number)?.finish()?)
}

/// The fields of a reply that has to be of one kind.
fn reply(payload: &[u8], expected: u8) -> Result<Reader<'_>, BadReply> {
    let mut r = Reader::new(payload);
    match r.u8()? {
        number if number == expected => Ok(r),
        number::FAILURE | number::EXTENSION_FAILURE => Err(BadReply::Refused),
        number => Err(BadReply::Unexpected { number }),
    }
}

/// Why a reply is not the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BadReply {
    /// The agent said that it does not do it.
    Refused,
    /// It answers something else.
    Unexpected {
        /// The number of its message.
        number: u8,
    },
    /// The reply does not hold what it should.
    Malformed(DecodeError),
    /// It announces a frame beyond [`FRAME_LEN_MAX`].
    TooLong {
        /// The length that it names.
        len: usize,
    },
}

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("it refused"),
            Self::Unexpected { number } => write!(f, "it answers with message {number}"),
            Self::Malformed(_) => f.write_str("its reply is malformed"),
            Self::TooLong { len } => write!(f, "it announces a reply of {len} bytes"),
        }
    }
}

impl std::error::Error for BadReply {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed(error) => Some(error),
            _ => None,
        }
    }
}

impl From<DecodeError> for BadReply {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn identities(listed: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut payload = vec![number::IDENTITIES_ANSWER];
        let mut w = Writer::new(&mut payload);
        w.u32(u32::try_from(listed.len()).unwrap());
        for (key, comment) in listed {
            w.string(key);
            w.string(comment);
        }
        payload
    }

    #[test]
    fn requests_are_as_the_draft_has_them() {
        assert_eq!(Request::Identities.to_frame(), [0, 0, 0, 1, 11]);
        let sign = Request::Sign {
            key: b"k",
            data: b"dd",
            flags: SignFlags::RsaSha512,
        };
        let expected = [
            &[0, 0, 0, 16, 13, 0, 0, 0, 1][..],
            b"k",
            &[0, 0, 0, 2],
            b"dd",
            &[0, 0, 0, 4],
        ];
        assert_eq!(sign.to_frame(), expected.concat());
    }

    #[test]
    fn a_session_is_bound_as_openssh_has_it() {
        let bind = Request::Bind {
            host_key: b"k",
            session_id: b"id",
            signature: b"s",
        };
        let expected = [
            &[0, 0, 0, 46, 27, 0, 0, 0, 24][..],
            b"session-bind@openssh.com",
            &[0, 0, 0, 1],
            b"k",
            &[0, 0, 0, 2],
            b"id",
            &[0, 0, 0, 1],
            b"s",
            &[0],
        ];
        assert_eq!(bind.to_frame(), expected.concat());
        assert_eq!(decode_bound(&[6]), Ok(()));
        assert_eq!(decode_bound(&[29]), Ok(()));
        for refused in [5, 28] {
            assert_eq!(decode_bound(&[refused]), Err(BadReply::Refused));
        }
        assert_eq!(
            decode_bound(&[12]),
            Err(BadReply::Unexpected { number: 12 })
        );
        assert!(decode_bound(&[]).is_err() && decode_bound(&[6, 0]).is_err());
    }

    #[test]
    fn a_frame_that_names_too_much_is_refused_by_its_length() {
        for len in [FRAME_LEN_MAX + 1, u32::MAX as usize] {
            let mut frames = Frames::default();
            frames.push(&u32::try_from(len).unwrap().to_be_bytes());
            assert_eq!(frames.next_payload(), Err(BadReply::TooLong { len }));
            assert!(frames.bytes.capacity() < 100);
        }
    }

    #[test]
    fn a_reply_counts_only_as_the_answer_to_what_was_asked() {
        let success = [6];
        let signature = [14, 0, 0, 0, 1, b's'];
        let list = identities(&[]);
        assert_eq!(
            decode_signature(&success),
            Err(BadReply::Unexpected { number: 6 })
        );
        assert_eq!(
            decode_signature(&list),
            Err(BadReply::Unexpected { number: 12 })
        );
        assert_eq!(
            decode_identities(&signature),
            Err(BadReply::Unexpected { number: 14 })
        );
        assert_eq!(decode_signature(&[5]), Err(BadReply::Refused));
        assert_eq!(decode_identities(&[28]), Err(BadReply::Refused));
        assert_eq!(decode_signature(&signature), Ok(&b"s"[..]));
        let empty = BadReply::Malformed(DecodeError::Truncated);
        assert_eq!(decode_signature(&[]), Err(empty));
    }

    #[test]
    fn a_count_of_keys_is_no_size_of_anything() {
        let payload = [12, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        let error = decode_identities(&payload).unwrap_err();
        assert_eq!(error, BadReply::Malformed(DecodeError::Truncated));
    }

    proptest! {
        #[test]
        fn every_list_survives_the_wire_however_it_is_cut(
            listed in vec((vec(any::<u8>(), 0..30), vec(any::<u8>(), 0..10)), 0..6),
            cut in 1_usize..20,
        ) {
            let payload = identities(&listed);
            let mut frame = Vec::new();
            Writer::new(&mut frame).string(&payload);
            let mut frames = Frames::default();
            let mut whole = None;
            for piece in frame.chunks(cut) {
                prop_assert_eq!(whole.take(), None);
                frames.push(piece);
                whole = frames.next_payload().unwrap();
            }
            prop_assert_eq!(whole.as_deref(), Some(&payload[..]));
            let read = decode_identities(&payload).unwrap();
            let read: Vec<_> =
                read.iter().map(|each| (each.key.to_vec(), each.comment.to_vec())).collect();
            prop_assert_eq!(read, listed);
            for cut in 0..payload.len() {
                prop_assert!(decode_identities(&payload[..cut]).is_err());
            }
        }

        #[test]
        fn no_reply_breaks_the_decoders(payload in vec(any::<u8>(), 0..100)) {
            let _ = decode_identities(&payload);
            let _ = decode_signature(&payload);
            let mut frames = Frames::default();
            frames.push(&payload);
            let _ = frames.next_payload();
        }
    }
}
