//! From tables to what is started: reads secrets, and says what types cannot.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ketch_client::{Pattern, RemotePath};
use ketch_settings::{Fault, Faults, Period, Places, Secret, below, nearest};
use zeroize::Zeroizing;

use super::into::{Ends, only_reader};
use super::tables::{
    ActionName, AfterTable, ApiTable, DirectoryTimesName, FileTable, FirstName, FlowTable,
    IdentityName, OrderName, PushName, SettleRule, SettleTable, SourceTable, VersionsName,
};
use super::words::NameTemplate;
use super::{Api, FlowSetup, Ledger, ListenerFile, Setup, SourceSetup, loops};
use crate::detect::{DetectConfig, DirectoryTimes, First, Versions};
use crate::flow::settings::{After, DRAIN, FlowSettings, LEASE};
use crate::schedule::Schedule;
use crate::select::{DEPTH_MAX, Rule as Pick, Select, SelectSettings};
use crate::settle::{Rule, SettleConfig};
use crate::store::Order;

/// Where the HTTP interface listens, if the file does not say it.
const API_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8022);
/// Shortest lease: a third of it is time enough to reach the database.
const LEASE_MIN: Duration = Duration::from_secs(2);

/// Puts together what a file says.
pub(super) fn setup(file: &ListenerFile) -> Result<Setup, Faults> {
    let tables = &file.tables;
    let mut build = Build {
        places: &file.places,
        faults: Vec::new(),
        revision: DefaultHasher::new(),
    };
    let state = file.places.resolve(&tables.state);
    let ledger = build.ledger_of(tables);
    let api = build.api_of(tables);
    let mut sources = Vec::new();
    for (n, table) in tables.source.iter().enumerate() {
        sources.extend(build.source(&format!("source[{n}]"), table));
    }
    build.taken_names(
        "source",
        tables.source.iter().map(|each| each.name.0.as_str()),
    );
    build.taken_names("flow", tables.flow.iter().map(|each| each.name.0.as_str()));
    let lease = build.lease_of(tables);
    let drain = tables.shutdown.map_or(DRAIN, |period| period.0);
    let mut flows = Vec::new();
    for (n, table) in tables.flow.iter().enumerate() {
        let of = Ends {
            state: &state,
            sources: &sources,
            names: &tables.source,
        };
        let flow = build.flow(&format!("flow[{n}]"), table, &of, lease, drain);
        flows.extend(flow);
    }
    loops::check(&mut build, &tables.flow, &sources, &state);
    match (build.faults.is_empty(), ledger) {
        (true, Some(ledger)) => Ok(Setup {
            state,
            ledger,
            api,
            sources,
            flows,
            drain,
        }),
        _ => Err(Faults::new(file.places.path(), build.faults)),
    }
}

/// Reads one part of a file.
pub(super) fn part<T>(
    file: &ListenerFile,
    read: impl FnOnce(&mut Build<'_>, &FileTable) -> Option<T>,
) -> Result<Option<T>, Faults> {
    let mut build = Build {
        places: &file.places,
        faults: Vec::new(),
        revision: DefaultHasher::new(),
    };
    let part = read(&mut build, &file.tables);
    match build.faults.is_empty() {
        true => Ok(part),
        false => Err(Faults::new(file.places.path(), build.faults)),
    }
}

/// What is known while a setup is put together.
pub(super) struct Build<'a> {
    places: &'a Places,
    faults: Vec<Fault>,
    /// What the source or flow at hand is made of.
    revision: DefaultHasher,
}

impl<'a> Build<'a> {
    pub(super) fn fault(&mut self, key: &str, what: impl Into<String>) {
        self.faults.push(self.places.fault(key, what));
    }

    pub(super) fn hint(&mut self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.faults.push(self.places.fault(key, what).hint(hint));
    }

