//! The `longname` of a directory entry: a line as `ls -l` prints it.
//!
//! draft-ietf-secsh-filexfer-02 §7 recommends the form and says that no program should read it;
//! some do (FileZilla tells directories by its first letter), so it is made with care. Numbers
//! stand for owner and group, times are in UTC, and what would disturb a terminal is shown as `?`:
//! the name as it is travels in the field beside this one.

use std::fmt::Write;

use crate::fs::{Metadata, TYPE_BITS};

/// Appends the line for `name` to `out`. `now` is in seconds since 1970: files that were changed
/// within half a year before it show the time of day, others the year.
pub(crate) fn write(out: &mut String, name: &[u8], of: &Metadata, now: u64) {
    mode(out, of.mode);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        " {:>4} {:<8} {:<8} {:>8} ",
        of.links, of.uid, of.gid, of.size
    );
    time(out, u64::from(of.modified), now);
    out.push(' ');
    push_harmless(out, name);
}

/// Appends `name` with a `?` for what would disturb a terminal, and for what is no UTF-8.
pub(crate) fn push_harmless(out: &mut String, name: &[u8]) {
    for chunk in name.utf8_chunks() {
        out.extend(
            chunk
                .valid()
                .chars()
                .map(|c| if is_harmless(c) { c } else { '?' }),
        );
        if !chunk.invalid().is_empty() {
            out.push('?');
        }
    }
}

/// Type and permissions in ten letters.
fn mode(out: &mut String, mode: u32) {
    out.push(match mode & TYPE_BITS {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        out.push(if bits & 4 == 0 { '-' } else { 'r' });
        out.push(if bits & 2 == 0 { '-' } else { 'w' });
        out.push(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
        });
    }
}

/// Half of a mean Gregorian year, in seconds: what POSIX `ls` takes for "recent".
const RECENT_SECS: u64 = 15_778_476;

fn time(out: &mut String, at: u64, now: u64) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (year, month, day) = civil(at / 86_400);
    let month = MONTHS.get(month).copied().unwrap_or("???");
    if at <= now && now.saturating_sub(at) < RECENT_SECS {
        let (hour, minute) = (at / 3600 % 24, at / 60 % 60);
        let _ = write!(out, "{month} {day:>2} {hour:02}:{minute:02}");
    } else {
        let _ = write!(out, "{month} {day:>2}  {year}");
    }
}

/// Year, month (0 to 11) and day (from 1) of the day that begins `days` days after 1970-01-01.
fn civil(mut days: u64) -> (u64, usize, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        match days.checked_sub(length) {
            Some(rest) => days = rest,
            None => break,
        }
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    for (month, length) in lengths.into_iter().enumerate() {
        match days.checked_sub(length) {
            Some(rest) => days = rest,
            None => return (year, month, days + 1),
        }
    }
    (year, 11, 31) // not reached: the days of a year are those of its months
}

/// Neither a control character nor one that changes the direction of writing.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &[u8], metadata: &Metadata, now: u64) -> String {
        let mut out = String::new();
        write(&mut out, name, metadata, now);
        out
    }

    #[test]
    fn a_line_looks_as_ls_prints_it() {
        let mut file = Metadata::new(0o100_644);
        (file.size, file.uid, file.gid, file.modified) = (1234, 1000, 100, 1_709_210_096);
        // 1,709,210,096 is 2024-02-29 12:34:56 UTC.
        assert_eq!(
            line(b"report.csv", &file, 1_709_300_000),
            "-rw-r--r--    1 1000     100          1234 Feb 29 12:34 report.csv"
        );
        assert_eq!(
            line(b"report.csv", &file, 1_800_000_000),
            "-rw-r--r--    1 1000     100          1234 Feb 29  2024 report.csv"
        );
    }

    #[test]
    fn times_ahead_of_the_clock_show_the_year() {
        let mut file = Metadata::new(0o100_600);
        file.modified = u32::MAX;
        assert!(line(b"x", &file, 0).contains("Feb  7  2106 x"));
    }

    #[test]
    fn the_first_letter_tells_the_type_and_the_others_the_permissions() {
        for (mode, letters) in [
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o101_777, "-rwxrwxrwt"),
            (0o106_644, "-rwSr-Sr--"),
            (0o010_000, "p---------"),
        ] {
            assert!(
                line(b"x", &Metadata::new(mode), 0).starts_with(letters),
                "{mode:o}"
            );
        }
    }

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        let metadata = Metadata::new(0o100_644);
        let shown = line("a\x1b[2J\nb\u{202e}\u{9b}é".as_bytes(), &metadata, 0);
        assert!(shown.ends_with("a?[2J?b??é"), "{shown}");
        assert!(line(b"\xff\xfeok", &metadata, 0).ends_with("??ok"));
    }

    #[test]
    fn the_largest_numbers_fit() {
        let mut file = Metadata::new(u32::MAX);
        (file.size, file.uid, file.gid, file.links) = (u64::MAX, u32::MAX, u32::MAX, u64::MAX);
        assert!(line(&[b'n'; 255], &file, u64::MAX).len() < 400);
    }

    #[test]
    fn days_become_dates() {
        for (days, date) in [
            (0, (1970, 0, 1)),
            (59, (1970, 2, 1)),
            (789, (1972, 1, 29)),
            (11_016, (2000, 1, 29)),
            (11_017, (2000, 2, 1)),
            (20_453, (2025, 11, 31)),
            (49_710, (2106, 1, 7)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
    }
}
