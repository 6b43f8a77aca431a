//! What the arguments of `ketch listen REMOTE` mean.

use std::time::Duration;

use ketch_client::{Filter, PatternError, RemotePath};
use ketch_listener::{FirstListing, Push};

use super::{Connection, connection};
use crate::args::{FirstWhat, ListenArgs};
use crate::failed::Failed;

/// `ketch listen`, resolved.
#[derive(Debug)]
pub(crate) struct Listen {
    pub(crate) connection: Connection,
    pub(crate) remote: RemotePath,
    pub(crate) interval: Duration,
    pub(crate) first: FirstListing,
    pub(crate) recursive: bool,
    pub(crate) depth: Option<u16>,
    pub(crate) filter: Filter,
    pub(crate) settle: Option<Duration>,
    pub(crate) push: Push,
    pub(crate) plain: bool,
}

impl Listen {
    pub(crate) fn new(args: ListenArgs) -> Result<Self, Failed> {
        let missing = || Failed::Usage("name a remote directory".to_owned());
        let remote = args.remote.ok_or_else(missing)?;
        let (connection, remote) = connection(&remote, args.connect)?;
        let watch = args.watch;
        let is_news = watch.existing || watch.first == FirstWhat::News;
        Ok(Self {
            connection,
            remote,
            interval: watch.interval,
            first: if is_news {
                FirstListing::News
            } else {
                FirstListing::Baseline
            },
            recursive: watch.recursive,
            depth: watch.depth,
            filter: watched(&watch.include, &watch.exclude)?,
            settle: watch.settle,
            push: if watch.push { Push::Auto } else { Push::Never },
            plain: watch.plain,
        })
    }
}

/// What matches none of `exclude`, and one of `include` if there are any: as a listener's file has it.
fn watched(include: &[String], exclude: &[String]) -> Result<Filter, Failed> {
    let wrong = |pattern: &str, error: PatternError| {
        Failed::Usage(format!("the pattern {pattern:?}: {error}"))
    };
    let mut filter = Filter::new();
    for pattern in exclude {
        let excluded = filter.exclude(pattern);
        filter = excluded.map_err(|error| wrong(pattern, error))?;
    }
    if include.is_empty() {
        return Ok(filter);
    }
    let all = ["*/"].into_iter().chain(include.iter().map(String::as_str));
    for pattern in all {
        let included = filter.include(pattern);
        filter = included.map_err(|error| wrong(pattern, error))?;
    }
    filter.exclude("*").map_err(|error| wrong("*", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_and_excludes_are_those_of_a_listeners_file() {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let filter = watched(
            &words(&["*.csv", "/in/*.txt"]),
            &words(&["old-*", "hidden/"]),
        );
        let filter = filter.unwrap();
        for (path, is_directory, admitted) in [
            ("a.csv", false, true),
            ("d/a.csv", false, true),
            ("in/a.txt", false, true),
            ("d/in/a.txt", false, false),
            ("a.pdf", false, false),
            ("old-a.csv", false, false),
            ("d", true, true),
            ("hidden", true, false),
        ] {
            assert_eq!(
                filter.admits(path.as_bytes(), is_directory),
                admitted,
                "{path}"
            );
        }
        assert!(watched(&[], &[]).unwrap().is_empty());
        assert!(watched(&words(&["[z-a]"]), &[]).is_err());
    }
}
