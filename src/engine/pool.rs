//! The fork-join pool: persistent workers that spin during a run and park between runs.
//!
//! A layer here takes tens of microseconds, a futex wake about ten: so workers spin while an inference is active
//! ([`Pool::activate`]) and sleep only afterwards. Work is handed out in chunks by one atomic counter, never in fixed
//! halves, since a core that is slowed from outside must not hold up the others. A worker that the system has not
//! scheduled does not hold up a run either: the caller waits only for workers that have joined it.
//!
//! [`Pool::run`] calls a shared closure per chunk. [`Pool::for_chunks`] and [`Pool::for_tiles`] give every task its
//! own part of a destination, safely. [`Pool::scratch`] lends buffers that live as long as the pool.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;

use crate::simd::TileMut;

/// Looks at the state word before a worker parks, when no inference is active: some tens of microseconds.
const IDLE_SPINS: u32 = 2_000;
/// Looks between offers of the core to other threads, while spinning.
const SPINS_PER_YIELD: u32 = 512;

/// Low bits of the state: workers that joined the run; then whether it is open; above, which run it is.
const JOINED: u64 = (1 << 16) - 1;
const OPEN: u64 = 1 << 16;
const EPOCH: u64 = 1 << 17;

type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// What a run does; valid for workers that joined while the state said open.
#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    chunks: usize,
}

struct Shared {
    state: AtomicU64,
    next: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    active: AtomicUsize,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    gate: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only by the one caller that holds `Pool::turn`, while the state is closed with nobody
// joined, and read only by workers that joined while it was open. All other fields are Sync. The task pointer
// refers to a `Sync` closure.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it is tied to a thread.
unsafe impl Send for Shared {}

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
        let threads = threads.clamp(1, JOINED as usize);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
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

    /// Call `task(chunk, thread id)` for every chunk below `chunks`, in rising order of hand-out, and wait for all.
    ///
    /// A panic in a task is raised again here once no task runs any more; chunks not yet begun are dropped. Called
    /// from inside a task, the chunks are done in place; concurrent callers take turns.
    pub fn run(&self, chunks: usize, task: impl Fn(usize, usize) + Sync) {
        if let Some(id) = INSIDE.get() {
            let id = if id < self.threads() { id } else { 0 };
            return (0..chunks).for_each(|c| task(c, id));
        }
        if chunks <= 1 || self.workers.is_empty() {
            let _inside = Inside::enter(0);
            return (0..chunks).for_each(|c| task(c, 0));
        }
        let _turn = lock(&self.turn);
        let task: &Task<'_> = &task;
        // SAFETY: only the lifetime is changed. Workers use the pointer only between joining and leaving a run, and
        // this function does not return or unwind before all of them have left.
        let task = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) };
        let shared = &*self.shared;
        shared.next.store(0, Ordering::Relaxed);
        // SAFETY: the state is closed with nobody joined, and `turn` keeps other callers out.
        unsafe { *shared.job.get() = Some(Job { task, chunks }) };
        let epoch = shared.state.load(Ordering::Relaxed) & !(OPEN | JOINED);
        shared.state.store((epoch.wrapping_add(EPOCH)) | OPEN, Ordering::SeqCst);
        shared.wake_all();
        shared.take_chunks(Job { task, chunks }, 0);
        // Nobody may join from here on; wait for those who did.
        shared.state.fetch_and(!OPEN, Ordering::SeqCst);
        let mut spins = 0u32;
        while shared.state.load(Ordering::Acquire) & JOINED != 0 {
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

    /// Cut `dst`, seen as `[outer][a][b][len]`, into tiles and call `f(tile, thread id)` for each.
    ///
    /// Hand-out order, outermost first: outer, `b`, `a`, `len`: tasks that read the same rows follow each other.
    pub fn for_tiles(&self, dst: &mut [f32], grid: Grid, f: impl Fn(TileMut<'_>, usize) + Sync) {
        let Grid { outer, a, b, len, a_tile, b_tile, len_tile } = grid;
        let size = [outer, a, b, len].iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        assert_eq!(size, Some(dst.len()), "{grid:?} over {} values", dst.len());
        assert!(a_tile > 0 && b_tile > 0 && len_tile > 0, "{grid:?}");
        if dst.is_empty() {
            return;
        }
        let (na, nb, nl) = (a.div_ceil(a_tile), b.div_ceil(b_tile), len.div_ceil(len_tile));
        let base = Base(dst.as_mut_ptr());
        self.run(outer * na * nb * nl, |chunk, id| {
            let (rest, il) = (chunk / nl, chunk % nl);
            let (rest, ia) = (rest / na, rest % na);
            let (io, ib) = (rest / nb, rest % nb);
            let (a0, b0, c0) = (ia * a_tile, ib * b_tile, il * len_tile);
            let dims = [a_tile.min(a - a0), b_tile.min(b - b0), len_tile.min(len - c0)];
            let origin = ((io * a + a0) * b + b0) * len + c0;
            // SAFETY: chunk numbers are handed out once each, and distinct ones address disjoint parts of `dst`,
            // which is exclusively borrowed for the whole run; all indices are inside it by the asserted size.
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

    /// Do chunks until none is left; a panic is kept and ends the run early.
    fn take_chunks(&self, job: Job, id: usize) {
        let _inside = Inside::enter(id);
        let done = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let chunk = self.next.fetch_add(1, Ordering::Relaxed);
                if chunk >= job.chunks {
                    return;
                }
                // SAFETY: the caller of the run keeps the closure alive until every joined thread has left.
                unsafe { (*job.task)(chunk, id) };
            }
        }));
        if let Err(payload) = done {
            self.next.store(job.chunks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// Join the run that is open, unless it is `seen`; `None` when there is nothing to do.
    fn join(&self, seen: &mut u64) -> Option<Job> {
        let mut state = self.state.load(Ordering::SeqCst);
        loop {
            let epoch = state & !(OPEN | JOINED);
            if state & OPEN == 0 || epoch == *seen {
                return None;
            }
            match self.state.compare_exchange_weak(state, state + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => {
                    *seen = epoch;
                    // SAFETY: the run was open when this thread joined, so the job was written before, and it is
                    // not written again until this thread has left.
                    return unsafe { *self.job.get() };
                }
                Err(now) => state = now,
            }
        }
    }
}

fn work(shared: &Shared, id: usize) {
    let mut seen = 0;
    let mut spins = 0u32;
    while !shared.stop.load(Ordering::Relaxed) {
        if let Some(job) = shared.join(&mut seen) {
            shared.take_chunks(job, id);
            shared.state.fetch_sub(1, Ordering::Release);
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
            let state = shared.state.load(Ordering::SeqCst);
            (state & OPEN == 0 || state & !(OPEN | JOINED) == seen)
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
