//! The login on a connection: what the peer says of it becomes an event, what the application
//! answers becomes a message (RFC 4252).
//!
//! The machines are `auth/client.rs` and `auth/server.rs`; here they get the session that signatures
//! cover, the outbox, and the consequences of a login for the rest of the connection.

use std::time::Instant;

use ketch_wire::Reader;
use zeroize::Zeroizing;

use super::{Auth, Connection};
use crate::algorithm::SignatureAlgorithm;
use crate::auth::client;
use crate::auth::server::{self, ServerAuth};
use crate::auth::{Credential, Questions, Session};
use crate::config::AuthMethod;
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::event::Event;
use crate::handshake::Handshake;
use crate::outbox::Outbox;
use crate::packet::PACKET_LEN_MAX;

impl Connection {
    pub(super) fn on_auth<'a>(
        &mut self,
        number: u8,
        fields: Reader<'a>,
        now: Instant,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        let _entered = tracing::debug_span!("auth").entered();
        let Some(session) = session(&self.handshake) else {
            let state = "before keys";
            return Err(PeerMisbehaved::Unexpected { number, state }.into());
        };
        match &mut self.auth {
            Auth::Client(auth) => match auth.on_message(number, fields, session)? {
                client::Outcome::Going => Ok(None),
                client::Outcome::Banner(text) => Ok(Some(Event::Banner(text))),
                client::Outcome::Sign(data) => Ok(Some(Event::Sign(data))),
                client::Outcome::Questions(questions) => Ok(Some(Event::Questions(questions))),
                client::Outcome::PasswordExpired(prompt) => {
                    Ok(Some(Event::PasswordExpired(prompt)))
                }
                client::Outcome::Wanted { failure } => {
                    let methods = failure.methods.iter().map(str::to_owned).collect();
                    let partial = failure.partial_success;
                    Ok(Some(Event::AuthWanted {
                        methods: Some(methods),
                        partial,
                    }))
                }
                client::Outcome::Authenticated => {
                    self.on_authenticated(now);
                    Ok(Some(Event::Authenticated))
                }
            },
            Auth::Server(auth) => {
                match auth.on_message(number, fields, session, &mut self.outbox)? {
                    server::Outcome::Going => Ok(None),
                    server::Outcome::Attempt(attempt) => Ok(Some(Event::Attempt(attempt))),
                }
            }
        }
    }

    fn on_authenticated(&mut self, now: Instant) {
        self.receiver.set_len_max(PACKET_LEN_MAX);
        self.receiver.start_compression();
        self.outbox.sender.start_compression();
        self.keeper.on_authenticated(now);
    }

    /// Client: the host key is trusted, the handshake goes on.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn accept_host_key(&mut self) -> Result<(), ConnectionError> {
        self.handshake.accept_host_key(&mut self.outbox)
    }

    /// Client: tries a credential; returns what is to be signed if a signature is needed, which is
    /// then handed to [`Connection::signature`]. It may also be the answer to questions, to an
    /// expired password, or to the wish for a signature: then what was going on is given up.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn authenticate(
        &mut self,
        credential: &Credential,
    ) -> Result<Option<Vec<u8>>, ConnectionError> {
        match (&mut self.auth, session(&self.handshake)) {
            (Auth::Client(auth), Some(session)) => {
                auth.authenticate(credential, session, &mut self.outbox)
            }
            _ => Ok(None),
        }
    }

    /// Client: a signature over what was to be signed, as the blob that has the algorithm's name in
    /// front (RFC 4253 §6.6).
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn signature(&mut self, blob: &[u8]) -> Result<(), ConnectionError> {
        match &mut self.auth {
            Auth::Client(auth) => auth.signature(blob, &mut self.outbox),
            Auth::Server(_) => Ok(()),
        }
    }

    /// Client: the answers to the server's questions, as many as there were.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn answers(&mut self, answers: &[Zeroizing<String>]) -> Result<(), ConnectionError> {
        match &mut self.auth {
            Auth::Client(auth) => auth.answers(answers, &mut self.outbox),
            Auth::Server(_) => Ok(()),
        }
    }

    /// Client: the signature algorithms that the server verifies, as far as they are known here;
    /// `None` if it did not say.
    #[must_use]
    pub fn server_sig_algs(&self) -> Option<&[SignatureAlgorithm]> {
        match &self.auth {
            Auth::Client(auth) => auth.server_sig_algs(),
            Auth::Server(_) => None,
        }
    }

    /// Client: whether anything was sent that proves who the user is: a signature, a password, or
    /// an answer. A server that lets in without may be one that only wants to be trusted.
    #[must_use]
    pub const fn has_proved(&self) -> bool {
        match &self.auth {
            Auth::Client(auth) => auth.has_proved(),
            Auth::Server(_) => false,
        }
    }

    /// Server: the attempt is right. Returns whether somebody is in now.
    ///
    /// # Errors
    /// [`ConnectionError::OutputFull`].
    pub fn accept_auth(&mut self, now: Instant) -> Result<bool, ConnectionError> {
        let Auth::Server(auth) = &mut self.auth else {
            return Ok(false);
        };
        let outcome = auth.accept(&mut self.outbox);
        let done = outcome.inspect_err(|error| self.say_why(error))?;
        if done {
            self.on_authenticated(now);
            self.mux.offer_host_keys(&mut self.outbox)?;
        }
        Ok(done)
    }

    /// Server: the attempt is wrong.
    ///
    /// # Errors
    /// [`ConnectionError::TooManyAttempts`] when there were enough of them.
    pub fn reject_auth(&mut self) -> Result<(), ConnectionError> {
        self.answer_attempt(ServerAuth::reject)
    }

    /// Server: the attempt is right, but is only a step: one of `remaining` has to follow, by the
    /// same user. A query about a key, or a request without proof, is rejected instead.
    ///
    /// # Errors
    /// As [`Connection::reject_auth`].
    pub fn accept_auth_partially(
        &mut self,
        remaining: &[AuthMethod],
    ) -> Result<(), ConnectionError> {
        self.answer_attempt(|auth, outbox| auth.accept_partially(remaining, outbox))
    }

    /// Server: has whoever tries keyboard-interactive asked; at most
    /// [`PROMPTS_MAX`](crate::auth::PROMPTS_MAX) questions at a time. Others are rejected instead.
    ///
    /// # Errors
    /// As [`Connection::reject_auth`].
    pub fn ask(&mut self, questions: &Questions) -> Result<(), ConnectionError> {
        self.answer_attempt(|auth, outbox| auth.ask(questions, outbox))
    }

    /// Server: the password is right, but has to be changed first. Other attempts are rejected
    /// instead.
    ///
    /// # Errors
    /// As [`Connection::reject_auth`].
    pub fn password_expired(&mut self, prompt: &str) -> Result<(), ConnectionError> {
        self.answer_attempt(|auth, outbox| auth.password_expired(prompt, outbox))
    }

    fn answer_attempt(
        &mut self,
        answer: impl FnOnce(&mut ServerAuth, &mut Outbox) -> Result<(), ConnectionError>,
    ) -> Result<(), ConnectionError> {
        let outcome = match &mut self.auth {
            Auth::Server(auth) => answer(auth, &mut self.outbox),
            Auth::Client(_) => Ok(()),
        };
        outcome.inspect_err(|error| self.say_why(error))
    }
}

/// What users' signatures cover, once there are keys.
fn session(handshake: &Handshake) -> Option<Session<'_>> {
    Some(Session {
        id: handshake.session_id()?.as_bytes(),
        host_key: handshake.host_key().map(|key| key.as_blob()),
    })
}
