//! `variants`: other architectures of a model or of one convolution, counted, timed against the original, and written.

use super::args::{BreakEven, Paths, VariantsArgs};
use super::load::{self, Loaded};
use super::race::{Runner, race, timed};
use super::{FINE, budget, note, output, per_layer, progress::Progress};
use crate::config::Config;
use crate::engine::Path as KernelPath;
use crate::error::{Error, Result};
use crate::ir::{self, Bindings};
use crate::measure::{Ratio, paired};
use crate::ops::spec::ModelSpec;
use crate::report::Cell;
use crate::report::candidates::{self, Candidate};
use crate::report::grid::{Grid, GridColumn};
use crate::tensor::Tensor;
use crate::units::{ms, percent, plural};
use crate::variants::layer::LayerSpec;
use crate::variants::{Choice, Make, Policy, Ranges, Rewritten, Step, VARIANTS, apply, watched};
use crate::{onnx, variants};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Size from which a model's tensors are kept beside it, where they were before.
const EXTERNAL_BYTES: usize = 1024;

/// Makes, counts, times, writes and reports.
///
/// # Errors
/// If the model or layer cannot be read, a variant is unknown or fits nothing, or something cannot be run or written.
pub fn run(args: &VariantsArgs) -> Result<u8> {
    output::format(&args.output)?;
    if args.list {
        output::show_grid(&list(), &args.output)?;
        return Ok(FINE);
    }
    let layer = args.layer.as_deref().map(LayerSpec::parse).transpose()?;
    let sets = sets(args)?;
    if args.emit.is_some() && args.apply.len() != 1 {
        return Err(Error::usage("--emit writes one model").hint("say which with --apply, once"));
    }
    let bindings = bindings(args)?;
    let loaded = match &layer {
        Some(layer) => Loaded { name: layer.to_string(), path: None, spec: layer.model()? },
        None => load::load(args.model.as_deref().unwrap_or_default())?,
    };
    if let Some(wanted) = &args.budget {
        return budget::run(args, &loaded, &bindings, wanted);
    }
    let original = load::build(&loaded, &bindings)?;
    for text in &original.notes {
        note(args.quiet, text);
    }
    let ranges = seen(&loaded.spec, &bindings, &sets, args.quiet)?;
    let policy = Policy { force: layer.is_some(), ranges };
    let (mut made, mut failed, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for set in sets {
        match make(&loaded.spec, &bindings, std::slice::from_ref(&set), &policy) {
            Ok(mut one) => {
                made.append(&mut one);
                kept.push(set);
            }
            // One that cannot be made is no reason not to show the others.
            Err(e) if args.apply.is_empty() => {
                let names: Vec<String> = set.iter().map(Choice::name).collect();
                failed.push(format!("{} cannot be applied: {}", names.join("+"), e.message()));
            }
            Err(e) => return Err(e),
        }
    }
    let sets = kept;
    if !args.apply.is_empty()
        && let Some((_, nothing)) = made.iter().find(|(_, r)| r.steps.iter().any(|s| s.changes.is_empty()))
    {
        let step = nothing.steps.iter().find(|s| s.changes.is_empty());
        let why = step.map(reasons).unwrap_or_default();
        let name = step.map(|s| s.variant.clone()).unwrap_or_default();
        return Err(Error::usage(format!("--apply {name}: no layer of {} can be rewritten{why}", loaded.name))
            .hint("`madd-prof variants --list` says what each variant does"));
    }
    if let (Some(path), Some((_, r))) = (&args.emit, made.first()) {
        onnx::write(&r.spec, path, r.spec.has_external_data.then_some(EXTERNAL_BYTES))?;
        note(args.quiet, &format!("wrote {}", path.display()));
    }
    if args.per_layer {
        return per_layer::run(args, &loaded.name, &sets, &made);
    }
    let mut runners = vec![Runner::new("original", original)];
    let mut steps: Vec<Vec<Step>> = vec![Vec::new()];
    let mut fitting: Vec<Vec<Choice>> = Vec::new();
    let mut unfit: Vec<&Step> = Vec::new();
    for ((name, r), set) in made.iter().zip(&sets) {
        match r.steps.iter().find(|s| s.changes.is_empty()) {
            Some(step) => unfit.push(step),
            None => {
                let mut runner = Runner::new(name, r.model.clone());
                let sum = |f: &dyn Fn(&Step) -> usize| r.steps.iter().map(f).sum::<usize>();
                runner.candidate.layers = Some((sum(&|s| s.changes.len()), sum(&|s| s.left.len())));
                runners.push(runner);
                steps.push(r.steps.clone());
                fitting.push(set.clone());
            }
        }
    }
    let mut warnings = failed;
    let mut sweep = Vec::new();
    if !args.no_run {
        warnings.extend(conditions(args));
        runners.iter().try_for_each(|r| load::check_memory(&r.analysis, 2))?;
        let usual = if layer.is_some() { Paths::Both } else { Paths::Optimized };
        race(&mut runners, &args.measure, usual, args.quiet)?;
        if let Some(layer) = &layer
            && args.break_even != BreakEven::Off
            && args.measure.path != Some(Paths::Reference)
        {
            sweep = break_even(layer, &fitting, args)?;
            for (runner, points) in runners[1..].iter_mut().zip(&sweep) {
                runner.candidate.break_even = words(points, args.break_even);
            }
        }
    }
    warnings.iter().for_each(|w| note(args.quiet, w));
    let candidates: Vec<Candidate> = runners.iter().map(|r| r.candidate.clone()).collect();
    let mut grid = candidates::grid("variants", crate::error::printable(&loaded.name), &candidates, false);
    if layer.is_some() {
        grid.heading_key = "layer";
    }
    if !args.no_run {
        grid.summary.push(("Timed".into(), super::race::how(&args.measure)));
    }
    grid.notes.extend(candidates::surprises(&candidates));
    for (c, steps) in candidates.iter().zip(&steps).skip(1) {
        grid.notes.extend(told(c, steps, layer.is_some()));
    }
    for step in unfit {
        grid.notes.push(format!("{}: nothing to rewrite{}.", step.variant, reasons(step)));
    }
    if !sweep.is_empty() {
        let what = if args.break_even == BreakEven::Channels {
            "input channels (outputs in proportion)"
        } else {
            "height of the map"
        };
        grid.notes.push(format!(
            "Break-even: the same layer at other {what}, each size with all variants timed in turns for {} s each; where the paired \
             ratio of the optimized path crosses 1, on a line between sizes; differences below 3 % are none.",
            sweep_s(args)
        ));
    }
    grid.extra.push(("rewritten".into(), steps.iter().skip(1).flatten().map(step_json).collect::<Vec<_>>().into()));
    grid.extra.push(("break_even".into(), sweep_json(&candidates, &sweep)));
    grid.extra.push(("warnings".into(), warnings.into()));
    output::show_grid(&grid, &args.output)?;
    Ok(FINE)
}

/// The variants asked for, each a list that is applied together; by default every one by itself.
fn sets(args: &VariantsArgs) -> Result<Vec<Vec<Choice>>> {
    if args.apply.is_empty() {
        return Ok(VARIANTS.iter().map(|&e| vec![Choice::of(e)]).collect());
    }
    let one = |text: &String| text.split(',').map(Choice::parse).collect::<Result<Vec<_>>>();
    args.apply.iter().map(one).collect()
}

pub(super) fn bindings(args: &VariantsArgs) -> Result<Bindings> {
    let here = std::env::current_dir().unwrap_or_default();
    let rules = Arc::new(Config::find(None, &here)?.rules);
    let dims = args.dims.iter().cloned().collect();
    Ok(Bindings { dims, shapes: args.shapes.iter().cloned().collect(), values: BTreeMap::new(), rules })
}

/// Models with their names, in the order asked for.
pub(super) fn make(
    spec: &ModelSpec,
    bindings: &Bindings,
    sets: &[Vec<Choice>],
    policy: &Policy,
) -> Result<Vec<(String, Rewritten)>> {
    let one = |set: &Vec<Choice>| {
        let name = set.iter().map(Choice::name).collect::<Vec<_>>().join("+");
        Ok((name, apply(spec, bindings, set, policy)?))
    };
    sets.iter().map(one).collect()
}

/// The ranges activations take on made-up inputs, if a variant must know; also after other rewrites that come before it.
pub(super) fn seen(spec: &ModelSpec, bindings: &Bindings, sets: &[Vec<Choice>], quiet: bool) -> Result<Ranges> {
    let mut all = Ranges::new();
    for set in sets {
        let Some(at) = set.iter().position(Choice::needs_ranges) else { continue };
        let before = apply(spec, bindings, &set[..at], &Policy::default())?;
        let (names, watched) = watched(&before.spec);
        let progress = Progress::new("looking at activations", quiet);
        progress.spin();
        let model = ir::build(&watched, bindings)?;
        let graph = Arc::new(model.graph.clone());
        let options = load::plain_options(KernelPath::Optimized, crate::measure::host::cores())?;
        let mut session = crate::engine::Session::new(&graph, &options)?;
        let outputs = session.run(&load::made_up_inputs(&model)?)?;
        for (name, t) in names.into_iter().zip(&outputs) {
            if let Some(range) = range(t)? {
                let merged = all.get(&name).map_or(range, |o: &variants::Range| (o.0.min(range.0), o.1.max(range.1)));
                all.insert(name, merged);
            }
        }
    }
    Ok(all)
}

fn range(t: &Tensor) -> Result<Option<variants::Range>> {
    if t.dtype() != crate::tensor::DType::F32 || t.is_empty() {
        return Ok(None);
    }
    let v = t.view::<f32>()?;
    Ok(Some(v.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)))))
}

