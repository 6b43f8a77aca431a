//! `known_hosts` as a whole: the policies, the files they leave, and `ssh-keygen -F` as an oracle.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use base64ct::{Base64, Encoding};
use proptest::prelude::*;

use ketch_keys::CertificateError;

use super::entry::Marker;
use super::*;
use crate::{Failure as _, Kind};

const ED25519_A: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFxjmM1dvZ77XRdNmbZBc17i+Ch9CIld/iQgj+kYm0Rb";
const ED25519_B: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB7u7mA3d1Y5ZQfwtOcTg4ScYu5zBNCmP56vs8pjp+VE";
const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBL1bE5iofT9l4SU58OYizs9Zo60jrVosKjt7gfX3eCnLVHz/BNsxXnBsMkTNhPsH4KVTyBspoKEMJRJXo4cutqk=";
const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCTU7GIl9MMJVCquWlqZcaCX8M/V2wqarw0XzymaxX5xX2O2X/MuHmMw1wyufa+L7lZZ5y+AoIe7iDXlVA736KJLp17kmG9pWFOHcVLyv1Js3CU4Y29OHtldfmukTJ0IUMNpkqm6IfbH7hy1KKLaYolzhATtedUuryiUyb63GY4rY/eKTV2zTrQPIVzK4c5bGX9J54wUXrtSii4eBfbaiT8pv+MSu6lFHXXLuWP9I71WT//swpXSTDc5PQ7HvrhOs8vg53MS2CI1mdzBDbJ7J5rQc7shP426KDLa90DGX7X1oQRuGFbwDzMrUu9DNDVTV1PlFLfbyi9AVPfSbHX5E9x";

fn wire(key: &str) -> Vec<u8> {
    Base64::decode_vec(key.split(' ').nth(1).unwrap()).unwrap()
}

fn public(key: &str) -> PublicKey {
    PublicKey::from_blob(&wire(key)).unwrap()
}

/// A directory with one `known_hosts` file in it.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("known_hosts"), content).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    fn check(
        &self,
        policy: HostKeyPolicy,
        host: &str,
        key: &str,
    ) -> Result<Accepted, HostKeyError> {
        let (host, port) = match host
            .strip_prefix('[')
            .and_then(|host| host.split_once("]:"))
        {
            Some((host, port)) => (host, port.parse().unwrap()),
            None => (host, 22),
        };
        HostKeys::files([self.path()]).policy(policy).check(
            &host.parse().unwrap(),
            port,
            &public(key),
        )
    }

    fn strict(&self, host: &str, key: &str) -> Result<Accepted, HostKeyError> {
        self.check(HostKeyPolicy::Strict, host, key)
    }
}

fn line_of(accepted: Result<Accepted, HostKeyError>) -> usize {
    match accepted {
        Ok(Accepted::Known(at)) => at.line,
        other => panic!("not known: {other:?}"),
    }
}

#[test]
fn a_known_key_is_accepted_and_its_line_named() {
    let files = Files::new(format!(
        "# mine\n\nother {ED25519_B}\nHost,h2 {ED25519_A} note\n"
    ));
    assert_eq!(line_of(files.strict("host", ED25519_A)), 4);
    assert_eq!(line_of(files.strict("HOST", ED25519_A)), 4);
}

#[test]
fn an_unknown_host_is_refused_and_nothing_is_written() {
    let files = Files::new("");
    let error = files.strict("host", ED25519_A).unwrap_err();
    assert!(matches!(error, HostKeyError::Unknown { .. }), "{error:?}");
    assert_eq!(error.kind(), Kind::HostKey);
    let text = error.to_string();
    // `ssh-keygen -l` prints this for the same key.
    assert!(text.contains("ssh-ed25519 SHA256:"), "{text}");
    assert!(text.contains("known_hosts"), "{text}");
    assert_eq!(fs::read(files.path()).unwrap(), b"");
}

#[test]
fn a_changed_key_is_refused_under_every_policy() {
    let files = Files::new(format!("\nhost {ED25519_A}\n"));
    for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
        let error = files.check(policy, "host", ED25519_B).unwrap_err();
        assert!(matches!(&error, HostKeyError::Changed { known, .. } if known[0].line == 2));
        let text = error.to_string();
        for part in [
            "the key of host host has changed".to_owned(),
            fingerprint(&wire(ED25519_A)),
            fingerprint(&wire(ED25519_B)),
            format!("{}:2", files.path().display()),
            "ssh-keygen -R 'host' -f".to_owned(),
        ] {
            assert!(text.contains(&part), "{text:?} lacks {part:?}");
        }
    }
}

#[test]
fn one_of_several_keys_of_a_host_is_enough() {
    let files = Files::new(format!("host {ED25519_A}\nhost {ED25519_B}\n"));
    assert_eq!(line_of(files.strict("host", ED25519_B)), 2);
}

