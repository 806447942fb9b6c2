//! Answers what becomes of a flow, and why.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::Daemon;
use super::control::{failed, read};
use crate::api::{self, Error, Reply};
use crate::explain::answer::Name;
use crate::explain::kernel::Kernel;
use crate::explain::scene::scene;
use crate::explain::{self, Flow, Known, Question, Scene, Source};
use crate::flow_map;

impl Daemon {
    /// What would be with each uplink down takes some tables: not on the thread that steers.
    pub(super) fn answer_explain(&self, parameters: Value, reply: Reply) {
        let asked = read::<Question>(parameters).and_then(|question| self.understand(&question));
        let (flow, scene) = match asked {
            Ok(asked) => asked,
            Err(e) => return reply.finish(Err(e)),
        };
        let known = Known {
            engine: self.engine.clone(),
            now: self.now(),
            names: self.names_of(flow.dst),
        };
        let bpffs = self.options.bpffs.clone();
        tokio::task::spawn_blocking(move || {
            reply.finish(answer(&bpffs, &flow, &scene, &known).map_err(failed));
        });
    }

    fn understand(&self, question: &Question) -> Result<(Flow, Scene), Error> {
        let wrong = |text| Error::new(api::INVALID_PARAMETER, text);
        let mut flow = question.flow().map_err(wrong)?;
        let scene = scene(question, &self.config).map_err(wrong)?;
        if let Source::Address(src) = flow.src {
            flow.mac = flow.mac.or_else(|| self.station(src, scene.iif.1));
        }
        Ok((flow, scene))
    }

    /// The MAC address of a neighbour.
    fn station(&self, address: IpAddr, ifindex: u32) -> Option<[u8; 6]> {
        let mut known = self.host.neighbours.iter();
        let neighbour = known.find(|n| n.address == address && n.ifindex == ifindex)?;
        Some(neighbour.mac)
    }

    /// The names that an address was looked up by.
    fn names_of(&self, address: IpAddr) -> Vec<Name> {
        let now_s = u64::from(flow_map::now_s());
        let entry = self.names.lookup(address).unwrap_or_default();
        let names = entry.names().map(|(name, known)| Name {
            name: name.to_string(),
            asked: known.question.to_string(),
            server: known.server.to_string(),
            heard_s: now_s.saturating_sub(known.heard_s),
            expires_s: known.expires_s.saturating_sub(now_s),
            wanted: known.wanted,
        });
        names.collect()
    }
}

fn answer(bpffs: &Path, flow: &Flow, scene: &Scene, known: &Known) -> Result<Value> {
    let kernel = Kernel::open(bpffs)?;
    let answer = explain::explain(flow, scene, &kernel, Some(known))?;
    Ok(serde_json::to_value(answer)?)
}
