//! All switches of a slimmable network in one model: stored once, an input says which one runs.
//!
//! The widest network's tensors are the model's constants; each switch is a branch that takes their leading parts, with normalisations
//! of its own beside them. `switch` counts from the narrowest, 0.

use super::Choice;
use super::net::OPSET;
use crate::error::Result;
use crate::ops::spec::{Attr, GraphSpec, ModelSpec, NodeSpec, ValueSpec};
use crate::tensor::{Container, DType, Tensor};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The input that says which switch runs.
const SWITCH: &str = "switch";

/// The model of all `switches` of one network, narrowest first.
///
/// # Errors
/// If one of them cannot be built.
pub fn build(switches: &[Choice], name: &str) -> Result<ModelSpec> {
    let mut specs = Vec::new();
    for one in switches {
        specs.push(one.assemble()?.0.finish(name));
    }
    let Some(widest) = specs.last() else { return Ok(ModelSpec::default()) };
    let mut model = ModelSpec { graph: GraphSpec { name: name.into(), ..GraphSpec::default() }, ..widest.clone() };
    model.graph.inputs.clone_from(&widest.graph.inputs);
    model.graph.outputs.clone_from(&widest.graph.outputs);
    model.graph.inputs.push(ValueSpec {
        name: SWITCH.into(),
        dtype: Some(DType::I64),
        shape: Some(Vec::new()),
        container: Container::Tensor,
    });
    // Widest first: what narrower ones share is then there in full.
    let mut stored: HashMap<String, Vec<usize>> = HashMap::new();
    for (tensor_name, tensor) in specs.iter().rev().flat_map(|s| &s.graph.initializers) {
        if !stored.contains_key(tensor_name) {
            stored.insert(tensor_name.clone(), tensor.dims().to_vec());
            model.graph.initializers.push((tensor_name.clone(), tensor.clone()));
        }
    }
    let mut all = Together { stored, constants: HashSet::new(), initializers: Vec::new() };
    let mut rest: Option<GraphSpec> = None;
    for (i, spec) in specs.iter().enumerate().rev() {
        let branch = all.branch(i, &spec.graph)?;
        rest = Some(match rest {
            None => branch,
            Some(wider) => all.decide(i, branch, wider, &model.graph.outputs)?,
        });
    }
    if let Some(graph) = rest {
        model.graph.nodes = graph.nodes;
        // The outermost decision gives the model's outputs.
        let last = model.graph.nodes.last_mut();
        for (node_output, output) in last.into_iter().flat_map(|n| &mut n.outputs).zip(&model.graph.outputs) {
            node_output.clone_from(&output.name);
        }
    }
    model.graph.initializers.append(&mut all.initializers);
    Ok(model)
}

struct Together {
    stored: HashMap<String, Vec<usize>>,
    constants: HashSet<String>,
    initializers: Vec<(String, Tensor)>,
}

impl Together {
    fn ints(&mut self, values: Vec<i64>) -> Result<String> {
        let name = values.iter().fold("part".to_string(), |name, v| format!("{name}_{v}"));
        if self.constants.insert(name.clone()) {
            let n = values.len();
            self.initializers.push((name.clone(), Tensor::from_vec(values, &[n])?));
        }
        Ok(name)
    }

    /// A switch as a branch: its values under names of its own, its weights as parts of what is stored.
    fn branch(&mut self, switch: usize, graph: &GraphSpec) -> Result<GraphSpec> {
        let own = |name: &str| format!("switch{switch}/{name}");
        let mut nodes = Vec::new();
        let mut renamed: HashMap<String, String> = HashMap::new();
        for (name, tensor) in &graph.initializers {
            let dims = tensor.dims();
            if self.stored.get(name).is_some_and(|full| full == dims) {
                continue;
            }
            let zeros = self.ints(vec![0; dims.len()])?;
            let ends = self.ints(dims.iter().map(|&d| d as i64).collect())?;
            let part = own(name);
            nodes.push(NodeSpec {
                name: format!("{part}/Slice"),
                op_type: "Slice".into(),
                inputs: vec![name.clone(), zeros, ends],
                outputs: vec![part.clone()],
                opset: OPSET,
                ..NodeSpec::default()
            });
            renamed.insert(name.clone(), part);
        }
        for node in &graph.nodes {
            renamed.extend(node.outputs.iter().map(|o| (o.clone(), own(o))));
        }
        for node in &graph.nodes {
            let new = |name: &String| renamed.get(name).unwrap_or(name).clone();
            let inputs = node.inputs.iter().map(new).collect();
            let outputs = node.outputs.iter().map(new).collect();
            nodes.push(NodeSpec { name: own(&node.name), inputs, outputs, ..node.clone() });
        }
        let outputs = graph.outputs.iter().map(|o| ValueSpec { name: own(&o.name), ..o.clone() }).collect();
        Ok(GraphSpec { name: own(&graph.name), nodes, outputs, ..GraphSpec::default() })
    }

    /// `branch` where this switch is asked for, `wider` otherwise.
    fn decide(
        &mut self,
        switch: usize,
        branch: GraphSpec,
        wider: GraphSpec,
        outputs: &[ValueSpec],
    ) -> Result<GraphSpec> {
        let number = format!("switch{switch}");
        self.initializers.push((number.clone(), Tensor::scalar(switch as i64)));
        let asked = format!("switch{switch}/asked");
        let node = |name: String, op: &str, inputs: Vec<String>, outputs: Vec<String>| NodeSpec {
            name,
            op_type: op.into(),
            inputs,
            outputs,
            opset: OPSET,
            ..NodeSpec::default()
        };
        let equal = node(format!("{asked}/Equal"), "Equal", vec![SWITCH.into(), number], vec![asked.clone()]);
        let results: Vec<ValueSpec> =
            outputs.iter().map(|o| ValueSpec { name: format!("{asked}/{}", o.name), ..o.clone() }).collect();
        let names = results.iter().map(|r| r.name.clone()).collect();
        let mut choice = node(format!("{asked}/If"), "If", vec![asked], names);
        choice.attrs.insert("then_branch".into(), Attr::Graph(Arc::new(branch)));
        choice.attrs.insert("else_branch".into(), Attr::Graph(Arc::new(wider)));
        Ok(GraphSpec {
            name: format!("switch{switch}/or_wider"),
            nodes: vec![equal, choice],
            outputs: results,
            ..GraphSpec::default()
        })
    }
}