pub(super) fn conditions(args: &VariantsArgs) -> Vec<String> {
    super::race::conditions(&args.measure)
}

/// Reasons of layers left alone, the commonest first.
fn reasons(step: &Step) -> String {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for left in &step.left {
        *count.entry(left.reason.words()).or_default() += 1;
    }
    let mut list: Vec<(&str, usize)> = count.into_iter().collect();
    list.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let more = list.len().saturating_sub(3);
    let mut words: Vec<String> =
        list.iter().take(3).map(|(why, n)| if *n > 1 { format!("{why} (x{n})") } else { why.to_string() }).collect();
    if more > 0 {
        words.push(format!("{} more", plural(more, "reason")));
    }
    if words.is_empty() { String::new() } else { format!(": {}", words.join("; ")) }
}

/// What a variant did, as far as the table does not say.
fn told(c: &Candidate, steps: &[Step], single: bool) -> Vec<String> {
    let mut out = Vec::new();
    for step in steps {
        if !single && !step.left.is_empty() {
            out.push(format!(
                "{}: {} rewritten, {} left alone{}.",
                c.name,
                plural(step.changes.len(), "layer"),
                step.left.len(),
                reasons(step)
            ));
        }
        if step.variant.starts_with("sparse") {
            out.push(format!(
                "{}: hardware with 2:4 does half the multiply-adds of {} and stores the weights in {} of their float32 bytes; the file \
                 stays dense, and so do these counts and times.",
                c.name,
                plural(step.changes.len(), "layer"),
                percent(68.0 / 128.0)
            ));
        }
        if step.variant.starts_with("slim")
            && let Some(prepare) = c.prepare_ms
        {
            out.push(format!(
                "{}: its weights are the leading part of the original's; a switch to it costs {} ms, in which they are cut and packed.",
                c.name,
                ms(prepare)
            ));
        }
        if step.variant.starts_with("int8") {
            out.push(format!(
                "{}: ranges are those seen with made-up inputs, fit for counting and timing but not for accuracy.",
                c.name
            ));
        }
    }
    out
}

