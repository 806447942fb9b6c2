//! The commands that ask the daemon: what they print.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api;
use crate::changes::Changes;
use crate::flows::{self, Flow};
use crate::options::Options;

/// Flows in a list for people.
const FLOWS_FOR_PEOPLE: u32 = 1000;

/// `uplink drain` and `uplink enable`.
pub(super) async fn order(options: &Options, method: &str, name: &str) -> Result<()> {
    let answer = api::call(&options.runtime_dir, method, json!({ "name": name })).await?;
    let text = answer["text"].as_str().context(OTHER_VERSION)?;
    print(&format!("{text}\n"))
}

/// `uplink reload`.
pub(super) async fn reload(options: &Options) -> Result<()> {
    let answer = api::call(&options.runtime_dir, api::RELOAD, json!({})).await?;
    let changes: Changes = serde_json::from_value(answer).context(OTHER_VERSION)?;
    print(&format!("reloaded: {changes}\n"))
}

/// A part of the answer to `org.uplink.Flows`.
#[derive(Deserialize)]
struct Part {
    flows: Vec<Flow>,
    total: u64,
}

/// `uplink flows`. `wanted` are the parameters that say which.
pub(super) async fn flows(
    options: &Options,
    json: bool,
    wanted: [(&str, &Option<String>); 3],
    limit: Option<u32>,
) -> Result<()> {
    let limit = limit.or((!json).then_some(FLOWS_FOR_PEOPLE));
    let mut parameters = json!({});
    for (key, value) in wanted {
        if let Some(value) = value {
            parameters[key] = value.as_str().into();
        }
    }
    if let Some(limit) = limit {
        parameters["limit"] = limit.into();
    }
    match json {
        true => print(&flows_json(options, parameters).await?),
        false => flows_text(options, parameters).await,
    }
}

async fn flows_text(options: &Options, parameters: Value) -> Result<()> {
    let mut list = Vec::new();
    let mut total = 0;
    api::stream(&options.runtime_dir, api::FLOWS, parameters, |part| {
        let part: Part = serde_json::from_value(part).context(OTHER_VERSION)?;
        list.extend(part.flows);
        total = part.total;
        Ok(())
    })
    .await?;
    print(&flows::table(&list))?;
    if total > list.len() as u64 {
        eprintln!("the newest {} of {total} flows; --limit N shows more", list.len());
    }
    Ok(())
}

/// All of it is taken before any is printed: the daemon does not wait for a pager. Rows become
/// text at once, which is the smallest form of a million.
async fn flows_json(options: &Options, parameters: Value) -> Result<String> {
    let mut text = String::from("[");
    let mut separator = "";
    api::stream(&options.runtime_dir, api::FLOWS, parameters, |part| {
        let part: Part = serde_json::from_value(part).context(OTHER_VERSION)?;
        for flow in &part.flows {
            text += separator;
            text += &serde_json::to_string(flow)?;
            separator = ",\n";
        }
        Ok(())
    })
    .await?;
    text += "]\n";
    Ok(text)
}

pub(super) const OTHER_VERSION: &str = "the daemon's answer is not what this version expects: \
                             restart the daemon after an upgrade";

/// Writes to stdout. Whoever reads only the beginning, such as `head`, has what they want.
pub(super) fn print(text: &str) -> Result<()> {
    write(text).map(drop)
}

/// As [`print`], at once; whether anybody still reads.
pub(super) fn write(text: &str) -> Result<bool> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).context("writing to stdout"),
    }
}
