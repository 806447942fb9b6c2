//! One nftables table of ours: source NAT by the next hop a packet really takes, and the mark of
//! its connection as the authority over where the rest of it goes.
//!
//! Whoever chose the route (a mark, a source rule, the kernel's multipath), the address fits
//! the gateway, and the connection's mark says which uplink it uses.

mod render;
mod watch;

use std::io::ErrorKind;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use uplink_common::ABI;

use crate::config::NatMode;
use crate::resolve::Uplink;

pub use watch::{Event, Process, watch};

/// All of the family: asked for one table, nft 1.0.6 reads the elements of its sets, terse or
/// not, which takes seconds while many resets are pending.
const LIST: [&str; 5] = ["-t", "-a", "list", "ruleset", "inet"];
/// nft answers in milliseconds; a hung one must not stop the daemon.
const BOUND: Duration = Duration::from_secs(3);

/// What the table depends on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Every uplink, dead ones too: the table stays the same when one fails.
    pub uplinks: &'a [Uplink],
    /// Where client traffic enters.
    pub lan: &'a [String],
    /// Our bits of the mark.
    pub mask: u32,
    /// Whether packets get the uplink's address.
    pub mode: NatMode,
    /// This host's own sockets are steered, too.
    pub local: bool,
    /// TCP connections are reset on failover or failback.
    pub reset: bool,
    /// The outer end of the aggregate interface, where there is one.
    pub aggregate: Option<&'a str>,
    /// Some policy has flows refused.
    pub strict: bool,
}

/// The whole table as `nft -f` reads it. The file deletes and makes it anew in one
/// transaction, so no packet sees it half done. Its comment holds a hash of the rest.
#[must_use]
pub fn render(input: &Input) -> String {
    let body = render::body(input);
    let (hash, rules, text) = (fnv(body.text.as_bytes()), body.rules, body.text);
    format!(
        "table inet uplink {{}}\ndelete table inet uplink\ntable inet uplink {{\n\
         \tcomment \"uplink abi {ABI} hash {hash:016x} rules {rules}\"\n{text}}}\n"
    )
}

/// The mark of packets that the reset of dead connections sends, which no rule of ours routes: all our bits, or,
/// where a `strict` policy has those refused, the highest number below that nobody has. `None` where there is
/// none, so that no reset can be offered.
#[must_use]
pub fn reset_mark(mask: u32, uplinks: &[Uplink], strict: bool) -> Option<u32> {
    let unit = mask & mask.wrapping_neg();
    let highest = mask.checked_div(unit)?;
    let lowest = if strict { 1 } else { highest };
    let marks = (lowest..=highest).rev().map(|n| n * unit);
    let taken = |mark: &u32| {
        let of = |u: &Uplink| u.mark & mask == *mark || u.host_mark & mask == *mark;
        uplinks.iter().any(of)
    };
    marks.skip(usize::from(strict)).find(|mark| !taken(mark))
}

/// The hash in the comment of a rendered table, to compare with [`present`].
#[must_use]
pub fn hash(text: &str) -> Option<&str> {
    comment(text).map(|(hash, _)| hash)
}

/// Loads a rendered table.
///
/// # Errors
/// When nft is missing, hangs or refuses the text; the table in the kernel stays as it was.
pub async fn apply(text: &str) -> Result<()> {
    load(text).await.context("making the table inet uplink")
}

/// The hash of the table in the kernel; `None` if there is none of ours, or if rules are
/// missing from it: `nft flush table` leaves the comment behind.
///
/// # Errors
/// When nft is missing or hangs.
pub async fn present() -> Result<Option<String>> {
    let output = nft(&LIST, "").await?;
    let listing = String::from_utf8_lossy(&output.stdout);
    Ok(own(&listing).and_then(intact).map(str::to_owned))
}

/// Every chain of everybody, as nft's JSON has them.
///
/// # Errors
/// When nft is missing, hangs, may not ask or speaks no JSON.
pub async fn chains() -> Result<serde_json::Value> {
    let output = nft(&["-t", "-j", "list", "chains"], "").await?;
    ensure_done(&output)?;
    serde_json::from_slice(&output.stdout).context("reading what nft says")
}

