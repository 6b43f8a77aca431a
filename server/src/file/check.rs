//! The walk of a file's tree along the schema: what does not fit is told with its place.
//!
//! What comes out is the same tree as JSON, of which serde makes the tables; when the walk found
//! nothing, that does not fail.

use std::path::Path;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::faults::{FileFault, FileFaults};
use super::tables::FileTable;
use super::{Places, words};

/// Faults that are told; a file with more has other problems.
const FAULTS_MAX: usize = 100;
/// Names are likely meant that differ in so many letters from what stands there.
const LETTERS_MAX: usize = 3;

/// The schema of a server's file.
pub(super) fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let generator = SchemaSettings::draft2020_12().into_generator();
        generator.into_root_schema_for::<FileTable>().to_value()
    })
}

/// Reads a text along the schema.
pub(super) fn tables(text: &str, path: &Path) -> Result<(FileTable, Places), FileFaults> {
    let lines = Lines::of(text);
    let (tree, errors) = DeTable::parse_recoverable(text);
    let faults = |faults| FileFaults::new(path, faults);
    if !errors.is_empty() {
        // What was not understood may be missed elsewhere: the rest is not looked at.
        let told = errors.iter().take(FAULTS_MAX).map(|error| {
            let line = error.span().map(|span| lines.at(span.start));
            FileFault::new(line, "", error.message())
        });
        return Err(faults(told.collect()));
    }
    let mut walk = Walk {
        lines,
        places: Places {
            path: path.to_owned(),
            ..Places::default()
        },
        faults: Vec::new(),
    };
    let line = 1;
    let json = walk.table(tree.get_ref(), schema(), "", line);
    if !walk.faults.is_empty() {
        return Err(faults(walk.faults));
    }
    match serde_json::from_value(json) {
        Ok(tables) => Ok((tables, walk.places)),
        Err(error) => Err(faults(vec![FileFault::of_file(error.to_string())])),
    }
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(breaks.map(|(at, _)| at).collect())
    }

    /// The line of a byte, from 1.
    fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|end| *end < byte) + 1
    }
}

struct Walk {
    lines: Lines,
    places: Places,
    faults: Vec<FileFault>,
}

impl Walk {
    fn fault(&mut self, line: usize, key: &str, what: impl Into<String>, hint: Option<String>) {
        if self.faults.len() < FAULTS_MAX {
            let fault = FileFault::new(Some(line), key, what);
            self.faults.push(match hint {
                Some(hint) => fault.hint(hint),
                None => fault,
            });
        }
    }

