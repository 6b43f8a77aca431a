//! How two offers become a choice (RFC 4253 §7.1): a pure function of two [`KexInit`]s.

use std::fmt;

use ketch_wire::NameList;

use crate::algorithm::{CipherName, Compression, Kex, MacName, SignatureAlgorithm, marker};
use crate::crypto::Suite;
use crate::message::kex::KexInit;

/// What two offers agree on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Negotiated {
    /// The key exchange method.
    pub kex: Kex,
    /// The server's signature algorithm.
    pub host_key: SignatureAlgorithm,
    /// What packets from client to server go through.
    pub client_to_server: Suite,
    /// What packets from server to client go through.
    pub server_to_client: Suite,
    /// Both sides keep strict key exchange.
    pub strict: bool,
    /// The client said that it reads `EXT_INFO`.
    pub client_reads_ext_info: bool,
    /// The server said that it reads `EXT_INFO`.
    pub server_reads_ext_info: bool,
    /// The first choices of both sides are the same, so a guessed packet counts (RFC 4253 §7).
    pub guess_is_right: bool,
}

impl Negotiated {
    /// Whether it holds what must not be used without strict key exchange (CVE-2023-48795).
    pub(crate) fn needs_strict(&self) -> bool {
        [self.client_to_server, self.server_to_client]
            .iter()
            .any(|suite| {
                suite.cipher == CipherName::ChaCha20Poly1305
                    || suite.cipher.is_cbc() && suite.mac.is_some_and(MacName::is_etm)
            })
    }
}

/// Two offers have nothing in common.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoCommonAlgorithm {
    /// Which list: "key exchange", "host key", "cipher", "MAC", "compression".
    pub category: &'static str,
    /// What the client offers.
    pub client: String,
    /// What the server offers.
    pub server: String,
}

impl fmt::Display for NoCommonAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            category,
            client,
            server,
        } = self;
        write!(
            f,
            "no common {category} algorithm: client offers {client}; server offers {server}"
        )
    }
}

impl std::error::Error for NoCommonAlgorithm {}

/// Chooses as RFC 4253 §7.1 has it: the first of the client's that the server has too.
///
/// # Errors
/// [`NoCommonAlgorithm`] names the list in which the two sides share nothing that we implement.
pub fn negotiate(
    client: &KexInit<'_>,
    server: &KexInit<'_>,
) -> Result<Negotiated, NoCommonAlgorithm> {
    let suite = |ciphers, macs, compressions| {
        let cipher = choose("cipher", ciphers, CipherName::from_name)?;
        // An AEAD brings its own tag; nobody has to agree on a MAC then.
        let mac = if cipher.is_aead() {
            None
        } else {
            Some(choose("MAC", macs, MacName::from_name)?)
        };
        let compression = choose("compression", compressions, Compression::from_name)?;
        Ok(Suite {
            cipher,
            mac,
            compression,
        })
    };
    Ok(Negotiated {
        kex: choose("key exchange", [client.kex, server.kex], Kex::from_name)?,
        host_key: choose(
            "host key",
            [client.host_key, server.host_key],
            SignatureAlgorithm::from_name,
        )?,
        client_to_server: suite(
            [
                client.cipher_client_to_server,
                server.cipher_client_to_server,
            ],
            [client.mac_client_to_server, server.mac_client_to_server],
            [
                client.compression_client_to_server,
                server.compression_client_to_server,
            ],
        )?,
        server_to_client: suite(
            [
                client.cipher_server_to_client,
                server.cipher_server_to_client,
            ],
            [client.mac_server_to_client, server.mac_server_to_client],
            [
                client.compression_server_to_client,
                server.compression_server_to_client,
            ],
        )?,
        strict: client.kex.contains(marker::STRICT_CLIENT)
            && server.kex.contains(marker::STRICT_SERVER),
        client_reads_ext_info: client.kex.contains(marker::EXT_INFO_CLIENT),
        server_reads_ext_info: server.kex.contains(marker::EXT_INFO_SERVER),
        guess_is_right: client.kex.first() == server.kex.first()
            && client.host_key.first() == server.host_key.first(),
    })
}

