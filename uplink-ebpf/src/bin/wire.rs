//! The benchmark's wire: a generator, a sink, and programs that do nothing. No part of the product.
//!
//! The generator runs as live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`) at the far end of the router's wire; each frame is
//! written whole, as pages come back as the router left them.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    not(target_arch = "bpf"),
    allow(dead_code, reason = "the host only checks the types")
)]
#![allow(missing_docs)]

#[cfg(target_arch = "bpf")]
use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    macros::{classifier, xdp},
};
use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_TX},
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
    programs::XdpContext,
};
use uplink_common::load::{self, FRAME, Load, PORT, Seen};

const ETHERNET: usize = 14;
const UDP: usize = 8;
/// The EtherTypes, as the packet has them.
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const UDP_NUMBER: u8 = 17;
/// fd00:10::, the clients' network.
const CLIENTS_V6: [u8; 12] = [0xfd, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
/// 2001:db8:18::, the Internet.
const INTERNET_V6: [u8; 12] = [0x20, 1, 0x0d, 0xb8, 0, 0x18, 0, 0, 0, 0, 0, 0];

/// By pairs of bytes: every field begins at an even place, and a store of two is one instruction.
type Frame = [u16; FRAME / 2];

#[btf_map(name = "load")]
static LOAD: Array<Load, 1> = Array::new();

#[btf_map(name = "seen")]
static SEEN: PerCpuArray<Seen, 1> = PerCpuArray::new();

/// Writes the next packet of the load and transmits it.
#[cfg(target_arch = "bpf")]
#[xdp]
pub fn wire_generate(ctx: XdpContext) -> u32 {
    if generate(&ctx).is_some() {
        XDP_TX
    } else {
        XDP_DROP
    }
}

/// Counts and drops the load, or answers it; passes everything else.
#[cfg(target_arch = "bpf")]
#[xdp]
pub fn wire_sink(ctx: XdpContext) -> u32 {
    sink(&ctx).unwrap_or(XDP_PASS)
}

/// A router that hands every frame to its kernel.
#[cfg(target_arch = "bpf")]
#[xdp(frags)]
pub fn wire_pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// A router that drops the load: what the wire itself costs.
#[cfg(target_arch = "bpf")]
#[xdp]
pub fn wire_drop(ctx: XdpContext) -> u32 {
    if is_load(&ctx).is_some() {
        XDP_DROP
    } else {
        XDP_PASS
    }
}

/// A packet program that does nothing: what `BPF_PROG_TEST_RUN` itself costs.
#[cfg(target_arch = "bpf")]
#[classifier]
pub fn wire_nothing(_ctx: aya_ebpf::programs::TcContext) -> i32 {
    aya_ebpf::bindings::TC_ACT_UNSPEC
}

#[inline(always)]
fn generate(ctx: &XdpContext) -> Option<()> {
    let load = LOAD.get_ptr_mut(0)?;
    // SAFETY: valid as long as the map; one CPU generates at a time.
    let load = unsafe { &mut *load };
    let number = load.next;
    load.next = number.wrapping_add(1);
    let drawn = if load.random == 0 {
        number
    } else {
        load::mix(number)
    };
    let flow = drawn.checked_rem(load.flows)?;
    let frame = frame(ctx)?;
    put(frame, 0, load.router);
    put(frame, 6, load.client);
    if load.v6 == 0 {
        v4(frame, flow);
    } else {
        v6(frame, flow);
    }
    Some(())
}

#[inline(always)]
fn v4(frame: &mut Frame, flow: u32) {
    const LENGTH: u16 = (FRAME - ETHERNET) as u16;
    let (source, destination) = load::ends(flow);
    put(frame, 12, IPV4);
    put(frame, 14, [0x45, 0]);
    put(frame, 16, LENGTH.to_be_bytes());
    put(frame, 18, [0; 4]);
    put(frame, 22, [64, UDP_NUMBER]);
    let constant = 0x4500 + LENGTH as u32 + 0x4000 + UDP_NUMBER as u32;
    let sum = fold(constant + halves(source) + halves(destination));
    put(frame, 24, (!sum).to_be_bytes());
    put(frame, 26, source.to_be_bytes());
    put(frame, 30, destination.to_be_bytes());
    // No checksum: a router's NIC would have checked it.
    udp(frame, 34, flow, 0);
}

#[inline(always)]
fn v6(frame: &mut Frame, flow: u32) {
    const LENGTH: u16 = (FRAME - ETHERNET - 40) as u16;
    let (source, destination) = load::ends(flow);
    put(frame, 12, IPV6);
    put(frame, 14, [0x60, 0, 0, 0]);
    put(frame, 18, LENGTH.to_be_bytes());
    put(frame, 20, [UDP_NUMBER, 64]);
    put(frame, 22, CLIENTS_V6);
    put(frame, 34, source.to_be_bytes());
    put(frame, 38, INTERNET_V6);
    put(frame, 50, destination.to_be_bytes());
    // Of the pseudo-header, the ports and the length once more; there is no payload beyond the two bytes of zeros.
    let constant =
        0xfd00 + 0x10 + 0x2001 + 0x0db8 + 0x18 + 2 * LENGTH as u32 + UDP_NUMBER as u32 + PORT as u32;
    let port = load::source_port(flow) as u32;
    let sum = fold(constant + port + halves(source) + halves(destination));
    // Zero would mean: none.
    udp(frame, 54, flow, if sum == u16::MAX { sum } else { !sum });
}

#[inline(always)]
fn udp(frame: &mut Frame, at: usize, flow: u32, checksum: u16) {
    put(frame, at, load::source_port(flow).to_be_bytes());
    put(frame, at + 2, PORT.to_be_bytes());
    put(frame, at + 4, ((FRAME - at) as u16).to_be_bytes());
    put(frame, at + 6, checksum.to_be_bytes());
    if at + UDP < FRAME {
        put(frame, FRAME - 2, [0; 2]);
    }
}

#[inline(always)]
const fn halves(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + sum) as u16
}

