//! A server program that takes one connection on its standard input and output (`sshd -i`,
//! `dropbear -i`): the port is ours, so none has to be guessed, and one program can be started in
//! several ways at a time.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

/// A listener that starts the program for each connection.
#[derive(Debug)]
pub(crate) struct Inetd {
    pub(crate) addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Inetd {
    /// `command` makes the program's command line; what it writes to standard error goes to `log`.
    pub(crate) async fn start(
        log: PathBuf,
        command: impl Fn() -> Command + Send + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut children = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let start = || -> std::io::Result<_> {
                    let stream = stream.into_std()?;
                    stream.set_nonblocking(false)?;
                    let output = OwnedFd::from(stream.try_clone()?);
                    let log = OpenOptions::new().create(true).append(true).open(&log)?;
                    command()
                        .stdin(Stdio::from(OwnedFd::from(stream)))
                        .stdout(Stdio::from(output))
                        .stderr(log)
                        .kill_on_drop(true)
                        .spawn()
                };
                match start() {
                    Ok(child) => children.push(child),
                    Err(error) => panic!("{error}: run scripts/setup-peers"),
                }
                children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            }
        });
        Ok(Self { addr, task })
    }
}

impl Drop for Inetd {
    fn drop(&mut self) {
        self.task.abort();
    }
}
