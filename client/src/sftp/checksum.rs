//! A checksum that the server computes (`check-file-name`,
//! draft-ietf-secsh-filexfer-extensions-00 §3).

use ketch_protocol::{
    CheckFileName, CheckFileReply, Extension, ExtensionName, HashAlgorithm, Reader, RemotePath,
    Request,
};

use super::{Operation, Sftp, SftpError};

impl Sftp {
    /// The SHA-256 of a file, as the server computes it: its bytes stay where they are.
    ///
    /// `OpenSSH`'s server has no such extension; `ProFTPD`'s, Bitvise's, `VShell` and Apache MINA
    /// have it. A large file keeps a server busy: one that takes longer than the stall deadline
    /// ends the session.
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn sha256(&self, path: impl Into<RemotePath>) -> Result<[u8; 32], SftpError> {
        let path = path.into();
        self.need(ExtensionName::CheckFileName).await?;
        let request = Extension::CheckFileName(CheckFileName {
            path: path.as_bytes(),
            algorithms: HashAlgorithm::Sha256.as_str().as_bytes(),
            offset: 0,
            len: 0,
            block_len: 0,
        });
        let operation = Operation::Checksum;
        let request = Request::Extended(request);
        let data = self.extended(operation, &path, &request).await?;
        CheckFileReply::decode(Reader::new(&data))
            .ok()
            .and_then(|reply| reply.one(HashAlgorithm::Sha256))
            .and_then(|hash| hash.try_into().ok())
            .ok_or_else(|| SftpError::malformed(operation, &path))
    }
}
