//! What need not be computed: nodes that repeat an earlier one (common subexpressions), and nodes nobody reads (dead code).

use crate::ir::{Graph, NodeId, ValueId};
use crate::ops::Op;
use crate::tensor::Container;
use std::collections::HashMap;

/// What becomes of the nodes that run per inference.
pub(super) struct Repeats {
    /// For a node that repeats another: the value it would make again.
    pub(super) same: HashMap<NodeId, ValueId>,
    /// Whether somebody needs a node's results.
    pub(super) live: Vec<bool>,
}

/// Two nodes are the same if they do the same to the same values. Whatever is random or holds graphs is itself only.
pub(super) fn find(graph: &Graph) -> Repeats {
    let mut seen: HashMap<(String, Vec<Option<ValueId>>), ValueId> = HashMap::new();
    let mut first: HashMap<ValueId, ValueId> = HashMap::new();
    let mut same = HashMap::new();
    for (id, node) in graph.iter().filter(|(_, n)| !n.is_static) {
        let [Some(out)] = node.outputs[..] else { continue };
        let fact = &graph.value(out).fact;
        if node.op.family().is_random()
            || matches!(node.op, Op::Control(_) | Op::Over(_))
            || fact.container != Container::Tensor
            || fact.shape.concrete().is_none()
        {
            continue;
        }
        let inputs = node.inputs.iter().map(|v| v.map(|v| first.get(&v).copied().unwrap_or(v))).collect();
        let key = (format!("{}:{}:{:?}", node.domain, node.op_type, node.op), inputs);
        match seen.get(&key) {
            Some(&earlier) => {
                first.insert(out, earlier);
                same.insert(id, earlier);
            }
            None => {
                seen.insert(key, out);
            }
        }
    }
    let mut needed = vec![false; graph.values().len()];
    graph.outputs().iter().for_each(|v| needed[v.0 as usize] = true);
    let mut live = vec![false; graph.nodes().len()];
    let nodes: Vec<_> = graph.iter().collect();
    for (id, node) in nodes.into_iter().rev() {
        live[id.0 as usize] = node.outputs.iter().flatten().any(|v| needed[v.0 as usize]);
        if !live[id.0 as usize] {
            continue;
        }
        match same.get(&id) {
            Some(v) => needed[v.0 as usize] = true,
            None => node.inputs.iter().flatten().for_each(|v| needed[v.0 as usize] = true),
        }
    }
    Repeats { same, live }
}
