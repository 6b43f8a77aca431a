use super::*;
use crate::StatusCode;
use crate::observer::{Arrival, Operation, Who};

fn who() -> Who {
    Who {
        connection: 1,
        peer: "x".to_owned(),
        address: None,
        user: None,
        organisation: None,
        endpoint: None,
    }
}

fn value(text: &str, name: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("{name} in {text}"));
    value.parse().unwrap()
}

fn operation(who: &Who, kind: OperationKind, status: StatusCode, ms: u64) -> Operation<'_> {
    Operation {
        who,
        kind,
        path: b"/f",
        other: None,
        status,
        text: "",
        size: None,
        duration: Duration::from_millis(ms),
    }
}

#[test]
fn each_event_is_counted_where_it_belongs() {
    let (metrics, who) = (Metrics::default(), who());
    let who = &who;
    let why = NotAdmitted::HalfOpen;
    let file = Transferred {
        who,
        path: b"/f",
        read: 0,
        written: 7,
        has_failed: false,
        is_closed: false,
        duration: Duration::ZERO,
    };
    let failed = Transferred {
        read: 1,
        has_failed: true,
        ..file
    };
    let arrival = Arrival {
        who,
        path: b"/f",
        size: 9,
        sha256: None,
        duration: None,
        at: 1_700_000_000,
    };
    let opened = operation(who, OperationKind::OpenWrite, StatusCode::OK, 3);
    let refused = operation(who, OperationKind::OpenWrite, StatusCode(99), 600);
    let listing = operation(who, OperationKind::OpenDirectory, StatusCode::OK, 0);
    let listed = operation(who, OperationKind::List, StatusCode::OK, 60_000);
    let (user, method, duration) = ("x", "gssapi", Duration::ZERO);
    for event in [
        Event::Connected { who },
        Event::Connected { who },
        Event::Refused { who, why },
        Event::LoginRefused { who, user, method },
        Event::LoggedIn {
            who,
            method: "publickey",
        },
        Event::SessionOpened { who },
        Event::Operation(&opened),
        Event::Operation(&opened),
        Event::Operation(&opened),
        Event::Operation(&refused),
        Event::Operation(&listing),
        Event::Operation(&listed),
        Event::Moved {
            who,
            read: 5,
            written: 7,
        },
        Event::Transferred(&file),
        Event::Transferred(&failed),
        Event::Arrived(&arrival),
        Event::Penalised {
            who,
            offence: "crash",
        },
        Event::Panicked { who },
        Event::SessionClosed { who, duration },
        Event::Disconnected {
            who,
            why: "",
            duration,
        },
    ] {
        metrics.on_event(&event);
    }
    let text = metrics.render();
    for (name, expected) in [
        (r#"ketch_connections_total{outcome="admitted"}"#, 2),
        (r#"ketch_connections_total{outcome="half-open"}"#, 1),
        ("ketch_connections", 1),
        (r#"ketch_logins_total{method="publickey"}"#, 1),
        (r#"ketch_login_failures_total{method="other"}"#, 1),
        ("ketch_sessions_total", 1),
        ("ketch_sessions", 0),
        (
            r#"ketch_operations_total{kind="open-write",status="ok"}"#,
            3,
        ),
        (
            r#"ketch_operations_total{kind="open-write",status="other"}"#,
            1,
        ),
        (r#"ketch_operations_total{kind="rename",status="ok"}"#, 0),
        (r#"ketch_operation_seconds_bucket{le="0.001"}"#, 1),
        (r#"ketch_operation_seconds_bucket{le="0.005"}"#, 4),
        (r#"ketch_operation_seconds_bucket{le="2.5"}"#, 5),
        (r#"ketch_operation_seconds_bucket{le="+Inf"}"#, 5),
        ("ketch_operation_seconds_count", 5),
        ("ketch_read_bytes_total", 5),
        ("ketch_written_bytes_total", 7),
        (
            r#"ketch_transfers_total{direction="upload",result="lost"}"#,
            1,
        ),
        (
            r#"ketch_transfers_total{direction="both",result="failed"}"#,
            1,
        ),
        ("ketch_open_handles", 1),
        ("ketch_arrivals_total", 1),
        ("ketch_arrived_bytes_total", 9),
        (r#"ketch_penalties_total{offence="crash"}"#, 1),
        ("ketch_panics_total", 1),
    ] {
        assert_eq!(value(&text, name), expected, "{name}");
    }
    assert!(
        text.contains("\nketch_operation_seconds_sum 0.609\n"),
        "{text}"
    );
}

/// The text format: each sample belongs to the family named above it, names are of its alphabet.
#[test]
fn every_line_is_of_the_text_format() {
    let text = Metrics::default().render();
    let mut family = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap();
            assert!(
                rest.ends_with(" counter")
                    || rest.ends_with(" gauge")
                    || rest.ends_with(" histogram")
            );
            continue;
        }
        if line.starts_with("# HELP ketch_") {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with(family) && !family.is_empty(), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let bare = name.split('{').next().unwrap();
        assert!(
            bare.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{line}"
        );
    }
    assert!(text.ends_with('\n'));
}

#[test]
fn what_nobody_knows_is_counted_with_the_others() {
    let metrics = Metrics::default();
    let who = who();
    for number in 0..1000 {
        let method = number.to_string();
        metrics.on_event(&Event::LoginRefused {
            who: &who,
            user: &method,
            method: &method,
        });
    }
    let text = metrics.render();
    assert_eq!(
        value(&text, r#"ketch_login_failures_total{method="other"}"#),
        1000
    );
    assert_eq!(
        text.matches("ketch_login_failures_total{").count(),
        METHODS.len()
    );
}
