//! The reference path: one step per node, by the operators' own kernels.

use super::{Runner, Step};
use crate::error::{Error, Result};
use crate::ir::{Graph, interp};
use crate::ops::{EvalCx, Op};
use crate::tensor::Tensor;
use std::sync::Arc;

pub(super) struct Reference {
    graph: Arc<Graph>,
    statics: interp::Statics,
    steps: Vec<Step>,
    /// Step number of each node; `None` for static nodes.
    step_of: Vec<Option<usize>>,
}

impl Reference {
    pub(super) fn new(graph: &Arc<Graph>) -> Result<Reference> {
        refuse_unknown(graph)?;
        let mut steps = Vec::new();
        let mut step_of = Vec::with_capacity(graph.nodes().len());
        for (id, node) in graph.iter() {
            if node.is_static {
                step_of.push(None);
                continue;
            }
            step_of.push(Some(steps.len()));
            steps.push(Step {
                kernel: "reference".into(),
                covers: vec![id],
                label: node.name.clone(),
                ..Step::default()
            });
        }
        Ok(Reference { graph: graph.clone(), statics: interp::statics_at_once(graph)?, steps, step_of })
    }
}

/// An unknown operator cannot run; said before anything is prepared.
///
/// # Errors
/// If the graph holds one.
pub fn refuse_unknown(graph: &Graph) -> Result<()> {
    for node in graph.nodes() {
        if let Op::Opaque(_) = &node.op {
            let domain = if node.domain.is_empty() { "ai.onnx" } else { &node.domain };
            return Err(Error::unsupported(format!("operator {domain}::{} is not known and cannot run", node.op_type))
                .at_node(&node.name, &node.op_type)
                .hint("`madd-prof count` counts the rest of the model and shows this node as unknown"));
        }
    }
    Ok(())
}

/// Checks the number and facts of inputs.
pub(super) fn check_inputs(graph: &Graph, inputs: &[Tensor]) -> Result<()> {
    if inputs.len() != graph.inputs().len() {
        return Err(Error::run(format!("{} inputs given where the model has {}", inputs.len(), graph.inputs().len())));
    }
    graph.inputs().iter().zip(inputs).try_for_each(|(&id, t)| interp::check_input(graph.value(id), t))
}

impl Runner for Reference {
    fn steps(&self) -> &[Step] {
        &self.steps
    }
    fn threads(&self) -> usize {
        1
    }
    fn isa(&self) -> &'static str {
        "scalar"
    }
    fn arena_bytes(&self) -> Option<u64> {
        None
    }
    fn run(&mut self, inputs: &[Tensor], times: Option<&mut [f64]>) -> Result<Vec<Tensor>> {
        check_inputs(&self.graph, inputs)?;
        let given = self.graph.inputs().iter().copied().zip(inputs.iter().cloned());
        let mut times = times;
        interp::run(&self.graph, &EvalCx::default(), given, Some(&self.statics), &mut |id, seconds| {
            if let (Some(times), Some(step)) = (times.as_deref_mut(), self.step_of[id.0 as usize]) {
                times[step] += seconds;
            }
        })
    }
}