#[test]
fn a_host_known_by_another_type_of_key_is_refused() {
    let files = Files::new(format!("host {RSA}\nhost {ECDSA}\n"));
    for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
        let error = files.check(policy, "host", ED25519_A).unwrap_err();
        assert!(matches!(&error, HostKeyError::OtherTypes { known, .. } if known.len() == 2));
        assert_eq!(error.kind(), Kind::HostKey);
        assert!(error.to_string().contains("ssh-rsa"), "{error}");
    }
}

#[test]
fn a_revoked_key_is_refused_wherever_else_it_stands() {
    for content in [
        format!("host {ED25519_A}\n@revoked host {ED25519_A}\n"),
        format!("@revoked * {ED25519_A}\nhost {ED25519_A}\n"),
        format!("@revoked\thost\t{ED25519_A}\r\nhost {ED25519_A}\r\n"),
    ] {
        let files = Files::new(content);
        for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
            let error = files.check(policy, "host", ED25519_A).unwrap_err();
            assert!(matches!(error, HostKeyError::Revoked { .. }), "{error:?}");
        }
    }
    // Another key of the host is not touched by it, and is not known through it either.
    let files = Files::new(format!("@revoked host {ED25519_A}\n"));
    assert!(matches!(
        files.strict("host", ED25519_B),
        Err(HostKeyError::Unknown { .. })
    ));
}

#[test]
fn a_revocation_without_port_holds_for_every_port() {
    let files = Files::new(format!(
        "[host]:2222 {ED25519_A}\n@revoked host {ED25519_A}\n"
    ));
    let error = files.strict("[host]:2222", ED25519_A).unwrap_err();
    assert!(matches!(error, HostKeyError::Revoked { .. }), "{error:?}");
}

#[test]
fn an_authoritys_key_is_no_hosts_key() {
    let files = Files::new(format!("@cert-authority * {ED25519_A}\n"));
    assert!(matches!(
        files.strict("host", ED25519_A),
        Err(HostKeyError::Unknown { .. })
    ));
}

#[test]
fn a_port_has_a_key_of_its_own_and_falls_back_to_the_hosts() {
    let files = Files::new(format!("host {ED25519_A}\n[host]:2222 {ED25519_B}\n"));
    assert_eq!(line_of(files.strict("[host]:2222", ED25519_B)), 2);
    assert_eq!(line_of(files.strict("[host]:3333", ED25519_A)), 1);
    assert!(matches!(
        files.strict("[host]:2222", ED25519_A),
        Err(HostKeyError::Changed { .. })
    ));
    assert!(matches!(
        files.strict("[host]:3333", ED25519_B),
        Err(HostKeyError::Unknown { .. })
    ));
    assert!(matches!(
        files.strict("host", ED25519_B),
        Err(HostKeyError::Changed { .. })
    ));
}

#[test]
fn every_file_is_asked_and_a_missing_one_says_nothing() {
    let first = Files::new(format!("other {ED25519_A}\n"));
    let second = Files::new(format!("host {ED25519_A}\n"));
    let gone = first.dir.path().join("not-there");
    let keys = HostKeys::files([first.path(), gone, second.path()]);
    let accepted = keys
        .check(&"host".parse().unwrap(), 22, &public(ED25519_A))
        .unwrap();
    assert!(matches!(accepted, Accepted::Known(at) if at.file == second.path()));
}

#[test]
fn a_file_that_cannot_be_read_refuses_every_host() {
    let files = Files::new(format!("host {ED25519_A}\n"));
    let dir = files.dir.path().to_path_buf();
    let keys = HostKeys::files([files.path(), dir.clone()]);
    let error = keys
        .check(&"host".parse().unwrap(), 22, &public(ED25519_A))
        .unwrap_err();
    assert!(
        matches!(&error, HostKeyError::Unreadable { file, .. } if *file == dir),
        "{error:?}"
    );
}

#[test]
fn a_file_beyond_the_bound_refuses_every_host() {
    let files = Files::new(format!("host {ED25519_A}\n"));
    let file = fs::OpenOptions::new()
        .append(true)
        .open(files.path())
        .unwrap();
    file.set_len(FILE_LEN_MAX + 1).unwrap();
    let error = files.strict("host", ED25519_A).unwrap_err();
    assert!(
        matches!(error, HostKeyError::Unreadable { .. }),
        "{error:?}"
    );
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let files = Files::new("");
    let pipe = files.dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let keys = HostKeys::files([pipe]);
    assert!(
        keys.check(&"host".parse().unwrap(), 22, &public(ED25519_A))
            .is_err()
    );
}

