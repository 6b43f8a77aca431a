//! What the user sees: lines on standard output, progress on a terminal.
//!
//! Names come from servers. Whatever in them a terminal could take for a command, or show in
//! another order than it stands, is written escaped.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use ketch_client::Progress;

use crate::failed::Failed;

/// Bytes of lines that are written at once.
const OUTPUT_LEN: usize = 64 * 1024;
/// How often the progress bar moves.
const REDRAW: Duration = Duration::from_millis(100);

/// Standard output, written a line at a time.
#[derive(Debug)]
pub(crate) struct Lines {
    out: io::BufWriter<io::Stdout>,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self {
            out: io::BufWriter::with_capacity(OUTPUT_LEN, io::stdout()),
        }
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failed> {
        writeln!(self.out, "{line}").map_err(Failed::output)
    }

    /// Writes what is a line, or part of one, already.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        self.out.write_all(bytes).map_err(Failed::output)
    }

    /// Sends what was written on its way: for readers who wait for each line, and at the end.
    pub(crate) fn flush(&mut self) -> Result<(), Failed> {
        self.out.flush().map_err(Failed::output)
    }
}

/// Text from elsewhere, safe to show: control characters and those that change the direction or
/// are invisible stand as `\u{…}`, bytes that are not UTF-8 as `\xNN`.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_deceptive(c) {
                let _ = write!(text, "{}", c.escape_unicode());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Control characters, the marks of Unicode's bidirectional algorithm, and other invisible ones.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// What happens to the progress bar.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Bar {
    /// There is none.
    None,
    /// It stays as a line when the work is done.
    Stays,
    /// It makes room for what is said next.
    Passes,
}

/// Runs `work` and shows `progress` on the terminal meanwhile. Draws nothing if standard error is
/// no terminal. What fails leaves no bar: the error is said in its place.
pub(crate) async fn with_progress<T, E>(
    work: impl Future<Output = Result<T, E>>,
    progress: &Progress,
    what: &str,
    bar: Bar,
) -> Result<T, E> {
    if bar == Bar::None || !io::stderr().is_terminal() {
        return work.await;
    }
    // Also what is interrupted clears it, by dropping it.
    let drawn = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        .with_style(style())
        .with_message(escaped(what.as_bytes()))
        .with_finish(ProgressFinish::AndClear);
    let mut work = std::pin::pin!(work);
    let mut tick = tokio::time::interval(REDRAW);
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            _ = tick.tick() => show(&drawn, progress),
        }
    };
    if bar == Bar::Stays && result.is_ok() {
        show(&drawn, progress);
        drawn.finish();
        eprintln!();
    }
    result
}

fn show(bar: &ProgressBar, progress: &Progress) {
    let total = progress.bytes_total();
    if total > 0 {
        bar.set_length(total);
    }
    if progress.files_total() > 1 {
        bar.set_prefix(format!(
            "{}/{} files ",
            progress.files_done(),
            progress.files_total()
        ));
    }
    bar.set_position(progress.bytes_done());
}

fn style() -> ProgressStyle {
    const LINE: &str = "{wide_msg} {prefix}{binary_bytes}/{binary_total_bytes} \
                        {binary_bytes_per_sec} {eta} [{bar:20}] {percent:>3}%";
    ProgressStyle::with_template(LINE)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["a.csv", "größe 2.txt", "日本", "back\\slash"] {
            assert_eq!(escaped(name.as_bytes()), name);
        }
    }

    #[test]
    fn what_a_terminal_could_obey_is_escaped() {
        assert_eq!(escaped(b"a\x1b[31mb"), "a\\u{1b}[31mb");
        assert_eq!(escaped("fdp.\u{202e}exe".as_bytes()), "fdp.\\u{202e}exe");
        assert_eq!(escaped(b"two\nlines"), "two\\u{a}lines");
        assert_eq!(escaped("c1 \u{9b}".as_bytes()), "c1 \\u{9b}");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_numbers() {
        assert_eq!(escaped(b"caf\xe9"), "caf\\xe9");
    }

    #[test]
    fn the_template_of_the_bar_is_valid() {
        assert!(ProgressStyle::with_template("{wide_msg}").is_ok());
        let _ = style();
    }
}
