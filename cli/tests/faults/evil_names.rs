//! A server whose listings hold three hundred names that lead elsewhere (row L1 of
//! `docs/threats.md`): nothing is written outside of the destination, and the exit tells.

use std::fs;
use std::path::Path;

use ketch_conformance::openssh::OpenSshConfig;

use super::{PEER, Scene, failed, names};

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
    let said = failed(get.arg("-r").spawn().unwrap(), PEER);
    println!("{said}");
    assert_eq!(names(&scene.path("here")), ["a"]);
    assert_eq!(names(&scene.path("here/a")), ["b"]);
    assert_eq!(fs::read(to.join("good")).unwrap(), b"abc");
    for name in names(&to) {
        assert!(!name.contains(".ketch-"), "{name}");
        assert!(!to.join(&name).is_symlink(), "{name}");
    }
    assert!(!Path::new("/tmp/ketch-evil").exists());
}
