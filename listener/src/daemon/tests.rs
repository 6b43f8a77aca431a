//! A daemon whose flows cannot all be started, or end by a fault.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ketch_client::RemotePath;
use tokio::time::timeout;

use super::*;
use crate::config::ListenerFile;
#[cfg(feature = "api")]
use crate::detect::Pace;
use crate::flow::events::FlowEventKind;
use crate::flow::item::FlowName;
use crate::store::{
    Answer, Claim, ClaimAsk, ClaimId, Counts, End, Placement, Record, Recorded, Row, ScanStart,
    State,
};

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file with the flows `good` and `late`, the latter with its spool in `spool`.
fn setup(dir: &Path) -> Setup {
    let flow = |name: &str, more: &str| {
        format!(
            "[[flow]]\nname = \"{name}\"\nsource = \"here\"\ninterval = \"100ms\"\n{more}\n\
             settle = {{ rule = \"immediately\" }}\n\
             [[flow.sink]]\nname = \"disk\"\nkind = \"directory\"\npath = \"out/{name}\"\n"
        )
    };
    for name in ["in", "out/good", "out/late"] {
        fs::create_dir_all(dir.join(name)).expect("a directory");
    }
    let text = format!(
        "state = \"state\"\n[[source]]\nname = \"here\"\nlocal = \"in\"\n{}{}",
        flow("good", ""),
        flow("late", "spool = \"spool\"")
    );
    let path = dir.join("listener.toml");
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    let file = ListenerFile::read(&path).expect("a right file");
    file.setup().expect("a setup")
}

/// Waits until `arrived` says so.
async fn until(what: &str, arrived: impl Fn() -> bool) {
    let come = async {
        while !arrived() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, come).await.expect(what);
}

/// What was raised and what was over in a flow, in this order.
fn told(daemon: &Daemon, flow: &str) -> Vec<String> {
    let events = daemon.events().recent(0);
    let of = events.iter().filter(|event| event.flow.as_str() == flow);
    of.filter_map(|event| match &event.kind {
        FlowEventKind::Raised { what, .. } => Some(format!("raised {what}")),
        FlowEventKind::Ceased { what } => Some(format!("ceased {what}")),
        _ => None,
    })
    .collect()
}

#[tokio::test]
async fn a_flow_that_cannot_be_started_is_started_when_it_can_and_keeps_no_other_from_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let setup = setup(dir.path());
    let spool = dir.path().join("spool");
    fs::write(&spool, "in the way").expect("a file");
    let daemon = Daemon::start(setup.clone()).await.expect("it starts");
    let down = daemon.down();
    let [(name, why)] = &down[..] else {
        panic!("{down:?}")
    };
    assert_eq!(name, "late");
    assert!(why.contains("spool"), "{why}");
    fs::write(dir.path().join("in/a"), "a").expect("a file");
    let arrived = |name: &str| dir.path().join(name).exists();
    until("good has it", || arrived("out/good/a")).await;
    #[cfg(feature = "api")]
    {
        use crate::api::Flows as _;
        let late = daemon.inner.flow("late").expect("it is shown");
        assert_eq!(late.raised(), ["flow"]);
        assert_eq!(late.down().as_deref(), Some(why.as_str()));
        assert_eq!(late.sinks(), ["disk"]);
        late.set_paused(true).await.expect("the ledger takes it");
        assert!(late.is_paused());
        late.set_paused(false).await.expect("the ledger takes it");
        late.set_pace(Pace::Every(Duration::from_millis(123)));
        assert!(late.apply(None).await.is_err());
        assert_eq!(late.counts().await.expect("counts").done, 0);
        let unready = daemon.inner.ready().await.expect_err("not ready");
        assert!(unready.to_string().contains("late"), "{unready}");
    }
    fs::remove_file(&spool).expect("out of the way");
    until("late has it", || arrived("out/late/a")).await;
    assert_eq!(daemon.down(), []);
    assert_eq!(told(&daemon, "late"), ["raised flow", "ceased flow"]);
    #[cfg(feature = "api")]
    {
        use crate::api::Flows as _;
        let late = daemon.inner.flow("late").expect("it is shown");
        assert!(late.restarts() >= 1);
        assert_eq!(late.down(), None);
        assert_eq!(late.pace(), Pace::Every(Duration::from_millis(123)));
        daemon.inner.ready().await.expect("ready");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_reload_tries_at_once_what_does_not_run_and_tells_what_still_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let setup = setup(dir.path());
    let spool = dir.path().join("spool");
    fs::write(&spool, "in the way").expect("a file");
    let daemon = Daemon::start(setup.clone()).await.expect("it starts");
    let done = daemon.reload(setup.clone()).await;
    assert_eq!(done.kept, ["good"]);
    assert_eq!(done.down.len(), 1);
    fs::remove_file(&spool).expect("out of the way");
    // It may have come by itself just now.
    let done = daemon.reload(setup).await;
    assert!(done.kept.contains(&"late".to_owned()) || done.started == ["late"]);
    assert_eq!(daemon.down(), []);
    daemon.stop().await;
}

