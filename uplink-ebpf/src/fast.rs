//! The fast path, at XDP: a packet of a flow that the kernel has shown its way is rewritten and sent on at once.
//!
//! Every check comes before the first write. Whatever is not a plain packet of a known and confirmed path goes to the
//! kernel, untouched.

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_TX},
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use uplink_common::{
    ABI, Config, Reason, hop,
    path::{
        self, ANSWERED, End, Ends, Ends4, Ends6, FAST_V4, FAST_V6, Fast, HOP, PORTS as MAX_PORTS, Path, Port,
        Way,
    },
    record::Traffic,
};

use crate::{
    act,
    maps::{CONFIG, FAST, PORTS, RECEIVED, SENT},
    parse::{ETH_IPV4, ETH_IPV6, ETH_LEN, ETH_VLAN, TCP, UDP},
    paths::{self, Table},
    pinned,
};

const TAGGED: usize = ETH_LEN + 4;
/// FIN, SYN, RST and URG.
const EDGES: u8 = 0x27;
const ACK: u8 = 0x10;

/// What decides beside the packet.
#[derive(Clone, Copy)]
struct Now<'a> {
    config: &'a Config,
    fast: &'a Fast,
    at_s: u32,
    vlan: u16,
}

/// The verdict, where the packet is ours; `None`: it is the kernel's.
#[inline(always)]
pub fn fast(ctx: &XdpContext) -> Option<u32> {
    let fast = FAST.get(0).filter(|fast| fast.families != 0)?;
    let config = CONFIG.get(0).filter(|config| config.abi == ABI)?;
    let at_s = pinned::now_s();
    // Without a daemon nobody notices what changes.
    if at_s.saturating_sub(config.heartbeat_s) > hop::ALIVE_S {
        return None;
    }
    let ethertype = u16::from_be(*at(ctx, ETH_LEN - 2)?);
    let now = Now {
        config,
        fast,
        at_s,
        vlan: 0,
    };
    match ethertype {
        ETH_VLAN => tagged(ctx, now),
        _ => family::<ETH_LEN>(ctx, &now, ethertype),
    }
}

#[inline(always)]
fn tagged(ctx: &XdpContext, now: Now<'_>) -> Option<u32> {
    let [tag, ethertype]: [u16; 2] = *at(ctx, ETH_LEN)?;
    // A priority, or the leave to drop it, is for the kernel to mind.
    let vlan = u16::from_be(tag);
    if vlan == 0 || vlan > 0xfff {
        return None;
    }
    family::<TAGGED>(ctx, &Now { vlan, ..now }, u16::from_be(ethertype))
}

#[inline(always)]
fn family<const AT: usize>(ctx: &XdpContext, now: &Now<'_>, ethertype: u16) -> Option<u32> {
    match ethertype {
        ETH_IPV4 if now.fast.families & FAST_V4 != 0 => upper::<Header4, AT>(ctx, now),
        ETH_IPV6 if now.fast.families & FAST_V6 != 0 => upper::<Header6, AT>(ctx, now),
        _ => None,
    }
}

#[inline(always)]
fn upper<H: Header, const AT: usize>(ctx: &XdpContext, now: &Now<'_>) -> Option<u32> {
    let header: &H = at(ctx, AT)?;
    match header.proto() {
        TCP => plain::<H, Tcp, AT>(ctx, now, header),
        UDP => plain::<H, Udp, AT>(ctx, now, header),
        _ => None,
    }
}

#[inline(always)]
fn plain<H: Header, U: Upper, const AT: usize>(ctx: &XdpContext, now: &Now<'_>, header: &H) -> Option<u32> {
    let length = header.length()?;
    let upper: &mut U = at(ctx, AT + size_of::<H>())?;
    if !is_whole(ctx, AT + length as usize) {
        return None;
    }
    let ends = header.ends(*upper.ports());
    let seed = now.config.seed;
    let line = paths::find(seed, now.fast, &ends, U::PROTO)?;
    if upper.is_edge() {
        paths::forget(now.config, now.fast, line);
        return None;
    }
    let inner = length.checked_sub(size_of::<H>() as u16)?;
    let sums = ends.sum_of_addresses();
    let summed = upper.is_summed();
    // None was made, which IPv6 does not know; or the card would make it, and does not for us.
    if !summed && H::MUST_SUM || summed && path::is_unfinished(*upper.checksum(), sums, U::PROTO, inner) {
        return None;
    }
    // What is in the line from now on does not matter.
    let path = H::Ends::read(line);
    let way = paths::way(&path)?;
    let known = paths::is_of(&path, now.fast, &ends, U::PROTO) && path.check == path.checked(&way);
    let exit = passes(ctx, now, &path, &way, length).filter(|_| known)?;
    let leaves = if exit.vlan == 0 { ETH_LEN } else { TAGGED };
    // A tag that goes, or room for one that comes.
    // SAFETY: a plain call with a valid context; what refers to the packet is not used any more.
    if leaves != AT && unsafe { bpf_xdp_adjust_head(ctx.ctx, AT as i32 - leaves as i32) } != 0 {
        return None;
    }
    let done = if exit.vlan == 0 {
        rewrite::<H, U, ETH_LEN>(ctx, &path, &way, exit)
    } else {
        rewrite::<H, U, TAGGED>(ctx, &path, &way, exit)
    };
    if done.is_none() {
        // It was long enough before. The kernel must not have half of it.
        return Some(XDP_ABORTED);
    }
    count(&way, ETH_LEN as u64 + u64::from(length));
    Some(send(ctx, exit))
}

