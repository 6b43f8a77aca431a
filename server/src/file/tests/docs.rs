//! What is written about the file is made of the types: the schema that is checked in, and in
//! `docs/serve.md` the example and the table of all keys. `KETCH_WRITE_DOCS=1` writes them anew.

use std::fmt::Write as _;

use serde_json::Value;

use super::*;
use crate::file::check::{choices, resolved, schema};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
const EXAMPLE: &str = include_str!("../../../examples/server.toml");

/// Compares a file with what it should be, or writes it.
fn is_up_to_date(name: &str, wanted: &str) {
    let path = format!("{DOCS}/{name}");
    if std::env::var_os("KETCH_WRITE_DOCS").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == wanted,
        "docs/{name} is not what the types say: run this test with KETCH_WRITE_DOCS=1"
    );
}

#[test]
fn the_schema_that_is_checked_in_is_the_types() {
    is_up_to_date("serve.schema.json", &ServerFile::schema());
}

#[test]
fn the_example_is_right() {
    let file = ServerFile::parse(EXAMPLE, "server.toml").unwrap();
    assert_eq!(file.counts(), (4, 3, 2));
    assert_eq!(file.listen().len(), 2);
}

#[test]
fn the_page_has_the_example_and_every_key() {
    let page = fs::read_to_string(format!("{DOCS}/serve.md")).unwrap();
    let example = format!("```toml\n{EXAMPLE}```\n");
    let page = between(&page, "example", &example);
    let mut keys = String::new();
    section(&mut keys, "", schema());
    is_up_to_date("serve.md", &between(&page, "keys", &keys));
}

/// A page with something else between two marks.
fn between(page: &str, mark: &str, text: &str) -> String {
    let (start, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->\n"));
    let (before, rest) = page.split_once(&start).expect("the page has the mark");
    let (_, after) = rest.split_once(&end).expect("and its end");
    format!("{before}{start}{text}{end}{after}")
}

/// A table's keys, and behind them those of the tables in it.
fn section(out: &mut String, name: &str, schema: &Value) {
    let title = match name {
        "" => "The top of the file".to_owned(),
        _ => format!("`{name}`"),
    };
    let about = text(schema);
    let properties = schema["properties"].as_object().unwrap();
    let required = schema["required"].as_array();
    let is_required = |key: &str| required.is_some_and(|all| all.iter().any(|one| one == key));
    let (mut rows, mut below) = (String::new(), Vec::new());
    let path = name.trim_matches(['[', ']']);
    let dot = if path.is_empty() { "" } else { "." };
    for (key, value) in properties {
        let target = resolved(value);
        let whole = format!("{path}{dot}{key}");
        if let Some((name, table)) = table(target, &whole) {
            below.push((name, table));
            continue;
        }
        let must = if is_required(key) {
            "**required** "
        } else {
            ""
        };
        let kind = kind(target);
        writeln!(rows, "| `{key}` | {kind} | {must}{} |", text(value)).unwrap();
    }
    writeln!(out, "\n### {title}\n\n{about}").unwrap();
    if !rows.is_empty() {
        writeln!(
            out,
            "\n| key | what it is | what it says |\n| --- | --- | --- |"
        )
        .unwrap();
        out.push_str(&rows);
    }
    for (name, table) in below {
        section(out, &name, table);
    }
}

/// A schema that is one of tables, and how its header is written.
fn table<'a>(schema: &'a Value, whole: &str) -> Option<(String, &'a Value)> {
    if schema.get("properties").is_some() {
        return Some((format!("[{whole}]"), schema));
    }
    if let Some(of) = schema
        .get("additionalProperties")
        .filter(|of| of.is_object())
    {
        return Some((format!("[{whole}.NAME]"), resolved(of)));
    }
    let item = resolved(schema.get("items")?);
    item.get("properties")
        .map(|_| (format!("[[{whole}]]"), item))
}

fn kind(schema: &Value) -> String {
    if let Some(words) = choices(schema) {
        return words
            .iter()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(item) = schema.get("items") {
        return format!("list: {}", kind(resolved(item)));
    }
    let format = schema
        .get("format")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let kinds = schema["type"].to_string();
    let kind = match format {
        "address-and-port" => "`\"0.0.0.0:22\"`",
        "period" => "a time, `\"15min\"`",
        "size" => "bytes, `\"10 GiB\"`",
        "network" => "`\"192.0.2.0/24\"`",
        "public-key" => "`\"ssh-ed25519 AAAA…\"`",
        "argon2id-hash" => "`\"$argon2id$…\"`",
        "date-time" => "`2027-01-31T18:00:00Z`",
        "path-pattern" => "`\"/in/**/*.csv\"`",
        "name-pattern" => "`\"*.part\"`",
        _ if kinds.contains("boolean") => "`true`, `false`",
        _ if kinds.contains("integer") => "a number",
        _ => "a text",
    };
    kind.to_owned()
}

/// What is said of it, in one line.
fn text(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str);
    let text = text.or_else(|| resolved(schema).get("description").and_then(Value::as_str));
    text.unwrap_or_default()
        .replace('\n', " ")
        .replace('|', "\\|")
}
