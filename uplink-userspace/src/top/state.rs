//! The model: what is known, and what of it somebody wants to see. It reads no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::events::Event;
use crate::status::{State, Status, Uplink, Warning};

use super::clean;
use super::history::History;
use super::keys::{Mode, Pane, View};
use super::rows;
use super::talkers::{self, Talkers};

/// Events that are kept, as many as the daemon keeps.
const EVENTS: usize = 1000;

/// Between two questions to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(Duration);

impl Interval {
    /// The steps of the keys.
    const STEPS_MS: [u64; 8] = [200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];

    /// From 200 ms to an hour.
    ///
    /// # Errors
    /// In words for whoever asked.
    pub fn new(interval: Duration) -> Result<Self, String> {
        let allowed = Duration::from_millis(200)..=Duration::from_secs(3600);
        match allowed.contains(&interval) {
            true => Ok(Self(interval)),
            false => Err("an interval is 200ms to 1h".into()),
        }
    }

    /// Its length.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }

    /// The next longer step, or the next shorter one.
    pub(super) fn step(self, longer: bool) -> Self {
        let mut steps = Self::STEPS_MS.map(Duration::from_millis).into_iter();
        let next = match longer {
            true => steps.find(|s| *s > self.0),
            false => steps.rfind(|s| *s < self.0),
        };
        Self(next.unwrap_or(self.0))
    }
}

/// Something to tell, until the next key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) text: String,
    /// Something was refused or went wrong.
    pub(super) bad: bool,
}

/// All that is shown.
#[derive(Debug)]
pub struct Model {
    pub(super) status: Option<Status>,
    /// Why nobody answers, since when.
    pub(super) gone: Option<(String, Timestamp)>,
    pub(super) answered: Option<Timestamp>,
    pub(super) histories: BTreeMap<String, History>,
    /// By time and number: those of a daemon that was started again begin from 1.
    pub(super) events: BTreeMap<(String, u64), Event>,
    pub(super) missed: u64,
    pub(super) talkers: Option<Talkers>,
    pub(super) notice: Option<Notice>,
    pub(super) view: View,
    zone: TimeZone,
}

impl Model {
    /// Nothing is known yet. Times are shown as in `zone`.
    #[must_use]
    pub fn new(interval: Interval, zone: TimeZone) -> Self {
        Self {
            status: None,
            gone: None,
            answered: None,
            histories: BTreeMap::new(),
            events: BTreeMap::new(),
            missed: 0,
            talkers: None,
            notice: None,
            view: View::new(interval),
            zone,
        }
    }

    /// Takes in the answer to `org.uplink.Status`, or why there is none.
    pub fn status(&mut self, answer: Result<Value, String>, at: Timestamp) {
        let read = |mut value: Value| {
            clean::value(&mut value);
            serde_json::from_value::<Status>(value).map_err(|e| {
                format!(
                    "the daemon's answer is not what this version expects ({e}): restart it after an upgrade"
                )
            })
        };
        match answer.and_then(read) {
            Ok(status) => self.answered(status, at),
            Err(why) => self.unanswered(&why, at),
        }
    }

    fn answered(&mut self, status: Status, at: Timestamp) {
        (self.gone, self.answered) = (None, Some(at));
        let known = |name: &str| status.uplinks.iter().any(|u| u.name == name);
        self.histories.retain(|name, _| known(name));
        for u in &status.uplinks {
            self.histories.entry(u.name.clone()).or_default().add(u, at);
        }
        self.status = Some(status);
        self.bound_scrolls();
    }

    fn unanswered(&mut self, why: &str, at: Timestamp) {
        self.histories.values_mut().for_each(History::add_gap);
        let since = self.gone.take().map_or(at, |(_, since)| since);
        self.gone = Some((clean::text(why), since));
    }

    /// Takes in a part of the answer to `org.uplink.Events`.
    ///
    /// # Errors
    /// When it is none.
    pub fn events(&mut self, mut part: Value) -> anyhow::Result<()> {
        clean::value(&mut part);
        self.missed += part["missed"].as_u64().unwrap_or(0);
        let events: Vec<Event> = serde_json::from_value(part["events"].take()).context("events")?;
        for event in events {
            let new = self
                .events
                .insert((event.time.clone(), event.seq), event)
                .is_none();
            // Whoever reads older ones keeps their place.
            let scroll = &mut self.view.scroll[Pane::Events as usize];
            *scroll += usize::from(new && *scroll > 0);
        }
        while self.events.len() > EVENTS {
            self.events.pop_first();
        }
        self.bound_scrolls();
        Ok(())
    }

