//! What a peer offers, read from its own `KEXINIT` (RFC 4253 §7.1), which every connection shows in
//! the clear.

use std::time::Duration;

use ketch_transport::message::kex::KexInit;
use ketch_wire::{NameList, Reader};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long a peer may take to say what it offers.
const LIMIT: Duration = Duration::from_secs(60);

/// A peer's identification line and lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offer {
    pub(crate) identification: String,
    pub(crate) kex: Vec<String>,
    pub(crate) host_key: Vec<String>,
    pub(crate) cipher: Vec<String>,
    pub(crate) mac: Vec<String>,
    pub(crate) compression: Vec<String>,
}

impl Offer {
    /// Reads it from a connection on which nothing was said yet; who reads it goes no further.
    pub(crate) async fn read<S>(stream: S) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        Self::read_as("SSH-2.0-offer", stream).await
    }

    /// The same, under a certain identification.
    pub(crate) async fn read_as<S>(identification: &str, mut stream: S) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let own = format!("{identification}\r\n");
        let read = async {
            stream.write_all(own.as_bytes()).await?;
            let mut identification = String::new();
            while !identification.starts_with("SSH-") {
                identification = read_line(&mut stream).await?;
            }
            let mut head = [0; 5];
            stream.read_exact(&mut head).await?;
            let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let mut rest = vec![0; usize::try_from(len).unwrap().clamp(1, 40_000) - 1];
            stream.read_exact(&mut rest).await?;
            rest.truncate(rest.len().saturating_sub(usize::from(head[4])));
            std::io::Result::Ok((identification, rest))
        };
        let (identification, payload) = timeout(LIMIT, read)
            .await
            .map_err(|_| "no KEXINIT in time".to_owned())?
            .map_err(|error| format!("reading its KEXINIT: {error}"))?;
        let fields = payload.get(1..).unwrap_or_default();
        let init = KexInit::decode(Reader::new(fields))
            .map_err(|error| format!("its KEXINIT: {error}"))?;
        let both = |one: NameList<'_>, other: NameList<'_>| -> Vec<String> {
            let both = one.iter().filter(|name| other.contains(name));
            both.map(str::to_owned).collect()
        };
        Ok(Self {
            identification,
            kex: init.kex.iter().map(str::to_owned).collect(),
            host_key: init.host_key.iter().map(str::to_owned).collect(),
            cipher: both(init.cipher_client_to_server, init.cipher_server_to_client),
            mac: both(init.mac_client_to_server, init.mac_server_to_client),
            compression: both(
                init.compression_client_to_server,
                init.compression_server_to_client,
            ),
        })
    }
}

async fn read_line<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            byte if line.len() < 1000 => line.push(byte),
            _ => return Err(std::io::Error::other("a line without end")),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