#[tokio::test]
async fn half_a_flow_that_panics_is_started_anew_and_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut setup = setup(dir.path());
    setup
        .flows
        .retain(|flow| flow.settings.name.as_str() == "good");
    for half in ["engine", "detection"] {
        let ledger = dir.path().join(format!("{half}.ledger"));
        let store = open_ledger(&Ledger::Sqlite(ledger))
            .await
            .expect("a ledger");
        let faulty = Faulty {
            store,
            half,
            is_due: AtomicBool::new(true),
        };
        let inner = Inner {
            state: dir.path().to_owned(),
            store: Arc::new(faulty),
            shared_ledger: false,
            events: Events::new(),
            running: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        };
        let daemon = Daemon {
            inner: Arc::new(inner),
        };
        let done = daemon.apply(setup.clone()).await;
        assert_eq!(done.started, ["good"]);
        let name = format!("of-{half}");
        fs::write(dir.path().join("in").join(&name), "a").expect("a file");
        let arrived = dir.path().join("out/good").join(&name);
        until("it is started anew", || arrived.exists()).await;
        assert_eq!(
            told(&daemon, "good"),
            [format!("raised {half}"), format!("ceased {half}")]
        );
        assert_eq!(daemon.down(), []);
        daemon.stop().await;
    }
}

#[tokio::test]
async fn a_stopped_daemon_starts_nothing_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let setup = setup(dir.path());
    fs::write(dir.path().join("spool"), "in the way").expect("a file");
    let daemon = Daemon::start(setup).await.expect("it starts");
    let keeper = Arc::downgrade(&daemon.inner);
    daemon.stop().await;
    drop(daemon);
    // Whoever would start something holds on to it.
    until("all tasks ended", || keeper.upgrade().is_none()).await;
}

/// A ledger that makes a half of the flow panic, once.
#[derive(Debug)]
struct Faulty {
    store: Arc<dyn Store>,
    half: &'static str,
    is_due: AtomicBool,
}

impl Faulty {
    fn maybe(&self, half: &str) {
        let due = half == self.half && self.is_due.swap(false, Relaxed);
        assert!(!due, "as the test has it");
    }
}

/// Methods that the ledger within answers.
macro_rules! within {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        $(fn $name<'a>(&'a self, $($arg: $ty),*) -> Answer<'a, $out> {
            self.store.$name($($arg),*)
        })*
    };
}

impl Store for Faulty {
    fn id(&self) -> [u8; 16] {
        self.store.id()
    }

    fn begin_scan<'a>(&'a self, flow: &'a FlowName, since: u64) -> Answer<'a, ScanStart> {
        self.maybe("detection");
        self.store.begin_scan(flow, since)
    }

    fn claim<'a>(&'a self, flow: &'a FlowName, ask: ClaimAsk<'a>) -> Answer<'a, Vec<Claim>> {
        self.maybe("engine");
        self.store.claim(flow, ask)
    }

    within! {
        lookup(flow: &'a FlowName, paths: &'a [RemotePath]) -> Vec<Option<Row>>;
        record(flow: &'a FlowName, record: Record<'a>) -> Recorded;
        renew(claims: &'a [ClaimId], lease: Duration) -> Vec<ClaimId>;
        fetched(claim: &'a ClaimId, sha256: [u8; 32]) -> ();
        placed(claim: &'a ClaimId, sink: &'a str, placement: &'a Placement) -> ();
        delivered(claim: &'a ClaimId, sink: &'a str) -> ();
        committed(claim: &'a ClaimId) -> ();
        finish(claim: &'a ClaimId, end: End<'a>) -> ();
        lease(name: &'a str, owner: &'a str, lease: Duration) -> bool;
        release(name: &'a str, owner: &'a str) -> ();
        rows(flow: &'a FlowName, state: Option<State>, after: Option<&'a RemotePath>, max: usize) -> Vec<Row>;
        counts(flow: &'a FlowName) -> Counts;
        oldest(flow: &'a FlowName) -> Option<u64>;
        replay(flow: &'a FlowName, path: Option<&'a RemotePath>) -> u64;
        import(flow: &'a FlowName, rows: &'a [Row]) -> ();
        value(flow: &'a FlowName, key: &'a str) -> Option<String>;
        set_value(flow: &'a FlowName, key: &'a str, value: Option<&'a str>) -> ();
        compact() -> ();
    }
}
