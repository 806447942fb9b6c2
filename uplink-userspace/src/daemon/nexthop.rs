//! Next-hop mode follows what is on the host: one look decides, one store switches.

use uplink_common::Family;

use super::Daemon;
use crate::nexthop::{self, Found, look};

impl Daemon {
    /// Looks for what known flows would pass by, and has them pass or not.
    pub(super) async fn follow_mode(&mut self) {
        let found = match nexthop::is_possible(&self.config) {
            true => look::look(&self.loaded.attached(), &self.ports).await,
            false => Found::default(),
        };
        let warning = nexthop::warning(&self.config, &found);
        self.replace_warnings(&[nexthop::PASSED_BY], warning.into_iter());
        let wanted = nexthop::decide(&self.config, &found);
        if wanted != self.settings.next_hop {
            self.switch_mode(wanted, &found);
        }
    }

    fn switch_mode(&mut self, wanted: [bool; 2], found: &Found) {
        self.settings.next_hop = wanted;
        // The programs go by it only while somebody lives.
        self.heartbeat();
        if let Err(e) = self.maps.set_next_hop(&self.settings) {
            // Looked at again as if it were off.
            self.settings.next_hop = [false; 2];
            return tracing::error!("next-hop mode could not be switched: {e:#}");
        }
        let on: Vec<&str> = Family::ALL
            .into_iter()
            .filter(|f| wanted[*f as usize])
            .map(nexthop::name)
            .collect();
        let why = nexthop::why_not(&self.config, found);
        match (on.is_empty(), why) {
            (false, None) => tracing::info!(
                "next-hop mode: known flows go to the gateway at once ({})",
                on.join(", ")
            ),
            (false, Some(why)) => tracing::info!("next-hop mode for {} alone: {why}", on.join(", ")),
            (true, why) => tracing::info!(
                "mark mode: known flows go the kernel's way: {}",
                why.unwrap_or_else(|| "the configuration says so".into())
            ),
        }
    }

    /// In the words of `status`.
    pub(super) fn mode(&self) -> &'static str {
        match self.settings.next_hop {
            [false, false] => "mark",
            _ => "nexthop",
        }
    }
}
