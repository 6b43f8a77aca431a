//! Tells observers what a session has recorded.

use std::sync::Arc;

use super::{Engine, Host};
use crate::observer::{Event, Operation, Transferred, Watch};
use crate::session::{Moved, Record};

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

    fn tell_all(&mut self, watch: &Watch) {
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
}
