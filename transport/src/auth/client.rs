//! The client's half of authentication (RFC 4252): one request at a time, each answered.

use ketch_wire::{Reader, Writer};

use super::Credential;
use crate::crypto::derive::ExchangeHash;
use crate::crypto::hostkey::{PublicKey, signature_blob};
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::auth::{
    Banner, CONNECTION_SERVICE, MethodRequest, UserauthFailure, UserauthRequest, encode_signed_data,
};
use crate::message::number;
use crate::message::transport::Service;
use crate::outbox::Outbox;

/// Most banners that are passed on; more are dropped.
const BANNERS_MAX: u32 = 16;

/// Where the client stands.
#[derive(Debug)]
pub(crate) struct ClientAuth {
    user: String,
    service: ServiceState,
    state: State,
    banners: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ServiceState {
    /// Asked for together with the first request, without waiting for the answer.
    NotAsked,
    Asked,
    Accepted,
}

#[derive(Debug)]
enum State {
    /// Keys are not in use yet.
    BeforeKeys,
    /// A credential is asked for.
    Wanted,
    /// A signature is asked for.
    Signing(PublicKey),
    /// A request is out.
    Asked,
    /// The server let us in.
    Done,
}

/// What a message led to.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    /// Nothing that the rest needs to know.
    Going,
    /// The server says something.
    Banner(&'a [u8]),
    /// A (further) credential is asked for.
    Wanted {
        /// The message, whose methods may go on.
        failure: UserauthFailure<'a>,
    },
    /// The server let us in.
    Authenticated,
}

impl ClientAuth {
    pub(crate) const fn new(user: String) -> Self {
        Self {
            user,
            service: ServiceState::NotAsked,
            state: State::BeforeKeys,
            banners: 0,
        }
    }

    /// The first keys are in use: a credential is asked for.
    pub(crate) fn start(&mut self) {
        self.state = State::Wanted;
    }

    /// Whether an answer from outside is awaited.
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.state, State::Wanted | State::Signing(_))
    }

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Tries a credential; returns what is to be signed, if a signature is needed.
    pub(crate) fn authenticate(
        &mut self,
        credential: &Credential,
        session_id: &ExchangeHash,
        outbox: &mut Outbox,
    ) -> Result<Option<Vec<u8>>, ConnectionError> {
        let method = match credential {
            Credential::None => MethodRequest::None,
            Credential::Password(password) => MethodRequest::Password(password),
            Credential::PublicKey(key) => {
                let mut data = Vec::new();
                encode_signed_data(
                    &mut Writer::new(&mut data),
                    session_id.as_bytes(),
                    &self.user,
                    key.algorithms()[0].name().as_bytes(),
                    key.as_blob(),
                    None,
                );
                self.state = State::Signing(key.clone());
                return Ok(Some(data));
            }
        };
        self.ask(method, outbox)?;
        Ok(None)
    }

    /// Goes on with a raw signature over what was to be signed.
    pub(crate) fn signature(
        &mut self,
        raw: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        let State::Signing(key) = std::mem::replace(&mut self.state, State::Wanted) else {
            return Ok(());
        };
        let signature = signature_blob(key.algorithms()[0], raw);
        let method = MethodRequest::PublicKey {
            algorithm: key.algorithms()[0].name().as_bytes(),
            key: key.as_blob(),
            host_key: None,
            signature: &signature,
        };
        self.ask(method, outbox)
    }

    fn ask(
        &mut self,
        method: MethodRequest<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        if self.service == ServiceState::NotAsked {
            self.service = ServiceState::Asked;
            let service = Service {
                name: Service::USERAUTH,
            };
            outbox.message(|w| service.encode(number::SERVICE_REQUEST, w))?;
        }
        let request = UserauthRequest {
            user: &self.user,
            service: CONNECTION_SERVICE,
            method,
        };
        outbox.message(|w| request.encode(w))?;
        self.state = State::Asked;
        Ok(())
    }

    /// Takes `SERVICE_ACCEPT` or a message of authentication.
    pub(crate) fn on_message<'a>(
        &mut self,
        number: u8,
        fields: Reader<'a>,
    ) -> Result<Outcome<'a>, PeerMisbehaved> {
        let malformed = |source| PeerMisbehaved::Malformed { number, source };
        match (&self.state, self.service, number) {
            (_, ServiceState::Asked, number::SERVICE_ACCEPT) => {
                let service = Service::decode(fields).map_err(malformed)?;
                if service.name != Service::USERAUTH {
                    return Err(PeerMisbehaved::NoSuchService);
                }
                self.service = ServiceState::Accepted;
                Ok(Outcome::Going)
            }
            (State::Asked, ServiceState::Accepted, number::USERAUTH_SUCCESS) => {
                fields.finish().map_err(malformed)?;
                self.state = State::Done;
                Ok(Outcome::Authenticated)
            }
            (State::Asked, ServiceState::Accepted, number::USERAUTH_FAILURE) => {
                let failure = UserauthFailure::decode(fields).map_err(malformed)?;
                self.state = State::Wanted;
                Ok(Outcome::Wanted { failure })
            }
            (State::Asked, ServiceState::Accepted, number::USERAUTH_BANNER) => {
                let banner = Banner::decode(fields).map_err(malformed)?;
                self.banners = self.banners.saturating_add(1);
                Ok(if self.banners > BANNERS_MAX {
                    Outcome::Going
                } else {
                    Outcome::Banner(banner.text)
                })
            }
            _ => Err(PeerMisbehaved::Unexpected {
                number,
                state: "in authentication",
            }),
        }
    }
}
