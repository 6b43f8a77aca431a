//! A directory on a server for programs that are written against `notify`.
//!
//! [`RemoteWatcher`] is a [`notify::Watcher`]: what changes below a path comes to its handler as
//! [`notify::Event`]s. It has one thread with a runtime of its own, so it works in programs without
//! `async`; each path that is watched is a [`Watch`](crate::Watch) there, by pushes where the server
//! has them, and by listings always. So what a push does not tell, or what happens on a server
//! without them, comes within [`notify::Config::poll_interval`].
//!
//! | on the server | event |
//! | --- | --- |
//! | a name is new | `Create(File)`, `Create(Folder)`, `Create(Other)` |
//! | content or time is another | `Modify(Any)` |
//! | a name is gone | `Remove(Any)` |
//! | a name became another, as a push told | `Modify(Name(Both))` with both paths |
//! | a directory cannot be listed | an error with its path; the watch goes on |
//! | the connection is lost | an error; over a session that was given, the watch is over |

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ketch_client::agent::AgentPath;
use ketch_client::config::{AgentChoice, HostConfig, SshConfig};
use ketch_client::identity::Identity;
use ketch_client::{Connect, Destination, RemotePath, Session, Sftp};
use notify::event::{CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{Config, Error, EventHandler, RecursiveMode, Result};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::driver::{Push, Watch};
use crate::event::{Event, EventKind};
use crate::local::remote_path;
use crate::watcher::INTERVAL;

/// Pause before a lost connection is made again, for paths that were given as URLs.
const RETRY: Duration = Duration::from_secs(5);

/// How long the start of a watch may take: the connection and the first listing.
const START_TIMEOUT: Duration = Duration::from_secs(120);

type Handler = Arc<Mutex<dyn EventHandler>>;

/// Watches directories on servers; see the module's text. Dropped, all its watches end.
///
/// ```no_run
/// use std::path::Path;
/// use ketch_listener::RemoteWatcher;
/// use notify::{Config, RecursiveMode, Watcher};
///
/// # fn main() -> notify::Result<()> {
/// let mut watcher = RemoteWatcher::new(
///     |event: notify::Result<notify::Event>| println!("{event:?}"),
///     Config::default(),
/// )?;
/// watcher.watch(Path::new("sftp://ann@files.example.com/in"), RecursiveMode::Recursive)?;
/// # Ok(())
/// # }
/// ```
pub struct RemoteWatcher {
    handler: Handler,
    interval: Duration,
    /// Where paths lead that are no URLs.
    session: Option<Session>,
    runtime: Handle,
    watched: HashMap<PathBuf, AbortHandle>,
    /// Dropped, it ends the thread.
    _end: oneshot::Sender<()>,
}

impl std::fmt::Debug for RemoteWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteWatcher")
            .field("watched", &self.watched.keys())
            .finish_non_exhaustive()
    }
}

impl RemoteWatcher {
    /// Watches over a session that is open already: paths are the server's. Its runtime must go on
    /// running; it may be another than this thread's.
    ///
    /// # Errors
    /// The system's, if no thread can be had.
    pub fn over(session: Session, handler: impl EventHandler) -> Result<Self> {
        Self::with(Some(session), handler, Config::default())
    }

    /// As [`RemoteWatcher::over`], with `notify`'s settings: of these, the interval of polls counts.
    ///
    /// # Errors
    /// As [`RemoteWatcher::over`].
    pub fn over_with(session: Session, handler: impl EventHandler, config: Config) -> Result<Self> {
        Self::with(Some(session), handler, config)
    }

    fn with(session: Option<Session>, handler: impl EventHandler, config: Config) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::io)?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let run = move || {
            // Whoever calls drives nothing: this does, until the watcher is dropped.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("ketch-watch".to_owned());
        thread.spawn(run).map_err(Error::io)?;
        Ok(Self {
            handler: Arc::new(Mutex::new(handler)),
            interval: interval(config),
            session,
            runtime: handle,
            watched: HashMap::new(),
            _end: end,
        })
    }
}

impl notify::Watcher for RemoteWatcher {
    /// Watches what `sftp://[user@]host[:port]/path` names, with the user's own `ssh_config`, keys,
    /// agent and `known_hosts`; nobody is asked for anything. A connection that is lost is made
    /// again.
    fn new<F: EventHandler>(handler: F, config: Config) -> Result<Self> {
        Self::with(None, handler, config)
    }

