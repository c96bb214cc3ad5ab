//! The roofline: how long work must take on this machine whatever the kernel, and what sets that time.
//!
//! A step's time is bounded by each of: its arithmetic at the probed peak (with the algorithm that needs the fewest
//! multiplications), its compulsory bytes at the bandwidth of the level they live in, and, for what is tiny, the cost of a
//! fork-join or of looking at the clock. The largest is *attainable*; where one thread alone, without a fork-join, can be faster, its
//! largest is. Activations live in the nearest level that holds all the
//! step's bytes, since the step before has just written them; weights in the nearest one that holds all the model's weights and its
//! peak of activations, since a whole inference lies between two uses. The *floor* leaves the overhead out.

use super::{Level, Machine};
use crate::analysis::Demand;

/// What sets the least time of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Bytes, at this level.
    Memory(Level),
    /// Handing out work, or looking at the clock.
    Overhead,
}

impl Bound {
    /// `compute`, `L1` … `DRAM`, `overhead`.
    pub fn name(self) -> String {
        match self {
            Bound::Compute => "compute".to_string(),
            Bound::Memory(level) => level.name(),
            Bound::Overhead => "overhead".to_string(),
        }
    }
}

/// The least time of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roof {
    /// What sets it.
    pub bound: Bound,
    /// With overhead, in seconds.
    pub attainable_s: f64,
    /// Without.
    pub floor_s: f64,
}

/// A memory level as one number of threads sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Shelf {
    /// Which.
    pub level: Level,
    /// What fits; `u64::MAX` for main memory.
    pub bytes: u64,
    /// Bytes read per second.
    pub read_bytes_per_s: f64,
    /// Bytes read and written per second while copying.
    pub copy_bytes_per_s: f64,
}

/// The ceilings for one instruction set and number of threads.
#[derive(Debug, Clone, PartialEq)]
pub struct Ceilings {
    /// Threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: String,
    /// Multiply-adds per second, `float32`.
    pub peak_madds_per_s: f64,
    /// Levels, nearest first; the last is main memory.
    pub shelves: Vec<Shelf>,
    /// Seconds of a fork-join, or of a clock reading where there is one thread.
    pub overhead_s: f64,
    /// Those of one thread, where there are more.
    pub alone: Option<Box<Ceilings>>,
}

impl Ceilings {
    /// Ceilings of a machine for an instruction set and a number of threads. Between two probed numbers of threads the figures lie on
    /// a line; beyond the largest they grow no further. `None` where the probe lacks the instruction set.
    pub fn of(machine: &Machine, isa: &str, threads: usize) -> Option<Ceilings> {
        let low = machine.reach.iter().rfind(|r| r.threads <= threads).or(machine.reach.first())?;
        let high = machine.reach.iter().find(|r| r.threads >= threads).unwrap_or(low);
        let span = high.threads.saturating_sub(low.threads);
        let share = if span > 0 { (threads.saturating_sub(low.threads)) as f64 / span as f64 } else { 0.0 };
        let line = |a: f64, b: f64| a + (b - a) * share;
        let peak =
            |r: &super::Reach| r.peaks.iter().find(|p| p.isa == isa && p.dtype == "float32").map(|p| p.madds_per_s);
        let mut shelves = Vec::new();
        for (a, b) in low.memory.iter().zip(&high.memory) {
            let cache = machine.caches.iter().find(|c| Level::Cache(c.level) == a.level);
            // Caches that are not shared by all add up.
            let bytes = cache.map_or(u64::MAX, |c| c.bytes.saturating_mul(threads.div_ceil(c.shared_by.max(1)) as u64));
            shelves.push(Shelf {
                level: a.level,
                bytes,
                read_bytes_per_s: line(a.read_bytes_per_s, b.read_bytes_per_s),
                copy_bytes_per_s: line(a.copy_bytes_per_s, b.copy_bytes_per_s),
            });
        }
        let fork_join = line(low.fork_join_s, high.fork_join_s);
        let peak_madds_per_s = line(peak(low)?, peak(high)?);
        let usable = |v: f64| v.is_finite() && v > 0.0;
        let all = shelves.iter().all(|s| usable(s.read_bytes_per_s) && usable(s.copy_bytes_per_s));
        (usable(peak_madds_per_s) && all && !shelves.is_empty()).then(|| Ceilings {
            threads,
            isa: isa.to_string(),
            peak_madds_per_s,
            shelves,
            overhead_s: fork_join.max(machine.timer_s),
            alone: if threads > 1 { Ceilings::of(machine, isa, 1).map(Box::new) } else { None },
        })
    }

