//! The flow table as people want to see it.

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};
use uplink_common::{FlowKey, MAX_UPLINKS, Pin};

/// Live pins by uplink id; 0 is the kernel's own routes.
///
/// # Errors
/// When the pin cannot be opened.
pub fn count_flows(pin: &std::path::Path) -> Result<Vec<u64>> {
    let map = MapData::from_pin(pin).with_context(|| format!("opening {}", pin.display()))?;
    let flows: HashMap<_, FlowKey, Pin> = Map::from_map_data(map)?.try_into()?;
    let mut count = vec![0; MAX_UPLINKS as usize + 1];
    // Entries that go or come meanwhile are counted or not: this is a figure for people.
    for (_, pin) in flows.iter().filter_map(Result::ok) {
        if let Some(n) = count.get_mut(pin.uplink as usize) {
            *n += 1;
        }
    }
    Ok(count)
}
