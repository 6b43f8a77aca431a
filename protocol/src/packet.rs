//! The packet: length, type, and for all but the greeting a request id (draft-02 §3 and §4).

use std::fmt;

use crate::Writer;

/// Number that a client gives a request and finds in the reply.
pub type RequestId = u32;

/// Bytes of the length field in front of every packet.
pub(crate) const LENGTH_LEN: usize = 4;
/// Bytes of the length field and the type.
pub(crate) const PREFIX_LEN: usize = 5;

/// The kind of a packet (draft-02 §3). Unknown ones are kept.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PacketType(pub u8);

macro_rules! packet_types {
    ($($name:ident = $number:literal, $doc:literal;)*) => {
        impl PacketType {
            $(#[doc = $doc] pub const $name: Self = Self($number);)*

            /// The name in the draft without its `SSH_FXP_`; `None` for unknown types.
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

packet_types! {
    INIT = 1, "The client's greeting (§4).";
    VERSION = 2, "The server's greeting (§4).";
    OPEN = 3, "Opens or creates a file (§6.3).";
    CLOSE = 4, "Closes a handle (§6.3).";
    READ = 5, "Asks for bytes of a file (§6.4).";
    WRITE = 6, "Writes bytes into a file (§6.4).";
    LSTAT = 7, "Asks for attributes, of a link itself (§6.8).";
    FSTAT = 8, "Asks for attributes of an open file (§6.8).";
    SETSTAT = 9, "Sets attributes (§6.9).";
    FSETSTAT = 10, "Sets attributes of an open file (§6.9).";
    OPENDIR = 11, "Opens a directory (§6.7).";
    READDIR = 12, "Asks for the next entries of a directory (§6.7).";
    REMOVE = 13, "Removes a file (§6.5).";
    MKDIR = 14, "Creates a directory (§6.6).";
    RMDIR = 15, "Removes an empty directory (§6.6).";
    REALPATH = 16, "Asks for an absolute path (§6.11).";
    STAT = 17, "Asks for attributes, of what a link names (§6.8).";
    RENAME = 18, "Renames (§6.5).";
    READLINK = 19, "Asks where a link points (§6.10).";
    SYMLINK = 20, "Creates a link (§6.10).";
    STATUS = 101, "How a request ended (§7).";
    HANDLE = 102, "A handle (§7).";
    DATA = 103, "Bytes of a file (§7).";
    NAME = 104, "Names (§7).";
    ATTRS = 105, "Attributes (§7).";
    EXTENDED = 200, "A request beyond the draft, told by its name (§8).";
    EXTENDED_REPLY = 201, "The reply to such a request (§8).";
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "packet type {}", self.0),
        }
    }
}

/// Appends a whole packet with the length in front; `number` is the request id, or the version in
/// a greeting.
pub(crate) fn encode_packet(
    packet_type: PacketType,
    number: u32,
    out: &mut Vec<u8>,
    fields: impl FnOnce(&mut Writer<'_>),
) {
    Writer::new(out).scope(|w| {
        w.u8(packet_type.0);
        w.u32(number);
        fields(w);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_shown_by_name_and_unknown_ones_by_number() {
        assert_eq!(PacketType(103), PacketType::DATA);
        assert_eq!(PacketType(103).to_string(), "DATA");
        assert_eq!(PacketType(99).to_string(), "packet type 99");
    }
}
