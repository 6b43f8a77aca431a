use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use ketch_protocol::{Escaped, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::observer::{Arrival, NotAdmitted, OperationKind, Who};

fn who(peer: &str, user: Option<&str>) -> Who {
    Who {
        connection: 17,
        peer: peer.to_owned(),
        address: None,
        user: user.map(str::to_owned),
        organisation: None,
        endpoint: None,
    }
}

fn shown(event: &Event<'_>) -> String {
    let line = line_of(event, UNIX_EPOCH + Duration::from_millis(1_709_210_096_007)).unwrap();
    String::from_utf8(line).unwrap()
}

fn operation<'a>(who: &'a Who, path: &'a [u8], other: Option<&'a [u8]>) -> Operation<'a> {
    Operation {
        who,
        kind: OperationKind::Rename,
        path,
        other,
        status: StatusCode::PERMISSION_DENIED,
        text: "this user may only read",
        size: None,
        duration: Duration::from_millis(3),
    }
}

#[test]
fn a_line_has_what_happened() {
    let who = who("192.0.2.1:50000", Some("anna"));
    let begin = r#"{"time":"2024-02-29T12:34:56.007Z","event":"#;
    let by = r#","connection":17,"peer":"192.0.2.1:50000","user":"anna""#;
    let seconds = Duration::from_secs(2);
    let file = Transferred {
        who: &who,
        path: b"/in/a.csv",
        read: 0,
        written: 1 << 40,
        has_failed: false,
        is_closed: true,
        duration: seconds,
    };
    let lost = Transferred {
        is_closed: false,
        ..file
    };
    let arrival = Arrival {
        who: &who,
        path: b"/in/a.csv",
        size: 5,
        sha256: Some([0xab; 32]),
        duration: None,
        at: 1_700_000_000,
    };
    let hash = "ab".repeat(32);
    let moved = Event::Moved {
        who: &who,
        read: 1,
        written: 1,
    };
    assert_eq!(line_of(&moved, UNIX_EPOCH), None);
    for (event, rest) in [
        (
            Event::LoggedIn {
                who: &who,
                method: "publickey",
            },
            format!(r#""logged-in"{by},"method":"publickey""#),
        ),
        (
            Event::Refused {
                who: &who,
                why: NotAdmitted::Penalty,
            },
            format!(r#""refused"{by},"reason":"penalty""#),
        ),
        (
            Event::Operation(&operation(&who, b"/a", Some(b"/b"))),
            format!(
                r#""operation"{by},"operation":"rename","path":"/a","other":"/b","result":"permission denied","reason":"this user may only read","duration_ms":3"#
            ),
        ),
        (
            Event::Transferred(&file),
            format!(
                r#""transferred"{by},"path":"/in/a.csv","read":0,"written":1099511627776,"result":"ok","duration_ms":2000"#
            ),
        ),
        (
            Event::Transferred(&lost),
            format!(
                r#""transferred"{by},"path":"/in/a.csv","read":0,"written":1099511627776,"result":"lost","duration_ms":2000"#
            ),
        ),
        (
            Event::Arrived(&arrival),
            format!(r#""arrived"{by},"path":"/in/a.csv","size":5,"sha256":"{hash}""#),
        ),
        (
            Event::Disconnected {
                who: &who,
                why: "the peer left",
                duration: seconds,
            },
            format!(r#""disconnected"{by},"reason":"the peer left","duration_ms":2000"#),
        ),
    ] {
        assert_eq!(shown(&event), format!("{begin}{rest}}}\n"));
    }
}

/// What a JSON reader makes of the value of a field.
fn value(line: &str, field: &str) -> String {
    let start = line.find(&format!("\"{field}\":\"")).unwrap() + field.len() + 4;
    let mut units = Vec::new();
    let mut chars = line[start..].chars();
    loop {
        match chars.next().unwrap() {
            '"' => return String::from_utf16(&units).unwrap(),
            '\\' => match chars.next().unwrap() {
                'u' => {
                    let hex: String = chars.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&hex, 16).unwrap());
                }
                c @ ('"' | '\\') => units.push(u16::try_from(u32::from(c)).unwrap()),
                other => panic!("{other:?} is no escape that is written here"),
            },
            c => units.push(u16::try_from(u32::from(c)).unwrap()),
        }
    }
}

fn assert_is_one_printable_line(line: &str) {
    let end = line.strip_suffix('\n').unwrap();
    assert!(
        end.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        "{line:?}"
    );
}

/// What peers put into names to write lines of their own, to steer terminals, or to hide.
fn sequences() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..=255_u8).map(|byte| vec![b'a', byte, b'z']).collect();
    let texts = [
        "\r\n",
        "\n{\"event\":\"logged-in\"}",
        "\"}\n{\"time\":\"",
        "\",\"user\":\"root",
        "\\",
        "\\\"",
        "\\n",
        "\\u000a",
        "\\\\\"",
        "\u{0}",
        "\u{7}",
        "\u{8}\u{8}\u{8}",
        "\u{7f}",
        "\u{1b}[2J",
        "\u{1b}[31m",
        "\u{1b}]0;title\u{7}",
        "\u{1b}]8;;http://x\u{1b}\\",
        "\u{1b}P\u{1b}\\",
        "\u{1b}c",
        "\u{1b}[6n",
        "\u{9b}2J",
        "\u{9d}0;t\u{9c}",
        "\u{90}x\u{9c}",
        "\u{85}",
        "\u{2028}",
        "\u{2029}",
        "\u{202a}",
        "\u{202b}",
        "\u{202c}",
        "\u{202d}",
        "\u{202e}gpj.exe",
        "\u{2066}",
        "\u{2067}",
        "\u{2068}",
        "\u{2069}",
        "\u{200b}",
        "\u{200c}",
        "\u{200d}",
        "\u{200e}",
        "\u{200f}",
        "\u{61c}",
        "\u{feff}",
        "\u{fff9}",
        "\u{ad}",
        "\u{e0041}",
        "\u{1f600}",
        "\u{10ffff}",
        "é",
        "한",
    ];
    all.extend(texts.iter().map(|text| text.as_bytes().to_vec()));
    let bytes: [&[u8]; 12] = [
        b"\xff",
        b"\xc3",
        b"\xc3(",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\x80",
        b"\xfe\xff",
        b"a\xffb\xc3\xa9",
    ];
    all.extend(bytes.iter().map(|bytes| bytes.to_vec()));
    all
}

