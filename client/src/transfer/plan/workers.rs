//! Those who work on a plan: who there is, what each is told, who goes on when one is gone.
//!
//! A worker joins, rests when it has nothing to do, and leaves when its connection is lost, when its
//! server stalls, or when it is told to because it does not pay. What it had goes back to the plan
//! before it says so.

use std::{sync::Arc, time::Duration};

use super::{Joint, Orders, Plan, State, Work};
use crate::{
    quirks::Quirks,
    requests::calls::{Ended, Shared},
    transfer::{
        control::Priority,
        crew::MANY_FILES,
        error::TransferError,
        pace::FAR,
        trial::{Order, Seen},
    },
};

/// Channels that stall with nobody else at work, until a plan ends with the next.
const STALLS_MAX: u32 = 8;

/// What the crew wants to know of a plan (`crew.rs`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Facts {
    /// Channels at work.
    pub workers: usize,
    /// The shortest round trip that one of them saw.
    pub rtt: Option<Duration>,
    /// Whether it was more than the first ones, in which a server starts its program.
    pub is_rtt_sure: bool,
    /// Files that nobody has begun.
    pub files: usize,
    /// Bytes of joint files that nobody has taken on.
    pub joint_bytes: u64,
    /// Whether anything is left to do for one more.
    pub has_work: bool,
    /// Whether it is paused.
    pub is_held: bool,
    /// Whether others go first.
    pub is_low: bool,
}

/// What somebody who has nothing to do is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rest {
    /// Others are at work, and may bring more.
    Wait,
    /// Something was added while it looked elsewhere: nobody else may come to it.
    More,
    /// All is done.
    Over,
}

/// Those who work on it.
impl<W: Work> Plan<W> {
    /// A channel comes to work on the plan.
    pub(crate) fn join(&self, shared: &Arc<Shared>) -> (u32, Orders) {
        self.lock().members.add(shared)
    }

    /// Has all who came after the first do as they are told, those who are still to come as well.
    pub(crate) fn order_further(&self, order: Order) {
        self.lock().members.order_further(order);
    }

    /// A worker that was told to leave has given back what it had. False if it has become the
    /// first meanwhile, and has to stay.
    pub(crate) fn dismiss(&self, id: u32) -> bool {
        let mut state = self.lock();
        if state.members.is_first(id) {
            return false;
        }
        state.members.remove(id);
        state.wake_all();
        state.wake_crew();
        true
    }

    /// A worker has nothing to do: it may go when all is done.
    pub(crate) fn rest(&self, id: u32) -> Rest {
        let mut state = self.lock();
        if let Some(member) = state.members.iter_mut().find(|member| member.id == id) {
            member.resting = true;
        }
        let all_rest = state.members.iter().all(|member| member.resting);
        let is_done = all_rest && state.is_empty();
        if is_done && !state.finished && !state.doubtful.is_empty() {
            let State {
                leftovers,
                doubtful,
                ..
            } = &mut *state;
            leftovers.append(doubtful);
            state.wake_resting();
            return Rest::Wait;
        }
        if !(state.finished || is_done) {
            if !state.has_more() {
                return Rest::Wait;
            }
            // It goes on at once, so nobody may take it for one who rests.
            if let Some(member) = state.members.iter_mut().find(|member| member.id == id) {
                member.resting = false;
            }
            return Rest::More;
        }
        state.members.remove(id);
        state.wake_all();
        self.finish_with(&mut state);
        Rest::Over
    }

    /// Whether what a lost connection leaves may be worked off by others, or over another one.
    pub(crate) fn may_go_on(&self, id: u32, ended: &Ended) -> bool {
        let state = self.lock();
        let others = state.members.are_others(id);
        let is_possible = match ended {
            Ended::Closed(_) => others || state.has_second_chance,
            // A server that answers nothing at all would not answer on another channel either.
            Ended::Stalled => {
                let has_moved = self.moved() > state.moved_at_stall && state.stalls < STALLS_MAX;
                others || state.has_other_channels && has_moved
            }
            Ended::Misbehaved(_) => false,
        };
        is_possible && !self.is_over()
    }

    /// What grows as long as the plan gets on.
    fn moved(&self) -> u64 {
        let files = self.progress.files_done();
        self.progress.bytes_done().saturating_add(files)
    }

