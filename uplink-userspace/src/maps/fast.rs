//! The maps of the fast path.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use uplink_common::path::{
    self, ANSWERED, Ends, Ends4, Ends6, FAST_V4, FAST_V6, Fast, GENERATION_S, LINES, MAX_WAYS, PORTS, Path,
    Port, Way,
};
use uplink_common::{Family, FlowKey, Seed};

use super::memory::Memory;
use crate::fast::watch::Neighbour;

/// So many closed ways may keep their places; more, and they are in the way of others.
const CLOSED: usize = MAX_WAYS / 8;

/// How many lines the table of each family has, for a flow table of so many entries. A flow takes one for each
/// direction, and one in twenty finds no room in a table that is three quarters full.
#[must_use]
pub fn lines(flows: u32) -> u32 {
    flows.next_power_of_two().saturating_mul(2)
}

/// Switches the fast path and tells it what is valid.
pub struct FastMaps {
    fast: Array<MapData, Fast>,
    ports: Array<MapData, Port>,
    ways: Memory<Way>,
    /// How many were closed in this generation.
    closed: usize,
    v4: Array<MapData, Path<Ends4>>,
    v6: Array<MapData, Path<Ends6>>,
    /// What was written last.
    record: Fast,
    /// When the generation was raised last.
    raised: Instant,
    written: Vec<Port>,
}

impl FastMaps {
    /// Of a loaded object.
    ///
    /// # Errors
    /// When it lacks one of the maps, or the kernel refuses a read.
    pub fn take(mut take: impl FnMut(&'static str) -> Result<Map>) -> Result<Self> {
        let fast: Array<_, Fast> = take("fast")?.try_into()?;
        let record = fast.get(&0, 0)?;
        Ok(Self {
            fast,
            record,
            raised: Instant::now(),
            ports: take("ports")?.try_into()?,
            ways: Memory::new("ways", take("ways")?)?,
            closed: 0,
            v4: take("paths_v4")?.try_into()?,
            v6: take("paths_v6")?.try_into()?,
            written: Vec::new(),
        })
    }

    /// Makes these interfaces the ones that packets may come in by and leave by.
    ///
    /// # Errors
    /// When two of them share a place, or the kernel refuses a write.
    pub fn set_ports(&mut self, ports: &[Port]) -> Result<()> {
        if ports == self.written {
            return Ok(());
        }
        let place = |port: &Port| port.ifindex % PORTS as u32;
        let mut records = vec![Port::default(); PORTS];
        for port in ports {
            let record = records
                .get_mut(place(port) as usize)
                .context("a place below the number of them")?;
            ensure!(
                record.ifindex == 0,
                "the interfaces with index {} and {} share a place in the map `ports`",
                record.ifindex,
                port.ifindex
            );
            *record = *port;
        }
        // What was learned with the old ones is void before they change.
        self.advance()?;
        self.written.clear();
        for (index, record) in (0..).zip(&records) {
            self.ports.set(index, record, 0)?;
        }
        self.written = ports.to_vec();
        self.advance()
    }

    /// Switches the fast path. Whatever was learned before is void.
    ///
    /// # Errors
    /// When the kernel refuses; what was so stays so.
    pub fn switch(&mut self, families: [bool; 2], look_again_s: u32) -> Result<()> {
        let bits = [FAST_V4, FAST_V6];
        let families = Family::ALL
            .into_iter()
            .filter(|f| families[*f as usize])
            .map(|f| bits[f as usize])
            .sum();
        let buckets = [self.v4.len(), self.v6.len()].map(|lines| lines / LINES);
        self.store(Fast {
            generation: next(self.record.generation),
            families,
            look_again_s,
            buckets,
        })
    }

    /// Makes all paths void: the kernel may treat their packets otherwise from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn advance(&mut self) -> Result<()> {
        self.store(Fast {
            generation: next(self.record.generation),
            ..self.record
        })
    }

    /// Makes void the paths to these next hops: the kernel may send their packets elsewhere from now on.
    ///
    /// # Errors
    /// When the map cannot be mapped, or the kernel refuses.
    pub fn close(&mut self, lost: &BTreeSet<Neighbour>) -> Result<()> {
        let lost: BTreeSet<(u8, [u8; 6])> = lost.iter().map(|n| (n.ifindex as u8, n.mac)).collect();
        let mut is_crowded = false;
        for index in 0..self.ways.elements() {
            let way = self.ways.read(index)?;
            if way.generation == self.record.generation && lost.contains(&(way.exit, way.next)) {
                // One byte changes, so nobody reads half of it.
                self.ways.write(index, way.closed())?;
                self.closed += 1;
                is_crowded |= self.closed > CLOSED || way.is_last_try(index);
            }
        }
        self.ways.settle();
        if is_crowded { self.advance() } else { Ok(()) }
    }

