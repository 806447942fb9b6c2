//! The fast path at the wire: which packets take it, how they look then, and what they leave behind.

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use etherparse::{PacketHeaders, TransportHeader};
use uplink_common::path::{
    self, ANSWERED, End, Ends, Ends4, Ends6, FAST_V4, FAST_V6, FIRST_LOOK_S, Fast, LINES, MAX_WAYS, OUTWARD,
    Path, Port, TWICE, Way,
};
use uplink_common::record::{Config, Counter, Policy, Traffic};
use uplink_common::{ABI, FlowKey, Reason, hop};

use crate::bench::SEED;
use crate::frames::{V4, V6, established, tagged, with_flags};
use crate::world::network;

/// Outcomes that have their rows here.
pub const REASONS: [Reason; 1] = [Reason::Fast];

const PASS: u32 = 2;
const TX: u32 = 3;
const ETH: usize = 14;
const MTU: u16 = 1400;
const POLICY: u16 = 5;
const UPLINK: u8 = 2;
const GENERATION: u32 = 7;
const LOOK_AGAIN_S: u32 = 16;
const NEXT: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
/// The router's, as `frames` have it.
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BUCKETS: u32 = 64;

/// The program alone, with maps that this test writes.
struct Wire {
    ebpf: Ebpf,
    config: Array<MapData, Config>,
    fast: Array<MapData, Fast>,
    ports: Array<MapData, Port>,
    ways: Array<MapData, Way>,
    v4: Array<MapData, Path<Ends4>>,
    v6: Array<MapData, Path<Ends6>>,
    ifindex: u32,
}

fn now_s() -> u32 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.expect("the clock").tv_sec() as u32
}

impl Wire {
    fn new() -> Result<Self> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).context("a network namespace")?;
        network()?;
        let ifindex = nix::net::if_::if_nametoindex("eth0")?;
        let object = std::env::var_os("UPLINK_BPF_OBJECT").context("UPLINK_BPF_OBJECT is not set")?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("flows", 64)
            .map_max_entries("ways", MAX_WAYS as u32)
            .map_max_entries("paths_v4", LINES * BUCKETS)
            .map_max_entries("paths_v6", LINES * BUCKETS)
            .load_file(object)?;
        program(&mut ebpf)?.load()?;
        let mut take = |name: &str| -> Result<Map> { ebpf.take_map(name).context("no such map") };
        let mut wire = Self {
            config: take("config")?.try_into()?,
            fast: take("fast")?.try_into()?,
            ports: take("ports")?.try_into()?,
            ways: take("ways")?.try_into()?,
            v4: take("paths_v4")?.try_into()?,
            v6: take("paths_v6")?.try_into()?,
            ifindex,
            ebpf,
        };
        wire.reset()?;
        Ok(wire)
    }

    /// A daemon that lives, and one interface.
    fn reset(&mut self) -> Result<()> {
        let config = Config {
            abi: ABI,
            seed: SEED,
            heartbeat_s: now_s(),
            ..Config::default()
        };
        self.config.set(0, config, 0)?;
        let fast = Fast {
            generation: GENERATION,
            families: FAST_V4 | FAST_V6,
            look_again_s: LOOK_AGAIN_S,
            buckets: [BUCKETS; 2],
        };
        self.fast.set(0, fast, 0)?;
        self.ways.set(WAY.into(), way(self.ifindex), 0)?;
        self.port(0)
    }

    fn port(&mut self, vlan: u16) -> Result<()> {
        let port = Port {
            ifindex: self.ifindex,
            device: self.ifindex,
            mac: ROUTER,
            vlan,
        };
        Ok(self.ports.set(self.ifindex & 0xff, port, 0)?)
    }

    fn run(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        let mut context = [0; 24];
        context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&self.ifindex.to_ne_bytes());
        // A tag may come.
        let mut out = vec![0; frame.len() + 4];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        let result = program(&mut self.ebpf)?.test_run(options)?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// A sum over all processors.
    fn counted<T: aya::Pod>(&mut self, map: &str, index: u32, of: impl Fn(&T) -> u64) -> Result<u64> {
        let map = self.ebpf.map(map).context("no such map")?;
        let map: PerCpuArray<_, T> = map.try_into()?;
        Ok(map.get(&index, 0)?.iter().map(of).sum())
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf.program_mut("uplink_fast").context("no uplink_fast")?;
    Ok(program.try_into()?)
}