fn step_json(step: &Step) -> Value {
    let pair = |p: Option<(u64, u64)>| p.map_or(Value::Null, |(a, b)| json!([a, b]));
    let changes: Vec<Value> = step
        .changes
        .iter()
        .map(|c| json!({"node": c.node, "what": c.what, "params": pair(c.params), "madds": pair(c.madds)}))
        .collect();
    let left: Vec<Value> =
        step.left.iter().map(|l| json!({"node": l.node, "what": l.what, "reason": l.reason.words()})).collect();
    json!({"variant": step.variant, "layers": changes, "left_alone": left})
}

/// The variants there are.
fn list() -> Grid {
    let mut grid = Grid {
        name: "variants",
        heading: "Variants of dense convolutions (block) and of whole models".to_string(),
        heading_key: "title",
        columns: vec![
            GridColumn::new("name", "Name"),
            GridColumn::new("kind", "Kind"),
            GridColumn::new("about", "What it does"),
            GridColumn::new("knobs", "Knobs"),
        ],
        ..Grid::default()
    };
    for e in VARIANTS {
        let kind = if matches!(e.make, Make::Block(_)) { "block" } else { "model" };
        let knobs: Vec<String> = e.knobs.iter().map(|k| format!("{}={} ({})", k.name, k.default, k.about)).collect();
        let cells = [e.name, kind, e.about, &knobs.join(", ")].map(|t| Cell::Text(t.to_string()));
        grid.rows.push(cells.to_vec());
    }
    grid
}

