//! Lists that `ssh-keygen -k` made, asked about keys as `ssh-keygen -Q` is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ketch_wire::Writer;
use proptest::prelude::*;

use super::*;

struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn run(&self, arguments: &[&str]) -> bool {
        let status = Command::new("ssh-keygen")
            .args(arguments)
            .current_dir(self.dir.path())
            .output();
        status
            .expect("ssh-keygen (scripts/setup-peers)")
            .status
            .success()
    }

    fn key(&self, name: &str) -> PublicKey {
        let kind = if name.starts_with("rsa") {
            ["-t", "rsa", "-b", "2048"]
        } else {
            ["-t", "ecdsa", "-b", "256"]
        };
        let mut arguments = vec!["-q", "-N", "", "-f", name];
        arguments.extend(kind);
        assert!(self.run(&arguments));
        self.read(&format!("{name}.pub"))
    }

    fn read(&self, name: &str) -> PublicKey {
        PublicKey::from_line(&fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate of key `name`, which has to be there.
    fn certificate(&self, authority: &str, name: &str, id: &str, serial: u64) -> PublicKey {
        let serial = serial.to_string();
        let public = format!("{name}.pub");
        assert!(self.run(&[
            "-q", "-s", authority, "-I", id, "-n", "ann", "-z", &serial, &public
        ]));
        let written = self.path(&format!("{name}-cert.pub"));
        let as_named = self.path(&format!("{id}-{serial}-{authority}.pub"));
        fs::rename(written, &as_named).unwrap();
        self.read(as_named.file_name().unwrap().to_str().unwrap())
    }

    /// Asks both whether the key in `name` is revoked by `krl`.
    fn both_say(&self, list: &RevocationList, krl: &Path, name: &str) -> bool {
        let ours = list.is_revoked(&self.read(name));
        // `-Q` succeeds if no key is revoked.
        let theirs = !self.run(&["-Q", "-f", krl.to_str().unwrap(), name]);
        assert_eq!(ours, theirs, "{name}");
        ours
    }
}

#[test]
fn lists_of_ssh_keygen_revoke_what_they_revoke_there() {
    let scene = Scene::new();
    for name in [
        "ca",
        "other-ca",
        "revoked",
        "hashed-1",
        "hashed-256",
        "good",
        "rsa-revoked",
    ] {
        scene.key(name);
    }
    let names = [("ca", "good"), ("other-ca", "good")];
    let mut certificates = Vec::new();
    for (authority, name) in names {
        for serial in [
            0,
            1,
            7,
            8,
            99,
            100,
            150,
            200,
            201,
            1000,
            1003,
            1500,
            u64::MAX,
        ] {
            scene.certificate(authority, name, "some", serial);
            certificates.push(format!("some-{serial}-{authority}.pub"));
        }
        scene.certificate(authority, name, "by-name", 5000);
        certificates.push(format!("by-name-5000-{authority}.pub"));
    }
    scene.certificate("ca", "revoked", "revoked-key", 4000);
    certificates.push("revoked-key-4000-ca.pub".to_owned());

    let read = |name: &str| fs::read_to_string(scene.path(name)).unwrap();
    let specification = format!(
        "serial: 7\nserial: 100-200\nserial: 1000\nserial: 1003\nserial: 1005\nserial: 1007\n\
         id: by-name\nsha1: {}sha256: {}",
        read("hashed-1.pub"),
        read("hashed-256.pub")
    );
    fs::write(scene.path("specification"), specification).unwrap();
    let arguments = [
        "-k",
        "-f",
        "krl",
        "-s",
        "ca.pub",
        "-z",
        "3",
        "specification",
        "revoked.pub",
        "rsa-revoked.pub",
    ];
    assert!(scene.run(&arguments));
    let krl = scene.path("krl");
    let list = RevocationList::parse(&fs::read(&krl).unwrap()).unwrap();

    let mut revoked = Vec::new();
    for name in [
        "ca.pub",
        "revoked.pub",
        "hashed-1.pub",
        "hashed-256.pub",
        "good.pub",
        "rsa-revoked.pub",
    ]
    .into_iter()
    .chain(certificates.iter().map(String::as_str))
    {
        if scene.both_say(&list, &krl, name) {
            revoked.push(name);
        }
    }
    assert_eq!(
        revoked,
        [
            "revoked.pub",
            "hashed-1.pub",
            "hashed-256.pub",
            "rsa-revoked.pub",
            "some-7-ca.pub",
            "some-100-ca.pub",
            "some-150-ca.pub",
            "some-200-ca.pub",
            "some-1000-ca.pub",
            "some-1003-ca.pub",
            "by-name-5000-ca.pub",
            "revoked-key-4000-ca.pub",
        ]
    );
}

/// THREATS A5: a revoked authority takes its certificates with it; many serials become a bitmap.
#[test]
fn a_revoked_authority_and_a_bitmap_of_serials() {
    let scene = Scene::new();
    scene.key("ca");
    scene.key("good");
    assert!(scene.run(&["-k", "-f", "krl-of-ca", "ca.pub"]));
    scene.certificate("ca", "good", "id", 12);
    let list = RevocationList::parse(&fs::read(scene.path("krl-of-ca")).unwrap()).unwrap();
    assert!(scene.both_say(&list, &scene.path("krl-of-ca"), "id-12-ca.pub"));
    assert!(!scene.both_say(&list, &scene.path("krl-of-ca"), "good.pub"));

    let every_third: String = (10..400)
        .step_by(3)
        .map(|serial| format!("serial: {serial}\n"))
        .collect();
    fs::write(scene.path("specification"), every_third).unwrap();
    assert!(scene.run(&["-k", "-f", "krl", "-s", "ca.pub", "specification"]));
    let bytes = fs::read(scene.path("krl")).unwrap();
    assert!(bytes.len() < 400, "{}: no bitmap?", bytes.len());
    let list = RevocationList::parse(&bytes).unwrap();
    for serial in [9, 10, 11, 12, 13, 397, 398, 400] {
        scene.certificate("ca", "good", "id", serial);
        let revoked = scene.both_say(&list, &scene.path("krl"), &format!("id-{serial}-ca.pub"));
        assert_eq!(
            revoked,
            (10..400).contains(&serial) && (serial - 10) % 3 == 0,
            "{serial}"
        );
    }
}

#[test]
fn lines_of_keys_are_a_list_too() {
    let scene = Scene::new();
    let (revoked, ca, _) = (scene.key("revoked"), scene.key("ca"), scene.key("good"));
    let certificate = scene.certificate("ca", "good", "id", 1);
    let of_revoked = scene.certificate("ca", "revoked", "id", 2);
    let text = format!(
        "# revoked in May\n\n  {} a comment\r\nssh-dss AAAAB3NzaC1kc3M=\n",
        revoked.to_line()
    );
    let list = RevocationList::parse(text.as_bytes()).unwrap();
    assert!(list.is_revoked(&revoked) && list.is_revoked(&of_revoked));
    assert!(!list.is_revoked(&certificate) && !list.is_revoked(&ca));
    let list = RevocationList::parse(ca.to_line().as_bytes()).unwrap();
    assert!(list.is_revoked(&certificate), "by its authority");
    let list = RevocationList::parse(certificate.to_line().as_bytes()).unwrap();
    assert!(
        list.is_revoked(&certificate.plain()),
        "a certificate stands for its key"
    );
    assert!(!RevocationList::parse(b"").unwrap().is_revoked(&revoked));
    for (bad, number) in [
        ("ssh-ed25519", 1),
        ("#\nssh-ed25519 !!", 2),
        ("serial: 7", 1),
        ("x AAAA", 1),
    ] {
        let refused = RevocationList::parse(bad.as_bytes()).unwrap_err();
        assert_eq!(refused, RevocationError::Line { number }, "{bad}");
    }
}

fn krl(sections: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = krl::MAGIC.to_vec();
    let mut w = Writer::new(&mut bytes);
    w.u32(1);
    w.bytes(&[0; 24]);
    w.string(b"");
    w.string(b"a comment");
    sections(&mut w);
    bytes
}

#[test]
fn what_must_be_understood_and_is_not_is_refused() {
    let extension = |critical| {
        krl(|w| {
            w.u8(255);
            w.scope(|w| {
                w.string(b"name@example.com");
                w.bool(critical);
                w.string(b"");
            });
        })
    };
    assert!(RevocationList::parse(&extension(false)).is_ok());
    assert!(matches!(
        RevocationList::parse(&extension(true)),
        Err(RevocationError::Unknown { .. })
    ));
    let unknown = krl(|w| {
        w.u8(77);
        w.string(b"");
    });
    assert!(matches!(
        RevocationList::parse(&unknown),
        Err(RevocationError::Unknown { .. })
    ));
    let signed = krl(|w| {
        w.u8(4);
        w.string(b"key");
        w.string(b"signature");
    });
    assert!(RevocationList::parse(&signed).is_ok());
    let short = krl(|w| {
        w.u8(3);
        w.scope(|w| w.string(&[0; 19]));
    });
    assert_eq!(
        RevocationList::parse(&short).unwrap_err(),
        RevocationError::Malformed
    );
    let backwards = krl(|w| {
        w.u8(1);
        w.scope(|w| {
            w.string(b"");
            w.string(b"");
            w.u8(0x21);
            w.scope(|w| {
                w.u64(2);
                w.u64(1);
            });
        });
    });
    assert_eq!(
        RevocationList::parse(&backwards).unwrap_err(),
        RevocationError::Malformed
    );
    for cut in 1..signed.len() {
        let _total = RevocationList::parse(&signed[..cut]);
    }
    let long = vec![b'\n'; REVOCATION_LIST_LEN_MAX + 1];
    assert_eq!(
        RevocationList::parse(&long).unwrap_err(),
        RevocationError::TooLong
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_list_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), binary in any::<bool>()) {
        let bytes = if binary { krl(|w| w.bytes(&bytes)) } else { bytes };
        let key = PublicKey::ed25519([5; 32]);
        if let Ok(list) = RevocationList::parse(&bytes) {
            prop_assert!(!list.is_revoked(&key));
        }
    }
}
