//! What may stand in a file, as a page for people: a heading and a table of keys for each table, made of
//! the types and their comments. A test keeps the page that is checked in up to date.

use std::fmt::Write as _;

use serde_json::Value;

use crate::check::{Schema, Variants, choices};

/// The tables of all keys, in Markdown, with headings of the third level.
#[must_use]
pub fn keys(schema: &Schema) -> String {
    let mut out = String::new();
    section(schema, &mut out, "", "", schema.json());
    out
}

/// A page with `text` between the marks `<!-- mark -->` and `<!-- /mark -->`, or nothing if it has not
/// both, each on a line of its own.
#[must_use]
pub fn between(page: &str, mark: &str, text: &str) -> Option<String> {
    let (start, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->\n"));
    let (before, rest) = page.split_once(&start)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{start}{text}{end}{after}"))
}

/// A table's keys, and behind them those of the tables in it. `of` says which variant it is.
fn section(schema: &Schema, out: &mut String, name: &str, of: &str, table: &Value) {
    let title = match name {
        "" => "The top of the file".to_owned(),
        _ => format!("`{name}`{of}"),
    };
    let about = text(schema, table);
    let required = table.get("required").and_then(Value::as_array);
    let is_required = |key: &str| required.is_some_and(|all| all.iter().any(|one| one == key));
    let (mut rows, mut below) = (String::new(), Vec::new());
    let path = name.trim_matches(['[', ']']);
    let dot = if path.is_empty() { "" } else { "." };
    let properties = table.get("properties").and_then(Value::as_object);
    for (key, value) in properties.into_iter().flatten() {
        let target = schema.resolved(value);
        let whole = format!("{path}{dot}{key}");
        if let Some(tables) = tables(schema, target, &whole) {
            below.push(tables);
            continue;
        }
        let must = if is_required(key) {
            "**required** "
        } else {
            ""
        };
        let kind = kind(schema, target);
        let text = text(schema, value);
        // A string takes whatever is written to it.
        let _ = writeln!(rows, "| `{key}` | {kind} | {must}{text} |");
    }
    let _ = writeln!(out, "\n### {title}\n\n{about}");
    if !rows.is_empty() {
        let head = "| key | what it is | what it says |\n| --- | --- | --- |";
        let _ = writeln!(out, "\n{head}");
        out.push_str(&rows);
    }
    for (name, table) in below {
        let Some(variants) = Variants::of(table) else {
            section(schema, out, &name, "", table);
            continue;
        };
        for (word, variant) in &variants.of {
            let of = format!(" with `{} = \"{word}\"`", variants.tag);
            section(schema, out, &name, &of, variant);
        }
    }
}

/// A schema that is one of tables, and how its header is written.
fn tables<'a>(schema: &'a Schema, of: &'a Value, whole: &str) -> Option<(String, &'a Value)> {
    let is_table = |of: &Value| {
        let is_secret = of.get("format").is_some();
        (of.get("properties").is_some() && !is_secret) || Variants::of(of).is_some()
    };
    if is_table(of) {
        return Some((format!("[{whole}]"), of));
    }
    let others = of.get("additionalProperties").filter(|of| of.is_object());
    if let Some(of) = others {
        return Some((format!("[{whole}.NAME]"), schema.resolved(of)));
    }
    let item = schema.resolved(of.get("items")?);
    is_table(item).then(|| (format!("[[{whole}]]"), item))
}

fn kind(schema: &Schema, of: &Value) -> String {
    if let Some(words) = choices(of) {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    if let Some(word) = of.get("const").and_then(Value::as_str) {
        return format!("`{word}`");
    }
    if let Some(item) = of.get("items") {
        return format!("list: {}", kind(schema, schema.resolved(item)));
    }
    let format = of.get("format").and_then(Value::as_str);
    let kinds = of.get("type").map(Value::to_string).unwrap_or_default();
    let kind = match format.and_then(|format| schema.word(format)) {
        Some(word) => word.shown(),
        None if format == Some("secret") => "a secret, `{ file = \"…\" }`, `{ env = \"…\" }`",
        None if kinds.contains("boolean") => "`true`, `false`",
        None if kinds.contains("integer") => "a number",
        None => "a text",
    };
    kind.to_owned()
}

/// What is said of it, in one line.
fn text(schema: &Schema, of: &Value) -> String {
    let text = of.get("description").and_then(Value::as_str);
    let behind = schema.resolved(of).get("description");
    let text = text.or_else(|| behind.and_then(Value::as_str));
    text.unwrap_or_default()
        .replace('\n', " ")
        .replace('|', "\\|")
}
