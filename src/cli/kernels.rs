//! `kernels`: which kernel each step got, and why faster ones declined.

use super::args::KernelsArgs;
use super::{FINE, load, note, output};
use crate::analysis;
use crate::engine::{Path, Session};
use crate::error::{Result, printable};
use crate::report;
use std::sync::Arc;

/// Plans the optimized path and prints its steps.
///
/// # Errors
/// If the model cannot be read, built or planned.
pub fn run(args: &KernelsArgs) -> Result<u8> {
    let (_, model) = load::model(&args.model)?;
    for text in &model.notes {
        note(args.model.quiet, text);
    }
    load::check_memory(&analysis::analyze(&model.graph), 1)?;
    let graph = Arc::new(model.graph.clone());
    let session = Session::new(&graph, &load::options(Path::Optimized, args.threads)?)?;
    let mut rows = Vec::new();
    for (i, step) in session.steps().iter().enumerate() {
        let ops: Vec<&str> = step.covers.iter().map(|&id| graph.node(id).op_type.as_str()).collect();
        let ops = printable(&ops.join(" + "));
        rows.push(vec![i.to_string(), printable(&step.label), ops, step.kernel.clone(), step.declined.join("; ")]);
    }
    let heads = ["#", "Step", "Covers", "Kernel", "Declined"];
    let mut text = report::simple_table(&heads, &rows, &[true], super::width());
    let covered: usize = session.steps().iter().map(|s| s.covers.len()).sum();
    text.push_str(&format!(
        "\n{} steps for {covered} nodes, {} kernels, {} threads\n",
        rows.len(),
        session.isa(),
        session.threads()
    ));
    output::print(text.as_bytes())?;
    Ok(FINE)
}
