//! Measures this machine's ceilings: arithmetic on registers, bytes from each cache and from memory, the cost of a fork-join of the
//! engine's own pool and of reading the clock. Takes one to two seconds.
//!
//! A shared machine is slow for moments and never faster than it is: everything is measured in short bursts, in several passes some
//! time apart, and the best burst counts. With several threads a burst begins when all have met, and the slowest thread ends it. What
//! must hold between figures (near is no slower than far, all threads no slower than one) fills in what a busy moment took.

use super::{Bandwidth, Cache, Identity, Level, Machine, Peak, Reach, affinity, host, now_unix_s};
use crate::engine::pool::Pool;
use crate::simd::probe::{Copy, Fma, Read, STRIDE};
use crate::simd::{Isa, dispatch};
use crate::tensor::Pages;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long each figure is measured, per pass.
const ARITHMETIC: Duration = Duration::from_millis(18);
const CACHED: Duration = Duration::from_millis(16);
const UNCACHED: Duration = Duration::from_millis(50);
/// Multiply-add rounds of a burst: some tens of microseconds.
const BURST_ROUNDS: usize = 8_000;
/// Bytes of a burst on a cache.
const BURST_BYTES: usize = 4 << 20;
/// Values of a cache line.
const LINE: usize = 16;
/// Most passes over everything, and how long passes are begun: on a busy machine one takes long enough.
const PASSES: usize = 4;
const PASSING: Duration = Duration::from_millis(1200);
/// Main memory is measured on at least this much, and at most the other.
const DRAM_LEAST: u64 = 64 << 20;
const DRAM_MOST: u64 = 1 << 30;
/// Patience with threads that the system does not schedule.
const PATIENCE: Duration = Duration::from_millis(3);

/// Probes. `tell` hears how far it is, 0 to 1.
pub fn probe(tell: &dyn Fn(f64)) -> Machine {
    let start = Instant::now();
    let cores = host::cores();
    let threads: Vec<usize> = if cores > 1 { vec![1, cores] } else { vec![1] };
    let mut caches = caches_from(Path::new("/sys/devices/system/cpu/cpu0/cache"));
    if caches.is_empty() {
        caches = sweep();
    }
    let last = caches.iter().map(|c| c.bytes).max().unwrap_or(0);
    let room = host::available_memory_bytes().map_or(DRAM_MOST, |free| free / 4);
    let dram = (4 * last).clamp(DRAM_LEAST, DRAM_MOST).min(room.max(DRAM_LEAST / 4));
    let isas = Isa::available();
    let mut pools: Vec<Bench> = threads.iter().map(|&t| Bench::new(t, dram)).collect();
    let mut reach: Vec<Reach> =
        threads.iter().map(|&t| Reach { threads: t, peaks: vec![], memory: vec![], fork_join_s: 0.0 }).collect();
    let (mut bursts, mut done) = (Vec::new(), 0);
    let parts = PASSES * threads.len() * (isas.len() + caches.len() + 1);
    let mut step = || {
        done += 1;
        tell(done as f64 / parts as f64);
    };
    for pass in 0..PASSES {
        if pass > 0 && start.elapsed() > PASSING {
            break;
        }
        for (bench, reach) in pools.iter_mut().zip(&mut reach) {
            for &isa in &isas {
                let rates = bench.arithmetic(isa);
                let best = rates.iter().copied().fold(0.0, f64::max);
                if bench.threads == 1 && Some(&isa) == isas.last() {
                    bursts.extend(rates);
                }
                let name = isa.name().to_string();
                match reach.peaks.iter_mut().find(|p| p.isa == name) {
                    Some(p) => p.madds_per_s = p.madds_per_s.max(best),
                    None => reach.peaks.push(Peak { isa: name, dtype: "float32".into(), madds_per_s: best }),
                }
                step();
            }
            let levels = caches.iter().map(Some).chain([None]);
            for (i, cache) in levels.enumerate() {
                let one = bench.bandwidth(*isas.last().unwrap_or(&Isa::Portable), cache, dram);
                match reach.memory.get_mut(i) {
                    Some(m) => {
                        m.read_bytes_per_s = m.read_bytes_per_s.max(one.read_bytes_per_s);
                        m.copy_bytes_per_s = m.copy_bytes_per_s.max(one.copy_bytes_per_s);
                    }
                    None => reach.memory.push(one),
                }
                step();
            }
            let cost = bench.fork_join();
            reach.fork_join_s = if reach.fork_join_s > 0.0 { reach.fork_join_s.min(cost) } else { cost };
        }
    }
    tell(1.0);
    settle(&mut reach);
    bursts.sort_by(f64::total_cmp);
    let middle = bursts.get(bursts.len() / 2).copied().unwrap_or(0.0);
    let steadiness = bursts.last().filter(|b| **b > 0.0).map_or(0.0, |best| middle / best);
    Machine {
        identity: Identity::here(),
        probed_unix_s: now_unix_s(),
        probe_s: start.elapsed().as_secs_f64(),
        steadiness,
        timer_s: timer_s(),
        caches,
        reach,
    }
}

