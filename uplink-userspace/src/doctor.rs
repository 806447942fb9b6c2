//! `doctor`: what on this host would get in the way, and what to do about it. Changes nothing.

mod checks;
mod facts;
mod gather;
mod report;

use std::fmt;
use std::io::{self, ErrorKind, IsTerminal as _};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::config::{self, NatMode, Problems};
use crate::inspect::{self, present};
use crate::options::Options;
use crate::policy::lint;
use crate::status::Warning;
use crate::{links, resolve, shadow};
use checks::Setting;
use facts::Facts;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The daemon does not start, or steers nothing.
    Blocks,
    /// Some traffic goes another way than it should, or will.
    Warns,
    /// Worth knowing.
    Fine,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind; stays from version to version.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

/// The configuration is wrong; the findings say where.
#[derive(Debug)]
pub struct Wrong;

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong")
    }
}

impl std::error::Error for Wrong {}

impl Finding {
    fn of(warning: Warning, severity: Severity) -> Self {
        Self {
            code: warning.code,
            severity,
            text: warning.text,
            remedy: warning.remedy,
        }
    }
}

/// Looks at this host and says what it found.
///
/// # Errors
/// When something blocks; [`Wrong`] where that is the configuration.
pub async fn doctor(options: &Options, json: bool) -> Result<()> {
    let facts = gather::facts(options).await;
    let mut found = checks::host(&facts);
    let configured = configured(options, &facts, &mut found).await;
    let found = report::arranged(found);
    inspect::print(&match json {
        true => report::json(&found)?,
        false => report::text(&found, is_coloured()),
    })?;
    configured?;
    match report::count(&found, Severity::Blocks) {
        0 => Ok(()),
        1 => bail!("one finding blocks"),
        n => bail!("{n} findings block"),
    }
}

fn is_coloured() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    io::stdout().is_terminal() && !unwanted
}

/// What can be said with the configuration only.
async fn configured(options: &Options, facts: &Facts, found: &mut Vec<Finding>) -> Result<()> {
    if let Some(unread) = unreadable(options, facts) {
        found.push(unread);
        return Ok(());
    }
    let config = accepted(config::load(&options.config), found)?;
    let host = links::snapshot(config.kernel.protocol).await?;
    let pinned = present::pins(&options.bpffs);
    let ids = inspect::ids(pinned.as_ref().ok());
    let resolved = accepted(resolve::resolve(&config, &host, &ids), found)?;
    let uplinks = &resolved.uplinks;
    let unusable = resolved.unusable.iter().map(|u| Warning {
        code: "unusable".into(),
        text: u.to_string(),
        remedy: "give the interface its address or default route; uplink follows by itself".into(),
    });
    let warnings = unusable
        .chain(resolve::warnings(&config, uplinks))
        .chain(lint::warnings(&config.policies, usize::MAX))
        .chain(shadow::shadowing(&host, uplinks, &config.kernel));
    found.extend(warnings.map(|w| Finding::of(w, Severity::Warns)));
    let lan = resolve::lan_interfaces(&config);
    let setting = Setting {
        kernel: &config.kernel,
        lan: &lan,
        host: &host,
        uplinks,
        nat: config.nat.mode == NatMode::Masquerade,
        asked: &gather::asked(&config, uplinks).await,
    };
    found.extend(checks::configured(facts, &setting));
    Ok(())
}

/// A file that is not for this user is no fault of the file.
fn unreadable(options: &Options, facts: &Facts) -> Option<Finding> {
    let error = std::fs::File::open(&options.config).err()?;
    let denied = error.kind() == ErrorKind::PermissionDenied && !facts.user.root;
    denied.then(|| Finding {
        code: "unseen".into(),
        severity: Severity::Fine,
        text: format!("{} cannot be read as this user", options.config.display()),
        remedy: "sudo uplink doctor".into(),
    })
}

/// What is refused blocks, each problem by itself.
fn accepted<T>(result: Result<T, Problems>, found: &mut Vec<Finding>) -> Result<T> {
    result.map_err(|problems| {
        let text = &problems.file.text;
        let place = |start: usize| {
            let path = problems.file.path.display();
            let before = text.get(..start).unwrap_or_default();
            match text.is_empty() {
                true => path.to_string(),
                false => format!("{path}:{}", before.matches('\n').count() + 1),
            }
        };
        found.extend(problems.list.iter().map(|p| Finding {
            code: "configuration".into(),
            severity: Severity::Blocks,
            text: format!("{}: {}", place(p.span.start), p.message),
            remedy: p.help.clone(),
        }));
        Wrong.into()
    })
}
