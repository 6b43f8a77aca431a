//! Keys that identify hosts and users come from `ketch-keys`; here they are under the names that
//! the rest of this crate uses.

pub use ketch_keys::{BadSignature, PrivateKey as HostKeyPair, PublicKey, signature_blob};
