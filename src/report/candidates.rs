//! Several models side by side: what each costs on paper, what this machine allows, what it did cost, and how they rank.
//!
//! Predicted and measured times of candidates meet here and nowhere else; `variants` and `compare` show the same rows.

use super::columns::Cell;
use super::grid::{Grid, GridColumn};
use crate::analysis::{Analysis, Demands, Totals};
use crate::engine::Path;
use crate::ir::{Graph, NodeId};
use crate::machine::{Bound, Ceilings};
use crate::measure::{Ratio, Stats};
use crate::units::{rate, si};
use serde_json::json;
use std::collections::BTreeMap;

/// What this machine's ceilings allow a candidate on the optimized path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// Sum of the steps' least times.
    pub ms: f64,
    /// What sets most of it.
    pub bound: Bound,
}

/// The roofline's time of a plan; `None` where the cost of a step is not known.
pub fn predict(graph: &Graph, analysis: &Analysis, steps: &[Vec<NodeId>], ceilings: &Ceilings) -> Option<Predicted> {
    let demands = Demands::new(graph, analysis);
    let resident = demands.resident_bytes();
    let (mut sum, mut by_bound) = (0.0, BTreeMap::<Bound, f64>::new());
    for covers in steps.iter().filter(|c| !c.is_empty()) {
        let roof = ceilings.roof(&demands.of(covers)?, resident);
        sum += roof.attainable_s;
        *by_bound.entry(roof.bound).or_default() += roof.attainable_s;
    }
    let bound = by_bound.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?.0;
    Some(Predicted { ms: sum * 1e3, bound })
}

/// A measured time beside the first candidate's.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// Whole runs, seconds.
    pub stats: Stats,
    /// This ÷ the first candidate's, paired by rounds; `None` for the first itself.
    pub ratio: Option<Ratio>,
}

/// Where the time of a candidate goes: shares of the optimized path's time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spent {
    /// In steps of depthwise or grouped convolutions, and their multiply-adds.
    pub thin_s: f64,
    /// See `thin_s`.
    pub thin_madds: u64,
    /// In steps without any multiply-add.
    pub moving_s: f64,
    /// In all steps.
    pub all_s: f64,
    /// Of `all_s`, in steps that run on reference loops, for want of a kernel.
    pub plain_s: f64,
}

/// What going over to a candidate costs that shares another's weights: the first run after the other's, less the run after that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Switching {
    /// Median, milliseconds.
    pub ms: f64,
    /// Its 95 % confidence interval.
    pub interval: Option<(f64, f64)>,
}

/// One model among several.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// What it is called.
    pub name: String,
    /// Its counts.
    pub totals: Totals,
    /// Layers rewritten and layers left alone, for variants.
    pub layers: Option<(usize, usize)>,
    /// The roofline's time.
    pub predicted: Option<Predicted>,
    /// Reference path.
    pub reference: Option<Timing>,
    /// Optimized path.
    pub optimized: Option<Timing>,
    /// Where the time of the optimized path goes.
    pub spent: Option<Spent>,
    /// Preparing the optimized path: planning and packing weights.
    pub prepare_ms: Option<f64>,
    /// Bytes of weights as the optimized path's kernels want them, without those that a wider candidate with the same weights holds.
    pub packed_bytes: Option<u64>,
    /// Going over to it from another width of its weights.
    pub switch: Option<Switching>,
    /// Up to which size it pays, in words and as numbers for machines: the largest or smallest size measured at which it does.
    pub break_even: Option<String>,
    /// Published top-1 accuracy in percent.
    pub top1: Option<f64>,
    /// Whether no other candidate is both faster and at least as accurate.
    pub is_pareto: Option<bool>,
}

impl Candidate {
    /// With its counts, nothing measured.
    pub fn new(name: &str, totals: Totals) -> Candidate {
        Candidate {
            name: name.to_string(),
            totals,
            layers: None,
            predicted: None,
            reference: None,
            optimized: None,
            spent: None,
            prepare_ms: None,
            packed_bytes: None,
            switch: None,
            break_even: None,
            top1: None,
            is_pareto: None,
        }
    }
    /// Its time on a path.
    pub fn timing(&self, path: Path) -> Option<&Timing> {
        match path {
            Path::Reference => self.reference.as_ref(),
            Path::Optimized => self.optimized.as_ref(),
            Path::Runtime => None,
        }
    }
    fn bytes(&self) -> u64 {
        self.totals.traffic.total()
    }
    fn intensity(&self) -> Option<f64> {
        let known = self.totals.unknown_nodes == 0 && self.totals.unknown_traffic == 0 && self.bytes() > 0;
        known.then(|| self.totals.work.flops() as f64 / self.bytes() as f64)
    }
}

