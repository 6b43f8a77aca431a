//! Lists of algorithms as they are written: `a,b`, `+a`, `-a*`, `^a` (ssh_config(5), `Ciphers`).

use super::pattern;

/// A list of algorithms as it is written; it means something beside a list of defaults.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AlgorithmSpec {
    text: String,
    wildcards: bool,
}

/// What a list comes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chosen<T> {
    /// In order of preference, each once; empty if nothing was left.
    pub algorithms: Vec<T>,
    /// Names in the list that stand for nothing here.
    pub skipped: Vec<String>,
}

impl AlgorithmSpec {
    /// Takes a list as ssh_config writes those of ciphers, MACs and key exchanges: `*` and `?`
    /// stand for others only where names are taken away.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            wildcards: false,
        }
    }

    /// Takes a list as ssh_config writes those of keys' algorithms: with `*` and `?` everywhere.
    #[must_use]
    pub fn of_keys(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            wildcards: true,
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it names everything that is wanted, or its head, in the order that is wanted:
    /// what is known of a host must not reorder it then.
    #[must_use]
    pub fn sets_order(&self) -> bool {
        !self.text.starts_with(['+', '-'])
    }

    /// Chooses from `all`, starting from `defaults` where the list says `+`, `-` or `^`.
    #[must_use]
    pub fn choose<T: Copy + PartialEq>(
        &self,
        defaults: &[T],
        all: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Chosen<T> {
        let mut skipped = Vec::new();
        if let Some(removed) = self.text.strip_prefix('-') {
            let stays = |&algorithm: &T| !pattern::list_matches(removed, name(algorithm));
            let algorithms = defaults.iter().copied().filter(stays).collect();
            return Chosen {
                algorithms,
                skipped,
            };
        }
        let mut named = Vec::new();
        for wanted in self.text.trim_start_matches(['+', '^']).split(',') {
            let stands_for = |algorithm: T| {
                wanted == name(algorithm)
                    || (self.wildcards && pattern::matches(wanted, name(algorithm)))
            };
            let before = named.len();
            named.extend(all.iter().copied().filter(|each| stands_for(*each)));
            if named.len() == before && !wanted.is_empty() {
                skipped.push(wanted.to_owned());
            }
        }
        let (first, then) = match self.text.as_bytes().first() {
            Some(b'+') => (defaults, &named[..]),
            Some(b'^') => (&named[..], defaults),
            _ => (&named[..], &[][..]),
        };
        let mut algorithms = Vec::new();
        for each in first.iter().chain(then) {
            if !algorithms.contains(each) {
                algorithms.push(*each);
            }
        }
        Chosen {
            algorithms,
            skipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[&str] = &["gcm", "chacha", "ctr256", "ctr128", "cbc"];
    const DEFAULTS: &[&str] = &["gcm", "chacha", "ctr256"];

    fn choose(spec: AlgorithmSpec) -> (Vec<&'static str>, Vec<String>) {
        let chosen = spec.choose(DEFAULTS, ALL, |name| name);
        (chosen.algorithms, chosen.skipped)
    }

    #[test]
    fn a_list_replaces_extends_reduces_or_heads_the_defaults() {
        for (text, expected) in [
            ("ctr128,gcm", &["ctr128", "gcm"][..]),
            ("ctr128,ctr128", &["ctr128"]),
            ("+cbc", &["gcm", "chacha", "ctr256", "cbc"]),
            ("+gcm", &["gcm", "chacha", "ctr256"]),
            ("-gcm", &["chacha", "ctr256"]),
            ("-c*", &["gcm"]),
            ("-*", &[]),
            ("^ctr256,ctr128", &["ctr256", "ctr128", "gcm", "chacha"]),
        ] {
            assert_eq!(choose(AlgorithmSpec::new(text)).0, expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_exist_is_skipped_and_told() {
        assert_eq!(
            choose(AlgorithmSpec::new("rot13,gcm,ctr*")),
            (vec!["gcm"], vec!["rot13".to_owned(), "ctr*".to_owned()])
        );
        assert_eq!(choose(AlgorithmSpec::new("rot13")).0, [""; 0]);
    }

    #[test]
    fn wildcards_stand_for_names_in_lists_of_keys() {
        let (chosen, skipped) = choose(AlgorithmSpec::of_keys("ctr*,gcm"));
        assert_eq!(chosen, ["ctr256", "ctr128", "gcm"]);
        assert!(skipped.is_empty());
    }
}
