//! `ketch ls`: the names in a remote directory, sorted; with `-l` what they stand for.
//!
//! A listing may have a hundred thousand lines, so nothing is allocated for one: names and
//! attributes are gathered side by side, sorted by what tells them apart, and written to one buffer.

use jiff::tz::TimeZone;
use ketch_client::{Attrs, DirEntryRef, FileType, RemotePath, Sftp};

use crate::cmd::login;
use crate::failed::Failed;
use crate::output::Lines;
use crate::plan::Ls;

/// Entries that are held to be sorted; a longer directory is printed as it comes.
const SORT_MAX: usize = 1_000_000;
/// Bytes that they hold: nothing says that a name is any shorter than a packet.
const HELD_MAX: usize = 256 << 20;
/// Seconds for which the hour and the date of a local time are computed once: clocks are put forward
/// and back at quarters of an hour.
const QUARTER: i64 = 900;

/// Lists the directory, or the one file.
pub(crate) async fn run(plan: Ls) -> Result<(), Failed> {
    // Most things listed are directories: it is opened while the server is asked what it is.
    let remote = plan.remote.clone();
    let first = move |sftp: Sftp| {
        let remote = remote.clone();
        async move {
            let mut directory = sftp.read_dir(&remote);
            let (attrs, next) = tokio::join!(sftp.stat(&remote), directory.next_entries());
            (attrs, directory, next)
        }
    };
    let (_session, _sftp, (attrs, mut directory, mut next)) =
        login::sftp_with(&plan.connection, first).await?;
    let mut page = Page::new(plan.long, TimeZone::system());
    let attrs = attrs?;
    // Servers that hide the kind are asked for the directory.
    if !matches!(attrs.file_type(), FileType::Directory | FileType::Unknown) {
        page.line(plan.remote.as_bytes(), &attrs)?;
        return page.lines.flush();
    }
    let mut held = Held::default();
    while let Some(entries) = next {
        for entry in entries?.iter() {
            if plan.sorted {
                held.push(&entry, plan.long);
            } else {
                page.line(entry.name(), &entry.attrs())?;
            }
        }
        if held.is_full() {
            held.print(&mut page)?;
        }
        next = directory.next_entries().await;
    }
    held.print(&mut page)?;
    page.lines.flush()
}

/// Entries that wait to be sorted.
#[derive(Debug, Default)]
struct Held {
    names: Vec<u8>,
    entries: Vec<Entry>,
    /// Of the entries, in their order; none if only names are shown.
    attrs: Vec<Attrs>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// What follows the part that all names share: tells most of them apart without a look at them.
    key: u64,
    start: usize,
    len: usize,
    index: usize,
}

impl Held {
    fn push(&mut self, entry: &DirEntryRef<'_>, with_attrs: bool) {
        let name = entry.name();
        self.entries.push(Entry {
            key: 0,
            start: self.names.len(),
            len: name.len(),
            index: self.attrs.len(),
        });
        self.names.extend_from_slice(name);
        if with_attrs {
            self.attrs.push(entry.attrs());
        }
    }

    fn is_full(&self) -> bool {
        let held = self.names.len() + size_of_val(&*self.entries) + size_of_val(&*self.attrs);
        self.entries.len() >= SORT_MAX || held >= HELD_MAX
    }

    fn print(&mut self, page: &mut Page) -> Result<(), Failed> {
        let names = std::mem::take(&mut self.names);
        let name = |entry: &Entry| {
            names
                .get(entry.start..entry.start.saturating_add(entry.len))
                .unwrap_or_default()
        };
        let shared_len = self.entries.first().map_or(0, |first| {
            let first = name(first);
            self.entries.iter().fold(first.len(), |len, entry| {
                let same = first.iter().zip(name(entry)).take(len);
                same.take_while(|(a, b)| a == b).count()
            })
        });
        for entry in &mut self.entries {
            let mut key = [0; 8];
            let rest = name(entry).get(shared_len..).unwrap_or_default();
            key.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            entry.key = u64::from_be_bytes(key);
        }
        self.entries
            .sort_unstable_by(|a, b| a.key.cmp(&b.key).then_with(|| name(a).cmp(name(b))));
        for entry in self.entries.drain(..) {
            let attrs = self.attrs.get(entry.index);
            page.line(name(&entry), attrs.unwrap_or(&Attrs::NONE))?;
        }
        self.attrs.clear();
        Ok(())
    }
}

