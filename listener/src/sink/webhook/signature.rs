//! Signatures of webhooks: HMAC-SHA-256 as the Standard Webhooks specification has it.
//!
//! What is signed is `id.timestamp.body`, so neither can be changed and an old event cannot be sent
//! again as a new one if the receiver looks at the time. The header has one `v1,…` for each secret.
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use std::fmt;

use base64ct::{Base64, Encoding as _};
use ring::hmac;

/// Fewest bytes of a secret: 192 bits, as the specification asks for.
pub const SECRET_LEN_MIN: usize = 24;
/// Most bytes of a secret.
pub const SECRET_LEN_MAX: usize = 1024;

/// A secret that a receiver has, too.
#[derive(Clone)]
pub struct WebhookSecret(hmac::Key);

/// Why something is no secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSecret {
    /// What follows `whsec_` is no Base64.
    #[error("what follows whsec_ is not Base64")]
    Base64,
    /// It is shorter than [`SECRET_LEN_MIN`] or longer than [`SECRET_LEN_MAX`].
    #[error("a secret has {SECRET_LEN_MIN} to {SECRET_LEN_MAX} bytes, and this one has {0}")]
    Length(usize),
}

impl WebhookSecret {
    /// Takes `whsec_` and Base64, or any other text as the bytes that it has.
    ///
    /// # Errors
    /// [`BadSecret`].
    pub fn new(text: &str) -> Result<Self, BadSecret> {
        let bytes = match text.strip_prefix("whsec_") {
            Some(coded) => Base64::decode_vec(coded).map_err(|_| BadSecret::Base64)?,
            None => text.as_bytes().to_vec(),
        };
        if !(SECRET_LEN_MIN..=SECRET_LEN_MAX).contains(&bytes.len()) {
            return Err(BadSecret::Length(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

/// The value of `webhook-signature` for the event `id` with `body`, at `timestamp` (seconds since
/// 1970).
#[must_use]
pub fn sign(secrets: &[WebhookSecret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let signatures = secrets.iter().map(|WebhookSecret(key)| {
        let mut signing = hmac::Context::with_key(key);
        signing.update(format!("{id}.{timestamp}.").as_bytes());
        signing.update(body);
        format!("v1,{}", Base64::encode_string(signing.sign().as_ref()))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the reference libraries' own tests.
    #[test]
    fn the_signature_is_that_of_the_reference_libraries() {
        let secret =
            WebhookSecret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            sign(
                &[secret],
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                body
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn every_secret_signs() {
        let secrets =
            ["a".repeat(24), "b".repeat(24)].map(|s| WebhookSecret::new(&s).expect("good"));
        let both = sign(&secrets, "x", 1, b"{}");
        let each: Vec<_> = secrets
            .iter()
            .map(|s| sign(std::slice::from_ref(s), "x", 1, b"{}"))
            .collect();
        assert_eq!(both, each.join(" "));
        assert_ne!(each.first(), each.last());
    }

    #[test]
    fn short_secrets_and_bad_base64_are_refused_and_none_is_shown() {
        assert_eq!(
            WebhookSecret::new("short").err(),
            Some(BadSecret::Length(5))
        );
        assert_eq!(
            WebhookSecret::new("whsec_!!").err(),
            Some(BadSecret::Base64)
        );
        assert!(WebhookSecret::new(&"x".repeat(1025)).is_err());
        let secret = WebhookSecret::new("this one is long enough, is it not").expect("a secret");
        assert!(!format!("{secret:?}").contains("long"));
    }
}
