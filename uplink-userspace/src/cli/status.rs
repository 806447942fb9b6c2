//! `uplink status`, once or again and again.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::show::{OTHER_VERSION, print, write};
use super::terminal;
use crate::api;
use crate::options::Options;
use crate::status::{self, Status};

/// Between looks for a daemon that has gone.
pub(super) const WAIT: Duration = Duration::from_millis(500);

/// `uplink status`; with `watch` every so many seconds until Ctrl-C.
pub(super) async fn status(options: &Options, json: bool, watch: Option<u16>) -> Result<()> {
    match watch {
        None => print(&form(&ask(options).await?, json, false)?),
        Some(seconds) => tokio::select! {
            done = watched(options, json, Duration::from_secs(seconds.into())) => done,
            interrupted = tokio::signal::ctrl_c() => {
                // Whatever comes next begins on a line of its own.
                if terminal::can_redraw() { print("\n")?; }
                Ok(interrupted?)
            }
        },
    }
}

async fn ask(options: &Options) -> Result<Value> {
    api::call(&options.runtime_dir, api::STATUS, json!({})).await
}

fn form(answer: &Value, json: bool, lines: bool) -> Result<String> {
    let text = match (json, lines) {
        (true, true) => serde_json::to_string(answer)?,
        (true, false) => serde_json::to_string_pretty(answer)?,
        (false, _) => {
            let status: Status = serde_json::from_value(answer.clone()).context(OTHER_VERSION)?;
            return Ok(status::render(&status, &terminal::look()));
        }
    };
    Ok(text + "\n")
}

/// Shows it until nobody reads any more.
async fn watched(options: &Options, json: bool, period: Duration) -> Result<()> {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut shown = 0_u64;
    loop {
        ticks.tick().await;
        let answer = match ask(options).await {
            Ok(answer) => answer,
            Err(e) if api::is_gone(&e) => wait(options, &e).await?,
            Err(e) => return Err(e),
        };
        let text = form(&answer, json, true)?;
        let text = match (json, terminal::can_redraw(), shown) {
            (true, ..) | (false, false, 0) => text,
            (false, false, _) => format!("\n{text}"),
            (false, true, n) => on_screen(&text, n == 0),
        };
        if !write(&text)? {
            return Ok(());
        }
        shown += 1;
    }
}

fn on_screen(text: &str, first: bool) -> String {
    let rows = terminal::size().map_or(u16::MAX, |(_, rows)| rows);
    let clear = if first { "\x1b[2J" } else { "" };
    format!("{clear}{}", terminal::redrawn(text, rows))
}

/// Waits for a daemon, and says so once.
async fn wait(options: &Options, why: &anyhow::Error) -> Result<Value> {
    if terminal::can_redraw() {
        write("\r\n")?;
    }
    eprintln!("uplink: {why:#}; waiting for it");
    loop {
        tokio::time::sleep(WAIT).await;
        match ask(options).await {
            Err(e) if api::is_gone(&e) => {}
            result => return result,
        }
    }
}
