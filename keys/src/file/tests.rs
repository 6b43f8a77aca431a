//! Key files of `ssh-keygen`, `openssl` and `puttygen`, whole and damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::{KeyType, SignatureAlgorithm};

/// Runs a program that is there on every machine that tests (scripts/setup-peers).
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (scripts/setup-peers): {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A key of `ssh-keygen`; the public half stands beside it.
fn ssh_keygen(dir: &tempfile::TempDir, passphrase: &str, more: &[&str]) -> PathBuf {
    let count = fs::read_dir(dir.path()).unwrap().count();
    let path = dir.path().join(format!("key{count}"));
    let mut arguments = vec!["-q", "-C", "a comment", "-N", passphrase, "-f", text(&path)];
    arguments.extend(more);
    run("ssh-keygen", &arguments);
    path
}

fn public_beside(path: &Path) -> PublicKey {
    PublicKey::from_line(&fs::read_to_string(path.with_extension("pub")).unwrap()).unwrap()
}

fn assert_signs(key: &PrivateKey, public: &PublicKey) {
    assert_eq!(key.public_key(), public);
    for &algorithm in public.algorithms() {
        let signature = key.sign(algorithm, b"session").unwrap();
        assert!(public.verify(algorithm, b"session", &signature).is_ok());
    }
}

/// Opens a file, with wrong passphrases first if there is a right one, and signs with it.
fn assert_opens(file: &[u8], passphrase: &str, public: &PublicKey) {
    let file = KeyFile::parse(file).unwrap();
    assert_eq!(file.is_encrypted(), !passphrase.is_empty());
    if let Some(known) = file.public_key() {
        assert_eq!(known, public);
    }
    if passphrase.is_empty() {
        assert_signs(&file.open().unwrap(), public);
        assert_signs(&file.decrypt("not looked at").unwrap(), public);
    } else {
        assert_eq!(file.open().unwrap_err(), KeyFileError::Encrypted);
        for wrong in ["", "sword", "word "] {
            let error = file.decrypt(wrong).unwrap_err();
            assert_eq!(error, KeyFileError::WrongPassphrase, "{wrong:?}");
        }
        assert_signs(&file.decrypt(passphrase).unwrap(), public);
    }
}

const TYPES: [&[&str]; 6] = [
    &["-t", "ed25519"],
    &["-t", "ecdsa", "-b", "256"],
    &["-t", "ecdsa", "-b", "384"],
    &["-t", "ecdsa", "-b", "521"],
    &["-t", "rsa", "-b", "2048"],
    &["-t", "rsa", "-b", "1024"],
];

#[test]
fn keys_of_ssh_keygen_open_in_all_their_formats() {
    let dir = tempfile::tempdir().unwrap();
    for key_type in TYPES {
        for format in ["", "PEM", "PKCS8"] {
            // `ssh-keygen` writes Ed25519 in its own format alone.
            if key_type[1] == "ed25519" && !format.is_empty() {
                continue;
            }
            for passphrase in ["", "p\u{e4}ss \u{1f511} word"] {
                let mut arguments = key_type.to_vec();
                arguments.extend(["-a", "1"]);
                if !format.is_empty() {
                    arguments.extend(["-m", format]);
                }
                let path = ssh_keygen(&dir, passphrase, &arguments);
                assert_opens(&fs::read(&path).unwrap(), passphrase, &public_beside(&path));
            }
        }
    }
}

#[test]
fn all_ciphers_of_ssh_keygen_open() {
    let dir = tempfile::tempdir().unwrap();
    for cipher in openssh::CIPHERS {
        let path = ssh_keygen(
            &dir,
            "word",
            &["-t", "ed25519", "-a", "1", "-Z", cipher.as_str()],
        );
        assert_opens(&fs::read(&path).unwrap(), "word", &public_beside(&path));
        let file = KeyFile::parse(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(
            file.public_key(),
            Some(&public_beside(&path)),
            "known before it is unlocked"
        );
    }
}

#[test]
fn keys_of_openssl_open() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain.pem");
    let public = |path: &Path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        PublicKey::from_line(&run("ssh-keygen", &["-y", "-f", text(path)])).unwrap()
    };
    let kinds: [&[&str]; 5] = [
        &["-algorithm", "ed25519"],
        &["-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
    ];
    for kind in kinds {
        let mut arguments = vec!["genpkey", "-out", text(&plain)];
        arguments.extend(kind);
        run("openssl", &arguments);
        let key = KeyFile::parse(&fs::read(&plain).unwrap())
            .unwrap()
            .open()
            .unwrap();
        let public = if kind[1] == "ed25519" {
            key.public_key().clone()
        } else {
            public(&plain)
        };
        assert_opens(&fs::read(&plain).unwrap(), "", &public);

        // PKCS #8, encrypted.
        let out = dir.path().join("encrypted.pem");
        let schemes: [&[&str]; 6] = [
            &["-v2", "aes-128-cbc"],
            &["-v2", "aes-192-cbc"],
            &[
                "-v2",
                "aes-256-cbc",
                "-v2prf",
                "hmacWithSHA512",
                "-iter",
                "10000",
            ],
            &["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1"],
            &["-v2", "des3"],
            &["-scrypt"],
        ];
        for scheme in schemes {
            let from = [
                "pkcs8",
                "-topk8",
                "-in",
                text(&plain),
                "-out",
                text(&out),
                "-passout",
                "pass:word",
            ];
            let mut arguments = from.to_vec();
            arguments.extend(scheme);
            run("openssl", &arguments);
            assert_opens(&fs::read(&out).unwrap(), "word", &public);
        }

        // The old way.
        let tool = match kind[1] {
            "rsa" => "rsa",
            "ec" => "ec",
            _ => continue,
        };
        for cipher in ["-aes128", "-aes192", "-aes256", "-des3"] {
            let mut arguments = vec![
                tool,
                "-in",
                text(&plain),
                "-out",
                text(&out),
                cipher,
                "-passout",
                "pass:word",
            ];
            if tool == "rsa" {
                arguments.push("-traditional");
            }
            run("openssl", &arguments);
            let file = fs::read(&out).unwrap();
            assert!(
                String::from_utf8_lossy(&file).contains("DEK-Info"),
                "{cipher}"
            );
            assert_opens(&file, "word", &public);
        }
    }
}

/// An EC key with its parameters in a block of their own, as `openssl ecparam` writes it.
#[test]
fn blocks_and_texts_in_front_of_a_key_are_passed_over() {
    let arguments = ["ecparam", "-name", "prime256v1", "-genkey"];
    let file = run("openssl", &arguments);
    assert!(file.starts_with("-----BEGIN EC PARAMETERS"));
    let key = KeyFile::parse(file.as_bytes()).unwrap().open().unwrap();
    assert_eq!(key.public_key().key_type(), KeyType::EcdsaP256);
    let again = KeyFile::parse(format!("Private-Key: (256 bit)\n{file}").as_bytes()).unwrap();
    assert_eq!(again.public_key(), Some(key.public_key()));
}

#[test]
fn keys_of_puttygen_open() {
    let dir = tempfile::tempdir().unwrap();
    let passphrase = dir.path().join("passphrase");
    for key_type in TYPES {
        let path = ssh_keygen(&dir, "", key_type);
        let public = public_beside(&path);
        for (version, with_passphrase, derivation) in [
            ("2", false, ""),
            ("2", true, ""),
            ("3", false, ""),
            ("3", true, "kdf=argon2id"),
            ("3", true, "kdf=argon2i"),
            ("3", true, "kdf=argon2d,memory=1024,passes=3,parallelism=2"),
        ] {
            let word = if with_passphrase {
                "p\u{e4}ss word"
            } else {
                ""
            };
            fs::write(&passphrase, word).unwrap();
            let out = dir.path().join("out.ppk");
            let parameters = match derivation {
                "" => format!("version={version}"),
                derivation => format!("version={version},{derivation}"),
            };
            run(
                "puttygen",
                &[
                    text(&path),
                    "-O",
                    "private",
                    "-o",
                    text(&out),
                    "--ppk-param",
                    &parameters,
                    "--new-passphrase",
                    text(&passphrase),
                    "-C",
                    "a comment",
                ],
            );
            let file = fs::read(&out).unwrap();
            assert!(file.starts_with(format!("PuTTY-User-Key-File-{version}").as_bytes()));
            assert_opens(&file, word, &public);
            let parsed = KeyFile::parse(&file).unwrap();
            assert_eq!(parsed.comment(), Some("a comment"));
            // Line ends of Windows change nothing, one changed letter of the comment does.
            let windows = String::from_utf8(file.clone())
                .unwrap()
                .replace('\n', "\r\n");
            assert_opens(windows.as_bytes(), word, &public);
            let other = String::from_utf8(file)
                .unwrap()
                .replace("a comment", "a Comment");
            let refused = KeyFile::parse(other.as_bytes()).and_then(|file| file.decrypt(word));
            let expected = match with_passphrase {
                true => KeyFileError::WrongPassphrase,
                false => KeyFileError::Damaged {
                    what: "its checksum does not fit",
                },
            };
            assert_eq!(refused.unwrap_err(), expected);
        }
    }
}

#[test]
fn what_is_written_is_read_by_us_and_by_ssh_keygen() {
    let dir = tempfile::tempdir().unwrap();
    let rsa = ssh_keygen(&dir, "", &["-t", "rsa", "-b", "2048", "-m", "PEM"]);
    let rsa = KeyFile::parse(&fs::read(rsa).unwrap())
        .unwrap()
        .open()
        .unwrap();
    let made = [
        KeyType::Ed25519,
        KeyType::EcdsaP256,
        KeyType::EcdsaP384,
        KeyType::EcdsaP521,
    ]
    .map(|key_type| PrivateKey::generate(key_type).unwrap());
    for key in made.into_iter().chain([rsa]) {
        let file = key.to_openssh();
        assert_opens(file.as_bytes(), "", key.public_key());
        assert_eq!(*file, *key.to_openssh(), "the same key makes the same file");
        let path = dir.path().join("written");
        fs::write(&path, &*file).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let line = run("ssh-keygen", &["-y", "-f", text(&path)]);
        assert_eq!(PublicKey::from_line(&line).as_ref(), Ok(key.public_key()));
        assert_eq!(line.trim(), key.public_key().to_line());
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_is_no_private_key_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = ssh_keygen(&dir, "", &["-t", "ed25519"]);
    let good = fs::read_to_string(&path).unwrap();
    let public = fs::read_to_string(path.with_extension("pub")).unwrap();
    let rfc4716 = run("ssh-keygen", &["-e", "-f", text(&path)]);
    let spki = run(
        "openssl",
        &[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-out",
            text(&dir.path().join("ec")),
        ],
    );
    assert!(spki.is_empty());
    let spki = run(
        "openssl",
        &["ec", "-in", text(&dir.path().join("ec")), "-pubout"],
    );
    for (text, expected) in [
        (public.as_str(), "public key"),
        (&rfc4716, "public key"),
        (&spki, "public key"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "no private key",
        ),
        ("", "no private key"),
        ("\u{feff}\n", "no private key"),
        (&good.replacen('b', "c", 1), "damaged"),
        (&good[..good.len() / 2], "damaged"),
        ("PuTTY-User-Key-File-1: ssh-rsa\n", "version"),
        ("PuTTY-User-Key-File-3: ssh-rsa\n", "damaged"),
        (
            "-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----",
            "type DSA",
        ),
    ] {
        let error = KeyFile::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}: {text}");
    }
    let windows = format!("\u{feff}\r\n{}\r\n", good.replace('\n', "\r\n"));
    assert!(KeyFile::parse(windows.as_bytes()).unwrap().open().is_ok());
    assert_eq!(
        KeyFile::parse(&vec![b' '; KEY_FILE_LEN_MAX + 1]).unwrap_err(),
        KeyFileError::TooLong
    );
}

#[test]
fn damage_is_told_from_a_wrong_passphrase() {
    let dir = tempfile::tempdir().unwrap();
    for cipher in ["aes256-ctr", "aes256-cbc"] {
        let path = ssh_keygen(&dir, "word", &["-t", "ed25519", "-a", "1", "-Z", cipher]);
        let mut bytes = openssh_bytes(&fs::read_to_string(path).unwrap());
        // The last block has the comment's end and the padding, not the check numbers.
        *bytes.last_mut().unwrap() ^= 0x40;
        let file = KeyFile::parse(openssh_text(&bytes).as_bytes()).unwrap();
        let error = file.decrypt("word").unwrap_err();
        assert!(
            matches!(error, KeyFileError::Damaged { .. }),
            "{cipher}: {error:?}"
        );
        assert_eq!(
            file.decrypt("sword").unwrap_err(),
            KeyFileError::WrongPassphrase
        );
    }
}

fn openssh_bytes(text: &str) -> Vec<u8> {
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    pem::decode_base64(&body).unwrap().to_vec()
}

fn openssh_text(bytes: &[u8]) -> String {
    use base64ct::Encoding as _;
    let body = base64ct::Base64::encode_string(bytes);
    format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n")
}

/// THREATS A6: a file that asks for years of work is refused before any.
#[test]
fn files_that_cost_too_much_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = openssh_bytes(
        &fs::read_to_string(ssh_keygen(&dir, "word", &["-t", "ed25519", "-a", "1"])).unwrap(),
    );
    // magic, "aes256-ctr", "bcrypt", then the options: length, salt, and the rounds at their end.
    let at = 15 + (4 + 10) + (4 + 6) + 4 + (4 + 16);
    assert_eq!(bytes[at..at + 4], 1_u32.to_be_bytes());
    for rounds in [2049_u32, u32::MAX] {
        bytes[at..at + 4].copy_from_slice(&rounds.to_be_bytes());
        let error = KeyFile::parse(openssh_text(&bytes).as_bytes()).unwrap_err();
        assert_eq!(error, KeyFileError::TooCostly);
    }
    let ppk = |memory: u32, passes: u32, lanes: u32| {
        format!(
            "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: aes256-cbc\nComment: c\nPublic-Lines: 0\n\
             Key-Derivation: Argon2id\nArgon2-Memory: {memory}\nArgon2-Passes: {passes}\n\
             Argon2-Parallelism: {lanes}\nArgon2-Salt: 00112233445566778899aabbccddeeff\nPrivate-Lines: 0\n\
             Private-MAC: 00\n"
        )
    };
    for (memory, passes, lanes) in [(256 * 1024 + 1, 1, 1), (8192, u32::MAX, 1), (8192, 13, 65)] {
        let error = KeyFile::parse(ppk(memory, passes, lanes).as_bytes()).unwrap_err();
        assert_eq!(error, KeyFileError::TooCostly, "{memory} {passes} {lanes}");
    }
    let plain = dir.path().join("plain.pem");
    run(
        "openssl",
        &["genpkey", "-algorithm", "ed25519", "-out", text(&plain)],
    );
    for (scheme, value) in [("-iter", "2000001"), ("-scrypt_N", "1048576")] {
        let mut arguments = vec![
            "pkcs8",
            "-topk8",
            "-in",
            text(&plain),
            "-passout",
            "pass:word",
            scheme,
            value,
        ];
        if scheme == "-scrypt_N" {
            arguments.extend(["-scrypt_r", "8", "-scrypt_p", "1"]);
        }
        let output = Command::new("openssl").args(&arguments).output().unwrap();
        // OpenSSL itself has a limit for scrypt.
        if output.status.success() {
            assert_eq!(
                KeyFile::parse(&output.stdout).unwrap_err(),
                KeyFileError::TooCostly,
                "{scheme}"
            );
        }
    }
}

