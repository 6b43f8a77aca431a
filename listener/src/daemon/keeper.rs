//! One flow of a daemon, kept running: what cannot be started now is started later, and so is a flow of
//! which half ended by a fault of its own.
//!
//! ```text
//!   begin ──> Up ── half of it ended ──┐
//!     └─────> Down ────────────────────┴── pause (revival) ──> begin
//! ```
//!
//! One task for each flow, which a reload or a stop ends. It takes the daemon's turn before it starts
//! anything, so it never meets either half-way.
#![expect(clippy::disallowed_methods, reason = "drivers own time and tasks")]

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::task::AbortHandle;

use super::revival::Revival;
use super::{Inner, Living};
use crate::config::{FlowSetup, Origin};
use crate::detect::{Lister, Pace, SftpLister};
use crate::flow::Flow;
use crate::flow::events::{FlowEventKind, reason};
use crate::flow::handle::{FAULT, FlowError, FlowHandle, PAUSED};
use crate::flow::item::FlowName;
use crate::flow::shared::{millis, now};
use crate::local::Local;
use crate::push;
use crate::source::Source;

/// What is raised while a flow cannot be started.
pub(super) const FLOW: &str = "flow";

/// A flow of the file.
pub(super) struct Kept {
    pub(super) setup: Arc<FlowSetup>,
    pub(super) standing: Standing,
    /// How often it was begun anew without anybody asking.
    pub(super) restarts: u64,
    keeper: Option<AbortHandle>,
}

/// Whether a flow runs.
#[derive(Clone)]
pub(super) enum Standing {
    Up(FlowHandle),
    Down(Down),
}

/// A flow that could not be started.
#[derive(Clone, Debug)]
pub(super) struct Down {
    /// Why.
    pub(super) reason: String,
    /// What was asked of it meanwhile.
    pub(super) wishes: Arc<Wishes>,
}

/// How a flow that does not run is to be when it does.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) paused: AtomicBool,
    pub(super) pace: Mutex<Pace>,
}

impl Wishes {
    pub(super) fn pace(&self) -> Pace {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_pace(&self, pace: Pace) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }
}

impl Kept {
    /// Starts it, and sees to it that it is started anew as often as it takes.
    pub(super) async fn start(inner: &Arc<Inner>, setup: FlowSetup, source: &Living) -> Self {
        let setup = Arc::new(setup);
        let name = &setup.settings.name;
        let standing = match inner.begin(&setup, source).await {
            Ok(handle) => Standing::Up(handle),
            Err(error) => {
                let reason = reason(&error);
                inner.raise(name, reason.clone());
                let paused = inner.store.value(name, PAUSED).await;
                let wishes = Wishes {
                    paused: AtomicBool::new(matches!(paused, Ok(Some(_)))),
                    pace: Mutex::new(setup.detect.pace()),
                };
                Standing::Down(Down {
                    reason,
                    wishes: Arc::new(wishes),
                })
            }
        };
        let keeper = keep(Arc::downgrade(inner), Arc::clone(&setup), standing.clone());
        Self {
            setup,
            standing,
            restarts: 0,
            keeper: Some(tokio::spawn(keeper).abort_handle()),
        }
    }

    /// Whether all of it runs.
    pub(super) fn is_whole(&self) -> bool {
        matches!(&self.standing, Standing::Up(handle) if !handle.has_fault())
    }

    /// Why it does not run, or not wholly.
    pub(super) fn down(&self) -> Option<String> {
        match &self.standing {
            Standing::Up(handle) => handle.has_fault().then(|| FAULT.to_owned()),
            Standing::Down(down) => Some(down.reason.clone()),
        }
    }

    /// What is raised in it, with its name.
    pub(super) fn raised(&self) -> (FlowName, Vec<String>) {
        let raised = match &self.standing {
            Standing::Up(handle) => handle.raised(),
            Standing::Down(_) => vec![FLOW.to_owned()],
        };
        (self.setup.settings.name.clone(), raised)
    }

    /// It is started anew no more.
    pub(super) fn let_go(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
        }
    }
}

