//! Passwords as Argon2id keeps them (RFC 9106), written as PHC strings.
//!
//! To compare takes milliseconds and megabytes, on purpose: it is done on a thread where blocking is
//! allowed, by few at a time ([`Hashing`]).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, Version};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

/// Most memory that a hash may take, in KiB.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Most passes over it.
const PASSES_MAX: u32 = 64;
/// Most lanes.
const LANES_MAX: u32 = 16;
/// Lengths of what is made here, in bytes.
const SALT_LEN: usize = 16;
const OUTPUT_LEN: usize = 32;
/// Shortest output that is taken, in bytes.
const OUTPUT_LEN_MIN: usize = 16;

/// What is kept of a password: enough to tell whether another is the same.
///
/// ```
/// use ketch_server::PasswordHash;
///
/// let hash: PasswordHash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ\
///     $nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4".parse()?;
/// # Ok::<(), ketch_server::BadPasswordHash>(())
/// ```
#[derive(Clone)]
pub struct PasswordHash {
    params: Params,
    salt: Vec<u8>,
    output: Zeroizing<Vec<u8>>,
}

/// A text is no hash of Argon2id, or one that would cost too much.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this is no Argon2id hash, such as $argon2id$v=19$m=19456,t=2,p=1$…, or costs too much")]
pub struct BadPasswordHash;

/// Why no hash was made of a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no randomness or no memory for a hash")]
pub struct HashError;

impl PasswordHash {
    /// A new one of a password, as OWASP has it: 19 MiB of memory, two passes, one lane. It takes
    /// milliseconds.
    ///
    /// # Errors
    /// [`HashError`] if the system has no randomness or memory.
    pub fn of(password: &str) -> Result<Self, HashError> {
        let params = Params::new(19 * 1024, 2, 1, Some(OUTPUT_LEN)).map_err(|_| HashError)?;
        let mut hash = Self {
            params,
            salt: random(SALT_LEN)?,
            output: Zeroizing::new(Vec::new()),
        };
        hash.output = hash.compute(password).ok_or(HashError)?;
        Ok(hash)
    }

    /// One that no password fits and that costs as much to find that out.
    pub(crate) fn decoy(&self) -> Result<Self, HashError> {
        Ok(Self {
            params: self.params.clone(),
            salt: random(self.salt.len())?,
            output: Zeroizing::new(random(self.output.len())?),
        })
    }

    /// How much it takes, to compare with others.
    pub(crate) fn cost(&self) -> u64 {
        u64::from(self.params.m_cost()) * u64::from(self.params.t_cost())
    }

    /// Whether a password is the one that this was made of. Blocks.
    fn fits(&self, password: &str) -> bool {
        self.compute(password)
            .is_some_and(|output| bool::from(output.ct_eq(&self.output)))
    }

    fn compute(&self, password: &str) -> Option<Zeroizing<Vec<u8>>> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let len = self.params.output_len().unwrap_or(OUTPUT_LEN);
        let mut output = Zeroizing::new(vec![0; len]);
        argon2
            .hash_password_into(password.as_bytes(), &self.salt, &mut output)
            .ok()?;
        Some(output)
    }
}

fn random(len: usize) -> Result<Vec<u8>, HashError> {
    let mut bytes = vec![0; len];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| HashError)?;
    Ok(bytes)
}

impl FromStr for PasswordHash {
    type Err = BadPasswordHash;

    fn from_str(text: &str) -> Result<Self, BadPasswordHash> {
        let parsed = phc::PasswordHash::new(text).map_err(|_| BadPasswordHash)?;
        let is_known = parsed.algorithm == Algorithm::Argon2id.ident()
            && parsed.version == Some(Version::V0x13.into());
        let params = Params::try_from(&parsed).map_err(|_| BadPasswordHash)?;
        let (Some(salt), Some(output)) = (&parsed.salt, &parsed.hash) else {
            return Err(BadPasswordHash);
        };
        let is_bearable = params.m_cost() <= MEMORY_KIB_MAX
            && params.t_cost() <= PASSES_MAX
            && params.p_cost() <= LANES_MAX
            && output.len() >= OUTPUT_LEN_MIN
            && params.keyid().is_empty()
            && params.data().is_empty();
        if !is_known || !is_bearable {
            return Err(BadPasswordHash);
        }
        Ok(Self {
            params,
            salt: salt.to_vec(),
            output: Zeroizing::new(output.as_bytes().to_vec()),
        })
    }
}

/// The PHC string.
impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = phc::PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: phc::ParamsString::try_from(&self.params).map_err(|_| fmt::Error)?,
            salt: Some(phc::Salt::new(&self.salt).map_err(|_| fmt::Error)?),
            hash: Some(phc::Output::new(&self.output).map_err(|_| fmt::Error)?),
        };
        hash.fmt(f)
    }
}

/// Shows what it costs and nothing that could be guessed against.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash")
            .field("memory_kib", &self.params.m_cost())
            .field("passes", &self.params.t_cost())
            .finish_non_exhaustive()
    }
}

/// Where hashes are computed: few at a time, whoever asks.
#[derive(Debug)]
pub(crate) struct Hashing {
    turns: Arc<Semaphore>,
}

