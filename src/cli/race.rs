//! Candidates timed against each other: interleaved, the first one in every group, as many at a time as memory holds.

use super::args::{Paths, RaceArgs};
use super::load::{self, Want};
use super::progress::Progress;
use crate::analysis::{Analysis, Class, analyze, class_of};
use crate::engine::{Path, Session, WeightSet};
use crate::error::Result;
use crate::ir::{Graph, Model};
use crate::machine::Ceilings;
use crate::measure::{Policy, Samples, Stats, WallClock, host, interrupt, paired, sample};
use crate::report::candidates::{Candidate, Predicted, Spent, Switching, Timing, predict};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// A model in the race.
pub struct Runner {
    /// What it is.
    pub candidate: Candidate,
    /// The model.
    pub model: Model,
    /// Its counts.
    pub analysis: Analysis,
    /// The set of weights it takes its own from, where several candidates share one: going over to it is timed.
    pub weights: Option<String>,
}

impl Runner {
    /// A model that has not run yet.
    pub fn new(name: &str, model: Model) -> Runner {
        let analysis = analyze(&model.graph);
        Runner { candidate: Candidate::new(name, analysis.totals), model, analysis, weights: None }
    }

    /// Memory one session needs, roughly: packed weights beside those of the file, activations twice.
    fn bytes(&self) -> u64 {
        let t = &self.analysis.totals;
        t.param_bytes.saturating_add(t.peak_activation_bytes.unwrap_or(0)).saturating_mul(2)
    }
}

/// Fewest rounds asked for: an interval needs six.
const ROUNDS: usize = 9;
/// Limits up to which a first run only warms up. Reading weights for the first time takes a large network longer than computing, and
/// the others it is compared with are warm.
const COLD: f64 = 3.0;
/// Share of the free memory that sessions may take together.
const MEMORY_SHARE: f64 = 0.4;
/// Most sessions at a time: more would be far apart in time.
const MOST: usize = 24;
/// Most runs whose steps are timed to see where the time goes, and seconds after which no more are begun.
const LOOKS: usize = 5;
const LOOK_S: f64 = 0.2;
/// Fewest and most switches timed, and seconds after which no more than the fewest are.
const SWITCHES: (usize, usize) = (9, 99);
const SWITCH_S: f64 = 1.0;

/// Times all runners on the paths asked for (or the usual ones) and writes what was found into their candidates; times are compared
/// with the first one's.
///
/// # Errors
/// If a session cannot be prepared or a run fails.
pub fn race(runners: &mut [Runner], args: &RaceArgs, usual: Paths, quiet: bool) -> Result<()> {
    let paths = args.path.unwrap_or(usual).list();
    let ceilings = if paths.contains(&Path::Optimized) { load::ceilings(Want::Any, quiet) } else { None };
    let free = host::available_memory_bytes().map_or(u64::MAX, |b| (b as f64 * MEMORY_SHARE) as u64);
    for path in paths {
        let mut start = 1;
        let mut first_stats = None;
        while !interrupt::asked() && (start < runners.len() || (start == 1 && first_stats.is_none())) {
            let mut end = start;
            let mut bytes = runners.first().map_or(0, Runner::bytes);
            while end < runners.len()
                && end - start + 1 < MOST
                && (end == start || bytes + runners[end].bytes() <= free)
            {
                bytes += runners[end].bytes();
                end += 1;
            }
            let group: Vec<usize> = std::iter::once(0).chain(start..end).collect();
            let what = format!("{}: {} to {} of {}", path.name(), start.min(runners.len()), end, runners.len());
            let progress = Progress::new(&format!("{what}, preparing"), quiet);
            progress.spin();
            let mut sets: HashMap<String, Arc<WeightSet>> = HashMap::new();
            let mut sessions: Vec<_> = group.iter().map(|_| None).collect();
            // The widest of those that share weights packs them for all.
            let mut order: Vec<usize> = (0..group.len()).collect();
            order.sort_by_key(|&k| Reverse(runners[group[k]].analysis.totals.params));
            for k in order {
                let runner = &mut runners[group[k]];
                let graph = Arc::new(runner.model.graph.clone());
                let set = runner.weights.as_ref().map(|name| sets.entry(name.clone()).or_default().clone());
                if set.is_some() {
                    make_weights(&graph)?;
                }
                let began = std::time::Instant::now();
                let session = load::session_sharing(&graph, path, &args.engine, set, quiet)?;
                if path == Path::Optimized {
                    runner.candidate.prepare_ms.get_or_insert(began.elapsed().as_secs_f64() * 1e3);
                    runner.candidate.packed_bytes = session.packed_bytes();
                }
                if path == Path::Optimized && runner.candidate.predicted.is_none() {
                    let c = ceilings.as_ref().and_then(|(m, _)| Ceilings::of(m, session.isa(), session.threads()));
                    runner.candidate.predicted = predicted(runner, &session, c.as_ref());
                }
                sessions[k] = Some((session, load::made_up_inputs(&runner.model)?));
            }
            let mut sessions: Vec<_> = sessions.into_iter().flatten().collect();
            drop(progress);
            let progress = Progress::new(&what, quiet);
            progress.spin();
            let samples = timed(&mut sessions, args.seconds, &mut |share| progress.tell(share))?;
            for (k, &i) in group.iter().enumerate() {
                let Some(stats) = Stats::of(&samples[k].seconds) else { continue };
                if i == 0 && first_stats.replace(stats).is_some() {
                    // The first one runs in every group, and is told of once.
                    continue;
                }
                let ratio = if i == 0 { None } else { paired(&samples[k], &samples[0]) };
                if path == Path::Optimized {
                    let (session, inputs) = &mut sessions[k];
                    runners[i].candidate.spent = Some(spent(session, inputs, &runners[i])?);
                    let same = |j: &usize| *j != k && runners[group[*j]].weights == runners[i].weights;
                    let other = (0..group.len()).find(same).filter(|_| runners[i].weights.is_some());
                    if let Some(j) = other {
                        runners[i].candidate.switch = switch(&mut sessions, k, j)?;
                    }
                }
                let timing = Some(Timing { stats, ratio });
                match path {
                    Path::Reference => runners[i].candidate.reference = timing,
                    Path::Optimized => runners[i].candidate.optimized = timing,
                    Path::Runtime => {}
                }
            }
            start = end.max(start + 1);
        }
    }
    Ok(())
}

