//! What is in a directory, in lines that can be compared.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Everything beneath `root`: path, and type, permissions, length, content and links. Times only of
/// what is called `timed`, which every client sets.
pub(crate) fn tree(root: &Path) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    walk(root, root, &mut lines);
    lines.sort();
    lines
}

fn walk(root: &Path, dir: &Path, lines: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let of = fs::symlink_metadata(&path).unwrap();
        let beneath = path.strip_prefix(root).unwrap();
        let name = beneath.as_os_str().as_bytes().escape_ascii().to_string();
        let mut line = String::new();
        let kind = of.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            let _ = write!(line, "link to {}", target.display());
        } else {
            let _ = write!(line, "{:o}", of.mode() & 0o7777);
        }
        if kind.is_file() {
            let content = fs::read(&path).unwrap();
            let sum = ring::digest::digest(&ring::digest::SHA256, &content);
            let sum = sum
                .as_ref()
                .iter()
                .take(4)
                .map(|byte| format!("{byte:02x}"));
            let sum: String = sum.collect();
            let _ = write!(line, " {} bytes, sum {sum}, {} names", of.len(), of.nlink());
        } else if kind.is_fifo() || kind.is_socket() {
            line.push_str(" special");
        }
        if beneath.file_name().is_some_and(|name| name == "timed") {
            let _ = write!(line, ", of {}", of.mtime());
        }
        lines.push((name, line));
        if kind.is_dir() {
            walk(root, &path, lines);
        }
    }
}
