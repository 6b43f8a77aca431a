//! The server's half of authentication (RFC 4252, RFC 4256): attempts go up one at a time, verdicts
//! come down.

use ketch_keys::{PublicKey, SignatureAlgorithm};
use ketch_wire::{NameList, Reader};
use zeroize::Zeroizing;

use super::{AuthAttempt, Method, Questions, Session, is_allowed};
use crate::config::{AuthMethod, Limits};
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::auth::{
    Banner, CONNECTION_SERVICE, InfoRequest, InfoResponse, MethodRequest, PROMPTS_MAX,
    PasswordChangeRequest, PkOk, Prompt, UserauthFailure, UserauthRequest,
};
use crate::message::number;
use crate::message::transport::Service;
use crate::outbox::Outbox;

/// Which users' keys are looked at.
#[derive(Clone, Debug)]
pub(crate) struct UserKeys {
    /// With what they may sign.
    pub(crate) algorithms: Vec<SignatureAlgorithm>,
    /// How long an RSA key has to be.
    pub(crate) rsa_bits_min: u32,
}

/// Where the server stands.
#[derive(Debug)]
pub(crate) struct ServerAuth {
    /// The methods that may go on: all, or what is left after a step.
    methods: Vec<AuthMethod>,
    user_keys: UserKeys,
    /// Shown before the first reply.
    banner: Option<String>,
    state: State,
    /// Who has taken a step, but not all: nobody else may go on from there.
    half_in: Option<String>,
    failures: u32,
    requests: u32,
    keys: u32,
    failures_max: u32,
    requests_max: u32,
    keys_max: u32,
}

#[derive(Debug)]
enum State {
    /// The client has not asked for the service.
    BeforeService,
    /// Requests may come.
    Open,
    /// An attempt is being decided.
    Pending { user: String, pending: Pending },
    /// Questions are out.
    Asked { user: String, prompts: usize },
    /// Somebody is in.
    Done { user: String },
}

/// What is being decided, as far as it says which verdicts there are.
#[derive(Clone, Debug)]
enum Pending {
    None,
    Query {
        key: PublicKey,
        algorithm: SignatureAlgorithm,
    },
    Password,
    /// The wish to be asked, or answers: more may be asked.
    Interactive,
    Proof,
    /// Rejected in any case.
    Unusable,
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
    pub(crate) fn new(
        methods: &[AuthMethod],
        banner: Option<String>,
        user_keys: UserKeys,
        limits: &Limits,
    ) -> Self {
        Self {
            methods: methods.to_vec(),
            user_keys,
            banner,
            state: State::BeforeService,
            half_in: None,
            failures: 0,
            requests: 0,
            keys: 0,
            failures_max: limits.auth_failures_max,
            requests_max: limits.auth_requests_max,
            keys_max: limits.auth_keys_max,
        }
    }