/// A candidate's roofline on a prepared session.
pub fn predicted(runner: &Runner, session: &Session, ceilings: Option<&Ceilings>) -> Option<Predicted> {
    let steps: Vec<_> = session.steps().iter().map(|s| s.covers.clone()).collect();
    predict(&runner.model.graph, &runner.analysis, &steps, ceilings?)
}

/// Makes what is only made when somebody looks at it: that is not what preparing is about.
fn make_weights(graph: &Graph) -> Result<()> {
    let mut lazy = graph.values().iter().filter_map(|v| v.constant.as_ref()).filter(|t| t.is_lazy());
    lazy.try_for_each(|t| t.bytes().map(drop))
}

/// Samples sessions in turns.
pub fn timed(
    sessions: &mut [(Session, Vec<crate::tensor::Tensor>)],
    limit_s: f64,
    tell: &mut dyn FnMut(f64),
) -> Result<Vec<Samples>> {
    let policy = Policy {
        limit_s,
        relative_error: 0.01,
        min_runs: ROUNDS,
        cold_share: COLD,
        least_runs: 1,
        ..Policy::default()
    };
    let subjects = sessions.len();
    let mut run = |i: usize| {
        let (session, inputs) = &mut sessions[i];
        session.run(inputs).map(drop)
    };
    sample::sample(&WallClock::start(), &policy, subjects, &mut run, tell)
}

/// Where the time of a session goes.
fn spent(session: &mut Session, inputs: &[crate::tensor::Tensor], runner: &Runner) -> Result<Spent> {
    let mut times = vec![0.0; session.steps().len()];
    let start = std::time::Instant::now();
    let mut looks = 0;
    while looks < LOOKS && (looks == 0 || start.elapsed().as_secs_f64() < LOOK_S) {
        session.run_timed(inputs, &mut times)?;
        looks += 1;
    }
    let mut s = Spent::default();
    for (step, seconds) in session.steps().iter().zip(times) {
        let seconds = seconds / looks as f64;
        let graph = &runner.model.graph;
        let madds = |id: &crate::ir::NodeId| runner.analysis.rows[id.0 as usize].work().map_or(0, |w| w.madds);
        let all: u64 = step.covers.iter().map(madds).sum();
        let thin = |id: &crate::ir::NodeId| {
            matches!(class_of(graph, graph.node(*id)), Class::DepthwiseConv | Class::GroupedConv)
        };
        let thin_madds: u64 = step.covers.iter().filter(|id| thin(id)).map(madds).sum();
        s.all_s += seconds;
        if all == 0 {
            s.moving_s += seconds;
        } else if 2 * thin_madds > all {
            s.thin_s += seconds;
            s.thin_madds += all;
        }
        if step.kernel == "reference" {
            s.plain_s += seconds;
        }
    }
    Ok(s)
}

/// What going over to a prepared width from another costs: how much longer its first run takes than the run after it.
fn switch(sessions: &mut [(Session, Vec<crate::tensor::Tensor>)], to: usize, from: usize) -> Result<Option<Switching>> {
    let start = std::time::Instant::now();
    let mut extra = Vec::new();
    let mut run = |i: usize| -> Result<f64> {
        let (session, inputs) = &mut sessions[i];
        let began = std::time::Instant::now();
        session.run(inputs)?;
        Ok(began.elapsed().as_secs_f64())
    };
    while extra.len() < SWITCHES.0 || (extra.len() < SWITCHES.1 && start.elapsed().as_secs_f64() < SWITCH_S) {
        run(from)?;
        let first = run(to)?;
        extra.push((first - run(to)?) * 1e3);
    }
    Ok(Stats::of(&extra).map(|s| Switching { ms: s.median, interval: s.median_ci }))
}

/// How candidates run, for headings.
pub fn how(args: &RaceArgs) -> String {
    let threads = args.engine.threads.unwrap_or_else(host::cores);
    let isa = crate::simd::Isa::detect().map_or("", |i| i.name());
    format!("{}, {isa} kernels", crate::units::plural(threads, "thread"))
}

/// Warnings about the measuring itself.
pub fn conditions(args: &RaceArgs) -> Vec<String> {
    load::conditions_of(args.engine.threads)
}
