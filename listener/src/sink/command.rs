//! A program started for each item: without a shell, with the event on its standard input.
//!
//! Names of files come from others, so what they can do here is bounded: words are handed over as
//! they are, no word that a name begins looks like an option, and of our environment the program
//! gets only what is needed to find things.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ketch_client::Kind;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::event::{default_source, encode, event_type, hex, shown};
use super::template::{Template, TemplateError};
use super::{Answer, Parcel, Sink, SinkError, Takes, directory};
use crate::flow::item::Item;
use crate::store::Placement;

/// Bytes of a program's output that are kept for the reason of a failure.
pub const OUTPUT_MAX: usize = 8 * 1024;
/// The key of words that only this sink has.
const FILE: &str = "file";
/// How long output is waited for that a program's own children hold back after its end.
const LINGER: Duration = Duration::from_secs(1);
/// What of our environment the program gets.
const KEPT: [&str; 9] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SystemRoot",
];

/// Which program is started, and how. The values of its environment are not shown.
#[derive(Clone)]
pub struct CommandSettings {
    /// The sink's name.
    pub name: String,
    /// The program and its words. Words may have the keys of templates, and `{file}`: the path of
    /// the file on this machine. The program itself has none.
    pub argv: Vec<String>,
    /// Where `{file}` lies: a directory sink that stands before this one in the flow, and its
    /// directory. Default: the fetched file, which goes when the item is done.
    pub file_from: Option<(String, PathBuf)>,
    /// How long it may take; then it and what it started are killed. Default: 60 s.
    pub timeout: Duration,
    /// Variables of its environment, beside those that are always there.
    pub env: Vec<(String, String)>,
    /// The `source` of events. Default: `/ketch/FLOW`.
    pub source: Option<String>,
}

impl fmt::Debug for CommandSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<&str> = self.env.iter().map(|(key, _)| key.as_str()).collect();
        f.debug_struct("CommandSettings")
            .field("name", &self.name)
            .field("argv", &self.argv)
            .field("file_from", &self.file_from)
            .field("timeout", &self.timeout)
            .field("env", &env)
            .field("source", &self.source)
            .finish()
    }
}

impl CommandSettings {
    /// The defaults.
    #[must_use]
    pub fn new(name: impl Into<String>, argv: Vec<String>) -> Self {
        Self {
            name: name.into(),
            argv,
            file_from: None,
            timeout: Duration::from_secs(60),
            env: Vec::new(),
            source: None,
        }
    }
}

/// A command that cannot be one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no program.
    #[error("a command needs a program")]
    Empty,
    /// A word is no template.
    #[error("word {word} of the command: {source}")]
    Word {
        /// Which, the first behind the program being 1.
        word: usize,
        /// What is wrong with it.
        source: TemplateError,
    },
}

/// A sink that starts a program for each item. It is delivered when the program ended with 0; after
/// a crash it may be started again, with the same `KETCH_ID`.
#[derive(Debug)]
pub struct CommandSink {
    settings: CommandSettings,
    words: Vec<Template>,
    wants_file: bool,
}