fn in_namespace(test: impl FnOnce(&mut Wire) -> Result<()> + Send + 'static) {
    let run = move || test(&mut Wire::new().expect("this test needs root and UPLINK_BPF_OBJECT"));
    std::thread::spawn(run)
        .join()
        .unwrap_or_else(|e| std::panic::resume_unwind(e))
        .expect("the test");
}

/// Where the test has its way in the map.
const WAY: u16 = 9;

const fn way(ifindex: u32) -> Way {
    Way {
        generation: GENERATION,
        next: NEXT,
        policy: POLICY,
        entry: ifindex as u8,
        exit: ifindex as u8,
        from: 0,
        to: UPLINK,
    }
}

/// A path that is valid, of a flow that is given another source by NAT.
fn path<E: Ends>(ends: E, proto: u8, address: E::Address, ifindex: u32) -> Path<E>
where
    E::Pad: Default,
{
    let path = Path {
        ends,
        generation: GENERATION,
        becomes: End {
            address,
            port: 4_242_u16.to_be_bytes(),
        },
        way: WAY,
        longest: MTU,
        looked_s: now_s() as u16,
        check: 0,
        proto,
        flags: OUTWARD | ANSWERED | TWICE,
        pad: E::Pad::default(),
    };
    let check = path.checked(&way(ifindex));
    Path { check, ..path }
}

const fn ends4(key: &FlowKey) -> Ends4 {
    Ends4 {
        addresses: [key.src.last4(), key.dst.last4()],
        ports: [key.sport, key.dport],
    }
}

fn path4(key: &FlowKey, ifindex: u32) -> Path<Ends4> {
    path(ends4(key), key.proto, [10, 0, 0, 100], ifindex)
}

fn path6(key: &FlowKey, ifindex: u32) -> Path<Ends6> {
    let ends = Ends6 {
        addresses: [key.src.0, key.dst.0],
        ports: [key.sport, key.dport],
    };
    let mut source = key.src.0;
    source[15] ^= 0x77;
    path(ends, key.proto, source, ifindex)
}

/// Where a path has its first place.
fn place4(path: &Path<Ends4>) -> u32 {
    path::places(path.ends.place(SEED, path.proto), BUCKETS)[0]
}

/// The frame as a router with this NAT sends it, by etherparse's own sums.
fn rewritten(frame: &[u8], source: [u8; 4], port: u16) -> Vec<u8> {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a packet");
    let Some(etherparse::NetHeaders::Ipv4(mut ip, _)) = headers.net else {
        panic!("no IPv4")
    };
    (ip.source, ip.time_to_live) = (source, ip.time_to_live - 1);
    ip.header_checksum = ip.calc_header_checksum();
    let mut out = [&NEXT[..], &ROUTER, &frame[12..ETH]].concat();
    ip.write(&mut out).expect("a header");
    let payload = headers.payload.slice();
    match headers.transport {
        Some(TransportHeader::Udp(mut udp)) => {
            udp.source_port = port;
            if udp.checksum != 0 {
                udp.checksum = udp.calc_checksum_ipv4(&ip, payload).expect("a sum");
            }
            udp.write(&mut out).expect("a header");
        }
        Some(TransportHeader::Tcp(mut tcp)) => {
            tcp.source_port = port;
            tcp.checksum = tcp.calc_checksum_ipv4(&ip, payload).expect("a sum");
            tcp.write(&mut out).expect("a header");
        }
        other => panic!("{other:?}"),
    }
    [&out[..], payload].concat()
}

