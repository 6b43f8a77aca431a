//! What is said in JSON, both ways. The OpenAPI document is made of these types.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ketch_client::RemotePath;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::detect::Pace;
use crate::flow::events::{FlowEvent, FlowEventKind};
use crate::sink::event;
use crate::store::{AT_SOURCE, Counts, Row};

/// Shortest interval.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longest interval.
pub const INTERVAL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// A flow and how it does.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct FlowInfo {
    /// Its name.
    pub name: String,
    /// The name of its source.
    pub source: String,
    /// The names of its sinks.
    pub sinks: Vec<String>,
    /// When the source is looked at.
    pub interval: Interval,
    /// Its schedule, with the time zone, if it has one: it holds while `interval` is `schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// When the schedule is due next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_look: Option<Time>,
    /// Whether it is paused.
    pub paused: bool,
    /// What cannot be reached, read or written now: `source`, `ledger`, `sink …`, `directory …`; `flow`
    /// if it could not be started, `engine` or `detection` if that half of it ended by a fault of its own.
    pub raised: Vec<String>,
    /// Why it does not run, or not wholly. It is started anew by itself, after pauses that grow from a
    /// second to five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
    /// Files that were seen and have yet to settle.
    #[serde(default)]
    pub settling: u64,
    /// How often it was started anew by itself since the daemon started.
    #[serde(default)]
    pub restarts: u64,
    /// For how many seconds the oldest file that is to be delivered has been known; not there if none
    /// is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_pending_s: Option<u64>,
    /// Files by state; not there while the ledger cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FileCounts>,
}

/// Files of a flow by state.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct FileCounts {
    /// There when the flow began, and not delivered.
    pub known: u64,
    /// To be delivered.
    pub pending: u64,
    /// Under way.
    pub claimed: u64,
    /// Delivered.
    pub done: u64,
    /// Given up after too many attempts.
    pub dead: u64,
}

impl From<Counts> for FileCounts {
    fn from(counts: Counts) -> Self {
        Self {
            known: counts.known,
            pending: counts.pending,
            claimed: counts.claimed,
            done: counts.done,
            dead: counts.dead,
        }
    }
}

/// All flows.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct FlowList {
    /// In the order of their names.
    pub flows: Vec<FlowInfo>,
}

/// How often a source is looked at: a time such as `5s`, `1min`, `2h`, or `manual` for only when it
/// is asked for or pushed, or `schedule` for the flow's schedule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interval(pub Pace);

impl JsonSchema for Interval {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Interval".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A time such as `5s`, `1min`, `2h`, or `manual` for only when it is asked for or pushed, or `schedule` for the flow's schedule.",
            "examples": ["5s", "1min", "manual", "schedule"],
        })
    }
}

impl Serialize for Interval {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Pace::Every(every) => match SignedDuration::try_from(every) {
                Ok(every) => to.collect_str(&format_args!("{every:#}")),
                Err(_) => to.serialize_str("manual"),
            },
            Pace::Scheduled => to.serialize_str("schedule"),
            Pace::Asked => to.serialize_str("manual"),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = String::deserialize(from)?;
        match text.as_str() {
            "manual" | "N/A" => return Ok(Self(Pace::Asked)),
            "schedule" => return Ok(Self(Pace::Scheduled)),
            _ => {}
        }
        let every = text.parse::<SignedDuration>().ok();
        let every = every.and_then(|every| Duration::try_from(every).ok());
        match every {
            Some(every) if (INTERVAL_MIN..=INTERVAL_MAX).contains(&every) => {
                Ok(Self(Pace::Every(every)))
            }
            _ => Err(D::Error::custom(
                "an interval is a time from 100ms to 30 days, such as 5s or 1min, or manual, or schedule",
            )),
        }
    }
}

/// A change of a flow's interval.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IntervalChange {
    /// From now until the daemon starts anew.
    pub interval: Interval,
}

