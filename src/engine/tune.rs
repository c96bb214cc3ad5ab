//! Choice by measurement: where several kernels accept a step, the one that was fastest on this machine for its shapes.
//!
//! Without a measurement the first of the table runs. `--autotune` times the acceptors on random data; what was found is kept per
//! machine and used from then on. A task is named by what its time depends on: instruction set, threads, kind, geometry, fused
//! parts and layouts, not by the model it is in.

use super::pool::Pool;
use crate::error::Result;
use crate::kernels::{Accept, Entry, Kind, Prepared, REORDER, TABLE, Task, buffer_len};
use crate::machine::cache::{Choice, Choices};
use std::fmt::Write;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Time for all acceptors of a task together, preparation not included.
const BUDGET: Duration = Duration::from_millis(60);
/// Rounds that are made even beyond the budget, the first not counted.
const LEAST_ROUNDS: usize = 3;
/// Rounds that are enough.
const MOST_ROUNDS: usize = 40;

/// What is known of tasks, and whether the unknown ones are timed.
pub struct Tuning {
    known: Mutex<Choices>,
    found: Mutex<Choices>,
    times: bool,
    pool: OnceLock<Pool>,
}

impl std::fmt::Debug for Tuning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tuning").field("times", &self.times).finish_non_exhaustive()
    }
}

/// The kernel to run, and what became of the others.
pub(super) struct Chosen {
    pub(super) entry: &'static Entry,
    pub(super) others: Vec<String>,
}

impl Tuning {
    /// Starts from what is known; with `times`, tasks that are not known are timed when a plan meets them.
    pub fn new(known: Choices, times: bool) -> Tuning {
        Tuning { known: Mutex::new(known), found: Mutex::default(), times, pool: OnceLock::new() }
    }

    /// What was found by timing: for keeping.
    pub fn found(&self) -> Choices {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The fastest acceptor of a task; `None` where fewer than two accept or nothing is known.
    ///
    /// # Errors
    /// If a kernel cannot be prepared.
    pub(super) fn choose(&self, task: &Task) -> Result<Option<Chosen>> {
        let mut accepting: Vec<(&'static Entry, Accept)> = Vec::new();
        let mut others = Vec::new();
        for entry in TABLE {
            match (entry.accepts)(task) {
                Ok(accept) => accepting.push((entry, accept)),
                Err(why) if !why.is_empty() => others.push(format!("{}: {why}", entry.name)),
                Err(_) => {}
            }
        }
        if accepting.len() < 2 {
            return Ok(None);
        }
        let key = key(task);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        // A kernel that was not among the timed ones may be faster than all of them.
        let complete = |c: &Choice| accepting.iter().all(|(e, _)| c.times.iter().any(|(name, _)| name == e.name));
        let choice = match known.filter(complete) {
            Some(choice) => choice,
            None if !self.times => return Ok(None),
            None => {
                let choice = self.time(task, &accepting)?;
                for map in [&self.known, &self.found] {
                    map.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), choice.clone());
                }
                choice
            }
        };
        // Fastest first, but only of those that accept here and now.
        let of = |name: &str| accepting.iter().find(|(e, _)| e.name == name).map(|(e, _)| *e);
        let mut ranked = choice.times.iter().filter_map(|(name, s)| Some((of(name)?, *s)));
        let Some((entry, best)) = ranked.next() else { return Ok(None) };
        let ms = |s: f64| crate::units::ms(s * 1e3);
        let slower = |(e, s): (&Entry, f64)| format!("{}: slower here ({} ms, this one {})", e.name, ms(s), ms(best));
        others.extend(ranked.map(slower));
        Ok(Some(Chosen { entry, others }))
    }

