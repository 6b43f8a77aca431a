//! Public keys in their wire form (RFC 4253 §6.6), as far as `known_hosts` has to understand them.

use base64ct::{Base64Unpadded, Encoding};
use ketch_wire::Reader;
use ring::digest;

/// The algorithm that the key names; empty if it names none.
pub(super) fn algorithm(key: &[u8]) -> &str {
    Reader::new(key)
        .text(ketch_wire::NAME_LEN_MAX)
        .unwrap_or_default()
}

/// The fingerprint as OpenSSH shows it: `SHA256:` and the hash in base64.
pub(super) fn fingerprint(key: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, key);
    format!("SHA256:{}", Base64Unpadded::encode_string(hash.as_ref()))
}
