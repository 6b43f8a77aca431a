//! What other processes see of a running `ketch`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use crate::scene::Scene;

#[test]
fn a_running_server_leaves_no_core_and_is_not_read() {
    let mut scene = Scene::new();
    let process = format!("/proc/{}", scene.server.id());
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let fields: Vec<_> = core.split_whitespace().collect();
    assert_eq!(fields[4], "0", "{core}");
    // Files of a process that is not dumpable are root's, whoever runs it (proc(5)). To root nothing
    // is hidden, so nothing is seen here if that runs the test.
    let owner = fs::metadata(format!("{process}/mem")).unwrap().uid();
    assert_eq!(owner, 0);
    let killed = Command::new("kill")
        .args(["-ABRT", &scene.server.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let ended = scene.server.wait().unwrap();
    assert_eq!(ended.signal(), Some(6));
    assert!(!ended.core_dumped());
}