    /// Whether an answer from outside is awaited.
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.state, State::Pending { .. })
    }

    /// Whether the service for authentication was granted.
    pub(crate) const fn has_service(&self) -> bool {
        !matches!(self.state, State::BeforeService)
    }

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done { .. })
    }

    /// Who is in, or wants in.
    pub(crate) fn user(&self) -> &str {
        match &self.state {
            State::Pending { user, .. } | State::Asked { user, .. } | State::Done { user } => user,
            State::BeforeService | State::Open => "",
        }
    }

    /// What it verifies, for `EXT_INFO`.
    pub(crate) fn algorithms(&self) -> &[SignatureAlgorithm] {
        &self.user_keys.algorithms
    }

    /// Takes `SERVICE_REQUEST` or a message of authentication.
    pub(crate) fn on_message(
        &mut self,
        number: u8,
        fields: Reader<'_>,
        session: Session<'_>,
        outbox: &mut Outbox,
    ) -> Result<Outcome, ConnectionError> {
        let malformed = |source| PeerMisbehaved::Malformed { number, source };
        match (&self.state, number) {
            // Who has the service may ask for it again: paramiko does so before each thing it tries.
            // That counts as a request, so that it has an end.
            (State::BeforeService | State::Open | State::Asked { .. }, number::SERVICE_REQUEST) => {
                if self.has_service() {
                    self.count_request()?;
                }
                let service = Service::decode(fields).map_err(malformed)?;
                if service.name != Service::USERAUTH {
                    return Err(PeerMisbehaved::NoSuchService.into());
                }
                self.state = State::Open;
                outbox.message(|w| service.encode(number::SERVICE_ACCEPT, w))?;
                Ok(Outcome::Going)
            }
            // Who was asked may also do something else (RFC 4256 §3.1).
            (State::Open | State::Asked { .. }, number::USERAUTH_REQUEST) => {
                let request = UserauthRequest::decode(fields).map_err(malformed)?;
                self.state = State::Open;
                self.on_request(&request, session, outbox)
            }
            (State::Asked { .. }, number::USERAUTH_INFO_RESPONSE) => {
                let response = InfoResponse::decode(fields).map_err(malformed)?;
                self.on_response(&response)
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

    /// Counts what a client may send of any kind and outcome.
    const fn count_request(&mut self) -> Result<(), ConnectionError> {
        self.requests = self.requests.saturating_add(1);
        if self.requests > self.requests_max {
            return Err(ConnectionError::TooManyAttempts);
        }
        Ok(())
    }

    fn on_request(
        &mut self,
        request: &UserauthRequest<'_>,
        session: Session<'_>,
        outbox: &mut Outbox,
    ) -> Result<Outcome, ConnectionError> {
        self.count_request()?;
        if request.service != CONNECTION_SERVICE {
            return Err(PeerMisbehaved::NoSuchService.into());
        }
        // RFC 4252 §5: the steps of one user are not another's.
        if self
            .half_in
            .as_ref()
            .is_some_and(|user| user != request.user)
        {
            return Err(PeerMisbehaved::UserChanged.into());
        }
        if let Some(text) = self.banner.take() {
            let text = text.as_bytes();
            outbox.message(|w| Banner { text }.encode(w))?;
        }
        if !self.offers(&request.method) {
            return Ok(self.on_unusable(request.user));
        }
        let secret = |text: &str| Zeroizing::new(text.to_owned());
        let (method, pending) = match request.method {
            MethodRequest::None => (Method::None, Pending::None),
            MethodRequest::Password(password) => {
                (Method::Password(secret(password)), Pending::Password)
            }
            MethodRequest::PasswordChange { old, new } => {
                let (old, new) = (secret(old), secret(new));
                (Method::PasswordChange { old, new }, Pending::Password)
            }
            MethodRequest::PublicKeyQuery {
                algorithm,
                key,
                host_key,
            } => {
                self.count_key()?;
                let Some((key, algorithm)) = self.checked(algorithm, key, host_key, session) else {
                    return Ok(self.on_unusable(request.user));
                };
                let pending = Pending::Query {
                    key: key.clone(),
                    algorithm,
                };
                (Method::PublicKeyQuery { key, algorithm }, pending)
            }
            MethodRequest::PublicKey {
                algorithm,
                key,
                host_key,
                signature,
            } => {
                self.count_key()?;
                let Some((key, algorithm)) = self.checked(algorithm, key, host_key, session) else {
                    return Ok(self.on_unusable(request.user));
                };
                let data = session.signed_data(request.user, algorithm, &key, host_key);
                let Ok(verified) = key.verify(algorithm, &data, signature) else {
                    return Ok(self.on_unusable(request.user));
                };
                let method = Method::PublicKey {
                    key,
                    algorithm,
                    presence: verified.presence,
                };
                (method, Pending::Proof)
            }
            MethodRequest::KeyboardInteractive => {
                (Method::KeyboardInteractive, Pending::Interactive)
            }
            MethodRequest::Other => return Ok(self.on_unusable(request.user)),
        };
        let user = request.user.to_owned();
        self.state = State::Pending {
            user: user.clone(),
            pending,
        };
        Ok(Outcome::Attempt(AuthAttempt { user, method }))
    }

    /// What cannot be right is rejected when somebody says so: they see to the time that it takes.
    fn on_unusable(&mut self, user: &str) -> Outcome {
        let user = user.to_owned();
        self.state = State::Pending {
            user: user.clone(),
            pending: Pending::Unusable,
        };
        let method = Method::Unusable;
        Outcome::Attempt(AuthAttempt { user, method })
    }

    /// Whether the method is one that may go on; asking which there are always is.
    fn offers(&self, method: &MethodRequest<'_>) -> bool {
        let method = match method {
            MethodRequest::None => return true,
            MethodRequest::Password(_) | MethodRequest::PasswordChange { .. } => {
                AuthMethod::Password
            }
            MethodRequest::PublicKeyQuery { .. } | MethodRequest::PublicKey { .. } => {
                AuthMethod::PublicKey
            }
            MethodRequest::KeyboardInteractive => AuthMethod::KeyboardInteractive,
            MethodRequest::Other => return false,
        };
        self.methods.contains(&method)
    }

    const fn count_key(&mut self) -> Result<(), ConnectionError> {
        self.keys = self.keys.saturating_add(1);
        if self.keys > self.keys_max {
            return Err(ConnectionError::TooManyAttempts);
        }
        Ok(())
    }

    /// The key, if it is of the algorithm that the request names, that algorithm is allowed, and a
    /// host-bound request is bound to this host.
    fn checked(
        &self,
        algorithm: &[u8],
        blob: &[u8],
        host_key: Option<&[u8]>,
        session: Session<'_>,
    ) -> Option<(PublicKey, SignatureAlgorithm)> {
        if host_key.is_some() && host_key != session.host_key {
            return None;
        }
        let algorithm = std::str::from_utf8(algorithm).ok()?;
        let algorithm = SignatureAlgorithm::from_name(algorithm)?;
        let key = PublicKey::from_blob(blob).ok()?;
        let UserKeys {
            algorithms,
            rsa_bits_min,
        } = &self.user_keys;
        is_allowed(&key, algorithm, algorithms, *rsa_bits_min).then_some((key, algorithm))
    }

    fn on_response(&mut self, response: &InfoResponse<'_>) -> Result<Outcome, ConnectionError> {
        self.count_request()?;
        let State::Asked { user, prompts } = std::mem::replace(&mut self.state, State::Open) else {
            return Ok(Outcome::Going);
        };
        if response.answers.len() != prompts {
            return Ok(self.on_unusable(&user)); // RFC 4256 §3.4
        }
        let answers = response.answers.iter();
        let answers = answers.map(|answer| Zeroizing::new((*answer).to_owned()));
        let method = Method::Answers(answers.collect());
        self.state = State::Pending {
            user: user.clone(),
            pending: Pending::Interactive,
        };
        Ok(Outcome::Attempt(AuthAttempt { user, method }))
    }

    /// The attempt is right. Returns whether somebody is in now; a query only learns that its key
    /// would do.
    pub(crate) fn accept(&mut self, outbox: &mut Outbox) -> Result<bool, ConnectionError> {
        match std::mem::replace(&mut self.state, State::Open) {
            State::Pending {
                pending: Pending::Query { key, algorithm },
                ..
            } => {
                let ok = PkOk {
                    algorithm: algorithm.name().as_bytes(),
                    key: key.as_blob(),
                };
                outbox.secret(|w| ok.encode(w))?;
                Ok(false)
            }
            State::Pending {
                pending: Pending::Unusable,
                ..
            } => self.fail(outbox).map(|()| false),
            State::Pending { user, .. } => {
                self.state = State::Done { user };
                outbox.secret(|w| w.u8(number::USERAUTH_SUCCESS))?;
                Ok(true)
            }
            other => {
                self.state = other;
                Ok(false)
            }
        }
    }

    /// The attempt is right, but one of `remaining` has to follow. A query is no attempt, and who
    /// asks for nothing has shown nothing: both are rejected, as is a step after which nothing could
    /// follow.
    pub(crate) fn accept_partially(
        &mut self,
        remaining: &[AuthMethod],
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        match &self.state {
            State::Pending {
                user,
                pending: Pending::Password | Pending::Interactive | Pending::Proof,
            } if !remaining.is_empty() => {
                self.half_in = Some(user.clone());
                self.methods = remaining.to_vec();
                self.state = State::Open;
                self.send_failure(true, outbox)
            }
            _ => self.reject(outbox),
        }
    }

    /// Has the user asked, at most [`PROMPTS_MAX`] questions at a time. Only who tries
    /// keyboard-interactive can be: others are rejected.
    pub(crate) fn ask(
        &mut self,
        questions: &Questions,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        let State::Pending {
            user,
            pending: Pending::Interactive,
        } = &self.state
        else {
            return self.reject(outbox);
        };
        let prompts = questions.prompts.iter().take(PROMPTS_MAX);
        let prompts = prompts.map(|prompt| Prompt {
            text: prompt.text.as_bytes(),
            echo: prompt.echo,
        });
        let request = InfoRequest {
            name: questions.name.as_bytes(),
            instruction: questions.instruction.as_bytes(),
            prompts: prompts.collect(),
        };
        self.state = State::Asked {
            user: user.clone(),
            prompts: request.prompts.len(),
        };
        Ok(outbox.secret(|w| request.encode(w))?)
    }

    /// The password is right, but has to be changed first. Only who gave a password can do that:
    /// others are rejected.
    pub(crate) fn password_expired(
        &mut self,
        prompt: &str,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        let State::Pending {
            pending: Pending::Password,
            ..
        } = &self.state
        else {
            return self.reject(outbox);
        };
        self.state = State::Open;
        let prompt = prompt.as_bytes();
        Ok(outbox.secret(|w| PasswordChangeRequest { prompt }.encode(w))?)
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
                self.send_failure(false, outbox)
            }
            State::Pending { .. } => {
                self.state = State::Open;
                self.fail(outbox)
            }
            _ => Ok(()),
        }
    }

    fn fail(&mut self, outbox: &mut Outbox) -> Result<(), ConnectionError> {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.failures_max {
            return Err(ConnectionError::TooManyAttempts);
        }
        self.send_failure(false, outbox)
    }

    fn send_failure(
        &self,
        partial_success: bool,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        let methods: Vec<_> = self.methods.iter().map(|method| method.name()).collect();
        let methods = methods.join(",");
        let failure = UserauthFailure {
            methods: NameList::new(&methods).expect("our own names are names"),
            partial_success,
        };
        Ok(outbox.secret(|w| failure.encode(w))?)
    }
}
