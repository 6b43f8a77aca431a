//! Flows from end to end on this machine: a ledger in SQLite, a directory as source, directories as
//! sinks. What was found is put into the ledger by hand: detection has tests of its own.
#![cfg(feature = "flows")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use ketch_client::{Attrs, Kind, RemotePath};
use ketch_listener::detect::{self, DetectConfig, First, ListError, Lister, Plan};
use ketch_listener::flow::Flow;
use ketch_listener::flow::events::{Events, FlowEventKind};
use ketch_listener::flow::handle::FlowHandle;
use ketch_listener::flow::item::{Change, FlowName, Item};
use ketch_listener::flow::settings::{After, FlowSettings};
use ketch_listener::listing::Listing;
use ketch_listener::local::Local;
use ketch_listener::schedule::Schedule;
use ketch_listener::settle::SettleConfig;
use ketch_listener::sink::directory::{DirectorySettings, DirectorySink};
use ketch_listener::sink::name::Exists;
use ketch_listener::sink::template::Template;
use ketch_listener::sink::{Answer, Parcel, Sink, SinkError, Takes};
use ketch_listener::snapshot::Facts;
use ketch_listener::source::{self, Source};
use ketch_listener::store::sqlite::SqliteStore;
use ketch_listener::store::{AT_SOURCE, ClaimAsk, Order, Placement, Record, Row, State, Store};
use tokio::sync::Semaphore;

struct Bench {
    dir: tempfile::TempDir,
    store: Arc<dyn Store>,
    flow: FlowName,
    events: Events,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("in")).expect("made");
        let store = SqliteStore::open(dir.path().join("ledger")).expect("a ledger");
        Self {
            dir,
            store: Arc::new(store),
            flow: FlowName::new("orders").expect("a name"),
            events: Events::new(),
        }
    }

    fn settings(&self) -> FlowSettings {
        let at = |name: &str| self.dir.path().join(name);
        let mut settings = FlowSettings::new(self.flow.clone(), at("spool"), at("snapshot"));
        settings.retry_first = Duration::from_millis(20);
        settings.retry_max = Duration::from_millis(50);
        settings
    }

    fn directory(&self, name: &str, template: &str) -> Arc<dyn Sink> {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).expect("made");
        let mut settings = DirectorySettings::new(name, path);
        settings.template = Template::parse(template).expect("a template");
        settings.exists = Exists::Unique;
        Arc::new(DirectorySink::new(settings))
    }

    async fn start(&self, settings: FlowSettings, sinks: Vec<Arc<dyn Sink>>) -> FlowHandle {
        let detect = DetectConfig {
            interval: None,
            ..DetectConfig::default()
        };
        self.start_with(settings, detect, sinks).await
    }

    async fn start_with(
        &self,
        settings: FlowSettings,
        detect: DetectConfig,
        sinks: Vec<Arc<dyn Sink>>,
    ) -> FlowHandle {
        let local = Local::new(&self.dir.path().join("in"));
        let flow = Flow {
            settings,
            detect,
            lister: Arc::new(local.clone()),
            pushes: None,
            source: Arc::new(local),
            sinks,
            store: Arc::clone(&self.store),
            events: self.events.clone(),
        };
        flow.start().await.expect("a flow")
    }

    /// Writes a file and tells the ledger of it.
    async fn put(&self, path: &str, content: &[u8]) {
        let at = self.dir.path().join("in").join(path);
        std::fs::create_dir_all(at.parent().expect("a directory")).expect("made");
        std::fs::write(at, content).expect("written");
        self.found(path).await;
    }

    async fn found(&self, path: &str) {
        let path = RemotePath::from(path);
        let local = Local::new(&self.dir.path().join("in"));
        let facts = Source::look(&local, &path).await.expect("it is there");
        self.record(Change::Present {
            path,
            facts,
            sha256: None,
        })
        .await;
    }

    async fn record(&self, change: Change) {
        let scan = self
            .store
            .begin_scan(&self.flow, 0)
            .await
            .expect("a scan")
            .scan;
        let changes = [change];
        let record = Record {
            scan,
            lease: None,
            changes: &changes,
            removals: false,
            renames: false,
        };
        self.store
            .record(&self.flow, record)
            .await
            .expect("recorded");
    }

    async fn state(&self, path: &str) -> Option<State> {
        let paths = [RemotePath::from(path)];
        let rows = self
            .store
            .lookup(&self.flow, &paths)
            .await
            .expect("looked up");
        rows.into_iter().next().flatten().map(|row| row.state)
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        for _ in 0..4_800 {
            if is_so().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!(
            "it did not come about: {what}; events: {:#?}",
            self.events.recent(0)
        );
    }

    async fn idle(&self) {
        self.until("nothing is left to do", async || {
            let counts = self.store.counts(&self.flow).await.expect("counts");
            counts.pending + counts.claimed == 0
        })
        .await;
    }
}

fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        let Ok(entries) = std::fs::read_dir(dir) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path
                    .strip_prefix(root)
                    .expect("below")
                    .to_string_lossy()
                    .into_owned();
                files.insert(name, std::fs::read(&path).expect("read"));
            }
        }
    }
    files
}

