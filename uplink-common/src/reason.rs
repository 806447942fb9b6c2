//! Why a packet was treated as it was: every outcome of the packet path by name.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// One outcome of the packet path. The number is the index of its counter.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name users see in `status`, metrics and the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

reasons! {
    /// Steered: the flow had a pin.
    Pinned = "pinned",
    /// Steered: a new flow took the uplink of its slot.
    Picked = "picked",
    /// Steered: a new flow was placed by weights that somebody edited in the map.
    PickedByWeight = "picked-by-weight",
    /// Steered: the flow's uplink had died, so it took another.
    Repicked = "repicked",
    /// Marked to be refused: its policy is strict, and none of the policy's uplinks lives.
    Refused = "refused",
    /// Left alone: the kernel routes this flow elsewhere, remembered from its first packet.
    KernelPinned = "kernel-pinned",
    /// Left alone: an unmarked lookup would not use an uplink (connected network, VPN, static route).
    NotDefault = "not-default",
    /// Marked with the uplink that it came in by: for this host, or a new connection inward.
    Inbound = "inbound",
    /// Left alone: addressed to this host.
    Local = "local",
    /// Left alone: no way to the destination, the kernel says so better than we.
    NoRoute = "no-route",
    /// Left alone: not addressed to our MAC, or multicast or broadcast on the link.
    NotForUs = "not-for-us",
    /// Left alone: neither IPv4 nor IPv6.
    NotIp = "not-ip",
    /// Left alone: the destination is multicast, broadcast, loopback or link-local.
    NotRoutable = "not-routable",
    /// Left alone: the source is no unicast address beyond the link.
    BadSource = "bad-source",
    /// Left alone: our bits of the mark were already set.
    Marked = "marked",
    /// Left alone: too short for the headers it announces.
    Truncated = "truncated",
    /// Left alone: more VLAN tags or extension headers than are followed.
    TooDeep = "too-deep",
    /// Left alone: the program has no configuration yet.
    NotReady = "not-ready",
    /// Left alone: the daemon has been silent for longer than `stale_after`.
    Stale = "stale",
    /// Left alone: the slot names an uplink that does not exist or serves no such family.
    BadSlot = "bad-slot",
    /// Seen leaving by an uplink with a private source address: NAT is missing.
    Leaked = "leaked",
    /// Dropped: came in with a source address of this host.
    Spoofed = "spoofed",
    /// A socket of this host: placed on an uplink.
    HostPicked = "host-picked",
    /// A socket of this host: its program chose the address, the device or a mark.
    HostOwn = "host-own",
    /// A socket of this host: its destination belongs to somebody else's route.
    HostBypass = "host-bypass",
    /// A socket of this host: refused, since its policy is strict and none of the policy's uplinks lives.
    HostRefused = "host-refused",
    /// A new flow whose destination nobody was seen looking up; counted beside its outcome, where policies
    /// go by names.
    Nameless = "nameless",
    /// A new flow whose destination's name is known; counted beside its outcome, where policies go by names.
    Named = "named",
    /// A DNS packet that was shown to user space; counted beside its outcome.
    Overheard = "overheard",
    /// A DNS packet for which there was no room on the way to user space.
    Unheard = "unheard",
    /// Steered: the flow had a pin, and the packet went to its gateway past the kernel's forwarding.
    Forwarded = "forwarded",
    /// Sent on before the kernel had it, as the kernel had treated its flow.
    Fast = "fast",
}

/// How many counters there are.
pub const COUNT: u32 = Reason::ALL.len() as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_indices_and_names_are_unique() {
        for (i, r) in Reason::ALL.iter().enumerate() {
            assert_eq!(*r as usize, i);
            assert!(Reason::ALL[..i].iter().all(|o| o.name() != r.name()));
        }
    }
}
