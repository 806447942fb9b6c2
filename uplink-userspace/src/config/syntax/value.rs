//! Values that are none, most often for want of quotes.

use super::Error;
use super::line::{Line, clean, quoted};
use crate::config::problem::{Problem, shown};

/// Quotes of word processors, and the shell's.
const TYPOGRAPHIC: [char; 9] = ['“', '”', '„', '‟', '‘', '’', '«', '»', '`'];

/// A value that is neither a string nor a number nor a boolean.
pub(super) fn without_quotes(line: &Line<'_>, error: &Error<'_>) -> Option<Problem> {
    let token = token(line, error)?;
    let place = line.span(token);
    if let Some(at) = token.find(" //") {
        let comment = &token[at + 1..];
        let message = format!("{} is no comment", clean(comment));
        let help = format!("did you mean #{}?", clean(&comment[2..]));
        return Some(Problem::new(line.span(comment), message, help));
    }
    if token.contains('=') {
        return Some(more_keys(line, token));
    }
    let bare = token.trim_matches(TYPOGRAPHIC).trim_matches('"');
    let (why, instead) = match &*token.to_ascii_lowercase() {
        "true" | "yes" | "on" => ("is neither true nor false", "true".into()),
        "false" | "no" | "off" => ("is neither true nor false", "false".into()),
        _ if token.contains(TYPOGRAPHIC) => ("has quotes of a word processor", shown(bare)),
        digits if digits.parse::<u64>().is_ok() => ("is no number: it begins with 0", whole(digits)),
        _ => ("has no quotes around it", shown(bare)),
    };
    let rest = "only numbers, true and false stand without quotes";
    let help = match list(line, token) {
        Some(list) => format!("did you mean {list}? a list stands in brackets"),
        None => format!("did you mean {instead}? {rest}"),
    };
    Some(Problem::new(place, format!("{} {why}", clean(token)), help))
}

/// What looks like a value has keys in it.
fn more_keys(line: &Line<'_>, token: &str) -> Problem {
    let (first, rest) = token.split_once(char::is_whitespace).unwrap_or((token, ""));
    let is_second = !first.contains('=') && !rest.trim_start().starts_with('=');
    let (message, help) = match is_second {
        true => (
            format!("a second key behind a value: {}", clean(token)),
            "move it to a line of its own".into(),
        ),
        false => (
            format!("{} is a table without braces", clean(token)),
            format!("did you mean {{ {} }}?", clean(token)),
        ),
    };
    Problem::new(line.span(token), message, help)
}

/// The whole word: the parser's error may begin within it.
fn token<'t>(line: &Line<'t>, error: &Error<'_>) -> Option<&'t str> {
    let at = error.span.start.checked_sub(line.start)?;
    let (before, after) = line.text.split_at_checked(at)?;
    let ends = ['=', '[', '{', ','];
    let from = before.rfind(|c: char| ends.contains(&c) || c.is_whitespace());
    let from = from.map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let until = after.find([',', ']', '}', '#']).unwrap_or(after.len());
    let token = line.text.get(from..at + until)?.trim();
    (!token.is_empty()).then_some(token)
}

/// A number without zeros in front.
fn whole(digits: &str) -> String {
    match digits.trim_start_matches('0') {
        "" => "0".into(),
        number => number.into(),
    }
}

/// The list that a value with commas was meant to be, `None` if it is in brackets already.
fn list(line: &Line<'_>, token: &str) -> Option<String> {
    let (_, value) = line.pair()?;
    let value = value.split('#').next()?.trim();
    if !value.starts_with(token) || !value.contains(',') || value.len() > 100 {
        return None;
    }
    let items = value.split(',').map(|item| quoted(item.trim()));
    Some(format!("[{}]", items.collect::<Vec<_>>().join(", ")))
}

/// Whatever else is wrong with `key = value`.
pub(super) fn explain(line: &Line<'_>, error: &Error<'_>) -> Option<Problem> {
    let (key, value) = line.pair()?;
    if value.is_empty() || value.starts_with('#') {
        let help = format!("did you mean {key} = \"...\"? without a value, remove the line");
        return Some(Problem::new(
            error.span.clone(),
            format!("{key} has no value"),
            help,
        ));
    }
    if error.message.starts_with("extra `=`") {
        let help = format!(
            "did you mean {key} = {}?",
            quoted(value.trim_start_matches(['=', ' ']))
        );
        let message = format!("{key} has one \"=\" too many");
        return Some(Problem::new(error.span.clone(), message, help));
    }
    if error.message.contains("string, expected `\"`") || error.message.contains("string, expected `'`") {
        return Some(unclosed(line, value));
    }
    if error.message.starts_with("missing escaped value") {
        let help = "did you mean \"\\\\\"? or put the text into 'single quotes', where \\ is itself";
        return Some(Problem::new(
            error.span.clone(),
            "a text has a single \\ in it",
            help,
        ));
    }
    let behind = error.message.starts_with("unexpected key or value");
    behind.then(|| rest(line, error, [key, value]))?
}

fn unclosed(line: &Line<'_>, value: &str) -> Problem {
    let inner = value.trim_matches(['"', '\'', ',', ';']);
    let inner = inner.trim_matches(TYPOGRAPHIC);
    let message = format!("{} has no closing quote", clean(value));
    Problem::new(
        line.span(value),
        message,
        format!("did you mean {}?", shown(inner)),
    )
}

/// What stands behind a value that is complete.
fn rest(line: &Line<'_>, error: &Error<'_>, [key, value]: [&str; 2]) -> Option<Problem> {
    let rest = line.text.get(error.span.start - line.start..)?.trim();
    let mark = rest.chars().next()?;
    let more = rest.trim_start_matches([',', ';']).trim_start();
    let (message, help) = if more.is_empty() || more.starts_with('#') {
        let message = format!("\"{mark}\" behind the value of {key}");
        (message, "remove it: lines end without a mark".into())
    } else if let Some(comment) = more.strip_prefix("//") {
        let message = format!("{} is no comment", shown(more));
        (message, format!("did you mean #{}?", clean(comment)))
    } else if more.contains('=') {
        let message = format!("a second key behind the value of {key}: {}", clean(more));
        (message, "move it to a line of its own".into())
    } else if mark == ',' {
        let message = format!("more than one value of {key}: {}", clean(value));
        let help = format!("did you mean [{}]? a list stands in brackets", clean(value));
        return Some(Problem::new(line.span(value), message, help));
    } else {
        let message = format!("{} behind the value of {key}", shown(rest));
        let help = "remove it, or put all of it into one pair of quotes";
        (message, help.into())
    };
    Some(Problem::new(line.span(rest), message, help))
}
