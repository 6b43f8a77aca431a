//! Symbolic links that a server has, before they become local ones.
//!
//! A link is made where it is as it is, so what it says decides where it leads, and whoever opens it
//! later follows it. Nothing is written through one by a transfer itself: directories below the one
//! that the user named are opened without following links (`platform/unix.rs`), and a file takes the
//! place of a link of its name. That alone would leave links for others to fall over: `passwd ->
//! /etc/passwd` in a directory that a program edits afterwards. So a link has to stay within.

/// Whether a link that says `target` leads to nowhere but the directory that is filled, `depth`
/// directories above the one that the link is in.
///
/// All `..` have to come first: they are gone up from a directory that was opened as one, while
/// behind a name they may start from wherever another link leads. As each link keeps to that, none
/// leads out with the help of others.
pub(crate) fn stays_within(target: &[u8], depth: usize) -> bool {
    if target.is_empty() || target.starts_with(b"/") || target.contains(&0) {
        return false;
    }
    let mut up = 0;
    let mut is_down = false;
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if is_down => return false,
            b".." => up += 1,
            _ => is_down = true,
        }
    }
    up <= depth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_out_are_told_from_those_that_stay() {
        for (target, depth) in [
            (&b"a"[..], 0),
            (b"./a", 0),
            (b"a/b/", 0),
            (b".", 0),
            (b"..", 1),
            (b"../a", 1),
            (b"../../a/b", 2),
            (b"./.././..", 2),
            (b"...", 0),
            (b"\xff", 0),
        ] {
            assert!(stays_within(target, depth), "{target:?} {depth}");
        }
        for (target, depth) in [
            (&b""[..], 9),
            (b"/", 9),
            (b"/etc/passwd", 9),
            (b"//x", 9),
            (b"..", 0),
            (b"../a", 0),
            (b"../../a", 1),
            (b"a/..", 9),
            (b"../a/../b", 9),
            (b"a\0b", 9),
        ] {
            assert!(!stays_within(target, depth), "{target:?} {depth}");
        }
    }

    /// Makes links as told, in directories of their own, and looks where they lead.
    #[cfg(unix)]
    #[test]
    fn links_that_are_let_stay_within_whatever_others_there_are() {
        use proptest::prelude::*;

        let link = (
            0..3_usize,
            "[a-c]",
            "(\\.\\./){0,3}([a-c]|\\.\\.|\\.)(/([a-c]|\\.\\.)){0,3}",
        );
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
        let made = runner.run(&proptest::collection::vec(link, 1..8), |links| {
            let outside = tempfile::tempdir().unwrap();
            let root = outside.path().canonicalize().unwrap().join("root");
            let dirs = [root.clone(), root.join("x"), root.join("x/y")];
            std::fs::create_dir_all(&dirs[2]).unwrap();
            for (depth, name, target) in &links {
                if stays_within(target.as_bytes(), *depth) {
                    let _ = std::os::unix::fs::symlink(target, dirs[*depth].join(name));
                }
            }
            for (depth, name, _) in &links {
                if let Ok(real) = dirs[*depth].join(name).canonicalize() {
                    prop_assert!(real.starts_with(&root), "{:?}", links);
                }
            }
            Ok(())
        });
        made.unwrap();
    }
}
