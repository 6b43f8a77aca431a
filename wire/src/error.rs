//! What can be wrong with bytes that should be a value.

use std::fmt;

/// Why bytes are not the value that was expected.
///
/// The decoder never guesses: it stops at the first field that is not as the RFC has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the field does.
    Truncated,
    /// A length is above the maximum that the reader of this field allows (both in bytes).
    TooLong {
        /// Length that the bytes name.
        len: usize,
        /// Longest that is allowed here.
        max: usize,
    },
    /// Bytes are left over after the last field.
    Trailing {
        /// How many.
        len: usize,
    },
    /// A name-list holds an empty name, a name that is too long, too many names, or bytes that
    /// are not printable US-ASCII (RFC 4251 §5 and §6).
    BadName,
    /// An mpint is negative where only positive ones make sense, or not in its shortest form
    /// (RFC 4251 §5).
    BadMpint,
    /// A text is not UTF-8 where the RFC asks for it.
    NotUtf8,
    /// A field has a value that the message cannot have.
    BadValue {
        /// Name of the field in the RFC.
        field: &'static str,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated => f.write_str("the bytes end inside a field"),
            Self::TooLong { len, max } => {
                write!(
                    f,
                    "a field of {len} bytes is longer than the {max} allowed here"
                )
            }
            Self::Trailing { len } => write!(f, "{len} bytes are left over after the last field"),
            Self::BadName => f.write_str("a name-list holds a name that is no name"),
            Self::BadMpint => f.write_str("an mpint is negative or not in its shortest form"),
            Self::NotUtf8 => f.write_str("a text is not UTF-8"),
            Self::BadValue { field } => write!(f, "the field `{field}` has an impossible value"),
        }
    }
}

impl std::error::Error for DecodeError {}
