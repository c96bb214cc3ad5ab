//! Break-even: variants timed again at other sizes of a layer or of a whole model, and where the paired ratio crosses 1.

use super::args::{BreakEven, VariantsArgs};
use super::load::{self, Loaded};
use super::progress::Progress;
use super::race::{Runner, timed};
use super::variants::seen;
use crate::engine::{Path as KernelPath, Session};
use crate::error::Result;
use crate::ir::{self, Bindings};
use crate::measure::{Ratio, paired};
use crate::ops::spec::ModelSpec;
use crate::report::candidates::Candidate;
use crate::tensor::Tensor;
use crate::variants::layer::LayerSpec;
use crate::variants::{Choice, Policy, apply};
use crate::zoo;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A size and the time ratio there.
type Point = (usize, Ratio);

/// Time ratios of every variant at several sizes.
#[derive(Default)]
pub struct Sweep {
    /// For every variant, in order; empty for one that was not timed.
    pub points: Vec<Vec<Point>>,
    /// What a size is, in a few letters.
    unit: &'static str,
    /// What was varied, in words.
    pub what: &'static str,
}

impl Sweep {
    /// Whether nothing was swept.
    pub fn is_empty(&self) -> bool {
        self.points.iter().all(Vec::is_empty)
    }

    /// Where variant `k` pays, in words.
    pub fn words(&self, k: usize) -> Option<String> {
        words(self.points.get(k)?, self.unit)
    }

    /// All points, for machines.
    pub fn json(&self, candidates: &[Candidate]) -> Value {
        let point = |(size, r): &Point| json!({"size": size, "time_ratio": r.median, "low": r.interval.map(|i| i.0), "high": r.interval.map(|i| i.1)});
        let one = |(c, points): (&Candidate, &Vec<Point>)| json!({"variant": c.name, "points": points.iter().map(point).collect::<Vec<_>>()});
        let told = candidates.iter().skip(1).zip(&self.points).filter(|(_, points)| !points.is_empty());
        told.map(one).collect()
    }
}

/// Factors of a layer's sizes tried.
const FACTORS: &[f64] = &[0.125, 0.25, 0.5, 1.0, 2.0, 4.0];
/// Factors of a model's resolution, and shares of its channels.
const RESOLUTIONS: &[f64] = &[0.25, 0.5, 1.0, 1.5];
const WIDTHS: &[f64] = &[0.25, 0.5, 0.75, 1.0];
/// Sides of images are multiples of this: what most networks halve their maps by.
const SIDE: usize = 32;
/// Fewest channels tried, and most multiply-adds of a layer and of a model.
const FEWEST: usize = 4;
const MOST_MADDS: f64 = 1.5e9;
const MOST_MODEL_MADDS: f64 = 12e9;

/// Seconds per variant and size.
pub fn seconds(args: &VariantsArgs) -> f64 {
    args.measure.seconds / 4.0
}

/// One size: the original there, and how variants are made of it.
struct Sized {
    size: usize,
    spec: ModelSpec,
    bindings: Bindings,
    /// What comes before a variant: the width of a model that has no knob for it.
    first: Option<Choice>,
}

/// A layer at other channels or maps.
///
/// # Errors
/// If a size cannot be built or run.
pub fn of_layer(layer: &LayerSpec, sets: &[Vec<Choice>], args: &VariantsArgs) -> Result<Sweep> {
    let channels = args.break_even != Some(BreakEven::Resolution);
    let mut tried = BTreeSet::new();
    let mut sizes = Vec::new();
    for &f in FACTORS {
        let l = if channels { layer.scaled(f, 1.0) } else { layer.scaled(1.0, f) };
        let wide = l.ic.min(l.oc) >= FEWEST.min(layer.ic.min(layer.oc));
        if !wide || !tried.insert((l.ic, l.oc, l.size)) {
            continue;
        }
        let spec = l.model()?;
        let original = Runner::new("original", ir::build(&spec, &Bindings::default())?);
        if original.analysis.totals.work.madds as f64 > MOST_MADDS && l != *layer {
            continue;
        }
        let size = if channels { l.ic } else { l.size[0] };
        sizes.push(Sized { size, spec, bindings: Bindings::default(), first: None });
    }
    let (unit, what) = match channels {
        true => ("ch", "the same layer at other input channels (outputs in proportion)"),
        false => ("px", "the same layer at other heights of the map"),
    };
    let points = swept(&sizes, sets, true, args)?;
    Ok(Sweep { points, unit, what })
}

