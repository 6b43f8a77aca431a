//! The client's view: `VERSION` once, then replies.

use super::{Body, Part, Step};
use crate::framer::Framer;
use crate::{DecodeError, Limits, PacketType, ProtocolError, Reader, RequestId, Response, Version};

/// What a client sees in the stream from the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReplyEvent<'s> {
    /// The greeting: always the first event, and never again.
    Version(Version<'s>),
    /// A reply to a request: every kind but `DATA`.
    Reply {
        /// Number of the request.
        id: RequestId,
        /// The reply.
        response: Response<'s>,
    },
    /// A `DATA` packet begins: pieces of `len` bytes in all follow, then [`DataEnd`](Self::DataEnd).
    DataStart {
        /// Number of the request.
        id: RequestId,
        /// Bytes of the file in this packet.
        len: u32,
    },
    /// Bytes of the file.
    DataPiece {
        /// Number of the request.
        id: RequestId,
        /// Where the piece lies among the bytes of this packet.
        offset: u32,
        /// The bytes, at least one: always the last ones of the input that this step consumed.
        bytes: &'s [u8],
    },
    /// All bytes of the `DATA` packet were handed on.
    DataEnd {
        /// Number of the request.
        id: RequestId,
    },
    /// A packet that is no reply was skipped (Tectia was seen to send an `EXTENDED` request):
    /// worth a log line, and no request is answered by it.
    Skipped {
        /// Type of the packet.
        packet_type: PacketType,
    },
}

/// Decodes the stream from a server, for a client.
///
/// Whether a reply answers a request that was asked, and whether it is of a kind that may, is left
/// to the caller, who knows the requests.
#[derive(Debug)]
pub struct ReplyDecoder {
    framer: Framer,
    body: Option<Body>,
}

/// Bytes of a `DATA` after its type and before its body: id and length.
const DATA_HEAD_LEN: usize = 8;

impl ReplyDecoder {
    /// Expects the stream from its first byte on.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            framer: Framer::new(limits, head_len),
            body: None,
        }
    }

    /// Takes the next event out of `input`; to be called again with what was not consumed until
    /// there is none.
    ///
    /// # Errors
    /// [`ProtocolError`] if the server broke the protocol. The stream cannot be read on.
    pub fn next<'s>(&'s mut self, input: &'s [u8]) -> Result<Step<ReplyEvent<'s>>, ProtocolError> {
        if let Some(body) = &mut self.body {
            let (id, surplus) = (body.id, body.surplus);
            return Ok(match body.next(input) {
                None => Step::wait(input),
                Some(Part::Piece { offset, bytes }) => {
                    Step::event(bytes.len(), ReplyEvent::DataPiece { id, offset, bytes })
                }
                Some(Part::End) => {
                    self.body = None;
                    self.framer.body_ended(surplus);
                    Step::event(0, ReplyEvent::DataEnd { id })
                }
            });
        }
        let Some(head) = self.framer.head(input)? else {
            return Ok(Step::wait(input));
        };
        let packet_type = head.packet_type;
        if self.framer.take_first() != (packet_type == PacketType::VERSION) {
            return Err(ProtocolError::OutOfTurn { packet_type });
        }
        let mut r = Reader::new(self.framer.bytes(&head, input));
        let malformed = |id, source| ProtocolError::Malformed {
            packet_type,
            id,
            source,
        };
        let event = match packet_type {
            PacketType::VERSION => {
                ReplyEvent::Version(Version::decode(r).map_err(|error| malformed(None, error))?)
            }
            _ if head_len(packet_type, &[]) == Some(0) => ReplyEvent::Skipped { packet_type },
            _ => {
                let id = r.u32().map_err(|error| malformed(None, error))?;
                if packet_type == PacketType::DATA {
                    let len = r.u32().map_err(|error| malformed(Some(id), error))?;
                    // Servers were seen to send more than the length says; never less.
                    let surplus = usize::try_from(len)
                        .ok()
                        .and_then(|len| head.rest.checked_sub(len));
                    let surplus =
                        surplus.ok_or_else(|| malformed(Some(id), DecodeError::Truncated))?;
                    self.body = Some(Body {
                        id,
                        offset: 0,
                        left: len,
                        surplus,
                    });
                    ReplyEvent::DataStart { id, len }
                } else {
                    let response = Response::decode(packet_type, r)
                        .map_err(|error| malformed(Some(id), error))?;
                    ReplyEvent::Reply { id, response }
                }
            }
        };
        Ok(Step::event(head.consumed, event))
    }
}

