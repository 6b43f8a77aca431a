//! A password, a token or a key that a file needs and need not hold itself.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};
use zeroize::Zeroizing;

use crate::places::Places;

/// Longest secret, in bytes.
pub const SECRET_LEN_MAX: u64 = 64 * 1024;

/// Where a secret is: in a file that nobody else may read (`{ file = "…" }`), in an environment
/// variable (`{ env = "…" }`), or in the text itself. It is never shown.
#[derive(Clone)]
pub enum Secret {
    /// A file: what it holds, without a line break at its end. Relative to the directory of the file
    /// that names it.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// Written out.
    Literal(Zeroizing<String>),
}

impl Secret {
    /// The secret itself.
    ///
    /// # Errors
    /// Why it cannot be had, as a clause that does not hold it.
    pub fn read(&self, places: &Places) -> Result<Zeroizing<String>, String> {
        let text = match self {
            Self::File(path) => read_file(&places.resolve(path))?,
            Self::Env(name) => {
                let value = std::env::var(name).map_err(|error| match error {
                    std::env::VarError::NotPresent => {
                        format!("there is no variable {name} in the environment")
                    }
                    std::env::VarError::NotUnicode(_) => format!("the variable {name} is no text"),
                })?;
                Zeroizing::new(value)
            }
            Self::Literal(text) => text.clone(),
        };
        match text.is_empty() {
            true => Err("it is empty".to_owned()),
            false => Ok(text),
        }
    }
}

#[cfg(unix)]
fn read_file(path: &std::path::Path) -> Result<Zeroizing<String>, String> {
    let cannot = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
    let bytes = crate::strict::secret(path, SECRET_LEN_MAX).map_err(|why| cannot(&why))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| cannot(&"it is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Ok(Zeroizing::new(line.to_owned()))
}

#[cfg(not(unix))]
fn read_file(path: &std::path::Path) -> Result<Zeroizing<String>, String> {
    let cannot = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|why| cannot(&why))?;
    Ok(Zeroizing::new(
        text.trim_end_matches(['\r', '\n']).to_owned(),
    ))
}

/// Says where it is, and never what.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Self::Literal(_) => f.write_str("Literal(..)"),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Place {
                file: Option<PathBuf>,
                env: Option<String>,
            },
        }
        match Written::deserialize(from)? {
            Written::Text(text) => Ok(Self::Literal(Zeroizing::new(text))),
            Written::Place {
                file: Some(path),
                env: None,
            } => Ok(Self::File(path)),
            Written::Place {
                file: None,
                env: Some(name),
            } => Ok(Self::Env(name)),
            Written::Place { .. } => Err(D::Error::custom(
                "a secret has `file` or `env`, one of them",
            )),
        }
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!({
            "type": ["string", "object"],
            "format": "secret",
            "properties": {
                "file": {
                    "type": "string",
                    "description": "File that nobody else may read.",
                },
                "env": { "type": "string", "description": "Environment variable." },
            },
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false,
        })
    }
}