#[tokio::test]
async fn a_time_of_the_schedule_that_nobody_was_there_for_is_made_up_for_once() {
    let bench = Bench::new();
    let start = async |catch_up: bool| {
        let detect = DetectConfig {
            schedule: Some(Schedule::new("@yearly", Some("Europe/Berlin")).expect("a schedule")),
            catch_up,
            first: First::News,
            settle: SettleConfig::immediately(),
            ..DetectConfig::default()
        };
        let sinks = vec![bench.directory("out", "{path}")];
        bench.start_with(bench.settings(), detect, sinks).await
    };
    let put = |name: &str| std::fs::write(bench.dir.path().join("in").join(name), name);
    let arrived = |name: &str| bench.dir.path().join("out").join(name).exists();
    let looked = async || {
        bench
            .store
            .value(&bench.flow, "looked")
            .await
            .expect("read")
    };

    // Nobody has ever looked.
    put("first").expect("written");
    let flow = start(true).await;
    bench
        .until("the first look", async || arrived("first"))
        .await;
    bench
        .until("it is noted", async || looked().await.is_some())
        .await;
    flow.stop().await;

    // This year was looked at: it is waited for the next one, and looked at when asked.
    put("second").expect("written");
    let noted: u64 = looked().await.expect("a value").parse().expect("seconds");
    let flow = start(true).await;
    bench
        .until("it waits", async || flow.next_look().is_some())
        .await;
    let next = flow.next_look().expect("it waits");
    assert!(
        next > noted && next <= noted + 366 * 24 * 3600,
        "{noted} {next}"
    );
    assert!(!arrived("second"));
    flow.scan_now(tokio::time::Instant::now() + Duration::from_secs(60))
        .await
        .expect("looked at");
    bench
        .until("the look that was asked for", async || arrived("second"))
        .await;
    assert!(flow.next_look().is_some_and(|at| at >= next));
    flow.stop().await;

    // A year passed meanwhile.
    put("third").expect("written");
    bench
        .store
        .set_value(&bench.flow, "looked", Some("86400"))
        .await
        .expect("written");
    let flow = start(false).await;
    bench
        .until("it waits", async || flow.next_look().is_some())
        .await;
    assert!(!arrived("third"), "it is not to be made up for");
    flow.stop().await;
    let flow = start(true).await;
    bench
        .until("the look that was missed", async || arrived("third"))
        .await;
    flow.stop().await;
}

/// A sink that fails as it is told to.
#[derive(Debug)]
struct Moody {
    fails: Mutex<Vec<Kind>>,
    poison: &'static str,
    seen: Mutex<Vec<String>>,
}

impl Sink for Moody {
    fn name(&self) -> &str {
        "moody"
    }

    fn takes(&self) -> Takes {
        Takes::EVENTS
    }

    fn place<'a>(&'a self, _: &'a Item, _: Option<&'a Placement>) -> Answer<'a, Placement> {
        Box::pin(async { Ok(Placement::default()) })
    }

    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()> {
        Box::pin(async move {
            let fail = self.fails.lock().expect("not poisoned").pop();
            let is_poison = parcel.item.path.as_bytes() == self.poison.as_bytes();
            let kind = fail.or(is_poison.then_some(Kind::Local));
            match kind {
                None => {
                    self.seen
                        .lock()
                        .expect("not poisoned")
                        .push(parcel.item.id());
                    Ok(())
                }
                Some(kind) => Err(SinkError::Failed {
                    what: "it is in no mood".to_owned(),
                    kind,
                    source: "told so".into(),
                }),
            }
        })
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

fn moody(fails: Vec<Kind>, poison: &'static str) -> Arc<Moody> {
    Arc::new(Moody {
        fails: Mutex::new(fails),
        poison,
        seen: Mutex::default(),
    })
}

#[tokio::test]
async fn each_version_arrives_once_in_every_sink() {
    let bench = Bench::new();
    let sinks = vec![
        bench.directory("a", "{path}"),
        bench.directory("b", "{name}"),
    ];
    let flow = bench.start(bench.settings(), sinks).await;
    bench.put("x/1.csv", b"one").await;
    bench.put("y/1.csv", b"another").await;
    bench.put("2.csv", b"").await;
    bench.idle().await;
    bench.found("2.csv").await; // nothing new
    bench.put("2.csv", b"longer").await;
    bench.idle().await;
    flow.stop().await;
    let a = tree(&bench.dir.path().join("a"));
    let expected = [
        ("2-1.csv", &b"longer"[..]),
        ("2.csv", b""),
        ("x/1.csv", b"one"),
        ("y/1.csv", b"another"),
    ];
    let expected = expected.map(|(name, content)| (name.to_owned(), content.to_owned()));
    assert_eq!(a, BTreeMap::from(expected));
    let b = tree(&bench.dir.path().join("b"));
    assert_eq!(b.len(), 4);
    assert_eq!(
        b.get("1-1.csv")
            .map(Vec::len)
            .max(b.get("1.csv").map(Vec::len)),
        Some(7)
    );
    assert_eq!(tree(&bench.dir.path().join("spool")), BTreeMap::new());
    assert_eq!(bench.state("2.csv").await, Some(State::Done));
}

/// A source that notes which file each fetch made, and where.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Noting {
    local: Local,
    made: Mutex<Vec<(std::path::PathBuf, u64)>>,
}

