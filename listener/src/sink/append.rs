//! Appending once: notes beside the target, which say what was begun and what was finished.
//!
//! A length recorded before an append tells where it began, and not whose bytes are behind it: a
//! second item may have come first, perhaps with the same content. So whoever appends writes a line
//! into a hidden file before and another after, and who finds a line without its second half cuts
//! the target back to where that append began. Decisions are made here; reading, writing and locking
//! are the sinks'.

use std::fmt::Write as _;

/// Notes that grow beyond this are cut to half of it.
pub(super) const NOTES_LEN_MAX: usize = 64 * 1024;
/// How the names of notes begin; the rest is made of the target's name.
pub(super) const PREFIX: &str = ".ketch-append-";
/// The line that says that older ones were dropped.
const CUT: &str = "cut";

/// What was noted about appends to one target.
#[derive(Debug, Default)]
pub(super) struct Notes {
    appends: Vec<Append>,
    /// Older ones were dropped, or there is nothing at all.
    is_partial: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Append {
    id: String,
    base: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Open,
    Done,
    Undone,
}

/// What is to be done with the target, which nobody else touches meanwhile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// The item is in it already.
    Done,
    /// An append was not finished: the target is cut to `len` if it is longer, the line is added,
    /// and it is decided again.
    Undo { len: u64, line: String },
    /// The item is added at the end.
    Append,
    /// The item is in it if these are its bytes, which the notes do not say any more.
    Compare,
    /// Something else was appended meanwhile.
    Taken,
}

/// An item that is to be appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// What tells it from all others.
    pub id: &'a str,
    /// The length of the target that was recorded.
    pub base: u64,
    /// Bytes of content.
    pub len: u64,
    /// An earlier attempt may have got through.
    pub again: bool,
}

impl Wanted<'_> {
    /// The line before.
    pub(super) fn begin(&self) -> String {
        format!("begin {} {} {}\n", self.base, self.len, self.id)
    }

    /// The line after.
    pub(super) fn done(&self) -> String {
        format!("done {}\n", self.id)
    }
}

