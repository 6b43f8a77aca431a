//! What there is to log in with, in the order in which it is offered.
//!
//! The keys that were named, then those of the agent, then the server's own questions, then a
//! password. Each is offered once, and only where the server takes its method; what is not taken
//! now stays for later, because a server may want a password after a key.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use ketch_keys::{KeyType, PublicKey, SignatureAlgorithm};
use ketch_transport::auth::signature_algorithms;
use ketch_transport::info::HostProof;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::questions::Asker;
use super::{Skipped, Tried};
use crate::agent::{Agent, AgentError, AgentPath};
use crate::identity::{Identity, IdentityError, Origin};

/// Most credentials that are offered. OpenSSH's server disconnects at the sixth failure, and some
/// servers ban who gets there.
const TRIES_MAX: usize = 5;
/// How often a user may answer the same question wrongly.
const ASKED_MAX: u32 = 3;

/// What there is to log in with.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    pub(super) identities: Vec<Identity>,
    pub(super) agent: Option<AgentPath>,
    pub(super) agent_asks: bool,
    pub(super) identities_only: bool,
    /// Fingerprint of the key to begin with.
    pub(super) first: Option<String>,
    pub(super) password: Option<Password>,
    pub(super) asker: Asker,
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
    pub(super) const fn is_empty(&self) -> bool {
        self.identities.is_empty()
            && self.agent.is_none()
            && self.password.is_none()
            && self.asker.password.is_none()
            && self.asker.questions.is_none()
            && !self.allow_none
    }
}

/// Something to offer.
#[derive(Clone, Debug)]
pub(super) enum Offer {
    /// Nothing, to learn what the server takes, or because that may be enough.
    None,
    /// A key or certificate.
    Key(KeyOffer),
    /// A key that does not show what it is before its passphrase is given.
    HiddenKey(Identity),
    /// Answers to the server's questions.
    Answers {
        /// How often they were wrong.
        failed: u32,
    },
    /// A password that was given.
    Password(Password),
    /// A password that is asked for.
    AskPassword {
        /// How often it was wrong.
        failed: u32,
    },
}

/// A key or certificate, and who signs for it.
#[derive(Clone, Debug)]
pub(super) struct KeyOffer {
    pub(super) key: PublicKey,
    /// With what it signs; `None` before the server could say what it verifies.
    pub(super) algorithm: Option<SignatureAlgorithm>,
    pub(super) signer: Signer,
    /// A signature means a question to the user: the server is asked about the key first.
    pub(super) probe: bool,
    origin: Origin,
}

/// Who signs.
#[derive(Clone, Debug)]
pub(super) enum Signer {
    /// A private key that is here.
    Identity(Identity),
    /// The agent.
    Agent {
        /// The connection to it.
        agent: Arc<Mutex<Agent>>,
        /// The form in which it has the key: plain, or a certificate.
        listed: PublicKey,
    },
}

impl Offer {
    const fn method(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Key(_) | Self::HiddenKey(_) => "publickey",
            Self::Answers { .. } => "keyboard-interactive",
            Self::Password(_) | Self::AskPassword { .. } => "password",
        }
    }

    /// Whether the user is asked before the server hears of it.
    const fn asks_first(&self) -> bool {
        matches!(self, Self::HiddenKey(_) | Self::AskPassword { .. })
    }

    pub(super) fn as_tried(&self) -> Tried {
        match self {
            Self::None => Tried::None,
            Self::Password(_) | Self::AskPassword { .. } => Tried::Password,
            Self::Answers { .. } => Tried::Answers,
            Self::Key(KeyOffer {
                key, origin, probe, ..
            }) => Tried::Key {
                fingerprint: key.fingerprint(),
                origin: origin.clone(),
                asks: *probe,
            },
            Self::HiddenKey(identity) => Tried::Key {
                fingerprint: identity.fingerprint().unwrap_or_default(),
                origin: identity.origin().clone(),
                asks: true,
            },
        }
    }
}

/// What is still to be offered, and what became of the rest.
pub(super) struct Offers {
    waiting: VecDeque<Offer>,
    /// What was offered, in order.
    pub(super) tried: Vec<Tried>,
    /// Why something could not be offered, the last of those.
    pub(super) skipped: Option<Skipped>,
    /// The methods that the server takes, as it says; `None` before it did.
    pub(super) methods: Option<Vec<String>>,
    /// What users' keys may sign with here.
    allowed: Vec<SignatureAlgorithm>,
    /// With what the questions of a server are answered that are about a password.
    pub(super) password: Option<Password>,
    pub(super) asker: Asker,
}