    /// The nearest level that holds so many bytes.
    pub fn shelf(&self, bytes: u64) -> &Shelf {
        self.shelves.iter().find(|s| bytes <= s.bytes).unwrap_or(&self.shelves[self.shelves.len() - 1])
    }

    /// FLOPs per byte read from a level at which arithmetic and reading take equally long.
    pub fn ridge(&self, shelf: &Shelf) -> f64 {
        2.0 * self.peak_madds_per_s / shelf.read_bytes_per_s
    }

    /// The least time of a step, in a model that keeps `resident_bytes` (weights and peak of activations) going.
    pub fn roof(&self, demand: &Demand, resident_bytes: u64) -> Roof {
        if demand.bytes() == 0 && demand.best_madds == 0 && demand.other_flops == 0 {
            // A view: there is nothing to do.
            return Roof { bound: Bound::Overhead, attainable_s: 0.0, floor_s: 0.0 };
        }
        // One operation of another kind takes the place of a multiply-add's half, as FLOPs are counted.
        let compute_s = (demand.best_madds as f64 + demand.other_flops as f64 / 2.0) / self.peak_madds_per_s;
        let near = self.shelf(demand.bytes());
        let activations_s = time_s(near, demand.read_bytes, demand.write_bytes);
        let far = self.shelf(resident_bytes.max(demand.bytes()));
        let weights_s = time_s(far, demand.weight_bytes, 0);
        // Reading from one level may go on beside reading from another: no more than the larger is certain.
        let (memory_s, level) =
            if weights_s > activations_s { (weights_s, far.level) } else { (activations_s, near.level) };
        let floor_s = compute_s.max(memory_s);
        let bound = if self.overhead_s > floor_s {
            Bound::Overhead
        } else if compute_s >= memory_s {
            Bound::Compute
        } else {
            Bound::Memory(level)
        };
        let roof = Roof { bound, attainable_s: floor_s.max(self.overhead_s), floor_s };
        match self.alone.as_ref().map(|c| c.roof(demand, resident_bytes)) {
            Some(one) if one.attainable_s < roof.attainable_s => Roof { attainable_s: one.attainable_s, ..roof },
            _ => roof,
        }
    }
}