/// A model at other resolutions, or at other widths; variants not in `timed` are left out.
///
/// # Errors
/// If a size that was built cannot be run.
pub fn of_model(loaded: &Loaded, bindings: &Bindings, sets: &[Vec<Choice>], args: &VariantsArgs) -> Result<Sweep> {
    let by_resolution = || (resolutions(loaded, bindings), "px", "the same model at other heights of its image");
    let by_width = || {
        (
            widths(loaded, bindings),
            "% wide",
            "the same model with a share of its channels (the leading ones of every layer, or its width knob)",
        )
    };
    let (sizes, unit, what) = match args.break_even {
        Some(BreakEven::Resolution) => by_resolution(),
        Some(BreakEven::Channels) => by_width(),
        Some(BreakEven::Off) => return Ok(Sweep::default()),
        None => {
            let first = by_resolution();
            // An image of fixed size.
            if first.0.len() > 1 { first } else { by_width() }
        }
    };
    let points = if sizes.len() > 1 { swept(&sizes, sets, false, args)? } else { Vec::new() };
    Ok(Sweep { points, unit, what })
}

/// Whether a model of this size builds, and is not too large to time.
fn fits(sized: &Sized) -> bool {
    let first: Vec<Choice> = sized.first.iter().cloned().collect();
    let built = match first.is_empty() {
        true => ir::build(&sized.spec, &sized.bindings),
        false => apply(&sized.spec, &sized.bindings, &first, &Policy::default()).map(|r| r.model),
    };
    built.is_ok_and(|m| crate::analysis::analyze(&m.graph).totals.work.madds as f64 <= MOST_MODEL_MADDS)
}

/// A built-in network's name with a knob set anew; `None` where it has no such knob or not this value.
fn with_knob(loaded: &Loaded, knob: &str, value: String) -> Option<ModelSpec> {
    if loaded.path.is_some() {
        return None;
    }
    let (base, knobs) = loaded.name.split_once('@').unwrap_or((&loaded.name, ""));
    let own = |k: &&str| !k.trim().is_empty() && k.split('=').next().map(str::trim) != Some(knob);
    let others: Vec<&str> = knobs.split([',', '@']).filter(own).collect();
    let all: Vec<String> = others.into_iter().map(Into::into).chain([format!("{knob}={value}")]).collect();
    zoo::build(&format!("{base}@{}", all.join(","))).ok()
}

fn resolutions(loaded: &Loaded, bindings: &Bindings) -> Vec<Sized> {
    let Ok(model) = ir::build(&loaded.spec, bindings) else { return Vec::new() };
    let Some(&input) = model.graph.inputs().first() else { return Vec::new() };
    let value = model.graph.value(input);
    let Some(dims) = value.fact.shape.concrete().filter(|d| d.len() == 4 && d[1] <= 4) else { return Vec::new() };
    let mut out: Vec<Sized> = Vec::new();
    for &f in RESOLUTIONS {
        let side = |s: usize| if f == 1.0 { s } else { ((s as f64 * f / SIDE as f64).round() as usize).max(1) * SIDE };
        let (h, w) = (side(dims[2]), side(dims[3]));
        let sized = match with_knob(loaded, "res", h.to_string()).filter(|_| f != 1.0) {
            Some(spec) => Sized { size: h, spec, bindings: bindings.clone(), first: None },
            None => {
                let mut bindings = bindings.clone();
                bindings.shapes.insert(value.name.clone(), vec![dims[0], dims[1], h, w]);
                Sized { size: h, spec: loaded.spec.clone(), bindings, first: None }
            }
        };
        if out.iter().all(|o| o.size != h) && (f == 1.0 || fits(&sized)) {
            out.push(sized);
        }
    }
    out
}

fn widths(loaded: &Loaded, bindings: &Bindings) -> Vec<Sized> {
    let mut out = Vec::new();
    for &f in WIDTHS {
        let knob = with_knob(loaded, "width", f.to_string());
        let first = match (&knob, Choice::parse(&format!("slim@width={f}"))) {
            (None, Ok(slim)) if f != 1.0 => Some(slim),
            _ => None,
        };
        let spec = knob.unwrap_or_else(|| loaded.spec.clone());
        let sized = Sized { size: (100.0 * f).round() as usize, spec, bindings: bindings.clone(), first };
        if f == 1.0 || fits(&sized) {
            out.push(sized);
        }
    }
    out
}

