//! A judge of SFTP servers: what draft-ietf-secsh-filexfer-02 says, clause by clause.
//!
//! The judge speaks the codec of `ketch-protocol` over any byte stream, one request at a time
//! unless a clause is about several, and says of each clause whether it was kept. It needs a
//! directory in which it may make and remove one file.
//!
//! ```no_run
//! use ketch_conformance::judge::{Pipe, Verdict, judge_server};
//!
//! let mut server = Pipe::sftp_server()?;
//! for finding in judge_server(&mut server, b"/tmp")? {
//!     println!("{finding}");
//!     assert_eq!(finding.verdict, Verdict::Kept);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clauses;
mod client;
mod pipe;

pub use client::{JudgeError, RawClient, Reply};
pub use pipe::Pipe;

use std::fmt;
use std::io::{Read, Write};

/// What the judge found about one clause.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Where the clause stands, as "draft-02 §6.4".
    pub source: &'static str,
    /// What it asks for, in a sentence.
    pub clause: &'static str,
    /// Whether it was kept.
    pub verdict: Verdict,
}

/// Whether a clause was kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The server did what the clause says.
    Kept,
    /// The server did something else, which is told.
    Broken(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Verdict::Kept => write!(f, "kept    {}: {}", self.source, self.clause),
            Verdict::Broken(how) => write!(f, "BROKEN  {}: {} ({how})", self.source, self.clause),
        }
    }
}

/// Judges the server at the other end of `stream`, which has not been spoken to yet.
///
/// `dir` is a directory on the server in which a file may be made; it is removed at the end. How
/// long a silent server is waited for is the stream's business: give it a time-out.
///
/// # Errors
/// [`JudgeError`] if the conversation cannot go on, so that no more can be said: the stream ended,
/// or what came is no SFTP.
pub fn judge_server<S: Read + Write>(stream: S, dir: &[u8]) -> Result<Vec<Finding>, JudgeError> {
    clauses::judge(&mut RawClient::new(stream), dir)
}
