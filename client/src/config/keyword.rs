//! The keywords of ssh_config (ssh_config(5)): those that mean something here, and those that
//! OpenSSH knows besides.

/// A keyword that means something here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Keyword {
    AddressFamily,
    BatchMode,
    BindAddress,
    CaSignatureAlgorithms,
    CertificateFile,
    Ciphers,
    Compression,
    ConnectTimeout,
    ConnectionAttempts,
    GlobalKnownHostsFile,
    HashKnownHosts,
    Host,
    HostKeyAlgorithms,
    HostKeyAlias,
    HostName,
    IdentitiesOnly,
    IdentityAgent,
    IdentityFile,
    IgnoreUnknown,
    Include,
    KbdInteractiveAuthentication,
    KexAlgorithms,
    Macs,
    Match,
    NumberOfPasswordPrompts,
    PasswordAuthentication,
    Port,
    PreferredAuthentications,
    ProxyCommand,
    ProxyJump,
    PubkeyAcceptedAlgorithms,
    PubkeyAuthentication,
    RekeyLimit,
    RequiredRsaSize,
    RevokedHostKeys,
    SendEnv,
    ServerAliveCountMax,
    ServerAliveInterval,
    SetEnv,
    StrictHostKeyChecking,
    Tag,
    UpdateHostKeys,
    User,
    UserKnownHostsFile,
    /// OpenSSH knows it, and nothing here depends on it.
    Ignored,
    /// OpenSSH knows it, and a connection would come out differently there.
    Unsupported,
}

impl Keyword {
    /// The keyword of that name, in lower case; `None` for one that OpenSSH does not know either.
    pub(super) fn of(name: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        match found {
            Some((_, keyword)) => Some(*keyword),
            None if IGNORED.contains(&name) => Some(Self::Ignored),
            None if UNSUPPORTED.contains(&name) => Some(Self::Unsupported),
            None => None,
        }
    }
}

const NAMES: &[(&str, Keyword)] = &[
    ("addressfamily", Keyword::AddressFamily),
    ("batchmode", Keyword::BatchMode),
    ("bindaddress", Keyword::BindAddress),
    ("casignaturealgorithms", Keyword::CaSignatureAlgorithms),
    ("certificatefile", Keyword::CertificateFile),
    (
        "challengeresponseauthentication",
        Keyword::KbdInteractiveAuthentication,
    ),
    ("ciphers", Keyword::Ciphers),
    ("compression", Keyword::Compression),
    ("connecttimeout", Keyword::ConnectTimeout),
    ("connectionattempts", Keyword::ConnectionAttempts),
    ("globalknownhostsfile", Keyword::GlobalKnownHostsFile),
    ("hashknownhosts", Keyword::HashKnownHosts),
    ("host", Keyword::Host),
    ("hostkeyalgorithms", Keyword::HostKeyAlgorithms),
    ("hostkeyalias", Keyword::HostKeyAlias),
    ("hostname", Keyword::HostName),
    ("identitiesonly", Keyword::IdentitiesOnly),
    ("identityagent", Keyword::IdentityAgent),
    ("identityfile", Keyword::IdentityFile),
    ("identityfile2", Keyword::IdentityFile),
    ("ignoreunknown", Keyword::IgnoreUnknown),
    ("include", Keyword::Include),
    (
        "kbdinteractiveauthentication",
        Keyword::KbdInteractiveAuthentication,
    ),
    ("kexalgorithms", Keyword::KexAlgorithms),
    ("macs", Keyword::Macs),
    ("match", Keyword::Match),
    ("numberofpasswordprompts", Keyword::NumberOfPasswordPrompts),
    ("passwordauthentication", Keyword::PasswordAuthentication),
    ("port", Keyword::Port),
    (
        "preferredauthentications",
        Keyword::PreferredAuthentications,
    ),
    ("proxycommand", Keyword::ProxyCommand),
    ("proxyjump", Keyword::ProxyJump),
    (
        "pubkeyacceptedalgorithms",
        Keyword::PubkeyAcceptedAlgorithms,
    ),
    ("pubkeyacceptedkeytypes", Keyword::PubkeyAcceptedAlgorithms),
    ("pubkeyauthentication", Keyword::PubkeyAuthentication),
    ("rekeylimit", Keyword::RekeyLimit),
    ("requiredrsasize", Keyword::RequiredRsaSize),
    ("revokedhostkeys", Keyword::RevokedHostKeys),
    ("sendenv", Keyword::SendEnv),
    ("serveralivecountmax", Keyword::ServerAliveCountMax),
    ("serveraliveinterval", Keyword::ServerAliveInterval),
    ("setenv", Keyword::SetEnv),
    ("skeyauthentication", Keyword::KbdInteractiveAuthentication),
    ("stricthostkeychecking", Keyword::StrictHostKeyChecking),
    ("tag", Keyword::Tag),
    ("tisauthentication", Keyword::KbdInteractiveAuthentication),
    ("updatehostkeys", Keyword::UpdateHostKeys),
    ("user", Keyword::User),
    ("userknownhostsfile", Keyword::UserKnownHostsFile),
];

