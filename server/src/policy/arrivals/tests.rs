use super::*;
use crate::fs::OpenHow;
use proptest::prelude::*;

fn path(named: &str) -> VPath {
    VPath::resolve(named.as_bytes()).unwrap()
}

fn on_close() -> Arrivals {
    let arrivals = Arrivals::on_close().temporary_name("*.part").unwrap();
    arrivals.temporary_name(".~*").unwrap()
}

#[test]
fn a_file_arrives_by_its_close_or_by_the_name_it_gets() {
    let arrivals = on_close();
    for (named, expected) in [
        ("/in/a.csv", Appeared::File),
        ("/in/a.csv.part", Appeared::Unfinished),
        ("/in/.~a", Appeared::Unfinished),
        ("/.~in/a", Appeared::File),
    ] {
        assert_eq!(arrivals.appears(&path(named)), expected, "{named}");
    }
    let renamed = |from, to| arrivals.appears_from(&path(from), &path(to));
    assert_eq!(renamed("/a.part", "/a"), Appeared::File);
    assert_eq!(renamed("/a.part", "/b.part"), Appeared::Unfinished);
    assert_eq!(renamed("/a", "/b"), Appeared::Unfinished);
}

#[test]
fn a_trigger_is_one_for_the_file_of_its_name() {
    let arrivals = Arrivals::on_trigger(".done").unwrap();
    let arrivals = arrivals.temporary_name("*.tmp").unwrap();
    let trigger = |named| Appeared::TriggerOf(path(named));
    for (named, expected) in [
        ("/in/a", Appeared::Unfinished),
        ("/in/a.done", trigger("/in/a")),
        ("/in/a.done.done", trigger("/in/a.done")),
        ("/in/.done", Appeared::Unfinished),
        ("/.done", Appeared::Unfinished),
        ("/in/a.done.tmp", Appeared::Unfinished),
    ] {
        assert_eq!(arrivals.appears(&path(named)), expected, "{named}");
    }
    let renamed = arrivals.appears_from(&path("/x"), &path("/a.done"));
    assert_eq!(renamed, trigger("/a"));
    for bad in ["", "/done", "a\\b"] {
        assert!(Arrivals::on_trigger(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn what_has_arrived_is_left_alone_as_long_as_it_is_there() {
    let arrivals = on_close();
    arrivals.arrived(&path("/in/a"));
    let judge = |call: Call| {
        let mut call = call;
        arrivals.judge(&mut call).map(|()| call)
    };
    let open = |how| Call::Open {
        path: path("/in/a"),
        how,
    };
    assert!(judge(open(OpenHow::read())).is_ok());
    let Ok(Call::Open { how, .. }) = judge(open(OpenHow::replace(0o600))) else {
        panic!("it may be gone");
    };
    assert_eq!(how.create, Create::New { mode: 0o600 });
    let write = OpenHow {
        create: Create::Never,
        ..OpenHow::replace(0o600)
    };
    assert_eq!(judge(open(write)).unwrap_err(), Refusal::ARRIVED);
    let rename = |from, to| Call::Rename {
        from: path(from),
        to: path(to),
        target: Target::MayExist,
    };
    for from in ["/in/a", "/in"] {
        assert_eq!(judge(rename(from, "/x")).unwrap_err(), Refusal::ARRIVED);
    }
    assert!(judge(rename("/i", "/x")).is_ok());
    let Ok(Call::Rename { target, .. }) = judge(rename("/b", "/in/a")) else {
        panic!("it may be gone");
    };
    assert_eq!(target, Target::MustNotExist);
    let remove = |named| Call::Remove { path: path(named) };
    assert_eq!(judge(remove("/in/a")).unwrap_err(), Refusal::ARRIVED);
    assert!(judge(remove("/in/b")).is_ok());
    let clone = arrivals.clone();
    assert!(clone.forget(&path("/in/a")), "clones know the same");
    assert!(judge(remove("/in/a")).is_ok());
}

#[test]
fn where_changes_are_allowed_nothing_is_refused_or_kept() {
    let arrivals = on_close().allow_changes();
    arrivals.arrived(&path("/a"));
    assert!(!arrivals.has_arrived(&path("/a")));
    let mut call = Call::Remove { path: path("/a") };
    assert!(arrivals.judge(&mut call).is_ok());
}

#[test]
fn the_oldest_are_forgotten_when_there_are_too_many() {
    let arrivals = on_close();
    for n in 0..ARRIVALS_KEPT + 10 {
        arrivals.arrived(&path(&format!("/{n}")));
        arrivals.arrived(&path("/again"));
    }
    assert!(!arrivals.has_arrived(&path("/0")));
    assert!(arrivals.has_arrived(&path("/again")));
    let known = arrivals.known();
    assert_eq!(known.numbers.len(), ARRIVALS_KEPT);
    assert!(known.order.len() <= 2 * ARRIVALS_KEPT + 17);
    let lens = known.numbers.keys().map(|path| path.as_bytes().len());
    assert_eq!(known.paths_len, lens.sum::<usize>());
}

proptest! {
    #[test]
    fn what_lies_beneath_is_found(names in proptest::collection::vec("[ab/-]{1,6}", 0..12), at in "[ab/-]{1,3}") {
        let arrivals = on_close();
        for name in &names {
            arrivals.arrived(&path(name));
        }
        let at = path(&at);
        let all: Vec<VPath> = names.iter().map(|name| path(name)).collect();
        let is_beneath = |other: &VPath| {
            let (mut above, mut below) = (at.components(), other.components());
            above.by_ref().all(|name| below.next() == Some(name)) && below.next().is_some()
        };
        let found = all.iter().any(is_beneath);
        prop_assert_eq!(has_beneath(&arrivals.known().numbers, &at), found);
    }
}
