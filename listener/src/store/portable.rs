//! A ledger as text: lines of JSON to look at, to keep and to move to another ledger.
//!
//! ```text
//! {"ketch_ledger":1,"flow":"orders","values":{"first-scan":"done"}}
//! {"path":"a.csv","sequence":1,"kind":"created","type":"file","size":3,"modified":1700000000,…}
//! {"rows":1,"sha256":"…"}
//! ```
//!
//! The last line counts the rows and has the SHA-256 of all bytes before it: a file that was cut or
//! changed is refused as a whole, before anything of it is taken. Several flows stand one behind the
//! other, each with its own first and last line. Paths that are not UTF-8 stand in
//! hexadecimal digits in `path_hex`. Claims are not moved: what was claimed is pending again.

use std::collections::BTreeMap;
use std::io::{BufRead, Seek, SeekFrom, Write};

use ketch_client::{FileType, RemotePath};
use ring::digest::{Context, Digest, SHA256};
use serde::{Deserialize, Serialize};

use super::{Delivery, Next, Placement, Row, State, Store, StoreError};
use crate::flow::item::{FlowName, Item, ItemKind};
use crate::flow::{FIRST_DONE, PAUSED};
use crate::snapshot::Facts;

/// The format of the text.
const FORMAT: u32 = 1;
/// Rows read or written at a time.
const PAGE: usize = 1_000;
/// Longest line that is read, in bytes: a path and a reason have their bounds.
const LINE_LEN_MAX: u64 = 1024 * 1024;

/// Why a ledger was not written as text or read from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortableError {
    /// The text could not be read or written.
    #[error("the text could not be read or written")]
    Io(#[from] std::io::Error),
    /// The ledger failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is no such text, or was cut or changed. Nothing was taken.
    #[error("line {line}: {what}")]
    Damaged {
        /// Which line, counted from 1.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The flow has rows already.
    #[error("the flow {flow} is not empty")]
    NotEmpty {
        /// Which.
        flow: FlowName,
    },
}

/// Writes all rows of `flow` to `out`; answers how many. What changes meanwhile may be in it or not,
/// so stop or pause the flow first.
///
/// # Errors
/// [`PortableError::Io`] and [`PortableError::Store`].
pub async fn export(
    store: &dyn Store,
    flow: &FlowName,
    out: &mut (dyn Write + Send),
) -> Result<u64, PortableError> {
    let mut context = Context::new(&SHA256);
    let mut put = |line: &str| {
        for part in [line.as_bytes(), b"\n"] {
            context.update(part);
            out.write_all(part)?;
        }
        Ok::<(), std::io::Error>(())
    };
    let mut values = BTreeMap::new();
    for key in [FIRST_DONE, PAUSED] {
        if let Some(value) = store.value(flow, key).await? {
            values.insert(key.to_owned(), value);
        }
    }
    put(&json(&Head {
        ketch_ledger: FORMAT,
        flow: flow.as_str().to_owned(),
        values,
    }))?;
    let mut rows = 0_u64;
    let mut after: Option<RemotePath> = None;
    loop {
        let page = store.rows(flow, None, after.as_ref(), PAGE).await?;
        for row in &page {
            put(&line(row))?;
            rows = rows.saturating_add(1);
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.item.path),
            None => break,
        }
    }
    let sha256 = hex(context.finish().as_ref());
    let end = json(&Foot { rows, sha256 });
    out.write_all(end.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(rows)
}

/// Takes what [`export`] wrote of one flow into the flow that it names, or into `flow`; answers how many
/// rows. If it is interrupted, `flow` holds a part of it: begin again with an empty ledger.
///
/// # Errors
/// All of [`PortableError`]. A text that is damaged is refused before anything is taken.
pub async fn import(
    store: &dyn Store,
    flow: Option<&FlowName>,
    input: &mut (impl BufRead + Seek + Send),
) -> Result<u64, PortableError> {
    let mut sections = verify(input)?;
    let (Some(section), None) = (sections.pop(), sections.pop()) else {
        return Err(PortableError::Damaged {
            line: 1,
            what: "it has several flows",
        });
    };
    let flow = flow.unwrap_or(&section.flow);
    is_free(store, flow).await?;
    take(store, flow, &section, input).await
}

/// The same with all flows that the text has, each into the flow of its name; answers how many rows
/// each had.
///
/// # Errors
/// All of [`PortableError`]. If the text is damaged, or a flow has rows already, nothing is taken.
pub async fn import_all(
    store: &dyn Store,
    input: &mut (impl BufRead + Seek + Send),
) -> Result<Vec<(FlowName, u64)>, PortableError> {
    let sections = verify(input)?;
    for section in &sections {
        is_free(store, &section.flow).await?;
    }
    let mut taken = Vec::new();
    for section in sections {
        let rows = take(store, &section.flow, &section, input).await?;
        taken.push((section.flow, rows));
    }
    Ok(taken)
}

async fn is_free(store: &dyn Store, flow: &FlowName) -> Result<(), PortableError> {
    if store.rows(flow, None, None, 1).await?.is_empty() {
        Ok(())
    } else {
        Err(PortableError::NotEmpty { flow: flow.clone() })
    }
}

/// Takes a section that was verified.
async fn take(
    store: &dyn Store,
    flow: &FlowName,
    section: &Section,
    input: &mut (impl BufRead + Seek + Send),
) -> Result<u64, PortableError> {
    input.seek(SeekFrom::Start(section.start))?;
    let mut lines = Lines::new(input, section.line);
    lines.next()?;
    let mut taken = 0_u64;
    while taken < section.rows {
        let mut page = Vec::new();
        while page.len() < PAGE && taken < section.rows {
            page.push(lines.row(flow)?);
            taken = taken.saturating_add(1);
        }
        store.import(flow, &page).await?;
    }
    for (key, value) in &section.values {
        store.set_value(flow, key, Some(value)).await?;
    }
    Ok(taken)
}

/// One row as a line of JSON, without the end of line.
#[must_use]
pub fn line(row: &Row) -> String {
    json(&Line::of(row))
}

/// One flow of a text.
struct Section {
    /// Where it begins, in bytes, and in which line.
    start: u64,
    line: u64,
    flow: FlowName,
    values: BTreeMap<String, String>,
    rows: u64,
}

/// Reads all of it once; answers what flows it has.
fn verify(input: &mut (impl BufRead + Seek + Send)) -> Result<Vec<Section>, PortableError> {
    let mut sections: Vec<Section> = Vec::new();
    let mut line = 0;
    loop {
        let start = input.stream_position()?;
        let mut lines = Lines::new(input, line);
        let Some(section) = lines.section(start)? else {
            break;
        };
        line = lines.number;
        if sections.iter().any(|known| known.flow == section.flow) {
            return Err(PortableError::Damaged {
                line: section.line.saturating_add(1),
                what: "the flow stands in it twice",
            });
        }
        sections.push(section);
    }
    if sections.is_empty() {
        return Err(PortableError::Damaged {
            line: 1,
            what: "it is empty",
        });
    }
    Ok(sections)
}

/// Lines, counted, with the digest of all so far.
struct Lines<'a, R> {
    input: &'a mut R,
    context: Context,
    number: u64,
}

