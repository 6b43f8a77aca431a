//! Directories that may be read at one moment and not at the next, and get other names (row R17).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::thread::sleep;
use std::time::Duration;

use ketch_conformance::deliveries::{Journal, Mix, WriterConfig};
use ketch_conformance::openssh::{OpenSshConfig, SftpProgram};
use ketch_conformance::random::Random;

use super::scene::{Load, Rules, Scene, seed};

/// Who serves: nobody, for whom rights count, as they do not for root.
const SERVE: &str = "#!/bin/sh
for program in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server; do
    [ -x $program ] && exec setpriv --reuid 65534 --regid 65534 --clear-groups $program \"$@\"
done
exit 1
";

/// With few files: up to this between two changes of rights.
const PEACE: Duration = Duration::from_millis(500);

/// A directory that cannot be read, and all below it, stays as it was: nothing in it is gone, nothing
/// comes again when it can be read again, and what was written meanwhile is not missed. The same while
/// its files can be listed and not be opened.
#[test]
fn rights_that_come_and_go_lose_and_double_nothing() {
    let program = tempfile::tempdir().unwrap();
    let serve = program.path().join("serve");
    fs::write(&serve, SERVE).unwrap();
    fs::set_permissions(&serve, Permissions::from_mode(0o755)).unwrap();
    let server = OpenSshConfig {
        sftp: SftpProgram::At(serve),
        ..OpenSshConfig::default()
    };
    // A file that cannot be opened is tried again, for as long as that takes.
    let rules = Rules::default();
    let flow = format!(
        "{}attempts = 1000\nretry = {{ first = \"100ms\", max = \"500ms\" }}\n",
        rules.flow
    );
    let mut scene = Scene::over(server, Rules { flow, ..rules });
    for dir in [scene.dir.path(), &scene.path("served")] {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    }
    let load = Load::new(150, 10);
    let mut random = Random::new(seed());
    let daemon = scene.daemon();
    daemon.is_there();
    let writing = scene.write(WriterConfig {
        mix: Mix::STAGED,
        ..load.writer(seed() + 15, PEACE * 3 / 4)
    });
    let set = |dir: &str, mode| {
        fs::set_permissions(scene.path(dir), Permissions::from_mode(mode)).unwrap();
    };
    let peace = u64::try_from(load.stretched(PEACE).as_millis()).unwrap();
    for n in 0..load.kills {
        writing.allow(load.share(n));
        let dir = format!("served/d{}", 3 * random.below(4));
        // None may read it; or its names may be read, and what they name not be reached.
        let mode = if n == 0 || random.chance(60) {
            0o000
        } else {
            0o744
        };
        set(&dir, mode);
        sleep(Duration::from_millis(peace / 2 + random.below(peace)));
        if n == 0 {
            daemon.until_said("denied");
        }
        set(&dir, 0o755);
        sleep(Duration::from_millis(random.below(peace / 2)));
    }
    writing.finish();
    let verdict = scene.settled();
    println!("{} times without rights", load.kills);
    scene.assert_clean("rights that come and go", &verdict);

    // Directories get other names: what is in them is new, once, and nothing else is.
    let mut journal = Journal::append(&scene.journal()).unwrap();
    let standing = scene.judge().history().standing.clone();
    let mut renamed = 0;
    for (from, to) in [("d0", "d0-later"), ("d3/e4", "moved"), ("d6", "d3/d6")] {
        let below = |path: &&Vec<u8>| path.starts_with(format!("{from}/").as_bytes());
        let paths: Vec<_> = standing.keys().filter(below).cloned().collect();
        for path in &paths {
            journal.gone(path).unwrap();
        }
        fs::rename(
            scene.path(&format!("served/{from}")),
            scene.path(&format!("served/{to}")),
        )
        .unwrap();
        for path in paths {
            let new = [to.as_bytes(), &path[from.len()..]].concat();
            journal.stands(&new, standing[&path]).unwrap();
            renamed += 1;
        }
    }
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("directories with other names", &verdict);
    assert!(
        renamed > 0 && verdict.deliveries > renamed,
        "{renamed} of {verdict}"
    );
    println!("{renamed} files in directories that got other names");
}
