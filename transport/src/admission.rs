//! Which message may come when: the table that the connection runs on (RFC 4253 §7.1 and §10, RFC
//! 4252 §6, RFC 4254, RFC 8308 §2.4, strict key exchange of OpenSSH's PROTOCOL §1.10).
//!
//! It stands between the packet layer and the machines: [`reaction`] looks a packet's number up
//! before anything of it is read, and what is not listed ends the connection. Tests drive real
//! connections through every cell; `docs/states.md` is printed from the same rows.

/// How far a connection is, as far as that decides what may come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// First key exchange: the peer's `KEXINIT` is not in.
    FirstKexInit,
    /// First key exchange: the method's messages go back and forth.
    FirstMethod,
    /// First key exchange: the peer's `NEWKEYS` is not in.
    FirstNewKeys,
    /// Keys are in use; the service for authentication was not asked for, or not granted.
    Service,
    /// Authentication.
    Auth,
    /// Somebody is in.
    Open,
    /// Later key exchange: the peer's `KEXINIT` is in, the method's messages go back and forth.
    LaterMethod,
    /// Later key exchange: the peer's `NEWKEYS` is not in.
    LaterNewKeys,
}

impl Stage {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Self; 8] = [
        Self::FirstKexInit,
        Self::FirstMethod,
        Self::FirstNewKeys,
        Self::Service,
        Self::Auth,
        Self::Open,
        Self::LaterMethod,
        Self::LaterNewKeys,
    ];

    /// For error messages: when a message came.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::FirstKexInit => "before KEXINIT",
            Self::FirstMethod | Self::LaterMethod => "in a key exchange",
            Self::FirstNewKeys | Self::LaterNewKeys => "before NEWKEYS",
            Self::Service => "before the service for authentication",
            Self::Auth => "in authentication",
            Self::Open => "on a connection in use",
        }
    }

    /// Whether the first key exchange is not done.
    #[must_use]
    pub const fn is_first_exchange(self) -> bool {
        matches!(
            self,
            Self::FirstKexInit | Self::FirstMethod | Self::FirstNewKeys
        )
    }
}

/// Who reads a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The connection itself: `DISCONNECT`.
    Connection,
    /// The key exchange. Which of the numbers 30 to 49 it expects depends on the method
    /// ([`method_numbers`]); another one is passed over once if the peer said that it guesses.
    Kex,
    /// Extension information, only as the first message after the first `NEWKEYS`, or, to a client,
    /// right before authentication succeeds.
    ExtInfo,
    /// Authentication.
    Auth,
    /// Channels and global requests.
    Channels,
}

/// What is done with a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reaction {
    /// It goes to that part, which may still find it wrong.
    Take(Part),
    /// It is dropped without a word.
    Drop,
    /// As [`Reaction::Drop`], but fatal if the first key exchange is strict.
    DropUnlessStrict,
    /// `UNIMPLEMENTED` is the answer (RFC 4253 §11.4).
    Unimplemented,
    /// The connection ends.
    Fatal,
}

/// Messages that are treated alike.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// First number.
    pub first: u8,
    /// Last number.
    pub last: u8,
    /// Name for people.
    pub name: &'static str,
    /// What a client does, by [`Stage::ALL`].
    pub client: [Reaction; 8],
    /// What a server does, by [`Stage::ALL`].
    pub server: [Reaction; 8],
}

const T: Reaction = Reaction::Take(Part::Connection);
const K: Reaction = Reaction::Take(Part::Kex);
const E: Reaction = Reaction::Take(Part::ExtInfo);
const A: Reaction = Reaction::Take(Part::Auth);
const C: Reaction = Reaction::Take(Part::Channels);
const D: Reaction = Reaction::Drop;
const S: Reaction = Reaction::DropUnlessStrict;
const U: Reaction = Reaction::Unimplemented;
const X: Reaction = Reaction::Fatal;

const fn row(
    first: u8,
    last: u8,
    name: &'static str,
    client: [Reaction; 8],
    server: [Reaction; 8],
) -> Row {
    Row {
        first,
        last,
        name,
        client,
        server,
    }
}

const fn both(first: u8, last: u8, name: &'static str, reactions: [Reaction; 8]) -> Row {
    row(first, last, name, reactions, reactions)
}

