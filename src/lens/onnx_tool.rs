//! onnx-tool: `Model(path).graph.profile()`, a cost per operator of the file in estimated machine instructions.
//! <https://github.com/ThanatosShinji/onnx-tool/blob/main/onnx_tool/node.py>. Every operator with arithmetic counts, division 4, exponential
//! 32, square root 24, and so on; an operator its registry does not know ends its run.

use super::{Books, Subject, Tool};
use crate::ir::{Graph, Node};
use crate::ops::pool::Pool;
use crate::ops::resize::Mode;
use crate::ops::{Op, norm::Norm};

pub const TOOL: Tool = Tool { name: "onnx-tool", version: "1.0.1", figure: "MACs", count };

/// Its volume of a scalar is 0.
fn volume(dims: &[usize]) -> i128 {
    if dims.is_empty() { 0 } else { super::volume(dims) }
}

const EXP: i128 = 32;
const LOG: i128 = 43;
const SQRT: i128 = 24;
const DIV: i128 = 4;
const TANH: i128 = EXP + 2 + DIV;

/// Cost per output element of operators that are only that.
const PER_OUTPUT: &[(&str, i128)] = &[
    ("Abs", 1),
    ("Add", 1),
    ("And", 1),
    ("Atan", 2 * (SQRT + 3 + 1 + DIV)),
    ("BatchNormalization", 1 + SQRT + DIV + 2),
    ("Ceil", 1),
    ("Clip", 2),
    ("Cos", 39),
    ("CumSum", 1),
    ("DequantizeLinear", 2),
    ("Div", DIV),
    ("Elu", 3 + EXP),
    ("Equal", 1),
    ("Exp", EXP),
    ("Floor", 1),
    ("Gelu", EXP + 2),
    ("Greater", 1),
    ("GreaterOrEqual", 1),
    ("HardSigmoid", 4),
    ("HardSwish", 5),
    ("Hardmax", 1),
    ("InstanceNormalization", 3 + DIV),
    ("LeakyRelu", 2),
    ("Less", 1),
    ("LessOrEqual", 1),
    ("Log", LOG),
    ("LogSoftmax", EXP + DIV + 1 + LOG),
    ("LpNormalization", EXP + 1),
    ("Max", 1),
    ("Min", 1),
    ("Mod", 1),
    ("Mul", 1),
    ("Neg", 1),
    ("NonZero", 1),
    ("Not", 1),
    ("Or", 1),
    ("PRelu", 2),
    ("Pow", EXP),
    ("QuantizeLinear", 2),
    ("Reciprocal", DIV),
    ("Relu", 1),
    ("Round", 1),
    ("Sigmoid", EXP),
    ("Sign", 1),
    ("Sin", 39),
    ("Softmax", EXP + DIV),
    ("Softplus", EXP + 1 + LOG),
    ("Sqrt", SQRT),
    ("Sub", 1),
    ("Tanh", 2 * TANH),
    ("Xor", 1),
];

/// Cost per input element of reductions.
const PER_INPUT: &[(&str, i128)] = &[
    ("ReduceL2", 1 + SQRT),
    ("ReduceMax", 1),
    ("ReduceMean", 1),
    ("ReduceMin", 1),
    ("ReduceProd", 1),
    ("ReduceSum", 1),
];

/// Operators it knows and counts nothing for.
const FREE: &[&str] = &[
    "ArgMax",
    "Cast",
    "Compress",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "DepthToSpace",
    "Dropout",
    "Erf",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "GridSample",
    "Identity",
    "NonMaxSuppression",
    "OneHot",
    "Pad",
    "RandomNormalLike",
    "RandomUniformLike",
    "Range",
    "Reshape",
    "RoiAlign",
    "Scan",
    "ScatterElements",
    "ScatterND",
    "Shape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
];

fn count(s: &Subject, books: &mut Books) {
    for (row, node) in s.analysis.rows.iter().zip(s.graph.nodes()) {
        let madds = i128::from(row.work().unwrap_or_default().madds);
        let op = node.op_type.as_str();
        if !(node.domain.is_empty() || node.domain == "ai.onnx") {
            books.refuse(format!("its run ends at {}.{op}: no shape rule", node.domain));
            continue;
        }
        let (Some(x), Some(y)) = (dims(s.graph, node, 0), out(s.graph, node)) else {
            if !FREE.contains(&op) {
                books.refuse(format!("the sizes of '{}' ({op}) are not known", crate::error::printable(&node.name)));
            }
            continue;
        };
        let made = volume(&y);
        if let Some((_, per)) = PER_OUTPUT.iter().find(|(name, _)| *name == op) {
            books.add(format!("{op}: {per} per output element"), 1, per * made);
        } else if let Some((_, per)) = PER_INPUT.iter().find(|(name, _)| *name == op) {
            books.add(format!("{op}: {per} per input element"), 1, per * volume(&x));
        } else if !FREE.contains(&op) {
            match special(s.graph, node, &x, &y, madds) {
                Some(lines) => lines.into_iter().for_each(|(why, amount)| books.add(why, 1, amount)),
                None => books.refuse(format!("its run ends at {op}: no shape rule")),
            }
        }
    }
}

