//! `Match`: whether a block applies (ssh_config(5), `Match`).

use super::error::{Fault, Place, Warning};
use super::expand::Tokens;
use super::line::{Delimited, words};
use super::load::Load;
use super::pattern;

/// Conditions that OpenSSH knows and ketch does not: they count as not met.
const UNSUPPORTED: [&str; 4] = ["localnetwork", "version", "sessiontype", "command"];

/// Whether all conditions of a `Match` are met.
pub(super) fn are_met(load: &mut Load<'_>, text: &str, at: &Place) -> Result<bool, Fault> {
    let mut parts = Delimited::new(text);
    let mut met = true;
    let mut count = 0;
    while let Some(written) = parts.next().filter(|word| !word.is_empty()) {
        if written.starts_with('#') {
            break;
        }
        let (negated, name) = match written.strip_prefix('!') {
            Some(name) => (true, name),
            None => (false, written.as_str()),
        };
        let name = name.to_ascii_lowercase();
        if name == "all" {
            let behind = parts.next().unwrap_or_default();
            // One other condition may stand in front: `canonical all` and `final all` are common.
            if count > 1 || !(behind.is_empty() || behind.starts_with('#')) {
                return Err(Fault::Conditions);
            }
            return Ok(met && !negated);
        }
        count += 1;
        if name == "canonical" || name == "final" {
            if name == "final" {
                load.wants_final_pass = true;
            }
            met &= load.is_final_pass != negated;
            continue;
        }
        let value = parts.next().unwrap_or_default();
        if value.is_empty() || value.starts_with('#') {
            return Err(Fault::Condition(written));
        }
        let this = match name.as_str() {
            "host" => pattern::host_list_matches(&value, &load.host_so_far()?),
            "originalhost" => pattern::host_list_matches(&value, load.query.host),
            "user" => pattern::list_matches(&value, &load.user_so_far()),
            "localuser" => pattern::list_matches(&value, &load.local.user),
            "tagged" => {
                let tag = load.options.tag.clone().unwrap_or_default();
                pattern::list_matches(&value, &tag)
            }
            // What would not count must not run.
            "exec" if !met => continue,
            "exec" if load.allow_exec => exec(load, &value)?,
            "exec" => {
                load.warn(Warning::ExecNotAllowed { at: at.clone() });
                met = false;
                continue;
            }
            name if UNSUPPORTED.contains(&name) => {
                load.warn(Warning::Unsupported {
                    at: at.clone(),
                    keyword: written.clone(),
                });
                met = false;
                continue;
            }
            _ => return Err(Fault::Condition(written)),
        };
        met &= this != negated;
    }
    match count {
        0 => Err(Fault::Conditions),
        _ => Ok(met),
    }
}

/// Runs a command without a shell: its words are taken apart first and expanded then, so that
/// nothing in a name becomes a word or a command.
fn exec(load: &Load<'_>, text: &str) -> Result<bool, Fault> {
    let words = words(text).map_err(|_| Fault::OpenQuote)?;
    let host = load.host_so_far()?;
    let port = load.port_so_far().to_string();
    let user = load.user_so_far();
    let alias = load.options.host_key_alias.clone();
    let jump = load.options.proxy_jump.clone().unwrap_or_default();
    let hash = super::resolve::connection_hash(load.local, &host, &port, &user, &jump);
    let home = load.local.home.clone().unwrap_or_default();
    let home = home.to_string_lossy();
    let tokens = Tokens {
        known: vec![
            ('C', hash.as_str()),
            ('L', load.local.short_host_name()),
            ('d', &home),
            ('h', &host),
            ('j', &jump),
            ('k', alias.as_deref().unwrap_or(&host)),
            ('l', &load.local.host_name),
            ('n', load.query.host),
            ('p', &port),
            ('r', &user),
            ('u', &load.local.user),
            ('i', &load.local.user_id),
        ],
    };
    let mut argv = Vec::with_capacity(words.len());
    for word in &words {
        argv.push(tokens.percent(word)?);
    }
    Ok(super::exec::succeeds(&argv))
}
