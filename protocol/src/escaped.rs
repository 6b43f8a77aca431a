//! Bytes of a peer, made safe to print.

use std::fmt::{self, Write as _};

/// Shows bytes that a peer chose so that a terminal or a log line takes no harm.
///
/// What is printable stays as it is. Control characters, characters that turn the direction of
/// text or take no room, and line separators become `\u{…}`; bytes that are not UTF-8 become
/// `\x…`; a backslash is doubled, so that two different byte strings never look the same.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if is_unsafe(c) => write!(f, "{}", c.escape_unicode())?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Whether `c` could steer a terminal, hide, or change how its neighbours are shown.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' // soft hyphen, Arabic and Mongolian marks
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' // no width, separators, direction
            | '\u{2060}'..='\u{206f}' // invisible operators, direction isolates
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}') // tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_printable_stays() {
        assert_eq!(
            Escaped("Übersicht 2024 – 한국.csv".as_bytes()).to_string(),
            "Übersicht 2024 – 한국.csv"
        );
    }

    #[test]
    fn what_steers_a_terminal_is_shown_as_numbers() {
        let table: [(&[u8], &str); 6] = [
            (b"a\x1b[2Jb", r"a\u{1b}[2Jb"),
            (
                b"line\nline\r\t\0\x7f",
                r"line\u{a}line\u{d}\u{9}\u{0}\u{7f}",
            ),
            ("\u{9b}31m".as_bytes(), r"\u{9b}31m"),
            ("gpj\u{202e}exe".as_bytes(), r"gpj\u{202e}exe"),
            (b"\xff\xc3(", r"\xff\xc3("),
            (br"\xff", r"\\xff"),
        ];
        for (bytes, shown) in table {
            assert_eq!(Escaped(bytes).to_string(), shown);
        }
        assert_eq!(format!("{:?}", Escaped(b"a")), "\"a\"");
    }

    proptest! {
        #[test]
        fn different_bytes_look_different(
            a in proptest::collection::vec(any::<u8>(), 0..12),
            b in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            prop_assert_eq!(a == b, Escaped(&a).to_string() == Escaped(&b).to_string());
        }

        #[test]
        fn no_control_character_comes_through(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            prop_assert!(!Escaped(&bytes).to_string().chars().any(char::is_control));
        }
    }
}
