//! The server's view: `INIT` once, then requests.

use super::{Body, Part, Step};
use crate::framer::Framer;
use crate::limits::HANDLE_LEN_MAX;
use crate::{DecodeError, Init, Limits, PacketType, ProtocolError, Reader, Request, RequestId};

/// What a server sees in the stream from the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestEvent<'s> {
    /// The greeting: always the first event, and never again.
    Init(Init<'s>),
    /// A request: every kind but `WRITE`.
    Request {
        /// Number of the request.
        id: RequestId,
        /// The request.
        request: Request<'s>,
    },
    /// A `WRITE` begins: pieces of `len` bytes in all follow, then [`WriteEnd`](Self::WriteEnd).
    WriteStart {
        /// Number of the request.
        id: RequestId,
        /// Handle of the file.
        handle: &'s [u8],
        /// Where the first byte goes, counted from the start of the file.
        offset: u64,
        /// Bytes to write in this packet.
        len: u32,
    },
    /// Bytes to write.
    WritePiece {
        /// Number of the request.
        id: RequestId,
        /// Where the piece lies among the bytes of this packet.
        offset: u32,
        /// The bytes, at least one: always the last ones of the input that this step consumed.
        bytes: &'s [u8],
    },
    /// All bytes of the `WRITE` were handed on.
    WriteEnd {
        /// Number of the request.
        id: RequestId,
    },
    /// A request that cannot be carried out as it stands. The packet was skipped and the stream can
    /// be read on: the answer is a `STATUS`, and whether the session goes on is the server's
    /// choice.
    Refused {
        /// Number of the request.
        id: RequestId,
        /// Type of the packet.
        packet_type: PacketType,
        /// What is wrong.
        why: Refusal,
    },
}

/// Why a request cannot be carried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// No request has this type: `OP_UNSUPPORTED`.
    UnknownType,
    /// A field is not as it should be: `BAD_MESSAGE`. Too long a path is
    /// [`DecodeError::TooLong`].
    Malformed(DecodeError),
}

/// Decodes the stream from a client, for a server.
#[derive(Debug)]
pub struct RequestDecoder {
    framer: Framer,
    body: Option<Body>,
}

/// Bytes of a request id.
const ID_LEN: usize = 4;
/// Bytes of a `WRITE` after its type and before its body, the handle aside: id, length of the
/// handle, offset, length of the data.
const WRITE_HEAD_LEN: usize = 20;

impl RequestDecoder {
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
    /// [`ProtocolError`] if the client broke the protocol so that it cannot even be answered. The
    /// stream cannot be read on.
    pub fn next<'s>(
        &'s mut self,
        input: &'s [u8],
    ) -> Result<Step<RequestEvent<'s>>, ProtocolError> {
        if let Some(body) = &mut self.body {
            let (id, surplus) = (body.id, body.surplus);
            return Ok(match body.next(input) {
                None => Step::wait(input),
                Some(Part::Piece { offset, bytes }) => {
                    Step::event(bytes.len(), RequestEvent::WritePiece { id, offset, bytes })
                }
                Some(Part::End) => {
                    self.body = None;
                    self.framer.body_ended(surplus);
                    Step::event(0, RequestEvent::WriteEnd { id })
                }
            });
        }
        let Some(head) = self.framer.head(input)? else {
            return Ok(Step::wait(input));
        };
        let packet_type = head.packet_type;
        if self.framer.take_first() != (packet_type == PacketType::INIT) {
            return Err(ProtocolError::OutOfTurn { packet_type });
        }
        let mut r = Reader::new(self.framer.bytes(&head, input));
        let malformed = |source| ProtocolError::Malformed {
            packet_type,
            id: None,
            source,
        };
        if packet_type == PacketType::INIT {
            let init = Init::decode(r).map_err(malformed)?;
            return Ok(Step::event(head.consumed, RequestEvent::Init(init)));
        }
        let id = r.u32().map_err(malformed)?;
        let refused = |why| RequestEvent::Refused {
            id,
            packet_type,
            why,
        };
        let event = match packet_type {
            PacketType::WRITE => match decode_write(r, head.rest) {
                Ok(WriteHead {
                    handle,
                    offset,
                    len,
                    surplus,
                }) => {
                    self.body = Some(Body {
                        id,
                        offset: 0,
                        left: len,
                        surplus,
                    });
                    RequestEvent::WriteStart {
                        id,
                        handle,
                        offset,
                        len,
                    }
                }
                Err(error) => refused(Refusal::Malformed(error)),
            },
            _ if head_len(packet_type, &[]).is_some() => refused(Refusal::UnknownType),
            _ => match Request::decode(packet_type, r) {
                Ok(request) => RequestEvent::Request { id, request },
                Err(error) => refused(Refusal::Malformed(error)),
            },
        };
        Ok(Step::event(head.consumed, event))
    }
}