/// Makes the figures agree: several threads together reach at least what one does, one alone at least its part of what several do, and
/// a level at least what the next one farther away does.
fn settle(reach: &mut [Reach]) {
    fn agree(one: &mut f64, many: &mut f64, threads: usize) {
        *many = many.max(*one);
        *one = one.max(*many / threads as f64);
    }
    for r in &mut *reach {
        for k in (1..r.memory.len()).rev() {
            let (near, far) = r.memory.split_at_mut(k);
            near[k - 1].read_bytes_per_s = near[k - 1].read_bytes_per_s.max(far[0].read_bytes_per_s);
            near[k - 1].copy_bytes_per_s = near[k - 1].copy_bytes_per_s.max(far[0].copy_bytes_per_s);
        }
    }
    if let [one, many] = reach {
        for (a, b) in one.peaks.iter_mut().zip(&mut many.peaks) {
            agree(&mut a.madds_per_s, &mut b.madds_per_s, many.threads);
        }
        for (a, b) in one.memory.iter_mut().zip(&mut many.memory) {
            agree(&mut a.read_bytes_per_s, &mut b.read_bytes_per_s, many.threads);
            agree(&mut a.copy_bytes_per_s, &mut b.copy_bytes_per_s, many.threads);
        }
    }
}

/// The least cost of reading the clock, in seconds.
pub fn timer_s() -> f64 {
    const READS: u32 = 256;
    let batch = || {
        let start = Instant::now();
        for _ in 0..READS {
            std::hint::black_box(Instant::now());
        }
        start.elapsed().as_secs_f64() / f64::from(READS)
    };
    (0..8).map(|_| batch()).fold(f64::INFINITY, f64::min)
}

/// A number of threads with a buffer each.
struct Bench {
    pool: Pool,
    threads: usize,
    buffers: Vec<Mutex<Pages>>,
}

impl Bench {
    fn new(threads: usize, dram: u64) -> Bench {
        let cores = affinity::cores_for(threads);
        // The pool's workers keep to their cores; the caller is left where it is, as the rest of the program runs on it.
        let pool = Pool::with_hook(threads, move |id| {
            if let Some(&cpu) = cores.get(id) {
                affinity::pin(cpu);
            }
        });
        let threads = pool.threads();
        let each = (dram as usize / 4 / threads).next_multiple_of(2 * STRIDE) + LINE;
        // On huge pages where there are any, as activations and packed weights are.
        let buffer = |_| {
            let mut pages = Pages::zeros(each);
            pages.fill(1.0);
            Mutex::new(pages)
        };
        Bench { pool, threads, buffers: (0..threads).map(buffer).collect() }
    }

