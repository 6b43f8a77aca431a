//! What servers and clients out there do differently, all that we know of, and what becomes of each:
//! `docs/quirks.md` is printed from it.

use std::fmt::Write as _;

use super::{Quirk, TABLE};

/// What becomes of a habit.
#[derive(Clone, Copy, Debug)]
enum Handling {
    /// A row of the table above, with its marks.
    Row(Quirk),
    /// Every peer may have it: borne without asking.
    Always,
    /// Not borne.
    Not,
}

use Handling::{Always, Not, Row};

/// Who has it, what it is, where that is written down, what becomes of it, and how.
type Known = (
    &'static str,
    &'static str,
    &'static str,
    Handling,
    &'static str,
);

const KNOWN: &[Known] = &[
    (
        "OpenSSH and nearly all others",
        "`SYMLINK` has its paths as target, link; the draft's order is link, target",
        "sshj#144, pkg/sftp#524, libssh2#2597",
        Row(Quirk::DraftSymlinks),
        "OpenSSH's order, but for the few that follow the draft",
    ),
    (
        "OpenSSH",
        "a message of more than 256 KiB ends the connection without a word",
        "WinSCP's notes; sftp-client.c",
        Always,
        "requests keep to `limits@openssh.com`, and to 32 KiB without it: `client/src/requests/core.rs`",
    ),
    (
        "pkg/sftp, rclone serve, dropbear with an old sftp-server",
        "a READ brings 32 KiB at most",
        "pkg/sftp#658, rclone#6404, rclone#6414",
        Row(Quirk::ShortReads),
        "the rest of a short answer is asked for again, whoever gave it: `client/src/transfer/download.rs`",
    ),
    (
        "OpenSSH for Windows",
        "a WRITE of more than 100 KiB fails",
        "Win32-OpenSSH#1395",
        Row(Quirk::ShortWrites),
        "also learnt: the file is begun anew in short writes",
    ),
    (
        "OpenSSH before 7.8",
        "takes no `rsa-sha2-*-cert` names; 7.4 announces the wrong algorithms",
        "paramiko#2017, asyncssh#570; compat.c, `SIGTYPE`",
        Not,
        "RSA certificates need OpenSSH 7.8; keys are tried in turn: `client/src/connect/offers.rs`",
    ),
    (
        "Cisco, XFB.Gateway, old OpenSSH",
        "no `server-sig-algs`; rsa-sha2 passes the query and fails with the signature",
        "jsch#262, mina#531, paramiko#2448",
        Always,
        "what fails is tried once more with older algorithms, where policy allows: `client/src/connect/login.rs`",
    ),
    (
        "Cisco",
        "group exchange only in its old form; `IGNORE` without a payload",
        "compat.c, `DHGEX_LARGE`; asyncssh",
        Not,
        "fixed groups and curves come before group exchange in every profile; a malformed `IGNORE` ends the connection",
    ),
    (
        "OpenSSH 6.5 and 6.6",
        "the secret of curve25519 is padded wrongly, once in 512",
        "compat.c, `CURVE25519PAD`",
        Not,
        "the exchange fails, and the next connection is likely to succeed",
    ),
    (
        "SSH.com, Sun",
        "no second key exchange, no `exit-signal`",
        "compat.c, `NOREKEY`",
        Not,
        "our key exchanges come late, and may be set later (`RekeyLimit`)",
    ),
    (
        "PuTTY, WinSCP, Tera Term of old, as clients",
        "group exchange in its old form; end at `hostkeys-00`",
        "compat.c",
        Not,
        "our server has no group exchange, and may be told to announce no host keys",
    ),
    (
        "dropbear",
        "a packet of the largest size is one byte too long under zlib",
        "asyncssh",
        Not,
        "compression is off by default",
    ),
    (
        "several",
        "send more than the window allows",
        "PuTTY's wish list, ssh2-window-overrun",
        Not,
        "the connection ends with that reason: `transport/src/channel.rs`",
    ),
    (
        "several",
        "an unknown channel request, or `winadj`, kills them",
        "PuTTY's list of bugs; WinSCP",
        Always,
        "none is sent: the delay is measured on requests that are sent anyway: `client/src/transfer/pace.rs`",
    ),
    (
        "OpenSSH's clients",
        "drop data in pieces longer than they announced",
        "SerenityOS#26806",
        Always,
        "no piece is longer than the peer's largest: `transport/src/channel.rs`",
    ),
    (
        "OpenSSH's sftp",
        "fills a window of 2 MiB exactly before it reads",
        "sunset#29",
        Always,
        "our server reads while its output is blocked: `server/src/session.rs`",
    ),
    (
        "ProFTPD's mod_sftp",
        "its limits made older clients crawl; memory grows with what is outstanding",
        "proftpd#1288, proftpd#1678, proftpd#51",
        Always,
        "READs are of 64 KiB at most whatever the limits say; what is in flight follows the path: `client/src/transfer/pace.rs`",
    ),
    (
        "ExaVault",
        "concurrent writes are mixed up",
        "ssh2#1120",
        Row(Quirk::OneRequest),
        "",
    ),
    (
        "CrushFTP",
        "with more than one READ in flight files end early, or it hangs",
        "paramiko#151, ssh2#485",
        Row(Quirk::OneRequest),
        "also learnt: a server that hangs gets one request at a time, from the running transfer on",
    ),
    (
        "WS_FTP, Axway",
        "hang on concurrent requests",
        "ssh2#450, ssh2#1078",
        Row(Quirk::OneRequest),
        "",
    ),
    (
        "JSCAPE",
        "answers of odd lengths; a file is gone after it was read",
        "pkg/sftp#424",
        Always,
        "a file is opened once, read to its end and not looked at again: `client/src/requests/tests/quirks/learnt.rs`",
    ),
    (
        "servers of files that are read once",
        "the file is gone after its first reading; `STAT` or a second `OPEN` fails",
        "rclone#5077, pkg/sftp#339, pkg/sftp#345",
        Always,
        "as above; a refused `STAT` does no harm where the file opens",
    ),
    (
        "servers of one transfer",
        "a second `OPEN` is refused while a file is open",
        "asyncssh#281, rclone#1381, rclone#9072",
        Row(Quirk::OneFile),
        "learnt: what was refused is opened when nothing else is",
    ),
    (
        "MOVEit, mailboxes of banks",
        "what is closed is moved on at once",
        "paramiko#1843, paramiko#1374, achgateway#150",
        Row(Quirk::GoneAfterClose),
        "written under its own name, closed when all of it is acknowledged, and not looked at",
    ),
    (
        "several",
        "attributes without a size",
        "paramiko#1918",
        Always,
        "a size is a hint everywhere; a file is read to its end",
    ),
    (
        "AWS Transfer Family",
        "few flags for `OPEN`, no attributes, bytes in order",
        "ssh2-sftp-client#330, sftpgo#922, rclone#3776, SSH.NET#1215",
        Row(Quirk::NoSetAttrs),
        "also `InOrder` and `NoExclusive`; what could not be set is remarked",
    ),
    (
        "Azure Blob Storage",
        "no extensions, links, random writes or renames over what is there",
        "Microsoft's list of known issues; sarracenia#1189, sshfs-win#368",
        Row(Quirk::InOrder),
        "also `NoExclusive` and `NoSetAttrs`; the old file is removed before the new one gets its name",
    ),
    (
        "gateways to object stores",
        "\"Illegal seek\" for what is out of order",
        "minio#19735, rclone#5806, kopia#3035",
        Row(Quirk::InOrder),
        "also learnt: the file is begun anew, from its first byte",
    ),
    (
        "SolarWinds and others",
        "permissions without a file type",
        "mina#489, mina#491",
        Always,
        "the type is that of the mode, of the line of `ls`, or unknown, and then asked for: `protocol/src/attrs.rs`",
    ),
    (
        "servers on Windows",
        "paths like `/C:/`, no owners, names in any case",
        "wagon#2, wagon#468; WinSCP's notes",
        Always,
        "remote paths are bytes with `/` between, and made absolute by the server alone",
    ),
    (
        "FTPshell",
        "no `LSTAT`",
        "WinSCP's notes",
        Row(Quirk::NoLstat),
        "also learnt, from OP_UNSUPPORTED",
    ),
    (
        "several",
        "lines of `ls` with anything in them, times that are wrong",
        "yafc#53",
        Always,
        "sizes and times are never read from a line; times may be absent",
    ),
    (
        "VShell",
        "wrong attributes in version 4, a wrong list of versions",
        "WinSCP's notes",
        Always,
        "version 3 is spoken; unknown extensions are passed over",
    ),
    (
        "a build of OpenSSH 8.3",
        "`DATA` longer than its own length",
        "pkg/sftp#403",
        Always,
        "the inner length counts, and what is over is dropped: `protocol/src/decoder.rs`",
    ),
    (
        "several",
        "`DATA` without bytes for the end of a file",
        "russh-sftp",
        Always,
        "it is the end: `client/src/transfer/download.rs`",
    ),
    (
        "servers of the first drafts",
        "`STATUS` without text or language",
        "asyncssh's tests",
        Always,
        "both are optional: `protocol/src/status.rs`",
    ),
    (
        "servers that think of version 4",
        "status codes beyond 8",
        "seen often",
        Always,
        "they are kept as they are: `protocol/src/status.rs`",
    ),
    (
        "several",
        "`NAME` without entries for the end of a directory",
        "seen often",
        Always,
        "asked again a few times, then taken for the end: `client/src/dir.rs`",
    ),
    (
        "hostile ones",
        "names with `/`, `..`, NUL or control characters",
        "CVE-2019-6111, asyncssh 2.23.1",
        Always,
        "refused, counted and told: `client/src/transfer/names.rs`",
    ),
    (
        "Rebex before 2017, as a client",
        "a mistake that servers have an option for",
        "proftpd#636",
        Not,
        "nobody described it well enough",
    ),
    (
        "libssh 0.11",
        "replies with bytes left over",
        "cyberduck#16858",
        Always,
        "what is over in a reply is passed over: `protocol/src/response.rs`",
    ),
    (
        "mysecureshell 2.0",
        "its `hardlink` does harm; links in the other order",
        "mysecureshell#111, mysecureshell#13, mysecureshell#116",
        Always,
        "extensions are used only when a caller asks for what they do",
    ),
    (
        "Tectia",
        "a packet that answers nothing during an upload",
        "libssh2#37",
        Always,
        "passed over by its length, 64 in a row at most, and puts off no deadline: `client/src/requests.rs`",
    ),
    (
        "freeFTPd",
        "uploads of more than 1.5 kB stall",
        "phpseclib#613",
        Row(Quirk::TinyWrites),
        "",
    ),
    (
        "any shell account",
        "a login script that prints before the greeting",
        "OpenSSH's message",
        Always,
        "told as what it is, with the text: `protocol/src/framer.rs`",
    ),
    (
        "Synology",
        "`RENAME` goes by way of other names",
        "n8n#25957",
        Always,
        "`posix-rename@openssh.com` is used where it is offered: `client/src/transfer/put/file/naming.rs`",
    ),
    (
        "OpenSSH from 9.8 on",
        "bans addresses whose logins fail",
        "sshd_config(5), `PerSourcePenalties`",
        Always,
        "a refused login is not tried again, and reconnecting backs off: `client/src/reconnect.rs`",
    ),
    (
        "OpenSSH: ten channels; gateways: one",
        "one more channel is refused",
        "rclone#9072; sshd_config(5), `MaxSessions`",
        Always,
        "a transfer goes on with those that it has: `client/src/transfer/crew.rs`",
    ),
    (
        "Azure, AWS, routers",
        "drop idle connections in silence",
        "golang/go#19338",
        Always,
        "keepalives every 30 s, three of them: `client/src/connect/timeouts.rs`",
    ),
];

