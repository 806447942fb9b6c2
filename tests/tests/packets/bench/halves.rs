//! The bench in two, for two threads: one runs packets, the other writes policies.

use std::sync::Mutex;

use aya::maps::{HashMap, MapData};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use uplink_common::{FlowKey, Pin};
use uplink_userspace::maps::Maps;
use uplink_userspace::maps::policies::NameTable;

use super::{Bench, CTX, CTX_MARK, INGRESS, Rules, classifier};

/// Runs packets.
pub struct Runner<'a> {
    program: &'a SchedClassifier,
    flows: Mutex<&'a mut HashMap<MapData, FlowKey, Pin>>,
    context: [u8; CTX],
}

/// Writes policies.
pub struct Writer<'a> {
    maps: &'a mut Maps,
    names: &'a mut NameTable,
}

impl Bench {
    /// Both halves.
    pub fn halves(&mut self) -> (Runner<'_>, Writer<'_>) {
        let context = self.context(0);
        let runner = Runner {
            program: classifier(&mut self.ebpf, INGRESS).expect("the program"),
            flows: Mutex::new(&mut self.hands.flows),
            context,
        };
        let writer = Writer {
            maps: &mut self.maps,
            names: &mut self.names,
        };
        (runner, writer)
    }
}

impl Runner<'_> {
    /// Runs a packet inward. Returns its mark.
    pub fn run(&self, frame: &[u8]) -> u32 {
        let mut after = [0; CTX];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&self.context);
        options.ctx_out = Some(&mut after);
        self.program.test_run(options).expect("BPF_PROG_TEST_RUN");
        u32::from_ne_bytes(after[CTX_MARK..CTX_MARK + 4].try_into().expect("four bytes"))
    }

    /// Removes a flow's pin, if it has one.
    pub fn forget(&self, key: &FlowKey) {
        let _ = self.flows.lock().expect("no panic before").remove(key);
    }

    /// A flow's pin.
    pub fn pin(&self, key: &FlowKey) -> Pin {
        self.flows
            .lock()
            .expect("no panic before")
            .get(key, 0)
            .expect("a pin")
    }
}

impl Writer<'_> {
    /// Fills the idle bank and makes it live.
    pub fn obey(&mut self, rules: &Rules) {
        rules.write(self.maps, self.names);
    }
}