impl CommandSink {
    /// A sink; nothing is started.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn new(settings: CommandSettings) -> Result<Self, CommandError> {
        let Some((_, words)) = settings.argv.split_first() else {
            return Err(CommandError::Empty);
        };
        let words: Result<Vec<_>, _> = words
            .iter()
            .zip(1..)
            .map(|(text, word)| {
                Template::parse_text(text, &[FILE])
                    .map_err(|source| CommandError::Word { word, source })
            })
            .collect();
        let words = words?;
        let wants_file = settings.file_from.is_some() || words.iter().any(Template::has_others);
        Ok(Self {
            wants_file,
            words,
            settings,
        })
    }

    /// Where the item's file is on this machine.
    fn file(&self, parcel: &Parcel<'_>) -> Result<Option<PathBuf>, SinkError> {
        if !self.wants_file {
            return Ok(None);
        }
        if let Some((sink, root)) = &self.settings.file_from {
            let placed = parcel.earlier.iter().find(|earlier| earlier.sink == *sink);
            let Some(placed) = placed.filter(|placed| placed.done) else {
                return Err(SinkError::Failed {
                    what: format!("{sink} has not put {} anywhere yet", parcel.item.path),
                    kind: Kind::Local,
                    source: "a command's directory has to stand before it in the flow".into(),
                });
            };
            return Ok(Some(directory::local_path(root, &placed.placement)));
        }
        parcel.bytes().map(|content| Some(content.path.clone()))
    }

    /// The words behind the program.
    fn words(&self, item: &Item, file: Option<&Path>) -> Result<Vec<OsString>, SinkError> {
        let file = file.map(|file| file.as_os_str().as_encoded_bytes());
        let others = [file.unwrap_or_default()];
        let bad = |why: &str| SinkError::BadName {
            name: shown(item.path.as_bytes()),
            why: why.to_owned(),
        };
        self.words
            .iter()
            .map(|word| {
                let text = word.fill_text(item, &others);
                let text = text.ok_or_else(|| bad("a time or a checksum is not known"))?;
                if text.contains(&0) {
                    return Err(bad("a word cannot hold a byte of zero"));
                }
                if text.starts_with(b"-") && !word.begins_with_text() {
                    return Err(bad("a program would take it for an option"));
                }
                word_of(text).ok_or_else(|| bad("a word has to be Unicode here"))
            })
            .collect()
    }

    async fn run(&self, parcel: Parcel<'_>) -> Result<(), SinkError> {
        let (program, _) =
            self.settings.argv.split_first().ok_or_else(|| {
                failed("cannot start nothing", Kind::Local, "there is no program")
            })?;
        let file = self.file(&parcel)?;
        let by_flow = || default_source(parcel.item.flow.as_str());
        let source = self.settings.source.clone().unwrap_or_else(by_flow);
        let event = encode(&source, &parcel);

        let mut command = Command::new(program);
        command
            .args(self.words(parcel.item, file.as_deref())?)
            .env_clear()
            .envs(
                KEPT.iter()
                    .filter_map(|&key| Some((key, std::env::var_os(key)?))),
            )
            .envs(facts(&parcel, file.as_deref()))
            .envs(self.settings.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let child = command.spawn().map_err(|error| {
            let kind = Kind::of_local(&error);
            failed(&format!("cannot start {program}"), kind, error)
        })?;
        let mut group = Group::of(child);
        let mut output = Vec::new();
        let end = timeout(self.settings.timeout, group.attend(&event, &mut output)).await;
        let said = String::from_utf8_lossy(&output);
        let said = shown(said.trim().as_bytes());
        match end {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(failed(
                &format!("{program} ended with {}: {said}", word_for(status)),
                Kind::Local,
                "a command has done its work when it ends with 0",
            )),
            Ok(Err(error)) => Err(failed(
                &format!("cannot wait for {program}"),
                Kind::Local,
                error,
            )),
            Err(_) => {
                group.kill().await;
                let secs = self.settings.timeout.as_secs_f64();
                Err(failed(
                    &format!("{program} was killed after {secs} s: {said}"),
                    // It may be this file alone that it hangs on.
                    Kind::Local,
                    "it took longer than a command may",
                ))
            }
        }
    }
}