const NEVER: [Reaction; 8] = [X; 8];
const UNKNOWN: [Reaction; 8] = [X, X, X, U, U, U, X, X];
/// Messages that one of the roles alone may be sent, while somebody logs in.
const IN_AUTH: [Reaction; 8] = [X, X, X, X, A, X, X, X];

/// The table. Numbers in rows go up and leave none out.
#[rustfmt::skip]
pub const TABLE: [Row; 25] = [
    //                                       first exchange        in use     later exchange
    //                                       init method newkeys   svc auth open   method newkeys
    both(0, 0, "(reserved)",                 UNKNOWN),
    both(1, 1, "DISCONNECT",                 [T, T, T,             T, T, T,        T, T]),
    both(2, 2, "IGNORE",                     [S, S, S,             D, D, D,        D, D]),
    both(3, 3, "UNIMPLEMENTED",              [S, S, S,             D, D, D,        D, D]),
    both(4, 4, "DEBUG",                      [S, S, S,             D, D, D,        D, D]),
    // Some clients (paramiko) ask for the service anew before each thing they try.
    row(5, 5, "SERVICE_REQUEST",             NEVER,
                                             [X, X, X,             A, A, X,        X, X]),
    row(6, 6, "SERVICE_ACCEPT",              [X, X, X,             A, X, X,        X, X],
                                             NEVER),
    row(7, 7, "EXT_INFO",                    [X, X, X,             E, E, X,        X, X],
                                             [X, X, X,             E, X, X,        X, X]),
    both(8, 19, "(unassigned)",              UNKNOWN),
    both(20, 20, "KEXINIT",                  [K, X, X,             K, K, K,        X, X]),
    both(21, 21, "NEWKEYS",                  [X, X, K,             X, X, X,        X, K]),
    both(22, 29, "(unassigned)",             NEVER),
    both(30, 49, "(of the method)",          [X, K, X,             X, X, X,        K, X]),
    // After success further requests are dropped without a word (RFC 4252 §5.1).
    row(50, 50, "USERAUTH_REQUEST",          NEVER,
                                             [X, X, X,             X, A, D,        X, X]),
    row(51, 53, "USERAUTH_FAILURE, _SUCCESS, _BANNER", IN_AUTH,    NEVER),
    both(54, 59, "(unassigned)",             NEVER),
    row(60, 60, "USERAUTH_PK_OK, _PASSWD_CHANGEREQ, _INFO_REQUEST", IN_AUTH, NEVER),
    row(61, 61, "USERAUTH_INFO_RESPONSE",    NEVER,                IN_AUTH),
    both(62, 79, "(unassigned)",             NEVER),
    both(80, 82, "global requests",          [X, X, X,             X, X, C,        X, X]),
    both(83, 89, "(unassigned)",             [X, X, X,             X, X, U,        X, X]),
    both(90, 100, "channels",                [X, X, X,             X, X, C,        X, X]),
    both(101, 191, "(unassigned)",           [X, X, X,             X, X, U,        X, X]),
    // Never answered before somebody is in, and never in an exchange (CVE-2025-26466).
    both(192, 193, "PING, PONG",             [X, X, X,             D, D, C,        X, X]),
    both(194, 255, "(unassigned)",           UNKNOWN),
];

/// What is done with a message of that number.
#[must_use]
pub fn reaction(number: u8, stage: Stage, is_client: bool, strict: bool) -> Reaction {
    let row = TABLE.iter().find(|row| number <= row.last);
    let column = Stage::ALL.iter().position(|&each| each == stage);
    let found = row.zip(column).and_then(|(row, column)| {
        let cells = if is_client { &row.client } else { &row.server };
        cells.get(column).copied()
    });
    match found.unwrap_or(Reaction::Fatal) {
        Reaction::DropUnlessStrict if strict => Reaction::Fatal,
        Reaction::DropUnlessStrict => Reaction::Drop,
        other => other,
    }
}