impl Hashing {
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(at_once.max(1))),
        }
    }

    /// Whether a password fits.
    pub(crate) async fn fits(&self, hash: Arc<PasswordHash>, password: Zeroizing<String>) -> bool {
        self.run(move || hash.fits(&password))
            .await
            .unwrap_or(false)
    }

    /// A new hash; nothing if that ended in a panic.
    pub(crate) async fn of(
        &self,
        password: Zeroizing<String>,
    ) -> Option<Result<PasswordHash, HashError>> {
        self.run(move || PasswordHash::of(&password)).await
    }

    /// A panic gives nothing. The turn ends with the work: who asks and leaves does not make room for
    /// more of it.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        // It is never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let work = move || {
            let output = work();
            drop(turn);
            output
        };
        spawn_blocking(work).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of the reference implementation's tests (`phc-winner-argon2`, `src/test.c`).
    const PUBLISHED: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ\
        $nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

    #[test]
    fn the_published_hash_fits_its_password_alone() {
        let hash: PasswordHash = PUBLISHED.parse().unwrap();
        assert!(hash.fits("password"));
        for wrong in ["", "Password", "password ", "differentpassword"] {
            assert!(!hash.fits(wrong), "{wrong:?}");
        }
        assert_eq!(hash.to_string(), PUBLISHED);
        assert!(!format!("{hash:?}").contains("nf65"));
        let decoy = hash.decoy().unwrap();
        assert!(!decoy.fits("password") && decoy.cost() == hash.cost());
    }

    #[test]
    fn a_new_hash_costs_what_owasp_wants_and_is_another_each_time() {
        let hash = PasswordHash::of("open sesame").unwrap();
        assert!(hash.fits("open sesame") && !hash.fits("open"));
        let text = hash.to_string();
        assert!(
            text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{text}"
        );
        assert!(text.parse::<PasswordHash>().unwrap().fits("open sesame"));
        assert_ne!(PasswordHash::of("open sesame").unwrap().to_string(), text);
    }

    #[test]
    fn other_algorithms_and_costs_without_end_are_refused() {
        let with = |from: &str, to: &str| PUBLISHED.replace(from, to);
        for bad in [
            String::new(),
            "password".to_owned(),
            with("argon2id", "argon2i"),
            with("argon2id", "argon2d"),
            with("argon2id", "scrypt"),
            with("v=19", "v=16"),
            with("$v=19", ""),
            with("m=256", "m=4294967295"),
            with("m=256", "m=262145"),
            with("m=256", "m=1"),
            with("t=2", "t=65"),
            with("t=2", "t=0"),
            with("p=1", "p=17"),
            with("p=1", "p=0"),
            with("p=1", "p=1,x=1"),
            with("$c29tZXNhbHQ", ""),
            with("$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", ""),
            with("nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "nf65EOgLrQM"),
        ] {
            assert_eq!(bad.parse::<PasswordHash>().unwrap_err(), BadPasswordHash);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_hash_or_none(text in "\\PC{0,80}", cut in 0_usize..100) {
            let _ = text.parse::<PasswordHash>();
            let cut = PUBLISHED.get(..cut).unwrap_or(PUBLISHED);
            let _ = format!("{cut}{text}").parse::<PasswordHash>();
        }
    }

    #[tokio::test]
    async fn a_new_password_is_hashed_in_its_turn() {
        let hashing = Hashing::new(1);
        let turn = Arc::clone(&hashing.turns).acquire_owned().await.unwrap();
        let mut of = std::pin::pin!(hashing.of(Zeroizing::new("open sesame".to_owned())));
        tokio::select! {
            biased;
            _ = &mut of => panic!("it was not its turn"),
            () = tokio::task::yield_now() => {}
        }
        drop(turn);
        assert!(of.await.unwrap().unwrap().fits("open sesame"));
    }

    #[tokio::test]
    async fn few_are_computed_at_a_time() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let hashing = Arc::new(Hashing::new(2));
        let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let hashing = Arc::clone(&hashing);
            let (at_once, most) = (Arc::clone(&at_once), Arc::clone(&most));
            all.spawn(async move {
                let work = move || {
                    most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    true
                };
                hashing.run(work).await
            });
        }
        let done = all.join_all().await;
        assert!(done.iter().all(|fits| *fits == Some(true)));
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(hashing.run(|| -> bool { panic!("on purpose") }).await, None);
        assert!(
            hashing.run(|| true).await.is_some(),
            "its turn was given back"
        );
    }

    #[tokio::test]
    async fn who_asks_and_leaves_makes_no_room_for_more() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        use std::sync::{Mutex, mpsc};
        let hashing = Hashing::new(2);
        let begun = Arc::new(AtomicUsize::new(0));
        let (shut, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..20 {
            let (begun, gate) = (Arc::clone(&begun), Arc::clone(&gate));
            let work = move || {
                begun.fetch_add(1, Ordering::SeqCst);
                // Until nobody can send any more.
                gate.lock().unwrap().recv().is_err()
            };
            let leaving = std::time::Duration::from_millis(5);
            let asked = tokio::time::timeout(leaving, hashing.run(work)).await;
            assert!(asked.is_err(), "it is not done before the gate opens");
        }
        assert!(begun.load(Ordering::SeqCst) <= 2);
        assert_eq!(hashing.turns.available_permits(), 0);
        drop(shut);
        assert!(
            hashing.run(|| true).await.is_some(),
            "the turns end with the work"
        );
    }
}
