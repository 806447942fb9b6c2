//! `doctor`: what on this host would get in the way, and what to do about it. Changes nothing.

mod checks;
mod facts;

use std::io::{self, ErrorKind, Write as _};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::config::{self, Problems};
use crate::options::Options;
use crate::resolve::{self, Uplink};
use crate::{links, resolve::warnings, shadow};
use facts::Facts;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The daemon does not start, or steers nothing.
    Blocks,
    /// Some traffic goes another way than it should.
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

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    findings: &'a [Finding],
    blocks: usize,
}

/// Looks at this host and says what it found.
///
/// # Errors
/// When something blocks, or with the problems of the configuration.
pub async fn doctor(options: &Options, json: bool) -> Result<()> {
    let facts = facts::gather(options).await;
    let mut found = checks::host(&facts);
    let configured = configured(options, &facts, &mut found).await;
    print(&found, json)?;
    configured?;
    match blocks(&found) {
        0 => Ok(()),
        1 => bail!("one finding blocks"),
        n => bail!("{n} findings block"),
    }
}

/// What can be said with the configuration only. Its problems are the error.
async fn configured(options: &Options, facts: &Facts, found: &mut Vec<Finding>) -> Result<()> {
    let config = refused(config::load(&options.config).map_err(Into::into), found)?;
    let host = links::snapshot(config.kernel.protocol).await?;
    let resolved = resolve::resolve(&config, &host, &std::collections::BTreeMap::new());
    let resolved = refused(resolved.map_err(Into::into), found)?;
    for unusable in &resolved.unusable {
        found.push(Finding {
            code: "unusable".into(),
            severity: Severity::Warns,
            text: unusable.to_string(),
            remedy: "give the interface an address and the uplink a gateway that is in its subnet".into(),
        });
    }
    let uplinks: &[Uplink] = &resolved.uplinks;
    let told = warnings(&config, uplinks).into_iter();
    let told = told.chain(shadow::shadowing(&host, uplinks, &config.kernel));
    found.extend(told.map(|w| Finding {
        code: w.code,
        severity: Severity::Warns,
        text: w.text,
        remedy: w.remedy,
    }));
    found.extend(checks::configured(facts, &config.kernel, &host, uplinks));
    Ok(())
}

/// A configuration that is refused blocks, too.
fn refused<T>(result: Result<T>, found: &mut Vec<Finding>) -> Result<T> {
    result.inspect_err(|e| {
        let problems = e.downcast_ref::<Problems>().is_some();
        found.push(Finding {
            code: "configuration".into(),
            severity: Severity::Blocks,
            text: match problems {
                true => "the configuration has problems".into(),
                false => format!("{e:#}"),
            },
            remedy: "`uplink check` shows each problem with its line".into(),
        });
    })
}

fn blocks(found: &[Finding]) -> usize {
    let blocking = found.iter().filter(|f| f.severity == Severity::Blocks);
    blocking.count()
}

fn print(found: &[Finding], json: bool) -> Result<()> {
    let text = match json {
        true => {
            let answer = Answer {
                findings: found,
                blocks: blocks(found),
            };
            serde_json::to_string_pretty(&answer)? + "\n"
        }
        false => text(found),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

fn text(found: &[Finding]) -> String {
    if found.is_empty() {
        return "nothing found that would get in the way\n".into();
    }
    let line = |f: &Finding| {
        let severity = match f.severity {
            Severity::Blocks => "blocks",
            Severity::Warns => "warns",
            Severity::Fine => "fine",
        };
        format!("{severity}: {} [{}]\n  {}\n", f.text, f.code, f.remedy)
    };
    found.iter().map(line).collect()
}
