//! Source NAT by the next hop a packet really takes, as one nftables table of ours.
//!
//! Whoever chose the route (a mark, a source rule, the kernel's multipath), the address fits
//! the gateway, and the connection's mark says which uplink it uses.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::ErrorKind;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use uplink_common::{ABI, Family};

use crate::config::NatMode;
use crate::resolve::{Leg, Uplink};

const TABLE: [&str; 3] = ["table", "inet", "uplink"];
/// nft answers in milliseconds; a hung one must not stop the daemon.
const BOUND: Duration = Duration::from_secs(10);

/// The whole table as `nft -f` reads it. The file deletes and makes it anew in one
/// transaction, so no packet sees it half done. Its comment holds a hash of the rest.
#[must_use]
pub fn render(uplinks: &[Uplink], lan: &[String], mask: u32, mode: NatMode) -> String {
    let mut body = String::new();
    steer(&mut body, uplinks, mask, mode);
    keep_clients(&mut body, uplinks, lan);
    let (hash, rules) = (fnv(body.as_bytes()), count_rules(&body));
    format!(
        "table inet uplink {{}}\ndelete table inet uplink\ntable inet uplink {{\n\
         \tcomment \"uplink abi {ABI} hash {hash:016x} rules {rules}\"\n{body}}}\n"
    )
}

/// The hash in the comment of a rendered table, to compare with [`present`].
#[must_use]
pub fn hash(text: &str) -> Option<&str> {
    comment(text).map(|(hash, _)| hash)
}

/// Loads a rendered table.
pub async fn apply(text: &str) -> Result<()> {
    let output = nft(&["-f", "-"], text).await?;
    if !output.status.success() {
        bail!("nft refused the table inet uplink: {}", message(&output));
    }
    Ok(())
}

/// The hash of the table in the kernel; `None` if there is none of ours, or if rules are
/// missing from it: `nft flush table` leaves the comment behind.
pub async fn present() -> Result<Option<String>> {
    let output = nft(&[&["-t", "-a", "list"], TABLE.as_slice()].concat(), "").await?;
    let listing = String::from_utf8_lossy(&output.stdout);
    Ok(intact(&listing).map(str::to_owned))
}

/// Removes the table. None there is just as well.
pub async fn remove() -> Result<()> {
    // Adding it first makes the deletion succeed in either case.
    let output = nft(&["-f", "-"], "table inet uplink {}\ndelete table inet uplink\n").await?;
    if !output.status.success() {
        bail!("nft could not delete the table inet uplink: {}", message(&output));
    }
    Ok(())
}

/// A chain that sees the first packet of every connection once its route is known.
fn steer(body: &mut String, uplinks: &[Uplink], mask: u32, mode: NatMode) {
    let (hook, new) = match mode {
        NatMode::Masquerade => ("type nat hook postrouting priority srcnat", ""),
        NatMode::Off => ("type filter hook postrouting priority mangle", "ct state new "),
    };
    let _ = writeln!(body, "\tchain postrouting {{\n\t\t{hook}; policy accept;");
    for uplink in uplinks {
        for family in Family::ALL {
            let Some(leg) = uplink.leg(family) else {
                continue;
            };
            let taken = taken(uplink, leg, family);
            let (keep, mark) = (!mask, uplink.mark & mask);
            let _ = writeln!(
                body,
                "\t\t{new}{taken} ct mark set ct mark & {keep:#010x} | {mark:#010x}"
            );
            if mode == NatMode::Masquerade {
                let _ = writeln!(body, "\t\t{taken} {}", snat(leg, family));
            }
        }
    }
    body.push_str("\t}\n");
}

/// Matches what leaves by this uplink.
fn taken(uplink: &Uplink, leg: &Leg, family: Family) -> String {
    let ip = ip(family);
    format!("oifname \"{}\" rt {ip} nexthop {}", uplink.interface, leg.gateway)
}

fn snat(leg: &Leg, family: Family) -> String {
    let (ip, source) = (ip(family), leg.source);
    match family {
        Family::V4 => format!("ip saddr != {source} snat {ip} to {source}"),
        // What speaks link-local to the gateway (DHCPv6, say) must stay that way.
        Family::V6 => format!("ip6 saddr != {{ {source}, fe80::/10 }} snat {ip} to {source}"),
    }
}

const fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// On one NIC the kernel tells IPv6 clients to use the gateway itself, and no sysctl stops it.
fn keep_clients(body: &mut String, uplinks: &[Uplink], lan: &[String]) {
    let names = uplinks.iter().map(|u| &u.interface).chain(lan);
    let quoted: BTreeSet<String> = names.map(|name| format!("\"{name}\"")).collect();
    if quoted.is_empty() {
        return;
    }
    let set = Vec::from_iter(quoted).join(", ");
    let _ = writeln!(
        body,
        "\tchain output {{\n\t\ttype filter hook output priority filter; policy accept;\n\
         \t\toifname {{ {set} }} icmpv6 type nd-redirect drop\n\t}}"
    );
}

