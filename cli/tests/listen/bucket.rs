//! A bucket as a directory: whoever judges files judges objects.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::peers::s3::{Moto, Object};

/// A bucket whose objects are copied into a directory as they come.
#[derive(Debug)]
pub(crate) struct Bucket {
    moto: Moto,
    dir: PathBuf,
    copied: HashSet<Object>,
}

impl Bucket {
    /// An empty one, on a server of its own.
    pub(crate) fn start(dir: &Path) -> Self {
        Self {
            moto: Moto::start(),
            dir: dir.to_owned(),
            copied: HashSet::new(),
        }
    }

    /// A sink in which what arrives twice is there twice.
    pub(crate) fn sink(&self) -> String {
        let options = self
            .moto
            .options()
            .map(|(key, value)| format!("{key} = {value:?}"));
        format!(
            "[[flow.sink]]
name = \"bucket\"
kind = \"object\"
url = \"s3://bucket\"
options = {{ {} }}
template = \"{{path}}.{{sequence}}\"
exists = \"error\"
",
            options.join(", ")
        )
    }

    /// Copies what has come since the last time, or is another content.
    pub(crate) fn copy(&mut self) {
        for object in self.moto.objects() {
            if !self.copied.contains(&object) {
                let file = self.dir.join(&object.key);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, self.moto.content(&object.key)).unwrap();
                self.copied.insert(object);
            }
        }
    }

    /// Copies everything anew, and nothing else is in the directory then.
    pub(crate) fn copy_again(&mut self) {
        self.copied.clear();
        fs::remove_dir_all(&self.dir).unwrap();
        fs::create_dir(&self.dir).unwrap();
        self.copy();
    }

    /// Whether there is something that was not copied.
    pub(crate) fn is_touched(&self) -> bool {
        let objects = self.moto.objects();
        objects.iter().any(|object| !self.copied.contains(object))
    }
}