#[cfg(target_os = "linux")]
impl Source for Noting {
    fn look<'a>(&'a self, path: &'a RemotePath) -> source::Answer<'a, Facts> {
        Source::look(&self.local, path)
    }

    fn fetch<'a>(
        &'a self,
        path: &'a RemotePath,
        expected: Facts,
        to: &'a Path,
    ) -> source::Answer<'a, ()> {
        Box::pin(async move {
            use std::os::unix::fs::MetadataExt as _;
            self.local.fetch(path, expected, to).await?;
            let inode = std::fs::metadata(to).expect("it was made").ino();
            let place = std::fs::canonicalize(to.parent().expect("a directory"));
            let mut made = self.made.lock().expect("not poisoned");
            made.push((place.expect("it is there"), inode));
            Ok(())
        })
    }

    fn sha256<'a>(&'a self, path: &'a RemotePath) -> source::Answer<'a, [u8; 32]> {
        self.local.sha256(path)
    }

    fn remove<'a>(&'a self, path: &'a RemotePath) -> source::Answer<'a, ()> {
        self.local.remove(path)
    }

    fn rename<'a>(
        &'a self,
        from: &'a RemotePath,
        to: &'a RemotePath,
        replace: bool,
    ) -> source::Answer<'a, ()> {
        self.local.rename(from, to, replace)
    }

    fn check(&self) -> source::Answer<'_, ()> {
        Source::check(&self.local)
    }
}

/// What is fetched beside its destination is the delivered file: its bytes are written once. A place
/// that a dead process left is emptied.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_is_fetched_is_what_is_delivered() {
    use std::os::unix::fs::MetadataExt as _;
    let bench = Bench::new();
    let sink = bench.dir.path().join("out");
    let left = sink.join(".ketch-spool/.ketch-0123456789abcdef");
    std::fs::create_dir_all(&left).expect("made");
    for dir in [left.parent().expect("a directory"), &left] {
        let alone = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(dir, alone).expect("set");
    }
    std::fs::write(left.join("1.ketch-spool"), b"of a dead process").expect("written");
    let mut settings = bench.settings();
    settings.beside = Some(sink.clone());
    let source = Arc::new(Noting {
        local: Local::new(&bench.dir.path().join("in")),
        made: Mutex::default(),
    });
    let flow = Flow {
        settings,
        detect: DetectConfig {
            interval: None,
            ..DetectConfig::default()
        },
        lister: Arc::new(source.local.clone()),
        pushes: None,
        source: Arc::clone(&source) as Arc<dyn Source>,
        sinks: vec![Arc::new(DirectorySink::new(DirectorySettings {
            share: true,
            ..DirectorySettings::new("out", &sink)
        }))],
        store: Arc::clone(&bench.store),
        events: bench.events.clone(),
    };
    let flow = flow.start().await.expect("a flow");
    assert!(!left.join("1.ketch-spool").exists(), "it is swept away");
    for n in 0..3 {
        bench.put(&format!("d/{n}.csv"), b"content").await;
        bench.idle().await;
    }
    // Somebody removes the place: another one is made.
    std::fs::remove_dir_all(sink.join(".ketch-spool")).expect("removed");
    bench.put("d/3.csv", b"content").await;
    bench.idle().await;
    flow.stop().await;
    drop(flow);
    let made = source.made.lock().expect("not poisoned").clone();
    for (n, (place, inode)) in made.iter().enumerate() {
        assert!(place.starts_with(sink.join(".ketch-spool")), "{place:?}");
        let delivered = std::fs::metadata(sink.join(format!("d/{n}.csv"))).expect("delivered");
        assert_eq!(delivered.ino(), *inode, "a copy");
    }
    assert_eq!(made.len(), 4);
    let left: Vec<_> = tree(&sink).into_keys().collect();
    assert_eq!(left, ["d/0.csv", "d/1.csv", "d/2.csv", "d/3.csv"]);
    assert!(!sink.join(".ketch-spool").exists(), "it goes with the flow");
}

#[tokio::test]
async fn what_comes_after_is_done_once_and_takes_nothing_else_away() {
    let bench = Bench::new();
    let mut settings = bench.settings();
    settings.after = After::Delete;
    let flow = bench
        .start(settings, vec![bench.directory("a", "{path}")])
        .await;
    bench.put("gone.csv", b"one").await;
    bench.put("d/gone.csv", b"two").await;
    bench.idle().await;
    flow.stop().await;
    assert_eq!(tree(&bench.dir.path().join("in")), BTreeMap::new());
    assert_eq!(bench.state("gone.csv").await, Some(State::Acted));

    let mut settings = bench.settings();
    settings.after = After::Move(Template::parse("archive/{base}.{ext}").expect("a template"));
    let flow = bench
        .start(settings, vec![bench.directory("a", "{path}")])
        .await;
    bench.put("m.csv", b"1").await;
    bench.put("n/m.csv", b"22").await;
    bench.idle().await;
    flow.stop().await;
    let left = tree(&bench.dir.path().join("in"));
    let names: Vec<_> = left.keys().map(String::as_str).collect();
    assert_eq!(names, ["archive/m-1.csv", "archive/m.csv"]);
    assert_eq!(tree(&bench.dir.path().join("a")).len(), 4);
}