/// The rows, the first one being what the others are compared with. `show_top1` adds accuracy and the Pareto set.
pub fn grid(name: &'static str, heading: String, candidates: &[Candidate], show_top1: bool) -> Grid {
    let timed = |path| candidates.iter().any(|c| c.timing(path).is_some());
    let (reference, optimized) = (timed(Path::Reference), timed(Path::Optimized));
    let any = |f: &dyn Fn(&Candidate) -> bool| candidates.iter().any(f);
    let shown = |is: bool, key: &str, title: &str| {
        if is { GridColumn::new(key, title) } else { GridColumn::machine(key) }
    };
    let columns = vec![
        GridColumn::new("name", if name == "variants" { "Variant" } else { "Model" }),
        shown(any(&|c| c.layers.is_some_and(|l| l.0 + l.1 > 1)), "layers_rewritten", "Layers"),
        GridColumn::machine("layers_left"),
        GridColumn::new("params", "Params").yields(2),
        GridColumn::new("madds", "MAdds"),
        GridColumn::machine("other_flops"),
        GridColumn::machine("weight_bytes"),
        GridColumn::new("bytes", "Bytes").yields(7),
        GridColumn::new("intensity", "FLOP/B").yields(6),
        shown(any(&|c| c.predicted.is_some()), "predicted_ms", "Roof ms").yields(3),
        shown(reference, "reference_ms", "Ref ms").yields(3),
        shown(optimized, "optimized_ms", "Opt ms"),
        shown(optimized, "gmadds_per_s", "GMAdd/s").yields(5),
        GridColumn::new("madds_ratio", "xMAdds"),
        shown(optimized, "time_ratio", "xtime"),
        GridColumn::machine("time_ratio_low"),
        GridColumn::machine("time_ratio_high"),
        shown(optimized && name == "variants", "interval", "95 %").yields(4),
        shown(reference && !optimized, "reference_ratio", "xref"),
        GridColumn::machine("predicted_ratio"),
        shown(any(&|c| c.predicted.is_some()), "bound", "Bound").yields(1),
        shown(any(&|c| c.break_even.is_some()), "break_even", "Break-even"),
        shown(show_top1, "top1_pct", "Top-1 %").yields_last(1),
        shown(show_top1, "pareto", "Pareto").yields_last(2),
        shown(any(&|c| c.switch.is_some()), "prepare_ms", "Prep ms").yields_last(3),
        shown(any(&|c| c.switch.is_some()), "switch_ms", "Switch ms"),
        GridColumn::machine("switch_low_ms"),
        GridColumn::machine("switch_high_ms"),
        shown(any(&|c| c.switch.is_some()), "packed_bytes", "Packed"),
    ];
    let first = candidates.first();
    let rows = candidates.iter().map(|c| row(c, first)).collect();
    Grid { name, heading, columns, rows, ..Grid::default() }
}

