//! The judge against OpenSSH's real `sftp-server`, and against one that breaks the rules.

use std::io::{self, Read, Write};

use ketch_conformance::judge::{Finding, JudgeError, Pipe, Verdict, judge_server};

fn broken(findings: &[Finding]) -> Vec<String> {
    let is_broken = |finding: &&Finding| finding.verdict != Verdict::Kept;
    findings
        .iter()
        .filter(is_broken)
        .map(Finding::to_string)
        .collect()
}

#[test]
fn the_real_sftp_server_keeps_every_clause() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..250 {
        std::fs::write(dir.path().join(number.to_string()), b"").unwrap();
    }
    let server = Pipe::sftp_server().unwrap();
    let findings = judge_server(server, dir.path().to_str().unwrap().as_bytes()).unwrap();
    assert_eq!(broken(&findings), [""; 0]);
    assert!(findings.len() >= 18, "{}", findings.len());
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        250,
        "its file is gone"
    );
}

/// Passes everything on but adds one to the number of every reply that is a `STATUS`.
struct OffByOne(Pipe, Vec<u8>);

impl Read for OffByOne {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            let mut len = [0; 4];
            self.0.read_exact(&mut len)?;
            self.1.extend_from_slice(&len);
            let len = u64::from(u32::from_be_bytes(len));
            (&mut self.0).take(len).read_to_end(&mut self.1)?;
            if self.1[4] == 101 {
                self.1[8] = self.1[8].wrapping_add(1);
            }
        }
        let count = self.1.len().min(buf.len());
        buf[..count].copy_from_slice(&self.1[..count]);
        self.1.drain(..count);
        Ok(count)
    }
}

impl Write for OffByOne {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_server_that_answers_under_another_number_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = OffByOne(Pipe::sftp_server().unwrap(), Vec::new());
    let findings = judge_server(server, dir.path().to_str().unwrap().as_bytes()).unwrap();
    let broken = broken(&findings);
    assert!(
        broken.iter().any(|each| each.contains("OP_UNSUPPORTED")),
        "{broken:?}"
    );
}

#[test]
fn a_program_that_is_no_server_ends_the_conversation() {
    let pipe = Pipe::start(&mut std::process::Command::new("cat")).unwrap();
    // `cat` sends our own INIT back.
    let findings = judge_server(pipe, b"/tmp");
    assert!(findings.is_ok_and(|findings| !broken(&findings).is_empty()));
    let pipe = Pipe::start(&mut std::process::Command::new("true")).unwrap();
    assert!(matches!(
        judge_server(pipe, b"/tmp"),
        Err(JudgeError::Stream(_))
    ));
}
