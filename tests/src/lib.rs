//! The lab: a router with two ISPs, servers and clients in network namespaces of one process.
//!
//! Nothing has a name on the host: namespaces are held by file descriptors, bpffs and `/run`
//! are mounted in a private mount namespace, children die with the thread that spawned them.
//! When the process ends, even by SIGKILL, the kernel takes everything back.
//!
//! A lab process calls [`isolate`] first, while it is single-threaded, then [`Lab::build`].

pub mod autoconf;
pub mod bcp38;
pub mod busy;
pub mod cgroup;
pub mod daemon;
pub mod delegated;
pub mod echo;
pub mod fault;
pub mod isolate;
pub mod liar;
pub mod names;
pub mod ns;
pub mod passed;
pub mod process;
pub mod relay;
pub mod snapshot;
pub mod standby;
pub mod strace;
pub mod topology;
pub mod traffic;
pub mod wires;

pub use autoconf::Autoconf;
pub use busy::Busy;
pub use cgroup::Cgroup;
pub use daemon::{Config, Daemon};
pub use echo::Echo;
pub use fault::Flapping;
pub use isolate::isolate;
pub use names::{Program, Resolver, Zone};
pub use ns::Namespace;
pub use relay::{Quality, Relay};
pub use snapshot::Snapshot;
pub use topology::{Family, Isp, Lab, Shape};
pub use wires::FarEnds;
