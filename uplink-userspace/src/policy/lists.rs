//! What all policies ask of one field.

use uplink_common::policy::Set;

use crate::config::{self, Match, Policy};

/// What all policies ask of one field.
pub(super) struct Lists<'a, T> {
    /// The policies that are satisfied by what is in no list.
    pub free: Set,
    /// Whether anybody asks anything.
    pub asked: bool,
    /// The lists, one after the other.
    pub items: Vec<Item<&'a T>>,
}

/// One value in the list of one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item<T> {
    /// The value.
    pub value: T,
    /// The policy's place.
    pub place: u32,
    /// It must not be this one.
    pub not: bool,
}

impl<T> Item<T> {
    /// The same with another value.
    pub(super) fn with<U>(&self, value: U) -> Item<U> {
        Item {
            value,
            place: self.place,
            not: self.not,
        }
    }
}

impl<'a, T> Lists<'a, T> {
    pub(super) fn of(policies: &'a [Policy], field: impl Fn(&'a Match) -> &'a config::Field<T>) -> Self {
        Self::of_fields(policies.iter().map(|p| field(&p.matches)))
    }

    /// Of the fields of all policies, in order.
    pub(super) fn of_fields(fields: impl IntoIterator<Item = &'a config::Field<T>>) -> Self {
        let mut lists = Self {
            free: Set::EMPTY,
            asked: false,
            items: Vec::new(),
        };
        for (place, field) in (0..).zip(fields) {
            lists.add(place, field);
        }
        lists
    }

    fn add(&mut self, place: u32, field: &'a config::Field<T>) {
        self.asked |= !field.is_free();
        if field.any.is_none() {
            self.free.insert(place);
        }
        let item = |not| move |value| Item { value, place, not };
        let any = field.any.iter().flatten();
        self.items.extend(any.map(item(false)));
        self.items.extend(field.not.iter().map(item(true)));
    }
}

/// Who is satisfied by a value, as the lists that it is in add up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    wanted: Set,
    refused: Set,
}

impl Answer {
    /// In no list.
    pub(super) const fn new(free: &Set) -> Self {
        Self {
            wanted: *free,
            refused: Set::EMPTY,
        }
    }

    /// In this list, too. What refuses it wins, whatever comes later.
    pub(super) const fn take<T>(&mut self, item: &Item<T>) {
        if item.not {
            self.refused.insert(item.place);
        } else {
            self.wanted.insert(item.place);
        }
    }

    /// The policies that are satisfied.
    pub(super) fn set(&self) -> Set {
        self.wanted.without(&self.refused)
    }
}
