//! `when`: days and hours.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use toml::de::DeTable;

use super::Schedule;
use crate::config::At;
use crate::config::problem::{nearest, shown};
use crate::config::reader::{Reader, Refusal, meant, wrong};

const TITLE: &str = "`when`";

/// Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

const MIDNIGHT: u16 = 24 * 60;

/// `when`, empty if it is absent.
pub(super) fn read(policy: &mut Reader<'_, '_>) -> Vec<Schedule> {
    let allowed =
        "{ days = \"mon-fri\", hours = \"08:00-18:00\", zone = \"Europe/Berlin\" }, or a list of such";
    let tables = policy.one_or_more_tables("when", allowed);
    tables.into_iter().map(|table| one(policy, table)).collect()
}

fn one<'t>(policy: &mut Reader<'t, '_>, table: At<&'t DeTable<'t>>) -> Schedule {
    let mut table = Reader::new(TITLE, table.value, table.span, policy.problems);
    let allowed = "mon, tue, wed, thu, fri, sat, sun, or from one to another: \"mon-fri\"";
    let listed = table.one_or_more("days", allowed, days);
    let allowed = "from and to, such as \"08:00-18:00\"; \"22:00-06:00\" passes midnight";
    let hours = table.parsed("hours", allowed, hours);
    let allowed = "a name of the IANA time zone database, such as \"Europe/Berlin\"";
    let zone = table.parsed("zone", allowed, zone);
    table.finish();
    Schedule {
        days: listed.map_or([true; 7], |list| any_of(&list.value)),
        hours: hours.map_or((0, MIDNIGHT), |at| at.value),
        zone: zone.map_or_else(here, |at| at.value),
    }
}

fn any_of(list: &[At<[bool; 7]>]) -> [bool; 7] {
    std::array::from_fn(|day| list.iter().any(|days| days.value[day]))
}

/// A day, or from one to another, which may pass Sunday.
fn days(text: &str) -> Result<[bool; 7], Refusal> {
    let number = |text: &str| {
        let found = DAYS.iter().position(|day| *day == text);
        found.ok_or_else(|| no_day(text))
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (number(from)?, number(to)?);
    let length = (to + 7 - from) % 7;
    Ok(std::array::from_fn(|day| (day + 7 - from) % 7 <= length))
}

/// People write days with capitals, or whole.
fn no_day(text: &str) -> Refusal {
    let day = text.to_ascii_lowercase();
    match DAYS.iter().find(|known| day.starts_with(*known)) {
        Some(known) if !text.contains(char::is_whitespace) => meant("is not a day of the week", shown(known)),
        _ => wrong("is not a day of the week"),
    }
}

fn hours(text: &str) -> Result<(u16, u16), Refusal> {
    from_to(text).ok_or_else(|| no_hours(text))
}

fn from_to(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    let from = minute(from).filter(|from| *from < MIDNIGHT)?;
    Some((from, minute(to)?))
}

/// Whole hours without their minutes, or with spaces, are what is meant most often.
fn no_hours(text: &str) -> Refusal {
    const WHY: &str = "is not from one time of day to another";
    let time = |text: &str| {
        let text = text.trim();
        let whole = format!("{text}:00");
        let minute = minute(text).or_else(|| minute(&whole))?;
        Some(format!("{:02}:{:02}", minute / 60, minute % 60))
    };
    let both = text.split_once('-');
    match both.and_then(|(from, to)| Some(format!("{}-{}", time(from)?, time(to)?))) {
        Some(instead) if from_to(&instead).is_some() => meant(WHY, shown(&instead)),
        _ => wrong(WHY),
    }
}

/// The minute of the day, up to and with 24:00.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str, most: usize| {
        let good = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| good)
    };
    let minute = digits(minute, 2).filter(|m| *m < 60 && minute.len() == 2)?;
    let minutes = digits(hour, 2)? * 60 + minute;
    (minutes <= MIDNIGHT).then_some(minutes)
}

/// As the host knows it, else as the program does: not every host has the database, or all of it.
fn zone(name: &str) -> Result<TimeZone, Refusal> {
    let found = TimeZone::get(name).or_else(|_| TimeZoneDatabase::bundled().get(name));
    found.map_err(|_| no_zone(name))
}

fn no_zone(name: &str) -> Refusal {
    let known: Vec<String> = TimeZoneDatabase::bundled()
        .available()
        .map(|known| known.to_string())
        .collect();
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => meant("is not a time zone", shown(near)),
        None => wrong("is not a time zone"),
    }
}

/// The host's own zone; one that has none goes by UTC.
fn here() -> TimeZone {
    TimeZone::try_system().unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_may_pass_sunday() {
        let of = |text: &str| {
            let days = days(text).ok()?;
            let names = DAYS.iter().zip(days).filter(|(_, on)| *on);
            Some(names.map(|(name, _)| *name).collect::<Vec<_>>().join(" "))
        };
        for (text, days) in [
            ("mon", "mon"),
            ("mon-fri", "mon tue wed thu fri"),
            ("fri-mon", "mon fri sat sun"),
            ("mon-sun", "mon tue wed thu fri sat sun"),
            ("tue-mon", "mon tue wed thu fri sat sun"),
            ("sun-sun", "sun"),
        ] {
            assert_eq!(of(text).as_deref(), Some(days), "{text}");
        }
        for text in ["", "-", "mon-", "monday", "Mon", "mon-tue-wed", "0"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn hours_end_at_midnight_at_the_latest() {
        for (text, read) in [
            ("08:00-18:00", (480, 1080)),
            ("8:05-9:30", (485, 570)),
            ("22:00-06:00", (1320, 360)),
            ("00:00-24:00", (0, 1440)),
            ("00:00-00:00", (0, 0)),
        ] {
            assert_eq!(hours(text).ok(), Some(read), "{text}");
        }
        for text in [
            "",
            "8-9",
            "08:00",
            "08:60-09:00",
            "24:00-01:00",
            "00:00-24:01",
            "25:00-26:00",
            "+8:00-9:00",
            "08:0-09:00",
            "08:00 - 09:00",
        ] {
            assert!(hours(text).is_err(), "{text}");
        }
    }

    #[test]
    fn zones_are_known_without_the_hosts_database() {
        assert!(zone("Europe/Berlin").is_ok() && zone("Australia/Lord_Howe").is_ok());
        assert!(TimeZoneDatabase::bundled().get("Europe/Berlin").is_ok());
        for text in [
            "",
            "Europe/Berlim",
            "../../etc/passwd",
            "/etc/localtime",
            "CET-1CEST",
        ] {
            assert!(zone(text).is_err(), "{text}");
        }
    }
}
