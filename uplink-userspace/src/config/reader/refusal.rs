//! Why a value is refused, and what was probably meant.

use std::fmt;

/// Why a value is refused.
pub(in crate::config) enum Refusal {
    /// It is wrong; the text completes "`key "value"` ...".
    Wrong(String),
    /// It is wrong, and what was meant can be told.
    Meant {
        /// As in [`Refusal::Wrong`].
        why: String,
        /// A sentence such as `did you mean "15%"?`, for the help.
        hint: String,
    },
    /// It is right, but for a later version.
    NotYet,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(why) | Self::Meant { why, .. } => f.write_str(why),
            Self::NotYet => f.write_str("is not supported by this version yet"),
        }
    }
}

/// `Wrong`, for use in `ok_or_else` and the like.
pub(in crate::config) fn wrong(why: impl Into<String>) -> Refusal {
    Refusal::Wrong(why.into())
}

/// `Meant`, where another value was: `instead` as the user writes it, in quotes if it has any.
pub(in crate::config) fn meant(why: impl Into<String>, instead: impl fmt::Display) -> Refusal {
    Refusal::Meant {
        why: why.into(),
        hint: format!("did you mean {instead}?"),
    }
}

/// `Meant`, with a whole sentence.
pub(in crate::config) fn hinted(why: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::Meant {
        why: why.into(),
        hint: hint.into(),
    }
}