/// Makes it the packet that leaves, which has its IP header at `AT`.
#[inline(always)]
fn rewrite<H: Header, U: Upper, const AT: usize>(
    ctx: &XdpContext,
    path: &Path<H::Ends>,
    way: &Way,
    exit: &Port,
) -> Option<()> {
    let macs: &mut [[u8; 6]; 2] = at(ctx, 0)?;
    let header: &mut H = at(ctx, AT)?;
    let upper: &mut U = at(ctx, AT + size_of::<H>())?;
    *macs = [way.next, exit.mac];
    if AT == TAGGED {
        *at(ctx, ETH_LEN - 2)? = [ETH_VLAN.to_be(), exit.vlan.to_be()];
    }
    let [header_delta, delta] = path.deltas();
    header.become_(path.is_outward(), &path.becomes, header_delta);
    if upper.is_summed() {
        upper.change(delta);
    }
    upper.ports()[usize::from(!path.is_outward())] = path.becomes.port;
    Some(())
}

/// Whether the frame has so many bytes; what is behind them pads it, or is nobody's business.
#[inline(always)]
fn is_whole(ctx: &XdpContext, bytes: usize) -> bool {
    // A difference, not a sum: the verifier of Linux 6.1 takes a swapped length for any number, which no pointer may
    // go on by.
    let first = ctx.data_end().wrapping_sub(ctx.data());
    // SAFETY: a plain call with a valid context. A jumbo frame is in several buffers.
    first >= bytes || bytes as u64 <= unsafe { bpf_xdp_get_buff_len(ctx.ctx) }
}

/// Whether a packet of this length may take the path, and where it leaves.
#[inline(always)]
fn passes<E: Ends>(
    ctx: &XdpContext,
    now: &Now<'_>,
    path: &Path<E>,
    way: &Way,
    length: u16,
) -> Option<&'static Port> {
    let stale = path.age_s(now.at_s) >= path.trust_s(now.fast);
    if stale || path.flags & ANSWERED == 0 || length > path.longest || way.is_closed() {
        return None;
    }
    let entry = port(way.entry)?;
    let exit = port(way.exit)?;
    let receiver: [u8; 6] = *at(ctx, 0)?;
    // SAFETY: the context is valid during the program.
    let device = unsafe { (*ctx.ctx).ingress_ifindex };
    let here = entry.device == device && entry.vlan == now.vlan && entry.mac == receiver;
    (here && exit.device != 0).then_some(exit)
}

#[inline(always)]
fn port(index: u8) -> Option<&'static Port> {
    const { assert!(MAX_PORTS == 256) };
    PORTS.get(u32::from(index))
}

#[inline(always)]
fn send(ctx: &XdpContext, exit: &Port) -> u32 {
    // SAFETY: the context is valid during the program.
    if exit.device == unsafe { (*ctx.ctx).ingress_ifindex } {
        return XDP_TX;
    }
    // SAFETY: a plain call; the kernel checks the index.
    unsafe { bpf_redirect(exit.device, 0) as u32 }
}

#[inline(always)]
fn count(way: &Way, bytes: u64) {
    act::count(Reason::Fast);
    let traffic = if way.to != 0 {
        SENT.get_ptr_mut(u32::from(way.to))
    } else {
        RECEIVED.get_ptr_mut(u32::from(way.from))
    };
    if let Some(traffic) = traffic {
        // SAFETY: a per-CPU entry, and a program is not preempted by another on its CPU.
        let traffic: &mut Traffic = unsafe { &mut *traffic };
        traffic.packets += 1;
        traffic.bytes += bytes;
    }
    if way.policy != 0 {
        act::carried(u32::from(way.policy));
    }
}

/// A reference into the packet, if so much of it is in its first buffer.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "the context only says where the packet is")]
fn at<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<&mut T> {
    const { assert!(align_of::<T>() <= 2) };
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: the line above shows that the bytes lie within the packet, which begins at an even address and which this
    // program alone has meanwhile; the types are integers and arrays of them.
    Some(unsafe { &mut *(start as *mut T) })
}

