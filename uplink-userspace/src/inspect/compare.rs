//! What is wanted beside what is there, as lines. Pure: `present` reads, this compares.

use std::fmt::Display;

use similar::{ChangeTag, TextDiff};

use super::report::{Line, Sign};
use crate::nat::{self, Standing};
use crate::plan::Sysctl;
use crate::routes::Step;

/// Unchanged lines shown around a changed one of the nftables table.
const CONTEXT: usize = 2;

/// Something with a name, and what is said of it.
pub type Named = (String, String);

/// Things with names. What is wanted keeps its order, what goes comes last.
#[must_use]
pub fn named(wanted: &[Named], present: &[Named]) -> Vec<Line> {
    let find = |key: &str| present.iter().find(|(k, _)| k == key);
    let mut lines: Vec<Line> = wanted
        .iter()
        .map(|(key, text)| match find(key) {
            Some((_, old)) if old == text => Line::new(Sign::Same, label(key, text)),
            Some((_, old)) => Line::new(Sign::Change, label(key, &format!("{old} -> {text}"))),
            None => Line::new(Sign::Add, label(key, text)),
        })
        .collect();
    let gone = present.iter().filter(|(k, _)| wanted.iter().all(|(w, _)| w != k));
    lines.extend(gone.map(|(key, text)| Line::new(Sign::Remove, label(key, text))));
    lines
}

fn label(key: &str, text: &str) -> String {
    match text {
        "" => key.to_owned(),
        _ => format!("{key}: {text}"),
    }
}

/// What is wanted where nothing is known of what is there.
#[must_use]
pub fn unknown(lines: impl IntoIterator<Item = String>) -> Vec<Line> {
    let line = |text| Line::new(Sign::Unknown, text);
    lines.into_iter().map(line).collect()
}

/// As [`unknown`], of things with names.
#[must_use]
pub fn unknown_named(wanted: &[Named]) -> Vec<Line> {
    unknown(wanted.iter().map(|(key, text)| label(key, text)))
}

/// Rules or routes.
#[must_use]
pub fn steps<T: Display>(steps: &[Step<T>], what: &str, names: &dyn Fn(String) -> String) -> Vec<Line> {
    let text = |item: &T| command(&names(item.to_string()));
    let line = |step: &Step<T>| match step {
        Step::Keep(item) => Line::new(Sign::Same, text(item)),
        Step::Add(item) => Line::new(Sign::Add, text(item)),
        Step::Replace(old, new) => Line::new(Sign::Change, change(&text(old), &text(new))),
        Step::Remove(Some(old)) => Line::new(Sign::Remove, text(old)),
        Step::Remove(None) => Line::new(
            Sign::Remove,
            format!("a {what} with our protocol that is none of ours"),
        ),
    };
    steps.iter().map(line).collect()
}

/// The thing that a command would add.
#[must_use]
pub fn command(line: &str) -> String {
    line.replacen(" rule add ", " rule ", 1)
        .replacen(" route add ", " route ", 1)
}

/// Both texts; what they begin with alike is said once.
fn change(old: &str, new: &str) -> String {
    let alike = old.split(' ').zip(new.split(' ')).take_while(|(a, b)| a == b);
    let alike: usize = alike.map(|(word, _)| word.len() + 1).sum();
    let rest = |text: &str| text.get(alike..).unwrap_or("").trim_end().to_owned();
    let (before, after) = (rest(old), rest(new));
    let shown = |text: String| {
        if text.is_empty() {
            "nothing more".into()
        } else {
            text
        }
    };
    let start = new.get(..alike.min(new.len())).unwrap_or(new).trim_end();
    format!("{start} [{} -> {}]", shown(before), shown(after))
}

/// Sysctls; `read` tells how they are now.
#[must_use]
pub fn sysctls(wanted: &[Sysctl], read: impl Fn(&str) -> Option<String>) -> Vec<Line> {
    let line = |s: &Sysctl| match read(&s.path) {
        Some(now) if now == s.value => Line::new(Sign::Same, format!("{} = {}", s.path, now)),
        Some(now) => Line::new(Sign::Change, format!("{} = {now} -> {}", s.path, s.value)),
        None => Line::new(Sign::Unknown, format!("{} = {}", s.path, s.value)),
    };
    wanted.iter().map(line).collect()
}

/// The table of nftables that is wanted, and what is known of the one that is there.
pub struct Tables<'a> {
    /// As `nat::render` makes it.
    pub wanted: &'a str,
    /// What is in the kernel.
    pub present: Option<&'a Standing>,
    /// What the daemon rendered for the file that it runs with.
    pub running: Option<&'a str>,
    /// The wanted one as nft would list it, where that could be found out.
    pub listed: Option<&'a [String]>,
}

impl Tables<'_> {
    /// Whether `listed` is needed: somebody else's doing, or an earlier daemon's, is in the kernel.
    #[must_use]
    pub fn needs_listing(&self) -> bool {
        let Some(present) = self.present else { return false };
        let hashes = [nat::hash(self.wanted), self.running.and_then(nat::hash)];
        present.hash.is_none() || !hashes.contains(&present.hash.as_deref())
    }

    /// The lines, and what to know about them.
    #[must_use]
    pub fn lines(&self) -> (Vec<Line>, Option<String>) {
        let wanted = nat::plain_lines(self.wanted);
        let Some(present) = self.present else {
            return (all(Sign::Add, &wanted), None);
        };
        if present.hash.is_some() && present.hash.as_deref() == nat::hash(self.wanted) {
            let whole = format!("table inet uplink, {} lines", wanted.len());
            return (vec![Line::new(Sign::Same, whole)], None);
        }
        if !self.needs_listing() {
            let running = self.running.map(nat::plain_lines).unwrap_or_default();
            return (difference(&running, &wanted), None);
        }
        let note = match present.hash {
            None => "rules of it were removed by hand; it is made anew whole",
            Some(_) => "an earlier daemon's; it is made anew whole",
        };
        let lines = match self.listed {
            Some(listed) => difference(&present.lines, listed),
            None => [all(Sign::Remove, &present.lines), all(Sign::Add, &wanted)].concat(),
        };
        (lines, Some(note.to_owned()))
    }
}

