//! The reference against the parser, and the document against the reference.

use std::path::Path;

use clap::CommandFactory as _;

use super::{Key, Kind, TABLES, markdown};
use crate::config::parse;

/// A key that nobody has, nor anything like it.
const UNKNOWN: &str = "qqqqqqqq = 1\n";
const UPLINK: &str = "[[uplink]]\nname = \"isp1\"\ninterface = \"eth0\"\ngateway = \"192.168.1.1\"\n";

/// A file in which that table has an unknown key.
fn with_unknown(title: &str) -> String {
    match title {
        "[[uplink]]" => format!("{UPLINK}{UNKNOWN}"),
        "match = { ... }" => format!(
            "{UPLINK}[[policy]]\nname = \"p\"\nmatch = {{ {} }}\n",
            UNKNOWN.trim_end()
        ),
        "" => format!("{UNKNOWN}{UPLINK}"),
        "[[policy]]" | "[[group]]" => format!("{UPLINK}{title}\nname = \"p\"\n{UNKNOWN}"),
        title => format!("{UPLINK}{title}\n{UNKNOWN}"),
    }
}

/// What the parser says is allowed there; a probe has keys that depend on its type.
fn allowed(title: &str) -> Vec<String> {
    let mut files = vec![with_unknown(title)];
    if title == "[probe]" {
        let types = ["icmp", "tcp", "dns", "http", "https", "exec"];
        files.extend(types.map(|t| format!("{}type = \"{t}\"\n", with_unknown(title))));
    }
    let mut keys: Vec<String> = files
        .into_iter()
        .flat_map(|file| allowed_in(title, file))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn allowed_in(title: &str, file: String) -> Vec<String> {
    let problems = parse(Path::new("u.toml"), file).expect_err(title);
    let unknown = problems
        .list
        .iter()
        .find(|p| p.message.starts_with("unknown key \"qqqqqqqq\""));
    let help = &unknown.unwrap_or_else(|| panic!("{title}: {problems}")).help;
    let list = help
        .strip_prefix("allowed: ")
        .unwrap_or_else(|| panic!("{title}: {help}"));
    list.split(", ").map(Into::into).collect()
}

#[test]
fn every_key_that_the_parser_knows_is_described_and_no_other() {
    for table in TABLES {
        let mut described: Vec<String> = table.keys.iter().map(|k| k.name.into()).collect();
        described.sort_unstable();
        assert_eq!(described, allowed(table.title), "{}", table.title);
    }
}

#[test]
fn every_table_that_the_parser_knows_is_described() {
    let known = allowed("");
    let titles: Vec<&str> = TABLES.iter().map(|t| t.title.trim_matches(['[', ']'])).collect();
    let missing: Vec<_> = known.iter().filter(|k| !titles.contains(&k.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// `UPDATE_REFERENCE=1 cargo test -p uplink-userspace reference` writes it.
#[test]
fn the_document_is_what_the_program_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
    let now = markdown(&commands());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &now).expect("docs/reference.md");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == now,
        "docs/reference.md is not what the program says: \
         run UPDATE_REFERENCE=1 cargo test -p uplink-userspace reference"
    );
}

/// Each command's help, the program's own first.
fn commands() -> Vec<(String, String)> {
    let mut program = crate::cli::Cli::command().term_width(100);
    program.build();
    let mut all = vec![("uplink".to_owned(), program.render_long_help().to_string())];
    for command in program.get_subcommands_mut().filter(|c| c.get_name() != "help") {
        let name = format!("uplink {}", command.get_name());
        all.push((name, command.render_long_help().to_string()));
    }
    all
}

/// A value of each type that TOML has, but times; none of them is one that any key could have.
const VALUES: [(&str, &str); 6] = [
    ("string", "\"qqqqqqqq\""),
    ("integer", "0"),
    ("float", "0.5"),
    ("boolean", "true"),
    ("array", "[\"qqqqqqqq\"]"),
    ("table", "{ qqqqqqqq = 1 }"),
];

/// The types that the parser takes for the key.
fn taken(title: &str, key: &str) -> Vec<&'static str> {
    let kinds = if title == "[probe]" {
        &["icmp", "tcp", "dns", "http", "https", "exec"][..]
    } else {
        &[""]
    };
    let is_taken = |value: &&(&str, &str)| kinds.iter().any(|kind| takes(title, kind, key, **value));
    VALUES.iter().filter(is_taken).map(|value| value.0).collect()
}

fn takes(title: &str, kind: &str, key: &str, (of_type, value): (&str, &str)) -> bool {
    let line = format!("{key} = {value}");
    let kind = if kind.is_empty() || key == "type" {
        String::new()
    } else {
        format!("type = \"{kind}\"\n")
    };
    let file = match title {
        "match = { ... }" => format!("{UPLINK}[[policy]]\nname = \"p\"\nmatch = {{ {line} }}\n"),
        title => format!("{UPLINK}{title}\n{kind}{line}\n"),
    };
    let refused = format!("{key} cannot be of type {of_type}");
    let foreign = format!("`{key}` does not belong to type");
    let Err(problems) = parse(Path::new("u.toml"), file) else {
        return true;
    };
    let about = |start: &String| problems.list.iter().any(|p| p.message.starts_with(start));
    !about(&refused) && !about(&foreign)
}

fn types(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::String | Kind::Address | Kind::Prefix | Kind::Rate | Kind::Time | Kind::Percentage => {
            &["string"]
        }
        Kind::Integer => &["integer"],
        Kind::Boolean => &["boolean"],
        Kind::Mask => &["string", "integer"],
        Kind::Strings | Kind::Numbers => &["array"],
        Kind::Values => &["string", "integer", "array"],
        Kind::Table => &["table"],
        Kind::Tables => &["array", "table"],
        Kind::Choice => &["string", "array", "table"],
    }
}

#[test]
fn every_key_has_the_type_that_the_parser_takes() {
    for table in TABLES {
        for Key { name, kind, .. } in table.keys {
            assert_eq!(
                taken(table.title, name),
                types(*kind),
                "{name} of {}",
                table.title
            );
        }
    }
}