fn printed() -> String {
    let mut out = String::from(
        "# What servers do differently\n\nPrinted from `client/src/quirks/catalogue.rs` by its test; \
         not written by hand. A habit in the column *row* is known by the server's identification, \
         learnt from what it answers, or both: `client/src/quirks.rs` has the rows, and \
         `client/src/requests/tests/quirks.rs` a server for each. *Always* means that every peer \
         may have it.\n\n| who | what | row | how it is borne | evidence |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for (who, what, evidence, handling, how) in KNOWN {
        let row = match handling {
            Row(quirk) => format!("{quirk:?}"),
            Always => "always".to_owned(),
            Not => "**not borne**".to_owned(),
        };
        let how = match (handling, *how) {
            (Row(_), "") => "the row says it",
            (_, how) => how,
        };
        let _ = writeln!(out, "| {who} | {what} | {row} | {how} | {evidence} |");
    }
    out.push_str(
        "\n## The rows\n\n| row | identification | who | evidence |\n| --- | --- | --- | --- |\n",
    );
    for row in TABLE {
        let marks: Vec<_> = row.marks.iter().map(|mark| format!("`{mark}`")).collect();
        let marks = if marks.is_empty() {
            "learnt".to_owned()
        } else {
            marks.join(", ")
        };
        let _ = writeln!(
            out,
            "| {:?} | {marks} | {} | {} |",
            row.quirk, row.who, row.evidence
        );
    }
    out.push_str(
        "\nAn identification fits if its software begins with the mark; holds it, behind `*`; is it, behind `=`.\n",
    );
    out
}

