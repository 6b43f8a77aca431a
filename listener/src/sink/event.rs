//! The one encoder of events: an item as a CloudEvent 1.0 in JSON.
//!
//! Every sink of events (webhook, NATS, table, standard output, command) sends these bytes. They are
//! made of the item alone, so each attempt, also after a restart, sends the same id.
//!
//! Source: CloudEvents 1.0.2 §3 (attributes), JSON event format 1.0.2 §3.

use jiff::Timestamp;
use ketch_client::{FileType, RemotePath};
use serde::Serialize;

use super::Parcel;
use crate::flow::item::{Item, ItemKind};
use crate::store::Delivery;

/// The media type of what [`encode`] gives.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Version of CloudEvents.
const SPEC_VERSION: &str = "1.0";

/// The attributes and data of one event, borrowed from its item.
#[derive(Debug, Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: String,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Debug, Serialize)]
struct Data<'a> {
    flow: &'a str,
    sequence: u64,
    #[serde(flatten)]
    path: Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Path>,
    size: Option<u64>,
    modified: Option<String>,
    sha256: Option<String>,
    placements: Vec<Placed<'a>>,
}

/// Bytes as text; where that loses something, also as they are.
#[derive(Debug, Serialize)]
struct Path {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

#[derive(Debug, Serialize)]
struct Placed<'a> {
    sink: &'a str,
    #[serde(flatten)]
    path: Path,
}

/// The event about a parcel, as JSON on one line.
///
/// `source` is the event's `source`, a URI reference that is not empty: see [`default_source`].
#[must_use]
pub fn encode(source: &str, parcel: &Parcel<'_>) -> Vec<u8> {
    encode_item(source, parcel.item, parcel.earlier)
}

/// The event about `item`, as JSON on one line. `earlier` says where its content lies already.
#[must_use]
pub fn encode_item(source: &str, item: &Item, earlier: &[Delivery]) -> Vec<u8> {
    // Structs of text and numbers; there is nothing that JSON could not say.
    serde_json::to_vec(&event_of(source, item, earlier)).unwrap_or_default()
}

/// The event about a parcel in two parts, for protocols with headers of their own (CloudEvents' binary
/// mode): its attributes without `datacontenttype`, and its data as JSON.
#[must_use]
pub fn encode_apart(source: &str, parcel: &Parcel<'_>) -> (Vec<(&'static str, String)>, Vec<u8>) {
    let event = event_of(source, parcel.item, parcel.earlier);
    let data = serde_json::to_vec(&event.data).unwrap_or_default();
    let attributes = vec![
        ("specversion", event.specversion.to_owned()),
        ("id", event.id),
        ("source", event.source.to_owned()),
        ("type", event.kind),
        ("subject", event.subject),
        ("time", event.time),
    ];
    (attributes, data)
}

fn event_of<'a>(source: &'a str, item: &'a Item, earlier: &'a [Delivery]) -> CloudEvent<'a> {
    let Item {
        flow,
        sequence,
        kind,
        path,
        facts,
        sha256,
        recorded,
    } = item;
    CloudEvent {
        specversion: SPEC_VERSION,
        id: item.id(),
        source,
        kind: event_type(item),
        subject: text(path.as_bytes()),
        time: instant(*recorded),
        datacontenttype: "application/json",
        data: Data {
            flow: flow.as_str(),
            sequence: *sequence,
            path: Path::of(path.as_bytes()),
            from: match kind {
                ItemKind::Renamed { from } => Some(Path::of(from.as_bytes())),
                _ => None,
            },
            size: facts.size,
            modified: facts.mtime.map(|mtime| instant(u64::from(mtime) * 1000)),
            sha256: sha256.as_ref().map(|sum| hex(sum)),
            placements: earlier
                .iter()
                .filter(|delivery| delivery.done && !delivery.placement.name.is_empty())
                .map(|delivery| Placed {
                    sink: &delivery.sink,
                    path: Path::of(&delivery.placement.name),
                })
                .collect(),
        },
    }
}

