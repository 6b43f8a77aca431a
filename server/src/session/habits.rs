//! What clients do differently from OpenSSH's, told from how they introduce themselves (RFC 4253
//! §4.2).

/// Clients whose `SYMLINK` has the link before its target, as draft-ietf-secsh-filexfer-02 §6.10
/// has it, unless the server introduces itself as one that is known to read it OpenSSH's way.
///
/// Seen in `conformance`'s peers: asyncssh 2.x (`_nonstandard_symlink_impls`: only OpenSSH and
/// paramiko are known), Node's ssh2 1.x (`RE_OPENSSH`: only OpenSSH and dropbear).
const LINK_FIRST: [&str; 2] = ["SSH-2.0-AsyncSSH_", "SSH-2.0-ssh2js"];

/// Whether the client with this identification names the link first.
pub(crate) fn names_link_first(identification: &str) -> bool {
    LINK_FIRST
        .iter()
        .any(|start| identification.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssh_and_those_that_do_as_it_does_name_the_target_first() {
        for client in [
            "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10",
            "SSH-2.0-paramiko_3.5.0",
            "SSH-2.0-libssh2_1.11.1",
            "SSH-2.0-ketch_0.1.0",
            "",
        ] {
            assert!(!names_link_first(client), "{client}");
        }
        for client in ["SSH-2.0-AsyncSSH_2.21.1", "SSH-2.0-ssh2js1.16.0"] {
            assert!(names_link_first(client), "{client}");
        }
    }
}
