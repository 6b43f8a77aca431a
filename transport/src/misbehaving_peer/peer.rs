//! The peer's half of a [`Rig`]: what it says is sealed, what it hears is opened, and keys change
//! where they should.

use ketch_wire::{NameList, Reader};

use super::{IDENTIFICATION, Offer, Outcome, Rig, Role, Told, payload};
use crate::algorithm::SignatureAlgorithm;
use crate::algorithm::{CipherName, Kex, marker};
use crate::auth::{AuthAttempt, Credential, Method};
use crate::crypto::derive::{Agreed, Direction, Transcript};
use crate::crypto::kex::{self, ClientShare, SharedSecret};
use crate::crypto::{KeyMaterial, Suite};
use crate::event::{Event, SessionRequest};
use crate::message::kex::{ClientPublic, KexInit, ServerReply};
use crate::message::number;
use crate::packet::Input;

/// The method that every offer of the peer leads to.
const KEX: Kex = Kex::Curve25519Sha256;

impl Rig {
    /// Seals a payload, gives it to the machine, and says what came of it.
    pub(super) fn tell(&mut self, payload: &[u8]) -> Outcome {
        self.sender.send(payload).unwrap();
        let mut bytes = self.sender.output().to_vec();
        self.sender.consume(bytes.len());
        self.feed(&mut bytes)
    }

    /// Gives bytes to the machine. What it asks on the way in is answered as a friend would.
    pub(super) fn feed(&mut self, bytes: &mut [u8]) -> Outcome {
        let mut told = Told::default();
        let mut input = Input::new(bytes);
        while let Some(event) = self.machine.next(&mut input, self.now)? {
            let text = format!("{event:?}");
            if let Event::Attempt(AuthAttempt {
                method: Method::Unusable,
                ..
            }) = event
            {
                // An eager friend: it is rejected all the same.
                assert!(!self.machine.accept_auth(self.now)?);
                continue;
            }
            told.events.push(text);
            match event {
                Event::HostKey(_) => self.machine.accept_host_key()?,
                Event::AuthWanted { methods: None, .. } => {
                    self.machine.authenticate(&Credential::None)?;
                }
                Event::Request(_, request) => {
                    let accepted = request.starts() && !matches!(request, SessionRequest::Exec(_));
                    self.machine.answer_request(accepted, request.starts())?;
                }
                Event::ChannelAsked(_) => drop(self.machine.answer_open(false)?),
                Event::ForwardAsked { .. } => self.machine.answer_forward(None)?,
                Event::CancelForwardAsked { .. } => self.machine.answer_cancel_forward(false)?,
                _ => {}
            }
        }
        self.machine.flush(self.now)?;
        told.heard = self.listen();
        Ok(told)
    }

    /// Opens what the machine sent; keys change where it says so.
    pub(super) fn listen(&mut self) -> Vec<Vec<u8>> {
        let mut bytes = self.machine.output().to_vec();
        self.machine.output_taken(bytes.len());
        let mut input = Input::new(&mut bytes);
        let mut heard = Vec::new();
        while let Some(packet) = self.receiver.next(&mut input).unwrap() {
            let payload = packet.payload.bytes.to_vec();
            self.on_heard(&payload);
            heard.push(payload);
        }
        assert_eq!(input.remaining(), 0);
        heard
    }

    fn on_heard(&mut self, payload: &[u8]) {
        let fields = Reader::new(&payload[1..]);
        match payload[0] {
            number::KEXINIT => self.theirs = payload.to_vec(),
            number::KEX_ECDH_INIT => {
                self.machine_public = ClientPublic::decode(fields).unwrap().public.to_vec();
            }
            number::KEX_ECDH_REPLY => {
                let reply = ServerReply::decode(fields).unwrap();
                let share = self.share.take().unwrap();
                let ours = share.public().to_vec();
                let secret = share.agree(reply.public).unwrap();
                self.agree(reply.host_key, &ours, reply.public, secret);
                let hash = self.agreed.as_ref().unwrap().hash;
                let _verified = self
                    .host_key
                    .public_key()
                    .verify(
                        SignatureAlgorithm::Ed25519,
                        hash.as_bytes(),
                        reply.signature,
                    )
                    .unwrap();
            }
            number::NEWKEYS => {
                let (suite, keys) = self.keys(self.machine_direction());
                self.receiver.install(suite, &keys, self.offer.strict);
            }
            _ => {}
        }
    }

    const fn machine_direction(&self) -> Direction {
        match self.role {
            Role::Client => Direction::ClientToServer,
            Role::Server => Direction::ServerToClient,
        }
    }

