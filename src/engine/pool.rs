//! The fork-join pool: persistent workers that spin during a run and park between runs.
//!
//! A layer here takes tens of microseconds, a futex wake about ten: so workers spin while an inference is active
//! ([`Pool::activate`]) and sleep only afterwards. A line of memory may need 0.3 µs from core to core: so each thread has a
//! share of the chunks and counts through it on a line of its own, and what a thread wrote in one step it mostly reads in the
//! next. Who is done takes from the shares of the others, since a core that is slowed from outside must not hold them up. A
//! worker that the system has not scheduled does not hold up a run either: the caller waits only for chunks that were begun.
//!
//! [`Pool::run`] calls a shared closure per chunk. [`Pool::for_chunks`] and [`Pool::for_tiles`] give every task its
//! own part of a destination, safely. [`Pool::scratch`] lends buffers that live as long as the pool.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;

use crate::simd::TileMut;

/// Looks at the state word before a worker parks, when no inference is active: some tens of microseconds.
const IDLE_SPINS: u32 = 2_000;
/// Looks between offers of the core to other threads, while spinning.
const SPINS_PER_YIELD: u32 = 512;

/// Low bits of a counter: chunks; above, which run they belong to.
const CHUNK_BITS: u32 = 24;
/// Chunks of one run; more are done in groups.
const MAX_CHUNKS: usize = (1 << CHUNK_BITS) - 1;
/// Most threads of a pool.
const MAX_THREADS: usize = 1 << 12;

type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// What a run does; on its caller's stack.
struct Job<'a> {
    task: &'a Task<'a>,
}

/// A run as a thread sees it. The job may be looked at only for a claimed chunk.
#[derive(Clone, Copy)]
struct Run {
    epoch: u64,
    chunks: usize,
    job: *const Job<'static>,
}

/// What all threads read: written once per run, on lines of its own.
#[repr(align(128))]
struct Published {
    /// `run << CHUNK_BITS | chunks`: one word, so that a thread that comes late cannot mistake the shares.
    run: AtomicU64,
    job: AtomicPtr<Job<'static>>,
}

/// A thread's share of the chunks, on lines of its own. Both hold `run << CHUNK_BITS | chunks`.
#[repr(align(128))]
#[derive(Default)]
struct Share {
    /// Chunks of the share that were handed out.
    begun: AtomicU64,
    /// Chunks, of any share, that this thread has done.
    done: AtomicU64,
}

struct Shared {
    published: Published,
    shares: Vec<Share>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    active: AtomicUsize,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    gate: Mutex<()>,
    wake: Condvar,
}

thread_local! {
    /// The thread's id in the run it is inside of, so that a nested run is done in place.
    static INSIDE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Buffers a thread keeps between tasks, grown on demand.
#[derive(Default)]
pub struct Scratch {
    /// First buffer.
    pub a: Vec<f32>,
    /// Second buffer.
    pub b: Vec<f32>,
    /// What `a` holds, as the user of the scratch encodes it; unequal to every fresh [`Pool::ticket`].
    pub tag_a: (u64, usize),
    /// What `b` holds.
    pub tag_b: (u64, usize),
}

impl Scratch {
    /// Buffer `v` with at least `len` values; what was there stays.
    pub fn grow(v: &mut Vec<f32>, len: usize) -> &mut [f32] {
        if v.len() < len {
            v.resize(len, 0.0);
        }
        &mut v[..len]
    }
}

/// How a destination `[outer][a][b][len]` is cut into tiles; the last tiles of an axis may be smaller.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Images or batches; a tile never spans two.
    pub outer: usize,
    /// Planes (channel blocks).
    pub a: usize,
    /// Rows or pixels.
    pub b: usize,
    /// Values per row.
    pub len: usize,
    /// Planes per tile.
    pub a_tile: usize,
    /// Rows per tile.
    pub b_tile: usize,
    /// Values of a row per tile.
    pub len_tile: usize,
}