/// An IP header.
trait Header: Copy {
    type Ends: Table;
    /// Whether every datagram has a checksum.
    const MUST_SUM: bool;

    fn proto(&self) -> u8;

    /// The length of the packet, where it is a plain one with another hop to go.
    fn length(&self) -> Option<u16>;

    fn ends(&self, ports: [[u8; 2]; 2]) -> Self::Ends;

    /// One hop less, and another source, or destination.
    fn become_(&mut self, source: bool, becomes: &End<<Self::Ends as Ends>::Address>, delta: u16);
}

/// IPv4 without options, in the byte order of the packet.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header4 {
    version: u8,
    tos: u8,
    length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    proto: u8,
    checksum: u16,
    addresses: [[u8; 4]; 2],
}

impl Header for Header4 {
    type Ends = Ends4;
    const MUST_SUM: bool = false;

    #[inline(always)]
    fn proto(&self) -> u8 {
        self.proto
    }

    #[inline(always)]
    fn length(&self) -> Option<u16> {
        let fragment = u16::from_be(self.fragment) & 0x3fff;
        let plain = self.version == 0x45 && fragment == 0 && self.ttl > 1;
        plain.then(|| u16::from_be(self.length))
    }

    #[inline(always)]
    fn ends(&self, ports: [[u8; 2]; 2]) -> Ends4 {
        let addresses = self.addresses;
        Ends4 { addresses, ports }
    }

    #[inline(always)]
    fn become_(&mut self, source: bool, becomes: &End<[u8; 4]>, delta: u16) {
        self.ttl -= 1;
        self.checksum = path::apply(self.checksum, path::fold(u32::from(delta) + u32::from(HOP)));
        self.addresses[usize::from(!source)] = becomes.address;
    }
}

/// IPv6.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header6 {
    class: [u8; 4],
    length: u16,
    proto: u8,
    limit: u8,
    addresses: [[u8; 16]; 2],
}

impl Header for Header6 {
    type Ends = Ends6;
    const MUST_SUM: bool = true;

    #[inline(always)]
    fn proto(&self) -> u8 {
        self.proto
    }

    #[inline(always)]
    fn length(&self) -> Option<u16> {
        let plain = self.class[0] >> 4 == 6 && self.limit > 1;
        u16::from_be(self.length).checked_add(40).filter(|_| plain)
    }

    #[inline(always)]
    fn ends(&self, ports: [[u8; 2]; 2]) -> Ends6 {
        let addresses = self.addresses;
        Ends6 { addresses, ports }
    }

    #[inline(always)]
    fn become_(&mut self, source: bool, becomes: &End<[u8; 16]>, _delta: u16) {
        self.limit -= 1;
        self.addresses[usize::from(!source)] = becomes.address;
    }
}

/// A header of TCP or UDP.
trait Upper: Copy {
    const PROTO: u8;

    fn ports(&mut self) -> &mut [[u8; 2]; 2];

    /// Whether conntrack has to see the packet, as it begins or ends a connection.
    fn is_edge(&self) -> bool;

    fn checksum(&self) -> &u16;

    /// Whether there is a checksum.
    fn is_summed(&self) -> bool;

    fn change(&mut self, delta: u16);
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    ports: [[u8; 2]; 2],
    numbers: [[u16; 2]; 2],
    offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

impl Upper for Tcp {
    const PROTO: u8 = TCP;

    #[inline(always)]
    fn ports(&mut self) -> &mut [[u8; 2]; 2] {
        &mut self.ports
    }

    #[inline(always)]
    fn is_edge(&self) -> bool {
        self.flags & (EDGES | ACK) != ACK
    }

    #[inline(always)]
    fn checksum(&self) -> &u16 {
        &self.checksum
    }

    #[inline(always)]
    fn is_summed(&self) -> bool {
        true
    }

    #[inline(always)]
    fn change(&mut self, delta: u16) {
        self.checksum = path::apply(self.checksum, delta);
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Udp {
    ports: [[u8; 2]; 2],
    length: u16,
    checksum: u16,
}

impl Upper for Udp {
    const PROTO: u8 = UDP;

    #[inline(always)]
    fn ports(&mut self) -> &mut [[u8; 2]; 2] {
        &mut self.ports
    }

    #[inline(always)]
    fn is_edge(&self) -> bool {
        false
    }

    #[inline(always)]
    fn checksum(&self) -> &u16 {
        &self.checksum
    }

    #[inline(always)]
    fn is_summed(&self) -> bool {
        self.checksum != 0
    }

    #[inline(always)]
    fn change(&mut self, delta: u16) {
        let checksum = path::apply(self.checksum, delta);
        // Zero means that there is none; the other zero sums up to the same.
        self.checksum = if checksum == 0 { u16::MAX } else { checksum };
    }
}
