//! Waiting for what becomes of a plan, and opening what it is worked off on.
//!
//! Whoever waits for a transfer also polls its crew: further channels and connections are opened
//! when that pays (`crew.rs` decides), and a new connection is made when all were lost. So there is
//! no task beside those of the connections, and nothing goes on when nobody waits.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    crew::{Crew, Step, bears_many},
    error::TransferError,
    options::Streams,
    plan::{Plan, Work},
    report::Report,
    trial::{Order, Trial},
};
use crate::{
    Failure, Kind,
    connect::Origin,
    quirks::Quirk,
    requests::calls::{Shared, Submission},
    session::Session,
    sftp::Sftp,
};
use tokio::time::{Instant, Sleep};

/// New connections in a row that are lost before anything moved, until a transfer ends with them.
const FRUITLESS_MAX: u32 = 8;

/// Waits for the outcome of a plan; dropping it gives the plan up.
pub(crate) struct Outcome<W: Work> {
    plan: Arc<Plan<W>>,
    options: W::Options,
    over: bool,
    opener: Option<Opener>,
}

type Opening = Pin<Box<dyn Future<Output = Option<Sftp>> + Send>>;

/// What opens channels and connections.
struct Opener {
    crew: Crew,
    session: Session,
    opening: Vec<(Step, Opening)>,
    /// A connection in place of those that were lost.
    anew: Option<Opening>,
    /// Whether the further ones pay, and what wakes it when to look next.
    trial: Trial,
    timer: Option<Pin<Box<Sleep>>>,
    /// What was moved when the last connection was lost, and how often it was no more.
    moved: (u64, u64),
    fruitless: u32,
}

impl<W: Work> Outcome<W> {
    /// Has `plan` worked off on the channel that `shared` leads to, and waits for it.
    pub(crate) fn start(plan: Arc<Plan<W>>, options: W::Options, shared: &Arc<Shared>) -> Self {
        let outcome = Self {
            plan,
            options,
            over: false,
            opener: None,
        };
        outcome.add_worker(shared, None);
        outcome
    }

    /// The channel is one of `session`: others may be opened as well.
    pub(crate) fn with_session(mut self, session: Option<&Session>) -> Self {
        let Some(session) = session else {
            return self;
        };
        let streams = if bears_many(session.peer_identification()) {
            W::streams(&self.options)
        } else {
            Streams::one()
        };
        let origin = session.origin();
        let further = origin.is_some_and(|origin| origin.further().is_some());
        let again = origin.is_some_and(|origin| origin.again().is_some());
        self.plan.set_second_chance(again);
        self.plan.set_other_channels();
        self.opener = Some(Opener {
            crew: Crew::new(W::DIRECTION, streams, further),
            session: session.clone(),
            opening: Vec::new(),
            anew: None,
            trial: Trial::default(),
            timer: None,
            moved: (0, 0),
            fruitless: 0,
        });
        self
    }

    /// Has another channel work on it as well.
    pub(crate) fn add_worker(&self, shared: &Arc<Shared>, connection: Option<Sftp>) {
        add_worker(&self.plan, &self.options, shared, connection);
    }

    /// The plan.
    #[cfg(test)]
    pub(crate) const fn plan(&self) -> &Arc<Plan<W>> {
        &self.plan
    }
}

fn add_worker<W: Work>(
    plan: &Arc<Plan<W>>,
    options: &W::Options,
    shared: &Arc<Shared>,
    connection: Option<Sftp>,
) {
    let worker = W::worker(plan, options, shared, connection);
    shared.submit(Submission::Job(worker));
}

impl Opener {
    /// Opens what is wanted, as far as that goes now.
    fn poll<W: Work>(&mut self, cx: &mut Context<'_>, plan: &Arc<Plan<W>>, options: &W::Options) {
        loop {
            if plan.is_over() {
                self.opening.clear();
                self.anew = None;
                return;
            }
            let facts = plan.facts();
            if facts.workers == 0 && !facts.is_held && self.anew.is_none() && !self.make_anew(plan)
            {
                continue;
            }
            self.try_out(cx, plan);
            while !self.trial.is_holding()
                && let Some(step) = self.crew.poll(&facts)
            {
                let opening = self.open(step);
                self.opening.push((step, opening));
            }
            let mut ready = None;
            for (index, (_, opening)) in self.opening.iter_mut().enumerate() {
                if let Poll::Ready(sftp) = opening.as_mut().poll(cx) {
                    ready = Some((index, sftp));
                    break;
                }
            }
            if let Some((index, sftp)) = ready {
                let (step, _) = self.opening.swap_remove(index);
                match sftp {
                    Some(sftp) => {
                        add_worker(plan, options, &sftp.shared().clone(), Some(sftp));
                    }
                    // What was lost with its connection was not refused.
                    None if step == Step::Channel && self.session.is_closed() => {}
                    None => self.crew.on_refused(step),
                }
                continue;
            }
            if let Some(anew) = &mut self.anew
                && let Poll::Ready(sftp) = anew.as_mut().poll(cx)
            {
                self.anew = None;
                match sftp {
                    Some(sftp) => {
                        if let Some(session) = sftp.session() {
                            self.session = session.clone();
                        }
                        if let Some(habits) = plan.stalled()
                            && habits.has(Quirk::OneRequest)
                            && !bears_many(self.session.peer_identification())
                        {
                            // That was perhaps why, and would be again.
                            let habit = Submission::Habit(Quirk::OneRequest);
                            sftp.shared().submit(habit);
                        }
                        self.crew.on_made_anew();
                        add_worker(plan, options, &sftp.shared().clone(), Some(sftp));
                    }
                    None => plan.end_as_lost(),
                }
                continue;
            }
            return;
        }
    }

