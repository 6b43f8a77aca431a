//! The first steps of an upload: the local file is opened, what has its name on the server is looked
//! at, and the temporary file is created.

use std::sync::{Arc, atomic::AtomicBool};

use ketch_protocol::{
    Attrs, ExtensionName, FileType, Open, OpenFlags, RemotePath, Request, WireAttrs,
};

use super::{From, PutFile, State};
use crate::{
    quirks::Quirk,
    requests::{
        job::Cx,
        slots::Key,
        table::{Expect, Step},
    },
    transfer::{
        disk::Done,
        error::TransferError,
        hands::{Hands, Hold},
        local::SourceFile,
        names::{self, Identity},
        options::{Durability, Overwrite},
        part::Front,
        put::{FILES_MAX_FAR, Item, Put, joint::Joint},
        ranges::{RANGE_LEN_UP, Ranges},
        upload::Upload,
    },
};

/// A larger file is published, so that others may send ranges of it.
const JOINT_LEN_MIN: u64 = 2 * RANGE_LEN_UP as u64;

impl PutFile {
    /// The next temporary name.
    pub(super) fn name_temporary(&mut self) -> Result<(), TransferError> {
        if self.is_in_place {
            self.temporary = self.path.clone();
            return Ok(());
        }
        let Some(temporary) = self.temporary_of(self.attempt) else {
            let file_type = FileType::Directory;
            return Err(TransferError::NotAFile {
                path: self.path.clone(),
                file_type,
            });
        };
        self.temporary = temporary;
        Ok(())
    }

    /// The temporary name of the try `attempt`; none if the path has no name.
    pub(super) fn temporary_of(&self, attempt: u8) -> Option<RemotePath> {
        let (directory, name) = self.path.parent().zip(self.path.file_name())?;
        let source = Identity {
            size: self.announced(),
            modified: self
                .opened
                .as_ref()
                .map(|opened| u64::from(opened.times.mtime)),
        };
        let number = if self.resumes {
            names::attempt_at_part(attempt)
        } else {
            names::attempt(attempt)
        };
        let name = names::temporary(self.path.as_bytes(), name, source, number);
        // A name alone stays one: what `.` is need not be said.
        let alone = !self.path.as_bytes().contains(&b'/');
        Some(if alone {
            RemotePath::from(name)
        } else {
            directory.join(name)
        })
    }
}

impl Put {
    pub(super) fn open_source(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        file.state = State::Opening;
        let source = match &file.from {
            From::File(source) => source.clone(),
            From::Source(..) => {
                file.state = State::Opened;
                return;
            }
        };
        let shared = Arc::clone(&self.shared);
        let sparse = self.options.sparse;
        let open = move |source: &SourceFile| Done::Opened(source.open(&shared.speeds, sparse));
        let done = match &source {
            SourceFile::Found(tree, _) | SourceFile::Linked(tree, _) => {
                let (source, speed) = (source.clone(), Arc::clone(tree.speed()));
                cx.core
                    .disk
                    .run(&speed, (cx.job, key), move || open(&source))
            }
            SourceFile::Named(_) => {
                cx.core
                    .disk
                    .run_on_thread((cx.job, key), 0, move || open(&source));
                None
            }
        };
        match done {
            Some(done) => self.on_file_done(key, done, cx),
            None => self.at_disk += 1,
        }
    }

    /// Looks at what has the name before anything is sent: it may have to stay, and what takes its
    /// place gets its permissions, so that a file that was nobody else's to read stays so.
    pub(super) fn look_first(&mut self, key: Key, cx: &mut Cx<'_>) {
        let (quirks, resume) = (cx.core.server.quirks, self.options.resume);
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if quirks.has(Quirk::NoExclusive) {
            file.attempt = names::ATTEMPT_BY_CHANCE;
        }
        file.is_in_place = quirks.has(Quirk::GoneAfterClose);
        file.resumes = file.may_resume(resume, cx);
        if let Err(error) = file.name_temporary() {
            return self.fail_file(key, error, cx);
        }
        if file.is_dir_new && self.options.overwrite == Overwrite::Replace {
            file.state = State::Creating;
            return;
        }
        if cx.can_ask() && cx.look(key, file.path.as_bytes()).is_ok() {
            file.state = State::Looking;
        }
    }

    pub(super) fn create(&mut self, key: Key, cx: &mut Cx<'_>) {
        if self.handles >= cx.core.open_max(FILES_MAX_FAR) {
            return;
        }
        let overwrite = self.options.overwrite;
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let local = file.opened.as_ref().and_then(|opened| opened.mode);
        let mode = file.replaced_mode.or(local);
        // A name that chance made is nobody's, also where the server cannot see to that.
        let replaces = file.is_in_place && overwrite == Overwrite::Replace;
        let last = if replaces || cx.core.server.quirks.has(Quirk::NoExclusive) {
            OpenFlags::TRUNCATE
        } else {
            OpenFlags::EXCLUSIVE
        };
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | last;
        let request = Open {
            path: file.temporary.as_bytes(),
            flags,
            // Whoever uploads may write on, whatever the local file says.
            attrs: WireAttrs::from(Attrs {
                permissions: mode.map(|mode| mode & 0o777 | 0o600),
                ..Attrs::NONE
            }),
        };
        if cx.can_ask()
            && cx.core.may_open()
            && cx
                .ask(key, Step::Open, &Request::Open(request), Expect::Handle)
                .is_ok()
        {
            file.state = State::Asked;
            self.handles += 1;
        }
    }

    pub(super) fn start_writing(&mut self, key: Key, cx: &mut Cx<'_>) -> Result<(), TransferError> {
        let durable = self.options.durability != Durability::None;
        if durable && !cx.core.server.extensions.contains(ExtensionName::Fsync) {
            let extension = ExtensionName::Fsync.as_str();
            return Err(TransferError::Unsupported {
                extension,
                purpose: "bring a file to its disk",
            });
        }
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return Ok(());
        };
        let handle_len = file.handle.as_ref().map_or(0, |handle| handle.len());
        let chunk = cx.core.write_len(handle_len, cx.link);
        let announced = file.announced();
        file.began_with = cx.core.server.quirks;
        file.leaves_holes = !file.began_with.has(Quirk::InOrder);
        file.upload = Some(Upload::new(announced, chunk));
        file.state = State::Writing;
        if matches!(file.hold, Hold::Joint(_)) {
            return Ok(());
        }
        if file.resumes {
            let from = file.resumed_at;
            // What an earlier run sent behind that is written over, holes and all.
            file.leaves_holes &= from == 0;
            file.gap_at = (from > 0).then_some(from);
            file.hold = Hold::Alone(Ranges::resuming(announced, from, Vec::new()));
            file.front = Some(Front::new(from));
            self.plan.progress.add_bytes(from);
            return Ok(());
        }
        let ranges = Ranges::of(announced, RANGE_LEN_UP);
        if file.is_in_place || announced.is_none_or(|size| size <= JOINT_LEN_MIN) {
            file.hold = Hold::Alone(ranges);
            return Ok(());
        }
        let stripes = cx.core.server.quirks.may_stripe_writes();
        let joint = Arc::new(Joint {
            from: file.from.clone(),
            opened: file.opened.clone(),
            path: file.path.clone(),
            temporary: file.temporary.clone(),
            hands: Hands::new(ranges, stripes),
            may_be_cleared: AtomicBool::new(false),
        });
        file.hold = Hold::Joint(Arc::clone(&joint));
        if let Some(rtt) = cx.core.up.min_rtt() {
            self.plan.on_round_trip(rtt, true);
        }
        self.plan.add_joint(&joint);
        Ok(())
    }
}