/// A path: as text, and in hexadecimal digits where it is no UTF-8.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PathText {
    /// Below the source's root. What is no UTF-8 stands as U+FFFD.
    pub path: String,
    /// Its bytes, if they are no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
}

impl PathText {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            path: String::from_utf8_lossy(bytes).into_owned(),
            path_hex: std::str::from_utf8(bytes)
                .is_err()
                .then(|| event::hex(bytes)),
        }
    }
}

impl From<&RemotePath> for PathText {
    fn from(path: &RemotePath) -> Self {
        Self::of(path.as_bytes())
    }
}

/// A file and where it stands.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct FileInfo {
    /// Which.
    #[serde(flatten)]
    pub path: PathText,
    /// Where its newest version stands.
    pub state: FileState,
    /// The id that events about this version carry.
    pub id: String,
    /// Rises with every version of any file of the flow.
    pub sequence: u64,
    /// `created`, `modified`, `removed` or `renamed`.
    pub kind: String,
    /// Bytes, if known.
    pub size: Option<u64>,
    /// Time of last change by the server's clock, in seconds since 1970, if known.
    pub modified: Option<u32>,
    /// SHA-256 of the content, if known.
    pub sha256: Option<String>,
    /// When the ledger took it, in milliseconds since 1970.
    pub recorded: u64,
    /// Attempts that failed.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: Option<String>,
    /// Which sinks it is in or on its way to.
    pub deliveries: Vec<DeliveryInfo>,
    /// Whether a newer version waits behind this one.
    pub next: bool,
}

/// Where a file stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// It was there when the flow began.
    Known,
    /// To be delivered.
    Pending,
    /// Under way.
    Claimed,
    /// All sinks have it; the after-action is left.
    Committed,
    /// All is done.
    Done,
    /// All is done, and the after-action took the file away.
    Acted,
    /// Given up after too many attempts.
    Dead,
}

impl From<crate::store::State> for FileState {
    fn from(state: crate::store::State) -> Self {
        use crate::store::State;
        match state {
            State::Known => Self::Known,
            State::Pending => Self::Pending,
            State::Claimed => Self::Claimed,
            State::Committed => Self::Committed,
            State::Done => Self::Done,
            State::Acted => Self::Acted,
            State::Dead => Self::Dead,
        }
    }
}

/// How far one sink has come with a file.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct DeliveryInfo {
    /// The sink.
    pub sink: String,
    /// The name that it has there, if it has one.
    #[serde(flatten)]
    pub name: PathText,
    /// Whether it is there.
    pub done: bool,
}

impl From<&Row> for FileInfo {
    fn from(row: &Row) -> Self {
        let Row {
            item,
            state,
            attempts,
            reason,
            deliveries,
            next,
        } = row;
        Self {
            path: (&item.path).into(),
            state: (*state).into(),
            id: item.id(),
            sequence: item.sequence,
            kind: item.kind.word().to_owned(),
            size: item.facts.size,
            modified: item.facts.mtime,
            sha256: item.sha256.map(|sum| event::hex(&sum)),
            recorded: item.recorded,
            attempts: *attempts,
            reason: reason.clone(),
            deliveries: deliveries
                .iter()
                .filter(|delivery| delivery.sink != AT_SOURCE)
                .map(|delivery| DeliveryInfo {
                    sink: delivery.sink.clone(),
                    name: PathText::of(&delivery.placement.name),
                    done: delivery.done,
                })
                .collect(),
            next: next.is_some(),
        }
    }
}

/// A page of files.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct FilePage {
    /// In the order of their paths.
    pub files: Vec<FileInfo>,
    /// What to give as `cursor` to get the next page. None: this was the last one.
    pub cursor: Option<String>,
}

/// What became of "apply now".
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Applied {
    /// Whether the source was looked at and everything due has been delivered or given up.
    pub complete: bool,
    /// Items that are left: to be delivered, or under way.
    pub left: u64,
    /// Items that all sinks got meanwhile.
    pub delivered: u64,
    /// Items that were given up meanwhile.
    pub dead: u64,
    /// Files that were seen and have yet to settle: they come by themselves when they have.
    #[serde(default)]
    pub settling: u64,
}