fn dims(graph: &Graph, node: &Node, i: usize) -> Option<Vec<usize>> {
    match node.inputs.get(i).copied().flatten() {
        Some(v) => graph.value(v).fact.shape.concrete(),
        None if i == 0 => Some(Vec::new()),
        None => None,
    }
}

fn out(graph: &Graph, node: &Node) -> Option<Vec<usize>> {
    graph.value(node.outputs.first().copied().flatten()?).fact.shape.concrete()
}

/// Products, pools and the rest; `None` for what its registry does not know.
fn special(graph: &Graph, node: &Node, x: &[usize], y: &[usize], madds: i128) -> Option<Vec<(String, i128)>> {
    let w = dims(graph, node, 1).unwrap_or_default();
    let made = volume(y);
    let has = |i: usize| node.inputs.get(i).copied().flatten().is_some();
    let bias = |i: usize, what: &str| (format!("bias of {what}: 1 per output element"), if has(i) { made } else { 0 });
    let one = |why: &str, amount: i128| Some(vec![(why.to_string(), amount)]);
    Some(match (node.op_type.as_str(), &node.op) {
        // Static products are folded in our count, not in its.
        ("Conv", _) => {
            let theirs = made * volume(w.get(1..)?);
            vec![("products of constants".into(), theirs - madds), bias(2, "convolutions")]
        }
        ("ConvTranspose", _) => {
            let theirs = made * volume(w.get(1..)?);
            let why = "transposed convolution counted by output volume, with output channels for input channels";
            vec![(why.into(), theirs - madds), bias(2, "convolutions")]
        }
        ("Gemm" | "MatMul", _) if w.len() < 2 => {
            return one("products with a vector: 1 per output element", made - madds);
        }
        ("Gemm" | "MatMul", Op::MatMul(m)) => {
            let transposed = matches!(m, crate::ops::matmul::MatMul::Gemm { trans_b: true, .. });
            let k = w[w.len() - if transposed { 1 } else { 2 }] as i128;
            vec![("products of constants".into(), made * k - madds), bias(2, "linear layers")]
        }
        ("Einsum" | "MatMulInteger" | "ConvInteger" | "QLinearMatMul", _) => vec![],
        ("QLinearConv", _) => vec![bias(8, "convolutions")],
        ("LSTM" | "GRU", _) => recurrent(graph, node, x, madds)?,
        ("LayerNormalization", Op::Norm(Norm::Layer { axis, .. })) => {
            let at = if *axis < 0 { axis + x.len() as i64 } else { *axis };
            let rest = volume(x) / *x.get(usize::try_from(at).ok()?)?.max(&1) as i128;
            return one("LayerNormalization: 7 per element and 29 per row", 7 * volume(x) + (1 + SQRT + DIV) * rest);
        }
        ("LRN", Op::Norm(Norm::LocalResponse { size, .. })) => {
            return one("LRN: 37 and the window per element", made * (DIV + EXP + 1 + *size as i128));
        }
        ("GlobalAveragePool", _) => {
            return one("GlobalAveragePool: 1 per input and 4 per output element", volume(x) + DIV * made);
        }
        ("MaxPool" | "AveragePool", Op::Pool(Pool { window: Some(window), .. })) => {
            let kernel = window.kernel.as_deref().unwrap_or(&[3, 3]);
            let counted = if kernel.len() == 2 { volume(kernel) } else { *kernel.first()? as i128 };
            return one("MaxPool, AveragePool: the window per output element", made * counted);
        }
        ("Resize" | "Upsample", Op::Resize(r)) => {
            let per = match r.mode {
                Mode::Nearest(_) => 0,
                Mode::Linear => 4,
                Mode::Cubic(_) => 8,
            };
            return one("Resize: 4 (linear) or 8 (cubic) per output element", per * made);
        }
        ("Sum", _) => return one("Sum: 1 per output element and addition", made * (node.inputs.len() as i128 - 1)),
        _ => return None,
    })
}

fn recurrent(graph: &Graph, node: &Node, x: &[usize], madds: i128) -> Option<Vec<(String, i128)>> {
    let (w, b) = (dims(graph, node, 1)?, dims(graph, node, 3).unwrap_or_default());
    let evaluations = *x.first()? as i128 * *x.get(1)? as i128;
    let lstm = node.op_type == "LSTM";
    let gates = if lstm { 4 } else { 3 };
    let state = evaluations * (*w.get(1)? as i128 / gates);
    let arithmetic = if lstm { 4 + 3 * EXP + 2 * TANH + 4 } else { 3 + 2 * EXP + TANH + 5 };
    let theirs = (volume(&w) + volume(&dims(graph, node, 2)?)) * evaluations;
    Some(vec![
        ("products of constants".into(), theirs - madds),
        ("bias of recurrent layers: 1 per gate and step".into(), volume(&b) * evaluations),
        (
            format!("gate arithmetic of recurrent layers: {arithmetic} per hidden element and step, one direction"),
            arithmetic * state,
        ),
    ])
}
