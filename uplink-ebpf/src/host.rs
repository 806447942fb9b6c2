//! This host's own sockets. A program runs when one connects, or sends a datagram unconnected.
//!
//! A connected socket gets a mark: the kernel then finds route and source address by itself. A
//! datagram gets its source address, and `ip rule from` does the rest; a mark would come too late.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock, bpf_sock_addr},
    btf_maps::lpm_trie::Key,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_setsockopt, generated::bpf_set_retval},
    programs::SockAddrContext,
};
use uplink_common::{
    Addr, Config, Family, FlowKey, Reason, Uplink, flow, mark,
    policy::{Choice, STRICT},
};

use crate::{
    act, locals,
    maps::{BYPASS, UPLINKS},
    pick,
    pinned::{self, Held},
    policy::{self, About, LOOPBACK, UNKNOWN},
    steer,
};

const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;
/// What the kernel answers for the rule that refuses, too.
const ENETUNREACH: i32 = 101;
const TCP: u32 = 6;
const UDP: u32 = 17;
/// A prefix of IPv4 within an [`Addr`], and a whole address.
const WHOLE: u32 = 128;

/// IPv4.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) {
    count(connect(ctx, Addr::v4(address(ctx).user_ip4.to_ne_bytes())));
}

/// IPv6, and IPv4 by a mapped address.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) {
    count(connect(ctx, Addr::v6(bytes(&address(ctx).user_ip6))));
}

/// IPv4. Returns what the program answers.
#[inline(always)]
pub fn sendmsg4(ctx: &SockAddrContext) -> i32 {
    let chosen = address(ctx).msg_src_ip4 != 0;
    let placed = sendmsg(ctx, Addr::v4(address(ctx).user_ip4.to_ne_bytes()), chosen);
    if let Ok(Some(u)) = &placed {
        // SAFETY: the context is valid during the program, and this field may be written.
        unsafe { (*ctx.sock_addr).msg_src_ip4 = u32::from_ne_bytes(u.source[0].last4()) };
    }
    verdict(placed)
}

/// IPv6. Returns what the program answers.
#[inline(always)]
pub fn sendmsg6(ctx: &SockAddrContext) -> i32 {
    let chosen = bytes(&address(ctx).msg_src_ip6) != [0; 16];
    let placed = sendmsg(ctx, Addr::v6(bytes(&address(ctx).user_ip6)), chosen);
    if let Ok(Some(u)) = &placed {
        for (n, word) in words(&u.source[1]).into_iter().enumerate() {
            // SAFETY: as in `sendmsg4`; word by word, as the verifier wants it.
            unsafe { (&raw mut (*ctx.sock_addr).msg_src_ip6[n]).write_volatile(word) };
        }
    }
    verdict(placed)
}

/// A datagram carries no mark of its own: its program is told here that there is no way.
#[inline(always)]
fn verdict(placed: Result<Option<&'static Uplink>, Reason>) -> i32 {
    let refused = matches!(placed, Err(Reason::HostRefused));
    count(placed.map(|u| u.map(drop)));
    if refused {
        // SAFETY: takes a number.
        unsafe { bpf_set_retval(-ENETUNREACH) };
        return 0;
    }
    1
}

/// `Ok(None)`: nothing to do with us.
#[inline(always)]
fn connect(ctx: &SockAddrContext, dst: Addr) -> Result<Option<()>, Reason> {
    let Some((config, socket)) = ours(ctx) else {
        return Ok(None);
    };
    let family = dst.family();
    let before = socket.mark;
    let again = before != 0 && before & !config.mask == 0;
    if again && serves(config, before, family) && !is_matched(ctx, config, socket, dst) {
        // A datagram socket that connects anew keeps its uplink, unless a policy speaks of where it goes now.
        return Ok(None);
    }
    if (before != 0 && !again) || socket.bound_dev_if != 0 || (!again && has_source(socket)) {
        return Err(Reason::HostOwn);
    }
    let ours = match place(ctx, config, socket, family, dst, true) {
        // What is strict must not be taken elsewhere when its uplink dies.
        Ok((u, true)) => u.mark,
        Ok((u, false)) => u.host_mark,
        // The rule for this mark tells the program that there is no way.
        Err(Reason::Refused) => config.mask,
        Err(reason) => return Err(reason),
    };
    let mut mark = mark::merge(before, config.mask, ours);
    // SAFETY: the option's value is valid for its four bytes.
    unsafe { bpf_setsockopt(ctx.as_ptr(), SOL_SOCKET, SO_MARK, (&raw mut mark).cast(), 4) };
    if ours == config.mask {
        Err(Reason::HostRefused)
    } else {
        Ok(Some(()))
    }
}

#[inline(always)]
fn sendmsg(ctx: &SockAddrContext, dst: Addr, chosen: bool) -> Result<Option<&'static Uplink>, Reason> {
    let Some((config, socket)) = ours(ctx) else {
        return Ok(None);
    };
    if chosen || socket.mark != 0 || socket.bound_dev_if != 0 {
        return Err(Reason::HostOwn);
    }
    match place(ctx, config, socket, dst.family(), dst, false) {
        Ok((u, _)) => Ok(Some(u)),
        Err(Reason::Refused) => Err(Reason::HostRefused),
        Err(reason) => Err(reason),
    }
}

/// The configuration and the socket, if it is a TCP or UDP socket of our network namespace.
#[inline(always)]
fn ours(ctx: &SockAddrContext) -> Option<(&'static Config, &bpf_sock)> {
    let config = steer::config().ok()?;
    let address = address(ctx);
    if !matches!(address.protocol, TCP | UDP) {
        return None;
    }
    // SAFETY: the helper takes the context.
    if unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } != config.netns {
        return None;
    }
    // SAFETY: the kernel hands the socket along with the context.
    let socket = unsafe { address.__bindgen_anon_1.sk.as_ref() }?;
    Some((config, socket))
}

