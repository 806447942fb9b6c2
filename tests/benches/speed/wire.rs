//! A router between a generator and a sink at the far end of its only wire.
//!
//! It is used on one CPU ([`on_one_cpu`]), what the contestant has in user space included: the generator transmits a
//! batch, and the kernel receives, routes and sinks it before the next one. So the time that this thread and the CPU's
//! `ksoftirqd` run is what a packet costs, the wire itself included. A probe that another CPU sends would have that one
//! take from the ring, too, for as long as there is something: the generator would no longer wait, and overrun it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use uplink_common::load::{CLIENTS, FRAME, Load, MOST_FLOWS, Seen};
use uplink_lab::Namespace;
use uplink_lab::process::own_time;

/// Parts of a sample, of which the fastest counts: what shares the processor's core, unseen from here, slows for moments.
const PARTS: u32 = 20;
/// Frames that are in flight at one time; a ring of veth takes 256.
const BATCH: u32 = 64;
/// In how many pieces flows are spread over time.
const PIECES: u32 = 64;
/// `struct xdp_md` of `linux/bpf.h`, as far as it says anything: the frame's end and the interface it came in by.
const CONTEXT: usize = 24;
/// The MAC addresses at the far end: of the gateways by their last byte, 0 of the clients.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0xfa, 0];
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0xfa, 1];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0x0a, 1];

/// The two providers' gateways: name, addresses, the router's addresses.
const GATEWAYS: [(&str, &str, &str, &str, &str); 2] = [
    ("gw1", "192.168.1.1", "fd00:1::1", "192.168.1.100", "fd00:1::100"),
    ("gw2", "10.0.0.1", "fd00:2::1", "10.0.0.100", "fd00:2::100"),
];

/// What a run of packets took, and what became of them.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds for each packet, in the fastest part.
    pub ns: f64,
    /// Packets sent that the sink did not see.
    pub lost: u64,
    /// What the sink saw of them.
    pub seen: Seen,
}

pub struct Wire {
    /// Where the contestant routes.
    pub router: Namespace,
    far: Namespace,
    far_index: u32,
    ebpf: Ebpf,
    load: Array<MapData, Load>,
    seen: PerCpuArray<MapData, Seen>,
}

impl Wire {
    /// Builds it in fresh namespaces: what one contestant leaves behind slows no other. `driver` is what the router's
    /// interface runs before its kernel; without a program it would not take frames from the generator.
    pub fn build(driver: Option<&str>) -> Result<Self> {
        let (router, far) = (Namespace::new("router")?, Namespace::new("far")?);
        connect(&router, &far)?;
        let mut ebpf = EbpfLoader::new().load_file(object()?)?;
        attach(&mut ebpf, &far, "wire_sink")?;
        if let Some(driver) = driver {
            attach(&mut ebpf, &router, driver)?;
        }
        xdp(&mut ebpf, "wire_generate")?.load()?;
        let nothing: &mut SchedClassifier = ebpf
            .program_mut("wire_nothing")
            .context("wire_nothing")?
            .try_into()?;
        nothing.load()?;
        let load = Array::try_from(ebpf.take_map("load").context("map `load`")?)?;
        let seen = PerCpuArray::try_from(ebpf.take_map("seen").context("map `seen`")?)?;
        let far_index = far.enter(|| nix::net::if_::if_nametoindex("eth0"))??;
        Ok(Self {
            router,
            far,
            far_index,
            ebpf,
            load,
            seen,
        })
    }

    /// Sends two packets of every flow and has them answered, so that all state there may be is there.
    pub fn warm(&mut self, v6: bool, flows: u32) -> Result<()> {
        self.set(v6, flows, |load| load.answer = 1)?;
        // The first packets wait for a neighbour's address.
        self.send(1_000)?;
        std::thread::sleep(Duration::from_millis(50));
        self.set(v6, flows, |load| load.answer = 1)?;
        self.send(2 * flows.max(1_000)).map(drop)
    }

    /// Sends a packet of every flow and has it answered, evenly over some time: what is due a while after a packet is
    /// due at any moment for some then, as with users' flows.
    pub fn spread(&mut self, v6: bool, flows: u32, time: Duration) -> Result<()> {
        let begun = Instant::now();
        self.set(v6, flows, |load| load.answer = 1)?;
        let pieces = flows.min(PIECES);
        for n in 0..pieces {
            let until = |n: u32| (u64::from(flows) * u64::from(n) / u64::from(pieces)) as u32;
            self.send(until(n + 1) - until(n))?;
            std::thread::sleep((time * (n + 1) / pieces).saturating_sub(begun.elapsed()));
        }
        Ok(())
    }

