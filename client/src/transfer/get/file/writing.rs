//! The local side of a download: the file is created, written, named; or the sink is fed.

use std::{io::IoSlice, sync::Arc};

use ketch_protocol::Attrs;

use super::{Check, GetFile, State, Target};
use crate::{
    requests::{job::Cx, slots::Key},
    transfer::{
        chunk::Chunk,
        disk::Done,
        download::{Download, ReadFault},
        error::{Place, TransferError},
        get::{Closing, Get, Item, Local, joint::Joint},
        hands::{Hands, Hold, Read},
        local::{Begin, Created, Finish, LocalAction, LocalFault, Tree},
        names::Identity,
        options::{Durability, Resume, Verify},
        part::{self, Front, is_same},
        ranges::{RANGE_LEN, Ranges, Span},
        report::Remarkable,
        sink::Fed,
    },
};

/// Permissions of a file of which the server says none, before the umask.
const MODE_DEFAULT: u32 = 0o666;
/// A larger file is published, so that others may read ranges of it.
const JOINT_LEN_MIN: u64 = RANGE_LEN as u64;

impl Get {
    /// Opens the directory that the user named a file in, while the server is asked.
    pub(in crate::transfer::get) fn begin_local(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        // Of a directory, the name itself is the root: known when the server has answered.
        if self.options.recursive {
            return;
        }
        if let Local::Named(path) = &file.local {
            let (path, shared) = (path.clone(), Arc::clone(&self.shared));
            self.at_disk += 1;
            cx.core.disk.run_on_thread((cx.job, key), 0, move || {
                let parent = path.parent().unwrap_or(&path);
                Done::Rooted(Tree::open_root(parent, &shared.speeds))
            });
        }
    }