    fn keys(&self, direction: Direction) -> (Suite, KeyMaterial) {
        let suite = Suite::aead(CipherName::from_name(self.offer.cipher).unwrap());
        let agreed = self.agreed.as_ref().unwrap();
        (
            suite,
            agreed.key_material(&self.session_id.unwrap(), direction, suite),
        )
    }

    /// Both public values are known: the secret and the hash are, too.
    fn agree(
        &mut self,
        host_key: &[u8],
        our_public: &[u8],
        machine_public: &[u8],
        secret: SharedSecret,
    ) {
        let machine = (
            self.machine_identification.as_bytes(),
            &self.theirs[..],
            machine_public,
        );
        let raw = (IDENTIFICATION.as_bytes(), &self.ours[..], our_public);
        let (client, server) = if self.role == Role::Client {
            (machine, raw)
        } else {
            (raw, machine)
        };
        let transcript = Transcript {
            client_identification: client.0,
            server_identification: server.0,
            client_kexinit: client.1,
            server_kexinit: server.1,
            host_key,
            group: None,
            client_public: client.2,
            server_public: server.2,
        };
        let agreed = Agreed::new(KEX.hash(), &transcript, secret);
        self.session_id.get_or_insert(agreed.hash);
        self.agreed = Some(agreed);
    }

    /// The peer's `KEXINIT`.
    pub(super) fn kexinit(&self) -> Vec<u8> {
        let Offer {
            kex,
            strict,
            cipher,
            mac,
            follows,
        } = self.offer;
        let mark = self.by_role(marker::STRICT_SERVER, marker::STRICT_CLIENT);
        let marked = format!("{kex},{mark}");
        // As every peer does, it leaves the mark out once keys are in use.
        let kex = if strict && self.first { &marked } else { kex };
        let list = |names| NameList::new(names).unwrap();
        let message = KexInit {
            cookie: [9; 16],
            kex: list(kex),
            host_key: list("ssh-ed25519"),
            cipher_client_to_server: list(cipher),
            cipher_server_to_client: list(cipher),
            mac_client_to_server: list(mac),
            mac_server_to_client: list(mac),
            compression_client_to_server: list("none"),
            compression_server_to_client: list("none"),
            languages_client_to_server: NameList::EMPTY,
            languages_server_to_client: NameList::EMPTY,
            first_kex_packet_follows: follows,
        };
        payload(|w| message.encode(w))
    }

    pub(super) fn tell_kexinit(&mut self) -> Outcome {
        self.ours = self.kexinit();
        self.tell(&self.ours.clone())
    }

    /// The message with the peer's public value: `KEX_ECDH_INIT` to a server, the reply to a client.
    pub(super) fn public(&mut self) -> Vec<u8> {
        if self.role == Role::Server {
            let share = ClientShare::generate(KEX, None, &mut self.random).unwrap();
            let public = share.public().to_vec();
            self.share = Some(share);
            return payload(|w| ClientPublic { public: &public }.encode(number::KEX_ECDH_INIT, w));
        }
        let kex::Response { public, secret } =
            kex::respond(KEX, &self.machine_public, &mut self.random).unwrap();
        let host_key = self.host_key.public_key().as_blob().to_vec();
        self.agree(&host_key, &public, &self.machine_public.clone(), secret);
        let signature = self
            .host_key
            .sign(
                SignatureAlgorithm::Ed25519,
                self.agreed.as_ref().unwrap().hash.as_bytes(),
            )
            .unwrap();
        payload(|w| {
            ServerReply {
                host_key: &host_key,
                public: &public,
                signature: &signature,
            }
            .encode(number::KEX_ECDH_REPLY, w)
        })
    }

    pub(super) fn tell_public(&mut self) -> Outcome {
        let message = self.public();
        self.tell(&message)
    }

    pub(super) fn tell_newkeys(&mut self) -> Outcome {
        let outcome = self.tell(&[number::NEWKEYS])?;
        self.use_new_keys();
        Ok(outcome)
    }

    /// `NEWKEYS` and one more message that arrives with it.
    pub(super) fn tell_newkeys_and(&mut self, payload: &[u8]) -> Outcome {
        self.sender.send(&[number::NEWKEYS]).unwrap();
        self.use_new_keys();
        self.tell(payload)
    }

    fn use_new_keys(&mut self) {
        let direction = match self.machine_direction() {
            Direction::ClientToServer => Direction::ServerToClient,
            Direction::ServerToClient => Direction::ClientToServer,
        };
        let (suite, keys) = self.keys(direction);
        self.sender.install(suite, &keys, self.offer.strict);
        self.first = false;
    }
}
