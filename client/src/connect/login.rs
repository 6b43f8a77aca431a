//! The two questions of a login: is this the server, and does it take us (RFC 4252).

use std::time::Duration;

#[cfg(test)]
mod tests;

use ketch_keys::{PublicKey, SignatureAlgorithm};
use ketch_transport::auth::{Credential, Questions};
use ketch_transport::driver::{CloseReason, Login, LoginEvent};
use ketch_transport::message::transport::DisconnectReason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::early::{Early, Opening};
use super::offers::{Credentials, Offer, Offers, Password, Signer};
use super::questions::{Asker, WhichPassword, Whose, escaped};
use super::{ConnectError, Skipped, Stage, Tried};
use crate::destination::{Host, User};
use crate::hostkey::{Accepted, HostKeyError, HostKeys, KeepUp};

/// A login with a server whose key was accepted; there is no other way to [`authenticate`].
///
/// [`authenticate`]: Verified::authenticate
pub(super) struct Verified<S>(Login<S>);

/// Goes through the handshake and has the server's key checked.
pub(super) async fn verify_host<S>(
    mut login: Login<S>,
    host: &Host,
    port: u16,
    host_keys: HostKeys,
) -> Result<(Verified<S>, Option<KeepUp>), ConnectError>
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
            Ok((accepted, keep_up)) => {
                tracing::debug!(%host, ?accepted, "host key accepted");
                login.accept_host_key().map_err(ended)?;
                return Ok((Verified(login), keep_up));
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
) -> Result<Result<(Accepted, Option<KeepUp>), HostKeyError>, ConnectError> {
    let named = host.clone();
    let check = move || {
        let accepted = host_keys.check(&named, port, &key)?;
        let keep_up = host_keys.keeping_up(&named, port, &key, &accepted);
        Ok((accepted, keep_up))
    };
    spawn_blocking(check)
        .await
        .map_err(|_| ConnectError::Runtime { host: host.clone() })
}

impl<S> Verified<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Offers one credential after the other until the server lets us in. Says which did it.
    pub(super) async fn authenticate(
        self,
        host: &Host,
        user: &User,
        credentials: Credentials,
        allowed: Vec<SignatureAlgorithm>,
        early: (&Early, Duration),
    ) -> Result<(Login<S>, Option<Tried>, Option<Opening>), ConnectError> {
        let allow_none = credentials.allow_none;
        let offers = Offers::new(credentials, allowed, self.0.host_proof()).await;
        let mut dialogue = Dialogue {
            login: self.0,
            offers,
            whose: Whose {
                user: user.clone(),
                host: host.clone(),
            },
            last: None,
            password: None,
            early,
            opening: None,
        };
        let outcome = dialogue.run().await;
        let Dialogue {
            login,
            offers,
            opening,
            ..
        } = dialogue;
        if let Err(error) = outcome {
            if !matches!(error, ConnectError::Ended { .. }) {
                login
                    .give_up(DisconnectReason::NO_MORE_AUTH_METHODS_AVAILABLE, "")
                    .await;
            }
            return Err(error);
        }
        // Who lets in for nothing may only want to be trusted with what comes next.
        if !login.has_proved() && !allow_none {
            let (user, host) = (user.clone(), host.clone());
            login.give_up(DisconnectReason::BY_APPLICATION, "").await;
            return Err(ConnectError::NotAuthenticated { user, host });
        }
        Ok((login, offers.tried.last().cloned(), opening))
    }
}

/// A login under way.
struct Dialogue<'a, S> {
    login: Login<S>,
    offers: Offers,
    whose: Whose,
    /// What was offered last.
    last: Option<Offer>,
    /// The password that was sent last, should it have to be changed.
    password: Option<Zeroizing<String>>,
    /// What may be opened behind a login, and how long its answers may take.
    early: (&'a Early, Duration),
    /// What was opened so.
    opening: Option<Opening>,
}

