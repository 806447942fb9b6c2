//! The findings, for people and programs.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use super::{Finding, Severity};

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    findings: &'a [Finding],
    blocks: usize,
}

/// The worst first, each once.
pub(super) fn arranged(found: Vec<Finding>) -> Vec<Finding> {
    let mut all: Vec<Finding> = Vec::with_capacity(found.len());
    for one in found {
        // The daemon may warn of what was found without it.
        let known = all.iter().any(|f| f.code == one.code && f.text == one.text);
        if !known {
            all.push(one);
        }
    }
    all.sort_by_key(|f| f.severity);
    all
}

pub(super) fn count(found: &[Finding], severity: Severity) -> usize {
    found.iter().filter(|f| f.severity == severity).count()
}

pub(super) fn json(found: &[Finding]) -> Result<String> {
    let answer = Answer {
        findings: found,
        blocks: count(found, Severity::Blocks),
    };
    Ok(serde_json::to_string_pretty(&answer)? + "\n")
}

/// Two lines for each, and one for all.
pub(super) fn text(found: &[Finding], colour: bool) -> String {
    let paint = |on: &str, text: &str| match colour {
        true => format!("{on}{text}{PLAIN}"),
        false => text.to_owned(),
    };
    let mut out = String::new();
    for f in found {
        let (word, on) = match f.severity {
            Severity::Blocks => ("blocks", RED),
            Severity::Warns => ("warns ", YELLOW),
            Severity::Fine => ("fine  ", GREEN),
        };
        let _ = writeln!(out, "{} {} [{}]", paint(on, word), f.text, f.code);
        let _ = writeln!(out, "       {}", f.remedy);
    }
    out + &paint(BOLD, &summary(found)) + "\n"
}

fn summary(found: &[Finding]) -> String {
    let number = |severity| count(found, severity);
    let [blocks, warns, fine] = [Severity::Blocks, Severity::Warns, Severity::Fine].map(number);
    match (blocks, warns, fine) {
        (0, 0, 0) => "nothing is in the way".into(),
        (0, 0, n) => format!("nothing is in the way; {n} to know"),
        (0, n, fine) => format!("nothing blocks; {n} to mend, {fine} to know"),
        (n, warns, fine) => format!("{n} in the way, {warns} to mend, {fine} to know"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(severity: Severity, text: &str) -> Finding {
        Finding {
            code: "a-code".into(),
            severity,
            text: text.into(),
            remedy: "do this".into(),
        }
    }

    #[test]
    fn the_worst_comes_first_and_everything_once() {
        use Severity::{Blocks, Fine, Warns};
        let found = [one(Fine, "a"), one(Warns, "b"), one(Blocks, "c"), one(Warns, "b")];
        insta::assert_snapshot!(text(&arranged(found.to_vec()), false));
    }

    #[test]
    fn a_line_sums_it_up() {
        use Severity::{Fine, Warns};
        assert_eq!(summary(&[]), "nothing is in the way");
        assert_eq!(summary(&[one(Fine, "a")]), "nothing is in the way; 1 to know");
        assert_eq!(
            summary(&[one(Warns, "a")]),
            "nothing blocks; 1 to mend, 0 to know"
        );
    }

    #[test]
    fn colours_are_for_terminals() {
        let found = [one(Severity::Blocks, "a")];
        assert!(text(&found, true).starts_with("\x1b[1;31mblocks\x1b[0m a [a-code]\n"));
        assert!(!text(&found, false).contains('\x1b'));
    }

    #[test]
    fn programs_get_all_of_it() {
        let answer: serde_json::Value =
            serde_json::from_str(&json(&[one(Severity::Warns, "a")]).unwrap()).unwrap();
        assert_eq!(
            answer,
            serde_json::json!({"findings": [{"code": "a-code", "severity": "warns", "text": "a", "remedy": "do this"}], "blocks": 0})
        );
    }
}