#[tokio::test]
async fn a_pre_move_is_taken_up_where_an_earlier_run_left_it() {
    let bench = Bench::new();
    let mut settings = bench.settings();
    settings.pre_move = Some(Template::parse("work/{path}").expect("a template"));
    settings.after = After::Move(Template::parse("done/{path}").expect("a template"));
    bench.put("1.csv", b"one").await;
    // As if killed right after the rename.
    let root = bench.dir.path().join("in");
    let ask = ClaimAsk {
        owner: "dead",
        lease: Duration::ZERO,
        order: Order::Any,
        max: 1,
    };
    let claims = bench.store.claim(&bench.flow, ask).await.expect("claimed");
    let [claim] = &claims[..] else {
        panic!("{claims:?}");
    };
    let work = Placement {
        name: b"work/1.csv".to_vec(),
        ..Placement::default()
    };
    let placed = bench.store.placed(&claim.id, AT_SOURCE, &work).await;
    placed.expect("placed");
    std::fs::create_dir(root.join("work")).expect("made");
    std::fs::rename(root.join("1.csv"), root.join("work/1.csv")).expect("renamed");
    // Another consumer has the same place, and was quicker.
    bench.put("3.csv", b"three").await;
    std::fs::rename(root.join("3.csv"), root.join("work/3.csv")).expect("renamed");
    let flow = bench
        .start(settings, vec![bench.directory("a", "{path}")])
        .await;
    bench.put("2.csv", b"two").await;
    bench.idle().await;
    flow.stop().await;
    let names: Vec<_> = tree(&root).into_keys().collect();
    assert_eq!(names, ["done/1.csv", "done/2.csv", "work/3.csv"]);
    assert_eq!(tree(&bench.dir.path().join("a")).len(), 2);
}

/// What was given up is tried again where it is: where it was put aside, brought back from there, or
/// under its name, if it could not be put aside. No sink gets it twice.
#[tokio::test]
async fn what_was_given_up_is_delivered_once_from_wherever_it_is() {
    let cases = ["aside", "back", "refused"];
    for (case, has_content) in cases.into_iter().flat_map(|c| [(c, false), (c, true)]) {
        let bench = Bench::new();
        let root = bench.dir.path().join("in");
        if case == "refused" {
            std::fs::write(root.join("failed"), "no directory").expect("written");
        }
        let mut settings = bench.settings();
        settings.attempts = 1;
        settings.failed = Some(Template::parse("failed/{name}").expect("a template"));
        let sink = moody(vec![Kind::Local], "-");
        let mut sinks = vec![sink.clone() as Arc<dyn Sink>];
        if has_content {
            sinks.push(bench.directory("b", "{sequence}"));
        }
        let flow = bench.start(settings, sinks).await;
        bench.put("1", b"one").await;
        bench.idle().await;
        assert_eq!(bench.state("1").await, Some(State::Dead), "{case}");
        let aside = root.join("failed/1");
        assert_eq!(aside.exists(), case != "refused", "{case}");
        if case == "back" {
            std::fs::rename(&aside, root.join("1")).expect("renamed");
        }
        assert_eq!(flow.replay(None).await.expect("replayed"), 1);
        bench.idle().await;
        if case != "aside" {
            bench.found("1").await;
            bench.idle().await;
        }
        flow.stop().await;
        assert_eq!(sink.seen.lock().expect("not poisoned").len(), 1, "{case}");
        let copies = tree(&bench.dir.path().join("b")).len();
        assert_eq!(copies, usize::from(has_content), "{case}");
    }
}

/// A file that was taken waits for its sink. Scans do not find it, its name is used again, and what
/// has it is taken by mistake: every version is delivered, in its order.
#[tokio::test]
async fn what_was_taken_is_no_removal_and_its_name_is_free() {
    let bench = Bench::new();
    let mut settings = bench.settings();
    settings.pre_move = Some(Template::parse("work/{path}").expect("a template"));
    settings.after = After::Delete;
    let away = moody(vec![Kind::Network; 1_000], "-");
    let root = bench.dir.path().join("in");
    bench.put("a", b"1").await;
    let sinks = vec![
        away.clone() as Arc<dyn Sink>,
        bench.directory("b", "{sequence}"),
    ];
    let flow = bench.start(settings, sinks).await;
    let is_taken = async || root.join("work/a").exists();
    bench.until("it is taken", is_taken).await;
    let gone = || Change::Removed {
        path: RemotePath::from("a"),
    };
    bench.record(gone()).await;
    bench.put("a", b"22").await;
    bench.record(gone()).await;
    bench.found("a").await;
    // The next one takes its place before anybody saw it.
    std::fs::write(root.join("a"), "333").expect("written");
    away.fails.lock().expect("not poisoned").clear();
    bench.idle().await;
    bench.found("a").await;
    bench.idle().await;
    flow.stop().await;
    let got: Vec<_> = tree(&bench.dir.path().join("b")).into_values().collect();
    assert!(got.contains(&b"1".to_vec()), "{got:?}");
    assert_eq!(got.last().map(Vec::as_slice), Some(&b"333"[..]), "{got:?}");
    assert_eq!(tree(&root), BTreeMap::new(), "nothing is left aside");
}

