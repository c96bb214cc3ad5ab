//! The meaning of a graph: every node by its reference kernel, one after the other, nothing fused.

use super::{Graph, NodeId, Value, ValueId};
use crate::error::{Error, Result};
use crate::ops::EvalCx;
use crate::tensor::{DType, Fact, Shape, Tensor};
use std::collections::HashMap;
use std::time::Instant;

/// Values that depend on constants only, computed once.
pub type Statics = HashMap<ValueId, Tensor>;

/// Computes every static value that some non-static node (or an output) reads.
///
/// # Errors
/// If a kernel fails.
pub fn statics(graph: &Graph) -> Result<Statics> {
    let mut values: Statics = HashMap::new();
    let cx = EvalCx::default();
    // Only what is needed, found backwards: a static chain may be dead.
    let mut needed = vec![false; graph.values().len()];
    for id in graph.outputs() {
        needed[id.0 as usize] = true;
    }
    for node in graph.nodes().iter().rev() {
        if !node.is_static || node.outputs.iter().flatten().any(|v| needed[v.0 as usize]) {
            node.inputs.iter().flatten().for_each(|v| needed[v.0 as usize] = true);
        }
    }
    for (id, node) in graph.iter().filter(|(_, n)| n.is_static) {
        let wanted = |v: &ValueId| needed[v.0 as usize] && graph.value(*v).constant.is_none();
        if !node.outputs.iter().flatten().any(wanted) {
            continue;
        }
        let outputs = eval_node(graph, id, &cx, |v| values.get(&v).or(graph.value(v).constant.as_ref()))?;
        for (v, t) in node.outputs.iter().zip(outputs) {
            if let Some(v) = v {
                values.insert(*v, t);
            }
        }
    }
    // Intermediates of static chains are no longer of use.
    let mut read = vec![false; graph.values().len()];
    graph.outputs().iter().for_each(|v| read[v.0 as usize] = true);
    let dynamic = graph.nodes().iter().filter(|n| !n.is_static);
    dynamic.flat_map(|n| n.inputs.iter().flatten()).for_each(|v| read[v.0 as usize] = true);
    values.retain(|v, _| read[v.0 as usize]);
    Ok(values)
}

/// Evaluates one node by its reference kernel.
pub fn eval_node<'a>(
    graph: &Graph,
    id: NodeId,
    cx: &EvalCx,
    get: impl Fn(ValueId) -> Option<&'a Tensor>,
) -> Result<Vec<Tensor>> {
    let node = graph.node(id);
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for v in &node.inputs {
        inputs.push(match v {
            None => None,
            Some(v) => Some(get(*v).ok_or_else(|| {
                Error::run(format!("value '{}' has not been computed", graph.value(*v).name))
                    .at_node(&node.name, &node.op_type)
            })?),
        });
    }
    let cx = EvalCx { outputs: node.outputs.len(), ..*cx };
    let outputs = node.op.eval(&cx, &inputs).map_err(|e| e.at_node(&node.name, &node.op_type))?;
    if let Some(observer) = cx.observer
        && !node.is_static
    {
        observer.ran(graph, id.0 as usize, &inputs, &outputs);
    }
    if outputs.len() < node.outputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1) {
        return Err(Error::run(format!("made {} of {} outputs", outputs.len(), node.outputs.len()))
            .at_node(&node.name, &node.op_type));
    }
    Ok(outputs)
}

/// Runs a graph on given values of its inputs (and captures); returns its outputs in order. With `statics` (from [`statics`])
/// static nodes are not run again. `watch` is called after every node with its wall time in seconds.
///
/// # Errors
/// If an input is missing or a kernel fails.
pub fn run(
    graph: &Graph,
    cx: &EvalCx,
    inputs: impl Iterator<Item = (ValueId, Tensor)>,
    statics: Option<&Statics>,
    watch: &mut dyn FnMut(NodeId, f64),
) -> Result<Vec<Tensor>> {
    let mut values: Vec<Option<Tensor>> = vec![None; graph.values().len()];
    for (id, t) in inputs {
        values[id.0 as usize] = Some(t);
    }
    let last = graph.last_readers();
    let mut keep = vec![false; values.len()];
    graph.outputs().iter().for_each(|v| keep[v.0 as usize] = true);
    fn find<'a>(
        graph: &'a Graph,
        values: &'a [Option<Tensor>],
        statics: Option<&'a Statics>,
        v: ValueId,
    ) -> Option<&'a Tensor> {
        values[v.0 as usize].as_ref().or_else(|| statics?.get(&v)).or(graph.value(v).constant.as_ref())
    }
    for (id, node) in graph.iter() {
        if node.is_static && statics.is_some() {
            continue;
        }
        let start = Instant::now();
        let outputs = eval_node(graph, id, cx, |v| find(graph, &values, statics, v))?;
        watch(id, start.elapsed().as_secs_f64());
        for (v, t) in node.outputs.iter().zip(outputs) {
            if let Some(v) = v {
                values[v.0 as usize] = Some(t);
            }
        }
        for v in node.inputs.iter().flatten() {
            if last[v.0 as usize] == Some(id) && !keep[v.0 as usize] {
                values[v.0 as usize] = None;
            }
        }
    }
    graph
        .outputs()
        .iter()
        .map(|v| {
            find(graph, &values, statics, *v)
                .cloned()
                .ok_or_else(|| Error::run(format!("output '{}' was not computed", graph.value(*v).name)))
        })
        .collect()
}

/// Checks that `tensor` fits a graph input, so that a wrong input is named rather than failing somewhere inside.
///
/// # Errors
/// If the dtype or a known dim differs.
pub fn check_input(value: &Value, tensor: &Tensor) -> Result<()> {
    let fits = |fact: &Fact| {
        fact.dtype.is_none_or(|d| d == tensor.dtype())
            && fact.shape.dims().is_none_or(|dims| {
                dims.len() == tensor.rank() && dims.iter().zip(tensor.dims()).all(|(d, &t)| d.is_none_or(|d| d == t))
            })
    };
    if value.fact.container != crate::tensor::Container::Tensor || fits(&value.fact) {
        return Ok(());
    }
    Err(Error::input(format!(
        "input '{}' must be {} but {} {} was given",
        value.name,
        value.fact,
        tensor.dtype(),
        Shape::known(tensor.dims())
    ))
    .hint("bind the model to the input's sizes with --input-shape or --dim"))
}

/// An input made up for measuring: small reproducible floats, zeros for integers and booleans (valid as token ids and indices).
///
/// # Errors
/// If the fact is not fully known.
pub fn made_up_input(value: &Value, seed: u64) -> Result<Tensor> {
    let dims = value.fact.shape.concrete();
    let (Some(dtype), Some(dims)) = (value.fact.dtype, dims) else {
        return Err(Error::input(format!("the shape of input '{}' is not known: {}", value.name, value.fact))
            .hint(format!("give it with --input-shape {}=1x3x224x224", value.name)));
    };
    crate::tensor::element_count(&dims)?;
    match dtype {
        d if d.is_float() => {
            let floats = crate::ops::sample::floats(&dims, seed);
            if d == DType::F64 {
                return Tensor::from_vec(floats.to_f64s()?, &dims);
            }
            floats.narrowed(d, true)
        }
        d => Tensor::zeros(d, &dims),
    }
}