    /// Creates the local file, now that the server has opened its own.
    pub(super) fn create_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let (overwrite, resume) = (self.options.overwrite, self.options.resume);
        let sparse = self.options.sparse;
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        match &file.local {
            Local::Named(_) => {} // its directory is being opened
            _ if file.target.is_some() => self.start_reading(key, cx), // others have created it
            Local::Sink(sink) => {
                file.target = Some(Target::Sink(Fed::new(Arc::clone(sink))));
                self.start_reading(key, cx);
            }
            Local::In(tree, name) => {
                let attrs = file.attrs.unwrap_or_default();
                let source = Identity {
                    size: attrs.size,
                    modified: attrs.times.map(|times| u64::from(times.mtime)),
                };
                let mode = attrs.permissions.map_or(MODE_DEFAULT, |mode| mode & 0o777);
                let (name, at) = (name.clone(), Arc::clone(tree));
                let begin = Begin {
                    mode,
                    overwrite,
                    // What cannot be told from its next version cannot be continued.
                    resume: if source.size.is_some() && source.modified.is_some() {
                        resume
                    } else {
                        Resume::No
                    },
                    sparse,
                };
                let create = move || Done::Created(Created::new(&at, &name, source, begin));
                file.state = State::Creating;
                match cx.core.disk.run(tree.speed(), (cx.job, key), create) {
                    Some(done) => self.on_done(key, done, cx),
                    None => self.at_disk += 1,
                }
            }
        }
    }

    pub(super) fn start_reading(&mut self, key: Key, cx: &Cx<'_>) {
        let read_len = cx.core.read_len();
        let chunk = self.chunk.get_or_insert_with(|| Chunk::new(read_len));
        chunk.allow(read_len);
        let chunk = *chunk;
        let options = &self.options;
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        file.download = Some(Download::new(file.size(), chunk));
        file.state = State::Reading;
        let is_alone = options.resume != Resume::No || options.verify != Verify::Size;
        if let (true, Some(Target::File(created, _))) = (is_alone, &file.target) {
            if options.resume != Resume::No {
                let believed = created.believed();
                let checks = part::checks(options.resume, believed);
                let size = file.size();
                file.hold = Hold::Alone(Ranges::resuming(size, believed, checks));
                file.front = Some(Front::new(believed));
                file.came = believed;
                self.plan.progress.add_bytes(believed);
            }
            return;
        }
        if options.verify != Verify::Size {
            return; // what is compared is read in order, by one
        }
        if let (Hold::Alone(_), Some(attrs), Some(target)) = (&file.hold, file.attrs, &file.target)
            && is_for_several(&attrs)
        {
            let ranges = Ranges::new(attrs.size);
            let joint = Arc::new(Joint {
                path: file.path.clone(),
                attrs,
                depth: file.depth,
                target: target.clone(),
                hands: Hands::new(ranges, true),
            });
            file.hold = Hold::Joint(Arc::clone(&joint));
            if let Some(rtt) = cx.core.down.min_rtt() {
                self.plan.on_round_trip(rtt, false);
            }
            self.plan.add_joint(&joint);
        }
    }

    /// Names the file if all of it is here and written, or leaves it to the others who read it.
    pub(super) fn finish_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let Some(download) = &file.download else {
            return;
        };
        let finished = match &file.hold {
            Hold::Alone(_) => download.finished(),
            Hold::Joint(joint) if joint.hands.is_over() => {
                // Somebody else failed, and said so.
                if let Some(Item::File(file)) = self.items.remove(key) {
                    self.files -= 1;
                    self.discard(key, *file, cx);
                }
                return;
            }
            Hold::Joint(_) if !file.writing.is_empty() || !download.is_quiet() => return,
            Hold::Joint(joint) => match joint.hands.leave_read(download.highest()) {
                None => return,
                Some(Read::Whole {
                    end: Some(end),
                    highest,
                }) => Some(if highest > end {
                    Err(ReadFault::Shrank { end })
                } else {
                    Ok(end)
                }),
                Some(Read::Whole { end: None, highest }) => Some(Err(ReadFault::Truncated {
                    got: highest,
                    expected: file.size().unwrap_or(u64::MAX),
                })),
                Some(Read::Others) => {
                    self.chunk = Some(download.chunk());
                    if let Some(Item::File(file)) = self.items.remove(key) {
                        self.files -= 1;
                        self.discard_left(key, *file, cx);
                    }
                    return;
                }
            },
        };
        let Some(finished) = finished else {
            return;
        };
        self.chunk = Some(download.chunk());
        let finished = match finished {
            // A file that ended early has to end there again.
            Ok(size) if file.short().is_some_and(|short| short != size) => Err(file.truncated()),
            finished => finished,
        };
        let size = match finished {
            Ok(size) => size,
            Err(fault) => {
                let error = file.misread(fault);
                if let Some(Target::File(created, _)) = &file.target {
                    created.spoil(); // another version next time
                }
                return self.fail_file(key, error, cx);
            }
        };
        if file.writing.is_empty() {
            self.check_file(key, size, cx);
        }
    }

    /// Gives the local file its times and its name.
    pub(super) fn name_file(&mut self, key: Key, size: u64, cx: &mut Cx<'_>) {
        let options = &self.options;
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        file.state = State::Naming { size };
        if let Some(handle) = file.handle.take() {
            self.closing.push_back(Closing::File(handle));
        }
        let attrs = file.attrs.unwrap_or_default();
        let times = attrs.times.filter(|_| options.preserve.times);
        let mode = attrs.permissions.filter(|_| options.preserve.permissions);
        let owner = attrs.owner.filter(|_| options.preserve.owner);
        let (overwrite, durability) = (options.overwrite, options.durability);
        let finish = Finish {
            size,
            overwrite,
            durability,
            times,
            mode,
            owner,
        };
        let done = match &file.target {
            Some(Target::File(created, tree)) => {
                let at = Arc::clone(created);
                let work = move || Done::Named(at.finish(&finish));
                if durability == Durability::None {
                    cx.core.disk.run(tree.speed(), (cx.job, key), work)
                } else {
                    cx.core.disk.run_on_thread((cx.job, key), 0, work);
                    None
                }
            }
            Some(Target::Sink(sink)) => {
                let (sink, path) = (Arc::clone(sink), file.path.to_string());
                let fault = |source| LocalFault {
                    action: LocalAction::Write,
                    path: path.into(),
                    source,
                };
                cx.core.disk.run_on_thread((cx.job, key), 0, move || {
                    Done::Named(sink.finish(size).map_err(fault))
                });
                None
            }
            None => None,
        };
        match done {
            Some(done) => self.on_done(key, done, cx),
            None => self.at_disk += 1,
        }
    }

    /// Takes what came of work on the disk.
    pub(in crate::transfer::get) fn on_done(&mut self, key: Key, done: Done, cx: &mut Cx<'_>) {
        let Some(item) = self.items.get_mut(key) else {
            return; // nobody waits for the file any more: it goes
        };
        let file = match item {
            Item::File(file) => file,
            Item::Link(_) => return self.on_link_done(key, done, cx),
            Item::Dir(_) => return self.on_dir_done(key, done, cx),
        };
        let result = match done {
            Done::Rooted(Ok(tree)) => {
                if let Local::Named(path) = &file.local {
                    match path.file_name() {
                        Some(name) => {
                            file.local = Local::In(tree, name.to_owned());
                            Ok(())
                        }
                        None => {
                            let source = std::io::ErrorKind::IsADirectory.into();
                            Err(LocalFault {
                                action: LocalAction::Create,
                                path: path.clone(),
                                source,
                            }
                            .into())
                        }
                    }
                } else {
                    Ok(())
                }
            }
            Done::Created(Ok(created)) => {
                if let Local::In(tree, _) = &file.local {
                    file.target = Some(Target::File(Arc::new(created), Arc::clone(tree)));
                }
                self.start_reading(key, cx);
                Ok(())
            }
            Done::Written {
                span,
                result: Ok(()),
            } => {
                file.writing.retain(|other| *other != span);
                let new = file.on_written(span);
                self.plan.progress.add_bytes(new);
                Ok(())
            }
            Done::Hashed(Ok(hash)) => {
                self.on_hashed(key, hash, cx);
                Ok(())
            }
            Done::Compared(false) => Err(TransferError::Differs {
                path: file.path.clone(),
            }),
            Done::Named(Ok(())) => {
                self.file_done(key);
                Ok(())
            }
            Done::Rooted(Err(fault))
            | Done::Hashed(Err(fault))
            | Done::Created(Err(fault))
            | Done::Written {
                result: Err(fault), ..
            }
            | Done::Named(Err(fault)) => Err(TransferError::from(fault)),
            Done::Panicked => Err(TransferError::Panicked),
            _ => Ok(()),
        };
        if let Err(error) = result {
            self.fail_file(key, error, cx);
        }
    }

    pub(super) fn file_done(&mut self, key: Key) {
        let Some(Item::File(file)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        let State::Naming { size } = file.state else {
            return;
        };
        if let Some(joint) = file.joint() {
            self.plan.remove_joint(joint);
            joint.hands.end();
        }
        self.plan
            .progress
            .correct_total(file.size().unwrap_or(0), size);
        self.plan.progress.finish_file();
        let mut remarks = file.remarks;
        if let Some(Target::File(created, _)) = &file.target
            && created.was_refused_attrs()
        {
            remarks.add(Remarkable::AttributesNotSet);
        }
        self.plan.report(|report| {
            report.files += 1;
            report.bytes += size;
            report.remark_all(&Place::Remote(file.path.clone()), &remarks);
        });
    }
}

