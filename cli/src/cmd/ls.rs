//! `ketch ls`: the names in a remote directory, sorted; with `-l` what they stand for.

use jiff::tz::TimeZone;
use ketch_client::{Attrs, FileType, RemotePath};

use crate::cmd::login;
use crate::failed::Failed;
use crate::output::Lines;
use crate::plan::Ls;

/// Entries that are held to be sorted; a longer directory is printed as it comes.
const SORT_MAX: usize = 1_000_000;

/// Lists the directory, or the one file.
pub(crate) async fn run(plan: Ls) -> Result<(), Failed> {
    let session = login::session(&plan.connection).await?;
    let sftp = session.sftp().await?;
    let show = |name: &[u8], attrs: &Attrs| match plan.long {
        true => long(name, attrs, &TimeZone::system()),
        // `RemotePath` shows bytes escaped.
        false => RemotePath::from(name).to_string(),
    };
    let mut lines = Lines::new();
    let attrs = sftp.stat(&plan.remote).await?;
    // Servers that hide the kind are asked for the directory, as most things listed are.
    if !matches!(attrs.file_type(), FileType::Directory | FileType::Unknown) {
        lines.line(&show(plan.remote.as_bytes(), &attrs))?;
        return lines.flush();
    }
    let mut directory = sftp.read_dir(&plan.remote);
    let mut entries = Vec::new();
    while let Some(entry) = directory.next().await {
        let entry = entry?;
        entries.push((entry.name().to_vec(), entry.attrs()));
        if entries.len() == SORT_MAX {
            print(&mut lines, &mut entries, show)?;
        }
    }
    print(&mut lines, &mut entries, show)?;
    lines.flush()
}

fn print(
    lines: &mut Lines,
    entries: &mut Vec<(Vec<u8>, Attrs)>,
    show: impl Fn(&[u8], &Attrs) -> String,
) -> Result<(), Failed> {
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    entries
        .drain(..)
        .try_for_each(|(name, attrs)| lines.line(&show(&name, &attrs)))
}

/// One line with everything: made from the attributes, not from the server's own text of it, which
/// is for no program to read (draft-ietf-secsh-filexfer-02 §7).
fn long(name: &[u8], attrs: &Attrs, zone: &TimeZone) -> String {
    let or_dash = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
    let modified = attrs.times.and_then(|times| {
        let time = jiff::Timestamp::from_second(i64::from(times.mtime)).ok()?;
        Some(
            time.to_zoned(zone.clone())
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string(),
        )
    });
    format!(
        "{} {:>6} {:>6} {:>12} {:<19} {}",
        permissions(attrs),
        or_dash(attrs.owner.map(|owner| owner.uid.into())),
        or_dash(attrs.owner.map(|owner| owner.gid.into())),
        or_dash(attrs.size),
        modified.as_deref().unwrap_or("-"),
        RemotePath::from(name),
    )
}

/// Kind and permissions the way `ls -l` writes them.
fn permissions(attrs: &Attrs) -> String {
    let kind = match attrs.file_type() {
        FileType::Regular => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::BlockDevice => 'b',
        FileType::CharDevice => 'c',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::Unknown => '?',
    };
    let Some(mode) = attrs.mode() else {
        return format!("{kind}?????????");
    };
    let mut text = String::from(kind);
    // For each of owner, group and others: read, write, and what the x stands for.
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use ketch_client::{Owner, Times};

    use super::*;

    #[test]
    fn permissions_read_as_in_ls() {
        let table = [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o104_755, "-rwsr-xr-x"),
            (0o102_644, "-rw-r-Sr--"),
            (0o041_777, "drwxrwxrwt"),
            (0o041_776, "drwxrwxrwT"),
            (0o644, "?rw-r--r--"),
        ];
        for (mode, text) in table {
            assert_eq!(permissions(&Attrs::with_permissions(mode)), text);
        }
        assert_eq!(permissions(&Attrs::default()), "??????????");
    }

    #[test]
    fn a_long_line_has_all_columns_and_a_safe_name() {
        let attrs = Attrs {
            size: Some(1234),
            owner: Some(Owner {
                uid: 1000,
                gid: 100,
            }),
            permissions: Some(0o100_600),
            times: Some(Times {
                atime: 0,
                mtime: 1_700_000_000,
            }),
        };
        assert_eq!(
            long(b"a\x1b.csv", &attrs, &TimeZone::UTC),
            "-rw-------   1000    100         1234 2023-11-14 22:13:20 a\\u{1b}.csv"
        );
        assert_eq!(
            long(b"x", &Attrs::default(), &TimeZone::UTC),
            "??????????      -      -            - -                   x"
        );
    }
}