/// Seconds to read and write so many bytes: as much as possible as a copy, the rest alone.
fn time_s(shelf: &Shelf, read: u64, written: u64) -> f64 {
    let both = read.min(written) as f64;
    let (read, written) = (read as f64 - both, written as f64 - both);
    (2.0 * both + written) / shelf.copy_bytes_per_s + read / shelf.read_bytes_per_s
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::{Bandwidth, Cache, Identity, Peak, Reach};
    use super::*;

    /// Round numbers: 10 and 20 GMAdd/s; L1 32 KiB 100 GB/s, L2 512 KiB 50 GB/s, DRAM 10 GB/s; half that when copying; 1 µs fork-join.
    pub(crate) fn machine() -> Machine {
        let reach = |threads: usize| {
            let t = threads as f64;
            let at = |level, gb: f64| Bandwidth {
                level,
                read_bytes_per_s: gb * t * 1e9,
                copy_bytes_per_s: gb * t * 0.5e9,
                buffer_bytes: 1024,
            };
            Reach {
                threads,
                peaks: vec![Peak { isa: "fake".into(), dtype: "float32".into(), madds_per_s: 10e9 * t }],
                memory: vec![at(Level::Cache(1), 100.0), at(Level::Cache(2), 50.0), at(Level::Dram, 10.0)],
                fork_join_s: if threads > 1 { 1e-6 } else { 0.0 },
            }
        };
        Machine {
            identity: Identity {
                cpu: "Test CPU".into(),
                cores: 3,
                platform: "test os".into(),
                isas: vec!["fake".into()],
                version: "0".into(),
            },
            probed_unix_s: 1_000_000,
            probe_s: 1.0,
            steadiness: 1.0,
            timer_s: 50e-9,
            caches: vec![
                Cache { level: 1, bytes: 32 << 10, shared_by: 1 },
                Cache { level: 2, bytes: 512 << 10, shared_by: 2 },
            ],
            reach: vec![reach(1), reach(3)],
        }
    }

    fn demand(madds: u64, read: u64, write: u64, weights: u64) -> Demand {
        Demand {
            madds,
            best_madds: madds,
            other_flops: 0,
            read_bytes: read,
            write_bytes: write,
            weight_bytes: weights,
            algorithm: "direct",
        }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} is not {b}");
    }

    #[test]
    fn the_largest_of_three_bounds_holds() {
        let c = Ceilings::of(&machine(), "fake", 1).unwrap();
        // 10^7 MAdds at 10^10 per second: a millisecond.
        let roof = c.roof(&demand(10_000_000, 100_000, 100_000, 0), 0);
        close(roof.attainable_s, 1e-3);
        assert_eq!((roof.bound, roof.bound.name().as_str()), (Bound::Compute, "compute"));
        // 200 kB fit the second level: 2 x 100 kB at 25 GB/s of copying are 8 µs.
        let roof = c.roof(&demand(1000, 100_000, 100_000, 0), 0);
        close(roof.attainable_s, 8e-6);
        assert_eq!(roof.bound, Bound::Memory(Level::Cache(2)));
        // 10 MB of weights of a model of 20 MB come from main memory: 1 ms; the activations beside them take less.
        let roof = c.roof(&demand(1_000_000, 1000, 1000, 10_000_000), 20_000_000);
        close(roof.attainable_s, 1e-3);
        assert_eq!(roof.bound.name(), "DRAM");
        // Weights that fit a cache still come from memory when the rest of the model pushes them out.
        close(c.roof(&demand(1, 0, 0, 10_000), 20_000_000).attainable_s, 1e-6);
        close(c.roof(&demand(1, 0, 0, 10_000), 0).attainable_s, 1e-7);
        // Nothing to do costs a look at the clock, and nothing of the floor.
        let roof = c.roof(&demand(1, 0, 0, 0), 0);
        assert_eq!((roof.bound, roof.attainable_s), (Bound::Overhead, 50e-9));
        close(roof.floor_s, 1e-10);
        // More is read than written: 10 kB copied, 20 kB only read, in the first level.
        close(time_s(&c.shelves[0], 30_000, 10_000), 20_000.0 / 50e9 + 20_000.0 / 100e9);
        close(time_s(&c.shelves[0], 0, 10_000), 10_000.0 / 50e9);
    }

    #[test]
    fn other_operations_take_half_a_multiply_add() {
        let c = Ceilings::of(&machine(), "fake", 1).unwrap();
        let roof = c.roof(&Demand { other_flops: 4_000_000, ..demand(8_000_000, 0, 0, 0) }, 0);
        close(roof.floor_s, 1e-3);
    }

    #[test]
    fn threads_lie_on_a_line_and_private_caches_add_up() {
        let m = machine();
        close(Ceilings::of(&m, "fake", 2).unwrap().peak_madds_per_s, 20e9);
        let c = Ceilings::of(&m, "fake", 3).unwrap();
        close(c.peak_madds_per_s, 30e9);
        close(c.overhead_s, 1e-6);
        // Three first levels of 32 KiB, two second levels shared by two threads each.
        assert_eq!((c.shelves[0].bytes, c.shelves[1].bytes), (96 << 10, 1 << 20));
        assert_eq!(c.shelf(97 << 10).level, Level::Cache(2));
        assert_eq!(c.shelf(u64::MAX).level, Level::Dram);
        // Too small to split: 1000 MAdds take one thread 100 ns, and handing them out would take a microsecond.
        let roof = c.roof(&demand(1000, 0, 0, 0), 0);
        assert_eq!(roof.bound, Bound::Overhead);
        close(roof.attainable_s, 1e-7);
        close(roof.floor_s, 1e-7 / 3.0);
        // A view is nothing.
        assert_eq!(c.roof(&demand(0, 0, 0, 0), 0).attainable_s, 0.0);
        close(Ceilings::of(&m, "fake", 9).unwrap().peak_madds_per_s, 30e9);
        assert!(Ceilings::of(&m, "mmx", 1).is_none());
        close(c.ridge(&c.shelves[2]), 2.0);
    }
}