impl<'a, R: BufRead> Lines<'a, R> {
    /// Lines behind the line `number`.
    fn new(input: &'a mut R, number: u64) -> Self {
        Self {
            input,
            context: Context::new(&SHA256),
            number,
        }
    }

    /// Reads one flow, which begins at the byte `start`; `None` if nothing is left.
    fn section(&mut self, start: u64) -> Result<Option<Section>, PortableError> {
        let damaged = |line, what| PortableError::Damaged { line, what };
        let line = self.number;
        let Some(head) = self.next()? else {
            return Ok(None);
        };
        let head: Head = serde_json::from_str(&head)
            .map_err(|_| damaged(self.number, "it is no exported ledger"))?;
        if head.ketch_ledger != FORMAT {
            return Err(damaged(self.number, "a newer version wrote it"));
        }
        let flow = FlowName::new(&head.flow)
            .map_err(|_| damaged(self.number, "the flow has no good name"))?;
        let mut rows = 0_u64;
        loop {
            let before = self.digest();
            let Some(text) = self.next()? else {
                return Err(damaged(self.number, "it ends early"));
            };
            if let Ok(foot) = serde_json::from_str::<Foot>(&text) {
                if foot.rows != rows || foot.sha256 != hex(before.as_ref()) {
                    return Err(damaged(self.number, "it was changed"));
                }
                return Ok(Some(Section {
                    start,
                    line,
                    flow,
                    values: head.values,
                    rows,
                }));
            }
            parse(&text, &flow).ok_or(damaged(self.number, "it is no row"))?;
            rows = rows.saturating_add(1);
        }
    }

    fn next(&mut self) -> Result<Option<String>, PortableError> {
        self.number = self.number.saturating_add(1);
        let mut bytes = Vec::new();
        let read =
            std::io::Read::take(&mut *self.input, LINE_LEN_MAX).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        self.context.update(&bytes);
        if bytes.pop() != Some(b'\n') {
            return Err(PortableError::Damaged {
                line: self.number,
                what: "it has no end",
            });
        }
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| PortableError::Damaged {
                line: self.number,
                what: "it is no text",
            })
    }

    fn row(&mut self, flow: &FlowName) -> Result<Row, PortableError> {
        let row = self.next()?.and_then(|text| parse(&text, flow));
        row.ok_or(PortableError::Damaged {
            line: self.number,
            what: "it changed while it was read",
        })
    }

    fn digest(&self) -> Digest {
        self.context.clone().finish()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    ketch_ledger: u32,
    flow: String,
    /// What the flow keeps besides its rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Foot {
    rows: u64,
    sha256: String,
}

/// Bytes that are text most of the time.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Bytes {
    Text(String),
    Hex { hex: String },
}

