//! `count`: what a model costs on paper. Nothing is executed, unless a proof is asked for.

use super::args::{CountArgs, ViewArgs};
use super::{CHECK_FAILED, FINE, load, note, output, progress::Progress};
use crate::analysis::{self, Analysis};
use crate::error::{Error, Result};
use crate::ir::Model;
use crate::report::conventions::{self, Convention};
use crate::report::{Source, compose};
use crate::units::{exact, plural};

/// Counts and reports.
///
/// # Errors
/// If the model cannot be read or built, or `--strict` meets an unknown cost.
pub fn run(args: &CountArgs) -> Result<u8> {
    let format = output::format(&args.output)?;
    let (loaded, model) = load::model(&args.model)?;
    let analysis = analysis::analyze(&model.graph);
    strict(&args.view, &analysis)?;
    let conventions = asked(&args.view, &model, &analysis)?;
    for text in &model.notes {
        note(args.model.quiet, text);
    }
    // The proof may take a while and may fail: the report comes first, unless it is for a machine that wants the warnings.
    let report = compose(Source {
        command: "count",
        name: loaded.name,
        path: loaded.path,
        model: &model,
        analysis: &analysis,
        profiles: &[],
        latency: Vec::new(),
        paired_speedup: None,
        host: None,
        conventions,
        warnings: Vec::new(),
    });
    let _ = format;
    output::show(report, Some(&args.view), &args.output)?;
    if args.verify { verify(args.model.quiet, &model, &analysis) } else { Ok(FINE) }
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
fn verify(quiet: bool, model: &Model, analysis: &Analysis) -> Result<u8> {
    load::check_memory(analysis, 2)?;
    let inputs = load::made_up_inputs(model)?;
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