    /// Sends packets of flows drawn at random, and measures.
    pub fn measure(&mut self, v6: bool, flows: u32, packets: u32) -> Result<Sample> {
        self.set(v6, flows, |load| load.random = 1)?;
        self.send(packets / 10)?;
        let before = self.seen()?;
        let mut fastest = Duration::MAX;
        let part = packets / PARTS;
        for _ in 0..PARTS {
            fastest = fastest.min(self.send(part)?);
        }
        let packets = part * PARTS;
        let seen = difference(&self.seen()?, &before);
        let arrived: u64 = seen.by_gateway.iter().sum();
        Ok(Sample {
            ns: fastest.as_nanos() as f64 / f64::from(part),
            lost: u64::from(packets).saturating_sub(arrived),
            seen,
        })
    }

    /// Sends some packets, one of each flow from this one on, and tells where they went.
    pub fn burst(&mut self, start: u32, packets: u32) -> Result<[u64; 3]> {
        self.set(false, MOST_FLOWS, |load| load.next = start)?;
        let before = self.seen()?;
        self.send(packets)?;
        Ok(difference(&self.seen()?, &before).by_gateway)
    }

    /// A gateway is there no longer.
    pub fn silence(&self, gateway: &str) -> Result<()> {
        self.far.ip(&format!("link set {gateway} down\n"))
    }

    /// A packet program that does nothing.
    pub fn nothing(&self) -> Result<&SchedClassifier> {
        let program = self
            .ebpf
            .program("wire_nothing")
            .context("no program wire_nothing")?;
        Ok(program.try_into()?)
    }

    fn set(&mut self, v6: bool, flows: u32, and: impl FnOnce(&mut Load)) -> Result<()> {
        let mut load = Load {
            flows,
            v6: u32::from(v6),
            router: ROUTER_MAC,
            client: CLIENT_MAC,
            ..Load::default()
        };
        and(&mut load);
        Ok(self.load.set(0, load, 0)?)
    }

