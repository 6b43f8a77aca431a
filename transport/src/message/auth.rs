//! Messages of the authentication protocol (RFC 4252).

use ketch_wire::{DecodeError, NameList, Reader, Writer};

use super::number;
use super::transport::TEXT_LEN_MAX;

/// Longest user name that is read, in bytes.
pub const USER_LEN_MAX: usize = 255;
/// Longest password that is read, in bytes.
pub const PASSWORD_LEN_MAX: usize = 1024;
/// Longest public key that is read, in bytes.
pub const KEY_LEN_MAX: usize = 8 * 1024;
/// Longest signature that is read, in bytes.
pub const SIGNATURE_LEN_MAX: usize = 4 * 1024;

/// `SSH_MSG_USERAUTH_REQUEST` (RFC 4252 §5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UserauthRequest<'a> {
    /// Who wants in.
    pub user: &'a str,
    /// The service to start afterwards.
    pub service: &'a [u8],
    /// How they prove it.
    pub method: MethodRequest<'a>,
}

/// The part of a request that depends on the method.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum MethodRequest<'a> {
    /// `none`: asks which methods there are (RFC 4252 §5.2).
    None,
    /// `password` (RFC 4252 §8).
    Password(&'a str),
    /// `password` with a new one (RFC 4252 §8).
    PasswordChange,
    /// `publickey` without a signature: would this key do? (RFC 4252 §7)
    PublicKeyQuery {
        /// Signature algorithm.
        algorithm: &'a [u8],
        /// The public key, as a blob.
        key: &'a [u8],
    },
    /// `publickey` with a signature (RFC 4252 §7).
    PublicKey {
        /// Signature algorithm.
        algorithm: &'a [u8],
        /// The public key, as a blob.
        key: &'a [u8],
        /// The signature, as a blob.
        signature: &'a [u8],
    },
    /// A method that is not implemented; its fields are not read.
    Other,
}

impl std::fmt::Debug for MethodRequest<'_> {
    /// Names the method and keeps what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password(_) => "Password(..)",
            Self::PasswordChange => "PasswordChange",
            Self::PublicKeyQuery { .. } => "PublicKeyQuery { .. }",
            Self::PublicKey { .. } => "PublicKey { .. }",
            Self::Other => "Other",
        })
    }
}

/// Name of the service that follows authentication (RFC 4254).
pub const CONNECTION_SERVICE: &[u8] = b"ssh-connection";

impl<'a> UserauthRequest<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let user = r.text(USER_LEN_MAX)?;
        let service = r.string(ketch_wire::NAME_LEN_MAX)?;
        let method = match r.string(ketch_wire::NAME_LEN_MAX)? {
            b"none" => MethodRequest::None,
            b"password" => {
                if r.bool()? {
                    r.take_rest();
                    MethodRequest::PasswordChange
                } else {
                    MethodRequest::Password(r.text(PASSWORD_LEN_MAX)?)
                }
            }
            b"publickey" => {
                let signed = r.bool()?;
                let algorithm = r.string(ketch_wire::NAME_LEN_MAX)?;
                let key = r.string(KEY_LEN_MAX)?;
                if signed {
                    let signature = r.string(SIGNATURE_LEN_MAX)?;
                    MethodRequest::PublicKey {
                        algorithm,
                        key,
                        signature,
                    }
                } else {
                    MethodRequest::PublicKeyQuery { algorithm, key }
                }
            }
            _ => {
                r.take_rest();
                MethodRequest::Other
            }
        };
        r.finish()?;
        Ok(Self {
            user,
            service,
            method,
        })
    }

    /// Appends the whole payload. For methods that only a peer may send the fields stay empty.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            user,
            service,
            method,
        } = *self;
        w.u8(number::USERAUTH_REQUEST);
        w.string(user.as_bytes());
        w.string(service);
        match method {
            MethodRequest::None | MethodRequest::Other => w.string(b"none"),
            MethodRequest::Password(password) => {
                w.string(b"password");
                w.bool(false);
                w.string(password.as_bytes());
            }
            MethodRequest::PasswordChange => {
                w.string(b"password");
                w.bool(true);
            }
            MethodRequest::PublicKeyQuery { algorithm, key } => {
                encode_publickey(w, false, algorithm, key);
            }
            MethodRequest::PublicKey {
                algorithm,
                key,
                signature,
            } => {
                encode_publickey(w, true, algorithm, key);
                w.string(signature);
            }
        }
    }
}

fn encode_publickey(w: &mut Writer<'_>, signed: bool, algorithm: &[u8], key: &[u8]) {
    w.string(b"publickey");
    w.bool(signed);
    w.string(algorithm);
    w.string(key);
}