#[test]
fn no_field_writes_a_line_of_its_own_or_steers_a_terminal() {
    let sequences = sequences();
    assert!(sequences.len() >= 256 + 60);
    for bytes in &sequences {
        let text = String::from_utf8_lossy(bytes);
        let who = who(&text, Some(&text));
        let refused = Event::LoginRefused {
            who: &who,
            user: &text,
            method: &text,
        };
        let gone = Event::Disconnected {
            who: &who,
            why: &text,
            duration: Duration::ZERO,
        };
        let owed = Event::Penalised {
            who: &who,
            offence: &text,
        };
        let renamed = operation(&who, bytes, Some(bytes));
        for event in [refused, gone, owed, Event::Operation(&renamed)] {
            assert_is_one_printable_line(&shown(&event));
        }
        let line = shown(&Event::Operation(&renamed));
        for field in ["path", "other"] {
            assert_eq!(value(&line, field), Escaped(bytes).to_string());
        }
    }
}

#[test]
fn long_values_are_cut_between_characters_and_that_shows() {
    let who = who("x", None);
    for (unit, of) in [("a", 1), ("é", 6), ("\u{1f600}", 12), ("\n", 6), ("\\", 4)] {
        let most = AUDIT_FIELD_LEN_MAX / of;
        for count in [most, most + 1, 4000] {
            let path = unit.repeat(count);
            let line = shown(&Event::Operation(&operation(&who, path.as_bytes(), None)));
            let (_, rest) = line.split_once("\"path\":\"").unwrap();
            let (written, _) = rest.split_once("\",\"result\"").unwrap();
            assert!(
                written.len() <= AUDIT_FIELD_LEN_MAX,
                "{unit:?} {}",
                written.len()
            );
            assert_eq!(
                written.ends_with(r"\\..."),
                count > most,
                "{unit:?} {count}"
            );
            let whole = value(&line, "path");
            let whole = whole.strip_suffix(r"\...").unwrap_or(&whole);
            assert!(Escaped(path.as_bytes()).to_string().starts_with(whole));
        }
    }
}