/// The uplink that a socket keeps towards a destination, and, if it `connects`, whether its policy is strict.
#[inline(always)]
fn place(
    ctx: &SockAddrContext,
    config: &Config,
    socket: &bpf_sock,
    family: Family,
    dst: Addr,
    connects: bool,
) -> Result<(&'static Uplink, bool), Reason> {
    if !dst.is_routable(family) {
        return Err(Reason::NotRoutable);
    }
    if locals::owner(config, &dst).is_some() {
        return Err(Reason::Local);
    }
    if BYPASS.get(&Key::new(WHOLE, dst)).is_some() {
        return Err(Reason::HostBypass);
    }
    let now_s = pinned::now_s();
    if steer::is_stale(config, now_s) {
        return Err(Reason::Stale);
    }
    let key = key(ctx, socket, dst);
    let found = pinned::find_pin(family, &key, now_s);
    let (id, strict) = match found {
        // It has sent a datagram there before.
        pinned::Found::Valid(Held {
            uplink: id,
            policy: by,
            ..
        }) if connects && by != steer::EVERYTHING_ELSE => (id, is_strict(policy_of(config, &key, now_s))),
        pinned::Found::Valid(held) => (held.uplink, false),
        _ => pick_and_keep(config, family, &key, found.was().is_some(), now_s)?,
    };
    let uplink = UPLINKS.get(id).filter(|_| id != 0).ok_or(Reason::BadSlot)?;
    Ok((uplink, strict))
}

/// An uplink for a new flow.
#[inline(always)]
fn pick_and_keep(
    config: &Config,
    family: Family,
    key: &FlowKey,
    replace: bool,
    now_s: u32,
) -> Result<(u32, bool), Reason> {
    let choice = policy_of(config, key, now_s);
    let picked = pick::by_policy(config, family, key, choice, now_s);
    if let Some(choice) = choice {
        act::placed(choice.policy);
    }
    let (given, _) = picked?;
    if choice.is_none() {
        act::placed(steer::EVERYTHING_ELSE);
    }
    act::flow(given.uplink);
    let uplink = pinned::keep(family, key, given, replace, now_s);
    Ok((uplink, is_strict(choice)))
}

/// What the socket's policy does.
#[inline(always)]
fn policy_of(config: &Config, key: &FlowKey, now_s: u32) -> Option<&'static Choice> {
    let about = About {
        iif: LOOPBACK,
        dscp: UNKNOWN,
        mac: 0,
        now_s,
        bank: config.policy_bank,
    };
    policy::choice(policy::find::<true>(config, key, &about))
}

/// Whether any policy speaks of a socket's way to a destination.
#[inline(always)]
fn is_matched(ctx: &SockAddrContext, config: &Config, socket: &bpf_sock, dst: Addr) -> bool {
    policy_of(config, &key(ctx, socket, dst), pinned::now_s()).is_some()
}

#[inline(always)]
fn is_strict(choice: Option<&Choice>) -> bool {
    choice.is_some_and(|c| c.flags & STRICT != 0)
}

/// A socket's flow: its address and often its port are not known yet, its cookie is.
#[inline(always)]
fn key(ctx: &SockAddrContext, socket: &bpf_sock, dst: Addr) -> FlowKey {
    let address = address(ctx);
    // SAFETY: the helper takes the context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let [a, b, ..] = address.user_port.to_ne_bytes();
    FlowKey {
        src: flow::socket(cookie),
        dst,
        sport: (socket.src_port as u16).to_be_bytes(),
        dport: [a, b],
        proto: address.protocol as u8,
        pad: [0; 3],
    }
}

/// Whether the uplink that a mark names takes new flows. Not for the mark of a strict policy, which would hold what
/// goes elsewhere now to the uplink when that dies.
#[inline(always)]
fn serves(config: &Config, mark: u32, family: Family) -> bool {
    let value = (mark & config.mask) >> (config.shift & 31);
    let most = config.mask >> (config.shift & 31);
    let id = if value > config.uplinks {
        most - value
    } else {
        value
    };
    UPLINKS
        .get(id)
        .is_some_and(|u| u.host_mark == mark & config.mask && u.families & family.bit() != 0)
}

#[inline(always)]
fn has_source(socket: &bpf_sock) -> bool {
    socket.src_ip4 != 0 || socket.src_ip6[0] | socket.src_ip6[1] | socket.src_ip6[2] | socket.src_ip6[3] != 0
}

#[inline(always)]
fn address(ctx: &SockAddrContext) -> &bpf_sock_addr {
    // SAFETY: the kernel hands a valid context for the duration of the program.
    unsafe { &*ctx.sock_addr }
}

#[inline(always)]
fn count(result: Result<Option<()>, Reason>) {
    match result {
        Ok(Some(())) => act::count(Reason::HostPicked),
        Ok(None) => {}
        Err(reason) => act::count(reason),
    }
}

#[inline(always)]
fn bytes(words: &[u32; 4]) -> [u8; 16] {
    // SAFETY: valid references; word by word, as the verifier wants it.
    let words = words
        .each_ref()
        .map(|word| unsafe { core::ptr::from_ref(word).read_volatile() });
    // SAFETY: sixteen bytes; any bytes are an address.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}

#[inline(always)]
fn words(a: &Addr) -> [u32; 4] {
    // SAFETY: sixteen bytes, aligned to four.
    unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(a.0) }
}
