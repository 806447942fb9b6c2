//! One table of the file. Fields are taken by name; what nobody took is unknown. So the list of
//! allowed keys in a complaint is, by construction, the list of keys that are read.

mod hints;
mod refusal;
mod several;
mod unknown;

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::At;
use super::problem::{Problem, shown, suggest, with_hint};
use hints::{in_brackets, quoted, scalar, truth};
pub(super) use refusal::{Refusal, hinted, meant, wrong};
use unknown::Missing;

/// A table being read.
pub(super) struct Reader<'t, 'p> {
    /// As the user writes it, `[probe]`; empty for the whole file.
    title: &'static str,
    span: Range<usize>,
    table: &'t DeTable<'t>,
    known: Vec<&'static str>,
    refused: Vec<&'static str>,
    missing: Vec<Missing>,
    /// Where complaints go.
    pub problems: &'p mut Vec<Problem>,
}

impl<'t, 'p> Reader<'t, 'p> {
    /// A reader of `table`, which stands at `span`.
    pub fn new(
        title: &'static str,
        table: &'t DeTable<'t>,
        span: Range<usize>,
        problems: &'p mut Vec<Problem>,
    ) -> Self {
        Self {
            title,
            span,
            table,
            known: Vec::new(),
            refused: Vec::new(),
            missing: Vec::new(),
            problems,
        }
    }

    /// Where the table stands.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Whether the key is written, with whatever value.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Whether `[table]` is written with that key in it.
    pub fn has_inner(&self, table: &str, key: &str) -> bool {
        let table = self.find(table).and_then(|(value, _)| value.as_table());
        table.is_some_and(|t| t.keys().any(|k| k.get_ref() == key))
    }

    /// Whether the key is written with an integer.
    pub fn is_integer(&self, key: &str) -> bool {
        self.find(key).is_some_and(|(value, _)| value.is_integer())
    }