// ------------------------------------------------------------------------------------------------------------- break-even

/// A size and the time ratio there.
type Point = (usize, Ratio);

/// Factors of sizes tried.
const FACTORS: &[f64] = &[0.125, 0.25, 0.5, 1.0, 2.0, 4.0];
/// Fewest channels tried, and most multiply-adds of the original.
const FEWEST: usize = 4;
const MOST_MADDS: f64 = 1.5e9;

/// Seconds per variant and size.
fn sweep_s(args: &VariantsArgs) -> f64 {
    args.measure.seconds / 4.0
}

/// For every variant, its time ratio at several sizes.
fn break_even(layer: &LayerSpec, sets: &[Vec<Choice>], args: &VariantsArgs) -> Result<Vec<Vec<Point>>> {
    let mut out = vec![Vec::new(); sets.len()];
    let mut tried = BTreeSet::new();
    let sizes: Vec<LayerSpec> = FACTORS
        .iter()
        .map(|&f| match args.break_even {
            BreakEven::Channels => layer.scaled(f, 1.0),
            _ => layer.scaled(1.0, f),
        })
        .filter(|l| l.ic.min(l.oc) >= FEWEST.min(layer.ic.min(layer.oc)))
        .filter(|l| tried.insert((l.ic, l.oc, l.size)))
        .collect();
    let progress = Progress::new("break-even", args.quiet);
    for (i, scaled) in sizes.iter().enumerate() {
        progress.tell(i as f64 / sizes.len() as f64);
        let spec = scaled.model()?;
        let original = Runner::new("original", ir::build(&spec, &Bindings::default())?);
        if original.analysis.totals.work.madds as f64 > MOST_MADDS && scaled != layer {
            continue;
        }
        let ranges = seen(&spec, &Bindings::default(), sets, true)?;
        let policy = Policy { force: true, ranges };
        let (mut sessions, mut who) = (Vec::new(), Vec::new());
        let prepared = |model: &ir::Model| -> Result<_> {
            let session =
                load::session(&Arc::new(model.graph.clone()), KernelPath::Optimized, &args.measure.engine, true)?;
            Ok((session, load::made_up_inputs(model)?))
        };
        sessions.push(prepared(&original.model)?);
        for (k, set) in sets.iter().enumerate() {
            let r = apply(&spec, &Bindings::default(), set, &policy)?;
            if r.steps.iter().all(|s| !s.changes.is_empty()) {
                sessions.push(prepared(&r.model)?);
                who.push(k);
            }
        }
        let samples = timed(&mut sessions, sweep_s(args), &mut |_| {})?;
        let size = if args.break_even == BreakEven::Channels { scaled.ic } else { scaled.size[0] };
        for (k, s) in who.into_iter().zip(&samples[1..]) {
            if let Some(ratio) = paired(s, &samples[0]) {
                out[k].push((size, ratio));
            }
        }
    }
    Ok(out)
}

/// Differences below this share are none.
const EVEN: f64 = 0.03;

/// Where a variant pays, in words.
fn words(points: &[Point], what: BreakEven) -> Option<String> {
    let unit = if what == BreakEven::Channels { "ch" } else { "px" };
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

fn sweep_json(candidates: &[Candidate], sweep: &[Vec<Point>]) -> Value {
    let point = |(size, r): &Point| json!({"size": size, "time_ratio": r.median, "low": r.interval.map(|i| i.0), "high": r.interval.map(|i| i.1)});
    let one = |(c, points): (&Candidate, &Vec<Point>)| json!({"variant": c.name, "points": points.iter().map(point).collect::<Vec<_>>()});
    candidates.iter().skip(1).zip(sweep).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn break_even_is_told_in_words() {
        let points = |list: &[(usize, f64)]| -> Vec<Point> {
            list.iter().map(|&(s, r)| (s, Ratio { median: r, interval: None })).collect()
        };
        let say = |list: &[(usize, f64)]| words(&points(list), BreakEven::Channels);
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
}
