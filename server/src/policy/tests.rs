//! The decisions themselves; that requests come to them is `engine/tests/rights.rs`.

use super::*;

const WRITE: OpenHow = OpenHow {
    read: false,
    write: true,
    append: false,
    truncate: false,
    exclusive: false,
    create: Create::Never,
};

fn policy(access: Access, links: bool) -> Policy {
    Policy {
        user: "test".into(),
        access,
        rules: None,
        exclusive_uploads: false,
        arrivals: None,
        symbolic_links: links,
        hard_links: links,
        standing: Standing::default(),
    }
}

fn with(rules: Rules) -> Policy {
    Policy {
        rules: Some(Arc::new(rules)),
        ..policy(Access::ReadWrite, true)
    }
}

fn path(named: &str) -> VPath {
    VPath::resolve(named.as_bytes()).unwrap()
}

#[test]
fn links_are_made_only_where_they_are_asked_for() {
    for links in [false, true] {
        let policy = policy(Access::ReadWrite, links);
        assert_eq!(policy.symbolic_link(&path("/l")).is_ok(), links);
        assert_eq!(policy.hard_link(&path("/f"), &path("/l")).is_ok(), links);
        let read_only = Policy {
            access: Access::ReadOnly,
            ..policy
        };
        let refused = Err(Refusal::READ_ONLY);
        assert_eq!(read_only.symbolic_link(&path("/l")), refused);
        assert_eq!(read_only.hard_link(&path("/f"), &path("/l")), refused);
    }
}

#[test]
fn where_rights_differ_no_link_leads_around_them() {
    let same = with(Rules::default());
    assert!(same.symbolic_link(&path("/l")).is_ok());
    let rules = Rules::default().rule("/secret", Rights::NONE).unwrap();
    let rules = rules.rule("/in", Rights::upload_only()).unwrap();
    let differ = with(rules);
    assert_eq!(differ.symbolic_link(&path("/l")), Err(Refusal::LINKS_OFF));
    let link = |from, to| differ.hard_link(&path(from), &path(to));
    assert_eq!(link("/secret/x", "/x"), Err(Refusal::NO_SUCH_FILE));
    assert_eq!(
        link("/in/x", "/x"),
        Err(Refusal::NOT_ALLOWED),
        "it could be read there"
    );
    assert_eq!(link("/x", "/in/x"), Ok(()));
    assert_eq!(link("/x", "/secret/x"), Err(Refusal::NOT_ALLOWED));
}

#[test]
fn where_nothing_may_be_changed_a_file_is_new_or_it_is_not_opened() {
    let bring = with(Rules::upload_only());
    let (mode, f) = (0o600, path("/f"));
    let new = Create::New { mode };
    let missing = Create::IfMissing { mode };
    for truncate in [false, true] {
        for read in [false, true] {
            let how = OpenHow {
                create: missing,
                truncate,
                read,
                ..WRITE
            };
            let opened = bring.open(&f, how).unwrap();
            assert_eq!((opened.create, opened.read), (new, false));
        }
    }
    assert_eq!(bring.open(&f, WRITE), Err(Refusal::NOT_ALLOWED));
    assert_eq!(bring.open(&f, OpenHow::read()), Err(Refusal::NOT_ALLOWED));
    let change = with(Rules::new(Rights::from([Right::Overwrite])));
    let how = OpenHow {
        create: missing,
        ..WRITE
    };
    assert_eq!(
        change.open(&f, how).map(|how| how.create),
        Ok(Create::Never)
    );
    let how = OpenHow {
        create: new,
        ..WRITE
    };
    assert_eq!(change.open(&f, how), Err(Refusal::NOT_ALLOWED));
}

#[test]
fn a_rename_replaces_only_where_it_may_and_gives_no_right_to_read() {
    let rules = Rules::default()
        .rule("/box", Rights::ALL.without(Right::Read))
        .and_then(|rules| rules.rule("/keep", Rights::ALL.without(Right::Overwrite)))
        .and_then(|rules| rules.rule("/a/secret", Rights::NONE))
        .unwrap();
    let policy = with(rules);
    let rename = |from, to| policy.rename(&path(from), &path(to), Target::MayExist);
    let plain = |target| {
        Ok(Renaming {
            target,
            no_directory: false,
        })
    };
    assert_eq!(rename("/x", "/y"), plain(Target::MayExist));
    assert_eq!(rename("/x", "/keep/y"), plain(Target::MustNotExist));
    assert_eq!(rename("/box/x", "/box/y"), plain(Target::MayExist));
    assert_eq!(rename("/box/x", "/y"), Err(Refusal::NOT_ALLOWED));
    assert_eq!(rename("/y", "/box/x"), plain(Target::MayExist));
    assert_eq!(rename("/a/secret/x", "/y"), Err(Refusal::NO_SUCH_FILE));
    assert_eq!(rename("/y", "/a/secret/x"), Err(Refusal::NOT_ALLOWED));
    for (from, to) in [("/a", "/b"), ("/b", "/a")] {
        assert!(rename(from, to).unwrap().no_directory, "{from} {to}");
    }
}

#[test]
fn no_file_reaches_beyond_what_can_be_counted() {
    let policy = policy(Access::ReadWrite, false);
    let last = i64::MAX as u64;
    assert!(policy.check_range(last - 5, 5).is_ok());
    for (offset, len) in [
        (last - 5, 6),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (last + 1, 0),
    ] {
        assert_eq!(policy.check_range(offset, len), Err(Refusal::TOO_LARGE));
    }
}
