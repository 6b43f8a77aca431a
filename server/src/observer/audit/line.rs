//! A line of the audit log: a JSON object (RFC 8259) of printable ASCII.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ketch_protocol::{Escaped, StatusCode};

use crate::longname::civil;

/// Longest value of a field in the audit log, in bytes as it is written. A longer one is cut and
/// ends in `\\...`, which is written for nothing else.
pub const AUDIT_FIELD_LEN_MAX: usize = 512;
/// What a value ends in that was cut: a backslash that escapes nothing, as JSON writes it.
const CUT: &str = r"\\...";

/// A line that is being put together.
pub(super) struct Line(String);

impl Line {
    pub(super) fn new(now: SystemTime, event: &str) -> Self {
        let mut line = Self(String::with_capacity(256));
        line.0.push_str("{\"time\":\"");
        line.time(now);
        line.0.push('"');
        line.text("event", event.as_bytes());
        line
    }

    /// Any bytes. They become text as [`Escaped`] has it, and that text a JSON string in ASCII.
    pub(super) fn text(&mut self, name: &str, bytes: &[u8]) {
        self.name(name);
        self.0.push('"');
        let begin = self.0.len();
        // Each byte takes one at the least.
        let head = bytes.get(..AUDIT_FIELD_LEN_MAX).unwrap_or(bytes);
        let mut is_cut = head.len() < bytes.len();
        // Where it ends if it has to be cut.
        let mut cut = begin;
        for chunk in head.utf8_chunks() {
            let mut utf8 = [0; 4];
            for c in chunk.valid().chars() {
                self.atom(c.encode_utf8(&mut utf8).as_bytes());
                cut = self.cut(begin, cut);
            }
            for byte in chunk.invalid().chunks(1) {
                self.atom(byte);
                cut = self.cut(begin, cut);
            }
        }
        is_cut |= self.0.len().saturating_sub(begin) > AUDIT_FIELD_LEN_MAX;
        if is_cut {
            self.0.truncate(cut);
            self.0.push_str(CUT);
        }
        self.0.push('"');
    }

    /// The last end of an atom behind which what says that it was cut fits; `before` so far.
    fn cut(&self, begin: usize, before: usize) -> usize {
        let len = self.0.len().saturating_sub(begin);
        if len <= AUDIT_FIELD_LEN_MAX - CUT.len() {
            self.0.len()
        } else {
            before
        }
    }

    /// One character, or one byte that is none.
    fn atom(&mut self, bytes: &[u8]) {
        for c in Escaped(bytes).to_string().chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                ' '..='~' => self.0.push(c),
                c => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.0, "\\u{unit:04x}");
                    }
                }
            }
        }
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        let _ = write!(self.0, "{value}");
    }

    pub(super) fn duration(&mut self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.number("duration_ms", ms);
    }

    pub(super) fn hex(&mut self, name: &str, bytes: &[u8]) {
        self.name(name);
        self.0.push('"');
        for byte in bytes {
            let _ = write!(self.0, "{byte:02x}");
        }
        self.0.push('"');
    }

    /// `ok`, or the status in words.
    pub(super) fn result(&mut self, status: StatusCode) {
        match status {
            StatusCode::OK => self.text("result", b"ok"),
            status => self.text("result", status.to_string().as_bytes()),
        }
    }

    /// The line with its end.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.push_str("}\n");
        self.0.into_bytes()
    }

    /// Names are ours and need no escapes.
    fn name(&mut self, name: &str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// RFC 3339, in UTC, with milliseconds. A clock before 1970 shows its beginning.
    fn time(&mut self, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = civil(seconds / 86_400);
        let month = month.saturating_add(1);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let ms = since.subsec_millis();
        let _ = write!(
            self.0,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"
        );
    }
}
