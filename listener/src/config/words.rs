//! Values of a listener's file that are written as text and mean something: a server, a pattern, a name
//! made of others.

use std::time::Duration;

use ketch_client::config::JumpHost;
use ketch_client::{Destination, PublicKey, route};
use ketch_settings::{Address, Period, Size, Word, WordKind, word};

use crate::flow::item::FlowName;
use crate::schedule::Schedule;
use crate::select::{Rule, Select, SelectError, SelectSettings};
use crate::settle::Marker;
use crate::sink::template::Template;

/// All words of a listener's file.
pub(super) const WORDS: &[WordKind] = &[
    WordKind::of::<Address>(),
    WordKind::of::<Period>(),
    WordKind::of::<Size>(),
    WordKind::of::<Name>(),
    WordKind::of::<Interval>(),
    WordKind::of::<CronText>(),
    WordKind::of::<SourceUrl>(),
    WordKind::of::<HostKeyLine>(),
    WordKind::of::<ProxyUrl>(),
    WordKind::of::<Server>(),
    WordKind::of::<GlobPattern>(),
    WordKind::of::<RegexPattern>(),
    WordKind::of::<AntPattern>(),
    WordKind::of::<DoneFile>(),
    WordKind::of::<NameTemplate>(),
];

/// The name of a source, a flow or a sink.
#[derive(Clone, Debug)]
pub(super) struct Name(pub(super) FlowName);
word!(Name);

impl Word for Name {
    const FORMAT: &'static str = "name";
    const SHOWN: &'static str = "a name";

    fn read(text: &str) -> Result<Self, String> {
        FlowName::new(text).map(Self).map_err(|e| e.to_string())
    }
}

/// How often something is done, or that it is done when somebody asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval(pub(super) Option<Duration>);
word!(Interval);

impl Word for Interval {
    const FORMAT: &'static str = "interval";
    const SHOWN: &'static str = "a time, `\"5s\"`, or `\"manual\"`";

    fn read(text: &str) -> Result<Self, String> {
        if text == "manual" {
            return Ok(Self(None));
        }
        match Period::read(text) {
            Ok(period) if period.0.is_zero() => Err("it must be more than zero".to_owned()),
            Ok(period) => Ok(Self(Some(period.0))),
            Err(_) => {
                Err("this is no time, such as \"5s\" or \"15min\", and not manual".to_owned())
            }
        }
    }
}

/// Times of day.
#[derive(Clone, Debug)]
pub(super) struct CronText(pub(super) String);
word!(CronText);

impl Word for CronText {
    const FORMAT: &'static str = "cron";
    const SHOWN: &'static str = "`\"0 6 * * Mon-Fri\"`";

    fn read(text: &str) -> Result<Self, String> {
        let schedule = Schedule::new(text, None);
        schedule
            .map(|_| Self(text.to_owned()))
            .map_err(|error| error.to_string())
    }
}

/// A directory on a server.
#[derive(Clone, Debug)]
pub(super) struct SourceUrl(pub(super) Destination);
word!(SourceUrl);

impl Word for SourceUrl {
    const FORMAT: &'static str = "sftp-url";
    const SHOWN: &'static str = "`\"sftp://user@host:22/path\"`";

    fn read(text: &str) -> Result<Self, String> {
        let destination: Destination = text.parse().map_err(|error| format!("{error}"))?;
        Ok(Self(destination))
    }
}

/// A host's public key, alone or with hosts in front as `known_hosts` has it.
#[derive(Clone, Debug)]
pub(super) struct HostKeyLine(pub(super) PublicKey);
word!(HostKeyLine);

impl Word for HostKeyLine {
    const FORMAT: &'static str = "host-key";
    const SHOWN: &'static str = "`\"ssh-ed25519 AAAA…\"`";

    fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with('@') {
            return Err("marks such as @revoked belong into a file of known_hosts".to_owned());
        }
        let key = PublicKey::from_line(text).or_else(|error| {
            // `host algorithm key`
            let behind = text
                .split_once([' ', '\t'])
                .map(|(_, behind)| behind.trim());
            behind
                .and_then(|line| PublicKey::from_line(line).ok())
                .ok_or(error)
        });
        let key = key.map_err(|error| error.to_string())?;
        match key.certificate() {
            Some(_) => Err("this is a certificate: a key is wanted".to_owned()),
            None => Ok(Self(key)),
        }
    }
}

