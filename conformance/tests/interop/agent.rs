//! An ssh-agent with one identity (draft-miller-ssh-agent), for clients that sign in no other way: with
//! security keys, and with RSA certificates under a certain hash.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_keys::SignatureAlgorithm;
use ketch_wire::{Reader, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::material::{Material, Owner};

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Longest message that is read.
const MESSAGE_LEN_MAX: usize = 256 * 1024;

/// An agent; gone with its socket when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Agent {
    /// An agent that holds the user's key for an algorithm.
    pub(crate) fn start(material: &Arc<Material>, algorithm: SignatureAlgorithm, id: u16) -> Self {
        let path = material.path(&format!("agent-{id}"));
        let listener = UnixListener::bind(&path).unwrap();
        let material = Arc::clone(material);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let material = Arc::clone(&material);
                tokio::spawn(async move {
                    // A client that hangs up is done.
                    let _ = serve(stream, &material, algorithm).await;
                });
            }
        });
        Self { path, task }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
        // Another agent may want the name.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(
    mut stream: UnixStream,
    material: &Material,
    algorithm: SignatureAlgorithm,
) -> std::io::Result<()> {
    let key = material.public(Owner::User, algorithm);
    loop {
        let len = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
        if len > MESSAGE_LEN_MAX {
            return Err(std::io::Error::other("a message too long"));
        }
        let mut message = vec![0; len];
        stream.read_exact(&mut message).await?;
        let mut answer = Vec::new();
        let mut w = Writer::new(&mut answer);
        match message.split_first() {
            Some((&REQUEST_IDENTITIES, _)) => {
                w.u8(IDENTITIES_ANSWER);
                w.u32(1);
                w.string(key.as_blob());
                w.string(b"ketch-test");
            }
            Some((&SIGN_REQUEST, fields)) => {
                let mut fields = Reader::new(fields);
                let _key = fields.string(MESSAGE_LEN_MAX);
                let data = fields.string(MESSAGE_LEN_MAX).unwrap_or_default();
                match material.sign(algorithm, data) {
                    Ok(signature) => {
                        w.u8(SIGN_RESPONSE);
                        w.string(&signature);
                    }
                    Err(_) => w.u8(FAILURE),
                }
            }
            _ => w.u8(FAILURE),
        }
        let len = u32::try_from(answer.len()).unwrap_or_default();
        stream.write_all(&len.to_be_bytes()).await?;
        stream.write_all(&answer).await?;
    }
}
