//! Who may ask what: tokens with a scope, compared without telling how much of one was right.

use std::fmt;

use ring::hmac;
use ring::rand::SystemRandom;

/// Fewest bytes of a token.
pub const TOKEN_LEN_MIN: usize = 16;
/// Most bytes of a token.
pub const TOKEN_LEN_MAX: usize = 512;

/// What a token is good for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// To look.
    Read,
    /// To look, and to change what flows do.
    Write,
}

/// A token, kept as a keyed digest: neither logs nor a dump of memory show it after this.
#[derive(Clone)]
pub struct ApiToken {
    key: hmac::Key,
    digest: hmac::Tag,
    scope: Scope,
}

/// Why something is no token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadToken {
    /// It is too short or too long.
    #[error("a token has {TOKEN_LEN_MIN} to {TOKEN_LEN_MAX} characters, and this one has {0}")]
    Length(usize),
    /// It has characters that a header cannot carry.
    #[error("a token is printable ASCII without blanks")]
    Characters,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl ApiToken {
    /// Takes a token.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn new(token: &str, scope: Scope) -> Result<Self, BadToken> {
        if !(TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&token.len()) {
            return Err(BadToken::Length(token.len()));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadToken::Characters);
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| BadToken::Random)?;
        let digest = hmac::sign(&key, token.as_bytes());
        Ok(Self { key, digest, scope })
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({:?})", self.scope)
    }
}

/// The scope of `presented`, if it is one of `tokens`. All are compared, whichever it is.
#[must_use]
pub fn scope_of(tokens: &[ApiToken], presented: &[u8]) -> Option<Scope> {
    if presented.len() > TOKEN_LEN_MAX {
        return None;
    }
    let mut scope = None;
    for token in tokens {
        // Digests are compared in constant time.
        if hmac::verify(&token.key, presented, token.digest.as_ref()).is_ok() {
            scope = scope.max(Some(token.scope));
        }
    }
    scope
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_scope_that_it_was_given() {
        let tokens = [
            ("r".repeat(16), Scope::Read),
            ("w".repeat(40), Scope::Write),
        ]
        .map(|(token, scope)| ApiToken::new(&token, scope).expect("a token"));
        assert_eq!(
            scope_of(&tokens, "r".repeat(16).as_bytes()),
            Some(Scope::Read)
        );
        assert_eq!(
            scope_of(&tokens, "w".repeat(40).as_bytes()),
            Some(Scope::Write)
        );
        for wrong in [&b""[..], b"r", &[b'r'; 17], &[b'w'; 600]] {
            assert_eq!(scope_of(&tokens, wrong), None);
        }
        assert_eq!(scope_of(&[], b""), None);
    }

    #[test]
    fn what_is_no_token_is_refused_and_none_is_shown() {
        assert_eq!(
            ApiToken::new("short", Scope::Read).err(),
            Some(BadToken::Length(5))
        );
        assert_eq!(
            ApiToken::new("sixteen letters and blanks", Scope::Read).err(),
            Some(BadToken::Characters)
        );
        let token = ApiToken::new("correcthorsebatterystaple", Scope::Write).expect("a token");
        assert_eq!(format!("{token:?}"), "ApiToken(Write)");
    }

    /// How long a comparison takes is not measured here: that it is `ring`'s, which is made not to tell,
    /// and that there is no other, the source shows. A token itself is not kept, so nothing else could
    /// compare it.
    #[test]
    fn tokens_are_compared_by_ring_and_by_nothing_else() {
        let ours = include_str!("token.rs");
        let (code, _) = ours.split_once("#[cfg(test)]").expect("tests stand below");
        assert_eq!(code.matches("hmac::verify(").count(), 1);
        for comparison in [" == ", " != ", ".eq(", "starts_with", ".cmp("] {
            assert!(!code.contains(comparison), "{comparison}");
        }
        let routes = include_str!("routes.rs");
        assert_eq!(
            routes.matches("scope_of(").count(),
            1,
            "there is one place that asks"
        );
    }
}
