//! `ketch cat`: the content of a remote file on standard output.

use ketch_client::OpenOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::args::PathArgs;
use crate::cmd::login;
use crate::failed::Failed;
use crate::plan::At;

/// Bytes that are moved at once.
const PIECE_LEN: usize = 256 * 1024;

/// Writes the content, which is read ahead.
pub(crate) async fn run(args: PathArgs) -> Result<(), Failed> {
    let At { connection, remote } = At::new(&args.remote, args.connect)?;
    let session = login::session(&connection).await?;
    let sftp = session.sftp().await?;
    let mut file = sftp.open(&remote, OpenOptions::reading()).await?;
    let mut out = tokio::io::stdout();
    let mut piece = vec![0; PIECE_LEN];
    loop {
        let len = file.read(&mut piece).await.map_err(Failed::remote_stream)?;
        let Some(bytes) = piece.get(..len).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        out.write_all(bytes).await.map_err(Failed::output)?;
    }
    out.flush().await.map_err(Failed::output)?;
    drop(file);
    session.disconnect().await;
    Ok(())
}
