//! Identification lines (RFC 4253 §4.2): `SSH-2.0-softwareversion SP comments CR LF`.

use std::fmt;

use super::Input;

/// Longest identification line, with CR and LF (RFC 4253 §4.2).
pub(super) const LINE_LEN_MAX: usize = 255;
/// Most lines that a server may send before its identification.
pub(super) const PREAMBLE_LINES_MAX: usize = 1024;

/// Who the peer says it is; the line without CR and LF, as it goes into the exchange hash.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identification {
    line: String,
}

impl Identification {
    /// What ketch says of itself.
    #[must_use]
    pub fn ketch() -> Self {
        Self {
            line: concat!("SSH-2.0-ketch_", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// The whole line: printable US-ASCII and spaces, nothing else.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.line
    }

    /// The part behind `SSH-2.0-`: software version and comments.
    #[must_use]
    pub fn software(&self) -> &str {
        self.line.splitn(3, '-').nth(2).unwrap_or_default()
    }

    fn parse(line: &[u8]) -> Result<Self, IdentificationError> {
        if !line
            .iter()
            .all(|&byte| byte == b' ' || byte.is_ascii_graphic())
        {
            return Err(IdentificationError::NotPrintable);
        }
        if !line.starts_with(b"SSH-2.0-") && !line.starts_with(b"SSH-1.99-") {
            return Err(IdentificationError::Version);
        }
        let line =
            String::from_utf8(line.to_vec()).map_err(|_| IdentificationError::NotPrintable)?;
        Ok(Self { line })
    }
}

/// Why the first line is not one of SSH 2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum IdentificationError {
    /// A line is longer than 255 bytes.
    TooLong,
    /// More than 1024 lines came before the identification.
    TooManyLines,
    /// A client must start with its identification.
    Preamble,
    /// Another version than 2.0 (or 1.99, which is 2.0 too).
    Version,
    /// Bytes that are not printable US-ASCII.
    NotPrintable,
}

impl fmt::Display for IdentificationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the peer's first line is longer than 255 bytes; is this an SSH port?",
            Self::TooManyLines => "the peer sends lines without end; is this an SSH port?",
            Self::Preamble => "the client does not start with an SSH identification",
            Self::Version => "the peer speaks another version than SSH 2.0",
            Self::NotPrintable => "the peer's identification has unprintable bytes",
        })
    }
}

impl std::error::Error for IdentificationError {}

/// Whether lines may come before the identification.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Preamble {
    /// A server may send other lines first (RFC 4253 §4.2); they are passed over.
    Allowed,
    /// A client may not.
    Refused,
}

/// Collects the peer's identification line, in however many pieces it comes.
#[derive(Debug)]
pub struct IdentificationReader {
    line: Vec<u8>,
    lines: usize,
    preamble: Preamble,
}

/// Whether the line is complete.
#[derive(Debug, Eq, PartialEq)]
pub enum Progress {
    /// More bytes are needed.
    Incomplete,
    /// The line, which was taken from the input.
    Complete(Identification),
}

impl IdentificationReader {
    /// Waits for the line of a server, before which others may come.
    #[must_use]
    pub const fn of_server() -> Self {
        Self {
            line: Vec::new(),
            lines: 0,
            preamble: Preamble::Allowed,
        }
    }

    /// Waits for the line of a client.
    #[must_use]
    pub const fn of_client() -> Self {
        Self {
            line: Vec::new(),
            lines: 0,
            preamble: Preamble::Refused,
        }
    }

