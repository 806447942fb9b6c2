//! What policies refer to outside the configuration: looked up when it is asked for, services once only.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use uplink_common::policy::PREFIXES;

use crate::config::reader::{Refusal, wrong};

/// Prefixes in all policies together: compiling may split a prefix between banks' sets, and the map must hold
/// what comes of it.
pub(super) const MOST_PREFIXES: usize = PREFIXES as usize / 2;

/// Where names of services are.
const SERVICES: &str = "/etc/services";

/// What lies outside.
pub(super) struct Outside<'f> {
    /// Relative paths begin here.
    directory: &'f Path,
    services: OnceCell<String>,
    /// How many prefixes there are so far.
    prefixes: usize,
}

impl<'f> Outside<'f> {
    /// What lies outside this file.
    pub fn of(file: &'f Path) -> Self {
        Self {
            directory: file.parent().unwrap_or(Path::new("")),
            services: OnceCell::new(),
            prefixes: 0,
        }
    }

    /// A path as the configuration means it.
    pub fn path(&self, written: &str) -> PathBuf {
        self.directory.join(written)
    }

    /// Counts prefixes; whether these are the first that are too many.
    pub fn are_too_many(&mut self, prefixes: usize) -> bool {
        let before = self.is_full();
        self.prefixes = self.prefixes.saturating_add(prefixes);
        !before && self.is_full()
    }

    /// Whether there are too many already: nothing more needs to be read.
    pub const fn is_full(&self) -> bool {
        self.prefixes > MOST_PREFIXES
    }

    /// The port of a service.
    pub fn port(&self, service: &str) -> Result<u16, Refusal> {
        let text = self
            .services
            .get_or_init(|| fs::read_to_string(SERVICES).unwrap_or_default());
        let ports = ports_of(text, service);
        match (ports.first(), ports.len()) {
            (Some(port), 1) => Ok(*port),
            (None, _) => Err(wrong(format!("is neither a port nor in {SERVICES}"))),
            _ => Err(wrong(format!("has several ports in {SERVICES}"))),
        }
    }
}

/// The ports of a service, most often one for all protocols.
fn ports_of(services: &str, service: &str) -> BTreeSet<u16> {
    let lines = services.lines().map(|line| line.split('#').next().unwrap_or(""));
    let ports = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, port) = (words.next()?, words.next()?);
        let is_it = name == service || words.any(|alias| alias == service);
        let port = port.split_once('/')?.0.parse().ok()?;
        is_it.then_some(port)
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Network services\n\
        ssh\t\t22/tcp\t# SSH\n\
        domain 53/tcp\n\
        domain 53/udp\n\
        http 80/tcp www # WorldWideWeb\n\
        odd 1/tcp\n\
        odd 2/udp\n\
        broken\n\
        broken x/tcp\n";

    #[test]
    fn services_are_found_by_name_and_alias() {
        for (service, ports) in [
            ("ssh", vec![22]),
            ("domain", vec![53]),
            ("www", vec![80]),
            ("odd", vec![1, 2]),
            ("broken", vec![]),
            ("WorldWideWeb", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(ports_of(TEXT, service), ports.into_iter().collect(), "{service}");
        }
    }

    #[test]
    fn what_is_no_service_is_refused() {
        let outside = Outside::of(Path::new("u.toml"));
        outside.services.set(TEXT.into()).unwrap();
        assert_eq!(outside.port("www").ok(), Some(80));
        assert!(outside.port("odd").is_err() && outside.port("nothing").is_err());
    }

    #[test]
    fn the_first_prefixes_beyond_the_limit_are_told_once() {
        let mut outside = Outside::of(Path::new("u.toml"));
        assert!(!outside.are_too_many(MOST_PREFIXES) && !outside.is_full());
        assert!(outside.are_too_many(1) && outside.is_full());
        assert!(!outside.are_too_many(usize::MAX));
    }
}
