//! What would change, line by line, for people.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    /// It is there and stays.
    Same,
    /// It would be added.
    Add,
    /// It would go.
    Remove,
    /// It would get another value.
    Change,
    /// It is wanted; what is there could not be read.
    Unknown,
}

/// One thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What becomes of it.
    pub sign: Sign,
    /// What it is; for a change the old and the new.
    pub text: String,
}

/// Things of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Their kind.
    pub title: String,
    /// What to know about them, such as why they could not be read.
    pub note: Option<String>,
    /// In the order to show them.
    pub lines: Vec<Line>,
}

/// Everything that a start or a reload would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The configuration file, its path made absolute where it could be.
    pub config: String,
    /// What to know first.
    pub notes: Vec<String>,
    /// In the order to show them.
    pub sections: Vec<Section>,
}

impl Line {
    /// A line.
    #[must_use]
    pub fn new(sign: Sign, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { sign, text }
    }
}

impl Sign {
    const fn mark(self) -> (&'static str, &'static str) {
        match self {
            Self::Same => (" ", ""),
            Self::Add => ("+", GREEN),
            Self::Remove => ("-", RED),
            Self::Change => ("~", YELLOW),
            Self::Unknown => ("?", YELLOW),
        }
    }
}

impl Report {
    /// All of it; `colour` for a terminal that shows them.
    #[must_use]
    pub fn text(&self, colour: bool) -> String {
        let paint = |on: &str, text: String| match colour && !on.is_empty() {
            true => format!("{on}{text}{PLAIN}"),
            false => text,
        };
        let mut out = String::new();
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        for section in &self.sections {
            let note = section
                .note
                .as_ref()
                .map_or_else(String::new, |n| format!(" ({n})"));
            let title = paint(BOLD, format!("# {}", section.title));
            let _ = writeln!(out, "{title}{note}");
            for line in &section.lines {
                let (sign, on) = line.sign.mark();
                let _ = writeln!(out, "{}", paint(on, format!("{sign} {}", line.text)));
            }
        }
        out + &paint(BOLD, self.summary()) + "\n"
    }

    /// How much there is to do.
    #[must_use]
    pub fn summary(&self) -> String {
        let lines = || self.sections.iter().flat_map(|s| &s.lines);
        let count = |sign| lines().filter(|l| l.sign == sign).count();
        let [add, change, remove] = [Sign::Add, Sign::Change, Sign::Remove].map(count);
        let unread = |s: &&Section| s.lines.iter().any(|l| l.sign == Sign::Unknown);
        let unseen = match self.sections.iter().filter(unread).count() {
            0 => String::new(),
            1 => "; one section could not be compared".into(),
            n => format!("; {n} sections could not be compared"),
        };
        match add + change + remove {
            0 if unseen.is_empty() => format!("nothing to do: {} as they are", count(Sign::Same)),
            0 => format!("nothing to do in what could be read{unseen}"),
            _ => format!("{add} to add, {change} to change, {remove} to remove{unseen}; nothing was changed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(signs: &[Sign]) -> Report {
        let lines = signs.iter().map(|s| Line::new(*s, format!("{s:?}"))).collect();
        let section = Section {
            title: "rules".into(),
            note: Some("a note".into()),
            lines,
        };
        Report {
            config: "/u.toml".into(),
            notes: vec!["first".into()],
            sections: vec![section],
        }
    }

    #[test]
    fn each_line_has_its_sign() {
        use Sign::{Add, Change, Remove, Same, Unknown};
        insta::assert_snapshot!(report(&[Same, Add, Remove, Change, Unknown]).text(false), @r"
        note: first
        # rules (a note)
          Same
        + Add
        - Remove
        ~ Change
        ? Unknown
        1 to add, 1 to change, 1 to remove; one section could not be compared; nothing was changed
        ");
    }

    #[test]
    fn nothing_to_do_is_said_only_where_all_was_seen() {
        assert_eq!(report(&[Sign::Same; 3]).summary(), "nothing to do: 3 as they are");
        let half = report(&[Sign::Same, Sign::Unknown]).summary();
        assert!(half.contains("in what could be read; one section"), "{half}");
        let one = report(&[Sign::Add]).summary();
        assert_eq!(one, "1 to add, 0 to change, 0 to remove; nothing was changed");
    }

    #[test]
    fn colours_are_for_terminals() {
        assert!(report(&[Sign::Add]).text(true).contains("\x1b[32m+ Add\x1b[0m"));
        assert!(!report(&[Sign::Add]).text(false).contains('\x1b'));
    }
}