/// A proxy, or the one that the environment names.
#[derive(Clone, Debug)]
pub(super) enum ProxyUrl {
    Environment,
    At(route::ProxyUrl),
}
word!(ProxyUrl);

impl Word for ProxyUrl {
    const FORMAT: &'static str = "proxy-url";
    const SHOWN: &'static str = "`\"socks5://host:1080\"`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "env" => Ok(Self::Environment),
            text => text.parse().map(Self::At).map_err(|error| match error {
                route::ProxyUrlError::Password => {
                    "a password does not belong into a URL: use `proxy_password`".to_owned()
                }
                error => error.to_string(),
            }),
        }
    }
}

/// A server on the way to another.
#[derive(Clone, Debug)]
pub(super) struct Server(pub(super) JumpHost);
word!(Server);

impl Word for Server {
    const FORMAT: &'static str = "server";
    const SHOWN: &'static str = "`\"user@host:22\"`";

    fn read(text: &str) -> Result<Self, String> {
        match JumpHost::list(text).as_deref() {
            Ok([server]) => Ok(Self(server.clone())),
            Ok(_) => Err("this is more than one server".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A pattern for names or paths.
#[derive(Clone, Debug)]
pub(super) struct GlobPattern(pub(super) String);
word!(GlobPattern);

impl Word for GlobPattern {
    const FORMAT: &'static str = "glob";
    const SHOWN: &'static str = "`\"*.csv\"`";

    fn read(text: &str) -> Result<Self, String> {
        selects(Rule::Glob(text.to_owned())).map(|()| Self(text.to_owned()))
    }
}

/// A regular expression for paths.
#[derive(Clone, Debug)]
pub(super) struct RegexPattern(pub(super) String);
word!(RegexPattern);

impl Word for RegexPattern {
    const FORMAT: &'static str = "path-regex";
    const SHOWN: &'static str = "`'in/[0-9]+\\.csv'`";

    fn read(text: &str) -> Result<Self, String> {
        selects(Rule::Regex(text.to_owned())).map(|()| Self(text.to_owned()))
    }
}

/// A pattern of Ant for paths.
#[derive(Clone, Debug)]
pub(super) struct AntPattern(pub(super) String);
word!(AntPattern);

impl Word for AntPattern {
    const FORMAT: &'static str = "ant-pattern";
    const SHOWN: &'static str = "`\"**/*.csv\"`";

    fn read(text: &str) -> Result<Self, String> {
        selects(Rule::Ant(text.to_owned())).map(|()| Self(text.to_owned()))
    }
}

/// Whether it is a pattern.
fn selects(rule: Rule) -> Result<(), String> {
    let settings = SelectSettings {
        include: vec![rule],
        ..SelectSettings::default()
    };
    match Select::new(settings) {
        Ok(_) => Ok(()),
        Err(SelectError::Pattern { source, .. }) => {
            // It spans lines, and the last one says what is wrong.
            let text = source.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            let last = last.strip_prefix("error: ").unwrap_or(last);
            Err(format!("this is no pattern: {last}"))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// What a done file is called.
#[derive(Clone, Debug)]
pub(super) struct DoneFile(pub(super) Marker);
word!(DoneFile);

impl Word for DoneFile {
    const FORMAT: &'static str = "done-file";
    const SHOWN: &'static str = "`\"{name}.done\"`";

    fn read(text: &str) -> Result<Self, String> {
        Marker::new(text).map(Self).map_err(|e| e.to_string())
    }
}

/// A name made of an item.
#[derive(Clone, Debug)]
pub(super) struct NameTemplate(pub(super) Template);
word!(NameTemplate);

impl Word for NameTemplate {
    const FORMAT: &'static str = "name-template";
    const SHOWN: &'static str = "`\"{date:%Y/%m}/{name}\"`";

    fn read(text: &str) -> Result<Self, String> {
        Template::parse(text).map(Self).map_err(|e| e.to_string())
    }
}