#[tokio::test]
async fn a_version_that_changed_or_went_is_not_delivered() {
    let bench = Bench::new();
    bench.put("changed.csv", b"one").await;
    bench.put("gone.csv", b"one").await;
    let root = bench.dir.path().join("in");
    std::fs::write(root.join("changed.csv"), b"longer").expect("written");
    std::fs::remove_file(root.join("gone.csv")).expect("removed");
    let flow = bench
        .start(bench.settings(), vec![bench.directory("a", "{path}")])
        .await;
    bench.idle().await;
    assert_eq!(tree(&bench.dir.path().join("a")), BTreeMap::new());
    // The next scan is told to forget both, and finds what is there.
    let scan = bench
        .store
        .begin_scan(&bench.flow, 0)
        .await
        .expect("a scan");
    assert_eq!(scan.forget.len(), 2);
    bench.found("changed.csv").await;
    bench.idle().await;
    flow.stop().await;
    assert_eq!(tree(&bench.dir.path().join("a")).len(), 1);
}

#[tokio::test]
async fn failures_are_retried_and_poison_dies_alone_until_it_is_replayed() {
    let bench = Bench::new();
    let sink = moody(vec![Kind::Local, Kind::Peer, Kind::Permission], "poison");
    let mut settings = bench.settings();
    settings.attempts = 4;
    settings.failed = Some(Template::parse("failed/{name}").expect("a template"));
    let flow = bench
        .start(settings, vec![sink.clone() as Arc<dyn Sink>])
        .await;
    for name in ["1", "2", "3", "poison"] {
        bench.put(name, name.as_bytes()).await;
    }
    bench.idle().await;
    assert_eq!(sink.seen.lock().expect("not poisoned").len(), 3);
    assert_eq!(bench.state("poison").await, Some(State::Dead));
    let row = flow
        .file(&RemotePath::from("poison"))
        .await
        .expect("asked")
        .expect("a row");
    assert_eq!(
        (row.attempts, row.reason.as_deref()),
        (4, Some("moody: it is in no mood: told so"))
    );
    assert!(bench.dir.path().join("in/failed/poison").exists());
    assert_eq!(flow.replay(None).await.expect("replayed"), 1);
    bench.idle().await;
    flow.stop().await;
    let dead = |kind: &FlowEventKind| matches!(kind, FlowEventKind::Dead { .. });
    assert_eq!(
        bench
            .events
            .recent(0)
            .iter()
            .filter(|event| dead(&event.kind))
            .count(),
        2
    );
}

/// A directory in which nothing becomes visible for now.
#[derive(Debug)]
struct Stuck {
    inner: Arc<dyn Sink>,
    is_stuck: AtomicBool,
}

impl Sink for Stuck {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn takes(&self) -> Takes {
        self.inner.takes()
    }

    fn place<'a>(
        &'a self,
        item: &'a Item,
        refused: Option<&'a Placement>,
    ) -> Answer<'a, Placement> {
        self.inner.place(item, refused)
    }

    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()> {
        if !self.is_stuck.load(Ordering::SeqCst) {
            return self.inner.deliver(parcel);
        }
        Box::pin(async {
            Err(SinkError::Failed {
                what: "it is stuck".to_owned(),
                kind: Kind::Local,
                source: "told so".into(),
            })
        })
    }

    fn waits<'a>(&'a self, placement: &'a Placement) -> Answer<'a, bool> {
        self.inner.waits(placement)
    }

    fn forget<'a>(&'a self, placement: &'a Placement) -> Answer<'a, ()> {
        self.inner.forget(placement)
    }

    fn check(&self) -> Answer<'_, ()> {
        self.inner.check()
    }
}

/// The hidden file that waits for an item goes with it: when another version takes its place, when its
/// file goes, and when it is given up, after which it may be asked for once more.
#[tokio::test]
async fn what_waits_goes_with_its_item() {
    let bench = Bench::new();
    let stuck = Arc::new(Stuck {
        inner: bench.directory("a", "{path}"),
        is_stuck: AtomicBool::new(true),
    });
    let out = bench.dir.path().join("a");
    let waiting = || {
        tree(&out)
            .into_keys()
            .filter(|name| name.contains(".held"))
            .count()
    };
    let mut settings = bench.settings();
    // What failed stays pending: only what is recorded behind it brings it up again.
    settings.retry_first = Duration::from_secs(3600);
    settings.retry_max = Duration::from_secs(3600);
    settings.attempts = 1_000;
    let flow = bench
        .start(settings.clone(), vec![Arc::clone(&stuck) as Arc<dyn Sink>])
        .await;
    for name in ["replaced", "removed", "stays"] {
        bench.put(name, b"one").await;
    }
    let paths = ["replaced", "removed", "stays"].map(RemotePath::from);
    bench
        .until("each waits, and has failed", async || {
            let rows = bench.store.lookup(&bench.flow, &paths).await.expect("rows");
            let failed = |row: Option<Row>| row.is_some_and(|row| row.attempts > 0);
            rows.into_iter().all(failed) && waiting() == 3
        })
        .await;
    stuck.is_stuck.store(false, Ordering::SeqCst);
    let root = bench.dir.path().join("in");
    std::fs::remove_file(root.join("removed")).expect("removed");
    bench
        .record(Change::Removed {
            path: "removed".into(),
        })
        .await;
    bench.put("replaced", b"longer").await;
    bench
        .until("one waits, and the newer version is there", async || {
            waiting() == 1
                && tree(&out)
                    .get("replaced")
                    .is_some_and(|file| file == b"longer")
        })
        .await;
    assert_eq!(bench.state("removed").await, None);
    flow.stop().await;
    drop(flow);

    // Given up: nothing waits any more, and who asks gets it.
    stuck.is_stuck.store(true, Ordering::SeqCst);
    settings.attempts = 1;
    let flow = bench
        .start(settings, vec![Arc::clone(&stuck) as Arc<dyn Sink>])
        .await;
    bench.put("given up", b"one").await;
    bench
        .until("it is given up", async || {
            bench.state("given up").await == Some(State::Dead)
        })
        .await;
    assert_eq!(waiting(), 1, "that of the one that stays");
    stuck.is_stuck.store(false, Ordering::SeqCst);
    assert_eq!(
        flow.replay(Some(&"given up".into()))
            .await
            .expect("replayed"),
        1
    );
    bench
        .until("it is there", async || {
            bench.state("given up").await == Some(State::Done)
        })
        .await;
    flow.stop().await;
    assert_eq!(
        tree(&out).get("given up").map(Vec::as_slice),
        Some(&b"one"[..])
    );
    assert_eq!(waiting(), 1);
}

