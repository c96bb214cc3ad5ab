//! Raising a model's operator set where that changes nothing: blocks may need operators that came later.

use crate::ops::spec::{GraphSpec, ModelSpec, NodeSpec};

/// Operators of which every version since the given one, up to 24, means the same for the same inputs and attributes: later versions
/// only added types, or attributes and inputs whose defaults keep the old meaning.
const STABLE: &[(&str, i64)] = &[
    ("Add", 7),
    ("BatchNormalization", 9),
    ("Cast", 9),
    ("Clip", 11),
    ("Concat", 11),
    ("Constant", 9),
    ("Conv", 1),
    ("ConvTranspose", 11),
    ("DepthToSpace", 11),
    ("DequantizeLinear", 10),
    ("Div", 7),
    ("Elu", 6),
    ("Erf", 9),
    ("Exp", 6),
    ("Expand", 8),
    ("Flatten", 9),
    ("Gather", 11),
    ("Gemm", 11),
    ("GlobalAveragePool", 1),
    ("GlobalMaxPool", 1),
    ("HardSigmoid", 6),
    ("HardSwish", 14),
    ("Identity", 1),
    ("InstanceNormalization", 6),
    ("LRN", 1),
    ("LeakyRelu", 6),
    ("MatMul", 9),
    ("MaxPool", 10),
    ("Mul", 7),
    ("PRelu", 9),
    ("Pow", 12),
    ("QuantizeLinear", 10),
    ("ReduceMean", 18),
    ("Relu", 6),
    ("Reshape", 5),
    ("Shape", 1),
    ("Sigmoid", 6),
    ("Slice", 10),
    ("Softmax", 13),
    ("Sqrt", 6),
    ("Squeeze", 13),
    ("Sub", 7),
    ("Tanh", 6),
    ("Transpose", 1),
    ("Unsqueeze", 13),
];

/// Raises the operator set of `ai.onnx` to at least `version`.
///
/// # Errors
/// If the meaning of an operator may change; the text says which.
pub fn raise(spec: &mut ModelSpec, version: i64) -> Result<(), String> {
    let current = spec.opset("");
    if current >= version {
        return Ok(());
    }
    if let Some(node) = spec.graph.nodes.iter().find(|n| n.domain.is_empty() && !is_stable(n)) {
        return Err(format!(
            "needs operator set {version}, and {} may mean something else there than in {current}",
            node.op_type
        ));
    }
    for o in spec.opsets.iter_mut().filter(|(d, _)| d.is_empty()) {
        o.1 = version;
    }
    spec.ir_version = spec.ir_version.max(if version <= 18 { 8 } else { 9 });
    set(&mut spec.graph, version);
    Ok(())
}

fn set(graph: &mut GraphSpec, version: i64) {
    for node in graph.nodes.iter_mut().filter(|n| n.domain.is_empty()) {
        node.opset = version;
    }
}

fn is_stable(node: &NodeSpec) -> bool {
    let has_subgraph = node.attrs.values().any(|a| matches!(a, crate::ops::spec::Attr::Graph(_)));
    let listed = STABLE.iter().any(|(op, since)| *op == node.op_type && node.opset >= *since);
    // Average pooling with partial windows changed in 19; splitting without sizes in 18.
    let pool = node.op_type == "AveragePool" && node.opset >= 7 && !node.flag("ceil_mode", false).unwrap_or(true);
    let split = node.op_type == "Split" && node.opset >= 13 && node.has_input(1);
    !has_subgraph && (listed || pool || split)
}
