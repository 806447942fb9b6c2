//! Asks `nft`, `ip` and others.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::{parsed, text};
use crate::doctor::facts::Seen;

/// Longest wait for a command.
const BOUND: Duration = Duration::from_secs(5);
/// Longest answer, and longest complaint.
const MOST: [u64; 2] = [64 << 20, 64 << 10];
/// Where programs are that a plain user does not have in `PATH`.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// What commands have answered.
pub(super) struct Answers {
    pub ruleset: Seen,
    pub iptables: Vec<(&'static str, String)>,
    pub legacy: bool,
    pub links: Seen,
    pub addresses: Seen,
    pub neighbours: Seen,
    pub qdiscs: Seen,
}

/// Runs all at once.
pub(super) async fn all() -> Answers {
    let (ruleset, links, addresses, neighbours, qdiscs, v4, v6, old4, old6) = tokio::join!(
        json("nft", &["-t", "-j", "list", "ruleset"]),
        json("ip", &["-j", "-d", "link", "show"]),
        json("ip", &["-j", "addr", "show"]),
        json("ip", &["-j", "neigh", "show", "nud", "failed"]),
        json("tc", &["-j", "qdisc", "show"]),
        rules("iptables", ""),
        rules("ip6tables", ""),
        rules("iptables-legacy", "/proc/net/ip_tables_names"),
        rules("ip6tables-legacy", "/proc/net/ip6_tables_names"),
    );
    let legacy = !old4.is_empty() || !old6.is_empty();
    Answers {
        ruleset,
        iptables: [v4, v6, old4, old6].concat(),
        legacy,
        links,
        addresses,
        neighbours,
        qdiscs,
    }
}

/// The programs that people need and that are not there.
pub(super) fn missing() -> Vec<&'static str> {
    let all = ["nft", "ip"].into_iter();
    all.filter(|name| find(name).is_none()).collect()
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SYSTEM.map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The rules of one iptables. `tables` lists the tables that the kernel has in use, where asking
/// for rules might make it load some.
async fn rules(program: &'static str, tables: &str) -> Vec<(&'static str, String)> {
    let in_use = tables.is_empty() || !text(Path::new(tables)).trim().is_empty();
    if !in_use || find(&format!("{program}-save")).is_none() {
        return Vec::new();
    }
    let saved = run(&format!("{program}-save"), &[]).await.unwrap_or_default();
    let saved = String::from_utf8_lossy(&saved);
    let rules = saved.lines().filter(|l| l.starts_with("-A "));
    rules.map(|l| (program, l.to_owned())).collect()
}

async fn json(program: &str, arguments: &[&str]) -> Seen {
    let answer = run(program, arguments).await?;
    parsed(&answer).map_err(|e| format!("{program}: {e}"))
}

async fn run(program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    within(BOUND, program, arguments).await
}

/// What a command writes, if it ends well, in time and within bounds.
async fn within(bound: Duration, program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let file = find(program).ok_or_else(|| format!("{program}: not found"))?;
    let mut command = Command::new(file);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
    let work = async {
        let [most, complaint] = MOST;
        let (out, err) = tokio::join!(
            some(child.stdout.take(), most),
            some(child.stderr.take(), complaint)
        );
        if out.len() as u64 > most {
            return Err(std::io::Error::new(ErrorKind::FileTooLarge, "a very long answer"));
        }
        Ok((child.wait().await?, out, err))
    };
    let done = timeout(bound, work).await;
    let done = done.map_err(|_| format!("{program}: no answer within {bound:?}"))?;
    let (status, out, err) = done.map_err(|e| format!("{program}: {e}"))?;
    let said = String::from_utf8_lossy(&err);
    match status.success() {
        true => Ok(out),
        false => Err(format!("{program}: {}", complaint(&said))),
    }
}

/// Its first line, without what says that it is one.
fn complaint(said: &str) -> &str {
    let line = said.lines().next().unwrap_or("failed").trim();
    line.strip_prefix("Error: ").unwrap_or(line)
}

/// What comes, up to one byte more than `most`.
async fn some(from: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let _ = from.take(most + 1).read_to_end(&mut bytes).await;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_is_told_by_what_it_says() {
        assert_eq!(run("echo", &["a"]).await, Ok(b"a\n".to_vec()));
        let failed = run("sh", &["-c", "echo Error: no way >&2; exit 3"]).await;
        assert_eq!(failed, Err("sh: no way".into()));
        let absent = run("there-is-no-such-program", &[]).await;
        assert_eq!(absent, Err("there-is-no-such-program: not found".into()));
        let endless = run("yes", &[]).await;
        assert_eq!(endless, Err("yes: a very long answer".into()));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_left() {
        let short = Duration::from_millis(50);
        let left = within(short, "sleep", &["60"]).await;
        assert_eq!(left, Err("sleep: no answer within 50ms".into()));
    }
}