/// Replies are brought together, of `DATA` the fields before the body, of all else the type.
const fn head_len(packet_type: PacketType, _fields: &[u8]) -> Option<usize> {
    match packet_type {
        PacketType::DATA => Some(DATA_HEAD_LEN),
        PacketType::VERSION
        | PacketType::STATUS
        | PacketType::HANDLE
        | PacketType::NAME
        | PacketType::ATTRS
        | PacketType::EXTENDED_REPLY => None,
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Data, Pairs, Status, StatusCode};

    const GREETING: &[u8] = b"\0\0\0\x05\x02\0\0\0\x03";

    /// A decoder that has seen the greeting.
    fn greeted() -> ReplyDecoder {
        let mut decoder = ReplyDecoder::new(Limits::default());
        let version = Version {
            version: 3,
            extensions: Pairs::EMPTY,
        };
        let step = decoder.next(GREETING).unwrap();
        assert_eq!(
            step,
            Step::event(GREETING.len(), ReplyEvent::Version(version))
        );
        decoder
    }

    #[test]
    fn data_is_handed_on_from_where_it_lies() {
        let mut bytes = Vec::new();
        Response::Data(Data { data: b"abcdef" }).encode_packet(7, &mut bytes);
        let mut decoder = greeted();
        let (first, second) = bytes.split_at(15);

        let step = decoder.next(first).unwrap();
        assert_eq!(
            step,
            Step::event(13, ReplyEvent::DataStart { id: 7, len: 6 })
        );
        let step = decoder.next(&first[13..]).unwrap();
        let Some(ReplyEvent::DataPiece {
            id: 7,
            offset: 0,
            bytes,
        }) = step.event
        else {
            panic!("{step:?}");
        };
        assert_eq!(
            bytes.as_ptr_range(),
            first[13..].as_ptr_range(),
            "lent, not copied"
        );
        assert_eq!(decoder.next(&[]), Ok(Step::wait(&[])));

        let step = decoder.next(second).unwrap();
        let piece = ReplyEvent::DataPiece {
            id: 7,
            offset: 2,
            bytes: b"cdef",
        };
        assert_eq!(step, Step::event(4, piece));
        assert_eq!(
            decoder.next(&[]),
            Ok(Step::event(0, ReplyEvent::DataEnd { id: 7 }))
        );
        assert_eq!(decoder.next(&[]), Ok(Step::wait(&[])));
    }

    #[test]
    fn data_of_no_bytes_begins_and_ends() {
        let mut decoder = greeted();
        let step = decoder.next(b"\0\0\0\x09\x67\0\0\0\x07\0\0\0\0").unwrap();
        assert_eq!(
            step,
            Step::event(13, ReplyEvent::DataStart { id: 7, len: 0 })
        );
        assert_eq!(
            decoder.next(&[]),
            Ok(Step::event(0, ReplyEvent::DataEnd { id: 7 }))
        );
    }

    #[test]
    fn bytes_after_the_data_are_skipped() {
        let mut bytes = b"\0\0\0\x0e\x67\0\0\0\x07\0\0\0\x02ab???".to_vec();
        Response::Handle(b"h").encode_packet(8, &mut bytes);
        let mut decoder = greeted();
        let mut input = &bytes[..];
        let mut events = Vec::new();
        while let Step {
            consumed,
            event: Some(event),
        } = decoder.next(input).unwrap()
        {
            input = &input[consumed..];
            events.push(format!("{event:?}"));
        }
        assert_eq!(events.len(), 4, "{events:#?}");
        assert!(events[3].contains("Handle"), "{events:#?}");
    }

    #[test]
    fn data_longer_than_its_packet_is_malformed() {
        let malformed = ProtocolError::Malformed {
            packet_type: PacketType::DATA,
            id: Some(7),
            source: DecodeError::Truncated,
        };
        for bytes in [
            &b"\0\0\0\x0a\x67\0\0\0\x07\0\0\0\x02a"[..],
            b"\0\0\0\x09\x67\0\0\0\x07\xff\xff\xff\xff",
            b"\0\0\0\x07\x67\0\0\0\x07\0\0",
        ] {
            assert_eq!(greeted().next(bytes), Err(malformed.clone()));
        }
    }

    #[test]
    fn the_greeting_comes_first_and_once() {
        let mut status = Vec::new();
        Response::Status(Status::new(StatusCode::OK)).encode_packet(1, &mut status);
        let out_of_turn = |packet_type| Err(ProtocolError::OutOfTurn { packet_type });
        let mut decoder = ReplyDecoder::new(Limits::default());
        assert_eq!(decoder.next(&status), out_of_turn(PacketType::STATUS));
        assert_eq!(greeted().next(GREETING), out_of_turn(PacketType::VERSION));
    }

    #[test]
    fn text_before_the_greeting_is_reported() {
        let text = b"Welcome to \x1b[1mbank\x1b[0m!\n";
        for cut in 0..text.len() {
            let mut decoder = ReplyDecoder::new(Limits::default());
            let (first, second) = text.split_at(cut);
            if cut < 4 {
                assert_eq!(decoder.next(first), Ok(Step::wait(first)));
            }
            let error = decoder.next(if cut < 4 { second } else { first });
            let Err(ProtocolError::NotSftp { text }) = error else {
                panic!("{error:?}")
            };
            assert!(
                r"Welcome to \u{1b}[1mbank\u{1b}[0m!\u{a}".starts_with(&text),
                "{text}"
            );
            assert!(text.len() >= 4);
        }
    }

    #[test]
    fn long_text_is_reported_in_part() {
        let mut decoder = ReplyDecoder::new(Limits::default());
        let Err(ProtocolError::NotSftp { text }) = decoder.next(&[b'x'; 10_000]) else {
            panic!("text was taken for SFTP");
        };
        assert_eq!(text.len(), ProtocolError::TEXT_LEN_MAX);
    }

    #[test]
    fn the_longest_packet_is_taken_and_no_longer() {
        let limits = Limits::new().packet_len(20);
        let mut decoder = ReplyDecoder::new(limits);
        decoder.next(GREETING).unwrap();
        let mut bytes = Vec::new();
        Response::ExtendedReply(&[1; 15]).encode_packet(1, &mut bytes);
        assert!(decoder.next(&bytes).unwrap().event.is_some());
        bytes.clear();
        Response::ExtendedReply(&[1; 16]).encode_packet(1, &mut bytes);
        let too_long = ProtocolError::PacketTooLong { len: 21, max: 20 };
        assert_eq!(
            decoder.next(&bytes[..4]),
            Err(too_long),
            "seen with the length's last byte"
        );
        assert_eq!(greeted().next(&[0; 4]), Err(ProtocolError::PacketEmpty));
    }

    #[test]
    fn a_packet_that_is_no_reply_is_skipped() {
        let mut bytes = b"\0\0\0\x0e\xc8\0\0\0\0\0\0\0\x05x@y.z".to_vec();
        Response::Handle(b"h").encode_packet(8, &mut bytes);
        let mut decoder = greeted();
        let step = decoder.next(&bytes).unwrap();
        let skipped = ReplyEvent::Skipped {
            packet_type: PacketType::EXTENDED,
        };
        assert_eq!(step, Step::event(5, skipped));
        let step = decoder.next(&bytes[5..]).unwrap();
        let response = Response::Handle(b"h");
        assert_eq!(
            step,
            Step::event(bytes.len() - 5, ReplyEvent::Reply { id: 8, response })
        );
    }

    #[test]
    fn a_malformed_reply_says_whose_it_is() {
        let malformed = |id| ProtocolError::Malformed {
            packet_type: PacketType::HANDLE,
            id,
            source: DecodeError::Truncated,
        };
        assert_eq!(
            greeted().next(b"\0\0\0\x06\x66\0\0\0\x07?"),
            Err(malformed(Some(7)))
        );
        assert_eq!(greeted().next(b"\0\0\0\x03\x66\0\0"), Err(malformed(None)));
    }
}
