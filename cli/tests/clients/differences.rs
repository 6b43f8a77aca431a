//! What is not the same as with OpenSSH's server, and why.

use std::fmt::Write as _;

use crate::servers::Kind;

/// One step that came to something else.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) client: &'static str,
    pub(crate) kind: Kind,
    pub(crate) step: String,
    pub(crate) openssh: String,
    pub(crate) ours: String,
}

/// A reason, and the steps that it holds for, of all clients.
pub(crate) struct Reason {
    pub(crate) kinds: &'static [Kind],
    pub(crate) steps: &'static [&'static str],
    pub(crate) why: &'static str,
}

pub(crate) const REASONS: &[Reason] = &[
    Reason {
        kinds: &[Kind::Serve],
        steps: &[
            "put of a name with a backslash",
            "a name with a backslash",
            "list",
            r"file `e/a\\b` on the server",
        ],
        why: "names with a backslash are refused: a file system behind the server, or a client on \
              Windows that gets the file, may take it for a separator.",
    },
    Reason {
        kinds: &[Kind::Serve],
        steps: &["realpath of a link", "realpath below what is missing"],
        why: "`REALPATH` is answered by the letters of the path, without a look at the files: links in \
              it are not followed, and it fails for nothing. Where a path leads is found out when \
              it is used.",
    },
    Reason {
        kinds: &[Kind::Serve, Kind::DropIn],
        steps: &[
            "readlink of a file",
            "put of a name too long",
            "a name too long",
        ],
        why: "what the system calls an invalid argument or a name too long is `SSH_FX_FAILURE` with a \
              text that says so; OpenSSH says `SSH_FX_BAD_MESSAGE`, which means that the packet \
              could not be read (draft-ietf-secsh-filexfer-02 §7).",
    },
];

impl Reason {
    pub(crate) fn explains(&self, difference: &Difference) -> bool {
        self.kinds.contains(&difference.kind) && self.steps.contains(&difference.step.as_str())
    }
}

/// The steps in which `ours` is not what `openssh` is.
pub(crate) fn between(
    client: &'static str,
    kind: Kind,
    openssh: &[(String, String)],
    ours: &[(String, String)],
) -> Vec<Difference> {
    let said = |of: &[(String, String)], step: &str| -> String {
        let found = of.iter().find(|(name, _)| name == step);
        found.map_or_else(|| "nothing".to_owned(), |(_, said)| said.clone())
    };
    let only_ours = ours
        .iter()
        .filter(|(step, _)| openssh.iter().all(|(name, _)| name != step));
    let steps = openssh.iter().chain(only_ours);
    steps
        .map(|(step, _)| Difference {
            client,
            kind,
            step: step.clone(),
            openssh: said(openssh, step),
            ours: said(ours, step),
        })
        .filter(|it| it.openssh != it.ours)
        .collect()
}

/// What no reason stands for, in a sentence each.
pub(crate) fn unexplained(found: &[Difference]) -> String {
    let mut text = String::new();
    for it in found {
        if !REASONS.iter().any(|reason| reason.explains(it)) {
            let Difference {
                client,
                kind,
                step,
                openssh,
                ours,
            } = it;
            let name = kind.name();
            let _ = writeln!(
                text,
                "{client} on {name}, {step:?}:\n  OpenSSH: {openssh:?}\n  ours:    {ours:?}"
            );
        }
    }
    text
}

/// Reasons for which nothing was found.
pub(crate) fn stale(found: &[Difference]) -> Vec<&'static str> {
    let stale = REASONS
        .iter()
        .filter(|reason| !found.iter().any(|it| reason.explains(it)));
    stale.map(|reason| reason.why).collect()
}
