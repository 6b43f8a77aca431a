//! The `ketch` command: arguments → plan → one file for each command → exit code.
//!
//! | step | module |
//! | --- | --- |
//! | what was typed | `args` |
//! | a proxy, as it is typed | `proxy` |
//! | what it means: host, files, keys, policies | `plan` |
//! | doing it | `cmd` |
//! | asking for a password or passphrase | `prompt` |
//! | lines and progress | `output` |
//! | the log of a server or listener | `log` |
//! | Ctrl-C | `interrupt` |
//! | what went wrong, and the code to end with | `failed`, `exit` |
//! | the process's memory is its own | `shield` |
//!
//! The whole program runs on one thread, but for the flows of a listener's file; only what blocks (questions to the user, slow disks) is
//! handed to others.
#![forbid(unsafe_code)]

mod args;
mod cmd;
mod exit;
mod failed;
mod interrupt;
#[cfg(unix)]
mod log;
mod output;
mod plan;
mod prompt;
mod proxy;
#[cfg(target_os = "linux")]
mod shield;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use args::{Command, Line};
use failed::Failed;

/// How long the program waits, at its end, for threads that are still in a blocking call.
const END_TIMEOUT: Duration = Duration::from_millis(200);

/// Turns of tasks after which interrupts and timers are looked for: a turn of a connection that
/// brings more than can be worked off is long, and 61 of them would be seconds.
const EVENT_INTERVAL: u32 = 4;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    shield::raise();
    let line = Line::parse();
    allow_open_files();
    let mut builder = match &line.command {
        // Many servers at a time, for as long as it runs.
        Command::Listen(args) if args.is_of_file() => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = match builder.enable_all().event_interval(EVENT_INTERVAL).build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(Err(Failed::local("cannot start", error))),
    };
    let result = runtime.block_on(run(line.command));
    runtime.shutdown_timeout(END_TIMEOUT);
    exit::report(result)
}

/// Lets as many files be open as the system allows: many small ones are under way at a time.
fn allow_open_files() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let current = limit.maximum;
        // Without it there are fewer at a time.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
    }
}

/// Does what the command says. Transfers and the server end in good order when they are
/// interrupted; everything else is simply given up.
async fn run(command: Command) -> Result<(), Failed> {
    match command {
        Command::Get(args) => cmd::get::run(plan::Get::new(args)?).await,
        Command::Put(args) => cmd::put::run(plan::Put::new(args)?).await,
        Command::Sync(args) => cmd::sync::run(plan::Sync::new(args)?).await,
        Command::Ls(args) => interrupt::or(cmd::ls::run(plan::Ls::new(args)?)).await?,
        Command::Cat(args) => interrupt::or(cmd::cat::run(args)).await?,
        Command::Find(args) => interrupt::or(cmd::find::run(args)).await?,
        Command::Rm(args) => interrupt::or(cmd::rm::run(args)).await?,
        Command::Mkdir(args) => interrupt::or(cmd::mkdir::create(args)).await?,
        Command::Rmdir(args) => interrupt::or(cmd::mkdir::remove(args)).await?,
        Command::Mv(args) => interrupt::or(cmd::mv::run(args)).await?,
        Command::Ln(args) => interrupt::or(cmd::ln::run(args)).await?,
        Command::Chmod(args) => interrupt::or(cmd::stat::permissions(args)).await?,
        Command::Stat(args) => interrupt::or(cmd::stat::run(args)).await?,
        Command::Df(args) => interrupt::or(cmd::stat::file_system(args)).await?,
        #[cfg(unix)]
        Command::Listen(args) if args.is_of_file() => cmd::flows::run(args).await,
        #[cfg(not(unix))]
        Command::Listen(args) if args.is_of_file() => Err(Failed::UnixOnly("listen --config")),
        Command::Listen(args) => interrupt::or(cmd::listen::run(plan::Listen::new(args)?)).await?,
        Command::Exec(args) => interrupt::or(cmd::exec::run(plan::Exec::new(args)?)).await?,
        Command::Algorithms(args) => cmd::algorithms::run(&args),
        Command::Serve(args) => cmd::serve::run(args).await,
        Command::Demo(args) => interrupt::or(cmd::demo::run(args)).await?,
    }
}
