//! Keys that `ssh-keygen` made, whole and damaged.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use ketch_keys::KeyType;
use proptest::prelude::*;

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
    identity.unlock().unwrap();
    let key = identity.public_key().unwrap();
    let algorithm = key.algorithms()[0];
    let signature = identity.sign(algorithm, b"session").unwrap();
    assert!(key.verify(algorithm, b"session", &signature).is_ok());
    assert!(key.verify(algorithm, b"other", &signature).is_err());
}

#[test]
fn keys_of_every_type_sign() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bits, key_type) in [
        ("ed25519", "256", KeyType::Ed25519),
        ("ecdsa", "256", KeyType::EcdsaP256),
        ("ecdsa", "384", KeyType::EcdsaP384),
        ("ecdsa", "521", KeyType::EcdsaP521),
        ("rsa", "2048", KeyType::Rsa),
    ] {
        for passphrase in ["", "word"] {
            let file = format!("{name}-{bits}-{passphrase}");
            let path = generate(
                &dir,
                &file,
                passphrase,
                &["-t", name, "-b", bits, "-a", "1"],
            );
            let identity = Identity::from_file(&path).unwrap();
            assert_eq!(identity.is_locked(), !passphrase.is_empty());
            let identity = identity.passphrase(answers("word"));
            assert_signs(&identity);
            let key = identity.public_key().unwrap();
            assert_eq!(key.key_type(), key_type);
            assert_eq!(Some(&key), public_key_of(&public_line(&path)).as_ref());
            let from_memory = Identity::from_memory(&fs::read(&path).unwrap()).unwrap();
            assert_signs(&from_memory.passphrase(answers("word")));
        }
    }
}

fn public_key_of(line: &str) -> Option<PublicKey> {
    super::public_line(line.as_bytes())
}

#[test]
fn the_public_half_beside_a_file_that_hides_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = generate(
        &dir,
        "pem",
        "sesame",
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
    );
    let known = Identity::from_file(&path).unwrap();
    assert_eq!(known.public_key(), public_key_of(&public_line(&path)));
    fs::remove_file(path.with_extension("pub")).unwrap();
    let hidden = Identity::from_file(&path).unwrap();
    assert_eq!((hidden.public_key(), hidden.fingerprint()), (None, None));
    assert_eq!(hidden.offers().count(), 0);
    let hidden = hidden.passphrase(answers("sesame"));
    assert_signs(&hidden);
    assert_eq!(hidden.public_key(), known.public_key());
}

#[test]
fn a_certificate_beside_a_key_is_offered_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (key, other, authority) = (
        ed25519(&dir, "key", ""),
        ed25519(&dir, "other", ""),
        ed25519(&dir, "ca", ""),
    );
    let signed = Command::new("ssh-keygen")
        .args(["-q", "-I", "test", "-n", "ann", "-s"])
        .args([&authority, &key.with_extension("pub")])
        .status()
        .unwrap();
    assert!(signed.success());
    let offered: Vec<_> = Identity::from_file(&key).unwrap().offers().collect();
    assert_eq!(offered.len(), 2);
    assert!(offered[0].certificate().is_some());
    assert_eq!(offered[0].plain(), offered[1]);
    // Another key's is no use.
    let other = Identity::from_file(other).unwrap();
    assert!(other.clone().certificate(offered[0].clone()).is_err());
    assert!(other.certificate(offered[1].clone()).is_err());
}

#[test]
fn a_public_key_stands_for_the_one_that_an_agent_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = ed25519(&dir, "key", "").with_extension("pub");
    let identity = Identity::from_file(&path).unwrap();
    assert!(identity.is_elsewhere());
    assert!(identity.public_key().is_some());
    let algorithm = SignatureAlgorithm::Ed25519;
    let error = identity.sign(algorithm, b"x").unwrap_err();
    assert!(
        matches!(error, IdentityError::Elsewhere { .. }),
        "{error:?}"
    );
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
    assert!(
        listed.contains(&identity.fingerprint().unwrap()),
        "{listed}"
    );

    let error = identity
        .sign(SignatureAlgorithm::Ed25519, b"x")
        .unwrap_err();
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
fn what_is_no_key_is_named() {
    let text = b"nothing of the kind\n";
    let error = Identity::from_memory(text).unwrap_err();
    assert_eq!(error.kind(), Kind::Local);
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.to_string().contains("no private key"), "{source}");
}

#[test]
fn nothing_secret_is_printed() {
    let seed = Zeroizing::new([7; 32]);
    let identity = Identity::from_ed25519_seed(seed);
    let seen = format!("{identity:?} {identity:#?}");
    assert!(seen.contains(&identity.fingerprint().unwrap()));
    assert!(!seen.contains("7, 7") && !seen.contains("0707"), "{seen}");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), front in any::<bool>(),
    ) {
        let front: &[u8] = if front { b"-----BEGIN OPENSSH PRIVATE KEY-----\n" } else { b"" };
        prop_assert!(Identity::from_memory(&[front, &bytes[..]].concat()).is_err());
    }
}
