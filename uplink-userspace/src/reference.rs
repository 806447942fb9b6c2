//! The reference: every key of the configuration and every command, as a document and as manual
//! pages. Tests hold it against the parser and the document against this, so that neither drifts.

mod keys;
mod markdown;
#[cfg(test)]
mod tests;

pub use keys::TABLES;
pub use markdown::markdown;

/// A table of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// As it is written, such as `[probe]`.
    pub title: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// What else there is to say.
    pub more: &'static str,
}

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What holds where it is not written; empty where it must be.
    pub default: &'static str,
    /// What it says and what is allowed, in Markdown.
    pub says: &'static str,
}
