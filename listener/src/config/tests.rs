//! Files that are right, and files that are wrong in every way that was thought of.

mod docs;
mod mistakes;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

/// A file with one source, one flow and one sink, with more in each of them.
fn with(source: &str, flow: &str, sink: &str) -> String {
    format!(
        "state = \"state\"\n\
         [[source]]\n\
         name = \"bank\"\n\
         {source}\n\
         [[flow]]\n\
         name = \"orders\"\n\
         source = \"bank\"\n\
         {flow}\n\
         [[flow.sink]]\n\
         name = \"disk\"\n\
         {sink}\n"
    )
}

fn local(flow: &str) -> String {
    with(
        "local = \"in\"",
        flow,
        "kind = \"directory\"\npath = \"out\"",
    )
}

fn server(source: &str) -> String {
    let source = format!("url = \"sftp://ann@host/in\"\n{source}");
    with(&source, "", "kind = \"directory\"\npath = \"out\"")
}

fn written(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("listener.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    (dir, path)
}

fn setup_of(text: &str) -> Setup {
    let (_dir, path) = written(text);
    ListenerFile::read(&path)
        .and_then(|file| file.setup())
        .unwrap()
}

/// What is wrong with a text, a line for each; nothing, if nothing is.
fn faults(text: &str) -> String {
    let (_dir, path) = written(text);
    match ListenerFile::read(&path).and_then(|file| file.setup()) {
        Ok(_) => String::new(),
        Err(faults) => faults
            .to_string()
            .replace(&format!("{}: ", path.display()), "")
            .replace(path.parent().unwrap().to_str().unwrap(), "DIR"),
    }
}

#[test]
fn the_least_file_has_a_source_a_flow_and_a_sink() {
    let setup = setup_of(&local(""));
    assert!(
        matches!(setup.ledger, Ledger::Sqlite(ref path) if path.ends_with("state/ledger.sqlite"))
    );
    assert!(setup.api.is_none());
    let [flow] = &setup.flows[..] else { panic!() };
    assert_eq!(flow.settings.name.as_str(), "orders");
    assert!(flow.settings.spool.ends_with("state/spool/orders"));
    let beside = flow.settings.beside.as_ref();
    assert!(
        beside.is_some_and(|sink| sink.ends_with("out")),
        "{beside:?}"
    );
    assert_eq!(flow.detect.select.depth_max(), 1);
    assert_eq!(flow.sinks[0].name(), "disk");
    assert!(flow.push);
}

#[test]
fn a_schedule_takes_the_place_of_the_interval_and_of_pushes() {
    use crate::detect::Pace;

    let text = local("schedule = \"0 6 * * Mon-Fri\"\ntime_zone = \"Europe/Berlin\"");
    let flow = &setup_of(&text).flows[0];
    assert_eq!(flow.detect.pace(), Pace::Scheduled);
    let schedule = flow.detect.schedule.as_ref().unwrap();
    assert_eq!(schedule.to_string(), "0 6 * * Mon-Fri Europe/Berlin");
    assert!(flow.detect.catch_up && !flow.push);
    let text = local("schedule = \"@daily\"\ncatch_up = false\npush = \"auto\"");
    let flow = &setup_of(&text).flows[0];
    assert!(!flow.detect.catch_up && flow.push);
}

#[cfg(feature = "postgres")]
#[test]
fn listeners_that_share_a_ledger_have_a_lease() {
    use crate::flow::settings::LEASE;

    let lease = |lease: &str| {
        let store = format!("[store]\npostgres = \"host=db\"\n{lease}\n");
        local("") + &store
    };
    let of = |text: &str| {
        let settings = &setup_of(text).flows[0].settings;
        (settings.shared, settings.lease)
    };
    assert_eq!(of(&local("")), (false, LEASE));
    assert_eq!(of(&lease("")), (true, LEASE));
    assert_eq!(of(&lease("lease = \"5s\"")), (true, Duration::from_secs(5)));
    let told = faults(&lease("lease = \"500ms\""));
    assert!(told.contains("store.lease: 2 s is the shortest"), "{told}");
}

#[test]
fn what_is_said_of_a_flow_reaches_its_parts() {
    use crate::detect::First;
    use crate::flow::settings::After;
    use crate::settle::Rule;
    use crate::store::Order;

    let flow = "interval = \"manual\"\nrecursive = true\ndepth = 2\nfirst = \"baseline\"\n\
        order = \"time\"\nconcurrency = 3\nin_flight = \"1 MiB\"\nrate = \"10MiB\"\nattempts = 2\n\
        push = \"never\"\nidentity = \"content\"\nremovals = true\n\
        settle = { done_file = \"{name}.done\" }\nretry = { first = \"2s\", max = \"1min\" }\n\
        after = { action = \"move\", to = \"archive/{name}\" }";
    let setup = setup_of(&local(flow));
    let flow = &setup.flows[0];
    assert_eq!(flow.detect.interval, None);
    assert_eq!(flow.detect.first, First::Baseline);
    assert_eq!(flow.detect.settle.rule, Rule::Immediately);
    let settings = &flow.settings;
    assert_eq!(settings.order, Order::Time);
    let down = setup_of(&local("order = \"time-descending\""));
    assert_eq!(down.flows[0].settings.order, Order::TimeDown);
    assert_eq!((settings.concurrency, settings.attempts), (3, 2));
    assert_eq!(settings.in_flight_bytes, 1 << 20);
    assert_eq!(settings.rate, Some(10 << 20));
    assert_eq!(settings.retry_max, Duration::from_secs(60));
    assert!(settings.renames && settings.removals && !flow.push);
    assert!(matches!(&settings.after, After::Move(to) if to.as_str() == "archive/{name}"));
    let select = &flow.detect.select;
    assert_eq!(select.depth_max(), 2);
    assert!(select.names(&"a/b.csv".into()));
    assert!(
        !select.enters(&"archive".into()),
        "its own archive is not looked at"
    );
    assert!(select.enters(&"old/archive".into()));
}

#[test]
fn every_fault_of_the_text_is_told_with_its_line_its_key_and_a_hint() {
    let told = faults(
        "state = 7\n\
         stats = \"x\"\n\
         [[source]]\n\
         name = \"ba nk\"\n\
         url = \"ftp://host/\"\n\
         host_key = [\"ssh-ed25519 AAAA\"]\n\
         proxy = \"socks5://a:b@host:1\"\n\
         password = { fil = \"x\" }\n\
         [[flow]]\n\
         name = \"orders\"\n\
         source = \"bank\"\n\
         interval = \"sometimes\"\n\
         frist = \"news\"\n\
         order = \"size\"\n\
         include_regex = [\"(\"]\n\
         settle = { done_file = \"done\" }\n\
         after = { action = \"mve\", to = \"{nam}\" }\n\
         [[flow.sink]]\n\
         kind = \"directry\"\n\
         name = \"a\"\n\
         [[flow.sink]]\n\
         name = \"b\"\n\
         [[flow.sink]]\n\
         kind = \"webhook\"\n\
         name = \"c\"\n\
         template = \"{name}\"\n",
    );
    for expected in [
        "line 1: state: this is a whole number, and a text in quotes is wanted",
        "line 2: stats: there is no such key; do you mean state?",
        "line 4: source[0].name: \"ba nk\" is no name",
        "line 5: source[0].url: ",
        "line 6: source[0].host_key[0]: ",
        "line 7: source[0].proxy: a password does not belong into a URL: use `proxy_password`",
        "line 8: source[0].password.fil: there is no such key; do you mean file?",
        "line 12: flow[0].interval: this is no time, such as \"5s\" or \"15min\", and not manual",
        "line 13: flow[0].frist: there is no such key; do you mean first?",
        "line 14: flow[0].order: \"size\" is none of any, name, time, name-descending, time-descending; do you mean time?",
        "line 15: flow[0].include_regex[0]: this is no pattern: unclosed group",
        "line 16: flow[0].settle.done_file: a done file's name holds {name} or {stem} once",
        "line 17: flow[0].after.action: \"mve\" is none of keep, delete, move, rename; do you mean move?",
        "line 17: flow[0].after.to: at 0: there is no {nam}",
        "line 19: flow[0].sink[0].kind: \"directry\" is none of directory, sftp, object, stdout, command, webhook, nats, postgres; do you mean directory?",
        "line 21: flow[0].sink[1].kind: this key is missing; it is one of directory, sftp, ",
        "line 23: flow[0].sink[2].url: this key is missing",
        "line 26: flow[0].sink[2].template: there is no such key",
    ] {
        let is_there = told.lines().any(|line| line.starts_with(expected));
        assert!(is_there, "{expected}\nis not in\n{told}");
    }
    assert_eq!(told.lines().count(), 18, "{told}");
}

#[test]
fn what_only_the_whole_file_shows_is_told_at_once_too() {
    let told = faults(
        "state = \"state\"\n\
         [api]\n\
         listen = \"0.0.0.0:80\"\n\
         [[source]]\n\
         name = \"bank\"\n\
         url = \"sftp://host/in\"\n\
         [[source]]\n\
         name = \"bank\"\n\
         local = \"in\"\n\
         password = \"x\"\n\
         [[source]]\n\
         name = \"none\"\n\
         [[flow]]\n\
         name = \"orders\"\n\
         source = \"bnak\"\n\
         path = \"../x\"\n\
         depth = 3\n\
         min_size = \"2 MiB\"\n\
         max_size = \"1 MiB\"\n\
         after = { action = \"move\" }\n\
         [[flow.sink]]\n\
         kind = \"object\"\n\
         name = \"a\"\n\
         url = \"s3://bucket\"\n\
         exists = \"append\"\n\
         [[flow.sink]]\n\
         kind = \"directory\"\n\
         name = \"a\"\n\
         path = \"out\"\n\
         layout = \"flat\"\n\
         template = \"{name}\"\n\
         [[flow]]\n\
         name = \"orders\"\n\
         source = \"bank\"\n\
         after = { action = \"keep\", to = \"x/{name}\" }\n\
         settle = { rule = \"immediately\", polls = 3 }\n\
         [[flow.sink]]\n\
         kind = \"stdout\"\n\
         name = \"a\"\n",
    );
    for expected in [
        "line 3: api.listen: anybody could ask there, as there is no `token`; listen on 127.0.0.1, or set one",
        "line 4: source[0]: there is nothing to log in with; one of `identity`, `private_key`, `password` and `agent`",
        "line 6: source[0].url: it does not say who logs in; sftp://user@host/path",
        "line 8: source[1].name: this name is taken by source[0]",
        "line 10: source[1].password: this is for a source with `url`",
        "line 11: source[2]: there is neither `url` nor `local`",
        "line 15: flow[0].source: there is no source \"bnak\"; do you mean bank?",
        "line 16: flow[0].path: it is no path below the source's directory",
        "line 17: flow[0].depth: directories are not looked into; recursive = true",
        "line 18: flow[0].min_size: it is more than `max_size`",
        "line 20: flow[0].after.to: this key is missing",
        "line 25: flow[0].sink[0].exists: nothing can be appended to in an object store",
        "line 28: flow[0].sink[1].name: this name is taken by flow[0].sink[0]",
        "line 30: flow[0].sink[1].layout: `template` says it already",
        "line 33: flow[1].name: this name is taken by flow[0]",
        "line 35: flow[1].after.to: nothing is moved there",
        "line 36: flow[1].settle.polls: nothing waits for it",
    ] {
        let is_there = told.lines().any(|line| line.starts_with(expected));
        assert!(is_there, "{expected}\nis not in\n{told}");
    }
}

#[test]
fn secrets_are_read_from_files_of_our_own_and_never_shown() {
    let (dir, path) = written(&server("password = { file = \"secret\" }"));
    let secret = dir.path().join("secret");
    fs::write(&secret, "hunter2-in-a-file\n").unwrap();
    let told = |mode| {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        ListenerFile::read(&path).unwrap().setup()
    };
    let fault = told(0o644).unwrap_err().to_string();
    assert!(fault.contains("source[0].password"), "{fault}");
    assert!(
        fault.contains("others may read it: make it 0600"),
        "{fault}"
    );
    let shown = format!("{:?}", told(0o600).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");

    let literal = server("password = \"hunter2-written-out\"");
    let (_dir, path) = written(&literal);
    let file = ListenerFile::read(&path).unwrap();
    let shown = format!("{file:?} {:?}", file.setup().unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");

    for (source, expected) in [
        (
            "password = { env = \"KETCH_NO_SUCH_VARIABLE\" }",
            "there is no variable KETCH_NO_SUCH_VARIABLE",
        ),
        ("password = \"\"", "it is empty"),
        (
            "password = { file = \"nowhere\" }",
            "DIR/nowhere: it cannot be read",
        ),
        (
            "password = { file = \"a\", env = \"b\" }",
            "a secret has `file` or `env`, one of them",
        ),
        ("password = {}", "a secret has `file` or `env`, one of them"),
        (
            "identity = [\"nowhere\"]",
            "DIR/nowhere could not be read: ",
        ),
    ] {
        let told = faults(&server(source));
        assert!(told.contains(expected), "{expected}\nis not in\n{told}");
    }
    let told = faults(&server("private_key = \"precious-words\""));
    assert!(
        told.contains("source[0].private_key") && !told.contains("precious"),
        "{told}"
    );
}

#[test]
fn whom_to_trust_is_said_once() {
    let password = "password = \"x\"";
    assert_eq!(
        faults(&server(&format!("{password}\nhost_key = [\"{KEY}\"]"))),
        ""
    );
    assert_eq!(
        faults(&server(&format!(
            "{password}\nhost_key = [\"host.example {KEY}\"]"
        ))),
        ""
    );
    assert_eq!(
        faults(&server(&format!(
            "{password}\nknown_hosts = \"k\"\naccept_new_host = true"
        ))),
        ""
    );
    for (source, expected) in [
        (
            format!("host_key = [\"{KEY}\"]\nknown_hosts = \"k\""),
            "`host_key` says whom to trust already",
        ),
        (
            format!("host_key = [\"{KEY}\"]\ndanger_accept_any_host = true"),
            "`host_key` says whom to trust already",
        ),
        (
            "accept_new_host = true".to_owned(),
            "there is no file to write the key into",
        ),
        (
            format!("host_key = [\"@revoked host {KEY}\"]"),
            "marks such as @revoked",
        ),
    ] {
        let told = faults(&server(&format!("{password}\n{source}")));
        assert!(told.contains(expected), "{expected}\nis not in\n{told}");
    }
}

#[test]
fn a_flow_that_would_feed_itself_is_told() {
    let feeds = "would be found by this flow again, without end";
    let in_and_out = |flow: &str, out: &str| {
        faults(&with(
            "local = \"in\"",
            flow,
            &format!("kind = \"directory\"\npath = \"{out}\""),
        ))
    };
    assert!(in_and_out("", "in").contains(feeds));
    assert!(in_and_out("recursive = true", "in/done").contains(feeds));
    assert!(in_and_out("recursive = true", "./in/../in").contains(feeds));
    assert_eq!(in_and_out("", "in/done"), "");
    assert_eq!(in_and_out("recursive = true", "inner"), "");
    assert_eq!(
        in_and_out("recursive = true\nexclude_ant = [\"done\"]", "in/done"),
        ""
    );

    let second = |path: &str| {
        format!(
            "{}[[source]]\nname = \"out\"\nlocal = \"out\"\n[[flow]]\nname = \"second\"\n\
             source = \"out\"\n[[flow.sink]]\nname = \"disk\"\nkind = \"directory\"\npath = \"{path}\"\n",
            local("").replace("[[source]]\nname = \"out\"", "")
        )
    };
    // TOML wants tables of an array together only in meaning, not in place.
    assert_eq!(faults(&second("third")), "", "a chain that ends is right");
    let told = faults(&second("in"));
    assert!(
        told.contains("flow[0].sink[0].path") && told.contains("flow[1].sink[0].path"),
        "{told}"
    );

    let told = faults(&local("recursive = true").replace("\"state\"", "\"in/state\""));
    assert!(told.contains("the listener's own `state`"), "{told}");
}

#[test]
fn a_file_that_would_be_found_again_under_its_new_name_is_told() {
    let told = |flow: &str| faults(&local(flow));
    let again = "what has this name would be found again as new";
    assert!(told("after = { action = \"rename\", to = \"{name}.done\" }").contains(again));
    assert!(
        told("recursive = true\nafter = { action = \"move\", to = \"{date}/{name}\" }")
            .contains(again)
    );
    for right in [
        "include = [\"*.csv\"]\nafter = { action = \"rename\", to = \"{name}.done\" }",
        "after = { action = \"move\", to = \"{date}/{name}\" }",
        "recursive = true\nafter = { action = \"move\", to = \"{dir}/done/{name}\" }",
    ] {
        assert_eq!(told(right), "", "{right}");
    }
}

#[test]
fn a_change_of_a_flow_its_source_or_a_secret_is_a_new_revision() {
    let (_dir, path) = written("");
    let revision = |text: &str| {
        fs::write(&path, text).unwrap();
        ListenerFile::read(&path).unwrap().setup().unwrap().flows[0].revision
    };
    let text = server("password = \"x\"");
    assert_eq!(
        revision(&text),
        revision(&text.replace("state = \"state\"\n", "state = \"state\" # as it was\n"))
    );
    for (from, to) in [
        ("\"x\"", "\"y\""),
        ("host/in", "other/in"),
        ("source = \"bank\"", "source = \"bank\"\nattempts = 3"),
        ("path = \"out\"", "path = \"out\"\nexists = \"skip\""),
    ] {
        assert_ne!(
            revision(&text),
            revision(&text.replacen(from, to, 1)),
            "{to}"
        );
    }
}

#[test]
fn a_file_that_is_no_toml_and_one_that_others_may_write_are_told() {
    assert!(faults("state = [").starts_with("line 1: "));
    let (_dir, path) = written(&local(""));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let told = ListenerFile::read(&path).unwrap_err().to_string();
    assert!(
        told.contains("others may change it: make it 0644"),
        "{told}"
    );
}

proptest! {
    #[test]
    fn any_text_is_a_file_or_has_faults(text in "(\\PC|\\n){0,200}") {
        if let Err(faults) = ListenerFile::parse(&text, "listener.toml") {
            prop_assert!(!faults.faults.is_empty());
        }
    }

    #[test]
    fn a_right_file_with_a_piece_missing_never_panics(from in 0_usize..300, len in 0_usize..40) {
        let mut bytes = local("settle = { period = \"5s\" }").into_bytes();
        let from = from.min(bytes.len());
        bytes.drain(from..(from + len).min(bytes.len()));
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = ListenerFile::parse(&text, "listener.toml").and_then(|file| file.setup());
        }
    }
}

#[test]
fn appending_to_a_server_and_several_processes_are_not_for_each_other() {
    let told = faults(
        "state = \"state\"\n\
         [store]\n\
         postgres = \"host=db\"\n\
         [[source]]\n\
         name = \"bank\"\n\
         url = \"sftp://ann@host/in\"\n\
         agent = \"/run/agent\"\n\
         [[flow]]\n\
         name = \"orders\"\n\
         source = \"bank\"\n\
         [[flow.sink]]\n\
         kind = \"sftp\"\n\
         name = \"copy\"\n\
         source = \"bank\"\n\
         path = \"/out\"\n\
         exists = \"append\"\n",
    );
    let expected = "line 16: flow[0].sink[0].exists: not where several processes";
    assert!(
        told.lines().any(|line| line.starts_with(expected)),
        "{told}"
    );
}
