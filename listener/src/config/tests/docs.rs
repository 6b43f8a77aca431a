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

/// Whether the schema has a key, which may stand in any of several tables.
fn has_key(schema: &serde_json::Value, at: &serde_json::Value, key: &[&str]) -> bool {
    let Some((first, rest)) = key.split_first() else {
        return true;
    };
    if let Some(name) = at["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        return has_key(schema, &schema["$defs"][name], key);
    }
    let of = ["oneOf", "anyOf"].map(|of| at[of].as_array().cloned().unwrap_or_default());
    let mut others = of.into_iter().flatten();
    let below = &at["properties"][*first];
    below.is_object() && has_key(schema, below, rest)
        || at["items"].is_object() && has_key(schema, &at["items"], key)
        || others.any(|other| has_key(schema, &other, key))
}

#[test]
fn every_key_that_other_systems_options_lead_to_is_there() {
    let schema: serde_json::Value = serde_json::from_str(&ListenerFile::schema()).unwrap();
    let text = fs::read_to_string(format!("{DOCS}/coming-from.md")).unwrap();
    let mut keys = 0;
    for key in text.split('`').skip(1).step_by(2) {
        let parts: Vec<&str> = key.split('.').collect();
        if !matches!(parts[0], "source" | "flow" | "store" | "api") || parts.len() < 2 {
            continue;
        }
        assert!(has_key(&schema, &schema, &parts), "there is no key {key}");
        keys += 1;
    }
    assert!(keys > 150, "{keys} keys were found");
    assert!(!has_key(&schema, &schema, &["flow", "sink", "intervall"]));
}
