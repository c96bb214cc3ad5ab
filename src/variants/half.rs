//! Sixteen-bit floats. `fp16`: weights and activations in half precision, with casts at the model's borders and around operators
//! that are not known to work in it. `bf16`: weights stored as bfloat16 and widened where they are used, since most runtimes have no
//! bfloat16 arithmetic on CPUs; activations stay `float32`, or with `activations=1` are rounded to bfloat16 where a layer with weights
//! reads them, as hardware with bfloat16 products and float32 sums sees them.

use super::draft::Change;
use super::{Choice, Draft, Editor, Entry, Knob, Make, Reason};
use crate::error::Result;
use crate::ir::Source;
use crate::ops::spec::{Attr, NodeSpec};
use crate::tensor::{DType, Tensor};
use std::collections::HashMap;

/// The table's row of half precision.
pub static FP16: Entry =
    Entry { name: "fp16", about: "weights and activations in half precision", knobs: &[], make: Make::Model(fp16) };
/// The table's row of bfloat16.
pub static BF16: Entry =
    Entry { name: "bf16", about: "weights stored as bfloat16", knobs: &[ACTIVATIONS], make: Make::Model(bf16) };
const ACTIVATIONS: Knob = Knob {
    name: "activations",
    default: 0.0,
    range: (0.0, 1.0),
    whole: true,
    about: "1: what layers with weights read is rounded to bfloat16 too",
};

/// Operators whose float operands and results are all of one type, and which half precision suits.
const SUITED: &[&str] = &[
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Div",
    "Dropout",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "PRelu",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
    "Unsqueeze",
];

/// Most elements of a constant that is narrowed at once.
const LOOKED_AT: usize = 1 << 16;

/// Largest finite half.
const LARGEST: f32 = 65504.0;

fn cast(ed: &mut Editor, x: &str, to: DType, name: &str) -> NodeSpec {
    let y = ed.node("cast", "Cast", &[x], &[("to", Attr::Int(i64::from(to.to_onnx())))]);
    let mut node = ed.nodes.pop().unwrap_or_default();
    node.outputs.iter_mut().filter(|o| **o == y).for_each(|o| *o = name.to_string());
    node
}

fn fp16(draft: &mut Draft, _: &Choice) -> Result<()> {
    let names = draft.names();
    let opset = draft.spec.opset("");
    let mut ed = Editor::new("fp16", opset, &names);
    let nodes = std::mem::take(&mut draft.spec.graph.nodes);
    let outputs: Vec<String> = draft.spec.graph.outputs.iter().map(|v| v.name.clone()).collect();
    let (mut changes, mut left) = (Vec::new(), Vec::new());
    let mut out: Vec<NodeSpec> = Vec::with_capacity(nodes.len());
    {
        let values = draft.values();
        let graph = &draft.model.graph;
        let fact = |v: &str| values.get(v).map(|&id| graph.value(id));
        let is_float = |v: &str| fact(v).is_some_and(|v| v.fact.dtype == Some(DType::F32));
        let stored = |v: &str| fact(v).filter(|v| v.source == Source::Constant).and_then(|v| v.constant.clone());
        // Values under their name in half precision; those that exist in it only.
        let mut halves: HashMap<String, String> = HashMap::new();
        let mut only_half: HashMap<String, String> = HashMap::new();
        for mut node in nodes {
            let suited = node.domain.is_empty() && SUITED.contains(&node.op_type.as_str());
            let floats = node.inputs.iter().chain(&node.outputs).any(|v| is_float(v));
            // A pure view of constants, or arithmetic on shapes, is left as it is.
            if !suited || !floats {
                if floats && node.op_type != "Constant" {
                    left.push((node.name.clone(), node.op_type.clone(), "is not known to work in half precision"));
                }
                for v in inner_names(&node).into_iter().filter(|v| only_half.contains_key(v)).collect::<Vec<_>>() {
                    if let Some(half) = only_half.remove(&v) {
                        out.push(cast(&mut ed, &half, DType::F32, &v));
                    }
                }
                out.push(node);
                continue;
            }
            for i in 0..node.inputs.len() {
                let v = node.inputs[i].clone();
                if v.is_empty() || !is_float(&v) {
                    continue;
                }
                if let Some(half) = halves.get(&v) {
                    node.inputs[i] = half.clone();
                    continue;
                }
                let half = match stored(&v) {
                    Some(t) => ed.constant(&v, saturated(&t)?),
                    None => {
                        let half = ed.unique(&v);
                        out.push(cast(&mut ed, &v, DType::F16, &half));
                        half
                    }
                };
                halves.insert(v, half.clone());
                node.inputs[i] = half;
            }
            for o in node.outputs.iter_mut().filter(|o| is_float(o)) {
                let half = ed.unique(o);
                halves.insert(o.clone(), half.clone());
                only_half.insert(std::mem::replace(o, half.clone()), half);
            }
            if matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul") {
                changes.push(Change::of(&node.name, node.op_type.clone()));
            }
            out.push(node);
        }
        for v in &outputs {
            if let Some(half) = only_half.remove(v) {
                out.push(cast(&mut ed, &half, DType::F32, v));
            }
        }
    }
    draft.spec.graph.nodes = out;
    draft.spec.graph.initializers.append(&mut ed.initializers);
    changes.into_iter().for_each(|c| draft.changed(c));
    for (name, op, why) in left {
        draft.leave(&name, op, Reason::Unwise(why.into()));
    }
    Ok(())
}

