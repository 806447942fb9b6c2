//! Keys that nobody knows, and keys that are not there: often one mistake.

use std::ops::Range;

use toml::de::DeValue;

use super::Reader;
use crate::config::problem::{Problem, nearest, shown};
use crate::reference;

/// What is missing: one of some keys.
pub(super) struct Missing {
    keys: Vec<&'static str>,
    problem: Problem,
}

impl Reader<'_, '_> {
    /// Complains that none of `keys` is there, unless one of them is there under a name with a
    /// mistake in it, which is a complaint of its own.
    pub fn missing(&mut self, keys: &[&'static str], message: impl Into<String>, help: impl Into<String>) {
        let problem = Problem::new(self.span(), message, help);
        let keys = keys.to_vec();
        self.missing.push(Missing { keys, problem });
    }

    /// Complains about the keys that nobody took, and about those that are missing.
    pub fn finish(self) {
        let mut mistyped = Vec::new();
        for (key, value) in self.table.iter() {
            let name: &str = key.get_ref();
            let mut known = self.known.iter().chain(&self.refused);
            if known.any(|k| *k == name) {
                continue;
            }
            let near = nearest(name, self.known.iter().copied());
            mistyped.extend(near);
            let problem = self.unknown(name, value.get_ref(), key.span(), near);
            self.problems.push(problem);
        }
        let is_there = |missing: &Missing| missing.keys.iter().any(|k| mistyped.contains(k));
        let absent = self.missing.into_iter().filter(|m| !is_there(m));
        self.problems.extend(absent.map(|m| m.problem));
    }

    fn unknown(&self, name: &str, value: &DeValue<'_>, span: Range<usize>, near: Option<&str>) -> Problem {
        let message = match (self.title, value) {
            ("", DeValue::Table(_)) => format!("unknown table [{name}]"),
            ("", DeValue::Array(_)) => format!("unknown table [[{name}]]"),
            ("", _) => format!("unknown key {}", shown(name)),
            (title, _) => format!("unknown key {} in {title}", shown(name)),
        };
        let mut help = String::new();
        if let Some(near) = near {
            let heading = heading(near).filter(|_| self.title.is_empty() && !value.is_str());
            let near = heading.map_or_else(|| format!("\"{near}\""), str::to_owned);
            help += &format!("did you mean {near}? ");
        }
        if let Some(home) = home(name, self.title) {
            help += &format!("\"{name}\" belongs in {home}; ");
        } else if let Some(heading) = heading(name) {
            help += &format!("{heading} is a table of its own; ");
        }
        help += &format!("allowed: {}", self.known.join(", "));
        Problem::new(span, message, help)
    }
}

/// A table of that name, as its heading is written.
fn heading(name: &str) -> Option<&'static str> {
    let mut titles = reference::TABLES.iter().map(|table| table.title);
    titles.find(|title| title.trim_matches(['[', ']']) == name)
}

/// The table of a key that only one other table has: it was meant for that.
fn home(key: &str, title: &str) -> Option<String> {
    let has = |table: &&reference::Table| table.keys.iter().any(|k| k.name == key);
    let mut homes = reference::TABLES.iter().filter(has).map(|table| table.title);
    let home = homes.next().filter(|home| *home != title)?;
    match (homes.next(), home, title) {
        (None, "[probe]", "[[uplink]]") => Some("[probe], or for this uplink only in probe = { ... }".into()),
        (None, home, _) => Some(home.into()),
        (Some(_), ..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::home;

    #[test]
    fn a_key_is_never_sent_to_where_it_stands() {
        for table in crate::reference::TABLES {
            for key in table.keys {
                let home = home(key.name, table.title);
                assert!(home.is_none(), "{} of {}: {home:?}", key.name, table.title);
            }
        }
        assert_eq!(home("flows", "[nat]").as_deref(), Some("[kernel]"));
        assert_eq!(home("src", "[[policy]]").as_deref(), Some("match = { ... }"));
        assert_eq!(home("name", "[nat]"), None);
    }
}