/// Starts the flow of `setup` anew whenever that is due, until it is stopped.
async fn keep(inner: Weak<Inner>, setup: Arc<FlowSetup>, mut standing: Standing) {
    let chance = RandomState::new();
    let mut revival = Revival::default();
    for turn in 0_u64.. {
        if let Standing::Up(handle) = &standing {
            revival.on_start(now());
            if handle.fault().await.is_none() {
                return;
            }
        }
        let pause = revival.on_failure(now(), chance.hash_one(turn));
        tokio::time::sleep(pause).await;
        let Some(inner) = inner.upgrade() else { return };
        match inner.again(&setup, &standing).await {
            Some(anew) => standing = anew,
            None => return,
        }
    }
}

/// A flow that was started anew is looked at as it was before. Nothing is looked at for that alone.
fn go_on_at(handle: &FlowHandle, pace: Pace) {
    if handle.pace() != pace {
        handle.set_pace(pace);
    }
}

impl Inner {
    /// Starts a flow anew; `None` if it is another's by now.
    async fn again(&self, setup: &Arc<FlowSetup>, was: &Standing) -> Option<Standing> {
        let name = &setup.settings.name;
        if let Standing::Up(handle) = was {
            handle.stop().await;
        }
        let _turn = self.turn.lock().await;
        let source = {
            let running = self.running();
            let kept = running.flows.get(name.as_str())?;
            if !Arc::ptr_eq(&kept.setup, setup) {
                return None;
            }
            running.sources.get(&setup.source).cloned()?
        };
        let begun = self.begin(setup, &source).await;
        let standing = match (begun, was) {
            (Ok(handle), Standing::Up(was)) => {
                go_on_at(&handle, was.pace());
                self.cease(name, was.raised());
                Standing::Up(handle)
            }
            (Ok(handle), Standing::Down(down)) => {
                go_on_at(&handle, down.wishes.pace());
                self.cease(name, vec![FLOW.to_owned()]);
                Standing::Up(handle)
            }
            (Err(error), Standing::Up(was)) => {
                let reason = reason(&error);
                self.cease(name, was.raised());
                self.raise(name, reason.clone());
                let wishes = Wishes {
                    paused: AtomicBool::new(was.is_paused()),
                    pace: Mutex::new(was.pace()),
                };
                Standing::Down(Down {
                    reason,
                    wishes: Arc::new(wishes),
                })
            }
            (Err(error), Standing::Down(down)) => Standing::Down(Down {
                reason: reason(&error),
                wishes: Arc::clone(&down.wishes),
            }),
        };
        let mut running = self.running();
        let kept = running.flows.get_mut(name.as_str())?;
        kept.standing = standing.clone();
        kept.restarts += 1;
        Some(standing)
    }

    pub(super) fn raise(&self, flow: &FlowName, reason: String) {
        let what = FLOW.to_owned();
        let raised = FlowEventKind::Raised { what, reason };
        self.events.tell(millis(), flow, raised);
    }

    /// What was raised in a flow that is no more is over.
    pub(super) fn cease(&self, flow: &FlowName, raised: Vec<String>) {
        for what in raised {
            let ceased = FlowEventKind::Ceased { what };
            self.events.tell(millis(), flow, ceased);
        }
    }

    async fn begin(&self, setup: &FlowSetup, source: &Living) -> Result<FlowHandle, FlowError> {
        let mut settings = setup.settings.clone();
        settings.shared = self.shared_ledger;
        let ends: (Arc<dyn Lister>, Arc<dyn Source>, _) = match source.origin.at(&setup.path) {
            Origin::Server { remote, .. } => {
                let pushes = setup.push.then(|| push::over_sftp(remote.clone()));
                let lister = SftpLister::new(remote.clone());
                (Arc::new(lister), Arc::new(remote), pushes)
            }
            Origin::Here(root) => {
                let local = Local::new(&root);
                let pushes = setup.push.then(|| push::local(&root));
                let pushes = pushes.and_then(|pushes| match pushes {
                    Ok(pushes) => Some(pushes),
                    Err(error) => {
                        tracing::warn!(flow = %settings.name, %error, "polling alone");
                        None
                    }
                });
                (Arc::new(local.clone()), Arc::new(local), pushes)
            }
        };
        let (lister, source, pushes) = ends;
        let flow = Flow {
            settings,
            detect: setup.detect.clone(),
            lister,
            pushes,
            source,
            sinks: setup.sinks.clone(),
            store: Arc::clone(&self.store),
            events: self.events.clone(),
        };
        flow.start().await
    }
}
