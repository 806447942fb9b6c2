//! What is no TOML, told in terms of what people write: the parser's own words are about what it
//! expected, and say little to those who left out a quote.

mod line;
mod twice;
mod value;

use std::ops::Range;

use super::problem::Problem;
use line::Line;

/// So many errors are looked at: a file that is no TOML at all has one in each line.
const MOST: usize = 200;

/// One problem for each place that is wrong: what follows from an earlier one is left out.
pub(super) fn problems(text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut errors: Vec<Error<'_>> = errors.iter().map(Error::of).collect();
    errors.sort_by_key(|e| e.span.start);
    errors.truncate(MOST);
    let mut found: Vec<(usize, Problem)> = Vec::new();
    // A heading that stands twice makes every key under it stand twice.
    let mut repeated: Option<usize> = None;
    for error in errors {
        let line = Line::at(text, error.span.start);
        if repeated.is_some_and(|heading| error.is_duplicate() && line.is_under(heading)) {
            continue;
        }
        // Two values without quotes in one line are two mistakes; all else in a line is one.
        let same_line = found.last().filter(|(start, _)| *start == line.start);
        if same_line.is_some_and(|(_, p)| !error.is_value() || p.span.end > error.span.start) {
            continue;
        }
        if error.is_duplicate() && line.heading().is_some() {
            repeated = Some(line.start);
        }
        found.push((line.start, problem(&line, &error)));
        if error.is_open() {
            break;
        }
    }
    found.into_iter().map(|(_, problem)| problem).collect()
}

/// An error of the parser.
struct Error<'e> {
    span: Range<usize>,
    message: &'e str,
}

impl<'e> Error<'e> {
    fn of(error: &'e toml::de::Error) -> Self {
        Self {
            span: error.span().unwrap_or(0..0),
            message: error.message(),
        }
    }

    fn is_duplicate(&self) -> bool {
        self.message == "duplicate key"
    }

    /// Whether a value is at fault that is no string.
    fn is_value(&self) -> bool {
        let starts = [
            "string values must be quoted",
            "invalid float",
            "invalid integer",
            "invalid boolean",
            "unexpected leading zero",
        ];
        !self.span.is_empty() && starts.iter().any(|start| self.message.starts_with(start))
    }

    /// Whether it is about a table in braces.
    fn is_braces(&self) -> bool {
        self.message.contains("inline table") || self.message.contains("key-value pairs")
    }

    /// Whether all that follows was taken for a part of it.
    fn is_open(&self) -> bool {
        let words = [
            "array elements",
            "key-value pairs",
            "unclosed array",
            "unclosed inline table",
            "in array",
        ];
        let heading = self.message.starts_with("unclosed array table");
        !heading && words.iter().any(|word| self.message.contains(word))
    }
}

fn problem(line: &Line<'_>, error: &Error<'_>) -> Problem {
    let told = if error.is_duplicate() {
        twice::explain(line, error)
    } else if error.is_value() {
        value::without_quotes(line, error)
    } else if error.is_open() {
        open(line, error)
    } else {
        line.heading_mistake()
            .or_else(|| line.comment_mistake())
            .or_else(|| line.key_mistake(error))
            .or_else(|| value::explain(line, error))
    };
    told.unwrap_or_else(|| other(line, error))
}

/// A list or a table in braces without its end, or without a comma: marked from where it begins.
fn open(line: &Line<'_>, error: &Error<'_>) -> Option<Problem> {
    let (what, bracket, end, example) = match error.is_braces() {
        true => ("table", '{', '}', "{ proto = \"udp\", dport = 53 }"),
        false => ("list", '[', ']', "[\"a\", \"b\"]"),
    };
    let begins = |line: &Line<'_>| line.pair().is_some_and(|(_, value)| value.contains(bracket));
    let here = Line::at(line.file, line.start);
    let first = std::iter::once(here).chain(line.earlier()).take(MOST);
    // The one that is closed in its line is not meant, nor is what stands behind the error.
    let first = first
        .filter(begins)
        .find(|l| l.start == line.start || !l.text.contains(end))?;
    let part = first.text[first.text.find(bracket)?..].trim_end();
    let message = format!("the {what} {} is not closed, or lacks a comma", line::clean(part));
    let help = format!("commas between its values and {end} at its end, such as {example}");
    Some(Problem::new(first.span(part), message, help))
}

/// In the parser's words, with the text that it stopped at.
fn other(line: &Line<'_>, error: &Error<'_>) -> Problem {
    let help = "the file is TOML: [table], or one key = value a line, texts in \"straight quotes\"";
    let message = format!("{}, in `{}`", error.message, line::clean(line.text.trim()));
    Problem::new(error.span.clone(), message, help)
}
