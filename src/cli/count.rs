//! `count`: what a model costs on paper. Nothing is executed, unless a proof is asked for.

use super::args::{CountArgs, ViewArgs};
use super::{CHECK_FAILED, FINE, load, note, output, progress::Progress};
use crate::analysis::{self, Analysis};
use crate::error::{Error, Result};
use crate::ir::Model;
use crate::measure::import::{self, Joined};
use crate::report::conventions::{self, Convention};
use crate::report::{Source, compose};
use crate::tensor::Tensor;
use crate::units::{exact, plural};

/// Counts and reports.
///
/// # Errors
/// If the model cannot be read or built, or `--strict` meets an unknown cost.
pub fn run(args: &CountArgs) -> Result<u8> {
    output::format(&args.output)?;
    if !args.symbolic.is_empty() {
        return super::formulas::symbolic(args);
    }
    if let Some((dim, sizes)) = &args.sweep {
        return super::formulas::sweep(args, dim, sizes);
    }
    if args.input.is_some() && !args.executed && !args.verify {
        return Err(Error::usage("--input goes with --executed or --verify: counting alone reads no data"));
    }
    let (loaded, model, given) = load::model_and_inputs(&args.model, args.input.as_deref())?;
    let mut analysis = analysis::analyze(&model.graph);
    let undecided = analysis.totals.unknown_nodes + analysis.totals.unknown_traffic;
    if args.executed && undecided == 0 {
        note(args.model.quiet, "--executed: every cost is known without a run");
    } else if args.executed {
        settle(args.model.quiet, &model, &mut analysis, &inputs(&model, given.clone())?)?;
    }
    strict(&args.view, &analysis)?;
    let conventions = asked(&args.view, &model, &analysis)?;
    for text in &model.notes {
        note(args.model.quiet, text);
    }
    let lenses = args.lens.as_deref().map_or(Ok(Vec::new()), |names| crate::lens::look(names, &model, &analysis))?;
    // The proof may take a while and may fail: the report comes first, unless it is for a machine that wants the warnings.
    let imported = imported(&args.view, args.model.quiet, &model)?;
    let profiles: Vec<_> = imported.iter().map(Joined::profile).collect();
    let distinct = args.distinct.then(|| analysis::distinct(&analysis.params)).transpose()?;
    let mut report = compose(Source {
        command: "count",
        name: loaded.name,
        path: loaded.path,
        model: &model,
        analysis: &analysis,
        profiles: &profiles,
        imported,
        latency: Vec::new(),
        paired_speedup: None,
        machine: None,
        steps: Vec::new(),
        peak_resident_bytes: None,
        host: None,
        conventions,
        lenses,
        warnings: Vec::new(),
    });
    report.distinct = distinct;
    if output::format(&args.output)?.name == "xlsx" && report.image.is_none() && !report.model.bound.is_empty() {
        // A workbook follows the free dims; where no polynomial is found its rows are constants.
        let dims: Vec<String> = report.model.bound.keys().cloned().collect();
        let mut free = args.model.binding.bindings()?;
        free.dims.retain(|name, _| !dims.contains(name));
        let spec = load::load(&args.model.model)?.spec;
        report.symbolic = analysis::symbolic::symbolic(&spec, &free, &dims).ok();
    }
    let covered = covered(&args.view, &report);
    output::show(report, Some(&args.view), &args.output)?;
    if args.verify && verify(args.model.quiet, &model, &analysis, inputs(&model, given)?)? != FINE {
        return Ok(CHECK_FAILED);
    }
    Ok(covered)
}

/// The inputs of a run: those given, or made up.
fn inputs(model: &Model, given: Option<Vec<(String, Tensor)>>) -> Result<Vec<Tensor>> {
    given.map_or_else(|| load::made_up_inputs(model), |given| super::run::ordered(&model.graph, given))
}

/// Runs the model once and fills in what only a run tells.
///
/// # Errors
/// If the model does not fit into memory or a kernel fails.
pub fn settle(quiet: bool, model: &Model, analysis: &mut Analysis, inputs: &[Tensor]) -> Result<()> {
    load::check_memory(analysis, 1)?;
    crate::engine::refuse_unknown(&model.graph)?;
    let progress = Progress::new("counting by a run", quiet);
    let total = analysis.totals.work.flops().max(1) as f64;
    let mut done = 0.0;
    let pairs = model.graph.inputs().iter().copied().zip(inputs.iter().cloned());
    let ledger = analysis::execute(&model.graph, pairs, &mut |id| {
        done += analysis.rows[id.0 as usize].work().map_or(0.0, |w| w.flops() as f64);
        progress.tell(done / total);
    })?;
    analysis.settle(&model.graph, &ledger);
    Ok(())
}

