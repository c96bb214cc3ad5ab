//! The meaning of a graph: every node by its reference kernel, one after the other, nothing fused.

use super::{Graph, NodeId, Value, ValueId};
use crate::error::{Error, Result};
use crate::ops::{EvalCx, Op};
use crate::tensor::{DType, Fact, Identity, Shape, Tensor, map};
use std::collections::HashMap;
use std::time::Instant;

/// Values that depend on constants only, computed once.
pub type Statics = HashMap<ValueId, Tensor>;

/// Values from which on a static value is computed when somebody looks at its numbers, like what is made of it.
const LARGE: usize = 1 << 14;
/// Values that wait for each other to be looked at, at most: each is some stack.
const DEEPEST: usize = 64;

/// Every static value that some non-static node (or an output) reads. Small ones are computed at once; large ones, and what is made of
/// them, when somebody first looks: weights that a graph standardises itself are as much work as packing them.
///
/// # Errors
/// If a kernel fails.
pub fn statics(graph: &Graph) -> Result<Statics> {
    let mut values: Statics = HashMap::new();
    // How many others each waiting value waits for, one after the other.
    let mut waiting: HashMap<ValueId, usize> = HashMap::new();
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
        let wanted = |v: &&ValueId| needed[v.0 as usize] && graph.value(**v).constant.is_none();
        let wanted: Vec<ValueId> = node.outputs.iter().flatten().filter(wanted).copied().collect();
        let [first, others @ ..] = wanted.as_slice() else { continue };
        let depth = 1 + node.inputs.iter().flatten().filter_map(|v| waiting.get(v)).max().copied().unwrap_or(0);
        if others.is_empty()
            && depth <= DEEPEST
            && let Some(later) = later(graph, id, *first, |v| values.get(&v).or(graph.value(v).constant.as_ref()))
        {
            values.insert(*first, later);
            waiting.insert(*first, depth);
            continue;
        }
        let get = |v: ValueId| values.get(&v).or(graph.value(v).constant.as_ref());
        let outputs = eval_node(graph, id, &EvalCx::default(), get)?;
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

/// [`statics`], all computed: for who times or counts the nodes that read them.
///
/// # Errors
/// If a kernel fails.
pub fn statics_at_once(graph: &Graph) -> Result<Statics> {
    let values = statics(graph)?;
    values.values().filter(|t| t.is_lazy()).try_for_each(|t| t.bytes().map(drop))?;
    Ok(values)
}

/// Output `v` of a static node as a tensor that is made when somebody looks; `None` where it is as well made at once.
fn later<'a>(graph: &Graph, id: NodeId, v: ValueId, get: impl Fn(ValueId) -> Option<&'a Tensor>) -> Option<Tensor> {
    let node = graph.node(id);
    let fact = &graph.value(v).fact;
    let (dtype, dims) = (fact.dtype.filter(|d| d.bits() > 0)?, fact.shape.concrete()?);
    let index = node.outputs.iter().position(|o| *o == Some(v))?;
    let inputs: Vec<Option<Tensor>> =
        node.inputs.iter().map(|v| v.map(|v| get(v).cloned().ok_or(())).transpose()).collect::<Result<_, ()>>().ok()?;
    let large = |len: usize| len >= LARGE;
    let plain = fact.container == crate::tensor::Container::Tensor && node.op.family().bodies().is_empty();
    if !plain || !(large(dims.iter().product()) || inputs.iter().flatten().any(|t| t.is_lazy() || large(t.len()))) {
        return None;
    }
    let identity = identity(&node.op, index, &inputs);
    let (op, name, op_type, outputs) = (node.op.clone(), node.name.clone(), node.op_type.clone(), node.outputs.len());
    Some(Tensor::later(dtype, &dims, identity, move || {
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
        let made =
            op.eval(&EvalCx { outputs, ..EvalCx::default() }, &inputs).map_err(|e| e.at_node(&name, &op_type))?;
        made.into_iter().nth(index).ok_or_else(|| Error::run("made too few outputs").at_node(&name, &op_type))
    }))
}

/// What output `index` of an operator on inputs of one file is called, where its attributes tell all there is to it.
fn identity(op: &Op, index: usize, inputs: &[Option<Tensor>]) -> Option<Identity> {
    let told = matches!(
        op,
        Op::Norm(_) | Op::Reduce(_) | Op::Binary(_) | Op::Unary(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Cast(_)
    );
    let mut of: Option<Identity> = None;
    let mut values = Vec::with_capacity(inputs.len());
    for t in inputs {
        let Some(t) = t else {
            values.push(None);
            continue;
        };
        values.push(Some(match map::identity(t) {
            Some(i) if of.is_none_or(|of| of.file == i.file) => {
                of = Some(of.unwrap_or(i));
                (t.dims().to_vec(), i.value)
            }
            Some(_) => return None,
            // Small ones are told by what they hold.
            None if !t.is_lazy() && t.len() < LARGE => {
                (t.dims().to_vec(), Identity { file: 0, value: 0 }.changed(t.bytes().ok()?).value)
            }
            None => return None,
        }));
    }
    told.then_some(())?;
    Some(of?.changed((format!("{op:?}"), index, values)))
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