/// The fields of a `WRITE` before its body.
struct WriteHead<'s> {
    handle: &'s [u8],
    offset: u64,
    len: u32,
    /// Bytes of the packet after the body.
    surplus: usize,
}

/// Decodes the fields between id and body, which has to fit into the `rest` of the packet.
///
/// Bytes behind it are passed over, as OpenSSH's server does: Go's pkg/sftp up to 1.13.5, and so the
/// rclone of many distributions, sends its whole buffer and names as much of it as counts.
fn decode_write(mut r: Reader<'_>, rest: usize) -> Result<WriteHead<'_>, DecodeError> {
    let (handle, offset, len) = (r.string(HANDLE_LEN_MAX)?, r.u64()?, r.u32()?);
    let body = usize::try_from(len).unwrap_or(usize::MAX);
    let surplus = rest.checked_sub(body).ok_or(DecodeError::Truncated)?;
    Ok(WriteHead {
        handle,
        offset,
        len,
        surplus,
    })
}

/// Requests are brought together, of `WRITE` the fields before the body, of all else the id.
fn head_len(packet_type: PacketType, fields: &[u8]) -> Option<usize> {
    match packet_type {
        PacketType::WRITE => {
            let handle_len = fields.get(ID_LEN..).and_then(|rest| rest.first_chunk());
            let handle_len = handle_len.map_or(0, |len| u32::from_be_bytes(*len));
            // A handle that is too long is refused when the fields before it are there.
            let handle_len = usize::try_from(handle_len)
                .ok()
                .filter(|&len| len <= HANDLE_LEN_MAX);
            Some(handle_len.unwrap_or(0).saturating_add(WRITE_HEAD_LEN))
        }
        PacketType::INIT | PacketType::EXTENDED => None,
        PacketType(number) if (PacketType::OPEN.0..=PacketType::SYMLINK.0).contains(&number) => {
            None
        }
        _ => Some(ID_LEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PATH_LEN_MAX;
    use crate::{Pairs, Stat, Write};

    const GREETING: &[u8] = b"\0\0\0\x05\x01\0\0\0\x03";

    /// A decoder that has seen the greeting.
    fn greeted() -> RequestDecoder {
        let mut decoder = RequestDecoder::new(Limits::default());
        let init = Init {
            version: 3,
            extensions: Pairs::EMPTY,
        };
        let step = decoder.next(GREETING).unwrap();
        assert_eq!(step, Step::event(GREETING.len(), RequestEvent::Init(init)));
        decoder
    }

    /// All events of `input`, in words.
    fn events(decoder: &mut RequestDecoder, mut input: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        loop {
            let step = decoder.next(input).unwrap();
            input = &input[step.consumed..];
            match step.event {
                Some(event) => events.push(format!("{event:?}")),
                None => break,
            }
        }
        assert!(input.is_empty());
        events
    }

    #[test]
    fn a_write_is_handed_on_from_where_it_lies() {
        let mut bytes = Vec::new();
        Request::Write(Write {
            handle: b"h1",
            offset: 5,
            data: b"abcdef",
        })
        .encode_packet(7, &mut bytes);
        let (first, second) = bytes.split_at(Write::header_len(2) + 2);
        let mut decoder = greeted();

        let step = decoder.next(first).unwrap();
        let start = RequestEvent::WriteStart {
            id: 7,
            handle: b"h1",
            offset: 5,
            len: 6,
        };
        assert_eq!(step, Step::event(Write::header_len(2), start));
        let consumed = step.consumed;
        let step = decoder.next(&first[consumed..]).unwrap();
        let Some(RequestEvent::WritePiece {
            id: 7,
            offset: 0,
            bytes,
        }) = step.event
        else {
            panic!("{step:?}");
        };
        assert_eq!(
            bytes.as_ptr_range(),
            first[consumed..].as_ptr_range(),
            "lent, not copied"
        );

        let step = decoder.next(second).unwrap();
        let piece = RequestEvent::WritePiece {
            id: 7,
            offset: 2,
            bytes: b"cdef",
        };
        assert_eq!(step, Step::event(4, piece));
        assert_eq!(
            decoder.next(&[]),
            Ok(Step::event(0, RequestEvent::WriteEnd { id: 7 }))
        );
        assert_eq!(decoder.next(&[]), Ok(Step::wait(&[])));
    }

    #[test]
    fn a_write_head_that_is_cut_is_brought_together() {
        let mut bytes = Vec::new();
        let handle = [b'h'; HANDLE_LEN_MAX];
        Request::Write(Write {
            handle: &handle,
            offset: 5,
            data: b"ab",
        })
        .encode_packet(7, &mut bytes);
        for cut in 1..Write::header_len(HANDLE_LEN_MAX) {
            let mut decoder = greeted();
            let (first, second) = bytes.split_at(cut);
            assert_eq!(decoder.next(first), Ok(Step::wait(first)));
            let step = decoder.next(second).unwrap();
            let start = RequestEvent::WriteStart {
                id: 7,
                handle: &handle,
                offset: 5,
                len: 2,
            };
            assert_eq!(
                step,
                Step::event(Write::header_len(HANDLE_LEN_MAX) - cut, start)
            );
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_and_the_stream_read_on() {
        let long = vec![b'p'; PATH_LEN_MAX + 1];
        let mut stat = Vec::new();
        Request::Stat(Stat { path: &long }).encode_packet(7, &mut stat);
        let mut write = Vec::new();
        Request::Write(Write {
            handle: &[1; HANDLE_LEN_MAX + 1],
            offset: 0,
            data: b"abc",
        })
        .encode_packet(7, &mut write);
        let write_type = PacketType::WRITE;
        let malformed = Refusal::Malformed;
        let table: [(&[u8], PacketType, Refusal); 6] = [
            (
                b"\0\0\0\x09\x63\0\0\0\x07????",
                PacketType(0x63),
                Refusal::UnknownType,
            ),
            (
                b"\0\0\0\x05\x65\0\0\0\x07",
                PacketType::STATUS,
                Refusal::UnknownType,
            ),
            (
                b"\0\0\0\x06\x11\0\0\0\x07?",
                PacketType::STAT,
                malformed(DecodeError::Truncated),
            ),
            (
                &stat,
                PacketType::STAT,
                malformed(DecodeError::TooLong {
                    len: PATH_LEN_MAX + 1,
                    max: PATH_LEN_MAX,
                }),
            ),
            (
                &write,
                write_type,
                malformed(DecodeError::TooLong {
                    len: HANDLE_LEN_MAX + 1,
                    max: HANDLE_LEN_MAX,
                }),
            ),
            (
                b"\0\0\0\x16\x06\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02a",
                write_type,
                malformed(DecodeError::Truncated),
            ),
        ];
        for (packet, packet_type, why) in table {
            let refused = RequestEvent::Refused {
                id: 7,
                packet_type,
                why,
            };
            let next = b"\0\0\0\x0a\x10\0\0\0\x08\0\0\0\x01.";
            let bytes = [packet, next].concat();
            let events = events(&mut greeted(), &bytes);
            assert_eq!(events.len(), 2, "{events:#?}");
            assert_eq!(events[0], format!("{refused:?}"));
            assert!(events[1].contains("Realpath"), "{events:#?}");
        }
    }

    #[test]
    fn bytes_behind_the_body_of_a_write_are_passed_over() {
        let write = b"\0\0\0\x18\x06\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01abc";
        let next = b"\0\0\0\x0a\x10\0\0\0\x08\0\0\0\x01.";
        let bytes = [&write[..], next].concat();
        let whole = events(&mut greeted(), &bytes);
        assert_eq!(whole.len(), 4, "{whole:#?}");
        assert!(whole[1].contains("bytes: [97]"), "{whole:#?}");
        assert!(whole[3].contains("Realpath"), "{whole:#?}");
        // Cut anywhere, it is the same.
        for cut in 1..bytes.len() {
            let mut decoder = greeted();
            let (first, second) = bytes.split_at(cut);
            let mut cut = events(&mut decoder, first);
            cut.extend(events(&mut decoder, second));
            assert_eq!(cut, whole);
        }
    }

    #[test]
    fn a_request_without_a_number_cannot_be_answered() {
        for packet_type in [PacketType::STAT, PacketType::WRITE, PacketType(99)] {
            let bytes = [0, 0, 0, 3, packet_type.0, 0, 0];
            let source = DecodeError::Truncated;
            let malformed = ProtocolError::Malformed {
                packet_type,
                id: None,
                source,
            };
            assert_eq!(greeted().next(&bytes), Err(malformed));
        }
    }

    #[test]
    fn the_greeting_comes_first_and_once() {
        let packet_type = PacketType::REALPATH;
        let mut decoder = RequestDecoder::new(Limits::default());
        let early = decoder.next(b"\0\0\0\x0a\x10\0\0\0\x08\0\0\0\x01.");
        assert_eq!(early, Err(ProtocolError::OutOfTurn { packet_type }));
        let packet_type = PacketType::INIT;
        assert_eq!(
            greeted().next(GREETING),
            Err(ProtocolError::OutOfTurn { packet_type })
        );
    }

    #[test]
    fn the_buffer_goes_back_when_a_long_request_is_done() {
        let mut bytes = Vec::new();
        let extension = crate::Extension::Unknown {
            name: b"x@y",
            data: &[7; 100_000],
        };
        Request::Extended(extension).encode_packet(1, &mut bytes);
        let mut decoder = greeted();
        assert_eq!(
            decoder.next(&bytes[..90_000]),
            Ok(Step::wait(&bytes[..90_000]))
        );
        assert!(decoder.next(&bytes[90_000..]).unwrap().event.is_some());
        assert_eq!(decoder.next(&[]), Ok(Step::wait(&[])));
        assert!(decoder.framer.buffer_capacity() <= 1024);
    }
}
