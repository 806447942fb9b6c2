//! Prefixes, in the configuration and in files of their own.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net};

use crate::config::problem::shown;
use crate::config::reader::{Refusal, meant, wrong};
use crate::config::{addresses, names};

/// Room for the most prefixes allowed, with a comment behind each.
const LARGEST_FILE: u64 = 16 << 20;

/// A file that is something else altogether would complain about every line.
const COMPLAINTS: usize = 5;

/// An address or a prefix.
pub(super) fn prefix(text: &str) -> Result<IpNet, Refusal> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let net = match text.parse::<IpNet>().or_else(|_| address()) {
        Ok(net) => net,
        Err(_) if names::is_meant(text) => return Err(wrong("is a name: names go with `domain`")),
        Err(_) => return Err(addresses::not_a_prefix(text)),
    };
    if let Some(v4) = mapped(&net) {
        return Err(wrong(format!("is IPv4 in the form of IPv6: write {v4}")));
    }
    match net.trunc() {
        network if network == net => Ok(net),
        network => {
            let why = format!("has host bits set: {network} has none");
            Err(meant(why, format!("\"{network}\"")))
        }
    }
}

/// The IPv4 prefix that an IPv6 prefix stands for; packets have the former.
fn mapped(net: &IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(net) = net else { return None };
    let length = net.prefix_len().checked_sub(96)?;
    Ipv4Net::new(net.addr().to_ipv4_mapped()?, length).ok()
}

/// The prefixes of a file, or what is wrong with it, by file and line.
pub(super) fn read(path: &Path) -> Result<Vec<IpNet>, Vec<String>> {
    let bytes = bytes(path).map_err(|e| vec![format!("cannot read {}: {e}", path.display())])?;
    match String::from_utf8(bytes) {
        Ok(text) => prefixes(path, &text),
        Err(e) => {
            let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let line = 1 + valid.iter().filter(|b| **b == b'\n').count();
            Err(vec![format!("{}:{line}: not UTF-8", path.display())])
        }
    }
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other("larger than 16 MiB"));
    }
    Ok(bytes)
}

fn prefixes(path: &Path, text: &str) -> Result<Vec<IpNet>, Vec<String>> {
    let (mut prefixes, mut wrong) = (Vec::new(), Vec::new());
    // Editors of other systems begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, number) in text.lines().zip(1_u32..) {
        let word = line.split(['#', ';']).next().unwrap_or("").trim();
        if word.is_empty() {
            continue;
        }
        match prefix(word) {
            Ok(net) => prefixes.push(net),
            Err(_) if wrong.len() == COMPLAINTS => {
                wrong.push(format!("{}: and more of the kind", path.display()));
                return Err(wrong);
            }
            Err(why) => wrong.push(format!("{}:{number}: {} {why}", path.display(), shown(word))),
        }
    }
    if prefixes.is_empty() && wrong.is_empty() {
        wrong.push(format!(
            "{} has no prefix in it: it matches nothing",
            path.display()
        ));
    }
    if wrong.is_empty() {
        Ok(prefixes)
    } else {
        Err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, Vec<String>> {
        let prefixes = prefixes(Path::new("list"), text)?;
        Ok(prefixes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn files_have_a_prefix_a_line_and_comments() {
        let text = "\u{feff}# a list\r\n10.0.0.0/8\r\n\r\n  2001:db8::/32 ; ours\n; nothing\n192.0.2.1#one";
        assert_eq!(
            read(text).unwrap(),
            ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]
        );
    }

    #[test]
    fn garbage_is_told_by_file_and_line() {
        let text = "10.0.0.0/8\nhello there\n\n10.0.0.1/8\nexample.org\n::ffff:192.0.2.0/120\n";
        assert_eq!(
            read(text).unwrap_err(),
            [
                "list:2: \"hello there\" is neither an address nor a prefix",
                "list:4: \"10.0.0.1/8\" has host bits set: 10.0.0.0/8 has none",
                "list:5: \"example.org\" is a name: names go with `domain`",
                "list:6: \"::ffff:192.0.2.0/120\" is IPv4 in the form of IPv6: write 192.0.2.0/24",
            ]
        );
        let many = read(&"x\n".repeat(100)).unwrap_err();
        assert_eq!(many.len(), COMPLAINTS + 1);
        assert_eq!(many.last().unwrap(), "list: and more of the kind");
        let empty = read("# nothing\n").unwrap_err();
        assert_eq!(empty, ["list has no prefix in it: it matches nothing"]);
    }

    #[test]
    fn what_is_no_text_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        assert!(super::read(&path).unwrap_err()[0].contains("No such file"));
        assert!(super::read(directory.path()).unwrap_err()[0].ends_with("not a regular file"));
        fs::write(&path, b"10.0.0.0/8\n\xff\xfe\n").unwrap();
        assert!(super::read(&path).unwrap_err()[0].ends_with("list:2: not UTF-8"));
        fs::write(&path, vec![b'\n'; 16 << 20 | 1]).unwrap();
        assert!(super::read(&path).unwrap_err()[0].ends_with("larger than 16 MiB"));
    }
}
