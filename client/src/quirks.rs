//! What servers do differently, as data: one row for each habit, with who was seen to have it, how
//! it is told, and where that is written down.
//!
//! A session begins with the habits that its server's identification names (RFC 4253 §4.2), and
//! learns others from what the server answers. Transfers and requests ask [`Quirks`], never the
//! identification. What every server may do is no habit, and borne without asking: short reads
//! (`transfer/download.rs`), `DATA` without bytes and `NAME` without entries for the end, `STATUS`
//! without a text, attributes without size or type, answers in any order.

use ketch_protocol::SymlinkOrder;

#[cfg(test)]
mod catalogue;

/// A way in which servers differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Quirk {
    /// `SYMLINK` has its paths in the draft's order: link, then target. Nearly all others have
    /// OpenSSH's.
    DraftSymlinks,
    /// Several files at a time, or several requests, make it hang, or end files early: one request
    /// at a time.
    OneRequest,
    /// Bytes of a file are taken in order only, and never twice: no second channel writes to the
    /// same file, no hole is left out, nothing is continued.
    InOrder,
    /// `OPEN` with `EXCL` is refused: a temporary name is left to chance instead.
    NoExclusive,
    /// Attributes cannot be set: not asked for where they are not wanted explicitly.
    NoSetAttrs,
    /// One file may be open at a time.
    OneFile,
    /// `LSTAT` is not known: `STAT` has to do.
    NoLstat,
    /// A `WRITE` of more than 32 KiB of data is refused.
    ShortWrites,
    /// A `READ` of more than 32 KiB brings 32 KiB: asking for more costs round trips.
    ShortReads,
    /// A `WRITE` of more than 1 KiB stalls.
    TinyWrites,
    /// A file is gone, or moved on, as soon as it is closed: it is written under its own name, and
    /// nothing is looked at afterwards.
    GoneAfterClose,
    /// Writes to one file from several channels are taken: known for a few servers only.
    Stripes,
    /// A `WRITE` of which not all was written is refused: a small file needs no look at its size.
    /// Known for a few servers only.
    SureWrites,
}

/// One habit of some servers.
pub(crate) struct Row {
    /// What it is.
    pub quirk: Quirk,
    /// What the software version in an identification begins with, behind `SSH-2.0-`; holds, with
    /// a `*` first; is, with a `=` first. None for what is learnt from the server's answers alone.
    pub marks: &'static [&'static str],
    /// Which servers, in words.
    #[cfg_attr(not(test), expect(dead_code, reason = "for people"))]
    pub who: &'static str,
    /// Where it is written down.
    #[cfg_attr(not(test), expect(dead_code, reason = "for people"))]
    pub evidence: &'static str,
}