/// Times every variant against the original at every size, in turns.
fn swept(sizes: &[Sized], sets: &[Vec<Choice>], force: bool, args: &VariantsArgs) -> Result<Vec<Vec<Point>>> {
    let mut out = vec![Vec::new(); sets.len()];
    let progress = Progress::new("break-even", args.quiet);
    for (i, sized) in sizes.iter().enumerate() {
        progress.tell(i as f64 / sizes.len() as f64);
        let first: Vec<Choice> = sized.first.iter().cloned().collect();
        let whole: Vec<Vec<Choice>> = sets.iter().map(|s| first.iter().chain(s).cloned().collect()).collect();
        let policy = Policy { force, ranges: seen(&sized.spec, &sized.bindings, &whole, true)? };
        let prepared = |model: &ir::Model| -> Result<(Session, Vec<Tensor>)> {
            let session =
                load::session(&Arc::new(model.graph.clone()), KernelPath::Optimized, &args.measure.engine, true)?;
            Ok((session, load::made_up_inputs(model)?))
        };
        let original = apply(&sized.spec, &sized.bindings, &first, &policy)?;
        let (mut sessions, mut who) = (vec![prepared(&original.model)?], Vec::new());
        for (k, set) in whole.iter().enumerate().filter(|(k, _)| !sets[*k].is_empty()) {
            // What does not fit at this size has no point there.
            let Ok(r) = apply(&sized.spec, &sized.bindings, set, &policy) else { continue };
            if r.steps.iter().skip(first.len()).all(|s| !s.changes.is_empty()) {
                sessions.push(prepared(&r.model)?);
                who.push(k);
            }
        }
        let samples = timed(&mut sessions, seconds(args), &mut |_| {})?;
        for (k, s) in who.into_iter().zip(&samples[1..]) {
            if let Some(ratio) = paired(s, &samples[0]) {
                out[k].push((sized.size, ratio));
            }
        }
    }
    Ok(out)
}

/// Differences below this share are none.
const EVEN: f64 = 0.03;

/// Where a variant pays, in words.
fn words(points: &[Point], unit: &str) -> Option<String> {
    let (first, last) = (points.first()?.0, points.last()?.0);
    if points.len() < 2 {
        return None;
    }
    let clear: Vec<&Point> = points.iter().filter(|p| (p.1.median - 1.0).abs() > EVEN).collect();
    let pays = |p: &Point| p.1.median < 1.0;
    let turns: Vec<usize> = (1..clear.len()).filter(|&i| pays(clear[i]) != pays(clear[i - 1])).collect();
    Some(match (&clear[..], &turns[..]) {
        ([], _) => format!("even {first}..{last} {unit}"),
        ([some, ..], []) if pays(some) => format!("pays {first}..{last} {unit}"),
        (_, []) => format!("never {first}..{last} {unit}"),
        (_, [i]) => {
            // Where the ratio is 1 on a line over the logarithm of the size.
            let ((a, ra), (b, rb)) = (*clear[i - 1], *clear[*i]);
            let share = (1.0 - ra.median) / (rb.median - ra.median);
            let at = ((a as f64).ln() + share * ((b as f64).ln() - (a as f64).ln())).exp().round();
            if rb.median < 1.0 { format!("from {at} {unit}") } else { format!("up to {at} {unit}") }
        }
        _ => format!("unclear {first}..{last} {unit}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn break_even_is_told_in_words() {
        let points = |list: &[(usize, f64)]| -> Vec<Point> {
            list.iter().map(|&(s, r)| (s, Ratio { median: r, interval: None })).collect()
        };
        let say = |list: &[(usize, f64)]| words(&points(list), "ch");
        // On a logarithmic line from 16 (1.5) to 64 (0.5), the middle is 32.
        assert_eq!(say(&[(16, 1.5), (64, 0.5), (128, 0.4)]).as_deref(), Some("from 32 ch"));
        assert_eq!(say(&[(16, 0.5), (64, 1.5)]).as_deref(), Some("up to 32 ch"));
        assert_eq!(say(&[(16, 0.5), (64, 0.9)]).as_deref(), Some("pays 16..64 ch"));
        assert_eq!(say(&[(16, 1.5), (64, 1.1)]).as_deref(), Some("never 16..64 ch"));
        assert_eq!(say(&[(16, 1.5), (32, 0.9), (64, 1.1)]).as_deref(), Some("unclear 16..64 ch"));
        assert_eq!(say(&[(16, 0.99), (32, 1.02)]).as_deref(), Some("even 16..32 ch"));
        assert_eq!(say(&[(16, 1.5), (32, 1.01), (64, 0.5)]).as_deref(), Some("from 32 ch"));
        assert_eq!(say(&[(16, 1.5)]), None);
    }

    #[test]
    fn a_built_in_network_is_built_anew_with_its_other_knobs_kept() {
        let loaded = load::load("mobilenet_v2@classes=10,res=96").unwrap();
        let spec = with_knob(&loaded, "res", "64".into()).unwrap();
        assert_eq!(spec.graph.name, "mobilenet_v2@res=64,classes=10");
        assert!(with_knob(&loaded, "depth", "2".into()).is_none());
        let sizes: Vec<usize> = resolutions(&loaded, &Bindings::default()).iter().map(|s| s.size).collect();
        assert_eq!(sizes, [32, 64, 96, 160]);
    }
}
