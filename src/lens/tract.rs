//! tract: the static cost `FMA(F32)` of its optimized graph, as `Runnable.profile_json` (or `tract model.onnx -O dump --cost`) gives it.
//! <https://github.com/sonos/tract/blob/main/core/src/ops/mod.rs> (`Cost`), the operators' `cost` functions beside it.
//!
//! It counts multiplications: an addition, a maximum, a softmax or a HardSwish costs nothing, a sigmoid 11, and what is fused into the
//! epilogue of a product costs nothing. Divisions are a figure of their own.

use super::evidence;
use super::patterns::Matcher;
use super::{Books, Subject, Tool, volume};
use crate::ir::{Graph, Node, NodeId, Source, ValueId};
use crate::ops::Op;

pub const TOOL: Tool = Tool { name: "tract", version: "0.23.9", figure: "FMA(F32)", count };

fn count(s: &Subject, books: &mut Books) {
    let graph = s.graph;
    // Asking for a shape reads nothing.
    let mut readers = vec![0; graph.values().len()];
    let running = graph.nodes().iter().filter(|n| !n.is_static);
    running.flat_map(|n| n.inputs.iter().flatten()).for_each(|v| readers[v.0 as usize] += 1);
    let mut matcher = Matcher::new(graph, vec![false; graph.nodes().len()]);
    for (id, node) in graph.iter().filter(|(_, n)| !n.is_static) {
        if matches!(node.op, Op::Opaque(_) | Op::Quant(_) | Op::QLinear(_) | Op::Control(_)) {
            books.refuse(format!("its cost of {} is not modelled", node.op_type));
            continue;
        }
        let Some((nodes, what)) = matcher.group(id) else { continue };
        let last = graph.node(nodes[nodes.len() - 1]);
        let (Some(x), Some(y)) = (elements(graph, node.inputs.first()), elements(graph, last.outputs.first())) else {
            continue;
        };
        let (per, why) = match what {
            "sigmoid" => (11, "Sigmoid: 11 per element"),
            "tanh" => (11, "Tanh: 11 per element"),
            "silu" => (12, "SiLU: 12 per element"),
            "gelu" => (14, "GELU: 14 per element"),
            "hardsigmoid" => (1, "HardSigmoid: 1 per element"),
            "batch_norm" if !behind_product(graph, &readers, node) => {
                (1, "BatchNormalization that no convolution takes in: 1 per element")
            }
            "layer_norm" => {
                let row = graph.value(node.inputs[0].unwrap_or(ValueId(0))).fact.shape.concrete();
                let row = row.and_then(|d| d.last().copied()).unwrap_or(1).max(1) as i128;
                books.add("LayerNormalization: 5 per element and 1 per row", 1, 5 * y + y / row);
                continue;
            }
            "adaptive_avg_pool2d" | "mean" => {
                books.add("means: 1 per input and per output element", 1, x + y);
                continue;
            }
            "mul" if !behind_product(graph, &readers, node) && !into_mul(graph, &readers, node) => {
                (1, "Mul outside the epilogue of a product: 1 per output element")
            }
            "scaled_dot_product_attention" => {
                for node in nodes.iter().map(|&n| graph.node(n)).filter(|n| n.op_type == "Mul") {
                    if !behind_product(graph, &readers, node) {
                        let made = elements(graph, node.outputs.first()).unwrap_or(0);
                        books.add("Mul outside the epilogue of a product: 1 per output element", 1, made);
                    }
                }
                continue;
            }
            "gru" => {
                books.add("GRU costs nothing", 1, -madds(s, id));
                continue;
            }
            _ => continue,
        };
        books.add(why, 1, per * y);
    }
}

fn madds(s: &Subject, id: NodeId) -> i128 {
    i128::from(s.analysis.rows[id.0 as usize].work().unwrap_or_default().madds)
}

fn elements(graph: &Graph, v: Option<&Option<ValueId>>) -> Option<i128> {
    Some(volume(&graph.value((*v?)?).fact.shape.concrete()?))
}

/// Whether a product by a constant is fused into the product of matrices or the convolution before it, past additions of constants and
/// moves of data.
fn behind_product(graph: &Graph, readers: &[usize], node: &Node) -> bool {
    let data: Vec<ValueId> = node.inputs.iter().flatten().copied().filter(|v| !graph.value(*v).is_static).collect();
    let [mut at] = data[..] else { return false };
    loop {
        if readers[at.0 as usize] != 1 {
            return false;
        }
        let Source::Node(id, _) = graph.value(at).source else { return false };
        let maker = graph.node(id);
        match maker.op_type.as_str() {
            "Conv" | "ConvTranspose" | "MatMul" | "Gemm" | "Einsum" => return true,
            "Add" | "Sub" | "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Cast" => {
                let data: Vec<ValueId> =
                    maker.inputs.iter().flatten().copied().filter(|v| !graph.value(*v).is_static).collect();
                let [before] = data[..] else { return false };
                at = before;
            }
            _ => return false,
        }
    }
}

/// Whether a chain of elementwise operators takes it in, whose last product is charged for all.
fn into_mul(graph: &Graph, readers: &[usize], node: &Node) -> bool {
    let Some(mut out) = node.outputs.first().copied().flatten() else { return false };
    loop {
        if readers[out.0 as usize] != 1 {
            return false;
        }
        let Some(next) = graph.nodes().iter().find(|n| !n.is_static && n.inputs.contains(&Some(out))) else {
            return false;
        };
        // What a chain takes in beside its data is constant.
        let alone = next.inputs.iter().flatten().filter(|v| !graph.value(**v).is_static).count() == 1;
        match (next.op_type.as_str(), next.outputs.first().copied().flatten()) {
            ("Mul", _) if alone && evidence::origin(next).path == evidence::origin(node).path => return true,
            ("Add" | "Sub" | "Min" | "Max" | "Relu" | "Clip" | "Transpose" | "Reshape", Some(o)) if alone => out = o,
            _ => return false,
        }
    }
}
