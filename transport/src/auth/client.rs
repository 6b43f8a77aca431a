//! The client's half of authentication (RFC 4252, RFC 4256): one request at a time, each answered.

use ketch_keys::{PublicKey, SignatureAlgorithm};
use ketch_wire::Reader;
use zeroize::Zeroizing;

use super::{Credential, Prompt, Questions, Session};
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::auth::{
    Banner, CONNECTION_SERVICE, InfoRequest, InfoResponse, MethodRequest, PasswordChangeRequest,
    PkOk, UserauthFailure, UserauthRequest,
};
use crate::message::number;
use crate::message::transport::{ExtInfo, Service};
use crate::outbox::Outbox;

/// Most banners that are passed on; more are dropped.
const BANNERS_MAX: u32 = 16;
/// How often a server may ask the user something, on one connection.
const ROUNDS_MAX: u32 = 32;

/// Where the client stands.
#[derive(Debug)]
pub(crate) struct ClientAuth {
    user: String,
    service: ServiceState,
    state: State,
    banners: u32,
    rounds: u32,
    /// Something was sent that proves who we are.
    has_proved: bool,
    /// The server lists what it verifies (RFC 8308 §3.1); unknown names are left out.
    server_sig_algs: Option<Vec<SignatureAlgorithm>>,
    /// The server takes signatures that cover its host key.
    host_bound: bool,
    /// `EXT_INFO` came in the login: only `USERAUTH_SUCCESS` may follow (RFC 8308 §2.4).
    success_is_next: bool,
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
    /// They are. What can be read already is looked at before a credential is asked for: the server
    /// may have said which signatures it verifies.
    Due,
    /// A credential is asked for.
    Wanted,
    /// A signature is asked for.
    Signing(Offered),
    /// Answers are asked for.
    Answering,
    /// A new password is asked for.
    Expired,
    /// A request is out.
    Asked(Request),
    /// The server let us in.
    Done,
}

/// The request that is out; what message 60 means depends on it.
#[derive(Debug)]
enum Request {
    Plain,
    Query(Offered),
    Password,
    KeyboardInteractive,
}

