//! A server whose listings hold three hundred names that lead elsewhere (row L1 of
//! `docs/threats.md`): nothing is written outside of the destination, and the exit tells.

use std::fs;
use std::path::Path;

use ketch_conformance::openssh::OpenSshConfig;

use super::{PEER, Scene, names};

/// The program that sshd starts in place of its SFTP server.
const SERVER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../interop/peers/python/evil_sftp.py"
);

#[test]
fn three_hundred_evil_names_lead_nowhere() {
    let scene = Scene::with(OpenSshConfig {
        lines: vec![format!("ForceCommand exec python3 {SERVER}")],
        ..OpenSshConfig::default()
    });
    let to = scene.path("here/a/b");
    fs::create_dir_all(&to).unwrap();
    let mut get = scene.get(Path::new("/t"), &to);
    let output = get.arg("-r").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(PEER), "{said}");
    let refused = said.lines().filter(|line| line.contains(" is refused: "));
    // `.` and `..` are in every listing, some names are names here, and every fourth is a link.
    let refused = refused.count();
    assert!(refused > 280, "{refused} were told: {said}");
    for line in said.lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    assert_eq!(names(&scene.path("here")), ["a"]);
    assert_eq!(names(&scene.path("here/a")), ["b"]);
    assert_eq!(names(&to), ["t"]);
    let copy = to.join("t");
    assert_eq!(fs::read(copy.join("good")).unwrap(), b"abc");
    for name in names(&copy) {
        assert!(!name.contains(".ketch-"), "{name}");
        assert!(!copy.join(&name).is_symlink(), "{name}");
    }
    assert!(!Path::new("/tmp/ketch-evil").exists());
}
