//! The running program: its standard input and output are the stream, what it writes to standard
//! error is kept for the error that may come.

use std::ffi::{OsStr, OsString};
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::{CommandError, RouteStream};

/// The last so many bytes of what it says are kept.
const SAID_LEN_MAX: usize = 1024;
/// How long a program that closed its output may take to say why and to end.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);

/// Starts a program. It is killed when nobody holds anything of it any more.
pub(super) fn start(program: &OsStr, arguments: &[OsString]) -> Result<RouteStream, CommandError> {
    let failed = |source| CommandError::Start {
        program: program.to_owned(),
        source,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let pipe = || failed(io::ErrorKind::BrokenPipe.into());
    let stdin = child.stdin.take().ok_or_else(pipe)?;
    let stdout = child.stdout.take().ok_or_else(pipe)?;
    let side = Side {
        program: program.to_owned(),
        stderr: child.stderr.take(),
        child,
        said: Vec::new(),
    };
    Ok(RouteStream::Command(ChildStream {
        stdin: Some(stdin),
        stdout,
        child: Child(Arc::new(Mutex::new(side))),
    }))
}

/// Standard input and output of a program as one stream.
#[derive(Debug)]
pub(crate) struct ChildStream {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    child: Child,
}

impl ChildStream {
    /// The program, to ask what became of it when the stream is gone.
    pub(crate) fn child(&self) -> Child {
        Child(Arc::clone(&self.child.0))
    }
}

impl AsyncRead for ChildStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A program whose words nobody reads would stop at a full pipe.
        this.child.listen(cx);
        Pin::new(&mut this.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for ChildStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stdin = None; // closing the pipe is how its end is said
        Poll::Ready(Ok(()))
    }
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Child(Arc<Mutex<Side>>);

#[derive(Debug)]
struct Side {
    program: OsString,
    child: tokio::process::Child,
    stderr: Option<ChildStderr>,
    said: Vec<u8>,
}

impl Child {
    /// Takes what the program says now.
    fn listen(&self, cx: &mut Context<'_>) {
        let mut side = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Side { stderr, said, .. } = &mut *side;
        let mut block = [0; 512];
        while let Some(pipe) = stderr {
            let mut buf = ReadBuf::new(&mut block);
            match Pin::new(pipe).poll_read(cx, &mut buf) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => keep(said, buf.filled()),
                Poll::Ready(_) => *stderr = None,
            }
        }
    }

    /// Once the stream is dropped: waits a little until the program is through, and says what
    /// became of it.
    pub(crate) async fn settle(self) -> CommandError {
        let Some(side) = Arc::into_inner(self.0) else {
            return CommandError::Unsupported; // never: the stream held the only other one
        };
        let Side {
            program,
            mut child,
            stderr,
            mut said,
        } = side.into_inner().unwrap_or_else(PoisonError::into_inner);
        let end = async {
            if let Some(mut stderr) = stderr {
                let mut block = [0; 512];
                while let Ok(len @ 1..) = stderr.read(&mut block).await {
                    keep(&mut said, &block[..len]);
                }
            }
            child.wait().await
        };
        let status = match timeout(SETTLE_LIMIT, end).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it closed its output".to_owned(),
        };
        CommandError::Ended {
            program,
            status,
            said: said.trim_ascii().escape_ascii().to_string(),
        }
    }
}

/// Appends, and drops what is too much at the front.
fn keep(said: &mut Vec<u8>, more: &[u8]) {
    said.extend_from_slice(more);
    let excess = said.len().saturating_sub(SAID_LEN_MAX);
    said.drain(..excess);
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    fn sh(script: &str) -> RouteStream {
        start(OsStr::new("sh"), &["-c".into(), script.into()]).unwrap()
    }

    #[tokio::test]
    async fn input_and_output_of_a_program_are_the_stream() {
        let mut stream = sh("read a; echo \"got $a\"; cat >/dev/null; echo end");
        stream.write_all(b"x\n").await.unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"got x\n");
        stream.shutdown().await.unwrap();
        assert!(stream.write_all(b"x").await.is_err());
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"end\n");
    }

    #[tokio::test]
    async fn what_it_said_and_how_it_ended_can_be_asked() {
        let mut stream = sh("seq 1 20000 >&2; printf 'no \\033[2J way\\n' >&2; exit 3");
        let remains = stream.remains();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        drop(stream);
        let error = remains.settle().await.unwrap();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.ends_with(r"no \x1b[2J way"),
            "{text}"
        );
        assert!(text.len() < 4 * SAID_LEN_MAX, "{}", text.len());
    }

    #[tokio::test]
    async fn a_program_that_is_dropped_ends() {
        let mut stream = sh("echo $$; exec sleep 1000");
        let mut digits = Vec::new();
        while digits.last() != Some(&b'\n') {
            digits.push(stream.read_u8().await.unwrap());
        }
        let pid = String::from_utf8(digits).unwrap();
        let proc = std::path::Path::new("/proc").join(pid.trim());
        assert!(proc.exists() || !cfg!(target_os = "linux"));
        drop(stream);
        while proc.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_only_closes_its_output_is_not_waited_for() {
        let mut stream = sh("exec >&- 2>&-; sleep 1000");
        let remains = stream.remains();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        drop(stream);
        let error = remains.settle().await.unwrap();
        assert!(error.to_string().contains("closed its output"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_does_not_exist_is_named() {
        let error = start(OsStr::new("no-such-program-here"), &[]).unwrap_err();
        assert!(
            error.to_string().contains("no-such-program-here"),
            "{error}"
        );
    }
}