#[test]
fn a_new_host_is_written_down_once_and_known_from_then_on() {
    let files = Files::new(format!("other {ED25519_B}")); // no line feed at the end
    let accepted = files
        .check(HostKeyPolicy::AcceptNew, "[HOST]:2222", ED25519_A)
        .unwrap();
    assert_eq!(accepted, Accepted::Added(files.path()));
    let content = fs::read_to_string(files.path()).unwrap();
    assert_eq!(
        content,
        format!("other {ED25519_B}\n[host]:2222 {ED25519_A}\n")
    );
    let again = files.check(HostKeyPolicy::AcceptNew, "[host]:2222", ED25519_A);
    assert_eq!(line_of(again), 2);
    assert_eq!(fs::read_to_string(files.path()).unwrap(), content);
}

#[test]
fn a_new_host_is_hashed_where_others_are() {
    let hashed = pattern::hash_name("other", &[3; pattern::SALT_LEN]);
    let files = Files::new(format!("{hashed} {ED25519_B}\n"));
    files
        .check(HostKeyPolicy::AcceptNew, "host", ED25519_A)
        .unwrap();
    files
        .check(HostKeyPolicy::AcceptNew, "host2", ED25519_A)
        .unwrap();
    let content = fs::read_to_string(files.path()).unwrap();
    let added: Vec<_> = content.lines().skip(1).collect();
    assert!(
        added.iter().all(|line| line.starts_with("|1|")),
        "{content}"
    );
    assert!(!content.contains("host"), "{content}");
    assert_eq!(line_of(files.strict("host", ED25519_A)), 2);
    // Salts differ, or equal names could be told from the file.
    assert_ne!(added[0].split('|').nth(2), added[1].split('|').nth(2));
}

#[cfg(unix)]
#[test]
fn a_new_file_and_its_directory_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".ssh/known_hosts");
    let keys = HostKeys::files([&file]).policy(HostKeyPolicy::AcceptNew);
    keys.check(&"host".parse().unwrap(), 22, &public(ED25519_A))
        .unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
}

#[test]
fn a_new_host_that_cannot_be_written_down_is_refused() {
    let files = Files::new("");
    let file = files.path().join("below-a-file");
    let keys = HostKeys::files([file]).policy(HostKeyPolicy::AcceptNew);
    let error = keys
        .check(&"host".parse().unwrap(), 22, &public(ED25519_A))
        .unwrap_err();
    // Reading such a path fails already on some systems.
    let refused = matches!(
        error,
        HostKeyError::NotRecorded { .. } | HostKeyError::Unreadable { .. }
    );
    assert!(refused, "{error:?}");
}

#[test]
fn keys_that_the_program_names_need_no_file() {
    let keys = HostKeys::only([public(ED25519_A)]);
    let host = "host".parse().unwrap();
    assert_eq!(
        keys.check(&host, 22, &public(ED25519_A)).unwrap(),
        Accepted::Named
    );
    let error = keys.check(&host, 22, &public(ED25519_B)).unwrap_err();
    assert!(matches!(error, HostKeyError::NotNamed { .. }));
    let any = HostKeys::danger_accept_any_host().policy(HostKeyPolicy::Strict);
    assert_eq!(
        any.check(&host, 22, &public(ED25519_B)).unwrap(),
        Accepted::Unchecked
    );
}

#[test]
fn the_types_that_a_host_is_known_by_are_listed_in_order() {
    let files = Files::new(format!(
        "host {RSA}\n@revoked host {ECDSA}\nother {ECDSA}\nhost {ED25519_A}\nhost {ED25519_B}\n"
    ));
    let keys = HostKeys::files([files.path()]);
    let known = |host: &str| keys.known_types(&host.parse().unwrap(), 22).unwrap();
    assert_eq!(known("host"), ["ssh-rsa", "ssh-ed25519"]);
    assert_eq!(known("nobody"), [""; 0]);
}

