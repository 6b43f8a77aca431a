//! Keys, certificates, signatures, key files and lists of revoked keys as somebody else wrote them:
//! never a panic, never more work than the limits allow, never a key that is not there.

use ketch_keys::{
    CertificateKind, KeyFile, KeyType, PrivateKey, PublicKey, RevocationList, SignatureAlgorithm,
};
use std::sync::LazyLock;
use zeroize::Zeroizing;

/// A key, or a line with one: what is read is written the same, and verifies nothing.
pub fn public_key(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = PublicKey::from_line(text)
    {
        assert_eq!(PublicKey::from_line(&key.to_line()).as_ref(), Ok(&key));
    }
    let Ok(key) = PublicKey::from_blob(data) else {
        return;
    };
    assert_eq!(key.as_blob(), data);
    assert_eq!(PublicKey::from_line(&key.to_line()).as_ref(), Ok(&key));
    assert!(key.plain().certificate().is_none());
    assert_eq!(key.plain().fingerprint(), key.fingerprint());
    assert!(
        key.rsa_bits()
            .is_none_or(|bits| (1024..=8192).contains(&bits))
    );
    for &algorithm in key.algorithms() {
        assert_eq!(algorithm.key_type(), key.key_type());
        assert!(key.verify(algorithm, b"data", data).is_err());
    }
}

/// The fields of a certificate after its type, which the first byte chooses.
pub fn certificate(data: &[u8]) {
    let Some((&first, fields)) = data.split_first() else {
        return;
    };
    let key_type = KeyType::ALL[usize::from(first) % KeyType::ALL.len()];
    let mut blob = Vec::new();
    let mut w = ketch_wire::Writer::new(&mut blob);
    w.string(key_type.certificate_name().as_bytes());
    w.bytes(fields);
    let Ok(key) = PublicKey::from_blob(&blob) else {
        return;
    };
    let certificate = key.certificate().expect("the name is a certificate's");
    assert!(
        certificate.authority().certificate().is_none(),
        "no nesting"
    );
    assert!(certificate.principals().len() <= ketch_keys::PRINCIPALS_MAX);
    // Nobody signed it for a name that no certificate has.
    let name = "no certificate is for this name";
    assert!(
        certificate
            .check(CertificateKind::User, name, 1, &[])
            .is_err()
    );
    let _ = certificate.allows_source([192, 0, 2, 1].into());
    public_key(&blob);
}

/// A signature blob over known data by a key of each type: only the one that was made is good.
pub fn signature(data: &[u8]) {
    static KEYS: LazyLock<Vec<PrivateKey>> = LazyLock::new(|| {
        let made = [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::EcdsaP521];
        let made = made.map(|key_type| PrivateKey::generate(key_type).expect("a key"));
        let seed = PrivateKey::from_ed25519_seed(Zeroizing::new([7; 32]));
        made.into_iter().chain([seed]).collect()
    });
    for key in &*KEYS {
        let public = key.public_key();
        for &algorithm in SignatureAlgorithm::ALL {
            assert!(public.verify(algorithm, b"data", data).is_err());
        }
        let raw = ketch_keys::signature_blob(public.algorithms()[0], data);
        assert!(
            public
                .verify(public.algorithms()[0], b"data", &raw)
                .is_err()
        );
    }
}

/// A private key file of any format; passphrases are tried where that costs little.
pub fn key_file(data: &[u8]) {
    let Ok(file) = KeyFile::parse(data) else {
        return;
    };
    let Ok(key) = file.open() else {
        return;
    };
    assert_eq!(file.public_key(), Some(key.public_key()));
    let algorithm = key.public_key().algorithms()[0];
    // A key of composite "primes" signs wrongly, and then nothing leaves.
    if let Ok(signature) = key.sign(algorithm, b"data") {
        assert!(
            key.public_key()
                .verify(algorithm, b"data", &signature)
                .is_ok()
        );
    }
    let written = key.to_openssh();
    let again = KeyFile::parse(written.as_bytes()).and_then(|file| file.open());
    assert_eq!(
        again.expect("what is written is read").public_key(),
        key.public_key()
    );
}

/// A list of revoked keys, binary or in lines.
pub fn revocation_list(data: &[u8]) {
    let key = PublicKey::ed25519([0x5a; 32]);
    let binary = [b"SSHKRL\n\0\0\0\0\x01".as_slice(), data].concat();
    for bytes in [data, &binary] {
        if let Ok(list) = RevocationList::parse(bytes) {
            assert!(
                !list.is_revoked(&key),
                "no list that was not made for it has this key"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_keys_pass() {
        let key = PrivateKey::from_ed25519_seed(Zeroizing::new([7; 32]));
        public_key(key.public_key().as_blob());
        public_key(key.public_key().to_line().as_bytes());
        public_key(b"ssh-ed25519 AAAA");
        certificate(b"");
        certificate(&[0; 200]);
        key_file(key.to_openssh().as_bytes());
        key_file(b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n");
        signature(
            &key.sign(SignatureAlgorithm::Ed25519, b"other data")
                .expect("a signature"),
        );
        signature(b"");
        revocation_list(key.public_key().to_line().as_bytes());
        revocation_list(&[0; 40]);
    }
}
