//! Values of a server's file that are written as text and mean something: a network, a key, a pattern.

use ketch_keys::PublicKey;
use ketch_settings::{Address, Moment, Period, Size, Word, WordKind, word};

use crate::login::credentials::Source;
use crate::login::password_hash::PasswordHash;
use crate::policy::arrivals::Arrivals;
use crate::policy::{Rights, Rules};

/// All words of a server's file.
pub(super) const WORDS: &[WordKind] = &[
    WordKind::of::<Address>(),
    WordKind::of::<Period>(),
    WordKind::of::<Size>(),
    WordKind::of::<Network>(),
    WordKind::of::<KeyLine>(),
    WordKind::of::<Hash>(),
    WordKind::of::<Moment>(),
    WordKind::of::<PathGlob>(),
    WordKind::of::<NameGlob>(),
];

/// An address or a network, `192.0.2.0/24`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network(pub(super) Source);
word!(Network);

impl Word for Network {
    const FORMAT: &'static str = "network";
    const SHOWN: &'static str = "`\"192.0.2.0/24\"`";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|error: crate::BadSource| error.to_string())
    }
}

/// A public key as it stands in `authorized_keys` and in files that end in `.pub`, without options.
#[derive(Clone, Debug)]
pub(super) struct KeyLine(pub(super) PublicKey);
word!(KeyLine);

impl Word for KeyLine {
    const FORMAT: &'static str = "public-key";
    const SHOWN: &'static str = "`\"ssh-ed25519 AAAA…\"`";

    fn read(text: &str) -> Result<Self, String> {
        let key = PublicKey::from_line(text).map_err(|error| error.to_string())?;
        match key.certificate() {
            Some(_) => Err("this is a certificate: a key is wanted".to_owned()),
            None => Ok(Self(key)),
        }
    }
}

/// A password's hash, `$argon2id$v=19$…`.
#[derive(Clone, Debug)]
pub(super) struct Hash(pub(super) PasswordHash);
word!(Hash);

impl Word for Hash {
    const FORMAT: &'static str = "argon2id-hash";
    const SHOWN: &'static str = "`\"$argon2id$…\"`";

    fn read(text: &str) -> Result<Self, String> {
        let hash = text.parse::<PasswordHash>();
        hash.map(Self)
            .map_err(|error| format!("{error}; `ketch serve hash-password` makes one"))
    }
}

/// A pattern for paths, `/in/**/*.csv`.
#[derive(Clone, Debug)]
pub(super) struct PathGlob(pub(super) String);
word!(PathGlob);

impl Word for PathGlob {
    const FORMAT: &'static str = "path-pattern";
    const SHOWN: &'static str = "`\"/in/**/*.csv\"`";

    fn read(text: &str) -> Result<Self, String> {
        let rules = Rules::new(Rights::NONE).rule(text, Rights::NONE);
        rules
            .map(|_| Self(text.to_owned()))
            .map_err(|error| error.to_string())
    }
}

/// A pattern for names, `*.part`.
#[derive(Clone, Debug)]
pub(super) struct NameGlob(pub(super) String);
word!(NameGlob);

impl Word for NameGlob {
    const FORMAT: &'static str = "name-pattern";
    const SHOWN: &'static str = "`\"*.part\"`";

    fn read(text: &str) -> Result<Self, String> {
        let arrivals = Arrivals::on_close().temporary_name(text);
        arrivals
            .map(|_| Self(text.to_owned()))
            .map_err(|error| error.to_string())
    }
}