    /// A complaint about a place in the file.
    pub fn complain(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::new(span, message, help));
    }

    /// A string that `parse` accepts; `allowed` tells what that is.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Option<At<T>> {
        let (value, span) = self.take(key)?;
        let Some(text) = value.as_str() else {
            let hint = scalar(value).and_then(|text| quoted(&text, parse));
            return self.mistyped(key, value, span, allowed, hint);
        };
        self.accept(key, text, span, allowed, parse)
    }

    /// As [`Self::parsed`], and the key must be there.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Option<At<T>> {
        if !self.has(key) {
            let message = format!("`{key}` is missing in {}", self.title);
            let help = format!("add `{key}`: {allowed}");
            self.missing(&[key], message, help);
        }
        self.parsed(key, allowed, parse)
    }

    /// A list of strings, each of which `parse` accepts. Refused ones are left out.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Option<At<Vec<At<T>>>> {
        self.items(key, allowed, |value| value.as_str(), parse)
    }

    /// As [`Self::list`], of strings and integers, which `parse` sees as text, too.
    pub fn list_or_integers<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Option<At<Vec<At<T>>>> {
        let digits = |value: &'t DeValue<'t>| value.as_integer().map(|n| n.as_str());
        self.items(
            key,
            allowed,
            |value| value.as_str().or_else(|| digits(value)),
            parse,
        )
    }

    /// The value of the key, of whatever type.
    pub fn value(&mut self, key: &'static str) -> Option<At<&'t DeValue<'t>>> {
        let (value, span) = self.take(key)?;
        Some(At { value, span })
    }

    /// Where the key's value stands; the table if there is none.
    pub fn place(&self, key: &str) -> Range<usize> {
        self.find(key).map_or_else(|| self.span(), |(_, span)| span)
    }

    /// The names in the tables `[[key]]`, of refused ones, too.
    pub fn names_in(&self, key: &str) -> Vec<String> {
        let tables = self.find(key).and_then(|(value, _)| value.as_array());
        let tables = tables.into_iter().flat_map(|list| list.iter());
        let names = tables.filter_map(|table| table.get_ref().get("name")?.get_ref().as_str());
        names.map(str::to_owned).collect()
    }

    /// Whether a table `[[key]]` has no name that [`Self::names_in`] could tell, or there is none.
    pub fn is_nameless(&self, key: &str) -> bool {
        let tables = self.find(key).and_then(|(value, _)| value.as_array());
        tables.is_none_or(|list| list.len() > self.names_in(key).len())
    }

    fn items<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        text: impl Fn(&'t DeValue<'t>) -> Option<&'t str>,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Option<At<Vec<At<T>>>> {
        let (value, span) = self.take(key)?;
        let Some(items) = value.as_array() else {
            let hint = value.as_str().and_then(in_brackets);
            return self.mistyped(key, value, span, &format!("a list of {allowed}"), hint);
        };
        let mut list = Vec::new();
        for item in items.iter() {
            let (value, span) = (item.get_ref(), item.span());
            let found = match text(value) {
                Some(text) => self.accept(key, text, span, allowed, &parse),
                None => self.wrong_type(key, value, span, allowed),
            };
            list.extend(found);
        }
        Some(At { value: list, span })
    }

    /// One of a few words; `None` stands for a word that this version does not support yet.
    pub fn one_of<T: Copy>(&mut self, key: &'static str, words: &[(&str, Option<T>)]) -> Option<At<T>> {
        let supported = words.iter().filter(|w| w.1.is_some());
        let quoted: Vec<String> = supported.map(|w| format!("\"{}\"", w.0)).collect();
        let allowed = format!("allowed: {}", quoted.join(", "));
        let written = self.find(key).and_then(|(value, _)| value.as_str());
        let help = suggest(written.unwrap_or(""), words.iter().map(|w| w.0), &allowed);
        self.parsed(key, &help, |text| {
            let known = words.iter().find(|w| w.0 == text);
            let known = known.ok_or_else(|| wrong("is not known"))?;
            known.1.ok_or(Refusal::NotYet)
        })
    }

    /// An integer within `range`.
    pub fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
        allowed: &str,
    ) -> Option<At<u32>> {
        let (value, span) = self.take(key)?;
        let Some(number) = value.as_integer() else {
            let read = value.as_str().and_then(|text| text.trim().parse::<u32>().ok());
            let read = read.filter(|n| range.contains(n));
            let hint = read.map(|n| format!("did you mean {n}, without quotes?"));
            return self.mistyped(key, value, span, allowed, hint);
        };
        let read = u32::from_str_radix(number.as_str(), number.radix()).ok();
        let Some(value) = read.filter(|n| range.contains(n)) else {
            let message = format!("{key} {number} is out of range");
            self.complain(span, message, allowed);
            return None;
        };
        Some(At { value, span })
    }

    /// A time span such as `"500ms"`, within `range`.
    pub fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        allowed: &str,
    ) -> Option<Duration> {
        let read = self.parsed(key, allowed, |text| time_span(text, &range));
        read.map(|at| at.value)
    }

    /// A boolean.
    pub fn boolean(&mut self, key: &'static str) -> Option<At<bool>> {
        let (value, span) = self.take(key)?;
        match value.as_bool() {
            Some(value) => Some(At { value, span }),
            None => {
                let hint = truth(value).map(|truth| format!("did you mean {truth}, without quotes?"));
                self.mistyped(key, value, span, "true or false", hint)
            }
        }
    }

    /// The table `[key]`.
    pub fn table(&mut self, key: &'static str, title: &'static str) -> Option<Reader<'t, '_>> {
        let (value, span) = self.take(key)?;
        match value.as_table() {
            Some(table) => Some(Reader::new(title, table, span, self.problems)),
            None => self.wrong_type(key, value, span, &hints::table(key, title)),
        }
    }

    /// The tables `[[key]]`, `None` if there is no such key.
    pub fn tables(&mut self, key: &'static str, title: &'static str) -> Option<Vec<At<&'t DeTable<'t>>>> {
        let allowed = format!("one table {title} for each, in double brackets");
        let (value, span) = self.take(key)?;
        let Some(items) = value.as_array() else {
            let hint = value.is_table().then(|| format!("did you mean {title}?"));
            return self.mistyped(key, value, span, &allowed, hint);
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            let (value, span) = (item.get_ref(), item.span());
            let table = match value.as_table() {
                Some(value) => Some(At { value, span }),
                None => self.wrong_type(key, value, span, &allowed),
            };
            tables.extend(table);
        }
        Some(tables)
    }

    /// A key that belongs to another kind of this table: `message` says so if it is written.
    pub fn misplaced(&mut self, key: &'static str, message: String, help: String) {
        self.pass(key);
        if let Some(key) = self.table.keys().find(|k| k.get_ref() == key) {
            self.complain(key.span(), message, help);
        }
    }

    /// A key that is neither read nor unknown.
    pub fn pass(&mut self, key: &'static str) {
        self.refused.push(key);
    }

    fn find(&self, key: &str) -> Option<(&'t DeValue<'t>, Range<usize>)> {
        let (_, value) = self.table.iter().find(|(k, _)| k.get_ref() == key)?;
        Some((value.get_ref(), value.span()))
    }

    fn take(&mut self, key: &'static str) -> Option<(&'t DeValue<'t>, Range<usize>)> {
        self.known.push(key);
        self.find(key)
    }

    fn accept<T>(
        &mut self,
        key: &str,
        text: &str,
        span: Range<usize>,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Option<At<T>> {
        match parse(text) {
            Ok(value) => return Some(At { value, span }),
            Err(Refusal::Wrong(why)) => {
                self.complain(span, format!("{key} {} {why}", shown(text)), allowed);
            }
            Err(Refusal::Meant { why, hint }) => {
                let help = with_hint(&hint, allowed);
                self.complain(span, format!("{key} {} {why}", shown(text)), help);
            }
            Err(Refusal::NotYet) => {
                let message = not_yet(&format!("{key} = {}", shown(text)));
                self.complain(span, message, format!("remove it; {allowed}"));
            }
        }
        None
    }

    /// Complains about the type of a value.
    pub fn wrong_type<T>(
        &mut self,
        key: &str,
        value: &DeValue<'_>,
        span: Range<usize>,
        allowed: &str,
    ) -> Option<T> {
        self.mistyped(key, value, span, allowed, None)
    }

    fn mistyped<T>(
        &mut self,
        key: &str,
        value: &DeValue<'_>,
        span: Range<usize>,
        allowed: &str,
        hint: Option<String>,
    ) -> Option<T> {
        let mut message = format!("{key} cannot be of type {}", value.type_str());
        if let Some(written) = scalar(value) {
            let quoted = value.is_str().then(|| shown(&written));
            message += &format!(": {}", quoted.unwrap_or(written));
        }
        let help = hint.map_or_else(|| allowed.into(), |hint| with_hint(&hint, allowed));
        self.complain(span, message, help);
        None
    }
}

/// A time span such as "500ms", within `range`.
pub(super) fn time_span(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, Refusal> {
    let read = humantime::parse_duration(text);
    let digits = (1..10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if digits && text != "0" {
        let hint = format!("did you mean \"{text}ms\" or \"{text}s\"?");
        return Err(hinted("has no unit", hint));
    }
    let read = read.map_err(|_| wrong("is not a time span"))?;
    match range.contains(&read) {
        true => Ok(read),
        false => Err(wrong("is out of range")),
    }
}

fn not_yet(what: &str) -> String {
    format!("{what} is not supported by this version yet")
}
