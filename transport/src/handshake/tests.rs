//! Two machines through the first key exchange, in lock-step rounds: every method, every host key,
//! what is guessed, what is not strict.

use std::sync::Arc;
use std::time::Instant;

use ketch_keys::{KeyType, PrivateKey, SignatureAlgorithm};
use ketch_wire::Reader;

use crate::algorithm::{CipherName, Kex, MacName};
use crate::config::{ClientConfig, HostKey, Remembered, ServerConfig};
use crate::connection::Connection;
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::event::Event;
use crate::packet::Input;
use crate::pair::Seeded;
use crate::profile::Profile;

/// Client and server, and what is on the way between them.
struct Both {
    client: Connection,
    server: Connection,
    now: Instant,
    /// Bytes that one side has not taken yet.
    to_client: Vec<u8>,
    to_server: Vec<u8>,
}

/// What a side met.
#[derive(Debug, Default)]
struct Met {
    host_key: bool,
    auth_wanted: bool,
}

fn host_key(key_type: KeyType) -> Arc<HostKey> {
    Arc::new(HostKey::new(PrivateKey::generate(key_type).unwrap()))
}

impl Both {
    #[expect(
        clippy::disallowed_methods,
        reason = "a place for the virtual clock to start"
    )]
    fn new(client: ClientConfig, server: ServerConfig) -> Self {
        let now = Instant::now();
        Self {
            client: Connection::client(client, Box::new(Seeded::new(1)), now).unwrap(),
            server: Connection::server(server, Box::new(Seeded::new(2)), now).unwrap(),
            now,
            to_client: Vec::new(),
            to_server: Vec::new(),
        }
    }

    /// What both have said reaches the other: half a round trip each way.
    fn round(&mut self) -> Result<Met, ConnectionError> {
        let mut met = Met::default();
        send(&mut self.client, &mut self.to_server);
        take(&mut self.server, &mut self.to_server, self.now, &mut met)?;
        send(&mut self.server, &mut self.to_client);
        take(&mut self.client, &mut self.to_client, self.now, &mut met)?;
        Ok(met)
    }

    /// Rounds until the client is asked for a credential.
    fn rounds(&mut self) -> Result<usize, ConnectionError> {
        for round in 1..10 {
            if self.round()?.auth_wanted {
                return Ok(round);
            }
        }
        panic!("the handshake does not end");
    }
}

fn send(from: &mut Connection, wire: &mut Vec<u8>) {
    wire.extend_from_slice(from.output());
    from.output_taken(from.output().len());
}

