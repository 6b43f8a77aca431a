//! How a request ended: `SSH_FXP_STATUS` (draft-02 §7).

use std::fmt;

use crate::limits::PACKET_LEN_MAX;
use crate::{DecodeError, Escaped, Reader, Writer};

/// `SSH_FXP_STATUS`: how a request ended, or that it was carried out if it has no other reply.
///
/// Source: draft-ietf-secsh-filexfer-02 §7.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Status<'a> {
    /// What happened.
    pub code: StatusCode,
    /// What happened in the server's words: meant to be UTF-8, not promised. Empty if it was not
    /// sent.
    pub message: &'a [u8],
    /// Language of the message (RFC 1766), empty if it was not sent.
    pub language: &'a [u8],
}

impl<'a> Status<'a> {
    /// A status in our words, without a language.
    #[must_use]
    pub const fn new(code: StatusCode) -> Self {
        Self {
            code,
            message: code.text().as_bytes(),
            language: b"",
        }
    }

    /// A status with a message, without a language.
    #[must_use]
    pub const fn with_message(code: StatusCode, message: &'a str) -> Self {
        Self {
            code,
            message: message.as_bytes(),
            language: b"",
        }
    }

    /// Decodes the fields after the request id.
    ///
    /// Servers older than the draft send the code alone, others leave out the language: what is
    /// not there at all is empty.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if a field is cut.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let code = StatusCode(r.u32()?);
        let mut text = || {
            if r.is_empty() {
                Ok(&b""[..])
            } else {
                r.string(PACKET_LEN_MAX)
            }
        };
        Ok(Self {
            code,
            message: text()?,
            language: text()?,
        })
    }

    /// Appends the fields after the request id.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            code,
            message,
            language,
        } = *self;
        w.u32(code.0);
        w.string(message);
        w.string(language);
    }
}

impl fmt::Debug for Status<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status")
            .field("code", &self.code)
            .field("message", &Escaped(self.message))
            .field("language", &Escaped(self.language))
            .finish()
    }
}

/// The code of a [`Status`]. Unknown ones are kept.
///
/// Version 3 ends at 8. Servers that also speak later versions send higher codes in version 3
/// sessions too; they are named here as draft-ietf-secsh-filexfer-13 §9.1 has them.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StatusCode(pub u32);

macro_rules! status_codes {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl StatusCode {
            $(#[doc = concat!("`", stringify!($number), "`: ", $text, ".")]
            pub const $name: Self = Self($number);)*

            /// The code in words: one clause in lower case.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    _ => "unknown status",
                }
            }

            /// The name in the draft without its `SSH_FX_`; `None` for unknown codes.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

status_codes! {
    OK = 0, "success";
    EOF = 1, "end of file";
    NO_SUCH_FILE = 2, "no such file";
    PERMISSION_DENIED = 3, "permission denied";
    FAILURE = 4, "failure";
    BAD_MESSAGE = 5, "bad message";
    NO_CONNECTION = 6, "no connection";
    CONNECTION_LOST = 7, "connection lost";
    OP_UNSUPPORTED = 8, "operation not supported";
    INVALID_HANDLE = 9, "invalid handle";
    NO_SUCH_PATH = 10, "no such path";
    FILE_ALREADY_EXISTS = 11, "file already exists";
    WRITE_PROTECT = 12, "write-protected medium";
    NO_MEDIA = 13, "no medium";
    NO_SPACE_ON_FILESYSTEM = 14, "no space left";
    QUOTA_EXCEEDED = 15, "quota exceeded";
    UNKNOWN_PRINCIPAL = 16, "unknown user or group";
    LOCK_CONFLICT = 17, "file is locked";
    DIR_NOT_EMPTY = 18, "directory is not empty";
    NOT_A_DIRECTORY = 19, "not a directory";
    INVALID_FILENAME = 20, "invalid file name";
    LINK_LOOP = 21, "too many links";
    CANNOT_DELETE = 22, "cannot be deleted";
    INVALID_PARAMETER = 23, "invalid parameter";
    FILE_IS_A_DIRECTORY = 24, "is a directory";
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(_) => f.write_str(self.text()),
            None => write!(f, "status {}", self.0),
        }
    }
}

impl fmt::Debug for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "StatusCode({})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_that_were_not_sent_are_empty() {
        let code = StatusCode::NO_SUCH_FILE;
        let table: [(&[u8], &[u8], &[u8]); 4] = [
            (&[0, 0, 0, 2], b"", b""),
            (&[0, 0, 0, 2, 0, 0, 0, 2, b'n', b'o'], b"no", b""),
            (
                &[0, 0, 0, 2, 0, 0, 0, 2, b'n', b'o', 0, 0, 0, 2, b'e', b'n'],
                b"no",
                b"en",
            ),
            (&[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3], b"", b""),
        ];
        for (bytes, message, language) in table {
            let status = Status {
                code,
                message,
                language,
            };
            assert_eq!(Status::decode(Reader::new(bytes)), Ok(status));
        }
    }

    #[test]
    fn unknown_codes_are_kept() {
        let status = Status::decode(Reader::new(&[0, 0, 1, 0])).unwrap();
        assert_eq!(status.code, StatusCode(256));
        assert_eq!(status.code.name(), None);
        assert_eq!(status.code.to_string(), "status 256");
        assert_eq!(format!("{:?}", status.code), "StatusCode(256)");
        assert_eq!(StatusCode(14), StatusCode::NO_SPACE_ON_FILESYSTEM);
        assert_eq!(StatusCode(4).to_string(), "failure");
        assert_eq!(format!("{:?}", StatusCode(8)), "OP_UNSUPPORTED");
    }

    #[test]
    fn the_codes_of_version_3_have_the_numbers_of_draft_section_7() {
        let names = [
            "OK",
            "EOF",
            "NO_SUCH_FILE",
            "PERMISSION_DENIED",
            "FAILURE",
            "BAD_MESSAGE",
            "NO_CONNECTION",
            "CONNECTION_LOST",
            "OP_UNSUPPORTED",
        ];
        for (code, name) in (0..).zip(names) {
            assert_eq!(StatusCode(code).name(), Some(name));
        }
    }

    proptest! {
        #[test]
        fn every_status_survives_the_wire(
            code in any::<u32>(), message in any::<Vec<u8>>(), language in any::<Vec<u8>>(),
        ) {
            let status = Status { code: StatusCode(code), message: &message, language: &language };
            let mut bytes = Vec::new();
            status.encode(&mut Writer::new(&mut bytes));
            prop_assert_eq!(Status::decode(Reader::new(&bytes)), Ok(status));
            for cut in 0..bytes.len() {
                // A status may end before either text, and nowhere else.
                let whole = cut == 4 || cut == 8 + message.len();
                let read = Status::decode(Reader::new(&bytes[..cut]));
                prop_assert_eq!(read.is_ok(), whole, "cut at {}", cut);
            }
        }
    }
}
