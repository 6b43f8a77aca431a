//! A server tells all its host keys, and proves that it holds those that a client did not know
//! (`hostkeys-00@openssh.com`, OpenSSH's PROTOCOL §2.5).
//!
//! So a client learns of new keys before the old one is retired. A proof is a signature over the
//! name of the request, the session identifier and the key: it is good for nothing else, and each key
//! gives one on a connection.

use std::sync::Arc;

use ketch_wire::{DecodeError, Writer};

use crate::algorithm::SignatureAlgorithm;
use crate::config::HostKey;
use crate::message::connection::{GlobalRequest, HostKeys, prove_data};
use crate::outbox::Outbox;
use crate::packet::SendError;
use ketch_keys::PublicKey;

/// Most host keys that are told, proved or kept.
pub(super) const KEYS_MAX: usize = 16;
/// Most host keys that a server may tell: those beyond [`KEYS_MAX`] are passed over.
const KEYS_READ_MAX: usize = 256;

/// What either side knows of the server's host keys.
#[derive(Debug, Default)]
pub(crate) struct HostKeyProofs {
    /// The server's, which it holds.
    own: Vec<Arc<HostKey>>,
    /// Which of them have signed.
    signed: Vec<bool>,
    session_id: Vec<u8>,
    /// The server's: what an RSA key signs with; its best where nothing is said.
    rsa: Option<SignatureAlgorithm>,
    /// The client's: an offer was taken, and there is one on a connection.
    offered: bool,
}

impl super::Mux {
    /// Both sides: what proofs are bound to.
    pub(crate) fn set_session_id(&mut self, session_id: &[u8]) {
        self.host_keys.set_session_id(session_id);
    }

    /// Server: what RSA keys sign proofs with. OpenSSH's client verifies those of a connection on which
    /// the host proved itself by RSA with that very algorithm, and with no other.
    pub(crate) const fn set_rsa_proofs(&mut self, algorithm: SignatureAlgorithm) {
        self.host_keys.rsa = Some(algorithm);
    }

    /// Server: the keys that it tells. Only these are ever proved.
    pub(crate) fn set_host_keys(&mut self, mut keys: Vec<Arc<HostKey>>) {
        keys.truncate(KEYS_MAX);
        self.host_keys.signed = vec![false; keys.len()];
        self.host_keys.own = keys;
    }

    /// Server: tells the keys that it holds, if it is to.
    pub(crate) fn offer_host_keys(&mut self, outbox: &mut Outbox) -> Result<(), SendError> {
        if self.host_keys.own.is_empty() {
            return Ok(());
        }
        let mut data = Vec::new();
        let mut w = Writer::new(&mut data);
        let own = self.host_keys.own.iter();
        own.for_each(|key| w.string(key.public_key().as_blob()));
        let request = GlobalRequest {
            name: GlobalRequest::HOST_KEYS,
            want_reply: false,
            data: &data,
        };
        outbox.message(|w| request.encode(w))
    }
}

impl HostKeyProofs {
    pub(crate) fn set_session_id(&mut self, session_id: &[u8]) {
        self.session_id = session_id.to_vec();
    }

    /// Client: the keys that the server says it holds, as far as they are of types that we know.
    /// None of them is proved.
    pub(super) fn on_offer(&mut self, data: &[u8]) -> Result<Vec<PublicKey>, DecodeError> {
        if std::mem::replace(&mut self.offered, true) {
            return Ok(Vec::new());
        }
        let keys = HostKeys::decode(data, KEYS_READ_MAX)?;
        let mut offered: Vec<PublicKey> = Vec::new();
        for key in keys
            .iter()
            .take(KEYS_MAX)
            .filter_map(|blob| PublicKey::from_blob(blob).ok())
        {
            // A certificate expires: what is kept is the key.
            if key.certificate().is_none() && !offered.contains(&key) {
                offered.push(key);
            }
        }
        Ok(offered)
    }

    /// Server: signs, if each of the keys is ours and none has signed on this connection.
    pub(super) fn prove(&mut self, data: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
        let asked = HostKeys::decode(data, KEYS_MAX)?;
        let mut chosen = Vec::new();
        for blob in asked.iter() {
            let is_it = |key: &Arc<HostKey>| key.public_key().as_blob() == blob;
            match self.own.iter().position(is_it) {
                Some(index) if !self.signed[index] && !chosen.contains(&index) => {
                    chosen.push(index);
                }
                _ => return Ok(None),
            }
        }
        let mut proofs = Vec::new();
        let mut w = Writer::new(&mut proofs);
        for index in &chosen {
            self.signed[*index] = true;
            let key = &self.own[*index];
            let data = prove_data(&self.session_id, key.public_key().as_blob());
            let best = key.public_key().algorithms().first().copied();
            let rsa = self.rsa.filter(|_| key.public_key().rsa_bits().is_some());
            match rsa.or(best).map(|algorithm| key.sign(algorithm, &data)) {
                Some(Ok(signature)) => w.string(&signature),
                _ => return Ok(None), // it could not be drawn at random, or did not verify
            }
        }
        Ok((!chosen.is_empty()).then_some(proofs))
    }

    /// Client: those of the keys for which there is a good signature. One that is missing or wrong
    /// makes all of them unproved: an honest server has no reason for it.
    pub(crate) fn verify(
        &self,
        keys: Vec<PublicKey>,
        data: &[u8],
    ) -> Result<Vec<PublicKey>, DecodeError> {
        let signatures = HostKeys::decode(data, KEYS_MAX)?;
        let mut signatures = signatures.iter();
        let all_good = keys.iter().all(|key| {
            let data = prove_data(&self.session_id, key.as_blob());
            let signature = signatures.next();
            signature.is_some_and(|signature| is_good(key, &data, signature))
        });
        let good = all_good && signatures.next().is_none();
        Ok(if good { keys } else { Vec::new() })
    }
}

/// Whether a key made a signature, with any of its algorithms that is safe.
fn is_good(key: &PublicKey, data: &[u8], signature: &[u8]) -> bool {
    let is_safe = |algorithm: &&SignatureAlgorithm| **algorithm != SignatureAlgorithm::RsaSha1;
    let mut algorithms = key.algorithms().iter().filter(is_safe);
    algorithms.any(|&algorithm| key.verify(algorithm, data, signature).is_ok())
}