/// Lines as they are found in the wild, and some that are not, hopefully.
fn corpus() -> Vec<Vec<u8>> {
    let a = ED25519_A;
    let hashed = |name: &str, salt: u8| pattern::hash_name(name, &[salt; pattern::SALT_LEN]);
    let h = hashed("host", 1);
    let encoded = a.split(' ').nth(1).unwrap();
    let long = "a".repeat(pattern::PATTERN_LEN_MAX);
    let mut lines: Vec<Vec<u8>> = [
        format!("host {a}"),
        format!("host {a} with a comment"),
        format!("  host  {a}"),
        format!("\thost\t{}", a.replace(' ', "\t")),
        format!("host \t {}\t \tcomment", a.replace(' ', "  \t ")),
        format!("host {a}\r"),
        format!("host {a} comment\r"),
        format!("host {RSA}"),
        format!("host {ECDSA}"),
        format!("host {ED25519_B}"),
        format!("HOST {a}"),
        format!("other {a}"),
        format!("host,other {a}"),
        format!("other,host {a}"),
        format!("other, host {a}"),
        format!("host,,other {a}"),
        format!(",host {a}"),
        format!("host, {a}"),
        format!("* {a}"),
        format!("? {a}"),
        format!("???? {a}"),
        format!("h*t {a}"),
        format!("h?st {a}"),
        format!("*host* {a}"),
        format!("**h**o**s**t** {a}"),
        format!("*.example.com {a}"),
        format!("*.EXAMPLE.com,!b.example.com {a}"),
        format!("!b.example.com,*.example.com {a}"),
        format!("!host {a}"),
        format!("!host,host {a}"),
        format!("host,!host {a}"),
        format!("host,!* {a}"),
        format!("!,host {a}"),
        format!("!!host,* {a}"),
        format!("[host]:2222 {a}"),
        format!("[HOST]:2222,host {a}"),
        format!("[host]:* {a}"),
        format!("[*]:2222 {a}"),
        format!("[host]:22 {a}"),
        format!("[::1]:2222,::1 {a}"),
        format!("10.0.0.? {a}"),
        format!("{h} {a}"),
        format!("{} {a}", hashed("[host]:2222", 2)),
        format!("{} {a}", hashed("other", 3)),
        format!("{h},other {a}"),
        format!("other,{h} {a}"),
        format!("{} {a}", h.replace("|1|", "|2|")),
        format!("{} {a}", h.trim_end_matches('=')),
        format!("|1| {a}"),
        format!("|1|AAAA|BBBB {a}"),
        format!("| {a}"),
        format!("@revoked host {a}"),
        format!("@revoked * {ED25519_B}"),
        format!("@revoked {h} {RSA}"),
        format!("@revoked\thost\t{}", a.replace(' ', "\t")),
        format!("@cert-authority *.example.com {a}"),
        format!("@cert-authority host {RSA}"),
        format!("@Revoked host {a}"),
        format!("@unheard-of host {a}"),
        format!("@revoked @revoked host {a}"),
        format!("@revoked @cert-authority host {a}"),
        format!("@ host {a}"),
        "@revoked".to_owned(),
        format!("@revoked {a}"),
        format!("# host {a}"),
        format!(" # host {a}"),
        format!("#host {a}"),
        format!("host#x {a}"),
        format!("host # {a}"),
        format!("host\u{a0}{a}"),
        format!("host {}", a.replace(' ', "\u{a0}")),
        format!("\u{feff}host {a}"),
        format!("host\0other {a}"),
        format!("host {a}\0 rest"),
        format!("host\u{b}{a}"),
        format!("host {a}\u{c}"),
        "host".to_owned(),
        "host ".to_owned(),
        "host ssh-ed25519".to_owned(),
        "host ssh-ed25519 ".to_owned(),
        "host ssh-ed25519 #".to_owned(),
        format!("host {encoded}"),
        format!("host ssh-rsa {encoded}"),
        format!(
            "host ecdsa-sha2-nistp384 {}",
            ECDSA.split(' ').nth(1).unwrap()
        ),
        format!("host ssh-unknown {encoded}"),
        format!("host SSH-ED25519 {encoded}"),
        format!("host ssh-ed25519 {}", encoded.trim_end_matches('b')),
        format!("host ssh-ed25519 {encoded}="),
        format!("host ssh-ed25519 {encoded}AAAA"),
        format!("host ssh-ed25519 !{encoded}"),
        format!("host ssh-ed25519 {}", encoded.replacen("AAAA", "////", 1)),
        "host 1024 35 1234567890123".to_owned(),
        format!("{long},host {a}"),
        format!("{long}a,host {a}"),
        format!("host,{long}a {a}"),
        String::new(),
        "\r".to_owned(),
        "   ".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec();
    lines.push([b"h\xffst ", a.as_bytes()].concat());
    lines.push([b"host ", a.as_bytes(), b" \xff\xfe"].concat());
    lines
}

/// What `ssh-keygen -F` finds: the numbers of the lines, and what they are marked as.
fn ssh_keygen_finds(file: &Path, name: &str) -> Vec<(usize, Marker)> {
    // With `-l` it reads the keys too, as `ssh` does; without, it looks no further than the type.
    let args = [
        OsStr::new("-l"),
        "-F".as_ref(),
        name.as_ref(),
        "-f".as_ref(),
        file.as_ref(),
    ];
    let output = Command::new("ssh-keygen").args(args).output().expect(
        "ssh-keygen is the oracle of this test: install openssh-client (scripts/test does it)",
    );
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    let places = found
        .lines()
        .filter_map(|line| line.strip_prefix("# Host ")?.split_once(": line "));
    places
        .map(|(_, place)| {
            let mut words = place.split(' ');
            let line = words.next().unwrap().parse().unwrap();
            let marker = match words.next() {
                Some("REVOKED") => Marker::Revoked,
                Some("CA") => Marker::CertAuthority,
                _ => Marker::Host,
            };
            (line, marker)
        })
        .collect()
}

fn ketch_finds(file: &Path, name: &str) -> Vec<(usize, Marker)> {
    let bytes = fs::read(file).unwrap();
    let contents = [(file, &bytes[..])];
    lookup::entries_about(&contents, name)
        .map(|(at, entry)| (at.line, entry.marker))
        .collect()
}

#[test]
fn the_same_lines_are_found_as_ssh_keygen_finds() {
    let lines = corpus();
    assert!(lines.len() >= 60, "{}", lines.len());
    let files = Files::new([lines.join(&b'\n'), b"\n".to_vec()].concat());
    let names = [
        "host",
        "hosts",
        "other",
        "x",
        "[host]:2222",
        "[host]:22",
        "[host]:3",
        "::1",
        "[::1]:2222",
        "10.0.0.1",
        "10.0.0.10",
        "a.example.com",
        "b.example.com",
        "example.com",
        "!host",
        "host#x",
    ];
    let mut found = 0;
    for name in names {
        let theirs = ssh_keygen_finds(&files.path(), name);
        let ours = ketch_finds(&files.path(), name);
        let line = |number: usize| String::from_utf8_lossy(&lines[number - 1]).into_owned();
        for (number, _) in theirs.iter().filter(|each| !ours.contains(each)) {
            println!(
                "{name}: only ssh-keygen finds line {number}: {:?}",
                line(*number)
            );
        }
        for (number, _) in ours.iter().filter(|each| !theirs.contains(each)) {
            println!(
                "{name}: only ketch finds line {number}: {:?}",
                line(*number)
            );
        }
        assert_eq!(ours, theirs, "{name}");
        found += ours.len();
    }
    assert!(found > 100, "only {found} lines were found in all");
}

#[test]
fn ssh_keygen_finds_what_was_appended() {
    let files = Files::new("");
    for host in ["host", "[porter]:2222", "[::1]:22000", "10.0.0.1"] {
        files
            .check(HostKeyPolicy::AcceptNew, host, ED25519_A)
            .unwrap();
        assert_eq!(ssh_keygen_finds(&files.path(), host).len(), 1, "{host}");
    }
    let hashing = Command::new("ssh-keygen")
        .arg("-q")
        .arg("-H")
        .arg("-f")
        .arg(files.path())
        .output();
    assert!(hashing.unwrap().status.success());
    files
        .check(HostKeyPolicy::AcceptNew, "new.example.com", ED25519_A)
        .unwrap();
    for host in [
        "host",
        "[porter]:2222",
        "[::1]:22000",
        "10.0.0.1",
        "new.example.com",
    ] {
        assert_eq!(ssh_keygen_finds(&files.path(), host).len(), 1, "{host}");
        line_of(files.strict(host, ED25519_A));
    }
}

#[test]
fn fingerprints_are_those_of_ssh_keygen() {
    for key in [ED25519_A, ECDSA, RSA] {
        let files = Files::new(key);
        let output = Command::new("ssh-keygen")
            .arg("-lf")
            .arg(files.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&fingerprint(&wire(key))), "{text}");
    }
}