#[test]
fn the_document_is_printed_from_the_catalogue() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/quirks.md");
    if std::env::var_os("KETCH_WRITE_DOCS").is_some() {
        std::fs::write(&path, printed()).unwrap();
    }
    let document = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        document == printed(),
        "docs/quirks.md is not what the catalogue says: run this test with KETCH_WRITE_DOCS=1"
    );
}

#[test]
fn what_is_said_to_be_borne_is_somewhere() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (who, what, evidence, handling, how) in KNOWN {
        assert!(!who.is_empty() && !what.is_empty() && !evidence.is_empty());
        if let Row(quirk) = handling {
            assert!(TABLE.iter().any(|row| row.quirk == *quirk), "{quirk:?}");
        } else {
            assert!(!how.is_empty(), "{what}");
        }
        for path in how.split('`').skip(1).step_by(2) {
            let is_path = path.contains('/') && path.ends_with(".rs");
            assert!(!is_path || root.join(path).is_file(), "{path}");
        }
    }
    // No row without a peer that is known to have it.
    for row in TABLE {
        let is_told = |known: &Known| {
            matches!(known.3, Row(quirk) if quirk == row.quirk)
                || known.4.contains(&format!("`{:?}`", row.quirk))
        };
        assert!(
            matches!(row.quirk, Quirk::Stripes | Quirk::SureWrites) || KNOWN.iter().any(is_told),
            "{:?}",
            row.quirk
        );
    }
}
