//! `uplink events`: what happened, and what happens.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::show::{OTHER_VERSION, write};
use super::status::WAIT;
use super::terminal;
use crate::api;
use crate::events::Event;
use crate::options::Options;
use crate::status::Look;

/// A part of the answer to `org.uplink.Events`.
#[derive(Deserialize)]
struct Part {
    events: Vec<Event>,
    #[serde(default)]
    missed: u64,
}

/// `uplink events`; with `follow` until Ctrl-C.
pub(super) async fn events(options: &Options, json: bool, follow: bool, after: u64) -> Result<()> {
    let mut seen = Seen::new(json, after);
    let parameters = json!({ "after": after });
    match follow {
        false => {
            let answer = api::call(&options.runtime_dir, api::EVENTS, parameters).await?;
            seen.take(answer).or_else(ended)
        }
        true => tokio::select! {
            done = followed(options, &mut seen) => done.or_else(ended),
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        },
    }
}

/// Follows one daemon after the other.
async fn followed(options: &Options, seen: &mut Seen) -> Result<()> {
    let (mut waiting, mut first) = (false, true);
    loop {
        // Numbers begin anew with each daemon, so the whole journal is asked for after a break.
        let after = if std::mem::take(&mut first) { seen.after } else { 0 };
        let parameters = json!({ "after": after, "follow": true });
        let following = api::follow(&options.runtime_dir, api::EVENTS, parameters, |part| {
            if std::mem::take(&mut waiting) {
                eprintln!("uplink: the daemon is there again");
            }
            seen.take(part)
        });
        match following.await {
            Ok(()) => {}
            Err(e) if api::is_gone(&e) => {
                if !std::mem::replace(&mut waiting, true) {
                    eprintln!("uplink: {e:#}; waiting for it");
                }
            }
            Err(e) => return Err(e),
        }
        seen.begin_again();
        tokio::time::sleep(WAIT).await;
    }
}

/// Nobody reads any more.
#[derive(Debug)]
struct Unread;

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads any more")
    }
}

impl std::error::Error for Unread {}

fn ended(error: anyhow::Error) -> Result<()> {
    match error.downcast_ref::<Unread>() {
        Some(_) => Ok(()),
        None => Err(error),
    }
}

/// What was shown so far.
struct Seen {
    json: bool,
    look: Look,
    after: u64,
    last: Option<Event>,
    /// The next part is the first of a connection.
    begins: bool,
}

impl Seen {
    fn new(json: bool, after: u64) -> Self {
        Self {
            json,
            look: terminal::look(),
            after,
            last: None,
            begins: true,
        }
    }

    fn begin_again(&mut self) {
        self.begins = true;
    }

    fn take(&mut self, part: Value) -> Result<()> {
        let part: Part = serde_json::from_value(part).context(OTHER_VERSION)?;
        if part.missed > 0 {
            eprintln!("uplink: {} events were missed", part.missed);
        }
        let begins = std::mem::take(&mut self.begins);
        let new = match (&self.last, begins) {
            (Some(last), true) => unseen(last, &part.events),
            _ => &part.events[..],
        };
        if begins && let Some(missed) = self.gap(&part.events) {
            eprintln!("uplink: {missed} events were missed");
        }
        let text: String = new.iter().map(|e| self.line(e)).collect::<Result<_>>()?;
        self.last = new.last().cloned().or(self.last.take());
        match write(&text)? {
            true => Ok(()),
            false => bail!(Unread),
        }
    }

    /// How many the daemon no longer kept when we came back to it. A new daemon's numbers begin
    /// at 1, so there is none.
    fn gap(&self, events: &[Event]) -> Option<u64> {
        let (last, first) = (self.last.as_ref()?, events.first()?);
        let missed = first.seq.checked_sub(last.seq + 1)?;
        (missed > 0).then_some(missed)
    }

    fn line(&self, event: &Event) -> Result<String> {
        if self.json {
            return Ok(serde_json::to_string(event)? + "\n");
        }
        let kind = serde_json::to_value(event.kind)?;
        let kind = kind.as_str().unwrap_or_default();
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = event.text.chars().map(printable).collect();
        Ok(format!("{}  {kind:<8}  {text}\n", self.look.time(&event.time)))
    }
}

/// What of a journal came after `last`: all of it, where it is another daemon's.
fn unseen<'a>(last: &Event, journal: &'a [Event]) -> &'a [Event] {
    match journal.iter().position(|e| e == last) {
        Some(at) => &journal[at + 1..],
        None => journal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Journal, Kind, News};
    use std::time::{Duration, SystemTime};

    fn journal(from_s: u64, n: u64) -> Vec<Event> {
        let mut journal = Journal::default();
        for i in 0..n {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(from_s + i);
            journal.tell(at, News::of(Kind::Repair, "x"));
        }
        journal.after(0).cloned().collect()
    }

    #[test]
    fn the_same_daemon_is_taken_up_where_it_was_left() {
        let all = journal(0, 5);
        let rest = unseen(&all[2], &all);
        assert_eq!(rest.iter().map(|e| e.seq).collect::<Vec<_>>(), [4, 5]);
        assert!(unseen(&all[4], &all).is_empty());
    }

    #[test]
    fn of_another_daemon_all_is_new() {
        let (old, new) = (journal(0, 5), journal(100, 9));
        assert_eq!(unseen(&old[4], &new).len(), 9);
        let mut seen = Seen::new(true, 0);
        seen.last = old.last().cloned();
        assert_eq!(seen.gap(&new), None);
    }

    #[test]
    fn what_is_no_longer_kept_is_counted() {
        let all = journal(0, 2000);
        let mut seen = Seen::new(true, 0);
        seen.last = Some(journal(0, 600).pop().expect("one"));
        assert_eq!(seen.gap(&all), Some(400));
    }
}
