//! Numbers of groups while one set of policies takes the place of another.

use crate::config::Group;

/// The groups of new policies, by number, while old policies may still be read: a group that both have keeps its
/// number, and nobody takes the number of a group that is in use. `old` are those by number so far, `used` the
/// ones of them that the old policies use.
#[must_use]
pub fn arrange(old: &[Group], used: &[Group], new: &[Group]) -> Vec<Group> {
    let mut arranged = old.to_vec();
    for group in new {
        if arranged.contains(group) {
            continue;
        }
        let free = arranged
            .iter()
            .position(|g| !used.contains(g) && !new.contains(g));
        match free.and_then(|at| arranged.get_mut(at)) {
            Some(place) => *place = group.clone(),
            None => arranged.push(group.clone()),
        }
    }
    let needed = |g: &Group| used.contains(g) || new.contains(g);
    arranged.truncate(arranged.iter().rposition(needed).map_or(0, |last| last + 1));
    arranged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Choice;

    fn group(name: &str) -> Group {
        let choice = Choice {
            tiers: vec![vec![(name.to_owned(), None)]],
            ..Choice::default()
        };
        Group {
            choice,
            strict: false,
        }
    }

    fn groups(names: &str) -> Vec<Group> {
        names.chars().map(|c| group(&c.to_string())).collect()
    }

    #[test]
    fn nobody_takes_the_number_of_a_group_in_use() {
        for (old, used, new, arranged) in [
            ("", "", "ab", "ab"),
            ("ab", "ab", "ab", "ab"),
            ("ab", "ab", "ba", "ab"),
            ("ab", "ab", "c", "abc"),
            ("abc", "c", "c", "abc"),
            ("abc", "c", "d", "dbc"),
            ("abc", "a", "a", "a"),
            ("abc", "", "", ""),
            ("abc", "ac", "de", "adce"),
        ] {
            let found = arrange(&groups(old), &groups(used), &groups(new));
            assert_eq!(found, groups(arranged), "{old}, in use {used}, then {new}");
        }
    }
}
