//! `ssh_config` files (ssh_config(5)) as somebody else wrote them: never a panic, and never a name
//! that other programs could take for an option or a command.

use std::fs;

use ketch_client::config::{JumpHost, ProxyChoice, SshConfig};
use ketch_client::destination::Host;

use crate::known_hosts::file_with;

/// A whole file, asked about one host.
pub fn ssh_config(data: &[u8]) {
    // What it includes are files of the machine that fuzzes.
    if data
        .windows(7)
        .any(|word| word.eq_ignore_ascii_case(b"include"))
    {
        return;
    }
    let path = file_with(data);
    let host: Host = "host.example".parse().expect("a good name");
    let Ok(config) = SshConfig::file(&path).resolve(&host, None, None) else {
        return;
    };
    assert!(!config.host.as_str().starts_with('-'));
    assert!(
        config
            .user
            .is_none_or(|user| !user.as_str().starts_with('-'))
    );
    if let Some(ProxyChoice::Jump(jumps)) = config.proxy {
        let is_safe = |jump: &JumpHost| !jump.host.as_str().starts_with('-');
        assert!(!jumps.is_empty() && jumps.iter().all(is_safe));
    }
    assert!(fs::metadata(path).is_ok(), "reading changes nothing");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_files_pass() {
        ssh_config(b"Host *\n  User ann\n  ProxyJump a,b@c:22\nMatch final all\n  Port 7\n");
        ssh_config(b"ProxyCommand nc %h %p\n\nUser -x\nHost \"\nPort\xff 1");
    }
}