    /// Takes bytes up to the end of the line, and none behind it.
    ///
    /// # Errors
    /// [`IdentificationError`]; the connection is of no use then.
    pub fn read(&mut self, input: &mut Input<'_>) -> Result<Progress, IdentificationError> {
        while !input.peek().is_empty() {
            let end = input.peek().iter().position(|&byte| byte == b'\n');
            let len = end.map_or(input.remaining(), |end| end.saturating_add(1));
            if self.line.len().saturating_add(len) > LINE_LEN_MAX {
                return Err(IdentificationError::TooLong);
            }
            if let Some(taken) = input.take(len) {
                self.line.extend_from_slice(taken.bytes);
            }
            if end.is_none() {
                break;
            }
            let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.starts_with(b"SSH-") {
                return Identification::parse(line).map(Progress::Complete);
            }
            if self.preamble == Preamble::Refused {
                return Err(IdentificationError::Preamble);
            }
            self.lines = self.lines.saturating_add(1);
            if self.lines > PREAMBLE_LINES_MAX {
                return Err(IdentificationError::TooManyLines);
            }
            self.line.clear();
        }
        // A client that speaks something else is told so before it fills a line.
        let start = &b"SSH-"[..self.line.len().min(4)];
        if self.preamble == Preamble::Refused && !self.line.starts_with(start) {
            return Err(IdentificationError::Preamble);
        }
        Ok(Progress::Incomplete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(
        mut reader: IdentificationReader,
        bytes: &[u8],
    ) -> Result<Progress, IdentificationError> {
        let mut arena = bytes.to_vec();
        reader.read(&mut Input::new(&mut arena))
    }

    fn line(text: &str) -> Result<Progress, IdentificationError> {
        Ok(Progress::Complete(Identification {
            line: text.to_owned(),
        }))
    }

    #[test]
    fn lines_are_read_or_refused_as_the_table_says() {
        use IdentificationError::{NotPrintable, Preamble, TooLong, Version};
        let long = format!("SSH-2.0-{}\r\n", "a".repeat(246));
        let table: [(&[u8], Result<Progress, IdentificationError>); 14] = [
            (
                b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
                line("SSH-2.0-OpenSSH_9.2p1 Debian"),
            ),
            (b"SSH-2.0-x\n", line("SSH-2.0-x")),
            (b"SSH-1.99-x\r\n", line("SSH-1.99-x")),
            (b"SSH-2.0-\r\n", line("SSH-2.0-")),
            (b"SSH-2.0-x", Ok(Progress::Incomplete)),
            (b"", Ok(Progress::Incomplete)),
            (b"S", Ok(Progress::Incomplete)),
            (b"SSH-1.5-x\r\n", Err(Version)),
            (b"SSH-2.1-x\r\n", Err(Version)),
            (b"SSH-2.0-a\x1b[2J\r\n", Err(NotPrintable)),
            (b"SSH-2.0-a\0\r\n", Err(NotPrintable)),
            (b"GET / HTTP/1.1\r\n", Err(Preamble)),
            (b"GE", Err(Preamble)),
            (long.as_bytes(), Err(TooLong)),
        ];
        for (bytes, expected) in table {
            assert_eq!(
                read(IdentificationReader::of_client(), bytes),
                expected,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_server_may_say_something_first_but_not_for_ever() {
        assert_eq!(
            read(
                IdentificationReader::of_server(),
                b"hello\r\nworld\nSSH-2.0-x\r\nrest"
            ),
            line("SSH-2.0-x")
        );
        let endless = b"\n".repeat(PREAMBLE_LINES_MAX + 1);
        assert_eq!(
            read(IdentificationReader::of_server(), &endless),
            Err(IdentificationError::TooManyLines)
        );
    }

    #[test]
    fn bytes_behind_the_line_stay() {
        let mut arena = *b"SSH-2.0-x\r\n\0\0";
        let mut input = Input::new(&mut arena);
        IdentificationReader::of_client().read(&mut input).unwrap();
        assert_eq!(input.peek(), [0, 0]);
    }

    proptest! {
        #[test]
        fn pieces_read_as_the_whole_does(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            ident in any::<bool>(), cuts in proptest::collection::vec(0_usize..220, 0..6),
        ) {
            let mut bytes = bytes;
            if ident {
                bytes.extend_from_slice(b"\nSSH-2.0-x\r\n");
            }
            let whole = read(IdentificationReader::of_server(), &bytes);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut reader = IdentificationReader::of_server();
            let mut outcome = Ok(Progress::Incomplete);
            for pair in cuts.windows(2) {
                let mut piece = bytes[pair[0]..pair[1]].to_vec();
                outcome = reader.read(&mut Input::new(&mut piece));
                if outcome != Ok(Progress::Incomplete) {
                    break;
                }
            }
            prop_assert_eq!(outcome, whole);
        }
    }
}