fn take(
    to: &mut Connection,
    wire: &mut Vec<u8>,
    now: Instant,
    met: &mut Met,
) -> Result<(), ConnectionError> {
    let mut input = Input::new(wire);
    let outcome = loop {
        match to.next(&mut input, now) {
            Ok(Some(Event::HostKey(_))) => {
                met.host_key = true;
                to.accept_host_key().unwrap();
            }
            Ok(Some(Event::AuthWanted { .. })) => met.auth_wanted = true,
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let taken = input.position();
    wire.drain(..taken);
    outcome
}

fn configs() -> (ClientConfig, ServerConfig) {
    (
        ClientConfig::new("ann"),
        ServerConfig::new([host_key(KeyType::Ed25519)]),
    )
}

#[test]
fn every_method_and_cipher_is_agreed_on_and_used() {
    let methods: Vec<_> = Kex::ALL
        .iter()
        .copied()
        .filter(|kex| !kex.is_group_exchange())
        .collect();
    let all = Profile::Legacy.for_client();
    for (index, &kex) in methods.iter().enumerate() {
        let (mut client, mut server) = configs();
        for common in [&mut client.common, &mut server.common] {
            common.preferences.kex = vec![kex];
            common.preferences.cipher = vec![all.cipher[index % all.cipher.len()]];
            common.preferences.mac = vec![all.mac[index % all.mac.len()]];
        }
        let mut both = Both::new(client, server);
        assert_eq!(both.rounds(), Ok(2), "{kex}");
        both.round().unwrap();
        for side in [&mut both.client, &mut both.server] {
            let info = side.info();
            let algorithms = info.algorithms.unwrap();
            assert_eq!(algorithms.kex, kex);
            assert!(algorithms.strict && info.host_key_fingerprint.starts_with("SHA256:"));
        }
        // Under these keys a message goes both ways.
        both.client.rekey(both.now).unwrap();
    }
}

#[test]
fn every_type_of_host_key_proves_itself_and_the_client_chooses() {
    let types = [
        KeyType::Ed25519,
        KeyType::EcdsaP256,
        KeyType::EcdsaP384,
        KeyType::EcdsaP521,
    ];
    let keys: Vec<_> = types.into_iter().map(host_key).collect();
    for key in &keys {
        let algorithm = key.public_key().algorithms()[0];
        let (mut client, _) = configs();
        let mut server = ServerConfig::new(keys.clone());
        server.common.preferences = Profile::Compat.for_server().unwrap();
        client.common.preferences.host_key = vec![algorithm];
        let mut both = Both::new(client, server);
        both.rounds().unwrap();
        let shown = both.client.info();
        assert_eq!(shown.algorithms.unwrap().host_key, algorithm);
        assert_eq!(shown.host_key_fingerprint, key.public_key().fingerprint());
    }
    // The modern server keeps its NIST keys to itself.
    let (mut client, _) = configs();
    client.common.preferences.host_key = vec![SignatureAlgorithm::EcdsaP256];
    let outcome = Both::new(client, ServerConfig::new(keys)).rounds();
    assert!(matches!(
        outcome,
        Err(ConnectionError::NoCommonAlgorithm(_))
    ));
}

#[cfg(target_os = "linux")]
#[test]
fn rsa_keys_prove_themselves_by_what_the_client_takes_as_openssh_does() {
    use SignatureAlgorithm::{Ed25519, RsaSha256, RsaSha512};
    use ketch_keys::KeyFile;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rsa");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"])
        .arg(&file)
        .status();
    assert!(made.unwrap().success());
    let file = std::fs::read(file).unwrap();
    let rsa = KeyFile::parse(&file).unwrap().open().unwrap();
    let keys: Vec<Arc<HostKey>> = vec![host_key(KeyType::Ed25519), Arc::new(rsa.into())];
    for (offered, expected) in [
        (vec![Ed25519], RsaSha512),
        (vec![Ed25519, RsaSha256], RsaSha256),
        (vec![Ed25519, RsaSha256, RsaSha512], RsaSha512),
        // The exchange itself was RSA: OpenSSH's client takes that algorithm and no other.
        (vec![RsaSha256, RsaSha512], RsaSha256),
        (vec![RsaSha512, RsaSha256], RsaSha512),
    ] {
        let (mut client, _) = configs();
        client.common.preferences.host_key = offered.clone();
        let mut both = Both::new(client, ServerConfig::new(keys.clone()));
        both.rounds().unwrap();
        assert_eq!(both.server.rsa_proofs(), expected, "{offered:?}");
        let proof = both.client.host_proof().unwrap();
        let algorithm = both.client.info().algorithms.unwrap().host_key;
        let (data, signature) = (&proof.session_id, &proof.signature);
        assert!(proof.host_key.verify(algorithm, data, signature).is_ok());
    }
}

fn remembered(kex: Kex) -> Option<Remembered> {
    Some(Remembered {
        identification: "SSH-2.0-x".to_owned(),
        kex,
        host_key: SignatureAlgorithm::Ed25519,
        strict: true,
    })
}

#[test]
fn a_right_guess_spares_a_round_trip() {
    for kex in [
        Kex::MlKem768X25519,
        Kex::Curve25519Sha256,
        Kex::DhGroup14Sha256,
    ] {
        let (mut client, mut server) = configs();
        server.common.preferences = Profile::Compat.for_server().unwrap();
        client.remembered = remembered(kex);
        let mut both = Both::new(client, server);
        assert_eq!(both.rounds(), Ok(1), "{kex}");
        assert_eq!(both.client.info().algorithms.unwrap().kex, kex);
        // What is better than the guess is what is remembered next.
        let next = both.client.to_remember().unwrap();
        assert_eq!(next.kex, Kex::MlKem768X25519);
        assert!(next.strict);
    }
}

#[test]
fn a_wrong_guess_is_said_and_one_that_cannot_be_made_is_not_made() {
    let (mut client, mut server) = configs();
    client.remembered = remembered(Kex::Sntrup761X25519);
    server.common.preferences.kex = vec![Kex::Curve25519Sha256];
    let outcome = Both::new(client, server).rounds();
    // The server takes the value for one of the method that both have, or the client notices.
    assert!(
        matches!(
            outcome,
            Err(ConnectionError::WrongGuess
                | ConnectionError::Misbehaved(PeerMisbehaved::BadPublicValue))
        ),
        "{outcome:?}"
    );
    for kex in [Kex::DhGroupExchangeSha256, Kex::DhGroup1Sha1] {
        let (mut client, server) = configs();
        client.remembered = remembered(kex);
        let mut both = Both::new(client, server);
        assert_eq!(
            both.rounds(),
            Ok(2),
            "{kex}: not offered, or asked for first"
        );
    }
}

