//! `ketch algorithms`: what each profile offers.

use ketch_client::{
    CipherName, Compression, Kex, MacName, Preferences, Profile, SignatureAlgorithm,
};

use crate::args::AlgorithmsArgs;
use crate::failed::Failed;
use crate::output::Lines;

/// Lists one profile, or all.
pub(crate) fn run(args: &AlgorithmsArgs) -> Result<(), Failed> {
    let profiles = match &args.profile {
        Some(profile) => std::slice::from_ref(profile),
        None => Profile::ALL,
    };
    let mut lines = Lines::new();
    for (at, profile) in profiles.iter().enumerate() {
        if at > 0 {
            lines.line("")?;
        }
        for line in listed(*profile) {
            lines.line(&line)?;
        }
    }
    lines.flush()
}

fn listed(profile: Profile) -> Vec<String> {
    let Preferences {
        kex,
        host_key,
        user_key,
        cipher,
        mac,
        compression,
        rsa_bits_min,
        ..
    } = profile.for_client();
    let mut lines = vec![profile.to_string()];
    let mut list = |what: &str, names: Vec<&'static str>| {
        lines.push(format!("  {what}"));
        lines.extend(names.iter().map(|name| format!("    {name}")));
    };
    list("key exchange", kex.into_iter().map(Kex::name).collect());
    let names = |keys: Vec<SignatureAlgorithm>| keys.into_iter().map(SignatureAlgorithm::name);
    list("host keys", names(host_key).collect());
    list("keys of users", names(user_key).collect());
    list(
        "ciphers",
        cipher.into_iter().map(CipherName::name).collect(),
    );
    list("MACs", mac.into_iter().map(MacName::name).collect());
    list(
        "compression",
        compression.into_iter().map(Compression::name).collect(),
    );
    lines.push(format!("  RSA keys of {rsa_bits_min} bits at least"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_listed_under_its_dated_name() {
        let modern = listed(Profile::Modern);
        assert!(modern[0].starts_with("modern-20"), "{modern:?}");
        assert!(modern.contains(&"    mlkem768x25519-sha256".to_owned()));
        assert!(!modern.contains(&"    ssh-rsa".to_owned()));
        assert!(listed(Profile::Legacy).contains(&"    ssh-rsa".to_owned()));
    }
}