    /// Rates of bursts in which every thread does `work(thread)`, which gives an amount. Bursts whose threads did not meet are
    /// left out; at least one burst is made.
    fn rates(&self, time: Duration, work: &(dyn Fn(usize) -> f64 + Sync)) -> Vec<f64> {
        let _active = self.pool.activate();
        let (start, mut rates) = (Instant::now(), Vec::new());
        let mut bursts = 0;
        while bursts == 0 || start.elapsed() < if bursts < 3 { 4 * time } else { time } {
            bursts += 1;
            let (here, missed) = (AtomicUsize::new(0), AtomicBool::new(false));
            let nanos: Vec<AtomicU64> = (0..self.threads).map(|_| AtomicU64::new(0)).collect();
            let amount: Mutex<f64> = Mutex::new(0.0);
            self.pool.run(self.threads, |chunk, _| {
                if !meet(&here, self.threads) {
                    missed.store(true, Ordering::Relaxed);
                }
                let begin = Instant::now();
                let n = work(chunk);
                nanos[chunk].store(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
                *amount.lock().unwrap_or_else(PoisonError::into_inner) += n;
            });
            let longest = nanos.iter().map(|n| n.load(Ordering::Relaxed)).max().unwrap_or(0);
            if longest > 0 && !missed.load(Ordering::Relaxed) {
                rates.push(*amount.lock().unwrap_or_else(PoisonError::into_inner) / (longest as f64 * 1e-9));
            }
        }
        rates
    }

    fn arithmetic(&self, isa: Isa) -> Vec<f64> {
        let with = |f: &(dyn Fn(usize) -> usize + Sync)| self.rates(ARITHMETIC / 3, &|_| f(BURST_ROUNDS) as f64);
        let mut rates = with(&|rounds| dispatch(isa, Fma::<3> { rounds: 3 * rounds }));
        rates.extend(with(&|rounds| dispatch(isa, Fma::<10> { rounds })));
        rates.extend(with(&|rounds| dispatch(isa, Fma::<12> { rounds })));
        // Of the number of chains that does best: the others' rates say nothing about the machine.
        let best = rates.iter().copied().fold(0.0, f64::max);
        rates.retain(|r| *r > 0.5 * best);
        rates
    }

    /// A cache is measured on half of it; main memory on the whole buffer.
    fn bandwidth(&self, isa: Isa, cache: Option<&Cache>, dram: u64) -> Bandwidth {
        let here = |c: &Cache| c.bytes / 2 / self.threads.min(c.shared_by.max(1)) as u64;
        let each = cache.map_or(dram / self.threads as u64, here) as usize / 4;
        let each = (each / (2 * STRIDE)).max(2) * 2 * STRIDE;
        let passes = if cache.is_some() { (BURST_BYTES / 4 / each).max(1) } else { 1 };
        let time = if cache.is_some() { CACHED } else { UNCACHED };
        let lock = |t: usize| self.buffers[t].lock().unwrap_or_else(PoisonError::into_inner);
        let best = |rates: Vec<f64>| rates.into_iter().fold(0.0, f64::max);
        let read = best(self.rates(time / 2, &|t| {
            let buffer = lock(t);
            let at = aligned(&buffer);
            let part = &buffer[at..at + each.min(buffer.len() - LINE)];
            for _ in 0..passes {
                std::hint::black_box(dispatch(isa, Read(std::hint::black_box(part))));
            }
            (passes * part.len() * 4) as f64
        }));
        let copy = best(self.rates(time / 2, &|t| {
            let mut buffer = lock(t);
            let (at, each) = (aligned(&buffer), each.min(buffer.len() - LINE));
            // Not a multiple of a page apart: some cores then take a load for one of the store before it.
            let (from, to) = buffer[at..at + each].split_at_mut(each / 2);
            let (from, to) = (&from[..each / 2 - STRIDE], &mut to[STRIDE..]);
            for _ in 0..passes {
                dispatch(isa, Copy(std::hint::black_box(from), std::hint::black_box(to)));
            }
            (passes * 2 * from.len() * 4) as f64
        }));
        Bandwidth {
            level: cache.map_or(Level::Dram, |c| Level::Cache(c.level)),
            read_bytes_per_s: read,
            copy_bytes_per_s: copy,
            buffer_bytes: (each * 4 * self.threads) as u64,
        }
    }

    /// Handing out one chunk per thread, all of them arriving, and coming back.
    fn fork_join(&self) -> f64 {
        const JOINS: u32 = 64;
        if self.threads == 1 {
            return 0.0;
        }
        let _active = self.pool.activate();
        let batch = || {
            let missed = AtomicBool::new(false);
            let start = Instant::now();
            for _ in 0..JOINS {
                let here = AtomicUsize::new(0);
                self.pool.run(self.threads, |_, _| {
                    if !meet(&here, self.threads) {
                        missed.store(true, Ordering::Relaxed);
                    }
                });
            }
            let took = start.elapsed().as_secs_f64() / f64::from(JOINS);
            (took, missed.load(Ordering::Relaxed))
        };
        let (start, mut batches) = (Instant::now(), Vec::new());
        while batches.len() < 2 || (batches.len() < 24 && start.elapsed() < CACHED) {
            batches.push(batch());
        }
        let least = |all: bool| batches.iter().filter(|b| all || !b.1).map(|b| b.0).fold(f64::INFINITY, f64::min);
        if least(false).is_finite() { least(false) } else { least(true) }
    }
}

/// The first value of a buffer that begins a cache line: vectors that cross lines are slower, and packed data does not.
fn aligned(buffer: &[f32]) -> usize {
    buffer.as_ptr().align_offset(4 * LINE).min(LINE)
}

/// Waits until all have come; whether they did.
fn meet(here: &AtomicUsize, all: usize) -> bool {
    here.fetch_add(1, Ordering::AcqRel);
    let mut start = None;
    let mut looks = 0u32;
    while here.load(Ordering::Acquire) < all {
        std::hint::spin_loop();
        looks += 1;
        // The clock is looked at rarely: it costs more than the meeting.
        if looks.is_multiple_of(1024) && start.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return false;
        }
    }
    true
}

