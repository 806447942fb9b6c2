//! The daemon itself neither stands in the way of the fast path nor has its flows slow down again and again.

use std::time::Duration;

use anyhow::{Result, ensure};
use aya::programs::tc::TcAttachType;
use tokio::time::timeout;
use uplink_lab::Shape;
use uplink_userspace::fast::look::Looker;
use uplink_userspace::fast::watch::watch;
use uplink_userspace::loader::{Attached, Hook, Port, query};

use super::inside;
use super::looks::port;
use crate::support::{daemon, lab};

const LISTEN: Duration = Duration::from_secs(4);

pub fn tcx() -> Result<()> {
    calm_beside(Hook::Tcx, "")
}

pub fn clsact() -> Result<()> {
    calm_beside(Hook::Clsact, "[kernel]\nattach = \"clsact\"\n")
}

/// What the daemon has at an interface.
fn ours(hook: Hook, port: &Port) -> Attached {
    let sides = [TcAttachType::Ingress, TcAttachType::Egress];
    let ids = sides
        .into_iter()
        .flat_map(|side| query::tcx(port.ifindex, side).unwrap_or_default());
    let is_ours = |id: &u32| query::name(*id).starts_with("uplink_");
    Attached {
        hook,
        programs: ids.filter(is_ours).collect(),
    }
}

fn calm_beside(hook: Hook, more: &str) -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, more)?;
    let eth0 = port(&lab.router, "eth0")?;
    inside(&lab.router, || async {
        let ours = ours(hook, &eth0);
        let eth0 = [eth0];
        let found = Looker::default().look(&ours, &eth0).await;
        ensure!(
            found.obstacles == Ok(Vec::new()) && found.warnings.is_empty(),
            "{found:?}"
        );
        if hook == Hook::Tcx {
            ensure!(ours.programs.len() == 2, "{ours:?}");
            // Whose they are is told by their ids, not by their names.
            let nobodys = Attached {
                programs: Vec::new(),
                ..ours
            };
            let found = Looker::default().look(&nobodys, &eth0).await;
            ensure!(found.obstacles.as_ref().is_ok_and(|o| o.len() == 2), "{found:?}");
        }
        let mut bell = watch().await?;
        let first = timeout(LISTEN, bell.recv()).await?;
        let mut rings = Vec::new();
        while let Ok(bump) = timeout(LISTEN, bell.recv()).await {
            rings.push(bump);
            ensure!(rings.len() < 3, "it rings again and again: {rings:?}");
        }
        println!("    {first:?}, and then {rings:?}");
        Ok(())
    })?;
    daemon.stop()
}
