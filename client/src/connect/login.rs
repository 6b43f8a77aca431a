//! The two questions of a login: is this the server, and does it take us (RFC 4252).

use std::collections::VecDeque;
use std::fmt;

use ketch_transport::algorithm::SignatureAlgorithm;
use ketch_transport::auth::Credential;
use ketch_transport::crypto::hostkey::{PublicKey, signature_blob};
use ketch_transport::driver::{Login, LoginEvent};
use ketch_transport::message::transport::DisconnectReason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::{ConnectError, Stage, Tried};
use crate::destination::{Host, User};
use crate::hostkey::{Accepted, HostKeyError, HostKeys};
use crate::identity::{Identity, IdentityError};

/// Most credentials that are offered. OpenSSH's server disconnects at the sixth failure, and some
/// servers ban who gets there.
const TRIES_MAX: usize = 5;

/// A login with a server whose key was accepted; there is no other way to [`authenticate`].
///
/// [`authenticate`]: Verified::authenticate
pub(super) struct Verified<S>(Login<S>);

/// What there is to log in with.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    pub(super) identities: Vec<Identity>,
    pub(super) password: Option<Password>,
    pub(super) allow_none: bool,
}

/// A password that is not printed.
#[derive(Clone)]
pub(super) struct Password(pub(super) Zeroizing<String>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Credentials {
    pub(super) fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.password.is_none() && !self.allow_none
    }
}

enum Offer {
    None,
    Key(Identity),
    Password(Password),
}

impl Offer {
    fn method(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Key(_) => "publickey",
            Self::Password(_) => "password",
        }
    }

    fn credential(&self) -> Credential {
        match self {
            Self::None => Credential::None,
            Self::Key(identity) => Credential::public_key(identity.public_key().clone()),
            Self::Password(Password(password)) => Credential::Password(password.clone()),
        }
    }

    fn as_tried(&self) -> Tried {
        match self {
            Self::None => Tried::None,
            Self::Password(_) => Tried::Password,
            Self::Key(identity) => Tried::Key {
                fingerprint: identity.fingerprint(),
                origin: identity.origin().clone(),
            },
        }
    }

    fn into_signer(self) -> Option<Identity> {
        match self {
            Self::Key(identity) => Some(identity),
            Self::None | Self::Password(_) => None,
        }
    }
}

/// Goes through the handshake and has the server's key checked.
pub(super) async fn verify_host<S>(
    mut login: Login<S>,
    host: &Host,
    port: u16,
    host_keys: HostKeys,
) -> Result<Verified<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ended = |source| ConnectError::ended(host, Stage::Handshake, source);
    loop {
        let key = match login.next().await.map_err(ended)? {
            LoginEvent::HostKey(key) => key,
            event => {
                tracing::debug!(?event, "unexpected before the host key");
                continue;
            }
        };
        match check_host_key(host_keys, host, port, key).await? {
            Ok(accepted) => {
                tracing::debug!(%host, ?accepted, "host key accepted");
                login.accept_host_key().map_err(ended)?;
                return Ok(Verified(login));
            }
            Err(error) => {
                login
                    .give_up(DisconnectReason::HOST_KEY_NOT_VERIFIABLE, "")
                    .await;
                return Err(error.into());
            }
        }
    }
}

/// Files are read and perhaps written: not on a thread that others wait for.
async fn check_host_key(
    host_keys: HostKeys,
    host: &Host,
    port: u16,
    key: PublicKey,
) -> Result<Result<Accepted, HostKeyError>, ConnectError> {
    let named = host.clone();
    spawn_blocking(move || host_keys.check(&named, port, &key))
        .await
        .map_err(|_| ConnectError::Runtime { host: host.clone() })
}

