//! Files being created in a folder: under a name that they have until they are whole, and then under
//! the one that was asked for, or another if that is taken.

use ketch_protocol::{Attrs, FileType, RemotePath};

use super::{
    FileInfo, Folder, OperationError, Server,
    template::{self, Filling, NameTemplate},
};
use crate::{
    error::{Failure, Kind},
    file::OpenOptions,
    sftp::Sftp,
};

/// Numbers that are tried for a name that is free.
const NUMBERS_MAX: u32 = 10_000;
/// Temporary names that are tried.
const TEMPORARIES_MAX: u32 = 100;

/// What happens if the name of a new file is taken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IfExists {
    /// It is an error. The default.
    #[default]
    Fail,
    /// The old file is replaced when the new one is whole.
    Overwrite,
    /// The content is added to what is there.
    Append,
    /// The new one gets a number: `output1.txt`, `output2.txt`, and so on until one is free; or
    /// another name, by [`Create::unique_by`].
    Number,
}

/// How a file is created. The defaults: it must not be there, and the directory must.
#[derive(Clone, Debug, Default)]
pub struct Create {
    if_exists: IfExists,
    create_directories: bool,
    temporary_extension: Option<Vec<u8>>,
    named_by: Option<NameTemplate>,
    unique_by: Option<NameTemplate>,
    temporary_by: Option<NameTemplate>,
    staging: Option<RemotePath>,
    permissions: Option<u32>,
}

impl Create {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What happens if the name is taken. Default: it is an error.
    #[must_use]
    pub const fn if_exists(mut self, policy: IfExists) -> Self {
        self.if_exists = policy;
        self
    }

    /// Whether directories that are not there are created. Default: no.
    #[must_use]
    pub const fn create_directories(mut self, yes: bool) -> Self {
        self.create_directories = yes;
        self
    }

    /// What the name has behind it until the file is whole, for partners who look for that:
    /// `.part`. Default: a name of our own, which is hidden and unlike any other.
    #[must_use]
    pub fn temporary_extension(mut self, extension: impl Into<Vec<u8>>) -> Self {
        self.temporary_extension = Some(extension.into());
        self
    }

    /// How the file is called while it is not whole: by what this makes of its name, tried until
    /// one is free, so that two at the same time have two: `$BASE.$UUID.part`. Takes the place of
    /// [`temporary_extension`](Self::temporary_extension).
    #[must_use]
    pub fn temporary_by(mut self, template: NameTemplate) -> Self {
        self.temporary_by = Some(template);
        self
    }

    /// How the file is called: by what this makes of the name that is given. Default: by that name.
    #[must_use]
    pub fn named_by(mut self, template: NameTemplate) -> Self {
        self.named_by = Some(template);
        self
    }

    /// How the file is called if its name is taken and it may have another
    /// ([`IfExists::Number`]): by what this makes of its name, tried until one is free. Default: by
    /// its name with a number.
    #[must_use]
    pub fn unique_by(mut self, template: NameTemplate) -> Self {
        self.unique_by = Some(template);
        self
    }

    /// The directory in which the file is until it is whole; on the same file system. Default: the
    /// one that it is created in.
    #[must_use]
    pub fn staging(mut self, directory: impl Into<RemotePath>) -> Self {
        self.staging = Some(directory.into());
        self
    }

    /// Permission bits. Default: what the server chooses.
    #[must_use]
    pub const fn permissions(mut self, mode: u32) -> Self {
        self.permissions = Some(mode);
        self
    }
}