/// Where lines go, and how they look.
struct Page {
    lines: Lines,
    long: bool,
    clock: Clock,
    line: Vec<u8>,
}

impl Page {
    fn new(long: bool, zone: TimeZone) -> Self {
        Self {
            lines: Lines::new(),
            long,
            clock: Clock { zone, last: None },
            line: Vec::new(),
        }
    }

    fn line(&mut self, name: &[u8], attrs: &Attrs) -> Result<(), Failed> {
        self.line.clear();
        if self.long {
            push_long(&mut self.line, attrs, &mut self.clock);
        }
        push_name(&mut self.line, name);
        self.line.push(b'\n');
        self.lines.bytes(&self.line)
    }
}

/// The name, escaped where a terminal could take it for a command.
fn push_name(line: &mut Vec<u8>, name: &[u8]) {
    if name
        .iter()
        .all(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\')
    {
        line.extend_from_slice(name);
    } else {
        // `RemotePath` shows bytes escaped.
        line.extend_from_slice(RemotePath::from(name).to_string().as_bytes());
    }
}

/// All but the name: made from the attributes, not from the server's own text of it, which is for no
/// program to read (draft-ietf-secsh-filexfer-02 §7).
fn push_long(line: &mut Vec<u8>, attrs: &Attrs, clock: &mut Clock) {
    line.extend_from_slice(&permissions(attrs));
    line.push(b' ');
    push_number(line, attrs.owner.map(|owner| owner.uid.into()), 6);
    push_number(line, attrs.owner.map(|owner| owner.gid.into()), 6);
    push_number(line, attrs.size, 12);
    let modified = attrs.times.map(|times| i64::from(times.mtime));
    match modified.and_then(|seconds| clock.show(seconds)) {
        Some(text) => line.extend_from_slice(&text),
        None => line.extend_from_slice(b"-                  "),
    }
    line.push(b' ');
}

/// A number right-aligned in so many places, or a dash, and a space.
fn push_number(line: &mut Vec<u8>, value: Option<u64>, width: usize) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [b' '; DIGITS_MAX];
    let mut len = 1;
    let mut places = digits.iter_mut().rev();
    if let Some(mut value) = value {
        len = 0;
        for place in &mut places {
            *place = b'0' + u8::try_from(value % 10).unwrap_or_default();
            value /= 10;
            len += 1;
            if value == 0 {
                break;
            }
        }
    } else if let Some(place) = places.next() {
        *place = b'-';
    }
    let shown = len.max(width).min(DIGITS_MAX);
    line.extend_from_slice(digits.get(DIGITS_MAX - shown..).unwrap_or_default());
    line.push(b' ');
}

/// `2023-11-14 22:13:20`.
const TIME_LEN: usize = 19;

/// Writes local times; what is the same for neighbours is computed once.
struct Clock {
    zone: TimeZone,
    /// A quarter of an hour, by its number, and its beginning in local time.
    last: Option<(i64, [u8; TIME_LEN])>,
}

impl Clock {
    fn show(&mut self, seconds: i64) -> Option<[u8; TIME_LEN]> {
        let quarter = seconds.div_euclid(QUARTER);
        let mut text = match self.last {
            Some((last, text)) if last == quarter => text,
            _ => {
                let text = self.compute(quarter.checked_mul(QUARTER)?)?;
                // Local times that begin no quarter with ours were in use long ago.
                if !(matches!(
                    text.get(14..),
                    Some(b"00:00" | b"15:00" | b"30:00" | b"45:00")
                )) {
                    return self.compute(seconds);
                }
                self.last = Some((quarter, text));
                text
            }
        };
        let within = u8::try_from(seconds.rem_euclid(QUARTER) / 60).ok()?;
        let second = u8::try_from(seconds.rem_euclid(60)).ok()?;
        let [.., m10, m1, _, s10, s1] = &mut text;
        let minute = (*m10 - b'0') * 10 + (*m1 - b'0') + within;
        (*m10, *m1) = (b'0' + minute / 10, b'0' + minute % 10);
        (*s10, *s1) = (b'0' + second / 10, b'0' + second % 10);
        Some(text)
    }