    pub(super) const fn places(&self) -> &'a Places {
        self.places
    }

    pub(super) const fn faults_len(&self) -> usize {
        self.faults.len()
    }

    /// A secret, if there is to be one. A change of it is a change of what it is for.
    pub(super) fn secret(
        &mut self,
        key: &str,
        secret: Option<&Secret>,
    ) -> Option<Zeroizing<String>> {
        match secret?.read(self.places) {
            Ok(text) => {
                text.as_str().hash(&mut self.revision);
                Some(text)
            }
            Err(what) => {
                self.fault(key, what);
                None
            }
        }
    }

    /// Notes what the thing at hand is made of.
    pub(super) fn made_of(&mut self, what: impl std::hash::Hash) {
        what.hash(&mut self.revision);
    }

    /// Names that stand in the file more than once.
    pub(super) fn taken_names<'n>(&mut self, list: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = BTreeMap::new();
        for (n, name) in names.enumerate() {
            if let Some(first) = seen.get(name) {
                let key = below(&format!("{list}[{n}]"), "name");
                self.fault(&key, format!("this name is taken by {list}[{first}]"));
            } else {
                seen.insert(name, n);
            }
        }
    }

    pub(super) fn ledger_of(&mut self, tables: &FileTable) -> Option<Ledger> {
        let Some(store) = &tables.store else {
            let state = self.places.resolve(&tables.state);
            return Some(Ledger::Sqlite(state.join("ledger.sqlite")));
        };
        if cfg!(not(feature = "postgres")) {
            self.fault(
                "store.postgres",
                "this program was built without PostgreSQL",
            );
        }
        let connect = self.secret("store.postgres", Some(&store.postgres))?;
        Some(Ledger::Postgres { connect })
    }

    /// For how long one of several listeners has what it took; `None` if there are no others.
    fn lease_of(&mut self, tables: &FileTable) -> Option<Duration> {
        let store = tables.store.as_ref()?;
        let lease = store.lease.map_or(LEASE, |period| period.0);
        if lease < LEASE_MIN {
            self.fault("store.lease", "2 s is the shortest");
        }
        Some(lease)
    }

    pub(super) fn api_of(&mut self, tables: &FileTable) -> Option<Api> {
        tables.api.as_ref().and_then(|table| self.api(table))
    }

    fn api(&mut self, table: &ApiTable) -> Option<Api> {
        let listen = table.listen.map_or(API_LISTEN, |word| word.0);
        let token = self.secret("api.token", table.token.as_ref());
        #[cfg(feature = "api")]
        if let Some(token) = &token
            && let Err(error) = crate::api::ApiToken::new(token, crate::api::Scope::Write)
        {
            self.fault("api.token", error.to_string());
        }
        if table.token.is_none() && !listen.ip().is_loopback() {
            self.hint(
                "api.listen",
                "anybody could ask there, as there is no `token`",
                "listen on 127.0.0.1, or set one",
            );
        }
        if cfg!(not(feature = "api")) {
            self.fault("api", "this program was built without the HTTP interface");
        }
        Some(Api { listen, token })
    }

    fn source(&mut self, key: &str, table: &SourceTable) -> Option<SourceSetup> {
        self.revision = DefaultHasher::new();
        self.made_of(format!("{table:?}"));
        let origin = self.origin(key, table)?;
        Some(SourceSetup {
            name: table.name.0.to_string(),
            origin,
            revision: self.revision.finish(),
        })
    }

    fn flow(
        &mut self,
        key: &str,
        table: &FlowTable,
        of: &Ends<'_>,
        lease: Option<Duration>,
        drain: Duration,
    ) -> Option<FlowSetup> {
        self.revision = DefaultHasher::new();
        self.made_of((format!("{table:?}"), lease, drain, of.state));
        let source = self.named(&below(key, "source"), table.source.0.as_str(), of);
        let path = self.path(&below(key, "path"), table.path.as_deref());
        let detect = self.detect(key, table);
        let settings = self.settings(key, table, of.state, lease, drain);
        self.taken_names(
            &below(key, "sink"),
            table.sink.iter().map(|sink| sink.name().0.as_str()),
        );
        let sinks = self.sinks(key, table, of);
        for (n, sink) in sinks.iter().flatten().enumerate() {
            if let Some(why) = sink.alone().filter(|_| lease.is_some()) {
                let key = format!("{}[{n}].exists", below(key, "sink"));
                let what = format!("not where several processes may share the ledger: {why}");
                self.hint(&key, what, "overwrite, unique, skip or error");
            }
        }
        let (source, path) = (source?, path?);
        self.made_of(source.revision);
        Some(FlowSetup {
            settings: settings?,
            detect: detect?,
            source: source.name.clone(),
            origin: source.origin.at(&path),
            path,
            push: match table.push {
                Some(push) => push == PushName::Auto,
                // Otherwise files would come before their time.
                None => table.schedule.is_none(),
            },
            sinks: sinks?,
            revision: self.revision.finish(),
        })
    }

    /// The source that a flow or a sink names. One that is in the file, and wrong, is told already.
    pub(super) fn named<'s>(
        &mut self,
        key: &str,
        name: &str,
        of: &Ends<'s>,
    ) -> Option<&'s SourceSetup> {
        let found = of.sources.iter().find(|source| source.name == name);
        let is_there = of.names.iter().any(|table| table.name.0.as_str() == name);
        if found.is_none() && !is_there {
            let what = format!("there is no source {name:?}");
            let known = of.names.iter().map(|table| table.name.0.as_str());
            match nearest(name, known) {
                Some(hint) => self.hint(key, what, hint),
                None => self.fault(key, what),
            }
        }
        found
    }

    /// A directory below a source's.
    pub(super) fn path(&mut self, key: &str, path: Option<&str>) -> Option<RemotePath> {
        let path = path.unwrap_or_default().trim_end_matches('/');
        let parts = path.split('/').filter(|_| !path.is_empty());
        for part in parts {
            if part.is_empty() || part == "." || part == ".." || part.contains('\0') {
                self.hint(
                    key,
                    "it is no path below the source's directory",
                    "it has neither `.`, `..` nor a slash at its beginning",
                );
                return None;
            }
        }
        Some(RemotePath::from(path))
    }

    fn settings(
        &mut self,
        key: &str,
        table: &FlowTable,
        state: &Path,
        lease: Option<Duration>,
        drain: Duration,
    ) -> Option<FlowSettings> {
        let name = table.name.0.clone();
        let spool = match &table.spool {
            Some(spool) => self.places.resolve(spool),
            None => state.join("spool"),
        };
        let spool = spool.join(name.as_str());
        let snapshot = state.join("snapshots").join(format!("{name}.snapshot"));
        let mut settings = FlowSettings::new(name, spool, snapshot);
        if table.spool.is_none() {
            settings.beside = only_reader(&table.sink).map(|path| self.places.resolve(path));
        }
        settings.concurrency = table.concurrency.unwrap_or(settings.concurrency);
        settings.in_flight_bytes = table
            .in_flight
            .map_or(settings.in_flight_bytes, |size| size.0);
        settings.rate = table.rate.map(|rate| rate.0);
        if settings.rate == Some(0) {
            self.hint(
                &below(key, "rate"),
                "nothing would ever come",
                "`ketch listen pause` stops a flow",
            );
        }
        settings.attempts = table.attempts.unwrap_or(settings.attempts);
        let set = |to: &mut Duration, period: Option<Period>| {
            if let Some(period) = period {
                *to = period.0;
            }
        };
        set(&mut settings.retry_first, table.retry.first);
        set(&mut settings.retry_max, table.retry.max);
        if settings.retry_first > settings.retry_max {
            self.fault(&below(key, "retry"), "`first` is longer than `max`");
        }
        settings.order = match table.order {
            OrderName::Any => Order::Any,
            OrderName::Name => Order::Name,
            OrderName::Time => Order::Time,
            OrderName::NameDescending => Order::NameDown,
            OrderName::TimeDescending => Order::TimeDown,
        };
        settings.removals = table.removals;
        settings.directories = table.directories;
        settings.renames = matches!(table.identity, IdentityName::Content);
        settings.pre_move = table.pre_move.as_ref().map(|name| name.0.clone());
        settings.failed = table.after.failed.as_ref().map(|name| name.0.clone());
        settings.after = self.after(&below(key, "after"), &table.after)?;
        settings.drain = drain;
        settings.shared = lease.is_some();
        settings.lease = lease.unwrap_or(settings.lease);
        Some(settings)
    }

    fn after(&mut self, key: &str, table: &AfterTable) -> Option<After> {
        let to = table.to.as_ref().map(|name| name.0.clone());
        match (table.action, to) {
            (ActionName::Keep, None) => Some(After::Keep),
            (ActionName::Delete, None) => Some(After::Delete),
            (ActionName::Move, Some(to)) => Some(After::Move(to)),
            (ActionName::Rename, Some(to)) => Some(After::MoveOver(to)),
            (ActionName::Keep | ActionName::Delete, Some(_)) => {
                self.hint(
                    &below(key, "to"),
                    "nothing is moved there",
                    "that is for action = \"move\" or \"rename\"",
                );
                None
            }
            (ActionName::Move | ActionName::Rename, None) => {
                self.hint(
                    &below(key, "to"),
                    "this key is missing",
                    "to = \"archive/{date:%Y/%m}/{name}\"",
                );
                None
            }
        }
    }

    fn detect(&mut self, key: &str, table: &FlowTable) -> Option<DetectConfig> {
        let select = self.select(key, table);
        let settle = self.settle(&below(key, "settle"), &table.settle);
        let mut detect = DetectConfig {
            first: match table.first {
                FirstName::News => First::News,
                FirstName::Baseline => First::Baseline,
            },
            directories: table.directories,
            directory_times: match table.directory_times {
                DirectoryTimesName::Never => DirectoryTimes::Never,
                DirectoryTimesName::Learn => DirectoryTimes::Learn,
            },
            versions: match table.versions {
                VersionsName::Fast => Versions::Fast,
                VersionsName::Hash => Versions::Hash,
            },
            ..DetectConfig::default()
        };
        if let Some(interval) = table.interval {
            detect.interval = interval.0;
        }
        let schedule = self.schedule(key, table);
        detect.catch_up = table.catch_up.unwrap_or(detect.catch_up);
        detect.missing_polls = table.missing_polls.unwrap_or(detect.missing_polls);
        let guard = &mut detect.guard;
        guard.polls = table.removals_guard.unwrap_or(guard.polls);
        guard.percent = table.removals_guard_percent.unwrap_or(guard.percent);
        detect.sweep_every = table.sweep_every.unwrap_or(detect.sweep_every);
        detect.select = select?;
        detect.settle = settle?;
        detect.schedule = schedule?;
        Some(detect)
    }

    /// At which times of day the source is looked at, if it is so; `None` if that is wrong.
    fn schedule(&mut self, key: &str, table: &FlowTable) -> Option<Option<Schedule>> {
        let Some(text) = &table.schedule else {
            for (name, is_said) in [
                ("time_zone", table.time_zone.is_some()),
                ("catch_up", table.catch_up.is_some()),
            ] {
                if is_said {
                    let hint = "schedule = \"0 6 * * Mon-Fri\"";
                    self.hint(&below(key, name), "there is no schedule", hint);
                }
            }
            return Some(None);
        };
        if table.interval.is_some() {
            self.hint(
                &below(key, "interval"),
                "the schedule says when it is looked",
                "leave one of the two out",
            );
        }
        match Schedule::new(&text.0, table.time_zone.as_deref()) {
            Ok(schedule) => Some(Some(schedule)),
            Err(error) => {
                let zone = table.time_zone.as_deref().unwrap_or_default();
                let known: Vec<String> = jiff::tz::db()
                    .available()
                    .map(|name| name.to_string())
                    .collect();
                let near = nearest(zone, known.iter().map(String::as_str));
                let hint = near.unwrap_or_else(|| "a name such as `Europe/Berlin`".to_owned());
                self.hint(&below(key, "time_zone"), error.to_string(), hint);
                None
            }
        }
    }

    fn select(&mut self, key: &str, table: &FlowTable) -> Option<Select> {
        let depth_max = match (table.recursive, table.depth) {
            (false, None) => 1,
            (true, depth) => depth.map_or(DEPTH_MAX, u32::from),
            (false, Some(_)) => {
                self.hint(
                    &below(key, "depth"),
                    "directories are not looked into",
                    "recursive = true",
                );
                1
            }
        };
        if table
            .min_depth
            .is_some_and(|least| u32::from(least) > depth_max)
        {
            let key = below(key, "min_depth");
            match table.recursive {
                true => self.fault(&key, "it is more than `depth`"),
                false => self.hint(&key, "directories are not looked into", "recursive = true"),
            }
        }
        let mut settings = SelectSettings {
            depth_max,
            depth_min: table.min_depth.map_or(1, u32::from),
            ..SelectSettings::default()
        };
        settings.include = picks(&table.include, &table.include_regex, &table.include_ant);
        settings.exclude = picks(&table.exclude, &table.exclude_regex, &table.exclude_ant);
        settings.exclude.extend(self.own_places(key, table));
        settings.size_min = table.min_size.map_or(0, |size| size.0);
        settings.size_max = table.max_size.map_or(u64::MAX, |size| size.0);
        if settings.size_min > settings.size_max {
            self.fault(&below(key, "min_size"), "it is more than `max_size`");
        }
        settings.age_min = table.min_age.map(|age| age.0);
        settings.age_max = table.max_age.map(|age| age.0);
        if let (Some(min), Some(max)) = (settings.age_min, settings.age_max)
            && min > max
        {
            self.fault(&below(key, "min_age"), "it is more than `max_age`");
        }
        Select::new(settings)
            .map_err(|error| self.fault(key, error.to_string()))
            .ok()
    }

    /// Where the flow itself puts files at its source: what is there is not looked at.
    fn own_places(&mut self, key: &str, table: &FlowTable) -> Vec<Pick> {
        let after = below(key, "after");
        let names = [
            (below(key, "pre_move"), table.pre_move.as_ref()),
            (below(&after, "to"), table.after.to.as_ref()),
            (below(&after, "failed"), table.after.failed.as_ref()),
        ];
        let mut picks = Vec::new();
        for (key, name) in names {
            let Some(name) = name else { continue };
            match Aside::of(name) {
                Aside::Directory(directory) => picks.push(Pick::Ant(directory)),
                Aside::AnyCalled(name) => picks.push(Pick::Glob(name)),
                Aside::Deeper if !table.recursive => {}
                Aside::Deeper | Aside::Beside => {
                    // Then it is up to the patterns whether it is found again.
                    let has_rules = !table.include.is_empty()
                        || !table.include_regex.is_empty()
                        || !table.include_ant.is_empty()
                        || !table.exclude.is_empty()
                        || !table.exclude_regex.is_empty()
                        || !table.exclude_ant.is_empty();
                    if !has_rules {
                        self.hint(
                            &key,
                            "what has this name would be found again as new",
                            "begin it with a directory of its own, `done/…`, or exclude it",
                        );
                    }
                }
            }
        }
        picks
    }

    fn settle(&mut self, key: &str, table: &SettleTable) -> Option<SettleConfig> {
        let mut settle = SettleConfig::default();
        let has_mark = table.done_file.is_some() || table.trigger_file.is_some();
        settle.rule = match table.rule {
            None if has_mark => Rule::Immediately,
            None | Some(SettleRule::Stable) => Rule::Stable,
            Some(SettleRule::OnClose) => Rule::OnClose,
            Some(SettleRule::Immediately) => Rule::Immediately,
        };
        settle.period = table.period.map_or(settle.period, |period| period.0);
        settle.polls = table.polls.unwrap_or(settle.polls);
        settle.min_age = table.min_age.map_or(settle.min_age, |age| age.0);
        settle.done_file = table.done_file.as_ref().map(|name| name.0.clone());
        if let Some(name) = &table.trigger_file {
            if name.is_empty() || name.contains('/') {
                self.fault(&below(key, "trigger_file"), "this is no name of a file");
            }
            settle.trigger_file = Some(name.clone().into_bytes());
        }
        let waits = matches!(settle.rule, Rule::Immediately)
            && (table.period.is_some() || table.polls.is_some());
        if waits {
            let name = if table.period.is_some() {
                "period"
            } else {
                "polls"
            };
            self.hint(
                &below(key, name),
                "nothing waits for it",
                "rule = \"stable\"",
            );
        }
        for (n, pattern) in table.temporary.iter().enumerate() {
            match Pattern::new(&pattern.0) {
                Ok(pattern) => settle.temporary.push(pattern),
                Err(error) => {
                    let key = format!("{}[{n}]", below(key, "temporary"));
                    self.fault(&key, error.to_string());
                }
            }
        }
        settle.candidates_max = table.candidates.unwrap_or(settle.candidates_max);
        Some(settle)
    }
}

