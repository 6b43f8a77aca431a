//! Servers' files as somebody wrote them: never a panic, and whatever is wrong is told in lines that
//! are safe to show.

use ketch_server::ServerFile;

/// A right file, to begin from.
const EXAMPLE: &str = include_str!("../../server/examples/server.toml");
/// Most changes to it.
const CHANGES_MAX: usize = 32;

/// A whole file, or changes to a right one.
pub fn server_file(data: &[u8]) {
    match data.split_first() {
        Some((0, changes)) => judge(&String::from_utf8_lossy(&changed(changes))),
        Some((_, text)) => judge(&String::from_utf8_lossy(text)),
        None => judge(""),
    }
}

/// The example with pieces of it replaced: where, how many bytes go, how many come, which.
fn changed(mut changes: &[u8]) -> Vec<u8> {
    let mut text = EXAMPLE.as_bytes().to_vec();
    for _ in 0..CHANGES_MAX {
        let Some((head, rest)) = changes.split_first_chunk::<4>() else {
            break;
        };
        let [high, low, gone, come] = *head;
        let from = usize::from(u16::from_be_bytes([high, low])) % (text.len() + 1);
        let to = (from + usize::from(gone)).min(text.len());
        let (new, rest) = rest.split_at(usize::from(come).min(rest.len()));
        text.splice(from..to, new.iter().copied());
        changes = rest;
    }
    text
}

fn judge(text: &str) {
    let lines = text.lines().count().max(1);
    match ServerFile::parse(text, "server.toml") {
        Ok(file) => {
            assert!(!file.listen().is_empty());
            let (users, endpoints, organisations) = file.counts();
            assert!(organisations > 0 || (users, endpoints) == (0, 0));
        }
        Err(faults) => {
            assert!(!faults.faults.is_empty());
            for fault in &faults.faults {
                assert!(
                    fault
                        .line
                        .is_none_or(|line| (1..=lines + 1).contains(&line))
                );
                assert!(!fault.to_string().chars().any(char::is_control), "{fault}");
            }
            assert_eq!(faults.to_string().lines().count(), faults.faults.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_files_pass() {
        assert!(ServerFile::parse(EXAMPLE, "server.toml").is_ok());
        server_file(&[0]);
        server_file(b"\0\0\x10\x05\x03abc\x01\x00\xff\x01\n\x02\x00\x00\x04\"\"\"\n");
        server_file(b"\x01listen = [\"\x1b[31m\"]\n[organisation.\"\\u001b\\n\"]\nx = 1\n");
        server_file(b"\xff");
        server_file(&[b'['; 5_000]);
    }
}
