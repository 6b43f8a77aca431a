//! What is done when a server tells its host keys (`hostkeys-00@openssh.com`, OpenSSH's PROTOCOL
//! §2.5): those that are new have to be proved, and then [`HostKeys::update`] has the last word.

use ketch_keys::PublicKey;
use ketch_transport::driver::{Acceptor, Application};

use super::HostKeys;
use crate::destination::Host;

/// Waits for a server's host keys, on a connection to a host that is known by one of them.
#[derive(Debug)]
pub(crate) struct KeepUp {
    host_keys: HostKeys,
    host: Host,
    port: u16,
    /// The key that was proved in the key exchange.
    shown: PublicKey,
    /// Keys of the host that stand in the file, in wire form.
    known: Vec<Vec<u8>>,
    /// What the server announced; once is enough.
    announced: Option<Vec<PublicKey>>,
}

impl KeepUp {
    pub(super) const fn new(
        host_keys: HostKeys,
        host: Host,
        port: u16,
        shown: PublicKey,
        known: Vec<Vec<u8>>,
    ) -> Self {
        Self {
            host_keys,
            host,
            port,
            shown,
            known,
            announced: None,
        }
    }

    fn is_known(&self, key: &PublicKey) -> bool {
        *key == self.shown || self.known.iter().any(|known| known == key.as_blob())
    }

    /// Files are read and written: not on the connection's thread.
    fn write(&self, keys: Vec<PublicKey>) {
        let (host_keys, host) = (self.host_keys.clone(), self.host.clone());
        let (port, shown) = (self.port, self.shown.clone());
        tokio::task::spawn_blocking(move || match host_keys.update(&host, port, &shown, &keys) {
            Ok(updated) => tracing::info!(%host, ?updated, "host keys are up to date"),
            Err(error) => tracing::warn!(%host, %error, "host keys are not kept up to date"),
        });
    }
}

impl Acceptor for KeepUp {
    fn subsystem(&mut self, _name: &str) -> Option<Box<dyn Application>> {
        None
    }

    fn host_keys_offered(&mut self, keys: &[PublicKey]) -> Vec<PublicKey> {
        let plain = keys.iter().filter(|key| key.certificate().is_none());
        let plain: Vec<_> = plain.cloned().collect();
        // A host that does not name the key it has just shown is not to be believed.
        if self.announced.is_some() || !plain.contains(&self.shown) {
            return Vec::new();
        }
        let new = plain.iter().filter(|key| !self.is_known(key));
        let new: Vec<_> = new.cloned().collect();
        let is_dropped = |known: &Vec<u8>| !plain.iter().any(|key| key.as_blob() == known);
        if new.is_empty() && self.known.iter().any(is_dropped) {
            self.write(plain.clone());
        }
        self.announced = Some(plain);
        new
    }

    fn host_keys_proved(&mut self, proved: Vec<PublicKey>) {
        let Some(announced) = &self.announced else {
            return;
        };
        if proved.is_empty() {
            return; // a proof was wrong: nothing of it is believed
        }
        let counts = |key: &&PublicKey| self.is_known(key) || proved.contains(key);
        self.write(announced.iter().filter(counts).cloned().collect());
    }
}
