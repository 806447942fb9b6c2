//! What a packet says, read as plainly as possible: the yardstick for the program's parser.

use uplink_common::{Addr, FlowKey};

/// The flow of a packet of which every byte that matters is there; `None` where not.
pub fn flow(frame: &[u8]) -> Option<FlowKey> {
    let mut at = 12;
    for _ in 0..2 {
        if matches!(be16(frame, at)?, 0x8100 | 0x88a8) {
            at += 4;
        }
    }
    let packet = frame.get(at + 2..)?;
    let mut key = match be16(frame, at)? {
        0x0800 => v4(packet)?,
        0x86dd => v6(packet)?,
        _ => return None,
    };
    if let Some(quoted) = key.quoted {
        key.flow = quoted.reversed();
    }
    Some(key.flow)
}

struct Read {
    flow: FlowKey,
    quoted: Option<FlowKey>,
}

fn v4(packet: &[u8]) -> Option<Read> {
    let length = usize::from(*packet.first()? & 15) * 4;
    if packet[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let mut flow = FlowKey {
        src: Addr::v4(packet.get(12..16)?.try_into().ok()?),
        dst: Addr::v4(packet.get(16..20)?.try_into().ok()?),
        proto: packet[9],
        ..FlowKey::default()
    };
    let mut quoted = None;
    if be16(packet, 6)? & 0x1fff == 0 {
        quoted = upper(&mut flow, packet.get(length..).unwrap_or(&[]), v4)?;
    }
    Some(Read { flow, quoted })
}

fn v6(packet: &[u8]) -> Option<Read> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    let mut flow = FlowKey {
        src: Addr::v6(packet.get(8..24)?.try_into().ok()?),
        dst: Addr::v6(packet.get(24..40)?.try_into().ok()?),
        proto: packet[6],
        ..FlowKey::default()
    };
    let (mut at, mut later) = (40, false);
    for _ in 0..6 {
        let next = packet.get(at).copied();
        match flow.proto {
            0 | 43 | 60 => at += 8 + 8 * usize::from(*packet.get(at + 1)?),
            51 => at += 8 + 4 * usize::from(*packet.get(at + 1)?),
            44 => {
                later = be16(packet, at + 2)? & 0xfff8 != 0;
                at += 8;
            }
            _ => break,
        }
        flow.proto = next?;
        if later {
            return Some(Read { flow, quoted: None });
        }
    }
    if matches!(flow.proto, 0 | 43 | 44 | 51 | 60) {
        return None;
    }
    let quoted = upper(&mut flow, packet.get(at..).unwrap_or(&[]), v6)?;
    Some(Read { flow, quoted })
}

/// Ports, or what an error quotes. `None` where bytes are missing.
fn upper(flow: &mut FlowKey, payload: &[u8], inner: fn(&[u8]) -> Option<Read>) -> Option<Option<FlowKey>> {
    let kind = payload.first().copied();
    match flow.proto {
        6 | 17 | 132 | 136 => {
            flow.sport = payload.get(..2)?.try_into().ok()?;
            flow.dport = payload.get(2..4)?.try_into().ok()?;
        }
        1 if matches!(kind, Some(3 | 4 | 11 | 12)) => return quoted(payload, inner),
        58 if matches!(kind, Some(1..=4)) => return quoted(payload, inner),
        1 | 58 => {
            payload.get(..8)?;
            let echo = if flow.proto == 1 { [0, 8] } else { [128, 129] };
            if echo.contains(&payload[0]) {
                flow.sport = payload[4..6].try_into().ok()?;
                flow.dport = flow.sport;
            }
        }
        _ => {}
    }
    Some(None)
}

fn quoted(payload: &[u8], inner: fn(&[u8]) -> Option<Read>) -> Option<Option<FlowKey>> {
    // An error within an error counts as a packet without ports.
    let read = inner(payload.get(8..)?)?;
    Some(Some(FlowKey {
        pad: [0; 3],
        ..read.flow
    }))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
