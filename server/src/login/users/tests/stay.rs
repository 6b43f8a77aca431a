//! Whoever may not come is answered as somebody with wrong credentials is (A8).

use std::path::Path;

use super::*;
use crate::login::password_hash::PasswordHash;

const NOW: u64 = 2_000;

/// Five users who have the same credentials and may not come, and one who may.
fn all() -> Vec<User> {
    let hash: PasswordHash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ\
        $nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
        .parse()
        .unwrap();
    let with = |name: &str| {
        let user = user(name).authorized_key(key(1));
        user.password_hash(hash.clone()).questions()
    };
    vec![
        with("may"),
        with("disabled").disabled(),
        with("expired").expires(NOW),
        with("elsewhere").sources(["192.0.2.0/24".parse().unwrap()]),
        with("nowhere").sources([]),
        with("full").connections_max(0),
        with("due").password_expired("Change it").disabled(),
    ]
}

fn trust() -> Trust {
    use crate::login::interview::Interview;
    Trust {
        interviewer: Interviewer::new(|_, _| Interview::Accept),
        password_keeper: PasswordKeeper::new(|_, _| Ok(())),
        ..Trust::default()
    }
}

#[test]
fn who_may_not_come_is_answered_as_who_is_unknown() {
    let users = Users::new(all(), trust(), 10, Duration::from_secs(1)).unwrap();
    let moment = from("198.51.100.7", NOW);
    let change = Method::PasswordChange {
        old: Zeroizing::new("right".to_owned()),
        new: Zeroizing::new("new".to_owned()),
    };
    let methods = [
        password("right"),
        change,
        query(key(1)),
        signed(key(1)),
        Method::Answers(Vec::new()),
    ];
    for method in &methods {
        for name in [
            "disabled",
            "expired",
            "elsewhere",
            "nowhere",
            "full",
            "due",
            "unknown",
        ] {
            let cost = users.hash_to_try(name, method).map(|(hash, _)| hash.cost());
            let of_may = users
                .hash_to_try("may", method)
                .map(|(hash, _)| hash.cost());
            assert_eq!(cost, of_may, "{name} {method:?}");
            let mut steps = Steps::default();
            let verdict = users.check(name, method, &mut steps, moment, true);
            let Verdict::Rejected(after) = verdict else {
                panic!("{name} {method:?}: {verdict:?}")
            };
            assert_eq!(after, FLOOR + users.jitter(name));
        }
        let verdict = users.check("may", method, &mut Steps::default(), moment, true);
        let is_right = matches!(verdict, Verdict::Accepted(_) | Verdict::Acceptable);
        let is_change = matches!(method, Method::PasswordChange { .. });
        assert_eq!(is_right, !is_change, "{method:?}: {verdict:?}");
    }
}

#[test]
fn a_place_is_taken_by_a_session_and_not_by_an_attempt() {
    let one = user("anna").password("right").connections_max(1);
    let users = Users::new(vec![one], Trust::default(), 10, Duration::from_secs(1)).unwrap();
    for _ in 0..3 {
        assert!(matches!(
            check(&users, "anna", &password("wrong")),
            Verdict::Rejected(_)
        ));
    }
    let first = check(&users, "anna", &password("right"));
    assert!(matches!(first, Verdict::Accepted(_)));
    assert!(matches!(
        check(&users, "anna", &password("right")),
        Verdict::Rejected(_)
    ));
    // Also where the users were read again.
    let again = vec![user("anna").password("right").connections_max(1)];
    let again = users
        .renewed(again, Trust::default(), Duration::from_secs(1))
        .unwrap();
    assert_eq!(again.jitter("anna"), users.jitter("anna"));
    assert!(matches!(
        check(&again, "anna", &password("right")),
        Verdict::Rejected(_)
    ));
    drop(first);
    assert!(matches!(
        check(&again, "anna", &password("right")),
        Verdict::Accepted(_)
    ));
}

#[test]
fn who_is_there_may_stay_as_long_as_it_was_said() {
    let users = Users::new(all(), trust(), 10, Duration::from_secs(1)).unwrap();
    for name in ["may", "elsewhere", "full"] {
        assert_eq!(users.staying(name, NOW), Staying::Until(None), "{name}");
    }
    for name in ["disabled", "expired", "unknown"] {
        assert_eq!(users.staying(name, NOW), Staying::Over, "{name}");
    }
    assert_eq!(users.staying("expired", NOW - 1), Staying::Until(Some(NOW)));
}

#[test]
fn what_has_arrived_stays_so_over_a_reload() {
    use crate::Arrivals;
    use crate::path::VPath;
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let with = |name: &str, root: &Path| {
        let user = User::new(name, root).password("right");
        user.arrivals(Arrivals::on_close())
    };
    let users = vec![with("anna", dir.path())];
    let users = Users::new(users, Trust::default(), 10, Duration::from_secs(1)).unwrap();
    let path = VPath::resolve(b"/in/file").unwrap();
    let of = |users: &Users, name: &str| {
        let policy = &users.records.get(name).unwrap().account.policy;
        policy.arrivals.clone().unwrap()
    };
    of(&users, "anna").arrived(&path);
    // Also for who is new there, and not for who has another directory.
    let next = vec![with("bob", dir.path()), with("carl", other.path())];
    let next = users
        .renewed(next, Trust::default(), Duration::from_secs(1))
        .unwrap();
    assert!(of(&next, "bob").has_arrived(&path));
    assert!(!of(&next, "carl").has_arrived(&path));
}
