//! `uplink explain`.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result};
use clap::Args;
use nix::unistd::User;
use serde_json::Value;

use super::show::{OTHER_VERSION, print};
use crate::explain::kernel::Kernel;
use crate::explain::scene::scene;
use crate::explain::{self, Answer, Question};
use crate::options::Options;
use crate::{api, config};

/// A flow, in words.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Protocol by name or number; by default tcp where a port is given, else an ICMP echo
    #[arg(long, value_name = "P")]
    proto: Option<String>,
    /// Interface where it comes in; by default the first one where clients enter
    #[arg(long, value_name = "IF")]
    iif: Option<String>,
    /// Differentiated services code point, 0 to 63
    #[arg(long, value_name = "N")]
    dscp: Option<u8>,
    /// MAC address of the sender; by default the neighbour's, where it is known
    #[arg(long, value_name = "M")]
    mac: Option<String>,
    /// User of a socket of this host, by name or number
    #[arg(long, value_name = "U")]
    uid: Option<String>,
    /// Cgroup of its process, as in /proc/PID/cgroup
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Source address, with a port if it matters; - for a socket of this host
    #[arg(value_name = "SRC[:PORT]")]
    src: String,
    /// Destination address, likewise; IPv6 with a port as [2001:db8::1]:443
    #[arg(value_name = "DST[:PORT]")]
    dst: String,
}

impl Asked {
    fn question(&self) -> Result<Question> {
        Ok(Question {
            src: self.src.clone(),
            dst: self.dst.clone(),
            proto: self.proto.clone(),
            iif: self.iif.clone(),
            dscp: self.dscp,
            mac: self.mac.clone(),
            uid: self.uid.as_deref().map(user).transpose()?,
            cgroup: self.cgroup.clone(),
        })
    }
}

/// Asks the daemon; where none runs, looks into the maps that it left.
pub(super) async fn explain(options: &Options, asked: &Asked) -> Result<()> {
    let question = asked.question()?;
    question.flow().map_err(usage)?;
    let parameters = serde_json::to_value(&question)?;
    let answer = match api::call(&options.runtime_dir, api::EXPLAIN, parameters).await {
        Err(e) if api::is_gone(&e) => by_ourselves(options, &question)?,
        answer => answer?,
    };
    if asked.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&answer)?));
    }
    let answer: Answer = serde_json::from_value(answer).context(OTHER_VERSION)?;
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print(&explain::text(&answer, colour))
}

fn by_ourselves(options: &Options, question: &Question) -> Result<Value> {
    let config = config::load(&options.config)?;
    let flow = question.flow().map_err(usage)?;
    let scene = scene(question, &config).map_err(usage)?;
    let kernel =
        Kernel::open(&options.bpffs).context("no daemon runs, so the maps that it left are asked")?;
    let answer = explain::explain(&flow, &scene, &kernel, None)?;
    Ok(serde_json::to_value(answer)?)
}

fn usage(text: String) -> anyhow::Error {
    api::Error::new(api::INVALID_PARAMETER, text).into()
}

fn user(text: &str) -> Result<u32> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match User::from_name(text).with_context(|| format!("looking up the user {text:?}"))? {
        Some(user) => Ok(user.uid.as_raw()),
        None => Err(usage(format!(
            "there is no user {text:?} here: give a name that `id` knows, or a number"
        ))),
    }
}