#[test]
fn a_server_leaves_chacha_out_for_clients_that_may_not_be_strict() {
    for (identification, offered) in [
        ("SSH-2.0-OpenSSH_9.6", true),
        ("SSH-2.0-OpenSSH_8.0", false),
        ("SSH-2.0-unknown", false),
    ] {
        let (_, server) = configs();
        let mut both = Both::new(ClientConfig::new("ann"), server);
        let before = both.server.output().len();
        let mut line = format!("{identification}\r\n").into_bytes();
        assert!(
            both.server
                .next(&mut Input::new(&mut line), both.now)
                .unwrap()
                .is_none()
        );
        assert!(
            both.server.output().len() > before,
            "KEXINIT waits for the line"
        );
        let kexinit = String::from_utf8_lossy(both.server.output()).into_owned();
        let chacha = CipherName::ChaCha20Poly1305.name();
        assert_eq!(kexinit.contains(chacha), offered, "{identification}");
    }
}

#[test]
fn a_client_puts_what_is_unsafe_last_where_the_host_is_not_strict() {
    let (mut client, server) = configs();
    client.remembered = Some(Remembered {
        strict: false,
        ..remembered(Kex::Curve25519Sha256).unwrap()
    });
    let both = Both::new(client, server);
    let sent = String::from_utf8_lossy(both.client.output()).into_owned();
    let at = |name: &str| sent.find(name).unwrap();
    assert!(at(CipherName::ChaCha20Poly1305.name()) > at(CipherName::Aes128Ctr.name()));
}

#[test]
fn profiles_are_what_their_tables_say() {
    let names = |kex: &[Kex]| {
        kex.iter()
            .map(|kex| kex.name())
            .collect::<Vec<_>>()
            .join(",")
    };
    let modern = Profile::Modern.for_server().unwrap();
    assert_eq!(
        names(&modern.kex),
        "mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,\
         curve25519-sha256,curve25519-sha256@libssh.org"
    );
    assert_eq!(modern, Profile::Modern.for_client());
    let pq = Profile::PqOnly.for_client();
    assert!(pq.kex.iter().all(|kex| kex.is_post_quantum()) && pq.kex.len() == 3);
    assert_eq!(Profile::Legacy.for_server(), None);
    let sha1 = |preferences: &crate::profile::Preferences| {
        preferences
            .kex
            .iter()
            .any(|kex| kex.name().contains("sha1"))
            || preferences
                .mac
                .iter()
                .any(|mac| mac.name().contains("sha1"))
            || preferences.cipher.iter().any(|cipher| cipher.is_cbc())
            || preferences.host_key.contains(&SignatureAlgorithm::RsaSha1)
    };
    for profile in Profile::ALL {
        assert_eq!(Profile::from_name(profile.name()), Some(*profile));
        assert_eq!(sha1(&profile.for_client()), *profile == Profile::Legacy);
        if let Some(server) = profile.for_server() {
            assert!(!sha1(&server));
            assert!(server.kex.iter().all(|kex| !kex.is_group_exchange()));
        }
        // Full tags alone (no -96), and no short universal hash.
        assert!(
            profile
                .for_client()
                .mac
                .iter()
                .all(|mac| { !mac.name().contains("-96") && !mac.name().contains("umac-64") })
        );
    }
    assert!(!modern.mac.contains(&MacName::HmacSha256));
    assert_eq!(Profile::from_name("pq-only"), Some(Profile::PqOnly));
    assert_eq!(Profile::from_name("pq"), None);
}

#[test]
fn markers_stand_behind_the_methods_of_the_first_offer() {
    let (client, server) = configs();
    let both = Both::new(client, server);
    let sent = both.client.output();
    let line_end = sent.iter().position(|&byte| byte == b'\n').unwrap();
    let packet = &sent[line_end + 1..];
    let payload_len = usize::try_from(u32::from_be_bytes(packet[..4].try_into().unwrap())).unwrap();
    let payload = &packet[5..4 + payload_len];
    let mut fields = Reader::new(&payload[17..]);
    let kex = fields.name_list().unwrap();
    assert!(kex.contains("ext-info-c") && kex.contains("kex-strict-c-v00@openssh.com"));
    assert_eq!(kex.first(), Some("mlkem768x25519-sha256"));
}
