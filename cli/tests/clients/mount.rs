//! The script through a mounted directory, by sshfs: what ordinary programs ask of a file system.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::Outcome;
use crate::programs::ssh_options;
use crate::servers::Server;

/// A mounted directory; unmounted when dropped.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("fusermount3").arg("-u").arg(&self.0).status();
    }
}

fn mount(server: &Server) -> Mount {
    let place = server.scratch("mount");
    fs::create_dir(&place).unwrap();
    let output = Command::new("sshfs")
        .args(ssh_options(server).iter().skip(4)) // it knows no -i
        .arg("-o")
        .arg(format!("IdentityFile={}", server.key.display()))
        // What it remembers of the server would hide what the server says.
        .args(["-o", "dir_cache=no,auto_cache,direct_io"])
        .arg(format!("{}@127.0.0.1:", server.user))
        .arg(&place)
        .stdin(Stdio::null())
        .output()
        .expect("sshfs (scripts/setup-peers)");
    assert!(output.status.success(), "{output:?}");
    Mount(place)
}

pub(crate) fn sshfs(server: &Server, _: &Path) -> Outcome {
    let mount = mount(server);
    let at = |name: &str| mount.0.join(name);
    let mut outcome = Outcome::new();
    let mut step = |name: &str, result: io::Result<String>| {
        let said = match result {
            Ok(said) => said,
            Err(error) => format!("refused: {}", error.raw_os_error().unwrap_or(0)),
        };
        outcome.push((name.to_owned(), said));
    };
    let done = |result: io::Result<()>| result.map(|()| "done".to_owned());
    let block: Vec<u8> = (0..=250).collect();
    let bytes = |len: usize| -> Vec<u8> { block.repeat(len / block.len() + 1)[..len].to_vec() };
    let names = |dir: PathBuf| -> io::Result<String> {
        let entries = fs::read_dir(dir)?;
        let mut names: Vec<String> = entries
            .map(|entry| Ok(entry?.file_name().as_bytes().escape_ascii().to_string()))
            .collect::<io::Result<_>>()?;
        names.sort();
        Ok(names.join(" "))
    };

    step("mkdir", done(fs::create_dir(at("d"))));
    step("mkdir of what exists", done(fs::create_dir(at("d"))));
    step("write", done(fs::write(at("d/f"), bytes(200_000))));
    step("write over it", done(fs::write(at("d/f"), bytes(100_001))));
    step(
        "write of a large file",
        done(fs::write(at("large"), bytes(4_000_000))),
    );
    step(
        "write of an empty file",
        done(fs::write(at("d/empty"), b"")),
    );
    let same = |name: &str, len| fs::read(at(name)).map(|got| (got == bytes(len)).to_string());
    step("read", same("d/f", 100_001));
    step("read of a large file", same("large", 4_000_000));
    step("read of what is missing", same("none", 1));
    step("read in the middle", {
        let mut piece = vec![0; 1000];
        let read = fs::File::open(at("large")).and_then(|mut file| {
            file.seek(SeekFrom::Start(1_234_567))?;
            file.read_exact(&mut piece)
        });
        read.map(|()| (piece[..] == bytes(1_235_567)[1_234_567..]).to_string())
    });
    step(
        "write in the middle",
        done(
            fs::File::options()
                .write(true)
                .open(at("large"))
                .and_then(|file| file.write_all_at(b"middle", 70_000)),
        ),
    );
    step(
        "append",
        done(
            fs::File::options()
                .append(true)
                .open(at("d/f"))
                .and_then(|mut file| file.write_all(b"more")),
        ),
    );
    step(
        "cut off",
        done(
            fs::File::options()
                .write(true)
                .open(at("large"))
                .and_then(|file| file.set_len(1_000_000)),
        ),
    );
    step(
        "create what exists",
        done(fs::File::create_new(at("d/f")).map(drop)),
    );
    step(
        "chmod",
        done(fs::set_permissions(
            at("d/f"),
            fs::Permissions::from_mode(0o640),
        )),
    );
    step(
        "mode",
        fs::metadata(at("d/f")).map(|of| format!("{:o}", of.permissions().mode())),
    );
    step(
        "set times",
        done(fs::write(at("timed"), b"x").and_then(|()| {
            let file = fs::File::options().write(true).open(at("timed"))?;
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_100_000_000))
        })),
    );
    step("rename", done(fs::rename(at("d/f"), at("d/g"))));
    step(
        "rename over what exists",
        done(fs::rename(at("d/empty"), at("d/g"))),
    );
    step(
        "rename of what is missing",
        done(fs::rename(at("none"), at("x"))),
    );
    step("rename of a directory", done(fs::rename(at("d"), at("e"))));
    step("symlink", done(symlink("g", at("e/l"))));
    step(
        "readlink",
        fs::read_link(at("e/l")).map(|target| target.display().to_string()),
    );
    step(
        "read through a link",
        fs::read(at("e/l")).map(|got| got.len().to_string()),
    );
    step("hard link", done(fs::hard_link(at("e/g"), at("e/second"))));
    for (name, what) in [
        ("a name with spaces", "e/ a name "),
        ("a name in UTF-8", "e/Grüße 漢字"),
        ("a name with quotes", "e/a'b\"c*?[x]"),
        ("a name with a backslash", "e/a\\b"),
    ] {
        step(name, done(fs::write(at(what), b"x")));
    }
    let raw = at("e").join(std::ffi::OsStr::from_bytes(b"no \xff text"));
    step("a name that is no text", done(fs::write(raw, b"x")));
    step(
        "the longest name",
        done(fs::write(at("e").join("l".repeat(255)), b"x")),
    );
    step(
        "a name too long",
        done(fs::write(at("e").join("l".repeat(256)), b"x")),
    );
    step("list", names(at("e")));
    step("list of what is missing", names(at("none")));
    step(
        "write where nobody may",
        done(fs::write(at("locked/f"), b"x")),
    );
    step(
        "remove where nobody may",
        done(fs::remove_file(at("locked/kept"))),
    );
    step(
        "df",
        rustix::fs::statvfs(&mount.0)
            .map_err(Into::into)
            .map(|of| (of.f_blocks > 0).to_string()),
    );
    step("rmdir of what is not empty", done(fs::remove_dir(at("e"))));
    step("remove", done(fs::remove_file(at("e/second"))));
    step(
        "remove of what is missing",
        done(fs::remove_file(at("e/second"))),
    );
    step(
        "remove of a tree",
        done(fs::create_dir_all(at("a/b/c")).and_then(|()| fs::remove_dir_all(at("a")))),
    );
    outcome
}