/// All of them.
pub(crate) const TABLE: &[Row] = &[
    Row {
        quirk: Quirk::DraftSymlinks,
        marks: &["VShell_", "*SSH Tectia Server"],
        who: "VShell, Tectia: by those who wrote the draft",
        evidence: "sshj#144, pkg/sftp#524, libssh2#2597; WinSCP takes the other order for OpenSSH \
                   and ProFTPD only",
    },
    Row {
        quirk: Quirk::OneRequest,
        marks: &["CrushFTP"],
        who: "CrushFTP: files end early, or it hangs, with more than one READ in flight",
        evidence: "paramiko#151, ssh2#485",
    },
    Row {
        quirk: Quirk::OneRequest,
        marks: &["WS_FTP", "*sshlib: 9.99", "9.99 sshlib"],
        who: "WS_FTP, Axway: hang on concurrent requests",
        evidence: "ssh2#450, ssh2#1078",
    },
    Row {
        quirk: Quirk::OneRequest,
        marks: &[],
        who: "any server that stalled with several requests in flight: once a session",
        evidence: "paramiko#151, ssh2#450, ssh2#485",
    },
    Row {
        quirk: Quirk::OneRequest,
        marks: &["*ExaVault"],
        who: "ExaVault: concurrent writes were mixed up",
        evidence: "ssh2#1120",
    },
    Row {
        quirk: Quirk::OneFile,
        marks: &[],
        who: "any server that refuses to open a second file while a first one is open",
        evidence: "asyncssh#281, rclone#1381, rclone#9072: \"Maximum concurrent transfers \
                   exceeded\", or PERMISSION_DENIED",
    },
    Row {
        quirk: Quirk::InOrder,
        marks: &["AzureSSH"],
        who: "Azure Blob Storage: no random writes, no append",
        evidence: "Microsoft's list of known issues of SFTP for Blob Storage; sarracenia#1189, \
                   sshfs-win#368",
    },
    Row {
        quirk: Quirk::InOrder,
        marks: &["SFTPGo_", "rclone/", "MinIO"],
        who: "gateways to object stores: \"Illegal seek\" for what is out of order",
        evidence: "minio#19735, rclone#5806, kopia#3035",
    },
    Row {
        quirk: Quirk::InOrder,
        marks: &["AWS_SFTP_"],
        who: "AWS Transfer Family, with S3 behind it",
        evidence: "ssh2-sftp-client#330, sftpgo#922",
    },
    Row {
        quirk: Quirk::InOrder,
        marks: &[],
        who: "any server that is not known to take writes in any order, and refused one that was \
              out of order",
        evidence: "minio#19735, rclone#5806, kopia#3035",
    },
    Row {
        quirk: Quirk::NoExclusive,
        marks: &["AWS_SFTP_", "AzureSSH"],
        who: "AWS Transfer Family, Azure Blob Storage: few flags for OPEN",
        evidence: "sftpgo#922, rclone#3776, SSH.NET#1215",
    },
    Row {
        quirk: Quirk::NoExclusive,
        marks: &[],
        who: "any server that says OP_UNSUPPORTED to an exclusive create",
        evidence: "SSH.NET#1215",
    },
    Row {
        quirk: Quirk::NoSetAttrs,
        marks: &["AWS_SFTP_", "AzureSSH"],
        who: "AWS Transfer Family, Azure Blob Storage: SETSTAT is not supported or fails",
        evidence: "ssh2-sftp-client#330, rclone#3776",
    },
    Row {
        quirk: Quirk::NoLstat,
        marks: &["*FTPshell"],
        who: "FTPshell",
        evidence: "WinSCP's notes on interoperability",
    },
    Row {
        quirk: Quirk::NoLstat,
        marks: &[],
        who: "any server that says OP_UNSUPPORTED to LSTAT",
        evidence: "WinSCP's notes on interoperability",
    },
    Row {
        quirk: Quirk::ShortWrites,
        marks: &["OpenSSH_for_Windows_7", "OpenSSH_for_Windows_8.0"],
        who: "OpenSSH for Windows: WRITEs of more than 100 KiB failed",
        evidence: "Win32-OpenSSH#1395",
    },
    Row {
        quirk: Quirk::ShortWrites,
        marks: &[],
        who: "any server that refused a longer WRITE, and took the same bytes in shorter ones",
        evidence: "Win32-OpenSSH#1395",
    },
    Row {
        quirk: Quirk::ShortReads,
        marks: &["SFTPGo_", "rclone/", "=Go"],
        who: "what is built on pkg/sftp",
        evidence: "pkg/sftp#658, rclone#6404, rclone#6414",
    },
    Row {
        quirk: Quirk::TinyWrites,
        marks: &["WeOnlyDo", "*freeFTPd"],
        who: "freeFTPd: uploads of more than 1.5 kB stall",
        evidence: "phpseclib#613",
    },
    Row {
        quirk: Quirk::GoneAfterClose,
        marks: &["MOVEit"],
        who: "MOVEit, mailboxes of banks: what was uploaded is moved on at once",
        evidence: "paramiko#1843, paramiko#1374, achgateway#150",
    },
    Row {
        quirk: Quirk::Stripes,
        marks: &["OpenSSH_", "ketch", "mod_sftp"],
        who: "servers of plain file systems: seen to take them",
        evidence: "pwrite(2) in OpenSSH's sftp-server.c and in ours, pr_fsio_pwrite in mod_sftp",
    },
    Row {
        quirk: Quirk::SureWrites,
        marks: &["OpenSSH_", "ketch"],
        who: "OpenSSH and ours: OK says that every byte of a WRITE was taken",
        evidence: "process_write in OpenSSH's sftp-server.c: `ret == len`, else FAILURE",
    },
];

/// Bytes of data in a `WRITE` that every server takes (draft-ietf-secsh-filexfer-02 §3).
pub(crate) const SHORT_WRITE_LEN: u32 = 32 * 1024;

/// What servers say when they bear no more open files than there are.
const CROWDED: &[&str] = &["concurrent", "simultaneous", "too many", "maximum"];
/// What servers say to a WRITE that is not behind the last one.
const OUT_OF_ORDER: &[&str] = &["seek", "sequential", "in order", "out of order", "append"];

/// Whether the text of a refusal speaks of too many open files.
pub(crate) fn speaks_of_a_crowd(message: &[u8]) -> bool {
    says_any(message, CROWDED)
}

/// Whether the text of a refusal speaks of the order of writes.
pub(crate) fn speaks_of_order(message: &[u8]) -> bool {
    says_any(message, OUT_OF_ORDER)
}

fn says_any(message: &[u8], phrases: &[&str]) -> bool {
    let message = String::from_utf8_lossy(message).to_ascii_lowercase();
    phrases.iter().any(|phrase| message.contains(phrase))
}

/// The habits that the server of one session has, as far as they are known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Quirks {
    /// Those that the identification names.
    named: u32,
    /// Those that were seen.
    learnt: u32,
}

impl Quirks {
    /// Those that `identification` names (`SSH-2.0-…`).
    pub(crate) fn of(identification: &str) -> Self {
        let software = identification
            .split_once("-2.0-")
            .or_else(|| identification.split_once("-1.99-"))
            .map_or(identification, |(_, software)| software);
        let is_marked = |mark: &str| match (mark.strip_prefix('*'), mark.strip_prefix('=')) {
            (Some(part), _) => software.contains(part),
            (_, Some(all)) => software == all,
            (None, None) => software.starts_with(mark),
        };
        let mut quirks = Self::default();
        for row in TABLE {
            if row.marks.iter().any(|mark| is_marked(mark)) {
                quirks.named |= Self::bit(row.quirk);
            }
        }
        quirks
    }

