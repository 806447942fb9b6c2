//! One value, or a list of them: short for what is common, long for what is not.

use std::borrow::Cow;

use toml::de::{DeTable, DeValue};

use super::{Reader, Refusal};
use crate::config::At;

impl<'t> Reader<'t, '_> {
    /// One value or a list of them, strings and integers alike, which `parse` sees as text. Refused ones are left
    /// out; an empty list is a mistake, since it stands for nothing at all.
    pub fn one_or_more<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        mut parse: impl FnMut(&str) -> Result<T, Refusal>,
    ) -> Option<At<Vec<At<T>>>> {
        let At { value, span } = self.value(key)?;
        let items = match value.as_array() {
            Some(items) => items.iter().map(|i| (i.get_ref(), i.span())).collect(),
            None => vec![(value, span.clone())],
        };
        if items.is_empty() {
            self.complain(
                span.clone(),
                format!("{key} is empty: it matches nothing"),
                allowed,
            );
        }
        let mut list = Vec::new();
        for (value, span) in items {
            let found = match text(value) {
                Some(text) => self.accept(key, &text, span, allowed, &mut parse),
                None => self.wrong_type(key, value, span, allowed),
            };
            list.extend(found);
        }
        Some(At { value: list, span })
    }

    /// One table or a list of tables, none if there is no such key.
    pub fn one_or_more_tables(&mut self, key: &'static str, allowed: &str) -> Vec<At<&'t DeTable<'t>>> {
        let Some(At { value, span }) = self.value(key) else {
            return Vec::new();
        };
        let items = match value.as_array() {
            Some(items) => items.iter().map(|i| (i.get_ref(), i.span())).collect(),
            None => vec![(value, span.clone())],
        };
        if items.is_empty() {
            self.complain(span, format!("{key} is empty"), allowed);
        }
        let mut tables = Vec::new();
        for (value, span) in items {
            tables.extend(match value.as_table() {
                Some(value) => Some(At { value, span }),
                None => self.wrong_type(key, value, span, allowed),
            });
        }
        tables
    }
}

/// A string, or an integer in decimal, however it was written.
fn text<'t>(value: &'t DeValue<'t>) -> Option<Cow<'t, str>> {
    if let Some(text) = value.as_str() {
        return Some(text.into());
    }
    let integer = value.as_integer()?;
    match u32::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) => Some(number.to_string().into()),
        Err(_) => Some(integer.to_string().into()),
    }
}