/// Which given-up files are tried again.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayRequest {
    /// This one. Neither this nor `path_hex`: all.
    pub path: Option<String>,
    /// This one, in hexadecimal digits.
    pub path_hex: Option<String>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Replayed {
    /// How many files are tried again.
    pub replayed: u64,
}

/// Which files are to be copied now: those that match a pattern of `include` and whose times lie
/// between.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FetchRequest {
    /// Patterns (`*`, `?`, `[…]`, `{…,…}`, `**`), of which a file's name or its path below the
    /// source's root has to match one. None: all.
    pub include: Vec<String>,
    /// Only files changed at this time or later, by the server's clock: RFC 3339.
    pub modified_after: Option<Time>,
    /// Only files changed before this time.
    pub modified_before: Option<Time>,
    /// Whether files that were delivered already are delivered once more.
    pub again: bool,
    /// How long the answer may wait for them. Default: 60; at most 3600.
    pub wait_seconds: Option<u64>,
}

/// A moment, in RFC 3339: `2026-11-21T17:35:42Z`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Time(pub Timestamp);

impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "A moment, in RFC 3339.",
            "examples": ["2026-11-21T17:35:42Z"],
        })
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let time = text.parse().map(Self);
        time.map_err(|_| serde::de::Error::custom("a moment is given as 2026-11-21T17:35:42Z"))
    }
}

/// What became of a [`FetchRequest`].
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Fetched {
    /// Whether all that matched is copied: nothing failed, and nothing is under way still.
    pub complete: bool,
    /// Files that all sinks have.
    pub copied: Vec<PathText>,
    /// Files that were given up.
    pub failed: Vec<FailedFile>,
    /// Files that were not done when the time was over; they go on.
    pub waiting: Vec<PathText>,
}

/// A file that was given up.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct FailedFile {
    /// Which.
    #[serde(flatten)]
    pub path: PathText,
    /// Why.
    pub reason: String,
}

/// Whether a source can be reached and listed.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Validation {
    /// `Connection Valid`, or why it is not.
    pub status: String,
    /// Whether it is.
    pub valid: bool,
}

/// How the daemon does.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// Something that happened in a flow: the data of a Server-Sent Event, whose `event` is `kind` and
/// whose `id` is to be given back as `Last-Event-ID`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct EventInfo {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// In which flow.
    pub flow: String,
    /// `delivered`, `superseded`, `failed`, `dead`, `scanned`, `raised`, `ceased`, `paused` or
    /// `resumed`.
    pub kind: String,
    /// The item's id, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The file, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathText>,
    /// The file's size, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What cannot be reached, read or written, or can again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Items that a scan found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u64>,
    /// How long a scan took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}

impl From<&FlowEvent> for EventInfo {
    fn from(event: &FlowEvent) -> Self {
        let item = event.kind.item();
        let (reason, what) = match &event.kind {
            FlowEventKind::Failed { reason, .. } | FlowEventKind::Dead { reason, .. } => {
                (Some(reason), None)
            }
            FlowEventKind::Raised { what, reason } => (Some(reason), Some(what)),
            FlowEventKind::Ceased { what } => (None, Some(what)),
            _ => (None, None),
        };
        let scan = match &event.kind {
            FlowEventKind::Scanned { items, took, .. } => Some((*items, *took)),
            _ => None,
        };
        Self {
            at: event.at,
            flow: event.flow.to_string(),
            kind: event.kind.word().to_owned(),
            id: item.map(crate::flow::item::Item::id),
            file: item.map(|item| (&item.path).into()),
            size: item.and_then(|item| item.facts.size),
            reason: reason.cloned(),
            what: what.cloned(),
            items: scan.map(|(items, _)| items),
            took_ms: scan.map(|(_, took)| took),
        }
    }
}