#[tokio::test]
async fn an_outage_counts_against_nobody_and_is_told_once() {
    let bench = Bench::new();
    let sink = moody(vec![Kind::NoSpace, Kind::Network, Kind::Timeout], "-");
    let mut settings = bench.settings();
    settings.attempts = 1;
    let flow = bench
        .start(settings, vec![sink.clone() as Arc<dyn Sink>])
        .await;
    for n in 0..10 {
        bench.put(&n.to_string(), b"x").await;
    }
    bench.idle().await;
    flow.stop().await;
    assert_eq!(sink.seen.lock().expect("not poisoned").len(), 10);
    let events = bench.events.recent(0);
    let count = |word| {
        events
            .iter()
            .filter(|event| event.kind.word() == word)
            .count()
    };
    assert_eq!(
        (
            count("dead"),
            count("failed"),
            count("raised"),
            count("ceased")
        ),
        (0, 0, 1, 1)
    );
}

#[tokio::test]
async fn who_asks_by_name_gets_it_once_more() {
    let bench = Bench::new();
    let flow = bench
        .start(bench.settings(), vec![bench.directory("a", "{path}")])
        .await;
    bench.put("1", b"x").await;
    bench.idle().await;
    assert_eq!(flow.replay(None).await.expect("asked"), 0);
    let path = RemotePath::from("1");
    assert_eq!(flow.replay(Some(&path)).await.expect("asked"), 1);
    bench.idle().await;
    let names: Vec<_> = tree(&bench.dir.path().join("a")).into_keys().collect();
    assert_eq!(names, ["1", "1-1"]);
    let nothing = RemotePath::from("2");
    assert_eq!(flow.replay(Some(&nothing)).await.expect("asked"), 0);
    flow.stop().await;
}

#[tokio::test]
async fn a_flow_goes_on_without_its_handle() {
    let bench = Bench::new();
    drop(
        bench
            .start(bench.settings(), vec![bench.directory("a", "{path}")])
            .await,
    );
    bench.put("1", b"x").await;
    bench.idle().await;
    assert_eq!(tree(&bench.dir.path().join("a")).len(), 1);
}

#[tokio::test]
async fn a_root_that_cannot_be_listed_takes_nothing_away() {
    let bench = Bench::new();
    let flow = bench
        .start(bench.settings(), vec![bench.directory("a", "{path}")])
        .await;
    bench.put("1", b"x").await;
    bench.idle().await;
    flow.stop().await;
    std::fs::remove_file(bench.dir.path().join("snapshot")).ok();
    let root = bench.dir.path().join("in");
    let aside = bench.dir.path().join("unmounted");
    std::fs::rename(&root, &aside).expect("renamed");
    let flow = bench
        .start(bench.settings(), vec![bench.directory("a", "{path}")])
        .await;
    let soon = tokio::time::Instant::now() + Duration::from_secs(2);
    for _ in 0..3 {
        let _ = flow.scan_now(soon).await;
    }
    assert_eq!(bench.state("1").await, Some(State::Done));
    std::fs::rename(&aside, &root).expect("renamed");
    flow.scan_now(tokio::time::Instant::now() + Duration::from_secs(120))
        .await
        .expect("scanned");
    bench.idle().await;
    flow.stop().await;
    assert_eq!(tree(&bench.dir.path().join("a")).len(), 1);
}

/// A source that no program foresaw.
#[derive(Debug)]
struct Faulty;

impl Lister for Faulty {
    fn list<'a>(&'a self, _: &'a mut dyn Plan) -> detect::Answer<'a, ()> {
        Box::pin(async { panic!("a fault of its own") })
    }

    fn look<'a>(
        &'a self,
        _: &'a [RemotePath],
    ) -> detect::Answer<'a, Vec<Result<Attrs, ListError>>> {
        Box::pin(async { panic!("a fault of its own") })
    }
}