/// Hash and number of rules, out of the comment.
fn comment(text: &str) -> Option<(&str, usize)> {
    let own = text.split_once(&format!("\"uplink abi {ABI} hash "))?.1;
    let (hash, rest) = own.split_once(" rules ")?;
    let (rules, _) = rest.split_once('"')?;
    Some((hash, rules.parse().ok()?))
}

fn count_rules(body: &str) -> usize {
    let lines = body.lines().map(str::trim);
    lines
        .filter(|line| line.contains("nexthop") || line.ends_with("drop"))
        .count()
}

/// The hash of a listing with handles, if it still has as many rules as it says.
fn intact(listing: &str) -> Option<&str> {
    let (hash, rules) = comment(listing)?;
    let lines = listing.lines().map(str::trim);
    let rule = |line: &&str| {
        line.contains(" # handle ") && !line.starts_with("table ") && !line.starts_with("chain ")
    };
    (lines.filter(rule).count() == rules).then_some(hash)
}

/// FNV-1a: the same in every version of us, unlike the standard library's.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

async fn nft(arguments: &[&str], input: &str) -> Result<Output> {
    let mut command = Command::new("nft");
    command.args(arguments).kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("nft not found: install nftables"),
        other => other.context("starting nft")?,
    };
    let mut stdin = child.stdin.take().context("nft has no standard input")?;
    let work = async {
        // An nft that stops reading has something to say on its standard error.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = timeout(BOUND, work).await;
    let output = output.with_context(|| format!("nft did not answer within {} s", BOUND.as_secs()))?;
    output.context("waiting for nft")
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: u32 = 0x7f00_0000;

    fn leg(gateway: &str, source: &str) -> Option<Leg> {
        Some(Leg {
            gateway: gateway.parse().unwrap(),
            source: source.parse().unwrap(),
            prefix: format!("{gateway}/24").parse().unwrap(),
        })
    }

    fn uplinks() -> Vec<Uplink> {
        let one = Uplink {
            id: 1,
            name: "one".into(),
            interface: "eth0".into(),
            ifindex: 2,
            v4: leg("192.168.1.1", "192.168.1.100"),
            v6: leg("fe80::1", "2001:db8::5"),
            weight: 1,
            tier: 0,
            mtu: None,
            table: 20001,
            mark: 0x100_0000,
            host_mark: 0,
            translation: None,
        };
        let two = Uplink {
            id: 2,
            v4: leg("192.168.2.1", "192.168.2.100"),
            v6: None,
            mark: 0x200_0000,
            ..one.clone()
        };
        vec![one, two]
    }

    #[test]
    fn every_leg_gets_a_mark_and_an_address() {
        let text = render(&uplinks(), &["lan0".into()], MASK, NatMode::Masquerade);
        for line in [
            r#"oifname "eth0" rt ip nexthop 192.168.1.1 ct mark set ct mark & 0x80ffffff | 0x01000000"#,
            r#"oifname "eth0" rt ip nexthop 192.168.1.1 ip saddr != 192.168.1.100 snat ip to 192.168.1.100"#,
            r#"rt ip6 nexthop fe80::1 ip6 saddr != { 2001:db8::5, fe80::/10 } snat ip6 to 2001:db8::5"#,
            r#"rt ip nexthop 192.168.2.1 ct mark set ct mark & 0x80ffffff | 0x02000000"#,
            r#"oifname { "eth0", "lan0" } icmpv6 type nd-redirect drop"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(text.starts_with("table inet uplink {}\ndelete table inet uplink\n"));
    }

    #[test]
    fn without_nat_only_the_marks_stay() {
        let text = render(&uplinks(), &[], MASK, NatMode::Off);
        assert!(!text.contains("snat") && !text.contains("type nat"));
        assert!(text.contains("ct state new oifname \"eth0\" rt ip nexthop 192.168.1.1 ct mark set"));
    }

    #[test]
    fn the_hash_follows_the_rules() {
        let text = render(&uplinks(), &[], MASK, NatMode::Masquerade);
        assert_eq!(
            hash(&text),
            hash(&render(&uplinks(), &[], MASK, NatMode::Masquerade))
        );
        assert_ne!(hash(&text), hash(&render(&uplinks(), &[], MASK, NatMode::Off)));
        assert_eq!(comment(&text).unwrap().1, 7);
    }

    #[test]
    fn a_flushed_or_foreign_table_is_not_ours() {
        let head =
            format!("table inet uplink {{ # handle 4\n\tcomment \"uplink abi {ABI} hash ab rules 1\"\n");
        let chain = "\tchain output { # handle 1\n\t\ttype filter hook output priority filter;\n";
        let rule = "\t\toifname \"eth0\" drop # handle 2\n";
        assert_eq!(intact(&format!("{head}{chain}{rule}\t}}\n}}")), Some("ab"));
        assert_eq!(intact(&format!("{head}{chain}\t}}\n}}")), None);
        assert_eq!(intact("table inet uplink { # handle 4\n}"), None);
    }
}
