//! `ketch listen`: what changes in a remote directory, one line each.

use ketch_client::{Attrs, FileType, RemotePath};
use ketch_listener::settle::SettleConfig;
use ketch_listener::{Event, Push, Watch};
use serde::Serialize;

use crate::cmd::login;
use crate::exit::sentence;
use crate::failed::Failed;
use crate::output::{Lines, escaped};
use crate::plan::Listen;

/// Runs until the connection is lost or the user stops it.
pub(crate) async fn run(plan: Listen) -> Result<(), Failed> {
    let session = login::session(&plan.connection).await?;
    let sftp = session.sftp().await?;
    // A directory that cannot be listed at the start is a mistake in the command, not a passing
    // failure: say so and end, before any waiting begins.
    if let Some(Err(error)) = sftp.read_dir(&plan.remote).next().await {
        return Err(error.into());
    }
    let mut watch = Watch::directory(sftp, plan.remote)
        .interval(plan.interval)
        .first_listing(plan.first)
        .recursive(plan.recursive)
        .filter(plan.filter)
        .push(plan.push)
        .renames(plan.push == Push::Auto);
    if let Some(levels) = plan.depth {
        watch = watch.depth(usize::from(levels));
    }
    if let Some(period) = plan.settle {
        watch = watch.settle(SettleConfig {
            period,
            ..SettleConfig::default()
        });
    }
    let mut events = watch.start();
    let mut lines = Lines::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                lines.line(&if plan.plain {
                    told(&event)
                } else {
                    json(&event)
                })?;
                lines.flush()?; // whoever reads acts on each line as it comes
            }
            Err(error) if error.is_final() => return Err(error.into()),
            Err(error) => eprintln!("ketch: {}", sentence(&error)),
        }
    }
    Ok(())
}

/// One event for people.
fn told(event: &Event) -> String {
    let path = |path: &RemotePath| escaped(path.as_bytes());
    let from = event.from.as_ref();
    let from = from.map_or(String::new(), |from| format!(" from {}", path(from)));
    format!("{:8} {}{from}", event.kind.word(), path(&event.path))
}

/// One event as a JSON object, without a line break.
///
/// Paths are bytes and JSON strings are text: where a path is not UTF-8, `path` has U+FFFD for
/// what is none, and `path_hex` all its bytes.
pub(crate) fn json(event: &Event) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        event: &'static str,
        path: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        path_hex: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from_hex: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        modified: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        permissions: Option<String>,
    }
    let attrs = event.attrs.unwrap_or_default();
    let line = Line {
        event: event.kind.word(),
        path: &String::from_utf8_lossy(event.path.as_bytes()),
        path_hex: path_hex(&event.path),
        from: event
            .from
            .as_ref()
            .map(|from| String::from_utf8_lossy(from.as_bytes()).into_owned()),
        from_hex: event.from.as_ref().and_then(path_hex),
        kind: kind(&attrs),
        size: attrs.size,
        modified: attrs.times.map(|times| timestamp(times.mtime)),
        permissions: attrs.mode().map(|mode| format!("{mode:04o}")),
    };
    // Only maps with keys that are no strings, and readers of ours, can fail here.
    serde_json::to_string(&line).unwrap_or_default()
}

fn kind(attrs: &Attrs) -> Option<&'static str> {
    match attrs.file_type() {
        FileType::Regular => Some("file"),
        FileType::Directory => Some("directory"),
        FileType::Symlink => Some("symlink"),
        FileType::Unknown => None,
        _ => Some("other"),
    }
}

/// Seconds since 1970 as RFC 3339 has it, in UTC.
fn timestamp(seconds: u32) -> String {
    jiff::Timestamp::from_second(i64::from(seconds))
        .unwrap_or_default()
        .to_string()
}

/// The bytes of a path that is not UTF-8.
pub(crate) fn path_hex(path: &RemotePath) -> Option<String> {
    match path.to_str() {
        Some(_) => None,
        None => Some(
            path.as_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use ketch_client::Times;
    use ketch_listener::EventKind;

    use super::*;

    fn event(kind: EventKind, path: &[u8], attrs: Option<Attrs>) -> String {
        json(&Event {
            kind,
            path: RemotePath::from(path),
            from: None,
            attrs,
        })
    }

    #[test]
    fn an_event_is_one_object_with_what_is_known() {
        let attrs = Attrs {
            size: Some(3),
            permissions: Some(0o100_644),
            times: Some(Times {
                atime: 0,
                mtime: 1_700_000_000,
            }),
            ..Attrs::default()
        };
        assert_eq!(
            event(EventKind::Created, b"/in/a.csv", Some(attrs)),
            r#"{"event":"created","path":"/in/a.csv","kind":"file","size":3,"modified":"2023-11-14T22:13:20Z","permissions":"0644"}"#
        );
        assert_eq!(
            event(EventKind::Removed, b"/in/a.csv", None),
            r#"{"event":"removed","path":"/in/a.csv"}"#
        );
    }

    #[test]
    fn a_rename_has_both_names() {
        let renamed = Event {
            kind: EventKind::Renamed,
            path: RemotePath::from("/in/b"),
            from: Some(RemotePath::from(&b"/in/a\xff"[..])),
            attrs: None,
        };
        assert_eq!(
            json(&renamed),
            "{\"event\":\"renamed\",\"path\":\"/in/b\",\"from\":\"/in/a\u{fffd}\",\"from_hex\":\"2f696e2f61ff\"}"
        );
        assert_eq!(told(&renamed), "renamed  /in/b from /in/a\\xff");
    }

    #[test]
    fn a_name_cannot_break_the_line_or_hide_its_bytes() {
        let line = event(EventKind::Removed, b"/in/a\n\"\xff", None);
        assert_eq!(
            line,
            "{\"event\":\"removed\",\"path\":\"/in/a\\n\\\"\u{fffd}\",\"path_hex\":\"2f696e2f610a22ff\"}"
        );
    }
}