/// Every rule of everybody, as nft's JSON has them, without the elements of named sets and maps.
///
/// # Errors
/// When nft is missing, hangs, may not ask or speaks no JSON.
pub async fn ruleset() -> Result<serde_json::Value> {
    let output = nft(&["-t", "-j", "list", "ruleset"], "").await?;
    ensure_done(&output)?;
    serde_json::from_slice(&output.stdout).context("reading what nft says")
}

/// Our table as nft lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// As [`present`].
    pub hash: Option<String>,
    /// Its lines, without handles and without the comment.
    pub lines: Vec<String>,
}

/// The table in the kernel, if there is one.
///
/// # Errors
/// When nft is missing, hangs or may not ask.
pub async fn standing() -> Result<Option<Standing>> {
    let output = nft(&LIST, "").await?;
    ensure_done(&output)?;
    let listing = String::from_utf8_lossy(&output.stdout);
    Ok(own(&listing).map(|own| Standing {
        hash: intact(own).map(str::to_owned),
        lines: plain_lines(own),
    }))
}

/// A rendered table as nft would list it: loaded in a network namespace that lasts as long as the
/// command.
///
/// # Errors
/// When nft refuses it, or we may make no namespace.
pub async fn as_listed(text: &str) -> Result<Vec<String>> {
    // In one run nft would list the table as it was before.
    let script = "nft -f - && nft -t list table inet uplink";
    let output = answered("unshare", &["--net", "--", "sh", "-c", script], text).await?;
    ensure_done(&output)?;
    let listing = String::from_utf8_lossy(&output.stdout);
    Ok(own(&listing).map(plain_lines).unwrap_or_default())
}

/// The lines of a rendered table, or of a listing, that say what it does.
#[must_use]
pub fn plain_lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| {
        let line = line.split(" # handle ").next().unwrap_or(line);
        line.trim_end()
    });
    let noise = [
        "table inet uplink {}",
        "delete table",
        "}",
        "\tcomment \"uplink abi",
    ];
    let says = |line: &&str| !line.is_empty() && !noise.iter().any(|n| line.starts_with(n));
    lines.filter(says).map(str::to_owned).collect()
}

