//! Tells observers what a session has recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::long::sha256;
use super::{Engine, Host};
use crate::fs::{Answer, Call, Links, OpenHow};
use crate::observer::{Arrival, Event, Operation, Transferred, Watch};
use crate::path::VPath;
use crate::session::{Moved, Record};
use crate::shares::Kind;

impl<H: Host> Engine<H> {
    /// Tells `watch` from now on what happens.
    pub(crate) fn observed(&mut self, watch: Arc<Watch>) {
        self.session.keep_records(self.host.now());
        self.mailbox.count_in(&watch.jobs);
        self.watch = Some(watch);
    }

    /// Tells what there is to tell.
    pub(super) fn tell(&mut self) {
        if let Some(watch) = &self.watch
            && self.session.has_news()
        {
            let watch = Arc::clone(watch);
            self.tell_all(&watch);
        }
    }

    /// The session is over: what was open is told, too.
    pub(super) fn tell_last(&mut self) {
        if let Some(watch) = self.watch.take() {
            self.session.lose_handles();
            self.tell_all(&watch);
        }
    }

    fn tell_all(&mut self, watch: &Arc<Watch>) {
        let (Moved { read, written }, records) = self.session.take_news();
        let who = &watch.who;
        if read > 0 || written > 0 {
            watch.tell(&Event::Moved { who, read, written });
        }
        if records.is_empty() {
            return;
        }
        let now = self.host.now();
        for record in &records {
            match record {
                Record::Operation {
                    draft,
                    status,
                    text,
                } => watch.tell(&Event::Operation(&Operation {
                    who,
                    kind: draft.kind,
                    path: &draft.path,
                    other: draft.other.as_deref(),
                    status: *status,
                    text,
                    size: draft.size,
                    duration: now.saturating_duration_since(draft.began),
                })),
                Record::Arrived {
                    path,
                    began,
                    may_be_missing,
                } => {
                    let duration = began.map(|began| now.saturating_duration_since(began));
                    self.tell_arrival(watch, path.clone(), duration, *may_be_missing);
                }
                Record::Transferred {
                    path,
                    tally,
                    is_closed,
                } => {
                    let began = tally.began.unwrap_or(now);
                    watch.tell(&Event::Transferred(&Transferred {
                        who,
                        path: path.as_bytes(),
                        read: tally.read,
                        written: tally.written,
                        has_failed: tally.has_failed,
                        is_closed: *is_closed,
                        duration: now.saturating_duration_since(began),
                    }));
                }
            }
        }
    }

    /// Tells of a file that has arrived, when it was hashed: apart from the session, which may be
    /// over by then.
    fn tell_arrival(
        &self,
        watch: &Arc<Watch>,
        path: VPath,
        duration: Option<Duration>,
        may_be_missing: bool,
    ) {
        let (files, watch) = (Arc::clone(&self.root.files), Arc::clone(watch));
        let at = self.host.unix_time();
        let tell = move |path: &VPath, size, sha256| {
            watch.tell(&Event::Arrived(&Arrival {
                who: &watch.who,
                path: path.as_bytes(),
                size,
                sha256,
                duration,
                at,
            }));
        };
        let Some(place) = Place::take(&self.root.hashing) else {
            let links = Links::Stay;
            let call = Call::Metadata {
                path: path.clone(),
                links,
            };
            let size = match files.try_call(&call) {
                Ok(Answer::Metadata(metadata)) => metadata.size,
                _ => 0,
            };
            return tell(&path, size, None);
        };
        let hasher = self.host.hasher();
        let work = async move {
            let _place = place;
            let how = OpenHow::read();
            let call = Call::Open {
                path: path.clone(),
                how,
            };
            match files.call(call).await {
                Ok(Answer::File(file)) => match sha256(file, hasher).await {
                    Ok((size, hash)) => tell(&path, size, hash),
                    Err(_) => tell(&path, 0, None),
                },
                // What the trigger is for is not there.
                _ if may_be_missing => {}
                // Those who fetch it were quicker.
                _ => tell(&path, 0, None),
            }
        };
        self.host.spawn(Kind::Arrival, Box::pin(work));
    }
}

/// Most arrived files of all servers of this program that wait to be hashed; those beyond are told
/// without.
const HASHING_MAX: usize = 1024;

/// Most of one root: who fills it with files that take hours leaves room for others.
const HASHING_OF_ROOT_MAX: usize = HASHING_MAX / 4;

/// How many do.
static HASHING: AtomicUsize = AtomicUsize::new(0);

/// One of them.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(of_root: &Arc<AtomicUsize>) -> Option<Self> {
        if !one_more(of_root, HASHING_OF_ROOT_MAX) {
            return None;
        }
        let is_free = one_more(&HASHING, HASHING_MAX);
        if !is_free {
            of_root.fetch_sub(1, Ordering::Relaxed);
        }
        is_free.then(|| Self(Arc::clone(of_root)))
    }
}

fn one_more(count: &AtomicUsize, most: usize) -> bool {
    let more = |count: usize| (count < most).then_some(count.saturating_add(1));
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        .is_ok()
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        HASHING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_root_that_wait_to_be_hashed_leave_room_for_others() {
        let (many, one) = (Arc::default(), Arc::default());
        let take = |_| Place::take(&many).unwrap();
        let held: Vec<_> = (0..HASHING_OF_ROOT_MAX).map(take).collect();
        assert!(Place::take(&many).is_none());
        assert!(Place::take(&one).is_some());
        drop(held);
        assert!(Place::take(&many).is_some());
    }
}
