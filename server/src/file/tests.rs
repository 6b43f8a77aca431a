//! Files that are right, and files that are wrong in every way that was thought of.

mod docs;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::policy::{Right, Rights};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ\
    $nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

/// A file with one user, who is at the end of it.
fn with_user(user: &str) -> String {
    format!(
        "listen = [\"127.0.0.1:0\"]\n\
         [[host_key]]\n\
         file = \"host_key\"\n\
         [organisation.acme.endpoint.orders]\n\
         root = \".\"\n\
         [organisation.acme.endpoint.orders.user.anna]\n\
         {user}\n"
    )
}

/// What is wrong with a text, a line for each; nothing, if nothing is.
fn faults(text: &str) -> String {
    let (_dir, path) = written(text);
    match ServerFile::read(&path).and_then(|file| file.check()) {
        Ok(()) => String::new(),
        Err(faults) => faults
            .to_string()
            .replace(&format!("{}: ", path.display()), "")
            .replace(path.parent().unwrap().to_str().unwrap(), "DIR"),
    }
}

fn written(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    (dir, path)
}

#[test]
fn the_least_file_has_a_listener_a_key_and_a_user() {
    let (dir, path) = written(&with_user(&format!("authorized_keys = [\"{KEY}\"]")));
    let file = ServerFile::read(&path).unwrap();
    assert_eq!(file.listen(), ["127.0.0.1:0".parse().unwrap()]);
    assert_eq!(file.counts(), (1, 1, 1));
    file.check().unwrap();
    assert!(
        !dir.path().join("host_key").exists(),
        "a check makes nothing"
    );
    let server = file.builder().unwrap().build().unwrap();
    let again = ServerFile::read(&path).unwrap().builder().unwrap();
    assert_eq!(again.build().unwrap().host_key(), server.host_key());
}

/// A user's own `access` bounds what the endpoint's rules allow; the user's own rules come behind it.
#[test]
fn who_may_only_read_or_bring_does_no_more_by_a_rule_of_the_endpoint() {
    let rules =
        "[{ path = \"/in\", allow = [\"list\", \"write\"] }, { path = \"/no\", allow = [] }]";
    for (access, own, in_, no) in [
        ("", "", [Right::List, Right::Write].into(), Rights::NONE),
        (
            "access = \"read-only\"",
            "",
            Rights::from([Right::List]),
            Rights::NONE,
        ),
        (
            "access = \"read-write\"",
            "",
            [Right::List, Right::Write].into(),
            Rights::NONE,
        ),
        (
            "access = \"read-only\"",
            "rules = [{ path = \"/in\", allow = [\"write\"] }]",
            Rights::from([Right::Write]),
            Rights::NONE,
        ),
    ] {
        let text = with_user(&format!("authorized_keys = [\"{KEY}\"]\n{access}\n{own}"));
        let endpoint = format!("root = \".\"\naccess = \"read-only\"\nrules = {rules}");
        let (_dir, path) = written(&text.replace("root = \".\"", &endpoint));
        let builder = ServerFile::read(&path).unwrap().builder().unwrap();
        let [user] = &builder.users[..] else {
            panic!("one user")
        };
        let rules = user.terms.rules.as_ref().unwrap();
        let rights = |path: &str| rules.rights(&crate::VPath::resolve(path.as_bytes()).unwrap());
        assert_eq!(rights("/in/x"), in_, "{access} {own}");
        assert_eq!(rights("/no/x"), no, "{access} {own}");
    }
}

#[test]
fn every_fault_is_told_with_its_line_its_key_and_a_hint() {
    let told = faults(
        "listen = [\"127.0.0.1\", \"[::]:22\"]\n\
         lisen = 1\n\
         algorithms = \"modren\"\n\
         banner = 7\n\
         [timeouts]\n\
         handshake = \"30 parsecs\"\n\
         [limits]\n\
         connections = 0\n\
         half_open = -1\n\
         [organisation.acme.endpoint.orders.user.anna]\n\
         authorised_keys = []\n\
         authorized_keys = [\"ssh-ed25519 AAAA\"]\n\
         password_hash = \"secret\"\n\
         sources = [\"10.0.0.0/33\"]\n\
         expires = 2027-01-31\n\
         require = [\"publickey\", \"questions\"]\n\
         [organisation.acme.endpoint.orders.user.\"b.b\"]\n\
         acess = \"read-only\"\n\
         access = \"read_only\"\n\
         disabled = \"yes\"\n",
    );
    let user = "organisation.acme.endpoint.orders.user";
    for expected in [
        "line 1: host_key: this key is missing",
        "line 1: listen[0]: this is no address with a port, such as \"0.0.0.0:22\" or \"[::]:22\"",
        "line 2: lisen: there is no such key; do you mean listen?",
        "line 3: algorithms: \"modren\" is none of modern, compat, pq-only; do you mean modern?",
        "line 4: banner: this is a whole number, and a text in quotes is wanted",
        "line 6: timeouts.handshake: this is no time, such as \"90s\", \"15min\" or \"1h 30min\"",
        "line 8: limits.connections: 1 is the least",
        "line 9: limits.half_open: this is no whole number from 0 on",
        "line 10: organisation.acme.endpoint.orders.root: this key is missing",
        &format!(
            "line 11: {user}.anna.authorised_keys: there is no such key; do you mean authorized_keys?"
        ),
        &format!("line 12: {user}.anna.authorized_keys[0]: "),
        &format!("line 13: {user}.anna.password_hash: this is no Argon2id hash"),
        &format!("line 14: {user}.anna.sources[0]: this is neither an address nor a network"),
        &format!("line 15: {user}.anna.expires: this is no date and time with an offset"),
        &format!("line 16: {user}.anna.require[1]: \"questions\" is none of publickey, password"),
        &format!("line 18: {user}.\"b.b\".acess: there is no such key; do you mean access?"),
        &format!(
            "line 19: {user}.\"b.b\".access: \"read_only\" is none of read-write, read-only, upload-only; do you mean read-only?"
        ),
        &format!("line 20: {user}.\"b.b\".disabled: this is a text, and true or false is wanted"),
    ] {
        let is_there = told.lines().any(|line| line.starts_with(expected));
        assert!(is_there, "{expected}\nis not in\n{told}");
    }
    assert_eq!(told.lines().count(), 18, "{told}");
}

