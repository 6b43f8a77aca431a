//! What a configuration may ask about this machine: homes, names, the environment.

#[cfg(test)]
use std::collections::HashMap;
use std::path::PathBuf;

use crate::platform::{account, user_files};

/// Facts about the user and the machine.
#[derive(Clone, Debug)]
pub(super) struct Local {
    /// The user's home directory.
    pub(super) home: Option<PathBuf>,
    /// The directory of the machine's own SSH configuration.
    pub(super) machine_dir: Option<PathBuf>,
    /// The name of the account.
    pub(super) user: String,
    /// Its number, where it has one.
    pub(super) user_id: String,
    /// The machine's name, with its domain if it knows it.
    pub(super) host_name: String,
    #[cfg(test)]
    variables: HashMap<String, String>,
}

impl Local {
    pub(super) fn of_this_machine() -> Self {
        Self {
            home: user_files::home_dir(),
            machine_dir: user_files::machine_ssh_dir(),
            user: account::user_name().unwrap_or_default(),
            user_id: account::user_id(),
            host_name: account::host_name(),
            #[cfg(test)]
            variables: HashMap::new(),
        }
    }

    /// `~/.ssh`.
    pub(super) fn ssh_dir(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".ssh"))
    }

    /// The machine's name up to the first dot.
    pub(super) fn short_host_name(&self) -> &str {
        self.host_name.split('.').next().unwrap_or_default()
    }

    pub(super) fn home_of(&self, user: &str) -> Option<PathBuf> {
        if user == self.user {
            return self.home.clone();
        }
        account::home_of(user)
    }

    /// An environment variable that is set, to text.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        #[cfg(test)]
        if let Some(value) = self.variables.get(name) {
            return Some(value.clone());
        }
        std::env::var(name).ok()
    }
}

#[cfg(test)]
impl Local {
    pub(super) fn for_tests(home: impl Into<PathBuf>) -> Self {
        let mut local = Self::of_this_machine();
        local.home = Some(home.into());
        local
    }

    pub(super) fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }
}
