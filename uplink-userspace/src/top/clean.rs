//! What comes from the socket must not steer the terminal.

use serde_json::Value;

/// Whether a terminal, or the eye, would be led astray by it: controls, marks that turn the
/// direction of writing, and what takes no room.
fn is_tricky(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The text in one line, without anything that a terminal would obey.
pub(super) fn text(text: &str) -> String {
    let shown = text.chars().map(|c| if c == '\n' { ' ' } else { c });
    shown.filter(|c| !is_tricky(*c)).collect()
}

/// The same for every string in an answer.
pub(super) fn value(value: &mut Value) {
    match value {
        Value::String(s) if s.chars().any(is_tricky) => *s = text(s),
        Value::Array(items) => items.iter_mut().for_each(self::value),
        Value::Object(fields) => fields.values_mut().for_each(self::value),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        let mut answer = json!({ "a": ["\u{1b}[2Jx\u{7}", { "b": "l1\nl2\u{9b}31m" }], "n": 7 });
        value(&mut answer);
        assert_eq!(answer, json!({ "a": ["[2Jx", { "b": "l1 l231m" }], "n": 7 }));
        assert_eq!(text("a\u{202e}b\u{200b}\u{feff}c"), "abc");
        assert_eq!(text("Köln 東京"), "Köln 東京");
    }
}