impl<S> Dialogue<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    async fn run(&mut self) -> Result<(), ConnectError> {
        loop {
            match self.login.next().await.map_err(|error| self.ended(error))? {
                LoginEvent::AuthWanted { methods, partial } => {
                    self.on_refused(partial);
                    self.offers.methods = methods.or(self.offers.methods.take());
                    self.offer_next().await?;
                }
                LoginEvent::Sign(data) => self.sign(data).await?,
                LoginEvent::Questions(questions) => self.answer(questions).await?,
                LoginEvent::PasswordExpired { prompt } => self.change_password(prompt).await?,
                LoginEvent::Banner(text) => {
                    let host = &self.whose.host;
                    let banner = escaped(&String::from_utf8_lossy(&text));
                    tracing::info!(%host, banner, "the server says");
                    if let Some(tell) = &self.offers.asker.banner {
                        tell(host, &banner);
                    }
                }
                LoginEvent::Authenticated { .. } => return Ok(()),
                event => tracing::debug!(?event, "unexpected while logging in"),
            }
        }
    }

    /// The last offer did not do, or was one step of several.
    fn on_refused(&mut self, partial: bool) {
        match self.last.take() {
            Some(_) if partial => tracing::debug!("accepted, but the server wants more"),
            Some(Offer::Key(offer)) if self.login.server_sig_algs().is_none() => {
                self.offers.retry_older(offer);
            }
            Some(offer) => self.offers.retry(offer),
            None => {}
        }
    }

    /// Offers the next credential that there is, or gives up.
    async fn offer_next(&mut self) -> Result<(), ConnectError> {
        loop {
            let Some(offer) = self.offers.next(self.login.server_sig_algs()) else {
                return Err(self.refused());
            };
            let Some(credential) = self.credential(&offer).await? else {
                continue;
            };
            let method = offer.as_tried();
            tracing::debug!(host = %self.whose.host, user = %self.whose.user, %method, "logging in");
            // Asking what the server takes is no try, unless that is all there is.
            if !matches!(offer, Offer::None) || self.offers.is_empty() {
                self.offers.tried.push(offer.as_tried());
            }
            self.last = Some(offer);
            let outcome = self.login.authenticate(&credential);
            return outcome.map_err(|error| self.ended(error));
        }
    }

    /// What the server hears of an offer; `None` if there is nothing that it could hear.
    async fn credential(&mut self, offer: &Offer) -> Result<Option<Credential>, ConnectError> {
        Ok(match offer {
            Offer::None => Some(Credential::None),
            Offer::Answers { .. } => Some(Credential::KeyboardInteractive),
            Offer::Key(offer) => Some(Credential::PublicKey {
                key: offer.key.clone(),
                algorithm: offer.algorithm.unwrap_or(offer.key.algorithms()[0]),
                probe: offer.probe,
            }),
            Offer::HiddenKey(identity) => {
                let key = identity.clone();
                match blocking(self.host(), move || key.unlock()).await? {
                    Ok(()) => self.offers.unhide(identity),
                    Err(error) => self.offers.skip(Skipped::Identity(error)),
                }
                None
            }
            Offer::Password(Password(password)) => Some(self.send_password(password.clone())),
            Offer::AskPassword { failed } => {
                let (asker, whose, failed) = (self.asker(), self.whose.clone(), *failed);
                let ask = move || asker.ask_password(&whose, failed, WhichPassword::Current);
                let password = blocking(self.host(), ask).await?;
                password.map(|password| self.send_password(password))
            }
        })
    }

    fn send_password(&mut self, password: Zeroizing<String>) -> Credential {
        self.password = Some(password.clone());
        Credential::Password(password)
    }

    async fn sign(&mut self, data: Vec<u8>) -> Result<(), ConnectError> {
        let Some(Offer::Key(offer)) = &self.last else {
            return self.leave_out(None).await;
        };
        let algorithm = offer.algorithm.unwrap_or(offer.key.algorithms()[0]);
        let signed = match &offer.signer {
            Signer::Identity(identity) => {
                // RSA takes some milliseconds, and a passphrase as long as it takes.
                let identity = identity.clone();
                let sign = move || identity.sign(algorithm.plain(), &data);
                blocking(self.host(), sign)
                    .await?
                    .map_err(Skipped::Identity)
            }
            Signer::Agent { agent, listed } => {
                let algorithm = match listed.certificate() {
                    Some(_) => algorithm,
                    None => algorithm.plain(),
                };
                let signed = agent.lock().await.sign(listed, algorithm, &data).await;
                signed.map_err(Skipped::Agent)
            }
        };
        match signed {
            Ok(signature) => {
                let key = offer.key.clone();
                let (early, stall) = self.early;
                let outcome = self.login.signature(&signature);
                let opening = outcome.and_then(|()| early.behind(&mut self.login, &key, stall));
                self.opening = opening.map_err(|error| self.ended(error))?;
                Ok(())
            }
            Err(why) => self.leave_out(Some(why)).await,
        }
    }

    async fn answer(&mut self, questions: Questions) -> Result<(), ConnectError> {
        let failed = match &self.last {
            Some(Offer::Answers { failed }) => *failed,
            _ => 0,
        };
        // A password that was given answers one question, once.
        let password = self
            .offers
            .password
            .take()
            .map(|Password(password)| password);
        let (asker, whose) = (self.asker(), self.whose.clone());
        let answer = move || asker.answer(&whose, failed, &questions, password.as_ref());
        match blocking(self.host(), answer).await? {
            Some(answers) => {
                let outcome = self.login.answers(&answers);
                outcome.map_err(|error| self.ended(error))
            }
            None => self.leave_out(None).await,
        }
    }

    async fn change_password(&mut self, server_says: String) -> Result<(), ConnectError> {
        let expired = ConnectError::PasswordExpired {
            user: self.whose.user.clone(),
            host: self.whose.host.clone(),
        };
        let (Some(old), Some(_)) = (self.password.take(), &self.asker().password) else {
            return Err(expired);
        };
        let (asker, whose) = (self.asker(), self.whose.clone());
        let ask = move || {
            let server_says = &escaped(&server_says);
            asker.ask_password(&whose, 0, WhichPassword::New { server_says })
        };
        let Some(new) = blocking(self.host(), ask).await? else {
            return Err(expired);
        };
        self.password = Some(new.clone());
        let change = Credential::PasswordChange { old, new };
        let outcome = self.login.authenticate(&change);
        outcome.map_err(|error| self.ended(error))
    }

    /// The last offer cannot be gone on with: it counts as not made, and another takes its place.
    async fn leave_out(&mut self, why: Option<Skipped>) -> Result<(), ConnectError> {
        if let Some(why) = why {
            self.offers.skip(why);
        }
        self.last = None;
        self.offers.tried.pop();
        self.offer_next().await
    }

    fn host(&self) -> Host {
        self.whose.host.clone()
    }

    fn asker(&self) -> Asker {
        self.offers.asker.clone()
    }

    /// Nothing is left to offer.
    fn refused(&mut self) -> ConnectError {
        let Whose { user, host } = self.whose.clone();
        let methods = self.offers.methods.take().unwrap_or_default();
        let tried = std::mem::take(&mut self.offers.tried);
        match self.offers.skipped.take() {
            Some(Skipped::Identity(error)) if tried.is_empty() => ConnectError::Identity(error),
            Some(Skipped::Agent(error)) if tried.is_empty() => ConnectError::Agent(error),
            skipped => ConnectError::Auth {
                user,
                host,
                tried,
                methods,
                skipped: skipped.map(Box::new),
            },
        }
    }

    fn ended(&self, source: CloseReason) -> ConnectError {
        ConnectError::ended(&self.whose.host, Stage::Authentication, source)
    }
}

/// Whoever is asked may think: not on a thread that others wait for, nor on the server's time, for
/// the login's clock stands still meanwhile.
async fn blocking<T: Send + 'static>(
    host: Host,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ConnectError> {
    let done = spawn_blocking(work).await;
    done.map_err(|_| ConnectError::Runtime { host })
}