#[tokio::test]
async fn half_a_flow_is_told() {
    let bench = Bench::new();
    let flow = Flow {
        settings: bench.settings(),
        detect: DetectConfig::default(),
        lister: Arc::new(Faulty),
        pushes: None,
        source: Arc::new(Local::new(bench.dir.path())),
        sinks: vec![bench.directory("a", "{path}")],
        store: Arc::clone(&bench.store),
        events: bench.events.clone(),
    };
    let flow = flow.start().await.expect("a flow");
    bench
        .until("it is told", async || {
            flow.raised().contains(&"detection".to_owned())
        })
        .await;
    flow.stop().await;
}

/// Lists one directory after another, and each only when it may.
#[derive(Debug)]
struct Gated {
    local: Local,
    listed: Mutex<Vec<RemotePath>>,
    allowed: Semaphore,
}

/// A plan of one directory.
struct One<'a> {
    directory: Option<RemotePath>,
    plan: &'a mut dyn Plan,
}

impl Plan for One<'_> {
    fn next(&mut self) -> Option<RemotePath> {
        self.directory.take()
    }

    fn listed(&mut self, directory: RemotePath, result: Result<Listing, ListError>) {
        self.plan.listed(directory, result);
    }
}

impl Lister for Gated {
    fn list<'a>(&'a self, plan: &'a mut dyn Plan) -> detect::Answer<'a, ()> {
        Box::pin(async move {
            while let Some(directory) = plan.next() {
                self.allowed.acquire().await.expect("open").forget();
                let mut one = One {
                    directory: Some(directory.clone()),
                    plan: &mut *plan,
                };
                self.local.list(&mut one).await;
                self.listed.lock().expect("not poisoned").push(directory);
            }
        })
    }

    fn look<'a>(
        &'a self,
        paths: &'a [RemotePath],
    ) -> detect::Answer<'a, Vec<Result<Attrs, ListError>>> {
        Lister::look(&self.local, paths)
    }
}

/// A scan that stops half way to have recorded what it found is the same scan when it goes on: who asks
/// meanwhile is answered by the next one.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "somebody else asks, too")]
async fn who_asks_during_a_long_scan_is_answered_by_one_that_began_after() {
    let bench = Bench::new();
    let root = bench.dir.path().join("in");
    for n in 0..60 {
        let dir = root.join(format!("d{}", n / 10));
        std::fs::create_dir_all(&dir).expect("made");
        std::fs::write(dir.join(n.to_string()), b"x").expect("written");
    }
    let lister = Arc::new(Gated {
        local: Local::new(&root),
        listed: Mutex::default(),
        allowed: Semaphore::new(4),
    });
    let flow = Flow {
        settings: bench.settings(),
        detect: DetectConfig {
            interval: None,
            first: First::News,
            settle: SettleConfig::immediately(),
            changes_max: 1,
            ..DetectConfig::default()
        },
        lister: Arc::clone(&lister) as Arc<dyn Lister>,
        pushes: None,
        source: Arc::new(Local::new(&root)),
        sinks: vec![bench.directory("a", "{path}")],
        store: Arc::clone(&bench.store),
        events: bench.events.clone(),
    };
    let flow = flow.start().await.expect("a flow");
    let long = tokio::time::Instant::now() + Duration::from_secs(120);
    let first = flow.clone();
    let first = tokio::spawn(async move { first.scan_now(long).await });
    bench
        .until("three of six directories are listed", async || {
            lister.listed.lock().expect("not poisoned").len() == 4
        })
        .await;
    let passed = lister.listed.lock().expect("not poisoned")[1].clone();
    let late = passed.join("late");
    std::fs::write(root.join(late.to_string()), b"late").expect("written");
    let mut second = Box::pin(flow.scan_now(long));
    let asked = std::future::poll_fn(|cx| Poll::Ready(second.as_mut().poll(cx))).await;
    assert!(asked.is_pending());
    lister.allowed.add_permits(1_000);
    second.await.expect("scanned");
    assert!(
        bench.state(&late.to_string()).await.is_some(),
        "it came before that was asked"
    );
    first.await.expect("no fault").expect("scanned");
    bench.idle().await;
    flow.stop().await;
    assert_eq!(tree(&bench.dir.path().join("a")).len(), 61);
}

#[tokio::test]
async fn a_paused_flow_stays_paused_over_a_restart() {
    let bench = Bench::new();
    let sinks = || vec![bench.directory("a", "{path}")];
    let flow = bench.start(bench.settings(), sinks()).await;
    flow.pause().await.expect("paused");
    flow.stop().await;
    let flow = bench.start(bench.settings(), sinks()).await;
    assert!(flow.is_paused());
    bench.put("1", b"x").await;
    // It is found all the same, and then nobody takes it.
    while bench.state("1").await.is_none() {
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(bench.state("1").await, Some(State::Pending));
    flow.resume().await.expect("resumed");
    bench.idle().await;
    flow.stop().await;
    assert_eq!(tree(&bench.dir.path().join("a")).len(), 1);
}

/// A sink to which something happens while it is delivered to.
struct Trap<F>(F);

impl<F> std::fmt::Debug for Trap<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trap")
    }
}