impl Notes {
    /// Reads notes. Lines that are none are passed over: a cut one, at the end, is all that a crash or
    /// a full disk can leave.
    pub(super) fn read(text: &[u8]) -> Self {
        let mut notes = Self {
            appends: Vec::new(),
            is_partial: text.is_empty(),
        };
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let Some(Ok(line)) = line.strip_suffix(b"\n").map(std::str::from_utf8) else {
                continue;
            };
            let words: Vec<&str> = line.split(' ').collect();
            match *words.as_slice() {
                [CUT] => notes.is_partial = true,
                ["begin", base, _len, id] => {
                    if let Ok(base) = base.parse() {
                        notes.appends.push(Append {
                            id: id.to_owned(),
                            base,
                            end: End::Open,
                        });
                    }
                }
                ["done", id] => notes.end(id, End::Done),
                ["undone", id] => notes.end(id, End::Undone),
                _ => {}
            }
        }
        notes
    }

    fn end(&mut self, id: &str, end: End) {
        if let Some(append) = self.appends.iter_mut().rev().find(|append| append.id == id) {
            append.end = end;
        }
    }

    /// How much of `text` is whole lines. What is behind them was cut short, and goes before the next
    /// line is written: that one would become part of it, or would make it whole.
    pub(super) fn whole(text: &[u8]) -> usize {
        let end = text.iter().rposition(|&byte| byte == b'\n');
        end.map_or(0, |end| end.saturating_add(1))
    }

    /// What is to be done, the target being `len` bytes long.
    pub(super) fn decide(&self, wanted: Wanted<'_>, len: u64) -> Step {
        let of_it = |append: &&Append| append.id == wanted.id && append.end == End::Done;
        if self.appends.iter().any(|append| of_it(&append)) {
            return Step::Done;
        }
        if let Some(open) = self.appends.last().filter(|append| append.end == End::Open) {
            return Step::Undo {
                len: open.base,
                line: format!("undone {}\n", open.id),
            };
        }
        if len == wanted.base {
            return Step::Append;
        }
        let is_long_enough = wanted
            .base
            .checked_add(wanted.len)
            .is_some_and(|end| len >= end);
        if wanted.again && self.is_partial && is_long_enough {
            return Step::Compare;
        }
        Step::Taken
    }

    /// The newer half, if the notes have grown too long.
    pub(super) fn shortened(text: &[u8]) -> Option<Vec<u8>> {
        if text.len() <= NOTES_LEN_MAX {
            return None;
        }
        let notes = Self::read(text);
        let mut lines = format!("{CUT}\n");
        let mut kept: Vec<String> = Vec::new();
        let mut len = 0;
        for append in notes.appends.iter().rev() {
            let mut line = format!("begin {} 0 {}\n", append.base, append.id);
            let _ = match append.end {
                End::Open => Ok(()),
                End::Done => writeln!(line, "done {}", append.id),
                End::Undone => writeln!(line, "undone {}", append.id),
            };
            len += line.len();
            if len > NOTES_LEN_MAX / 2 {
                break;
            }
            kept.push(line);
        }
        lines.extend(kept.into_iter().rev());
        Some(lines.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A target and its notes; each step may be the last one of a process.
    #[derive(Default)]
    struct Disk {
        target: Vec<u8>,
        notes: Vec<u8>,
    }

    fn pass(steps: &mut u32) -> Option<()> {
        *steps = steps.checked_sub(1)?;
        Some(())
    }

    impl Disk {
        /// Adds a line, or the first `torn` bytes of it if no step is left.
        fn note(&mut self, line: &str, steps: &mut u32, torn: usize) -> Option<()> {
            self.notes.truncate(Notes::whole(&self.notes));
            if pass(steps).is_none() {
                let written = line.as_bytes().get(..torn).unwrap_or(line.as_bytes());
                self.notes.extend(written);
                return None;
            }
            self.notes.extend(line.bytes());
            Some(())
        }

        /// Appends as a sink does, until `steps` are used up; whether it came to an end.
        fn append(
            &mut self,
            wanted: Wanted<'_>,
            content: &[u8],
            (steps, torn): (&mut u32, usize),
        ) -> Option<Step> {
            loop {
                let len = u64::try_from(self.target.len()).expect("small");
                match Notes::read(&self.notes).decide(wanted, len) {
                    Step::Undo { len, line } => {
                        pass(steps)?;
                        self.target.truncate(usize::try_from(len).expect("small"));
                        self.note(&line, steps, torn)?;
                    }
                    Step::Append => {
                        self.note(&wanted.begin(), steps, torn)?;
                        for byte in content {
                            pass(steps)?;
                            self.target.push(*byte);
                        }
                        self.note(&wanted.done(), steps, torn)?;
                    }
                    other => return Some(other),
                }
            }
        }
    }

    proptest! {
        /// Items with the same content, placed at any time, killed at any step, also in the middle of
        /// a line of the notes, tried until done: each is there once.
        #[test]
        fn each_item_is_appended_once(
            kills in proptest::collection::vec((0usize..4, 0u32..8, 0usize..14), 0..40),
        ) {
            let mut disk = Disk::default();
            let ids = ["a", "b", "c", "d"];
            let mut placed: [Option<u64>; 4] = [None; 4];
            let mut done = [false; 4];
            let rest = (0..4).cycle().take(40).map(|which| (which, u32::MAX, 0));
            for (which, mut steps, torn) in kills.into_iter().chain(rest) {
                if done[which] {
                    continue;
                }
                let again = placed[which].is_some();
                let base = *placed[which]
                    .get_or_insert(u64::try_from(disk.target.len()).expect("small"));
                let wanted = Wanted { id: ids[which], base, len: 2, again };
                match disk.append(wanted, b"ok", (&mut steps, torn)) {
                    Some(Step::Done) => done[which] = true,
                    Some(Step::Taken) => placed[which] = None,
                    Some(other) => prop_assert!(false, "{other:?}"),
                    None => {}
                }
            }
            prop_assert_eq!(done, [true; 4]);
            prop_assert_eq!(disk.target, b"okokokok".to_vec());
        }

        #[test]
        fn any_bytes_are_notes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let wanted = Wanted { id: "a", base: 1, len: 1, again: true };
            let _ = Notes::read(&text).decide(wanted, 9);
        }
    }

    #[test]
    fn old_notes_are_dropped_and_then_bytes_are_compared() {
        let mut text = Vec::new();
        for number in 0..2000 {
            let id = format!("{number:036}");
            let wanted = Wanted {
                id: &id,
                base: number,
                len: 1,
                again: false,
            };
            text.extend(wanted.begin().bytes());
            text.extend(wanted.done().bytes());
        }
        let short = Notes::shortened(&text).expect("too long");
        assert!(short.len() <= NOTES_LEN_MAX / 2 + 8 && Notes::shortened(&short).is_none());
        let notes = Notes::read(&short);
        let id = format!("{:036}", 1999);
        let last = Wanted {
            id: &id,
            base: 1999,
            len: 1,
            again: true,
        };
        assert_eq!(notes.decide(last, 2000), Step::Done);
        let first = Wanted {
            id: "x",
            base: 0,
            len: 1,
            again: true,
        };
        assert_eq!(notes.decide(first, 2000), Step::Compare);
        let other = Wanted {
            again: false,
            ..first
        };
        assert_eq!(notes.decide(other, 2000), Step::Taken);
    }
}
