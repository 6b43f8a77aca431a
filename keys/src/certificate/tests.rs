//! Certificates of `ssh-keygen`, and made by hand to be wrong in one thing each.

use std::fs;
use std::process::Command;

use ketch_wire::Writer;
use proptest::prelude::*;

use super::*;
use crate::private::PrivateKey;

const NOW: u64 = 1_000_000;

fn key() -> PrivateKey {
    PrivateKey::generate(KeyType::EcdsaP256).unwrap()
}

/// A certificate in the making; what `default` gives is good for user `ann` at [`NOW`].
struct Draft {
    name: Vec<u8>,
    key: PublicKey,
    kind: u32,
    key_id: Vec<u8>,
    principals: Vec<Vec<u8>>,
    valid: (u64, u64),
    critical: Vec<(Vec<u8>, Vec<u8>)>,
    extensions: Vec<(Vec<u8>, Vec<u8>)>,
    authority: PrivateKey,
    authority_blob: Option<Vec<u8>>,
    tail: Vec<u8>,
}

impl Default for Draft {
    fn default() -> Self {
        let key = key().public_key().clone();
        Self {
            name: key.key_type().certificate_name().into(),
            key,
            kind: 1,
            key_id: b"id".to_vec(),
            principals: vec![b"ann".to_vec()],
            valid: (0, u64::MAX),
            critical: Vec::new(),
            extensions: Vec::new(),
            authority: PrivateKey::from_ed25519_seed([6; 32].into()),
            authority_blob: None,
            tail: Vec::new(),
        }
    }
}

/// A value as it stands among the options: a string in the string.
fn packed(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Writer::new(&mut bytes).string(value);
    bytes
}

impl Draft {
    fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        let mut w = Writer::new(&mut blob);
        w.string(&self.name);
        w.string(b"a nonce");
        self.key.material().encode(&mut w);
        w.u64(17);
        w.u32(self.kind);
        w.string(&self.key_id);
        w.scope(|w| {
            self.principals
                .iter()
                .for_each(|principal| w.string(principal))
        });
        w.u64(self.valid.0);
        w.u64(self.valid.1);
        for options in [&self.critical, &self.extensions] {
            w.scope(|w| {
                for (name, value) in options {
                    w.string(name);
                    w.string(value);
                }
            });
        }
        w.string(b"");
        w.string(
            self.authority_blob
                .as_deref()
                .unwrap_or(self.authority.public_key().as_blob()),
        );
        let algorithm = self.authority.public_key().algorithms()[0];
        let signature = self.authority.sign(algorithm, &blob).unwrap();
        Writer::new(&mut blob).string(&signature);
        blob.extend_from_slice(&self.tail);
        blob
    }

    fn check(&self, enforced: &[&str]) -> Result<(), CertificateError> {
        check(&PublicKey::from_blob(&self.blob()).unwrap(), enforced)
    }
}

fn check(key: &PublicKey, enforced: &[&str]) -> Result<(), CertificateError> {
    key.certificate()
        .unwrap()
        .check(CertificateKind::User, "ann", NOW, enforced)
}

fn with(change: impl FnOnce(&mut Draft)) -> Draft {
    let mut draft = Draft::default();
    change(&mut draft);
    draft
}

