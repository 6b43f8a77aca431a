//! What observers are told of requests.

use std::sync::{Arc, Mutex};

use ketch_protocol::{
    Attrs, Close, CopyData, Extension, Fsetstat, Fsync, Hardlink, Mkdir, Opendir, PosixRename,
    Read, Readdir, Remove, Rename, Rmdir, Setstat, Stat, Symlink, SymlinkOrder, Write,
};

use super::{DENIED, FAILURE, MOODS, OK, OpenFlags, flags, open, open_request, path};
use crate::engine::simulation::{Got, Mood, Simulation, policy};
use crate::observer::{Event, Observer, Watch, Who};
use crate::policy::{Access, Policy};

/// Writes everything down.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        assert_eq!(event.who().user.as_deref(), Some("anna"));
        let line = match event {
            Event::Operation(done) => format!(
                "{} {} {:?} {:?} {}",
                done.kind.name(),
                String::from_utf8_lossy(done.path),
                done.other.map(String::from_utf8_lossy).unwrap_or_default(),
                done.size,
                done.status.0,
            ),
            Event::Transferred(file) => format!(
                "file {} {} {} failed={} closed={}",
                String::from_utf8_lossy(file.path),
                file.read,
                file.written,
                file.has_failed,
                file.is_closed,
            ),
            Event::Moved { read, written, .. } => format!("moved {read} {written}"),
            other => panic!("{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

fn observed(simulation: &mut Simulation) -> Arc<Told> {
    let told = Arc::new(Told::default());
    let observers: Arc<[Arc<dyn Observer>]> = Arc::new([Arc::clone(&told) as Arc<dyn Observer>]);
    let who = || Who {
        connection: 1,
        peer: "test".to_owned(),
        address: None,
        user: Some("anna".to_owned()),
        organisation: None,
        endpoint: None,
    };
    simulation
        .engine
        .observed(Watch::new(&observers, &Arc::default(), who).unwrap());
    told
}

#[test]
fn each_request_that_changes_something_is_told_once_with_its_answer() {
    for mood in MOODS {
        let mut it = Simulation::new(mood, 7);
        let told = observed(&mut it);
        let attrs = Attrs::NONE.into();
        let handle = open(&mut it, "//a/../f");
        assert_eq!(told.lines(), [r#"open-write /f "" None 0"#], "{mood:?}");
        it.ask(Mkdir { path: b"d", attrs });
        it.ask(Rename {
            from: b"/f",
            to: b"/g",
        });
        it.ask(Extension::PosixRename(PosixRename {
            from: b"/g",
            to: b"/d/h",
        }));
        it.ask(Extension::Hardlink(Hardlink {
            from: b"/d/h",
            to: b"/i",
        }));
        let link = Symlink {
            target: b"d/h",
            link: b"/l",
            order: SymlinkOrder::OpenSsh,
        };
        it.ask(link);
        let longer = Attrs {
            size: Some(9),
            ..Attrs::NONE
        };
        it.ask(Setstat {
            path: b"/i",
            attrs: longer.into(),
        });
        it.ask(Fsetstat {
            handle: &handle,
            attrs: longer.into(),
        });
        it.ask(Extension::Fsync(Fsync { handle: &handle }));
        it.ask(Remove { path: b"/none" });
        it.ask(Rmdir { path: b"/d" });
        it.ask(Remove { path: b"/no\0name" });
        it.ask(Stat { path: b"/i" });
        let lines = told.lines();
        let expected = [
            r#"mkdir /d "" None 0"#,
            r#"rename /f "/g" None 0"#,
            r#"rename /g "/d/h" None 0"#,
            r#"hardlink /d/h "/i" None 0"#,
            r#"symlink /l "d/h" None 0"#,
            r#"change /i "" Some(9) 0"#,
            r#"change /f "" Some(9) 0"#,
            r#"fsync /f "" None 0"#,
            r#"remove /none "" None 2"#,
            r#"rmdir /d "" None 4"#,
            "remove /no\0name \"\" None 4",
        ];
        assert_eq!(lines, expected, "{mood:?}");
    }
}

#[test]
fn what_went_through_a_handle_is_told_when_it_is_closed_or_lost() {
    for mood in MOODS {
        let mut it = Simulation::new(mood, 3);
        let told = observed(&mut it);
        let (one, two) = (open(&mut it, "/one"), open(&mut it, "/two"));
        for (handle, offset) in [(&one, 0), (&one, 50_000), (&two, 0)] {
            let data = &[7; 50_000];
            it.request(Write {
                handle,
                offset,
                data,
            });
        }
        it.jumble(9_000);
        let (offset, len) = (60_000, 90_000);
        let handle = &one[..];
        it.ask(Read {
            handle,
            offset,
            len,
        });
        let copy = CopyData {
            from: &one,
            from_offset: 0,
            len: 1000,
            to: &two,
            to_offset: 0,
        };
        it.ask(Extension::CopyData(copy));
        let (mut read, mut written) = (0, 0);
        for line in told.lines() {
            if let Some((more_read, more_written)) = line
                .strip_prefix("moved ")
                .and_then(|line| line.split_once(' '))
            {
                read += more_read.parse::<u64>().unwrap();
                written += more_written.parse::<u64>().unwrap();
            }
        }
        assert_eq!((read, written), (40_000, 150_000), "{mood:?}");
        assert_eq!(it.ask(Close { handle }), OK);
        let closed = "file /one 40000 100000 failed=false closed=true";
        assert_eq!(told.lines(), [closed], "{mood:?}");
        drop(it);
        let lost = "file /two 0 50000 failed=false closed=false";
        assert_eq!(told.lines(), [lost], "{mood:?}");
    }
}

#[test]
fn a_listing_is_told_with_its_entries_when_the_directory_is_closed() {
    for mood in MOODS {
        let mut it = Simulation::new(mood, 5);
        for name in 0..300 {
            it.files
                .put(&path(&format!("/{name}")), Vec::new())
                .unwrap();
        }
        let told = observed(&mut it);
        let Got::Handle(handle) = it.ask(Opendir { path: b"/" }) else {
            panic!("a directory opens");
        };
        while let Got::Names(_) = it.ask(Readdir { handle: &handle }) {}
        it.ask(Close { handle: &handle });
        let expected = [r#"opendir / "" None 0"#, r#"list / "" Some(300) 0"#];
        assert_eq!(told.lines(), expected, "{mood:?}");
    }
}

#[test]
fn what_is_refused_is_told_and_a_full_disk_is_a_transfer_that_failed() {
    let reader = Policy {
        access: Access::ReadOnly,
        ..policy()
    };
    let mut it = Simulation::with(Mood::Ready, 1, reader, u64::MAX);
    let told = observed(&mut it);
    assert_eq!(it.ask(Remove { path: b"/f" }), DENIED);
    let open_it = open_request("/f", flags(&[OpenFlags::WRITE]));
    assert_eq!(it.ask(open_it), DENIED);
    let expected = [r#"remove /f "" None 3"#, r#"open-write /f "" None 3"#];
    assert_eq!(told.lines(), expected);

    for mood in MOODS {
        let mut it = Simulation::with(mood, 1, policy(), 1000);
        let told = observed(&mut it);
        let handle = open(&mut it, "/f");
        let (offset, data) = (0, &[0; 5000][..]);
        let handle = &handle[..];
        let write = Write {
            handle,
            offset,
            data,
        };
        assert_eq!(it.ask(write), FAILURE);
        it.ask(Close { handle });
        let lines = told.lines();
        assert!(
            lines[1..]
                .iter()
                .any(|line| line.contains("failed=true closed=true")),
            "{lines:?}"
        );
    }
}

#[test]
fn bytes_are_told_while_a_file_is_open() {
    let mut it = Simulation::new(Mood::Ready, 1);
    let told = observed(&mut it);
    let handle = open(&mut it, "/f");
    for part in 0..200_u64 {
        let write = Write {
            handle: &handle,
            offset: part << 15,
            data: &[1; 1 << 15],
        };
        assert_eq!(it.ask(write), OK);
    }
    let lines = told.lines();
    assert_eq!(lines[1..], ["moved 0 4194304"], "200 writes, one line");
}
