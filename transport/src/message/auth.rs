//! Messages of the authentication protocol (RFC 4252), and of what the methods add to it:
//! keyboard-interactive (RFC 4256), and OpenSSH's host-bound public keys (PROTOCOL §3.1).

use std::fmt;

use ketch_wire::{DecodeError, NameList, Reader, Writer};

use super::number;
use super::transport::TEXT_LEN_MAX;

/// Longest user name that is read, in bytes.
pub const USER_LEN_MAX: usize = 255;
/// Longest password, or answer to a question, that is read, in bytes.
pub const PASSWORD_LEN_MAX: usize = 1024;
/// Longest public key that is read, in bytes: a certificate holds two keys and a signature.
pub const KEY_LEN_MAX: usize = 16 * 1024;
/// Longest signature that is read, in bytes.
pub const SIGNATURE_LEN_MAX: usize = 4 * 1024;
/// Most questions that are asked at a time, and most answers that are read.
pub const PROMPTS_MAX: usize = 8;
/// Longest question that is read, in bytes.
pub const PROMPT_LEN_MAX: usize = 1024;
/// Longest list of submethods that is read, in bytes.
const SUBMETHODS_LEN_MAX: usize = 1024;

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
    PasswordChange {
        /// The password that expired.
        old: &'a str,
        /// The one to take its place.
        new: &'a str,
    },
    /// `publickey` without a signature: would this key do? (RFC 4252 §7)
    PublicKeyQuery {
        /// Signature algorithm.
        algorithm: &'a [u8],
        /// The public key, as a blob.
        key: &'a [u8],
        /// The server's key, where the host-bound form asks.
        host_key: Option<&'a [u8]>,
    },
    /// `publickey` with a signature (RFC 4252 §7).
    PublicKey {
        /// Signature algorithm.
        algorithm: &'a [u8],
        /// The public key, as a blob.
        key: &'a [u8],
        /// The server's key, where the host-bound form is used: it is signed, too.
        host_key: Option<&'a [u8]>,
        /// The signature, as a blob.
        signature: &'a [u8],
    },
    /// `keyboard-interactive` (RFC 4256 §3.1); its hints about devices are not kept.
    KeyboardInteractive,
    /// A method that is not implemented; its fields are not read.
    Other,
}

impl fmt::Debug for MethodRequest<'_> {
    /// Names the method and keeps what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password(_) => "Password(..)",
            Self::PasswordChange { .. } => "PasswordChange { .. }",
            Self::PublicKeyQuery { .. } => "PublicKeyQuery { .. }",
            Self::PublicKey { .. } => "PublicKey { .. }",
            Self::KeyboardInteractive => "KeyboardInteractive",
            Self::Other => "Other",
        })
    }
}

/// Name of the service that follows authentication (RFC 4254).
pub const CONNECTION_SERVICE: &[u8] = b"ssh-connection";
/// Name of the plain method of keys (RFC 4252 §7).
const PUBLIC_KEY: &[u8] = b"publickey";
/// Name of the method whose signature covers the server's key, too (PROTOCOL §3.1).
const HOST_BOUND: &[u8] = b"publickey-hostbound-v00@openssh.com";

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
                    MethodRequest::PasswordChange {
                        old: r.text(PASSWORD_LEN_MAX)?,
                        new: r.text(PASSWORD_LEN_MAX)?,
                    }
                } else {
                    MethodRequest::Password(r.text(PASSWORD_LEN_MAX)?)
                }
            }
            name @ (PUBLIC_KEY | HOST_BOUND) => decode_publickey(&mut r, name == HOST_BOUND)?,
            b"keyboard-interactive" => {
                r.string(TEXT_LEN_MAX)?; // language tag
                r.string(SUBMETHODS_LEN_MAX)?;
                MethodRequest::KeyboardInteractive
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

    /// Appends the whole payload. A method that is not implemented is sent as `none`.
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
            MethodRequest::PasswordChange { old, new } => {
                w.string(b"password");
                w.bool(true);
                w.string(old.as_bytes());
                w.string(new.as_bytes());
            }
            MethodRequest::PublicKeyQuery {
                algorithm,
                key,
                host_key,
            } => encode_publickey(w, false, algorithm, key, host_key),
            MethodRequest::PublicKey {
                algorithm,
                key,
                host_key,
                signature,
            } => {
                encode_publickey(w, true, algorithm, key, host_key);
                w.string(signature);
            }
            MethodRequest::KeyboardInteractive => {
                w.string(b"keyboard-interactive");
                w.string(b"");
                w.string(b"");
            }
        }
    }
}

