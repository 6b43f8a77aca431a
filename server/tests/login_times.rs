//! How long wrong logins take as a client sees it, for users who exist and for users who do not (A8):
//! printed, never judged. `KETCH_LOGIN_TIMES=100000` makes as many of each kind as the table of
//! threats asks for.
#![cfg(unix)]

use std::sync::Arc;
use std::time::Instant;

use ketch_server::{FileSystem, MemoryFileSystem, Server, User, generate_host_key};
use ketch_transport::auth::Credential;
use ketch_transport::config::ClientConfig;
use ketch_transport::driver::{Login, LoginEvent};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

const ATTEMPTS: usize = 16;
/// Logins under way at a time.
const AT_ONCE: usize = 16;
/// Users that exist, each with a jitter of its own.
const USERS: usize = 2_000;

/// Seconds from a wrong password to its refusal.
#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
async fn refusal(server: Server, user: String) -> f64 {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(async move { server.serve_stream(theirs, "test").await });
    let mut login = Login::client(ours, ClientConfig::new(user)).unwrap();
    let mut begun = None;
    let took = loop {
        match login.next().await.unwrap() {
            LoginEvent::HostKey(_) => login.accept_host_key().unwrap(),
            LoginEvent::AuthWanted { .. } => match begun {
                Some(begun) => break Instant::now().duration_since(begun).as_secs_f64(),
                None => {
                    let password = Zeroizing::new("wrong".to_owned());
                    begun = Some(Instant::now());
                    login.authenticate(&Credential::Password(password)).unwrap();
                }
            },
            _ => {}
        }
    };
    drop(login);
    let _ = serving.await;
    took
}

fn mean_and_variance_of_mean(times: &[f64]) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    let count = times.len() as f64;
    let mean = times.iter().sum::<f64>() / count;
    let square = times.iter().map(|each| (each - mean).powi(2)).sum::<f64>();
    (mean, square / (count - 1.0) / count)
}

#[tokio::test]
async fn times_of_refusals_are_printed() {
    let attempts = std::env::var("KETCH_LOGIN_TIMES").map_or(ATTEMPTS, |n| n.parse().unwrap());
    let files: Arc<dyn FileSystem> = Arc::new(MemoryFileSystem::new());
    let mut builder = Server::builder().host_key(generate_host_key().unwrap());
    for n in 0..USERS {
        let user = User::with_file_system(format!("anna{n:06}"), Arc::clone(&files));
        builder = builder.user(user.password("right"));
    }
    let server = builder.build().unwrap();
    let mut times = [Vec::new(), Vec::new()];
    let mut running = JoinSet::new();
    for n in 0..2 * attempts {
        let (is_known, number) = (n.is_multiple_of(2), (n / 2) % USERS);
        let name = if is_known { "anna" } else { "zzzz" };
        let refused = refusal(server.clone(), format!("{name}{number:06}"));
        running.spawn(async move { (usize::from(!is_known), refused.await) });
        if running.len() == AT_ONCE {
            let (kind, took) = running.join_next().await.unwrap().unwrap();
            times[kind].push(took);
        }
    }
    while let Some(done) = running.join_next().await {
        let (kind, took) = done.unwrap();
        times[kind].push(took);
    }
    let medians = [0, 1].map(|kind: usize| {
        times[kind].sort_by(f64::total_cmp);
        times[kind][times[kind].len() / 2]
    });
    let [(a, of_a), (b, of_b)] = [0, 1].map(|kind: usize| mean_and_variance_of_mean(&times[kind]));
    println!(
        "{attempts} each: median {:.1} ms and {:.1} ms, mean {:.2} ms and {:.2} ms, Welch's t {:.2}",
        medians[0] * 1e3,
        medians[1] * 1e3,
        a * 1e3,
        b * 1e3,
        (a - b) / (of_a + of_b).sqrt(),
    );
}
