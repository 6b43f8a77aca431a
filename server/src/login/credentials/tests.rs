//! Certificates of `ssh-keygen`, and security keys that nobody touched.

use std::path::{Path, PathBuf};
use std::process::Command;

use ketch_keys::SignatureAlgorithm;
use ketch_wire::Writer;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;

fn keygen(arguments: &[&str], files: &[&Path]) {
    let run = Command::new("ssh-keygen")
        .args(arguments)
        .args(files)
        .output()
        .expect("ssh-keygen makes the keys: install openssh-client (scripts/test does it)");
    assert!(run.status.success(), "{run:?}");
}

struct Keys {
    dir: tempfile::TempDir,
}

impl Keys {
    fn new() -> Self {
        let keys = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for name in ["user", "ca", "other-ca"] {
            let path = keys.path(name);
            keygen(&["-q", "-t", "ed25519", "-N", "", "-f"], &[&path]);
        }
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn public(&self, name: &str) -> PublicKey {
        let line = std::fs::read_to_string(self.path(name)).unwrap();
        PublicKey::from_line(line.trim()).unwrap()
    }

    /// The user's key, signed with these options.
    fn certificate(&self, options: &[&str]) -> PublicKey {
        let (ca, user) = (self.path("ca"), self.path("user.pub"));
        let with_authority = [&["-q", "-I", "test"], options, &["-s"]].concat();
        keygen(&with_authority, &[&ca, &user]);
        self.public("user-cert.pub")
    }
}

fn moment(source: &str) -> Moment {
    Moment {
        source: source.parse().ok(),
        now: 1_800_000_000,
    }
}

#[test]
fn a_certificate_lets_in_whom_it_names_and_restricts_as_it_says() {
    let keys = Keys::new();
    let (ca, other) = (keys.public("ca.pub"), keys.public("other-ca.pub"));
    let always = ["-V", "20200101:20400101"];
    let verdict = |options: &[&str], authority: &PublicKey, name: &str, source: &str| {
        let key = keys.certificate(&[&always, options].concat());
        let shown = Shown::Signed(None);
        let authorities = [(authority, name)].into_iter();
        by_certificate(
            authorities,
            key.certificate().unwrap(),
            shown,
            moment(source),
        )
    };
    let home = "192.0.2.7";
    let plain = verdict(&["-n", "ann,bob"], &ca, "ann", home).unwrap();
    assert!(!plain.sftp_only && !plain.read_only && plain.expires.is_some());
    for (options, authority, name) in [
        (&["-n", "ann"][..], &other, "ann"),
        (&["-n", "ann"], &ca, "eve"),
        (&["-n", "ann"], &ca, "an"),
        (&[], &ca, "ann"),
        (&["-h", "-n", "ann"], &ca, "ann"),
        (&["-n", "ann", "-O", "force-command=/bin/sh"], &ca, "ann"),
        (
            &["-n", "ann", "-O", "critical:new@example.com=1"],
            &ca,
            "ann",
        ),
        (&["-n", "ann", "-O", "verify-required"], &ca, "ann"),
    ] {
        assert_eq!(verdict(options, authority, name, home), None, "{options:?}");
    }
    let forced = ["-n", "ann", "-O", "force-command=internal-sftp"];
    assert!(verdict(&forced, &ca, "ann", home).unwrap().sftp_only);
    let bound = ["-n", "ann", "-O", "source-address=192.0.2.0/24"];
    assert!(verdict(&bound, &ca, "ann", home).is_some());
    assert_eq!(verdict(&bound, &ca, "ann", "192.0.3.7"), None);
    assert_eq!(verdict(&bound, &ca, "ann", "somewhere"), None);
    let expired = keys.certificate(&["-n", "ann", "-V", "20200101:20210101"]);
    let authorities = [(&ca, "ann")].into_iter();
    let certificate = expired.certificate().unwrap();
    let shown = Shown::Signed(None);
    assert_eq!(
        by_certificate(authorities, certificate, shown, moment(home)),
        None
    );
}

#[test]
fn revoked_keys_let_nobody_in() {
    let keys = Keys::new();
    let certificate = keys.certificate(&["-n", "ann"]);
    for name in ["user.pub", "ca.pub"] {
        let list = std::fs::read(keys.path(name)).unwrap();
        let revoked = Revoked(Some(Box::new(RevocationList::parse(&list).unwrap())));
        assert!(revoked.has(&certificate), "{name}");
        assert_eq!(revoked.has(&certificate.plain()), name == "user.pub");
        assert!(!revoked.has(&keys.public("other-ca.pub")));
    }
    assert!(!Revoked::default().has(&certificate));
}

/// A security key in software: signs with whatever flags it is told.
fn security_key(flags: u8) -> (PublicKey, Presence) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
    let mut blob = Vec::new();
    let mut w = Writer::new(&mut blob);
    w.string(b"sk-ssh-ed25519@openssh.com");
    w.string(pair.public_key().as_ref());
    w.string(b"ssh:");
    let key = PublicKey::from_blob(&blob).unwrap();
    let hash = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().to_vec();
    let signed = [hash(b"ssh:"), vec![flags, 0, 0, 0, 9], hash(b"data")].concat();
    let mut signature = Vec::new();
    let mut w = Writer::new(&mut signature);
    w.string(b"sk-ssh-ed25519@openssh.com");
    w.string(pair.sign(&signed).as_ref());
    w.u8(flags);
    w.u32(9);
    let algorithm = SignatureAlgorithm::SkEd25519;
    let verified = key.verify(algorithm, b"data", &signature).unwrap();
    (key, verified.presence.unwrap())
}

#[test]
fn a_security_key_that_nobody_touched_does_not_count() {
    for (flags, touched) in [(0x00, false), (0x01, true), (0x04, false), (0x05, true)] {
        let (key, presence) = security_key(flags);
        let shown = Shown::Signed(Some(presence));
        let here = moment("192.0.2.7");
        let strict = [AuthorizedKey::new(key.clone())];
        assert_eq!(
            by_key(&strict, &key, shown, here).is_some(),
            touched,
            "{flags:#x}"
        );
        let lenient = [AuthorizedKey::new(key.clone()).without_touch()];
        assert!(by_key(&lenient, &key, shown, here).is_some());
        // To be asked about, it need not be touched.
        assert!(by_key(&strict, &key, Shown::Asked, here).is_some());
    }
}

#[test]
fn restrictions_only_add_up() {
    let all = [false, true].into_iter().flat_map(|read_only| {
        [false, true].into_iter().flat_map(move |sftp_only| {
            [None, Some(5), Some(9)]
                .into_iter()
                .map(move |expires| Restrictions {
                    read_only,
                    sftp_only,
                    expires,
                })
        })
    });
    let all: Vec<_> = all.collect();
    for &one in &all {
        for &other in &all {
            let both = one.and(other);
            assert_eq!(both, other.and(one));
            assert_eq!(both.and(one), both);
            assert_eq!(both.read_only, one.read_only || other.read_only);
            assert_eq!(both.sftp_only, one.sftp_only || other.sftp_only);
            let first = one
                .expires
                .unwrap_or(u64::MAX)
                .min(other.expires.unwrap_or(u64::MAX));
            assert_eq!(both.expires.unwrap_or(u64::MAX), first);
        }
    }
}

#[test]
fn what_is_no_address_is_none() {
    for bad in [
        "",
        "192.0.2.0/33",
        "192.0.2",
        "host",
        "192.0.2.0/24,10.0.0.1",
        "::/129",
    ] {
        assert_eq!(bad.parse::<Source>(), Err(BadSource), "{bad}");
    }
}