#[inline(always)]
fn put<const N: usize>(frame: &mut Frame, at: usize, bytes: [u8; N]) {
    let mut i = 0;
    while i + 1 < N {
        if let Some(pair) = frame.get_mut((at + i) / 2) {
            *pair = u16::from_ne_bytes([bytes[i], bytes[i + 1]]);
        }
        i += 2;
    }
}

/// Where the packet's source address and its UDP header begin, if it is of the load: to the Internet, or back.
struct Found {
    v6: bool,
    outward: bool,
}

#[inline(always)]
fn is_load(ctx: &XdpContext) -> Option<Found> {
    let frame = frame(ctx)?;
    let v6 = match frame[6].to_ne_bytes() {
        IPV4 if frame[11].to_ne_bytes()[1] == UDP_NUMBER => false,
        IPV6 if frame[10].to_ne_bytes()[0] == UDP_NUMBER => true,
        _ => return None,
    };
    let (from, to) = if v6 {
        (frame[27], frame[28])
    } else {
        (frame[17], frame[18])
    };
    let outward = to == PORT.to_be();
    (outward || from == PORT.to_be()).then_some(Found { v6, outward })
}

#[inline(always)]
fn sink(ctx: &XdpContext) -> Option<u32> {
    let Found { v6, outward } = is_load(ctx)?;
    let frame = frame(ctx)?;
    // SAFETY: a per-CPU entry, and a program is not preempted by another on its CPU.
    let seen = unsafe { &mut *SEEN.get_ptr_mut(0)? };
    if !outward {
        seen.answers += 1;
        return Some(XDP_DROP);
    }
    match frame[2].to_ne_bytes()[1] {
        1 => seen.by_gateway[1] += 1,
        2 => seen.by_gateway[2] += 1,
        _ => seen.by_gateway[0] += 1,
    }
    let own = if v6 {
        [frame[11], frame[12]] == [0xfd00_u16.to_be(), 0x10_u16.to_be()]
    } else {
        frame[13].to_ne_bytes() == [172, 16]
    };
    seen.with_own_address += u64::from(own);
    if LOAD.get(0)?.answer == 0 {
        return Some(XDP_DROP);
    }
    swap::<3>(frame, 0, 3);
    if v6 {
        swap::<8>(frame, 11, 19);
        frame.swap(27, 28);
    } else {
        swap::<2>(frame, 13, 15);
        frame.swap(17, 18);
    }
    Some(XDP_TX)
}

/// So many pairs of bytes.
#[inline(always)]
fn swap<const N: usize>(frame: &mut Frame, a: usize, b: usize) {
    for i in 0..N {
        frame.swap(a + i, b + i);
    }
}

/// The frame, if it is long enough.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "the context only says where the frame is")]
fn frame(ctx: &XdpContext) -> Option<&mut Frame> {
    let start = ctx.data();
    if start + FRAME > ctx.data_end() {
        return None;
    }
    // SAFETY: the line above shows that the bytes lie within the packet, which begins at an even address; the program
    // alone has it meanwhile.
    Some(unsafe { &mut *(start as *mut Frame) })
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
