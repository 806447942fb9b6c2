//! Completions and manual pages, made from the very definition of the command line.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;
use crate::reference;

/// `uplink completions`.
pub(super) fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "uplink", &mut text);
    super::show::print(&String::from_utf8(text)?)
}

/// `uplink man`.
pub(super) fn man(dir: Option<&Path>) -> Result<()> {
    match dir {
        None => super::show::print(&page(&command())?),
        Some(dir) => write(dir),
    }
}

/// A page for the program, one for each command, and one for the configuration.
fn write(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, text) in pages()? {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// File names and texts.
fn pages() -> Result<Vec<(String, String)>> {
    let mut command = command().disable_help_subcommand(true);
    command.build();
    let all = std::iter::once(&command).chain(command.get_subcommands());
    let commands = all.map(|c| Ok((Man::new(c.clone()).get_filename(), page(c)?)));
    let mut pages = commands.collect::<Result<Vec<_>>>()?;
    let version = command.get_version().unwrap_or_default();
    pages.push(("uplink.toml.5".into(), reference::manual(version)));
    Ok(pages)
}

fn page(command: &clap::Command) -> Result<String> {
    let mut text = Vec::new();
    Man::new(command.clone()).render(&mut text)?;
    Ok(String::from_utf8(text)?)
}

fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let pages = pages().expect("pages");
        let names: Vec<&str> = pages.iter().map(|(name, _)| &**name).collect();
        for name in [
            "uplink.1",
            "uplink-run.1",
            "uplink-status.1",
            "uplink-top.1",
            "uplink-man.1",
            "uplink.toml.5",
        ] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
        assert!(!names.contains(&"uplink-help.1"));
        let (_, status) = &pages[names.iter().position(|n| *n == "uplink-status.1").expect("there")];
        for part in [
            ".TH uplink-status 1",
            "\\fBuplink status\\fR",
            "\\-\\-json",
            "Example:",
        ] {
            assert!(status.contains(part), "no {part} in:\n{status}");
        }
    }
}