impl GetFile {
    /// Bytes came and were taken care of; says how many of them are new.
    fn on_written(&mut self, span: Span) -> u64 {
        if self.check != Check::Due {
            return 0;
        }
        let len = u64::from(span.len);
        let Some(front) = &mut self.front else {
            self.came = self.came.saturating_add(len);
            return len;
        };
        front.add(span);
        let checked = match &self.target {
            Some(Target::File(created, _)) => created.believed(),
            _ => 0,
        };
        if span.offset < checked {
            return 0; // they were counted when the part was found
        }
        self.came = self.came.saturating_add(len);
        len
    }

    /// Writes adjacent bytes where they lie, and says how many are new; none if a thread has them.
    pub(in crate::transfer::get) fn write(
        &mut self,
        offset: u64,
        run: &mut [IoSlice<'_>],
        len: usize,
        key: Key,
        cx: &mut Cx<'_>,
    ) -> Result<Option<u64>, TransferError> {
        let span = Span {
            offset,
            len: u32::try_from(len).unwrap_or(u32::MAX),
        };
        match &self.target {
            Some(Target::File(created, tree)) if tree.speed().is_quick() => {
                let result = tree.speed().measure(|| created.write(run, offset));
                result.map_err(|error| created.fault(LocalAction::Write, error))?;
                return Ok(Some(self.on_written(span)));
            }
            Some(Target::File(created, tree)) => {
                let (created, speed) = (Arc::clone(created), Arc::clone(tree.speed()));
                let block = copy(run, len);
                cx.core.disk.run_on_thread((cx.job, key), len, move || {
                    let mut run = [IoSlice::new(&block)];
                    let write = || created.write(&mut run, offset);
                    let result = speed.measure(write);
                    Done::Written {
                        span,
                        result: result.map_err(|error| created.fault(LocalAction::Write, error)),
                    }
                });
            }
            Some(Target::Sink(sink)) => {
                let (sink, path) = (Arc::clone(&sink.sink), self.path.to_string());
                let block = copy(run, len);
                let compares = self.check == Check::Again;
                cx.core.disk.run_on_thread((cx.job, key), len, move || {
                    let fault = |source| LocalFault {
                        action: if compares {
                            LocalAction::Read
                        } else {
                            LocalAction::Write
                        },
                        path: path.into(),
                        source,
                    };
                    if compares {
                        let read = |slot: &mut [u8], at| sink.read_at(at, slot);
                        return match is_same(&block, offset, read) {
                            Ok(true) => Done::Written {
                                span,
                                result: Ok(()),
                            },
                            Ok(false) => Done::Compared(false),
                            Err(error) => Done::Written {
                                span,
                                result: Err(fault(error)),
                            },
                        };
                    }
                    Done::Written {
                        span,
                        result: sink.write_at(offset, &block).map_err(fault),
                    }
                });
            }
            None => return Ok(Some(len as u64)), // given up meanwhile
        }
        self.writing.push(span);
        Ok(None)
    }
}

/// The one copy of bytes that have to outlive the turn.
fn copy(run: &[IoSlice<'_>], len: usize) -> Vec<u8> {
    let mut block = Vec::with_capacity(len);
    run.iter().for_each(|piece| block.extend_from_slice(piece));
    block
}

/// Whether a file is such that others may read parts of it: large, and to be recognized.
fn is_for_several(attrs: &Attrs) -> bool {
    attrs.size.is_some_and(|size| size > JOINT_LEN_MIN) && attrs.times.is_some()
}