fn failed(
    what: &str,
    kind: Kind,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> SinkError {
    SinkError::Failed {
        what: what.to_owned(),
        kind,
        source: source.into(),
    }
}

/// A program, and the programs that it starts.
struct Group {
    child: Child,
    /// Set until the program has ended and its number may be another's.
    is_alive: bool,
}

impl Group {
    const fn of(child: Child) -> Self {
        Self {
            child,
            is_alive: true,
        }
    }

    /// Gives it the event, takes what it says, and waits for its end.
    async fn attend(&mut self, event: &[u8], output: &mut Vec<u8>) -> io::Result<ExitStatus> {
        let (stdin, stdout, stderr) = (
            self.child.stdin.take(),
            self.child.stdout.take(),
            self.child.stderr.take(),
        );
        let mut said = (Vec::new(), Vec::new());
        let status = {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A program need not want it.
                    let _ = stdin.write_all(event).await;
                }
            };
            let hear = async {
                tokio::join!(keep(stdout, &mut said.0), keep(stderr, &mut said.1));
            };
            let mut hear = std::pin::pin!(hear);
            let mut is_heard = false;
            let mut feed = std::pin::pin!(feed);
            let mut is_fed = false;
            let status = loop {
                tokio::select! {
                    status = self.child.wait() => break status,
                    () = &mut hear, if !is_heard => is_heard = true,
                    () = &mut feed, if !is_fed => is_fed = true,
                }
            };
            if !is_heard {
                let _ = timeout(LINGER, hear).await;
            }
            status
        };
        self.is_alive = false;
        output.append(&mut said.1);
        output.append(&mut said.0);
        output.truncate(OUTPUT_MAX);
        status
    }

    /// Ends it and what it started.
    async fn kill(&mut self) {
        self.signal();
        let _ = self.child.kill().await;
        self.is_alive = false;
    }

    fn signal(&self) {
        #[cfg(unix)]
        if self.is_alive
            && let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok())
            && let Some(group) = rustix::process::Pid::from_raw(id)
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal();
    }
}

/// Reads to the end, and keeps the beginning.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let room = OUTPUT_MAX.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(chunk.get(..room).unwrap_or_default());
    }
}

/// What the environment says of the item.
fn facts(parcel: &Parcel<'_>, file: Option<&Path>) -> Vec<(&'static str, OsString)> {
    let item = parcel.item;
    let mut facts = vec![
        ("KETCH_ID", item.id().into()),
        ("KETCH_TYPE", event_type(item).into()),
        ("KETCH_FLOW", item.flow.as_str().into()),
        ("KETCH_SEQUENCE", item.sequence.to_string().into()),
    ];
    // What a variable cannot hold is in the event.
    let path = item.path.as_bytes();
    if let Some(path) = word_of(path.to_vec()).filter(|_| !path.contains(&0)) {
        facts.push(("KETCH_PATH", path));
    }
    if let Some(size) = item.facts.size {
        facts.push(("KETCH_SIZE", size.to_string().into()));
    }
    if let Some(modified) = item.facts.mtime {
        facts.push(("KETCH_MODIFIED", modified.to_string().into()));
    }
    if let Some(sum) = item.sha256 {
        facts.push(("KETCH_SHA256", hex(&sum).into()));
    }
    if let Some(file) = file {
        facts.push(("KETCH_FILE", file.into()));
    }
    facts
}

/// Bytes as a word; `None` where words are not bytes and these are no Unicode.
fn word_of(bytes: Vec<u8>) -> Option<OsString> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt as _;
        Some(OsString::from_vec(bytes))
    }
    #[cfg(not(unix))]
    String::from_utf8(bytes).ok().map(OsString::from)
}

fn word_for(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => code.to_string(),
        None => "a signal".to_owned(),
    }
}

impl Sink for CommandSink {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn takes(&self) -> Takes {
        if self.wants_file {
            Takes::CONTENT
        } else {
            Takes::EVENTS
        }
    }

    fn place<'a>(&'a self, _: &'a Item, _: Option<&'a Placement>) -> Answer<'a, Placement> {
        Box::pin(async { Ok(Placement::default()) })
    }

    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()> {
        Box::pin(self.run(parcel))
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let program = self.settings.argv.first().map_or(Path::new(""), Path::new);
            let is_there = if program.components().count() > 1 {
                program.is_file()
            } else {
                let path = std::env::var_os("PATH").unwrap_or_default();
                std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
            };
            if is_there {
                return Ok(());
            }
            Err(failed(
                &format!("there is no program {}", program.display()),
                Kind::NotFound,
                "neither at its path nor where PATH leads",
            ))
        })
    }
}
