//! The fast path is learned from the kernel: a plain packet gets a tag when it comes in, and what has become of it is
//! seen when it leaves. The tag is `skb->hash`, which stays through forwarding and NAT.

use aya_ebpf::{helpers::generated::bpf_set_hash, programs::TcContext};
use uplink_common::{
    Addr, Config, FlowKey, hash,
    path::{
        self, ANSWERED, APART_S, Asked, End, Ends, Ends4, Ends6, FAST_V4, FAST_V6, Fast, OUTWARD,
        PORTS as MAX_PORTS, Path, Port, Print, TWICE, Way,
    },
    record::TRANSLATES,
};

use crate::{
    maps::{ASKED, FAST, PORTS, SCRATCH},
    parse::{Bytes as _, ETH_IPV4, ETH_IPV6, ETH_LEN, Packet, TCP, UDP, be16},
    paths::{self, Table},
    pinned,
    skb::{self, Linear},
    translate,
};

/// FIN, SYN and RST.
const EDGES: u8 = 0x07;
const ACK: u8 = 0x10;
/// Names are learned from every packet of it.
const DNS: [u8; 2] = 53_u16.to_be_bytes();
/// Where the table has no room, one packet in so many of flows without a path is asked about: to ask and find none costs as
/// much as the kernel's way itself, and they would do it with every packet.
const ONE_IN: u64 = 16;

/// At ingress: a packet of a flow whose path may be learned. `from` is the uplink that it came in by, or 0.
#[inline(always)]
pub fn ask(ctx: &TcContext, config: &Config, from: u32, policy: u32) {
    if let Some(fast) = FAST.get(0).filter(|fast| fast.families != 0) {
        note(ctx, config, fast, (from, policy));
    }
}

/// Not inlined: most hosts have no fast path.
#[inline(never)]
fn note(ctx: &TcContext, config: &Config, fast: &Fast, (from, policy): (u32, u32)) {
    let is_left_out = is_left_out();
    let Some(print) = print(ctx) else {
        return;
    };
    if from != 0 && config.flags & TRANSLATES != 0 {
        translate::as_it_came(from, &mut print.key.dst);
    }
    if is_left_out && !is_known(config, fast, print) {
        return;
    }
    let tag = hash::flow(config.seed, &print.key) as u32 | 1;
    let Some(asked) = ASKED.get_ptr_mut(place(tag)) else {
        return;
    };
    // SAFETY: a per-CPU entry, and a program is not preempted by another on its CPU.
    let asked = unsafe { &mut *asked };
    asked.tag = tag;
    asked.ifindex = skb::fields(ctx).ifindex;
    asked.generation = fast.generation;
    asked.from = from as u16;
    asked.policy = policy as u16;
    asked.print = *print;
    // SAFETY: a valid context, and a plain number.
    let _ = unsafe { bpf_set_hash(ctx.skb.skb, tag) };
}

/// Whether the flow has a place in its table, and needs no room: it goes on with it.
///
/// Not inlined: only where a table is full.
#[inline(never)]
fn is_known(config: &Config, fast: &Fast, print: &Print) -> bool {
    let proto = print.key.proto;
    if print.version == 4 {
        let Some(path) = Ends4::draft() else {
            return false;
        };
        ends4(&print.key, &mut path.ends);
        paths::find(config.seed, fast, &path.ends, proto).is_some()
    } else {
        let Some(path) = Ends6::draft() else {
            return false;
        };
        ends6(&print.key, &mut path.ends);
        paths::find(config.seed, fast, &path.ends, proto).is_some()
    }
}

/// Whether the packet is one of those that are not asked about, unless their flow is known.
#[inline(always)]
fn is_left_out() -> bool {
    let Some(unasked) = unasked() else {
        return true;
    };
    let left = *unasked;
    *unasked = left.saturating_sub(1);
    left != 0
}

/// On this CPU.
#[inline(always)]
fn unasked() -> Option<&'static mut u64> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a per-CPU entry, and a program is not preempted by another on its CPU.
    Some(unsafe { &mut (*scratch).unasked })
}

#[inline(always)]
const fn place(tag: u32) -> u32 {
    tag >> 1 & (path::ASKED as u32 - 1)
}

/// What is compared of a plain packet of TCP or UDP, in this CPU's scratch.
#[inline(always)]
fn print(ctx: &TcContext) -> Option<&'static mut Print> {
    // A tag beside the packet is for the kernel; where it has an interface of its own there is none.
    if skb::fields(ctx).vlan_present != 0 {
        return None;
    }
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a per-CPU entry, and a program is not preempted by another on its CPU.
    let print = unsafe { &mut (*scratch).print };
    let bytes = skb::linear(ctx);
    let at = match be16(bytes.get(ETH_LEN - 2)?) {
        ETH_IPV4 => v4(&bytes, print)?,
        ETH_IPV6 => v6(&bytes, print)?,
        _ => return None,
    };
    let headers = match print.key.proto {
        TCP => tcp(&bytes, at, print)?,
        UDP => udp(&bytes, at, print)?,
        _ => return None,
    };
    let segment = skb::fields(ctx).gso_size;
    if segment != 0 {
        print.longest = (at - ETH_LEN) as u32 + headers + segment;
    }
    Some(print)
}

