//! Reading files: bounds, permissions, `Host` and `Include`; everything else goes to [`Options`].

use std::borrow::Cow;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Fault, Place, Warning};
use super::expand::Tokens;
use super::keyword::Keyword;
use super::line::Statement;
use super::local::Local;
use super::options::Options;
use super::{
    FILE_LEN_MAX, FILES_MAX, INCLUDE_DEPTH_MAX, LINE_LEN_MAX, WARNINGS_MAX, conditions, include,
    pattern,
};
use crate::connect::DEFAULT_PORT;
use crate::platform::user_files;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a> {
    /// The host as the user named it.
    pub(super) host: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) port: Option<u16>,
}

/// Whose a file is: relative paths count from their directory, and only the user's has `~`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    User,
    Machine,
}

/// How a file is read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    owner: Owner,
    /// Included from a block that does not apply: nothing in it does.
    never: bool,
    depth: usize,
}

/// A pass over all files.
pub(super) struct Load<'a> {
    pub(super) local: &'a Local,
    pub(super) query: Query<'a>,
    /// What `Host` patterns are matched against: the host as named, in the final pass its name.
    pub(super) host: String,
    pub(super) options: Options,
    pub(super) is_final_pass: bool,
    pub(super) wants_final_pass: bool,
    pub(super) allow_exec: bool,
    pub(super) warnings: Vec<Warning>,
    files_read: usize,
}

impl<'a> Load<'a> {
    pub(super) fn new(local: &'a Local, query: Query<'a>, allow_exec: bool) -> Self {
        let options = Options {
            user: query.user.map(str::to_owned),
            port: query.port,
            ..Options::default()
        };
        Self {
            local,
            query,
            host: query.host.to_owned(),
            options,
            is_final_pass: false,
            wants_final_pass: false,
            allow_exec,
            warnings: Vec::new(),
            files_read: 0,
        }
    }

    /// A second pass for `Match final`: what was found stays, and names are settled.
    pub(super) fn start_final_pass(&mut self, host: String) {
        self.options.host_name = Some(host.clone());
        self.host = host;
        self.is_final_pass = true;
        self.files_read = 0;
        self.warnings.clear(); // the second pass says them again
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        match self.warnings.len() {
            0..WARNINGS_MAX => self.warnings.push(warning),
            WARNINGS_MAX => self.warnings.push(Warning::More),
            _ => {}
        }
    }

    /// An option given by the program: `Key=Value` or `Key Value`.
    pub(super) fn option(&mut self, text: &str) -> Result<(), ConfigError> {
        let Some(statement) = Statement::of(text) else {
            return Ok(());
        };
        let reading = Reading {
            owner: Owner::User,
            never: false,
            depth: 0,
        };
        self.statement(&statement, &Place::Option, reading, &mut true)
    }

