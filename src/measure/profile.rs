//! Per-step times that sum to the whole.
//!
//! Every run is timed as a whole and step by step. The central half of the runs (by wall time) is averaged step by step, which is
//! linear, so the parts of the average run sum to the average run; then all parts are scaled by one common factor (within noise
//! of 1) so that the whole *is* the median. What the clock itself costs and what happens between steps are parts of their own,
//! so nothing is lost and nothing is negative.

use super::clock::Clock;
use super::sample::{Policy, Samples, sample};
use super::stats::Stats;
use crate::engine::{Path, Session};
use crate::error::Result;
use crate::ir::NodeId;
use crate::tensor::Tensor;

/// What can be profiled: something that runs as a sequence of steps.
pub trait Subject {
    /// The steps: kernel, label, nodes covered, reasons of kernels that declined.
    fn steps(&self) -> Vec<StepTime>;
    /// Kernel path.
    fn path(&self) -> Path;
    /// Instruction set.
    fn isa(&self) -> String;
    /// Threads in use.
    fn threads(&self) -> usize;
    /// Planned activation memory.
    fn arena_bytes(&self) -> Option<u64>;
    /// Runs once, adding each step's seconds to `times` if given.
    ///
    /// # Errors
    /// If a kernel fails.
    fn run(&mut self, times: Option<&mut [f64]>) -> Result<()>;
}

/// A session together with the inputs it is measured on.
pub struct Prepared {
    /// The session.
    pub session: Session,
    /// Its kernel path.
    pub path: Path,
    /// Inputs, in graph order.
    pub inputs: Vec<Tensor>,
}

impl Subject for Prepared {
    fn steps(&self) -> Vec<StepTime> {
        let step = |s: &crate::engine::Step| StepTime {
            label: s.label.clone(),
            kernel: s.kernel.clone(),
            covers: s.covers.clone(),
            declined: s.declined.clone(),
            live_bytes: s.live_bytes,
            seconds: 0.0,
        };
        self.session.steps().iter().map(step).collect()
    }
    fn path(&self) -> Path {
        self.path
    }
    fn isa(&self) -> String {
        self.session.isa().to_string()
    }
    fn threads(&self) -> usize {
        self.session.threads()
    }
    fn arena_bytes(&self) -> Option<u64> {
        self.session.arena_bytes()
    }
    fn run(&mut self, times: Option<&mut [f64]>) -> Result<()> {
        match times {
            Some(times) => self.session.run_timed(&self.inputs, times).map(drop),
            None => self.session.run(&self.inputs).map(drop),
        }
    }
}

/// One step and its time.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTime {
    /// What it does: its first node's name, with what is fused.
    pub label: String,
    /// The kernel.
    pub kernel: String,
    /// The nodes whose work it does, the one that names it first; empty for moves between layouts.
    pub covers: Vec<NodeId>,
    /// Why faster kernels declined.
    pub declined: Vec<String>,
    /// Bytes of the arena that hold something while it runs, where memory is planned.
    pub live_bytes: Option<u64>,
    /// Its share of the median run.
    pub seconds: f64,
}

/// What one path did cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Kernel path.
    pub path: Path,
    /// Instruction set.
    pub isa: String,
    /// Threads.
    pub threads: usize,
    /// Planned activation memory.
    pub arena_bytes: Option<u64>,
    /// From opening the file to a session that is ready to run, where that was timed.
    pub prepare_s: Option<f64>,
    /// From opening the file to the result of the first run, where that was timed.
    pub first_s: Option<f64>,
    /// Bytes of packed weights that an earlier run had kept and this one did not make; `None` where none are kept.
    pub kept_bytes: Option<u64>,
    /// Steps in execution order.
    pub steps: Vec<StepTime>,
    /// Reading the clock around every step.
    pub timer_s: f64,
    /// Everything else between and around the steps: dispatch, allocation, dropping results.
    pub other_s: f64,
    /// Wall time of whole runs. The median is the sum of all steps, `timer_s` and `other_s`.
    pub stats: Stats,
    /// The runs.
    pub samples: Samples,
}

impl Profile {
    /// The whole: what all parts sum to.
    pub fn total_s(&self) -> f64 {
        self.stats.median
    }
}

