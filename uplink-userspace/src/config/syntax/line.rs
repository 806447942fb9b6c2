//! The line that a mistake is in.

use std::ops::Range;

use super::Error;
use crate::config::problem::{Problem, shown};

/// Tables that may stand several times, in double brackets.
pub(super) const SEVERAL: [&str; 3] = ["uplink", "policy", "group"];

/// A line of the file.
pub(super) struct Line<'t> {
    /// The whole file.
    pub file: &'t str,
    /// Where the line begins in it.
    pub start: usize,
    /// Its text without the line's end.
    pub text: &'t str,
}

impl<'t> Line<'t> {
    /// The line of the byte `at`, which is a character's first.
    pub fn at(file: &'t str, at: usize) -> Self {
        let at = (0..=at.min(file.len()))
            .rev()
            .find(|at| file.is_char_boundary(*at));
        let at = at.unwrap_or(0);
        let start = file[..at].rfind('\n').map_or(0, |end| end + 1);
        let text = file[start..].lines().next().unwrap_or("");
        Self { file, start, text }
    }

    /// Its number, from 1.
    pub fn number(&self) -> usize {
        1 + self.file[..self.start].matches('\n').count()
    }

    /// Where a part of it stands in the file.
    pub fn span(&self, part: &str) -> Range<usize> {
        let offset = part.as_ptr() as usize - self.text.as_ptr() as usize;
        self.start + offset..self.start + offset + part.len()
    }

    /// The lines before it, the nearest first.
    pub fn earlier(&self) -> impl Iterator<Item = Self> {
        let file = self.file;
        let lines = self.file[..self.start].lines().rev();
        lines.map(move |text| Self {
            file,
            start: text.as_ptr() as usize - file.as_ptr() as usize,
            text,
        })
    }

    /// Whether the nearest heading before it begins at `heading`.
    pub fn is_under(&self, heading: usize) -> bool {
        let nearest = self.earlier().find(|line| line.heading().is_some());
        self.heading().is_none() && nearest.is_some_and(|line| line.start == heading)
    }

    /// The key and what stands behind "=".
    pub fn pair(&self) -> Option<(&'t str, &'t str)> {
        let (key, value) = self.text.split_once('=')?;
        let key = key.trim();
        is_key(key).then_some((key, value.trim()))
    }

    /// What stands in the brackets, if it is the heading of a table.
    pub fn heading(&self) -> Option<&'t str> {
        let text = self.text.trim_start();
        let inner = text.strip_prefix('[')?.trim_start_matches('[').trim_start();
        let end = inner.find([']', '#']).unwrap_or(inner.len());
        let name = inner[..end].trim();
        let first = name.split_whitespace().next()?;
        (is_key(first) && !name.contains([',', '='])).then_some(name)
    }

    /// A heading whose brackets are not right.
    pub fn heading_mistake(&self) -> Option<Problem> {
        let name = self.heading()?;
        let name = name.split_whitespace().next()?;
        let text = self.text.split('#').next()?.trim();
        let instead = match SEVERAL.contains(&name) {
            true => format!("[[{name}]]"),
            false => format!("[{name}]"),
        };
        let message = format!("{} is not the heading of a table", shown(text));
        let help = format!("did you mean {instead}? a heading has a line of its own");
        Some(Problem::new(self.span(text), message, help))
    }

    /// A comment in the manner of other files.
    pub fn comment_mistake(&self) -> Option<Problem> {
        let text = self.text.trim();
        let marks = ["//", ";", "--", "/*", "!", "%"];
        let mark = marks.iter().find(|mark| text.starts_with(**mark))?;
        let help = format!("did you mean #{}?", clean(&text[mark.len()..]));
        let message = format!("comments do not begin with {}", shown(mark));
        Some(Problem::new(self.span(&text[..mark.len()]), message, help))
    }

    /// A key without "=" behind it.
    pub fn key_mistake(&self, error: &Error<'_>) -> Option<Problem> {
        let starts = ["key with no value", "invalid unquoted key"];
        let text = self.text.split('#').next()?.trim();
        if !starts.iter().any(|start| error.message.starts_with(start)) || text.is_empty() {
            return None;
        }
        let end = text
            .find(|c: char| c == ':' || c.is_whitespace())
            .unwrap_or(text.len());
        let (key, rest) = text.split_at(end);
        let value = rest.trim_start().trim_start_matches(':').trim();
        if !is_key(key)
            || value.starts_with('=')
            || self.file.get(error.span.clone()) == Some(":") && text.contains('{')
        {
            return self.colon(error);
        }
        let colon = rest.trim_start().strip_prefix(':');
        let (at, message) = match colon {
            _ if value.is_empty() => (key, format!("the key {key} has no value")),
            Some(_) => (&rest.trim_start()[..1], format!("\":\" behind the key {key}")),
            None => (value, format!("no \"=\" between {key} and {}", clean(value))),
        };
        let instead = match value {
            "" => "\"...\"".into(),
            value => quoted(value),
        };
        let help = format!("did you mean {key} = {instead}?");
        Some(Problem::new(self.span(at), message, help))
    }

    /// A ":" where "=" belongs, within braces.
    fn colon(&self, error: &Error<'_>) -> Option<Problem> {
        let place = error.span.clone();
        self.file.get(place.clone()).filter(|marked| *marked == ":")?;
        let help = "did you mean =? such as { proto = \"udp\", dport = 53 }";
        Some(Problem::new(place, "\":\" between a key and its value", help))
    }
}

/// Whether the text can be a key.
fn is_key(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.chars().all(letter)
}

/// The value as it can stand in the file: what is no string, number or list yet gets quotes.
pub(super) fn quoted(value: &str) -> String {
    let is_value = value.starts_with(['"', '\'', '[', '{']) || value.parse::<u32>().is_ok();
    match is_value || ["true", "false"].contains(&value) {
        true => clean(value),
        false => shown(value),
    }
}

/// A text as it is written, but short and without control characters.
pub(super) fn clean(text: &str) -> String {
    const LONGEST: usize = 60;
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(LONGEST).collect()
}