/// THREATS A5: each is wrong in one thing, and refused for it.
#[test]
fn a_certificate_that_is_wrong_in_one_thing_is_refused() {
    assert_eq!(Draft::default().check(&[]), Ok(()));
    let critical = |name: &str, value: Vec<u8>| {
        let option = (name.as_bytes().to_vec(), value);
        with(|draft| draft.critical.push(option))
    };
    let principals = |names: &[&str]| {
        with(|draft| draft.principals = names.iter().map(|name| name.as_bytes().to_vec()).collect())
    };
    let unknown = |name: &str| CertificateError::UnknownOption {
        name: name.to_owned(),
    };
    let malformed = |name: &str| CertificateError::MalformedOption {
        name: name.to_owned(),
    };
    let table = [
        (principals(&[]), CertificateError::NoPrincipals),
        (principals(&["bob"]), CertificateError::OtherPrincipal),
        (principals(&["Ann"]), CertificateError::OtherPrincipal),
        (principals(&["ann,bob"]), CertificateError::OtherPrincipal),
        (principals(&["bob,ann"]), CertificateError::OtherPrincipal),
        (principals(&["an*"]), CertificateError::OtherPrincipal),
        (principals(&["*"]), CertificateError::OtherPrincipal),
        (principals(&["ann "]), CertificateError::OtherPrincipal),
        (principals(&["ann\0"]), CertificateError::OtherPrincipal),
        (principals(&[""]), CertificateError::OtherPrincipal),
        (principals(&["an"]), CertificateError::OtherPrincipal),
        (
            with(|draft| draft.kind = 2),
            CertificateError::OtherKind {
                kind: CertificateKind::Host,
            },
        ),
        (
            with(|draft| draft.valid = (NOW + 1, u64::MAX)),
            CertificateError::NotYetValid {
                valid_after: NOW + 1,
            },
        ),
        (
            with(|draft| draft.valid = (0, NOW)),
            CertificateError::Expired { valid_before: NOW },
        ),
        (
            with(|draft| draft.valid = (0, 0)),
            CertificateError::Expired { valid_before: 0 },
        ),
        (
            critical("unknown@example.com", vec![]),
            unknown("unknown@example.com"),
        ),
        (
            critical(FORCE_COMMAND, packed(b"true")),
            unknown(FORCE_COMMAND),
        ),
        (
            critical(SOURCE_ADDRESS, packed(b"192.0.2.1")),
            unknown(SOURCE_ADDRESS),
        ),
        (
            critical("Force-Command", packed(b"true")),
            unknown("Force-Command"),
        ),
        (critical("", vec![]), unknown("")),
    ];
    for (index, (draft, expected)) in table.into_iter().enumerate() {
        assert_eq!(draft.check(&[VERIFY_REQUIRED]), Err(expected), "{index}");
    }
    for (name, value) in [
        (SOURCE_ADDRESS, packed(b"")),
        (SOURCE_ADDRESS, packed(b"192.0.2.1,host.example")),
        (SOURCE_ADDRESS, vec![]),
        (VERIFY_REQUIRED, packed(b"no")),
        (FORCE_COMMAND, packed(&[0xff])),
    ] {
        assert_eq!(
            critical(name, value).check(&[name]),
            Err(malformed(name)),
            "{name}"
        );
    }
    assert_eq!(
        with(|draft| draft.valid = (NOW, NOW + 1)).check(&[]),
        Ok(()),
        "the last second"
    );
    assert_eq!(principals(&["bob", "ann"]).check(&[]), Ok(()));
}

#[test]
fn a_certificate_that_its_authority_did_not_sign_is_refused() {
    let forged = Draft {
        authority_blob: Some(key().public_key().as_blob().to_vec()),
        ..Draft::default()
    };
    assert_eq!(forged.check(&[]), Err(CertificateError::BadSignature));
    // Every byte is signed, or part of the signature.
    let blob = Draft::default().blob();
    for at in 0..blob.len() {
        let mut blob = blob.clone();
        blob[at] ^= 1;
        if let Ok(key) = PublicKey::from_blob(&blob) {
            assert!(check(&key, &[]).is_err(), "byte {at}");
        }
    }
}

#[test]
fn what_cannot_be_a_certificate_is_no_key() {
    let authority = Draft::default().blob();
    let option = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    for (what, draft) in [
        // No nesting: an authority is a plain key.
        (
            "signature key",
            with(|draft| draft.authority_blob = Some(authority)),
        ),
        (
            "signature key",
            with(|draft| draft.authority_blob = Some(b"\0\0\0\x07ssh-dss".to_vec())),
        ),
        ("type", with(|draft| draft.kind = 0)),
        ("type", with(|draft| draft.kind = 3)),
        (
            "valid principals",
            with(|draft| draft.principals = vec![b"a".to_vec(); PRINCIPALS_MAX + 1]),
        ),
        (
            "options",
            with(|draft| draft.critical = vec![option("a", b""), option("a", b"")]),
        ),
        (
            "options",
            with(|draft| draft.extensions = vec![option("a", b""), option("a", b"")]),
        ),
        (
            "options",
            with(|draft| {
                draft.critical = (0..=OPTIONS_MAX)
                    .map(|n| option(&n.to_string(), b""))
                    .collect()
            }),
        ),
        (
            "key type",
            with(|draft| draft.name = b"ssh-dss-cert-v01@openssh.com".to_vec()),
        ),
    ] {
        let refused = PublicKey::from_blob(&draft.blob()).unwrap_err();
        assert_eq!(refused, DecodeError::BadValue { field: what });
    }
    let other_type = with(|draft| draft.name = b"ssh-ed25519-cert-v01@openssh.com".to_vec());
    assert!(PublicKey::from_blob(&other_type.blob()).is_err());
    let long = with(|draft| draft.tail = vec![0]);
    assert_eq!(
        PublicKey::from_blob(&long.blob()),
        Err(DecodeError::Trailing { len: 1 })
    );
    for bad in [
        b"ab".to_vec(),
        packed(b"x").into_iter().chain([0]).collect(),
    ] {
        let odd = with(|draft| draft.critical = vec![(b"a".to_vec(), bad)]);
        assert!(PublicKey::from_blob(&odd.blob()).is_err());
    }
    let not_text = with(|draft| draft.principals = vec![vec![0xff]]);
    assert_eq!(
        PublicKey::from_blob(&not_text.blob()),
        Err(DecodeError::NotUtf8)
    );
    let huge = with(|draft| draft.key_id = vec![b'a'; CERTIFICATE_LEN_MAX]);
    assert!(matches!(
        PublicKey::from_blob(&huge.blob()),
        Err(DecodeError::TooLong { .. })
    ));
    let many = with(|draft| draft.principals = vec![b"ann".to_vec(); PRINCIPALS_MAX]);
    assert_eq!(many.check(&[]), Ok(()));
}

