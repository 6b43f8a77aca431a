//! A network of its own (network_namespaces(7)) for whoever runs on one thread.
//!
//! The namespace has no name: it is gone with the thread and the programs that were started there.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Sender};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::BenchError;
use crate::tool::run;

type Work = Box<dyn FnOnce() + Send>;

/// A thread that sees a network of its own, with nothing in it but loopback.
#[derive(Debug)]
pub struct Namespace {
    work: Sender<Work>,
}

impl Namespace {
    /// Why there can be none here, in one clause; `None` if there can.
    #[must_use]
    pub fn absent() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("network namespaces need root".to_owned());
        }
        if !Path::new("/dev/net/tun").exists() {
            return Some("there is no /dev/net/tun".to_owned());
        }
        crate::tool::in_path("ip").err()
    }

    /// A fresh one.
    ///
    /// # Errors
    /// [`BenchError::Io`] without the right to make one.
    pub fn new() -> Result<Self, BenchError> {
        let (work, waiting) = mpsc::channel::<Work>();
        let (tell, told) = mpsc::sync_channel(1);
        thread::spawn(move || {
            // Sent to someone who waits for it.
            let _ = tell.send(unshare(CloneFlags::CLONE_NEWNET));
            for work in waiting {
                work();
            }
        });
        told.recv()
            .map_or_else(
                |_| Err(std::io::Error::other("its thread ended")),
                |made| made.map_err(Into::into),
            )
            .map_err(BenchError::io("making a network namespace"))?;
        let namespace = Self { work };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `work` there and waits for it: sockets that it makes and programs that it starts are
    /// in the namespace.
    ///
    /// # Errors
    /// [`BenchError::Argument`] if it panicked.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BenchError> {
        let (tell, told) = mpsc::sync_channel(1);
        let sent = self.work.send(Box::new(move || {
            let _ = tell.send(work());
        }));
        sent.ok()
            .and_then(|()| told.recv().ok())
            .ok_or_else(|| BenchError::Argument("the namespace's thread panicked".to_owned()))
    }

    /// Runs `ip` there, with those words.
    ///
    /// # Errors
    /// [`BenchError::Failed`] with what it said.
    pub fn ip(&self, words: &str) -> Result<(), BenchError> {
        let mut ip = Command::new("ip");
        ip.args(words.split(' '));
        self.run(move || run(&mut ip).map(drop))?
    }
}
