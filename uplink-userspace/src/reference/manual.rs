//! The reference of the configuration as a manual page, uplink.toml(5).

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::markdown::is_value;
use super::{Key, TABLES, Table};

const SMALLEST: &str = "[[uplink]]
name = \"isp1\"
interface = \"eth0\"
gateway = \"192.168.1.1\"

[[uplink]]
name = \"isp2\"
interface = \"eth1\"
gateway = \"10.0.0.1\"
weight = 3
";

const DESCRIPTION: [&str; 3] = [
    "`uplink` reads this file when it starts and, if it is told to, when it reloads. It is TOML: tables under headings in \
     brackets, one `key = value` a line, texts in straight quotes, comments behind `#`. Headings in double brackets may \
     stand several times.",
    "An unknown key is an error with a suggestion; every mistake is shown with its line and column. `uplink check` tries the \
     file and changes nothing; a reload of a file with a mistake changes nothing either.",
    "Time spans are written like `\"500ms\"`, `\"1s\"`, `\"5min\"`, `\"1h\"`; percentages like `\"15%\"`; rates in the units of \
     tc(8): `bit`, `kbit`, `mbit`, `gbit`, `tbit`, and `bps`, `kbps`, `mbps`, `gbps`, which are bytes per second; all decimal.",
];

/// The page's source. `version`: the program's.
#[must_use]
pub fn manual(version: &str) -> String {
    let mut page = Roff::new();
    let source = format!("uplink {version}");
    page.control("TH", ["uplink.toml", "5", "", source.as_str(), "File Formats"]);
    page.control("SH", ["NAME"]);
    page.text([roman("uplink.toml - configuration of the uplink selector")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([
        bold("/etc/uplink/uplink.toml"),
        roman(", or what "),
        bold("--config"),
        roman(" says"),
    ]);
    page.control("SH", ["DESCRIPTION"]);
    paragraphs(&mut page, DESCRIPTION);
    page.control("SH", ["EXAMPLE"]);
    page.text([roman(
        "The smallest file for two providers; the second one gets three times as many flows:",
    )]);
    example(&mut page, SMALLEST);
    page.control("SH", ["KEYS"]);
    page.text([roman("What has no default has to be written.")]);
    TABLES.iter().for_each(|t| table(&mut page, t));
    page.control("SH", ["FILES"]);
    page.text([italic("/etc/uplink/uplink.toml")]);
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("uplink"),
        roman("(1), "),
        bold("uplink-check"),
        roman("(1), "),
        bold("uplink-reload"),
        roman("(1)"),
    ]);
    page.render()
}

fn table(page: &mut Roff, table: &Table) {
    page.control("SS", [table.title]);
    page.text(inlines(table.about));
    table.keys.iter().for_each(|k| key(page, k));
    if !table.more.is_empty() {
        paragraphs(page, table.more.split("\n\n"));
    }
}

fn key(page: &mut Roff, key: &Key) {
    page.control("TP", []);
    let mut head = vec![bold(key.name), roman(format!(" ({}", key.kind.words()))];
    match key.default {
        "" => head.push(roman("; needed)")),
        value if is_value(value) => head.extend([roman("; default "), bold(value), roman(")")]),
        words => {
            head.push(roman("; default: "));
            head.extend(inlines(words));
            head.push(roman(")"));
        }
    }
    page.text(head);
    page.text(inlines(key.says));
}

fn paragraphs<'s>(page: &mut Roff, texts: impl IntoIterator<Item = &'s str>) {
    for text in texts {
        page.control("PP", []);
        page.text(inlines(&text.replace('\n', " ")));
    }
}

fn example(page: &mut Roff, text: &str) {
    page.control("PP", []);
    page.control("RS", ["4"]);
    page.control("nf", []);
    for line in text.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.control("RE", []);
}

/// Markdown's code becomes bold, its links what they are called.
fn inlines(text: &str) -> Vec<Inline> {
    let text = without_links(text);
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    let inline = |(at, part): (usize, &str)| match at % 2 {
        0 => roman(part),
        _ => bold(part),
    };
    parts.map(inline).collect()
}

/// `[name](target)` becomes `name`.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (lead, name) = before.rsplit_once('[').unwrap_or((before, ""));
        plain += &format!("{lead}{name}");
        rest = after.split_once(')').map_or("", |(_, behind)| behind);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_become_names() {
        assert_eq!(without_links("[a.md](a.md) says [b](c)."), "a.md says b.");
        assert_eq!(without_links("`[\"auto\"]` (x)"), "`[\"auto\"]` (x)");
    }

    #[test]
    fn every_key_is_in_the_page() {
        let page = manual("1.2.3");
        for table in TABLES {
            assert!(
                page.contains(&format!(".SS \"{}\"", table.title))
                    || page.contains(&format!(".SS {}", table.title)),
                "{}",
                table.title
            );
            for key in table.keys {
                let head = format!("\\fB{}\\fR ({}", key.name, key.kind.words());
                assert!(page.contains(&head), "no {head} in:\n{page}");
            }
        }
        assert!(
            !page.contains('`') && !page.contains("]("),
            "Markdown is left:\n{page}"
        );
    }

    #[test]
    fn the_example_is_a_file_that_works() {
        crate::config::parse(std::path::Path::new("u.toml"), SMALLEST.into()).expect("no mistake");
    }
}
