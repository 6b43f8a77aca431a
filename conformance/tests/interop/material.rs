//! Keys, certificates and users for all peers, made by `ssh-keygen` in a directory that goes with the
//! test: one key of every type for the host and for the user, a certificate for each, the same keys
//! in the formats of PuTTY and dropbear, and a home in which they are authorized.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ketch_keys::{KeyFile, KeyType, PrivateKey, PublicKey, SignatureAlgorithm};
use ketch_wire::{Reader, Writer};
use sha2::{Digest, Sha256};
use tokio::process::Command;

/// Who logs in; the account of whoever runs the test under another name and with another home.
pub(crate) const USER: &str = "tester";
/// With what, where it is no key.
pub(crate) const PASSWORD: &str = "open sesame";
/// What is answered to the questions of keyboard-interactive.
pub(crate) const ANSWERS: [&str; 2] = ["blue", "forty-two"];

/// Types of keys of which there are files.
pub(crate) const FILE_TYPES: [KeyType; 5] = [
    KeyType::Ed25519,
    KeyType::EcdsaP256,
    KeyType::EcdsaP384,
    KeyType::EcdsaP521,
    KeyType::Rsa,
];

/// Security keys, which are software here: of users only.
pub(crate) const SECURITY_TYPES: [KeyType; 2] = [KeyType::SkEd25519, KeyType::SkEcdsaP256];
/// What they belong to.
const APPLICATION: &[u8] = b"ssh:";
/// Somebody touched it (PROTOCOL.u2f).
const TOUCHED: u8 = 1;

/// Whose key it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owner {
    Host,
    User,
}

impl Owner {
    const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::User => "user",
        }
    }
}

/// Longest field of a key or a signature.
const MAX: usize = 10_000;

/// The directory.
#[derive(Debug)]
pub(crate) struct Material {
    dir: tempfile::TempDir,
}

