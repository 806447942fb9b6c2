//! What a resolver of the lab knows.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::Result;

/// Names and their addresses, all with one time to live.
#[derive(Clone, Debug)]
pub struct Zone {
    pub(super) name: String,
    ttl_s: u32,
    addresses: Vec<(String, IpAddr)>,
    aliases: Vec<(String, String)>,
}

impl Zone {
    /// Nothing yet, below this name.
    #[must_use]
    pub fn new(name: &str, ttl_s: u32) -> Self {
        Self {
            name: name.to_owned(),
            ttl_s,
            addresses: Vec::new(),
            aliases: Vec::new(),
        }
    }

    /// One more address of a name.
    pub fn add(&mut self, name: &str, address: IpAddr) {
        self.addresses.push((name.to_owned(), address));
    }

    /// An alias.
    pub fn alias(&mut self, name: &str, target: &str) {
        self.aliases.push((name.to_owned(), target.to_owned()));
    }

    /// As settings of dnsmasq. The addresses go into this file.
    pub(super) fn dnsmasq(&self, hosts: &str) -> Result<String> {
        let mut lines = String::new();
        for (name, address) in &self.addresses {
            writeln!(lines, "{address} {name}")?;
        }
        std::fs::write(hosts, lines)?;
        let mut text = format!(
            "addn-hosts={hosts}\nlocal-ttl={}\nlocal=/{}/\n",
            self.ttl_s, self.name
        );
        for (name, target) in &self.aliases {
            writeln!(text, "cname={name},{target}")?;
        }
        Ok(text)
    }

    /// As a master file (RFC 1035, section 5).
    pub(super) fn master(&self) -> String {
        let Self { name, ttl_s, .. } = self;
        let mut text = format!(
            "$TTL {ttl_s}\n{name}. SOA ns.{name}. admin.{name}. 1 3600 600 86400 60\n{name}. NS ns.{name}.\n"
        );
        for (name, address) in &self.addresses {
            let kind = if address.is_ipv4() { "A" } else { "AAAA" };
            let _ = writeln!(text, "{name}. {kind} {address}");
        }
        for (name, target) in &self.aliases {
            let _ = writeln!(text, "{name}. CNAME {target}.");
        }
        text
    }
}