    /// A file from which reading starts; one that does not exist says nothing, unless it `must`.
    pub(super) fn top(
        &mut self,
        path: &Path,
        owner: Owner,
        checks_mode: bool,
        must: bool,
    ) -> Result<(), ConfigError> {
        let reading = Reading {
            owner,
            never: false,
            depth: 0,
        };
        match self.file(path, reading, checks_mode, &mut true) {
            Err(ConfigError::Unreadable { source, .. })
                if !must && source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn file(
        &mut self,
        path: &Path,
        reading: Reading,
        checks_mode: bool,
        active: &mut bool,
    ) -> Result<(), ConfigError> {
        let too_long = || ConfigError::TooLong {
            file: path.to_path_buf(),
        };
        self.files_read += 1;
        if self.files_read > FILES_MAX || reading.depth > INCLUDE_DEPTH_MAX {
            return Err(too_long());
        }
        let bytes = read(path, checks_mode)?;
        for (line, number) in bytes.split(|&b| b == b'\n').zip(1..) {
            if line.len() > LINE_LEN_MAX {
                return Err(too_long());
            }
            let text = String::from_utf8_lossy(line);
            let Some(statement) = Statement::of(&text) else {
                continue;
            };
            let at = Place::Line {
                file: path.to_path_buf(),
                line: number,
            };
            if matches!(text, Cow::Owned(_)) {
                self.warn(Warning::NotText { at: at.clone() });
            }
            self.statement(&statement, &at, reading, active)?;
        }
        Ok(())
    }

    fn statement(
        &mut self,
        statement: &Statement<'_>,
        at: &Place,
        reading: Reading,
        active: &mut bool,
    ) -> Result<(), ConfigError> {
        let wrong = |fault| ConfigError::Line {
            at: at.clone(),
            keyword: statement.keyword.clone(),
            fault,
        };
        let Some(keyword) = Keyword::of(&statement.keyword) else {
            let ignored = self.options.ignore_unknown.clone().unwrap_or_default();
            let ignored = ignored.to_ascii_lowercase();
            if ignored.is_empty() || !pattern::list_matches(&ignored, &statement.keyword) {
                self.warn(Warning::UnknownKeyword {
                    at: at.clone(),
                    keyword: statement.keyword.clone(),
                });
            }
            return Ok(());
        };
        let in_file = matches!(at, Place::Line { .. });
        match keyword {
            Keyword::Host | Keyword::Match | Keyword::Include if !in_file => {
                Err(wrong(Fault::OnlyInFiles))
            }
            Keyword::Host | Keyword::Match | Keyword::Include if statement.rest.is_empty() => {
                Err(wrong(Fault::NoValue))
            }
            Keyword::Host => {
                let applies = self.host_applies(statement).map_err(wrong)?;
                *active = applies && !reading.never;
                Ok(())
            }
            Keyword::Match => {
                let met = conditions::are_met(self, statement.rest, at).map_err(wrong)?;
                *active = met && !reading.never;
                Ok(())
            }
            Keyword::Include => self.include(statement, at, reading, *active),
            Keyword::Unsupported => {
                let is_off = |word: &str| {
                    ["no", "none", "false"]
                        .iter()
                        .any(|off| off.eq_ignore_ascii_case(word))
                };
                if *active && !is_off(statement.tail()) {
                    self.warn(Warning::Unsupported {
                        at: at.clone(),
                        keyword: statement.keyword.clone(),
                    });
                }
                Ok(())
            }
            Keyword::Ignored => Ok(()),
            _ => self
                .options
                .take(keyword, statement, *active)
                .map_err(wrong),
        }
    }

    /// Whether a `Host` line means the host; a match of a negated pattern decides against it.
    fn host_applies(&self, statement: &Statement<'_>) -> Result<bool, Fault> {
        let mut applies = false;
        for word in statement.words().map_err(|_| Fault::OpenQuote)? {
            if word.is_empty() {
                return Err(Fault::NoValue);
            }
            let (negated, pattern) = match word.strip_prefix('!') {
                Some(pattern) => (true, pattern),
                None => (false, word.as_str()),
            };
            if pattern::matches(pattern, &self.host) {
                if negated {
                    return Ok(false);
                }
                applies = true;
            }
        }
        Ok(applies)
    }

    fn include(
        &mut self,
        statement: &Statement<'_>,
        at: &Place,
        reading: Reading,
        active: bool,
    ) -> Result<(), ConfigError> {
        let wrong = |fault| ConfigError::Line {
            at: at.clone(),
            keyword: statement.keyword.clone(),
            fault,
        };
        for word in statement.words().map_err(|_| wrong(Fault::OpenQuote))? {
            if word.is_empty() {
                return Err(wrong(Fault::NoValue));
            }
            let Some(pattern) = self.anchored(&word, reading.owner).map_err(wrong)? else {
                continue; // there is no directory that it could be in
            };
            for path in include::files(&pattern, FILES_MAX) {
                let included = Reading {
                    owner: reading.owner,
                    never: reading.never || !active,
                    depth: reading.depth + 1,
                };
                // Its `Host` and `Match` lines end with it.
                match self.file(&path, included, true, &mut active.clone()) {
                    Err(ConfigError::Unreadable { source, .. })
                        if source.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// The whole path of a pattern to include.
    fn anchored(&self, word: &str, owner: Owner) -> Result<Option<PathBuf>, Fault> {
        if word.starts_with('~') {
            return match owner {
                Owner::Machine => Err(Fault::Tilde),
                Owner::User => Ok(Some(super::expand::tilde(word, self.local)?.into())),
            };
        }
        if Path::new(word).is_absolute() {
            return Ok(Some(word.into()));
        }
        let dir = match owner {
            Owner::User => self.local.ssh_dir(),
            Owner::Machine => self.local.machine_dir.clone(),
        };
        Ok(dir.map(|dir| dir.join(word)))
    }

    /// The name to connect to, as far as it is known by now.
    pub(super) fn host_so_far(&self) -> Result<String, Fault> {
        match &self.options.host_name {
            Some(name) if self.is_final_pass => Ok(name.clone()),
            Some(name) => {
                let tokens = Tokens {
                    known: vec![('h', self.query.host)],
                };
                Ok(tokens.percent(name)?)
            }
            None => Ok(self.host.clone()),
        }
    }

    /// The user to log in as, as far as it is known by now.
    pub(super) fn user_so_far(&self) -> String {
        let user = self.options.user.as_ref();
        user.unwrap_or(&self.local.user).clone()
    }

    pub(super) fn port_so_far(&self) -> u16 {
        self.options.port.unwrap_or(DEFAULT_PORT)
    }
}

/// Reads a regular file within bounds.
fn read(path: &Path, checks_mode: bool) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        file: path.to_path_buf(),
        source,
    };
    let file = user_files::open_for_reading(path).map_err(unreadable)?;
    // The questions go to the open file: nobody can swap it in between.
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(ConfigError::NotAFile {
            file: path.to_path_buf(),
        });
    }
    if checks_mode && user_files::may_be_written_by_others(&metadata) {
        return Err(ConfigError::OpenToOthers {
            file: path.to_path_buf(),
        });
    }
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    match u64::try_from(bytes.len()) {
        Ok(0..=FILE_LEN_MAX) => Ok(bytes),
        _ => Err(ConfigError::TooLong {
            file: path.to_path_buf(),
        }),
    }
}
