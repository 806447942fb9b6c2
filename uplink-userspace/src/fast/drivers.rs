//! What drivers say that they can do with XDP: family `netdev` of generic netlink, since Linux 6.3
//! (Documentation/netlink/specs/netdev.yaml).

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use rtnetlink::packet_core::{DecodeError, Emitable, NlasIterator, ParseableParametrized};
use rtnetlink::sys::protocols::NETLINK_GENERIC;

use crate::routes::socket::Netlink;

const FAMILY: &str = "netdev";
/// `NETDEV_CMD_DEV_GET`.
const DEV_GET: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX` and `NETDEV_A_DEV_XDP_FEATURES`.
const IFINDEX: u16 = 1;
const FEATURES: u16 = 3;
/// `NLA_HDRLEN`.
const ATTRIBUTE: usize = 4;
/// `NETDEV_XDP_ACT_BASIC`, `_REDIRECT` and `_NDO_XMIT`: runs programs, obeys all they say, and sends what
/// programs of other devices have for it.
const NEEDED: u64 = 1 | 2 | 4;

/// A device, and what it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Driver {
    ifindex: u32,
    features: u64,
}

impl GenlFamily for Driver {
    fn family_name() -> &'static str {
        FAMILY
    }

    fn command(&self) -> u8 {
        DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

/// A request names the device. One for all devices would be shorter, but the kernel's answers to it lack the flag
/// that says that there are several.
impl Emitable for Driver {
    fn buffer_len(&self) -> usize {
        ATTRIBUTE + size_of::<u32>()
    }

    fn emit(&self, buffer: &mut [u8]) {
        let length = (ATTRIBUTE + size_of::<u32>()) as u16;
        buffer[..2].copy_from_slice(&length.to_ne_bytes());
        buffer[2..ATTRIBUTE].copy_from_slice(&IFINDEX.to_ne_bytes());
        buffer[ATTRIBUTE..].copy_from_slice(&self.ifindex.to_ne_bytes());
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Driver {
    fn parse_with_param(buffer: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let mut driver = Self::default();
        for attribute in NlasIterator::new(buffer) {
            let attribute = attribute?;
            match (attribute.kind(), attribute.value()) {
                (IFINDEX, &[a, b, c, d]) => driver.ifindex = u32::from_ne_bytes([a, b, c, d]),
                (FEATURES, value) => {
                    let bytes = value
                        .try_into()
                        .map_err(|_| DecodeError::from("features are no 64 bits"))?;
                    driver.features = u64::from_ne_bytes(bytes);
                }
                _ => {}
            }
        }
        Ok(driver)
    }
}

/// Those of these devices whose drivers cannot do all that the fast path needs. What some say changes: a veth sends
/// frames while its other end runs a program, other drivers once they run one themselves.
///
/// # Errors
/// When the kernel does not tell, as before Linux 6.3.
pub async fn unable(devices: impl IntoIterator<Item = u32>) -> Result<BTreeSet<u32>> {
    let family = family().await?;
    let netlink =
        Netlink::<GenlMessage<Driver>>::open(NETLINK_GENERIC).context("opening a netlink socket")?;
    let mut unable = BTreeSet::new();
    for ifindex in devices {
        let mut request = GenlMessage::from_payload(Driver { ifindex, features: 0 });
        request.set_resolved_family_id(family);
        let driver = netlink.ask(request).await;
        let driver =
            driver.with_context(|| format!("asking what the driver of device {ifindex} can do with XDP"))?;
        if driver.payload.features & NEEDED != NEEDED {
            unable.insert(ifindex);
        }
    }
    Ok(unable)
}

/// The number that the kernel gave the family.
async fn family() -> Result<u16> {
    let netlink =
        Netlink::<GenlMessage<GenlCtrl>>::open(NETLINK_GENERIC).context("opening a netlink socket")?;
    let request = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY.into())],
    });
    let family = netlink.ask(request).await;
    let family = family.context("asking for the netlink family `netdev`, which Linux 6.3 has")?;
    let id = family.payload.nlas.iter().find_map(|nla| match nla {
        GenlCtrlAttrs::FamilyId(id) => Some(*id),
        _ => None,
    });
    id.context("the netlink family `netdev` has no number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_read_past_what_is_not_known() {
        let attribute = |kind: u16, value: &[u8]| {
            let length = 4 + value.len() as u16;
            [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
        };
        let bytes = [
            attribute(IFINDEX, &7u32.to_ne_bytes()),
            attribute(9, &[1, 2, 3, 4]),
            attribute(FEATURES, &NEEDED.to_ne_bytes()),
        ]
        .concat();
        let header = GenlHeader {
            cmd: DEV_GET,
            version: 1,
        };
        let driver = Driver::parse_with_param(&bytes, header).expect("a driver");
        assert_eq!(
            driver,
            Driver {
                ifindex: 7,
                features: NEEDED
            }
        );
        let short = attribute(FEATURES, &[1]);
        assert!(Driver::parse_with_param(&short, header).is_err());
    }

    #[tokio::test]
    async fn the_loopback_device_is_not_able() {
        let loopback = nix::net::if_::if_nametoindex("lo").expect("a loopback device");
        let unable_ones = unable([loopback]).await.expect("a kernel of 6.3 or later");
        assert_eq!(unable_ones, [loopback].into());
        assert!(unable([u32::MAX >> 1]).await.is_err());
    }
}
