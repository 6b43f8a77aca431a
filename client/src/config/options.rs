//! Options as they stand in files: parsed, the first value of each kept, nothing expanded.

use std::time::Duration;

use super::algorithms::AlgorithmSpec;
use super::error::Fault;
use super::keyword::Keyword;
use super::line::Statement;
use crate::route::AddressFamily;

/// Most files of one kind: keys, certificates, files of known hosts (OpenSSH: 100 and 32).
pub(super) const FILES_OF_A_KIND_MAX: usize = 100;
/// Most variables and patterns of them.
pub(super) const VARIABLES_MAX: usize = 256;
/// Least bytes after which keys may be exchanged anew.
const REKEY_BYTES_MIN: u64 = 16;

/// What becomes of a host whose key is not known (`StrictHostKeyChecking`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HostKeyChecking {
    /// It is refused.
    Yes,
    /// It is accepted and remembered.
    AcceptNew,
    /// The user is asked.
    Ask,
    /// Everything is accepted, a changed key too.
    Off,
}

/// What becomes of further keys that a host proves to have (`UpdateHostKeys`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpdateHostKeys {
    /// They are left alone.
    No,
    /// They are learnt, and those that it no longer has are forgotten.
    Yes,
    /// The user is asked first.
    Ask,
}

/// The first values found.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) address_family: Option<AddressFamily>,
    pub(super) batch_mode: Option<bool>,
    pub(super) bind_address: Option<String>,
    pub(super) ca_signature_algorithms: Option<AlgorithmSpec>,
    pub(super) certificate_files: Vec<String>,
    pub(super) ciphers: Option<AlgorithmSpec>,
    pub(super) compression: Option<bool>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) connection_attempts: Option<u32>,
    pub(super) global_known_hosts: Option<Vec<String>>,
    pub(super) hash_known_hosts: Option<bool>,
    pub(super) host_key_algorithms: Option<AlgorithmSpec>,
    pub(super) host_key_alias: Option<String>,
    pub(super) host_name: Option<String>,
    pub(super) identities_only: Option<bool>,
    pub(super) identity_agent: Option<String>,
    pub(super) identity_files: Vec<String>,
    pub(super) ignore_unknown: Option<String>,
    pub(super) kbd_interactive_authentication: Option<bool>,
    pub(super) kex_algorithms: Option<AlgorithmSpec>,
    pub(super) macs: Option<AlgorithmSpec>,
    pub(super) password_authentication: Option<bool>,
    pub(super) password_prompts: Option<u32>,
    pub(super) port: Option<u16>,
    pub(super) preferred_authentications: Option<String>,
    /// `none` included.
    pub(super) proxy_command: Option<String>,
    /// `none` included.
    pub(super) proxy_jump: Option<String>,
    pub(super) pubkey_accepted_algorithms: Option<AlgorithmSpec>,
    pub(super) pubkey_authentication: Option<bool>,
    pub(super) rekey_bytes: Option<u64>,
    pub(super) rekey_interval: Option<Duration>,
    pub(super) required_rsa_size: Option<u32>,
    pub(super) revoked_host_keys: Option<String>,
    pub(super) send_env: Vec<String>,
    pub(super) server_alive_count_max: Option<u32>,
    pub(super) server_alive_interval: Option<Duration>,
    pub(super) set_env: Vec<(String, String)>,
    pub(super) strict_host_key_checking: Option<HostKeyChecking>,
    pub(super) tag: Option<String>,
    pub(super) update_host_keys: Option<UpdateHostKeys>,
    pub(super) user: Option<String>,
    pub(super) user_known_hosts: Option<Vec<String>>,
}

const YES_NO: &[(&str, bool)] = &[
    ("yes", true),
    ("true", true),
    ("no", false),
    ("false", false),
];

impl Options {
    /// Takes in one line. What stands in a block that does not apply is checked all the same, as
    /// OpenSSH does it: it would be wrong for some other host.
    ///
    /// `Host`, `Match` and `Include` are not for this function.
    pub(super) fn take(
        &mut self,
        keyword: Keyword,
        statement: &Statement<'_>,
        active: bool,
    ) -> Result<(), Fault> {
        if statement.rest.is_empty() {
            return Err(Fault::NoValue);
        }
        match keyword {
            Keyword::ProxyCommand => {
                // Whichever of the two comes first counts.
                let free = self.proxy_jump.is_none();
                set(
                    &mut self.proxy_command,
                    active && free,
                    statement.tail().to_owned(),
                );
                return Ok(());
            }
            Keyword::ProxyJump => {
                let free = self.proxy_command.is_none();
                let value = statement.tail();
                let value = value.split('#').next().unwrap_or_default().trim_end();
                set(&mut self.proxy_jump, active && free, value.to_owned());
                return Ok(());
            }
            _ => {}
        }
        let mut words = Words::of(statement)?;
        self.take_words(keyword, &mut words, active)?;
        words.finish()
    }