impl Bytes {
    fn of(bytes: &[u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(
            |_| Self::Hex { hex: hex(bytes) },
            |text| Self::Text(text.to_owned()),
        )
    }

    fn take(self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.into_bytes()),
            Self::Hex { hex } => unhex(&hex),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    sequence: u64,
    state: String,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Bytes>,
    #[serde(flatten)]
    facts: FactsText,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    recorded: u64,
    #[serde(default)]
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deliveries: Vec<DeliveryText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<NextText>,
}

#[derive(Serialize, Deserialize)]
struct FactsText {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeliveryText {
    sink: String,
    name: Bytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    done: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NextText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    facts: Option<FactsText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default)]
    told: bool,
}

const TYPES: [(FileType, &str); 8] = [
    (FileType::Regular, "file"),
    (FileType::Directory, "directory"),
    (FileType::Symlink, "link"),
    (FileType::BlockDevice, "block-device"),
    (FileType::CharDevice, "char-device"),
    (FileType::Fifo, "fifo"),
    (FileType::Socket, "socket"),
    (FileType::Unknown, "unknown"),
];

impl FactsText {
    fn of(facts: &Facts) -> Self {
        let word = TYPES.iter().find(|(kind, _)| *kind == facts.kind);
        Self {
            kind: word.map_or("unknown", |(_, word)| *word).to_owned(),
            size: facts.size,
            modified: facts.mtime,
        }
    }

    fn take(self) -> Option<Facts> {
        let (kind, _) = TYPES.iter().find(|(_, word)| *word == self.kind)?;
        Some(Facts {
            kind: *kind,
            size: self.size,
            mtime: self.modified,
        })
    }
}

impl Line {
    fn of(row: &Row) -> Self {
        let Row {
            item,
            state,
            attempts,
            reason,
            deliveries,
            next,
        } = row;
        let path = item.path.to_str().map(ToOwned::to_owned);
        Self {
            path_hex: path.is_none().then(|| hex(item.path.as_bytes())),
            path,
            sequence: item.sequence,
            state: state.word().to_owned(),
            kind: item.kind.word().to_owned(),
            from: match &item.kind {
                ItemKind::Renamed { from } => Some(Bytes::of(from.as_bytes())),
                _ => None,
            },
            facts: FactsText::of(&item.facts),
            sha256: item.sha256.map(|sum| hex(&sum)),
            recorded: item.recorded,
            attempts: *attempts,
            reason: reason.clone(),
            deliveries: deliveries
                .iter()
                .map(|delivery| DeliveryText {
                    sink: delivery.sink.clone(),
                    name: Bytes::of(&delivery.placement.name),
                    length: delivery.placement.length,
                    note: Some(&delivery.placement.note)
                        .filter(|note| !note.is_empty())
                        .map(|note| hex(note)),
                    done: delivery.done,
                })
                .collect(),
            next: next.as_ref().map(|next| NextText {
                facts: next.facts.as_ref().map(FactsText::of),
                sha256: next.sha256.map(|sum| hex(&sum)),
                told: next.told,
            }),
        }
    }

    fn take(self, flow: &FlowName) -> Option<Row> {
        let path = match (self.path, self.path_hex) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(hex)) => unhex(&hex)?,
            _ => return None,
        };
        let kind = match (self.kind.as_str(), self.from) {
            ("created", None) => ItemKind::Created,
            ("modified", None) => ItemKind::Modified,
            ("removed", None) => ItemKind::Removed,
            ("renamed", Some(from)) => ItemKind::Renamed {
                from: RemotePath::from(from.take()?),
            },
            _ => return None,
        };
        let state = State::ALL
            .into_iter()
            .find(|state| state.word() == self.state)?;
        let mut deliveries = Vec::new();
        for delivery in self.deliveries {
            deliveries.push(Delivery {
                sink: delivery.sink,
                placement: Placement {
                    name: delivery.name.take()?,
                    length: delivery.length,
                    note: match delivery.note {
                        Some(note) => unhex(&note)?,
                        None => Vec::new(),
                    },
                },
                done: delivery.done,
            });
        }
        let next = match self.next {
            Some(next) => Some(Next {
                facts: match next.facts {
                    Some(facts) => Some(facts.take()?),
                    None => None,
                },
                sha256: sum(next.sha256)?,
                told: next.told,
            }),
            None => None,
        };
        Some(Row {
            item: Item {
                flow: flow.clone(),
                sequence: self.sequence,
                kind,
                path: RemotePath::from(path),
                facts: self.facts.take()?,
                sha256: sum(self.sha256)?,
                recorded: self.recorded,
            },
            state,
            attempts: self.attempts,
            reason: self.reason,
            deliveries,
            next,
        })
    }
}

fn parse(text: &str, flow: &FlowName) -> Option<Row> {
    serde_json::from_str::<Line>(text).ok()?.take(flow)
}

/// What is made of plain structs of strings and numbers always has a JSON text.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn sum(text: Option<String>) -> Option<Option<[u8; 32]>> {
    match text {
        Some(text) => unhex(&text)?.try_into().ok().map(Some),
        None => Some(None),
    }
}
