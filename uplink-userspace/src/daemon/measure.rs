//! What is measured while it runs: the users' own packets, rates, quotas. The engine hears of it
//! and the probers are told where to look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Daemon, Sources};
use crate::engine::{Event, Path};
use crate::weights::Rate;
