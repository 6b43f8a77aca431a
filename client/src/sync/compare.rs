//! What is to be done with each name of a directory that both sides have, or one of them.
//!
//! A machine without I/O: two sorted listings in, a decision for each name out. It is asked
//! directory by directory, from the top down; who carries the decisions out descends where it says
//! so. It never removes on its own account what it was not shown as missing at the source: who
//! has only half a listing must not ask.

use std::{cmp::Ordering, iter::Peekable, slice};

use ketch_protocol::{Attrs, FileType};

use super::{
    leftover,
    report::{Difference, Sameness, SkipReason},
};
use crate::filter::Filter;

/// One name in a directory of one side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub name: Box<[u8]>,
    pub file_type: FileType,
    /// Of the entry itself; of what a link leads to, where links are followed.
    pub attrs: Attrs,
    /// A link stands there, and what it leads to is meant.
    pub followed: bool,
}

impl Entry {
    pub(super) fn modified(&self) -> Option<u32> {
        self.attrs.times.map(|times| times.mtime)
    }

    fn is_directory(&self) -> bool {
        self.file_type == FileType::Directory
    }
}

/// By what a file counts as the same on both sides.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Comparison {
    /// Size and time of the last change, which SFTP has in whole seconds. The default. A file that
    /// was changed without either is not found.
    #[default]
    SizeAndTime,
    /// Size alone.
    Size,
    /// Size, and then the content: by the server's own checksum where it has one
    /// (`check-file-name`), else all of both files is read.
    Content,
}

/// The rules for decisions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub comparison: Comparison,
    /// Seconds by which times may differ and count as equal.
    pub allowance: u32,
    /// What is newer at the destination stays.
    pub update: bool,
    /// What the source does not have is removed.
    pub delete: bool,
    /// Links become links.
    pub copies_links: bool,
    pub filter: Option<&'a Filter>,
    /// The path of a directory that takes no part, as what is replaced goes there.
    pub backup: Option<&'a [u8]>,
}

/// What is to be done with one name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    /// It is as it should be.
    Unchanged(Sameness),
    /// It is left as it is, whatever it is.
    Skip(SkipReason),
    /// It is only at the destination, and may stay.
    Extra,
    /// A file is to be copied to a free name.
    Copy,
    /// A file is to be copied over the old one.
    Replace(Difference),
    /// Content has to be looked at: replaced if it differs.
    CompareContent,
    /// Both have the directory: it is to be entered.
    Enter,
    /// A directory is to be made and entered.
    MakeDirectory,
    /// A link is to be made.
    CopyLink,
    /// Both have a link: to be replaced if it leads elsewhere.
    CompareLink,
    /// A file or link is to be removed when all else is done.
    Remove,
    /// The same for a directory, which is to be entered for what is below it.
    RemoveDirectory,
    /// Two different things have the name: what the destination has is to make room.
    Change { destination: FileType },
    /// Two different things have the name: neither is touched.
    Conflict {
        source: FileType,
        destination: FileType,
    },
}

/// The names of two sorted listings, each once.
pub(super) struct Pairs<'a> {
    source: Peekable<slice::Iter<'a, Entry>>,
    destination: Peekable<slice::Iter<'a, Entry>>,
}

impl<'a> Pairs<'a> {
    /// Both sorted by name, no name twice.
    pub(super) fn new(source: &'a [Entry], destination: &'a [Entry]) -> Self {
        Self {
            source: source.iter().peekable(),
            destination: destination.iter().peekable(),
        }
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Option<&'a Entry>, Option<&'a Entry>);

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.source.peek(), self.destination.peek()) {
            (Some(source), Some(destination)) => source.name.cmp(&destination.name),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        Some(match order {
            Ordering::Less => (self.source.next(), None),
            Ordering::Equal => (self.source.next(), self.destination.next()),
            Ordering::Greater => (None, self.destination.next()),
        })
    }
}