    /// A worker's connection was lost with `error`; what it had was given back, or the plan
    /// stopped.
    pub(crate) fn leave(&self, id: u32, error: TransferError) {
        let mut state = self.lock();
        let mut has_second_chance = state.has_second_chance;
        if matches!(error, TransferError::TimedOut { .. }) {
            has_second_chance |= state.has_other_channels;
            let left = state.members.find(id);
            if let Some(habits) = left.map(|left| left.shared.server_now().quirks) {
                state.habits = habits;
            }
            if state.members.len() == 1 {
                state.stalls += 1;
                state.moved_at_stall = self.moved();
            }
        }
        state.members.remove(id);
        if state.members.is_empty() && (self.is_over() || !has_second_chance) {
            if state.fatal.is_none() && !self.is_over() {
                state.fatal = Some(error);
            }
            self.finish_with(&mut state);
        } else {
            state.lost = Some(error);
            state.wake_all();
            state.wake_crew();
        }
    }

    /// What there is to see of its pace.
    pub(crate) fn seen(&self) -> Seen {
        let limit = self.limit.as_ref();
        let is_limited = limit.is_some_and(|limit| limit.bytes_per_second().is_some());
        let state = self.lock();
        Seen {
            workers: state.members.len(),
            moved: self.progress.bytes_done(),
            left: state.joint_bytes(),
            rtt: state.facts.rtt,
            is_bound: is_limited || self.control.is_paused(),
        }
    }

    /// All who work on it are told to look.
    pub(crate) fn wake_workers(&self) {
        self.lock().wake_all();
    }

    /// A worker saw a round trip of so long, among others if it is sure.
    pub(crate) fn on_round_trip(&self, rtt: Duration, is_sure: bool) {
        let mut state = self.lock();
        state.facts.is_rtt_sure |= is_sure;
        state.facts.rtt = Some(state.facts.rtt.map_or(rtt, |known| known.min(rtt)));
        state.wake_crew();
    }

    /// A worker whose path is so long tells of it when many files wait: once, and again where what
    /// looked like a long path was a first answer that had to wait for the login.
    pub(crate) fn on_many_files(&self, rtt: Option<Duration>) {
        let mut state = self.lock();
        let Some(rtt) = rtt else { return };
        let is_news = state.many_told.is_none_or(|told| told >= FAR && rtt < FAR);
        if is_news && state.files.len() >= MANY_FILES {
            state.many_told = Some(rtt);
            drop(state);
            self.on_round_trip(rtt, true);
        }
    }

    /// A lost connection can be made anew, or not.
    pub(crate) fn set_second_chance(&self, yes: bool) {
        self.lock().has_second_chance = yes;
    }

    /// Other channels can be opened.
    pub(crate) fn set_other_channels(&self) {
        self.lock().has_other_channels = true;
    }

    /// What the server was seen to do, if the last of its channels stalled and was left.
    pub(crate) fn stalled(&self) -> Option<Quirks> {
        let state = self.lock();
        let is_stalled = matches!(state.lost, Some(TransferError::TimedOut { .. }));
        is_stalled.then_some(state.habits)
    }

    /// There is no other connection to be had: the plan ends as the last one ended.
    pub(crate) fn end_as_lost(&self) {
        let error = self.lock().lost.take();
        self.stop(error);
        self.finish_alone();
    }

    /// Nobody is left who could say the last word.
    pub(super) fn finish_alone(&self) {
        let mut state = self.lock();
        if state.members.is_empty() {
            self.finish_with(&mut state);
        }
    }

    /// What the crew wants to know.
    pub(crate) fn facts(&self) -> Facts {
        let state = self.lock();
        Facts {
            workers: state.members.len(),
            files: state.files.len(),
            joint_bytes: state.joint_bytes(),
            has_work: !state.is_empty(),
            is_held: self.is_held(),
            is_low: self.control.priority() == Priority::Low,
            ..state.facts
        }
    }
}

impl<W: Work> State<W> {
    /// Whether somebody with nothing to do would find something now.
    fn has_more(&self) -> bool {
        let is_for_one_more = |joint: &Arc<W::Joint>| {
            let hands = joint.hands();
            hands.are_gone() || hands.left_for_others() > 0
        };
        !self.files.is_empty()
            || !self.dirs.is_empty()
            || !self.leftovers.is_empty()
            || self.joints.iter().any(is_for_one_more)
    }

    /// Bytes of joint files that nobody has taken on. The sizes are the peer's word.
    fn joint_bytes(&self) -> u64 {
        let left = self
            .joints
            .iter()
            .map(|joint| joint.hands().left_for_others());
        left.fold(0, u64::saturating_add)
    }
}