impl<S> Verified<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Offers one credential after the other until the server lets us in.
    ///
    /// Each is offered once, and only where the server says that it takes its method; one that is
    /// not taken now stays for later, because a server may want a password after a key.
    pub(super) async fn authenticate(
        self,
        host: &Host,
        user: &User,
        credentials: Credentials,
    ) -> Result<Login<S>, ConnectError> {
        let ended = |source| ConnectError::ended(host, Stage::Authentication, source);
        let Self(mut login) = self;
        let mut offers = Offers::new(credentials);
        let mut signer = None;
        loop {
            match login.next().await.map_err(ended)? {
                LoginEvent::AuthWanted { methods, .. } => {
                    let Some(offer) = offers.next(methods.as_deref(), host).await? else {
                        login
                            .give_up(DisconnectReason::NO_MORE_AUTH_METHODS_AVAILABLE, "")
                            .await;
                        return Err(offers.into_error(host, user, methods));
                    };
                    tracing::debug!(%host, %user, method = offer.method(), "logging in");
                    login.authenticate(&offer.credential()).map_err(ended)?;
                    signer = offer.into_signer();
                }
                LoginEvent::Sign(data) => {
                    // The key is unlocked by now: this takes some microseconds.
                    let Some(signature) = signer.as_ref().map(|key: &Identity| key.sign(&data))
                    else {
                        continue;
                    };
                    let blob = signature_blob(SignatureAlgorithm::Ed25519, &signature?);
                    login.signature(&blob).map_err(ended)?;
                }
                LoginEvent::Banner(text) => {
                    tracing::info!(%host, banner = %text.escape_ascii(), "the server says");
                }
                LoginEvent::Authenticated { .. } => return Ok(login),
                event => tracing::debug!(?event, "unexpected while logging in"),
            }
        }
    }
}

/// What is still to be offered, and what became of the rest.
struct Offers {
    waiting: VecDeque<Offer>,
    tried: Vec<Tried>,
    /// Why a key could not be offered, the last one of those.
    skipped: Option<Box<IdentityError>>,
}

impl Offers {
    fn new(credentials: Credentials) -> Self {
        let Credentials {
            identities,
            password,
            allow_none,
        } = credentials;
        let mut waiting: VecDeque<_> = identities.into_iter().map(Offer::Key).collect();
        waiting.extend(password.map(Offer::Password));
        if waiting.is_empty() && allow_none {
            waiting.push_back(Offer::None);
        }
        Self {
            waiting,
            tried: Vec::new(),
            skipped: None,
        }
    }

    /// The next that the server would take; `methods` is `None` before it said anything.
    async fn next(
        &mut self,
        methods: Option<&[String]>,
        host: &Host,
    ) -> Result<Option<Offer>, ConnectError> {
        while let Some(offer) = self.take(methods) {
            match unlock(offer, host).await? {
                Ok(offer) => {
                    self.tried.push(offer.as_tried());
                    return Ok(Some(offer));
                }
                Err(error) => {
                    tracing::warn!(%error, "a private key is left out");
                    self.skipped = Some(Box::new(error));
                }
            }
        }
        Ok(None)
    }

    fn take(&mut self, methods: Option<&[String]>) -> Option<Offer> {
        if self.tried.len() == TRIES_MAX {
            return None;
        }
        let is_taken = |offer: &Offer| {
            methods.is_none_or(|methods| methods.iter().any(|method| method == offer.method()))
        };
        let at = self.waiting.iter().position(is_taken)?;
        self.waiting.remove(at)
    }

    fn into_error(self, host: &Host, user: &User, methods: Option<Vec<String>>) -> ConnectError {
        match self.skipped {
            Some(error) if self.tried.is_empty() => ConnectError::Identity(*error),
            skipped => ConnectError::Auth {
                user: user.clone(),
                host: host.clone(),
                tried: self.tried,
                methods: methods.unwrap_or_default(),
                skipped,
            },
        }
    }
}

/// Has a key's passphrase asked for, if it needs one, before the server hears of the key.
async fn unlock(offer: Offer, host: &Host) -> Result<Result<Offer, IdentityError>, ConnectError> {
    match &offer {
        Offer::Key(identity) if identity.is_locked() => {
            let key = identity.clone();
            let unlocked = spawn_blocking(move || key.unlock())
                .await
                .map_err(|_| ConnectError::Runtime { host: host.clone() })?;
            Ok(unlocked.map(|()| offer))
        }
        _ => Ok(Ok(offer)),
    }
}
