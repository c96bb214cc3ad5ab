//! Proof by counting: the graph is run with numbers that count, and every node's count is held against its rule.

use crate::cost::Work;
use crate::error::Result;
use crate::ir::{Graph, NodeId, ValueId, interp};
use crate::ops::{Charge, EvalCx};
use crate::tensor::num::tally_now;
use crate::tensor::{Arith, Tallied, Tensor};

/// A node whose rule and count differ.
#[derive(Debug, Clone)]
pub struct Mismatch {
    /// The node.
    pub node: NodeId,
    /// What the rule says.
    pub rule: Work,
    /// What was counted.
    pub counted: Tallied,
}

/// The outcome of a proof.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// Nodes whose count equals the rule.
    pub equal: usize,
    /// Nodes whose rule needs what only a run gives, with what this run counted.
    pub unruled: Vec<(NodeId, Tallied)>,
    /// Nodes that differ: a defect of this program.
    pub different: Vec<Mismatch>,
    /// Everything counted.
    pub total: Tallied,
}

/// Runs the reference kernels with counting numbers on `inputs` and compares every node. `watch` is called after each node.
///
/// # Errors
/// If a kernel fails.
pub fn verify(
    graph: &Graph,
    inputs: impl Iterator<Item = (ValueId, Tensor)>,
    watch: &mut dyn FnMut(NodeId),
) -> Result<Verified> {
    let statics = interp::statics(graph)?;
    let cx = EvalCx { arith: Arith::Counting, ..EvalCx::default() };
    let mut seen = Verified::default();
    let mut before = tally_now();
    interp::run(graph, &cx, inputs, Some(&statics), &mut |id, _| {
        let now = tally_now();
        let counted = Tallied { madds: now.madds - before.madds, other: now.other - before.other };
        before = now;
        seen.total.madds += counted.madds;
        seen.total.other += counted.other;
        match graph.charge(graph.node(id)) {
            Charge::Known(rule) if (rule.madds, rule.other_flops) == (counted.madds, counted.other) => seen.equal += 1,
            Charge::Known(rule) => seen.different.push(Mismatch { node: id, rule, counted }),
            Charge::Unknown | Charge::Between(_) => seen.unruled.push((id, counted)),
        }
        watch(id);
    })?;
    Ok(seen)
}
