//! Branches that are decided before a run: an If whose condition is a constant is replaced by the nodes of the branch it takes,
//! so that they are planned, counted and fused like all others, and the branch not taken is not even looked at.

use crate::ops::spec::{Attr, GraphSpec, NodeSpec, ValueSpec};
use foldhash::{HashMap, HashMapExt, HashSet};
use std::sync::Arc;

/// A branch written out as nodes of the enclosing graph.
pub(super) struct Inlined {
    /// Constants of the branch under their new names.
    pub initializers: Vec<(String, crate::tensor::Tensor)>,
    /// Its nodes, renamed; not necessarily in order.
    pub graph: GraphSpec,
}

/// Writes out the branch of an If `node`. Values of the branch are renamed where `taken` has their name already.
pub(super) fn inline(node: &NodeSpec, branch: &GraphSpec, taken: &dyn Fn(&str) -> bool) -> Inlined {
    let mut map: HashMap<String, String> = HashMap::new();
    let mut nodes = Vec::with_capacity(branch.nodes.len());
    let made: HashSet<&str> = branch.nodes.iter().flat_map(|n| n.outputs.iter().map(String::as_str)).collect();
    let mut passed = Vec::new();
    // What the branch makes for the node's outputs takes their names; anything else it gives is passed on under them.
    for (inner, outer) in branch.outputs.iter().zip(&node.outputs).filter(|(_, outer)| !outer.is_empty()) {
        if made.contains(inner.name.as_str()) && !map.contains_key(&inner.name) {
            map.insert(inner.name.clone(), outer.clone());
        } else {
            passed.push((inner.name.clone(), outer.clone()));
        }
    }
    let mut used: HashSet<String> = node.outputs.iter().cloned().collect();
    let own = made.iter().copied().chain(branch.initializers.iter().map(|(n, _)| n.as_str()));
    for name in own.filter(|n| !n.is_empty()) {
        if map.contains_key(name) {
            continue;
        }
        let mut new = name.to_string();
        let mut n = 1;
        while taken(&new) || !used.insert(new.clone()) {
            n += 1;
            new = format!("{name}#{n}");
        }
        map.insert(name.to_string(), new);
    }
    nodes.extend(branch.nodes.iter().map(|n| renamed(n, &map)));
    for (inner, outer) in passed {
        nodes.push(NodeSpec {
            op_type: "Identity".into(),
            inputs: vec![map.get(&inner).cloned().unwrap_or(inner)],
            outputs: vec![outer],
            opset: node.opset,
            metadata: node.metadata.clone(),
            ..NodeSpec::default()
        });
    }
    let name = |n: &String| map.get(n).cloned().unwrap_or_else(|| n.clone());
    Inlined {
        initializers: branch.initializers.iter().map(|(n, t)| (name(n), t.clone())).collect(),
        graph: GraphSpec {
            name: branch.name.clone(),
            nodes,
            value_info: branch.value_info.iter().map(|v| ValueSpec { name: name(&v.name), ..v.clone() }).collect(),
            ..GraphSpec::default()
        },
    }
}

fn renamed(node: &NodeSpec, map: &HashMap<String, String>) -> NodeSpec {
    let name = |n: &String| map.get(n).cloned().unwrap_or_else(|| n.clone());
    let mut node = node.clone();
    node.inputs = node.inputs.iter().map(name).collect();
    node.outputs = node.outputs.iter().map(name).collect();
    for attr in node.attrs.values_mut() {
        if let Attr::Graph(graph) = attr {
            *graph = Arc::new(renamed_outer(graph, map));
        }
    }
    node
}

/// A subgraph whose reads of outer values follow the renaming.
fn renamed_outer(graph: &GraphSpec, map: &HashMap<String, String>) -> GraphSpec {
    let mut map = map.clone();
    for own in graph
        .initializers
        .iter()
        .map(|(n, _)| n)
        .chain(graph.inputs.iter().map(|v| &v.name))
        .chain(graph.nodes.iter().flat_map(|n| &n.outputs))
    {
        map.remove(own);
    }
    let mut graph = graph.clone();
    graph.nodes = graph.nodes.iter().map(|n| renamed(n, &map)).collect();
    for v in &mut graph.outputs {
        if let Some(new) = map.get(&v.name) {
            v.name.clone_from(new);
        }
    }
    graph
}