    fn compute(&self, seconds: i64) -> Option<[u8; TIME_LEN]> {
        let time = jiff::Timestamp::from_second(seconds).ok()?;
        let text = time
            .to_zoned(self.zone.clone())
            .strftime("%Y-%m-%d %H:%M:%S");
        text.to_string().as_bytes().try_into().ok()
    }
}

/// Kind and permissions the way `ls -l` writes them.
fn permissions(attrs: &Attrs) -> [u8; 10] {
    let kind = match attrs.file_type() {
        FileType::Regular => b'-',
        FileType::Directory => b'd',
        FileType::Symlink => b'l',
        FileType::BlockDevice => b'b',
        FileType::CharDevice => b'c',
        FileType::Fifo => b'p',
        FileType::Socket => b's',
        FileType::Unknown => b'?',
    };
    let Some(mode) = attrs.mode() else {
        let mut text = [b'?'; 10];
        text[0] = kind;
        return text;
    };
    // For each of owner, group and others: read, write, and what the x stands for.
    let triple = |shift: u32, special: u32, letter: u8| {
        let bits = mode >> shift;
        let x = match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => b'x',
            (false, false) => b'-',
        };
        let r = if bits & 4 != 0 { b'r' } else { b'-' };
        let w = if bits & 2 != 0 { b'w' } else { b'-' };
        [r, w, x]
    };
    let [a, b, c] = triple(6, 0o4000, b's');
    let [d, e, f] = triple(3, 0o2000, b's');
    let [g, h, i] = triple(0, 0o1000, b't');
    [kind, a, b, c, d, e, f, g, h, i]
}

#[cfg(test)]
mod tests {
    use ketch_client::{Owner, Times};

    use super::*;

    fn long(name: &[u8], attrs: &Attrs) -> String {
        let mut line = Vec::new();
        let mut clock = Clock {
            zone: TimeZone::UTC,
            last: None,
        };
        push_long(&mut line, attrs, &mut clock);
        push_name(&mut line, name);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn long_names_are_no_longer_held_when_they_are_too_many_bytes() {
        let mut held = Held {
            names: vec![b'x'; HELD_MAX - size_of::<Entry>() - size_of::<Attrs>()],
            ..Held::default()
        };
        assert!(!held.is_full());
        held.attrs.push(Attrs::NONE);
        held.entries.push(Entry {
            key: 0,
            start: 0,
            len: held.names.len(),
            index: 0,
        });
        assert!(held.is_full());
    }

    #[test]
    fn permissions_read_as_in_ls() {
        let table = [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o104_755, "-rwsr-xr-x"),
            (0o102_644, "-rw-r-Sr--"),
            (0o041_777, "drwxrwxrwt"),
            (0o041_776, "drwxrwxrwT"),
            (0o644, "?rw-r--r--"),
        ];
        for (mode, text) in table {
            assert_eq!(permissions(&Attrs::with_permissions(mode)), text.as_bytes());
        }
        assert_eq!(permissions(&Attrs::default()), *b"??????????");
    }

    #[test]
    fn a_long_line_has_all_columns_and_a_safe_name() {
        let attrs = Attrs {
            size: Some(1234),
            owner: Some(Owner {
                uid: 1000,
                gid: 100,
            }),
            permissions: Some(0o100_600),
            times: Some(Times {
                atime: 0,
                mtime: 1_700_000_000,
            }),
        };
        assert_eq!(
            long(b"a\x1b.csv", &attrs),
            "-rw-------   1000    100         1234 2023-11-14 22:13:20 a\\u{1b}.csv"
        );
        assert_eq!(
            long(b"x", &Attrs::default()),
            "??????????      -      -            - -                   x"
        );
        let huge = Attrs {
            size: Some(u64::MAX),
            ..Attrs::NONE
        };
        assert!(long(b"x", &huge).contains(" 18446744073709551615 "));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for zone in ["UTC", "Asia/Kathmandu", "Europe/Berlin", "Africa/Monrovia"] {
            let zone = TimeZone::get(zone).unwrap();
            let mut clock = Clock {
                zone: zone.clone(),
                last: None,
            };
            // Some time in each month, and what follows soon after.
            for month in 0..700_i64 {
                for after in [0, 1, 59, 60, 61, 899, 900, 901, 1800, 3599] {
                    let seconds = month * 2_629_747 + after;
                    assert_eq!(clock.show(seconds), clock.compute(seconds), "{seconds}");
                }
            }
        }
    }
}