#[test]
fn what_only_files_and_users_show_is_told_at_once_too() {
    let told = faults(&format!(
        "{}\
         [organisation.acme.endpoint.orders.user.bob]\n\
         authorized_keys_file = \"keys\"\n\
         [organisation.acme.endpoint.orders.user.carl]\n\
         root = \"nowhere\"\n\
         password_hash = \"{HASH}\"\n\
         [organisation.acme.endpoint.orders.user.dora]\n\
         password_hash = \"{HASH}\"\n\
         require = [\"publickey\", \"password\"]\n\
         [organisation.other.endpoint.orders]\n\
         root = \".\"\n\
         [organisation.other.endpoint.orders.user.anna]\n\
         password_hash = \"{HASH}\"\n",
        with_user("")
    ));
    let user = "organisation.acme.endpoint.orders.user";
    let expected = [
        format!(
            "line 6: {user}.anna: there is no way to log in: no key, no authority, no password_hash"
        ),
        format!(
            "line 9: {user}.bob.authorized_keys_file: DIR/keys: it cannot be read: No such file or directory (os error 2)"
        ),
        format!(
            "line 10: {user}.carl: the root DIR/./nowhere cannot be opened: No such file or directory (os error 2)"
        ),
        format!("line 13: {user}.dora: what is required is more than the user has to log in with"),
        format!(
            "line 18: organisation.other.endpoint.orders.user.anna: this name is taken by {user}.anna"
        ),
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_file_that_is_no_toml_and_one_that_others_may_write_are_told() {
    assert!(faults("listen = [").starts_with("line 1: "));
    assert!(faults("a = 1\na = 2\n").starts_with("line 2: "));
    let (_dir, path) = written(&with_user(&format!("authorized_keys = [\"{KEY}\"]")));
    for mode in [0o666, 0o664, 0o646] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let told = ServerFile::read(&path).unwrap_err().to_string();
        assert!(
            told.contains("others may change it: make it 0644"),
            "{told}"
        );
    }
    let told = ServerFile::read("/no/such/file").unwrap_err().to_string();
    assert!(
        told.starts_with("/no/such/file: it cannot be read: "),
        "{told}"
    );
}

#[test]
fn host_keys_have_one_of_a_type_in_use() {
    let user = with_user(&format!("authorized_keys = [\"{KEY}\"]"));
    let (head, users) = user.split_at(user.find("[organisation").unwrap());
    let with = |more: &str| faults(&format!("{head}{more}{users}"));
    assert_eq!(with("[[host_key]]\nfile = \"two\"\nuse = \"next\"\n"), "");
    let told = with("[[host_key]]\nfile = \"two\"\n");
    let other = "line 4: host_key[1]: there is another ssh-ed25519 key in use";
    assert!(told.starts_with(other), "{told}");
    let told = faults(&user.replace("file = \"host_key\"", "file = \"host_key\"\nuse = \"next\""));
    assert!(told.contains("none of the keys is current"), "{told}");
}

#[test]
fn a_host_key_that_would_never_be_used_is_told() {
    let user = with_user(&format!("authorized_keys = [\"{KEY}\"]"));
    let text = user.replace("\"host_key\"", "\"host_key\"\ntype = \"ecdsa-p256\"");
    let expected = "line 2: host_key[0]: a key of type ecdsa-sha2-nistp256 is never used by these \
        `algorithms`; `compat` has more";
    assert_eq!(faults(&text), expected);
    assert_eq!(faults(&format!("algorithms = \"compat\"\n{text}")), "");
}

proptest! {
    #[test]
    fn any_text_is_a_file_or_has_faults(text in "(\\PC|\\n){0,200}") {
        match ServerFile::parse(&text, "server.toml") {
            Ok(file) => prop_assert!(!file.listen().is_empty()),
            Err(faults) => prop_assert!(!faults.faults.is_empty()),
        }
    }

    #[test]
    fn a_right_file_with_a_piece_missing_never_panics(from in 0_usize..400, len in 0_usize..40) {
        let text = with_user(&format!("authorized_keys = [\"{KEY}\"]"));
        let mut bytes = text.into_bytes();
        let from = from.min(bytes.len());
        bytes.drain(from..(from + len).min(bytes.len()));
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = ServerFile::parse(&text, "server.toml");
        }
    }
}
