//! What is written about the file is made of the types: the schema that is checked in, and in
//! `docs/listen.md` the example and the table of all keys. `KETCH_WRITE_DOCS=1` writes them anew.

use ketch_settings::page;

use super::*;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
const EXAMPLE: &str = include_str!("../../../examples/listener.toml");

/// Compares a file with what it should be, or writes it.
fn is_up_to_date(name: &str, wanted: &str) {
    let path = format!("{DOCS}/{name}");
    if std::env::var_os("KETCH_WRITE_DOCS").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == wanted,
        "docs/{name} is not what the types say: run this test with KETCH_WRITE_DOCS=1"
    );
}

#[test]
fn the_schema_that_is_checked_in_is_the_types() {
    is_up_to_date("listen.schema.json", &ListenerFile::schema());
}

#[test]
fn the_example_is_right() {
    let file = ListenerFile::parse(EXAMPLE, "listener.toml").unwrap();
    assert_eq!(file.counts(), (3, 3));
}

#[test]
fn the_page_has_the_example_and_every_key() {
    let text = fs::read_to_string(format!("{DOCS}/listen.md")).unwrap();
    let example = format!("```toml\n{EXAMPLE}```\n");
    let text = page::between(&text, "example", &example).unwrap();
    let text = page::between(&text, "keys", &page::keys(schema())).unwrap();
    is_up_to_date("listen.md", &text);
}

/// One for each system that this takes the place of.
#[test]
fn the_other_examples_are_right() {
    let dir = fs::read_dir(format!("{DOCS}/examples")).unwrap();
    let mut names = Vec::new();
    for entry in dir {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let file = ListenerFile::parse(&text, &path).unwrap_or_else(|faults| panic!("{faults}"));
        // Its secrets are elsewhere: nothing else may be wrong with it.
        if let Err(faults) = file.setup() {
            for fault in &faults.faults {
                let is_away = fault.what.contains("it cannot be read")
                    || fault.what.contains("No such file")
                    || fault.what.contains("there is no variable");
                assert!(is_away, "{}: {fault}", path.display());
            }
        }
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "boomi",
            "boomi-legacy",
            "camel",
            "dataminer",
            "openintegrations",
            "thru"
        ]
    );
}