fn row(c: &Candidate, first: Option<&Candidate>) -> Vec<Cell> {
    let opt = |v: Option<f64>, make: fn(f64) -> Cell| v.filter(|v| v.is_finite()).map_or(Cell::Blank, make);
    let t = &c.totals;
    let known = t.unknown_nodes == 0;
    let over = |f: &dyn Fn(&Candidate) -> Option<f64>| Some(f(c)? / f(first?).filter(|v| *v > 0.0)?);
    let seconds = c.optimized.as_ref().map(|o| o.stats.median);
    let interval = c.optimized.as_ref().and_then(|o| o.ratio).and_then(|r| r.interval);
    vec![
        Cell::Text(c.name.clone()),
        c.layers.map_or(Cell::Blank, |l| Cell::Count(l.0 as u64)),
        c.layers.map_or(Cell::Blank, |l| Cell::Count(l.1 as u64)),
        Cell::Count(t.params),
        if known { Cell::Count(t.work.madds) } else { Cell::AtLeast(t.work.madds) },
        Cell::Count(t.work.other_flops),
        Cell::Bytes(t.param_bytes),
        if t.unknown_traffic == 0 { Cell::Bytes(c.bytes()) } else { Cell::AtLeastBytes(c.bytes()) },
        opt(c.intensity(), Cell::Ratio),
        opt(c.predicted.map(|p| p.ms), Cell::Ms),
        opt(c.reference.as_ref().map(|r| r.stats.median * 1e3), Cell::Ms),
        opt(seconds.map(|s| s * 1e3), Cell::Ms),
        opt(seconds.filter(|s| *s > 0.0 && known).map(|s| t.work.madds as f64 / s / 1e9), Cell::Giga),
        opt(over(&|c| (c.totals.unknown_nodes == 0).then_some(c.totals.work.madds as f64)), Cell::Ratio),
        opt(time_ratio(c, first, Path::Optimized), Cell::Ratio),
        opt(interval.map(|i| i.0), Cell::Ratio),
        opt(interval.map(|i| i.1), Cell::Ratio),
        interval.map_or(Cell::Blank, |(l, h)| Cell::Text(format!("{}..{}", rate(l), rate(h)))),
        opt(time_ratio(c, first, Path::Reference), Cell::Ratio),
        opt(over(&|c| c.predicted.map(|p| p.ms)), Cell::Ratio),
        c.predicted.map_or(Cell::Blank, |p| Cell::Text(p.bound.name())),
        c.break_even.clone().map_or(Cell::Blank, Cell::Text),
        opt(c.top1, Cell::Ratio),
        c.is_pareto.map_or(Cell::Blank, Cell::Flag),
        opt(c.prepare_ms, Cell::Ms),
        opt(c.switch.map(|s| s.ms), Cell::Ms),
        opt(c.switch.and_then(|s| s.interval).map(|i| i.0), Cell::Ms),
        opt(c.switch.and_then(|s| s.interval).map(|i| i.1), Cell::Ms),
        c.packed_bytes.map_or(Cell::Blank, Cell::Bytes),
    ]
}

/// A candidate's time ÷ the first one's: paired where they ran together.
fn time_ratio(c: &Candidate, first: Option<&Candidate>, path: Path) -> Option<f64> {
    let (mine, base) = (c.timing(path)?, first?.timing(path)?);
    Some(mine.ratio.map_or(mine.stats.median / base.stats.median, |r| r.median))
}

/// How much more time than multiply-adds promise is worth a word.
const SURPRISING: f64 = 1.5;
/// Share by which multiply-adds fall or time grows that is no accident of rounding or timing.
const NOTICEABLE: f64 = 0.03;
/// Share of its time worth a word.
const WORTH: f64 = 0.15;

/// Sentences on candidates that take much more time than their multiply-adds promise, or more time for fewer: how much, and what takes it.
pub fn surprises(candidates: &[Candidate]) -> Vec<String> {
    let Some(first) = candidates.first() else { return Vec::new() };
    let mut out = Vec::new();
    for c in &candidates[1..] {
        let madds = c.totals.work.madds as f64 / first.totals.work.madds.max(1) as f64;
        let Some(timing) = &c.optimized else { continue };
        let Some(time) = time_ratio(c, Some(first), Path::Optimized) else { continue };
        let slower = madds < 1.0 - NOTICEABLE && time > 1.0 + NOTICEABLE;
        if time < SURPRISING * madds && !slower {
            continue;
        }
        let verdict = match timing.ratio {
            Some(r) if r.is_above_one() => ", so it is slower",
            Some(r) if r.is_below_one() && time < 0.9 => ", so it saves less time than that",
            Some(Ratio { interval: Some(_), .. }) => ", so it is about as fast",
            _ => " (in too few rounds to be certain)",
        };
        let mut text = format!("{}: {} x the MAdds but {} x the time{verdict}", c.name, rate(madds), rate(time));
        if let (Some(p), Some(q)) = (c.predicted, first.predicted) {
            text.push_str(&format!(
                ". The roofline allows {} x ({}-bound, {} FLOP/B after {})",
                rate(p.ms / q.ms),
                p.bound.name(),
                c.intensity().map_or("?".into(), rate),
                first.intensity().map_or("?".into(), rate)
            ));
        }
        if let Some(s) = c.spent.filter(|s| s.all_s > 0.0) {
            let shares = [
                (
                    s.thin_s,
                    format!("depthwise and grouped steps, at {} GMAdd/s", rate(s.thin_madds as f64 / s.thin_s / 1e9)),
                ),
                (s.moving_s, "steps that multiply nothing".to_string()),
                (s.plain_s, "reference loops, for want of a kernel".to_string()),
            ];
            let worth = shares.into_iter().filter(|(t, _)| *t > WORTH * s.all_s);
            let mut parts: Vec<String> =
                worth.map(|(t, what)| format!("{:.0} % goes to {what}", 100.0 * t / s.all_s)).collect();
            if let Some(first) = parts.first_mut() {
                *first = format!("of its time {first}");
            }
            let paces = [first, c]
                .map(|c| c.optimized.as_ref().map_or(0.0, |o| c.totals.work.madds as f64 / o.stats.median / 1e9));
            parts.push(format!("it multiplies at {} GMAdd/s after {}", rate(paces[1]), rate(paces[0])));
            text.push_str(&format!("; {}", parts.join(", ")));
        }
        text.push('.');
        out.push(text);
    }
    out
}