/// Where the next header begins.
#[inline(always)]
fn v4(bytes: &Linear, print: &mut Print) -> Option<usize> {
    let [version, tos, l0, l1, i0, i1, f0, f1, ttl, proto]: [u8; 10] = bytes.get(ETH_LEN)?;
    if version != 0x45 || u16::from_be_bytes([f0, f1]) & 0x3fff != 0 {
        return None;
    }
    print.version = 4;
    print.ttl = ttl;
    print.class = u32::from_be_bytes([0, tos, i0, i1]);
    print.longest = u32::from(u16::from_be_bytes([l0, l1]));
    print.key.proto = proto;
    print.key.src = Addr::v4(bytes.get(ETH_LEN + 12)?);
    print.key.dst = Addr::v4(bytes.get(ETH_LEN + 16)?);
    Some(ETH_LEN + 20)
}

/// As `v4`. Extension headers are no protocol of ours.
#[inline(always)]
fn v6(bytes: &Linear, print: &mut Print) -> Option<usize> {
    let [c0, c1, c2, c3, l0, l1, proto, limit]: [u8; 8] = bytes.get(ETH_LEN)?;
    print.version = 6;
    print.ttl = limit;
    print.class = u32::from_be_bytes([c0, c1, c2, c3]);
    print.longest = u32::from(u16::from_be_bytes([l0, l1])) + 40;
    print.key.proto = proto;
    print.key.src = Addr::v6(bytes.get(ETH_LEN + 8)?);
    print.key.dst = Addr::v6(bytes.get(ETH_LEN + 24)?);
    (c0 >> 4 == 6).then_some(ETH_LEN + 40)
}

/// The length of its headers, where the connection goes on.
#[inline(always)]
fn tcp(bytes: &Linear, at: usize, print: &mut Print) -> Option<u32> {
    let [
        a,
        b,
        c,
        d,
        s0,
        s1,
        s2,
        s3,
        a0,
        a1,
        a2,
        a3,
        words,
        flags,
        _,
        _,
        x,
        y,
    ]: [u8; 18] = bytes.get(at)?;
    // Names are learned from every packet of it, as by UDP.
    if flags & (EDGES | ACK) != ACK || [a, b] == DNS || [c, d] == DNS {
        return None;
    }
    (print.key.sport, print.key.dport) = ([a, b], [c, d]);
    print.sequence = u32::from_be_bytes([s0, s1, s2, s3]);
    print.acknowledged = u32::from_be_bytes([a0, a1, a2, a3]);
    print.checksum = u16::from_ne_bytes([x, y]);
    Some(u32::from(words >> 4) * 4)
}

#[inline(always)]
fn udp(bytes: &Linear, at: usize, print: &mut Print) -> Option<u32> {
    let [a, b, c, d, l0, l1, x, y]: [u8; 8] = bytes.get(at)?;
    if [a, b] == DNS || [c, d] == DNS {
        return None;
    }
    (print.key.sport, print.key.dport) = ([a, b], [c, d]);
    print.sequence = 0;
    print.acknowledged = u32::from_be_bytes([0, 0, l0, l1]);
    print.checksum = u16::from_ne_bytes([x, y]);
    Some(8)
}

/// At egress: what has become of a packet that was asked about, when all is done to it.
#[inline(always)]
pub fn answer(ctx: &TcContext, config: &Config, packet: &Packet) {
    let Some(fast) = FAST.get(0).filter(|fast| fast.families != 0 && packet.past == 0) else {
        return;
    };
    let tag = skb::fields(ctx).hash;
    let Some(asked) = ASKED.get_ptr_mut(place(tag)) else {
        return;
    };
    // SAFETY: as in `note`.
    let asked = unsafe { &mut *asked };
    if tag != 0 && asked.tag == tag {
        learn(ctx, config, fast, asked, u32::from(packet.out));
    }
}

