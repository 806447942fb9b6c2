//! `[mpath]`: the interface that stands for all uplinks.

use super::Mpath;
use crate::config::reader::{Reader, wrong};
use crate::config::uplinks::interface_name;
use crate::config::{At, Uplink};

/// `[mpath]`, whose interface must be nobody else's: it is made at the start and removed at the end.
pub(in crate::config) fn mpath(
    top: &mut Reader<'_, '_>,
    uplinks: &[Uplink],
    lan: &[At<String>],
) -> Option<Mpath> {
    let mut table = top.table("mpath", "[mpath]")?;
    let allowed = "a name for a new interface, 1 to 15 bytes, such as \"mpath0\"";
    let interface = table.required("interface", allowed, |text| {
        let of_uplink = uplinks.iter().find(|u| u.interface.value == text);
        match of_uplink {
            Some(uplink) => Err(wrong(format!("is the interface of uplink {}", uplink.name.value))),
            None if lan.iter().any(|l| l.value == text) => Err(wrong("is in [lan] interfaces")),
            None if text == "lo" => Err(wrong("is this host's own")),
            None => interface_name(text),
        }
    });
    table.finish();
    interface.map(|interface| Mpath { interface })
}