    /// The number of the newest event; 0 before the first.
    #[must_use]
    pub fn last_event(&self) -> u64 {
        self.events.last_key_value().map_or(0, |((_, seq), _)| *seq)
    }

    /// Takes in the answer to `org.uplink.Flows`.
    ///
    /// # Errors
    /// When it is none.
    pub fn flows(&mut self, mut answer: Value) -> anyhow::Result<()> {
        clean::value(&mut answer);
        let part: talkers::Part = serde_json::from_value(answer).context("flows")?;
        self.talkers = Some(part.into());
        self.bound_scrolls();
        Ok(())
    }

    /// Tells what came of an order, or what went wrong. It stays until the next key.
    pub fn tell(&mut self, said: Result<&str, &str>) {
        let (text, bad) = match said {
            Ok(text) => (text, false),
            Err(text) => (text, true),
        };
        self.notice = Some(Notice {
            text: clean::text(text),
            bad,
        });
    }

    /// How often the daemon is asked.
    #[must_use]
    pub const fn interval(&self) -> Interval {
        self.view.interval
    }

    /// Whether nothing shall be asked now.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.view.paused
    }

    /// Whether the last question had no answer, or there was none yet.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.gone.is_some() || self.status.is_none()
    }

    pub(super) fn uplinks(&self) -> &[Uplink] {
        self.status.as_ref().map_or(&[], |s| &s.uplinks)
    }

    pub(super) fn warnings(&self) -> &[Warning] {
        self.status.as_ref().map_or(&[], |s| &s.warnings)
    }

    /// Those that the filter lets through, in order.
    pub(super) fn rows(&self) -> Vec<&Uplink> {
        let View {
            sort,
            reverse,
            filter,
            ..
        } = &self.view;
        let all = self.uplinks().iter();
        let mut rows: Vec<&Uplink> = all.filter(|u| rows::matches(u, filter)).collect();
        let newest = |u: &Uplink| {
            self.histories
                .get(&u.name)
                .map(History::newest)
                .unwrap_or_default()
        };
        rows.sort_by(|a, b| sort.compare((a, newest(a)), (b, newest(b))));
        if *reverse {
            rows.reverse();
        }
        rows
    }

    /// The place of the chosen uplink among the rows; the first where it is not shown.
    pub(super) fn chosen(&self, rows: &[&Uplink]) -> usize {
        let chosen = self.view.chosen.as_deref();
        rows.iter().position(|u| Some(&*u.name) == chosen).unwrap_or(0)
    }

    /// How many uplinks are in that state.
    pub(super) fn in_state(&self, state: State) -> usize {
        self.uplinks().iter().filter(|u| u.state == state).count()
    }

    /// The time of day, for people.
    pub(super) fn clock(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string()
    }

    /// Date and time of RFC 3339, for people; itself where it is none.
    pub(super) fn date(&self, time: &str) -> String {
        let at = time.parse::<Timestamp>();
        at.map_or_else(
            |_| time.into(),
            |at| at.to_zoned(self.zone.clone()).strftime("%F %H:%M").to_string(),
        )
    }

    /// As [`Self::clock`], of a time in RFC 3339.
    pub(super) fn clock_of(&self, time: &str) -> String {
        time.parse().map_or_else(|_| time.into(), |at| self.clock(at))
    }

    /// How many lines there are to scroll through.
    pub(super) fn length(&self, pane: Pane) -> usize {
        match pane {
            Pane::Uplinks => self.rows().len(),
            Pane::Warnings => self.warnings().len(),
            Pane::Talkers => self.talkers.as_ref().map_or(0, |t| t.list.len()),
            Pane::Events => self.events.len(),
        }
    }

    fn bound_scrolls(&mut self) {
        for pane in Pane::ALL {
            let most = self.length(pane).saturating_sub(1);
            let scroll = &mut self.view.scroll[pane as usize];
            *scroll = (*scroll).min(most);
        }
        if matches!(&self.view.mode, Mode::Confirm(name) if !self.uplinks().iter().any(|u| u.name == *name)) {
            self.view.mode = Mode::Normal;
            self.tell(Err("the uplink is no longer configured"));
        }
    }
}