    /// The server was seen to have this one as well.
    pub(crate) const fn learn(&mut self, quirk: Quirk) {
        self.learnt |= Self::bit(quirk);
    }

    /// What was thought to be seen of it had another reason.
    pub(crate) const fn forget(&mut self, quirk: Quirk) {
        self.learnt &= !Self::bit(quirk);
    }

    /// Whether the server has it.
    pub(crate) const fn has(self, quirk: Quirk) -> bool {
        (self.named | self.learnt) & Self::bit(quirk) != 0
    }

    /// The order of the paths in a `SYMLINK`.
    pub(crate) const fn symlink_order(self) -> SymlinkOrder {
        if self.has(Quirk::DraftSymlinks) {
            SymlinkOrder::Draft
        } else {
            SymlinkOrder::OpenSsh
        }
    }

    /// Whether several channels may write to one file.
    pub(crate) const fn may_stripe_writes(self) -> bool {
        self.has(Quirk::Stripes) && !self.has(Quirk::InOrder) && !self.has(Quirk::OneRequest)
    }

    /// Bytes of data in one `WRITE` at most, whatever the server's limits say.
    pub(crate) const fn write_len_max(self) -> u32 {
        if self.has(Quirk::TinyWrites) {
            1024
        } else if self.has(Quirk::ShortWrites) {
            SHORT_WRITE_LEN
        } else {
            u32::MAX
        }
    }

    /// Bytes of one `READ` at most, whatever the server's limits say.
    pub(crate) const fn read_len_max(self) -> u32 {
        if self.has(Quirk::ShortReads) {
            32 * 1024
        } else {
            u32::MAX
        }
    }

    const fn bit(quirk: Quirk) -> u32 {
        1_u32.rotate_left(quirk as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifications_are_told_apart() {
        let has = |identification, quirk| Quirks::of(identification).has(quirk);
        assert!(has("SSH-2.0-AzureSSH_1.0.0", Quirk::InOrder));
        assert!(has("SSH-2.0-AWS_SFTP_1.1", Quirk::NoExclusive));
        assert!(has("SSH-2.0-CrushFTPSSHD_5", Quirk::OneRequest));
        assert!(has("SSH-2.0-WS_FTP-SSH_8.7", Quirk::OneRequest));
        assert!(has("SSH-2.0-9.99 sshlib: 9.9.9.9", Quirk::OneRequest));
        assert!(has(
            "SSH-2.0-6.4.12.353 SSH Tectia Server",
            Quirk::DraftSymlinks
        ));
        assert!(has("SSH-1.99-VShell_4_0", Quirk::DraftSymlinks));
        assert!(has("SSH-2.0-OpenSSH_for_Windows_7.7", Quirk::ShortWrites));
        assert!(!has("SSH-2.0-OpenSSH_for_Windows_9.5", Quirk::ShortWrites));
        assert!(has("SSH-2.0-FTPshell", Quirk::NoLstat));
        assert!(has("SSH-2.0-Go", Quirk::ShortReads));
        assert!(has("SSH-2.0-MOVEit Transfer SFTP", Quirk::GoneAfterClose));
    }

    #[test]
    fn the_usual_server_has_no_habits_and_an_unknown_one_none_that_help() {
        let openssh = Quirks::of("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u9");
        let mut plain = Quirks::default();
        plain.named |= Quirks::bit(Quirk::Stripes) | Quirks::bit(Quirk::SureWrites);
        assert_eq!(openssh, plain);
        assert!(openssh.may_stripe_writes());
        assert_eq!(openssh.symlink_order(), SymlinkOrder::OpenSsh);
        for unknown in ["SSH-2.0-whatever", "", "SSH-2.0-", "SSH-2.0-GoAnywhere"] {
            assert_eq!(Quirks::of(unknown), Quirks::default());
            assert!(!Quirks::of(unknown).may_stripe_writes());
        }
    }

    #[test]
    fn what_is_learnt_outweighs_what_is_known() {
        let mut quirks = Quirks::of("SSH-2.0-OpenSSH_9.2");
        quirks.learn(Quirk::InOrder);
        assert!(!quirks.may_stripe_writes());
        assert_eq!(quirks.write_len_max(), u32::MAX);
        quirks.learn(Quirk::ShortWrites);
        assert_eq!(quirks.write_len_max(), 32 * 1024);
        quirks.learn(Quirk::TinyWrites);
        assert_eq!(quirks.write_len_max(), 1024);
    }

    #[test]
    fn every_row_says_who_and_where() {
        for row in TABLE {
            assert!(!row.who.is_empty() && !row.evidence.is_empty());
            // A short mark would fit servers that nobody thought of.
            for mark in row.marks {
                assert!(mark.len() > 4 || mark.starts_with('='), "{mark}");
            }
        }
    }
}