    fn take_words(
        &mut self,
        keyword: Keyword,
        words: &mut Words,
        active: bool,
    ) -> Result<(), Fault> {
        match keyword {
            Keyword::AddressFamily => {
                let known = [
                    ("any", AddressFamily::Any),
                    ("inet", AddressFamily::Inet),
                    ("inet6", AddressFamily::Inet6),
                ];
                let value = words.one_of(&known, "any, inet or inet6")?;
                set(&mut self.address_family, active, value);
            }
            Keyword::BatchMode => set(&mut self.batch_mode, active, words.yes_no()?),
            Keyword::BindAddress => set(&mut self.bind_address, active, words.text()?),
            Keyword::CaSignatureAlgorithms => set(
                &mut self.ca_signature_algorithms,
                active,
                AlgorithmSpec::of_keys(&words.text()?),
            ),
            Keyword::CertificateFile => {
                append(&mut self.certificate_files, active, words.text()?)?;
            }
            Keyword::Ciphers => set(
                &mut self.ciphers,
                active,
                AlgorithmSpec::new(&words.text()?),
            ),
            Keyword::Compression => {
                let value = words.one_of(&[("yes", true), ("no", false)], "yes or no")?;
                set(&mut self.compression, active, value);
            }
            Keyword::ConnectTimeout => set_time(&mut self.connect_timeout, active, words.time()?),
            Keyword::ConnectionAttempts => {
                set(&mut self.connection_attempts, active, words.count()?);
            }
            Keyword::GlobalKnownHostsFile => {
                let files = words.files()?;
                set(&mut self.global_known_hosts, active, files);
            }
            Keyword::HashKnownHosts => set(&mut self.hash_known_hosts, active, words.yes_no()?),
            Keyword::HostKeyAlgorithms => set(
                &mut self.host_key_algorithms,
                active,
                AlgorithmSpec::of_keys(&words.text()?),
            ),
            Keyword::HostKeyAlias => set(&mut self.host_key_alias, active, words.text()?),
            Keyword::HostName => set(&mut self.host_name, active, words.text()?),
            Keyword::IdentitiesOnly => set(&mut self.identities_only, active, words.yes_no()?),
            Keyword::IdentityAgent => set(&mut self.identity_agent, active, words.text()?),
            Keyword::IdentityFile => append(&mut self.identity_files, active, words.text()?)?,
            Keyword::IgnoreUnknown => set(&mut self.ignore_unknown, active, words.text()?),
            Keyword::KbdInteractiveAuthentication => {
                set(
                    &mut self.kbd_interactive_authentication,
                    active,
                    words.yes_no()?,
                );
            }
            Keyword::KexAlgorithms => {
                set(
                    &mut self.kex_algorithms,
                    active,
                    AlgorithmSpec::new(&words.text()?),
                );
            }
            Keyword::Macs => set(&mut self.macs, active, AlgorithmSpec::new(&words.text()?)),
            Keyword::NumberOfPasswordPrompts => {
                set(&mut self.password_prompts, active, words.count()?);
            }
            Keyword::PasswordAuthentication => {
                set(&mut self.password_authentication, active, words.yes_no()?);
            }
            Keyword::Port => set(&mut self.port, active, words.port()?),
            Keyword::PreferredAuthentications => {
                set(&mut self.preferred_authentications, active, words.text()?);
            }
            Keyword::PubkeyAcceptedAlgorithms => set(
                &mut self.pubkey_accepted_algorithms,
                active,
                AlgorithmSpec::of_keys(&words.text()?),
            ),
            Keyword::PubkeyAuthentication => {
                let bound = [("unbound", true), ("host-bound", true)];
                let value =
                    words.one_of(&[YES_NO, &bound].concat(), "yes, no, unbound or host-bound")?;
                set(&mut self.pubkey_authentication, active, value);
            }
            Keyword::RekeyLimit => self.take_rekey_limit(words, active)?,
            Keyword::RequiredRsaSize => set(&mut self.required_rsa_size, active, words.count()?),
            Keyword::RevokedHostKeys => set(&mut self.revoked_host_keys, active, words.text()?),
            Keyword::SendEnv => self.take_send_env(words, active)?,
            Keyword::ServerAliveCountMax => {
                set(&mut self.server_alive_count_max, active, words.count()?);
            }
            Keyword::ServerAliveInterval => {
                set_time(&mut self.server_alive_interval, active, words.time()?);
            }
            Keyword::SetEnv => self.take_set_env(words, active)?,
            Keyword::StrictHostKeyChecking => {
                let known = [
                    ("yes", HostKeyChecking::Yes),
                    ("true", HostKeyChecking::Yes),
                    ("no", HostKeyChecking::Off),
                    ("false", HostKeyChecking::Off),
                    ("off", HostKeyChecking::Off),
                    ("ask", HostKeyChecking::Ask),
                    ("accept-new", HostKeyChecking::AcceptNew),
                ];
                let value = words.one_of(&known, "yes, no, ask or accept-new")?;
                set(&mut self.strict_host_key_checking, active, value);
            }
            Keyword::Tag => set(&mut self.tag, active, words.text()?),
            Keyword::UpdateHostKeys => {
                let known = [
                    ("yes", UpdateHostKeys::Yes),
                    ("true", UpdateHostKeys::Yes),
                    ("no", UpdateHostKeys::No),
                    ("false", UpdateHostKeys::No),
                    ("ask", UpdateHostKeys::Ask),
                ];
                let value = words.one_of(&known, "yes, no or ask")?;
                set(&mut self.update_host_keys, active, value);
            }
            Keyword::User => set(&mut self.user, active, words.text()?),
            Keyword::UserKnownHostsFile => {
                let files = words.files()?;
                set(&mut self.user_known_hosts, active, files);
            }
            Keyword::Ignored | Keyword::Unsupported => words.rest.clear(),
            Keyword::Host
            | Keyword::Match
            | Keyword::Include
            | Keyword::ProxyCommand
            | Keyword::ProxyJump => {}
        }
        Ok(())
    }