/// THREATS K24.
#[test]
fn nothing_secret_is_printed() {
    let seed = [0xa7; 32];
    let key = PrivateKey::from_ed25519_seed(Zeroizing::new(seed));
    let file = KeyFile::parse(key.to_openssh().as_bytes()).unwrap();
    let printed = format!("{key:?} {key:#?} {file:?} {file:#?}");
    assert!(printed.contains(&key.public_key().fingerprint()));
    assert!(
        !printed.contains("167, 167") && !printed.to_lowercase().contains("a7a7"),
        "{printed}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_parser_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400), front in 0..6_usize,
    ) {
        let front = [
            "", "-----BEGIN OPENSSH PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n",
            "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: ",
            "PuTTY-User-Key-File-2: ssh-rsa\nEncryption: aes256-cbc\nComment: x\nPublic-Lines: 1\n",
        ][front];
        prop_assert!(KeyFile::parse(&[front.as_bytes(), &bytes].concat()).is_err());
    }

    #[test]
    fn no_structure_makes_the_decoders_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400), label in 0..5_usize,
    ) {
        use base64ct::Encoding as _;
        let label = ["OPENSSH PRIVATE KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY",
            "EC PRIVATE KEY"][label];
        let mut content = bytes;
        if label.starts_with("OPENSSH") {
            content.splice(0..0, b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0\0\0\0\x01".iter().copied());
        }
        let body = base64ct::Base64::encode_string(&content);
        let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----");
        prop_assert!(KeyFile::parse(text.as_bytes()).is_err());
    }

    /// One turned bit in a good file is no panic, and never another key.
    #[test]
    fn a_damaged_file_is_no_other_key(at in any::<proptest::sample::Index>(), bit in 0..8_u32) {
        let key = PrivateKey::from_ed25519_seed(Zeroizing::new([7; 32]));
        let mut bytes = openssh_bytes(&key.to_openssh());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(file) = KeyFile::parse(openssh_text(&bytes).as_bytes())
            && let Ok(opened) = file.open()
        {
            prop_assert_eq!(opened.public_key(), key.public_key());
        }
    }
}