    /// Raises a generation that has become old, before paths of its beginning look new.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn renew(&mut self) -> Result<()> {
        if self.raised.elapsed() < Duration::from_secs(GENERATION_S.into()) {
            return Ok(());
        }
        self.advance()
    }

    fn store(&mut self, record: Fast) -> Result<()> {
        self.fast.set(0, record, 0).context("writing the map `fast`")?;
        self.record = record;
        self.closed = 0;
        self.raised = Instant::now();
        Ok(())
    }

    /// How long a path is used without asking the kernel, in seconds.
    #[must_use]
    pub const fn look_again_s(&self) -> u32 {
        self.record.look_again_s
    }

    /// Forgets one direction of a flow.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget(&mut self, seed: Seed, key: &FlowKey) -> Result<()> {
        let buckets = self.record.buckets;
        match key.src.family() {
            Family::V4 => forget(&mut self.v4, buckets[0], seed, &ends4(key), key.proto),
            Family::V6 => forget(&mut self.v6, buckets[1], seed, &ends6(key), key.proto),
        }
    }
}

/// What the fast path has learned of a flow, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Answers were seen, too.
    pub answered: bool,
    /// The next hop is where it was.
    pub open: bool,
    /// Seconds since the kernel showed the way.
    pub seen_s: u32,
    /// For so many seconds it is believed.
    pub trust_s: u32,
    /// The longest packet that was seen to leave whole, bytes from its IP header on.
    pub longest: u16,
}

/// The maps of the fast path, to read only: what the program would find.
pub struct PathReader {
    fast: Array<MapData, Fast>,
    ways: Memory<Way>,
    v4: Array<MapData, Path<Ends4>>,
    v6: Array<MapData, Path<Ends6>>,
}

impl PathReader {
    /// Of pinned maps, by their names.
    ///
    /// # Errors
    /// When one is missing or belongs to another version.
    pub fn take(mut take: impl FnMut(&'static str) -> Result<Map>) -> Result<Self> {
        Ok(Self {
            fast: take("fast")?.try_into()?,
            ways: Memory::new("ways", take("ways")?)?,
            v4: take("paths_v4")?.try_into()?,
            v6: take("paths_v6")?.try_into()?,
        })
    }

    /// What is known of a flow in the direction of its key; nothing where the fast path is off.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn find(&self, seed: Seed, key: &FlowKey, now_s: u32) -> Result<Option<Learned>> {
        let fast = self.fast.get(&0, 0)?;
        let now = (&fast, now_s);
        match key.src.family() {
            Family::V4 if fast.families & FAST_V4 != 0 => {
                self.look(&self.v4, fast.buckets[0], seed, &ends4(key), key.proto, now)
            }
            Family::V6 if fast.families & FAST_V6 != 0 => {
                self.look(&self.v6, fast.buckets[1], seed, &ends6(key), key.proto, now)
            }
            _ => Ok(None),
        }
    }

    fn look<E: Ends>(
        &self,
        table: &Array<MapData, Path<E>>,
        buckets: u32,
        seed: Seed,
        ends: &E,
        proto: u8,
        (fast, now_s): (&Fast, u32),
    ) -> Result<Option<Learned>>
    where
        Path<E>: aya::Pod,
    {
        for line in lines_of(buckets, seed, ends, proto) {
            let path = table.get(&line, 0)?;
            if path.ends != *ends || path.proto != proto || path.generation != fast.generation {
                continue;
            }
            let way = self.ways.read(path.way.into())?;
            return Ok((path.check == path.checked(&way)).then(|| Learned {
                answered: path.flags & ANSWERED != 0,
                open: !way.is_closed(),
                seen_s: path.age_s(now_s),
                trust_s: path.trust_s(fast),
                longest: path.longest,
            }));
        }
        Ok(None)
    }
}

fn ends4(key: &FlowKey) -> Ends4 {
    Ends4 {
        addresses: [key.src.last4(), key.dst.last4()],
        ports: [key.sport, key.dport],
    }
}

const fn ends6(key: &FlowKey) -> Ends6 {
    Ends6 {
        addresses: [key.src.0, key.dst.0],
        ports: [key.sport, key.dport],
    }
}

/// The lines that a flow may be in.
fn lines_of<E: Ends>(buckets: u32, seed: Seed, ends: &E, proto: u8) -> impl Iterator<Item = u32> + use<E> {
    let places = path::places(ends.place(seed, proto), buckets);
    let there = places.into_iter().filter(move |_| buckets != 0);
    there.flat_map(|first| first..first + LINES)
}

/// Never 0, which no path has.
const fn next(generation: u32) -> u32 {
    match generation.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

fn forget<E: Ends>(
    table: &mut Array<MapData, Path<E>>,
    buckets: u32,
    seed: Seed,
    ends: &E,
    proto: u8,
) -> Result<()>
where
    Path<E>: aya::Pod,
{
    for line in lines_of(buckets, seed, ends, proto) {
        let mut path = table.get(&line, 0)?;
        if path.ends == *ends && path.proto == proto && path.generation != 0 {
            path.generation = 0;
            table.set(line, path, 0)?;
        }
    }
    Ok(())
}