impl Material {
    pub(crate) async fn make() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ketch-interop-")
            .tempdir()
            .unwrap();
        let this = Self { dir };
        let ca = this.path("authority");
        keygen(&["-t", "ed25519"], &ca).await;
        for owner in [Owner::Host, Owner::User] {
            for key_type in FILE_TYPES {
                let file = this.private(owner, key_type);
                keygen(keygen_arguments(key_type), &file).await;
                this.certify(owner, key_type).await;
            }
        }
        for key_type in SECURITY_TYPES {
            let key = PrivateKey::generate(inner(key_type)).unwrap();
            let public = security_key(key_type, &key);
            let file = this.private(Owner::User, key_type);
            fs::write(&file, key.to_openssh().as_bytes()).unwrap();
            let line = format!("{} ketch-test\n", public.to_line());
            fs::write(file.with_added_extension("pub"), line).unwrap();
            this.certify(Owner::User, key_type).await;
        }
        for key_type in FILE_TYPES {
            let file = this.private(Owner::User, key_type);
            let mut convert = Command::new("puttygen");
            convert.arg(&file).args(["-O", "private", "-o"]);
            convert.arg(file.with_added_extension("ppk"));
            run(convert).await;
            for owner in [Owner::Host, Owner::User] {
                let file = this.private(owner, key_type);
                let mut convert = Command::new("dropbearconvert");
                convert.args(["openssh", "dropbear"]).arg(&file);
                convert.arg(file.with_added_extension("dropbear"));
                run(convert).await;
            }
        }
        this.write_home();
        this.write_accounts().await;
        this
    }

    /// Has the authority sign a public key.
    async fn certify(&self, owner: Owner, key_type: KeyType) {
        let file = self.private(owner, key_type);
        let mut sign = Command::new("ssh-keygen");
        sign.arg("-q").arg("-s").arg(self.path("authority"));
        sign.args(["-I", "ketch-test", "-V", "-5m:+2h", "-z", "7"]);
        match owner {
            Owner::Host => sign.args(["-h", "-n", "127.0.0.1,localhost"]),
            Owner::User => sign.args(["-n", USER]),
        };
        sign.arg(file.with_added_extension("pub"));
        run(sign).await;
        // Beside its key some peers take a certificate without being told to.
        let mut beside = file.into_os_string();
        beside.push("-cert.pub");
        fs::rename(beside, self.certificate(owner, key_type)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The private key's file; its public half, certificate, `.ppk` and dropbear's form lie beside it.
    pub(crate) fn private(&self, owner: Owner, key_type: KeyType) -> PathBuf {
        let key_type = match key_type {
            KeyType::Ed25519 => "ed25519",
            KeyType::EcdsaP256 => "ecdsa256",
            KeyType::EcdsaP384 => "ecdsa384",
            KeyType::EcdsaP521 => "ecdsa521",
            KeyType::Rsa => "rsa",
            KeyType::SkEd25519 => "security-ed25519",
            KeyType::SkEcdsaP256 => "security-ecdsa256",
            other => panic!("no file of type {other:?}"),
        };
        self.path(&format!("{}_{key_type}", owner.name()))
    }

    pub(crate) fn certificate(&self, owner: Owner, key_type: KeyType) -> PathBuf {
        let key = self.private(owner, key_type);
        let name = key.file_name().unwrap_or_default().to_string_lossy();
        self.path(&format!("certificate_{name}.pub"))
    }

    pub(crate) fn key(&self, owner: Owner, key_type: KeyType) -> PrivateKey {
        let file = fs::read(self.private(owner, key_type)).unwrap();
        KeyFile::parse(&file).unwrap().open().unwrap()
    }

    /// The public key that goes with an algorithm: a certificate where it is one for certificates.
    pub(crate) fn public(&self, owner: Owner, algorithm: SignatureAlgorithm) -> PublicKey {
        let key_type = algorithm.key_type();
        let file = if algorithm.is_certificate() {
            self.certificate(owner, key_type)
        } else {
            self.private(owner, key_type).with_added_extension("pub")
        };
        PublicKey::from_line(fs::read_to_string(file).unwrap().trim_end()).unwrap()
    }

    /// A signature of the user's, as a whole blob; a security key's person is there and touches it.
    pub(crate) fn sign(
        &self,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, String> {
        let text = |error: ketch_keys::SignError| error.to_string();
        let key_type = algorithm.key_type();
        let key = self.key(Owner::User, key_type);
        if !SECURITY_TYPES.contains(&key_type) {
            return key.sign(algorithm.plain(), data).map_err(text);
        }
        let counter = 1_u32;
        let mut signed = Sha256::digest(APPLICATION).to_vec();
        signed.push(TOUCHED);
        signed.extend_from_slice(&counter.to_be_bytes());
        signed.extend_from_slice(&Sha256::digest(data));
        let blob = key
            .sign(key.public_key().algorithms()[0], &signed)
            .map_err(text)?;
        let mut fields = Reader::new(&blob);
        let mut field = || fields.string(MAX).map_err(|error| error.to_string());
        let (_name, raw) = (field()?, field()?);
        let mut blob = Vec::new();
        let mut w = Writer::new(&mut blob);
        w.string(algorithm.plain().name().as_bytes());
        w.string(raw);
        w.u8(TOUCHED);
        w.u32(counter);
        Ok(blob)
    }

    /// The authority of all certificates.
    pub(crate) fn authority(&self) -> PublicKey {
        PublicKey::from_line(self.authority_line().trim_end()).unwrap()
    }

    fn authority_line(&self) -> String {
        fs::read_to_string(self.path("authority.pub")).unwrap()
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    pub(crate) fn authorized_keys(&self) -> PathBuf {
        self.home().join(".ssh/authorized_keys")
    }

    /// All host keys and the authority, for any name.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.home().join(".ssh/known_hosts")
    }

    fn write_home(&self) {
        let ssh = self.home().join(".ssh");
        fs::create_dir_all(&ssh).unwrap();
        for dir in [self.home(), ssh] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let authority = self.authority_line();
        let mut authorized = format!("cert-authority {authority}");
        let mut known = format!("@cert-authority * {authority}");
        let public = |owner, key_type| {
            let file = self.private(owner, key_type).with_added_extension("pub");
            fs::read_to_string(file).unwrap()
        };
        for key_type in FILE_TYPES {
            authorized.push_str(&public(Owner::User, key_type));
            known.push_str(&format!("* {}", public(Owner::Host, key_type)));
        }
        for key_type in SECURITY_TYPES {
            authorized.push_str(&public(Owner::User, key_type));
        }
        fs::write(self.authorized_keys(), authorized).unwrap();
        fs::write(self.known_hosts(), known).unwrap();
    }

    /// What nss_wrapper(1) shows to sshd and dropbear instead of the system's accounts.
    async fn write_accounts(&self) {
        let (uid, gid) = (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        let mut passwd = fs::read_to_string("/etc/passwd").unwrap();
        let home = self.home();
        passwd.push_str(&format!(
            "{USER}:x:{uid}:{gid}::{}:/bin/sh\n",
            home.display()
        ));
        fs::write(self.path("passwd"), passwd).unwrap();
        fs::copy("/etc/group", self.path("group")).unwrap();
        let mut hash = Command::new("openssl");
        hash.args(["passwd", "-6", PASSWORD]);
        let hash = run(hash).await;
        for (name, hash) in [("shadow", hash.trim_end()), ("shadow-open", "")] {
            let line = format!("{USER}:{hash}:19000:0:99999:7:::\n");
            fs::write(self.path(name), line).unwrap();
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// Lets a program see [`USER`] as an account, one without a password if it is to be open.
    pub(crate) fn with_account(&self, command: &mut Command, open: bool) {
        let shadow = if open { "shadow-open" } else { "shadow" };
        command
            .env("LD_PRELOAD", "libnss_wrapper.so")
            .env("NSS_WRAPPER_PASSWD", self.path("passwd"))
            .env("NSS_WRAPPER_GROUP", self.path("group"))
            .env("NSS_WRAPPER_SHADOW", self.path(shadow));
    }
}

/// With what a security key signs inside.
const fn inner(key_type: KeyType) -> KeyType {
    match key_type {
        KeyType::SkEd25519 => KeyType::Ed25519,
        _ => KeyType::EcdsaP256,
    }
}

/// The public key of a security key that has `key` inside (PROTOCOL.u2f).
fn security_key(key_type: KeyType, key: &PrivateKey) -> PublicKey {
    let inner = key.public_key().as_blob();
    let mut fields = Reader::new(inner);
    let _name = fields.string(MAX).unwrap();
    let mut blob = Vec::new();
    let mut w = Writer::new(&mut blob);
    w.string(key_type.name().as_bytes());
    // The rest is as it stands in the key inside: curve and point, or the point.
    while let Ok(field) = fields.string(MAX) {
        w.string(field);
    }
    w.string(APPLICATION);
    PublicKey::from_blob(&blob).unwrap()
}

const fn keygen_arguments(key_type: KeyType) -> &'static [&'static str] {
    match key_type {
        KeyType::Ed25519 => &["-t", "ed25519"],
        KeyType::EcdsaP256 => &["-t", "ecdsa", "-b", "256"],
        KeyType::EcdsaP384 => &["-t", "ecdsa", "-b", "384"],
        KeyType::EcdsaP521 => &["-t", "ecdsa", "-b", "521"],
        _ => &["-t", "rsa", "-b", "3072"],
    }
}

async fn keygen(arguments: &[&str], file: &Path) {
    let mut keygen = Command::new("ssh-keygen");
    keygen
        .arg("-q")
        .args(arguments)
        .args(["-N", "", "-C", "ketch-test", "-f"])
        .arg(file);
    run(keygen).await;
}

/// Runs a program that has to succeed, and gives what it wrote to its standard output.
pub(crate) async fn run(mut command: Command) -> String {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let output = command
        .output()
        .await
        .unwrap_or_else(|error| panic!("{shown}: {error}: run scripts/setup-peers"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{shown}: {}: {said}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
