//! The reference as a document.

use std::fmt::Write as _;

use super::{Key, TABLES, Table};

const HEAD: &str = "# Reference

Made from the program: do not edit, a test compares.

- [Configuration](#configuration)
- [Commands](#commands)

## Configuration

`/etc/uplink/uplink.toml`, or what `--config` says. All keys but those without a default can be left out. An unknown key is an
error with a suggestion; every mistake is shown with its line and column. Time spans are written like `\"500ms\"`, percentages like
`\"15%\"`, rates in the units of `tc` (`bit`, `kbit`, `mbit`, `gbit`, `tbit`; `bps`, `kbps`, `mbps`, `gbps` are bytes per second; all
decimal).
";

/// All of it. `commands`: what each command's help says, by its name.
#[must_use]
pub fn markdown(commands: &[(String, String)]) -> String {
    let mut text = HEAD.to_owned();
    TABLES.iter().for_each(|t| table(&mut text, t));
    text += "\n## Commands\n";
    for (name, help) in commands {
        let _ = write!(text, "\n### {name}\n\n```text\n{}\n```\n", help.trim_end());
    }
    text
}

fn table(text: &mut String, table: &Table) {
    let Table {
        title,
        about,
        keys,
        more,
    } = table;
    let _ = write!(
        text,
        "\n### `{title}`\n\n{about}\n\n| key | type | default | says |\n|---|---|---|---|\n"
    );
    for Key {
        name,
        kind,
        default,
        says,
    } in *keys
    {
        let default = match *default {
            "" => "needed".into(),
            words if is_value(words) => format!("`{words}`"),
            words => words.to_owned(),
        };
        let _ = writeln!(text, "| `{name}` | {} | {default} | {says} |", kind.words());
    }
    if !more.is_empty() {
        let _ = write!(text, "\n{more}\n");
    }
}

/// Whether it could stand in the file, and is not described in words.
pub(super) fn is_value(text: &str) -> bool {
    let first = text.chars().next();
    let bare = text.chars().all(|c| c.is_ascii_digit()) || matches!(text, "true" | "false");
    bare || matches!(first, Some('"' | '['))
}
