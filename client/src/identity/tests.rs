//! Keys that `ssh-keygen` made, whole and damaged.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use base64ct::{Base64, Encoding as _};
use proptest::prelude::*;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::*;

/// Has `ssh-keygen` make a key pair; the private half is `dir/name`.
fn generate(dir: &tempfile::TempDir, name: &str, passphrase: &str, more: &[&str]) -> PathBuf {
    let path = dir.path().join(name);
    let status = Command::new("ssh-keygen")
        .args(["-q", "-C", "a comment", "-N", passphrase, "-f"])
        .arg(&path)
        .args(more)
        .status()
        .expect("ssh-keygen makes the keys: install openssh-client (scripts/test does it)");
    assert!(status.success());
    path
}

fn ed25519(dir: &tempfile::TempDir, name: &str, passphrase: &str) -> PathBuf {
    generate(dir, name, passphrase, &["-t", "ed25519", "-a", "1"])
}

/// What the `.pub` file beside a key says.
fn public_line(path: &Path) -> String {
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

fn answers(text: &'static str) -> impl Fn(&PassphraseQuestion<'_>) -> Option<Zeroizing<String>> {
    move |_| Some(Zeroizing::new(text.to_owned()))
}

fn assert_signs(identity: &Identity) {
    let signature = identity.sign(b"session").unwrap();
    let blob = identity.public_key().as_blob();
    let point = &blob[blob.len() - 32..];
    UnparsedPublicKey::new(&ED25519, point)
        .verify(b"session", &signature)
        .unwrap();
    assert!(
        UnparsedPublicKey::new(&ED25519, point)
            .verify(b"other", &signature)
            .is_err()
    );
}

#[test]
fn a_key_of_ssh_keygen_signs() {
    let dir = tempfile::tempdir().unwrap();
    let path = ed25519(&dir, "key", "");
    let identity = Identity::from_file(&path).unwrap();
    assert!(!identity.is_locked());
    assert_signs(&identity);
    let line = public_line(&path);
    let blob = Base64::encode_string(identity.public_key().as_blob());
    assert_eq!(line.split(' ').nth(1), Some(&blob[..]));
    assert_signs(&Identity::from_openssh(&fs::read(&path).unwrap()).unwrap());
}

#[test]
fn a_locked_key_is_known_before_and_signs_after_it_is_unlocked() {
    let dir = tempfile::tempdir().unwrap();
    let path = ed25519(&dir, "key", "p\u{e4}ss \u{1f511} word");
    let identity = Identity::from_file(&path).unwrap();
    assert!(identity.is_locked());
    let listed = Command::new("ssh-keygen")
        .arg("-lf")
        .arg(&path)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&identity.fingerprint()), "{listed}");

    let error = identity.sign(b"x").unwrap_err();
    assert!(
        matches!(error, IdentityError::Locked { .. }),
        "nobody to ask: {error:?}"
    );
    let identity = identity.passphrase(answers("p\u{e4}ss \u{1f511} word"));
    let clone = identity.clone();
    assert_signs(&identity);
    assert!(!clone.is_locked(), "clones share what was unlocked");
}

#[test]
fn other_ciphers_of_ssh_keygen_open_too() {
    let dir = tempfile::tempdir().unwrap();
    for cipher in [
        "aes256-gcm@openssh.com",
        "aes128-ctr",
        "chacha20-poly1305@openssh.com",
    ] {
        let path = generate(
            &dir,
            cipher,
            "word",
            &["-t", "ed25519", "-a", "1", "-Z", cipher],
        );
        let wrong = Identity::from_file(&path)
            .unwrap()
            .passphrase(answers("sword"));
        let error = wrong.sign(b"x").unwrap_err();
        assert!(
            matches!(error, IdentityError::WrongPassphrase { .. }),
            "{cipher}: {error:?}"
        );
        assert_signs(
            &Identity::from_file(&path)
                .unwrap()
                .passphrase(answers("word")),
        );
    }
}

#[test]
fn a_wrong_passphrase_is_asked_for_again_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = ed25519(&dir, "key", "word");
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let wrong = Identity::from_file(&path)
        .unwrap()
        .passphrase(move |question| {
            assert_eq!(question.failed, count.fetch_add(1, Ordering::SeqCst));
            Some(Zeroizing::new("sword".to_owned()))
        });
    let error = wrong.unlock().unwrap_err();
    assert!(
        matches!(error, IdentityError::WrongPassphrase { .. }),
        "{error:?}"
    );
    assert_eq!(error.kind(), Kind::Auth);
    assert_eq!(asked.load(Ordering::SeqCst), PASSPHRASE_TRIES_MAX);
    assert!(wrong.is_locked());

    let second = Identity::from_file(&path).unwrap().passphrase(|question| {
        let answer = if question.failed == 0 { "" } else { "word" };
        Some(Zeroizing::new(answer.to_owned()))
    });
    assert_signs(&second);
}