impl Grid {
    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        let n = |len: usize, tile: usize| len.div_ceil(tile.max(1));
        self.outer * n(self.a, self.a_tile) * n(self.b, self.b_tile) * n(self.len, self.len_tile)
    }
}

/// A set of threads that run loops together; the calling thread is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
    scratch: Vec<Mutex<Scratch>>,
    tickets: AtomicU64,
}

/// Workers spin instead of sleeping while one of these lives.
pub struct Active<'p> {
    shared: &'p Shared,
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.shared.active.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads` (at least 1), the caller included.
    pub fn new(threads: usize) -> Pool {
        Pool::with_hook(threads, |_| {})
    }

    /// As [`Pool::new`]; every worker first calls `hook(thread id)`, for example to pin itself to a core.
    pub fn with_hook(threads: usize, hook: impl Fn(usize) + Send + Sync + 'static) -> Pool {
        let threads = threads.clamp(1, MAX_THREADS);
        let shared = Arc::new(Shared {
            published: Published { run: AtomicU64::new(0), job: AtomicPtr::new(std::ptr::null_mut()) },
            shares: (0..threads).map(|_| Share::default()).collect(),
            panic: Mutex::new(None),
            active: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            gate: Mutex::new(()),
            wake: Condvar::new(),
        });
        let hook = Arc::new(hook);
        // A worker that cannot be started is one thread less, not a failure.
        let workers = (1..threads)
            .map_while(|id| {
                let (shared, hook) = (Arc::clone(&shared), Arc::clone(&hook));
                std::thread::Builder::new()
                    .name(format!("madd-prof-{id}"))
                    .spawn(move || {
                        hook(id);
                        work(&shared, id);
                    })
                    .ok()
            })
            .collect::<Vec<_>>();
        let scratch = (0..=workers.len()).map(|_| Mutex::default()).collect();
        Pool { shared, workers, turn: Mutex::new(()), scratch, tickets: AtomicU64::new(1) }
    }

    /// Threads of the pool, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Keep the workers spinning until the guard is dropped: hold one during an inference.
    pub fn activate(&self) -> Active<'_> {
        self.shared.active.fetch_add(1, Ordering::SeqCst);
        self.shared.wake_all();
        Active { shared: &self.shared }
    }

    /// A number no earlier call returned: marks what a scratch buffer holds.
    pub fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Use the scratch buffers of thread `id` (as a task was told); fresh ones if they are in use further out.
    pub fn scratch<R>(&self, id: usize, f: impl FnOnce(&mut Scratch) -> R) -> R {
        match self.scratch[id].try_lock() {
            Ok(mut s) => f(&mut s),
            Err(TryLockError::Poisoned(s)) => f(&mut s.into_inner()),
            Err(TryLockError::WouldBlock) => f(&mut Scratch::default()),
        }
    }

    /// Call `task(chunk, thread id)` for every chunk below `chunks` and wait for all.
    ///
    /// Each thread begins with an equal share of neighbouring chunks, in rising order, and then takes from the others'. A panic
    /// in a task is raised again here once no task runs any more; chunks not yet begun are dropped. Called from inside a
    /// task, the chunks are done in place; concurrent callers take turns.
    pub fn run(&self, chunks: usize, task: impl Fn(usize, usize) + Sync) {
        self.run_task(chunks, &task);
    }

    fn run_task(&self, chunks: usize, task: &Task<'_>) {
        if let Some(id) = INSIDE.get() {
            let id = if id < self.threads() { id } else { 0 };
            return (0..chunks).for_each(|c| task(c, id));
        }
        if chunks <= 1 || self.workers.is_empty() {
            let _inside = Inside::enter(0);
            return (0..chunks).for_each(|c| task(c, 0));
        }
        if chunks > MAX_CHUNKS {
            let group = chunks.div_ceil(MAX_CHUNKS);
            return self.run_task(chunks.div_ceil(group), &|g, id| {
                (g * group..((g + 1) * group).min(chunks)).for_each(|c| task(c, id));
            });
        }
        let _turn = lock(&self.turn);
        let shared = &*self.shared;
        let job = Job { task };
        let job: *const Job<'_> = &job;
        let epoch = (shared.published.run.load(Ordering::Relaxed) >> CHUNK_BITS) + 1;
        let word = epoch << CHUNK_BITS | chunks as u64;
        let run = Run { epoch, chunks, job: job.cast() };
        // No claim of an earlier run can succeed any more, since its shares are used up: who reads this job before the new run
        // is published does not act on it.
        shared.published.job.store(job.cast_mut().cast(), Ordering::Relaxed);
        if shared.active.load(Ordering::Relaxed) > 0 {
            // Workers are awake: no need to wait until the line has come over.
            shared.published.run.store(word, Ordering::Release);
        } else {
            shared.published.run.store(word, Ordering::SeqCst);
            shared.wake_all();
        }
        let own = shared.take(run, 0);
        let mut spins = 0u32;
        while own + shared.done_by_workers(epoch) < chunks {
            spin(&mut spins);
        }
        let panic = lock(&shared.panic).take();
        if let Some(payload) = panic {
            drop(_turn);
            resume_unwind(payload);
        }
    }

    /// Cut `dst` into parts of `chunk_len` (the last may be shorter) and call `f(index, part, thread id)` for each.
    pub fn for_chunks<T: Send>(&self, dst: &mut [T], chunk_len: usize, f: impl Fn(usize, &mut [T], usize) + Sync) {
        let (len, chunk_len) = (dst.len(), chunk_len.max(1));
        let base = Base(dst.as_mut_ptr());
        self.run(len.div_ceil(chunk_len), |chunk, id| {
            let at = chunk * chunk_len;
            // SAFETY: chunk numbers are handed out once each and address disjoint parts inside `dst`, which is
            // exclusively borrowed for the whole run; its elements may be sent to other threads.
            let part = unsafe { std::slice::from_raw_parts_mut(base.get().add(at), chunk_len.min(len - at)) };
            f(chunk, part, id);
        });
    }

    /// Cut `dst` where `starts` says, from 0 to its length in rising order, and call `f(index, part, thread id)` for each part.
    pub fn for_parts<T: Send>(&self, dst: &mut [T], starts: &[usize], f: impl Fn(usize, &mut [T], usize) + Sync) {
        let ends = (starts.first(), starts.last());
        assert!(ends == (Some(&0), Some(&dst.len())) && starts.is_sorted(), "{starts:?} over {} values", dst.len());
        let base = Base(dst.as_mut_ptr());
        self.run(starts.len() - 1, |i, id| {
            // SAFETY: numbers are handed out once each, and parts are disjoint and inside `dst`, since starts rise from 0 to its length, as
            // asserted; `dst` is exclusively borrowed for the whole run; its elements may be sent to other threads.
            let part = unsafe { std::slice::from_raw_parts_mut(base.get().add(starts[i]), starts[i + 1] - starts[i]) };
            f(i, part, id);
        });
    }

    /// Cut `dst`, seen as `[outer][a][b][len]`, into tiles and call `f(tile, thread id)` for each.
    ///
    /// Hand-out order, outermost first: outer, `b`, `a`, `len`: tasks that read the same rows follow each other.
    pub fn for_tiles(&self, dst: &mut [f32], grid: Grid, f: impl Fn(TileMut<'_>, usize) + Sync) {
        let Grid { b, b_tile, .. } = grid;
        self.tiles(dst, grid, b.div_ceil(b_tile.max(1)), |i| (i * b_tile).min(b), f);
    }

    /// As [`Pool::for_tiles`], with `b` cut into parts of `b_tile` rows or fewer that differ by one `unit` at the most, so that threads
    /// with as many parts as others have as much to do. Rows begin at multiples of the unit.
    pub fn for_even_tiles(&self, dst: &mut [f32], grid: Grid, unit: usize, f: impl Fn(TileMut<'_>, usize) + Sync) {
        let Grid { b, b_tile, .. } = grid;
        let units = b.div_ceil(unit.max(1));
        let parts = units.div_ceil((b_tile / unit.max(1)).max(1)).next_multiple_of(self.threads()).min(units);
        self.tiles(dst, grid, parts, |i| (i * units / parts.max(1) * unit).min(b), f);
    }

    /// Tiles with `b` in parts, of which `start(i)` tells where each begins: it rises from 0 to `b` at `parts`.
    fn tiles(
        &self,
        dst: &mut [f32],
        grid: Grid,
        parts: usize,
        start: impl Fn(usize) -> usize + Sync,
        f: impl Fn(TileMut<'_>, usize) + Sync,
    ) {
        let Grid { outer, a, b, len, a_tile, b_tile, len_tile } = grid;
        let size = [outer, a, b, len].iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        assert_eq!(size, Some(dst.len()), "{grid:?} over {} values", dst.len());
        assert!(a_tile > 0 && b_tile > 0 && len_tile > 0, "{grid:?}");
        if dst.is_empty() {
            return;
        }
        assert!(start(0) == 0 && start(parts) == b, "{grid:?} in {parts} parts");
        debug_assert!((0..parts).all(|i| start(i) < start(i + 1)), "{grid:?} in {parts} parts");
        let (na, nl) = (a.div_ceil(a_tile), len.div_ceil(len_tile));
        let base = Base(dst.as_mut_ptr());
        self.run(outer * na * parts * nl, |chunk, id| {
            let (rest, il) = (chunk / nl, chunk % nl);
            let (rest, ia) = (rest / na, rest % na);
            let (io, ib) = (rest / parts, rest % parts);
            let (a0, b0, c0) = (ia * a_tile, start(ib), il * len_tile);
            let dims = [a_tile.min(a - a0), start(ib + 1) - b0, len_tile.min(len - c0)];
            let origin = ((io * a + a0) * b + b0) * len + c0;
            // SAFETY: chunk numbers are handed out once each, and distinct ones address disjoint parts of `dst`, since starts
            // rise (both callers multiply the number of the part) and a part ends where the next begins; `dst` is exclusively
            // borrowed for the whole run; all indices are inside it by the asserted size and the asserted last start.
            let tile =
                unsafe { TileMut::from_raw(base.get().add(origin), dims, [b * len, len], [io, a0, b0, c0], origin) };
            f(tile, id);
        });
    }
}

/// A pointer tasks may share: what each does with it is argued where it is used.
struct Base<T>(*mut T);
// SAFETY: sharing the address is harmless; every dereference says why it may.
unsafe impl<T: Send> Sync for Base<T> {}
impl<T> Base<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _gate = lock(&self.shared.gate);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks; there is nothing to report here.
            let _ = worker.join();
        }
    }
}

/// Marks the thread as inside a run, also when a task unwinds.
struct Inside(Option<usize>);

impl Inside {
    fn enter(id: usize) -> Inside {
        Inside(INSIDE.replace(Some(id)))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

#[inline]
fn spin(count: &mut u32) {
    *count = count.wrapping_add(1);
    if count.is_multiple_of(SPINS_PER_YIELD) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

impl Shared {
    fn wake_all(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _gate = lock(&self.gate);
            self.wake.notify_all();
        }
    }

    /// Which chunks share `i` begins and ends with.
    fn bounds(&self, i: usize, chunks: usize) -> (usize, usize) {
        let n = self.shares.len();
        (i * chunks / n, (i + 1) * chunks / n)
    }

    /// The next chunk of share `i`, unless it is used up or the run is over.
    fn claim(&self, i: usize, run: Run) -> Option<usize> {
        let (start, end) = self.bounds(i, run.chunks);
        let begun = &self.shares[i].begun;
        let mut seen = begun.load(Ordering::Relaxed);
        loop {
            let at = match (seen >> CHUNK_BITS).cmp(&run.epoch) {
                std::cmp::Ordering::Less => 0,
                std::cmp::Ordering::Equal => (seen & MAX_CHUNKS as u64) as usize,
                std::cmp::Ordering::Greater => return None,
            };
            if start + at >= end {
                return None;
            }
            let next = run.epoch << CHUNK_BITS | (at + 1) as u64;
            // Release: what was read of the run was read before; it is over only after this chunk.
            match begun.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(start + at),
                Err(now) => seen = now,
            }
        }
    }

    /// Do chunks until none is left, those of the thread's own share first; how many. A panic is kept and uses up the rest.
    fn take(&self, run: Run, id: usize) -> usize {
        let _inside = Inside::enter(id);
        let done = Cell::new(0);
        let each = |act: &dyn Fn(usize)| {
            for i in 0..self.shares.len() {
                let before = done.get();
                while let Some(chunk) = self.claim((id + i) % self.shares.len(), run) {
                    // Counted also when it panics: it was begun and is over.
                    done.set(done.get() + 1);
                    act(chunk);
                }
                if done.get() > before {
                    self.publish(id, run.epoch, done.get());
                }
            }
        };
        // SAFETY: of a claimed chunk: the caller of the run keeps the job alive until every begun chunk is reported done.
        let result = catch_unwind(AssertUnwindSafe(|| each(&|chunk| unsafe { ((*run.job).task)(chunk, id) })));
        if let Err(payload) = result {
            lock(&self.panic).get_or_insert(payload);
            each(&|_| ());
            self.publish(id, run.epoch, done.get());
        }
        done.get()
    }

    fn publish(&self, id: usize, epoch: u64, done: usize) {
        self.shares[id].done.store(epoch << CHUNK_BITS | done as u64, Ordering::Release);
    }

    /// Chunks of run `epoch` that other threads than the caller's have done.
    fn done_by_workers(&self, epoch: u64) -> usize {
        let of = |s: &Share| {
            let done = s.done.load(Ordering::Acquire);
            if done >> CHUNK_BITS == epoch { (done & MAX_CHUNKS as u64) as usize } else { 0 }
        };
        self.shares[1..].iter().map(of).sum()
    }

    /// The run that is on, or was last, unless it is `seen`.
    fn look(&self, seen: &mut u64) -> Option<Run> {
        let word = self.published.run.load(Ordering::Acquire);
        if word == *seen {
            return None;
        }
        *seen = word;
        let (epoch, chunks) = (word >> CHUNK_BITS, (word & MAX_CHUNKS as u64) as usize);
        Some(Run { epoch, chunks, job: self.published.job.load(Ordering::Relaxed) })
    }
}

fn work(shared: &Shared, id: usize) {
    let mut seen = 0;
    let mut spins = 0u32;
    while !shared.stop.load(Ordering::Relaxed) {
        if let Some(run) = shared.look(&mut seen) {
            shared.take(run, id);
            spins = 0;
            continue;
        }
        if spins < IDLE_SPINS || shared.active.load(Ordering::Relaxed) > 0 {
            spin(&mut spins);
            continue;
        }
        spins = 0;
        let mut gate = lock(&shared.gate);
        shared.sleepers.fetch_add(1, Ordering::SeqCst);
        // Looked at after announcing the sleep, as a caller looks for sleepers after publishing: one of them sees.
        let idle = |seen: u64| {
            shared.published.run.load(Ordering::SeqCst) == seen
                && shared.active.load(Ordering::SeqCst) == 0
                && !shared.stop.load(Ordering::SeqCst)
        };
        while idle(seen) {
            gate = shared.wake.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        shared.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