/// The event's `type`: `ketch.file.created`, `ketch.directory.removed` and so on.
#[must_use]
pub fn event_type(item: &Item) -> String {
    let what = match item.facts.kind {
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        _ => "file",
    };
    format!("ketch.{what}.{}", item.kind.word())
}

/// What `source` is unless the configuration says otherwise: `/ketch/FLOW`.
#[must_use]
pub fn default_source(flow: &str) -> String {
    format!("/ketch/{flow}")
}

impl Path {
    fn of(bytes: &[u8]) -> Self {
        Self {
            path: text(bytes),
            path_hex: std::str::from_utf8(bytes).is_err().then(|| hex(bytes)),
        }
    }
}

/// Bytes as text for reading, with U+FFFD for what is no UTF-8.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes in hexadecimal digits, small letters.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)])
        .collect()
}

/// Milliseconds since 1970 as RFC 3339 has them, in UTC.
fn instant(millis: u64) -> String {
    i64::try_from(millis)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

/// A path for reading: control characters and bytes that are no UTF-8 are escaped.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    RemotePath::from(path).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::item::FlowName;
    use crate::snapshot::Facts;
    use crate::store::Placement;

    fn item(path: &[u8]) -> Item {
        Item {
            flow: FlowName::new("orders").expect("a name"),
            sequence: 7,
            kind: ItemKind::Created,
            path: RemotePath::from(path),
            facts: Facts {
                kind: FileType::Regular,
                size: Some(12),
                mtime: Some(1_795_282_542),
            },
            sha256: Some([0xab; 32]),
            recorded: 1_795_282_550_123,
        }
    }

    #[test]
    fn an_event_says_what_cloudevents_wants_on_one_line() {
        let earlier = [Delivery {
            sink: "disk".to_owned(),
            placement: Placement {
                name: b"2026/a.csv".to_vec(),
                length: None,
                note: Vec::new(),
            },
            done: true,
        }];
        let event = encode_item("/ketch/orders", &item(b"in/a.csv"), &earlier);
        assert_eq!(
            String::from_utf8(event).expect("JSON is text"),
            format!(
                concat!(
                    r#"{{"specversion":"1.0","id":"orders-0000000000000007","source":"/ketch/orders","#,
                    r#""type":"ketch.file.created","subject":"in/a.csv","#,
                    r#""time":"2026-11-21T17:35:50.123Z","datacontenttype":"application/json","#,
                    r#""data":{{"flow":"orders","sequence":7,"path":"in/a.csv","size":12,"#,
                    r#""modified":"2026-11-21T17:35:42Z","sha256":"{}","#,
                    r#""placements":[{{"sink":"disk","path":"2026/a.csv"}}]}}}}"#
                ),
                "ab".repeat(32)
            )
        );
    }

    #[test]
    fn odd_names_stay_one_line_and_lose_nothing() {
        let event = encode_item("/x", &item(b"a\n\xff\"\0"), &[]);
        assert!(!event.contains(&b'\n'));
        let value: serde_json::Value = serde_json::from_slice(&event).expect("JSON");
        assert_eq!(value["data"]["path_hex"], "610aff2200");
        assert_eq!(value["subject"], "a\n\u{fffd}\"\0");
    }

    #[test]
    fn what_is_not_known_is_null_and_a_rename_says_from_where() {
        let mut item = item(b"b");
        item.kind = ItemKind::Renamed {
            from: RemotePath::from("a"),
        };
        item.facts = Facts {
            kind: FileType::Directory,
            size: None,
            mtime: None,
        };
        item.sha256 = None;
        item.recorded = u64::MAX;
        let event = encode_item("/x", &item, &[]);
        let value: serde_json::Value = serde_json::from_slice(&event).expect("JSON");
        assert_eq!(value["type"], "ketch.directory.renamed");
        assert_eq!(value["data"]["from"]["path"], "a");
        assert!(value["data"]["size"].is_null() && value["data"]["modified"].is_null());
    }
}
