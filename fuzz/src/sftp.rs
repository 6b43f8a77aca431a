//! Every SFTP packet (draft-ietf-secsh-filexfer-02): what decodes is encoded and decodes the same.

use ketch_protocol::{
    Init, PacketType, Reader, Request, Response, ServerLimits, StatVfs, UsersGroups, Version,
    WatchReply, Writer,
};

/// A packet from a client: the type, then the fields after the request id.
pub fn sftp_request(data: &[u8]) {
    let Some((&number, fields)) = data.split_first() else {
        return;
    };
    let packet_type = PacketType(number);
    if packet_type == PacketType::INIT {
        let Ok(init) = Init::decode(Reader::new(fields)) else {
            return;
        };
        let again = encoded(|w| init.encode(w));
        assert_eq!(again, fields);
        return;
    }
    let Ok(request) = Request::decode(packet_type, Reader::new(fields)) else {
        return;
    };
    assert_eq!(request.packet_type(), packet_type);
    walk(&request);
    let again = encoded(|w| request.encode(w));
    assert_eq!(
        Request::decode(packet_type, Reader::new(&again)),
        Ok(request)
    );
    let mut packet = Vec::new();
    request.encode_packet(7, &mut packet);
    assert_eq!(
        packet.get(9..),
        Some(&again[..]),
        "length, type and id stand in front"
    );
}

/// A packet from a server: the type, then the fields after the request id.
pub fn sftp_reply(data: &[u8]) {
    let Some((&number, fields)) = data.split_first() else {
        return;
    };
    let packet_type = PacketType(number);
    if packet_type == PacketType::VERSION {
        let Ok(version) = Version::decode(Reader::new(fields)) else {
            return;
        };
        assert_eq!(encoded(|w| version.encode(w)), fields);
        return;
    }
    let Ok(response) = Response::decode(packet_type, Reader::new(fields)) else {
        return;
    };
    assert_eq!(response.packet_type(), packet_type);
    walk(&response);
    if let Response::ExtendedReply(data) = response
        && let Ok(reply) = WatchReply::decode(Reader::new(data))
    {
        let again = encoded(|w| reply.encode(w));
        assert_eq!(WatchReply::decode(Reader::new(&again)), Ok(reply));
    }
    // Replies are read leniently: what was passed over is not written again.
    let again = encoded(|w| response.encode(w));
    assert_eq!(
        Response::decode(packet_type, Reader::new(&again)),
        Ok(response)
    );
    if let Response::ExtendedReply(data) = response {
        extended_reply(data);
    }
}

/// The replies that only extensions have: the request says which, the packet does not.
fn extended_reply(data: &[u8]) {
    if let Ok(reply) = StatVfs::decode(Reader::new(data)) {
        let again = encoded(|w| reply.encode(w));
        assert_eq!(StatVfs::decode(Reader::new(&again)), Ok(reply));
    }
    if let Ok(reply) = ServerLimits::decode(Reader::new(data)) {
        let again = encoded(|w| reply.encode(w));
        assert_eq!(ServerLimits::decode(Reader::new(&again)), Ok(reply));
    }
    if let Ok(reply) = UsersGroups::decode(Reader::new(data)) {
        let again = encoded(|w| reply.encode(w));
        assert_eq!(UsersGroups::decode(Reader::new(&again)), Ok(reply));
    }
}

/// Printing walks all lists and escapes all names.
fn walk(message: &impl std::fmt::Debug) {
    let text = format!("{message:?}");
    assert!(text.chars().all(|c| !c.is_control()), "escaped: {text}");
}

fn encoded(encode: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut Writer::new(&mut bytes));
    bytes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ketch_protocol::{
        Attrs, Close, Data, Extension, ExtensionName, Fsetstat, NameEntry, Names, Open, OpenFlags,
        Pairs, PosixRename, Read, Stat, Status, StatusCode, Write,
    };

    const ATTRS: Attrs = Attrs {
        size: Some(5),
        ..Attrs::with_permissions(0o100_644)
    };

    /// A few good requests, each a whole packet.
    pub(crate) fn requests() -> Vec<Vec<u8>> {
        let requests = [
            Request::Open(Open {
                path: b"/a",
                flags: OpenFlags::READ,
                attrs: Attrs::NONE.into(),
            }),
            Request::Read(Read {
                handle: b"h",
                offset: 1,
                len: 2,
            }),
            Request::Write(Write {
                handle: b"h",
                offset: 9,
                data: b"some bytes",
            }),
            Request::Write(Write {
                handle: b"handle",
                offset: 0,
                data: b"",
            }),
            Request::Fsetstat(Fsetstat {
                handle: b"h",
                attrs: ATTRS.into(),
            }),
            Request::Stat(Stat { path: b"/a\n" }),
            Request::Extended(Extension::PosixRename(PosixRename {
                from: b"/a",
                to: b"/b",
            })),
            Request::Extended(Extension::Limits),
            Request::Extended(Extension::Unknown {
                name: b"x@y",
                data: b"z",
            }),
            Request::Close(Close { handle: b"h" }),
        ];
        packets(&requests, |request, id, out| request.encode_packet(id, out))
    }

    /// A few good replies, each a whole packet.
    pub(crate) fn replies() -> Vec<Vec<u8>> {
        let entry = NameEntry {
            filename: b"f",
            longname: b"-rw f",
            attrs: ATTRS.into(),
        };
        let entries = [entry, entry];
        let replies = [
            Response::Status(Status::with_message(StatusCode::EOF, "end")),
            Response::Handle(b"h"),
            Response::Data(Data {
                data: b"some bytes",
            }),
            Response::Data(Data { data: b"" }),
            Response::Name(Names::new(&entries)),
            Response::Attrs(ATTRS.into()),
            Response::ExtendedReply(&[0; 88]),
        ];
        packets(&replies, |reply, id, out| reply.encode_packet(id, out))
    }

    /// `VERSION` with two extensions, a whole packet.
    pub(crate) fn version() -> Vec<u8> {
        let pairs = [ExtensionName::Limits.pair(), ExtensionName::CopyData.pair()];
        let mut packet = Vec::new();
        Version {
            version: 3,
            extensions: Pairs::new(&pairs),
        }
        .encode_packet(&mut packet);
        packet
    }

    /// `INIT`, a whole packet.
    pub(crate) fn init() -> Vec<u8> {
        let mut packet = Vec::new();
        Init {
            version: 3,
            extensions: Pairs::EMPTY,
        }
        .encode_packet(&mut packet);
        packet
    }

    fn packets<T>(messages: &[T], encode: impl Fn(&T, u32, &mut Vec<u8>)) -> Vec<Vec<u8>> {
        let one = |(id, message)| {
            let mut packet = Vec::new();
            encode(message, id, &mut packet);
            packet
        };
        (0..).zip(messages).map(one).collect()
    }

    /// Type and fields of a packet, without its length and id.
    fn without_id(packet: &[u8]) -> Vec<u8> {
        [&packet[4..5], &packet[9..]].concat()
    }

    #[test]
    fn good_packets_pass_whole_and_cut() {
        sftp_request(&init()[4..]);
        sftp_reply(&version()[4..]);
        for packet in requests() {
            let data = without_id(&packet);
            assert!(Request::decode(PacketType(data[0]), Reader::new(&data[1..])).is_ok());
            (0..=data.len()).for_each(|cut| sftp_request(&data[..cut]));
        }
        for packet in replies() {
            let data = without_id(&packet);
            assert!(Response::decode(PacketType(data[0]), Reader::new(&data[1..])).is_ok());
            (0..=data.len()).for_each(|cut| sftp_reply(&data[..cut]));
        }
    }
}
