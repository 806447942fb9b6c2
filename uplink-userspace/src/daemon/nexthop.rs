//! Next-hop mode follows what is on the host: one look decides, one store switches.

use uplink_common::Family;

use super::Daemon;
use crate::config::Mode;
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

    /// What is under way shall meet the first IPsec policy at once; that the last has gone, the next comparison sees.
    pub(super) async fn heard_ipsec(&mut self) {
        if self.settings.next_hop != [false; 2] {
            self.follow_mode().await;
        }
    }

    /// The kernel tells nobody of a first rule of the old iptables, which has to bite within a second, too.
    pub(super) async fn look_for_legacy(&mut self) {
        // Who asked for next-hop mode has it all the same.
        let is_asked_for = self.config.kernel.mode == Mode::NextHop;
        let passing = self.settings.next_hop.map(|on| on && !is_asked_for);
        if passing == [false; 2] && !self.fast.is_on() {
            return;
        }
        let found = look::tables();
        let sees = |family: Family| match &found {
            Ok(tables) => tables.iter().any(|table| table.sees[family as usize]),
            Err(_) => true,
        };
        if self.fast.is_on() && Family::ALL.into_iter().any(sees) {
            self.follow_fast().await;
        }
        if Family::ALL.into_iter().any(|f| passing[f as usize] && sees(f)) {
            self.follow_mode().await;
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