/// What latency is compared with.
pub const MEASURES: &[(&str, &str)] =
    &[("params", "Params"), ("madds", "MAdds"), ("bytes", "bytes"), ("predicted_ms", "predicted time")];

/// A rank correlation of a measure with measured latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correlation {
    /// Key of the measure.
    pub measure: &'static str,
    /// Its name.
    pub title: &'static str,
    /// Spearman's.
    pub spearman: Option<f64>,
    /// Kendall's τ-b.
    pub kendall: Option<f64>,
    /// Over how many candidates.
    pub models: usize,
}

/// Rank correlations with the latency of the optimized path (or the reference path where only that was measured).
pub fn correlations(candidates: &[Candidate]) -> Vec<Correlation> {
    let value = |c: &Candidate, key: &str| match key {
        "params" => Some(c.totals.params as f64),
        "madds" => (c.totals.unknown_nodes == 0).then_some(c.totals.work.madds as f64),
        "bytes" => (c.totals.unknown_traffic == 0).then(|| c.bytes() as f64),
        _ => c.predicted.map(|p| p.ms),
    };
    MEASURES
        .iter()
        .map(|&(measure, title)| {
            let pairs = candidates.iter().filter_map(|c| Some((value(c, measure)?, latency(c)?)));
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.unzip();
            Correlation {
                measure,
                title,
                spearman: crate::measure::stats::spearman(&a, &b),
                kendall: crate::measure::stats::kendall(&a, &b),
                models: a.len(),
            }
        })
        .collect()
}

/// Measured seconds.
pub fn latency(c: &Candidate) -> Option<f64> {
    c.optimized.as_ref().or(c.reference.as_ref()).map(|t| t.stats.median)
}

/// Marks the candidates that no other beats in both latency and published accuracy. Those without either are not judged.
pub fn mark_pareto(candidates: &mut [Candidate]) {
    let points: Vec<Option<(f64, f64)>> = candidates.iter().map(|c| latency(c).zip(c.top1)).collect();
    for (i, c) in candidates.iter_mut().enumerate() {
        c.is_pareto = points[i].map(|(s, a)| {
            let beats = |&(s2, a2): &(f64, f64)| s2 <= s && a2 >= a && (s2 < s || a2 > a);
            !points.iter().flatten().any(beats)
        });
    }
}

/// The correlations as a JSON value.
pub fn correlations_json(list: &[Correlation]) -> serde_json::Value {
    let one = |c: &Correlation| json!({"measure": c.measure, "spearman": c.spearman, "kendall": c.kendall, "models": c.models});
    list.iter().map(one).collect()
}