/// About terminals, forwarding, agents' contents and multiplexing: what `ssh` does beside a
/// connection. Old names that OpenSSH itself only skips stand here, too.
const IGNORED: &[&str] = &[
    "addkeystoagent",
    "afstokenpassing",
    "canonicaldomains",
    "canonicalizefallbacklocal",
    "canonicalizemaxdots",
    "canonicalizepermittedcnames",
    "channeltimeout",
    "checkhostip",
    "cipher",
    "clearallforwardings",
    "compressionlevel",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "dsaauthentication",
    "dynamicforward",
    "enableescapecommandline",
    "enablesshkeysign",
    "escapechar",
    "exitonforwardfailure",
    "fallbacktorsh",
    "fingerprinthash",
    "forkafterauthentication",
    "forwardagent",
    "forwardx11",
    "forwardx11timeout",
    "forwardx11trusted",
    "gatewayports",
    "globalknownhostsfile2",
    "gssapiauthentication",
    "gssapiclientidentity",
    "gssapidelegatecredentials",
    "gssapikeyexchange",
    "gssapikexalgorithms",
    "gssapirenewalforcesrekey",
    "gssapiserveridentity",
    "gssapitrustdns",
    "hostbasedacceptedalgorithms",
    "hostbasedauthentication",
    "hostbasedkeytypes",
    "ipqos",
    "kbdinteractivedevices",
    "keepalive",
    "kerberosauthentication",
    "kerberostgtpassing",
    "localcommand",
    "localforward",
    "loglevel",
    "logverbose",
    "nohostauthenticationforlocalhost",
    "obscurekeystroketiming",
    "permitlocalcommand",
    "permitremoteopen",
    "pkcs11provider",
    "protocol",
    "remotecommand",
    "remoteforward",
    "requesttty",
    "rhostsauthentication",
    "rhostsrsaauthentication",
    "rsaauthentication",
    "securitykeyprovider",
    "sessiontype",
    "smartcarddevice",
    "stdinnull",
    "streamlocalbindmask",
    "streamlocalbindunlink",
    "syslogfacility",
    "tcpkeepalive",
    "tunnel",
    "tunneldevice",
    "usekeychain",
    "useprivilegedport",
    "userknownhostsfile2",
    "useroaming",
    "usersh",
    "verifyhostkeydns",
    "versionaddendum",
    "visualhostkey",
    "warnweakcrypto",
    "xauthlocation",
];

const UNSUPPORTED: &[&str] = &[
    "bindinterface",
    "canonicalizehostname",
    "knownhostscommand",
    "proxyusefdpass",
    "refuseconnection",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_keyword_stands_in_one_place() {
        let names = NAMES.iter().map(|(name, _)| *name);
        let mut all: Vec<_> = names
            .chain(IGNORED.iter().copied())
            .chain(UNSUPPORTED.iter().copied())
            .collect();
        assert!(all.iter().all(|name| {
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        }));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn what_nobody_knows_is_told_from_what_is_left_alone() {
        assert_eq!(Keyword::of("proxyjump"), Some(Keyword::ProxyJump));
        assert_eq!(Keyword::of("loglevel"), Some(Keyword::Ignored));
        assert_eq!(Keyword::of("knownhostscommand"), Some(Keyword::Unsupported));
        assert_eq!(Keyword::of("hostnam"), None);
    }
}