/// The number of the method's message that is awaited: what comes first, and what comes second.
#[must_use]
pub const fn method_numbers(is_client: bool, group_exchange: bool) -> &'static [u8] {
    match (is_client, group_exchange) {
        (true, false) => &[31],
        (true, true) => &[31, 33],
        // A server offers no group exchange.
        (false, _) => &[30],
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn rows_leave_no_number_out() {
        let mut next = 0_u16;
        for row in TABLE {
            assert_eq!(u16::from(row.first), next, "{}", row.name);
            assert!(row.first <= row.last);
            next = u16::from(row.last) + 1;
        }
        assert_eq!(next, 256);
    }

    #[test]
    fn nothing_optional_comes_into_a_strict_first_exchange() {
        for number in 0..=u8::MAX {
            for is_client in [true, false] {
                for stage in Stage::ALL
                    .into_iter()
                    .filter(|stage| stage.is_first_exchange())
                {
                    let taken = match stage {
                        Stage::FirstKexInit => number == 20,
                        Stage::FirstMethod => (30..=49).contains(&number),
                        _ => number == 21,
                    };
                    let expected = match number {
                        1 => Reaction::Take(Part::Connection),
                        _ if taken => Reaction::Take(Part::Kex),
                        _ => Reaction::Fatal,
                    };
                    assert_eq!(reaction(number, stage, is_client, true), expected);
                }
            }
        }
    }

    fn symbol(reaction: Reaction) -> &'static str {
        match reaction {
            Reaction::Take(Part::Connection) => "heard",
            Reaction::Take(Part::Kex) => "kex",
            Reaction::Take(Part::ExtInfo) => "ext-info",
            Reaction::Take(Part::Auth) => "auth",
            Reaction::Take(Part::Channels) => "channels",
            Reaction::Drop => "dropped",
            Reaction::DropUnlessStrict => "dropped, strict: **end**",
            Reaction::Unimplemented => "UNIMPLEMENTED",
            Reaction::Fatal => "**end**",
        }
    }

    fn printed() -> String {
        let mut out = String::from(
            "# Which message may come when\n\n\
             Printed from the table that the connection runs on, `transport/src/admission.rs`; a test\n\
             compares the two, and another drives real connections through every cell.\n\n\
             A cell names the part that reads the message, or says what becomes of it: `dropped`\n\
             without a word, answered with `UNIMPLEMENTED` (RFC 4253 §11.4), or the connection's **end**\n\
             with `DISCONNECT`. In \"the method's\" columns a message that is not the awaited one is\n\
             passed over once if the peer announced a guess that turned out wrong (RFC 4253 §7);\n\
             otherwise it is the end. `EXT_INFO` is read as the first packet under the first keys, and\n\
             by a client once more before it is let in (RFC 8308 §2.4).\n",
        );
        for (role, is_client) in [("client", true), ("server", false)] {
            let _ = write!(out, "\n## A {role}\n\n| number | message |");
            for stage in [
                "first KEXINIT",
                "first exchange, the method's",
                "first NEWKEYS",
                "before the service",
                "authentication",
                "in use",
                "later exchange, the method's",
                "later NEWKEYS",
            ] {
                let _ = write!(out, " {stage} |");
            }
            out.push_str("\n| --- | --- |");
            out.push_str(&" --- |".repeat(Stage::ALL.len()));
            for row in TABLE {
                let _ = match row.first == row.last {
                    true => write!(out, "\n| {} | {} |", row.first, row.name),
                    false => write!(out, "\n| {}-{} | {} |", row.first, row.last, row.name),
                };
                let cells = if is_client { row.client } else { row.server };
                for cell in cells {
                    let _ = write!(out, " {} |", symbol(cell));
                }
            }
            out.push('\n');
        }
        out.push_str("\n## The method's messages that are awaited\n\n| role | method | numbers, in order |\n| --- | --- | --- |\n");
        for (role, method, is_client, group_exchange) in [
            ("client", "all but group exchange", true, false),
            ("client", "group exchange", true, true),
            ("server", "all that it offers", false, false),
        ] {
            let numbers: Vec<_> = method_numbers(is_client, group_exchange)
                .iter()
                .map(u8::to_string)
                .collect();
            let _ = writeln!(out, "| {role} | {method} | {} |", numbers.join(", "));
        }
        out
    }

    #[test]
    fn the_document_is_printed_from_the_table() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/states.md");
        if std::env::var_os("KETCH_WRITE_DOCS").is_some() {
            std::fs::write(&path, printed()).unwrap();
        }
        let document = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            document == printed(),
            "docs/states.md is not what the table says: run this test with KETCH_WRITE_DOCS=1"
        );
    }
}