/// Candidates as points of a terminal: multiply-adds to the right, latency up, both logarithmic; a letter each, and what it stands for.
pub fn scatter(candidates: &[Candidate], width: usize, height: usize) -> Option<String> {
    let points: Vec<(usize, f64, f64)> = candidates
        .iter()
        .enumerate()
        .filter_map(|(i, c)| Some((i, (c.totals.work.madds as f64).log10(), latency(c)?.log10())))
        .filter(|p| p.1.is_finite() && p.2.is_finite())
        .collect();
    if points.len() < 2 {
        return None;
    }
    let range = |f: &dyn Fn(&(usize, f64, f64)) -> f64| {
        let (low, high) =
            points.iter().map(f).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        (low, (high - low).max(1e-9))
    };
    let ((x0, xs), (y0, ys)) = (range(&|p| p.1), range(&|p| p.2));
    const MARGIN: usize = 10;
    let columns = width.saturating_sub(MARGIN + 2).clamp(20, 100);
    let mut field = vec![vec![' '; columns]; height];
    for (i, x, y) in &points {
        let column = ((x - x0) / xs * (columns - 1) as f64).round() as usize;
        let row = height - 1 - ((y - y0) / ys * (height - 1) as f64).round() as usize;
        let cell = &mut field[row][column];
        *cell = if *cell == ' ' { mark(*i) } else { '*' };
    }
    let label = |row: usize| {
        let y = y0 + ys * (height - 1 - row) as f64 / (height - 1) as f64;
        format!("{} ms", crate::units::ms(10f64.powf(y) * 1e3))
    };
    let mut out = String::new();
    for (row, cells) in field.iter().enumerate() {
        let side = if row == 0 || row == height - 1 || row == height / 2 { label(row) } else { String::new() };
        let line: String = cells.iter().collect();
        out.push_str(format!("{side:>MARGIN$} |{}", line.trim_end()).trim_end());
        out.push('\n');
    }
    let (left, right) =
        (si(10f64.powf(x0).round() as u64), format!("{} MAdds", si(10f64.powf(x0 + xs).round() as u64)));
    let gap = columns.saturating_sub(left.chars().count() + right.chars().count());
    out.push_str(&format!("{:MARGIN$} +{}\n", "", "-".repeat(columns)));
    out.push_str(&format!("{:MARGIN$}  {left}{}{right}\n", "", " ".repeat(gap)));
    Some(out)
}

/// The letter a candidate has in a scatter; `+` beyond the ninety-sixth.
pub fn mark(i: usize) -> char {
    const MARKS: &str =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789αβγδεζηθικλμνξοπρστυφχψωΓΔΘΛΞΠΣΦΨΩ";
    MARKS.chars().nth(i).unwrap_or('+')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Work;

    fn candidate(name: &str, madds: u64, ms: f64, top1: f64) -> Candidate {
        let totals = Totals { params: madds / 10, work: Work { madds, ..Work::NONE }, ..Totals::default() };
        let stats = Stats::of(&[ms / 1e3; 9]).unwrap();
        let optimized = Some(Timing { stats, ratio: None });
        Candidate { optimized, top1: Some(top1), ..Candidate::new(name, totals) }
    }

    #[test]
    fn who_is_beaten_in_both_is_not_in_the_pareto_set() {
        let mut list = vec![
            candidate("fast", 100, 1.0, 60.0),
            candidate("good", 400, 4.0, 75.0),
            candidate("beaten", 200, 5.0, 74.0),
            candidate("equal", 300, 4.0, 75.0),
        ];
        list.push(Candidate { top1: None, ..candidate("unknown", 10, 0.1, 0.0) });
        mark_pareto(&mut list);
        let marks: Vec<_> = list.iter().map(|c| c.is_pareto).collect();
        assert_eq!(marks, [Some(true), Some(true), Some(false), Some(true), None]);
    }

    #[test]
    fn fewer_multiply_adds_that_take_longer_are_told() {
        let list =
            [candidate("base", 1000, 1.0, 0.0), candidate("light", 500, 1.2, 0.0), candidate("honest", 500, 0.5, 0.0)];
        // A little fewer, and a little slower: told as well.
        let near = [list[0].clone(), candidate("asymmetric", 880, 1.16, 0.0), candidate("same", 990, 1.1, 0.0)];
        let told = surprises(&near);
        assert!(told.len() == 1 && told[0].starts_with("asymmetric: 0.88 x the MAdds but 1.16 x the time"), "{told:?}");
        let told = surprises(&list);
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("light: 0.50 x the MAdds but 1.20 x the time"), "{told:?}");
        let c = correlations(&list);
        assert_eq!((c[1].measure, c[1].models), ("madds", 3));
        assert!(c[3].spearman.is_none() && c[3].models == 0, "nothing was predicted");
    }

    #[test]
    fn the_scatter_has_every_candidate_and_both_scales() {
        let list = [
            candidate("a", 1_000_000, 1.0, 0.0),
            candidate("b", 10_000_000, 10.0, 0.0),
            candidate("c", 5_000_000, 20.0, 0.0),
        ];
        let text = scatter(&list, 60, 9).unwrap();
        for part in ["A", "B", "C", "1.000 ms", "20.00 ms", "1.000 M", "10.00 M MAdds"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(text.lines().count(), 11);
        assert!(scatter(&list[..1], 60, 9).is_none());
    }
}