    fn take_rekey_limit(&mut self, words: &mut Words, active: bool) -> Result<(), Fault> {
        const WANTED: &str = "`default` or bytes such as 1G, 16 at least, and then a time or none";
        let text = words.text()?;
        let bytes = match text.as_str() {
            "default" => Some(0),
            text => scaled(text).filter(|bytes| *bytes == 0 || *bytes >= REKEY_BYTES_MIN),
        };
        let bytes = bytes.ok_or_else(|| value(text, WANTED))?;
        set(&mut self.rekey_bytes, active, bytes);
        if words.rest.first().is_some_and(|word| word == "none") {
            words.rest.remove(0); // says nothing, not even that there is none
        } else if !words.rest.is_empty() {
            let time = words.time()?;
            set_time(&mut self.rekey_interval, active, time);
        }
        Ok(())
    }

    /// Each line adds to the list, and `-name` takes away.
    fn take_send_env(&mut self, words: &mut Words, active: bool) -> Result<(), Fault> {
        while let Some(word) = words.next() {
            if word.is_empty() || word.contains('=') {
                return Err(value(word, "names of variables"));
            }
            if !active {
                continue;
            }
            match word.strip_prefix('-') {
                Some(removed) => self
                    .send_env
                    .retain(|name| !super::pattern::matches(removed, name)),
                None if self.send_env.len() == VARIABLES_MAX => {
                    return Err(Fault::TooMany {
                        most: VARIABLES_MAX,
                    });
                }
                None => self.send_env.push(word),
            }
        }
        Ok(())
    }

    /// The first line with variables is the only one.
    fn take_set_env(&mut self, words: &mut Words, active: bool) -> Result<(), Fault> {
        let is_first = self.set_env.is_empty();
        while let Some(word) = words.next() {
            let Some((name, text)) = word.split_once('=') else {
                return Err(value(word, "NAME=VALUE"));
            };
            let is_new = self.set_env.iter().all(|(known, _)| known != name);
            if !active || !is_first || !is_new {
                continue;
            }
            if self.set_env.len() == VARIABLES_MAX {
                return Err(Fault::TooMany {
                    most: VARIABLES_MAX,
                });
            }
            self.set_env.push((name.to_owned(), text.to_owned()));
        }
        Ok(())
    }
}

/// The arguments of a line, taken from the front.
struct Words {
    rest: Vec<String>,
}

impl Words {
    fn of(statement: &Statement<'_>) -> Result<Self, Fault> {
        let rest = statement.words().map_err(|_| Fault::OpenQuote)?;
        Ok(Self { rest })
    }

    fn next(&mut self) -> Option<String> {
        (!self.rest.is_empty()).then(|| self.rest.remove(0))
    }

