//! Wires like those of real cards, for the router's fast path.

use std::path::PathBuf;

use anyhow::{Context, Result};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use crate::ns::Namespace;
use crate::topology::{Isp, Lab, Shape};

/// What passes everything at the far ends of the router's wires: a veth takes frames that never were the kernel's only
/// where its other end has a program, too. Gone when dropped.
#[derive(Debug)]
pub struct FarEnds {
    _programs: Ebpf,
}

impl Lab {
    /// Makes the router's wires take what its fast path sends, and whoever sends to it complete his checksums.
    ///
    /// # Errors
    /// When a command fails, or the benchmark's programs are not beside ours.
    pub fn fast_wires(&self) -> Result<FarEnds> {
        for ns in [&self.client, self.isp(Isp::One), self.isp(Isp::Two)] {
            ns.run("ethtool -K eth0 tx off")?;
        }
        for isp in Isp::ALL {
            self.internet.run(&format!("ethtool -K {} tx off", isp.name()))?;
        }
        let object = std::env::var_os("UPLINK_BPF_OBJECT").context("UPLINK_BPF_OBJECT is not set")?;
        let object = PathBuf::from(object).with_file_name("uplink-wire");
        let mut programs = EbpfLoader::new()
            .load_file(&object)
            .with_context(|| object.display().to_string())?;
        let pass: &mut Xdp = programs
            .program_mut("wire_pass")
            .context("no program wire_pass")?
            .try_into()?;
        pass.load()?;
        for (ns, device) in self.far_ends() {
            let mode = XdpMode::Driver;
            let attach = || pass.attach(device, mode);
            ns.enter(attach)?.with_context(|| device.to_owned())?;
        }
        Ok(FarEnds { _programs: programs })
    }

    /// Frames of another length on all wires of a lab with a NIC for each.
    ///
    /// # Errors
    /// When a device takes no such frames.
    pub fn set_mtu(&self, mtu: usize) -> Result<()> {
        let near = ["lan0", "wan1", "wan2"].map(|device| (&self.router, device));
        let middle = [Isp::One, Isp::Two].map(|isp| (self.isp(isp), "up0"));
        let far = Isp::ALL.map(|isp| (&self.internet, isp.name()));
        let all = near.into_iter().chain(middle).chain(far);
        for (ns, device) in all.chain(self.far_ends()) {
            ns.run(&format!("ip link set {device} mtu {mtu}"))?;
        }
        Ok(())
    }

    fn far_ends(&self) -> Vec<(&Namespace, &str)> {
        match self.shape {
            Shape::OneNic => vec![(&self.segment, self.router.name())],
            Shape::NicEach => [&self.client, self.isp(Isp::One), self.isp(Isp::Two)]
                .map(|ns| (ns, "eth0"))
                .into(),
        }
    }
}