/// Not inlined, as `note`.
#[inline(never)]
fn learn(ctx: &TcContext, config: &Config, fast: &Fast, asked: &mut Asked, out: u32) -> Option<()> {
    let (came, left) = (&asked.print, &*print(ctx)?);
    let outward = out != 0;
    // From inside to an uplink, or the other way.
    if asked.generation != fast.generation || (asked.from == 0) != outward || !is_same(came, left, outward) {
        return None;
    }
    // Packets come in lists: this was an earlier one of the flow if it was not the same.
    asked.tag = 0;
    let exit = port(skb::fields(ctx).ifindex)?;
    port(asked.ifindex)?;
    let [next, sender]: [[u8; 6]; 2] = skb::linear(ctx).get::<12>(0).map(halves)?;
    if sender != exit.mac {
        return None;
    }
    let way = Way {
        generation: asked.generation,
        next,
        policy: asked.policy,
        entry: asked.ifindex as u8,
        exit: exit.ifindex as u8,
        from: asked.from as u8,
        to: out as u8,
    };
    let number = paths::number(&way);
    if number == paths::NOWHERE {
        return None;
    }
    let flags = if outward { OUTWARD } else { 0 };
    let checksums = &[came.checksum, left.checksum];
    match left.version {
        4 if fast.families & FAST_V4 != 0 => {
            let path = Ends4::draft()?;
            ends4(&came.key, &mut path.ends);
            end4(&left.key, outward, &mut path.becomes);
            (path.way, path.flags) = (number as u16, flags);
            store(config, fast, &way, path, left, checksums)
        }
        6 if fast.families & FAST_V6 != 0 => {
            let path = Ends6::draft()?;
            ends6(&came.key, &mut path.ends);
            end6(&left.key, outward, &mut path.becomes);
            (path.way, path.flags) = (number as u16, flags);
            store(config, fast, &way, path, left, checksums)
        }
        _ => {}
    }
    Some(())
}

/// Writes the path, unless other flows that live have its places.
#[inline(always)]
fn store<E: Table>(
    config: &Config,
    fast: &Fast,
    way: &Way,
    path: &mut Path<E>,
    left: &Print,
    checksums: &[u16; 2],
) {
    path.generation = way.generation;
    path.looked_s = pinned::now_s() as u16;
    path.longest = left.longest as u16;
    path.proto = left.key.proto;
    if !fits(path, checksums) {
        return;
    }
    let mut place = room(config, fast, path);
    if place.is_none() && make_room(config, fast, path) {
        place = room(config, fast, path);
    }
    let Some(place) = place else {
        if let Some(unasked) = unasked() {
            *unasked = ONE_IN - 1;
        }
        return;
    };
    recall(fast, way, path, place);
    if path.flags & ANSWERED == 0 && is_answered(config, fast, path) {
        path.flags |= ANSWERED;
    }
    path.check = path.checked(way);
    // Two processors may have moved the same line.
    paths::forget_one(config, fast, &path.ends, path.proto);
    *place = *path;
}

#[inline(always)]
const fn halves(bytes: [u8; 12]) -> [[u8; 6]; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    [[a, b, c, d, e, f], [g, h, i, j, k, l]]
}

/// An interface of ours.
#[inline(always)]
fn port(ifindex: u32) -> Option<&'static Port> {
    PORTS
        .get(ifindex & (MAX_PORTS as u32 - 1))
        .filter(|port| port.ifindex == ifindex)
}

/// Whether the kernel changed nothing but TTL, and the address and port of one end.
#[inline(always)]
fn is_same(came: &Print, left: &Print, outward: bool) -> bool {
    let stays = if outward {
        is_address(&came.key.dst, &left.key.dst) && came.key.dport == left.key.dport
    } else {
        is_address(&came.key.src, &left.key.src) && came.key.sport == left.key.sport
    };
    stays
        && came.version == left.version
        && came.key.proto == left.key.proto
        && came.ttl == left.ttl.wrapping_add(1)
        && came.sequence == left.sequence
        && came.acknowledged == left.acknowledged
        && came.class == left.class
        && came.longest == left.longest
        && left.longest <= u32::from(u16::MAX)
}

// By words: the derived comparison calls a loop.
#[inline(always)]
fn is_address(a: &Addr, b: &Addr) -> bool {
    u128::from_ne_bytes(a.0) == u128::from_ne_bytes(b.0)
}

/// Whether the checksums changed as they should.
///
/// Not inlined, as those that follow: what one keeps on the stack is gone before the next.
#[inline(never)]
fn fits<E: Table>(path: &Path<E>, checksums: &[u16; 2]) -> bool {
    let [addresses, delta] = path.deltas();
    let none = path.proto == UDP && checksums[0] == 0;
    fit(*checksums, none, delta, addresses)
}

/// Whether the other direction is known, which is then answered, too.
#[inline(never)]
fn is_answered<E: Table>(config: &Config, fast: &Fast, path: &Path<E>) -> bool {
    let back = path.leaves().reversed();
    let Some(back) = paths::find(config.seed, fast, &back, path.proto) else {
        return false;
    };
    let Some(way) = paths::way(back) else {
        return false;
    };
    // What two processors wrote at once stays invalid.
    if back.flags & ANSWERED == 0 && back.check == back.checked(&way) {
        back.flags |= ANSWERED;
        back.check = back.checked(&way);
    }
    true
}

