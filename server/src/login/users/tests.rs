//! Who is let in, and that nobody learns who is not.

mod stay;
mod times;

use super::*;
use crate::fs::MemoryFileSystem;
use crate::policy::Access;

fn user(name: &str) -> User {
    User::with_file_system(name, Arc::new(MemoryFileSystem::new()))
}

fn users(users: Vec<User>) -> Result<Users, BuildError> {
    Users::new(users, Trust::default(), 10, Duration::from_secs(1))
}

const MOMENT: Moment = Moment {
    source: None,
    now: 1_800_000_000,
};

/// The first step of a login.
fn check(users: &Users, user: &str, method: &Method) -> Verdict {
    users.check(user, method, &mut Steps::default(), MOMENT, false)
}

fn query(key: PublicKey) -> Method {
    let algorithm = key.algorithms()[0];
    Method::PublicKeyQuery { key, algorithm }
}

fn signed(key: PublicKey) -> Method {
    Method::PublicKey {
        algorithm: key.algorithms()[0],
        key,
        presence: None,
    }
}

fn password(password: &str) -> Method {
    Method::Password(Zeroizing::new(password.to_owned()))
}

#[test]
fn a_user_is_let_in_by_the_right_password_alone() {
    let users = users(vec![
        user("anna").password("right"),
        user("bob").password("other"),
    ])
    .unwrap();
    let verdict = check(&users, "anna", &password("right"));
    assert!(
        matches!(&verdict, Verdict::Accepted(outcome) if outcome.account.policy.user == "anna")
    );
    for (name, given) in [
        ("anna", "wrong"),
        ("anna", ""),
        ("anna", "other"),
        ("bob", "right"),
        ("eve", "right"),
    ] {
        let verdict = check(&users, name, &password(given));
        assert!(
            matches!(verdict, Verdict::Rejected(after) if after >= FLOOR),
            "{name} {given}"
        );
    }
    assert!(matches!(
        check(&users, "anna", &Method::None),
        Verdict::Rejected(_)
    ));
}

#[test]
fn a_query_is_not_a_proof() {
    let (key, other) = (PublicKey::ed25519([1; 32]), PublicKey::ed25519([2; 32]));
    let users = users(vec![user("anna").authorized_key(key.clone())]).unwrap();
    let verdict = check(&users, "anna", &query(key.clone()));
    assert!(matches!(verdict, Verdict::Acceptable));
    assert!(matches!(
        check(&users, "anna", &signed(key)),
        Verdict::Accepted(_)
    ));
    for method in [query(other.clone()), signed(other)] {
        assert!(matches!(
            check(&users, "anna", &method),
            Verdict::Rejected(_)
        ));
    }
}

#[test]
fn a_user_without_a_password_has_none_that_fits() {
    let key = PublicKey::ed25519([1; 32]);
    let users = users(vec![user("anna").authorized_key(key)]).unwrap();
    for given in ["", "x"] {
        assert!(matches!(
            check(&users, "anna", &password(given)),
            Verdict::Rejected(_)
        ));
    }
    assert_eq!(users.methods(), [AuthMethod::PublicKey]);
}

#[test]
fn degenerate_users_are_refused_at_the_start() {
    let long = "n".repeat(USER_NAME_LEN_MAX + 1);
    for bad in [
        vec![],
        vec![user("anna")],
        vec![user("anna").password("")],
        vec![user("anna").password("p".repeat(PASSWORD_LEN_MAX + 1))],
        vec![user("").password("x")],
        vec![user("a\nb").password("x")],
        vec![user(&long).password("x")],
        vec![user("anna").password("x"), user("anna").password("y")],
        vec![User::new("anna", "/no/such/directory").password("x")],
    ] {
        let shown = format!("{bad:?}");
        assert!(users(bad).is_err(), "{shown}");
    }
}

#[test]
fn a_user_is_shown_without_the_password() {
    assert!(!format!("{:?}", user("anna").password("hunter2")).contains("hunter2"));
}

#[test]
fn jitter_is_a_users_own_and_stays_the_same() {
    let users = users(vec![user("anna").password("x")]).unwrap();
    let all: Vec<_> = (0..50).map(|n| users.jitter(&format!("user{n}"))).collect();
    assert!(
        all.iter()
            .all(|jitter| jitter.as_micros() < u128::from(JITTER_MAX_MICROS))
    );
    assert!(all.iter().any(|jitter| *jitter != all[0]));
    assert_eq!(users.jitter("anna"), users.jitter("anna"));
}

