//! What became of a captured packet, of a message in it and of an address in that: each by name, each counted.

macro_rules! outcomes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// One outcome. The number is the index of its counter.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Outcome {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Outcome {
            /// Every outcome, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name that users see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

outcomes! {
    /// A packet that is no DNS by UDP or TCP.
    NotDns = "not-dns",
    /// A packet or message that is broken.
    Malformed = "malformed",
    /// A fragment: its questions and answers are not put together.
    Fragment = "fragment",
    /// A packet longer than what was captured of it.
    Cut = "cut",
    /// To or from a server whose answers do not count.
    OtherServer = "other-server",
    /// A segment of a TCP connection without a whole message in it.
    Partial = "partial",
    /// A TCP segment of a connection whose beginning was not seen, or of which a part is missing.
    Gap = "gap",
    /// A message longer than is looked at.
    Oversized = "oversized",
    /// A question: its answer will count.
    Asked = "asked",
    /// A question that came in by an uplink: nobody behind this host asks it.
    FromOutside = "from-outside",
    /// An answer to no question that was seen, to one already answered, or from somebody else.
    Unsolicited = "unsolicited",
    /// An answer that was too long for UDP: the client asks again by TCP.
    Truncated = "truncated",
    /// An answer whose aliases lead in a circle or go on for too long.
    Looping = "looping",
    /// An answer without an address for the name: an error, another type, or there is none.
    NoAddress = "no-address",
    /// An address that was learned, or kept for longer, by a name in a policy.
    Learned = "learned",
    /// An address without a name in a policy: kept for statistics while there is room.
    NotWanted = "not-wanted",
    /// An address that is private, shared, link-local, loopback, multicast or reserved.
    Private = "private",
    /// An address of this host, a gateway or a probe's target.
    Excluded = "excluded",
    /// An address, or a name of it, for which there is no room.
    TooMany = "too-many",
}

/// How often there was each outcome.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts([u64; Outcome::ALL.len()]);

impl Counts {
    /// One more.
    pub fn add(&mut self, outcome: Outcome) {
        if let Some(count) = self.0.get_mut(outcome as usize) {
            *count += 1;
        }
    }

    /// How many.
    #[must_use]
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0.get(outcome as usize).copied().unwrap_or(0)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Outcome::ALL.iter().map(|o| (o.name(), self.get(*o)))
    }
}