/// Goes on with what is known of the same path. What was answered once stays so for conntrack, whatever has become of the other
/// direction's line.
#[inline(never)]
fn recall<E: Table>(fast: &Fast, way: &Way, path: &mut Path<E>, known: &Path<E>) {
    let own = paths::is_of(known, fast, &path.ends, path.proto) && known.way == path.way;
    if own && known.check == known.checked(way) && known.is_alike(path) {
        if known.longest > path.longest {
            path.longest = known.longest;
        }
        let apart = known.age_s(u32::from(path.looked_s)) >= APART_S;
        path.flags |= known.flags & (ANSWERED | TWICE) | if apart { TWICE } else { 0 };
    }
}

/// Whether the checksums of a packet that came in and left tell of a changed header alone, and not of changed payload. One
/// that the card completes later sums up the addresses only.
#[inline(always)]
const fn fit([came, left]: [u16; 2], none: bool, delta: u16, addresses: u16) -> bool {
    if none {
        return left == 0;
    }
    let unfinished = path::fold(came as u32 + addresses as u32);
    alike(left, path::apply(came, delta)) || alike(left, unfinished)
}

/// One's complement has two zeros.
#[inline(always)]
const fn alike(a: u16, b: u16) -> bool {
    a == b || a == !b && (a == 0 || b == 0)
}

/// The line for a flow: its own, or one that nobody uses.
#[inline(never)]
fn room<E: Table>(config: &Config, fast: &Fast, path: &Path<E>) -> Option<&'static mut Path<E>> {
    if let Some(own) = paths::find(config.seed, fast, &path.ends, path.proto) {
        return Some(own);
    }
    let [a, b] = paths::places(config.seed, fast, &path.ends, path.proto);
    let free = |line| E::line(line).filter(|line| is_free(line, fast, path.looked_s));
    // The first bucket as long as there is room: a look into the second costs another cache line.
    free(a)
        .or_else(|| free(a + 1))
        .or_else(|| free(b))
        .or_else(|| free(b + 1))
}

#[inline(always)]
fn is_free<E: Ends>(line: &Path<E>, fast: &Fast, now_s: u16) -> bool {
    line.generation != fast.generation || line.age_s(u32::from(now_s)) > 2 * fast.look_again_s
}

/// Moves the owner of one of the path's places to his other bucket. Returns whether that had room.
#[inline(never)]
fn make_room<E: Table>(config: &Config, fast: &Fast, path: &Path<E>) -> bool {
    let [a, b] = paths::places(config.seed, fast, &path.ends, path.proto);
    for line in [a, b, a + 1, b + 1] {
        if let Some(line) = E::line(line)
            && move_away(config, fast, line, path.looked_s)
        {
            line.generation = 0;
            return true;
        }
    }
    false
}

/// Copies a line to where its flow may be, too. Returns whether there was room.
///
/// Not inlined: it is called for each of four lines.
#[inline(never)]
fn move_away<E: Table>(config: &Config, fast: &Fast, line: &Path<E>, now_s: u16) -> bool {
    let [a, b] = paths::places(config.seed, fast, &line.ends, line.proto);
    let free = |index| E::line(index).filter(|line| is_free(line, fast, now_s));
    // In the bucket where it is nothing is free, or it would not have to go.
    let room = free(a)
        .or_else(|| free(a + 1))
        .or_else(|| free(b))
        .or_else(|| free(b + 1));
    let Some(room) = room else {
        return false;
    };
    *room = *line;
    true
}

#[inline(always)]
const fn ends4(key: &FlowKey, ends: &mut Ends4) {
    ends.addresses = [key.src.last4(), key.dst.last4()];
    ends.ports = [key.sport, key.dport];
}

#[inline(always)]
const fn ends6(key: &FlowKey, ends: &mut Ends6) {
    ends.addresses = [key.src.0, key.dst.0];
    ends.ports = [key.sport, key.dport];
}

/// The end that may change.
#[inline(always)]
const fn end4(key: &FlowKey, source: bool, end: &mut End<[u8; 4]>) {
    (end.address, end.port) = if source {
        (key.src.last4(), key.sport)
    } else {
        (key.dst.last4(), key.dport)
    };
}

#[inline(always)]
const fn end6(key: &FlowKey, source: bool, end: &mut End<[u8; 16]>) {
    (end.address, end.port) = if source {
        (key.src.0, key.sport)
    } else {
        (key.dst.0, key.dport)
    };
}
