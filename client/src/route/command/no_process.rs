//! Without the feature `proxy-command` no program is ever started.

use std::convert::Infallible;
use std::ffi::OsString;

use super::{CommandError, RouteStream};

/// A stream that does not exist.
pub(crate) type ChildStream = tokio::io::Empty;

/// A program that does not run.
#[derive(Debug)]
pub(crate) struct Child(Infallible);

impl Child {
    pub(crate) async fn settle(self) -> CommandError {
        match self.0 {}
    }
}

pub(super) const fn start(_: &OsString, _: &[OsString]) -> Result<RouteStream, CommandError> {
    Err(CommandError::Unsupported)
}