    /// Sees whether the further ones pay, and has those that do not give back what they have.
    fn try_out<W: Work>(&mut self, cx: &mut Context<'_>, plan: &Plan<W>) {
        let seen = plan.seen();
        let order = self.trial.poll(Instant::now().into_std(), &seen);
        if let Some(order) = order {
            if order == Order::Leave {
                tracing::info!("further channels or connections do not pay, and are given up");
                self.opening.clear();
                self.crew.on_unpaid();
            }
            plan.order_further(order);
        }
        let Some(at) = self.trial.deadline(seen.rtt) else {
            self.timer = None;
            return;
        };
        let at = Instant::from_std(at);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref(); // it is time already
        }
    }

    /// Begins to make a connection in place of those that were lost; false if that is the end.
    fn make_anew<W: Work>(&mut self, plan: &Plan<W>) -> bool {
        let moved = (plan.progress.files_done(), plan.progress.bytes_done());
        if moved > self.moved {
            self.moved = moved;
            self.fruitless = 0;
        } else {
            self.fruitless += 1;
        }
        if plan.stalled().is_some() && !self.session.is_closed() {
            // The connection may be well: another channel of it.
            self.anew = Some(Box::pin(sftp_of(self.session.clone())));
            return true;
        }
        let again = self.session.origin().and_then(|origin| origin.again());
        let Some(again) = again.filter(|_| self.fruitless < FRUITLESS_MAX).cloned() else {
            plan.end_as_lost();
            return false;
        };
        let origin = self.session.origin().cloned();
        self.anew = Some(Box::pin(async move {
            for _ in 0..FRUITLESS_MAX {
                let session = match again.session().await {
                    Ok(session) => session,
                    Err(error) => {
                        tracing::info!(%error, "the connection is not made anew");
                        return None;
                    }
                };
                let session = with_same_origin(session, origin.clone());
                match session.sftp().await {
                    Ok(sftp) => return Some(sftp),
                    // It was lost as well, or was the lost one, of which nobody had told yet.
                    Err(error) if error.kind() == Kind::Network => drop(session.closed().await),
                    Err(error) => {
                        tracing::info!(%error, "no channel on the new connection");
                        return None;
                    }
                }
            }
            None
        }));
        true
    }

    fn open(&self, step: Step) -> Opening {
        let session = self.session.clone();
        match step {
            Step::Channel => Box::pin(sftp_of(session)),
            Step::Connection => Box::pin(async move {
                let connect = session.origin()?.further()?.clone();
                match connect.connect().await {
                    Ok(session) => sftp_of(session).await,
                    Err(error) => {
                        tracing::info!(%error, "no further connection");
                        None
                    }
                }
            }),
        }
    }
}

/// Whoever loses that connection as well goes to the same place for the next one.
fn with_same_origin(session: Session, origin: Option<Arc<Origin>>) -> Session {
    match origin {
        Some(origin) => session.with_origin(origin),
        None => session,
    }
}

async fn sftp_of(session: Session) -> Option<Sftp> {
    match session.sftp().await {
        Ok(sftp) => Some(sftp),
        Err(error) => {
            tracing::info!(%error, "no further channel");
            None
        }
    }
}

impl<W: Work> Future for Outcome<W> {
    type Output = Result<Report, TransferError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut outcome = this.plan.poll_outcome(cx);
        if outcome.is_pending()
            && let Some(opener) = &mut this.opener
        {
            opener.poll(cx, &this.plan, &this.options);
            outcome = this.plan.poll_outcome(cx);
        }
        this.over |= outcome.is_ready();
        outcome
    }
}

impl<W: Work> Drop for Outcome<W> {
    fn drop(&mut self) {
        if !self.over {
            self.plan.give_up();
        }
    }
}
