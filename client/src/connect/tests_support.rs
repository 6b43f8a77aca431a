//! What tests of several modules need of a server.

use std::sync::Arc;

use ketch_keys::PrivateKey;
use ketch_transport::config::ServerConfig;
use zeroize::Zeroizing;

use crate::PublicKey;

fn pair(seed: u8) -> PrivateKey {
    PrivateKey::from_ed25519_seed(Zeroizing::new([seed; 32]))
}

/// The public half of a host key.
pub(crate) fn host_key(seed: u8) -> PublicKey {
    pair(seed).public_key().clone()
}

/// A server with that host key.
pub(crate) fn server_config(seed: u8) -> ServerConfig {
    ServerConfig::new([Arc::new(pair(seed).into())])
}