/// A disk that takes a line whenever it is told to, or says that it is full.
struct Disk {
    allowed: Receiver<bool>,
    got: Arc<Mutex<Vec<u8>>>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nobody who could still allow or refuse it: all is allowed.
        if !self.allowed.recv().unwrap_or(true) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.got.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_slow_disk_loses_lines_holds_up_nobody_and_says_how_many() {
    let (allow, allowed) = channel();
    let got = Arc::new(Mutex::new(Vec::new()));
    let log = AuditLog::to(Disk {
        allowed,
        got: Arc::clone(&got),
    })
    .unwrap();
    let who = who("x", None);
    let more = 1000;
    for _ in 0..AUDIT_QUEUE_MAX + more {
        log.on_event(&Event::Connected { who: &who });
    }
    // The thread may have taken up to a batch out of the queue by now.
    let lost = log.lost();
    assert!(lost > 0 && lost <= more as u64, "{lost}");
    drop(allow);
    drop(log);
    let text = String::from_utf8(got.lock().unwrap().clone()).unwrap();
    let connected = text
        .lines()
        .filter(|line| line.contains("connected"))
        .count() as u64;
    assert_eq!(connected + lost, (AUDIT_QUEUE_MAX + more) as u64);
    let last = text.lines().last().unwrap();
    assert!(
        last.ends_with(&format!(r#""event":"log-lost","lines":{lost}}}"#)),
        "{last}"
    );
}

#[test]
fn a_full_disk_loses_what_it_refused_and_the_next_line_is_whole() {
    let (allow, allowed) = channel();
    let got = Arc::new(Mutex::new(Vec::new()));
    let log = AuditLog::to(Disk {
        allowed,
        got: Arc::clone(&got),
    })
    .unwrap();
    let who = who("x", None);
    allow.send(true).unwrap(); // that it was opened
    allow.send(false).unwrap();
    log.on_event(&Event::Connected { who: &who });
    while log.lost() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(log.lost(), 1);
    drop(allow);
    log.on_event(&Event::Panicked { who: &who });
    drop(log);
    let text = String::from_utf8(got.lock().unwrap().clone()).unwrap();
    let events: Vec<_> = text.lines().map(|line| value(line, "event")).collect();
    assert_eq!(events, ["log-opened", "panicked", "log-lost"]);
}

#[test]
fn the_file_is_its_owners_alone_and_opened_anew_when_it_was_renamed() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("audit"), dir.path().join("audit.1"));
    let log = AuditLog::open(&path).unwrap();
    let who = who("x", None);
    log.on_event(&Event::Connected { who: &who });
    std::fs::rename(&path, &old).unwrap();
    log.reopen();
    log.on_event(&Event::Panicked { who: &who });
    drop(log);
    let events = |path| {
        let text = std::fs::read_to_string(path).unwrap();
        let events = text.lines().map(|line| value(line, "event"));
        events.collect::<Vec<_>>()
    };
    // Whether the line before went to the one or the other is a matter of who came first.
    let (before, after) = (events(&old), events(&path));
    assert_eq!(
        [before, after.clone()].concat(),
        ["log-opened", "connected", "panicked"]
    );
    assert_eq!(after.last().unwrap(), "panicked");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = AuditLog::open(&path).unwrap();
    drop(again);
    assert_eq!(
        events(&path).last().unwrap(),
        "log-opened",
        "it is appended to"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_one_printable_line_and_can_be_told(
        path in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let who = who("x", None);
        let line = shown(&Event::Operation(&operation(&who, &path, None)));
        assert_is_one_printable_line(&line);
        prop_assert_eq!(value(&line, "path"), Escaped(&path).to_string());
    }
}
