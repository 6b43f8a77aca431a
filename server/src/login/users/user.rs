//! A user to be, as a program describes one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_keys::PublicKey;
use ketch_transport::config::AuthMethod;
use zeroize::Zeroizing;

use crate::fs::FileSystem;
use crate::login::credentials::{Authority, AuthorizedKey, Source};
use crate::login::password_hash::PasswordHash;
use crate::login::stay::Stay;
use crate::policy::Access;
use crate::policy::terms::Terms;

/// A user to be: a name, a root, and at least one way to log in.
#[derive(Clone)]
pub struct User {
    pub(super) name: String,
    pub(super) root: UserRoot,
    pub(super) password: Option<Password>,
    pub(super) expired: Option<String>,
    pub(super) keys: Vec<AuthorizedKey>,
    pub(super) authorities: Vec<Authority>,
    pub(super) required: Vec<AuthMethod>,
    pub(super) questions: bool,
    pub(super) stay: Stay,
    pub(super) access: Access,
    pub(super) symbolic_links: bool,
    pub(super) hard_links: bool,
    pub(crate) terms: Terms,
}

#[derive(Clone)]
pub(super) enum Password {
    Plain(Zeroizing<String>),
    Hash(Arc<PasswordHash>),
}

#[derive(Clone, Debug)]
pub(super) enum UserRoot {
    Local(PathBuf),
    Other(Arc<dyn FileSystem>),
}

impl User {
    /// A user who sees the directory `root` of this machine as `/`, and nothing else.
    #[must_use]
    pub fn new(name: impl Into<String>, root: impl AsRef<Path>) -> Self {
        Self::with_root(name.into(), UserRoot::Local(root.as_ref().to_owned()))
    }

    /// A user who sees `files` as `/`.
    #[must_use]
    pub fn with_file_system(name: impl Into<String>, files: Arc<dyn FileSystem>) -> Self {
        Self::with_root(name.into(), UserRoot::Other(files))
    }

    fn with_root(name: String, root: UserRoot) -> Self {
        Self {
            name,
            root,
            password: None,
            expired: None,
            keys: Vec::new(),
            authorities: Vec::new(),
            required: Vec::new(),
            questions: false,
            stay: Stay::default(),
            access: Access::ReadWrite,
            symbolic_links: false,
            hard_links: false,
            terms: Terms::default(),
        }
    }

    /// Lets the user in with this password (1 to [`PASSWORD_LEN_MAX`](crate::PASSWORD_LEN_MAX) bytes).
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Password::Plain(Zeroizing::new(password.into())));
        self
    }

    /// Lets the user in with the password that this was made of. To compare takes milliseconds and
    /// megabytes: [`ServerLimits::password_hashes_max`](crate::ServerLimits::password_hashes_max) of
    /// them are computed at a time, also for those who do not exist or have another kind of password.
    #[must_use]
    pub fn password_hash(mut self, hash: PasswordHash) -> Self {
        self.password = Some(Password::Hash(Arc::new(hash)));
        self
    }

    /// The password has to be changed before it lets in: `prompt` says so to the user.
    /// [`ServerBuilder::change_passwords`](crate::ServerBuilder::change_passwords) keeps the new one.
    /// Default: it lets in.
    #[must_use]
    pub fn password_expired(mut self, prompt: impl Into<String>) -> Self {
        self.expired = Some(prompt.into());
        self
    }

    /// Lets the user in with this key, under its conditions; may be called for several.
    #[must_use]
    pub fn authorized_key(mut self, key: impl Into<AuthorizedKey>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Lets the user in with certificates of this authority that name one of these principals; may
    /// be called for several. Authorities whose certificates name users by their own names are the
    /// server's: [`ServerBuilder::user_authority`](crate::ServerBuilder::user_authority).
    #[must_use]
    pub fn certificate_authority(
        mut self,
        key: PublicKey,
        principals: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let principals = principals.into_iter().map(Into::into).collect();
        self.authorities.push(Authority { key, principals });
        self
    }

    /// Lets the user in when the right answers were given to the questions of
    /// [`ServerBuilder::ask_questions`](crate::ServerBuilder::ask_questions). Default: no.
    #[must_use]
    pub const fn questions(mut self) -> Self {
        self.questions = true;
        self
    }

    /// Wants these methods, all of them and in this order, at most [`STEPS_MAX`](crate::STEPS_MAX); a method that
    /// stands there twice wants two different keys. Default: any one that the user has.
    ///
    /// A key should come before a password: then nobody who has no key learns whether a password is
    /// right.
    #[must_use]
    pub fn require(mut self, methods: impl IntoIterator<Item = AuthMethod>) -> Self {
        self.required = methods.into_iter().collect();
        self
    }

    /// Lets the user in from these addresses alone, whatever the credential. If it is called more than
    /// once, each time has to allow the address; who comes by
    /// [`Server::serve_stream`](crate::Server::serve_stream) has none. Default: from anywhere.
    ///
    /// Who may not log in is answered as somebody with wrong credentials is; that holds for
    /// [`User::expires`], [`User::connections_max`] and [`User::disabled`] too.
    #[must_use]
    pub fn sources(mut self, sources: impl IntoIterator<Item = Source>) -> Self {
        self.stay.sources.push(sources.into_iter().collect());
        self
    }

    /// The user may not log in from that second on (since 1970), and who is there then is disconnected
    /// within a second. Default: never expires.
    #[must_use]
    pub const fn expires(mut self, unix: u64) -> Self {
        self.stay.expires = Some(unix);
        self
    }

    /// Connections that the user may have at a time; more are not let in. Default: as many as
    /// [`ServerLimits::connections_max`](crate::ServerLimits::connections_max).
    #[must_use]
    pub const fn connections_max(mut self, connections: usize) -> Self {
        self.stay.connections_max = Some(connections);
        self
    }

    /// The user may not log in. Default: may.
    #[must_use]
    pub const fn disabled(mut self) -> Self {
        self.stay.disabled = true;
        self
    }

    /// Lets the user look only. Default: read and write.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.access = Access::ReadOnly;
        self
    }

    /// Lets the user make symbolic links: relative ones without `..`. Default: no.
    /// Links that are there are followed as long as they stay beneath it.
    #[must_use]
    pub const fn allow_symbolic_links(mut self) -> Self {
        self.symbolic_links = true;
        self
    }

    /// Lets the user give files a second name (`hardlink@openssh.com`). Default: no.
    #[must_use]
    pub const fn allow_hard_links(mut self) -> Self {
        self.hard_links = true;
        self
    }
}

/// Shows no password.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("root", &self.root)
            .field("has_password", &self.password.is_some())
            .field("keys", &self.keys.len())
            .field("authorities", &self.authorities.len())
            .field("required", &self.required)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}