/// Data caches as Linux lists them.
fn caches_from(folder: &Path) -> Vec<Cache> {
    let mut out: Vec<Cache> = Vec::new();
    for i in 0..16 {
        let read = |what: &str| std::fs::read_to_string(folder.join(format!("index{i}")).join(what)).ok();
        let (Some(kind), Some(level), Some(size)) = (read("type"), read("level"), read("size")) else { break };
        let (Some(bytes), Ok(level)) = (size_of(&size), level.trim().parse()) else { continue };
        let shared = read("shared_cpu_list").map_or(1, |t| affinity::parse_list(&t).len().max(1));
        if kind.trim() != "Instruction" && bytes > 0 {
            out.push(Cache { level, bytes, shared_by: shared });
        }
    }
    out.sort_by_key(|c| c.level);
    out.dedup_by_key(|c| c.level);
    out
}

/// `32K`, `8192K`, `32M`.
fn size_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) = match text.strip_suffix(['K', 'k']) {
        Some(d) => (d, 1 << 10),
        None => text.strip_suffix(['M', 'm']).map_or((text, 1), |d| (d, 1 << 20)),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Caches found by reading more and more: for systems that do not list them.
fn sweep() -> Vec<Cache> {
    let bench = Bench::new(1, DRAM_LEAST);
    let isa = Isa::best();
    let sizes = (13..26).map(|i| 1u64 << i);
    let rates: Vec<(u64, f64)> = sizes
        .map(|bytes| {
            let b = bench.bandwidth(isa, Some(&Cache { level: 0, bytes: 2 * bytes, shared_by: 1 }), DRAM_LEAST);
            (bytes, b.read_bytes_per_s)
        })
        .collect();
    levels_in(&rates).into_iter().zip(1..).map(|(bytes, level)| Cache { level, bytes, shared_by: 1 }).collect()
}

/// Sizes after which reading becomes much slower: the ends of the caches, at most three.
fn levels_in(rates: &[(u64, f64)]) -> Vec<u64> {
    let mut out = Vec::new();
    let mut plateau = 0.0f64;
    let mut falling = false;
    for pair in rates.windows(2) {
        let ((bytes, rate), (_, next)) = (pair[0], pair[1]);
        plateau = if falling { rate } else { plateau.max(rate) };
        let falls = next < 0.7 * plateau;
        if falls && !falling {
            out.push(bytes);
        }
        falling = falls && next < 0.85 * rate;
        if falls && !falling {
            plateau = next;
        }
    }
    out.truncate(3);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_read_as_linux_lists_them() {
        let dir = tempfile::tempdir().unwrap();
        let put = |i: usize, kind: &str, level: &str, size: &str, cpus: &str| {
            let folder = dir.path().join(format!("index{i}"));
            std::fs::create_dir(&folder).unwrap();
            for (name, text) in [("type", kind), ("level", level), ("size", size), ("shared_cpu_list", cpus)] {
                std::fs::write(folder.join(name), format!("{text}\n")).unwrap();
            }
        };
        put(0, "Data", "1", "32K", "0");
        put(1, "Instruction", "1", "32K", "0");
        put(2, "Unified", "2", "512K", "0-1");
        put(3, "Unified", "3", "32M", "0-3,8-11");
        let want = [(1, 32 << 10, 1), (2, 512 << 10, 2), (3, 32 << 20, 8)];
        let got: Vec<_> = caches_from(dir.path()).iter().map(|c| (c.level, c.bytes, c.shared_by)).collect();
        assert_eq!(got, want);
        assert_eq!(caches_from(&dir.path().join("none")), []);
        assert_eq!((size_of("12"), size_of("x"), size_of("99999999999999999999K")), (Some(12), None, None));
    }

    #[test]
    fn steps_in_the_speed_of_reading_are_caches() {
        let kib = |n: u64| n << 10;
        let rates = [
            (8, 100.0),
            (16, 102.0),
            (32, 99.0),
            (64, 60.0),
            (128, 50.0),
            (256, 50.0),
            (512, 30.0),
            (1024, 20.0),
            (2048, 20.0),
        ];
        let rates: Vec<(u64, f64)> = rates.iter().map(|&(k, r)| (kib(k), r)).collect();
        assert_eq!(levels_in(&rates), [kib(32), kib(256)]);
        assert!(levels_in(&[(kib(8), 10.0), (kib(16), 10.0)]).is_empty());
    }

    #[test]
    fn figures_are_made_to_agree() {
        let reach = |threads, peak, memory: &[f64]| Reach {
            threads,
            peaks: vec![Peak { isa: "x".into(), dtype: "float32".into(), madds_per_s: peak }],
            memory: (memory.iter().zip([Level::Cache(1), Level::Cache(2), Level::Dram]))
                .map(|(&v, level)| Bandwidth { level, read_bytes_per_s: v, copy_bytes_per_s: v, buffer_bytes: 1 })
                .collect(),
            fork_join_s: 0.0,
        };
        let mut both = vec![reach(1, 10.0, &[50.0, 60.0, 8.0]), reach(4, 60.0, &[100.0, 90.0, 7.0])];
        settle(&mut both);
        let read = |r: &Reach| r.memory.iter().map(|b| b.read_bytes_per_s).collect::<Vec<_>>();
        assert_eq!((both[0].peaks[0].madds_per_s, both[1].peaks[0].madds_per_s), (15.0, 60.0));
        assert_eq!(read(&both[0]), [60.0, 60.0, 8.0]);
        assert_eq!(read(&both[1]), [100.0, 90.0, 8.0]);
    }

    /// What must hold on any machine, however busy.
    #[test]
    fn a_probe_gives_usable_ceilings() {
        let told = std::cell::Cell::new(0.0);
        let m = probe(&|share| told.set(share));
        assert_eq!(told.get(), 1.0);
        assert!(m.timer_s > 0.0 && m.timer_s < 1e-3, "{}", m.timer_s);
        assert!(m.steadiness > 0.0 && m.steadiness <= 1.0);
        for r in &m.reach {
            assert_eq!(r.peaks.len(), Isa::available().len());
            assert!(r.peaks.iter().all(|p| p.madds_per_s > 1e7), "{r:?}");
            assert_eq!(r.memory.last().map(|b| b.level), Some(Level::Dram));
            assert!(r.memory.iter().all(|b| b.read_bytes_per_s > 1e7 && b.copy_bytes_per_s > 1e7), "{r:?}");
            assert!(r.fork_join_s.is_finite() && (r.threads == 1) == (r.fork_join_s == 0.0));
            assert!(super::super::Ceilings::of(&m, Isa::best().name(), r.threads).is_some());
        }
    }
}