/// A constant in half precision. Bounds beyond its range (a Clip up to 3.4e38) become the largest number there is.
fn saturated(t: &Tensor) -> Result<Tensor> {
    if t.len() > 16 {
        let half = t.narrowed_lazily(DType::F16);
        if t.len() <= LOOKED_AT && !t.is_lazy() {
            // Whether a small constant is learned or a fill shows in its values: they are those of the file that is written.
            half.bytes()?;
        }
        return Ok(half);
    }
    let values: Vec<f32> = t.view::<f32>()?.iter().map(|v| v.clamp(-LARGEST, LARGEST)).collect();
    Ok(Tensor::from_vec(values, t.dims())?.narrowed_lazily(DType::F16))
}

/// What a node reads, its subgraphs included.
fn inner_names(node: &NodeSpec) -> Vec<String> {
    let mut names = node.inputs.clone();
    for attr in node.attrs.values() {
        if let Attr::Graph(g) = attr {
            names.extend(g.nodes.iter().flat_map(inner_names));
            names.extend(g.outputs.iter().map(|o| o.name.clone()));
        }
    }
    names
}

fn bf16(draft: &mut Draft, choice: &Choice) -> Result<()> {
    if let Err(why) = draft.raise_opset(13) {
        draft.leave("model", "", Reason::Illegal(why));
        return Ok(());
    }
    let names = draft.names();
    let opset = draft.spec.opset("");
    let mut ed = Editor::new("bf16", opset, &names);
    let nodes = std::mem::take(&mut draft.spec.graph.nodes);
    let mut out = Vec::with_capacity(nodes.len());
    let mut wide: HashMap<String, String> = HashMap::new();
    // Activations by name, with the name of what is left of them after rounding.
    let mut rounded: HashMap<String, String> = HashMap::new();
    for mut node in nodes {
        let has_weights = matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul");
        if has_weights && node.domain.is_empty() {
            let v = node.inputs.get(1).cloned().unwrap_or_default();
            let weights = draft.constant(&v).filter(|t| t.dtype() == DType::F32).cloned();
            match (wide.get(&v), weights) {
                (Some(name), _) => node.inputs[1] = name.clone(),
                (None, Some(t)) => {
                    let narrow = ed.constant(&v, t.narrowed_lazily(DType::BF16));
                    let name = ed.unique(&format!("{v}_wide"));
                    out.push(cast(&mut ed, &narrow, DType::F32, &name));
                    node.inputs[1] = name.clone();
                    wide.insert(v, name);
                    draft.changed(Change::of(&node.name, node.op_type.clone()));
                }
                (None, None) => {
                    draft.leave(
                        &node.name,
                        node.op_type.clone(),
                        Reason::Illegal("has no float32 weights of its own".into()),
                    );
                }
            }
            if choice.size("activations") == 1 && node.inputs.get(1).is_some_and(|w| wide.values().any(|v| v == w)) {
                let x = node.inputs[0].clone();
                if !rounded.contains_key(&x) {
                    let (narrow, back) = (ed.unique(&format!("{x}_bf16")), ed.unique(&format!("{x}_rounded")));
                    out.push(cast(&mut ed, &x, DType::BF16, &narrow));
                    out.push(cast(&mut ed, &narrow, DType::F32, &back));
                    rounded.insert(x.clone(), back);
                }
                node.inputs[0] = rounded[&x].clone();
            }
        }
        out.push(node);
    }
    draft.spec.graph.nodes = out;
    draft.spec.graph.initializers.append(&mut ed.initializers);
    Ok(())
}