/// Appends what a `publickey` signature signs: the session identifier, then the request without its
/// signature (RFC 4252 §7).
pub fn encode_signed_data(
    w: &mut Writer<'_>,
    session_id: &[u8],
    user: &str,
    algorithm: &[u8],
    key: &[u8],
) {
    w.string(session_id);
    w.u8(number::USERAUTH_REQUEST);
    w.string(user.as_bytes());
    w.string(CONNECTION_SERVICE);
    encode_publickey(w, true, algorithm, key);
}

/// `SSH_MSG_USERAUTH_FAILURE` (RFC 4252 §5.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UserauthFailure<'a> {
    /// Methods that may go on.
    pub methods: NameList<'a>,
    /// The request was right, but more is wanted.
    pub partial_success: bool,
}

impl<'a> UserauthFailure<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            methods: r.name_list()?,
            partial_success: r.bool()?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            methods,
            partial_success,
        } = *self;
        w.u8(number::USERAUTH_FAILURE);
        w.name_list(methods);
        w.bool(partial_success);
    }
}

/// `SSH_MSG_USERAUTH_BANNER`: a text for the user (RFC 4252 §5.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Banner<'a> {
    /// The peer's bytes: escape before showing.
    pub text: &'a [u8],
}

impl<'a> Banner<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            text: r.string(TEXT_LEN_MAX)?,
        };
        r.string(TEXT_LEN_MAX)?; // language tag
        r.finish()?;
        Ok(message)
    }
}

/// `SSH_MSG_USERAUTH_PK_OK`: the key would do (RFC 4252 §7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PkOk<'a> {
    /// Signature algorithm of the query.
    pub algorithm: &'a [u8],
    /// Public key of the query.
    pub key: &'a [u8],
}

impl<'a> PkOk<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            algorithm: r.string(ketch_wire::NAME_LEN_MAX)?,
            key: r.string(KEY_LEN_MAX)?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { algorithm, key } = *self;
        w.u8(number::USERAUTH_PK_OK);
        w.string(algorithm);
        w.string(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn survives(request: UserauthRequest<'_>) {
        let mut bytes = Vec::new();
        request.encode(&mut Writer::new(&mut bytes));
        assert_eq!(
            UserauthRequest::decode(Reader::new(&bytes[1..])),
            Ok(request)
        );
        for cut in 1..bytes.len() {
            assert!(UserauthRequest::decode(Reader::new(&bytes[1..cut])).is_err());
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let request = UserauthRequest {
            user: "ann",
            service: CONNECTION_SERVICE,
            method: MethodRequest::Password("hunter2"),
        };
        assert!(!format!("{request:?}").contains("hunter2"));
    }

    #[test]
    fn a_method_that_nobody_knows_is_no_error() {
        let mut bytes = Vec::new();
        let mut w = Writer::new(&mut bytes);
        w.string(b"ann");
        w.string(CONNECTION_SERVICE);
        w.string(b"gssapi-with-mic");
        w.u32(77);
        let request = UserauthRequest::decode(Reader::new(&bytes)).unwrap();
        assert_eq!(request.method, MethodRequest::Other);
    }

    proptest! {
        #[test]
        fn every_request_survives_the_wire(
            user in "[a-z]{0,20}", password in ".{0,30}",
            key in vec(any::<u8>(), 0..60), signature in vec(any::<u8>(), 0..90),
        ) {
            let service = CONNECTION_SERVICE;
            let algorithm = &b"ssh-ed25519"[..];
            for method in [
                MethodRequest::None,
                MethodRequest::Password(&password),
                MethodRequest::PublicKeyQuery { algorithm, key: &key },
                MethodRequest::PublicKey { algorithm, key: &key, signature: &signature },
            ] {
                survives(UserauthRequest { user: &user, service, method });
            }
        }

        #[test]
        fn every_answer_survives_the_wire(
            partial_success in any::<bool>(), key in vec(any::<u8>(), 0..60),
        ) {
            let message = UserauthFailure {
                methods: NameList::new("publickey,password").unwrap(),
                partial_success,
            };
            let mut bytes = Vec::new();
            message.encode(&mut Writer::new(&mut bytes));
            prop_assert_eq!(UserauthFailure::decode(Reader::new(&bytes[1..])), Ok(message));
            let message = PkOk { algorithm: b"ssh-ed25519", key: &key };
            let mut bytes = Vec::new();
            message.encode(&mut Writer::new(&mut bytes));
            prop_assert_eq!(PkOk::decode(Reader::new(&bytes[1..])), Ok(message));
        }
    }
}
