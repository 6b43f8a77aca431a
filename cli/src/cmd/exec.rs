//! `ketch exec`: a command on the server, with our standard streams and its exit code.

use std::io;

use ketch_client::exec::{Exit, Program};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::cmd::login;
use crate::failed::Failed;
use crate::plan::Exec;

/// Bytes that are moved at once.
const PIECE_LEN: usize = 64 * 1024;
/// Most variables of our environment that are sent, as `SendEnv` names them.
const VARIABLES_MAX: usize = 128;

/// Runs the command and ends as it ends.
pub(crate) async fn run(plan: Exec) -> Result<(), Failed> {
    let (session, settings) = login::session_and_settings(&plan.connection).await?;
    let mut program = Program::exec(plan.command);
    let sent = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        settings.sends_variable(&name).then_some((name, value))
    });
    let set = settings.set_env.iter().cloned();
    for (name, value) in set.chain(sent).take(VARIABLES_MAX) {
        program = program.env(name, value);
    }
    let mut process = session.run(program).await?;
    let (stdin, stdout, stderr) = (
        process.stdin.take(),
        process.stdout.take(),
        process.stderr.take(),
    );
    // What is typed is nobody's business once the command has ended.
    let input = async {
        if let Some(mut stdin) = stdin {
            // A command need not read: then the server closes its input.
            let _ = pump(&mut tokio::io::stdin(), &mut stdin).await;
            let _ = stdin.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let output = async {
        let out = async {
            match stdout {
                Some(mut stdout) => pump(&mut stdout, &mut tokio::io::stdout()).await,
                None => Ok(()),
            }
        };
        let err = async {
            match stderr {
                Some(mut stderr) => pump(&mut stderr, &mut tokio::io::stderr()).await,
                None => Ok(()),
            }
        };
        let (out, err) = tokio::join!(out, err);
        out.and(err)
    };
    tokio::select! {
        biased;
        done = output => done.map_err(Failed::output)?,
        () = input => {}
    }
    let exit = process.wait().await?;
    session.disconnect().await;
    match code(&exit) {
        0 => Ok(()),
        code => Err(Failed::Remote(code)),
    }
}

/// Moves bytes as they come: who waits for them waits for each.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_LEN];
    loop {
        let len = from.read(&mut piece).await?;
        let Some(bytes) = piece.get(..len).filter(|bytes| !bytes.is_empty()) else {
            return to.flush().await;
        };
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}

/// The code that a shell would give.
fn code(exit: &Exit) -> u8 {
    match exit {
        Exit::Status(status) => u8::try_from(*status).unwrap_or(u8::MAX),
        Exit::Signal { name, .. } => 128 + signal_number(name),
        _ => u8::MAX,
    }
}

/// The numbers of the signals that RFC 4254 §6.10 names, as Linux has them; 0 for others.
fn signal_number(name: &str) -> u8 {
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "ABRT" => 6,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_a_shell() {
        assert_eq!(code(&Exit::Status(0)), 0);
        assert_eq!(code(&Exit::Status(7)), 7);
        assert_eq!(code(&Exit::Status(256)), 255);
        let signal = |name: &str| Exit::Signal {
            name: name.to_owned(),
            core_dumped: false,
            message: String::new(),
        };
        assert_eq!(code(&signal("KILL")), 137);
        assert_eq!(code(&signal("TERM")), 143);
    }
}
