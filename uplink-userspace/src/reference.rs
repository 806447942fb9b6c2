//! The reference: every key of the configuration and every command, as a document and as manual
//! pages. Tests hold it against the parser and the document against this, so that neither drifts.

mod keys;
mod manual;
mod markdown;
#[cfg(test)]
mod tests;

pub use keys::TABLES;
pub use manual::manual;
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
    /// What stands behind it.
    pub kind: Kind,
    /// What holds where it is not written; empty where it must be.
    pub default: &'static str,
    /// What it says and what is allowed, in Markdown.
    pub says: &'static str,
}

/// What can stand behind a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text in quotes.
    String,
    /// An IP address, or what stands for one.
    Address,
    /// An IPv6 prefix.
    Prefix,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// Bits or bytes per second.
    Rate,
    /// A time span.
    Time,
    /// A part of a hundred.
    Percentage,
    /// A hexadecimal number, as a text or not.
    Mask,
    /// A list of texts.
    Strings,
    /// A list of numbers and texts.
    Numbers,
    /// A text or a number, or a list of such.
    Values,
    /// A table in braces.
    Table,
    /// A table in braces, or a list of such.
    Tables,
    /// A text, a table in braces, or a list of such.
    Choice,
}

impl Kind {
    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Address => "address",
            Self::Prefix => "prefix",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Rate => "rate",
            Self::Time => "time span",
            Self::Percentage => "percentage",
            Self::Mask => "hexadecimal",
            Self::Strings => "list of strings",
            Self::Numbers => "list of integers or strings",
            Self::Values => "string or integer, or a list",
            Self::Table => "table",
            Self::Tables => "table, or a list of tables",
            Self::Choice => "string or table, or a list",
        }
    }
}