/// A connection to an agent that knows who the server is, if it can.
async fn bound(path: &AgentPath, host: Option<&HostProof>) -> Result<Agent, AgentError> {
    let mut agent = Agent::connect(path).await?;
    let Some(host) = host else {
        return Ok(agent);
    };
    match agent.bind(host).await {
        Ok(()) => Ok(agent),
        Err(AgentError::Refused) => {
            tracing::debug!("the agent binds no keys to servers");
            Ok(agent)
        }
        // An agent that does not know of this may hang up, or say anything.
        Err(error) => {
            tracing::debug!(%error, "the agent was not told of the server");
            Agent::connect(path).await
        }
    }
}

impl Offers {
    /// Puts everything in order; an agent is told who the server is, and asked for its keys.
    pub(super) async fn new(
        credentials: Credentials,
        allowed: Vec<SignatureAlgorithm>,
        host: Option<HostProof>,
    ) -> Self {
        let Credentials {
            identities,
            agent,
            agent_asks,
            identities_only,
            first,
            password,
            asker,
            allow_none,
        } = credentials;
        let mut this = Self {
            waiting: VecDeque::new(),
            tried: Vec::new(),
            skipped: None,
            methods: None,
            allowed,
            password: password.clone(),
            asker,
        };
        let mut held = match agent {
            Some(path) => this.list(&path, agent_asks, host.as_ref()).await,
            None => Vec::new(),
        };
        for identity in identities {
            this.add_identity(&identity, &mut held);
        }
        if !identities_only {
            this.waiting.extend(held.into_iter().map(Offer::Key));
        }
        if let Some(first) = first {
            let is_first = |offer: &Offer| matches!(offer, Offer::Key(offer) if offer.key.fingerprint() == first);
            this.waiting
                .make_contiguous()
                .sort_by_key(|offer| !is_first(offer));
        }
        if this.asker.questions.is_some() || this.asker.password.is_some() || password.is_some() {
            this.waiting.push_back(Offer::Answers { failed: 0 });
        }
        this.waiting.extend(password.map(Offer::Password));
        if this.asker.password.is_some() {
            this.waiting.push_back(Offer::AskPassword { failed: 0 });
        }
        if this.waiting.is_empty() && allow_none {
            this.waiting.push_back(Offer::None);
        }
        this
    }

