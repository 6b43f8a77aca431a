//! The ledger of a listener's file, as people handle it: `export`, `import`, `repair`, `inspect` and
//! `compact`. The judge is what stands in the flow's directory.

use std::fs;
use std::path::Path;

use crate::flows::Listener;

/// Files of a flow: enough that the ledger's rows are on several pages.
const FILES: usize = 120;
/// Of SQLite.
const PAGE: usize = 4_096;
/// The first byte of a page with rows that have their key in them.
const LEAF: u8 = 0x0a;

fn name(n: usize) -> String {
    format!("file-{n:03}")
}

/// A listener that has delivered its files, and has ended.
fn delivered() -> Listener {
    let mut listener = Listener::new();
    for n in 0..FILES {
        fs::write(listener.path("in").join(name(n)), name(n)).unwrap();
    }
    assert_eq!(runs(&mut listener), FILES);
    listener
}

/// Starts the listener, has it look once, and ends it; how many files arrived.
fn runs(listener: &mut Listener) -> usize {
    let before = arrived(listener).len();
    listener.start();
    let applied = listener.says(&["apply", "orders"]);
    listener.stop();
    assert!(applied.ends_with(" delivered, 0 left\n"), "{applied}");
    arrived(listener).len() - before
}

/// Names in the flow's directory.
fn arrived(listener: &Listener) -> Vec<String> {
    let entries = fs::read_dir(listener.path("out")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("file-")).collect();
    names.sort();
    names
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn a_ledger_moves_as_text_and_nothing_comes_again() {
    let mut listener = delivered();
    let text = listener.path("text");
    let to = ["export", "--to", text.to_str().unwrap()];
    let from = ["import", "--from", text.to_str().unwrap()];
    listener.start();
    let config = listener.config();
    for refused in [
        &to[..],
        &["import", "--from", config.to_str().unwrap()],
        &["repair"],
    ] {
        let told = listener.fails(refused, 13);
        assert!(told.contains("in use by another process"), "{told}");
        assert_eq!(told.matches("in use").count(), 1, "it is said once: {told}");
    }
    assert!(!text.exists());
    listener.stop();
    assert_eq!(listener.says(&to), format!("orders: exported {FILES}\n"));
    let before = fs::read(&text).unwrap();
    let told = listener.fails(&to, 13);
    assert!(told.contains("cannot write the export"), "{told}");
    assert_eq!(fs::read(&text).unwrap(), before, "what is there stays");
    let told = listener.fails(&from, 13);
    assert!(told.contains("orders"), "it is not empty: {told}");
    let one = ["export", "--to", "/dev/null", "other"];
    assert!(listener.fails(&one, 2).contains("no flow \"other\""));

    // Into a ledger that is not there yet.
    fs::rename(listener.path("state"), listener.path("old")).unwrap();
    let mut other = before.clone();
    let half = other.len() / 2;
    other[half] ^= 1;
    fs::write(&text, other).unwrap();
    let told = listener.fails(&from, 13);
    assert!(told.contains("line "), "it says where: {told}");
    assert_eq!(listener.says(&["inspect"]), "", "nothing was taken");
    fs::write(&text, before).unwrap();
    assert_eq!(listener.says(&from), format!("orders: imported {FILES}\n"));
    assert_eq!(runs(&mut listener), 0);
    fs::write(listener.path("in/file-new"), "new").unwrap();
    assert_eq!(runs(&mut listener), 1);
    assert_eq!(arrived(&listener).len(), FILES + 1);
    assert_eq!(listener.says(&["compact"]), "");
    assert_eq!(listener.says(&["inspect"]).lines().count(), FILES + 1);
}

#[test]
fn a_whole_ledger_survives_its_repair() {
    let mut listener = delivered();
    let done = listener.says(&["repair", "--lost", "baseline"]);
    assert!(
        done.starts_with(&format!("orders: kept {FILES} rows, none is lost\n")),
        "{done}"
    );
    assert!(listener.path("state/ledger.sqlite.damaged-1").exists());
    assert_eq!(runs(&mut listener), 0);
}

#[test]
fn of_a_damaged_ledger_what_is_lost_comes_again_or_never_as_asked() {
    let mut listener = delivered();
    let ledger = listener.path("state/ledger.sqlite");
    let mut bytes = fs::read(&ledger).unwrap();
    let lost = name(FILES / 2);
    let mut pages = 0;
    for page in bytes.chunks_mut(PAGE) {
        let has = page.windows(lost.len()).any(|at| at == lost.as_bytes());
        if has && page[0] == LEAF {
            // A sector that the disk has lost.
            page[..512].fill(0);
            pages += 1;
        }
    }
    assert!(pages > 0);
    fs::write(&ledger, &bytes).unwrap();
    let text = listener.path("text");
    for command in [
        &["inspect"][..],
        &["compact"],
        &["export", "--to", text.to_str().unwrap()],
    ] {
        let told = listener.fails(command, 13);
        assert!(
            told.contains("damaged") && told.contains("ketch listen repair"),
            "{told}"
        );
    }
    assert!(!text.exists());
    let mut child = listener.spawn();
    assert!(!child.wait().unwrap().success(), "it does not start");
    assert_eq!(
        fs::read(&ledger).unwrap(),
        bytes,
        "it is as it was, for the repair"
    );
    copy(&listener.path("state"), &listener.path("damaged"));

    for (asked, comes) in [("again", true), ("baseline", false)] {
        for gone in arrived(&listener) {
            fs::remove_file(listener.path("out").join(gone)).unwrap();
        }
        let done = listener.says(&["repair", "--lost", asked]);
        let line = done.lines().next().unwrap();
        let numbers: Vec<usize> = line
            .split([' ', ','])
            .filter_map(|word| word.parse().ok())
            .collect();
        let [kept, lost] = numbers[..] else {
            panic!("{done}");
        };
        assert_eq!(kept + lost, FILES, "{done}");
        assert!(kept > 0 && lost > 0, "{done}");
        assert_eq!(listener.says(&["inspect"]).lines().count(), kept);
        let aside = listener.path("state/ledger.sqlite.damaged-1");
        assert_eq!(fs::read(aside).unwrap(), bytes);
        let comes = if comes { lost } else { 0 };
        assert_eq!(runs(&mut listener), comes, "{asked}");
        assert_eq!(listener.says(&["inspect"]).lines().count(), FILES);
        fs::remove_dir_all(listener.path("state")).unwrap();
        copy(&listener.path("damaged"), &listener.path("state"));
    }
}
