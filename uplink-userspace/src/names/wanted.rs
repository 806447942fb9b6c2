//! Which names policies ask for.

use std::collections::HashSet;

use crate::config::Domain;

/// Names of policies, to be asked for by the name of an answer.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Wanted {
    names: HashSet<String>,
    below: HashSet<String>,
}

impl Wanted {
    /// Of all policies.
    pub fn new<'a>(domains: impl IntoIterator<Item = &'a Domain>) -> Self {
        let mut wanted = Self::default();
        for domain in domains {
            wanted.names.insert(domain.name.clone());
            if domain.below {
                wanted.below.insert(domain.name.clone());
            }
        }
        wanted
    }

    /// Whether any policy asks for this name, or for all names above it. Lower case, without a dot at its end.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name) || above(name).any(|name| self.below.contains(name))
    }

    /// The names themselves, which can be asked for, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.iter().cloned().collect();
        names.sort_unstable();
        names
    }
}

/// `a.b.c` -> `b.c`, `c`.
fn above(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, above)| above)).skip(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_count_where_a_star_says_so() {
        let domain = |name: &str, below| Domain {
            name: name.into(),
            below,
        };
        let wanted = Wanted::new(&[domain("google.com", false), domain("example.org", true)]);
        for yes in ["google.com", "example.org", "www.example.org", "a.b.example.org"] {
            assert!(wanted.contains(yes), "{yes}");
        }
        for no in [
            "www.google.com",
            "com",
            "",
            "badexample.org",
            "example.org.evil",
            r"www\046example.org",
        ] {
            assert!(!wanted.contains(no), "{no}");
        }
        assert_eq!(wanted.names(), ["example.org", "google.com"]);
    }
}