/// THREATS A5: certificates as authorities of certificates, as deep as a blob allows.
#[test]
fn nesting_ends_at_the_first_level() {
    let mut blob = Draft::default().blob();
    for depth in 0..1000 {
        let draft = with(|draft| draft.authority_blob = Some(std::mem::take(&mut blob)));
        blob = draft.blob();
        assert!(PublicKey::from_blob(&blob).is_err(), "{depth}");
        if blob.len() > CERTIFICATE_LEN_MAX {
            return;
        }
    }
    panic!("a certificate grows with each level");
}

#[test]
fn options_are_told_to_whoever_enforces_them() {
    let draft = with(|draft| {
        draft.critical = vec![
            (FORCE_COMMAND.into(), packed(b"internal-sftp")),
            (SOURCE_ADDRESS.into(), packed(b"192.0.2.0/24,2001:db8::/32")),
            (VERIFY_REQUIRED.into(), vec![]),
        ];
        draft.extensions = vec![
            (b"permit-pty".to_vec(), vec![]),
            (b"x@y".to_vec(), packed(b"z")),
        ];
    });
    assert_eq!(
        draft.check(&[FORCE_COMMAND, SOURCE_ADDRESS, VERIFY_REQUIRED]),
        Ok(())
    );
    assert!(draft.check(&[FORCE_COMMAND, SOURCE_ADDRESS]).is_err());
    let key = PublicKey::from_blob(&draft.blob()).unwrap();
    let certificate = key.certificate().unwrap();
    assert_eq!(certificate.force_command(), Some("internal-sftp"));
    assert!(certificate.verify_required());
    assert!(certificate.allows_source("192.0.2.9".parse().unwrap()));
    assert!(!certificate.allows_source("192.0.3.9".parse().unwrap()));
    assert_eq!(certificate.serial(), 17);
    assert_eq!(certificate.extensions()[1].value, b"z");
    let plain = PublicKey::from_blob(&Draft::default().blob()).unwrap();
    let certificate = plain.certificate().unwrap();
    assert!(certificate.force_command().is_none() && !certificate.verify_required());
    assert!(
        certificate.allows_source("203.0.113.1".parse().unwrap()),
        "no option, no limit"
    );
}