    /// Times acceptors in turns: the least of each counts.
    fn time(&self, task: &Task, accepting: &[(&'static Entry, Accept)]) -> Result<Choice> {
        let pool = self.pool.get_or_init(|| Pool::new(task.threads));
        let mut runs = accepting.iter().map(|(e, a)| Trial::new(task, e, a)).collect::<Result<Vec<_>>>()?;
        let _active = pool.activate();
        let _mode = crate::simd::denormals::Mode::flushed();
        let mut least = vec![f64::INFINITY; runs.len()];
        runs.iter_mut().for_each(|r| r.run(pool));
        let start = Instant::now();
        for round in 0..MOST_ROUNDS {
            if round >= LEAST_ROUNDS && start.elapsed() > BUDGET {
                break;
            }
            for (run, least) in runs.iter_mut().zip(&mut least) {
                let begin = Instant::now();
                run.run(pool);
                *least = least.min(begin.elapsed().as_secs_f64());
            }
        }
        let mut times: Vec<(String, f64)> =
            accepting.iter().zip(least).map(|((e, _), s)| (e.name.to_string(), s)).collect();
        times.sort_by(|a, b| a.1.total_cmp(&b.1));
        Ok(Choice { kernel: times[0].0.clone(), times })
    }
}

/// A kernel with data: the changes of layout it asks for run with it, since the plan would have to insert them.
struct Trial {
    reorders: Vec<(usize, Box<dyn Prepared>, Vec<f32>)>,
    kernel: Box<dyn Prepared>,
    srcs: Vec<Vec<f32>>,
    dsts: Vec<Vec<f32>>,
}

impl Trial {
    fn new(task: &Task, entry: &Entry, accept: &Accept) -> Result<Trial> {
        let mut reorders = Vec::new();
        for (i, (&from, &to)) in task.layouts.iter().zip(&accept.srcs).enumerate() {
            if from == to {
                continue;
            }
            let kind = Kind::Reorder { from, to };
            let dims = std::slice::from_ref(&task.srcs[i]);
            let change = Task { kind: &kind, srcs: dims, layouts: &[from], dsts: dims, ..*task };
            // Where no layout change fits, the plan would not make one either: the operand counts as it is.
            if (REORDER.accepts)(&change).is_ok() {
                reorders.push((i, (REORDER.prepare)(&change)?, numbers(buffer_len(&task.srcs[i], from, task.isa), i)));
            }
        }
        let srcs = task.srcs.iter().zip(&accept.srcs).enumerate();
        Ok(Trial {
            reorders,
            kernel: (entry.prepare)(task)?,
            srcs: srcs.map(|(i, (d, &l))| numbers(buffer_len(d, l, task.isa), i)).collect(),
            dsts: task.dsts.iter().map(|d| vec![0.0; buffer_len(d, accept.dst, task.isa)]).collect(),
        })
    }

    fn run(&mut self, pool: &Pool) {
        for (i, change, from) in &self.reorders {
            change.run(pool, &[from], &mut [&mut self.srcs[*i]]);
        }
        let srcs: Vec<&[f32]> = self.srcs.iter().map(Vec::as_slice).collect();
        let mut dsts: Vec<&mut [f32]> = self.dsts.iter_mut().map(Vec::as_mut_slice).collect();
        self.kernel.run(pool, &srcs, &mut dsts);
    }
}

/// Reproducible values in −1..1.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    let mut x = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        ((x >> 40) as f32) / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// What a task's time depends on, in words.
fn key(task: &Task) -> String {
    let mut key = format!("{} {}t ", task.isa, task.threads);
    // Writing to a string cannot fail.
    let _ = match task.kind {
        Kind::Conv { geometry: g, bias, act, residual, .. } => {
            let axes: Vec<String> = (g.axes.iter())
                .map(|a| format!("k{}s{}d{}p{},{}i{}o{}", a.k, a.s, a.d, a.begin, a.end, a.i, a.o))
                .collect();
            write!(
                key,
                "conv n{} ic{} oc{} g{} {} bias={} {act:?} res={residual}",
                g.n,
                g.ic,
                g.oc,
                g.g,
                axes.join(" "),
                bias.is_some()
            )
        }
        Kind::MatMul(m) => write!(
            key,
            "matmul {:?} {:?} {:?} m{} n{} k{} {}{} b={} bias={} {:?} res={}",
            m.batch,
            m.batch_a,
            m.batch_b,
            m.m,
            m.n,
            m.k,
            if m.trans_a { "T" } else { "N" },
            if m.trans_b { "T" } else { "N" },
            if m.b.is_some() { "const" } else { "var" },
            m.bias.is_some(),
            m.act,
            m.residual
        ),
        other => write!(FirstWord(&mut key), "{other:?}"),
    };
    for (d, l) in task.srcs.iter().zip(task.layouts) {
        let _ = write!(key, " {d:?}{l:?}");
    }
    for d in task.dsts {
        let _ = write!(key, " >{d:?}");
    }
    key
}

/// Takes a name and refuses what follows: the fields of a task may be large.
struct FirstWord<'a>(&'a mut String);

impl Write for FirstWord<'_> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        match s.find(|c: char| !c.is_alphanumeric()) {
            None => self.0.write_str(s),
            Some(end) => {
                self.0.push_str(&s[..end]);
                Err(std::fmt::Error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Act, Layout, MatMul};
    use crate::ops::sample;
    use crate::simd::Isa;

    fn with_task<R>(act: Act, m: usize, f: impl FnOnce(&Task) -> R) -> R {
        let product = MatMul {
            batch: vec![],
            batch_a: vec![],
            batch_b: vec![],
            m,
            n: 24,
            k: 40,
            trans_a: false,
            trans_b: false,
            alpha: 1.0,
            b: Some(sample::floats(&[40, 24], 3)),
            bias: None,
            act,
            residual: false,
        };
        let (kind, srcs, dsts) = (Kind::MatMul(product), [vec![m, 40]], [vec![m, 24]]);
        f(&Task {
            kind: &kind,
            srcs: &srcs,
            layouts: &[Layout::Plain],
            dsts: &dsts,
            isa: Isa::best(),
            threads: 1,
            winograd: true,
            strassen: true,
            packs: None,
        })
    }

    #[test]
    fn keys_tell_tasks_apart_and_are_short() {
        let a = with_task(Act::None, 1, key);
        assert_eq!(a, with_task(Act::None, 1, key));
        assert_ne!(a, with_task(Act::Relu, 1, key));
        assert_ne!(a, with_task(Act::None, 2, key));
        let kind = Kind::ChannelAffine { scale: vec![1.0; 1000], shift: vec![], act: Act::None };
        let dims = [vec![1, 1000, 1, 1]];
        let task = Task {
            kind: &kind,
            srcs: &dims,
            layouts: &[Layout::Blocked],
            dsts: &dims,
            isa: Isa::Portable,
            threads: 3,
            winograd: true,
            strassen: true,
            packs: None,
        };
        assert_eq!(key(&task), "portable 3t ChannelAffine [1, 1000, 1, 1]Blocked >[1, 1000, 1, 1]");
    }

    /// A product of one row is accepted by the vector and by the matrix kernel.
    #[test]
    fn the_fastest_acceptor_is_found_once_and_remembered() {
        with_task(Act::None, 1, |task| {
            let accepting: Vec<&str> = TABLE.iter().filter(|e| (e.accepts)(task).is_ok()).map(|e| e.name).collect();
            assert!(accepting.len() >= 2, "{accepting:?}");
            // Nothing known, nothing timed: no opinion.
            assert!(Tuning::new(Choices::new(), false).choose(task).unwrap().is_none());
            let tuning = Tuning::new(Choices::new(), true);
            let chosen = tuning.choose(task).unwrap().unwrap();
            assert_eq!(chosen.others.iter().filter(|o| o.contains("slower here")).count(), accepting.len() - 1);
            let found = tuning.found();
            assert_eq!(found.len(), 1);
            let choice = &found[&key(task)];
            assert_eq!((choice.kernel.as_str(), choice.times.len()), (chosen.entry.name, accepting.len()));
            assert!(choice.times.is_sorted_by(|a, b| a.1 <= b.1));
            // What is kept decides, whatever the order of the table.
            for name in &accepting {
                let times = |n: &&str| (n.to_string(), if n == name { 1e-6 } else { 1e-3 });
                let mut times: Vec<(String, f64)> = accepting.iter().map(times).collect();
                times.sort_by(|a, b| a.1.total_cmp(&b.1));
                let known = Choices::from([(key(task), Choice { kernel: name.to_string(), times })]);
                let chosen = Tuning::new(known, false).choose(task).unwrap().unwrap();
                assert_eq!(chosen.entry.name, *name);
                let slower = "slower here (1.000 ms, this one 0.001)";
                assert!(chosen.others.iter().any(|o| o.contains(slower)), "{:?}", chosen.others);
            }
            // A choice made before a kernel existed is none.
            let old = Choice { kernel: accepting[0].into(), times: vec![(accepting[0].into(), 1e-6)] };
            assert!(Tuning::new(Choices::from([(key(task), old)]), false).choose(task).unwrap().is_none());
        });
    }
}