fn all(sign: Sign, lines: &[String]) -> Vec<Line> {
    lines.iter().map(|l| Line::new(sign, indented(l))).collect()
}

fn indented(line: &str) -> String {
    line.replace('\t', "  ")
}

fn difference(old: &[String], new: &[String]) -> Vec<Line> {
    let [old, new] = [old, new].map(|lines| lines.iter().map(String::as_str).collect::<Vec<_>>());
    let diff = TextDiff::from_slices(&old, &new);
    let mut lines = Vec::new();
    for (n, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if n > 0 {
            lines.push(Line::new(Sign::Same, "  ..."));
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Equal => Sign::Same,
                ChangeTag::Delete => Sign::Remove,
                ChangeTag::Insert => Sign::Add,
            };
            lines.push(Line::new(sign, indented(change.value())));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: &[Line]) -> Vec<String> {
        let sign = |s| match s {
            Sign::Same => ' ',
            Sign::Add => '+',
            Sign::Remove => '-',
            Sign::Change => '~',
            Sign::Unknown => '?',
        };
        lines
            .iter()
            .map(|l| format!("{} {}", sign(l.sign), l.text))
            .collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<Named> {
        list.iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn things_with_names_are_told_apart_by_them() {
        let wanted = pairs(&[("a", "1"), ("b", "2"), ("c", "")]);
        let present = pairs(&[("b", "3"), ("a", "1"), ("d", "4")]);
        assert_eq!(
            shown(&named(&wanted, &present)),
            ["  a: 1", "~ b: 3 -> 2", "+ c", "- d: 4"]
        );
        assert_eq!(shown(&unknown_named(&wanted[..1])), ["? a: 1"]);
    }

    #[test]
    fn a_change_says_once_what_stays() {
        let found = steps(
            &[
                Step::Keep("ip rule add priority 1 lookup 7"),
                Step::Replace(
                    "ip route add 0.0.0.0/0 metric 9 via 1",
                    "ip route add 0.0.0.0/0 metric 9 via 2 src 3",
                ),
                Step::Replace("ip route add 0.0.0.0/0", "ip route add 0.0.0.0/0 mtu 1400"),
                Step::Remove(None),
            ],
            "route",
            &|line| line,
        );
        assert_eq!(
            shown(&found),
            [
                "  ip rule priority 1 lookup 7",
                "~ ip route 0.0.0.0/0 metric 9 via [1 -> 2 src 3]",
                "~ ip route 0.0.0.0/0 [nothing more -> mtu 1400]",
                "- a route with our protocol that is none of ours",
            ]
        );
    }

    #[test]
    fn sysctls_show_the_old_value_and_the_new() {
        let wanted = ["a", "b", "c"].map(|path| Sysctl {
            path: path.into(),
            value: "1".into(),
        });
        let read = |path: &str| {
            ["a", "b"]
                .contains(&path)
                .then(|| u8::from(path == "a").to_string())
        };
        assert_eq!(
            shown(&sysctls(&wanted, read)),
            ["  a = 1", "~ b = 0 -> 1", "? c = 1"]
        );
    }

    fn table(hash: &str, rules: &[&str]) -> String {
        let rules: String = rules.iter().map(|r| format!("\t\t{r}\n")).collect();
        format!(
            "table inet uplink {{}}\ndelete table inet uplink\ntable inet uplink {{\n\tcomment \"uplink abi {} hash \
             {hash} rules 9\"\n\tchain a {{\n{rules}\t}}\n}}\n",
            uplink_common::ABI
        )
    }

    fn standing(hash: Option<&str>, rules: &[&str]) -> Standing {
        Standing {
            hash: hash.map(str::to_owned),
            lines: nat::plain_lines(&table("x", rules)),
        }
    }

    #[test]
    fn the_table_is_the_same_new_edited_or_somebody_elses() {
        let wanted = table("new", &["one", "two", "three", "four", "five"]);
        let running = table("old", &["one", "two", "three", "four", "six"]);
        let of = |present: Option<&Standing>, listed: Option<&[String]>| {
            let tables = Tables {
                wanted: &wanted,
                present,
                running: Some(&running),
                listed,
            };
            (tables.needs_listing(), shown(&tables.lines().0))
        };
        let same = standing(Some("new"), &[]);
        assert_eq!(
            of(Some(&same), None),
            (false, vec!["  table inet uplink, 8 lines".into()])
        );
        let (needs, lines) = of(None, None);
        assert!(!needs && lines.len() == 8 && lines.iter().all(|l| l.starts_with('+')));
        let edited = of(Some(&standing(Some("old"), &["as nft writes it"])), None);
        let lines = ["      three", "      four", "-     six", "+     five", "    }"];
        assert_eq!(edited, (false, lines.map(str::to_owned).to_vec()));
        let flushed = standing(None, &["one", "two", "four"]);
        let listed = nat::plain_lines(&table("x", &["one", "two", "three", "four"]));
        let (needs, lines) = of(Some(&flushed), Some(&listed));
        let added: Vec<&str> = lines
            .iter()
            .map(String::as_str)
            .filter(|l| !l.starts_with(' '))
            .collect();
        assert_eq!((needs, added), (true, vec!["+     three"]));
    }
}