impl<S: Server> Folder<S> {
    /// Creates a file, or adds to one.
    pub(super) async fn write(
        &self,
        sftp: &Sftp,
        name: &[u8],
        content: &[u8],
        options: &Create,
    ) -> Result<FileInfo, OperationError> {
        let path = match &options.named_by {
            Some(template) => self.path_of(&template.fill(filling(name, 1)))?,
            None => self.path_of(name)?,
        };
        if options.create_directories && !self.directory.as_bytes().is_empty() {
            sftp.create_dir_all(&self.directory).await?;
        }
        let there = match sftp.stat(&path).await {
            Ok(attrs) => Some(attrs),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(attrs) = there
            && !matches!(attrs.file_type(), FileType::Regular | FileType::Unknown)
            && options.if_exists != IfExists::Number
        {
            return Err(OperationError::NotAFile(path));
        }
        match (there, options.if_exists) {
            (Some(_), IfExists::Fail) => return Err(OperationError::Exists(path)),
            (Some(attrs), IfExists::Append) => {
                // Servers that know no appending write where they are told to.
                let file = sftp.open(&path, OpenOptions::new().append()).await?;
                file.write_at(attrs.size.unwrap_or(0), content).await?;
                let attrs = file.attrs().await?;
                file.close().await?;
                return Ok(FileInfo::new(path, attrs, attrs.file_type()));
            }
            _ => {}
        }
        let mode = options.permissions.or_else(|| there?.mode());
        let attrs = mode.map_or(Attrs::NONE, Attrs::with_permissions);
        let (temporary, file) = self.begin(sftp, &path, attrs, options).await?;
        let written = async {
            file.write_at(0, content).await?;
            let attrs = file.attrs().await?;
            file.close().await?;
            let path = self.name(sftp, &temporary, path, options).await?;
            Ok(FileInfo::new(path, attrs, attrs.file_type()))
        };
        let written = written.await;
        if written.is_err() {
            let _ = sftp.remove_file(&temporary).await;
        }
        written
    }

    /// Creates the file under the name that it has until it is whole.
    async fn begin(
        &self,
        sftp: &Sftp,
        path: &RemotePath,
        attrs: Attrs,
        options: &Create,
    ) -> Result<(RemotePath, crate::File), OperationError> {
        let name = path.file_name().unwrap_or_default();
        let beside = match &options.staging {
            Some(directory) => directory.join(name),
            None => path.clone(),
        };
        if let Some(template) = &options.temporary_by {
            return self.begin_by(sftp, template, &beside, attrs).await;
        }
        let Some(extension) = &options.temporary_extension else {
            return Ok(sftp.create_beside(&beside, attrs).await?);
        };
        let temporary = RemotePath::from([beside.as_bytes(), extension].concat());
        let mut open = OpenOptions::writing();
        if let Some(mode) = attrs.mode() {
            open = open.permissions(mode);
        }
        let file = sftp.open(&temporary, open).await?;
        Ok((temporary, file))
    }

    /// Creates the file under a name that a template makes, and that nobody has.
    async fn begin_by(
        &self,
        sftp: &Sftp,
        template: &NameTemplate,
        beside: &RemotePath,
        attrs: Attrs,
    ) -> Result<(RemotePath, crate::File), OperationError> {
        let mut open = OpenOptions::writing().create_new();
        if let Some(mode) = attrs.mode() {
            open = open.permissions(mode);
        }
        let tries = if template.varies() {
            TEMPORARIES_MAX
        } else {
            1
        };
        for number in 1..=tries {
            let name = beside.file_name().unwrap_or_default();
            let name = template.fill(filling(name, number));
            self.path_of(&name)?; // it has to be a name
            let temporary = renamed(beside, &name);
            match sftp.open(&temporary, open).await {
                Ok(file) => return Ok((temporary, file)),
                // Version 3 has no status for a name that is taken: whether it is, tells a look.
                Err(error) => {
                    if sftp.lstat(&temporary).await.is_err() {
                        return Err(error.into());
                    }
                }
            }
        }
        Err(OperationError::Exists(beside.clone()))
    }

    /// Gives the whole file its name, which may be another than was asked for.
    async fn name(
        &self,
        sftp: &Sftp,
        temporary: &RemotePath,
        path: RemotePath,
        options: &Create,
    ) -> Result<RemotePath, OperationError> {
        let policy = options.if_exists;
        if policy == IfExists::Overwrite {
            sftp.replace(temporary, &path).await?;
            return Ok(path);
        }
        let varies = options.unique_by.as_ref().is_none_or(NameTemplate::varies);
        let tries = match (policy, varies) {
            (IfExists::Number, true) => NUMBERS_MAX,
            (IfExists::Number, false) => 2,
            _ => 1,
        };
        for number in 0..tries {
            let candidate = match &options.unique_by {
                Some(template) if number > 0 => {
                    let name = path.file_name().unwrap_or_default();
                    let name = template.fill(filling(name, number));
                    self.path_of(&name)?; // it has to be a name
                    renamed(&path, &name)
                }
                _ => numbered(&path, number),
            };
            // Some servers replace when they rename, so it is looked at first; with the others nobody
            // comes between.
            let is_taken = match sftp.lstat(&candidate).await {
                Ok(_) => true,
                Err(error) if error.kind() == Kind::NotFound => false,
                Err(error) => return Err(error.into()),
            };
            if is_taken {
                continue;
            }
            match sftp.rename(temporary, &candidate).await {
                Ok(()) => return Ok(candidate),
                Err(error) => {
                    // Somebody may have been quicker.
                    if sftp.lstat(&candidate).await.is_err() {
                        return Err(error.into());
                    }
                }
            }
        }
        Err(OperationError::Exists(path))
    }
}

/// `output.txt`, `output1.txt`, `output2.txt`.
fn numbered(path: &RemotePath, number: u32) -> RemotePath {
    let name = path.file_name().unwrap_or_default();
    if number == 0 {
        return path.clone();
    }
    let (base, extension) = template::split(name);
    let digits = number.to_string();
    renamed(path, &[base, digits.as_bytes(), extension].concat())
}

/// A path with another name at its end.
fn renamed(path: &RemotePath, name: &[u8]) -> RemotePath {
    let directory = path.parent().unwrap_or_else(|| RemotePath::from(""));
    match path.as_bytes().contains(&b'/') {
        true => directory.join(name),
        false => RemotePath::from(name),
    }
}

fn filling(name: &[u8], number: u32) -> Filling<'_> {
    let now = template::now();
    Filling { name, now, number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_before_the_extension() {
        let table = [
            ("in/output.txt", 0, "in/output.txt"),
            ("in/output.txt", 1, "in/output1.txt"),
            ("output.txt", 12, "output12.txt"),
            ("/output", 3, "/output3"),
            ("in/.hidden", 1, "in/.hidden1"),
            ("a.tar.gz", 2, "a.tar2.gz"),
        ];
        for (path, number, wanted) in table {
            let path = numbered(&path.into(), number);
            assert_eq!(path, RemotePath::from(wanted));
        }
    }
}