fn ensure_done(output: &Output) -> Result<()> {
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Removes the table. None there is just as well.
///
/// # Errors
/// When nft is missing, hangs or refuses.
pub async fn remove() -> Result<()> {
    // Adding it first makes the deletion succeed in either case.
    let text = "table inet uplink {}\ndelete table inet uplink\n";
    load(text).await.context("deleting the table inet uplink")
}

/// Carries out commands of `nft -f`, all or none.
pub(crate) async fn load(text: &str) -> Result<()> {
    let output = nft(&["-f", "-"], text).await?;
    if !output.status.success() {
        bail!("nft refused: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Hash and number of rules, out of the comment.
fn comment(text: &str) -> Option<(&str, usize)> {
    let own = text.split_once(&format!("\"uplink abi {ABI} hash "))?.1;
    let (hash, rest) = own.split_once(" rules ")?;
    let (rules, _) = rest.split_once('"')?;
    Some((hash, rules.parse().ok()?))
}

/// Our table's part of a listing.
fn own(listing: &str) -> Option<&str> {
    let start = listing.find("table inet uplink {")?;
    let own = listing.get(start..)?;
    let end = own.find("\n}").unwrap_or(own.len());
    own.get(..end)
}

/// The hash of a listing with handles, if it still has as many rules as it says.
fn intact(listing: &str) -> Option<&str> {
    let (hash, rules) = comment(listing)?;
    let containers = ["table ", "chain ", "set ", "map "];
    let rule = |line: &&str| line.contains(" # handle ") && !containers.iter().any(|c| line.starts_with(c));
    let lines = listing.lines().map(str::trim);
    (lines.filter(rule).count() == rules).then_some(hash)
}

/// FNV-1a: the same in every version of us, unlike the standard library's.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

async fn nft(arguments: &[&str], input: &str) -> Result<Output> {
    answered("nft", arguments, input).await
}

async fn answered(program: &str, arguments: &[&str], input: &str) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{program} not found: install {}", package(program))
        }
        other => other.with_context(|| format!("starting {program}"))?,
    };
    let mut stdin = child.stdin.take().context("nft has no standard input")?;
    let work = async {
        // An nft that stops reading has something to say on its standard error.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = timeout(BOUND, work).await;
    let output = output.with_context(|| format!("{program} did not answer within {} s", BOUND.as_secs()))?;
    output.with_context(|| format!("waiting for {program}"))
}

fn package(program: &str) -> &str {
    match program {
        "nft" => "nftables",
        _ => "util-linux",
    }
}

#[cfg(test)]
mod tests {
    use super::render::tests::{MASK, input, uplinks};
    use super::*;

    #[test]
    fn the_hash_follows_the_rules() {
        let all = uplinks();
        let text = render(&input(&all));
        assert_eq!(hash(&text), hash(&render(&input(&all))));
        let other = Input {
            mode: NatMode::Off,
            ..input(&all)
        };
        assert_ne!(hash(&text), hash(&render(&other)));
        assert!(text.starts_with("table inet uplink {}\ndelete table inet uplink\n"));
    }

    #[test]
    fn a_flushed_or_foreign_table_is_not_ours() {
        let head =
            format!("table inet uplink {{ # handle 4\n\tcomment \"uplink abi {ABI} hash ab rules 1\"\n");
        let set = "\tset reset4 { # handle 3\n\t\ttype ipv4_addr\n\t}\n";
        let chain = "\tchain output { # handle 1\n\t\ttype filter hook output priority filter;\n";
        let rule = "\t\toifname \"eth0\" drop # handle 2\n";
        assert_eq!(intact(&format!("{head}{set}{chain}{rule}\t}}\n}}")), Some("ab"));
        assert_eq!(intact(&format!("{head}{set}{chain}\t}}\n}}")), None);
        assert_eq!(intact("table inet uplink { # handle 4\n}"), None);
    }

    #[test]
    fn a_listing_and_a_rendered_table_are_reduced_to_the_same() {
        let rendered = "table inet uplink {}\ndelete table inet uplink\ntable inet uplink {\n\
                        \tcomment \"uplink abi 1 hash ab rules 1\"\n\tchain a {\n\t\tdrop\n\t}\n}\n";
        let listed = "table inet uplink { # handle 3\n\tcomment \"uplink abi 1 hash ab rules 1\"\n\
                      \tchain a { # handle 1\n\t\tdrop # handle 2\n\t}\n}";
        assert_eq!(plain_lines(rendered), plain_lines(listed));
        assert_eq!(
            plain_lines(rendered),
            ["table inet uplink {", "\tchain a {", "\t\tdrop", "\t}"]
        );
    }

    #[test]
    fn other_peoples_tables_do_not_count() {
        let ours = "table inet uplink { # handle 2\n\tcomment \"x\"";
        let theirs = "table inet fw { # handle 1\n\tchain a { # handle 1\n\t\tdrop # handle 2\n\t}\n}";
        assert_eq!(own(&format!("{theirs}\n{ours}\n}}\n{theirs}\n")), Some(ours));
        assert_eq!(own(theirs), None);
    }

    #[test]
    fn the_reset_mark_is_nobody_elses() {
        let all = uplinks();
        assert_eq!(reset_mark(MASK, &all, false), Some(MASK));
        // Two bits hold 1, 2 and 3; the third uplink would need all of them.
        assert_eq!(reset_mark(0x300_0000, &all, false), Some(0x300_0000));
        assert_eq!(reset_mark(0x200_0000, &all, false), None);
        assert_eq!(reset_mark(0, &all, false), None);
        let mut host = uplinks();
        host[0].host_mark = MASK;
        assert_eq!(reset_mark(MASK, &host, false), None);
    }

    #[test]
    fn resets_are_not_what_strict_policies_refuse() {
        let unit = MASK & MASK.wrapping_neg();
        let mut all = uplinks();
        assert_eq!(
            reset_mark(MASK, &all, true),
            Some(MASK - 3 * unit),
            "behind two host marks"
        );
        all[0].host_mark = all[0].mark;
        assert_eq!(reset_mark(MASK, &all, true), Some(MASK - unit));
        assert_eq!(reset_mark(0, &all, true), None);
        assert_eq!(
            reset_mark(0x300_0000, &uplinks(), true),
            None,
            "1 and 2 are uplinks, 3 is refused"
        );
    }
}
