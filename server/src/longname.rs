//! The `longname` of a directory entry: a line as `ls -l` prints it.
//!
//! draft-ietf-secsh-filexfer-02 §7 recommends the form and says that no program should read it;
//! some do (FileZilla tells directories by its first letter), so it is made with care. Numbers
//! stand for owner and group unless the client is a user of this machine, times are in UTC, and what
//! would disturb a terminal is shown as `?`: the name as it is travels in the field beside this one.

use crate::fs::{Metadata, Owners, TYPE_BITS};

/// Appends the line for `name` to `out`. `now` is in seconds since 1970: files that were changed
/// within half a year before it show the time of day, others the year.
pub(crate) fn write(out: &mut String, name: &[u8], of: &Metadata, owners: &Owners, now: u64) {
    mode(out, of.mode);
    out.push(' ');
    right(out, of.links, 4);
    out.push(' ');
    owner(out, owners.user(of.uid), of.uid);
    out.push(' ');
    owner(out, owners.group(of.gid), of.gid);
    out.push(' ');
    right(out, of.size, 8);
    out.push(' ');
    time(out, u64::from(of.modified), now);
    out.push(' ');
    push_harmless(out, name);
}

/// Appends `name` with a `?` for what would disturb a terminal, and for what is no UTF-8.
pub(crate) fn push_harmless(out: &mut String, name: &[u8]) {
    if let Ok(plain) = std::str::from_utf8(name)
        && plain.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    {
        return out.push_str(plain);
    }
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

/// A name, or the number that stands for it.
fn owner(out: &mut String, name: Option<&str>, number: u32) {
    let Some(name) = name else {
        return left(out, number.into(), OWNER_WIDTH);
    };
    out.push_str(name);
    (name.len()..OWNER_WIDTH).for_each(|_| out.push(' '));
}

/// Columns of an owner.
const OWNER_WIDTH: usize = 8;

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
    out.push_str(MONTHS.get(month).copied().unwrap_or("???"));
    out.push(' ');
    right(out, day, 2);
    out.push(' ');
    if at <= now && now.saturating_sub(at) < RECENT_SECS {
        two_digits(out, at / 3600 % 24);
        out.push(':');
        two_digits(out, at / 60 % 60);
    } else {
        right(out, year, 5);
    }
}

/// Longest number, in digits.
const DIGITS_MAX: usize = 20;

/// The digits of a number. Listings are made of them: `fmt` costs several times as much.
fn digits(mut number: u64, buffer: &mut [u8; DIGITS_MAX]) -> &str {
    let mut start = DIGITS_MAX;
    for place in buffer.iter_mut().rev() {
        // Below 10: the cast cannot cut.
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        start = start.saturating_sub(1);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let digits = buffer.get(start..).unwrap_or_default();
    std::str::from_utf8(digits).unwrap_or_default()
}

/// A number, filled up with spaces on its left.
fn right(out: &mut String, number: u64, width: usize) {
    let mut buffer = [0; DIGITS_MAX];
    let digits = digits(number, &mut buffer);
    out.extend((digits.len()..width).map(|_| ' '));
    out.push_str(digits);
}

/// A number, filled up with spaces on its right.
fn left(out: &mut String, number: u64, width: usize) {
    let mut buffer = [0; DIGITS_MAX];
    let digits = digits(number, &mut buffer);
    out.push_str(digits);
    out.extend((digits.len()..width).map(|_| ' '));
}

fn two_digits(out: &mut String, number: u64) {
    if number < 10 {
        out.push('0');
    }
    right(out, number, 1);
}

/// Year, month (0 to 11) and day (from 1) of the day that begins `days` days after 1970-01-01, for
/// days that seconds of 64 bits reach. Years begin in March here, so that the day that comes and
/// goes is the last of one; 400 of them are an era, which always has as many days.
pub(crate) fn civil(days: u64) -> (u64, usize, u64) {
    const ERA: u64 = 146_097;
    // From 0000-03-01 on.
    let days = days + 719_468;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months of 31 and 30 days in turn, five to 153 days.
    let march = (5 * day + 2) / 153;
    let day = day - (153 * march + 2) / 5 + 1;
    let (month, next) = if march < 10 {
        (march + 2, 0)
    } else {
        (march - 10, 1)
    };
    let month = usize::try_from(month).unwrap_or(usize::MAX);
    (era * 400 + year + next, month, day)
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
        write(&mut out, name, metadata, &Owners::default(), now);
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
    fn every_day_is_the_day_after_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 0, 1);
        for days in 0..500_000 {
            assert_eq!(civil(days), (year, month, day), "{days}");
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let february = if is_leap { 29 } else { 28 };
            let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            day += 1;
            if day > lengths[month] {
                (month, day) = (month + 1, 1);
            }
            if month == 12 {
                (year, month) = (year + 1, 0);
            }
        }
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