    /// What the agent has, if it is there.
    async fn list(
        &mut self,
        path: &AgentPath,
        asks: bool,
        host: Option<&HostProof>,
    ) -> Vec<KeyOffer> {
        let listed = async {
            let mut agent = bound(path, host).await?;
            let keys = agent.keys().await?;
            Ok::<_, AgentError>((agent, keys))
        };
        let (agent, keys) = match listed.await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "the agent is left out");
                self.skipped = Some(Skipped::Agent(error));
                return Vec::new();
            }
        };
        tracing::debug!(keys = keys.len(), "the agent has keys");
        let agent = Arc::new(Mutex::new(agent));
        let offer = |held: crate::agent::AgentKey| KeyOffer {
            algorithm: None,
            probe: asks || is_in_security_key(&held.key),
            origin: Origin::Agent(held.comment),
            signer: Signer::Agent {
                agent: Arc::clone(&agent),
                listed: held.key.clone(),
            },
            key: held.key,
        };
        keys.into_iter().map(offer).collect()
    }

    /// Adds a key that was named. If only the agent can sign with it, or can do so without asking
    /// for a passphrase, the agent does; either way the agent's own entry is used up.
    fn add_identity(&mut self, identity: &Identity, held: &mut Vec<KeyOffer>) {
        let Some(plain) = identity.public_key() else {
            if identity.stays_locked() {
                let origin = identity.origin().clone();
                return self.skip(Skipped::Identity(IdentityError::Locked { origin }));
            }
            self.waiting.push_back(Offer::HiddenKey(identity.clone()));
            return;
        };
        let is_it = |offer: &KeyOffer| offer.key.plain() == plain;
        let by_agent: Vec<_> = held.iter().filter(|offer| is_it(offer)).cloned().collect();
        held.retain(|offer| !is_it(offer));
        let mut keys: Vec<_> = identity.offers().collect();
        // Certificates that only the agent has.
        for offer in &by_agent {
            if !keys.contains(&offer.key) {
                keys.insert(0, offer.key.clone());
            }
        }
        for key in keys {
            // The agent signs for a certificate that it does not have as for the key.
            let by_agent = by_agent
                .iter()
                .find(|offer| offer.key == key)
                .or_else(|| by_agent.iter().find(|offer| offer.key == plain))
                .or_else(|| by_agent.first());
            let needs_agent = identity.is_locked() || identity.is_elsewhere();
            let offer = match by_agent {
                Some(offer) if needs_agent => KeyOffer {
                    key,
                    ..offer.clone()
                },
                None if identity.is_elsewhere() => {
                    let origin = identity.origin().clone();
                    return self.skip(Skipped::Identity(IdentityError::Elsewhere { origin }));
                }
                None if identity.stays_locked() => {
                    let origin = identity.origin().clone();
                    return self.skip(Skipped::Identity(IdentityError::Locked { origin }));
                }
                _ => own_offer(identity, key),
            };
            self.waiting.push_back(Offer::Key(offer));
        }
    }

    /// Whether nothing waits to be offered.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A key whose passphrase was given: it is known now, and comes next.
    pub(super) fn unhide(&mut self, identity: &Identity) {
        let keys: Vec<_> = identity.offers().collect();
        for key in keys.into_iter().rev() {
            self.waiting
                .push_front(Offer::Key(own_offer(identity, key)));
        }
    }

    /// Something could not be offered.
    pub(super) fn skip(&mut self, why: Skipped) {
        tracing::warn!(error = %why, "a credential is left out");
        self.skipped = Some(why);
    }

    /// The next that the server would take; `theirs` is what it says of signatures.
    pub(super) fn next(&mut self, theirs: Option<&[SignatureAlgorithm]>) -> Option<Offer> {
        if self.tried.len() >= TRIES_MAX {
            return None;
        }
        let at = self.position(theirs)?;
        // Nobody is asked for anything before it is known that the server takes it.
        if self.methods.is_none() && self.waiting.get(at).is_some_and(Offer::asks_first) {
            return Some(Offer::None);
        }
        let mut offer = self.waiting.remove(at)?;
        if let Offer::Key(offer) = &mut offer
            && offer.algorithm.is_none()
        {
            let algorithms = signature_algorithms(&offer.key, theirs, &self.allowed);
            offer.algorithm = algorithms.first().copied();
            if offer.algorithm.is_none() {
                tracing::debug!(key = ?offer.key, "keys of this type are not allowed here");
                return self.next(theirs);
            }
        }
        Some(offer)
    }

    /// The first whose method the server takes. Of keys, those go first that the server says it
    /// verifies.
    fn position(&self, theirs: Option<&[SignatureAlgorithm]>) -> Option<usize> {
        let names = |method: &str| {
            self.methods
                .as_ref()
                .is_none_or(|methods| methods.iter().any(|name| name == method))
        };
        let is_taken = |offer: &Offer| match offer {
            // Where nobody answers questions, a password does better by its own method.
            Offer::Answers { .. } if self.asker.questions.is_none() => {
                names(offer.method()) && !names("password")
            }
            _ => names(offer.method()),
        };
        let at = self.waiting.iter().position(is_taken)?;
        let (Some(Offer::Key(_)), Some(theirs)) = (self.waiting.get(at), theirs) else {
            return Some(at);
        };
        let is_listed = |offer: &Offer| {
            matches!(offer, Offer::Key(offer)
                if offer.key.algorithms().iter().any(|each| theirs.contains(&each.plain())))
        };
        let keys = self.waiting.iter().enumerate().skip(at);
        let mut keys = keys.take_while(|(_, offer)| matches!(offer, Offer::Key(_)));
        Some(
            keys.find(|(_, offer)| is_listed(offer))
                .map_or(at, |(at, _)| at),
        )
    }

    /// What the user typed was wrong: it may be typed again, if the server goes on asking.
    pub(super) fn retry(&mut self, offer: Offer) {
        let again = match offer {
            Offer::Answers { failed } if self.asker.questions.is_some() => {
                Offer::Answers { failed: failed + 1 }
            }
            Offer::AskPassword { failed } => Offer::AskPassword { failed: failed + 1 },
            _ => return,
        };
        match &again {
            Offer::Answers { failed } | Offer::AskPassword { failed } if *failed < ASKED_MAX => {
                self.waiting.push_front(again);
            }
            _ => {}
        }
    }

    /// The same key with its next algorithm, where a server does not say what it verifies and an
    /// old one is allowed.
    pub(super) fn retry_older(&mut self, mut offer: KeyOffer) {
        let mut algorithms = signature_algorithms(&offer.key, None, &self.allowed).into_iter();
        let _ = algorithms.find(|algorithm| Some(*algorithm) == offer.algorithm);
        if let Some(older) = algorithms.next() {
            offer.algorithm = Some(older);
            self.waiting.push_front(Offer::Key(offer));
        }
    }
}

fn own_offer(identity: &Identity, key: PublicKey) -> KeyOffer {
    KeyOffer {
        algorithm: None,
        key,
        probe: identity.is_locked(),
        origin: identity.origin().clone(),
        signer: Signer::Identity(identity.clone()),
    }
}

fn is_in_security_key(key: &PublicKey) -> bool {
    matches!(key.key_type(), KeyType::SkEd25519 | KeyType::SkEcdsaP256)
}
