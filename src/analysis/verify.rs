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
    let statics = interp::statics_at_once(graph)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Bindings, build};
    use crate::ops::spec::{DimSpec, GraphSpec, ModelSpec, NodeSpec, ValueSpec};
    use crate::tensor::DType;

    #[test]
    fn what_follows_from_constants_is_not_counted_with_its_reader() {
        let node = |op: &str, inputs: &[&str], output: &str| NodeSpec {
            name: output.into(),
            op_type: op.into(),
            inputs: inputs.iter().map(ToString::to_string).collect(),
            outputs: vec![output.into()],
            opset: 17,
            ..NodeSpec::default()
        };
        // Integer products count wherever they run.
        let (a, b) = (vec![3u8; 200 * 100], vec![5u8; 100 * 200]);
        let constants = [("a", &a, [200, 100]), ("b", &b, [100, 200])];
        let spec = ModelSpec {
            graph: GraphSpec {
                name: "m".into(),
                nodes: vec![node("MatMulInteger", &["a", "b"], "c"), node("Add", &["c", "x"], "y")],
                inputs: vec![ValueSpec {
                    name: "x".into(),
                    dtype: Some(DType::I32),
                    shape: Some(vec![DimSpec::Size(200)]),
                    ..ValueSpec::default()
                }],
                outputs: vec![ValueSpec { name: "y".into(), ..ValueSpec::default() }],
                initializers: constants
                    .map(|(name, v, dims)| (name.to_string(), Tensor::from_vec(v.clone(), &dims).unwrap()))
                    .to_vec(),
                value_info: vec![],
            },
            opsets: vec![(String::new(), 17)],
            ..ModelSpec::default()
        };
        let graph = build(&spec, &Bindings::default()).unwrap().graph;
        let x = Tensor::from_vec(vec![1i32; 200], &[200]).unwrap();
        let seen = verify(&graph, graph.inputs().iter().map(|&v| (v, x.clone())), &mut |_| {}).unwrap();
        assert_eq!((seen.total.madds, seen.different.len()), (0, 0), "{seen:?}");
    }
}
