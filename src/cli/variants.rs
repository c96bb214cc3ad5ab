//! `variants`: other architectures of a model or of one convolution, counted, timed against the original, and written.

use super::args::{BreakEven, Paths, VariantsArgs};
use super::break_even::{self, Sweep};
use super::load::{self, Loaded};
use super::race::{Runner, race};
use super::{FINE, budget, note, output, per_layer, progress::Progress, switches};
use crate::engine::Path as KernelPath;
use crate::error::{Error, Result};
use crate::ir::{self, Bindings};
use crate::ops::spec::ModelSpec;
use crate::report::Cell;
use crate::report::candidates::{self, Candidate};
use crate::report::grid::{Grid, GridColumn};
use crate::tensor::Tensor;
use crate::units::{percent, plural};
use crate::variants::layer::LayerSpec;
use crate::variants::{Choice, Make, Policy, Ranges, Rewritten, Step, VARIANTS, apply, watched};
use crate::{onnx, variants};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Size from which a model's tensors are kept beside it, where they were before.
const EXTERNAL_BYTES: usize = 1024;

/// Makes, counts, times, writes and reports.
///
/// # Errors
/// If the model or layer cannot be read, a variant is unknown or fits nothing, or something cannot be run or written.
pub fn run(args: &VariantsArgs) -> Result<u8> {
    output::grid_format(&args.output)?;
    if args.list {
        output::show_grid(&list(), &args.output)?;
        return Ok(FINE);
    }
    let layer = args.layer.as_deref().map(LayerSpec::parse).transpose()?;
    let sets = sets(args)?;
    if args.emit.is_some() && args.apply.len() != 1 {
        return Err(Error::usage("--emit writes one model").hint("say which with --apply, once"));
    }
    let bindings = args.binding.bindings()?;
    let loaded = match &layer {
        Some(layer) => Loaded { name: layer.to_string(), path: None, spec: layer.model()? },
        None => load::load(args.model.as_deref().unwrap_or_default())?,
    };
    if let Some(wanted) = &args.budget {
        return budget::run(args, &loaded, &bindings, wanted);
    }
    if layer.is_none() && args.apply.is_empty() && switches::knows(&loaded) {
        return switches::run(args, &loaded, &bindings);
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
                if let [step] = &r.steps[..]
                    && step.variant.starts_with("slim")
                {
                    runner.weights = Some(loaded.name.clone());
                    runners[0].weights = Some(loaded.name.clone());
                }
                runners.push(runner);
                steps.push(r.steps.clone());
                fitting.push(set.clone());
            }
        }
    }
    let mut warnings = failed;
    let mut sweep = Sweep::default();
    if !args.no_run {
        warnings.extend(conditions(args));
        runners.iter().try_for_each(|r| load::check_memory(&r.analysis, 2))?;
        let usual = if layer.is_some() { Paths::Both } else { Paths::Optimized };
        race(&mut runners, &args.measure, usual, args.quiet)?;
        if args.break_even != Some(BreakEven::Off) && args.measure.path != Some(Paths::Reference) {
            sweep = match &layer {
                Some(layer) => break_even::of_layer(layer, &fitting, args)?,
                None => break_even::of_model(&loaded, &bindings, &cheaper(&runners, &fitting), args)?,
            };
            for (k, runner) in runners[1..].iter_mut().enumerate() {
                runner.candidate.break_even = sweep.words(k);
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
        grid.notes.push(format!(
            "Break-even: {}, each size with all variants{} timed in turns for {} s each; where the paired ratio of the optimized path \
             crosses 1, on a line between sizes; differences below 3 % are none.",
            sweep.what,
            if layer.is_some() { "" } else { " of fewer multiply-adds" },
            break_even::seconds(args)
        ));
    }
    grid.extra.push(("rewritten".into(), steps.iter().skip(1).flatten().map(step_json).collect::<Vec<_>>().into()));
    grid.extra.push(("break_even".into(), sweep.json(&candidates)));
    grid.extra.push(("warnings".into(), warnings.into()));
    output::show_grid(&grid, &args.output)?;
    Ok(FINE)
}

/// The variants that multiply less than the original; the others' places are empty.
fn cheaper(runners: &[Runner], sets: &[Vec<Choice>]) -> Vec<Vec<Choice>> {
    let madds = |r: &Runner| r.analysis.totals.work.madds;
    let one = |(r, set): (&Runner, &Vec<Choice>)| if madds(r) < madds(&runners[0]) { set.clone() } else { Vec::new() };
    runners[1..].iter().zip(sets).map(one).collect()
}

/// The variants asked for, each a list that is applied together; by default every one by itself.
fn sets(args: &VariantsArgs) -> Result<Vec<Vec<Choice>>> {
    if args.apply.is_empty() {
        return Ok(VARIANTS.iter().map(|&e| vec![Choice::of(e)]).collect());
    }
    let one = |text: &String| text.split(',').map(Choice::parse).collect::<Result<Vec<_>>>();
    args.apply.iter().map(one).collect()
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
            && let Some(text) = switches::told(c)
        {
            out.push(text);
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
            GridColumn::new("kind", "Kind").yields_last(2),
            GridColumn::new("about", "What it does"),
            GridColumn::new("knobs", "Knobs").yields_last(1),
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