proptest! {
    #[test]
    fn no_file_makes_the_lookup_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400), port in any::<u16>(),
    ) {
        let _ = look_up(&[(Path::new("f"), &bytes)], &Names::of("host", port, None), &wire(ED25519_A));
    }

    #[test]
    fn lines_around_a_known_one_do_not_hide_it(
        before in "[ -~\t]{0,60}", after in "[ -~\t]{0,60}",
    ) {
        // Random text is no key, so it can neither bind nor revoke.
        let content = format!("{before}\nhost {ED25519_A}\n{after}\n");
        let files = [(Path::new("f"), content.as_bytes())];
        let found = look_up(&files, &Names::of("host", 22, None), &wire(ED25519_A));
        prop_assert!(matches!(found, Lookup::Known(at) if at.line == 2));
    }
}

// Authorities, certificates, revoked keys: made by `ssh-keygen`.

/// A directory in which keys are made.
struct Keys {
    dir: tempfile::TempDir,
}

impl Keys {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) {
        let output = Command::new("ssh-keygen")
            .arg("-q")
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .expect("ssh-keygen makes the keys of this test");
        assert!(output.status.success(), "{args:?}: {output:?}");
    }

    /// Makes a key; gives its public line.
    fn key(&self, name: &str, kind: &str) -> String {
        self.run(&["-t", kind, "-N", "", "-C", "", "-f", name]);
        self.line(&format!("{name}.pub"))
    }

    fn line(&self, file: &str) -> String {
        fs::read_to_string(self.path(file))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Has `ca` sign `key` with these arguments.
    fn certify(&self, ca: &str, key: &str, args: &[&str]) -> PublicKey {
        let file = format!("{key}.pub");
        self.run(&[&["-s", ca, "-I", "test"], args, &[&file]].concat());
        PublicKey::from_line(&self.line(&format!("{key}-cert.pub"))).unwrap()
    }
}