/// A key, and how it is offered.
#[derive(Clone, Debug)]
struct Offered {
    key: PublicKey,
    algorithm: SignatureAlgorithm,
    /// The server's key, if the request is bound to it.
    host_key: Option<Vec<u8>>,
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
    /// The key would do: this is to be signed.
    Sign(Vec<u8>),
    /// The server has questions.
    Questions(Questions),
    /// The password has expired; the server's words.
    PasswordExpired(String),
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
            rounds: 0,
            has_proved: false,
            server_sig_algs: None,
            host_bound: false,
            success_is_next: false,
        }
    }

    /// The first keys are in use: a credential is due.
    pub(crate) fn start(&mut self) {
        self.state = State::Due;
    }

    /// Whether no credential was asked for yet.
    pub(crate) const fn is_before_first_request(&self) -> bool {
        matches!(self.state, State::BeforeKeys | State::Due)
    }

    /// There is nothing to read: a credential is asked for if it is due. Says whether it is.
    pub(crate) fn on_nothing_to_read(&mut self) -> bool {
        let is_due = matches!(self.state, State::Due);
        if is_due {
            self.state = State::Wanted;
        }
        is_due
    }

    /// Whether an answer from outside is awaited.
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(
            self.state,
            State::Wanted | State::Signing(_) | State::Answering | State::Expired
        )
    }

    /// Whether the service for authentication was granted.
    pub(crate) const fn has_service(&self) -> bool {
        matches!(self.service, ServiceState::Accepted)
    }

    /// Whether a request is out that lets the user in if it is right: no question about a key, and
    /// none that leads to questions.
    pub(crate) const fn awaits_server(&self) -> bool {
        matches!(self.state, State::Asked(Request::Plain | Request::Password))
    }

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Whether anything was sent that proves who we are: a signature, a password, or an answer.
    pub(crate) const fn has_proved(&self) -> bool {
        self.has_proved
    }

    /// What the server verifies, if it said so.
    pub(crate) fn server_sig_algs(&self) -> Option<&[SignatureAlgorithm]> {
        self.server_sig_algs.as_deref()
    }

    /// Takes what the server can do beyond the RFCs; `first` says that it is the packet that may
    /// hold it after the server's first `NEWKEYS`. Says whether it may come now.
    pub(crate) fn on_ext_info(&mut self, message: &ExtInfo<'_>, first: bool) -> bool {
        let in_login = self.service == ServiceState::Accepted
            && matches!(&self.state, State::Asked(request) if !matches!(request, Request::Query(_)));
        if !first {
            if !in_login || self.success_is_next {
                return false;
            }
            self.success_is_next = true;
        }
        if let Some(names) = message.server_sig_algs {
            let known = names.iter().filter_map(SignatureAlgorithm::from_name);
            self.server_sig_algs = Some(known.collect());
        }
        self.host_bound |= message.host_bound;
        true
    }

    /// Tries a credential; returns what is to be signed, if a signature is needed. Does nothing
    /// unless something was asked for: whatever that was, another credential is an answer.
    pub(crate) fn authenticate(
        &mut self,
        credential: &Credential,
        session: Session<'_>,
        outbox: &mut Outbox,
    ) -> Result<Option<Vec<u8>>, ConnectionError> {
        if !self.is_waiting() {
            return Ok(None);
        }
        let (method, request) = match credential {
            Credential::None => (MethodRequest::None, Request::Plain),
            Credential::Password(password) => {
                (MethodRequest::Password(password), Request::Password)
            }
            Credential::PasswordChange { old, new } => (
                MethodRequest::PasswordChange { old, new },
                Request::Password,
            ),
            Credential::KeyboardInteractive => (
                MethodRequest::KeyboardInteractive,
                Request::KeyboardInteractive,
            ),
            Credential::PublicKey {
                key,
                algorithm,
                probe,
            } => {
                let host_key = session.host_key.filter(|_| self.host_bound);
                let offered = Offered {
                    key: key.clone(),
                    algorithm: *algorithm,
                    host_key: host_key.map(<[u8]>::to_vec),
                };
                if !probe {
                    return Ok(Some(self.sign(offered, session)));
                }
                // A question needs no binding: plain, it is understood by everybody.
                let query = MethodRequest::PublicKeyQuery {
                    algorithm: algorithm.name().as_bytes(),
                    key: key.as_blob(),
                    host_key: None,
                };
                (query, Request::Query(offered))
            }
        };
        self.has_proved |= matches!(request, Request::Password);
        self.ask(method, request, outbox)?;
        Ok(None)
    }

    fn sign(&mut self, offered: Offered, session: Session<'_>) -> Vec<u8> {
        let Offered {
            key,
            algorithm,
            host_key,
        } = &offered;
        let data = session.signed_data(&self.user, *algorithm, key, host_key.as_deref());
        self.state = State::Signing(offered);
        data
    }

    /// Goes on with a signature blob over what was to be signed.
    pub(crate) fn signature(
        &mut self,
        signature: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        let State::Signing(offered) = std::mem::replace(&mut self.state, State::Wanted) else {
            return Ok(());
        };
        self.has_proved = true;
        let method = MethodRequest::PublicKey {
            algorithm: offered.algorithm.name().as_bytes(),
            key: offered.key.as_blob(),
            host_key: offered.host_key.as_deref(),
            signature,
        };
        self.ask(method, Request::Plain, outbox)
    }

    /// Goes on with the answers to the server's questions.
    pub(crate) fn answers(
        &mut self,
        answers: &[Zeroizing<String>],
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        if !matches!(self.state, State::Answering) {
            return Ok(());
        }
        self.has_proved |= !answers.is_empty();
        let answers = answers.iter().map(|answer| answer.as_str()).collect();
        outbox.secret(|w| InfoResponse { answers }.encode(w))?;
        self.state = State::Asked(Request::KeyboardInteractive);
        Ok(())
    }

    fn ask(
        &mut self,
        method: MethodRequest<'_>,
        request: Request,
        outbox: &mut Outbox,
    ) -> Result<(), ConnectionError> {
        if self.service == ServiceState::NotAsked {
            self.service = ServiceState::Asked;
            let service = Service {
                name: Service::USERAUTH,
            };
            outbox.message(|w| service.encode(number::SERVICE_REQUEST, w))?;
        }
        let message = UserauthRequest {
            user: &self.user,
            service: CONNECTION_SERVICE,
            method,
        };
        outbox.secret(|w| message.encode(w))?;
        self.state = State::Asked(request);
        Ok(())
    }

    /// Takes `SERVICE_ACCEPT` or a message of authentication.
    pub(crate) fn on_message<'a>(
        &mut self,
        number: u8,
        fields: Reader<'a>,
        session: Session<'_>,
    ) -> Result<Outcome<'a>, PeerMisbehaved> {
        let malformed = |source| PeerMisbehaved::Malformed { number, source };
        let unexpected = Err(PeerMisbehaved::Unexpected {
            number,
            state: "in authentication",
        });
        if self.service == ServiceState::Asked && number == number::SERVICE_ACCEPT {
            let service = Service::decode(fields).map_err(malformed)?;
            if service.name != Service::USERAUTH {
                return Err(PeerMisbehaved::NoSuchService);
            }
            self.service = ServiceState::Accepted;
            return Ok(Outcome::Going);
        }
        let State::Asked(request) = &self.state else {
            return unexpected;
        };
        if self.service != ServiceState::Accepted
            || (self.success_is_next && number != number::USERAUTH_SUCCESS)
        {
            return unexpected;
        }
        match (request, number) {
            // Nobody was ever let in by asking whether a key would do.
            (Request::Query(_), number::USERAUTH_SUCCESS) => unexpected,
            (_, number::USERAUTH_SUCCESS) => {
                fields.finish().map_err(malformed)?;
                self.state = State::Done;
                Ok(Outcome::Authenticated)
            }
            (_, number::USERAUTH_FAILURE) => {
                let failure = UserauthFailure::decode(fields).map_err(malformed)?;
                self.state = State::Wanted;
                Ok(Outcome::Wanted { failure })
            }
            (_, number::USERAUTH_BANNER) => {
                let banner = Banner::decode(fields).map_err(malformed)?;
                self.banners = self.banners.saturating_add(1);
                Ok(if self.banners > BANNERS_MAX {
                    Outcome::Going
                } else {
                    Outcome::Banner(banner.text)
                })
            }
            (Request::Query(offered), number::USERAUTH_PK_OK) => {
                let ok = PkOk::decode(fields).map_err(malformed)?;
                // Some servers name another algorithm for an RSA key; the one that was asked for is
                // the one that is used.
                if ok.key != offered.key.as_blob() {
                    return Err(PeerMisbehaved::Unsolicited);
                }
                let offered = offered.clone();
                Ok(Outcome::Sign(self.sign(offered, session)))
            }
            (Request::Password, number::USERAUTH_PASSWD_CHANGEREQ) => {
                let request = PasswordChangeRequest::decode(fields).map_err(malformed)?;
                self.on_question()?;
                self.state = State::Expired;
                Ok(Outcome::PasswordExpired(text(request.prompt)))
            }
            (Request::KeyboardInteractive, number::USERAUTH_INFO_REQUEST) => {
                let request = InfoRequest::decode(fields).map_err(malformed)?;
                self.on_question()?;
                self.state = State::Answering;
                Ok(Outcome::Questions(questions(&request)))
            }
            _ => unexpected,
        }
    }

    fn on_question(&mut self) -> Result<(), PeerMisbehaved> {
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds > ROUNDS_MAX {
            return Err(PeerMisbehaved::EndlessQuestions);
        }
        Ok(())
    }
}

fn questions(request: &InfoRequest<'_>) -> Questions {
    let prompt = |prompt: &crate::message::auth::Prompt<'_>| Prompt {
        text: text(prompt.text),
        echo: prompt.echo,
    };
    Questions {
        name: text(request.name),
        instruction: text(request.instruction),
        prompts: request.prompts.iter().map(prompt).collect(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