impl<F: Fn(&Parcel<'_>) -> Result<(), SinkError> + Send + Sync + 'static> Sink for Trap<F> {
    fn name(&self) -> &str {
        "trap"
    }

    fn takes(&self) -> Takes {
        Takes::CONTENT
    }

    fn place<'a>(&'a self, _: &'a Item, _: Option<&'a Placement>) -> Answer<'a, Placement> {
        Box::pin(async { Ok(Placement::default()) })
    }

    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()> {
        Box::pin(async move { (self.0)(&parcel) })
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// Poison does not come back with each lease: a fault of ours is an attempt like others.
#[tokio::test]
async fn a_fault_in_a_sink_is_counted_and_ends() {
    let bench = Bench::new();
    let mut settings = bench.settings();
    settings.attempts = 2;
    settings.lease = Duration::from_secs(3600);
    let trap = Trap(|parcel: &Parcel<'_>| {
        assert!(
            parcel.item.path.as_bytes() != b"poison",
            "as the test wants it"
        );
        Ok(())
    });
    let flow = bench.start(settings, vec![Arc::new(trap)]).await;
    bench.put("poison", b"one").await;
    bench.put("good", b"two").await;
    bench
        .until("it is given up", async || {
            bench.state("poison").await == Some(State::Dead)
                && bench.state("good").await == Some(State::Done)
        })
        .await;
    flow.stop().await;
    let paths = [RemotePath::from("poison")];
    let rows = bench.store.lookup(&bench.flow, &paths).await;
    let row = rows.expect("looked up").remove(0).expect("a row");
    assert_eq!(row.attempts, 2);
    assert!(row.reason.is_some_and(|reason| reason.contains("fault")));
}

/// Who says when to come again is not asked before.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test measures time")]
async fn a_sink_that_asks_to_be_left_alone_is() {
    let bench = Bench::new();
    let after = Duration::from_millis(1500);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    let trap = Trap(move |_: &Parcel<'_>| {
        let mut times = times.lock().expect("not poisoned");
        times.push(std::time::Instant::now());
        if times.len() > 1 {
            return Ok(());
        }
        let what = "not now".to_owned();
        Err(SinkError::Busy { what, after })
    });
    let flow = bench.start(bench.settings(), vec![Arc::new(trap)]).await;
    bench.put("a", b"one").await;
    bench.idle().await;
    flow.stop().await;
    let asked = asked.lock().expect("not poisoned");
    assert_eq!(asked.len(), 2);
    assert!(asked[1] - asked[0] >= after);
}

/// A version that took the place of the delivered one, with the same length and time, is not removed
/// with it where versions are told apart by content.
#[tokio::test]
async fn an_after_action_takes_what_was_delivered_and_nothing_that_looks_like_it() {
    for after in [
        After::Delete,
        After::Move(Template::parse("old/{path}").expect("a template")),
    ] {
        let bench = Bench::new();
        let mut settings = bench.settings();
        settings.after = after;
        settings.by_content = true;
        let source = bench.dir.path().join("in");
        let at = source.clone();
        let trap = Trap(move |parcel: &Parcel<'_>| {
            let path = at.join(parcel.item.path.to_str().expect("plain"));
            if parcel.item.path.as_bytes() == b"swapped" {
                let modified = path.metadata().and_then(|metadata| metadata.modified());
                std::fs::write(&path, b"TWO").expect("written");
                let file = std::fs::File::options().write(true).open(&path);
                let times = std::fs::FileTimes::new().set_modified(modified.expect("a time"));
                file.and_then(|file| file.set_times(times)).expect("set");
            }
            Ok(())
        });
        let flow = bench.start(settings, vec![Arc::new(trap)]).await;
        bench.put("plain", b"one").await;
        bench.put("swapped", b"two").await;
        bench.idle().await;
        flow.stop().await;
        let mut left = tree(&source);
        left.remove("old/plain");
        assert_eq!(
            left,
            BTreeMap::from([("swapped".to_owned(), b"TWO".to_vec())])
        );
    }
}

/// Every byte that the ledger and what is known take on the disk.
fn written(bench: &Bench) -> BTreeMap<String, Vec<u8>> {
    let mut files = tree(bench.dir.path());
    // `-shm` is memory that readers share.
    files.retain(|name, _| {
        (name.starts_with("ledger") && !name.ends_with("-shm")) || name.starts_with("snapshot")
    });
    files
}

#[tokio::test]
async fn scans_without_a_change_write_nothing() {
    let bench = Bench::new();
    let flow = bench
        .start(bench.settings(), vec![bench.directory("a", "{path}")])
        .await;
    for n in 0..20 {
        bench.put(&format!("d{}/{n}", n % 4), b"x").await;
    }
    bench.idle().await;
    let long = || tokio::time::Instant::now() + Duration::from_secs(120);
    // The first scans remember what the ledger has, and that is saved soon after.
    let mut before = BTreeMap::new();
    bench
        .until("what is known is saved", async || {
            flow.scan_now(long()).await.expect("scanned");
            bench.dir.path().join("snapshot").exists()
        })
        .await;
    for round in 0..12 {
        flow.scan_now(long()).await.expect("scanned");
        let now = written(&bench);
        assert!(now.len() >= 2, "{:?}", now.keys());
        if round < 2 {
            before = now;
            // Beyond the pause after which it would be saved again.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
        } else {
            assert!(now == before, "scan {round} wrote something");
        }
    }
    flow.stop().await;
    assert_eq!(tree(&bench.dir.path().join("a")).len(), 20);
}