#[test]
fn giving_no_passphrase_gives_the_key_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = ed25519(&dir, "key", "word");
    let error = Identity::from_file(&path)
        .unwrap()
        .passphrase(|_| None)
        .unlock()
        .unwrap_err();
    assert!(matches!(error, IdentityError::Locked { .. }), "{error:?}");
}

#[test]
fn keys_of_other_types_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bits, algorithm) in [
        ("rsa", "2048", "ssh-rsa"),
        ("ecdsa", "256", "ecdsa-sha2-nistp256"),
    ] {
        for passphrase in ["", "word"] {
            let file = format!("{name}-{passphrase}");
            let path = generate(
                &dir,
                &file,
                passphrase,
                &["-t", name, "-b", bits, "-a", "1"],
            );
            let error = Identity::from_file(&path).unwrap_err();
            assert!(error.to_string().contains(algorithm), "{error}: {error:?}");
            assert_eq!(error.kind(), Kind::Unsupported);
        }
    }
}

#[test]
fn other_formats_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = ed25519(&dir, "key", "");
    let older = generate(&dir, "older", "", &["-t", "rsa", "-b", "2048", "-m", "PEM"]);
    let good = fs::read_to_string(&path).unwrap();
    for (text, reason) in [
        (public_line(&path), "public key"),
        (fs::read_to_string(older).unwrap(), "ssh-keygen -p"),
        (
            "PuTTY-User-Key-File-3: ssh-ed25519\n".to_owned(),
            "puttygen",
        ),
        ("-----BEGIN CERTIFICATE-----\n".to_owned(), "no private key"),
        (String::new(), "no private key"),
        (good.replacen('b', "c", 1), "damaged"),
        (good[..good.len() / 2].to_owned(), "damaged"),
    ] {
        let error = Identity::from_openssh(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}: {text}");
    }
    // Line ends of Windows, and blank lines around, change nothing.
    let windows = format!("\r\n{}\r\n", good.replace('\n', "\r\n"));
    assert_signs(&Identity::from_openssh(windows.as_bytes()).unwrap());
}

#[test]
fn a_key_that_wants_too_many_rounds_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(ed25519(&dir, "key", "word")).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let mut bytes = Base64::decode_vec(&body).unwrap();
    // magic, "aes256-ctr", "bcrypt", then the options: length, salt, and the rounds at their end.
    let at = 15 + (4 + 10) + (4 + 6) + 4 + (4 + 16);
    assert_eq!(bytes[at..at + 4], 1u32.to_be_bytes());
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    let body = Base64::encode_string(&bytes);
    let lines: Vec<_> = body
        .as_bytes()
        .chunks(70)
        .map(|c| str::from_utf8(c).unwrap())
        .collect();
    let text = format!(
        "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
        lines.join("\n")
    );
    let error = Identity::from_openssh(text.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("too many rounds"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = ed25519(&dir, "key", "");
    for mode in [0o644, 0o640, 0o660, 0o601, 0o610] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Identity::from_file(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(matches!(error, IdentityError::OpenToOthers { mode: m, .. } if m == mode));
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(Identity::from_file(&path).is_ok());
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    for path in [dir.path(), &pipe, Path::new("/dev/null")] {
        let error = Identity::from_file(path).unwrap_err();
        assert!(matches!(error, IdentityError::NotAFile { .. }), "{error:?}");
    }
}

#[test]
fn a_missing_file_and_one_too_long_are_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    assert_eq!(
        Identity::from_file(&path).unwrap_err().kind(),
        Kind::NotFound
    );
    generate(&dir, "key", "", &["-t", "ed25519"]);
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(FILE_LEN_MAX + 1)
        .unwrap();
    let error = Identity::from_file(&path).unwrap_err();
    assert!(matches!(error, IdentityError::TooLong { .. }), "{error:?}");
}

#[test]
fn nothing_secret_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::from_file(ed25519(&dir, "key", "")).unwrap();
    let seed = match &*identity.private() {
        Private::Open(seed) => seed.clone(),
        Private::Locked(_) => panic!("the key has no passphrase"),
    };
    let seen = format!("{identity:?} {identity:#?}");
    assert!(seen.contains(&identity.fingerprint()));
    assert!(
        !seen.contains(&format!("{}, {}", seed[0], seed[1])),
        "{seen}"
    );
    let hex: String = seed.iter().map(|b| format!("{b:02x}")).collect();
    assert!(!seen.contains(&hex[..8]), "{seen}");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), front in any::<bool>(),
    ) {
        let front: &[u8] = if front { b"-----BEGIN OPENSSH PRIVATE KEY-----\n" } else { b"" };
        prop_assert!(Identity::from_openssh(&[front, &bytes[..]].concat()).is_err());
    }
}