fn key(seed: u8) -> PublicKey {
    PublicKey::ed25519([seed; 32])
}

fn from(address: &str, now: u64) -> Moment {
    let source = Some(address.parse().unwrap());
    Moment { source, now }
}

#[test]
fn what_a_key_is_bound_to_is_enforced() {
    let bound = AuthorizedKey::new(key(1))
        .from_addresses(["192.0.2.0/24".parse().unwrap()])
        .expires_at(2_000)
        .read_only();
    let users = users(vec![user("anna").authorized_key(bound)]).unwrap();
    let verdict = |moment| {
        users.check(
            "anna",
            &signed(key(1)),
            &mut Steps::default(),
            moment,
            false,
        )
    };
    let Verdict::Accepted(outcome) = verdict(from("192.0.2.9", 1_999)) else {
        panic!("it is the right place and time")
    };
    assert_eq!(outcome.account.policy.access, Access::ReadOnly);
    for moment in [
        from("192.0.3.9", 1_999),
        from("192.0.2.9", 2_000),
        MOMENT,
        Moment {
            source: None,
            now: 1_000,
        },
    ] {
        assert!(
            matches!(verdict(moment), Verdict::Rejected(_)),
            "{moment:?}"
        );
        let asked = users.check("anna", &query(key(1)), &mut Steps::default(), moment, false);
        assert!(matches!(asked, Verdict::Rejected(_)), "{moment:?}");
    }
}

#[test]
fn all_that_is_required_is_wanted_in_its_order() {
    use AuthMethod::{Password, PublicKey};
    let users = users(vec![
        user("anna")
            .password("right")
            .authorized_key(key(1))
            .authorized_key(AuthorizedKey::new(key(2)).read_only())
            .require([PublicKey, PublicKey, Password]),
    ])
    .unwrap();
    let mut steps = Steps::default();
    let mut step = |method: &Method| users.check("anna", method, &mut steps, MOMENT, false);
    assert!(matches!(step(&password("right")), Verdict::Rejected(_)));
    assert!(matches!(step(&signed(key(1))), Verdict::Partial(PublicKey)));
    // The same key is no second one.
    assert!(matches!(step(&signed(key(1))), Verdict::Rejected(_)));
    assert!(matches!(step(&signed(key(3))), Verdict::Rejected(_)));
    assert!(matches!(step(&signed(key(2))), Verdict::Partial(Password)));
    assert!(matches!(step(&password("wrong")), Verdict::Rejected(_)));
    let Verdict::Accepted(outcome) = step(&password("right")) else {
        panic!("that was all")
    };
    // What one of the steps restricts holds for the session.
    assert_eq!(outcome.account.policy.access, Access::ReadOnly);
}

#[test]
fn what_cannot_be_met_is_refused_at_the_start() {
    use AuthMethod::{KeyboardInteractive, Password, PublicKey};
    for bad in [
        user("anna").password("x").require([PublicKey]),
        user("anna").authorized_key(key(1)).require([Password]),
        user("anna").authorized_key(key(1)).require([PublicKey; 2]),
        user("anna").password("x").require([Password; 2]),
        user("anna").password("x").require([KeyboardInteractive]),
        user("anna").certificate_authority(key(1), [""; 0]),
    ] {
        assert!(users(vec![bad]).is_err());
    }
}

#[test]
fn who_asks_about_keys_may_be_told_nothing() {
    let trust = Trust {
        uniform_queries: true,
        ..Trust::default()
    };
    let anna = user("anna").authorized_key(key(1));
    let users = Users::new(vec![anna], trust, 10, Duration::from_secs(1)).unwrap();
    for (name, seed, does) in [("anna", 1, true), ("anna", 2, false), ("eve", 1, false)] {
        let asked = check(&users, name, &query(key(seed)));
        assert!(matches!(asked, Verdict::Acceptable));
        let signed = check(&users, name, &signed(key(seed)));
        assert_eq!(matches!(signed, Verdict::Accepted(_)), does);
    }
}

#[test]
fn unknown_users_are_answered_as_those_with_wrong_credentials() {
    let users = users(vec![user("anna").password("right").authorized_key(key(1))]).unwrap();
    for method in [password("wrong"), signed(key(2)), query(key(2))] {
        for name in ["anna", "eve", "../anna", "anna\0", "$(id)", "%u", ""] {
            let verdict = check(&users, name, &method);
            let Verdict::Rejected(after) = verdict else {
                panic!("{name:?} {method:?}")
            };
            assert_eq!(after, FLOOR + users.jitter(name));
        }
    }
}

