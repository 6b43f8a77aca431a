//! The server's half of authentication (RFC 4252): attempts go up one at a time, verdicts come down.

use ketch_wire::{NameList, Reader, Writer};
use zeroize::Zeroizing;

use super::{AuthAttempt, Method};
use crate::config::{AuthMethod, Limits};
use crate::crypto::derive::ExchangeHash;
use crate::crypto::hostkey::PublicKey;
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::auth::{
    CONNECTION_SERVICE, MethodRequest, PkOk, UserauthFailure, UserauthRequest, encode_signed_data,
};
use crate::message::number;
use crate::message::transport::Service;
use crate::outbox::Outbox;

/// Where the server stands.
#[derive(Debug)]
pub(crate) struct ServerAuth {
    /// Names of the methods, joined by commas.
    methods: String,
    state: State,
    failures: u32,
    failures_max: u32,
    requests: u32,
    requests_max: u32,
}

#[derive(Debug)]
enum State {
    /// The client has not asked for the service.
    BeforeService,
    /// Requests may come.
    Open,
    /// An attempt is being decided.
    Pending { user: String, pending: Pending },
    /// Somebody is in.
    Done { user: String },
}

#[derive(Clone, Debug)]
enum Pending {
    None,
    Query(PublicKey),
    Proof,
}

/// What a message led to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing that the rest needs to know.
    Going,
    /// An attempt is to be decided.
    Attempt(AuthAttempt),
}

impl ServerAuth {
    pub(crate) fn new(methods: &[AuthMethod], limits: &Limits) -> Self {
        Self {
            methods: methods
                .iter()
                .map(|method| method.name())
                .collect::<Vec<_>>()
                .join(","),
            state: State::BeforeService,
            failures: 0,
            failures_max: limits.auth_failures_max,
            requests: 0,
            requests_max: limits.auth_requests_max,
        }
    }

    /// Whether an answer from outside is awaited.
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.state, State::Pending { .. })
    }

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done { .. })
    }

    /// Who is in, or wants in.
    pub(crate) fn user(&self) -> &str {
        match &self.state {
            State::Pending { user, .. } | State::Done { user } => user,
            State::BeforeService | State::Open => "",
        }
    }

    /// Takes `SERVICE_REQUEST` or a message of authentication.
    pub(crate) fn on_message(
        &mut self,
        number: u8,
        fields: Reader<'_>,
        session_id: &ExchangeHash,
        outbox: &mut Outbox,
    ) -> Result<Outcome, ConnectionError> {
        let malformed = |source| PeerMisbehaved::Malformed { number, source };
        match (&self.state, number) {
            (State::BeforeService, number::SERVICE_REQUEST) => {
                let service = Service::decode(fields).map_err(malformed)?;
                if service.name != Service::USERAUTH {
                    return Err(PeerMisbehaved::NoSuchService.into());
                }
                self.state = State::Open;
                outbox.message(|w| service.encode(number::SERVICE_ACCEPT, w))?;
                Ok(Outcome::Going)
            }
            (State::Open, number::USERAUTH_REQUEST) => {
                let request = UserauthRequest::decode(fields).map_err(malformed)?;
                self.on_request(&request, session_id, outbox)
            }
            // RFC 4252 §5.1: further requests are ignored without a word.
            (State::Done { .. }, number::USERAUTH_REQUEST) => Ok(Outcome::Going),
            _ => Err(PeerMisbehaved::Unexpected {
                number,
                state: "in authentication",
            }
            .into()),
        }
    }

    fn on_request(
        &mut self,
        request: &UserauthRequest<'_>,
        session_id: &ExchangeHash,
        outbox: &mut Outbox,
    ) -> Result<Outcome, ConnectionError> {
        self.requests = self.requests.saturating_add(1);
        if self.requests > self.requests_max {
            return Err(ConnectionError::TooManyAttempts);
        }
        if request.service != CONNECTION_SERVICE {
            return Err(PeerMisbehaved::NoSuchService.into());
        }
        let (method, pending) = match request.method {
            MethodRequest::None => (Method::None, Pending::None),
            MethodRequest::Password(password) => (
                Method::Password(Zeroizing::new(password.to_owned())),
                Pending::Proof,
            ),
            MethodRequest::PublicKeyQuery {
                algorithm,
                key,
                host_key: None,
            } => match checked(algorithm, key) {
                Some(key) => (Method::PublicKeyQuery(key.clone()), Pending::Query(key)),
                None => return self.fail(outbox),
            },
            MethodRequest::PublicKey {
                algorithm,
                key,
                host_key: None,
                signature,
            } => match checked(algorithm, key) {
                Some(key) if proves(&key, request.user, algorithm, signature, session_id) => {
                    (Method::PublicKey(key), Pending::Proof)
                }
                _ => return self.fail(outbox),
            },
            _ => return self.fail(outbox),
        };
        let user = request.user.to_owned();
        self.state = State::Pending {
            user: user.clone(),
            pending,
        };
        Ok(Outcome::Attempt(AuthAttempt { user, method }))
    }

    /// The attempt is right. Returns whether somebody is in now; a query only learns that its key
    /// would do.
    pub(crate) fn accept(&mut self, outbox: &mut Outbox) -> Result<bool, ConnectionError> {
        match std::mem::replace(&mut self.state, State::Open) {
            State::Pending {
                pending: Pending::Query(key),
                ..
            } => {
                let algorithm = key.algorithms()[0].name().as_bytes();
                outbox.message(|w| {
                    PkOk {
                        algorithm,
                        key: key.as_blob(),
                    }
                    .encode(w)
                })?;
                Ok(false)
            }
            State::Pending { user, .. } => {
                self.state = State::Done { user };
                outbox.message(|w| w.u8(number::USERAUTH_SUCCESS))?;
                Ok(true)
            }
            other => {
                self.state = other;
                Ok(false)
            }
        }
    }

    /// The attempt is wrong.
    pub(crate) fn reject(&mut self, outbox: &mut Outbox) -> Result<(), ConnectionError> {
        match &self.state {
            // Asking which methods there are is no failure.
            State::Pending {
                pending: Pending::None,
                ..
            } => {
                self.state = State::Open;
                self.send_failure(outbox)
            }
            State::Pending { .. } => {
                self.state = State::Open;
                self.fail(outbox).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn fail(&mut self, outbox: &mut Outbox) -> Result<Outcome, ConnectionError> {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.failures_max {
            return Err(ConnectionError::TooManyAttempts);
        }
        self.send_failure(outbox)?;
        Ok(Outcome::Going)
    }

    fn send_failure(&self, outbox: &mut Outbox) -> Result<(), ConnectionError> {
        let methods = NameList::new(&self.methods).expect("our own names are names");
        outbox.message(|w| {
            UserauthFailure {
                methods,
                partial_success: false,
            }
            .encode(w)
        })?;
        Ok(())
    }
}

/// The key, if it is of the algorithm that the request names.
fn checked(algorithm: &[u8], blob: &[u8]) -> Option<PublicKey> {
    let key = PublicKey::from_blob(blob).ok()?;
    (key.algorithms()[0].name().as_bytes() == algorithm).then_some(key)
}

/// Whether the signature is over this session and this request (RFC 4252 §7).
fn proves(
    key: &PublicKey,
    user: &str,
    algorithm: &[u8],
    signature: &[u8],
    session_id: &ExchangeHash,
) -> bool {
    let mut data = Vec::new();
    encode_signed_data(
        &mut Writer::new(&mut data),
        session_id.as_bytes(),
        user,
        algorithm,
        key.as_blob(),
        None,
    );
    key.verify(key.algorithms()[0], &data, signature).is_ok()
}
