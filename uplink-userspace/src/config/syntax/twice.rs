//! Keys and tables that stand twice.

use super::Error;
use super::line::{Line, SEVERAL};
use crate::config::problem::{Problem, shown};

/// Says where the first one is.
pub(super) fn explain(line: &Line<'_>, error: &Error<'_>) -> Option<Problem> {
    match line.heading() {
        Some(name) => Some(table(line, name)),
        None => key(line, error),
    }
}

fn table(line: &Line<'_>, name: &str) -> Problem {
    let text = line.text.split('#').next().unwrap_or("").trim();
    let first = line.earlier().filter(|l| l.heading() == Some(name)).last();
    let first = first.map(|l| l.number());
    let message = match first {
        Some(number) => format!("{text} stands twice: first in line {number}"),
        None => format!("{text} is written above as well, as the key {}", shown(name)),
    };
    let help = match first {
        _ if SEVERAL.contains(&name) => format!("did you mean [[{name}]]? double brackets, each time"),
        Some(number) => format!("move its keys to {text} in line {number}, and remove this line"),
        None => "move all its keys to one of the two places".into(),
    };
    Problem::new(line.span(text), message, help)
}

fn key(line: &Line<'_>, error: &Error<'_>) -> Option<Problem> {
    let name = line.file.get(error.span.clone())?;
    let table = line.earlier().take_while(|l| l.heading().is_none());
    let mut first = table.filter(|l| l.pair().is_some_and(|(key, _)| key == name));
    let message = match first.next() {
        Some(first) => format!(
            "duplicate key {name}: it stands in line {} already",
            first.number()
        ),
        None => format!("duplicate key {name}"),
    };
    let help = "remove one of the two; what belongs to another uplink stands under a [[uplink]] of its own";
    Some(Problem::new(error.span.clone(), message, help))
}
