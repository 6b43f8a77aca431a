//! Temporary files that killed runs left, told from everything else.
//!
//! They are never copied and never count as files of the destination. Removed are those of which
//! one of two things is certain:
//!
//! - **They are parts of a copy that this run is in charge of.** The digits in their name are a
//!   hash of the destination, and of size and time of the source (`transfer/names.rs`); they are
//!   computed again from the listing of the source. Only another run that copies the very same
//!   version of the same file to the same name at the same time would use that name, too: its copy
//!   then fails with an error, and ours is whole.
//! - **They are old**: nobody has written to them for a day, by their time and our clock.
//!
//! Parts of other versions stay until they are old: another program may be writing them.

use super::compare::Entry;
use crate::transfer::names::{self, Identity};

/// Seconds after which nobody is held to be writing any more.
pub(super) const OLD_SECONDS: u32 = 24 * 60 * 60;

/// Whether `name` is that of a file which is not whole.
pub(super) fn is_temporary(name: &[u8]) -> bool {
    names::of_temporary(name).is_some()
}

/// Whether the temporary file `leftover` may be removed.
///
/// `sources` is the sorted listing of the source, `destination_of` gives the whole destination of
/// a name as the transfer hashes it, `now` is in seconds since 1970.
pub(super) fn is_ours(
    leftover: &Entry,
    sources: &[Entry],
    destination_of: impl Fn(&[u8]) -> Vec<u8>,
    now: u32,
) -> bool {
    let Some(stem) = names::of_temporary(&leftover.name) else {
        return false;
    };
    let is_old = leftover
        .modified()
        .is_some_and(|time| time.saturating_add(OLD_SECONDS) < now);
    if is_old {
        return true;
    }
    let made_for = |source: &Entry| {
        let identity = Identity {
            size: source.attrs.size,
            modified: source.modified().map(u64::from),
        };
        let destination = destination_of(&source.name);
        let fixed = (0..names::NAMES_FIXED).map(names::attempt);
        let mut attempts = fixed.chain([names::ATTEMPT_BESIDE]);
        attempts.any(|attempt| {
            names::temporary(&destination, &source.name, identity, attempt)[..] == *leftover.name
        })
    };
    let beginning = names::beginning_of(stem);
    let first = sources.partition_point(|source| *source.name < *beginning);
    // A long name was cut: several may begin with what is left of it. No more than a few are tried.
    let tries = if beginning.len() < stem.len() { 64 } else { 1 };
    let candidates = sources.get(first..).unwrap_or_default();
    candidates
        .iter()
        .take(tries)
        .take_while(|source| source.name.starts_with(beginning))
        .any(made_for)
}

#[cfg(test)]
mod tests {
    use ketch_protocol::{Attrs, FileType, Times};

    use super::*;
    use crate::transfer::names::NAME_LEN_MAX;

    fn entry(name: &[u8], size: u64, mtime: u32) -> Entry {
        Entry {
            name: name.into(),
            file_type: FileType::Regular,
            attrs: Attrs {
                size: Some(size),
                times: Some(Times { atime: 0, mtime }),
                ..Attrs::NONE
            },
            followed: false,
        }
    }

    fn destination_of(name: &[u8]) -> Vec<u8> {
        [b"/in/", name].concat()
    }

    fn part_of(source: &Entry, tries: u8) -> Vec<u8> {
        let identity = Identity {
            size: source.attrs.size,
            modified: source.modified().map(u64::from),
        };
        let attempt = names::attempt(tries);
        names::temporary(
            &destination_of(&source.name),
            &source.name,
            identity,
            attempt,
        )
    }

    const NOW: u32 = 1_800_000_000;

    #[test]
    fn only_names_of_that_form_are_temporary() {
        let name = part_of(&entry(b"a", 1, 1), 0);
        assert!(is_temporary(&name));
        let upper = name.to_ascii_uppercase();
        for other in [
            &b".ketch-0123456789abcdef"[..],
            b"a",
            b"",
            b".a.ketch-0123",
            &upper,
            &name[1..],
        ] {
            assert!(!is_temporary(other), "{other:?}");
        }
    }

    #[test]
    fn parts_of_what_is_to_be_copied_are_ours_however_new() {
        let long = [b'x'; NAME_LEN_MAX];
        for name in [&b"a"[..], b"b c", &long] {
            let source = entry(name, 7, 9);
            let others = [entry(b"0", 1, 1), source.clone(), entry(b"z", 1, 1)];
            for tries in 0..names::NAMES_FIXED {
                let leftover = entry(&part_of(&source, tries), 3, NOW);
                assert!(is_ours(&leftover, &others, destination_of, NOW));
                // Of another version, or of what is not there any more.
                let changed = [entry(name, 8, 9)];
                assert!(!is_ours(&leftover, &changed, destination_of, NOW));
                assert!(!is_ours(&leftover, &[], destination_of, NOW));
                // For another destination.
                assert!(!is_ours(&leftover, &others, |_| b"/other".to_vec(), NOW));
            }
        }
    }

    #[test]
    fn what_is_old_is_nobody_s() {
        let name = b".a.ketch-0123456789abcdef";
        let is_ours = |mtime, now| is_ours(&entry(name, 1, mtime), &[], destination_of, now);
        assert!(is_ours(NOW - OLD_SECONDS - 1, NOW));
        assert!(!is_ours(NOW - OLD_SECONDS, NOW));
        assert!(!is_ours(u32::MAX, NOW), "a clock that is ahead");
    }
}
