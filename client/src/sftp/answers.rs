//! The forms that answers take: a status, a handle, attributes, one name, an extension's reply.

use ketch_protocol::{
    Attrs, Extension, ExtensionName, Fstatvfs, Fsync, Reader, RemotePath, Request, StatVfs,
    StatusCode,
};

use super::{Operation, SMALL_CALL_LEN, Sftp, SftpError};
use crate::{
    file::File,
    requests::{
        calls::{Reply, ServerTraits},
        table::Expect,
    },
};

impl Sftp {
    /// What the server said of itself, once it has.
    pub(crate) async fn server(&self) -> Result<ServerTraits, SftpError> {
        let server = self.shared().server().await;
        server.map_err(|ended| SftpError::ended(Operation::Begin, &RemotePath::from(""), &ended))
    }

    /// Fails if the server lacks an extension.
    pub(crate) async fn need(&self, extension: ExtensionName) -> Result<(), SftpError> {
        if self.server().await?.extensions.contains(extension) {
            Ok(())
        } else {
            Err(SftpError::Unsupported {
                extension: extension.as_str(),
            })
        }
    }

    /// Sends a request and returns its answer, a status among others.
    pub(crate) async fn ask(
        &self,
        operation: Operation,
        path: &RemotePath,
        request: &Request<'_>,
        expect: Expect,
        answer_len: usize,
    ) -> Result<Reply, SftpError> {
        let mut packet = Vec::new();
        request.encode_packet(0, &mut packet);
        let bytes = packet.len() + answer_len;
        let call = self.shared().call(packet, expect, bytes).await;
        call.await
            .map_err(|unanswered| SftpError::unanswered(operation, path, &unanswered))
    }

    pub(crate) async fn done(
        &self,
        operation: Operation,
        path: &RemotePath,
        request: &Request<'_>,
    ) -> Result<(), SftpError> {
        match self
            .ask(operation, path, request, Expect::Status, 0)
            .await?
        {
            Reply::Status(StatusCode::OK, _) => Ok(()),
            other => Err(SftpError::other(operation, path, other)),
        }
    }

    pub(crate) async fn handle(
        &self,
        operation: Operation,
        path: &RemotePath,
        request: &Request<'_>,
    ) -> Result<Vec<u8>, SftpError> {
        match self
            .ask(operation, path, request, Expect::Handle, 0)
            .await?
        {
            Reply::Handle(handle) => Ok(handle),
            other => Err(SftpError::other(operation, path, other)),
        }
    }

    pub(crate) async fn attrs(
        &self,
        operation: Operation,
        path: &RemotePath,
        request: &Request<'_>,
    ) -> Result<Attrs, SftpError> {
        match self.ask(operation, path, request, Expect::Attrs, 0).await? {
            Reply::Attrs(attrs) => Ok(attrs),
            other => Err(SftpError::other(operation, path, other)),
        }
    }

    pub(super) async fn extended(
        &self,
        operation: Operation,
        path: &RemotePath,
        request: &Request<'_>,
    ) -> Result<Vec<u8>, SftpError> {
        match self
            .ask(operation, path, request, Expect::Extended, SMALL_CALL_LEN)
            .await?
        {
            Reply::Extended(data) => Ok(data),
            other => Err(SftpError::other(operation, path, other)),
        }
    }

    /// Asks for one path, which comes as a `NAME` with one entry.
    pub(super) async fn one_name(
        &self,
        operation: Operation,
        path: &RemotePath,
        request: &Request<'_>,
        expect: Expect,
    ) -> Result<RemotePath, SftpError> {
        match self
            .ask(operation, path, request, expect, SMALL_CALL_LEN)
            .await?
        {
            Reply::Names(names) => {
                let mut names = names.iter();
                match (names.next(), names.next()) {
                    (Some(name), None) => Ok(RemotePath::from(name.filename)),
                    _ => Err(SftpError::malformed(operation, path)),
                }
            }
            other => Err(SftpError::other(operation, path, other)),
        }
    }

    pub(crate) async fn statvfs_of(&self, file: &File) -> Result<StatVfs, SftpError> {
        self.need(ExtensionName::Fstatvfs).await?;
        let request = Extension::Fstatvfs(Fstatvfs {
            handle: file.handle(),
        });
        let request = Request::Extended(request);
        let data = self
            .extended(Operation::StatVfs, file.path(), &request)
            .await?;
        StatVfs::decode(Reader::new(&data))
            .map_err(|_| SftpError::malformed(Operation::StatVfs, file.path()))
    }

    pub(crate) async fn sync_file(&self, file: &File) -> Result<(), SftpError> {
        self.need(ExtensionName::Fsync).await?;
        let request = Request::Extended(Extension::Fsync(Fsync {
            handle: file.handle(),
        }));
        self.done(Operation::Sync, file.path(), &request).await
    }
}