    /// Returns when the directory is connected to and listed: what changes after that is told. It
    /// must not be called within an `async` function.
    fn watch(&mut self, path: &Path, mode: RecursiveMode) -> Result<()> {
        let named = |error: Error| error.add_path(path.to_owned());
        let place = self.place(path).map_err(named)?;
        let told = Told {
            handler: Arc::clone(&self.handler),
            shown: path.to_owned(),
            root: place.root().clone(),
        };
        let (started, mut begun) = watch::channel(None);
        let plan = Plan {
            place,
            interval: self.interval,
            recursive: mode == RecursiveMode::Recursive,
        };
        let task = self.runtime.spawn(keep(plan, told, started));
        // The channel says what became of the start; there is no runtime in this thread.
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let wait = begun.wait_for(Option::is_some);
            let result = match tokio::time::timeout(START_TIMEOUT, wait).await {
                Ok(Ok(result)) => result.clone().unwrap_or(Ok(())),
                Ok(Err(_)) => Err("the watch ended".to_owned()),
                Err(_) => Err("the server did not answer in time".to_owned()),
            };
            let _ = answer.send(result);
        });
        let result = answered
            .recv()
            .unwrap_or_else(|_| Err("the watcher's thread ended".to_owned()));
        if let Err(why) = result {
            task.abort();
            return Err(named(Error::generic(&why)));
        }
        if let Some(before) = self.watched.insert(path.to_owned(), task.abort_handle()) {
            before.abort();
        }
        Ok(())
    }

    fn unwatch(&mut self, path: &Path) -> Result<()> {
        match self.watched.remove(path) {
            Some(task) => {
                task.abort();
                Ok(())
            }
            None => Err(Error::watch_not_found().add_path(path.to_owned())),
        }
    }

    fn configure(&mut self, config: Config) -> Result<bool> {
        // For what is watched from now on.
        self.interval = interval(config);
        Ok(true)
    }

    fn kind() -> notify::WatcherKind {
        notify::WatcherKind::PollWatcher
    }
}

/// Where a path leads.
enum Place {
    Given(Session, RemotePath),
    Url(Box<Connect>, RemotePath),
}

impl Place {
    const fn root(&self) -> &RemotePath {
        match self {
            Self::Given(_, root) | Self::Url(_, root) => root,
        }
    }
}

impl RemoteWatcher {
    fn place(&self, path: &Path) -> Result<Place> {
        if let Some(session) = &self.session {
            let root = server_path(path).ok_or_else(Error::path_not_found)?;
            return Ok(Place::Given(session.clone(), root));
        }
        let refused = |why: &dyn std::fmt::Display| Error::generic(&why.to_string());
        let url = path.to_str().filter(|text| text.starts_with("sftp:"));
        let Some(url) = url else {
            return Err(Error::generic(
                "a path of the form sftp://[user@]host[:port]/path is watched",
            ));
        };
        // A `Path` that was joined may have lost one of the two slashes.
        let url = url
            .replacen("sftp:/", "sftp://", 1)
            .replacen("sftp:///", "sftp://", 1);
        let destination: Destination = url.parse().map_err(|error| refused(&error))?;
        let connect = as_the_user(&destination).map_err(|error| refused(&sentence(&*error)))?;
        Ok(Place::Url(Box::new(connect), destination.path))
    }
}

/// A connection as the user's own configuration has it, with nobody to ask.
fn as_the_user(destination: &Destination) -> std::result::Result<Connect, Fault> {
    let Destination {
        user, host, port, ..
    } = destination;
    let way = SshConfig::of_user().hops(host, user.as_ref(), *port)?;
    let (target, before) = way.split_last().ok_or("there is no server to connect to")?;
    let mut hops = Vec::new();
    for config in before {
        hops.push(with_keys(Connect::from_config(config, Vec::new())?, config));
    }
    Ok(with_keys(Connect::from_config(target, hops)?, target))
}

fn with_keys(mut connect: Connect, config: &HostConfig) -> Connect {
    if config.pubkey_authentication == Some(false) {
        return connect;
    }
    let keys = match &config.identity_files {
        // Not all that a configuration names have to be there.
        Some(files) => files
            .iter()
            .filter_map(|file| Identity::from_file(file).ok())
            .collect(),
        None => Identity::from_default_files(),
    };
    for key in keys {
        connect = connect.identity(key);
    }
    let agent = match &config.identity_agent {
        Some(AgentChoice::None) => None,
        Some(AgentChoice::At(path)) => Some(AgentPath::Socket(path.clone())),
        None => std::env::var_os("SSH_AUTH_SOCK").map(|_| AgentPath::Environment),
    };
    match agent {
        Some(agent) => connect
            .agent(agent)
            .identities_only(config.identities_only == Some(true)),
        None => connect,
    }
}

fn interval(config: Config) -> Duration {
    config.poll_interval().unwrap_or(INTERVAL)
}

