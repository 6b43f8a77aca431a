//! The walk of a file's tree along the schema: what does not fit is told with its place.
//!
//! What comes out is the same tree as JSON, of which serde makes the tables; when the walk found
//! nothing, that does not fail.

use std::path::Path;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::faults::{Fault, Faults};
use crate::places::{Places, below};
use crate::words::WordKind;

/// Faults that are told; a file with more has other problems.
const FAULTS_MAX: usize = 100;
/// Names are likely meant that differ in so many letters from what stands there.
const LETTERS_MAX: usize = 3;

/// What may stand in a file: the JSON schema (draft 2020-12) of its types, and what its words mean.
#[derive(Debug)]
pub struct Schema {
    json: Value,
    words: &'static [WordKind],
}

impl Schema {
    /// The schema of the type `T`; `words` are all that it has in it.
    #[must_use]
    pub fn of<T: JsonSchema>(words: &'static [WordKind]) -> Self {
        let generator = SchemaSettings::draft2020_12().into_generator();
        Self {
            json: generator.into_root_schema_for::<T>().to_value(),
            words,
        }
    }

    /// As JSON, for editors and other programs.
    #[must_use]
    pub const fn json(&self) -> &Value {
        &self.json
    }

    /// The word that a format names.
    pub(crate) fn word(&self, format: &str) -> Option<&WordKind> {
        self.words.iter().find(|word| word.format() == format)
    }

    /// Reads a text along the schema, which is that of `T`. The file at `path` need not be there:
    /// nothing is read.
    ///
    /// # Errors
    /// [`Faults`]: all that is wrong with it.
    pub fn read<T: DeserializeOwned>(
        &self,
        text: &str,
        path: &Path,
    ) -> Result<(T, Places), Faults> {
        let lines = Lines::of(text);
        let (tree, errors) = DeTable::parse_recoverable(text);
        let faults = |faults| Faults::new(path, faults);
        if !errors.is_empty() {
            // What was not understood may be missed elsewhere: the rest is not looked at.
            let told = errors.iter().take(FAULTS_MAX).map(|error| {
                let line = error.span().map(|span| lines.at(span.start));
                Fault::new(line, "", error.message())
            });
            return Err(faults(told.collect()));
        }
        let mut walk = Walk {
            schema: self,
            lines,
            places: Places::of(path),
            faults: Vec::new(),
        };
        let line = 1;
        let json = walk.table(tree.get_ref(), &self.json, "", line);
        if !walk.faults.is_empty() {
            return Err(faults(walk.faults));
        }
        match serde_json::from_value(json) {
            Ok(tables) => Ok((tables, walk.places)),
            Err(error) => Err(faults(vec![Fault::of_file(error.to_string())])),
        }
    }

    /// The schema behind references and beside `null`.
    pub(crate) fn resolved<'a>(&'a self, mut schema: &'a Value) -> &'a Value {
        // References of ours are one step each, and in no circle.
        for _ in 0..8 {
            let reference = schema.get("$ref").and_then(Value::as_str);
            let target = reference.and_then(|name| name.strip_prefix('#'));
            if let Some(target) = target.and_then(|pointer| self.json.pointer(pointer)) {
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

struct Walk<'s> {
    schema: &'s Schema,
    lines: Lines,
    places: Places,
    faults: Vec<Fault>,
}

impl Walk<'_> {
    fn fault(&mut self, line: usize, key: &str, what: impl Into<String>, hint: Option<String>) {
        if self.faults.len() < FAULTS_MAX {
            let fault = Fault::new(Some(line), key, what);
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
            self.places.note(&whole, at);
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
        let schema = self.schema.resolved(schema);
        if let (Some(variants), DeValue::Table(table)) = (Variants::of(schema), value.get_ref()) {
            return self.variant(table, &variants, key, line);
        }
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
                    self.places.note(&key, line);
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

    /// A table of which one key says what else may stand in it.
    fn variant(
        &mut self,
        table: &DeTable<'_>,
        variants: &Variants<'_>,
        key: &str,
        line: usize,
    ) -> Value {
        let tag = variants.tag;
        let Some((name, value)) = table.get_key_value(tag) else {
            let words: Vec<_> = variants.of.iter().map(|(word, _)| *word).collect();
            let hint = format!("it is one of {}", listed(&words));
            self.fault(line, &below(key, tag), "this key is missing", Some(hint));
            return Value::Null;
        };
        let named = value.get_ref().as_str();
        let found = variants.of.iter().find(|(word, _)| Some(*word) == named);
        if let Some((_, schema)) = found {
            return self.table(table, schema, key, line);
        }
        let words: Vec<_> = variants.of.iter().map(|(word, _)| *word).collect();
        let at = self.lines.at(name.span().start);
        self.choice(value.get_ref(), &words, &below(key, tag), at)
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
        let word = format.and_then(|format| self.schema.word(format));
        if let Some(Err(what)) = word.map(|word| word.check(text)) {
            self.fault(line, key, what, None);
        }
    }

    fn bounds(&mut self, number: u64, schema: &Value, names: [&str; 2], key: &str, line: usize) {
        let [least, most] = names.map(|name| schema.get(name).and_then(Value::as_u64));
        let is_list = names.contains(&"minItems");
        let told = |bound: u64, what: &str| match (is_list, bound) {
            (true, 1) => format!("one entry is the {what}"),
            (true, bound) => format!("{bound} entries are the {what}"),
            (false, bound) => format!("{bound} is the {what}"),
        };
        match (least, most) {
            (Some(least), _) if number < least => {
                self.fault(line, key, told(least, "least"), None);
            }
            (_, Some(most)) if number > most => {
                self.fault(line, key, told(most, "most"), None);
            }
            _ => {}
        }
    }
}

/// Tables of which one key, the tag, says which of them it is.
pub(crate) struct Variants<'a> {
    /// The key.
    pub(crate) tag: &'a str,
    /// Its words, and the table of each.
    pub(crate) of: Vec<(&'a str, &'a Value)>,
}

impl<'a> Variants<'a> {
    /// The variants of a schema that is nothing but such.
    pub(crate) fn of(schema: &'a Value) -> Option<Self> {
        let mut tag = None;
        let mut of = Vec::new();
        for one in schema.get("oneOf").and_then(Value::as_array)? {
            let properties = one.get("properties").and_then(Value::as_object)?;
            let constant = properties.iter().find_map(|(name, property)| {
                Some((
                    name.as_str(),
                    property.get("const").and_then(Value::as_str)?,
                ))
            });
            let (name, word) = constant?;
            if tag.is_some_and(|tag| tag != name) {
                return None;
            }
            tag = Some(name);
            of.push((word, one));
        }
        Some(Self { tag: tag?, of })
    }
}

/// The words of a schema that is nothing but a choice of words.
pub(crate) fn choices(schema: &Value) -> Option<Vec<&str>> {
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

/// A hint at the name that is likely meant, if one of those known is near.
///
/// ```
/// let hint = ketch_settings::nearest("bnak", ["bank", "partner"].into_iter());
/// assert_eq!(hint.as_deref(), Some("do you mean bank?"));
/// ```
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
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