fn decode_publickey<'a>(
    r: &mut Reader<'a>,
    host_bound: bool,
) -> Result<MethodRequest<'a>, DecodeError> {
    let signed = r.bool()?;
    let algorithm = r.string(ketch_wire::NAME_LEN_MAX)?;
    let key = r.string(KEY_LEN_MAX)?;
    let host_key = if host_bound {
        Some(r.string(KEY_LEN_MAX)?)
    } else {
        None
    };
    Ok(if signed {
        MethodRequest::PublicKey {
            algorithm,
            key,
            host_key,
            signature: r.string(SIGNATURE_LEN_MAX)?,
        }
    } else {
        MethodRequest::PublicKeyQuery {
            algorithm,
            key,
            host_key,
        }
    })
}

fn encode_publickey(
    w: &mut Writer<'_>,
    signed: bool,
    algorithm: &[u8],
    key: &[u8],
    host_key: Option<&[u8]>,
) {
    w.string(if host_key.is_some() {
        HOST_BOUND
    } else {
        PUBLIC_KEY
    });
    w.bool(signed);
    w.string(algorithm);
    w.string(key);
    if let Some(host_key) = host_key {
        w.string(host_key);
    }
}

/// Appends what a `publickey` signature signs: the session identifier, then the request without its
/// signature (RFC 4252 §7).
pub fn encode_signed_data(
    w: &mut Writer<'_>,
    session_id: &[u8],
    user: &str,
    algorithm: &[u8],
    key: &[u8],
    host_key: Option<&[u8]>,
) {
    w.string(session_id);
    w.u8(number::USERAUTH_REQUEST);
    w.string(user.as_bytes());
    w.string(CONNECTION_SERVICE);
    encode_publickey(w, true, algorithm, key, host_key);
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

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { text } = *self;
        w.u8(number::USERAUTH_BANNER);
        w.string(text);
        w.string(b"");
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

/// `SSH_MSG_USERAUTH_PASSWD_CHANGEREQ`: the password has expired (RFC 4252 §8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PasswordChangeRequest<'a> {
    /// What to tell the user. The peer's bytes: escape before showing.
    pub prompt: &'a [u8],
}

impl<'a> PasswordChangeRequest<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            prompt: r.string(TEXT_LEN_MAX)?,
        };
        r.string(TEXT_LEN_MAX)?; // language tag
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { prompt } = *self;
        w.u8(number::USERAUTH_PASSWD_CHANGEREQ);
        w.string(prompt);
        w.string(b"");
    }
}

/// `SSH_MSG_USERAUTH_INFO_REQUEST`: questions for the user (RFC 4256 §3.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InfoRequest<'a> {
    /// A heading, or nothing. The peer's bytes, as are all texts here: escape before showing.
    pub name: &'a [u8],
    /// What goes before the questions, or nothing.
    pub instruction: &'a [u8],
    /// At most [`PROMPTS_MAX`]; there may be none, and the answer is then empty, too.
    pub prompts: Vec<Prompt<'a>>,
}

/// One question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prompt<'a> {
    /// The question.
    pub text: &'a [u8],
    /// Whether the answer may be shown while it is typed.
    pub echo: bool,
}

impl<'a> InfoRequest<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them, and [`DecodeError::BadValue`] for more than [`PROMPTS_MAX`].
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let name = r.string(TEXT_LEN_MAX)?;
        let instruction = r.string(TEXT_LEN_MAX)?;
        r.string(TEXT_LEN_MAX)?; // language tag
        let count = bounded_count(&mut r, "num-prompts")?;
        let mut prompts = Vec::new();
        for _ in 0..count {
            prompts.push(Prompt {
                text: r.string(PROMPT_LEN_MAX)?,
                echo: r.bool()?,
            });
        }
        r.finish()?;
        Ok(Self {
            name,
            instruction,
            prompts,
        })
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            name,
            instruction,
            prompts,
        } = self;
        w.u8(number::USERAUTH_INFO_REQUEST);
        w.string(name);
        w.string(instruction);
        w.string(b"");
        w.u32(u32::try_from(prompts.len()).unwrap_or(u32::MAX));
        for Prompt { text, echo } in prompts {
            w.string(text);
            w.bool(*echo);
        }
    }
}

/// `SSH_MSG_USERAUTH_INFO_RESPONSE`: the answers, in the order of the questions (RFC 4256 §3.4).
#[derive(Clone, Eq, PartialEq)]
pub struct InfoResponse<'a> {
    /// At most [`PROMPTS_MAX`].
    pub answers: Vec<&'a str>,
}

impl fmt::Debug for InfoResponse<'_> {
    /// Counts the answers and keeps what they are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InfoResponse({} answers)", self.answers.len())
    }
}

impl<'a> InfoResponse<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them, and [`DecodeError::BadValue`] for more than [`PROMPTS_MAX`].
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let count = bounded_count(&mut r, "num-responses")?;
        let mut answers = Vec::new();
        for _ in 0..count {
            answers.push(r.text(PASSWORD_LEN_MAX)?);
        }
        r.finish()?;
        Ok(Self { answers })
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { answers } = self;
        w.u8(number::USERAUTH_INFO_RESPONSE);
        w.u32(u32::try_from(answers.len()).unwrap_or(u32::MAX));
        for answer in answers {
            w.string(answer.as_bytes());
        }
    }
}

