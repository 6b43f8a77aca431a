//! An ssh-agent as a client uses it: which keys are there, and signatures with them.
//!
//! [`message`] is the protocol, bytes to values; here is the thin part that has a stream. An agent is
//! asked to list and to sign, is told for which server, and nothing else: keys are neither added nor removed, and an agent is
//! never forwarded to a server. What it signs is verified before it is used. On Unix the agent is a
//! socket; elsewhere a stream to it, such as a named pipe, is the caller's to open
//! ([`Agent::over`]).

pub mod message;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ketch_keys::{PublicKey, SignatureAlgorithm};
use ketch_transport::info::HostProof;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::{Failure, Kind};
use message::{
    BadReply, Frames, Request, SignFlags, decode_bound, decode_identities, decode_signature,
};

/// How long an agent may take to list its keys: nobody is asked.
pub const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to sign: somebody may have to touch a key, or to say yes.
pub const SIGN_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes that are read from an agent at once.
const READ_LEN: usize = 4096;

/// Where an agent is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AgentPath {
    /// Where the variable `SSH_AUTH_SOCK` says.
    Environment,
    /// At this socket.
    Socket(PathBuf),
}

/// A connection to an agent.
pub struct Agent {
    stream: Box<dyn Stream>,
    frames: Frames,
    /// A request is out: after one that was given up, its answer would be taken for the next one's.
    is_asked: bool,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for S {}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").finish_non_exhaustive()
    }
}

/// A key that an agent has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentKey {
    /// The key, or a certificate for it.
    pub key: PublicKey,
    /// What the user calls it, escaped.
    pub comment: String,
}

impl Agent {
    /// Connects to an agent.
    ///
    /// # Errors
    /// [`AgentError::NotSet`], [`AgentError::Unreachable`], [`AgentError::TimedOut`].
    pub async fn connect(path: &AgentPath) -> Result<Self, AgentError> {
        let path = match path {
            AgentPath::Socket(path) => path.clone(),
            AgentPath::Environment => std::env::var_os("SSH_AUTH_SOCK")
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
                .ok_or(AgentError::NotSet)?,
        };
        match timeout(LIST_TIMEOUT, open(&path)).await {
            Ok(Ok(stream)) => Ok(Self::over(stream)),
            Ok(Err(source)) => Err(AgentError::Unreachable { path, source }),
            Err(_) => Err(AgentError::TimedOut),
        }
    }

    /// An agent at the other end of a stream.
    #[must_use]
    pub fn over<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    {
        Self {
            stream: Box::new(stream),
            frames: Frames::default(),
            is_asked: false,
        }
    }

    /// Tells it for which server it will be asked to sign, with the proof of that: an agent may hold
    /// keys for some servers alone, and lists them then. Call it before anything else.
    ///
    /// # Errors
    /// [`AgentError`]; [`AgentError::Refused`] also from an agent that does not know of this, which
    /// is no reason not to go on.
    pub async fn bind(&mut self, proof: &HostProof) -> Result<(), AgentError> {
        let request = Request::Bind {
            host_key: proof.host_key.as_blob(),
            session_id: &proof.session_id,
            signature: &proof.signature,
        };
        let reply = self.ask(&request, LIST_TIMEOUT).await?;
        Ok(decode_bound(&reply)?)
    }

    /// The keys that it has, in its order, without those of types that are not known here.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn keys(&mut self) -> Result<Vec<AgentKey>, AgentError> {
        let reply = self.ask(&Request::Identities, LIST_TIMEOUT).await?;
        let listed = decode_identities(&reply)?;
        let known = listed.iter().filter_map(|listed| {
            let key = PublicKey::from_blob(listed.key).ok()?;
            let comment = String::from_utf8_lossy(listed.comment);
            let comment = comment.escape_default().to_string();
            Some(AgentKey { key, comment })
        });
        Ok(known.collect())
    }

    /// Has `data` signed; the signature blob fits the key, or there is an error.
    ///
    /// # Errors
    /// [`AgentError`]; [`AgentError::Refused`] also if the user said no.
    pub async fn sign(
        &mut self,
        key: &PublicKey,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, AgentError> {
        let request = Request::Sign {
            key: key.as_blob(),
            data,
            flags: match algorithm.plain() {
                SignatureAlgorithm::RsaSha256 => SignFlags::RsaSha256,
                SignatureAlgorithm::RsaSha512 => SignFlags::RsaSha512,
                _ => SignFlags::None,
            },
        };
        let reply = self.ask(&request, SIGN_TIMEOUT).await?;
        let signature = decode_signature(&reply)?;
        // An agent that knows only SHA-1 passes the flags over, and a broken one sends anything.
        match key.verify(algorithm, data, signature) {
            Ok(_) => Ok(signature.to_vec()),
            Err(_) => Err(AgentError::BadSignature),
        }
    }

    async fn ask(
        &mut self,
        request: &Request<'_>,
        patience: Duration,
    ) -> Result<Vec<u8>, AgentError> {
        match timeout(patience, self.exchange(request)).await {
            Ok(reply) => reply,
            Err(_) => Err(AgentError::TimedOut),
        }
    }

    async fn exchange(&mut self, request: &Request<'_>) -> Result<Vec<u8>, AgentError> {
        if self.is_asked || !self.frames.is_empty() {
            return Err(AgentError::Broken);
        }
        self.is_asked = true;
        self.stream.write_all(&request.to_frame()).await?;
        self.stream.flush().await?;
        let mut read = [0; READ_LEN];
        loop {
            let len = self.stream.read(&mut read).await?;
            if len == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.frames.push(read.get(..len).unwrap_or_default());
            if let Some(payload) = self.frames.next_payload()? {
                self.is_asked = false;
                return Ok(payload);
            }
        }
    }
}

#[cfg(unix)]
async fn open(path: &std::path::Path) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(path).await
}

#[cfg(not(unix))]
async fn open(_path: &std::path::Path) -> io::Result<tokio::io::DuplexStream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Why an agent does not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// There is none.
    #[error("there is no ssh-agent: SSH_AUTH_SOCK is not set")]
    NotSet,
    /// There is none at that place.
    #[error("the ssh-agent at {} is not there", path.display())]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection to it broke.
    #[error("the connection to the ssh-agent broke")]
    Lost(#[from] io::Error),
    /// It does not answer.
    #[error("the ssh-agent does not answer")]
    TimedOut,
    /// It refused, or the user did.
    #[error("the ssh-agent refused: the key is locked or gone, or somebody said no")]
    Refused,
    /// It does not speak the protocol.
    #[error("the ssh-agent does not answer as one should")]
    BadReply(#[source] BadReply),
    /// It signed with something else than was asked for.
    #[error("the signature of the ssh-agent does not fit the key; an old agent may not know SHA-2")]
    BadSignature,
    /// A request was given up before: the connection is of no use any more.
    #[error("the connection to the ssh-agent is of no use after a request that was given up")]
    Broken,
}

impl From<BadReply> for AgentError {
    fn from(reply: BadReply) -> Self {
        match reply {
            BadReply::Refused => Self::Refused,
            other => Self::BadReply(other),
        }
    }
}

impl Failure for AgentError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotSet | Self::Unreachable { .. } => Kind::NotFound,
            Self::TimedOut => Kind::Timeout,
            Self::Refused => Kind::Auth,
            Self::Lost(_) | Self::BadReply(_) | Self::BadSignature | Self::Broken => Kind::Local,
        }
    }
}