/// What another runtime measured, joined with the model.
///
/// # Errors
/// If the file is no profile.
pub fn imported(view: &ViewArgs, quiet: bool, model: &Model) -> Result<Option<Joined>> {
    let import = (!view.import_profile.is_empty()).then(|| import::read(&view.import_profile)).transpose()?;
    let joined = import.map(|i| i.join(&model.graph));
    joined.iter().flat_map(|j| &j.import.notes).for_each(|text| note(quiet, text));
    Ok(joined)
}

/// The exit code of `--min-coverage`; says on stderr what fell short.
pub fn covered(view: &ViewArgs, report: &crate::report::Report) -> u8 {
    let Some(asked) = view.min_coverage else { return FINE };
    let c = &report.totals.coverage;
    let shares = [("nodes", Some(c.node_share())), ("bytes", c.byte_share()), ("time", report.time_coverage)];
    let short: Vec<String> = shares
        .iter()
        .filter_map(|(what, share)| {
            share.filter(|s| s * 100.0 < asked).map(|s| format!("{:.2} % of {what}", s * 100.0))
        })
        .collect();
    if short.is_empty() {
        return FINE;
    }
    output::complain(&format!("--min-coverage {asked}: the counts cover only {}", short.join(", ")));
    CHECK_FAILED
}

/// Refuses unknown costs if asked to.
///
/// # Errors
/// If `--strict` is given and a node's cost is unknown.
pub fn strict(view: &ViewArgs, analysis: &Analysis) -> Result<()> {
    if !view.strict || analysis.totals.unknown_nodes == 0 {
        return Ok(());
    }
    let mut ops: Vec<&str> = Vec::new();
    for row in analysis.rows.iter().filter(|r| r.work().is_none()) {
        if !ops.contains(&row.op.as_str()) {
            ops.push(&row.op);
        }
    }
    ops.truncate(8);
    Err(Error::unsupported(format!(
        "--strict: the cost of {} is unknown ({})",
        plural(analysis.totals.unknown_nodes, "node"),
        ops.join(", ")
    ))
    .hint("without --strict they are listed as unknown and the totals are lower bounds"))
}

/// The totals under the conventions asked for.
///
/// # Errors
/// If a name is no convention.
pub fn asked(view: &ViewArgs, model: &Model, analysis: &Analysis) -> Result<Vec<Convention>> {
    view.convention.as_deref().map_or(Ok(Vec::new()), |names| conventions::totals(names, &model.graph, analysis))
}

/// Runs the proof by counting and says on stderr how it went.
fn verify(quiet: bool, model: &Model, analysis: &Analysis, inputs: Vec<Tensor>) -> Result<u8> {
    load::check_memory(analysis, 2)?;
    let progress = Progress::new("proving counts by execution", quiet);
    let total = analysis.totals.work.flops().max(1) as f64;
    let mut done = 0.0;
    let pairs = model.graph.inputs().iter().copied().zip(inputs);
    let proof = analysis::verify(&model.graph, pairs, &mut |id| {
        done += analysis.rows[id.0 as usize].work().map_or(0.0, |w| w.flops() as f64);
        progress.tell(done / total);
    })?;
    drop(progress);
    for m in proof.different.iter().take(20) {
        let node = model.graph.node(m.node);
        output::complain(&format!(
            "error: node '{}' ({}): the rule says {} MAdds and {} other FLOPs, execution counted {} and {}",
            crate::error::printable(&node.name),
            crate::error::printable(&node.op_type),
            exact(m.rule.madds),
            exact(m.rule.other_flops),
            exact(m.counted.madds),
            exact(m.counted.other)
        ));
    }
    for (id, counted) in proof.unruled.iter().take(20) {
        let node = model.graph.node(*id);
        note(
            quiet,
            &format!(
                "node '{}' ({}): cost depends on the data; this run counted {} MAdds and {} other FLOPs",
                crate::error::printable(&node.name),
                crate::error::printable(&node.op_type),
                exact(counted.madds),
                exact(counted.other)
            ),
        );
    }
    let verdict = format!(
        "proof: {} executed and counted: {} equal to their rule, {} different, {} without a rule; {} MAdds and {} other FLOPs counted",
        plural(proof.equal + proof.different.len() + proof.unruled.len(), "node"),
        proof.equal,
        proof.different.len(),
        proof.unruled.len(),
        exact(proof.total.madds),
        exact(proof.total.other)
    );
    output::complain(&verdict);
    Ok(if proof.different.is_empty() { FINE } else { CHECK_FAILED })
}