/// Profiles a subject.
///
/// # Errors
/// If a run fails.
pub fn profile(
    clock: &dyn Clock,
    policy: &Policy,
    subject: &mut dyn Subject,
    tell: &mut dyn FnMut(f64),
) -> Result<Profile> {
    let mut steps = subject.steps();
    let mut runs: Vec<Vec<f64>> = Vec::new();
    let mut one = vec![0.0; steps.len()];
    let mut samples = sample(
        clock,
        policy,
        1,
        &mut |_| {
            one.fill(0.0);
            subject.run(Some(&mut one))?;
            runs.push(one.clone());
            Ok(())
        },
        tell,
    )?;
    let samples = samples.remove(0);
    let runs = &runs[samples.warmup_runs..];
    // The central half of the runs by wall time.
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by(|&a, &b| samples.seconds[a].total_cmp(&samples.seconds[b]));
    let cut = runs.len() / 4;
    let central = &order[cut..runs.len() - cut];
    let mean = |f: &dyn Fn(usize) -> f64| central.iter().map(|&i| f(i)).sum::<f64>() / central.len().max(1) as f64;
    let wall = mean(&|i| samples.seconds[i]);
    let read = clock.read_cost_s();
    for (k, step) in steps.iter_mut().enumerate() {
        // Between the two readings around a step lies about one reading's cost.
        step.seconds = (mean(&|i| runs[i][k]) - read).max(0.0);
    }
    let timed: f64 = steps.iter().map(|s| s.seconds).sum();
    let rest = (wall - timed).max(0.0);
    let timer = (2.0 * read * steps.len() as f64).min(rest);
    let stats = Stats::of(&samples.seconds).expect("sampling makes at least one run");
    let parts = timed + rest;
    let scale = if parts > 0.0 { stats.median / parts } else { 0.0 };
    steps.iter_mut().for_each(|s| s.seconds *= scale);
    Ok(Profile {
        path: subject.path(),
        isa: subject.isa(),
        threads: subject.threads(),
        arena_bytes: subject.arena_bytes(),
        prepare_s: None,
        first_s: None,
        kept_bytes: None,
        steps,
        timer_s: timer * scale,
        other_s: (rest - timer) * scale,
        stats,
        samples,
    })
}

/// A subject that only moves a fake clock: for tests of everything behind the measurement.
pub mod fake {
    use super::*;
    use crate::measure::clock::FakeClock;

    /// Steps with fixed times and a fixed time between them.
    pub struct FakeSubject<'a> {
        /// The clock it moves.
        pub clock: &'a FakeClock,
        /// Kernel path.
        pub path: Path,
        /// Steps; `seconds` is what each takes.
        pub steps: Vec<StepTime>,
        /// Time spent between steps per run.
        pub between_s: f64,
    }

    impl Subject for FakeSubject<'_> {
        fn steps(&self) -> Vec<StepTime> {
            self.steps.clone()
        }
        fn path(&self) -> Path {
            self.path
        }
        fn isa(&self) -> String {
            "fake".into()
        }
        fn threads(&self) -> usize {
            1
        }
        fn arena_bytes(&self) -> Option<u64> {
            None
        }
        fn run(&mut self, mut times: Option<&mut [f64]>) -> Result<()> {
            for (k, step) in self.steps.iter().enumerate() {
                self.clock.advance(step.seconds);
                if let Some(times) = times.as_deref_mut() {
                    times[k] += step.seconds + self.clock.read_cost_s;
                    self.clock.advance(2.0 * self.clock.read_cost_s);
                }
            }
            self.clock.advance(self.between_s);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::clock::FakeClock;

    #[test]
    fn parts_sum_to_the_whole_and_the_timer_has_its_own_row() {
        let clock = FakeClock::new(1e-6);
        let step = |label: &str, seconds| StepTime {
            label: label.into(),
            kernel: "k".into(),
            covers: vec![],
            declined: vec![],
            live_bytes: None,
            seconds,
        };
        let mut subject = fake::FakeSubject {
            clock: &clock,
            path: Path::Optimized,
            steps: vec![step("a", 0.003), step("b", 0.005)],
            between_s: 0.0005,
        };
        let p = profile(&clock, &Policy::default(), &mut subject, &mut |_| {}).unwrap();
        let sum: f64 = p.steps.iter().map(|s| s.seconds).sum::<f64>() + p.timer_s + p.other_s;
        assert!((sum - p.total_s()).abs() < 1e-15);
        assert!((p.steps[0].seconds - 0.003).abs() < 1e-9, "{}", p.steps[0].seconds);
        assert!((p.timer_s - 4e-6).abs() < 1e-9, "{}", p.timer_s);
        assert!((p.other_s - 0.0005).abs() < 2e-6, "{}", p.other_s);
    }
}