fn ssh_keygen(dir: &tempfile::TempDir, arguments: &[&str]) -> String {
    let output = Command::new("ssh-keygen")
        .args(arguments)
        .current_dir(dir.path())
        .output();
    let output = output.expect("ssh-keygen (scripts/setup-peers)");
    assert!(
        output.status.success(),
        "{arguments:?} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn certificates_of_ssh_keygen_hold_for_all_types_of_keys_and_authorities() {
    let dir = tempfile::tempdir().unwrap();
    let types: [&[&str]; 5] = [
        &["-t", "ed25519"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "rsa", "-b", "2048"],
    ];
    for (index, key_type) in types.iter().enumerate() {
        let mut arguments = vec!["-q", "-N", "", "-f"];
        let name = format!("key{index}");
        arguments.push(&name);
        arguments.extend(*key_type);
        ssh_keygen(&dir, &arguments);
    }
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    for (index, authority) in (0..types.len()).flat_map(|key| [(key, (key + 1) % 5), (key, 4)]) {
        let public = format!("key{index}.pub");
        ssh_keygen(
            &dir,
            &[
                "-q",
                "-s",
                &format!("key{authority}"),
                "-I",
                "an id",
                "-n",
                "ann,bob",
                "-z",
                "42",
                "-V",
                "19700101000000Z:20380101000000Z",
                "-O",
                "force-command=internal-sftp",
                "-O",
                "source-address=192.0.2.0/24",
                "-O",
                "verify-required",
                &public,
            ],
        );
        let line = read(&format!("key{index}-cert.pub"));
        let key = PublicKey::from_line(&line).unwrap();
        let plain = PublicKey::from_line(&read(&public)).unwrap();
        assert_eq!(key.plain(), plain);
        assert_eq!(
            key.fingerprint(),
            plain.fingerprint(),
            "as `ssh-keygen -l` has it"
        );
        assert!(line.starts_with(&key.to_line()));
        let certificate = key.certificate().unwrap();
        let enforced = [FORCE_COMMAND, SOURCE_ADDRESS, VERIFY_REQUIRED];
        let holds = |kind, principal, now| certificate.check(kind, principal, now, &enforced);
        assert_eq!(holds(CertificateKind::User, "ann", NOW), Ok(()));
        assert_eq!(holds(CertificateKind::User, "bob", NOW), Ok(()));
        assert!(holds(CertificateKind::User, "eve", NOW).is_err());
        assert!(holds(CertificateKind::Host, "ann", NOW).is_err());
        assert!(holds(CertificateKind::User, "ann", 2_145_916_800).is_err());
        assert_eq!(certificate.serial(), 42);
        assert_eq!(certificate.key_id(), "an id");
        assert_eq!(certificate.principals(), ["ann", "bob"]);
        assert_eq!(certificate.force_command(), Some("internal-sftp"));
        assert!(
            certificate
                .extensions()
                .iter()
                .any(|extension| extension.name == "permit-pty")
        );
        let authority = PublicKey::from_line(&read(&format!("key{authority}.pub"))).unwrap();
        assert_eq!(*certificate.authority(), authority);

        // The key inside signs under the certificate's algorithms, and under those alone.
        let private = crate::KeyFile::parse(read(&format!("key{index}")).as_bytes()).unwrap();
        let private = private.open().unwrap();
        for &algorithm in key.algorithms() {
            let signature = private.sign(algorithm, b"session").unwrap();
            assert!(
                key.verify(algorithm, b"session", &signature).is_ok(),
                "{algorithm}"
            );
            assert!(
                key.verify(algorithm.plain(), b"session", &signature)
                    .is_err()
            );
            assert!(plain.verify(algorithm, b"session", &signature).is_err());
            assert!(
                plain
                    .verify(algorithm.plain(), b"session", &signature)
                    .is_ok()
            );
        }
    }
    // An authority that signs with SHA-1.
    ssh_keygen(
        &dir,
        &[
            "-q", "-s", "key4", "-t", "ssh-rsa", "-I", "id", "-n", "ann", "key0.pub",
        ],
    );
    let key = PublicKey::from_line(&read("key0-cert.pub")).unwrap();
    assert_eq!(check(&key, &[]), Err(CertificateError::WeakSignature));
    // A host's.
    ssh_keygen(
        &dir,
        &[
            "-q",
            "-s",
            "key1",
            "-h",
            "-I",
            "id",
            "-n",
            "host.example",
            "key0.pub",
        ],
    );
    let key = PublicKey::from_line(&read("key0-cert.pub")).unwrap();
    let holds = |name| {
        key.certificate()
            .unwrap()
            .check(CertificateKind::Host, name, NOW * 2000, &[])
    };
    assert_eq!(holds("host.example"), Ok(()));
    assert_eq!(
        holds("other.example"),
        Err(CertificateError::OtherPrincipal)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_certificate_or_refused(
        name in 0..KeyType::ALL.len(), bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut blob = Vec::new();
        let mut w = Writer::new(&mut blob);
        w.string(KeyType::ALL[name].certificate_name().as_bytes());
        w.bytes(&bytes);
        if let Ok(key) = PublicKey::from_blob(&blob) {
            prop_assert!(check(&key, &[]).is_err());
        }
    }

    #[test]
    fn a_good_certificate_cut_anywhere_is_refused(at in any::<prop::sample::Index>()) {
        let blob = Draft::default().blob();
        prop_assert!(PublicKey::from_blob(&blob[..at.index(blob.len())]).is_err());
    }
}

/// OpenSSH allows SHA-2 under the oldest name for RSA certificates, and asyncssh and russh send it;
/// under every other name the signature has to be the one that was asked for.
#[test]
fn the_oldest_name_for_rsa_certificates_bears_newer_signatures() {
    use SignatureAlgorithm::{RsaSha1Cert, RsaSha256, RsaSha256Cert, RsaSha512, RsaSha512Cert};
    let dir = tempfile::tempdir().unwrap();
    ssh_keygen(
        &dir,
        &["-q", "-N", "", "-t", "rsa", "-b", "2048", "-f", "key"],
    );
    ssh_keygen(
        &dir,
        &["-q", "-s", "key", "-I", "id", "-n", "ann", "key.pub"],
    );
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let certified = PublicKey::from_line(&read("key-cert.pub")).unwrap();
    let file = crate::file::KeyFile::parse(read("key").as_bytes()).unwrap();
    let private = file.open().unwrap();
    for made_with in [RsaSha256, RsaSha512] {
        let blob = private.sign(made_with, b"data").unwrap();
        for asked in [RsaSha1Cert, RsaSha256Cert, RsaSha512Cert] {
            let good = certified.verify(asked, b"data", &blob).is_ok();
            let right = asked == RsaSha1Cert || asked.plain() == made_with;
            assert_eq!(good, right, "{made_with} {asked}");
            assert!(certified.verify(asked, b"other", &blob).is_err());
        }
    }
}