fn check(
    keys: &HostKeys,
    host: &str,
    port: u16,
    key: &PublicKey,
) -> Result<Accepted, HostKeyError> {
    keys.check(&host.parse().unwrap(), port, key)
}

#[test]
fn a_certificate_is_good_for_its_hosts_where_its_authority_is_known() {
    let made = Keys::new();
    for kind in ["ed25519", "ecdsa"] {
        let ca = made.key(&format!("ca-{kind}"), kind);
        made.key(&format!("host-{kind}"), "ed25519");
        let names = ["-h", "-n", "sftp.example,other"];
        let key = made.certify(&format!("ca-{kind}"), &format!("host-{kind}"), &names);
        let files = Files::new(format!("\n@cert-authority *.example,gate {ca} our own\n"));
        let keys = HostKeys::files([files.path()]);
        for port in [22, 2222] {
            let accepted = check(&keys, "SFTP.example", port, &key).unwrap();
            assert!(matches!(accepted, Accepted::Certified(at) if at.line == 2));
        }
        let error = check(&keys, "b.example", 22, &key).unwrap_err();
        assert!(matches!(
            error,
            HostKeyError::Certificate {
                source: CertificateError::OtherPrincipal,
                ..
            }
        ));
        // Not the authority's business, although the certificate says so.
        let error = check(&keys, "other", 22, &key).unwrap_err();
        assert!(matches!(error, HostKeyError::Unknown { .. }), "{error:?}");
        // Under an alias the certificate has to be for that.
        let aliased = keys.clone().alias("sftp.example");
        assert!(check(&aliased, "10.0.0.1", 22, &key).is_ok());
        let aliased = keys.alias("gate");
        assert!(check(&aliased, "sftp.example", 22, &key).is_err());
        // The name in the file counts, not what the authority could say.
        let plain = key.plain();
        let keys = HostKeys::files([files.path()]);
        assert!(check(&keys, "sftp.example", 22, &plain).is_err());
    }
}