#[test]
fn a_hash_is_compared_with_for_everybody_at_the_cost_of_the_costliest() {
    let hash = |memory: u32| -> Arc<PasswordHash> {
        let text = format!(
            "$argon2id$v=19$m={memory},t=2,p=1$c29tZXNhbHQ\
             $nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
        );
        Arc::new(text.parse().unwrap())
    };
    let plain = users(vec![user("anna").password("right")]).unwrap();
    assert!(plain.hash_to_try("anna", &password("right")).is_none());

    let users = users(vec![
        user("anna").password_hash((*hash(256)).clone()),
        user("bob").password_hash((*hash(512)).clone()),
        user("carl").password("right"),
        user("dora").authorized_key(key(1)),
    ])
    .unwrap();
    let cost = |name: &str, method: &Method| {
        let (hash, _) = users.hash_to_try(name, method)?;
        Some(hash.cost())
    };
    assert_eq!(cost("anna", &password("x")), Some(512));
    for name in ["bob", "carl", "dora", "nobody"] {
        assert_eq!(cost(name, &password("x")), Some(1024), "{name}");
    }
    let change = Method::PasswordChange {
        old: Zeroizing::new("x".to_owned()),
        new: Zeroizing::new("y".to_owned()),
    };
    assert_eq!(cost("nobody", &change), Some(1024));
    assert_eq!(cost("anna", &signed(key(1))), None);
    // What fits the hash counts for those who have one, and for nobody else.
    for (name, lets_in) in [
        ("anna", true),
        ("carl", false),
        ("dora", false),
        ("nobody", false),
    ] {
        let method = password("x");
        let verdict = users.check(name, &method, &mut Steps::default(), MOMENT, true);
        assert_eq!(matches!(verdict, Verdict::Accepted(_)), lets_in, "{name}");
    }
    assert!(matches!(
        check(&users, "anna", &password("x")),
        Verdict::Rejected(_)
    ));
    assert!(matches!(
        check(&users, "carl", &password("right")),
        Verdict::Accepted(_)
    ));
}

#[test]
fn questions_let_in_whom_they_are_for_and_need_somebody_who_asks() {
    use crate::login::interview::Interview;
    let nobody_asks = users(vec![user("anna").questions()]).unwrap_err();
    assert!(matches!(nobody_asks, BuildError::Unattainable { .. }));
    let trust = || Trust {
        interviewer: Interviewer::new(|_, _| Interview::Accept),
        ..Trust::default()
    };
    let users = |users| Users::new(users, trust(), 10, Duration::from_secs(1));
    let both = [AuthMethod::Password, AuthMethod::KeyboardInteractive];
    let known = users(vec![
        user("anna").questions(),
        user("bob").password("right"),
        user("carl").password("right").questions().require(both),
    ])
    .unwrap();
    assert!(known.methods().contains(&AuthMethod::KeyboardInteractive));
    let answered = |name: &str, steps: &mut Steps, found_right| {
        let method = Method::Answers(Vec::new());
        known.check(name, &method, steps, MOMENT, found_right)
    };
    for (name, lets_in) in [
        ("anna", true),
        ("bob", false),
        ("carl", false),
        ("eve", false),
    ] {
        let verdict = answered(name, &mut Steps::default(), true);
        assert_eq!(matches!(verdict, Verdict::Accepted(_)), lets_in, "{name}");
        let verdict = answered(name, &mut Steps::default(), false);
        assert!(matches!(verdict, Verdict::Rejected(_)));
    }
    let mut steps = Steps::default();
    let first = known.check("carl", &password("right"), &mut steps, MOMENT, false);
    assert!(matches!(
        first,
        Verdict::Partial(AuthMethod::KeyboardInteractive)
    ));
    let verdict = answered("carl", &mut steps, true);
    assert!(matches!(verdict, Verdict::Accepted(_)));
    // Nothing is required that the user cannot do.
    for bad in [
        user("anna").password("x").require(both),
        user("anna")
            .questions()
            .require([AuthMethod::KeyboardInteractive; 2]),
    ] {
        assert!(matches!(
            users(vec![bad]).unwrap_err(),
            BuildError::Unattainable { .. }
        ));
    }
}