    fn finish(self) -> Result<(), Fault> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(Fault::TooMuch),
        }
    }

    fn text(&mut self) -> Result<String, Fault> {
        self.next()
            .filter(|word| !word.is_empty())
            .ok_or(Fault::NoValue)
    }

    fn one_of<T: Copy>(&mut self, known: &[(&str, T)], wanted: &'static str) -> Result<T, Fault> {
        let text = self.text()?;
        let found = known
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(&text));
        match found {
            Some((_, meaning)) => Ok(*meaning),
            None => Err(value(text, wanted)),
        }
    }

    fn yes_no(&mut self) -> Result<bool, Fault> {
        self.one_of(YES_NO, "yes or no")
    }

    fn count(&mut self) -> Result<u32, Fault> {
        let text = self.text()?;
        number(&text)
            .filter(|count| *count <= i32::MAX.unsigned_abs())
            .ok_or_else(|| value(text, "a number"))
    }

    fn port(&mut self) -> Result<u16, Fault> {
        let text = self.text()?;
        number(&text)
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| value(text, "a number from 1 to 65535"))
    }

    fn time(&mut self) -> Result<Option<Duration>, Fault> {
        let text = self.text()?;
        if text == "none" {
            return Ok(None);
        }
        match seconds(&text) {
            Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
            None => Err(value(text, "seconds, a time such as 1h30m, or none")),
        }
    }

    fn files(&mut self) -> Result<Vec<String>, Fault> {
        let files = std::mem::take(&mut self.rest);
        if files.is_empty() || files.iter().any(String::is_empty) {
            return Err(Fault::NoValue);
        }
        if files.len() > FILES_OF_A_KIND_MAX {
            return Err(Fault::TooMany {
                most: FILES_OF_A_KIND_MAX,
            });
        }
        let has_none = files.iter().any(|file| file.eq_ignore_ascii_case("none"));
        match has_none && files.len() > 1 {
            true => Err(value("none".to_owned(), "it alone, or files")),
            false => Ok(files),
        }
    }
}

fn value(value: String, wanted: &'static str) -> Fault {
    Fault::Value { value, wanted }
}

fn set<T>(slot: &mut Option<T>, active: bool, value: T) {
    if active && slot.is_none() {
        *slot = Some(value);
    }
}

/// `none` says nothing, not even that there is none: a later line may.
fn set_time(slot: &mut Option<Duration>, active: bool, time: Option<Duration>) {
    if let Some(time) = time {
        set(slot, active, time);
    }
}

fn append(list: &mut Vec<String>, active: bool, file: String) -> Result<(), Fault> {
    if active && !list.contains(&file) {
        if list.len() == FILES_OF_A_KIND_MAX {
            return Err(Fault::TooMany {
                most: FILES_OF_A_KIND_MAX,
            });
        }
        list.push(file);
    }
    Ok(())
}

fn number(text: &str) -> Option<u32> {
    // `parse` would take a plus sign.
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Seconds of a time such as `90`, `1m30s` or `2h` (sshd_config(5), "TIME FORMATS").
fn seconds(text: &str) -> Option<u64> {
    const MOST: u64 = i32::MAX.unsigned_abs() as u64;
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (digits, behind) = rest.split_at(end);
        let count: u64 = digits.parse().ok()?;
        let mut behind = behind.chars();
        let unit = match behind.next().map(|c| c.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 60 * 60,
            Some('d') => 24 * 60 * 60,
            Some('w') => 7 * 24 * 60 * 60,
            Some(_) => return None,
        };
        total = total.checked_add(count.checked_mul(unit)?)?;
        rest = behind.as_str();
    }
    (!text.is_empty() && total <= MOST).then_some(total)
}

/// Bytes such as `512`, `64K`, `1.5M` or `2G`.
fn scaled(text: &str) -> Option<u64> {
    let last = text.chars().next_back()?;
    let shift = match last.to_ascii_uppercase() {
        'B' => Some(0),
        'K' => Some(10),
        'M' => Some(20),
        'G' => Some(30),
        'T' => Some(40),
        'P' => Some(50),
        'E' => Some(60),
        _ => None,
    };
    let (digits, shift) = match shift {
        Some(shift) => (text.get(..text.len() - 1)?, shift),
        None => (text, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: u64 = match whole {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let bytes = whole.checked_mul(1 << shift)?;
    // Digits behind the point beyond the sixth are less than anybody means.
    let fraction = fraction.get(..fraction.len().min(6))?;
    let part: u64 = match fraction {
        "" => 0,
        digits => digits.parse::<u64>().ok()?,
    };
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let part = (u128::from(part) << shift) / u128::from(scale);
    bytes.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_sums_of_numbers_with_units() {
        for (text, expected) in [
            ("90", Some(90)),
            ("0", Some(0)),
            ("1m30", Some(90)),
            ("1h1m1s", Some(3661)),
            ("2D", Some(172_800)),
            ("1w", Some(604_800)),
            ("", None),
            ("m", None),
            ("1y", None),
            ("-1", None),
            ("99999999999", None),
        ] {
            assert_eq!(seconds(text), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, expected) in [
            ("512", Some(512)),
            ("1k", Some(1024)),
            ("1.5M", Some(1_572_864)),
            ("2G", Some(2 << 30)),
            ("16E", None),
            ("G", None),
            ("", None),
            ("1,5M", None),
        ] {
            assert_eq!(scaled(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_never_panic(text in "[0-9.a-zA-Z+-]{0,30}") {
            let _ = (seconds(&text), scaled(&text), number(&text));
        }
    }
}