/// The server's path that a local path stands for.
fn server_path(path: &Path) -> Option<RemotePath> {
    let below = path.strip_prefix("/").ok();
    let plain = remote_path(below.unwrap_or(path))?;
    Some(match below {
        Some(_) => RemotePath::from([b"/", plain.as_bytes()].concat()),
        None if plain.as_bytes().is_empty() => RemotePath::from("."),
        None => plain,
    })
}

struct Plan {
    place: Place,
    interval: Duration,
    recursive: bool,
}

/// Runs one watch; over a URL, again and again.
async fn keep(
    plan: Plan,
    told: Told,
    started: watch::Sender<Option<std::result::Result<(), String>>>,
) {
    let began = || started.borrow().is_some();
    loop {
        let failed = match once(&plan, &told, &started).await {
            Ok(()) => None,
            Err(error) => Some(sentence(&*error)),
        };
        if !began() {
            let why = failed.unwrap_or_else(|| "the connection ended".to_owned());
            started.send_replace(Some(Err(why)));
            return;
        }
        if let Some(why) = failed {
            told.error(&why, &told.root);
        }
        if matches!(plan.place, Place::Given(..)) {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// One connection, until it is lost.
async fn once(
    plan: &Plan,
    told: &Told,
    started: &watch::Sender<Option<std::result::Result<(), String>>>,
) -> std::result::Result<(), Fault> {
    let (session, root) = match &plan.place {
        Place::Given(session, root) => (session.clone(), root),
        Place::Url(connect, root) => ((**connect).clone().connect().await?, root),
    };
    let sftp: Sftp = session.sftp().await?;
    // A directory that cannot be listed at the start is a mistake of the caller's.
    if let Some(Err(error)) = sftp.read_dir(root).next().await {
        return Err(error.into());
    }
    let mut events = Watch::directory(sftp, root.clone())
        .interval(plan.interval)
        .recursive(plan.recursive)
        .renames(true)
        .push(Push::Auto)
        .start();
    if !events.listings(1).await {
        return Err("the connection ended".into());
    }
    events.pushed().await;
    if started.borrow().is_some() {
        // What happened meanwhile is nobody's knowledge.
        told.rescan();
    } else {
        started.send_replace(Some(Ok(())));
    }
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => told.event(&event),
            Err(error) if error.is_final() => return Err(error.into()),
            Err(error) => told.error(&sentence(&error), root),
        }
    }
    Ok(())
}

/// Whom a watch tells, and how its paths are shown.
struct Told {
    handler: Handler,
    /// As the caller named it.
    shown: PathBuf,
    root: RemotePath,
}

impl Told {
    fn event(&self, event: &Event) {
        let path = self.path(&event.path);
        let kind = match event.kind {
            EventKind::Created => {
                notify::EventKind::Create(match event.attrs.map(|a| a.file_type()) {
                    Some(ketch_client::FileType::Directory) => CreateKind::Folder,
                    Some(ketch_client::FileType::Regular) => CreateKind::File,
                    _ => CreateKind::Other,
                })
            }
            EventKind::Modified => notify::EventKind::Modify(ModifyKind::Any),
            EventKind::Removed => notify::EventKind::Remove(RemoveKind::Any),
            EventKind::Renamed => notify::EventKind::Modify(ModifyKind::Name(RenameMode::Both)),
            EventKind::Settled => return,
        };
        let mut told = notify::Event::new(kind);
        if let Some(from) = &event.from {
            told = told.add_path(self.path(from));
        }
        self.tell(Ok(told.add_path(path)));
    }

    fn rescan(&self) {
        let event = notify::Event::new(notify::EventKind::Other);
        let event = event.set_flag(notify::event::Flag::Rescan);
        self.tell(Ok(event.add_path(self.shown.clone())));
    }

    fn error(&self, why: &str, path: &RemotePath) {
        self.tell(Err(Error::generic(why).add_path(self.path(path))));
    }

    fn tell(&self, event: Result<notify::Event>) {
        let mut handler = self.handler.lock().unwrap_or_else(PoisonError::into_inner);
        handler.handle_event(event);
    }

    /// A path of the server as the caller would write it.
    fn path(&self, path: &RemotePath) -> PathBuf {
        let root = self.root.join("");
        let below = path.as_bytes().strip_prefix(root.as_bytes());
        let below = below.and_then(|below| crate::local::local_path(&RemotePath::from(below)));
        match below {
            Some(below) => self.shown.join(below),
            None => self.shown.clone(),
        }
    }
}

/// An error with what led to it.
fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_servers_and_urls_name_theirs() {
        let table = [("/in/a", "/in/a"), ("in", "in"), ("/", "/"), ("", ".")];
        for (path, expected) in table {
            assert_eq!(
                server_path(Path::new(path)),
                Some(expected.into()),
                "{path}"
            );
        }
        assert_eq!(server_path(Path::new("in/../a")), None);
    }
}
