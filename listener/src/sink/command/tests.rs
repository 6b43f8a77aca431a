//! Commands that work, fail, hang and are given evil names. Programs are those of every Unix.
#![cfg(unix)]

use super::*;
use crate::sink::trial::{self, item, trial_content};
use crate::store::Delivery;

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn sh(script: &str, words: &[&str]) -> CommandSettings {
    let words = [&["/bin/sh", "-c", script, "sh"], words].concat();
    CommandSettings::new("run", argv(&words))
}

#[tokio::test]
async fn a_command_gets_words_event_and_environment() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = r#"(echo "$1|$2|$KETCH_ID|$KETCH_SIZE|$EXTRA|${{CARGO-none}}"; cat) > "$OUT""#;
    let mut settings = sh(script, &["{base}.{ext} $(id)", "{file}"]);
    settings
        .env
        .push(("OUT".to_owned(), out.display().to_string()));
    settings.env.push(("EXTRA".to_owned(), "more".to_owned()));
    let sink = CommandSink::new(settings).unwrap();
    assert_eq!(sink.takes(), Takes::CONTENT);
    sink.check().await.unwrap();
    let content = trial_content(dir.path(), b"bytes");
    trial::deliver(&sink, &item(5, b"in/a.csv"), Some(&content))
        .await
        .unwrap();
    let text = std::fs::read_to_string(out).unwrap();
    let (line, event) = text.split_once('\n').unwrap();
    let file = content.path.display();
    assert_eq!(
        line,
        format!("a.csv $(id)|{file}|orders-0000000000000005|12|more|none")
    );
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    assert_eq!(event["subject"], "in/a.csv");
}

#[tokio::test]
async fn the_file_may_be_where_a_directory_put_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = sh(r#"test "$1" = /srv/in/2026/a.csv"#, &["{file}"]);
    settings.file_from = Some(("disk".to_owned(), PathBuf::from("/srv/in")));
    let sink = CommandSink::new(settings).unwrap();
    let content = trial_content(dir.path(), b"bytes");
    let (item, placement) = (item(1, b"a.csv"), Placement::default());
    let delivery = |done| Delivery {
        sink: "disk".to_owned(),
        placement: Placement {
            name: b"2026/a.csv".to_vec(),
            length: None,
            note: Vec::new(),
        },
        done,
    };
    for done in [false, true] {
        let earlier = [delivery(done)];
        let parcel = Parcel {
            item: &item,
            placement: &placement,
            content: Some(&content),
            again: false,
            earlier: &earlier,
            fence: &crate::sink::fence::Fence::open(),
        };
        assert_eq!(sink.deliver(parcel).await.is_ok(), done);
    }
}

#[tokio::test]
async fn a_failure_says_how_it_ended_and_what_was_said() {
    let sink = CommandSink::new(sh("echo out; echo 'not \u{1b}[31m today' >&2; exit 3", &[]));
    let error = trial::deliver(&sink.unwrap(), &item(1, b"a"), None)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("ended with 3: not \\u{1b}[31m today"),
        "{text}"
    );
    let endless = "i=0; while [ $i -lt 3000 ]; do echo 0123456789; i=$((i+1)); done; exit 1";
    let sink = CommandSink::new(sh(endless, &[])).unwrap();
    let error = trial::deliver(&sink, &item(1, b"a"), None)
        .await
        .unwrap_err();
    let len = error.to_string().len();
    assert!(
        (OUTPUT_MAX / 2..3 * OUTPUT_MAX).contains(&len),
        "{len} bytes"
    );
    let sink = CommandSink::new(CommandSettings::new("run", argv(&["/no/such/program"])));
    let sink = sink.unwrap();
    let error = trial::deliver(&sink, &item(1, b"a"), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(sink.check().await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn what_takes_too_long_is_killed_with_what_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = r#"sleep 1000 & echo $! $$ > "$PIDS"; wait"#;
    // On a busy machine it may take its time to start at all.
    for seconds in [1, 4, 16, 64] {
        let mut settings = sh(script, &[]);
        settings.timeout = Duration::from_secs(seconds);
        let path = pids.display().to_string();
        settings.env.push(("PIDS".to_owned(), path));
        let sink = CommandSink::new(settings).unwrap();
        let error = trial::deliver(&sink, &item(1, b"a"), None)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Local, "{error}");
        if std::fs::metadata(&pids).is_ok_and(|file| file.len() > 0) {
            break;
        }
    }
    let pids = std::fs::read_to_string(pids).unwrap();
    for pid in pids.split_whitespace() {
        // A killed one may need a moment to go, and be a zombie until whoever inherited it looks.
        let mut looks = 0;
        let lives = loop {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if !status.contains("State:") || status.contains("State:\tZ") {
                break None;
            }
            looks += 1;
            if looks > 1200 {
                break Some(status);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(lives, None, "{pid} lives");
    }
}

#[tokio::test]
async fn evil_names_are_words_and_no_options() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sh(r#"test $# -eq 2 && test "$1" = -- "#, &["--", "{path}"]);
    let sink = CommandSink::new(sink).unwrap();
    let content = trial_content(dir.path(), b"bytes");
    let (mut refused, mut run) = (0, 0);
    for name in trial::evil_names()
        .into_iter()
        .step_by(4)
        .chain([b"-rf".to_vec()])
    {
        match trial::deliver(&sink, &item(1, &name), Some(&content)).await {
            Ok(_) => {
                assert!(!name.starts_with(b"-") && !name.contains(&0));
                run += 1;
            }
            Err(SinkError::BadName { .. }) => {
                assert!(
                    name.starts_with(b"-") || name.contains(&0),
                    "{}",
                    shown(&name)
                );
                refused += 1;
            }
            Err(error) => panic!("{}: {error}", shown(&name)),
        }
    }
    assert!(refused > 1 && run > 50);
}

#[test]
fn what_is_no_command_is_said() {
    let new = |words: &[&str]| CommandSink::new(CommandSettings::new("run", argv(words))).err();
    assert_eq!(new(&[]), Some(CommandError::Empty));
    let error = new(&["sh", "{path}", "{nam}"]).unwrap();
    assert!(
        matches!(error, CommandError::Word { word: 2, .. }),
        "{error}"
    );
    let plain = CommandSink::new(CommandSettings::new("run", argv(&["sh", "{path}"])));
    assert_eq!(plain.unwrap().takes(), Takes::EVENTS);
}
