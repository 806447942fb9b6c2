//! What is answered, as scripts read it. Keys stay.

use serde::{Deserialize, Serialize};

/// Number of this structure.
pub const VERSION: u32 = 1;

/// `uplink explain --json`, and the answer of `org.uplink.Explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// Whether a daemon answered.
    pub daemon: bool,
    /// The flow as it was understood.
    pub flow: Flow,
    /// What becomes of it.
    pub outcome: Outcome,
    /// Why: the name of the counter of the programs, as in `status --json`.
    pub reason: String,
    /// Why, in a sentence.
    pub text: String,
    /// The uplink, if only one comes into question.
    pub uplink: Option<String>,
    /// The uplinks that come into question. Several where something is not known yet that decides, such as the port.
    pub candidates: Vec<Candidate>,
    /// The policy that decides.
    pub policy: Option<Policy>,
    /// Policies before it, or in its place, that all but match.
    pub missed: Vec<Missed>,
    /// How many more policies in front of it do not match.
    pub others: usize,
    /// The names that the destination is known by.
    pub names: Vec<Name>,
    /// The flow's pin.
    pub pin: Option<Pin>,
    /// Where a pinned flow would go if it were new.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub anew: Vec<Candidate>,
    /// What the client keeps by a sticky policy.
    pub kept: Option<Pin>,
    /// The hash that decides.
    pub hash: Option<String>,
    /// Its slot.
    pub slot: Option<u32>,
    /// The table that the slot is in.
    pub slots: Option<Slots>,
    /// The mark that it gets.
    pub mark: Option<String>,
    /// The kernel's route with that mark, or without any for what is left alone.
    pub route: Option<Route>,
    /// The source address that the other end sees.
    pub source: Option<String>,
    /// What would become of it, were an uplink to go down now.
    pub if_down: Vec<IfDown>,
    /// What else one should know.
    pub notes: Vec<String>,
}

/// A flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Protocol by name, or its number.
    pub proto: String,
    /// Source address; "-" for a socket of this host.
    pub src: String,
    /// Destination address.
    pub dst: String,
    /// Source port; `null`: any.
    pub sport: Option<u16>,
    /// Destination port, likewise.
    pub dport: Option<u16>,
    /// Where it comes in; "lo" for a socket of this host.
    pub iif: String,
    /// Code point.
    pub dscp: Option<u8>,
    /// Who sent the frame.
    pub mac: Option<String>,
    /// Whose socket it is.
    pub uid: Option<u32>,
    /// The process's cgroup.
    pub cgroup: Option<String>,
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It goes by an uplink that the programs choose.
    Steered,
    /// Its sender is told that the host is unreachable.
    Refused,
    /// It takes the kernel's route.
    LeftAlone,
}

/// An uplink that comes into question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub uplink: String,
    /// How likely, 0 to 1.
    pub share: f64,
    /// Its state as in `status`; `null` without a daemon.
    pub state: Option<String>,
    /// Why, where it is not up.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub why: String,
    /// Smoothed round-trip time.
    pub rtt_ms: Option<f64>,
    /// Lost probes among the last hundred, 0 to 1.
    pub loss: Option<f64>,
}

/// A policy that matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// The configuration file.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// Its place in the order, from 0.
    pub place: u32,
    /// The fields that it asks for, with the flow's values.
    pub by: Vec<By>,
    /// Rather refuses than uses another uplink.
    pub strict: bool,
    /// How clients keep their uplink: "source" or "source-destination".
    pub sticky: Option<String>,
    /// The uplinks that it uses now; empty where none of its own lives.
    pub uses: Vec<String>,
}

/// A field and what the flow has there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// As in the configuration.
    pub field: String,
    /// The flow's value.
    pub value: String,
}

/// A policy that does not match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Its name.
    pub name: String,
    /// Its line.
    pub line: u32,
    /// The field that keeps it from matching; "when" for its schedule.
    pub by: String,
}

/// A name that an address is known by. Times are seconds from now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The name.
    pub name: String,
    /// The name that was asked for, of which this one may be an alias.
    pub asked: String,
    /// Who answered.
    pub server: String,
    /// How long ago.
    pub heard_s: u64,
    /// When it is forgotten.
    pub expires_s: u64,
    /// Whether a policy asks for it.
    pub wanted: bool,
}

/// A pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The uplink; `null`: left to the kernel.
    pub uplink: Option<String>,
    /// The policy that placed it.
    pub policy: Option<String>,
    /// Seconds since it was made.
    pub age_s: u32,
    /// Seconds since it was last used.
    pub idle_s: u32,
    /// Whether it counts: its uplink has not died since, and it is not too old.
    pub valid: bool,
}

/// A table of slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// The number of the group; `null`: that of everybody.
    pub group: Option<u32>,
    /// How many slots it has.
    pub size: u32,
}

/// A route of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Next hop.
    pub gateway: Option<String>,
    /// Interface.
    pub interface: Option<String>,
    /// Table.
    pub table: Option<u32>,
    /// Where there is none, the kernel's reason.
    pub error: Option<String>,
}

/// What would become of the flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IfDown {
    /// The uplink that goes down.
    pub uplink: String,
    /// It is down already.
    pub already: bool,
    /// Whether anything would change.
    pub changes: bool,
    /// What becomes of the flow then.
    pub outcome: Outcome,
    /// The uplinks that come into question then.
    pub candidates: Vec<Share>,
    /// The same in words.
    pub text: String,
}

/// An uplink's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Name.
    pub uplink: String,
    /// How likely, 0 to 1.
    pub share: f64,
}
