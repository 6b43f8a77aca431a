//! `ketch demo`: everything once, with a server, keys and files of its own.

#[cfg(unix)]
mod files;
#[cfg(unix)]
mod server;
#[cfg(unix)]
mod story;

use crate::args::DemoArgs;
use crate::failed::Failed;

/// Tells the story.
#[cfg(unix)]
pub(crate) async fn run(args: DemoArgs) -> Result<(), Failed> {
    story::tell(args).await
}

/// The embedded server confines its users by means that only Unix has.
#[cfg(not(unix))]
pub(crate) async fn run(_: DemoArgs) -> Result<(), Failed> {
    Err(Failed::UnixOnly("demo"))
}
