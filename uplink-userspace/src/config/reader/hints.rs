//! What a value of another type was meant to be.

use toml::de::DeValue;

use super::Refusal;
use crate::config::problem::shown;

/// A value that is short, as text.
pub(super) fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Datetime(time) => Some(time.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// What a value without quotes was meant to be, if `parse` knows it as text.
pub(super) fn quoted<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, Refusal>) -> Option<String> {
    match parse(text) {
        Ok(_) => Some(format!("did you mean {}, in quotes?", shown(text))),
        Err(Refusal::Meant { hint, .. }) => Some(hint),
        Err(_) => None,
    }
}

/// The list that a text was meant to be.
pub(super) fn in_brackets(text: &str) -> Option<String> {
    const LONGEST: usize = 200;
    let items = text.split(',').map(|item| shown(item.trim()));
    let items = items.collect::<Vec<_>>().join(", ");
    (text.len() <= LONGEST).then(|| format!("did you mean [{items}], in brackets?"))
}

/// The boolean that a word or a number was meant to be.
pub(super) fn truth(value: &DeValue<'_>) -> Option<bool> {
    match &*scalar(value)?.to_ascii_lowercase() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// How the table `key` is written.
pub(super) fn table(key: &str, title: &str) -> String {
    let example = match key {
        "quota" => "quota = { bytes = \"200GB\", per = \"month\" }",
        "probe" if !title.starts_with("[probe") => "probe = { type = \"tcp\" }",
        "match" => "match = { proto = \"udp\", dport = 53 }",
        "not" => "not = { dst = \"10.0.0.0/8\" }",
        _ => return format!("a table: {title} in a line of its own, and its keys below"),
    };
    format!("a table in braces, such as {example}")
}