impl Rules<'_> {
    /// Decides about the name at `path` (counted from the topmost directory, without a slash in
    /// front), which one side has at least.
    pub(super) fn decide(
        &self,
        path: &[u8],
        source: Option<&Entry>,
        destination: Option<&Entry>,
    ) -> Decision {
        let admits = |entry: &Entry| {
            self.filter
                .is_none_or(|filter| filter.admits(path, entry.is_directory()))
        };
        if self.backup == Some(path) {
            return Decision::Skip(SkipReason::Backup);
        }
        let Some(source) = source else {
            let Some(destination) = destination else {
                return Decision::Extra;
            };
            if !admits(destination) {
                return Decision::Skip(SkipReason::Excluded);
            }
            if leftover::is_temporary(&destination.name) {
                return Decision::Skip(SkipReason::Temporary);
            }
            return match destination.file_type {
                _ if !self.delete => Decision::Extra,
                FileType::Directory => Decision::RemoveDirectory,
                FileType::Regular | FileType::Symlink => Decision::Remove,
                other => Decision::Skip(SkipReason::Special(other)),
            };
        };
        if !admits(source) {
            return Decision::Skip(SkipReason::Excluded);
        }
        if leftover::is_temporary(&source.name) {
            return Decision::Skip(SkipReason::Temporary);
        }
        match (source.file_type, destination) {
            (FileType::Regular, None) => Decision::Copy,
            (FileType::Regular, Some(old)) if old.file_type == FileType::Regular => {
                self.compare(source, old)
            }
            (FileType::Directory, None) => Decision::MakeDirectory,
            (FileType::Directory, Some(old)) if old.is_directory() => Decision::Enter,
            (FileType::Symlink, _) if !self.copies_links => Decision::Skip(SkipReason::Link),
            (FileType::Symlink, None) => Decision::CopyLink,
            (FileType::Symlink, Some(old)) if old.file_type == FileType::Symlink => {
                Decision::CompareLink
            }
            (FileType::Regular | FileType::Directory | FileType::Symlink, Some(old)) => {
                let may_go = matches!(
                    old.file_type,
                    FileType::Regular | FileType::Directory | FileType::Symlink
                );
                if self.delete && may_go && admits(old) {
                    let destination = old.file_type;
                    return Decision::Change { destination };
                }
                Decision::Conflict {
                    source: source.file_type,
                    destination: old.file_type,
                }
            }
            (other, _) => Decision::Skip(SkipReason::Special(other)),
        }
    }

    fn compare(&self, source: &Entry, old: &Entry) -> Decision {
        let times = source.modified().zip(old.modified());
        if self.update && times.is_some_and(|(new, old)| old > new.saturating_add(self.allowance)) {
            return Decision::Skip(SkipReason::NewerThere);
        }
        let sizes = source.attrs.size.zip(old.attrs.size);
        match (self.comparison, sizes, times) {
            (_, Some((new, old)), _) if new != old => Decision::Replace(Difference::Size),
            // Servers need not tell either (draft-02 §5): what is not known is not the same.
            (_, None, _) | (Comparison::SizeAndTime, _, None) => {
                Decision::Replace(Difference::Unknown)
            }
            (Comparison::Size, ..) => Decision::Unchanged(Sameness::Size),
            (Comparison::Content, ..) => Decision::CompareContent,
            (Comparison::SizeAndTime, _, Some((new, old))) => {
                if new.abs_diff(old) <= self.allowance {
                    Decision::Unchanged(Sameness::SizeAndTime)
                } else {
                    Decision::Replace(Difference::Time)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ketch_protocol::Times;
    use proptest::prelude::*;

    use super::*;

    /// What a path is, in a model of a tree.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum Node {
        File { size: u64, time: u32, content: u8 },
        Directory,
        Link,
        Pipe,
    }

    type Tree = BTreeMap<String, Node>;

    fn listing(tree: &Tree, directory: &str) -> Vec<Entry> {
        let prefix = if directory.is_empty() {
            String::new()
        } else {
            format!("{directory}/")
        };
        let mut entries: Vec<_> = tree
            .iter()
            .filter_map(|(path, node)| Some((path.strip_prefix(&prefix)?, node)))
            .filter(|(name, _)| !name.is_empty() && !name.contains('/'))
            .map(|(name, node)| {
                let (file_type, size, time) = match *node {
                    Node::File { size, time, .. } => (FileType::Regular, Some(size), Some(time)),
                    Node::Directory => (FileType::Directory, None, None),
                    Node::Link => (FileType::Symlink, None, None),
                    Node::Pipe => (FileType::Fifo, None, None),
                };
                let times = time.map(|time| Times {
                    atime: 0,
                    mtime: time,
                });
                Entry {
                    name: name.as_bytes().into(),
                    file_type,
                    attrs: Attrs {
                        size,
                        times,
                        ..Attrs::NONE
                    },
                    followed: false,
                }
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }

    /// Carries out what the machine says, and says what that was.
    fn sync(source: &Tree, destination: &mut Tree, rules: &Rules<'_>) -> Vec<(String, Decision)> {
        let mut done = Vec::new();
        let mut doomed = Vec::new();
        let mut kept: Vec<String> = Vec::new();
        let mut directories = vec![String::new()];
        while let Some(directory) = directories.pop() {
            let (there, here) = (
                listing(source, &directory),
                listing(destination, &directory),
            );
            for (new, old) in Pairs::new(&there, &here) {
                let name = &new.or(old).unwrap().name;
                let name = std::str::from_utf8(name).unwrap();
                let path = if directory.is_empty() {
                    name.to_owned()
                } else {
                    format!("{directory}/{name}")
                };
                let decision = rules.decide(path.as_bytes(), new, old);
                match decision {
                    Decision::Copy | Decision::Replace(_) => {
                        destination.insert(path.clone(), source[&path]);
                    }
                    Decision::CompareContent => {
                        if source[&path] == destination[&path] {
                            continue;
                        }
                        let Node::File { size, content, .. } = source[&path] else {
                            panic!("a {decision:?}");
                        };
                        let Node::File { time, .. } = destination[&path] else {
                            panic!("a {decision:?}");
                        };
                        let new = Node::File {
                            size,
                            time,
                            content,
                        };
                        if destination.insert(path.clone(), new) == Some(new) {
                            continue;
                        }
                    }
                    Decision::CopyLink => {
                        destination.insert(path.clone(), Node::Link);
                    }
                    Decision::MakeDirectory => {
                        destination.insert(path.clone(), Node::Directory);
                        directories.push(path.clone());
                    }
                    Decision::Enter => {
                        directories.push(path);
                        continue;
                    }
                    Decision::Remove => doomed.push(path.clone()),
                    Decision::RemoveDirectory => {
                        doomed.push(path.clone());
                        directories.push(path.clone());
                    }
                    _ => {
                        kept.push(path);
                        continue;
                    }
                }
                done.push((path, decision));
            }
        }
        doomed.retain(|path| {
            let below = format!("{path}/");
            !kept.iter().any(|kept| kept.starts_with(&below))
        });
        done.retain(|(path, decision)| {
            !matches!(decision, Decision::Remove | Decision::RemoveDirectory)
                || doomed.contains(path)
        });
        for path in doomed {
            destination.remove(&path);
        }
        done
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let node = prop_oneof![
            4 => (0..3_u64, 0..3_u32, 0..2_u8)
                .prop_map(|(size, time, content)| Node::File { size, time, content }),
            4 => Just(Node::Directory),
            1 => Just(Node::Link),
            1 => Just(Node::Pipe),
        ];
        proptest::collection::btree_map("[abx](/[abx]){0,3}", node, 0..24).prop_map(|mut tree| {
            // What is below no directory is in no tree.
            let whole = tree.clone();
            tree.retain(|path: &String, _| {
                path.match_indices('/')
                    .all(|(at, _)| whole.get(&path[..at]) == Some(&Node::Directory))
            });
            tree
        })
    }

    fn filter() -> impl Strategy<Value = Option<Filter>> {
        let rule = ("/?[abx](/[abx])?/?", any::<bool>());
        proptest::option::of(proptest::collection::vec(rule, 0..4).prop_map(|rules| {
            rules
                .into_iter()
                .try_fold(Filter::new(), |filter, (pattern, includes)| {
                    if includes {
                        filter.include(pattern)
                    } else {
                        filter.exclude(pattern)
                    }
                })
                .unwrap()
        }))
    }

    /// Whether the filter takes a path, and all directories above it.
    fn is_taken(path: &str, tree: &Tree, filter: Option<&Filter>) -> bool {
        let above = path.match_indices('/').map(|(at, _)| (&path[..at], true));
        let itself = (path, tree.get(path) == Some(&Node::Directory));
        above.chain([itself]).all(|(path, is_directory)| {
            filter.is_none_or(|filter| filter.admits(path.as_bytes(), is_directory))
        })
    }

    proptest! {
        #[test]
        fn a_mirror_holds_what_the_source_holds_and_the_second_run_does_nothing(
            source in tree(), before in tree(), filter in filter(), delete in any::<bool>(),
            update in any::<bool>(), copies_links in any::<bool>(), allowance in 0..2_u32,
            comparison in prop_oneof![
                Just(Comparison::SizeAndTime), Just(Comparison::Size), Just(Comparison::Content),
            ],
        ) {
            let filter = filter.as_ref();
            let rules =
                Rules { comparison, allowance, update, delete, copies_links, filter, backup: None };
            let mut after = before.clone();
            let done = sync(&source, &mut after, &rules);

            for (path, node) in &source {
                let taken = is_taken(path, &source, filter);
                let conflict = before.iter().any(|(old, was)| {
                    (path == old || path.starts_with(&format!("{old}/")))
                        && std::mem::discriminant(&source[old.as_str()]) != std::mem::discriminant(was)
                });
                if !taken || conflict {
                    continue;
                }
                let wanted = match (node, before.get(path)) {
                    (Node::Pipe, old) => old.copied(),
                    (Node::Link, old) if !copies_links => old.copied(),
                    (Node::File { time, .. }, Some(&old @ Node::File { time: was, .. }))
                        if update && was > time + allowance => Some(old),
                    (&Node::File { size, time, content }, Some(&old @ Node::File {
                        size: was, time: when, content: what,
                    })) => match comparison {
                        Comparison::Size if size == was => Some(old),
                        Comparison::SizeAndTime
                            if size == was && time.abs_diff(when) <= allowance => Some(old),
                        Comparison::Content if size == was && content == what => Some(old),
                        Comparison::Content if size == was =>
                            Some(Node::File { size, time: when, content }),
                        _ => Some(*node),
                    },
                    _ => Some(*node),
                };
                prop_assert_eq!(after.get(path).copied(), wanted, "{}", path);
            }
            for (path, node) in &before {
                let still = after.get(path);
                prop_assert!(delete || still.is_some(), "{} was removed", path);
                prop_assert!(is_taken(path, &before, filter) || still == Some(node), "{}", path);
                prop_assert!(*node != Node::Pipe || still == Some(node));
                if source.contains_key(path) {
                    prop_assert!(still.is_some(), "{}", path);
                }
            }
            if delete && filter.is_none() {
                for path in after.keys() {
                    let below = format!("{path}/");
                    let holds = |tree: &Tree, what: Node| {
                        tree.iter().any(|(p, node)| *node == what && (p == path || p.starts_with(&below)))
                    };
                    let conflict = path
                        .match_indices('/')
                        .any(|(at, _)| !matches!(source.get(&path[..at]), None | Some(Node::Directory)));
                    prop_assert!(
                        source.contains_key(path) || holds(&after, Node::Pipe) || conflict,
                        "{} is left", path
                    );
                }
            }
            if !done.is_empty() {
                let again = sync(&source, &mut after, &rules);
                prop_assert_eq!(again, []);
            }
        }
    }

    fn file(size: Option<u64>, time: Option<u32>) -> Entry {
        Entry {
            name: b"a"[..].into(),
            file_type: FileType::Regular,
            attrs: Attrs {
                size,
                times: time.map(|mtime| Times { atime: 0, mtime }),
                ..Attrs::NONE
            },
            followed: false,
        }
    }

    const RULES: Rules<'_> = Rules {
        comparison: Comparison::SizeAndTime,
        allowance: 0,
        update: false,
        delete: false,
        copies_links: false,
        filter: None,
        backup: None,
    };

    #[test]
    fn what_the_server_does_not_tell_is_not_the_same() {
        let known = file(Some(1), Some(1));
        for (new, old) in [
            (file(None, Some(1)), known.clone()),
            (known.clone(), file(Some(1), None)),
        ] {
            assert_eq!(
                RULES.decide(b"a", Some(&new), Some(&old)),
                Decision::Replace(Difference::Unknown)
            );
        }
        let by_size = Rules {
            comparison: Comparison::Size,
            ..RULES
        };
        assert_eq!(
            by_size.decide(b"a", Some(&known), Some(&file(Some(1), None))),
            Decision::Unchanged(Sameness::Size)
        );
    }

    #[test]
    fn times_may_differ_by_the_allowance() {
        let allowance = Rules {
            allowance: 2,
            ..RULES
        };
        for (old, decision) in [
            (8, Decision::Unchanged(Sameness::SizeAndTime)),
            (12, Decision::Unchanged(Sameness::SizeAndTime)),
            (7, Decision::Replace(Difference::Time)),
            (13, Decision::Replace(Difference::Time)),
        ] {
            let (new, old) = (file(Some(1), Some(10)), file(Some(1), Some(old)));
            assert_eq!(allowance.decide(b"a", Some(&new), Some(&old)), decision);
        }
        let edge = (file(Some(1), Some(u32::MAX)), file(Some(1), Some(0)));
        assert_eq!(
            Rules {
                update: true,
                ..allowance
            }
            .decide(b"a", Some(&edge.0), Some(&edge.1)),
            Decision::Replace(Difference::Time)
        );
    }
}
