//! A file that was renamed, where that is no new file (row R15).

use std::fs;
use std::path::PathBuf;

use ketch_conformance::content::Sha256;
use ketch_conformance::deliveries::Journal;
use ketch_conformance::deliveries::content::make;
use ketch_conformance::deliveries::judge::Identity;

use super::scene::{Rules, Scene, seed};

const FILES: u64 = 30;

/// Puts files into place and renames them, with a journal.
struct Hand {
    served: PathBuf,
    journal: Journal,
    next: u64,
}

impl Hand {
    /// A new file; no two have the same length.
    fn put(&mut self, name: &str) {
        self.next += 1;
        let len = 500 + 7 * self.next;
        let bytes = make(seed(), self.next, len);
        let sum = Sha256::of(&bytes).to_string();
        self.journal.made(self.next, len, &sum).unwrap();
        let part = self.served.join(format!("{name}.part"));
        fs::write(&part, bytes).unwrap();
        fs::rename(part, self.served.join(name)).unwrap();
        self.journal.stands(name.as_bytes(), self.next).unwrap();
    }

    fn rename(&mut self, id: u64, from: &str, to: &str) {
        self.journal.gone(from.as_bytes()).unwrap();
        fs::rename(self.served.join(from), self.served.join(to)).unwrap();
        self.journal.stands(to.as_bytes(), id).unwrap();
    }
}

/// With `identity = "content"` a file keeps being the same one under another name and in another
/// directory: renamed while it is watched, one after the other or again and again, and while nobody
/// watches, it does not come a second time. What is new arrives as ever.
#[test]
fn by_content_a_file_that_was_renamed_does_not_come_again() {
    let rules = Rules::default();
    let mut scene = Scene::with(Rules {
        flow: format!("{}identity = \"content\"\n", rules.flow),
        // A new name has to wait until it is seen that the old one is gone.
        settle: "{ period = \"2s\", polls = 3 }".to_owned(),
        ..rules
    });
    for dir in ["a", "b"] {
        fs::create_dir(scene.path(&format!("served/{dir}"))).unwrap();
    }
    let mut hand = Hand {
        served: scene.path("served"),
        journal: Journal::create(&scene.journal()).unwrap(),
        next: 0,
    };
    let daemon = scene.daemon();
    for n in 1..=FILES {
        hand.put(&format!("a/f{n}"));
    }
    let verdict = scene.settled_by(Identity::Content);
    scene.assert_clean("before", &verdict);

    // While it is watched; the last file tells that the names were seen.
    for n in 1..=FILES / 2 {
        hand.rename(n, &format!("a/f{n}"), &format!("{}/g{n}", side(n)));
    }
    hand.put("b/after-1");
    let verdict = scene.settled_by(Identity::Content);
    scene.assert_clean("renamed while watched", &verdict);
    assert!(daemon.terminate().success());

    // While nobody watches, some of them once more.
    for n in (3..=FILES).step_by(3) {
        let from = match n > FILES / 2 {
            true => format!("a/f{n}"),
            false => format!("{}/g{n}", side(n)),
        };
        hand.rename(n, &from, &format!("b/h{n}"));
    }
    hand.put("a/after-2");
    let daemon = scene.daemon();
    let verdict = scene.settled_by(Identity::Content);
    assert!(daemon.terminate().success());
    scene.assert_clean("renamed while nobody watched", &verdict);
    assert_eq!(verdict.deliveries as u64, FILES + 2, "each of them once");
}

/// Where the files with odd numbers go, and where those with even ones stay.
const fn side(n: u64) -> &'static str {
    if n.is_multiple_of(2) { "a" } else { "b" }
}
