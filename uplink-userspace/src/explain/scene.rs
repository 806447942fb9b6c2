//! Where a flow is seen, in the numbers of this host.

use nix::net::if_::if_nametoindex;

use super::{Question, Scene, minds};
use crate::config::Config;
use crate::{loader, resolve};

/// The words of a question in the numbers of this host.
///
/// # Errors
/// In the words for whoever asked: an interface or a cgroup does not exist.
pub fn scene(question: &Question, config: &Config) -> Result<Scene, String> {
    let lan = resolve::lan_interfaces(config);
    let socket = question.src == "-";
    let name = question.iif.clone().or_else(|| lan.first().cloned());
    let iif = match name {
        Some(name) if !socket => {
            let index = if_nametoindex(&*name).map_err(|_| unknown(&name, &lan))?;
            (name, index)
        }
        _ => (String::new(), 0),
    };
    Ok(Scene {
        iif,
        cgroups: question.cgroup.as_deref().map_or(Ok(Vec::new()), cgroups)?,
        cgroup: question.cgroup.clone(),
        local: config.local.enabled,
        file: config.file.path.display().to_string(),
        minds: minds(&config.policies),
        lan,
    })
}

fn unknown(name: &str, lan: &[String]) -> String {
    format!(
        "there is no interface {name:?} here: give one with --iif; clients enter at {}",
        lan.join(", ")
    )
}

/// A cgroup and those above it, the deepest first.
fn cgroups(path: &str) -> Result<Vec<u64>, String> {
    let mut path = path.trim_matches('/');
    let mut ids = Vec::new();
    loop {
        let id = loader::cgroup_id(path);
        ids.push(id.ok_or_else(|| {
            format!("there is no cgroup {path:?}: give its path below the cgroup v2 mount, as /proc/PID/cgroup has it")
        })?);
        if path.is_empty() {
            return Ok(ids);
        }
        path = path.rsplit_once('/').map_or("", |(above, _)| above);
    }
}