    fn table(&mut self, table: &DeTable<'_>, schema: &Value, key: &str, line: usize) -> Value {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema
            .get("additionalProperties")
            .filter(|others| others.is_object());
        let mut json = Map::new();
        for (name, value) in table {
            let at = self.lines.at(name.span().start);
            let name: &str = name.get_ref();
            let whole = below(key, name);
            self.places.lines.insert(whole.clone(), at);
            match properties.and_then(|known| known.get(name)).or(others) {
                Some(schema) => {
                    let value = self.value(value, schema, &whole, at);
                    json.insert(name.to_owned(), value);
                }
                None => {
                    let known = properties.into_iter().flat_map(Map::keys);
                    let hint = nearest(name, known.map(String::as_str));
                    self.fault(at, &whole, "there is no such key", hint);
                }
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !table.contains_key(name) {
                self.fault(line, &below(key, name), "this key is missing", None);
            }
        }
        Value::Object(json)
    }

    fn value(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        schema: &Value,
        key: &str,
        line: usize,
    ) -> Value {
        let schema = resolved(schema);
        if let Some(choices) = choices(schema) {
            return self.choice(value.get_ref(), &choices, key, line);
        }
        let format = schema.get("format").and_then(Value::as_str);
        let wants = |kind: &str| match schema.get("type") {
            Some(Value::String(one)) => one == kind,
            Some(Value::Array(several)) => several.iter().any(|one| one == kind),
            _ => true,
        };
        match value.get_ref() {
            DeValue::Table(table) if wants("object") => self.table(table, schema, key, line),
            DeValue::Array(array) if wants("array") => {
                self.bounds(
                    array.len() as u64,
                    schema,
                    ["minItems", "maxItems"],
                    key,
                    line,
                );
                let item = schema.get("items").unwrap_or(&Value::Null);
                let items = array.iter().enumerate().map(|(n, each)| {
                    let line = self.lines.at(each.span().start);
                    let key = format!("{key}[{n}]");
                    self.places.lines.insert(key.clone(), line);
                    self.value(each, item, &key, line)
                });
                Value::Array(items.collect())
            }
            DeValue::String(text) if wants("string") => {
                self.word(text, format, key, line);
                Value::String(text.as_ref().to_owned())
            }
            DeValue::Datetime(moment) if wants("string") && format == Some("date-time") => {
                let text = moment.to_string();
                self.word(&text, format, key, line);
                Value::String(text)
            }
            DeValue::Integer(number) if wants("integer") || wants("number") => {
                let whole = u64::from_str_radix(number.as_str(), number.radix());
                match (whole, wants("string")) {
                    // A word that may be written as a number.
                    (Ok(whole), true) => {
                        let text = whole.to_string();
                        self.word(&text, format, key, line);
                        Value::String(text)
                    }
                    (Ok(whole), false) => {
                        self.bounds(whole, schema, ["minimum", "maximum"], key, line);
                        Value::from(whole)
                    }
                    (Err(_), _) => {
                        self.fault(line, key, "this is no whole number from 0 on", None);
                        Value::Null
                    }
                }
            }
            DeValue::Boolean(is) if wants("boolean") => Value::Bool(*is),
            other => {
                let what = format!("this is {}, and {} is wanted", a(other), wanted(schema));
                self.fault(line, key, what, None);
                Value::Null
            }
        }
    }

    /// One of a few words.
    fn choice(&mut self, value: &DeValue<'_>, choices: &[&str], key: &str, line: usize) -> Value {
        match value {
            DeValue::String(text) if choices.contains(&text.as_ref()) => {
                return Value::String(text.as_ref().to_owned());
            }
            DeValue::String(text) => {
                let what = format!("{:?} is none of {}", text.as_ref(), listed(choices));
                let hint = nearest(text, choices.iter().copied());
                self.fault(line, key, what, hint);
            }
            other => {
                let what = format!(
                    "this is {}, and one of {} is wanted",
                    a(other),
                    listed(choices)
                );
                self.fault(line, key, what, None);
            }
        }
        Value::Null
    }

    fn word(&mut self, text: &str, format: Option<&str>, key: &str, line: usize) {
        if let Err(what) = words::check(format.unwrap_or_default(), text) {
            self.fault(line, key, what, None);
        }
    }

    fn bounds(&mut self, number: u64, schema: &Value, names: [&str; 2], key: &str, line: usize) {
        let [least, most] = names.map(|name| schema.get(name).and_then(Value::as_u64));
        let of = if names.contains(&"minItems") {
            "entries"
        } else {
            "as a value"
        };
        match (least, most) {
            (Some(least), _) if number < least => {
                self.fault(line, key, format!("{least} {of} is the least"), None);
            }
            (_, Some(most)) if number > most => {
                self.fault(line, key, format!("{most} {of} is the most"), None);
            }
            _ => {}
        }
    }
}

/// The schema behind references and beside `null`.
pub(super) fn resolved(mut schema: &Value) -> &Value {
    // References of ours are one step each, and in no circle.
    for _ in 0..8 {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let target = reference.and_then(|name| name.strip_prefix('#'));
        if let Some(target) = target.and_then(|pointer| self::schema().pointer(pointer)) {
            schema = target;
            continue;
        }
        let any = schema.get("anyOf").and_then(Value::as_array);
        let is_null = |each: &&Value| each.get("type").is_none_or(|kind| kind != "null");
        match any.and_then(|any| any.iter().find(is_null)) {
            Some(one) => schema = one,
            None => break,
        }
    }
    schema
}

/// The words of a schema that is nothing but a choice of words.
pub(super) fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(plain) = schema.get("enum").and_then(Value::as_array) {
        return Some(plain.iter().filter_map(Value::as_str).collect());
    }
    let mut words = Vec::new();
    for one in schema.get("oneOf").and_then(Value::as_array)? {
        match (one.get("const"), one.get("enum").and_then(Value::as_array)) {
            (Some(word), _) => words.extend(word.as_str()),
            (None, Some(several)) => words.extend(several.iter().filter_map(Value::as_str)),
            (None, None) => return None,
        }
    }
    Some(words)
}

/// A key's whole name.
pub(super) fn below(key: &str, name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_plain = !name.is_empty() && name.chars().all(is_bare);
    let dot = if key.is_empty() { "" } else { "." };
    match is_plain {
        true => format!("{key}{dot}{name}"),
        false => format!("{key}{dot}{name:?}"),
    }
}

/// The name that is likely meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let known = known.map(|known| (strsim::damerau_levenshtein(name, known), known));
    let (letters, nearest) = known.min()?;
    let is_near = letters <= LETTERS_MAX && letters * 2 <= nearest.len().max(2);
    is_near.then(|| format!("do you mean {nearest}?"))
}

fn listed(choices: &[&str]) -> String {
    choices.join(", ")
}

/// A value's kind, for people.
const fn a(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What a schema wants, for people.
fn wanted(schema: &Value) -> String {
    let name = |kind: &Value| match kind.as_str() {
        Some("object") => Some("a table"),
        Some("array") => Some("a list"),
        Some("string") => Some("a text in quotes"),
        Some("integer" | "number") => Some("a whole number"),
        Some("boolean") => Some("true or false"),
        _ => None,
    };
    let names: Vec<_> = match schema.get("type") {
        Some(Value::Array(several)) => several.iter().filter_map(name).collect(),
        Some(one) => name(one).into_iter().collect(),
        None => Vec::new(),
    };
    names.join(" or ")
}
