//! Host names, as probes need them.

use super::reader::{Refusal, wrong};

/// RFC 1035, section 2.3.4, less the root's length byte and the first label's.
const LONGEST: usize = 253;
/// RFC 1035, section 2.3.4.
const LONGEST_LABEL: usize = 63;

/// A name that DNS can be asked for: "." or labels of letters, digits, "-" and "_".
pub(super) fn name(text: &str) -> Result<String, Refusal> {
    if text == "." {
        return Ok(text.into());
    }
    let labels = text.strip_suffix('.').unwrap_or(text);
    if labels.len() > LONGEST {
        return Err(wrong(format!("has {} bytes, more than {LONGEST}", labels.len())));
    }
    if let Some(c) = labels.chars().find(|c| !letter(*c) && *c != '.') {
        let hint = if c.is_ascii() {
            ""
        } else {
            ": write it in its xn-- form"
        };
        return Err(wrong(format!("contains {c:?}{hint}")));
    }
    match labels
        .split('.')
        .find(|l| l.is_empty() || l.len() > LONGEST_LABEL)
    {
        Some("") => Err(wrong("has an empty label")),
        Some(label) => Err(wrong(format!(
            "has a label of {} bytes, more than {LONGEST_LABEL}",
            label.len()
        ))),
        None => Ok(text.into()),
    }
}

/// Whether somebody would take this for a host's name, with or without a port: it has letters
/// where an IPv4 address cannot have any.
pub(super) fn is_meant(text: &str) -> bool {
    let host = text.rsplit_once(':').map_or(text, |(host, port)| {
        let is_port = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
        if is_port { host } else { text }
    });
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or("");
    name(host).is_ok() && last.chars().any(|c| c.is_ascii_alphabetic())
}

const fn letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_lengths_of_rfc_1035() {
        let label = "a".repeat(63);
        let longest = [&*label, &label, &label, &"a".repeat(61)].join(".");
        assert_eq!(longest.len(), LONGEST);
        for good in [".", "example.org", "example.org.", "_dns.x-y.1", &longest] {
            assert!(name(good).is_ok(), "{good}");
        }
        let long = format!("{longest}a");
        let label = "a".repeat(64);
        for bad in ["", "..", ".a", "a..b", "a b", "a/b", "é.fr", &long, &label] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mistyped_address_is_no_name() {
        for yes in ["dns.google", "localhost", "one.one.one.one:53", "a.example."] {
            assert!(is_meant(yes), "{yes}");
        }
        for no in [
            "1.2.3.256",
            "1.2.3",
            "fd00::g",
            "1.1.1.1:99999",
            "",
            "https://x.org/",
        ] {
            assert!(!is_meant(no), "{no}");
        }
    }
}