/// The frame as it is in this VLAN; 0: in none.
fn in_vlan(vlan: u16, frame: &[u8]) -> Vec<u8> {
    if vlan == 0 {
        return frame.to_vec();
    }
    let mut tagged = tagged(frame, 1);
    tagged[ETH..ETH + 2].copy_from_slice(&vlan.to_be_bytes());
    tagged
}

/// The frame with the checksum of its segment; `frames` change flags without.
fn summed(frame: &[u8]) -> Vec<u8> {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a packet");
    let (Some(etherparse::NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) =
        (&headers.net, &headers.transport)
    else {
        return frame.to_vec();
    };
    let sum = tcp
        .calc_checksum_ipv4(ip, headers.payload.slice())
        .expect("a sum");
    let mut frame = frame.to_vec();
    frame[ETH + 36..ETH + 38].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn a_known_flows_packets_leave_as_the_kernel_would_send_them() {
    in_namespace(|wire| {
        let udp = V4::udp(1000, 4433);
        let tcp = V4::tcp(1001, 443);
        let mut without_sum = udp.frame();
        without_sum[ETH + 26..ETH + 28].fill(0);
        for (what, key, frame) in [
            ("a datagram", udp.key(), udp.frame()),
            ("a datagram without a checksum", udp.key(), without_sum),
            ("a segment", tcp.key(), established(&tcp.frame())),
            ("a segment with PSH", tcp.key(), with_flags(0x18, &tcp.frame())),
        ] {
            let path = path4(&key, wire.ifindex);
            wire.v4.set(place4(&path), path, 0)?;
            let before = [
                wire.counted("counters", Reason::Fast as u32, |c: &Counter| c.packets)?,
                wire.counted("sent", UPLINK.into(), |t: &Traffic| t.packets)?,
                wire.counted("policies", POLICY.into(), |p: &Policy| p.packets)?,
            ];
            let bytes = wire.counted("sent", UPLINK.into(), |t: &Traffic| t.bytes)?;
            let frame = summed(&frame);
            let (verdict, out) = wire.run(&frame)?;
            assert_eq!(verdict, TX, "{what}");
            assert_eq!(out, rewritten(&frame, [10, 0, 0, 100], 4_242), "{what}");
            let after = [
                wire.counted("counters", Reason::Fast as u32, |c: &Counter| c.packets)?,
                wire.counted("sent", UPLINK.into(), |t: &Traffic| t.packets)?,
                wire.counted("policies", POLICY.into(), |p: &Policy| p.packets)?,
            ];
            assert_eq!(after, before.map(|n| n + 1), "{what}: counted once each");
            let sent = wire.counted("sent", UPLINK.into(), |t: &Traffic| t.bytes)? - bytes;
            assert_eq!(sent, frame.len() as u64, "{what}");
        }
        Ok(())
    });
}

/// A packet that was damaged on its way is not mended: whoever gets it shall find out.
#[test]
fn a_wrong_checksum_stays_as_wrong() {
    const ERROR: u16 = 0x1234;
    let (ip, udp) = (ETH + 10, ETH + 26);
    let damaged = |mut frame: Vec<u8>, at: usize| {
        let sum = u32::from(u16::from_be_bytes([frame[at], frame[at + 1]])) + u32::from(ERROR);
        frame[at..at + 2].copy_from_slice(&path::fold(sum).to_be_bytes());
        frame
    };
    in_namespace(move |wire| {
        let datagram = V4::udp(1000, 4433);
        let path = path4(&datagram.key(), wire.ifindex);
        wire.v4.set(place4(&path), path, 0)?;
        let right = rewritten(&datagram.frame(), [10, 0, 0, 100], 4_242);
        for at in [ip, udp] {
            let (verdict, out) = wire.run(&damaged(datagram.frame(), at))?;
            assert_eq!(
                (verdict, out),
                (TX, damaged(right.clone(), at)),
                "the checksum at {at}"
            );
        }
        Ok(())
    });
}

#[test]
fn what_the_kernel_answers_better_is_left_to_it_untouched() {
    in_namespace(|wire| {
        let udp = V4::udp(1000, 4433);
        let tcp = V4::tcp(1001, 443);
        for key in [udp.key(), tcp.key()] {
            let path = path4(&key, wire.ifindex);
            wire.v4.set(place4(&path), path, 0)?;
        }
        let changed = |at: usize, value: u8| {
            let mut frame = udp.frame();
            frame[at] = value;
            frame
        };
        let mut long = udp.frame();
        long.resize(ETH + usize::from(MTU) + 1, 0);
        long[ETH + 2..ETH + 4].copy_from_slice(&(MTU + 1).to_be_bytes());
        let mut unfinished = udp.frame();
        let pseudo = path::fold(
            ends4(&udp.key()).sum_of_addresses()
                + u32::from(17_u16.to_be())
                + u32::from(u16::from_be_bytes([unfinished[ETH + 24], unfinished[ETH + 25]]).to_be()),
        );
        unfinished[ETH + 26..ETH + 28].copy_from_slice(&pseudo.to_ne_bytes());
        let mut cut = udp.frame();
        cut.truncate(cut.len() - 1);
        for (what, frame) in [
            ("another flow", V4::udp(1002, 4433).frame()),
            ("the last hop", changed(ETH + 8, 1)),
            ("for somebody else's card", changed(5, 9)),
            ("a fragment", udp.first_fragment()),
            ("options", udp.with_options()),
            ("longer than was seen", long),
            ("a checksum that the card would complete", unfinished),
            ("cut short", cut),
            ("in a VLAN", tagged(&udp.frame(), 1)),
            ("an error", udp.error_about_reply()),
            ("urgent", with_flags(0x30, &tcp.frame())),
            ("without ACK", with_flags(0x08, &tcp.frame())),
        ] {
            let (verdict, out) = wire.run(&frame)?;
            assert_eq!(verdict, PASS, "{what}");
            assert_eq!(out, frame, "{what}");
        }
        assert_eq!(wire.run(&udp.frame())?.0, TX, "still known");
        Ok(())
    });
}

/// One thing about a path at a time.
#[test]
fn a_path_that_is_not_valid_is_not_taken() {
    type Change = fn(&mut Path<Ends4>, &mut Way);
    in_namespace(|wire| {
        let udp = V4::udp(1000, 4433);
        let good = (path4(&udp.key(), wire.ifindex), way(wire.ifindex));
        let cases: [(&str, bool, Change); 10] = [
            ("as it was", true, |_, _| {}),
            ("of another generation", false, |p, _| p.generation -= 1),
            ("not answered", false, |p, _| p.flags &= !ANSWERED),
            ("long not confirmed", false, |p, _| {
                p.looked_s -= LOOK_AGAIN_S as u16
            }),
            ("not long not confirmed", true, |p, _| {
                p.looked_s -= LOOK_AGAIN_S as u16 - 2
            }),
            ("seen once, a while ago", false, |p, _| {
                p.flags &= !TWICE;
                p.looked_s -= FIRST_LOOK_S as u16;
            }),
            ("by an interface that is none of ours", false, |_, w| {
                w.exit ^= 0x80
            }),
            ("from an interface that is none of ours", false, |_, w| {
                w.entry ^= 0x80
            }),
            ("by a way that is closed", false, |_, w| *w = w.closed()),
            ("shorter than the packet", false, |p, _| p.longest = 20),
        ];
        let mut taken = |(mut path, way): (Path<Ends4>, Way), is_whole: bool| -> Result<bool> {
            if is_whole {
                path.check = path.checked(&way);
            }
            wire.ways.set(WAY.into(), way, 0)?;
            wire.v4.set(place4(&good.0), path, 0)?;
            let (verdict, out) = wire.run(&udp.frame())?;
            assert!(verdict == TX || out == udp.frame(), "untouched");
            Ok(verdict == TX)
        };
        for (what, right, change) in cases {
            let mut other = good;
            change(&mut other.0, &mut other.1);
            assert_eq!(taken(other, true)?, right, "{what}");
        }
        // What two processors wrote at once, and ways that were written anew behind their paths.
        let changes: [Change; 4] = [
            |p, _| p.becomes.port = [9, 9],
            |p, _| p.longest += 1,
            |_, w| w.next[5] ^= 1,
            |_, w| w.generation += 1,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut other = good;
            change(&mut other.0, &mut other.1);
            assert!(!taken(other, false)?, "half of it is another's: {n}");
        }
        assert!(taken(good, false)?, "the whole");
        Ok(())
    });
}

/// What comes from an uplink has another destination inside.
#[test]
fn inward_the_destination_changes() {
    in_namespace(|wire| {
        let udp = V4::udp(1000, 4433);
        let inward = Way {
            from: UPLINK,
            to: 0,
            ..way(wire.ifindex)
        };
        wire.ways.set(WAY.into(), inward, 0)?;
        let mut path = path4(&udp.key(), wire.ifindex);
        path.flags &= !OUTWARD;
        path.check = path.checked(&inward);
        wire.v4.set(place4(&path), path, 0)?;
        let received = wire.counted("received", UPLINK.into(), |t: &Traffic| t.packets)?;
        let frame = udp.frame();
        let (verdict, out) = wire.run(&frame)?;
        assert_eq!(verdict, TX);
        assert_eq!(out[ETH + 12..ETH + 16], frame[ETH + 12..ETH + 16], "its source");
        assert_eq!(out[ETH + 16..ETH + 20], [10, 0, 0, 100], "its destination");
        assert_eq!(
            out[ETH + 20..ETH + 22],
            frame[ETH + 20..ETH + 22],
            "its source port"
        );
        assert_eq!(
            out[ETH + 22..ETH + 24],
            4_242_u16.to_be_bytes(),
            "its destination port"
        );
        let headers = PacketHeaders::from_ethernet_slice(&out).expect("a packet");
        let (Some(etherparse::NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(sent))) =
            (&headers.net, &headers.transport)
        else {
            panic!("no UDP over IPv4")
        };
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        let sum = sent
            .calc_checksum_ipv4(ip, headers.payload.slice())
            .expect("a sum");
        assert_eq!(sent.checksum, sum);
        let now = wire.counted("received", UPLINK.into(), |t: &Traffic| t.packets)?;
        assert_eq!(now, received + 1, "counted for its uplink");
        Ok(())
    });
}

#[test]
fn any_of_four_places_is_found() {
    in_namespace(|wire| {
        let udp = V4::udp(1000, 4433);
        let path = path4(&udp.key(), wire.ifindex);
        let [a, b] = path::places(path.ends.place(SEED, path.proto), BUCKETS);
        for place in [a, a + 1, b, b + 1] {
            wire.v4.set(place, path, 0)?;
            assert_eq!(wire.run(&udp.frame())?.0, TX, "place {place}");
            wire.v4.set(place, Path::default(), 0)?;
            assert_eq!(wire.run(&udp.frame())?.0, PASS, "place {place} is empty");
        }
        Ok(())
    });
}

/// SYN, FIN and RST are the kernel's, and so is what follows them, both ways.
#[test]
fn how_a_connection_ends_is_shown_to_the_kernel() {
    in_namespace(|wire| {
        let tcp = V4::tcp(1001, 443);
        let there = path4(&tcp.key(), wire.ifindex);
        let mut back = there;
        (back.ends, back.becomes) = (there.leaves().reversed(), there.ends.end(true));
        back.flags &= !OUTWARD;
        for flags in [0x02, 0x11, 0x14] {
            wire.v4.set(place4(&there), there, 0)?;
            wire.v4.set(place4(&back), back, 0)?;
            assert_eq!(wire.run(&established(&tcp.frame()))?.0, TX);
            let edge = with_flags(flags, &tcp.frame());
            assert_eq!(wire.run(&edge)?, (PASS, edge.clone()), "{flags:#x}");
            assert_eq!(wire.run(&established(&tcp.frame()))?.0, PASS, "{flags:#x}, there");
            let back = wire.v4.get(&place4(&back), 0)?;
            assert_eq!(back.generation, 0, "{flags:#x}, back");
        }
        Ok(())
    });
}

#[test]
fn nothing_is_fast_while_it_is_off_or_nobody_watches() {
    in_namespace(|wire| {
        let udp = V4::udp(1000, 4433);
        let path = path4(&udp.key(), wire.ifindex);
        wire.v4.set(place4(&path), path, 0)?;
        let config = wire.config.get(&0, 0)?;
        let fast = wire.fast.get(&0, 0)?;
        for (what, silent_s, families, taken) in [
            ("on", 0, FAST_V4, true),
            ("the other family alone", 0, FAST_V6, false),
            ("off", 0, 0, false),
            ("the daemon is silent", hop::ALIVE_S + 1, FAST_V4, false),
        ] {
            let config = Config {
                heartbeat_s: now_s() - silent_s,
                ..config
            };
            wire.config.set(0, config, 0)?;
            wire.fast.set(0, Fast { families, ..fast }, 0)?;
            assert_eq!(wire.run(&udp.frame())?.0 == TX, taken, "{what}");
        }
        Ok(())
    });
}

#[test]
fn ipv6_and_vlans_are_rewritten_too() {
    in_namespace(|wire| {
        let udp = V6::udp(1000, 4433);
        let mut path = path6(&udp.key(), wire.ifindex);
        let [place, _] = path::places(path.ends.place(SEED, path.proto), BUCKETS);
        wire.v6.set(place, path, 0)?;
        for (comes, leaves) in [(0, 0), (7, 7), (7, 8), (0, 8), (7, 0)] {
            let what = format!("from VLAN {comes} to VLAN {leaves}");
            wire.port(comes)?;
            let exit = Port {
                ifindex: wire.ifindex ^ 1,
                device: wire.ifindex,
                mac: ROUTER,
                vlan: leaves,
            };
            wire.ports.set(exit.ifindex & 0xff, exit, 0)?;
            let way = Way {
                exit: exit.ifindex as u8,
                ..way(wire.ifindex)
            };
            wire.ways.set(WAY.into(), way, 0)?;
            path.check = path.checked(&way);
            wire.v6.set(place, path, 0)?;
            let frame = in_vlan(comes, &udp.frame());
            let (verdict, out) = wire.run(&frame)?;
            assert_eq!(verdict, TX, "{what}");
            let at = if leaves == 0 { ETH } else { ETH + 4 };
            let untagged = [&out[..12], &out[at - 2..]].concat();
            assert_eq!(out, in_vlan(leaves, &untagged), "{what}: its tag");
            let (before, out) = (udp.frame(), untagged);
            assert_eq!(out.len(), before.len(), "{what}");
            assert_eq!(
                out[..ETH],
                [&NEXT[..], &ROUTER, &before[12..ETH]].concat(),
                "{what}"
            );
            assert_eq!(out[ETH + 7], before[ETH + 7] - 1, "{what}: one hop less");
            assert_eq!(out[ETH + 8..ETH + 24], path.becomes.address, "{what}");
            assert_eq!(out[ETH + 24..ETH + 40], before[ETH + 24..ETH + 40], "{what}");
            let headers = PacketHeaders::from_ethernet_slice(&out).expect("a packet");
            let (Some(etherparse::NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Udp(sent))) =
                (&headers.net, &headers.transport)
            else {
                panic!("no UDP over IPv6")
            };
            let sum = sent
                .calc_checksum_ipv6(ip, headers.payload.slice())
                .expect("a sum");
            assert_eq!((sent.source_port, sent.checksum), (4_242, sum), "{what}");
        }
        wire.reset()?;
        path.check = path.checked(&way(wire.ifindex));
        wire.v6.set(place, path, 0)?;
        assert_eq!(wire.run(&udp.frame())?.0, TX);
        let mut without = udp.frame();
        without[ETH + 46..ETH + 48].fill(0);
        assert_eq!(
            wire.run(&without)?.0,
            PASS,
            "IPv6 has no datagrams without a checksum"
        );
        Ok(())
    });
}