    /// The processor's time for all of them.
    fn send(&mut self, packets: u32) -> Result<Duration> {
        let mut context = [0; CONTEXT];
        context[4..8].copy_from_slice(&(FRAME as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&self.far_index.to_ne_bytes());
        let generator = xdp(&mut self.ebpf, "wire_generate")?;
        self.far.enter(|| -> Result<Duration> {
            let mut options = TestRunOptions::new();
            options.data_in = Some(&[0; FRAME]);
            options.ctx_in = Some(&context);
            options.repeat = packets;
            options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let clock = Clock::start()?;
            generator.test_run(options).context("live frames")?;
            clock.stop()
        })?
    }

    fn seen(&self) -> Result<Seen> {
        let mut all = Seen::default();
        for one in self.seen.get(&0, 0)?.iter() {
            let pairs = all.by_gateway.iter_mut().zip(one.by_gateway);
            pairs.for_each(|(sum, n)| *sum += n);
            all.with_own_address += one.with_own_address;
            all.answers += one.answers;
        }
        Ok(all)
    }
}

fn difference(now: &Seen, before: &Seen) -> Seen {
    let mut by_gateway = now.by_gateway;
    let pairs = by_gateway.iter_mut().zip(before.by_gateway);
    pairs.for_each(|(n, was)| *n -= was);
    Seen {
        by_gateway,
        with_own_address: now.with_own_address - before.with_own_address,
        answers: now.answers - before.answers,
    }
}

/// Keeps everything that `f` does, and starts, on the last CPU: interrupts of the machine's own devices mostly go to the
/// first.
pub fn on_one_cpu<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let mut cpus = CpuSet::new();
    cpus.set(std::thread::available_parallelism()?.get() - 1)?;
    let kept = || {
        sched_setaffinity(Pid::from_raw(0), &cpus).context("staying on one CPU")?;
        f()
    };
    std::thread::scope(|scope| match scope.spawn(kept).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// The time that this thread and its CPU's `ksoftirqd` have run: what others take meanwhile does not count.
struct Clock {
    own: Duration,
    softirqs: PathBuf,
    others: Duration,
}

impl Clock {
    fn start() -> Result<Self> {
        let softirqs = ksoftirqd(sched_getcpu()?)?;
        Ok(Self {
            own: own_time()?,
            others: run_time(&softirqs)?,
            softirqs,
        })
    }

    fn stop(self) -> Result<Duration> {
        let own = own_time()? - self.own;
        // What is left to do is done, and accounted for.
        std::thread::sleep(Duration::from_millis(10));
        Ok(own + run_time(&self.softirqs)? - self.others)
    }
}

/// The `schedstat` of the thread that takes over from a CPU's interrupts.
fn ksoftirqd(cpu: usize) -> Result<PathBuf> {
    let name = format!("ksoftirqd/{cpu}\n");
    for entry in std::fs::read_dir("/proc")? {
        let directory = entry?.path();
        if std::fs::read_to_string(directory.join("comm")).is_ok_and(|comm| comm == name) {
            return Ok(directory.join("schedstat"));
        }
    }
    bail!("no {} here: run this outside of containers", name.trim())
}

/// Nanoseconds that a thread has run: the first number of its `schedstat`.
fn run_time(schedstat: &Path) -> Result<Duration> {
    let text = std::fs::read_to_string(schedstat)?;
    let ns = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
    ns.map(Duration::from_nanos)
        .with_context(|| format!("{}: {text}", schedstat.display()))
}

/// The benchmark's own programs lie beside the product's.
fn object() -> Result<PathBuf> {
    let product = std::env::var_os("UPLINK_BPF_OBJECT").context("UPLINK_BPF_OBJECT is not set")?;
    Ok(PathBuf::from(product).with_file_name("uplink-wire"))
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

fn attach(ebpf: &mut Ebpf, namespace: &Namespace, name: &str) -> Result<()> {
    let program = xdp(ebpf, name)?;
    program.load()?;
    namespace.enter(|| program.attach("eth0", XdpMode::Driver))??;
    Ok(())
}

fn connect(router: &Namespace, far: &Namespace) -> Result<()> {
    for namespace in [router, far] {
        namespace.sysctl("ipv6/conf/default/accept_dad", "0")?;
        namespace.sysctl("ipv6/conf/default/router_solicitations", "0")?;
        for setting in ["all", "default"] {
            namespace.sysctl(&format!("ipv4/conf/{setting}/rp_filter"), "0")?;
            namespace.sysctl(&format!("ipv4/conf/{setting}/send_redirects"), "0")?;
            // A gateway's address is answered for by the gateway alone.
            namespace.sysctl(&format!("ipv4/conf/{setting}/arp_ignore"), "1")?;
        }
    }
    router.sysctl("ipv4/ip_forward", "1")?;
    router.sysctl("ipv6/conf/all/forwarding", "1")?;
    far.ip(&format!(
        "link add eth0 address {} type veth peer name eth0 address {} netns {}\nlink set eth0 up\n",
        mac(CLIENT_MAC),
        mac(ROUTER_MAC),
        router.path()
    ))?;
    router
        .ip("link set eth0 up\naddr add 172.16.0.1/16 dev eth0\naddr add fd00:10::1/64 dev eth0 nodad\n")?;
    let client = |n: u32| {
        let v4 = Ipv4Addr::from(0xac10_0002 + n);
        format!("addr add {v4}/16 dev eth0\naddr add fd00:10::{v4}/64 dev eth0 nodad\n")
    };
    far.ip(&(0..CLIENTS).map(client).collect::<String>())?;
    for (n, (name, v4, v6, source4, source6)) in (1..).zip(GATEWAYS) {
        let [head @ .., _] = CLIENT_MAC;
        let address = mac([head[0], head[1], head[2], head[3], head[4], n]);
        far.ip(&format!(
            "link add {name} link eth0 address {address} type macvlan mode private\nlink set {name} up\n\
             addr add {v4}/24 dev {name}\naddr add {v6}/64 dev {name} nodad\n"
        ))?;
        router.ip(&format!(
            "addr add {source4}/24 dev eth0\naddr add {source6}/64 dev eth0 nodad\n"
        ))?;
    }
    targets(far)
}

/// What the daemon's probes ask.
fn targets(far: &Namespace) -> Result<()> {
    let own = [
        "1.1.1.1/32",
        "9.9.9.9/32",
        "2606:4700:4700::1111/128",
        "2620:fe::9/128",
    ];
    let add = |address: &str| format!("addr add {address} dev lo\n");
    far.ip(&own.map(add).concat())
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// That NAT did what it should, and the shares are those of the weights.
pub fn check(sample: &Sample, nat: bool, expected: Option<f64>) -> Result<()> {
    let arrived: u64 = sample.seen.by_gateway.iter().sum();
    ensure!(arrived > 0, "nothing arrived");
    ensure!(
        sample.lost as f64 <= 0.001 * arrived as f64,
        "{} of {} packets were lost",
        sample.lost,
        arrived + sample.lost
    );
    let own = sample.seen.with_own_address;
    ensure!(
        own == if nat { 0 } else { arrived },
        "{own} of {arrived} packets have a client's address"
    );
    if let Some(expected) = expected {
        let share = sample.seen.by_gateway[1] as f64 / arrived as f64;
        ensure!(
            (share - expected).abs() < 0.05,
            "gateway 1 has {share:.3} of the packets, not {expected}"
        );
    }
    Ok(())
}