/// Patterns of all three kinds.
pub(super) fn picks(
    globs: &[super::words::GlobPattern],
    regexes: &[super::words::RegexPattern],
    ants: &[super::words::AntPattern],
) -> Vec<Pick> {
    let globs = globs.iter().map(|word| Pick::Glob(word.0.clone()));
    let regexes = regexes.iter().map(|word| Pick::Regex(word.0.clone()));
    let ants = ants.iter().map(|word| Pick::Ant(word.0.clone()));
    globs.chain(regexes).chain(ants).collect()
}

/// Where a template puts files, as far as it says that for all of them.
#[derive(Debug, Eq, PartialEq)]
enum Aside {
    /// Below this directory.
    Directory(String),
    /// Below some directory of this name.
    AnyCalled(String),
    /// Below some directory.
    Deeper,
    /// It does not say so.
    Beside,
}

impl Aside {
    fn of(name: &NameTemplate) -> Self {
        let mut parts = vec![String::new()];
        let mut depth = 0_u32;
        for c in name.0.as_str().chars() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                '/' if depth == 0 => {
                    parts.push(String::new());
                    continue;
                }
                _ => {}
            }
            if let Some(last) = parts.last_mut() {
                last.push(c);
            }
        }
        parts.pop(); // the name itself
        // What means something in a pattern is no plain name there.
        let is_plain = |part: &&String| !part.contains(['{', '}', '*', '?', '[', '\\', '!']);
        let directory: Vec<_> = parts.iter().take_while(is_plain).cloned().collect();
        if !directory.is_empty() {
            return Self::Directory(directory.join("/"));
        }
        match parts.iter().find(is_plain) {
            Some(part) => Self::AnyCalled(part.clone()),
            None if parts.is_empty() => Self::Beside,
            None => Self::Deeper,
        }
    }
}

#[cfg(test)]
mod tests {
    use ketch_settings::Word as _;

    use super::*;

    #[test]
    fn where_a_template_puts_files_is_known_as_far_as_it_says_it() {
        let aside = |text: &str| Aside::of(&NameTemplate::read(text).expect("a template"));
        assert_eq!(
            aside("archive/{date:%Y/%m}/{name}"),
            Aside::Directory("archive".into())
        );
        assert_eq!(aside("a/b/{path}"), Aside::Directory("a/b".into()));
        assert_eq!(aside("{dir}/done/{name}"), Aside::AnyCalled("done".into()));
        assert_eq!(aside("{date:%Y/%m}/{name}"), Aside::Deeper);
        assert_eq!(aside("{name}.done"), Aside::Beside);
    }
}
