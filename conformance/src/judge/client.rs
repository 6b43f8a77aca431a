//! One request, one reply: SFTP without a pipeline, for looking closely.

use std::io::{self, Read, Write};

use ketch_protocol::{
    DecodeError, Init, PROTOCOL_VERSION, PacketType, Pairs, Reader, Request, RequestId, Response,
    StatusCode, Version,
};

/// Longest packet that is read, in bytes: no server was seen to send a longer one.
const PACKET_LEN_MAX: u32 = 256 * 1024;

/// Why the conversation with a server cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// The stream failed or ended.
    #[error("the stream to the server failed: {0}")]
    Stream(#[from] io::Error),
    /// A packet has an impossible length.
    #[error("the server sent a packet of {len} bytes")]
    Length {
        /// The length that it names.
        len: u32,
    },
    /// The fields of a packet are not what its type asks for.
    #[error("the server sent a malformed {packet_type}: {source}")]
    Malformed {
        /// Type of the packet.
        packet_type: PacketType,
        /// What is wrong.
        source: DecodeError,
    },
}

/// A reply with its number, kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    /// Number of the request that it answers.
    pub id: RequestId,
    /// Type of the packet.
    pub packet_type: PacketType,
    /// The fields after the id.
    pub fields: Vec<u8>,
}

impl Reply {
    /// The reply, decoded.
    ///
    /// # Errors
    /// [`JudgeError::Malformed`] if it is no reply or has wrong fields.
    pub fn response(&self) -> Result<Response<'_>, JudgeError> {
        let packet_type = self.packet_type;
        Response::decode(packet_type, Reader::new(&self.fields)).map_err(|source| {
            JudgeError::Malformed {
                packet_type,
                source,
            }
        })
    }

    /// The status code, if it is a `STATUS`.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self.response() {
            Ok(Response::Status(status)) => Some(status.code),
            _ => None,
        }
    }
}

/// A client that sends exactly what it is told to.
#[derive(Debug)]
pub struct RawClient<S> {
    stream: S,
    next_id: RequestId,
}

impl<S: Read + Write> RawClient<S> {
    /// Over a stream on which nothing was said yet.
    pub const fn new(stream: S) -> Self {
        // Not from 0 or 1, which a server may well send by mistake.
        Self {
            stream,
            next_id: 0x4b45_5400,
        }
    }

    /// Sends `INIT` for version 3 and returns the fields of what comes back with its type.
    ///
    /// # Errors
    /// [`JudgeError::Stream`], [`JudgeError::Length`].
    pub fn greet(&mut self) -> Result<(PacketType, Vec<u8>), JudgeError> {
        let mut packet = Vec::new();
        Init {
            version: PROTOCOL_VERSION,
            extensions: Pairs::EMPTY,
        }
        .encode_packet(&mut packet);
        self.write(&packet)?;
        self.read_packet()
    }

    /// Sends a request and returns its number.
    ///
    /// # Errors
    /// [`JudgeError::Stream`].
    pub fn send(&mut self, request: &Request<'_>) -> Result<RequestId, JudgeError> {
        let id = self.take_id();
        let mut packet = Vec::new();
        request.encode_packet(id, &mut packet);
        self.write(&packet)?;
        Ok(id)
    }

    /// The next reply, whatever it answers.
    ///
    /// # Errors
    /// [`JudgeError`] if none comes or it has no number.
    pub fn receive(&mut self) -> Result<Reply, JudgeError> {
        let (packet_type, mut fields) = self.read_packet()?;
        let id = Reader::new(&fields)
            .u32()
            .map_err(|source| JudgeError::Malformed {
                packet_type,
                source,
            })?;
        fields.drain(..4);
        Ok(Reply {
            id,
            packet_type,
            fields,
        })
    }

    /// Sends a request and returns the next reply, whatever it answers.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn ask(&mut self, request: &Request<'_>) -> Result<(RequestId, Reply), JudgeError> {
        let id = self.send(request)?;
        Ok((id, self.receive()?))
    }

    fn take_id(&mut self) -> RequestId {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        self.stream.write_all(packet)?;
        self.stream.flush()
    }

    fn read_packet(&mut self) -> Result<(PacketType, Vec<u8>), JudgeError> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let len = u32::from_be_bytes(len);
        if len == 0 || len > PACKET_LEN_MAX {
            return Err(JudgeError::Length { len });
        }
        let mut packet = Vec::new();
        let wanted = u64::from(len);
        (&mut self.stream).take(wanted).read_to_end(&mut packet)?;
        if packet.len() as u64 != wanted {
            return Err(JudgeError::Stream(io::ErrorKind::UnexpectedEof.into()));
        }
        let packet_type = PacketType(packet.remove(0));
        Ok((packet_type, packet))
    }
}

/// The greeting in `fields`, if they are one.
pub(super) fn version(fields: &[u8]) -> Result<Version<'_>, JudgeError> {
    Version::decode(Reader::new(fields)).map_err(|source| JudgeError::Malformed {
        packet_type: PacketType::VERSION,
        source,
    })
}