fn choose<T>(
    category: &'static str,
    [client, server]: [NameList<'_>; 2],
    from_name: impl Fn(&str) -> Option<T>,
) -> Result<T, NoCommonAlgorithm> {
    client
        .iter()
        .filter(|name| server.contains(name))
        .find_map(from_name)
        .ok_or_else(|| NoCommonAlgorithm {
            category,
            client: client.as_str().to_owned(),
            server: server.as_str().to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_wire::NameList;

    fn offer<'a>(kex: &'a str, host_key: &'a str, cipher: &'a str) -> KexInit<'a> {
        let list = |names| NameList::new(names).unwrap();
        KexInit {
            cookie: [0; 16],
            kex: list(kex),
            host_key: list(host_key),
            cipher_client_to_server: list(cipher),
            cipher_server_to_client: list(cipher),
            mac_client_to_server: list("hmac-sha2-256"),
            mac_server_to_client: list("hmac-sha2-256"),
            compression_client_to_server: list("none"),
            compression_server_to_client: list("none"),
            languages_client_to_server: NameList::EMPTY,
            languages_server_to_client: NameList::EMPTY,
            first_kex_packet_follows: false,
        }
    }

    #[test]
    fn the_clients_first_choice_that_the_server_has_wins() {
        let client = offer(
            "kexguess2@matt.ucc.asn.au,curve25519-sha256,ext-info-c,kex-strict-c-v00@openssh.com",
            "rsa-sha2-512,ssh-ed25519",
            "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com",
        );
        let server = offer(
            "kexguess2@matt.ucc.asn.au,curve25519-sha256@libssh.org,curve25519-sha256",
            "ssh-ed25519,rsa-sha2-512",
            "aes256-gcm@openssh.com,aes128-gcm@openssh.com",
        );
        let chosen = negotiate(&client, &server).unwrap();
        // A name that both have but that is not implemented here is passed over.
        assert_eq!(chosen.kex, Kex::Curve25519Sha256);
        assert_eq!(chosen.host_key, SignatureAlgorithm::RsaSha512);
        assert_eq!(chosen.client_to_server.cipher, CipherName::Aes128Gcm);
        assert_eq!(chosen.client_to_server.mac, None);
        assert!(chosen.client_reads_ext_info && !chosen.server_reads_ext_info);
        assert!(!chosen.strict, "one side's mark is not enough");
        assert!(
            !chosen.guess_is_right,
            "the first host key algorithms differ"
        );
    }

    #[test]
    fn both_marks_make_it_strict() {
        let client = offer(
            "curve25519-sha256,kex-strict-c-v00@openssh.com",
            "ssh-ed25519",
            "aes128-gcm@openssh.com",
        );
        let server = offer(
            "curve25519-sha256,kex-strict-s-v00@openssh.com",
            "ssh-ed25519",
            "aes128-gcm@openssh.com",
        );
        let chosen = negotiate(&client, &server).unwrap();
        assert!(chosen.strict && chosen.guess_is_right);
        let crossed = offer(
            "curve25519-sha256,kex-strict-c-v00@openssh.com",
            "ssh-ed25519",
            "aes128-gcm@openssh.com",
        );
        assert!(
            !negotiate(&client, &crossed).unwrap().strict,
            "the server has a mark of its own"
        );
    }

    #[test]
    fn nothing_in_common_names_the_list() {
        let client = offer("curve25519-sha256", "ssh-ed25519", "aes128-gcm@openssh.com");
        for (server, category) in [
            (
                offer(
                    "ecdh-sha2-nistp256",
                    "ssh-ed25519",
                    "aes128-gcm@openssh.com",
                ),
                "key exchange",
            ),
            (
                offer("curve25519-sha256", "ssh-rsa", "aes128-gcm@openssh.com"),
                "host key",
            ),
            (
                offer("curve25519-sha256", "ssh-ed25519", "aes128-cbc"),
                "cipher",
            ),
            (
                offer("curve25519-sha256", "ssh-ed25519", "aes128-gcm"),
                "cipher",
            ),
        ] {
            assert_eq!(negotiate(&client, &server).unwrap_err().category, category);
        }
    }

    #[test]
    fn names_of_yesterday_are_in_no_list_that_is_on_by_default() {
        use crate::profile::Profile;
        const WEAK: &[&str] = &[
            "diffie-hellman-group1-sha1",
            "diffie-hellman-group14-sha1",
            "diffie-hellman-group-exchange-sha1",
            "rsa1024-sha1",
            "gss-group14-sha1-toWM5Slw5Ew8Mqkay+al2g==",
            "ssh-rsa",
            "ssh-dss",
            "ssh-rsa-cert-v01@openssh.com",
            "ecdsa-sha2",
            "ecdsa-sha2-nistp",
            "none",
            "3des-cbc",
            "aes128-cbc",
            "aes256-cbc",
            "rijndael-cbc@lysator.liu.se",
            "arcfour",
            "arcfour128",
            "blowfish-cbc",
            "hmac-md5",
            "hmac-md5-96",
            "hmac-sha1",
            "hmac-sha1-96",
            "hmac-sha1-etm@openssh.com",
            "hmac-sha2-256-96",
            "umac-64@openssh.com",
            "umac-64-etm@openssh.com",
            "zlib",
        ];
        let lists = [Profile::Modern, Profile::Compat, Profile::PqOnly].into_iter();
        let lists = lists
            .flat_map(|profile| std::iter::once(profile.for_client()).chain(profile.for_server()));
        for ours in lists {
            let kex: Vec<_> = ours.kex.iter().map(|kex| kex.name()).collect();
            let keys = ours.host_key.iter().chain(&ours.user_key);
            let keys: Vec<_> = keys.map(|key| key.name()).collect();
            let ciphers: Vec<_> = ours.cipher.iter().map(|cipher| cipher.name()).collect();
            let macs: Vec<_> = ours.mac.iter().map(|mac| mac.name()).collect();
            for weak in WEAK {
                for list in [&kex, &keys, &ciphers, &macs] {
                    assert!(!list.contains(weak), "{weak} in {list:?}");
                }
            }
            let compression = ours.compression.iter();
            assert!(compression.eq(&[Compression::None]), "only on request");
            // Alone, none of them leads anywhere.
            let (kex, keys, ciphers) = (kex.join(","), keys.join(","), ciphers.join(","));
            let server = offer(&kex, &keys, &ciphers);
            for weak in WEAK {
                assert!(negotiate(&offer(weak, &keys, &ciphers), &server).is_err());
                assert!(negotiate(&offer(&kex, weak, &ciphers), &server).is_err());
                assert!(negotiate(&offer(&kex, &keys, weak), &server).is_err());
            }
        }
    }
}