#[test]
fn certificates_that_do_not_hold_are_refused() {
    let made = Keys::new();
    let ca = made.key("ca", "ed25519");
    made.key("host", "ed25519");
    let files = Files::new(format!("@cert-authority * {ca}\n"));
    let keys = HostKeys::files([files.path()]);
    let refused = |args: &[&str]| {
        let key = made.certify("ca", "host", args);
        match check(&keys, "host", 22, &key) {
            Err(HostKeyError::Certificate { source, .. }) => source,
            other => panic!("{args:?}: {other:?}"),
        }
    };
    use CertificateError as Wrong;
    assert!(matches!(refused(&["-h"]), Wrong::NoPrincipals));
    assert!(matches!(refused(&["-n", "host"]), Wrong::OtherKind { .. }));
    assert!(matches!(refused(&["-h", "-n", "*"]), Wrong::OtherPrincipal));
    let past = ["-h", "-n", "host", "-V", "20200101:20200102"];
    assert!(matches!(refused(&past), Wrong::Expired { .. }));
    let future = ["-h", "-n", "host", "-V", "+100d:+200d"];
    assert!(matches!(refused(&future), Wrong::NotYetValid { .. }));
    let option = ["-h", "-n", "host", "-O", "critical:x@y=z"];
    assert!(matches!(refused(&option), Wrong::UnknownOption { .. }));
    let good = made.certify("ca", "host", &["-h", "-n", "host"]);
    assert!(check(&keys, "host", 22, &good).is_ok());
    let none = keys.authority_algorithms(vec![SignatureAlgorithm::RsaSha512]);
    let error = check(&none, "host", 22, &good).unwrap_err();
    assert!(error.to_string().contains("ssh-ed25519"), "{error}");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_the_key_in_it() {
    let made = Keys::new();
    made.key("ca", "ed25519");
    let host = made.key("host", "ed25519");
    let key = made.certify("ca", "host", &["-h", "-n", "host"]);
    let files = Files::new(format!("host {host}\n"));
    assert!(matches!(
        check(&HostKeys::files([files.path()]), "host", 22, &key),
        Ok(Accepted::Known(_))
    ));
    assert!(check(&HostKeys::only([key.plain()]), "host", 22, &key).is_ok());
    let empty = Files::new("");
    let new = HostKeys::files([empty.path()]).policy(HostKeyPolicy::AcceptNew);
    check(&new, "host", 22, &key).unwrap();
    assert_eq!(
        fs::read_to_string(empty.path()).unwrap(),
        format!("host {host}\n")
    );
    // An expired certificate around a key that is known does no harm.
    let ca = made.line("ca.pub");
    let files = Files::new(format!("@cert-authority * {ca}\nhost {host}\n"));
    let old = made.certify(
        "ca",
        "host",
        &["-h", "-n", "host", "-V", "20200101:20200102"],
    );
    let keys = HostKeys::files([files.path()]);
    assert!(matches!(check(&keys, "host", 22, &old), Ok(Accepted::Known(at)) if at.line == 2));
}

#[test]
fn a_revoked_authority_or_key_spoils_the_certificate() {
    let made = Keys::new();
    let ca = made.key("ca", "ed25519");
    let host = made.key("host", "ed25519");
    let key = made.certify("ca", "host", &["-h", "-n", "host"]);
    for revoked in [&ca, &host] {
        for name in ["host", "*"] {
            let files = Files::new(format!(
                "@cert-authority * {ca}\nhost {host}\n@revoked {name} {revoked}\n"
            ));
            for port in [22, 2222] {
                let keys = HostKeys::files([files.path()]).policy(HostKeyPolicy::AcceptNew);
                let error = check(&keys, "host", port, &key).unwrap_err();
                assert!(matches!(error, HostKeyError::Revoked { .. }), "{error:?}");
            }
        }
    }
}

#[test]
fn a_list_of_revoked_keys_counts_and_has_to_be_readable() {
    let files = Files::new(format!("host {ED25519_A}\n"));
    let keys = HostKeys::files([files.path()]);
    let missing = keys.clone().revoked(files.dir.path().join("gone"));
    let error = check(&missing, "host", 22, &public(ED25519_A)).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let garbage = files.dir.path().join("garbage");
    fs::write(&garbage, b"SSHKRL\n\0 this is none").unwrap();
    let error = check(&keys.revoked(garbage), "host", 22, &public(ED25519_A)).unwrap_err();
    assert!(matches!(error, HostKeyError::List { .. }), "{error:?}");
}

#[test]
fn an_unknown_host_is_asked_about_and_written_down() {
    let files = Files::new("");
    let answer = |yes: bool| {
        HostKeys::files([files.path()])
            .policy(HostKeyPolicy::Ask)
            .ask(move |shown| {
                assert_eq!(shown.name, "[host]:2222");
                assert!(shown.fingerprint.starts_with("SHA256:"));
                yes
            })
    };
    let error = check(&answer(false), "host", 2222, &public(ED25519_A)).unwrap_err();
    assert!(matches!(error, HostKeyError::NotConfirmed { .. }));
    let nobody = HostKeys::files([files.path()]).policy(HostKeyPolicy::Ask);
    let error = check(&nobody, "host", 2222, &public(ED25519_A)).unwrap_err();
    assert!(matches!(error, HostKeyError::Unknown { .. }));
    assert_eq!(fs::read(files.path()).unwrap(), b"");
    check(&answer(true), "host", 2222, &public(ED25519_A)).unwrap();
    // Nobody is asked twice, and a changed key is not asked about at all.
    check(&answer(false), "host", 2222, &public(ED25519_A)).unwrap();
    let error = check(&answer(true), "host", 2222, &public(ED25519_B)).unwrap_err();
    assert!(matches!(error, HostKeyError::Changed { .. }));
}

#[test]
fn an_alias_is_the_only_name_of_a_host() {
    let files = Files::new(format!("Gate {ED25519_A}\n[10.0.0.1]:2222 {ED25519_B}\n"));
    let keys = HostKeys::files([files.path()]).alias("gate");
    assert_eq!(
        line_of(check(&keys, "10.0.0.1", 2222, &public(ED25519_A))),
        1
    );
    let error = check(&keys, "10.0.0.1", 2222, &public(ED25519_B)).unwrap_err();
    assert!(matches!(error, HostKeyError::Changed { .. }));
    let new = HostKeys::files([files.path()])
        .alias("Door")
        .hash_names(true)
        .policy(HostKeyPolicy::AcceptNew);
    check(&new, "10.0.0.1", 2222, &public(ED25519_A)).unwrap();
    let content = fs::read_to_string(files.path()).unwrap();
    assert!(
        content.lines().nth(2).unwrap().starts_with("|1|"),
        "{content}"
    );
    assert_eq!(ssh_keygen_finds(&files.path(), "door").len(), 1);
}

#[test]
fn algorithms_are_sorted_by_what_can_be_checked() {
    use SignatureAlgorithm as A;
    let all = [
        A::Ed25519Cert,
        A::RsaSha512Cert,
        A::Ed25519,
        A::EcdsaP256,
        A::RsaSha512,
    ];
    let order = |content: String| {
        let files = Files::new(content);
        let keys = HostKeys::files([files.path()]);
        keys.order(&"host".parse().unwrap(), 2222, &all).unwrap()
    };
    assert_eq!(order(String::new()), all);
    assert_eq!(
        order(format!("host {ECDSA}\n@revoked host {RSA}\n")),
        [
            A::EcdsaP256,
            A::Ed25519Cert,
            A::RsaSha512Cert,
            A::Ed25519,
            A::RsaSha512
        ]
    );
    assert_eq!(
        order(format!(
            "@cert-authority h* {ECDSA}\n[host]:2222 {RSA}\nhost {ED25519_A}\n"
        )),
        [
            A::Ed25519Cert,
            A::RsaSha512Cert,
            A::RsaSha512,
            A::Ed25519,
            A::EcdsaP256
        ]
    );
}

#[test]
fn keys_that_a_host_proved_are_learnt_and_others_forgotten() {
    for hashed in [false, true] {
        let name = |name: &str| match hashed {
            true => pattern::hash_name(name, &[9; pattern::SALT_LEN]),
            false => name.to_owned(),
        };
        let files = Files::new(format!(
            "# mine\n{} {ED25519_A} old comment\nother {ED25519_B}\r\n{} {RSA}\n\nlast {ECDSA}",
            name("[host]:2222"),
            name("[host]:2222"),
        ));
        let keys = HostKeys::files([files.path()]);
        let host = "host".parse().unwrap();
        let all = [public(ED25519_A), public(ECDSA)];
        let updated = keys.update(&host, 2222, &public(ED25519_A), &all).unwrap();
        assert_eq!((updated.added, updated.removed), (1, 1));
        let content = fs::read_to_string(files.path()).unwrap();
        let kept = format!(
            "# mine\n{} {ED25519_A} old comment\nother {ED25519_B}\r\n\nlast {ECDSA}\n",
            name("[host]:2222")
        );
        assert!(content.starts_with(&kept), "{content}");
        let added = &content[kept.len()..];
        assert!(added.ends_with(&format!(" {ECDSA}\n")), "{content}");
        assert_eq!(added.starts_with("|1|"), hashed, "{content}");
        let found = ssh_keygen_finds(&files.path(), "[host]:2222");
        assert_eq!(
            found.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [2, 6]
        );
        // It is up to date now, and stays so.
        let again = keys.update(&host, 2222, &public(ED25519_A), &all).unwrap();
        assert_eq!(again, Updated::default());
        assert_eq!(fs::read_to_string(files.path()).unwrap(), content);
        assert_eq!(
            fs::read_dir(files.dir.path()).unwrap().count(),
            1,
            "nothing is left over"
        );
    }
}

#[test]
fn keys_are_left_alone_where_somebody_meant_it_so() {
    for (content, shown) in [
        (String::new(), ED25519_A),
        (format!("host {ED25519_B}\n"), ED25519_A),
        (format!("host,10.0.0.1 {ED25519_A}\n"), ED25519_A),
        (format!("h* {ED25519_A}\n"), ED25519_A),
        (format!("host {ED25519_A}\n*,!x {RSA}\n"), ED25519_A),
        (
            format!("host {ED25519_A}\n@cert-authority * {RSA}\n"),
            ED25519_A,
        ),
        (
            format!("@revoked host {ECDSA}\nhost {ED25519_A}\n"),
            ED25519_A,
        ),
    ] {
        let files = Files::new(&content);
        let keys = HostKeys::files([files.path()]);
        let all = [public(shown), public(ECDSA)];
        let host = "host".parse().unwrap();
        let updated = keys.update(&host, 22, &public(shown), &all).unwrap();
        assert_eq!(updated, Updated::default(), "{content}");
        assert_eq!(fs::read_to_string(files.path()).unwrap(), content);
    }
    // A host that does not announce the key it has just shown is up to something.
    let files = Files::new(format!("host {ED25519_A}\n"));
    let keys = HostKeys::files([files.path()]);
    let updated = keys.update(
        &"host".parse().unwrap(),
        22,
        &public(ED25519_A),
        &[public(ECDSA)],
    );
    assert_eq!(updated.unwrap(), Updated::default());
}

#[cfg(unix)]
#[test]
fn an_updated_file_keeps_its_mode_and_a_link_stays_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = Files::new(format!("host {ED25519_A}\n"));
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o640)).unwrap();
    let link = files.dir.path().join("link");
    std::os::unix::fs::symlink("known_hosts", &link).unwrap();
    let keys = HostKeys::files([&link]);
    let all = [public(ED25519_A), public(ECDSA)];
    let host = "host".parse().unwrap();
    assert_eq!(
        keys.update(&host, 22, &public(ED25519_A), &all)
            .unwrap()
            .added,
        1
    );
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = fs::metadata(files.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(fs::read_to_string(files.path()).unwrap().lines().count(), 2);
}

#[test]
fn what_ssh_keygen_removes_is_unknown_again() {
    let files = Files::new(format!("[host]:2222 {ED25519_A}\n"));
    let output = Command::new("ssh-keygen")
        .args(["-q", "-R", "[host]:2222", "-f"])
        .arg(files.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    let error = files.strict("[host]:2222", ED25519_A).unwrap_err();
    assert!(matches!(error, HostKeyError::Unknown { .. }));
}