#[test]
fn an_algorithm_of_another_type_does_not_sign() {
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    for &algorithm in SignatureAlgorithm::ALL {
        let fits = algorithm.key_type() == KeyType::Ed25519;
        assert_eq!(key.sign(algorithm, b"x").is_ok(), fits, "{algorithm}");
    }
}

/// `ssh-keygen -t ed25519-sk` writes such a file: it has a handle for the security key, no secret.
#[test]
fn the_file_of_a_security_key_leads_to_the_agent() {
    use crate::public::Material;
    use ketch_wire::Writer;

    let application: std::sync::Arc<[u8]> = b"ssh:".as_slice().into();
    let public = PublicKey::plain_of(Material::SkEd25519 {
        point: [5; 32],
        application,
    });
    let mut private = vec![0; 8];
    let mut w = Writer::new(&mut private);
    w.string(public.type_name().as_bytes());
    w.string(&[5; 32]);
    w.string(b"ssh:");
    w.u8(1);
    w.string(b"a handle");
    w.string(b"");
    w.string(b"a comment");
    let missing = private.len().next_multiple_of(8) - private.len();
    private.extend((1..=u8::MAX).take(missing));
    let mut bytes = b"openssh-key-v1\0".to_vec();
    let mut w = Writer::new(&mut bytes);
    for text in ["none", "none", ""] {
        w.string(text.as_bytes());
    }
    w.u32(1);
    w.string(public.as_blob());
    w.string(&private);
    let file = KeyFile::parse(openssh_text(&bytes).as_bytes()).unwrap();
    assert_eq!(file.public_key(), Some(&public));
    assert_eq!(file.comment(), Some("a comment"));
    assert!(!file.is_encrypted());
    assert_eq!(file.open().unwrap_err(), KeyFileError::SecurityKey);
}
