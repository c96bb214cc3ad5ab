//! What the machine's ceilings allow a model: each step's least time beside its measured one, and the floor they sum to.

use super::compose::Source;
use super::model::{Latency, Layer};
use crate::analysis::Demands;
use crate::engine::Path;
use crate::ir::NodeId;
use crate::machine::{Bound, Ceilings, Level};
use crate::units::{ms, plural, rate};
use std::collections::BTreeMap;

/// Steps of one bound.
#[derive(Debug, Clone, PartialEq)]
pub struct ByBound {
    /// What sets their time.
    pub bound: Bound,
    /// How many.
    pub steps: usize,
    /// Their least time.
    pub attainable_ms: f64,
    /// Their measured time, where steps were measured.
    pub ms: Option<f64>,
}

/// The ceilings of a model on the optimized path.
#[derive(Debug, Clone, PartialEq)]
pub struct Roofline {
    /// For its instruction set and threads.
    pub ceilings: Ceilings,
    /// The level that holds all weights and the peak of activations: where weights come from.
    pub weights_in: Level,
    /// Sum over steps of the larger of arithmetic and compulsory bytes.
    pub floor_ms: f64,
    /// The same with the overhead of handing out work where that is larger.
    pub attainable_ms: f64,
    /// The median latency.
    pub measured_ms: f64,
    /// Steps that cover nodes.
    pub steps: usize,
    /// Of these, of unknown cost: the floor lacks them.
    pub unknown_steps: usize,
    /// By what sets the time, most measured (or attainable) time first.
    pub by_bound: Vec<ByBound>,
    /// Age of the probe.
    pub probe_age_s: u64,
}

impl Roofline {
    /// Measured time ÷ floor; `None` where the floor lacks steps or is nothing.
    pub fn measured_over_floor(&self) -> Option<f64> {
        (self.unknown_steps == 0 && self.floor_ms > 0.0).then(|| self.measured_ms / self.floor_ms)
    }

    /// One line for people.
    pub fn words(&self) -> String {
        let c = &self.ceilings;
        let mut text = format!("{} ms", ms(self.floor_ms));
        if let Some(x) = self.measured_over_floor() {
            text.push_str(&format!(", measured is {} times that", rate(x)));
        }
        text.push_str(&format!(
            " (per step the larger of arithmetic at {} GMAdd/s and compulsory bytes at their level, weights from {}; {}, {}; probed {} ago",
            rate(c.peak_madds_per_s / 1e9),
            self.weights_in.name(),
            plural(c.threads, "thread"),
            c.isa,
            age(self.probe_age_s)
        ));
        if self.unknown_steps > 0 {
            text.push_str(&format!("; {} of unknown cost not in it", plural(self.unknown_steps, "step")));
        }
        text.push(')');
        text
    }
}

/// An age in the largest unit of which there are two.
pub fn age(seconds: u64) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (size, name) = units.into_iter().find(|(size, _)| seconds >= 2 * size).unwrap_or((1, "second"));
    plural((seconds / size) as usize, name)
}

/// Gives rows their ceilings and sums them; `None` without a probe or without the optimized path.
pub(super) fn attach(layers: &mut [Layer], source: &Source, latency: &[Latency]) -> Option<Roofline> {
    let (machine, probe_age_s) = source.machine?;
    let measured = latency.iter().find(|l| l.path == Path::Optimized)?;
    let ceilings = Ceilings::of(machine, &measured.isa, measured.threads)?;
    let profile = source.profiles.iter().find(|p| p.path == Path::Optimized);
    let steps: Vec<(&[NodeId], Option<f64>)> = match profile {
        Some(p) => p.steps.iter().map(|s| (&s.covers[..], Some(s.seconds * 1e3))).collect(),
        None => source.steps.iter().map(|covers| (&covers[..], None)).collect(),
    };
    let demands = Demands::new(&source.model.graph, source.analysis);
    let resident = demands.resident_bytes();
    let mut r = Roofline {
        weights_in: ceilings.shelf(resident).level,
        ceilings,
        floor_ms: 0.0,
        attainable_ms: 0.0,
        measured_ms: measured.stats.median * 1e3,
        steps: 0,
        unknown_steps: 0,
        by_bound: Vec::new(),
        probe_age_s,
    };
    let mut by_bound: BTreeMap<Bound, ByBound> = BTreeMap::new();
    // Attainable time and its largest part per row; a step of unknown cost makes its row unknown.
    let mut rows: BTreeMap<usize, Option<(f64, f64, Bound)>> = BTreeMap::new();
    for (covers, step_ms) in steps.into_iter().filter(|s| !s.0.is_empty()) {
        r.steps += 1;
        let row = rows.entry(covers[0].0 as usize).or_insert(Some((0.0, -1.0, Bound::Overhead)));
        let Some(demand) = demands.of(covers) else {
            r.unknown_steps += 1;
            *row = None;
            continue;
        };
        let roof = r.ceilings.roof(&demand, resident);
        let attainable = roof.attainable_s * 1e3;
        r.floor_ms += roof.floor_s * 1e3;
        r.attainable_ms += attainable;
        if let Some((sum, largest, bound)) = row {
            *sum += attainable;
            if attainable > *largest {
                (*largest, *bound) = (attainable, roof.bound);
            }
        }
        let b =
            by_bound.entry(roof.bound).or_insert(ByBound { bound: roof.bound, steps: 0, attainable_ms: 0.0, ms: None });
        b.steps += 1;
        b.attainable_ms += attainable;
        if let Some(ms) = step_ms {
            b.ms = Some(b.ms.unwrap_or(0.0) + ms);
        }
    }
    for (i, roof) in rows {
        if let (Some(layer), Some((sum, _, bound)), Some(_)) = (layers.get_mut(i), roof, profile) {
            layer.attainable_ms = Some(sum);
            layer.bound = Some(bound);
        }
    }
    r.by_bound = by_bound.into_values().collect();
    r.by_bound.sort_by(|a, b| b.ms.unwrap_or(b.attainable_ms).total_cmp(&a.ms.unwrap_or(a.attainable_ms)));
    Some(r)
}

/// What sets most of the least time of some rows.
pub(super) fn main_bound<'a>(rows: impl Iterator<Item = &'a Layer>) -> Option<Bound> {
    let mut sums: BTreeMap<Bound, f64> = BTreeMap::new();
    for l in rows {
        if let (Some(bound), Some(ms)) = (l.bound, l.attainable_ms) {
            *sums.entry(bound).or_default() += ms;
        }
    }
    sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(bound, _)| bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_well() {
        assert_eq!((age(0), age(1), age(119)), ("0 seconds".into(), "1 second".into(), "119 seconds".into()));
        assert_eq!((age(120), age(7200), age(172_800)), ("2 minutes".into(), "2 hours".into(), "2 days".into()));
    }
}
