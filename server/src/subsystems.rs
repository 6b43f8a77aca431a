//! What an embedding program offers on its connections beside `sftp`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ketch_transport::driver::Application;

/// Makes the application for one channel of a user who is logged in, named by the argument.
type Start = dyn Fn(&str) -> Box<dyn Application> + Send + Sync;

/// Subsystems by name. Clones are the same ones.
#[derive(Clone, Default)]
pub(crate) struct Subsystems {
    by_name: BTreeMap<String, Arc<Start>>,
}

impl Subsystems {
    pub(crate) fn add(&mut self, name: String, start: Arc<Start>) {
        self.by_name.insert(name, start);
    }

    /// The application for a channel on which `user` asked for the subsystem `name`.
    pub(crate) fn start(&self, name: &str, user: &str) -> Option<Box<dyn Application>> {
        self.by_name.get(name).map(|start| start(user))
    }
}

impl fmt::Debug for Subsystems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}