/// A count that the peer names: refused above [`PROMPTS_MAX`], and never allocated for.
fn bounded_count(r: &mut Reader<'_>, field: &'static str) -> Result<u32, DecodeError> {
    let count = r.u32()?;
    match usize::try_from(count) {
        Ok(0..=PROMPTS_MAX) => Ok(count),
        _ => Err(DecodeError::BadValue { field }),
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
    fn what_is_secret_is_not_shown() {
        for method in [
            MethodRequest::Password("hunter2"),
            MethodRequest::PasswordChange {
                old: "hunter2",
                new: "hunter2",
            },
        ] {
            let request = UserauthRequest {
                user: "ann",
                service: CONNECTION_SERVICE,
                method,
            };
            assert!(!format!("{request:?}").contains("hunter2"));
        }
        let response = InfoResponse {
            answers: vec!["hunter2"],
        };
        assert!(!format!("{response:?}").contains("hunter2"));
    }

    #[test]
    fn a_count_of_questions_or_answers_is_no_size_of_anything() {
        let too_many = |field| Err(DecodeError::BadValue { field });
        for count in [9_u32, 1 << 16, u32::MAX] {
            let mut request = vec![0; 12];
            request.extend_from_slice(&count.to_be_bytes());
            assert_eq!(
                InfoRequest::decode(Reader::new(&request)).map(drop),
                too_many("num-prompts")
            );
            let response = count.to_be_bytes();
            assert_eq!(
                InfoResponse::decode(Reader::new(&response)).map(drop),
                too_many("num-responses")
            );
        }
        // Counts that are allowed are held against the bytes that are left.
        assert_eq!(
            InfoResponse::decode(Reader::new(&[0, 0, 0, 8])),
            Err(DecodeError::Truncated)
        );
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
            user in "[a-z]{0,20}", password in ".{0,30}", new in ".{0,30}",
            key in vec(any::<u8>(), 0..60), signature in vec(any::<u8>(), 0..90),
            host in vec(any::<u8>(), 0..60), host_bound in any::<bool>(),
        ) {
            let service = CONNECTION_SERVICE;
            let algorithm = &b"ssh-ed25519"[..];
            let host_key = host_bound.then_some(&host[..]);
            for method in [
                MethodRequest::None,
                MethodRequest::Password(&password),
                MethodRequest::PasswordChange { old: &password, new: &new },
                MethodRequest::PublicKeyQuery { algorithm, key: &key, host_key },
                MethodRequest::PublicKey { algorithm, key: &key, host_key, signature: &signature },
                MethodRequest::KeyboardInteractive,
            ] {
                survives(UserauthRequest { user: &user, service, method });
            }
        }

        #[test]
        fn every_question_and_answer_survives_the_wire(
            name in vec(any::<u8>(), 0..20), instruction in vec(any::<u8>(), 0..20),
            texts in vec((vec(any::<u8>(), 0..20), any::<bool>()), 0..=PROMPTS_MAX),
            answers in vec(".{0,20}", 0..=PROMPTS_MAX),
        ) {
            let prompts = texts.iter().map(|(text, echo)| Prompt { text, echo: *echo }).collect();
            let message = InfoRequest { name: &name, instruction: &instruction, prompts };
            let mut bytes = Vec::new();
            message.encode(&mut Writer::new(&mut bytes));
            for cut in 1..bytes.len() {
                prop_assert!(InfoRequest::decode(Reader::new(&bytes[1..cut])).is_err());
            }
            prop_assert_eq!(InfoRequest::decode(Reader::new(&bytes[1..])), Ok(message));

            let message = InfoResponse { answers: answers.iter().map(String::as_str).collect() };
            let mut bytes = Vec::new();
            message.encode(&mut Writer::new(&mut bytes));
            for cut in 1..bytes.len() {
                prop_assert!(InfoResponse::decode(Reader::new(&bytes[1..cut])).is_err());
            }
            prop_assert_eq!(InfoResponse::decode(Reader::new(&bytes[1..])), Ok(message));

            let message = PasswordChangeRequest { prompt: &name };
            let mut bytes = Vec::new();
            message.encode(&mut Writer::new(&mut bytes));
            prop_assert_eq!(PasswordChangeRequest::decode(Reader::new(&bytes[1..])), Ok(message));

            let message = Banner { text: &name };
            let mut bytes = Vec::new();
            message.encode(&mut Writer::new(&mut bytes));
            prop_assert_eq!(Banner::decode(Reader::new(&bytes[1..])), Ok(message));
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
